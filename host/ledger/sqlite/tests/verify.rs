//! Every way to change a log, against real files: each is found and named.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jit_ledger::audit::export_file::checkpoint_path;
use jit_ledger::audit::finding::{Finding, Which};
use jit_ledger::audit::sources::{ExportSource, LogSource, ReadError};
use jit_ledger::audit::verify::{Options, Progress, Report, verify};
use jit_tlog::checkpoint::{Checkpoint, LogKey, NoteError, Origin, VerifierKey};
use jit_tlog::merkle::Hash;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use jit_ledger::Change;
use jit_ledger::Store as _;
use jit_ledger::audit::archive::{Exported, archive};
use jit_ledger::audit::export::{JsonlExport, JsonlOptions};
use jit_ledger_contract::{granted, insert, lease_at};
use jit_ledger_sqlite::{OfflineError, SqliteLog, SqliteOptions, SqliteStore};

/// A log of ten records, in a file and exported.
struct Log {
    folder: tempfile::TempDir,
    key: String,
}

fn origin() -> Origin {
    Origin::new("jit-broker/test").unwrap()
}

impl Log {
    async fn new() -> Self {
        let log = Self { folder: tempfile::tempdir().unwrap(), key: LogKey::generate().to_text().to_string() };
        log.add(10).await;
        log
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("broker.db")
    }

    fn lines(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    fn verifier(&self) -> VerifierKey {
        LogKey::from_text(&self.key).unwrap().verifier(&origin())
    }

    async fn open(&self) -> SqliteStore {
        let signer = LogKey::from_text(&self.key).unwrap();
        SqliteStore::open(SqliteOptions { path: self.database(), signer, origin: origin() }).await.unwrap()
    }

    /// Adds records, one commit each, exports them, and closes the store in order.
    async fn add(&self, records: i64) {
        let store = self.open().await;
        grow(&store, records).await;
        JsonlExport::new(JsonlOptions::new(self.lines())).round(&store).await.unwrap();
        store.close().await;
    }

    /// Does something to the database that nobody should, and leaves the triggers out of its way.
    async fn tamper(&self, statements: &str) {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.database());
        let mut connection = options.connect().await.unwrap();
        let statements = format!("DROP TRIGGER audit_keeps_records; DROP TRIGGER audit_changes_nothing; {statements}");
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn notes(&self, statement: &'static str) -> Vec<String> {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.database());
        let mut connection = options.connect().await.unwrap();
        sqlx::query_scalar(statement).fetch_all(&mut connection).await.unwrap()
    }

    async fn report_of(&self, source: impl LogSource, kept: Option<String>) -> Report {
        let options = Options { verifier: self.verifier(), kept, archive: None };
        verify(&source, &options, |_| {}).await.unwrap()
    }

    async fn database_report(&self) -> Report {
        self.report_of(SqliteLog::new(self.database()), None).await
    }

    async fn export_report(&self) -> Report {
        self.report_of(ExportSource { records: self.lines(), checkpoint: None }, None).await
    }

    /// Changes the exported lines.
    fn edit(&self, change: impl FnOnce(&mut Vec<String>)) {
        let mut lines: Vec<String> = std::fs::read_to_string(self.lines()).unwrap().lines().map(Into::into).collect();
        change(&mut lines);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(self.lines(), text).unwrap();
    }
}

async fn grow(store: &SqliteStore, records: i64) {
    for n in 0..records {
        let lease = lease_at(n);
        store.commit(insert(&lease).with(granted(&lease))).await.unwrap();
    }
}

#[tokio::test]
async fn an_intact_log_is_intact() {
    let log = Log::new().await;
    let mut seen = Vec::new();
    let options = Options { verifier: log.verifier(), kept: None, archive: None };
    let report = verify(&SqliteLog::new(log.database()), &options, |progress| seen.push(progress)).await.unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!((report.records, report.checkpoint.unwrap().size), (10, 10));
    assert_eq!(report.checkpoints, 2, "the newest and the first of the history");
    assert_eq!(seen.last(), Some(&Progress { done: 10, total: 10 }));
    let exported = log.export_report().await;
    assert!(exported.is_intact(), "{:?}", exported.findings);
    assert_eq!((exported.records, exported.root), (10, report.root));
}

#[tokio::test]
async fn an_empty_log_is_intact() {
    let log = Log { folder: tempfile::tempdir().unwrap(), key: LogKey::generate().to_text().to_string() };
    log.open().await.close().await;
    let report = log.database_report().await;
    assert!(report.is_intact() && report.records == 0, "{:?}", report.findings);
}

/// Many pages, with the broker running and writing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_growing_log_is_intact() {
    let log = Log::new().await;
    let store = Arc::new(log.open().await);
    let events = (0..2_500).map(|n| granted(&lease_at(n))).collect();
    store.commit(Change { events, leases: Vec::new(), ..Change::default() }).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let writing = tokio::spawn({
        let (store, stop) = (Arc::clone(&store), stop.clone());
        async move {
            while !stop.is_cancelled() {
                grow(&store, 1).await;
            }
        }
    });
    for _ in 0..5 {
        let report = log.database_report().await;
        assert!(report.is_intact(), "{:?}", report.findings);
        assert!(report.records >= 2_510);
    }
    stop.cancel();
    writing.await.unwrap();
    store.close().await;
}

