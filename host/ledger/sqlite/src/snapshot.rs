//! The whole store as of one moment, for another store to take over: a read transaction, beside which the broker keeps
//! writing.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jit_core::name::Principal;
use jit_ledger::columns::{decode, records};
use jit_ledger::transfer::{Head, HoldRow, KeptCheckpoint, LeaseRow, PAGE, SealedRow, Snapshot, UsageRow, VerifierRow};
use jit_ledger::{StoreError, StoredRecord};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{ConnectOptions as _, Executor as _, Row as _};

use crate::log::{self, LogError};
use crate::schema::{self, SchemaError, VERSION};

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file cannot be read.
    #[error("the store's file {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// Not a store, or one of a newer release.
    #[error("the store")]
    Schema(#[from] SchemaError),
    /// An older release wrote it.
    #[error("the store has version {found} and this release's is {VERSION}: start this release's broker on it once")]
    Older {
        /// The file's version.
        found: i64,
    },
    /// What it says of its archive is unreadable.
    #[error("the store")]
    Log(#[from] LogError),
    /// The database said no.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// A store's file as of one moment.
#[derive(Debug)]
pub struct SqliteSnapshot {
    connection: SqliteConnection,
    /// Held where no broker had it: none can start in between.
    lock: Option<File>,
}

impl SqliteSnapshot {
    /// The store in that file. Where no broker serves from it, none can until this is dropped.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn open(path: &Path) -> Result<Self, SnapshotError> {
        let failed = |source| SnapshotError::File { path: path.to_owned(), source };
        let path = &path.canonicalize().map_err(failed)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let lock = OpenOptions::new().create(true).append(true).open(PathBuf::from(beside)).map_err(failed)?;
        let lock = lock.try_lock().is_ok().then_some(lock);
        let mut connection = schema::reading(path).connect().await.map_err(SchemaError::from)?;
        let found = schema::check(&mut connection).await?;
        if found != VERSION {
            return Err(SnapshotError::Older { found });
        }
        connection.execute("BEGIN").await?;
        // The first question fixes the moment.
        log::frontier(&mut connection).await?;
        Ok(Self { connection, lock })
    }

    /// Whether a broker serves from the file: then there will be more than this snapshot has.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.lock.is_none()
    }
}

fn limit() -> i64 {
    i64::try_from(PAGE).unwrap_or(1)
}

/// A column of a row.
fn get<'r, T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
    row: &'r SqliteRow,
    column: &str,
) -> Result<T, StoreError> {
    row.try_get(column).map_err(StoreError::failed)
}

