//! The export against a real store and real files.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jit_ledger::audit::export::{ExportError, JsonlExport, JsonlOptions};
use jit_tlog::checkpoint::{LogKey, Origin};

use jit_ledger::audit::export_file::checkpoint_path;
use jit_ledger::{Change, Store};
use jit_ledger_contract::{granted, lease_at};
use jit_ledger_sqlite::{SqliteOptions, SqliteStore};

async fn open(folder: &Path, key: &str) -> Arc<SqliteStore> {
    let options = SqliteOptions {
        path: folder.join("broker.db"),
        signer: LogKey::from_text(key).unwrap(),
        origin: Origin::new("jit-broker/test").unwrap(),
    };
    Arc::new(SqliteStore::open(options).await.unwrap())
}

async fn opened() -> (tempfile::TempDir, Arc<SqliteStore>) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), &LogKey::generate().to_text()).await;
    (folder, store)
}

async fn grow(store: &SqliteStore, records: i64) {
    let events = (0..records).map(|n| granted(&lease_at(n))).collect();
    store.commit(Change { events, leases: Vec::new(), ..Change::default() }).await.unwrap();
}

/// What a whole export of the store looks like.
async fn whole(store: &SqliteStore) -> String {
    let records = store.records(0, 1_000).await.unwrap();
    records.iter().map(|record| format!("{}\n", record.json)).collect()
}

fn options(folder: &Path) -> JsonlOptions {
    JsonlOptions { batch: 7, interval: Duration::from_millis(50), ..JsonlOptions::new(folder.join("audit.jsonl")) }
}

#[tokio::test]
async fn writes_each_record_once_and_the_checkpoint() {
    let (folder, store) = opened().await;
    let options = options(folder.path());
    let mut export = JsonlExport::new(options.clone());
    export.round(&*store).await.unwrap();
    assert_eq!(std::fs::read_to_string(&options.path).unwrap(), "");
    for size in [1, 20, 3] {
        grow(&store, size).await;
        export.round(&*store).await.unwrap();
        export.round(&*store).await.unwrap();
        assert_eq!(std::fs::read_to_string(&options.path).unwrap(), whole(&store).await);
        let note = std::fs::read_to_string(checkpoint_path(&options.path)).unwrap();
        assert_eq!(Some(note), store.checkpoint().await.unwrap());
    }
    for path in [options.path.clone(), checkpoint_path(&options.path)] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    store.close().await;
}

/// Killed anywhere in a line: the next run leaves neither a gap nor a repetition.
#[tokio::test]
async fn goes_on_after_being_killed_in_a_line() {
    let (folder, store) = opened().await;
    let options = options(folder.path());
    grow(&store, 5).await;
    JsonlExport::new(options.clone()).round(&*store).await.unwrap();
    let expected = whole(&store).await;
    let last = expected.trim_end().rfind('\n').unwrap();
    for cut in (0..expected.len()).filter(|cut| *cut >= last || cut % 37 == 0) {
        std::fs::write(&options.path, &expected[..cut]).unwrap();
        if cut <= expected.find('\n').unwrap() {
            // With no whole line left the checkpoint would be the cursor; it was not written yet.
            std::fs::remove_file(checkpoint_path(&options.path)).unwrap();
        }
        JsonlExport::new(options.clone()).round(&*store).await.unwrap();
        assert_eq!(std::fs::read_to_string(&options.path).unwrap(), expected, "cut at {cut}");
    }
    store.close().await;
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_gone_on_from_in_a_new_one() {
    let (folder, store) = opened().await;
    let options = options(folder.path());
    let old = folder.path().join("audit.jsonl.1");
    let mut export = JsonlExport::new(options.clone());
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    grow(&store, 3).await;
    export.round(&*store).await.unwrap();
    std::fs::rename(&options.path, &old).unwrap();
    grow(&store, 2).await;
    export.round(&*store).await.unwrap();
    assert_eq!(text(&old) + &text(&options.path), whole(&store).await);
    // Also over a restart: the checkpoint is the cursor.
    let older = folder.path().join("audit.jsonl.2");
    std::fs::rename(&options.path, &older).unwrap();
    grow(&store, 2).await;
    JsonlExport::new(options.clone()).round(&*store).await.unwrap();
    assert_eq!(text(&old) + &text(&older) + &text(&options.path), whole(&store).await);
    store.close().await;
}

#[tokio::test]
async fn another_logs_file_is_left_alone() {
    let (folder, store) = opened().await;
    let (_other_folder, other) = opened().await;
    let options = options(folder.path());
    grow(&other, 3).await;
    grow(&store, 5).await;
    JsonlExport::new(options.clone()).round(&*other).await.unwrap();
    let before = std::fs::read(&options.path).unwrap();
    // The records of one second are alike in both but for their ids.
    let error = JsonlExport::new(options.clone()).round(&*store).await.unwrap_err();
    assert!(matches!(error, ExportError::OtherLog(2)), "{error}");
    // And a store that has fewer records than the file.
    let (_empty_folder, empty) = opened().await;
    let error = JsonlExport::new(options.clone()).round(&*empty).await.unwrap_err();
    assert!(matches!(error, ExportError::OtherLog(2)), "{error}");
    assert_eq!(std::fs::read(&options.path).unwrap(), before);
    for store in [store, other, empty] {
        store.close().await;
    }
}

/// A place that cannot be written to costs the export, not the store; once it can be, nothing is
/// missing.
#[tokio::test]
async fn a_failing_file_does_not_hold_up_the_store() {
    let (folder, store) = opened().await;
    let options = options(folder.path());
    std::fs::create_dir(&options.path).unwrap();
    let mut export = JsonlExport::new(options.clone());
    grow(&store, 3).await;
    assert!(matches!(export.round(&*store).await, Err(ExportError::File(_))));
    grow(&store, 3).await;
    std::fs::remove_dir(&options.path).unwrap();
    export.round(&*store).await.unwrap();
    assert_eq!(std::fs::read_to_string(&options.path).unwrap(), whole(&store).await);
    store.close().await;
}
