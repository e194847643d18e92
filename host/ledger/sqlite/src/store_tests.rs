//! What only this store promises, beside the contract.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use jit_tlog::checkpoint::{LogKey, Origin, VerifierKey};

use super::{OpenError, SqliteOptions, SqliteStore};
use crate::log::LogError;
use crate::schema::SchemaError;
use jit_ledger::{Change, SealedWrite, Store as _, StoreError};
use jit_ledger_contract::{Harness, active, check_log, granted, insert, lease_at, settled, update};

/// Breaks the next commit, in one of the two ways in which a commit breaks.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommitFault(Arc<AtomicU8>);

impl CommitFault {
    const FAIL: u8 = 1;
    const LOST: u8 = 2;

    pub(crate) fn fail_next(&self) {
        self.0.store(Self::FAIL, Ordering::SeqCst);
    }

    pub(crate) fn lose_next(&self) {
        self.0.store(Self::LOST, Ordering::SeqCst);
    }

    pub(crate) async fn around(
        &self,
        commit: impl Future<Output = Result<(), sqlx::Error>>,
    ) -> Result<(), sqlx::Error> {
        let broken = || sqlx::Error::Io(std::io::Error::other("disk full"));
        match self.0.swap(0, Ordering::SeqCst) {
            Self::FAIL => Err(broken()),
            Self::LOST => commit.await.and_then(|()| Err(broken())),
            _ => commit.await,
        }
    }
}

pub(crate) struct File {
    folder: tempfile::TempDir,
    key: String,
}

impl File {
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("data/broker.db")
    }

    pub(crate) fn options(&self) -> SqliteOptions {
        options(&self.path(), &self.key)
    }
}

fn options(path: &Path, key: &str) -> SqliteOptions {
    let origin = Origin::new("jit-broker/test").unwrap();
    SqliteOptions { path: path.to_owned(), signer: LogKey::from_text(key).unwrap(), origin }
}

impl Harness for File {
    type Store = SqliteStore;

    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), key: LogKey::generate().to_text().to_string() }
    }

    async fn open(&self) -> Arc<SqliteStore> {
        Arc::new(SqliteStore::open(self.options()).await.unwrap())
    }

    async fn close(&self, store: Arc<SqliteStore>) {
        store.close().await;
    }

    fn verifier(&self) -> VerifierKey {
        let options = self.options();
        options.signer.verifier(&options.origin)
    }
}

mod contract {
    jit_ledger_contract::for_store!(super::File);
}

/// Opens the file beside the store, as somebody with access to it would.
pub(crate) async fn tamper(path: &Path, statement: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

/// A commit that failed, and one that failed but took effect: the caller is told the same, and the
/// log goes on from what the file says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_commit_is_told_and_gone_on_from() {
    let file = File::new();
    let store = file.open().await;
    let pending = lease_at(0);
    store.commit(insert(&pending)).await.unwrap();

    store.fault.fail_next();
    assert!(matches!(store.commit(settled(&active(&pending))).await, Err(StoreError::Failed(_))));
    assert_eq!(store.lease(&pending.id).await.unwrap().as_ref(), Some(&pending), "it did not take effect");
    assert_eq!(check_log(&*store, &file.verifier()).await, 0);

    store.fault.lose_next();
    assert!(matches!(store.commit(settled(&active(&pending))).await, Err(StoreError::Failed(_))));
    assert_eq!(store.lease(&pending.id).await.unwrap(), Some(active(&pending)), "it took effect");
    assert_eq!(check_log(&*store, &file.verifier()).await, 1);

    let next = lease_at(1);
    store.commit(insert(&next)).await.unwrap();
    store.commit(settled(&active(&next))).await.unwrap();
    assert_eq!(check_log(&*store, &file.verifier()).await, 2);
    assert_eq!(*store.log_size().borrow(), 2);
    file.close(store).await;
}

