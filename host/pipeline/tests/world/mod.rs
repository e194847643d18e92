//! A broker in memory: its pipeline and tasks as they are, a store and a backend that fail as a test plans it, and
//! tokio's paused time.
#![allow(dead_code, reason = "each test binary uses a part of it")]

mod backend;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use jit_api::{IssueRequest, RenewRequest};
use jit_core::account::{AccountName, AccountPrefix};
use jit_core::brake::Bound;
use jit_core::driver::{RoleView, TargetView};
use jit_core::id::{LeaseId, RequestId};
use jit_core::lease::Lease;
use jit_core::looked_at::LookedAt;
use jit_core::name::{RoleName, TargetName};
use jit_core::policy::{Allowance, Mode, PolicyRequest, Verdict};
use jit_core::rotation::Schedule;
use jit_core::space::Marks;
use jit_core::ttl::Ttl;
use jit_identity::{Claimed, Declined, Evidence, Identity, IdentityOptions, Method, Unverified, Verified};
use jit_ledger::{LeaseFilter, Store as _};
use jit_ledger_memory::{Faults, MemoryLedger};
use jit_pipeline::birth::Birth;
use jit_pipeline::broker::{Broker, Parts};
use jit_pipeline::denials::DenialBudget;
use jit_pipeline::facts::ContextLink;
use jit_pipeline::issue::{Disclosure, issue};
use jit_pipeline::limits::RateLimits;
use jit_pipeline::places::Site;
use jit_pipeline::ports::{Clock, Driver, Drivers, FoundDriver, Policy, PolicyFault, PolicyReply, SystemClock};
use jit_pipeline::refusal::Refused;
use jit_pipeline::renew::renew;
use jit_pipeline::request::CheckedRequest;
use jit_pipeline::revoke::revoke_own;
use jit_pipeline::rotation::RotatingAccount;
use jit_pipeline::sealing::Sealer;
use jit_pipeline::space::Space;
use jit_pipeline::target::{ChainLink, Serving, Target, TargetRole};
use jit_pipeline::tasks::driver;
use jit_pipeline::tasks::removal::Removal;
use jit_pipeline::tasks::rotation::RotationTask;
use jit_pipeline::undo;
use tokio::sync::Semaphore;
use tokio::time::Instant;

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use backend::{Answer, Backend, Verb};

/// The target, the role, the plugin.
pub(crate) const SHOP: &str = "shop";
pub(crate) const APP: &str = "app";
/// A narrower role of the same target.
pub(crate) const READ_ONLY: &str = "read-only";
/// The role that hands out a standing account's password, and that account.
pub(crate) const STANDING: &str = "standing";
const ACCOUNT: &str = "shop_standing";
/// When a standing account's password changes, and how long the one before works on.
pub(crate) const PERIOD: Duration = Duration::from_secs(3_600);
pub(crate) const OVERLAP: Duration = Duration::from_secs(600);
const PLUGIN: &str = "driver";

