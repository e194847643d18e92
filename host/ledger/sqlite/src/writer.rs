//! The one task that writes. It takes what is queued, checks it, and makes all of it durable in
//! one transaction: durability costs one fsync for a whole group of requests, and nobody waits for
//! a group to fill.
//!
//! Owns: the writing connection, the lock on the file, the signing key, the tree's state. After
//! any failure nothing is assumed: the connection is opened anew and the log's state read back, so
//! that a commit which failed and one which failed but took effect end the same way.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use jit_core::usage::Usage;
use jit_tlog::checkpoint::{LogKey, Origin, VerifierKey};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::files::Lock;
use super::log::{LogError, LogState, Signed};
use super::rows::{LeaseRow, Prepared, lease_array, verifier_array};
use super::schema;
use super::sealed::{self, SealedGroup};
use super::usage;
use jit_ledger::Counted;
use jit_ledger::ground::{Ground, Row as _};
use jit_ledger::{StoreError, VERIFIER_MEMORY};

/// The most changes in one transaction.
const GROUP: usize = 256;
/// The most bytes of documents in one transaction; a single change may be larger.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// How long one transaction may take before the connection is given up.
const DEADLINE: Duration = Duration::from_secs(20);
/// After so long without a change the write-ahead log is written back, so that it stays small and
/// the next busy spell does not begin with that work.
const IDLE: Duration = Duration::from_secs(2);

/// What is asked of the writer.
pub(super) enum Job {
    /// Make a change durable.
    Commit(Prepared, oneshot::Sender<Result<(), StoreError>>),
    /// Count a request, durably.
    Count(Box<Counted>, oneshot::Sender<Result<Usage, StoreError>>),
    /// Forget what was counted before this (seconds).
    ForgetUsage(i64, oneshot::Sender<Result<(), StoreError>>),
    /// Forget revoked leases that ended before this (nanoseconds), at most so many.
    Forget(i64, i64, oneshot::Sender<Result<u64, StoreError>>),
    /// Finish what is queued and close the file.
    Close(oneshot::Sender<()>),
}

type Waiting = (Prepared, oneshot::Sender<Result<(), StoreError>>);
type ToCount = (Box<Counted>, oneshot::Sender<Result<Usage, StoreError>>);

/// Why a transaction did not happen (or may not have).
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("it took longer than {} s", DEADLINE.as_secs())]
    Deadline,
}

/// The writer's belongings.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) key: LogKey,
    pub(super) origin: Origin,
    /// `None` after a failure, until the next change.
    pub(super) connection: Option<SqliteConnection>,
    pub(super) log: LogState,
    /// How many records the log has.
    pub(super) size: watch::Sender<u64>,
    /// Held as long as the file is written to.
    pub(super) lock: Lock,
    #[cfg(test)]
    pub(super) fault: super::store::tests::CommitFault,
}

impl Writer {
    /// Opens a writing connection and reads the log's state.
    pub(super) async fn connect(
        path: &std::path::Path,
        verifier: &VerifierKey,
    ) -> Result<(SqliteConnection, LogState), OpenFailure> {
        let mut connection = schema::writing(path).connect().await?;
        schema::prepare(&mut connection).await?;
        let log = LogState::load(&mut connection, verifier).await?;
        Ok((connection, log))
    }

