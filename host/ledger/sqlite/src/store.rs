//! The embedded store: one SQLite file, written by one task, read by a few connections.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::id::LeaseId;
use jit_core::lease::Lease;
use jit_core::name::TargetName;
use jit_core::usage::Usage;
use jit_tlog::checkpoint::{LogKey, Origin, VerifierKey};
use jit_tlog::merkle::CompactRange;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{QueryBuilder, Row as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::files::{self, Prepared};
use super::recent::Recent;
use super::rows;
use super::schema;
use super::sealed;
use super::usage;
use super::writer::{Job, OpenFailure, Writer};
use jit_ledger::columns::{MAX_ROWS, add_counts, column, decode, decode_all, moment, most, nanos};
use jit_ledger::{Change, Counted, Counts, LeaseFilter, Maker, Store, StoreError, StoredRecord};

use super::log::LogError;
use super::schema::SchemaError;

/// Changes that may wait for the writer; more wait for room.
const QUEUE: usize = 1024;
/// Connections that read.
const READERS: u32 = 4;
/// How long a change or question may take before its caller gets an error.
const DEADLINE: Duration = Duration::from_secs(30);
/// Handles of a backend that are looked for at once.
const HANDLES_AT_ONCE: usize = 10_000;

/// What the store is opened with.
#[derive(Debug)]
pub struct SqliteOptions {
    /// The database file. It and its folder are made where they are missing.
    pub path: PathBuf,
    /// The key that signs the audit log's checkpoints.
    pub signer: LogKey,
    /// Which log this is: the checkpoints' first line and the key's name.
    pub origin: Origin,
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another broker has it open.
    #[error("the store {} is in use by another jit-broker: two on one file would undo each other's work", .0.display())]
    InUse(PathBuf),
    /// The file has another name.
    #[error(
        "the store {} is a file with {names} names (hard links): whoever opens it by another name does not see \
         the changes that wait beside this one, and would undo them. Remove the other name, or copy the file: \
         find / -xdev -samefile {} finds them", path.display(), path.display()
    )]
    OtherNames {
        /// Which file.
        path: PathBuf,
        /// How many names it has.
        names: u64,
    },
    /// The file system said no.
    #[error("the store's file {}", path.display())]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Not our file, or one of a newer release.
    #[error("the store {}", path.display())]
    Schema {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: SchemaError,
    },
    /// The audit log in it cannot be continued.
    #[error("the store {}", path.display())]
    Log {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: LogError,
    },
    /// The database said no.
    #[error("the store {}", path.display())]
    Database {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: sqlx::Error,
    },
}

impl OpenError {
    /// Of that file.
    pub(super) fn of(path: &Path, failure: OpenFailure) -> Self {
        let path = path.to_owned();
        match failure {
            OpenFailure::Schema(source) => Self::Schema { path, source },
            OpenFailure::Log(source) => Self::Log { path, source },
            OpenFailure::Database(source) => Self::Database { path, source },
        }
    }
}

/// The store in one SQLite file. Dropping it without [`Store::close`] loses nothing that was
/// committed; changes still queued may or may not be made.
#[derive(Debug)]
pub struct SqliteStore {
    jobs: mpsc::Sender<Job>,
    readers: SqlitePool,
    size: watch::Receiver<u64>,
    verifier: VerifierKey,
    #[cfg(test)]
    pub(super) fault: tests::CommitFault,
}

impl SqliteStore {
    /// Opens the file, or makes it, and starts the writer on the current Tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`]: in use, not readable, of a newer release or another program, or with an
    /// audit log that does not fit its last signed checkpoint.
    pub async fn open(options: SqliteOptions) -> Result<Self, OpenError> {
        let SqliteOptions { path, signer, origin } = options;
        let Prepared { path, lock } = files::prepare(&path)?;
        let verifier = signer.verifier(&origin);
        let alone = schema::records_without_log(&path).await;
        let (connection, log) =
            Writer::connect(&path, &verifier).await.map_err(|failure| OpenError::of(&path, failure))?;
        files::tell_of_left_over_log(&path, alone, log.range.size());
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(DEADLINE)
            .connect_lazy_with(schema::reading(&path));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (size_sender, size) = watch::channel(log.range.size());
        #[cfg(test)]
        let fault = tests::CommitFault::default();
        let writer = Writer {
            path,
            key: signer,
            origin,
            connection: Some(connection),
            log,
            size: size_sender,
            recent: Recent::default(),
            lock,
            #[cfg(test)]
            fault: fault.clone(),
        };
        tokio::spawn(writer.run(queue));
        Ok(Self {
            jobs,
            readers,
            size,
            verifier,
            #[cfg(test)]
            fault,
        })
    }