/// The write-ahead log is read, also when the broker was killed.
#[tokio::test]
async fn what_is_only_in_the_write_ahead_log_counts() {
    let log = Log::new().await;
    let store = log.open().await;
    grow(&store, 5).await;
    let copy = log.folder.path().join("copy.db");
    let side = |path: &Path, suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    std::fs::copy(log.database(), &copy).unwrap();
    std::fs::copy(side(&log.database(), "-wal"), side(&copy, "-wal")).unwrap();
    store.close().await;
    let report = log.report_of(SqliteLog::new(copy), None).await;
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!(report.records, 15);
}

#[tokio::test]
async fn tampering_with_the_database_is_found_and_named() {
    let swapped = "CREATE TEMP TABLE two AS SELECT * FROM audit WHERE seq IN (3, 5);
        UPDATE audit SET record = (SELECT record FROM two WHERE seq = 5), leaf = (SELECT leaf FROM two WHERE seq = 5) WHERE seq = 3;
        UPDATE audit SET record = (SELECT record FROM two WHERE seq = 3), leaf = (SELECT leaf FROM two WHERE seq = 3) WHERE seq = 5;";
    let cases: [(&str, Finding, u64); 12] = [
        (
            "UPDATE audit SET record = replace(record, 'payment', 'paymemt') WHERE seq = 4",
            Finding::Altered { seq: 4 },
            4,
        ),
        ("UPDATE audit SET record = record || ' ' WHERE seq = 9", Finding::Altered { seq: 9 }, 9),
        ("UPDATE audit SET record = 'x' WHERE seq = 0", Finding::Altered { seq: 0 }, 0),
        ("UPDATE audit SET record = CAST(x'ff00' AS TEXT) WHERE seq = 2", Finding::Altered { seq: 2 }, 2),
        ("UPDATE audit SET leaf = zeroblob(32) WHERE seq = 7", Finding::Altered { seq: 7 }, 7),
        ("DELETE FROM audit WHERE seq = 6", Finding::Missing { seq: 6 }, 6),
        ("DELETE FROM audit WHERE seq = 0", Finding::Missing { seq: 0 }, 0),
        (swapped, Finding::Reordered { seq: 3, found: 5 }, 3),
        ("DELETE FROM audit WHERE seq >= 8", Finding::Truncated { found: 8, expected: 10 }, 8),
        ("DELETE FROM audit", Finding::Truncated { found: 0, expected: 10 }, 0),
        (
            "INSERT INTO audit SELECT 10, replace(record, '\"seq\":9', '\"seq\":10'), leaf FROM audit WHERE seq = 9",
            Finding::Inserted { seq: 10 },
            10,
        ),
        ("INSERT INTO audit SELECT -1, record, leaf FROM audit WHERE seq = 9", Finding::Inserted { seq: 1 }, 0),
    ];
    for (statements, finding, intact) in cases {
        let log = Log::new().await;
        log.tamper(statements).await;
        let report = log.database_report().await;
        assert_eq!((report.findings, report.records), (vec![finding], intact), "{statements}");
    }
}

