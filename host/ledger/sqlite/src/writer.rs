//! The one task that writes. It takes what is queued, checks it, and makes all of it durable in
//! one transaction: durability costs one fsync for a whole group of requests, and nobody waits for
//! a group to fill.
//!
//! Owns: the writing connection, the lock on the file, the signing key, the tree's state. After
//! any failure nothing is assumed: the connection is opened anew and the log's state read back, so
//! that a commit which failed and one which failed but took effect end the same way.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use jit_core::usage::Usage;
use jit_tlog::checkpoint::{LogKey, Origin, VerifierKey};
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::files::Lock;
use super::log::{LogError, LogState};
use super::recent::Recent;
use super::rows::{LeaseRow, Prepared, lease_array, verifier_array};
use super::schema;
use super::sealed::SealedGroup;
use super::statements::{self, Writes, stand};
use super::usage;
use jit_ledger::Counted;
use jit_ledger::ground::Ground;
use jit_ledger::group::{CHANGES, gather};
use jit_ledger::{StoreError, VERIFIER_MEMORY};

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
    /// Forget revoked leases that ended before this (nanoseconds), up to this number of them.
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
    /// What it wrote last.
    pub(super) recent: Recent,
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
        statements::prepare(&mut connection).await?;
        let log = LogState::load(&mut connection, verifier).await?;
        Ok((connection, log))
    }

    /// Runs until it is closed, or every handle to the store is gone.
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
                    (group, next) =
                        gather((prepared, reply), &mut jobs, CHANGES, |(change, _)| change.weight(), a_commit);
                    self.commit(group).await;
                    written = true;
                }
                Some(Job::Count(request, reply)) => {
                    let group;
                    (group, next) = gather((request, reply), &mut jobs, CHANGES, |_| 0, a_count);
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
    ///
    /// The state of the leases is read first, unless this writer remembers it. It cannot remember that an id or a key is
    /// free: if it is not, a constraint of the file refuses the statement, nothing is written, and the state is read.
    async fn write(&mut self, group: &[Prepared]) -> Result<Vec<Result<(), StoreError>>, WriteError> {
        self.ensure_connection().await?;
        if let Some(ground) = self.recent.ground(group) {
            match self.write_on(ground, group).await {
                Err(WriteError::Database(error)) if is_constraint(&error) => self.recent = Recent::default(),
                done => return done,
            }
        }
        let mut ground = Ground::default();
        stand(self.connection()?, group, &mut ground).await?;
        self.write_on(ground, group).await
    }

    /// Does it, where the leases stand like this.
    async fn write_on<'g>(
        &mut self,
        mut ground: Ground<'g, LeaseRow>,
        group: &'g [Prepared],
    ) -> Result<Vec<Result<(), StoreError>>, WriteError> {
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
        let stepped = ground.writes();
        let (leases, verifiers) = (lease_array(&stepped), verifier_array(&ground.verifiers()));
        let signed = (!records.is_empty()).then(|| {
            records.push(']');
            log.sign(&self.key, &self.origin, Timestamp::now())
        });
        let writes = Writes { leases, verifiers, sealed, settled, records, signed, archived };
        if writes.is_empty() {
            return Ok(verdicts);
        }
        #[cfg(test)]
        let fault = self.fault.clone();
        let commit = writes.commit(self.connection()?);
        #[cfg(test)]
        let commit = fault.around(commit);
        jit_failpoint::step("store.commit", || sqlx::Error::Protocol("failpoint store.commit".into()), commit).await?;
        self.recent.keep(&stepped);
        self.log = log;
        self.size.send_if_modified(|size| {
            let grown = *size != self.log.range.size();
            *size = self.log.range.size();
            grown
        });
        Ok(verdicts)
    }

    fn connection(&mut self) -> Result<&mut SqliteConnection, WriteError> {
        Ok(self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)?)
    }

    /// Counts a group of requests, one after the other, in one transaction.
    async fn count(&mut self, group: Vec<ToCount>) {
        let counting = async {
            self.ensure_connection().await?;
            let mut transaction = self.connection()?.begin_with("BEGIN IMMEDIATE").await?;
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
            usage::forget(self.connection()?, before, Timestamp::now().as_second()).await?;
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
            // A lease that is forgotten is not remembered either.
            self.recent = Recent::default();
            let connection = self.connection()?;
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
        statements::prepare(&mut connection).await?;
        self.log = LogState::load(&mut connection, &verifier).await?;
        self.size.send_replace(self.log.range.size());
        self.connection = Some(connection);
        Ok(())
    }

    async fn give_up_connection(&mut self) {
        self.recent = Recent::default();
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

/// Whether a constraint of the file refused a statement: a key that is taken, or a lease that stepped on.
fn is_constraint(error: &sqlx::Error) -> bool {
    /// `SQLITE_CONSTRAINT_TRIGGER`, what `RAISE(ABORT)` in a trigger gives.
    const TRIGGER: &str = "1811";
    let sqlx::Error::Database(error) = error else { return false };
    error.is_unique_violation() || error.code().as_deref() == Some(TRIGGER)
}

fn a_commit(job: Job) -> ControlFlow<Job, Waiting> {
    match job {
        Job::Commit(prepared, reply) => ControlFlow::Continue((prepared, reply)),
        other => ControlFlow::Break(other),
    }
}

fn a_count(job: Job) -> ControlFlow<Job, ToCount> {
    match job {
        Job::Count(request, reply) => ControlFlow::Continue((request, reply)),
        other => ControlFlow::Break(other),
    }
}
