//! Closes the log's oldest records into segments, where the configuration names a folder.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jit_core::ttl::Ttl;

use super::driver::{Next, Pace, Pass, Task};
use crate::broker::Broker;
use jit_ledger::audit::archive::{ArchiveError, Segment, archive};

/// How often.
const EVERY: Duration = Duration::from_secs(600);

/// The task. It is needed only where a folder is configured.
pub struct Archive {
    broker: Arc<Broker>,
}

impl Archive {
    /// None where no folder is configured.
    #[must_use]
    pub fn new(broker: Arc<Broker>) -> Option<Self> {
        broker.archive.is_some().then_some(Self { broker })
    }
}

#[async_trait]
impl Task for Archive {
    fn name(&self) -> &str {
        "archive"
    }

    fn pace(&self) -> Pace {
        // A first run may have years of records before it.
        Pace { deadline: Duration::from_secs(3_600), last_backoff: EVERY, ..Pace::default() }
    }

    async fn pass(&mut self) -> Pass {
        match once(&self.broker, None).await {
            Some(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the audit log could not be archived; it stays in the store"
                );
                Pass::failed_until(error.to_string(), Next::Every(EVERY))
            }
            Some(Ok(segments)) => Pass::done([("segments", segments.len() as u64)], Next::Every(EVERY)),
            None => Pass::done([], Next::Every(EVERY)),
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
