//! The store: leases and the audit log, in one place so that both change in one transaction.
//!
//! Trusted with: which accounts must be removed, and the log of what was done. It holds no
//! password of a dynamic lease, and others only sealed (NO-STORED-SECRET). Who can write to it can make the broker forget an account, or hand
//! a lease to another identity; who changes a record is found by `audit verify`.
//!
//! In scope: [`Store`], which is the contract; [`audit`], what is done with the log outside the store; [`ground`]
//! and [`columns`], what stores share that keep leases in columns and group their commits; [`transfer`], moving a
//! whole store into another one.
//! Out of scope: how a store keeps things. Each store is a crate of its own, and passes the suite of
//! `jit-ledger-contract`. When to commit what is the pipeline's to decide.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod audit;
mod claim;
pub mod columns;
pub mod ground;
pub mod group;
mod peers;
pub mod transfer;

pub use claim::alone;
pub use peers::{Peer, Peers, configurations};

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::event::AuditEvent;
use jit_core::id::{LeaseId, RequestId};
use jit_core::lease::{DriverRef, Lease, LeaseState};
use jit_core::name::{Principal, TargetName};
use jit_core::usage::Usage;
use jit_tlog::merkle::CompactRange;
use tokio::sync::watch;

/// The longest audit record or lease, in bytes. What goes into them is bounded where it enters; this keeps a slip
/// there from filling the store.
pub const MAX_DOCUMENT: usize = 1024 * 1024;
/// The longest sealed value, in bytes: a token or password with its envelope, not a file.
pub const MAX_SEALED_VALUE: usize = 128 * 1024;
/// The longest name of a sealed value, in bytes.
pub const MAX_SEALED_NAME: usize = 1_024;
/// The most sealed values of one purpose that are listed.
pub const MAX_SEALED_LISTED: usize = 10_000;

/// For how long after its use a verifier of a caller is known, beyond the time after which leases are forgotten. No
/// lease lives that long.
pub const VERIFIER_MEMORY: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// What is to become durable together, or not at all.
#[derive(Debug, Default)]
pub struct Change {
    /// Leases, new or stepped on.
    pub leases: Vec<LeaseWrite>,
    /// Events for the audit log, in order.
    pub events: Vec<AuditEvent>,
    /// Sealed values, new or replaced: of several to one name, the last holds.
    pub sealed: Vec<SealedWrite>,
    /// Requests that were counted ([`Store::count`]) and are decided now.
    pub settled: Vec<Settled>,
    /// Records before this are in an archive and leave the store ([`audit::archive`]).
    pub archived: Option<Frontier>,
}

impl Change {
    /// A new lease.
    #[must_use]
    pub fn insert(lease: Lease) -> Self {
        Self::default().with_lease(LeaseWrite::Insert(lease))
    }

    /// A lease's step.
    #[must_use]
    pub fn step(lease: Lease) -> Self {
        Self::default().with_lease(LeaseWrite::Update(lease))
    }

    /// An event alone.
    #[must_use]
    pub fn record(event: AuditEvent) -> Self {
        Self::default().with(event)
    }

    /// Several events alone, in order.
    #[must_use]
    pub fn events(events: impl IntoIterator<Item = AuditEvent>) -> Self {
        Self::default().with_events(events)
    }

    /// A sealed value alone.
    #[must_use]
    pub fn seal(write: SealedWrite) -> Self {
        Self { sealed: vec![write], ..Self::default() }
    }

    /// The same change with one more lease.
    #[must_use]
    pub fn with_lease(mut self, write: LeaseWrite) -> Self {
        self.leases.push(write);
        self
    }

    /// The same change with one more event.
    #[must_use]
    pub fn with(mut self, event: AuditEvent) -> Self {
        self.events.push(event);
        self
    }

    /// The same change with more events, in order.
    #[must_use]
    pub fn with_events(mut self, events: impl IntoIterator<Item = AuditEvent>) -> Self {
        self.events.extend(events);
        self
    }