/// What the writer does not remember, the file refuses: a lease and a key that are there already. The changes of the same
/// group that are in order are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_already_is_refused_without_a_memory_of_it() {
    let file = File::new();
    let store = file.open().await;
    let held = jit_ledger_contract::with_key("held");
    store.commit(insert(&held).with(granted(&held))).await.unwrap();
    for round in 0..8 {
        // The first round has a writer that remembers, the others have one that was just opened.
        let store = if round == 0 { Arc::clone(&store) } else { file.open().await };
        let (taker, fresh) = (jit_ledger_contract::with_key("held"), lease_at(round));
        let (again, key, new) = tokio::join!(
            store.commit(insert(&held).with(granted(&held))),
            store.commit(insert(&taker).with(granted(&taker))),
            store.commit(insert(&fresh).with(granted(&fresh))),
        );
        assert!(matches!(again, Err(StoreError::Stale(id)) if id == held.id));
        assert!(matches!(key, Err(StoreError::KeyTaken(holder)) if holder == held.id));
        new.unwrap();
        store.commit(settled(&active(&fresh))).await.unwrap();
        assert!(matches!(store.commit(settled(&active(&fresh))).await, Err(StoreError::Stale(_))));
        assert_eq!(store.lease(&held.id).await.unwrap().as_ref(), Some(&held));
        let records = u64::try_from(round).unwrap() * 2 + 3;
        assert_eq!(check_log(&*store, &file.verifier()).await, records, "a refused change left its record");
        file.close(store).await;
    }
}

/// A statement that fails in the middle of the transaction leaves nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_fails_leaves_nothing() {
    let file = File::new();
    let store = file.open().await;
    store.commit(settled_new()).await.unwrap();
    tamper(&file.path(), "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .await;
    let lease = lease_at(1);
    for _ in 0..2 {
        let error = store.commit(insert(&lease).with(granted(&lease))).await.unwrap_err();
        assert!(error.to_string().contains("disk full"), "{error}");
        assert_eq!(store.lease(&lease.id).await.unwrap(), None);
    }
    store.commit(insert(&lease_at(2))).await.unwrap();
    tamper(&file.path(), "DROP TRIGGER full").await;
    store.commit(insert(&lease).with(granted(&lease))).await.unwrap();
    assert_eq!(check_log(&*store, &file.verifier()).await, 2);
    file.close(store).await;
}

/// Each member of a group that fails is told so, and none of the others is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_fail_among_many_leave_a_whole_log() {
    let file = File::new();
    let store = file.open().await;
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut granted = 0;
                for n in 0..10 {
                    match (task + n) % 16 {
                        3 => store.fault.fail_next(),
                        11 => store.fault.lose_next(),
                        _ => {}
                    }
                    let lease = active(&lease_at(task * 100 + n));
                    let change =
                        Change { leases: insert(&lease).leases, events: settled(&lease).events, ..Change::default() };
                    let told = store.commit(change).await;
                    let there = store.lease(&lease.id).await.unwrap().is_some();
                    assert!(there || told.is_err(), "nothing is lost that was called durable");
                    granted += u64::from(there);
                }
                granted
            })
        })
        .collect();
    let mut granted = 0;
    for task in tasks {
        granted += task.await.unwrap();
    }
    store.fault.0.store(0, Ordering::SeqCst);
    assert_eq!(check_log(&*store, &file.verifier()).await, granted, "one record for each lease, none without");
    file.close(store).await;
}