/// When every test begins.
fn began() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// A wall clock that shows the paused time.
#[derive(Debug)]
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn wall(&self) -> Timestamp {
        began() + self.0.elapsed()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A policy that is a function.
struct Says<F>(F);

impl<F: Fn(&PolicyRequest) -> Result<Verdict, PolicyFault> + Send + Sync> Policy for Says<F> {
    fn sha256(&self) -> &str {
        "00"
    }

    fn decide(&self, request: &PolicyRequest) -> PolicyReply {
        PolicyReply { verdict: (self.0)(request), looked_at: LookedAt::default(), remembered: false }
    }
}

/// A policy of a chain.
pub(crate) fn policy(
    name: &str,
    mode: Mode,
    says: impl Fn(&PolicyRequest) -> Result<Verdict, PolicyFault> + Send + Sync + 'static,
) -> ChainLink {
    ChainLink {
        name: name.to_owned(),
        mode,
        rollout: None,
        share_key: None,
        policy: Arc::new(Says(says)),
        config_sha256: "00".to_owned(),
    }
}

/// A yes without conditions.
pub(crate) fn yes(_: &PolicyRequest) -> Result<Verdict, PolicyFault> {
    Ok(Verdict::Allow(Allowance::default()))
}

/// An identity method that believes every token.
struct Anybody;

#[async_trait]
impl Method for Anybody {
    fn name(&self) -> &str {
        "cluster"
    }

    fn attributes(&self) -> Vec<String> {
        Vec::new()
    }

    async fn verify(&self, _: &Evidence) -> Result<Claimed, Declined> {
        Ok(Claimed {
            workload: "payment".to_owned(),
            subject: "payment-1".to_owned(),
            attributes: BTreeMap::new(),
            expires_at: SystemClock.wall() + SignedDuration::from_hours(1),
            generation: None,
        })
    }

    fn generation(&self) -> Option<u64> {
        None
    }

    async fn warm(&self) {}

    async fn ask(&self) -> Result<usize, String> {
        Ok(1)
    }

    fn refresh(&self) {}
}

struct OneDriver(Arc<Backend>);

impl Drivers for OneDriver {
    fn find(&self, plugin: &str, _: Option<&str>) -> Result<FoundDriver, String> {
        if plugin != PLUGIN {
            return Err(format!("no driver {plugin}"));
        }
        Ok(FoundDriver { driver: Arc::clone(&self.0) as Arc<dyn Driver>, site: Site::default() })
    }

    fn any_needs_upkeep(&self) -> bool {
        true
    }
}

/// What outlives the broker's process: the store, the backend, the time.
pub(crate) struct World {
    pub(crate) ledger: MemoryLedger,
    pub(crate) backend: Arc<Backend>,
    birth: Birth,
    start: Instant,
    folder: tempfile::TempDir,
    caller: Arc<Verified>,
    rotating: bool,
    /// The target's policies and context providers.
    chain: Vec<ChainLink>,
    contexts: Vec<ContextLink>,
}

impl World {
    /// One whose target rotates a standing account too.
    pub(crate) async fn rotating() -> Self {
        Self { rotating: true, ..Self::new().await }
    }

    /// The same, whose target asks these policies.
    pub(crate) fn with_chain(self, chain: Vec<ChainLink>) -> Self {
        Self { chain, ..self }
    }

    /// The same, whose target asks that context provider.
    pub(crate) fn with_context(self, link: ContextLink) -> Self {
        Self { contexts: vec![link], ..self }
    }

    /// One whose store is younger than the longest lease.
    pub(crate) async fn of_a_new_store() -> Self {
        let world = Self::new().await;
        Self { birth: Birth { since: began() - SignedDuration::from_mins(1), ..world.birth.clone() }, ..world }
    }

    pub(crate) async fn new() -> Self {
        let identity = Identity::new(vec![Arc::new(Anybody)], &IdentityOptions::default()).unwrap();
        let evidence = Evidence::Bearer(Unverified::from_token("a.b.c").unwrap());
        let caller = identity.verify(vec![evidence]).await.unwrap();
        // A store that has been there for longer than any lease.
        let birth = Birth { since: began() - SignedDuration::from_hours(24 * 365), ..Birth::at(began()) };
        Self {
            ledger: MemoryLedger::new(),
            backend: Arc::new(Backend::default()),
            birth,
            start: Instant::now(),
            folder: tempfile::tempdir().unwrap(),
            caller,
            rotating: false,
            chain: vec![policy("yes", Mode::Enforce, yes)],
            contexts: Vec::new(),
        }
    }

    /// A broker's process over this store.
    pub(crate) fn broker(&self) -> Arc<Broker> {
        let driver = Arc::clone(&self.backend) as Arc<dyn Driver>;
        let mut target = target(driver, self.chain.clone(), self.contexts.clone());
        if self.rotating {
            let (name, role) = standing_role();
            target.roles.insert(name, role);
        }
        let targets = BTreeMap::from([(target.name.clone(), Arc::new(target))]);
        let drivers = Arc::new(OneDriver(Arc::clone(&self.backend)));
        Arc::new(Broker::new(Parts {
            store: Arc::new(self.ledger.reopened()),
            space: Space::new(&self.folder.path().join("broker.db"), [], Marks::default()),
            exports: 0,
            archive: None,
            serving: Arc::new(Serving { targets, drivers }),
            identity: Identity::new(vec![Arc::new(Anybody)], &IdentityOptions::default()).unwrap(),
            limits: RateLimits::new(None, NonZeroU32::MIN),
            denials: DenialBudget::default(),
            most_leftovers: 20,
            sealer: Some(Arc::new(Sealer::new(&[7; 32]).unwrap())),
            birth: self.birth.clone(),
            bound: Bound::default(),
            clock: Arc::new(PausedClock(self.start)),
        }))
    }

    pub(crate) fn now(&self) -> Timestamp {
        began() + self.start.elapsed()
    }

    pub(crate) async fn issue(&self, broker: &Arc<Broker>) -> Result<Disclosure, Refused> {
        self.issue_role(broker, APP).await
    }

    /// The standing account's password.
    pub(crate) async fn issue_standing(&self, broker: &Arc<Broker>) -> Result<Disclosure, Refused> {
        self.issue_role(broker, STANDING).await
    }

    pub(crate) async fn issue_role(&self, broker: &Arc<Broker>, role: &str) -> Result<Disclosure, Refused> {
        self.issue_from(broker, SHOP, role).await
    }

    pub(crate) async fn issue_from(
        &self,
        broker: &Arc<Broker>,
        target: &str,
        role: &str,
    ) -> Result<Disclosure, Refused> {
        let request = IssueRequest {
            target: target.to_owned(),
            role: Some(role.to_owned()),
            ttl: None,
            reason: None,
            ticket: None,
            metadata: BTreeMap::new(),
        };
        let request = CheckedRequest::check(request).unwrap();
        issue(&broker.issue, Arc::clone(&self.caller), request, None, RequestId::generate(self.now())).await
    }

    pub(crate) async fn renew(&self, broker: &Arc<Broker>, lease: &LeaseId) -> Result<Lease, Refused> {
        let id = RequestId::generate(self.now());
        renew(&broker.renew, Arc::clone(&self.caller), lease, RenewRequest::default(), None, id).await
    }

    /// Revokes one of the caller's leases, and waits for the first attempt.
    pub(crate) async fn revoke(&self, broker: &Arc<Broker>, lease: &LeaseId) -> Result<Lease, Refused> {
        revoke_own(&broker.revoke, &self.caller, lease, true).await
    }

    /// Lets the tasks of removal and rotation and everything that was spawned go on for that long.
    pub(crate) async fn pass(&self, broker: &Arc<Broker>, time: Duration) {
        let (board, stopping) = (&broker.board, &broker.work.stopping);
        let removal =
            tokio::spawn(driver::run(Removal::new(Arc::clone(&broker.sweep)), Arc::clone(board), stopping.clone()));
        let rotation = tokio::spawn(driver::run(
            RotationTask::new(broker.operate.clone(), broker.beside()),
            Arc::clone(board),
            stopping.clone(),
        ));
        tokio::time::sleep(time).await;
        for task in [removal, rotation] {
            task.abort();
            let _ended = task.await;
        }
    }

    /// As after `kill -9`: nothing of the old process is left but store and backend, and another one begins.
    pub(crate) async fn restart(&self) -> Arc<Broker> {
        let broker = self.broker();
        undo::recover(&broker.end).await.unwrap();
        broker
    }

    pub(crate) async fn leases(&self) -> Vec<Lease> {
        self.ledger.leases(&LeaseFilter { limit: 100, ..LeaseFilter::default() }).await.unwrap()
    }

    /// The records of the log, in order.
    pub(crate) async fn records(&self) -> Vec<serde_json::Value> {
        let records = self.ledger.records(0, 1_000).await.unwrap();
        records.iter().map(|record| serde_json::from_str(&record.json).unwrap()).collect()
    }

    /// Their events.
    pub(crate) async fn events(&self) -> Vec<String> {
        self.records().await.iter().map(|record| record["event"].as_str().unwrap().to_owned()).collect()
    }

    /// An account of this broker's making that no lease has.
    pub(crate) fn ghost(&self) -> String {
        let name = AccountPrefix::default().generate(&self.birth.mark, "payment", 63).to_string();
        self.backend.put(&name);
        name
    }

    /// Nothing fails from here on.
    pub(crate) fn mend(&self) {
        self.ledger.plan(Faults::none());
        self.backend.mend();
    }
}

fn standing_role() -> (RoleName, TargetRole) {
    let name = RoleName::new(STANDING).unwrap();
    let ttl = |time: Duration| Ttl::from_seconds(i64::try_from(time.as_secs()).unwrap()).unwrap();
    let schedule = Schedule::new(ttl(PERIOD), ttl(OVERLAP)).unwrap();
    let rotating = RotatingAccount { account: AccountName::from_backend(ACCOUNT), schedule };
    let view = RoleView { name: name.clone(), config: "{}".to_owned() };
    (name, TargetRole { view, slots: Arc::new(Semaphore::new(8)), rotating: Some(Arc::new(rotating)) })
}

fn target(driver: Arc<dyn Driver>, chain: Vec<ChainLink>, contexts: Vec<ContextLink>) -> Target {
    let name = TargetName::new(SHOP).unwrap();
    let roles = [APP, READ_ONLY].map(|name| {
        let name = RoleName::new(name).unwrap();
        let view = RoleView { name: name.clone(), config: "{}".to_owned() };
        (name, TargetRole { view, slots: Arc::new(Semaphore::new(8)), rotating: None })
    });
    Target {
        name: name.clone(),
        driver_name: PLUGIN.to_owned(),
        driver,
        connection: None,
        view: TargetView { name, config: "{}".to_owned() },
        roles: roles.into(),
        default_role: None,
        default_ttl: Ttl::from_seconds(600).unwrap(),
        max_ttl: Ttl::from_seconds(3_600).unwrap(),
        deciding: Arc::new(Semaphore::new(8)),
        contexts: contexts.into(),
        usage_windows: None,
        chain: chain.into(),
        prefix: AccountPrefix::default(),
        endpoint: None,
        timeout: Duration::from_secs(10),
        site: Site::default(),
    }
}