    /// What others need to check the log's checkpoints.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Asks the writer and waits, for a bounded time, for what it says.
    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.jobs.send(job(reply)).await.map_err(|_| StoreError::Failed("it is closed".into()))?;
            answer.await.map_err(|_| StoreError::Failed("it was closed in the middle".into()))?
        };
        timeout(DEADLINE, asked)
            .await
            .unwrap_or_else(|_| Err(StoreError::Failed(format!("no answer within {} s", DEADLINE.as_secs()))))
    }
}

fn list<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    serde_json::Value::from_iter(items.into_iter().map(|item| item.as_ref().to_owned())).to_string()
}

#[async_trait]
impl Store for SqliteStore {
    /// When it fails with [`StoreError::Failed`], and also when the caller does not wait for the
    /// end, the change may or may not be made.
    async fn commit(&self, change: Change) -> Result<(), StoreError> {
        if change.is_empty() {
            return Ok(());
        }
        let prepared = rows::Prepared::new(&change)?;
        self.ask(|reply| Job::Commit(prepared, reply)).await
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<Lease>, StoreError> {
        let query = sqlx::query_scalar("SELECT doc FROM leases WHERE id = ?").bind(id.as_str());
        let document: Option<String> = query.fetch_optional(&self.readers).await.map_err(StoreError::failed)?;
        document.as_deref().map(decode).transpose()
    }

    async fn lease_by_key(&self, key: &str) -> Result<Option<Lease>, StoreError> {
        let query = sqlx::query_scalar("SELECT doc FROM leases WHERE idem_key = ?").bind(column(key));
        let document: Option<String> = query.fetch_optional(&self.readers).await.map_err(StoreError::failed)?;
        let lease = document.as_deref().map(decode).transpose()?;
        // The document is the truth, also for a key with characters that the column has not.
        Ok(lease.filter(|lease| lease.idempotency.as_ref().is_some_and(|held| held.key == key)))
    }

    async fn leases(&self, filter: &LeaseFilter) -> Result<Vec<Lease>, StoreError> {
        let mut query = QueryBuilder::new("SELECT doc FROM leases WHERE true");
        if let Some(principal) = &filter.principal {
            query.push(" AND issuer = ").push_bind(column(&principal.issuer));
            query.push(" AND workload = ").push_bind(column(&principal.workload));
            // Without a subject: of an earlier release.
            query.push(" AND subject IN ('', ").push_bind(column(&principal.subject)).push(")");
        }
        if let Some(target) = &filter.target {
            query.push(" AND target = ").push_bind(target.as_str());
        }
        if let Some(state) = filter.state {
            query.push(" AND state = ").push_bind(state.as_str());
        }
        if let Some(ended) = filter.ended {
            query.push(if ended { " AND state = 'revoked'" } else { " AND state <> 'revoked'" });
        }
        if let Some(workload) = &filter.workload {
            query.push(" AND workload = ").push_bind(column(workload));
        }
        // The plus keeps SQLite from walking all leases by id, where few live among many that have ended.
        let id = if filter.ended == Some(false) { "+id" } else { "id" };
        if let Some(before) = &filter.before {
            query.push(" AND ").push(id).push(" < ").push_bind(before.as_str());
        }
        query.push(" ORDER BY ").push(id).push(" DESC LIMIT ").push_bind(most(filter.limit));
        let documents = query.build_query_scalar().fetch_all(&self.readers).await.map_err(StoreError::failed)?;
        let mut leases = decode_all(documents);
        if let Some(principal) = &filter.principal {
            leases.retain(|lease| principal.owns(&lease.principal));
        }
        Ok(leases)
    }

    async fn due(&self, now: Timestamp, per_target: usize) -> Result<Vec<Lease>, StoreError> {
        let statement = "SELECT doc FROM leases WHERE rowid IN
                (SELECT rowid FROM
                    (SELECT rowid, row_number() OVER (PARTITION BY target,
                        CASE WHEN json_valid(doc) THEN doc ->> '$.removal.attempts' > 0 END IS TRUE ORDER BY due_at)
                        AS place
                     FROM leases WHERE due_at <= ?)
                 WHERE place <= ?)
            ORDER BY due_at, id";
        let documents = sqlx::query_scalar(statement)
            .bind(nanos(now))
            .bind(most(per_target))
            .fetch_all(&self.readers)
            .await
            .map_err(StoreError::failed)?;
        Ok(decode_all(documents))
    }

    async fn pending(&self, before: Timestamp, limit: usize) -> Result<Vec<Lease>, StoreError> {
        let statement =
            "SELECT doc FROM leases WHERE state = 'pending' AND issued_at < ? ORDER BY issued_at, id LIMIT ?";
        let documents = sqlx::query_scalar(statement)
            .bind(nanos(before))
            .bind(most(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(StoreError::failed)?;
        Ok(decode_all(documents))
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let query = sqlx::query_scalar("SELECT min(due_at) FROM leases WHERE due_at IS NOT NULL");
        let earliest: Option<i64> = query.fetch_one(&self.readers).await.map_err(StoreError::failed)?;
        Ok(earliest.map(moment))
    }

    async fn known_accounts(&self, names: &[String]) -> Result<Vec<AccountName>, StoreError> {
        let mut known = Vec::new();
        for part in names.chunks(MAX_ROWS) {
            let statement = "SELECT account, doc FROM leases
                WHERE state <> 'revoked' AND account IN (SELECT value FROM json_each(?))";
            let wanted = list(part.iter().map(|name| column(name)));
            let found: Vec<(String, String)> =
                sqlx::query_as(statement).bind(wanted).fetch_all(&self.readers).await.map_err(StoreError::failed)?;
            // A lease that cannot be read removes nothing: its account is one without a lease.
            let readable = found.into_iter().filter(|(_, document)| !decode_all(vec![document.clone()]).is_empty());
            let found: std::collections::HashSet<String> = readable.map(|(account, _)| account).collect();
            let named = part.iter().filter(|name| found.contains(&*column(name)));
            known.extend(named.map(|name| AccountName::from_backend(name.as_str())));
        }
        Ok(known)
    }

    async fn known_external_ids(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        let mut known = Vec::new();
        for part in ids.chunks(HANDLES_AT_ONCE) {
            // All live leases are read for each part: for a reconciliation that is often enough.
            let statement = "SELECT DISTINCT doc ->> '$.external_id' FROM leases
                WHERE state <> 'revoked' AND json_valid(doc) AND doc ->> '$.external_id' IN (SELECT value FROM json_each(?))";
            known.extend(
                sqlx::query_scalar::<_, String>(statement)
                    .bind(list(part))
                    .fetch_all(&self.readers)
                    .await
                    .map_err(StoreError::failed)?,
            );
        }
        Ok(known)
    }

    async fn ended_accounts(&self, names: &[String]) -> Result<Vec<AccountName>, StoreError> {
        let mut ended = Vec::new();
        for part in names.chunks(HANDLES_AT_ONCE) {
            let statement = "SELECT DISTINCT account FROM leases
                WHERE state = 'revoked' AND account IN (SELECT value FROM json_each(?))";
            let wanted = list(part.iter().map(|name| column(name)));
            let found: Vec<String> = sqlx::query_scalar(statement)
                .bind(wanted)
                .fetch_all(&self.readers)
                .await
                .map_err(StoreError::failed)?;
            ended.extend(found.into_iter().map(AccountName::from_backend));
        }
        Ok(ended)
    }

    async fn ended_external_ids(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        let mut ended = Vec::new();
        for part in ids.chunks(HANDLES_AT_ONCE) {
            let statement = "SELECT DISTINCT doc ->> '$.external_id' FROM leases
                WHERE state = 'revoked' AND json_valid(doc) AND doc ->> '$.external_id' IN (SELECT value FROM json_each(?))";
            ended.extend(
                sqlx::query_scalar::<_, String>(statement)
                    .bind(list(part))
                    .fetch_all(&self.readers)
                    .await
                    .map_err(StoreError::failed)?,
            );
        }
        Ok(ended)
    }

    async fn makers(&self) -> Result<Vec<Maker>, StoreError> {
        // The end of a lease over a rotating account asks nothing of its driver.
        let statement = "SELECT target, doc ->> '$.driver' AS driver, count(*), max(doc ->> '$.expires_at')
            FROM leases WHERE state <> 'revoked' AND json_valid(doc) AND doc ->> '$.driver' IS NOT NULL
            AND doc ->> '$.rotating' IS NULL
            GROUP BY target, driver ORDER BY target, driver LIMIT ?";
        let mut makers = Vec::new();
        for row in
            sqlx::query(statement).bind(most(MAX_ROWS)).fetch_all(&self.readers).await.map_err(StoreError::failed)?
        {
            let (target, driver, last): (String, String, String) = (
                row.try_get(0).map_err(StoreError::failed)?,
                row.try_get(1).map_err(StoreError::failed)?,
                row.try_get(3).map_err(StoreError::failed)?,
            );
            let unreadable = |what: &str| StoreError::Failed(format!("a lease in it has no readable {what}"));
            makers.push(Maker {
                target: TargetName::new(target).map_err(|_| unreadable("target"))?,
                driver: serde_json::from_str(&driver).map_err(|_| unreadable("driver"))?,
                leases: row.try_get::<i64, _>(2).map_err(StoreError::failed)?.unsigned_abs(),
                last_expiry: last.parse().map_err(|_| unreadable("expiry"))?,
            });
        }
        Ok(makers)
    }

    async fn counts(&self, now: Timestamp) -> Result<Counts, StoreError> {
        let statement = "SELECT target, state, count(*), count(*) FILTER (WHERE owed_since <= ?1),
                min(owed_since) FILTER (WHERE owed_since <= ?1)
            FROM leases WHERE state <> 'revoked' GROUP BY target, state";
        let mut counts = Counts::default();
        for row in sqlx::query(statement).bind(nanos(now)).fetch_all(&self.readers).await.map_err(StoreError::failed)? {
            let (target, state): (String, String) =
                (row.try_get(0).map_err(StoreError::failed)?, row.try_get(1).map_err(StoreError::failed)?);
            let (all, overdue): (i64, i64) =
                (row.try_get(2).map_err(StoreError::failed)?, row.try_get(3).map_err(StoreError::failed)?);
            let oldest = row.try_get(4).map_err(StoreError::failed)?;
            add_counts(&mut counts, target, &state, all, overdue, oldest);
        }
        Ok(counts)
    }

    async fn forget_revoked(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.ask(|reply| Job::Forget(nanos(before), most(limit), reply)).await
    }

    async fn count(&self, request: &Counted) -> Result<Usage, StoreError> {
        self.ask(|reply| Job::Count(Box::new(request.clone()), reply)).await
    }

    async fn usage(&self, request: &Counted) -> Result<Usage, StoreError> {
        usage::peek(&self.readers, request).await.map_err(StoreError::failed)
    }

    async fn forget_usage(&self, before: Timestamp) -> Result<(), StoreError> {
        self.ask(|reply| Job::ForgetUsage(before.as_second(), reply)).await
    }

    async fn sealed(&self, purpose: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        sealed::one(&self.readers, purpose, name).await
    }

    async fn sealed_of(&self, purpose: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        sealed::all(&self.readers, purpose).await
    }

    async fn frontier(&self) -> Result<CompactRange, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(StoreError::failed)?;
        super::log::frontier(&mut connection).await.map_err(StoreError::failed)
    }

    async fn kept_checkpoints(&self, after: u64, before: Timestamp) -> Result<Vec<(u64, String)>, StoreError> {
        let statement =
            "SELECT size, note FROM checkpoint_history WHERE size > ? AND taken_at < ? ORDER BY size LIMIT ?";
        let found = sqlx::query(statement)
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(nanos(before))
            .bind(most(MAX_ROWS))
            .fetch_all(&self.readers)
            .await
            .map_err(StoreError::failed)?;
        found
            .into_iter()
            .map(|row| {
                Ok((
                    row.try_get::<i64, _>(0).map_err(StoreError::failed)?.unsigned_abs(),
                    row.try_get(1).map_err(StoreError::failed)?,
                ))
            })
            .collect()
    }

    async fn records(&self, from_seq: u64, limit: usize) -> Result<Vec<StoredRecord>, StoreError> {
        let Ok(from) = i64::try_from(from_seq) else { return Ok(Vec::new()) };
        let statement = "SELECT seq, record FROM audit WHERE seq >= ? ORDER BY seq LIMIT ?";
        let found = sqlx::query(statement)
            .bind(from)
            .bind(most(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(StoreError::failed)?;
        let record = |row: sqlx::sqlite::SqliteRow| {
            Ok(StoredRecord {
                seq: row.try_get::<i64, _>(0).map_err(StoreError::failed)?.unsigned_abs(),
                json: row.try_get(1).map_err(StoreError::failed)?,
            })
        };
        found.into_iter().map(record).collect()
    }

    async fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT note FROM checkpoint")
            .fetch_optional(&self.readers)
            .await
            .map_err(StoreError::failed)
    }

    fn log_size(&self) -> watch::Receiver<u64> {
        self.size.clone()
    }

    /// Writes the write-ahead log back too, so that the file stands alone.
    async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.jobs.send(Job::Close(reply)).await.is_ok() {
            let _closed = timeout(DEADLINE, done).await;
        }
        self.readers.close().await;
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
pub(crate) mod tests;
