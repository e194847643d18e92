//! OpenBao in front of PostgreSQL for the kit, set up as the driver's page says.

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::json;

use super::KitFixture;
use crate::database::Database;
use crate::servers::OpenBao;
use crate::{random_name, setup, surroundings};

/// A database engine of the suite's OpenBao, with one role, in front of a database.
pub struct Engine {
    /// The server, as root.
    pub bao: OpenBao,
    /// Where the engine is mounted; also the name of its policy.
    pub mount: String,
    /// The database behind it.
    pub database: Database,
}

impl Engine {
    /// Mounts an engine with the role `app_read_only`.
    ///
    /// # Errors
    /// When a server says no.
    pub async fn mount() -> Result<Self> {
        let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await?;
        let bao = OpenBao::of_the_suite()?;
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
}

impl KitFixture {
    /// An engine of its own.
    ///
    /// # Errors
    /// When a server says no.
    pub async fn vault() -> Result<Self> {
        let engine = Engine::mount().await?;
        let fixture = Self::new()?;
        fixture.secret("token", &engine.token(&[&engine.mount]).await?)?;
        fixture.secret("weak.token", &engine.token(&["no-such-policy"]).await?)?;
        let (url, ca) = (surroundings("JIT_TEST_OPENBAO"), surroundings("JIT_TEST_OPENBAO_CA"));
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
"#
        ))?;
        Ok(fixture)
    }
}
