//! What the broker serves at one moment: targets with their driver, connection, roles and policy
//! chain, all resolved. Built whole from a configuration and swapped whole at a reload, so that no
//! request sees half of each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jit_core::account::AccountPrefix;
use jit_core::driver::Lane;
use jit_core::driver::{AccountView, Feature, RoleView, TargetView};
use jit_core::id::RequestId;
use jit_core::lease::{DriverRef, Lease, VerifierKind};
use jit_core::name::{Principal, RoleName, TargetName};
use jit_core::policy::{Mode, Operation, PolicyRequest};
use jit_core::rollout::{Rollout, ShareKey};
use jit_core::ttl::Ttl;
use jit_password::Verifier;
use tokio::sync::Semaphore;

use crate::facts::ContextLink;
use crate::places::{Site, with_recorded_place};
use crate::ports::{Driver, Drivers, FoundDriver, NoDrivers, Policy, Scope};
use crate::reach::Reach;
use crate::ready::LastForm;
use crate::refusal::Refused;
use crate::request::CheckedRequest;
use crate::rotation::RotatingAccount;
use jit_ledger::Counted;

/// A target's `config` table that is empty or not there.
const NO_CONFIG: &str = "{}";

/// One policy in a target's chain.
#[derive(Clone)]
pub struct ChainLink {
    /// Its name in the configuration.
    pub name: String,
    /// Whether it counts.
    pub mode: Mode,
    /// For whom it counts already; none is everybody.
    pub rollout: Option<Rollout>,
    /// By which its share is drawn; none where no share is.
    pub share_key: Option<ShareKey>,
    /// The component with its configuration.
    pub policy: Arc<dyn Policy>,
    /// The digest of that configuration, in hexadecimal.
    pub config_sha256: String,
}

impl ChainLink {
    /// How much it counts for this request, and, where it is being rolled out, whether it has reached
    /// the workload. For whom it has not, it is a shadow.
    #[must_use]
    pub fn reaches(&self, request: &PolicyRequest) -> (Mode, Option<bool>) {
        match &self.rollout {
            Some(rollout) if self.mode == Mode::Enforce => {
                let reached = rollout.reaches(self.share_key.as_ref(), &self.name, request);
                (if reached { Mode::Enforce } else { Mode::Shadow }, Some(reached))
            }
            _ => (self.mode, None),
        }
    }
}

/// Where applications connect.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// What is spoken there: the scheme of the URI (`postgres`).
    pub scheme: String,
    /// Host name or address, as the applications reach it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The database, where there is such a thing.
    pub database: Option<String>,
}

/// A configured target, resolved.
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// The driver's name in the configuration.
    pub driver_name: String,
    /// The driver on the target's connection.
    pub driver: Arc<dyn Driver>,
    /// The connection's name, for drivers that have one.
    pub connection: Option<String>,
    /// What the driver is told of the target.
    pub view: TargetView,
    /// Its roles, each with the slots for concurrent creations.
    pub roles: BTreeMap<RoleName, TargetRole>,
    /// The role of a request that names none.
    pub default_role: Option<RoleName>,
    /// The length of a lease that names none.
    pub default_ttl: Ttl,
    /// What no lease outlives, renewals included.
    pub max_ttl: Ttl,
    /// Room for decisions.
    pub deciding: Arc<Semaphore>,
    /// Who gathers facts for the policies.
    pub contexts: Arc<[ContextLink]>,
    /// The windows, in seconds, in which requests are counted for the policies; none where no policy
    /// wants anything counted.
    pub usage_windows: Option<Vec<u64>>,
    /// The policies, in order.
    pub chain: Arc<[ChainLink]>,
    /// The verifiers of callers that its driver places, in the order in which clients should prefer them.
    pub verifiers: Vec<OfferedVerifier>,
    /// How the names of its accounts begin.
    pub prefix: AccountPrefix,
    /// Where applications connect, if the target has such a place.
    pub endpoint: Option<Endpoint>,
    /// The deadline of one driver call.
    pub timeout: Duration,
    /// What the host knows of where its server is.
    pub site: Site,
}

