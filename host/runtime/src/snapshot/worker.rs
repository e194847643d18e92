//! The thread that takes snapshots in the background.

use std::sync::{Arc, OnceLock, Weak, mpsc};

use super::Pending;
use crate::loaded::Loaded;

/// Starts the thread at the first snapshot; the thread ends with the runtime.
#[derive(Debug, Default)]
pub(crate) struct Worker(OnceLock<Option<mpsc::Sender<Job>>>);

struct Job {
    loaded: Weak<Loaded>,
    config: String,
    pending: Weak<Pending>,
}

impl Worker {
    /// Has the snapshot taken when those before it are. It is not taken if nobody wants it any more by then.
    pub(crate) fn enqueue(&self, loaded: &Arc<Loaded>, config: &str, pending: &Arc<Pending>) {
        let sender = self.0.get_or_init(|| {
            let (sender, jobs) = mpsc::channel();
            let started = std::thread::Builder::new().name("plugin-snapshot".to_owned()).spawn(move || work(&jobs));
            started
                .inspect_err(|error| tracing::warn!(%error, "no snapshots: the thread for them does not start"))
                .is_ok()
                .then_some(sender)
        });
        if let Some(sender) = sender {
            let job =
                Job { loaded: Arc::downgrade(loaded), config: config.to_owned(), pending: Arc::downgrade(pending) };
            // The thread ends only with the sender.
            let _ = sender.send(job);
        }
    }
}

fn work(jobs: &mpsc::Receiver<Job>) {
    for Job { loaded, config, pending } in jobs {
        if let (Some(loaded), Some(pending)) = (loaded.upgrade(), pending.upgrade()) {
            pending.fill(&loaded, &config);
        }
    }
}