fn principal(row: &SqliteRow) -> Result<Principal, StoreError> {
    Ok(Principal { issuer: get(row, "issuer")?, workload: get(row, "workload")?, subject: get(row, "subject")? })
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn head(&mut self) -> Result<Head, StoreError> {
        let frontier = log::frontier(&mut self.connection).await.map_err(StoreError::failed)?;
        let statement = "SELECT (SELECT note FROM checkpoint) AS note, (SELECT max(seq) FROM audit) AS last";
        let row = sqlx::query(statement).fetch_one(&mut self.connection).await.map_err(StoreError::failed)?;
        Ok(Head { size: records(get(&row, "last")?, frontier.size()), note: get(&row, "note")?, frontier })
    }

    async fn records(&mut self, from: u64) -> Result<Vec<StoredRecord>, StoreError> {
        let statement = "SELECT seq, record FROM audit WHERE seq >= ? ORDER BY seq LIMIT ?";
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let rows = sqlx::query(statement).bind(from).bind(limit()).fetch_all(&mut self.connection).await;
        let record = |row: &SqliteRow| {
            Ok(StoredRecord { seq: get::<i64>(row, "seq")?.unsigned_abs(), json: get(row, "record")? })
        };
        rows.map_err(StoreError::failed)?.iter().map(record).collect()
    }

    async fn history(&mut self, after: i64) -> Result<Vec<KeptCheckpoint>, StoreError> {
        let statement = "SELECT size, taken_at, note FROM checkpoint_history WHERE size > ? ORDER BY size LIMIT ?";
        let rows = sqlx::query(statement).bind(after).bind(limit()).fetch_all(&mut self.connection).await;
        let kept = |row: &SqliteRow| {
            Ok(KeptCheckpoint { size: get(row, "size")?, taken_at: get(row, "taken_at")?, note: get(row, "note")? })
        };
        rows.map_err(StoreError::failed)?.iter().map(kept).collect()
    }

    async fn leases(&mut self, after: &str) -> Result<Vec<LeaseRow>, StoreError> {
        let statement = "SELECT doc, idem_key IS NOT NULL AS holds_key FROM leases WHERE id > ? ORDER BY id LIMIT ?";
        let rows = sqlx::query(statement).bind(after).bind(limit()).fetch_all(&mut self.connection).await;
        let lease = |row: &SqliteRow| {
            Ok(LeaseRow { lease: decode(&get::<String>(row, "doc")?)?, holds_key: get(row, "holds_key")? })
        };
        rows.map_err(StoreError::failed)?.iter().map(lease).collect()
    }

    async fn verifiers(&mut self, after: &[u8]) -> Result<Vec<VerifierRow>, StoreError> {
        let statement = "SELECT digest, lease, used_at FROM verifiers WHERE digest > ? ORDER BY digest LIMIT ?";
        let rows = sqlx::query(statement).bind(after).bind(limit()).fetch_all(&mut self.connection).await;
        let used = |row: &SqliteRow| {
            Ok(VerifierRow { digest: get(row, "digest")?, lease: get(row, "lease")?, used_at: get(row, "used_at")? })
        };
        rows.map_err(StoreError::failed)?.iter().map(used).collect()
    }

    async fn sealed(&mut self, (purpose, name): (&str, &str)) -> Result<Vec<SealedRow>, StoreError> {
        let statement = "SELECT purpose, name, value FROM sealed WHERE (purpose, name) > (?, ?)
            ORDER BY purpose, name LIMIT ?";
        let query = sqlx::query(statement).bind(purpose).bind(name).bind(limit());
        let rows = query.fetch_all(&mut self.connection).await;
        let sealed = |row: &SqliteRow| {
            Ok(SealedRow { purpose: get(row, "purpose")?, name: get(row, "name")?, value: get(row, "value")? })
        };
        rows.map_err(StoreError::failed)?.iter().map(sealed).collect()
    }

    async fn usage(&mut self, after: Option<&UsageRow>) -> Result<Vec<UsageRow>, StoreError> {
        // The primary key's order.
        let statement = "SELECT issuer, workload, subject, target, at, requests, granted FROM usage
            WHERE ?1 OR (issuer, workload, at, target, subject) > (?2, ?3, ?4, ?5, ?6)
            ORDER BY issuer, workload, at, target, subject LIMIT ?7";
        let text = |of: fn(&UsageRow) -> &str| after.map_or_else(String::new, |row| of(row).to_owned());
        let query = sqlx::query(statement)
            .bind(after.is_none())
            .bind(text(|row| &row.principal.issuer))
            .bind(text(|row| &row.principal.workload))
            .bind(after.map_or(0, |row| row.at))
            .bind(text(|row| &row.target))
            .bind(text(|row| &row.principal.subject))
            .bind(limit());
        let rows = query.fetch_all(&mut self.connection).await;
        let usage = |row: &SqliteRow| {
            Ok(UsageRow {
                principal: principal(row)?,
                target: get(row, "target")?,
                at: get(row, "at")?,
                requests: get(row, "requests")?,
                granted: get(row, "granted")?,
            })
        };
        rows.map_err(StoreError::failed)?.iter().map(usage).collect()
    }

    async fn holds(&mut self, after: &str) -> Result<Vec<HoldRow>, StoreError> {
        let statement = "SELECT request_id, until, issuer, workload, subject, target, at, lease FROM usage_holds
            WHERE request_id > ? ORDER BY request_id LIMIT ?";
        let rows = sqlx::query(statement).bind(after).bind(limit()).fetch_all(&mut self.connection).await;
        let hold = |row: &SqliteRow| {
            Ok(HoldRow {
                request_id: get(row, "request_id")?,
                until: get(row, "until")?,
                principal: principal(row)?,
                target: get(row, "target")?,
                at: get(row, "at")?,
                lease: get(row, "lease")?,
            })
        };
        rows.map_err(StoreError::failed)?.iter().map(hold).collect()
    }
}
