//! Whether a transaction was committed whose answer was lost.
//!
//! Each transaction of the writer adds a row with a random number. Afterwards the question is an attempt to add the
//! same row: PostgreSQL lets it wait until the transaction that added it has ended, and then either finds the row,
//! so the transaction was committed, or adds it, so the transaction was not and never will be: it could not add its
//! own any more. So the answer is right also while the old transaction still hangs somewhere, and after a failover it
//! is the answer of the server that the store continues from.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio::time::{Instant, sleep, timeout_at};

use super::servers::{Purpose, Servers};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// Forgets numbers that are so old that no question about them comes.
pub(crate) const FORGET: &str = "DELETE FROM jit_broker.batches WHERE at < clock_timestamp() - interval '1 hour'";

/// The number of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch([u8; 16]);

impl Batch {
    pub(crate) fn new() -> Self {
        Self(rand::random())
    }

    /// As a literal of SQL: sixteen bytes in hexadecimal.
    pub(crate) fn literal(self) -> String {
        format!("'\\x{}'", hex::encode(self.0))
    }

    /// Whether the transaction with this number was committed; none when that cannot be known before `deadline`.
    pub(crate) async fn was_committed(self, servers: &Servers, deadline: Instant) -> Option<bool> {
        loop {
            let asked = async {
                let mut connection = servers.connect(Purpose::Serve).await.map_err(|error| error.to_string())?;
                self.ask(&mut connection).await.map_err(|error| error.to_string())
            };
            match timeout_at(deadline, asked).await {
                Ok(Ok(committed)) => return Some(committed),
                Ok(Err(error)) => tracing::warn!(error, "whether a change was made is not known yet"),
                Err(_) => return None,
            }
            if timeout_at(deadline, sleep(PAUSE)).await.is_err() {
                return None;
            }
        }
    }

    async fn ask(self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let statement = "INSERT INTO jit_broker.batches (id) VALUES ($1) ON CONFLICT (id) DO NOTHING";
        let added = sqlx::query(statement).bind(&self.0[..]).execute(connection).await?;
        Ok(added.rows_affected() == 0)
    }
}
