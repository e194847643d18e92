//! The broker's state, shared by requests and background tasks. The assembly makes it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use jit_core::event::AuditEvent;
use jit_core::name::Principal;
use jit_core::ttl::Ttl;
use jit_identity::Identity;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::birth::Birth;
use crate::clock::LeaseClock;
use crate::denials::{DenialBudget, Denials};
use crate::leftover::Leftovers;
use crate::limits::RateLimits;
use crate::places::Places;
use crate::ports::Clock;
use crate::refusal::Refused;
use crate::removal::{InProgress, Unrecorded};
use crate::replay::{Abandoned, Handovers, Turns};
use crate::rotation::Rotations;
use crate::sealing::Sealer;
use crate::space::{Room, Space};
use crate::target::Serving;
use crate::tasks::board::Board;
use crate::tasks::reconcile::{Brake, Listings};
use crate::tasks::removal;
use jit_core::brake::Bound;
use jit_ledger::audit::archive::Exported;
use jit_ledger::{Change, Settled, Store, StoreError};

/// How long a change may take to become durable before its fate counts as unknown.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(10);

/// Everything that a request or a task works with.
pub struct Broker {
    /// Leases and audit log.
    pub store: Arc<dyn Store>,
    /// What is served now; swapped whole at a reload.
    pub serving: ArcSwap<Serving>,
    /// Room on the disk of store and exports.
    pub space: Space,
    /// Who may ask; swapped whole at a reload.
    pub identity: ArcSwap<Identity>,
    /// How much one workload may ask.
    pub limits: RateLimits,
    /// How many denials of one workload are recorded in full.
    pub denials: Denials,
    /// Secrets of the last minutes.
    pub handovers: Handovers,
    /// Requests with the same Idempotency-Key.
    pub turns: Turns,
    /// Replies that did not arrive and may be fetched.
    pub abandoned: Abandoned,
    /// How far each export is.
    pub exported: Vec<Arc<Exported>>,
    /// Where the log's oldest records are closed into segments; none where they stay.
    pub archive: Option<Archiving>,
    /// One run at a time.
    pub archiving: tokio::sync::Mutex<()>,
    /// Removals at work.
    pub removing: InProgress,
    /// Removals that could not be recorded.
    pub unrecorded: Unrecorded,
    /// Accounts that only a person can remove.
    pub leftovers: Leftovers,
    /// What the reconciliations saw.
    pub listings: Listings,
    /// Where the accounts are.
    pub places: Places,
    /// The time that leases go by.
    pub clock: LeaseClock,
    /// The mark on its accounts, and how old its store is.
    pub birth: Birth,
    /// What keeps accounts from being removed in numbers.
    pub brake: Brake,
    /// Seals what the store may hold of passwords; none without a sealing key.
    pub sealer: Option<Arc<Sealer>>,
    /// Rotations at work.
    pub rotations: Rotations,
    /// What wakes the background tasks.
    pub wake: Wake,
    /// What the background tasks do and did.
    pub board: Arc<Board>,
    /// Requests and undoings that must end before the process does.
    pub tasks: TaskTracker,
    /// Set when the process is to end.
    pub stopping: CancellationToken,
    this: Weak<Broker>,
}

/// Where the log's oldest records are closed into segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archiving {
    /// The folder of the segments.
    pub path: PathBuf,
    /// How long a record stays in the store.
    pub keep: Ttl,
}

/// What [`Broker::new`] needs.
pub struct Parts {
    /// Leases and audit log.
    pub store: Arc<dyn Store>,
    /// Room on the disk.
    pub space: Space,
    /// How many exports there are.
    pub exports: usize,
    /// Where the log is archived.
    pub archive: Option<Archiving>,
    /// What is served.
    pub serving: Arc<Serving>,
    /// Who may ask.
    pub identity: Identity,
    /// How much one workload may ask.
    pub limits: RateLimits,
    /// How many denials of one workload are recorded in full.
    pub denials: DenialBudget,
    /// From how many accounts that only a person can remove an owner gets no new one in the same target.
    pub most_leftovers: usize,
    /// Seals what the store may hold of passwords.
    pub sealer: Option<Arc<Sealer>>,
    /// The mark on its accounts, and how old its store is.
    pub birth: Birth,
    /// How many accounts without a lease are removed without asking.
    pub bound: Bound,
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
}

