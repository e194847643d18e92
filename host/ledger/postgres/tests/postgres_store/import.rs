//! Taking over a whole store of SQLite.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jit_core::id::RequestId;
use jit_core::lease::{CallersVerifier, Cause, Lease, VerifierKind};
use jit_core::usage::Usage;
use jit_ledger::transfer::Copied;
use jit_ledger::{Change, Counted, Frontier, Settled, Store, StoreError};
use jit_ledger_contract::{
    Harness as _, active, check_log, granted, insert, lease_at, sealed, settled, time, with_key,
};
use jit_ledger_postgres::{ImportError, import};
use jit_ledger_sqlite::{SqliteOptions, SqliteSnapshot, SqliteStore};
use jit_tlog::checkpoint::LogKey;
use jit_tlog::merkle::{CompactRange, Hash};
use sqlx::{ConnectOptions as _, Connection as _};

use super::database::{Database, origin};

/// A store in a file, whose log is signed with a database's key.
struct Source {
    folder: tempfile::TempDir,
    key: String,
}

impl Source {
    fn of(database: &Database) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), key: database.key.clone() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("broker.db")
    }

    async fn open(&self) -> SqliteStore {
        let signer = LogKey::from_text(&self.key).unwrap();
        SqliteStore::open(SqliteOptions { path: self.path(), signer, origin: origin() }).await.unwrap()
    }

    async fn snapshot(&self) -> SqliteSnapshot {
        SqliteSnapshot::open(&self.path()).await.unwrap()
    }

    async fn copy_to(&self, database: &Database) -> Result<Copied, ImportError> {
        import(database.place(), &mut self.snapshot().await, &database.verifier(), |_, _| ()).await
    }
}

async fn grant(store: &dyn Store, lease: &Lease) {
    store.commit(insert(lease)).await.unwrap();
    store.commit(settled(&active(lease))).await.unwrap();
}

fn request(lease: &Lease, second: i64) -> Counted {
    Counted {
        request_id: RequestId::generate(time(second)),
        principal: lease.principal.clone(),
        target: lease.target.clone(),
        at: time(second),
        windows: vec![100],
        holds: true,
        again: false,
    }
}

async fn count(store: &dyn Store, lease: &Lease, second: i64, settled: bool) {
    let request = request(lease, second);
    store.count(&request).await.unwrap();
    if settled {
        let settled = Settled { request_id: request.request_id, granted: true };
        store.commit(Change::default().settling([settled])).await.unwrap();
    }
}