    /// Runs until it is told to close, or every handle to the store is gone.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut next = None;
        let mut closed = None;
        let mut written = false;
        loop {
            let job = match next.take() {
                Some(job) => Some(job),
                None if written => match timeout(IDLE, jobs.recv()).await {
                    Ok(job) => job,
                    Err(_) => {
                        self.write_back("PRAGMA wal_checkpoint(PASSIVE)").await;
                        written = false;
                        continue;
                    }
                },
                None => jobs.recv().await,
            };
            match job {
                Some(Job::Commit(prepared, reply)) => {
                    let group;
                    (group, next) = gather((prepared, reply), &mut jobs);
                    self.commit(group).await;
                    written = true;
                }
                Some(Job::Count(request, reply)) => {
                    let group;
                    (group, next) = gather_counts((request, reply), &mut jobs);
                    self.count(group).await;
                    written = true;
                }
                Some(Job::ForgetUsage(before, reply)) => {
                    let _gone = reply.send(self.forget_usage(before).await);
                    written = true;
                }
                Some(Job::Forget(before, limit, reply)) => {
                    let _gone = reply.send(self.forget(before, limit).await);
                    written = true;
                }
                Some(Job::Close(reply)) => {
                    // What was queued before is still taken; nothing new is.
                    jobs.close();
                    closed = Some(reply);
                }
                None => break,
            }
        }
        self.finish().await;
        if let Some(reply) = closed {
            let _gone = reply.send(());
        }
    }

    /// Makes a group of changes durable and answers each.
    async fn commit(&mut self, group: Vec<Waiting>) {
        let (prepared, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let result = match timeout(DEADLINE, self.write(&prepared)).await {
            Ok(result) => result,
            Err(_) => Err(WriteError::Deadline),
        };
        match result {
            Ok(verdicts) => {
                for (reply, verdict) in replies.into_iter().zip(verdicts) {
                    let _gone = reply.send(verdict);
                }
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    changes = prepared.len(),
                    "the store could not commit"
                );
                self.give_up_connection().await;
                let failed = StoreError::failed(error);
                for reply in replies {
                    let _gone = reply.send(Err(failed.clone()));
                }
            }
        }
    }

    /// One transaction with all changes of the group that are admitted; each one's verdict.
    async fn write(&mut self, group: &[Prepared]) -> Result<Vec<Result<(), StoreError>>, WriteError> {
        self.ensure_connection().await?;
        let Some(connection) = self.connection.as_mut() else { return Err(sqlx::Error::WorkerCrashed.into()) };
        let mut ground = Ground::default();
        stand(connection, group, &mut ground).await?;
        let mut log = self.log.clone();
        let mut records = String::new();
        let mut sealed = SealedGroup::default();
        let mut settled: Vec<&(String, bool)> = Vec::new();
        let mut archived = None;
        let mut verdicts = Vec::with_capacity(group.len());
        for change in group {
            let verdict = ground.admit(&change.leases);
            if verdict.is_ok() {
                for event in &change.events {
                    let leaf = event.append_to(&mut records, log.range.size());
                    log.range.push(leaf);
                }
                sealed.add(&change.sealed);
                settled.extend(&change.settled);
                archived = change.archived.as_ref().or(archived);
            }
            verdicts.push(verdict);
        }
        let (leases, verifiers) = (lease_array(&ground.writes()), verifier_array(&ground.verifiers()));
        let signed = (!records.is_empty()).then(|| {
            records.push(']');
            log.sign(&self.key, &self.origin, Timestamp::now())
        });
        if leases.is_empty() && signed.is_none() && sealed.is_empty() && settled.is_empty() && archived.is_none() {
            return Ok(verdicts);
        }
        put(connection, leases, verifiers, &sealed, &settled, records, signed).await?;
        if let Some((size, nodes)) = archived {
            archive(connection, *size, nodes).await?;
        }
        let end = async { sqlx::query("COMMIT").execute(connection).await.map(|_| ()) };
        #[cfg(test)]
        let end = self.fault.around(end);
        jit_failpoint::step("store.commit", || sqlx::Error::Protocol("failpoint store.commit".into()), end).await?;
        self.log = log;
        self.size.send_if_modified(|size| {
            let grown = *size != self.log.range.size();
            *size = self.log.range.size();
            grown
        });
        Ok(verdicts)
    }

    /// Counts a group of requests, one after the other, in one transaction.
    async fn count(&mut self, group: Vec<ToCount>) {
        let counting = async {
            self.ensure_connection().await?;
            let Some(connection) = self.connection.as_mut() else { return Err(sqlx::Error::WorkerCrashed.into()) };
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let mut counted = Vec::with_capacity(group.len());
            for (request, _) in &group {
                counted.push(usage::count(&mut transaction, request).await?);
            }
            transaction.commit().await?;
            Ok::<_, WriteError>(counted)
        };
        let counted = timeout(DEADLINE, counting).await.unwrap_or(Err(WriteError::Deadline));
        match counted {
            Ok(counted) => {
                for ((_, reply), usage) in group.into_iter().zip(counted) {
                    let _gone = reply.send(Ok(usage));
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "requests could not be counted");
                self.give_up_connection().await;
                let failed = StoreError::failed(error);
                for (_, reply) in group {
                    let _gone = reply.send(Err(failed.clone()));
                }
            }
        }
    }

    async fn forget_usage(&mut self, before: i64) -> Result<(), StoreError> {
        let forgetting = async {
            self.ensure_connection().await?;
            let Some(connection) = self.connection.as_mut() else { return Err(sqlx::Error::WorkerCrashed.into()) };
            usage::forget(connection, before, Timestamp::now().as_second()).await?;
            Ok::<_, WriteError>(())
        };
        let result = timeout(DEADLINE, forgetting).await.unwrap_or(Err(WriteError::Deadline));
        if result.is_err() {
            self.give_up_connection().await;
        }
        result.map_err(StoreError::failed)
    }

    async fn forget(&mut self, before: i64, limit: i64) -> Result<u64, StoreError> {
        let result = timeout(DEADLINE, async {
            self.ensure_connection().await?;
            let Some(connection) = self.connection.as_mut() else { return Err(sqlx::Error::WorkerCrashed.into()) };
            let forget = "DELETE FROM leases WHERE id IN
                (SELECT id FROM leases WHERE ended_at < ? AND ended_at IS NOT NULL ORDER BY ended_at LIMIT ?)";
            let forgotten =
                sqlx::query(forget).bind(before).bind(limit).execute(&mut *connection).await?.rows_affected();
            let verifiers = "DELETE FROM verifiers WHERE digest IN
                (SELECT digest FROM verifiers WHERE used_at < ? ORDER BY used_at LIMIT ?)";
            let memory = i64::try_from(VERIFIER_MEMORY.as_nanos()).unwrap_or(i64::MAX);
            sqlx::query(verifiers).bind(before.saturating_sub(memory)).bind(limit).execute(connection).await?;
            Ok(forgotten)
        })
        .await
        .unwrap_or(Err(WriteError::Deadline));
        if result.is_err() {
            self.give_up_connection().await;
        }
        result.map_err(StoreError::failed)
    }

    /// Opens the connection again after a failure. The log goes on from what the file says.
    async fn ensure_connection(&mut self) -> Result<(), WriteError> {
        if self.connection.is_some() {
            return Ok(());
        }
        let verifier = self.key.verifier(&self.origin);
        let mut connection = schema::writing(&self.path).connect().await?;
        self.log = LogState::load(&mut connection, &verifier).await?;
        self.size.send_replace(self.log.range.size());
        self.connection = Some(connection);
        Ok(())
    }

    async fn give_up_connection(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        // Closing rolls back too; this frees the lock earlier where the thread is slow to end.
        let _open_or_not = timeout(DEADLINE, async {
            let _none = sqlx::query("ROLLBACK").execute(&mut connection).await;
            connection.close().await
        })
        .await;
    }

    async fn write_back(&mut self, statement: &'static str) {
        let Some(connection) = self.connection.as_mut() else { return };
        if let Err(error) = sqlx::query(statement).fetch_optional(connection).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the store's write-ahead log was not written back into its file"
            );
        }
    }

    /// The last checkpoint goes into the history, and the file stands alone, without its
    /// write-ahead log.
    async fn finish(mut self) {
        if let Some(connection) = self.connection.as_mut().filter(|_| self.log.history_lags()) {
            let keep =
                "INSERT OR IGNORE INTO checkpoint_history (size, taken_at, note) SELECT size, ?, note FROM checkpoint";
            let now = jit_ledger::columns::nanos(Timestamp::now());
            if let Err(error) = sqlx::query(keep).bind(now).execute(connection).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the last checkpoint was not kept in the history"
                );
            }
        }
        self.write_back("PRAGMA wal_checkpoint(TRUNCATE)").await;
        if let Some(connection) = self.connection.take() {
            let _closed = timeout(DEADLINE, connection.close()).await;
        }
        drop(self.lock);
    }
}