impl Broker {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            store: parts.store,
            space: parts.space,
            serving: ArcSwap::new(parts.serving),
            identity: ArcSwap::from_pointee(parts.identity),
            limits: parts.limits,
            denials: Denials::new(parts.denials),
            handovers: Handovers::default(),
            turns: Turns::default(),
            abandoned: Abandoned::default(),
            exported: (0..parts.exports).map(|_| Arc::default()).collect(),
            archive: parts.archive,
            archiving: tokio::sync::Mutex::default(),
            removing: InProgress::default(),
            unrecorded: Unrecorded::default(),
            leftovers: Leftovers::new(parts.most_leftovers),
            listings: Listings::default(),
            places: Places::default(),
            board: Arc::new(Board::new(Arc::clone(&parts.clock))),
            clock: LeaseClock::new(parts.clock),
            birth: parts.birth,
            brake: Brake::new(parts.bound),
            sealer: parts.sealer,
            rotations: Rotations::default(),
            wake: Wake::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            this: Weak::clone(this),
        })
    }

    /// A handle for a task that outlives the request.
    #[must_use]
    pub fn handle(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    /// Looks at the room on the disk, and has denials recorded as that allows.
    pub async fn look_at_disk(&self) {
        let Some(broker) = self.handle() else { return };
        let looked = tokio::task::spawn_blocking(move || {
            let room = broker.space.look();
            broker.denials.be_brief(room > Room::Ample);
        });
        // A file system that does not answer is not waited for.
        let _ended = tokio::time::timeout(Duration::from_secs(2), looked).await;
    }

    /// That something new may be handed out, or live longer.
    ///
    /// # Errors
    /// [`Refused::RemovalDown`] when the task that removes accounts does not work. [`Refused::NoRoom`] when the disk
    /// is nearly full: what is left is for the removals' records.
    pub fn may_hand_out(&self) -> Result<(), Refused> {
        if self.board.down(removal::NAME).is_some() {
            return Err(Refused::RemovalDown);
        }
        if self.space.room() == Room::Stop { Err(Refused::NoRoom) } else { Ok(()) }
    }

    /// Puts a denial on record, or counts it where its owner has had enough of them ([`crate::denials`]).
    ///
    /// # Errors
    /// As [`Broker::commit`].
    pub async fn deny(
        &self,
        owner: &Principal,
        events: Vec<AuditEvent>,
        settled: Vec<Settled>,
    ) -> Result<(), StoreError> {
        let events = self.denials.admit(owner, events);
        self.commit(Change::events(events).settling(settled)).await
    }

    /// Makes a change durable, within a deadline.
    ///
    /// # Errors
    /// [`StoreError::Failed`] also when the deadline passed: the change may have become durable.
    pub async fn commit(&self, change: Change) -> Result<(), StoreError> {
        match tokio::time::timeout(COMMIT_DEADLINE, self.store.commit(change)).await {
            Ok(Err(error @ StoreError::Failed(_))) => {
                // It may be the disk: the reserve is for the removals that follow.
                self.look_at_disk().await;
                Err(error)
            }
            Ok(result) => result,
            Err(_) => Err(StoreError::Failed(format!("no answer within {COMMIT_DEADLINE:?}"))),
        }
    }
}

/// What wakes the background tasks before their time.
pub struct Wake {
    /// An account is to be removed.
    pub removal: Notify,
    /// Reconcile now.
    pub reconcile: Notify,
    /// An account is to be rotated.
    pub rotation: Notify,
    /// Another configuration is served: what is to be kept alive may be something else.
    pub maintain: Notify,
    /// Until when the removal task sleeps, in milliseconds since the Unix epoch.
    asleep_until: AtomicI64,
}

impl Default for Wake {
    fn default() -> Self {
        Self {
            removal: Notify::new(),
            reconcile: Notify::new(),
            rotation: Notify::new(),
            maintain: Notify::new(),
            asleep_until: AtomicI64::new(i64::MAX),
        }
    }
}

impl Wake {
    /// The removal task is about to sleep until then.
    pub fn sleeping_until(&self, then: Timestamp) {
        self.asleep_until.store(then.as_millisecond(), Ordering::SeqCst);
    }

    /// A lease ends at that time: the removal task must not oversleep it.
    pub fn expiry_at(&self, at: Timestamp) {
        if at.as_millisecond() < self.asleep_until.load(Ordering::SeqCst) {
            self.removal.notify_one();
        }
    }
}
