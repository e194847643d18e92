//! A role of the database in which no account can be made for a while: tests of what happens
//! meanwhile wait for nothing but this.

use anyhow::Result;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::database::Database;
use crate::world::eventually;

/// The first PostgreSQL in which `GRANT` locks the granted role and nothing else.
const LOCKS_THE_ROLE: i32 = 160_000;

/// Holds a lock that every grant of a role needs. Since PostgreSQL 16 that is a lock on the granted role. Before,
/// a grant locks nothing but the table of all memberships: there the gate is closed for every role of the server,
/// and other worlds of the same server wait, too, until it opens.
pub struct Gate(PgConnection);

impl Gate {
    /// Closes it: creations in that role wait from now on.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn close(database: &Database, role: &str) -> Result<Self> {
        let one_role = Self::is_of_one_role(database).await?;
        let mut session = database.superuser().await?;
        session.execute("BEGIN").await?;
        let hold = if one_role {
            format!("COMMENT ON ROLE {role} IS 'held by a test'")
        } else {
            "LOCK TABLE pg_catalog.pg_auth_members IN SHARE MODE".to_owned()
        };
        session.execute(AssertSqlSafe(hold)).await?;
        Ok(Self(session))
    }

    /// Whether this server can hold up one role and no other.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn is_of_one_role(database: &Database) -> Result<bool> {
        Ok(database.version().await? >= LOCKS_THE_ROLE)
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
    /// The server's version as a number: `170002`.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn version(&self) -> Result<i32> {
        Ok(self.value("SELECT pg_catalog.current_setting('server_version_num')").await?.parse()?)
    }

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
