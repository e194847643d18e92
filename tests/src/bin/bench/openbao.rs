//! OpenBao beside it: the real server with raft storage, a file audit device, and its database
//! engine on the same PostgreSQL.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jit_tests::{Database, http};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::load::HttpClient;

/// How long it may take to start.
const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// A running OpenBao. Dropped, it is killed.
pub(crate) struct OpenBao {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
    tokens: Vec<String>,
}

impl OpenBao {
    /// Starts and sets it up, with as many connections as the broker has, and a token for each client.
    pub(crate) async fn start(bao: &Path, database: &Database, max_connections: u32, clients: usize) -> Result<Self> {
        let folder = TempDir::with_prefix("jit-bench-bao-")?;
        let (address, cluster) = (free_address()?, free_address()?);
        fs::create_dir(folder.path().join("raft"))?;
        fs::write(folder.path().join("bao.hcl"), configuration(folder.path(), address, cluster))?;
        let log = fs::File::create(folder.path().join("bao.log"))?;
        let child = Command::new(bao)
            .args(["server", "-config"])
            .arg(folder.path().join("bao.hcl"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start OpenBao")?;
        let mut server = Self { child, folder, address, tokens: Vec::new() };
        server.set_up(database, max_connections, clients).await.with_context(|| server.log_tail())?;
        Ok(server)
    }

    async fn set_up(&mut self, database: &Database, max_connections: u32, clients: usize) -> Result<()> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        let url = |path: &str| format!("http://{}/v1/{path}", self.address);
        let begun = Instant::now();
        let made = loop {
            let request = http.put(url("sys/init")).json(&json!({"secret_shares": 1, "secret_threshold": 1}));
            match http::reply(request).await {
                Ok(reply) if reply.status == 200 => break reply,
                _ if begun.elapsed() < START_DEADLINE => tokio::time::sleep(POLL).await,
                Ok(reply) => bail!("sys/init: {}", reply.text),
                Err(error) => return Err(error),
            }
        };
        let root = made.text_at("/root_token").to_owned();
        let call = async |path: &str, body: Value| -> Result<Value> {
            let reply = http::reply(http.post(url(path)).header("x-vault-token", &root).json(&body)).await?;
            anyhow::ensure!((200..300).contains(&reply.status), "{path}: {}", reply.text);
            Ok(reply.json)
        };
        call("sys/unseal", json!({"key": made.text_at("/keys/0")})).await?;
        while call("sys/mounts/database", json!({"type": "database"})).await.is_err() {
            // Unsealed, it takes a moment to become the leader.
            anyhow::ensure!(begun.elapsed() < START_DEADLINE, "it does not become active");
            tokio::time::sleep(POLL).await;
        }
        let Database { host, port, name, broker, password, read_only, .. } = database;
        call(
            "database/config/inventory",
            json!({
                "plugin_name": "postgresql-database-plugin",
                "allowed_roles": ["app"],
                "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/{name}?sslmode=disable"),
                "username": broker,
                "password": password,
                "password_authentication": "scram-sha-256",
                "max_open_connections": max_connections,
                "max_idle_connections": max_connections,
            }),
        )
        .await?;
        let create = format!(
            "CREATE ROLE \"{{{{name}}}}\" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT \
             CONNECTION LIMIT -1 PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}' IN ROLE \"{read_only}\""
        );
        call(
            "database/roles/app",
            json!({"db_name": "inventory", "creation_statements": [create], "default_ttl": "12h", "max_ttl": "24h"}),
        )
        .await?;
        call("sys/policies/acl/bench", json!({"policy": "path \"database/creds/app\" { capabilities = [\"read\"] }"}))
            .await?;
        for _ in 0..clients {
            let token = call("auth/token/create", json!({"policies": ["bench"], "ttl": "12h"})).await?;
            let token = token.pointer("/auth/client_token").and_then(Value::as_str).context("no token")?;
            self.tokens.push(token.to_owned());
        }
        Ok(())
    }

    /// Connected clients, each with its own token.
    pub(crate) async fn clients(&self, count: usize) -> Result<Vec<HttpClient>> {
        let mut clients = Vec::new();
        for token in self.tokens.iter().take(count) {
            let request = format!(
                "GET /v1/database/creds/app HTTP/1.1\r\nhost: {}\r\nx-vault-token: {token}\r\n\r\n",
                self.address
            );
            clients.push(HttpClient::connect(self.address, request.into_bytes(), 200).await?);
        }
        Ok(clients)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("bao.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(folder: &Path, address: SocketAddr, cluster: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        r#"
ui = false
api_addr = "http://{address}"
cluster_addr = "http://{cluster}"
log_level = "warn"
storage "raft" {{
  path = "{folder}/raft"
  node_id = "one"
}}
listener "tcp" {{
  address = "{address}"
  cluster_address = "{cluster}"
  tls_disable = true
}}
audit "file" "to-file" {{
  description = "as the broker: everything is on record"
  options {{
    file_path = "{folder}/audit.log"
  }}
}}
"#
    )
}

fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
