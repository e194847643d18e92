//! A database of PostgreSQL for the kit.

use anyhow::Result;

use super::KitFixture;
use crate::database::Database;
use crate::surroundings;

impl KitFixture {
    /// A database of its own; `config` gives the target's `config` table.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn postgres(config: impl FnOnce(&Database) -> String) -> Result<Self> {
        let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await?;
        Self::postgres_in(&database, &config(&database)).await
    }

    /// For that database.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn postgres_in(database: &Database, config: &str) -> Result<Self> {
        let weak = format!("weak_{}", database.name);
        database.execute(&format!("CREATE ROLE {weak} LOGIN PASSWORD '{}'", database.password)).await?;
        let fixture = Self::new()?;
        fixture.secret("broker.password", &database.password)?;
        let Database { host, port, name, read_only, broker, .. } = database;
        fixture.write(&format!(
            r#"
[connections.backend]
kind = "postgres"
url = "postgres://{broker}@{host}:{port}/{name}"
password = {{ file = "broker.password" }}
[connections.weak]
kind = "postgres"
url = "postgres://{weak}@{host}:{port}/{name}"
password = {{ file = "broker.password" }}
[targets.inventory]
connection = "backend"
default_role = "app_read_only"
config = {{ {config} }}
roles.app_read_only = {{ grants = ["{read_only}"] }}
roles.missing = {{ grants = ["no_such_role"] }}
roles.hostile = {{ grants = ["{read_only}\"; DROP TABLE items; --"] }}
[conformance]
refused_roles = ["missing", "hostile"]
weak_connection = "weak"
[conformance.login]
kind = "postgres"
url = "postgres://{host}:{port}/{name}"
allowed = ["SELECT * FROM items"]
refused = ["DELETE FROM items", "CREATE ROLE x"]
holds = [
  "BEGIN; LOCK TABLE items IN ACCESS SHARE MODE; SELECT pg_advisory_lock(7); DECLARE held CURSOR FOR SELECT * FROM items",
  "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'held by its own account'",
]
change_password = "ALTER ROLE CURRENT_USER PASSWORD '{{new}}'"
"#
        ))?;
        Ok(fixture)
    }
}