    /// The same change with one more sealed value.
    #[must_use]
    pub fn sealing(mut self, write: SealedWrite) -> Self {
        self.sealed.push(write);
        self
    }

    /// The same change, in which requests that were counted are decided.
    #[must_use]
    pub fn settling(mut self, settled: impl IntoIterator<Item = Settled>) -> Self {
        self.settled.extend(settled);
        self
    }

    /// Whether there is nothing to make durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
            && self.events.is_empty()
            && self.sealed.is_empty()
            && self.settled.is_empty()
            && self.archived.is_none()
    }
}

/// Where the store's records begin: the tree over all that were archived before.
#[derive(Debug, Clone)]
pub struct Frontier(pub CompactRange);

/// How a request that was counted ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which.
    pub request_id: RequestId,
    /// Whether it got what it asked for. What was denied does not count for its target: whoever may not
    /// use a target cannot use up what others may have of it.
    pub granted: bool,
}

/// A sealed value: the store cannot read it (the pipeline seals it).
#[derive(Debug)]
pub struct SealedWrite {
    /// What for.
    pub purpose: &'static str,
    /// Under which name, 1 to [`MAX_SEALED_NAME`] bytes.
    pub name: String,
    /// At most [`MAX_SEALED_VALUE`] bytes; `None` removes it.
    pub value: Option<Vec<u8>>,
}

/// A request that is to be counted before it is decided.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Which.
    pub request_id: RequestId,
    /// Whose.
    pub principal: Principal,
    /// Of which target.
    pub target: TargetName,
    /// When.
    pub at: Timestamp,
    /// Within which windows, in seconds; as [`jit_core::usage::checked_windows`] gives them.
    pub windows: Vec<u64>,
    /// Whether it may become a lease: then it counts as one from now on, until a change settles it or
    /// [`Counted::HOLD`] has passed.
    pub holds: bool,
    /// For [`Store::usage`] only: the request was counted before, and nothing is added for it.
    pub again: bool,
}

impl Counted {
    /// How long a request that died undecided counts for its target, and as a lease.
    pub const HOLD: Duration = Duration::from_secs(60);
}

/// One lease's part of a change.
#[derive(Debug)]
pub enum LeaseWrite {
    /// A new lease.
    Insert(Lease),
    /// A step: taken only over the version just before it (`version - 1`).
    Update(Lease),
}

/// Why a change or question failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Somebody else stepped this lease on first. Read it again.
    #[error("lease {0} was changed by somebody else")]
    Stale(LeaseId),
    /// Another lease holds the Idempotency-Key.
    #[error("the idempotency key belongs to lease {0}")]
    KeyTaken(LeaseId),
    /// The caller's verifier was used for another lease, this one.
    #[error("the verifier was used for lease {0}")]
    VerifierUsed(LeaseId),
    /// The store failed. A change may or may not have become durable: read before you act on it.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// From what the store's own means said.
    #[must_use]
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// Of a write that a failpoint says has failed.
    #[must_use]
    pub fn at_failpoint() -> Self {
        Self::Failed("failpoint".to_owned())
    }
}

/// Which leases are wanted.
#[derive(Debug, Clone, Default)]
pub struct LeaseFilter {
    /// Of this principal only.
    pub principal: Option<Principal>,
    /// In this target only.
    pub target: Option<TargetName>,
    /// In this state only.
    pub state: Option<LeaseState>,
    /// Only those that have ended (`revoked`), or only those that have not.
    pub ended: Option<bool>,
    /// Of this workload only, by its name: whatever its issuer and subject.
    pub workload: Option<String>,
    /// This broker's own only ([`Store::owns`]).
    pub own: bool,
    /// After this id (newest first, so: older than it).
    pub before: Option<LeaseId>,
    /// Maximum number of leases, `1..=1000`.
    pub limit: usize,
}

/// A record of the audit log as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its number, from 0, without gaps: the leaf's index in the Merkle tree.
    pub seq: u64,
    /// The JSON object, byte for byte what was hashed.
    pub json: String,
}