/// A record changed together with its leaf fits by itself; the signed root tells, and the history
/// tells where.
#[tokio::test]
async fn a_record_changed_with_its_leaf_is_found_by_the_root() {
    let log = Log::new().await;
    // Its leaf is right for it: computed here as an attacker would.
    let record = log.notes("SELECT record FROM audit WHERE seq = 4").await.remove(0).replace("payment", "paymemt");
    let leaf = Hash::of_leaf(record.as_bytes());
    log.tamper(&format!("UPDATE audit SET record = '{record}', leaf = x'{leaf}' WHERE seq = 4")).await;
    let report = log.database_report().await;
    // The history has the checkpoint of the first commit: what comes before it is intact.
    assert_eq!(report.findings, [Finding::Rewritten { after: 1, before: 10 }]);
    assert!(report.findings[0].to_string().contains("1 to 9"));
}

#[tokio::test]
async fn a_replaced_checkpoint_is_found() {
    let log = Log::new().await;
    let note = log.notes("SELECT note FROM checkpoint").await.remove(0);
    let older = log.notes("SELECT note FROM checkpoint_history WHERE size = 1").await.remove(0);
    let foreign = LogKey::generate().sign(&Checkpoint { origin: origin(), size: 10, root: Hash::of_empty_tree() });
    let signature = |report: &Report| match report.findings.first() {
        Some(Finding::Signature { which, error }) => Some((*which, error.clone())),
        _ => None,
    };
    let latest = |note: &str| format!("UPDATE checkpoint SET note = '{note}'");

    log.tamper(&latest(&foreign)).await;
    let (which, error) = signature(&log.database_report().await).unwrap();
    assert!(matches!((which, error), (Which::Latest, NoteError::Unsigned(_))));

    let other = Log::new().await;
    other.tamper(&latest(&note.replace("\n10\n", "\n11\n"))).await;
    let (which, error) = signature(&other.database_report().await).unwrap();
    assert!(matches!((which, error), (Which::Latest, NoteError::Unsigned(_))), "another log's key");

    let bent = Log::new().await;
    let own = bent.notes("SELECT note FROM checkpoint").await.remove(0);
    bent.tamper(&latest(&own.replace("\n10\n", "\n11\n"))).await;
    let (_, error) = signature(&bent.database_report().await).unwrap();
    assert!(matches!(error, NoteError::Signature(_)));

    let rolled_back = Log::new().await;
    let older_own = rolled_back.notes("SELECT note FROM checkpoint_history WHERE size = 1").await.remove(0);
    assert_ne!(older, older_own);
    rolled_back.tamper(&format!("{}; DELETE FROM checkpoint_history WHERE size > 1", latest(&older_own))).await;
    assert_eq!(rolled_back.database_report().await.findings, [Finding::Inserted { seq: 1 }]);

    let removed = Log::new().await;
    removed.tamper("DELETE FROM checkpoint").await;
    assert_eq!(removed.database_report().await.findings[0], Finding::Unsigned);
}

#[tokio::test]
async fn the_history_is_checked_too() {
    let log = Log::new().await;
    log.tamper("UPDATE checkpoint_history SET note = replace(note, 'test', 'tent') WHERE size = 1").await;
    let report = log.database_report().await;
    assert!(
        matches!(report.findings[..], [Finding::Signature { which: Which::History(1), .. }]),
        "{:?}",
        report.findings
    );
    // Filed under another size than it is about.
    let log = Log::new().await;
    log.tamper("UPDATE checkpoint_history SET size = 2 WHERE size = 1").await;
    let report = log.database_report().await;
    assert!(
        matches!(report.findings[..], [Finding::Signature { which: Which::History(2), .. }]),
        "{:?}",
        report.findings
    );
}

