//! OpenBao in front of PostgreSQL for the kit, set up as the driver's page says.

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::json;

use super::KitFixture;
use crate::database::Database;
use crate::servers::OpenBao;
use crate::{random_name, setup, surroundings};

/// A database engine of the suite's OpenBao, with one role, in front of a database.
#[derive(Clone)]
pub struct Engine {
    /// The server, as root.
    pub bao: OpenBao,
    /// Where the engine is mounted; also the name of its policy.
    pub mount: String,
    /// The database behind it.
    pub database: Database,
}

impl Engine {
    /// Mounts an engine of the suite's server, with the role `app_read_only`, in front of a database.
    ///
    /// # Errors
    /// When a server says no.
    pub async fn mount(database: Database) -> Result<Self> {
        Self::mount_in(OpenBao::of_the_suite()?, database).await
    }

    /// The same in another server, as its root.
    ///
    /// # Errors
    /// When a server says no.
    pub async fn mount_in(bao: OpenBao, database: Database) -> Result<Self> {
        let mount = format!("database_{}", random_name());
        bao.write(&format!("sys/mounts/{mount}"), &json!({"type": "database"})).await?;
        let Database { host, port, name, broker, password, read_only, .. } = &database;
        let connection = json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url": format!("postgres://{{{{username}}}}:{{{{password}}}}@{host}:{port}/{name}?sslmode=disable"),
            "username": broker,
            "password": password,
            "password_authentication": "scram-sha-256",
        });
        bao.write(&format!("{mount}/config/postgres"), &connection).await?;
        let role = json!({
            "db_name": "postgres",
            "creation_statements": [format!(
                "CREATE ROLE \"{{{{name}}}}\" LOGIN PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}' IN ROLE {read_only};"
            )],
            "revocation_statements": ["DROP ROLE IF EXISTS \"{{name}}\";"],
            "default_ttl": "1h",
            "max_ttl": "8h",
        });
        bao.write(&format!("{mount}/roles/app_read_only"), &role).await?;
        let engine = Self { bao, mount, database };
        engine.write_policy().await?;
        Ok(engine)
    }

    /// The policy that the driver's page shows, for this engine.
    async fn write_policy(&self) -> Result<()> {
        let text = setup::file("driver-vault", "setup.hcl");
        let policy = text.replace("\"database/", &format!("\"{}/", self.mount));
        let policy = policy.replace("lookup/database/", &format!("lookup/{}/", self.mount));
        self.bao.write(&format!("sys/policies/acl/{}", self.mount), &json!({"policy": policy})).await?;
        Ok(())
    }

    /// A periodic token with these policies.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn token(&self, policies: &[&str]) -> Result<String> {
        let body = json!({"policies": policies, "period": "1h", "no_default_policy": true, "no_parent": true});
        let made = self.bao.write("auth/token/create", &body).await?;
        made["auth"]["client_token"].as_str().map(str::to_owned).context("no token")
    }

    /// The ids of the leases of the role.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn leases(&self) -> Result<Vec<String>> {
        let prefix = format!("{}/creds/app_read_only/", self.mount);
        let path = format!("sys/leases/lookup/{prefix}?list=true");
        let reply = self.bao.request(Method::GET, &path, &serde_json::Value::Null).await?;
        let keys = reply.json["data"]["keys"].as_array().cloned().unwrap_or_default();
        Ok(keys.iter().filter_map(|key| key.as_str()).map(|key| format!("{prefix}{key}")).collect())
    }

    /// The accounts that it made and that are still there: who has the role, but for the broker's.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn accounts(&self) -> Result<Vec<String>> {
        let Database { read_only, broker, .. } = &self.database;
        let query = "SELECT account.rolname::text FROM pg_auth_members \
             JOIN pg_roles account ON account.oid = member JOIN pg_roles granted ON granted.oid = roleid \
             WHERE granted.rolname = $1 AND account.rolname <> $2";
        let names = sqlx::query_scalar(query).bind(read_only).bind(broker);
        Ok(names.fetch_all(&mut self.database.superuser().await?).await?)
    }
}

impl KitFixture {
    /// An engine of its own.
    ///
    /// # Errors
    /// When a server says no.
    pub async fn vault() -> Result<Self> {
        let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await?;
        Self::in_front_of(&Engine::mount(database).await?).await
    }

    /// For that engine.
    ///
    /// # Errors
    /// When a server says no.
    pub async fn in_front_of(engine: &Engine) -> Result<Self> {
        let fixture = Self::new()?;
        fixture.secret("token", &engine.token(&[&engine.mount]).await?)?;
        fixture.secret("weak.token", &engine.token(&["no-such-policy"]).await?)?;
        let (url, ca) = (engine.bao.url(), engine.bao.authority().context("no TLS")?.display());
        let mount = &engine.mount;
        let Database { host, port, name, .. } = &engine.database;
        fixture.write(&format!(
            r#"
[connections.backend]
kind = "http"
url = "{url}"
ca = "{ca}"
secrets = {{ token = {{ file = "token" }} }}
[connections.weak]
kind = "http"
url = "{url}"
ca = "{ca}"
secrets = {{ token = {{ file = "weak.token" }} }}
[targets.inventory]
connection = "backend"
default_role = "app_read_only"
[targets.inventory.config]
auth = {{ method = "token", secret = "token" }}
mount = "{mount}"
exclusive = true
roles = ["app_read_only"]
[targets.inventory.roles]
app_read_only = {{ role = "app_read_only" }}
missing = {{ role = "no_such_role" }}
hostile = {{ role = "../../sys/seal" }}
[conformance]
refused_roles = ["missing", "hostile"]
weak_connection = "weak"
[conformance.login]
kind = "postgres"
url = "postgres://{host}:{port}/{name}"
allowed = ["SELECT * FROM items"]
refused = ["DELETE FROM items", "CREATE ROLE x"]
change_password = "ALTER ROLE CURRENT_USER PASSWORD '{{new}}'"
"#
        ))?;
        Ok(fixture)
    }
}
