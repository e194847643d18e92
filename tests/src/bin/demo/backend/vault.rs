//! A PAM: OpenBao, whose database engine makes the accounts of a PostgreSQL.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use jit_tests::servers::OpenBao;
use jit_tests::{Database, Reply, setup};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use xtask::demo::Backend as Kind;
use xtask::servers::openbao::{self, OpenBaoServer, OpenBaoSettings};
use xtask::servers::postgres::PostgresServer;
use xtask::steps::Steps;

use super::{Backend, Process, Sections, Texts, copy_authority, postgres, write_credential};
use crate::screen::Screen;

/// The broker's policy in OpenBao.
const POLICY: &str = "jit-broker";
/// The roles of the engine, called as the groups that they give.
const ROLES: [&str; 2] = ["app_read_only", "app_read_write"];

/// OpenBao in front of a database.
pub(crate) struct Vault {
    server: OpenBaoServer,
    root: OpenBao,
    behind: PostgresServer,
    database: Database,
}

impl Backend for Vault {
    type Session = PgConnection;

    const TEXTS: Texts = Texts {
        servers: "OpenBao, PostgreSQL",
        holder: "PostgreSQL",
        makes: "has OpenBao make the account",
        ordinary: "An ordinary login to PostgreSQL: nothing in the application knows of the broker, or of OpenBao.",
        ends: "Nobody has to remember to clean up. The broker does, and OpenBao ends its lease even without it.",
        got: "a database account",
        ended: "OpenBao's lease, login, session and role",
    };
    const KIND: Kind = Kind::Vault;

    async fn start(folder: &Path, steps: &Steps) -> Result<Self> {
        let (behind, database) = postgres::start_server(steps).await?;
        let server = OpenBaoServer::start(&openbao::binary(steps)?, &OpenBaoSettings::default())?;
        let authority = copy_authority(folder, server.authority().context("OpenBao has no TLS")?)?;
        let root = OpenBao::new(&server.url(), Some(&authority), server.root_token())?;
        mount(&root, &database).await?;
        write_credential(folder, &token(&root).await?)?;
        Ok(Self { server, root, behind, database })
    }

    fn started(&self) -> String {
        format!(
            "OpenBao at {}, its database engine in front of PostgreSQL on port {}, with a least-privilege policy",
            self.server.url(),
            self.behind.port()
        )
    }

    fn sections(&self) -> Sections {
        let url = self.server.url();
        let connection = format!(
            r#"kind = "http"
url = "{url}"
secrets = {{ token = {{ file = "secrets/inventory" }} }}
ca = "ca.pem"                               # the only authority for the server's certificate"#
        );
        let Database { host, port, name, .. } = &self.database;
        let target = format!(
            r#"[targets.inventory_db.endpoint]             # what stands behind OpenBao, told to callers
scheme = "postgres"
host = "{host}"
port = {port}
database = "{name}"
[targets.inventory_db.config]
auth = {{ method = "token", secret = "token" }}
mount = "database"
exclusive = true                            # nobody else gets credentials from these roles:
roles = ["app_read_only", "app_read_write"] # a credential whose answer was lost is found and ended
[targets.inventory_db.roles.app_read_only]
role = "app_read_only"
[targets.inventory_db.roles.app_read_write]
role = "app_read_write""#
        );
        Sections { connection, target }
    }

    fn processes(&self) -> Vec<Process> {
        let address = self.server.address().to_string();
        let openbao = Process::of("OpenBao", &address, self.server.pid(), "TERM", self.server.folder());
        openbao.into_iter().chain(postgres::process(&self.behind)).collect()
    }

    fn to_try(&self) -> String {
        postgres::PSQL.to_owned()
    }

    fn stop(&mut self) -> Result<()> {
        let openbao = self.server.stop();
        openbao.and(self.behind.stop())
    }

    fn detach(self) {
        self.server.detach();
        self.behind.detach();
    }

    async fn accounts(&self) -> Result<Vec<String>> {
        self.database.roles("v-").await
    }

