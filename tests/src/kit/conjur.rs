//! The strict Conjur server for the kit, with the password of a real account of PostgreSQL.

use anyhow::Result;

use super::KitFixture;
use crate::conjur::{Conjur, Privilege};
use crate::database::Database;
use crate::{random_name, surroundings};

/// A server that holds one account of a database.
pub struct StoredAccount {
    /// The server. Dropped, it stops.
    pub conjur: Conjur,
    /// The API key of `host/jit-broker`.
    pub api_key: String,
    /// The database.
    pub database: Database,
}

impl StoredAccount {
    /// Stores an account's name and password, and lets the broker's host have them.
    ///
    /// # Errors
    /// When a server says no.
    pub async fn store() -> Result<Self> {
        let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await?;
        let (user, password) = (format!("app_{}", random_name()), format!("Stored-{}{}", random_name(), random_name()));
        let Database { read_only, .. } = &database;
        database.execute(&format!("CREATE ROLE {user} LOGIN PASSWORD '{password}' IN ROLE {read_only}")).await?;
        let conjur = Conjur::start_tls("acme").await?;
        let api_key = conjur.host("jit-broker");
        for (id, value) in [("db/inventory/username", user), ("db/inventory/password", password)] {
            conjur.variable(id);
            let _version = conjur.set(id, value);
            conjur.permit("jit-broker", id, &[Privilege::Read, Privilege::Execute]);
        }
        Ok(Self { conjur, api_key, database })
    }
}

impl KitFixture {
    /// A fixture for that account. The server has to live as long.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn conjur(stored: &StoredAccount) -> Result<Self> {
        let fixture = Self::new()?;
        fixture.secret("api-key", &stored.api_key)?;
        fixture.secret("weak.key", &stored.conjur.host("nobody"))?;
        std::fs::write(fixture.folder().join("ca.pem"), stored.conjur.authority().unwrap_or_default())?;
        let url = stored.conjur.url();
        let Database { host, port, name, .. } = &stored.database;
        fixture.write(&format!(
            r#"
[connections.backend]
kind = "http"
url = "{url}"
ca = "ca.pem"
secrets = {{ api_key = {{ file = "api-key" }} }}
[connections.weak]
kind = "http"
url = "{url}"
ca = "ca.pem"
secrets = {{ api_key = {{ file = "weak.key" }} }}
[targets.inventory]
connection = "backend"
default_role = "app_read_only"
[targets.inventory.config]
account = "acme"
auth = {{ method = "api-key", login = "host/jit-broker", secret = "api_key" }}
[targets.inventory.roles.app_read_only]
username = "db/inventory/username"
variable = "db/inventory/password"
[targets.inventory.roles.missing]
username = "db/inventory/username"
variable = "db/no/such/variable"
[targets.inventory.roles.hostile]
username = "db/inventory/username"
variable = "../../policies/acme/policy/root"
[conformance]
refused_roles = ["missing", "hostile"]
weak_connection = "weak"
[conformance.login]
kind = "postgres"
url = "postgres://{host}:{port}/{name}"
allowed = ["SELECT * FROM items"]
refused = ["DELETE FROM items", "CREATE ROLE x"]
"#
        ))?;
        Ok(fixture)
    }
}
