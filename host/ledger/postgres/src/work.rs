//! What is divided among the brokers of a store: leases by the broker that wrote them last, other work by claims.
//! Each of these is one statement in a transaction of the writer, which only a broker whose number counts may make.

use sqlx::postgres::PgConnection;

/// One of them.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Takes over leases whose broker has ended, up to this number of them.
    Adopt(i64),
    /// Gives the lease with this id to another broker.
    HandOver(String),
    /// Takes a piece of work.
    Claim(String),
    /// Lets go of it.
    Release(String),
}

/// Pending leases stay with the broker that began their issue, until the issue is closed. Several brokers take over at
/// the same time, so each skips the leases that another one is at.
const ADOPT: &str = "UPDATE jit_broker.leases SET broker = $1 WHERE id IN
    (SELECT id FROM jit_broker.leases
     WHERE state NOT IN ('revoked', 'pending')
        AND broker NOT IN (SELECT number FROM jit_broker.brokers WHERE ended IS NULL)
     ORDER BY due_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)";
/// Brokers of which nothing is left to be taken over.
const FORGET: &str = "DELETE FROM jit_broker.brokers AS b WHERE ended IS NOT NULL
    AND NOT EXISTS (SELECT FROM jit_broker.leases AS l WHERE l.broker = b.number AND l.state <> 'revoked')";
const HAND_OVER: &str = "UPDATE jit_broker.leases AS l SET broker = other.number FROM
    (SELECT number FROM jit_broker.brokers AS b WHERE ended IS NULL AND number <> $1
     ORDER BY config IS NOT DISTINCT FROM (SELECT config FROM jit_broker.brokers WHERE number = $1), random()
     LIMIT 1) AS other
    WHERE l.id = $2 AND l.broker = $1";
const CLAIM: &str = "INSERT INTO jit_broker.claims AS c (work, broker) VALUES ($2, $1)
    ON CONFLICT (work) DO UPDATE SET broker = $1
    WHERE c.broker = $1 OR c.broker NOT IN (SELECT number FROM jit_broker.brokers WHERE ended IS NULL)";
const RELEASE: &str = "DELETE FROM jit_broker.claims WHERE work = $2 AND broker = $1";

impl Work {
    /// Does it for the broker with that number, in a transaction that has begun. Returns how many rows it was about.
    pub(crate) async fn run(&self, connection: &mut PgConnection, broker: i32) -> Result<u64, sqlx::Error> {
        let done = match self {
            Self::Adopt(limit) => {
                let adopted = sqlx::query(ADOPT).bind(broker).bind(limit).execute(&mut *connection).await?;
                if adopted.rows_affected() == 0 {
                    sqlx::query(FORGET).execute(connection).await?;
                }
                adopted
            }
            Self::HandOver(lease) => sqlx::query(HAND_OVER).bind(broker).bind(lease).execute(connection).await?,
            Self::Claim(work) => sqlx::query(CLAIM).bind(broker).bind(work).execute(connection).await?,
            Self::Release(work) => sqlx::query(RELEASE).bind(broker).bind(work).execute(connection).await?,
        };
        Ok(done.rows_affected())
    }
}
