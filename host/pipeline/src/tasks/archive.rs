//! Closes the log's oldest records into segments, where the configuration names a folder.

use std::sync::Arc;
use std::time::Duration;

use jit_core::ttl::Ttl;

use crate::broker::Broker;
use jit_ledger::audit::archive::{ArchiveError, Segment, archive};

/// How often.
const EVERY: Duration = Duration::from_secs(600);

/// Runs until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    if broker.archive.is_none() {
        return;
    }
    loop {
        if let Some(Err(error)) = once(&broker, None).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the audit log could not be archived; it stays in the store"
            );
        }
        tokio::select! {
            () = broker.stopping.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Archives what is older than configured, or than `keep`; none where no folder is configured.
pub async fn once(broker: &Arc<Broker>, keep: Option<Ttl>) -> Option<Result<Vec<Segment>, ArchiveError>> {
    let plan = broker.archive.clone()?;
    let _one = broker.archiving.lock().await;
    let keep = keep.unwrap_or(plan.keep).duration();
    let broker = Arc::clone(broker);
    // Files are written in between; they hold up a thread of their own only.
    let runtime = tokio::runtime::Handle::current();
    let archived = tokio::task::spawn_blocking(move || {
        let exports = broker.exported.iter().map(AsRef::as_ref);
        runtime.block_on(archive(&*broker.store, &plan.path, keep, exports, broker.clock.wall()))
    });
    match archived.await {
        Ok(result) => Some(result),
        Err(error) => {
            let source = std::io::Error::other(error);
            Some(Err(ArchiveError::File { path: "the archive".into(), source }))
        }
    }
}
