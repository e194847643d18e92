//! The facade of drivers: THREE-OUTCOMES.
//!
//! A driver's answer, its failure and the end of its time all become an [`Outcome`]. What decides
//! between refused and unknown is not the driver's word alone: the host knows whether anything was
//! sent that may have changed the backend.

use std::sync::Arc;
use std::time::Duration;

use jit_core::driver::{
    AccountPage, AccountState, AccountView, Description, Feature, Issued, RoleView, RotationStep, TargetView,
};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::secret::AccountSecret;
use secrecy::SecretString;
use tokio::time::Instant;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Lift, Lower, Resource};

use crate::answer::{self, backend_name, pairs, reason, refuse};
use crate::backend::Connection;
use crate::bindings::{driver, types};
use crate::call::{Call, Pace};
use crate::capability::secrets::GuestSecret;
use crate::declared::Declared;
use crate::fault::{FaultKind, lines};
use crate::loaded::Loaded;
use crate::meter::{Track, millis};
use jit_core::driver::Lane;
use jit_core::trace::OnBehalf;

/// How much later than asked for a backend's expiry may be, in seconds: some count in days.
const COARSEST_EXPIRY: u64 = 86_400;

/// The latest time that is taken from a driver: the year 9999, in seconds since the Unix epoch.
const LATEST: u64 = 253_402_300_799;

/// Longest handle of a backend (`external-id`) and longest cursor of a page, in bytes.
const HANDLE: usize = 1_024;

/// What a driver call works with.
#[derive(Debug, Clone)]
pub struct DriverScope {
    /// What the target's driver works on, if it has something.
    pub connection: Option<Connection>,
    /// How long the whole call may take: waiting for a slot, guest time and calls to the backend.
    pub deadline: Duration,
    /// Of removals or of what callers wait for.
    pub lane: Lane,
    /// For whom the call is made: the backend's log can name it.
    pub on_behalf: OnBehalf,
}

impl DriverScope {
    /// Whether a login with that name and password succeeds now. None where the connection cannot try.
    ///
    /// # Errors
    /// When the backend neither lets it in nor says that name or password are wrong.
    pub async fn authenticate(&self, user: &str, password: &SecretString) -> Option<Result<bool, String>> {
        let trying = self.connection.as_ref()?.authenticate(user, password);
        match tokio::time::timeout(self.deadline, trying).await {
            Ok(tried) => tried.map(|tried| tried.map_err(|unavailable| unavailable.0)),
            Err(_) => Some(Err(format!("the login was not answered within {} ms", millis(self.deadline)))),
        }
    }
}

/// A loaded driver. Each call runs on a fresh instance. Dropping a call's future ends the call; a
/// statement that was under way is then ended in the server before anything else is run there.
#[derive(Debug, Clone)]
pub struct DriverPlugin {
    pub(crate) loaded: Arc<Loaded>,
    shared: Arc<Shared>,
}

/// What a driver says of itself, checked at load.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) description: Description,
    pub(crate) declared: Declared,
    /// Every statement that it lists, in alphabetical order.
    pub(crate) statements: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    description: Description,
    /// What the capabilities read of it at load.
    declared: Declared,
    statements: Vec<String>,
    validate: ComponentExportIndex,
    create: ComponentExportIndex,
    renew: ComponentExportIndex,
    rotate: ComponentExportIndex,
    revoke: ComponentExportIndex,
    inspect: ComponentExportIndex,
    list_accounts: ComponentExportIndex,
    maintain: ComponentExportIndex,
    place: ComponentExportIndex,
}

/// Whether a verb can change the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Reads,
    Changes,
}

impl DriverPlugin {
    /// `None` when the interface lacks a function.
    pub(crate) fn new(loaded: Arc<Loaded>, told: Told) -> Option<Self> {
        let Told { description, declared, statements } = told;
        let shared = Shared {
            description,
            declared,
            statements,
            validate: loaded.function("validate")?,
            create: loaded.function("create")?,
            renew: loaded.function("renew")?,
            rotate: loaded.function("rotate")?,
            revoke: loaded.function("revoke")?,
            inspect: loaded.function("inspect")?,
            list_accounts: loaded.function("list-accounts")?,
            maintain: loaded.function("maintain")?,
            place: loaded.function("place")?,
        };
        Some(Self { loaded, shared: Arc::new(shared) })
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.loaded.name
    }