/// The whole store set back to an older state is intact by itself; a checkpoint kept elsewhere
/// tells.
#[tokio::test]
async fn a_store_that_was_set_back_is_found_with_a_checkpoint_kept_elsewhere() {
    let log = Log::new().await;
    let old = std::fs::read(log.database()).unwrap();
    log.add(3).await;
    let kept = log.notes("SELECT note FROM checkpoint").await.remove(0);
    let source = || SqliteLog::new(log.database());
    assert!(log.report_of(source(), Some(kept.clone())).await.is_intact());
    std::fs::write(log.database(), &old).unwrap();
    assert!(log.database_report().await.is_intact());
    let report = log.report_of(source(), Some(kept.clone())).await;
    assert_eq!(report.findings, [Finding::Truncated { found: 10, expected: 13 }]);
    // Set back and gone on from there with other records: another history.
    let store = log.open().await;
    grow(&store, 3).await;
    store.close().await;
    assert!(log.database_report().await.is_intact());
    let report = log.report_of(source(), Some(kept.clone())).await;
    assert_eq!(report.findings, [Finding::Forked { size: 13 }]);
    let store = log.open().await;
    grow(&store, 1).await;
    store.close().await;
    let report = log.report_of(source(), Some(kept)).await;
    // Its own checkpoint of 13 records, in the history, is the other side.
    assert_eq!(report.findings, [Finding::Forked { size: 13 }]);
    let report = log.report_of(source(), Some("no note".into())).await;
    assert!(matches!(report.findings[..], [Finding::Signature { which: Which::Kept, .. }]));
}

#[tokio::test]
async fn tampering_with_an_export_is_found_and_named() {
    type Edit = fn(&mut Vec<String>);
    let cases: [(Edit, Finding); 7] = [
        (|lines| drop(lines.remove(4)), Finding::Missing { seq: 4 }),
        (|lines| lines.swap(4, 6), Finding::Reordered { seq: 4, found: 6 }),
        (|lines| lines.insert(4, lines[2].clone()), Finding::Inserted { seq: 2 }),
        (|lines| lines[4] = "{}".into(), Finding::Altered { seq: 4 }),
        (|lines| lines.truncate(7), Finding::Truncated { found: 7, expected: 10 }),
        (|lines| lines.push(lines[9].replace("\"seq\":9", "\"seq\":10")), Finding::Inserted { seq: 10 }),
        (|lines| lines[4] = lines[4].replace("payment", "paymemt"), Finding::Rewritten { after: 0, before: 10 }),
    ];
    for (edit, finding) in cases {
        let log = Log::new().await;
        log.edit(edit);
        assert_eq!(log.export_report().await.findings, [finding]);
    }
}

#[tokio::test]
async fn an_export_without_its_checkpoint_or_with_another_is_found() {
    let log = Log::new().await;
    let checkpoint = checkpoint_path(&log.lines());
    // A torn last line is one that is being written; the records before it are whole.
    let mut text = std::fs::read_to_string(log.lines()).unwrap();
    text.push_str("{\"seq\":10,\"ti");
    std::fs::write(log.lines(), text).unwrap();
    assert!(log.export_report().await.is_intact());
    std::fs::remove_file(&checkpoint).unwrap();
    assert_eq!(log.export_report().await.findings, [Finding::Unsigned]);
    std::fs::write(
        &checkpoint,
        LogKey::generate().sign(&Checkpoint { origin: origin(), size: 10, root: Hash::of_empty_tree() }),
    )
    .unwrap();
    assert!(matches!(log.export_report().await.findings[..], [Finding::Signature { which: Which::Latest, .. }]));
}

#[tokio::test]
async fn what_is_no_log_is_an_error_and_not_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let verifier = LogKey::generate().verifier(&origin());
    let options = Options { verifier, kept: None, archive: None };
    let source = SqliteLog::new(path.clone());
    let missing = verify(&source, &options, |_| {}).await;
    assert!(matches!(missing, Err(ReadError::File { .. })));
    std::fs::write(&path, "no database".repeat(100)).unwrap();
    let Err(ReadError::Store(foreign)) = verify(&source, &options, |_| {}).await else { panic!("it was read") };
    assert!(matches!(foreign.downcast_ref(), Some(OfflineError::Schema(_))), "{foreign:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was made beside it");
}