async fn usage(store: &dyn Store, lease: &Lease) -> Usage {
    store.usage(&request(lease, 20)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_and_what_came_since_follows() {
    let database = Database::create().await;
    let source = Source::of(&database);
    let store = source.open().await;
    let used = CallersVerifier { kind: VerifierKind::ScramSha256, digest: "ab".repeat(32), takes_over: None };
    let (kept, verified, other) = (
        with_key("kept"),
        Lease { verifier: Some(used.clone()), ..lease_at(1) },
        Lease { issued_at: time(2), ..with_key("moves") },
    );
    for lease in [&kept, &verified, &other] {
        grant(&store, lease).await;
    }
    count(&store, &kept, 5, true).await;
    count(&store, &kept, 6, false).await;
    store.commit(Change::seal(sealed("a", Some(b"one"))).sealing(sealed("b", Some(b"gone")))).await.unwrap();
    // Beside a broker that serves.
    assert!(source.snapshot().await.is_served());
    let copied = source.copy_to(&database).await.unwrap();
    assert_eq!(copied, Copied { records: 3, new_records: 3, leases: 3, new_leases: 3 });

    // One ends and is forgotten, another takes its key, a third is renewed; there are more than a page.
    let revoking = active(&other).begin_revocation(Cause::Requested, time(3)).unwrap();
    store.commit(Change::step(revoking.clone())).await.unwrap();
    store.commit(settled(&revoking.removed().unwrap())).await.unwrap();
    assert_eq!(store.forget_revoked(time(1_000), 10).await.unwrap(), 1);
    let taker = Lease { issued_at: time(4), ..with_key("moves") };
    grant(&store, &taker).await;
    let renewed = active(&kept).renew(time(5), time(3_000)).unwrap();
    store.commit(settled(&renewed)).await.unwrap();
    for second in 10..1_200 {
        store.commit(insert(&lease_at(second)).with(granted(&kept))).await.unwrap();
    }
    store.commit(Change::seal(sealed("a", Some(b"two"))).sealing(sealed("b", None))).await.unwrap();
    let (expected, records) = (usage(&store, &kept).await, store.records(0, 1_000).await.unwrap());
    store.close().await;
    assert!(!source.snapshot().await.is_served());
    let copied = source.copy_to(&database).await.unwrap();
    assert_eq!(copied, Copied { records: 1_196, new_records: 1_193, leases: 1_193, new_leases: 1_192 });
    let again = source.copy_to(&database).await.unwrap();
    assert_eq!((again.new_records, again.new_leases), (0, 0));

    let moved = database.broker("broker").await;
    assert_eq!(moved.records(0, 1_000).await.unwrap(), records);
    assert_eq!(check_log(&*moved, &database.verifier()).await, 1_196);
    assert_eq!(moved.lease_by_key("kept").await.unwrap(), Some(renewed));
    assert_eq!(moved.lease_by_key("moves").await.unwrap(), Some(active(&taker)));
    assert_eq!(usage(&*moved, &kept).await, expected);
    assert_ne!(expected.requests, BTreeMap::new());
    let values = moved.sealed_of("test").await.unwrap();
    assert_eq!(values, [("a".to_owned(), b"two".to_vec())]);
    let twice = Lease { verifier: Some(used), ..lease_at(2_000) };
    assert!(matches!(moved.commit(insert(&twice)).await, Err(StoreError::VerifierUsed(id)) if id == verified.id));
    moved.commit(settled(&active(&taker).renew(time(6), time(3_000)).unwrap())).await.unwrap();
    assert_eq!(check_log(&*moved, &database.verifier()).await, 1_197);
    moved.close().await;
    // The log went on here.
    let error = source.copy_to(&database).await.unwrap_err();
    assert!(matches!(error, ImportError::Other { found: 1_197, source_has: 1_196 }), "{error}");
}

/// The tree over the first records of a store.
async fn tree(store: &dyn Store, size: usize) -> CompactRange {
    let mut range = store.frontier().await.unwrap();
    let missing = size - usize::try_from(range.size()).unwrap();
    for record in store.records(range.size(), missing).await.unwrap() {
        range.push(Hash::of_leaf(record.json.as_bytes()));
    }
    range
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archived_records_stay_in_the_archive() {
    let (database, mut late) = (Database::create().await, Database::create().await);
    late.key.clone_from(&database.key);
    let source = Source::of(&database);
    let store = source.open().await;
    for second in 0..8 {
        grant(&store, &lease_at(second)).await;
    }
    source.copy_to(&database).await.unwrap();
    let archived = Frontier(tree(&store, 5).await);
    store.commit(Change { archived: Some(archived), ..Change::default() }).await.unwrap();
    grant(&store, &lease_at(8)).await;
    for copied in [source.copy_to(&database).await.unwrap(), source.copy_to(&database).await.unwrap()] {
        assert_eq!(copied.records, 9);
    }
    let moved = database.broker("broker").await;
    assert_eq!(moved.frontier().await.unwrap().size(), 5);
    assert_eq!(moved.records(0, 100).await.unwrap(), store.records(0, 100).await.unwrap());
    moved.close().await;

    // Into an empty database, too; and never with a gap.
    assert_eq!(source.copy_to(&late).await.unwrap().new_records, 4);
    let archived = Frontier(tree(&store, 9).await);
    grant(&store, &lease_at(9)).await;
    grant(&store, &lease_at(10)).await;
    store.commit(Change { archived: Some(archived), ..Change::default() }).await.unwrap();
    assert_eq!(source.copy_to(&late).await.unwrap().new_records, 2);
    grant(&store, &lease_at(11)).await;
    grant(&store, &lease_at(12)).await;
    let archived = Frontier(tree(&store, 12).await);
    store.commit(Change { archived: Some(archived), ..Change::default() }).await.unwrap();
    let error = source.copy_to(&late).await.unwrap_err();
    assert!(matches!(error, ImportError::Archived { found: 11, begins: 12 }), "{error}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_copy_of_the_same_store_is_added_to() {
    let database = Database::create().await;
    let source = Source::of(&database);
    let store = source.open().await;
    grant(&store, &lease_at(0)).await;
    grant(&store, &lease_at(1)).await;
    store.close().await;
    let served = database.open_at(database.place(), "broker").await.unwrap();
    assert!(matches!(source.copy_to(&database).await, Err(ImportError::InUse(1..))));
    served.commit(insert(&lease_at(2))).await.unwrap();
    served.close().await;
    assert!(matches!(source.copy_to(&database).await, Err(ImportError::Leases)));
    database.tamper("DELETE FROM jit_broker.leases").await;
    assert!(matches!(source.copy_to(&Database::create().await).await, Err(ImportError::Checkpoint(_))));

    let altered = "DROP TRIGGER audit_changes_nothing; UPDATE audit SET record = replace(record, 'shop', 'shoq')";
    let mut file = sqlx::sqlite::SqliteConnectOptions::new().filename(source.path()).connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE before AS SELECT seq, record FROM audit").execute(&mut file).await.unwrap();
    sqlx::raw_sql(altered).execute(&mut file).await.unwrap();
    assert!(matches!(source.copy_to(&database).await, Err(ImportError::Changed(_))));
    let there = "SELECT (SELECT count(*) FROM jit_broker.audit) + (SELECT count(*) FROM jit_broker.leases)";
    assert_eq!(database.value::<i64>(there).await, 0, "it is as it was");
    let back = "UPDATE audit SET record = (SELECT record FROM before WHERE before.seq = audit.seq)";
    sqlx::raw_sql(back).execute(&mut file).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(source.copy_to(&database).await.unwrap().records, 2);

    let another = Source::of(&database);
    let store = another.open().await;
    for second in 5..9 {
        grant(&store, &lease_at(second)).await;
    }
    store.close().await;
    assert!(matches!(another.copy_to(&database).await, Err(ImportError::Other { found: 2, source_has: 4 })));
}