    /// The SHA-256 of its component, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.loaded.sha256
    }

    /// What it says of itself, checked at load.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.shared.description
    }

    /// Every statement that it can run, in alphabetical order. Empty without the `sql` capability.
    #[must_use]
    pub fn templates(&self) -> &[String] {
        &self.shared.statements
    }

    /// Checks a target's configuration, as far as the backend answers.
    pub async fn validate(&self, scope: &DriverScope, target: &TargetView, roles: &[RoleView]) -> Outcome<()> {
        let roles: Vec<_> = roles.iter().map(role_to_wire).collect();
        let params = (target_to_wire(target), roles);
        self.run(scope, Verb::Reads, &self.shared.validate, None, |_| params, |(), _| Ok(())).await
    }

    /// Makes the account with that password, or with the verifier of one that the caller made.
    pub async fn create(
        &self,
        scope: &DriverScope,
        target: &TargetView,
        role: &RoleView,
        account: &AccountView,
        secret: impl Into<AccountSecret> + Send,
    ) -> Outcome<Issued> {
        let params = (target_to_wire(target), role_to_wire(role), account_to_wire(account));
        self.run(
            scope,
            Verb::Changes,
            &self.shared.create,
            Some(secret.into()),
            |secret| (params.0, params.1, params.2, secret.unwrap_or_else(no_secret)),
            |issued, call| self.issued(issued, account, call),
        )
        .await
    }

    /// Moves the account's own expiry; gives what the backend set.
    pub async fn renew(
        &self,
        scope: &DriverScope,
        target: &TargetView,
        role: &RoleView,
        account: &AccountView,
    ) -> Outcome<u64> {
        let params = (target_to_wire(target), role_to_wire(role), account_to_wire(account));
        let asked = account.expires_at;
        self.run(
            scope,
            Verb::Changes,
            &self.shared.renew,
            None,
            |_| params,
            |expiry: u64, _| {
                if expiry == 0 || expiry > asked.saturating_add(COARSEST_EXPIRY) {
                    return Err(refuse(format!("an expiry of {expiry} where {asked} was asked for")));
                }
                Ok(expiry)
            },
        )
        .await
    }

    /// Changes the account's password, one step of three.
    pub async fn rotate(
        &self,
        scope: &DriverScope,
        target: &TargetView,
        account: &AccountView,
        step: RotationStep,
        password: Option<&SecretString>,
    ) -> Outcome<()> {
        let step = match step {
            RotationStep::Stage => driver::RotationStep::Stage,
            RotationStep::Commit => driver::RotationStep::Commit,
            RotationStep::Discard => driver::RotationStep::Discard,
            RotationStep::Replace => driver::RotationStep::Replace,
        };
        let params = (target_to_wire(target), account_to_wire(account));
        self.run(
            scope,
            Verb::Changes,
            &self.shared.rotate,
            password.map(AccountSecret::from),
            |secret| (params.0, params.1, step, secret),
            |(), _| Ok(()),
        )
        .await
    }

    /// Removes the account. Done, too, when there is none.
    pub async fn revoke(&self, scope: &DriverScope, target: &TargetView, account: &AccountView) -> Outcome<()> {
        let params = (target_to_wire(target), account_to_wire(account));
        let outcome = self.run(scope, Verb::Changes, &self.shared.revoke, None, |_| params, |(), _| Ok(())).await;
        match outcome {
            // The contract calls this a success; a driver that says it the other way means the same.
            Outcome::Refused(Refusal::NotFound) => Outcome::Done(()),
            other => other,
        }
    }

    /// What the backend says of an account.
    pub async fn inspect(&self, scope: &DriverScope, target: &TargetView, name: &str) -> Outcome<AccountState> {
        let params = (target_to_wire(target), name.to_owned());
        self.run(
            scope,
            Verb::Reads,
            &self.shared.inspect,
            None,
            |_| params,
            |state: driver::AccountState, call| {
                if state.expires_at.is_some_and(|expiry| expiry > LATEST) {
                    return Err(refuse("an expiry after the year 9999"));
                }
                Ok(AccountState {
                    can_login: state.can_login,
                    expires_at: state.expires_at,
                    properties: pairs("property", state.properties, &call.meter.limits)?,
                })
            },
        )
        .await
    }

    /// A page of the accounts whose names begin with the prefix; of external accounts, the handles
    /// of all that the broker had made.
    pub async fn list_accounts(
        &self,
        scope: &DriverScope,
        target: &TargetView,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Outcome<AccountPage> {
        let params = (target_to_wire(target), prefix.to_owned(), cursor.map(str::to_owned));
        let prefix = (!self.shared.description.has(Feature::ExternalAccounts)).then_some(prefix);
        self.run(
            scope,
            Verb::Reads,
            &self.shared.list_accounts,
            None,
            |_| params,
            |page: driver::AccountPage, call| check_page(page, prefix, cursor, call.meter.limits.page),
        )
        .await
    }

    /// Does what has to be done between calls; gives after how long again, from a second to a day.
    pub async fn maintain(&self, scope: &DriverScope, target: &TargetView) -> Outcome<Duration> {
        let params = (target_to_wire(target),);
        let again = |seconds: u64, _: &mut Call| Ok(Duration::from_secs(seconds.clamp(1, 86_400)));
        self.run(scope, Verb::Reads, &self.shared.maintain, None, |_| params, again).await
    }

    /// Where the target's accounts are, in the backend's words: names and values, each name once, no
    /// value empty.
    pub async fn place(&self, scope: &DriverScope, target: &TargetView) -> Outcome<Vec<(String, String)>> {
        let params = (target_to_wire(target),);
        let check = |told: Vec<(String, String)>, call: &mut Call| {
            let told = pairs("place", told, &call.meter.limits)?;
            match told.iter().find(|(_, value)| value.is_empty()) {
                Some((name, _)) => Err(refuse(format!("place {name:?} without a value"))),
                None => Ok(told),
            }
        };
        self.run(scope, Verb::Reads, &self.shared.place, None, |_| params, check).await
    }

    /// What creation gave, checked.
    fn issued(&self, issued: driver::Issued, account: &AccountView, call: &mut Call) -> Result<Issued, FaultKind> {
        let secret = match issued.secret {
            Some(handle) => {
                let secret = call.table.delete(handle).map_err(|_| refuse("a secret that it does not own"))?;
                Some(secret.into_password().map_err(refuse)?)
            }
            None => None,
        };
        let external = self.shared.description.has(Feature::ExternalAccounts);
        if let Some(username) = &issued.username {
            backend_name("a user name", username)?;
            if !external && username != account.name.as_str() {
                return Err(refuse("another user name than the host chose, without the feature external-accounts"));
            }
        } else if external {
            return Err(refuse("no user name, although its backend chooses it"));
        }
        if issued
            .external_id
            .as_ref()
            .is_some_and(|id| id.is_empty() || id.len() > HANDLE || !crate::text::is_plain(id))
        {
            return Err(refuse("an external-id that is empty, too long or has control characters"));
        }
        if let Some(expiry) = issued.expires_at
            && (expiry == 0 || expiry > account.expires_at)
        {
            // It may only be capped: the lease's expiry is the host's to set.
            return Err(refuse(format!("an expiry of {expiry} where {} was asked for", account.expires_at)));
        }
        Ok(Issued {
            username: issued.username,
            secret,
            external_id: issued.external_id,
            expires_at: issued.expires_at,
            properties: pairs("property", issued.properties, &call.meter.limits)?,
        })
    }

    /// One call, from the wait for a slot to the checked answer.
    async fn run<P, R, T>(
        &self,
        scope: &DriverScope,
        verb: Verb,
        function: &ComponentExportIndex,
        secret: Option<AccountSecret>,
        params: impl FnOnce(Option<Resource<GuestSecret>>) -> P + Send,
        check: impl FnOnce(R, &mut Call) -> Result<T, FaultKind> + Send,
    ) -> Outcome<T>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: Send + 'static,
        T: Send,
        (Result<R, types::Error>,): ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let end = Instant::now() + scope.deadline;
        let slot = tokio::time::timeout_at(end, self.loaded.core.driver_slot(scope.lane)).await;
        let Ok(Ok(_slot)) = slot else {
            return self.failed(FaultKind::Overloaded, verb, &Track::default());
        };

        let mut call = self.loaded.call();
        call.meter.on_behalf = scope.on_behalf.clone();
        if let Some(connection) = &scope.connection {
            self.loaded.connect(&mut call, connection, scope.lane, &self.shared.declared);
        }
        // Only a full table refuses one.
        let pushed = secret.map(|secret| call.table.push(GuestSecret::from(secret))).transpose();
        let Ok(handle) = pushed else {
            let limit = call.meter.limits.resources;
            return self.failed(FaultKind::Resources { limit }, verb, &Track::default());
        };
        let borrowed = handle.as_ref().map(|handle| Resource::new_borrow(handle.rep()));
        let params = params(borrowed);
        let track = Arc::clone(&call.meter.track);
        let mut store = call.into_store(&self.loaded.core.engine, Pace::Yielding);

        let pre = &self.loaded.pre;
        let calling = async {
            let instance = pre.instantiate_async(&mut store).await?;
            let function = instance.get_typed_func::<P, (Result<R, types::Error>,)>(&mut store, function)?;
            function.call_async(&mut store, params).await
        };
        let called = tokio::time::timeout_at(end, track.metered(calling)).await;
        let answer = match called {
            Ok(Ok((answer,))) => answer,
            Ok(Err(error)) => {
                let kind = store.data_mut().fault(&error);
                return self.failed(kind, verb, &track);
            }
            Err(_) => {
                let limit_ms = millis(scope.deadline);
                return self.failed(FaultKind::CallDeadline { limit_ms }, verb, &track);
            }
        };
        let call = store.data_mut();
        let outcome = match answer {
            Ok(value) => match check(value, call) {
                Ok(value) => Outcome::Done(value),
                Err(kind) => self.failed(kind, verb, &track),
            },
            Err(error) => self.said(error, verb, &track),
        };
        self.count_left_behind(call, handle);
        outcome
    }

    /// Takes the call's own handle back and counts what else is still there.
    fn count_left_behind(&self, call: &mut Call, handle: Option<Resource<GuestSecret>>) {
        if let Some(handle) = handle {
            // Only we own it; when it is gone, that is counted below as well.
            let gone = call.table.delete(handle).is_err();
            self.loaded.core.count_left_behind(usize::from(gone));
        }
        if !call.table.is_empty() {
            self.loaded.core.count_left_behind(1);
        }
    }

    /// The plugin failed.
    fn failed<T>(&self, kind: FaultKind, verb: Verb, track: &Track) -> Outcome<T> {
        let transient = matches!(kind, FaultKind::Overloaded | FaultKind::CallDeadline { .. });
        let text = self.loaded.fault(kind).to_string();
        if track.effect_possible() && verb == Verb::Changes {
            Outcome::Unknown(text)
        } else if transient {
            // The plugin or this machine was too slow. Where the backend is away, its connection says so.
            Outcome::Refused(Refusal::Unavailable { reason: text, answered: track.answered(), after_ms: None })
        } else {
            Outcome::Refused(Refusal::Plugin(text))
        }
    }

    /// The plugin answered with an error of the contract.
    fn said<T>(&self, error: types::Error, verb: Verb, track: &Track) -> Outcome<T> {
        let limits = &self.loaded.core.limits;
        if verb == Verb::Changes
            && track.is_in_doubt()
            && let Some(text) = nothing_done(&error)
        {
            // The capability knows better than the driver: a change was sent, and no answer says that it
            // was not made.
            return Outcome::Unknown(reason(text, limits));
        }
        if let Some(unfit) = track.unfit()
            && !track.effect_possible()
        {
            return Outcome::Refused(Refusal::Verifier(unfit.to_owned()));
        }
        let refusal = match error {
            types::Error::NotFound => Refusal::NotFound,
            types::Error::Refused(text) => Refusal::Target(reason(&text, limits)),
            types::Error::Retryable(retry) => {
                // More than an hour is the host's own choice of pace to make.
                let after_ms = retry.after_ms.filter(|ms| *ms <= 3_600_000);
                Refusal::Unavailable { reason: reason(&retry.reason, limits), answered: track.answered(), after_ms }
            }
            types::Error::Dependents(list) => Refusal::Dependents(answer::dependents(list)),
            types::Error::Conflict(text) => Refusal::Conflict(reason(&text, limits)),
            types::Error::InvalidConfig(list) => Refusal::Configuration(lines(&answer::problems(list, limits))),
            types::Error::OutcomeUnknown(text) if verb == Verb::Changes => {
                return Outcome::Unknown(reason(&text, limits));
            }
            // A verb that only reads has no unknown outcome: it can be asked again.
            types::Error::OutcomeUnknown(text) => {
                Refusal::Unavailable { reason: reason(&text, limits), answered: track.answered(), after_ms: None }
            }
            types::Error::Other(text) if verb == Verb::Changes && track.effect_possible() => {
                return Outcome::Unknown(reason(&text, limits));
            }
            types::Error::Other(text) => Refusal::Target(reason(&text, limits)),
        };
        Outcome::Refused(refusal)
    }
}