/// The log may be closed into segments: together with the store it is still one log, and whatever is changed in
/// either is found.
#[tokio::test]
async fn archived_segments_and_the_store_are_one_log() {
    let log = Log::new().await;
    log.add(5).await;
    let folder = log.folder.path().join("archive");
    let later = jiff::Timestamp::now() + std::time::Duration::from_secs(1);
    let keep = std::time::Duration::ZERO;
    let store = log.open().await;
    let exported = Exported::default();
    let none = archive(&store, &folder, keep, [&exported], later).await.unwrap();
    assert!(none.is_empty(), "what an export has not written yet stays");
    exported.set(15);
    let segments = archive(&store, &folder, keep, [&exported], later).await.unwrap();
    assert_eq!((segments.len(), segments[0].from, segments[0].to), (1, 0, 10));
    assert_eq!(store.records(0, 100).await.unwrap()[0].seq, 10);
    let kept = store.kept_checkpoints(0, later).await.unwrap();
    assert!(kept.iter().all(|(size, _)| *size >= 10));
    let lines = std::fs::read_to_string(&segments[0].path).unwrap();
    assert_eq!(lines.lines().count(), 10);
    grow(&store, 3).await;
    JsonlExport::new(JsonlOptions::new(log.lines())).round(&store).await.unwrap();
    store.close().await;

    let report = async |folder: Option<&Path>, kept: Option<String>| {
        let options = Options { verifier: log.verifier(), kept, archive: folder.map(Path::to_owned) };
        verify(&SqliteLog::new(log.database()), &options, |_| {}).await.unwrap()
    };
    let alone = report(None, None).await;
    assert!(alone.is_intact(), "{:?}", alone.findings);
    assert_eq!((alone.records, alone.unread), (19, 10), "the archiving is a record too");
    let joined = report(Some(&folder), None).await;
    assert!(joined.is_intact(), "{:?}", joined.findings);
    assert_eq!((joined.records, joined.unread, joined.root), (19, 0, alone.root));
    let exported = log.export_report().await;
    assert!(exported.is_intact(), "an export is whole without the archive: {:?}", exported.findings);

    // A checkpoint that was kept elsewhere speaks of what is archived.
    let note = std::fs::read_to_string(checkpoint_path(&segments[0].path)).unwrap();
    assert!(report(Some(&folder), Some(note.clone())).await.is_intact());
    assert_eq!(report(None, Some(note)).await.findings, []);

    let archived = std::fs::read_to_string(&segments[0].path).unwrap();
    let tampered = |text: String| std::fs::write(&segments[0].path, text).unwrap();
    tampered(archived.replacen("payment-service", "another-service", 1));
    assert!(!report(Some(&folder), None).await.is_intact(), "a record of a segment was changed");
    tampered(archived.lines().take(9).map(|line| format!("{line}\n")).collect());
    assert_eq!(report(Some(&folder), None).await.findings, [Finding::Truncated { found: 9, expected: 10 }]);
    std::fs::remove_file(&segments[0].path).unwrap();
    assert_eq!(report(Some(&folder), None).await.findings, [Finding::Missing { seq: 0 }]);
    // What the store goes on from cannot be replaced either.
    log.tamper("UPDATE archived SET nodes = zeroblob(length(nodes))").await;
    assert!(!report(None, None).await.is_intact());
}

/// Records that are not what was signed do not leave the store.
#[tokio::test]
async fn only_what_was_signed_is_archived() {
    let log = Log::new().await;
    log.tamper("UPDATE audit SET record = replace(record, 'payment-service', 'another') WHERE seq = 4").await;
    let folder = log.folder.path().join("archive");
    let store = log.open().await;
    let later = jiff::Timestamp::now() + std::time::Duration::from_secs(1);
    let error = archive(&store, &folder, std::time::Duration::ZERO, [], later).await.unwrap_err();
    assert!(error.to_string().contains("not what was signed"), "{error}");
    assert_eq!(store.records(0, 100).await.unwrap().len(), 10);
    store.close().await;
}