/// The runtime dies with changes queued: what was answered is there, and the log is whole.
#[test]
fn a_runtime_that_dies_loses_nothing_that_was_answered() {
    let file = File::new();
    let answered = Arc::new(Mutex::new(Vec::new()));
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dying = runtime();
    let store = dying.block_on(file.open());
    for task in 0..64 {
        let (store, answered) = (Arc::clone(&store), Arc::clone(&answered));
        dying.spawn(async move {
            for n in 0.. {
                let lease = lease_at(task * 1_000 + n);
                store.commit(insert(&lease).with(granted(&lease))).await.unwrap();
                answered.lock().unwrap().push(lease);
            }
        });
    }
    while answered.lock().unwrap().len() < 200 {
        std::thread::yield_now();
    }
    drop(store);
    dying.shutdown_background();
    let reopened = runtime();
    reopened.block_on(async {
        let store = loop {
            match SqliteStore::open(file.options()).await {
                Err(OpenError::InUse(_)) => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        };
        let answered = std::mem::take(&mut *answered.lock().unwrap());
        for lease in &answered {
            assert_eq!(store.lease(&lease.id).await.unwrap().as_ref(), Some(lease));
        }
        assert!(check_log(&store, &file.verifier()).await >= answered.len() as u64);
        store.commit(insert(&lease_at(0))).await.unwrap();
        store.close().await;
    });
}

/// Run by the next test in a process of its own, which is then killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of kill_9_loses_nothing_that_was_answered"]
async fn child_that_commits_until_it_is_killed() {
    let (Ok(path), Ok(key)) = (std::env::var("STORE_PATH"), std::env::var("STORE_KEY")) else { return };
    let store = Arc::new(SqliteStore::open(options(Path::new(&path), &key)).await.unwrap());
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..100_000 {
                    let lease = lease_at(task * 100_000 + n);
                    store.commit(insert(&lease).with(granted(&lease))).await.unwrap();
                    // One write, so that lines of several tasks do not mix.
                    std::io::stdout().lock().write_all(format!("\nanswered {}\n", lease.id).as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_that_was_answered() {
    let file = File::new();
    let mut answered = Vec::new();
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_commits_until_it_is_killed", "--ignored", "--nocapture"])
            .env("STORE_PATH", file.path())
            .env("STORE_KEY", &file.key)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = 0;
        for line in lines {
            let Some(id) = line.strip_prefix("answered ") else { continue };
            answered.push(id.parse().unwrap());
            seen += 1;
            if seen == 150 {
                child.kill().unwrap();
            }
        }
        assert!(seen >= 150, "the child ended by itself");
        child.wait().unwrap();
        let store = file.open().await;
        for id in &answered {
            assert!(store.lease(id).await.unwrap().is_some(), "{id} was answered and is lost");
        }
        assert!(check_log(&*store, &file.verifier()).await >= answered.len() as u64);
        file.close(store).await;
    }
}

#[tokio::test]
async fn a_second_broker_is_refused_until_the_first_is_gone() {
    let file = File::new();
    let first = file.open().await;
    let error = SqliteStore::open(file.options()).await.unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    assert!(error.to_string().contains("in use by another jit-broker"));
    file.close(first).await;
    file.close(file.open().await).await;
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let file = File::new();
    let store = file.open().await;
    store.commit(settled_new()).await.unwrap();
    store.close().await;
    store.close().await;
    assert!(matches!(store.commit(insert(&lease_at(1))).await, Err(StoreError::Failed(_))));
    assert!(matches!(store.lease(&lease_at(1).id).await, Err(StoreError::Failed(_))));
    let side = file.path().with_file_name("broker.db-wal");
    assert!(!side.exists(), "the file stands alone");
    tamper(&file.path(), "SELECT 1").await;
}

fn settled_new() -> Change {
    let lease = lease_at(0);
    insert(&lease).with(granted(&lease))
}

#[tokio::test]
async fn only_its_owner_may_read_it() {
    let file = File::new();
    let store = file.open().await;
    store.commit(settled_new()).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(file.path().parent().unwrap()), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(file.path().parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["broker.db", "broker.db-shm", "broker.db-wal", "broker.db.lock"]);
    file.close(store).await;
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    file.close(file.open().await).await;
    assert_eq!(mode(&file.path()), 0o600);
}

#[tokio::test]
async fn a_file_of_the_release_before_is_brought_up_and_loses_nothing() {
    let file = File::new();
    let store = file.open().await;
    let lease = lease_at(0);
    store.commit(insert(&lease).with(granted(&lease))).await.unwrap();
    file.close(store).await;
    // As that release left it.
    tamper(&file.path(), "DROP TABLE sealed; DROP TABLE usage; DROP TABLE usage_holds; DROP TABLE verifiers").await;
    tamper(&file.path(), "DROP INDEX leases_live_of; DROP INDEX leases_live_in").await;
    tamper(
        &file.path(),
        "DROP TRIGGER audit_keeps_records; DROP TRIGGER leases_step_on; DROP TABLE archived; ALTER TABLE leases DROP COLUMN subject;
        CREATE TRIGGER audit_keeps_records BEFORE DELETE ON audit
            BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;",
    )
    .await;
    tamper(&file.path(), "PRAGMA user_version = 1").await;
    for _ in 0..2 {
        let store = file.open().await;
        assert_eq!(store.lease(&lease.id).await.unwrap().as_ref(), Some(&lease));
        assert_eq!(check_log(&*store, &file.verifier()).await, 1);
        let write = SealedWrite { purpose: "test", name: "a".into(), value: Some(vec![0, 1]) };
        store.commit(Change::seal(write)).await.unwrap();
        assert_eq!(store.sealed("test", "a").await.unwrap(), Some(vec![0, 1]));
        file.close(store).await;
    }
}

#[tokio::test]
async fn foreign_and_newer_files_are_left_alone() {
    let file = File::new();
    file.close(file.open().await).await;
    tamper(&file.path(), "PRAGMA user_version = 999").await;
    let error = SqliteStore::open(file.options()).await.unwrap_err();
    assert!(matches!(error, OpenError::Schema { source: SchemaError::Newer { found: 999 }, .. }), "{error}");

    let foreign = File::new();
    std::fs::create_dir(foreign.path().parent().unwrap()).unwrap();
    std::fs::write(foreign.path(), "").unwrap();
    tamper(&foreign.path(), "CREATE TABLE theirs (a)").await;
    let error = SqliteStore::open(foreign.options()).await.unwrap_err();
    assert!(matches!(error, OpenError::Schema { source: SchemaError::Foreign, .. }), "{error}");
    std::fs::write(foreign.path(), "not a database".repeat(100)).unwrap();
    let error = SqliteStore::open(foreign.options()).await.unwrap_err();
    assert!(matches!(error, OpenError::Database { .. }), "{error:?}");
}

/// The writer does not sign what it did not write.
#[tokio::test]
async fn a_log_that_was_changed_or_is_anothers_is_not_gone_on_with() {
    let changes = [
        "DROP TRIGGER audit_keeps_records; DELETE FROM audit WHERE seq = 1",
        "INSERT INTO audit VALUES (2, '{}', x'00')",
        "DELETE FROM checkpoint",
        "UPDATE checkpoint SET nodes = zeroblob(32)",
        "UPDATE checkpoint SET nodes = zeroblob(31)",
        "UPDATE checkpoint SET note = replace(note, 'test', 'tent')",
    ];
    for change in changes {
        let file = File::new();
        let store = file.open().await;
        store.commit(settled_new()).await.unwrap();
        store.commit(settled_new()).await.unwrap();
        file.close(store).await;
        tamper(&file.path(), change).await;
        let error = SqliteStore::open(file.options()).await.unwrap_err();
        assert!(matches!(error, OpenError::Log { .. }), "{change}: {error}");
    }
    let mut file = File::new();
    let store = file.open().await;
    store.commit(settled_new()).await.unwrap();
    file.close(store).await;
    file.key = LogKey::generate().to_text().to_string();
    let error = SqliteStore::open(file.options()).await.unwrap_err();
    assert!(matches!(error, OpenError::Log { source: LogError::Checkpoint(_), .. }), "{error}");
}

/// A slip in an SQL shell does not change the log.
#[tokio::test]
async fn records_are_append_only() {
    let file = File::new();
    let store = file.open().await;
    store.commit(settled_new()).await.unwrap();
    file.close(store).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file.path());
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    for slip in ["DELETE FROM audit", "UPDATE audit SET record = ''"] {
        let error = sqlx::raw_sql(slip).execute(&mut connection).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

/// The questions that every request or every second asks are answered from an index.
#[tokio::test]
async fn frequent_questions_use_an_index() {
    let file = File::new();
    file.close(file.open().await).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file.path());
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    for (question, index) in [
        ("SELECT doc FROM leases WHERE idem_key = 'k'", "leases_key"),
        ("SELECT min(due_at) FROM leases WHERE due_at IS NOT NULL", "leases_due"),
        ("SELECT rowid FROM leases WHERE due_at <= 5", "leases_due"),
        ("SELECT doc FROM leases WHERE state = 'pending' AND issued_at < 5 ORDER BY issued_at, id", "leases_pending"),
        (
            "SELECT account FROM leases WHERE state <> 'revoked' AND account IN (SELECT value FROM json_each('[]'))",
            "leases_live",
        ),
        (
            "SELECT doc FROM leases WHERE issuer = 'i' AND workload = 'w' AND id < 'l' ORDER BY id DESC",
            "leases_principal",
        ),
        (
            "SELECT count(*) FROM leases WHERE state <> 'revoked' AND issuer = 'i' AND workload = 'w' AND target = 't'",
            "leases_live_of",
        ),
        ("SELECT count(*) FROM leases WHERE state <> 'revoked' AND target = 't'", "leases_live_in"),
        ("SELECT sum(granted) FROM usage WHERE target = 't' AND at > 5", "usage_target"),
        ("SELECT id FROM leases WHERE ended_at < 5 AND ended_at IS NOT NULL ORDER BY ended_at", "leases_ended"),
    ] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {question}"));
        let plan = sqlx::query(explain).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| sqlx::Row::get(row, 3)).collect();
        assert!(plan.iter().any(|line| line.contains(index)), "{question}: {plan:?}");
    }
}

/// The lock is on the file, not on one of its names.
#[tokio::test]
async fn one_store_under_two_names_is_one_store() {
    let file = File::new();
    let store = file.open().await;
    store.commit(settled_new()).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let linked = other.path().join("broker.db");
    std::os::unix::fs::symlink(file.path(), &linked).unwrap();
    let error = SqliteStore::open(options(&linked, &file.key)).await.unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    // A hard link is another name of the same bytes, with another write-ahead log: never, open or not.
    let hard = file.path().with_file_name("hard.db");
    std::fs::hard_link(file.path(), &hard).unwrap();
    let error = SqliteStore::open(options(&hard, &file.key)).await.unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    store.commit(settled_new()).await.unwrap();
    file.close(store).await;
    let error = SqliteStore::open(options(&hard, &file.key)).await.unwrap_err();
    assert!(matches!(error, OpenError::OtherNames { names: 2, .. }), "{error}");
    std::fs::remove_file(&hard).unwrap();
    // By a symbolic link it is the same store, with its side files in one place.
    let store = SqliteStore::open(options(&linked, &file.key)).await.unwrap();
    assert_eq!(check_log(&store, &file.verifier()).await, 2);
    store.commit(settled_new()).await.unwrap();
    assert!(!other.path().join("broker.db-wal").exists());
    store.close().await;
    assert_eq!(check_log(&*file.open().await, &file.verifier()).await, 3);
}

/// A backup that was put back beside the write-ahead log of the store that it replaces is not the backup: told.
#[tokio::test]
async fn a_write_ahead_log_that_changes_what_is_served_is_told() {
    let file = File::new();
    let store = file.open().await;
    store.commit(settled_new()).await.unwrap();
    file.close(store).await;
    assert_eq!(crate::schema::records_without_log(&file.path()).await, None, "it was closed in order");
    let backup = std::fs::read(file.path()).unwrap();
    let store = file.open().await;
    store.commit(settled_new()).await.unwrap();
    // As a crash leaves it: the log is there, and the file is put back.
    let log = std::fs::read(file.path().with_file_name("broker.db-wal")).unwrap();
    file.close(store).await;
    std::fs::write(file.path(), &backup).unwrap();
    std::fs::write(file.path().with_file_name("broker.db-wal"), &log).unwrap();
    let _ = std::fs::remove_file(file.path().with_file_name("broker.db-shm"));
    assert_eq!(crate::schema::records_without_log(&file.path()).await, Some(1));
    let store = file.open().await;
    assert_eq!(check_log(&*store, &file.verifier()).await, 2);
    file.close(store).await;
}

/// A lease that cannot be read removes nothing. So it hides neither its account from the reconciler nor other
/// leases from the tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_lease_hides_nothing() {
    let file = File::new();
    let (good, torn, strange) = (lease_at(0), lease_at(1), lease_at(2));
    let store = file.open().await;
    for lease in [&good, &torn, &strange] {
        store.commit(insert(lease)).await.unwrap();
        store.commit(update(&active(lease))).await.unwrap();
    }
    tamper(
        &file.path(),
        "UPDATE leases SET version = version + 1, doc = substr(doc, 1, 40) WHERE issued_at = (SELECT max(issued_at) FROM leases)",
    )
    .await;
    tamper(&file.path(), "UPDATE leases SET version = version + 1, doc = '{}' WHERE issued_at NOT IN (SELECT max(issued_at) FROM leases UNION SELECT min(issued_at) FROM leases)").await;
    let names: Vec<String> = [&good, &torn, &strange].map(|lease| lease.account.to_string()).to_vec();
    assert_eq!(store.known_accounts(&names).await.unwrap(), std::slice::from_ref(&good.account));
    assert!(store.known_external_ids(&["x".to_owned()]).await.unwrap().is_empty());
    let due = store.due(good.expires_at + std::time::Duration::from_secs(86_400), 10).await.unwrap();
    assert_eq!(due.iter().map(|lease| &lease.id).collect::<Vec<_>>(), [&good.id]);
    file.close(store).await;
}