/// A kind of verifier that a target takes from callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferedVerifier {
    /// Its kind.
    pub kind: VerifierKind,
    /// The least iterations; 0 where the kind has none.
    pub least_iterations: u32,
    /// The target's server itself lets nobody in with an empty password.
    pub never_empty: bool,
}

impl fmt::Display for OfferedVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.least_iterations {
            0 => write!(f, "verifier ({})", self.kind),
            least => write!(f, "verifier ({} with {least} iterations or more)", self.kind),
        }
    }
}

/// A role of a target.
pub struct TargetRole {
    /// What the driver is told of it.
    pub view: RoleView,
    /// At most half of the connection's sessions at once: a role that is slow to create leaves the
    /// other half to the rest.
    pub slots: Arc<Semaphore>,
    /// The form in which its driver placed a password last.
    pub form: LastForm,
    /// Where the role hands out one standing account whose password changes.
    pub rotating: Option<Arc<RotatingAccount>>,
}

impl Target {
    /// The verifiers that a role takes: none where it hands out a standing account, whose password the broker knows.
    #[must_use]
    pub fn verifiers(&self, role: &RoleName) -> &[OfferedVerifier] {
        let made = self.roles.get(role).is_some_and(|role| role.rotating.is_none());
        if made { &self.verifiers } else { &[] }
    }

    /// The role takes what the caller made, if it made something.
    ///
    /// # Errors
    /// [`Refused::NotOffered`], or [`Refused::WeakVerifier`] where it has too few iterations for this target.
    pub fn takes(&self, role: &RoleName, verifier: Option<&Verifier>) -> Result<(), Refused> {
        let Some(verifier) = verifier else { return Ok(()) };
        let offered = self.verifiers(role);
        if let Some(offered) = offered.iter().find(|offered| offered.kind == verifier.kind()) {
            return Ok(verifier.check_iterations(offered.least_iterations)?);
        }
        let offers = self.offers(role);
        Err(Refused::NotOffered { target: self.name.to_string(), reason: format!("role {role} offers {offers}") })
    }

    /// What a role offers, in words for the caller.
    #[must_use]
    pub fn offers(&self, role: &RoleName) -> String {
        let offers: Vec<_> = self.verifiers(role).iter().map(ToString::to_string).collect();
        std::iter::once("password".to_owned()).chain(offers).collect::<Vec<_>>().join(", ")
    }

    /// Whether the host has to look whether that verifier is one of an empty password: its server does not.
    #[must_use]
    pub fn may_be_empty(&self, verifier: &Verifier) -> bool {
        !self.verifiers.iter().any(|offered| offered.kind == verifier.kind() && offered.never_empty)
    }

    /// The scope of a call for a caller that waits.
    #[must_use]
    pub fn scope(&self, lane: Lane) -> Scope {
        Scope { deadline: self.timeout, lane }
    }

    /// What a lease records of its driver, but for the place.
    #[must_use]
    pub fn driver_ref(&self) -> DriverRef {
        DriverRef {
            plugin: self.driver_name.clone(),
            connection: self.connection.clone(),
            sha256: self.driver.sha256().to_owned(),
            name: Some(self.driver.description().name.clone()),
            config: Some(self.view.config.clone()).filter(|config| config != NO_CONFIG),
            place: None,
        }
    }

    /// Whether the backend chooses names and secrets.
    #[must_use]
    pub fn external(&self) -> bool {
        self.driver.description().has(Feature::ExternalAccounts)
    }

    /// Whether what is handed out stands before and after its lease.
    #[must_use]
    pub fn standing(&self) -> bool {
        self.driver.description().has(Feature::StandingAccounts)
    }

    /// How long the backend may have an account that the store does not know yet, because the call
    /// that makes it is still under way or its answer got lost.
    #[must_use]
    pub fn grace(&self) -> Duration {
        2 * self.timeout
    }

    /// What is to be counted of a request; none where no policy of this target wants anything counted.
    #[must_use]
    pub fn counted(
        &self,
        request_id: RequestId,
        principal: Principal,
        at: Timestamp,
        operation: &Operation,
    ) -> Option<Counted> {
        Some(Counted {
            request_id,
            principal,
            target: self.name.clone(),
            at,
            windows: self.usage_windows.clone()?,
            // A renewal's lease is among the live ones already.
            holds: *operation == Operation::Issue,
            again: false,
        })
    }

