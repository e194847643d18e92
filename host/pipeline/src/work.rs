//! Work that must end before the process does, and what the flows wake.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Work that goes on when its caller has gone, and that a stop waits for.
#[derive(Debug, Clone, Default)]
pub struct Work {
    /// Requests and undoings that must end before the process does.
    pub tasks: TaskTracker,
    /// Set when the process is to end.
    pub stopping: CancellationToken,
}

impl Work {
    /// Begins work that a stop waits for.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(work)
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
