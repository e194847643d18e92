//! The broker's state, shared by requests and background tasks. [`crate::build`] makes it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::identity::Identity;
use crate::limits::RateLimits;
use crate::removal::InProgress;
use crate::replay::{Abandoned, Handovers, Turns};
use crate::rotation::Rotations;
use crate::sealing::Sealer;
use crate::store::{Change, Store, StoreError};
use crate::target::Serving;
use crate::tasks::reconcile::Listings;

/// How long a change may take to become durable before its fate counts as unknown.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(10);

/// Everything that a request or a task works with.
pub struct Broker {
    /// Leases and audit log.
    pub store: Arc<dyn Store>,
    /// What is served now; swapped whole at a reload.
    pub serving: ArcSwap<Serving>,
    /// Who may ask; swapped whole at a reload.
    pub identity: ArcSwap<Identity>,
    /// How much one workload may ask.
    pub limits: RateLimits,
    /// Secrets of the last minutes.
    pub handovers: Handovers,
    /// Requests with the same Idempotency-Key.
    pub turns: Turns,
    /// Replies that did not arrive and may be fetched.
    pub abandoned: Abandoned,
    /// Removals at work.
    pub removing: InProgress,
    /// What the reconciliations saw.
    pub listings: Listings,
    /// Seals what the store may hold of passwords; none without a sealing key.
    pub sealer: Option<Arc<Sealer>>,
    /// Rotations at work.
    pub rotations: Rotations,
    /// What wakes the background tasks.
    pub wake: Wake,
    /// Requests and undoings that must end before the process does.
    pub tasks: TaskTracker,
    /// Set when the process is to end.
    pub stopping: CancellationToken,
    this: Weak<Broker>,
}

/// What [`Broker::new`] needs.
pub struct Parts {
    /// Leases and audit log.
    pub store: Arc<dyn Store>,
    /// What is served.
    pub serving: Serving,
    /// Who may ask.
    pub identity: Identity,
    /// How much one workload may ask.
    pub limits: RateLimits,
    /// Seals what the store may hold of passwords.
    pub sealer: Option<Arc<Sealer>>,
}

impl Broker {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            store: parts.store,
            serving: ArcSwap::from_pointee(parts.serving),
            identity: ArcSwap::from_pointee(parts.identity),
            limits: parts.limits,
            handovers: Handovers::default(),
            turns: Turns::default(),
            abandoned: Abandoned::default(),
            removing: InProgress::default(),
            listings: Listings::default(),
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

    /// Makes a change durable, within a deadline.
    ///
    /// # Errors
    /// [`StoreError::Failed`] also when the deadline passed: the change may have become durable.
    pub async fn commit(&self, change: Change) -> Result<(), StoreError> {
        match tokio::time::timeout(COMMIT_DEADLINE, self.store.commit(change)).await {
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
