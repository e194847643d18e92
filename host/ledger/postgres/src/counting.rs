//! The task that counts requests, on a connection of its own: counting does not wait for commits.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jit_core::usage::Usage;
use jit_ledger::group::gather;
use jit_ledger::{Counted, StoreError};
use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::member::{Member, begin};
use super::servers::{After, Servers};
use super::usage;
use super::writer::WriteError;

/// The most requests in one transaction: they are locked until its end.
const GROUP: usize = 64;
/// How long a group may take, all attempts included.
const DEADLINE: Duration = Duration::from_secs(20);
/// The most attempts.
const ATTEMPTS: u32 = 20;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// A request that is to be counted, and who waits for the numbers.
pub(crate) type ToCount = (Box<Counted>, oneshot::Sender<Result<Usage, StoreError>>);

/// What the task has.
pub(crate) struct Counting {
    pub(crate) servers: Arc<Servers>,
    pub(crate) member: Arc<Member>,
    /// `None` after a failure, until the next request.
    pub(crate) connection: Option<PgConnection>,
}

impl Counting {
    /// Runs until every sender is gone.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<ToCount>) {
        while let Some(first) = requests.recv().await {
            let (group, _) = gather(first, &mut requests, GROUP, |_| 0, ControlFlow::Continue);
            self.count(group).await;
        }
    }

    async fn count(&mut self, group: Vec<ToCount>) {
        let (requests, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let requests: Vec<&Counted> = requests.iter().map(|request| &**request).collect();
        match self.try_until(&requests, Instant::now() + DEADLINE).await {
            Ok(counted) => {
                for (reply, usage) in replies.into_iter().zip(counted) {
                    let _gone = reply.send(Ok(usage));
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "requests could not be counted");
                let failed = StoreError::failed(error);
                for reply in replies {
                    let _gone = reply.send(Err(failed.clone()));
                }
            }
        }
    }

    /// Counts the group in one transaction. What fails before its COMMIT is tried again: nothing was counted. A COMMIT
    /// without an answer is not: these requests fail, and at worst they count for a while.
    async fn try_until(&mut self, group: &[&Counted], deadline: Instant) -> Result<Vec<Usage>, WriteError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let counted = timeout_at(deadline, self.attempt(group)).await.unwrap_or(Err(WriteError::Deadline));
            let error = match counted {
                Ok((mut connection, counted)) => {
                    let committed = timeout_at(deadline, sqlx::raw_sql("COMMIT").execute(&mut connection)).await;
                    committed.map_err(|_| WriteError::Deadline)??;
                    self.connection = Some(connection);
                    return Ok(counted);
                }
                Err(error) => error,
            };
            if !error.passes() || attempts >= ATTEMPTS || Instant::now() + PAUSE >= deadline {
                return Err(error);
            }
            if error.after() == After::Lost {
                sleep(PAUSE).await;
            }
        }
    }

    async fn attempt(&mut self, group: &[&Counted]) -> Result<(PgConnection, Vec<Usage>), WriteError> {
        let mut connection = self.servers.kept_or_new(&mut self.connection).await?;
        begin(&mut connection, &self.member, None).await?;
        usage::lock(&mut connection, group).await?;
        let mut counted = Vec::with_capacity(group.len());
        for request in group {
            counted.push(usage::count(&mut connection, request).await?);
        }
        Ok((connection, counted))
    }
}