/// Why the writer cannot be opened; [`super::OpenError`] says it with the path.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenFailure {
    #[error(transparent)]
    Schema(#[from] schema::SchemaError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Takes what is queued, up to the bounds of a group, and the job after it if it is another kind.
fn gather(first: Waiting, jobs: &mut mpsc::Receiver<Job>) -> (Vec<Waiting>, Option<Job>) {
    let mut bytes = first.0.weight();
    let mut group = vec![first];
    while group.len() < GROUP && bytes < GROUP_BYTES {
        match jobs.try_recv() {
            Ok(Job::Commit(prepared, reply)) => {
                bytes += prepared.weight();
                group.push((prepared, reply));
            }
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}

/// As [`gather`], for requests that are to be counted.
fn gather_counts(first: ToCount, jobs: &mut mpsc::Receiver<Job>) -> (Vec<ToCount>, Option<Job>) {
    let mut group = vec![first];
    while group.len() < GROUP {
        match jobs.try_recv() {
            Ok(Job::Count(request, reply)) => group.push((request, reply)),
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}

/// Reads how the leases of the group stand, and who holds the keys that it asks for.
async fn stand<'g>(
    connection: &mut SqliteConnection,
    group: &'g [Prepared],
    ground: &mut Ground<'g, LeaseRow>,
) -> Result<(), sqlx::Error> {
    let rows = || group.iter().flat_map(|change| &change.leases).map(LeaseRow::step);
    let ids: Vec<&str> = rows().map(|row| row.id.as_str()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = rows().filter_map(|row| row.key.as_deref()).collect();
    let json = |list: &[&str]| serde_json::Value::from(list).to_string();
    // This task is the only one that writes (the file is locked), so what is read before the transaction still holds
    // in it. UNION, not OR: each half uses its own index.
    let statement = "SELECT id, version, idem_key FROM leases WHERE id IN (SELECT value FROM json_each(?))
        UNION SELECT id, version, idem_key FROM leases WHERE idem_key IN (SELECT value FROM json_each(?))";
    for row in sqlx::query(statement).bind(json(&ids)).bind(json(&keys)).fetch_all(&mut *connection).await? {
        ground.found(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    }
    let digests: Vec<&str> = rows().filter_map(|row| Some(row.verifier.as_ref()?.digest.as_str())).collect();
    if digests.is_empty() {
        return Ok(());
    }
    let statement = "SELECT lower(hex(digest)), lease FROM verifiers
        WHERE digest IN (SELECT unhex(value) FROM json_each(?))";
    for row in sqlx::query(statement).bind(json(&digests)).fetch_all(connection).await? {
        ground.found_verifier(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(())
}

/// Lets go of the records that are in an archive, and of the checkpoints over less. The frontier goes first:
/// it is what the table's guard against slips looks at. It only moves forward, and never past the log's end.
async fn archive(connection: &mut SqliteConnection, size: i64, nodes: &[u8]) -> Result<(), sqlx::Error> {
    let forward = "INSERT INTO archived (one, size, nodes) SELECT 1, ?1, ?2
            WHERE ?1 > coalesce((SELECT size FROM archived), 0) AND ?1 <= (SELECT size FROM checkpoint)
        ON CONFLICT (one) DO UPDATE SET size = excluded.size, nodes = excluded.nodes";
    if sqlx::query(forward).bind(size).bind(nodes).execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query("DELETE FROM audit WHERE seq < ?").bind(size).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM checkpoint_history WHERE size < ?").bind(size).execute(connection).await?;
    Ok(())
}

/// Begins the transaction and writes everything, all leases by one statement and all records by
/// one. Sent as one text: each statement of its own would be a hop to SQLite's thread and back.
async fn put(
    connection: &mut SqliteConnection,
    leases: String,
    verifiers: String,
    sealed: &SealedGroup<'_>,
    settled: &[&(String, bool)],
    records: String,
    signed: Option<Signed>,
) -> Result<(), sqlx::Error> {
    const BEGIN: &str = "BEGIN IMMEDIATE;";
    const LEASES: &str = "
        INSERT INTO leases (id, version, state, issuer, workload, subject, target, account, issued_at, due_at, owed_since, ended_at, doc, idem_key)
        SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, value->>9,
            value->>10, value->>11, value->>12, value->>13
        FROM jsonb_each(?) WHERE true
        ON CONFLICT (id) DO UPDATE SET version = excluded.version, state = excluded.state, account = excluded.account,
            due_at = excluded.due_at, owed_since = excluded.owed_since, ended_at = excluded.ended_at,
            doc = excluded.doc, idem_key = excluded.idem_key;";
    const VERIFIERS: &str = "
        INSERT INTO verifiers (digest, lease, used_at) SELECT unhex(value->>0), value->>1, value->>2
            FROM jsonb_each(?) WHERE true
            ON CONFLICT (digest) DO UPDATE SET lease = excluded.lease, used_at = excluded.used_at;";
    const SETTLED: &str = "
        INSERT INTO usage (issuer, workload, subject, target, at, requests, granted)
            SELECT held.issuer, held.workload, held.subject, held.target, held.at, 0, 1
            FROM jsonb_each(?) AS settled JOIN usage_holds AS held ON held.request_id = settled.value->>0
            WHERE settled.value->>1
            ON CONFLICT DO UPDATE SET granted = granted + 1;
        DELETE FROM usage_holds WHERE request_id IN (SELECT value->>0 FROM jsonb_each(?));";
    const RECORDS: &str = "
        INSERT INTO audit (seq, record, leaf) SELECT value->>0, value->>1, unhex(value->>2) FROM jsonb_each(?);
        INSERT INTO checkpoint (one, size, note, nodes) VALUES (1, ?, ?, ?)
            ON CONFLICT (one) DO UPDATE SET size = excluded.size, note = excluded.note, nodes = excluded.nodes;";
    const HISTORY: &str = "INSERT INTO checkpoint_history (size, taken_at, note) VALUES (?, ?, ?);";

    let mut text = BEGIN.to_owned();
    let history_at = signed.as_ref().and_then(|signed| signed.history_at);
    for (wanted, statement) in [
        (!leases.is_empty(), LEASES),
        (!verifiers.is_empty(), VERIFIERS),
        (!sealed.is_empty(), sealed::STATEMENTS),
        (!settled.is_empty(), SETTLED),
        (signed.is_some(), RECORDS),
        (history_at.is_some(), HISTORY),
    ] {
        if wanted {
            text.push_str(statement);
        }
    }
    // Made of constants only: at most forty-eight texts, so each is prepared once.
    let mut query = sqlx::query(AssertSqlSafe(text));
    if !leases.is_empty() {
        query = query.bind(leases);
    }
    if !verifiers.is_empty() {
        query = query.bind(verifiers);
    }
    if !sealed.is_empty() {
        let array = sealed.array();
        query = query.bind(array.clone()).bind(array);
    }
    if !settled.is_empty() {
        let settled = serde_json::json!(settled).to_string();
        query = query.bind(settled.clone()).bind(settled);
    }
    if let Some(Signed { size, note, nodes, .. }) = signed {
        query = query.bind(records).bind(size).bind(note.clone()).bind(nodes);
        if let Some(at) = history_at {
            query = query.bind(size).bind(at).bind(note);
        }
    }
    query.execute(connection).await.map(|_| ())
}
