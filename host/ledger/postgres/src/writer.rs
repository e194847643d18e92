//! The task that commits. It takes what is queued and makes all of it durable in one transaction: a whole group of
//! requests waits once for the server's disk and its replicas, and nobody waits for a group to fill.
//!
//! What fails before COMMIT was sent has made nothing, so it is tried again within the deadline: on another connection
//! where this one is lost, which may lead to another server by then. What fails after that is looked up
//! ([`super::batch`]). A group that the server refuses is taken change by change, so that one bad change spoils no
//! other.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jit_ledger::columns::nanos;
use jit_ledger::group::{CHANGES, gather};
use jit_ledger::{StoreError, VERIFIER_MEMORY};
use jit_tlog::checkpoint::{LogKey, Origin, VerifierKey};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::batch::{self, Batch};
use super::log::{HeadError, LogError, Seen};
use super::member::{Lost, Member, begin};
use super::pool::failed;
use super::rows::Prepared;
use super::servers::{After, ConnectError, Servers};
use super::transaction::{self, Signing, Written};
use super::usage;
use super::work::Work;

/// How long a group may take, all attempts and the question after a lost answer included.
const DEADLINE: Duration = Duration::from_secs(28);
/// How long of that the attempts may take: the rest is for the question.
const ATTEMPTS: Duration = Duration::from_secs(18);
/// Until when a COMMIT may answer.
const COMMITS: Duration = Duration::from_secs(22);
/// The most attempts of one group that crosses with others.
const CROSSINGS: u32 = 20;
/// Between two attempts on lost connections, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));
/// How long the end of a connection may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What is asked of the writer.
pub(crate) enum Job {
    /// Make a change durable.
    Commit(Prepared, Reply<()>),
    /// Forget what was counted before this (seconds).
    ForgetUsage(i64, Reply<()>),
    /// Forget revoked leases that ended before this (nanoseconds), up to this number of them.
    Forget(i64, i64, Reply<u64>),
    /// Divide work among the brokers; the answer is how many rows it was about.
    Work(Work, Reply<u64>),
    /// Finish what is queued and close the connection.
    Close(oneshot::Sender<()>),
}

type Waiting = (Prepared, Reply<()>);

/// Why a transaction did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("{}", failed_text(.0))]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("another broker fenced this one, which writes nothing more: start it again")]
    Fenced,
    #[error("it took longer than {} s", ATTEMPTS.as_secs())]
    Deadline,
    #[error("whether the change was made could not be found out: the server did not answer the commit")]
    Unknown,
}

fn failed_text(error: &sqlx::Error) -> String {
    match failed(error) {
        StoreError::Failed(text) => text,
        other => other.to_string(),
    }
}

impl From<HeadError> for WriteError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Log(error) => Self::Log(error),
            HeadError::Database(error) => Self::Database(error),
        }
    }
}

impl WriteError {
    /// What it leaves of the connection and of the transaction before its COMMIT.
    pub(crate) fn after(&self) -> After {
        match self {
            Self::Database(error) => After::of(error),
            Self::Connect(_) | Self::Deadline | Self::Unknown => After::Lost,
            Self::Log(_) | Self::Fenced => After::Refused,
        }
    }

    /// Whether the same can succeed in a moment.
    pub(crate) fn passes(&self) -> bool {
        !matches!(self, Self::Log(_) | Self::Fenced | Self::Deadline | Self::Unknown) && self.after() != After::Refused
    }
}

/// The writer's belongings.
pub(crate) struct Writer {
    pub(crate) servers: Arc<Servers>,
    pub(crate) member: Arc<Member>,
    pub(crate) key: LogKey,
    pub(crate) origin: Origin,
    pub(crate) verifier: VerifierKey,
    /// `None` after a failure, until the next change.
    pub(crate) connection: Option<PgConnection>,
    pub(crate) seen: Option<Seen>,
    /// How many records the log has.
    pub(crate) size: watch::Sender<u64>,
    pub(crate) lost: Lost,
}

