//! A broker in memory: its pipeline and tasks as they are, a store and a backend that fail as a test plans it, and
//! tokio's paused time.
#![allow(dead_code, reason = "each test binary uses a part of it")]

mod backend;
mod doubles;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jit_api::{IssueRequest, RenewRequest};
use jit_core::account::{AccountName, AccountPrefix};
use jit_core::brake::Bound;
use jit_core::driver::RoleView;
use jit_core::id::{LeaseId, RequestId};
use jit_core::lease::Lease;
use jit_core::name::RoleName;
use jit_core::policy::Mode;
use jit_core::rotation::Schedule;
use jit_core::space::Marks;
use jit_core::ttl::Ttl;
use jit_identity::Verified;
use jit_ledger::{LeaseFilter, Store as _};
use jit_ledger_memory::{Faults, MemoryLedger};
use jit_pipeline::birth::Birth;
use jit_pipeline::broker::{Broker, Parts};
use jit_pipeline::denials::DenialBudget;
use jit_pipeline::facts::ContextLink;
use jit_pipeline::issue::{Disclosure, issue};
use jit_pipeline::limits::RateLimits;
use jit_pipeline::places::Site;
use jit_pipeline::ports::{Driver, Drivers, FoundDriver};
use jit_pipeline::ready::LastForm;
use jit_pipeline::refusal::Refused;
use jit_pipeline::renew::renew;
use jit_pipeline::request::{CheckedRequest, IdempotencyKey};
use jit_pipeline::revoke::revoke_own;
use jit_pipeline::rotation::RotatingAccount;
use jit_pipeline::sealing::Sealer;
use jit_pipeline::space::Space;
use jit_pipeline::target::{ChainLink, Serving, TargetRole};
use jit_pipeline::tasks::driver;
use jit_pipeline::tasks::removal::Removal;
use jit_pipeline::tasks::rotation::RotationTask;
use jit_pipeline::undo;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use backend::STANDING_ACCOUNT;
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use backend::{Answer, Backend, Verb};
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use doubles::{APP, READ_ONLY, SHOP, at_most, narrower, no, policy, yes};
use doubles::{PLUGIN, PausedClock, began, caller, identity, target};

/// The role that hands out a standing account's password.
pub(crate) const STANDING: &str = "standing";
/// When a standing account's password changes, and how long the one before works on.
pub(crate) const PERIOD: Duration = Duration::from_secs(3_600);
pub(crate) const OVERLAP: Duration = Duration::from_secs(600);

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
    /// Whether the target's server itself lets nobody in with an empty password.
    never_empty: bool,
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

    /// The same, whose target's server itself lets nobody in with an empty password.
    pub(crate) fn never_empty(self) -> Self {
        Self { never_empty: true, ..self }
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
        let caller = caller().await;
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
            never_empty: false,
            chain: vec![policy("yes", Mode::Enforce, yes)],
            contexts: Vec::new(),
        }
    }

    /// A broker's process over this store.
    pub(crate) fn broker(&self) -> Arc<Broker> {
        let driver = Arc::clone(&self.backend) as Arc<dyn Driver>;
        let mut target = target(driver, self.chain.clone(), self.contexts.clone());
        target.verifiers.iter_mut().for_each(|offered| offered.never_empty = self.never_empty);
        if self.rotating {
            let (name, role) = standing_role();
            target.roles.insert(name, role);
        }
        let targets = BTreeMap::from([(target.name.clone(), Arc::new(target))]);
        let drivers = Arc::new(OneDriver(Arc::clone(&self.backend)));
        Arc::new(Broker::new(Parts {
            store: Arc::new(self.ledger.reopened()),
            space: Space::new(None, [], Marks::default()),
            exports: 0,
            archive: None,
            serving: Arc::new(Serving { targets, drivers, reach: Arc::default() }),
            identity: identity(),
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
            credential: None,
        };
        self.issue_asking(broker, request, None).await
    }

    /// Any request, with an Idempotency-Key if one is given.
    pub(crate) async fn issue_asking(
        &self,
        broker: &Arc<Broker>,
        request: IssueRequest,
        key: Option<&str>,
    ) -> Result<Disclosure, Refused> {
        let request = CheckedRequest::check(request)?;
        let key = key.map(|key| IdempotencyKey::new(key.as_bytes()).unwrap());
        issue(&broker.issue, Arc::clone(&self.caller), request, key, RequestId::generate(self.now())).await
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
        undo::take_over(&broker.end).await.unwrap();
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
    let rotating = RotatingAccount { account: AccountName::from_backend(STANDING_ACCOUNT), schedule };
    let view = RoleView { name: name.clone(), config: "{}".to_owned() };
    (
        name,
        TargetRole {
            view,
            slots: Arc::new(Semaphore::new(8)),
            form: LastForm::default(),
            rotating: Some(Arc::new(rotating)),
        },
    )
}
