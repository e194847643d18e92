//! A role of the database in which no account can be made for a while: tests of what happens
//! meanwhile wait for nothing but this.

use anyhow::Result;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::database::Database;
use crate::world::eventually;

/// Holds the lock that `CREATE ROLE … IN ROLE` takes on the granted role (PostgreSQL 16 and later).
pub struct Gate(PgConnection);

impl Gate {
    /// Closes it: creations in that role wait from now on.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn close(database: &Database, role: &str) -> Result<Self> {
        let mut session = database.superuser().await?;
        session.execute("BEGIN").await?;
        session.execute(AssertSqlSafe(format!("COMMENT ON ROLE {role} IS 'held by a test'"))).await?;
        Ok(Self(session))
    }

    /// Opens it: what waits goes on.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn open(mut self) -> Result<()> {
        self.0.execute("ROLLBACK").await?;
        Ok(self.0.close().await?)
    }
}

impl Database {
    /// How many of the broker's sessions wait at a gate.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn waiting(&self) -> Result<usize> {
        let query = "SELECT count(*)::text FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'";
        let count: String =
            sqlx::query_scalar(query).bind(&self.broker).fetch_one(&mut self.superuser().await?).await?;
        Ok(count.parse()?)
    }

    /// Waits until so many of the broker's sessions wait at a gate.
    pub async fn waiting_become(&self, count: usize) {
        let what = format!("{count} of the broker's sessions wait");
        eventually(&what, async || self.waiting().await.is_ok_and(|waiting| waiting == count)).await;
    }
}