/// The text of an error by which a driver says that nothing was done.
fn nothing_done(error: &types::Error) -> Option<&str> {
    match error {
        types::Error::Refused(text) | types::Error::Conflict(text) => Some(text),
        types::Error::Retryable(retry) => Some(&retry.reason),
        _ => None,
    }
}

/// A handle that no table has. The guest traps when it uses it; only `create` needs one and always
/// has it.
fn no_secret() -> Resource<GuestSecret> {
    Resource::new_borrow(u32::MAX)
}

fn check_page(
    page: driver::AccountPage,
    prefix: Option<&str>,
    cursor: Option<&str>,
    most: usize,
) -> Result<AccountPage, FaultKind> {
    if page.names.len() > most {
        return Err(refuse(format!("a page of {} names, at most {most} are taken", page.names.len())));
    }
    for name in &page.names {
        match prefix {
            Some(prefix) => {
                backend_name("an account name", name)?;
                if !name.starts_with(prefix) {
                    return Err(refuse("an account name without the prefix that was asked for"));
                }
            }
            None if name.is_empty() || name.len() > HANDLE || !crate::text::is_plain(name) => {
                return Err(refuse("an external id that is empty, too long or has control characters"));
            }
            None => {}
        }
    }
    if let Some(next) = &page.next {
        if next.is_empty() || next.len() > HANDLE {
            return Err(refuse("a cursor that is empty or too long"));
        }
        if cursor == Some(next.as_str()) {
            return Err(refuse("the cursor that it was given, which would never end"));
        }
    }
    Ok(AccountPage { names: page.names, next: page.next })
}

fn target_to_wire(target: &TargetView) -> driver::Target {
    driver::Target { name: target.name.as_str().to_owned(), config: target.config.clone() }
}

fn role_to_wire(role: &RoleView) -> driver::Role {
    driver::Role { name: role.name.as_str().to_owned(), config: role.config.clone() }
}

fn account_to_wire(account: &AccountView) -> driver::Account {
    driver::Account {
        name: account.name.as_str().to_owned(),
        lease_id: account.lease_id.as_str().to_owned(),
        workload: account.workload.clone(),
        expires_at: account.expires_at,
        external_id: account.external_id.clone(),
        now: account.now,
    }
}
