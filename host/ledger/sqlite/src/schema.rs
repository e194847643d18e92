//! The tables, their version, and how a connection is opened.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Executor as _};

/// The version of the tables that this program writes (`PRAGMA user_version`).
pub(crate) const VERSION: i64 = 7;
/// "JITB" in the file's header (`PRAGMA application_id`): another program's file is not touched.
pub(crate) const APPLICATION_ID: i64 = 0x4a49_5442;

/// Version 1. Columns beside `doc` are copies for searching, written from it and never read back as truth.
/// Times are nanoseconds since the Unix epoch. `idem_key` is null unless the lease holds its key;
/// `owed_since` is since when its removal has been due, for the metrics.
const TABLES: &str = "
CREATE TABLE leases (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    issuer TEXT NOT NULL,
    workload TEXT NOT NULL,
    target TEXT NOT NULL,
    account TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    due_at INTEGER,
    owed_since INTEGER,
    ended_at INTEGER,
    doc TEXT NOT NULL,
    idem_key TEXT
) STRICT;
CREATE INDEX leases_due ON leases (due_at, target) WHERE due_at IS NOT NULL;
CREATE INDEX leases_pending ON leases (issued_at) WHERE state = 'pending';
CREATE UNIQUE INDEX leases_key ON leases (idem_key) WHERE idem_key IS NOT NULL;
CREATE INDEX leases_live ON leases (account) WHERE state <> 'revoked';
CREATE INDEX leases_principal ON leases (issuer, workload, id);
CREATE INDEX leases_ended ON leases (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE audit (
    seq INTEGER NOT NULL PRIMARY KEY,
    record TEXT NOT NULL,
    leaf BLOB NOT NULL
) STRICT;
-- Against slips, not against attackers: those are found by the tree.
CREATE TRIGGER audit_keeps_records BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_changes_nothing BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TABLE checkpoint (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    note TEXT NOT NULL,
    nodes BLOB NOT NULL
) STRICT;
CREATE TABLE checkpoint_history (
    size INTEGER NOT NULL PRIMARY KEY,
    taken_at INTEGER NOT NULL,
    note TEXT NOT NULL
) STRICT;
";

/// What each version adds to the one before, from version 2 on. What is here was released: it is
/// not changed, only added to.
const STEPS: &[&str] = &[
    // 2: values that the store cannot read.
    "
CREATE TABLE sealed (
    purpose TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (purpose, name)
) STRICT, WITHOUT ROWID;
",
    // 3: what policies want counted. Requests by the second, `at` in seconds since the Unix epoch;
    // holds are requests that may become a lease, until then (`until`, in seconds).
    "
CREATE TABLE usage (
    issuer TEXT NOT NULL,
    workload TEXT NOT NULL,
    at INTEGER NOT NULL,
    target TEXT NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (issuer, workload, at, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_target ON usage (target, at, requests);
CREATE INDEX usage_at ON usage (at);
CREATE TABLE usage_holds (
    request_id TEXT NOT NULL PRIMARY KEY,
    until INTEGER NOT NULL,
    issuer TEXT NOT NULL,
    workload TEXT NOT NULL,
    target TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_live_of ON leases (issuer, workload, target) WHERE state <> 'revoked';
CREATE INDEX leases_live_in ON leases (target) WHERE state <> 'revoked';
",
    // 4: a lease and a count belong to issuer and subject, not to a name that two may share; what is
    // counted for a target is what was granted. What was there before has no subject, and goes by name.
    "
ALTER TABLE leases ADD COLUMN subject TEXT NOT NULL DEFAULT '';
DROP INDEX leases_live_of;
CREATE INDEX leases_live_of ON leases (issuer, workload, target, subject) WHERE state <> 'revoked';
ALTER TABLE usage RENAME TO usage_before;
CREATE TABLE usage (
    issuer TEXT NOT NULL,
    workload TEXT NOT NULL,
    subject TEXT NOT NULL,
    target TEXT NOT NULL,
    at INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    granted INTEGER NOT NULL,
    PRIMARY KEY (issuer, workload, at, target, subject)
) STRICT, WITHOUT ROWID;
INSERT INTO usage SELECT issuer, workload, '', target, at, requests, requests FROM usage_before;
DROP TABLE usage_before;
CREATE INDEX usage_target ON usage (target, at, granted);
CREATE INDEX usage_at ON usage (at);
DROP TABLE usage_holds;
CREATE TABLE usage_holds (
    request_id TEXT NOT NULL PRIMARY KEY,
    until INTEGER NOT NULL,
    issuer TEXT NOT NULL,
    workload TEXT NOT NULL,
    subject TEXT NOT NULL,
    target TEXT NOT NULL,
    at INTEGER NOT NULL,
    lease INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
    // 5: records that were archived: the tree over them. Only such a record may leave the table.
    "
CREATE TABLE archived (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    nodes BLOB NOT NULL
) STRICT;
DROP TRIGGER audit_keeps_records;
CREATE TRIGGER audit_keeps_records BEFORE DELETE ON audit
    WHEN old.seq >= coalesce((SELECT size FROM archived), 0)
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
",
    // 6: verifiers that callers sent, by their digests: each is used for one lease. `used_at` is in nanoseconds.
    "
CREATE TABLE verifiers (
    digest BLOB NOT NULL PRIMARY KEY,
    lease TEXT NOT NULL,
    used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX verifiers_used ON verifiers (used_at);
",
    // 7: a lease only steps on. The writer relies on it for leases that it takes as new.
    "
CREATE TRIGGER leases_step_on BEFORE UPDATE ON leases WHEN new.version <= old.version
    BEGIN SELECT RAISE(ABORT, 'the lease was changed by somebody else'); END;
",
];

/// Why a file cannot be used as the store.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Made by a newer release.
    #[error(
        "the store has version {found}, this release knows up to {VERSION}: use the release that wrote it, or a newer one"
    )]
    Newer {
        /// The file's version.
        found: i64,
    },
    /// Made by something else.
    #[error("the file is a database of another program")]
    Foreign,
    /// The database said no.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Options that every connection has: no statement in the log (they hold people's data), a bound
/// on waiting for a lock.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging()
}

/// The one connection that writes. Every commit is on the disk when it returns
/// (`synchronous = FULL`); the write-ahead log is written back each 4,000 pages (16 MiB), so that
/// a busy broker pays one fsync per group and rarely three.
pub(super) fn writing(path: &Path) -> SqliteConnectOptions {
    options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "4000")
        .pragma("journal_size_limit", "33554432")
        // Statement journals would else spill to the system's temporary folder: pages of the store
        // do not leave its own.
        .pragma("temp_store", "MEMORY")
        .pragma("trusted_schema", "OFF")
        .thread_name(|_| "store-writer".to_owned())
}

/// A connection that only reads, with a cache of 512 KiB: there are several.
pub(crate) fn reading(path: &Path) -> SqliteConnectOptions {
    options(path)
        .read_only(true)
        .pragma("cache_size", "-512")
        .pragma("query_only", "ON")
        .pragma("trusted_schema", "OFF")
        .thread_name(|id| format!("store-reader-{id}"))
}

/// A connection that copies the whole store into another file: it changes nothing here.
pub(crate) fn copying(path: &Path) -> SqliteConnectOptions {
    options(path).read_only(true).pragma("temp_store", "MEMORY").pragma("trusted_schema", "OFF")
}

/// How many audit records the file has by itself, where a write-ahead log lies beside it; none where there is
/// none, or the file alone cannot be read.
pub(super) async fn records_without_log(path: &Path) -> Option<u64> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if std::fs::metadata(log).map_or(0, |found| found.len()) == 0 {
        return None;
    }
    let mut connection = options(path).read_only(true).immutable(true).connect().await.ok()?;
    let size: Option<i64> =
        sqlx::query_scalar("SELECT size FROM checkpoint").fetch_optional(&mut connection).await.ok()?;
    let _closed = sqlx::Connection::close(connection).await;
    Some(size.map_or(0, i64::unsigned_abs))
}

/// Makes the tables in a new file, or checks that an existing one is ours and not newer, and brings
/// it up to this release's version, in one transaction.
pub(super) async fn prepare(connection: &mut SqliteConnection) -> Result<(), SchemaError> {
    let version = check(connection).await?;
    if version == VERSION {
        return Ok(());
    }
    let first = if version == 0 { TABLES } else { "" };
    let done = usize::try_from(version - 1).unwrap_or(0);
    let steps = STEPS[done.min(STEPS.len())..].concat();
    let sql = format!(
        "BEGIN EXCLUSIVE; {first} {steps} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
    );
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await?;
    Ok(())
}

/// Gives the file's version: 0 for an empty file.
pub(crate) async fn check(connection: &mut SqliteConnection) -> Result<i64, SchemaError> {
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await?;
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *connection).await?;
    match (application, version) {
        (APPLICATION_ID, 1..=VERSION) => Ok(version),
        (APPLICATION_ID, found) if found > VERSION => Err(SchemaError::Newer { found }),
        (0, 0) if tables == 0 => Ok(0),
        _ => Err(SchemaError::Foreign),
    }
}
