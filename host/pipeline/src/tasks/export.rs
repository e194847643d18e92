//! Exports the audit log as JSON lines, one task for each file. [`JsonlExport`] says how.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jit_ledger::Store;
use jit_ledger::audit::archive::Exported;
use jit_ledger::audit::export::{JsonlExport, JsonlOptions};
use tokio::sync::watch;
use tokio::time::sleep;

use super::driver::{Next, Pace, Pass, Task};

/// Lets records gather before the next round: one fsync for many, on a disk that the store shares.
const PAUSE: Duration = Duration::from_millis(250);

/// Follows the log until the broker stops, then once more.
pub struct Export {
    name: String,
    store: Arc<dyn Store>,
    options: JsonlOptions,
    export: JsonlExport,
    exported: Arc<Exported>,
    log_size: watch::Receiver<u64>,
}

impl Export {
    /// The export with that number, counted from 1. How far it is stands in `exported`.
    #[must_use]
    pub fn new(number: usize, store: Arc<dyn Store>, options: JsonlOptions, exported: Arc<Exported>) -> Self {
        let name = if number == 1 { "export".to_owned() } else { format!("export-{number}") };
        let log_size = store.log_size();
        Self { name, store, export: JsonlExport::new(options.clone()), options, exported, log_size }
    }

    async fn round(&mut self) -> Pass {
        let before = self.export.position();
        match self.export.round(&*self.store).await {
            Ok(()) => {
                self.exported.set(self.export.position());
                let written = self.export.position().saturating_sub(before);
                Pass::done([("records", written)], Next::In(PAUSE + self.options.interval))
            }
            Err(error) => {
                let path = self.options.path.display();
                tracing::error!(error = &error as &dyn std::error::Error, %path, "the audit export failed; it continues where it stopped");
                Pass::failed(error.to_string())
            }
        }
    }
}

#[async_trait]
impl Task for Export {
    fn name(&self) -> &str {
        &self.name
    }

    fn pace(&self) -> Pace {
        Pace { first_backoff: Duration::from_secs(2), ..Pace::default() }
    }

    async fn pass(&mut self) -> Pass {
        self.round().await
    }

    /// Returns when the log has grown.
    async fn woken(&mut self) {
        sleep(PAUSE).await;
        if self.log_size.changed().await.is_err() {
            // Nobody tells of growth any more: it goes by time.
            std::future::pending().await
        }
    }

    async fn last(&mut self) {
        self.round().await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jit_ledger::Change;
    use jit_ledger_contract::{granted, lease_at};
    use jit_ledger_sqlite::{SqliteOptions, SqliteStore};
    use jit_tlog::checkpoint::{LogKey, Origin};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::ports::SystemClock;
    use crate::tasks::board::Board;
    use crate::tasks::driver;

    async fn open(folder: &Path) -> Arc<SqliteStore> {
        let options = SqliteOptions {
            path: folder.join("broker.db"),
            signer: LogKey::generate(),
            origin: Origin::new("jit-broker/test").unwrap(),
        };
        Arc::new(SqliteStore::open(options).await.unwrap())
    }

    async fn grow(store: &SqliteStore, records: i64) {
        let events = (0..records).map(|n| granted(&lease_at(n))).collect();
        store.commit(Change { events, ..Change::default() }).await.unwrap();
    }

    /// What a whole export of the store looks like.
    async fn whole(store: &SqliteStore) -> String {
        let records = store.records(0, 1_000).await.unwrap();
        records.iter().map(|record| format!("{}\n", record.json)).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn follows_until_it_is_told_to_stop_and_leaves_nothing_out() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let path = folder.path().join("audit.jsonl");
        let options = JsonlOptions { batch: 7, interval: Duration::from_millis(50), ..JsonlOptions::new(&path) };
        let (board, stopping) = (Arc::new(Board::new(Arc::new(SystemClock))), CancellationToken::new());
        let exported = Arc::new(Exported::default());
        let export = Export::new(1, Arc::clone(&store) as Arc<dyn Store>, options, Arc::clone(&exported));
        let following = tokio::spawn(driver::run(export, board, stopping.clone()));
        grow(&store, 3).await;
        while std::fs::read_to_string(&path).unwrap_or_default() != whole(&store).await {
            tokio::task::yield_now().await;
        }
        for _ in 0..20 {
            grow(&store, 10).await;
        }
        stopping.cancel();
        following.await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole(&store).await);
        store.close().await;
    }
}