/// Counts of leases, for metrics.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Leases that are not revoked, by target and state.
    pub live: HashMap<(String, LeaseState), u64>,
    /// By target: how many removals are overdue, and since when the oldest has been due.
    pub overdue: BTreeMap<String, (u64, Timestamp)>,
}

/// Whose leases still have to be removed: one row for each target and maker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    /// The target.
    pub target: TargetName,
    /// Who made the accounts.
    pub driver: DriverRef,
    /// How many leases that are not revoked.
    pub leases: u64,
    /// When the last of them ends.
    pub last_expiry: Timestamp,
}

/// What every store does.
///
/// One process alone may write to some stores. From others several brokers serve at the same time: each one that opens
/// such a store joins it under a number of its own, and every transaction of a broker checks that the number still
/// counts (FENCED). Work is divided by it:
///
/// - A lease belongs to the broker that wrote it last: [`Store::due`] and [`Store::next_due`] are about its own leases.
///   When a broker ends or is fenced, another one takes its leases over ([`Store::adopt`], [`Store::unfinished`]).
/// - Other work that one broker at a time may do is claimed by name ([`Store::claim`]).
/// - A broker that the others do not hear of is fenced by one of them. It writes nothing more ([`Store::lost`]).
///
/// The methods with a body are of a store for one process.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes a change durable. When it returns `Ok`, the leases, the audit records and a signed
    /// checkpoint over them are on disk, in one transaction. No two new leases have the same verifier
    /// ([`Lease::verifier`]), unless one takes it over from the other; how a verifier is known again outlives its lease
    /// by [`VERIFIER_MEMORY`].
    async fn commit(&self, change: Change) -> Result<(), StoreError>;

    /// One lease.
    async fn lease(&self, id: &LeaseId) -> Result<Option<Lease>, StoreError>;

    /// The lease that holds this Idempotency-Key digest ([`Lease::holds_key`]).
    async fn lease_by_key(&self, key: &str) -> Result<Option<Lease>, StoreError>;

    /// Leases, newest first.
    async fn leases(&self, filter: &LeaseFilter) -> Result<Vec<Lease>, StoreError>;

    /// Own leases whose [`Lease::due_at`] is not after `now`, at most `per_target` of each target, so
    /// that one target's outage does not hide the others' work, and as many more whose removal was tried
    /// before, so that what cannot go does not hide what has never been tried; the longest due first.
    async fn due(&self, now: Timestamp, per_target: usize) -> Result<Vec<Lease>, StoreError>;

    /// Leases in state `pending` that were asked for before `before`, in whatever broker, the oldest first.
    async fn pending(&self, before: Timestamp, limit: usize) -> Result<Vec<Lease>, StoreError>;

    /// Of [`Store::pending`], those whose broker has ended: nobody is at their issue any more. A store for one process
    /// cannot tell: there it is asked at the start, before anything is begun.
    async fn unfinished(&self, before: Timestamp, limit: usize) -> Result<Vec<Lease>, StoreError> {
        self.pending(before, limit).await
    }

    /// The earliest [`Lease::due_at`] of its own leases.
    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Of these account names, those that a lease which is not revoked has, in whatever target:
    /// several targets may share a server, and names are unique. A lease that cannot be read counts for nothing:
    /// it will never remove its account.
    async fn known_accounts(&self, names: &[String]) -> Result<Vec<AccountName>, StoreError>;

    /// Of these account names, those that a lease had which is revoked and not forgotten yet. Reads all
    /// leases: for the few accounts that a reconciliation finds without a lease.
    async fn ended_accounts(&self, names: &[String]) -> Result<Vec<AccountName>, StoreError>;

    /// Of these handles of a backend, those that a lease had which is revoked and not forgotten yet.
    async fn ended_external_ids(&self, ids: &[String]) -> Result<Vec<String>, StoreError>;

    /// Of these handles of a backend, those that a lease which is not revoked has, in whatever target.
    async fn known_external_ids(&self, ids: &[String]) -> Result<Vec<String>, StoreError>;

    /// Who made the accounts of all leases that are not revoked. Reads all of them: for a reload or
    /// a start, not for a request.
    async fn makers(&self) -> Result<Vec<Maker>, StoreError>;

    /// Counts for metrics.
    async fn counts(&self, now: Timestamp) -> Result<Counts, StoreError>;

    /// Forgets revoked leases that ended before `before`, at most `limit`; gives how many. Audit
    /// records stay. Forgets as many verifiers that were used [`VERIFIER_MEMORY`] before `before`.
    async fn forget_revoked(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError>;

    /// Counts a request, itself included: one after the other, in whatever broker of this store, so that
    /// of requests at the same moment each sees another number. The count is durable.
    async fn count(&self, request: &Counted) -> Result<Usage, StoreError>;

    /// What [`Store::count`] would say now, without counting.
    async fn usage(&self, request: &Counted) -> Result<Usage, StoreError>;

    /// Forgets what was counted before `before`: beyond every window, it is not asked for again.
    async fn forget_usage(&self, before: Timestamp) -> Result<(), StoreError>;

    /// The sealed value under a name.
    async fn sealed(&self, purpose: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// All sealed values of a purpose, by name; at most ten thousand.
    async fn sealed_of(&self, purpose: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// The tree over the records that were archived; the store has those from its size on.
    async fn frontier(&self) -> Result<CompactRange, StoreError>;

    /// Signed checkpoints that were kept, over more than `after` records and of a time before `before`: size
    /// and note, the smallest first, at most a thousand.
    async fn kept_checkpoints(&self, after: u64, before: Timestamp) -> Result<Vec<(u64, String)>, StoreError>;

    /// Audit records from `from_seq` on; those that were archived are not there.
    async fn records(&self, from_seq: u64, limit: usize) -> Result<Vec<StoredRecord>, StoreError>;

    /// The newest signed checkpoint (a C2SP signed note), if there is a record.
    async fn checkpoint(&self) -> Result<Option<String>, StoreError>;

    /// How many audit records there are, and a way to wait for more (the export does).
    fn log_size(&self) -> watch::Receiver<u64>;

    /// Returns once this handle will never write again, with the reason: another broker took the store over, or
    /// records that this one wrote are gone. The process then has to be started again. A store that one process alone
    /// can write never returns.
    async fn lost(&self) -> String {
        std::future::pending().await
    }

    /// Takes over leases whose broker has ended, at most `limit`; returns how many. Those in state `pending` are not
    /// among them ([`Store::unfinished`]).
    async fn adopt(&self, _limit: usize) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// Whether the lease is this broker's own.
    async fn owns(&self, _lease: &LeaseId) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// Makes a lease another broker's, for which this one has no driver. A broker with another configuration is preferred.
    /// Returns false if there is no other broker.
    async fn hand_over(&self, _lease: &LeaseId) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Takes a piece of work that one broker at a time may do, by its name, which is the same in all of them. False
    /// where another one has it. It is this broker's until it is released or the broker ends; within the broker it has
    /// to be guarded by other means.
    async fn claim(&self, _work: &str) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// Lets go of a piece of work. Where that fails it stays claimed, and can be claimed again by this broker.
    async fn release(&self, _work: &str) {}

    /// Whether this broker may begin what others must not do as well: none of them can have fenced it yet. It asks
    /// nobody; the answer is from the last time that the store heard of this broker.
    fn holds(&self) -> bool {
        true
    }

    /// Tells the other brokers of a configuration's digest, and which records are exported here (none where nothing is
    /// exported).
    fn show(&self, _config: Option<&str>, _exported: Option<u64>) {}

    /// The brokers of the store, as they were seen last; none where it is for one process.
    fn peers(&self) -> Option<watch::Receiver<Peers>> {
        None
    }

    /// Brokers that this one has fenced since it was asked last.
    fn fenced(&self) -> Vec<Peer> {
        Vec::new()
    }

    /// Makes what is queued durable and lets go of the store's files or connections. Later questions and changes
    /// fail.
    async fn close(&self);
}