    /// Whether leases can be renewed.
    #[must_use]
    pub fn renewable(&self) -> bool {
        self.driver.description().has(Feature::Renew)
    }
}

/// Everything that is served.
pub struct Serving {
    /// The targets, by name.
    pub targets: BTreeMap<TargetName, Arc<Target>>,
    /// The drivers by the names that leases record: also of targets that were moved away from them.
    pub drivers: Arc<dyn Drivers>,
    /// Which of them are away.
    pub reach: Arc<Reach>,
}

impl Default for Serving {
    /// No target at all.
    fn default() -> Self {
        Self { targets: BTreeMap::new(), drivers: Arc::new(NoDrivers), reach: Arc::default() }
    }
}

impl Serving {
    /// The target that is asked for, its role, and the length within its cap.
    ///
    /// # Errors
    /// [`Refused::UnknownTarget`], [`Refused::RoleNotAllowed`], a missing role, or a verifier that is not taken.
    pub fn find(&self, request: &CheckedRequest) -> Result<(Arc<Target>, RoleName, Ttl), Refused> {
        let target = self.targets.get(&request.target).cloned();
        let target = target.ok_or_else(|| Refused::UnknownTarget(request.target.to_string()))?;
        let role = request.role.clone().or_else(|| target.default_role.clone());
        let role = role.ok_or_else(|| Refused::field("role", "this target has no default role: send \"role\""))?;
        if !target.roles.contains_key(&role) {
            return Err(Refused::RoleNotAllowed { target: target.name.to_string(), role: role.to_string() });
        }
        target.takes(&role, request.verifier.as_ref())?;
        let ttl = request.ttl.unwrap_or(target.default_ttl).min(target.max_ttl);
        Ok((target, role, ttl))
    }

    /// Who removes an account: the driver and connection that made it, found by the lease's own
    /// record, so that a target which was moved to another driver is not asked the wrong one.
    ///
    /// # Errors
    /// In words for operators, when the configuration no longer has them.
    pub fn remover(&self, target: &TargetName, made_by: &DriverRef) -> Result<Remover, String> {
        let FoundDriver { driver, site } = self.drivers.find(&made_by.plugin, made_by.connection.as_deref())?;
        let now = &driver.description().name;
        if let Some(then) = made_by.name.as_ref().filter(|then| *then != now) {
            let plugin = &made_by.plugin;
            // It would find nothing by that name, and call that a success.
            return Err(format!("the driver {plugin} was {then} and is now {now}, which did not make the account"));
        }
        let configured = self.targets.get(target);
        // What an operator mends in the target holds for its old leases as well, but for what says where
        // their accounts are; what another driver is told does not.
        let config = match configured.filter(|configured| configured.driver_ref().same_maker(made_by)) {
            Some(same) => with_recorded_place(&same.view.config, made_by),
            None => made_by.config.clone().unwrap_or_else(|| NO_CONFIG.to_owned()),
        };
        let view = TargetView { name: target.clone(), config };
        let deadline = configured.map_or(Duration::from_secs(30), |configured| configured.timeout);
        let scope = Scope { deadline, lane: Lane::Removal };
        Ok(Remover { driver, view, scope, site })
    }
}

/// The account of a lease as its driver sees it at a time.
#[must_use]
pub fn account_view(lease: &Lease, now: Timestamp) -> AccountView {
    AccountView {
        name: lease.account.clone(),
        lease_id: lease.id.clone(),
        workload: lease.principal.workload.clone(),
        expires_at: u64::try_from(lease.expires_at.as_second()).unwrap_or(0),
        external_id: lease.external_id.clone(),
        now: u64::try_from(now.as_second()).unwrap_or(0),
    }
}

/// All that a removal needs.
pub struct Remover {
    /// The driver that made the account.
    pub driver: Arc<dyn Driver>,
    /// The target as the driver sees it.
    pub view: TargetView,
    /// Connection, deadline, lane.
    pub scope: Scope,
    /// What the host knows of where its server is.
    pub site: Site,
}