    async fn use_account(&self, issued: &Reply, screen: &Screen) -> Result<PgConnection> {
        let session = postgres::query(issued, screen).await?;
        screen.say("What OpenBao knows about it:");
        let leases = self.leases().await?;
        let [lease] = leases.as_slice() else { anyhow::bail!("OpenBao has the leases {leases:?}") };
        screen.command(&format!("bao write -format=json sys/leases/lookup lease_id={lease} | jq .data"));
        let found = self.root.write("sys/leases/lookup", &json!({"lease_id": lease})).await?;
        let left = found["data"]["ttl"].as_u64().context("the lease has no end")?;
        screen.json(&found["data"].to_string());
        let ttl = issued.json["ttl_seconds"].as_u64().unwrap_or_default();
        ensure!(left <= ttl, "OpenBao's lease lasts {left} s, the broker's {ttl} s");
        screen.say("What PostgreSQL knows, where OpenBao lets the login end some seconds after its lease:");
        postgres::show_role(&self.database, issued, screen).await?;
        screen.holds("It reads and no more, and OpenBao itself ends its lease when the broker's ends.");
        Ok(session)
    }

    async fn gone(&self, issued: &Reply, session: PgConnection, screen: &Screen) -> Result<()> {
        postgres::login_refused(&self.database, issued, session, screen).await?;
        postgres::role_gone(&self.database, screen).await?;
        let leases = self.leases().await?;
        ensure!(leases.is_empty(), "OpenBao still has the leases {leases:?}");
        screen.holds("OpenBao has no lease any more: the broker waited until it had removed the role.");
        Ok(())
    }
}

impl Vault {
    /// The ids of the leases of the role that reads.
    async fn leases(&self) -> Result<Vec<String>> {
        let prefix = "database/creds/app_read_only/";
        let reply =
            self.root.request(Method::GET, &format!("sys/leases/lookup/{prefix}?list=true"), &Value::Null).await?;
        // No leases is "not found".
        ensure!(matches!(reply.status, 200 | 404), "OpenBao does not list leases: {} {}", reply.status, reply.text);
        let keys = reply.json["data"]["keys"].as_array().cloned().unwrap_or_default();
        Ok(keys.iter().filter_map(Value::as_str).map(|key| format!("{prefix}{key}")).collect())
    }
}

/// Mounts the engine, and gives it the account in PostgreSQL that the broker has in the other stories.
async fn mount(root: &OpenBao, database: &Database) -> Result<()> {
    let Database { host, port, name, broker, password, .. } = database;
    root.write("sys/mounts/database", &json!({"type": "database"})).await?;
    let connection = json!({
        "plugin_name": "postgresql-database-plugin",
        "allowed_roles": ROLES,
        "connection_url": format!("postgres://{{{{username}}}}:{{{{password}}}}@{host}:{port}/{name}?sslmode=disable"),
        "username": broker,
        "password": password,
        "password_authentication": "scram-sha-256",
    });
    root.write("database/config/inventory", &connection).await?;
    for role in ROLES {
        let create = format!(
            "CREATE ROLE \"{{{{name}}}}\" LOGIN PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}' IN ROLE {role};"
        );
        // Whom it is granted may end its sessions; without that they would outlive the account.
        let revoke = [
            format!("GRANT \"{{{{name}}}}\" TO {broker};"),
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';".to_owned(),
            "DROP ROLE IF EXISTS \"{{name}}\";".to_owned(),
        ];
        let body = json!({
            "db_name": "inventory",
            "creation_statements": [create],
            "revocation_statements": revoke,
            "default_ttl": "1h",
            "max_ttl": "8h",
        });
        root.write(&format!("database/roles/{role}"), &body).await?;
    }
    Ok(())
}

/// A token for the broker, with the policy that the driver ships and nothing else.
async fn token(root: &OpenBao) -> Result<String> {
    let text = setup::file("driver-vault", "setup.hcl");
    // The lines that name the role, again for the other one.
    let lines: Vec<&str> =
        text.lines().filter(|line| line.starts_with("path ") && line.contains("app_read_only")).collect();
    ensure!(!lines.is_empty(), "setup.hcl does not name the role");
    let policy = format!("{text}\n{}\n", lines.join("\n").replace("app_read_only", "app_read_write"));
    root.write(&format!("sys/policies/acl/{POLICY}"), &json!({"policy": policy})).await?;
    let body = json!({"policies": [POLICY], "period": "1h", "no_default_policy": true, "no_parent": true});
    let made = root.write("auth/token/create", &body).await?;
    made["auth"]["client_token"].as_str().map(str::to_owned).context("OpenBao gave no token")
}
