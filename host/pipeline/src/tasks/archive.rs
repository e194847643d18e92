//! Closes the log's oldest records into segments, where the configuration names a folder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jit_core::ttl::Ttl;
use jit_ledger::{Store, alone};

use super::driver::{Next, Pace, Pass, Task};
use crate::clock::LeaseClock;
use jit_ledger::audit::archive::{ArchiveError, Exported, Segment, archive};

/// The claim on it.
const WORK: &str = "archive";
/// How often.
const EVERY: Duration = Duration::from_secs(600);

/// Where the log's oldest records are closed into segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archiving {
    /// The folder of the segments.
    pub path: PathBuf,
    /// How long a record stays in the store.
    pub keep: Ttl,
}

/// What it takes to archive.
pub struct ArchiveFlow {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<LeaseClock>,
    /// None where the records stay in the store.
    pub(crate) plan: Option<Archiving>,
    /// How far each export is: what is not exported stays.
    pub(crate) exported: Vec<Arc<Exported>>,
    /// One run at a time.
    pub(crate) running: tokio::sync::Mutex<()>,
}

/// The task. It is needed only where a folder is configured.
pub struct Archive {
    flow: Arc<ArchiveFlow>,
}

impl Archive {
    /// None where no folder is configured.
    #[must_use]
    pub fn new(flow: Arc<ArchiveFlow>) -> Option<Self> {
        flow.plan.is_some().then_some(Self { flow })
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
        match once(&self.flow, None).await {
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

/// How far the exports of the other brokers are.
fn elsewhere(store: &dyn Store) -> Vec<Exported> {
    let Some(peers) = store.peers() else { return Vec::new() };
    let peers = peers.borrow();
    peers.serving.iter().filter(|peer| !peer.is_this).filter_map(|peer| peer.exported.map(Exported::at)).collect()
}

/// Archives what is older than configured, or than `keep`; none where no folder is configured.
pub async fn once(flow: &Arc<ArchiveFlow>, keep: Option<Ttl>) -> Option<Result<Vec<Segment>, ArchiveError>> {
    let plan = flow.plan.clone()?;
    let _one = flow.running.lock().await;
    let keep = keep.unwrap_or(plan.keep).duration();
    let flow = Arc::clone(flow);
    // Files are written in between; they hold up a thread of their own only.
    let runtime = tokio::runtime::Handle::current();
    let store = Arc::clone(&flow.store);
    let archiving = async {
        let archived = tokio::task::spawn_blocking(move || {
            let peers = elsewhere(&*flow.store);
            let exports = flow.exported.iter().map(AsRef::as_ref).chain(&peers);
            runtime.block_on(archive(&*flow.store, &plan.path, keep, exports, flow.clock.wall()))
        });
        archived.await
    };
    let archived = match alone(&*store, WORK, archiving).await {
        Ok(Some(archived)) => archived,
        Ok(None) => return Some(Ok(Vec::new())),
        Err(error) => return Some(Err(error.into())),
    };
    match archived {
        Ok(result) => Some(result),
        Err(error) => {
            let source = std::io::Error::other(error);
            Some(Err(ArchiveError::File { path: "the archive".into(), source }))
        }
    }
}