impl Writer {
    /// Runs until it is closed, or every handle to the store is gone.
    pub(crate) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut next = None;
        let mut closed = None;
        loop {
            let job = match next.take() {
                Some(job) => Some(job),
                None => jobs.recv().await,
            };
            match job {
                Some(Job::Commit(prepared, reply)) => {
                    let group;
                    (group, next) =
                        gather((prepared, reply), &mut jobs, CHANGES, |(change, _)| change.weight(), a_commit);
                    self.commit(group).await;
                }
                Some(Job::ForgetUsage(before, reply)) => {
                    let _gone = reply.send(self.forget_usage(before).await);
                }
                Some(Job::Forget(before, limit, reply)) => {
                    let _gone = reply.send(self.forget(before, limit).await);
                }
                Some(Job::Work(work, reply)) => {
                    let _gone = reply.send(self.divide(&work).await);
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
        let together: Vec<&Prepared> = prepared.iter().collect();
        match self.make(&together).await {
            Ok(verdicts) => {
                for (reply, verdict) in replies.into_iter().zip(verdicts) {
                    let _gone = reply.send(verdict);
                }
            }
            Err(error) if together.len() > 1 && error.after() == After::Refused && is_of_a_change(&error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a group of changes is taken one by one");
                for (change, reply) in together.into_iter().zip(replies) {
                    let made = self.make(&[change]).await;
                    let verdict = made.map(|verdicts| verdicts.into_iter().next().unwrap_or(Ok(())));
                    let _gone = reply.send(verdict.unwrap_or_else(|error| Err(reported(&error, 1))));
                }
            }
            Err(error) => {
                let failed = reported(&error, together.len());
                for reply in replies {
                    let _gone = reply.send(Err(failed.clone()));
                }
            }
        }
    }

    /// One transaction with all changes of the group that are admitted; each one's verdict.
    async fn make(&mut self, group: &[&Prepared]) -> Result<Vec<Result<(), StoreError>>, WriteError> {
        let begun = Instant::now();
        let mut pause = PAUSE.0;
        let mut crossings = 0;
        loop {
            // Cut off by its deadline, the connection is dropped without a COMMIT: nothing was made.
            let written = timeout_at(begun + ATTEMPTS, self.write(group)).await.unwrap_or(Err(WriteError::Deadline));
            let error = match written {
                Ok(Open { connection, batch, written }) => {
                    let end = if written.anything { "COMMIT" } else { "ROLLBACK" };
                    match timeout_at(begun + COMMITS, end_with(end, connection)).await {
                        Ok(Ok(connection)) => {
                            self.connection = Some(connection);
                            return Ok(self.made(written));
                        }
                        // Nothing was to be made.
                        _ if !written.anything => return Ok(written.verdicts),
                        lost => {
                            let error = match lost {
                                Ok(Err(error)) => WriteError::Database(error),
                                Ok(Ok(_)) | Err(_) => WriteError::Deadline,
                            };
                            tracing::warn!(%error, "the answer to a commit was lost; asking whether it was made");
                            match batch.was_committed(&self.servers, begun + DEADLINE).await {
                                Some(true) => return Ok(self.made(written)),
                                // It was not, and never will be.
                                Some(false) => error,
                                None => return Err(WriteError::Unknown),
                            }
                        }
                    }
                }
                Err(error) => error,
            };
            if self.connection.is_some() {
                self.roll_back().await;
            }
            if let WriteError::Log(error @ LogError::SetBack { .. }) = &error {
                self.lost.send_replace(Some(error.to_string()));
            }
            crossings += u32::from(error.after() == After::Crossed);
            if !error.passes() || crossings > CROSSINGS || begun.elapsed() + pause >= ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(error = &error as &dyn std::error::Error, "the store tries a commit again");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Everything of one attempt but its COMMIT. After an error the connection is kept where it can go on.
    async fn write(&mut self, group: &[&Prepared]) -> Result<Open, WriteError> {
        let mut connection = self.servers.kept_or_new(&mut self.connection).await?;
        let batch = Batch::new();
        let Self { key, origin, verifier, seen, member, .. } = self;
        let signing = Signing { key, origin, verifier, seen: seen.as_ref(), broker: member.number };
        let written = async {
            begin(&mut connection, &self.member, Some(batch)).await?;
            Ok::<_, WriteError>(transaction::write(&mut connection, group, &signing).await?)
        };
        match written.await {
            Ok(written) => Ok(Open { connection, batch, written }),
            Err(error) => {
                self.connection = (error.after() != After::Lost).then_some(connection);
                Err(error)
            }
        }
    }

    /// What follows from a transaction that was committed.
    fn made(&mut self, Written { verdicts, seen, .. }: Written) -> Vec<Result<(), StoreError>> {
        if let Some(seen) = seen {
            grow(&self.size, seen.size);
            self.seen = Some(seen);
        }
        verdicts
    }

    async fn roll_back(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let ended = tokio::time::timeout(CLOSE_DEADLINE, sqlx::raw_sql("ROLLBACK").execute(&mut connection)).await;
        if matches!(ended, Ok(Ok(_))) {
            self.connection = Some(connection);
        }
    }

    async fn forget_usage(&mut self, before: i64) -> Result<(), StoreError> {
        let holds = Timestamp::now().as_second() - usage::KEEP_HOLDS;
        self.delete(&[
            ("DELETE FROM jit_broker.usage WHERE at < $1", &[before]),
            ("DELETE FROM jit_broker.usage_holds WHERE until <= $1", &[holds]),
            (batch::FORGET, &[]),
        ])
        .await
        .map(drop)
    }

    async fn forget(&mut self, before: i64, limit: i64) -> Result<u64, StoreError> {
        const LEASES: &str = "DELETE FROM jit_broker.leases WHERE id IN
            (SELECT id FROM jit_broker.leases WHERE ended_at < $1 ORDER BY ended_at LIMIT $2)";
        const VERIFIERS: &str = "DELETE FROM jit_broker.verifiers WHERE digest IN
            (SELECT digest FROM jit_broker.verifiers WHERE used_at < $1 ORDER BY used_at LIMIT $2)";
        let memory = i64::try_from(VERIFIER_MEMORY.as_nanos()).unwrap_or(i64::MAX);
        self.delete(&[(LEASES, &[before, limit]), (VERIFIERS, &[before.saturating_sub(memory), limit])]).await
    }

    /// Deletes what is over, in one transaction. Returns how many rows the first statement deleted. If the transaction is
    /// lost, the next one deletes them.
    async fn delete(&mut self, statements: &[(&'static str, &[i64])]) -> Result<u64, StoreError> {
        let deleting = async |connection: &mut PgConnection, _| {
            let mut deleted = Vec::with_capacity(statements.len());
            for (statement, arguments) in statements {
                let query = arguments.iter().fold(sqlx::query(*statement), |query, argument| query.bind(*argument));
                deleted.push(query.execute(&mut *connection).await?.rows_affected());
            }
            Ok(deleted.first().copied().unwrap_or_default())
        };
        self.transaction(deleting).await
    }

    /// Divides work. If the answer is lost, the same can be asked again.
    async fn divide(&mut self, work: &Work) -> Result<u64, StoreError> {
        self.transaction(async |connection: &mut PgConnection, number| work.run(connection, number).await).await
    }

    /// One transaction of this broker, which is not tried again.
    async fn transaction(
        &mut self,
        statements: impl AsyncFnOnce(&mut PgConnection, i32) -> Result<u64, sqlx::Error>,
    ) -> Result<u64, StoreError> {
        let making = async {
            let mut connection = self.servers.kept_or_new(&mut self.connection).await?;
            begin(&mut connection, &self.member, None).await?;
            let rows = statements(&mut connection, self.member.number).await?;
            sqlx::raw_sql("COMMIT").execute(&mut connection).await?;
            self.connection = Some(connection);
            Ok::<_, WriteError>(rows)
        };
        let done = tokio::time::timeout(DEADLINE, making).await.unwrap_or(Err(WriteError::Deadline));
        done.map_err(|error| reported(&error, 1))
    }

    /// The last checkpoint goes into the history.
    async fn finish(mut self) {
        let keeping = async {
            let Some(connection) = self.connection.as_mut() else { return Ok(()) };
            match begin(connection, &self.member, None).await {
                // The log is another broker's by now.
                Err(WriteError::Fenced) => return Ok(()),
                begun => begun?,
            }
            let keep = "INSERT INTO jit_broker.checkpoint_history (size, taken_at, note)
                SELECT size, $1, note FROM jit_broker.head WHERE note IS NOT NULL ON CONFLICT (size) DO NOTHING";
            sqlx::query(keep).bind(nanos(Timestamp::now())).execute(&mut *connection).await?;
            sqlx::raw_sql("COMMIT").execute(connection).await?;
            Ok::<_, WriteError>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(CLOSE_DEADLINE, keeping).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the last checkpoint was not kept in the history");
        }
        if let Some(connection) = self.connection.take() {
            let _closed = tokio::time::timeout(CLOSE_DEADLINE, connection.close()).await;
        }
    }
}

/// A transaction whose statements were done, and which is to be ended.
struct Open {
    connection: PgConnection,
    batch: Batch,
    written: Written,
}

/// Ends a transaction; gives the connection back where the server answered.
async fn end_with(end: &'static str, mut connection: PgConnection) -> Result<PgConnection, sqlx::Error> {
    let ending = async { sqlx::raw_sql(end).execute(&mut connection).await.map(drop) };
    let failpoint = || sqlx::Error::Protocol("failpoint store.commit".into());
    jit_failpoint::step("store.commit", failpoint, ending).await?;
    Ok(connection)
}

/// Whether an error comes from what a change holds.
fn is_of_a_change(error: &WriteError) -> bool {
    matches!(error, WriteError::Database(_))
}

fn reported(error: &WriteError, changes: usize) -> StoreError {
    tracing::error!(error = error as &dyn std::error::Error, changes, "the store could not commit");
    StoreError::failed(error)
}

/// Tells of a log that has grown.
pub(crate) fn grow(size: &watch::Sender<u64>, records: u64) {
    size.send_if_modified(|size| {
        let grown = records > *size;
        *size = records.max(*size);
        grown
    });
}

fn a_commit(job: Job) -> ControlFlow<Job, Waiting> {
    match job {
        Job::Commit(prepared, reply) => ControlFlow::Continue((prepared, reply)),
        other => ControlFlow::Break(other),
    }
}
