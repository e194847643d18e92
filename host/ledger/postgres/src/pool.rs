//! The connections that questions are asked on: few, kept while they are good, each wait bounded.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::servers::{After, Purpose, Servers};
use jit_ledger::StoreError;

/// Questions at once.
const CONNECTIONS: usize = 4;
/// How long a question may take, its wait for a connection included.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a question may take on a connection that was kept: then another one is opened. The server that it leads to
/// may be gone without a word.
const KEPT_DEADLINE: Duration = Duration::from_secs(16);

/// A question: a statement with its arguments.
pub(crate) type Question<'q> = Query<'q, Postgres, PgArguments>;

/// The connections.
#[derive(Debug)]
pub(crate) struct Pool {
    servers: Arc<Servers>,
    permits: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
    closed: watch::Sender<bool>,
}

impl Pool {
    pub(crate) fn new(servers: Arc<Servers>) -> Self {
        let (closed, _) = watch::channel(false);
        Self { servers, permits: Semaphore::new(CONNECTIONS), idle: Mutex::new(Vec::new()), closed }
    }

    /// Asks, and asks once more where the connection was lost: the question is made by `make`, and changes nothing.
    pub(crate) async fn rows<'q>(&self, make: impl Fn() -> Question<'q>) -> Result<Vec<PgRow>, StoreError> {
        let asked = async {
            let _permit = self.permits.acquire().await.map_err(|_| StoreError::failed("it is closed"))?;
            let kept = self.idle.lock().pop();
            if let Some(connection) = kept {
                match timeout(KEPT_DEADLINE, self.ask(connection, make())).await {
                    Ok(Ok(rows)) => return Ok(rows),
                    Ok(Err(error)) if After::of(&error) == After::Refused => return Err(failed(&error)),
                    // Those that were kept beside it lead to the same server.
                    Ok(Err(_)) | Err(_) => self.idle.lock().clear(),
                }
            }
            let connection = self.servers.connect(Purpose::Serve).await.map_err(StoreError::failed)?;
            self.ask(connection, make()).await.map_err(|error| failed(&error))
        };
        let late = || Err(StoreError::Failed(format!("no answer within {} s", DEADLINE.as_secs())));
        timeout(DEADLINE, asked).await.unwrap_or_else(|_| late())
    }

    async fn ask(&self, mut connection: PgConnection, question: Question<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let answer = question.fetch_all(&mut connection).await;
        let usable = answer.as_ref().err().is_none_or(|error| After::of(error) != After::Lost);
        if usable && !self.permits.is_closed() {
            self.idle.lock().push(connection);
        }
        answer
    }

    /// Returns once the pool is closed.
    pub(crate) async fn closed(&self) {
        let mut closed = self.closed.subscribe();
        let _closed = closed.wait_for(|closed| *closed).await;
    }

    /// Later questions fail; the connections are closed.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.closed.send_replace(true);
        // Dropped outside the lock. The server takes an end without a word as one.
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }
}

/// The server's own message, or what the client says. Neither quotes an argument.
pub(crate) fn failed(error: &sqlx::Error) -> StoreError {
    match error {
        // Without detail and hint, which can quote a row.
        sqlx::Error::Database(said) => StoreError::Failed(said.message().to_owned()),
        other => StoreError::failed(other),
    }
}
