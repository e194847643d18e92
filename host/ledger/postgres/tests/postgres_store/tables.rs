//! The tables: whose they are, which version, and what somebody changed in them.

use jit_core::account::AccountName;
use jit_core::lease::Lease;
use jit_ledger::audit::finding::Finding;
use jit_ledger::audit::verify::{Options, Report, verify};
use jit_ledger::{Store as _, StoreError};
use jit_ledger_contract::{Harness as _, check_log, granted, insert, lease_at};
use jit_ledger_postgres::{Found, LogError, OpenError, PgStore, SchemaError, look};
use jit_tlog::checkpoint::LogKey;
use url::Url;

use super::database::Database;

async fn with_records(records: i64) -> Database {
    let database = Database::create().await;
    let store = database.broker("broker").await;
    add(&store, records).await;
    store.close().await;
    database
}

async fn add(store: &PgStore, records: i64) {
    for second in 0..records {
        let lease = lease_at(second);
        store.commit(insert(&lease).with(granted(&lease))).await.unwrap();
    }
}

async fn refused(database: &Database) -> OpenError {
    match database.open_at(database.place(), "broker").await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

/// Statements against the guards that the tables have.
fn unguarded(statement: &str) -> String {
    format!(
        "ALTER TABLE jit_broker.audit DISABLE TRIGGER ALL; {statement}; ALTER TABLE jit_broker.audit ENABLE TRIGGER ALL"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_understands_what_only_adds() {
    let database = with_records(1).await;
    database.tamper("UPDATE jit_broker.version SET minor = 7").await;
    let store = database.broker("broker").await;
    add(&store, 1).await;
    store.close().await;
    assert_eq!(database.value::<i32>("SELECT minor FROM jit_broker.version").await, 7, "it is not set back");
    database.tamper("UPDATE jit_broker.version SET major = 2").await;
    let error = refused(&database).await;
    assert!(matches!(error, OpenError::Schema(SchemaError::Newer { found: 2 })), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_programs_schema_is_left_alone() {
    let database = Database::create().await;
    database.tamper("ALTER SCHEMA jit_broker OWNER TO postgres").await;
    let error = refused(&database).await;
    assert!(matches!(&error, OpenError::Schema(SchemaError::Foreign { owner }) if owner == "postgres"), "{error}");
    database.tamper("DROP SCHEMA jit_broker").await;
    assert!(matches!(refused(&database).await, OpenError::Schema(SchemaError::Missing)));
    let own = format!("CREATE SCHEMA jit_broker AUTHORIZATION {}; CREATE TABLE jit_broker.x ()", database.name);
    database.tamper(&own).await;
    assert!(matches!(refused(&database).await, OpenError::Schema(SchemaError::OtherTables)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_brokers_have_the_logs_key() {
    let mut database = with_records(2).await;
    database.key = LogKey::generate().to_text().to_string();
    let error = refused(&database).await;
    assert!(matches!(error, OpenError::Log(LogError::Checkpoint(_))), "{error}");
}

/// A log that somebody changed is not continued: neither at a start, nor in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_log_is_not_continued() {
    let database = with_records(5).await;
    database.tamper(&unguarded("DELETE FROM jit_broker.audit WHERE seq = 4")).await;
    assert!(matches!(refused(&database).await, OpenError::Log(LogError::Changed(_))));

    let database = with_records(5).await;
    let store = database.broker("broker").await;
    let forged = "UPDATE jit_broker.head SET size = 6, nodes = nodes || decode(repeat('00', 32), 'hex')";
    database.tamper(forged).await;
    let told = store.commit(insert(&lease_at(9)).with(granted(&lease_at(9)))).await.unwrap_err();
    assert!(told.to_string().contains("changed from outside"), "{told}");
    assert_eq!(store.records(0, 10).await.unwrap().len(), 5, "nothing was signed");
    store.close().await;
}

/// After a failover that lost commits, a broker that knows better does not write on: its start decides what follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_set_back_is_noticed() {
    let database = with_records(3).await;
    let old: Vec<u8> = database.value("SELECT nodes FROM jit_broker.head").await;
    let note: String = database.value("SELECT note FROM jit_broker.head").await;
    let store = database.broker("broker").await;
    add(&store, 2).await;
    let back = format!(
        "DELETE FROM jit_broker.audit WHERE seq >= 3;
        UPDATE jit_broker.head SET size = 3, note = '{note}', nodes = '\\x{}'",
        hex(&old)
    );
    database.tamper(&unguarded(&back)).await;
    let told = store.commit(insert(&lease_at(9)).with(granted(&lease_at(9)))).await.unwrap_err();
    assert!(told.to_string().contains("set back: its audit log has 3 records, and had 5"), "{told}");
    assert!(store.lost().await.contains("set back"));
    store.close().await;
    let store = database.broker("broker").await;
    add(&store, 1).await;
    assert_eq!(check_log(&*store, &database.verifier()).await, 4);
    store.close().await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_append_only() {
    let database = with_records(3).await;
    for statement in [
        "DELETE FROM jit_broker.audit WHERE seq = 1",
        "UPDATE jit_broker.audit SET record = 'x'",
        "TRUNCATE jit_broker.audit",
    ] {
        let mut superuser = database.superuser(Some(&database.name)).await;
        let said = sqlx::query(statement).execute(&mut superuser).await.unwrap_err();
        assert!(said.to_string().contains("append-only"), "{said}");
    }
}

async fn report(database: &Database) -> Report {
    let options = Options { verifier: database.verifier(), kept: None, archive: None };
    verify(&database.log(), &options, |_| {}).await.unwrap()
}

/// `audit verify` reads it without the broker, beside one that writes, and finds what was changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_verified_without_the_broker() {
    let database = with_records(20).await;
    let store = database.broker("broker").await;
    let intact = report(&database).await;
    assert!(intact.findings.is_empty(), "{:?}", intact.findings);
    add(&store, 1).await;
    store.close().await;
    let changed = "UPDATE jit_broker.audit SET record = replace(record, 'payment', 'invoice') WHERE seq = 7";
    database.tamper(&unguarded(changed)).await;
    let found = report(&database).await.findings;
    assert!(found.iter().any(|finding| matches!(finding, Finding::Altered { .. })), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_changes_nothing() {
    let database = Database::create().await;
    let empty = look(database.place()).await.unwrap();
    assert_eq!(empty, Found { version: None, latest: "1.0".into(), records: 0 });
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'jit_broker'::regnamespace";
    assert_eq!(database.value::<i64>(tables).await, 0);
    let store = database.broker("broker").await;
    add(&store, 2).await;
    let found = look(database.place()).await.unwrap();
    assert_eq!((found.version.as_deref(), found.records), (Some("1.0"), 2));
    store.close().await;
}

/// A change that the server refuses fails alone: those that came with it are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_change_spoils_no_other() {
    let database = Database::create().await;
    let store = database.broker("broker").await;
    // No index takes that: random, so that it cannot be made shorter.
    let long: String = (0..8_000).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
    let bad = Lease { account: AccountName::from_backend(long), ..lease_at(0) };
    let mut tasks = vec![];
    for second in 1..20 {
        let store = std::sync::Arc::clone(&store);
        let lease = if second == 10 { bad.clone() } else { lease_at(second) };
        tasks.push(tokio::spawn(async move { store.commit(insert(&lease).with(granted(&lease))).await }));
    }
    let mut failed = 0;
    for task in tasks {
        failed += usize::from(matches!(task.await.unwrap(), Err(StoreError::Failed(_))));
    }
    assert_eq!(failed, 1);
    assert_eq!(store.lease(&bad.id).await.unwrap(), None);
    assert_eq!(check_log(&*store, &database.verifier()).await, 18);
    store.close().await;
}

/// Of several servers the one is taken that serves; where none does, each says why, and no password is shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_that_serves_is_found() {
    let database = Database::create().await;
    let gone = database.url(Some("127.0.0.1:1"));
    let place = database.place_at(vec![gone.clone(), database.url(None)]);
    let store = database.open_at(place, "broker").await.unwrap();
    add(&store, 1).await;
    store.close().await;
    let nowhere = database.open_at(database.place_at(vec![gone.clone(), gone]), "broker").await;
    let Err(OpenError::Connect(error)) = nowhere else { panic!("it was opened") };
    assert!(error.to_string().matches("127.0.0.1:1: ").count() == 2, "{error}");

    let elsewhere = Url::parse(&format!("postgres://{0}@db.example/{0}", database.name)).unwrap();
    let unprotected = format!("{elsewhere}?sslmode=disable").parse().unwrap();
    let refused = database.open_at(database.place_at(vec![unprotected]), "broker").await;
    assert!(refused.is_err_and(|error| error.to_string().contains("sslmode=disable")));
}

/// A role that may do more than it needs is not what the page sets up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_role_has_nothing_but_its_schema() {
    let database = with_records(1).await;
    let rights = "SELECT string_agg(what, ', ') FROM (
        SELECT 'superuser' AS what FROM pg_roles WHERE rolname = current_database() AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
        UNION ALL SELECT 'create in the database' WHERE has_database_privilege(current_database(), current_database(), 'CREATE')
        UNION ALL SELECT 'create in public' WHERE has_schema_privilege(current_database(), 'public', 'CREATE')
        UNION ALL SELECT 'others in the schema' WHERE EXISTS (SELECT FROM pg_namespace WHERE nspname = 'jit_broker' AND nspacl IS NOT NULL)
        UNION ALL SELECT 'member of ' || roleid::regrole FROM pg_auth_members WHERE member = (SELECT oid FROM pg_roles WHERE rolname = current_database())
    ) AS found";
    assert_eq!(database.value::<Option<String>>(rights).await, None);
}
