//! OpenBao beside it: the real server with raft storage, a file audit device, and its database
//! engine on the same PostgreSQL.

use std::path::Path;

use anyhow::{Context as _, Result};
use jit_tests::{Database, servers};
use serde_json::{Value, json};
use xtask::servers::openbao::{OpenBaoServer, OpenBaoSettings};

use crate::load::{HttpClient, Requests};

/// A running OpenBao. Dropped, it stops.
pub(crate) struct OpenBao {
    server: OpenBaoServer,
    tokens: Vec<String>,
}

impl OpenBao {
    /// Starts and sets it up, with as many connections as the broker has, and a token for each client.
    pub(crate) async fn start(bao: &Path, database: &Database, max_connections: u32, clients: usize) -> Result<Self> {
        let bao = bao.to_owned();
        // As the broker is measured: without TLS, with everything on record.
        let settings = OpenBaoSettings { plain: true, audit: true };
        let server = tokio::task::spawn_blocking(move || OpenBaoServer::start(&bao, &settings)).await??;
        let mut server = Self { server, tokens: Vec::new() };
        let log = server.server.log_path();
        server
            .set_up(database, max_connections, clients)
            .await
            .with_context(|| std::fs::read_to_string(log).unwrap_or_default())?;
        Ok(server)
    }

    async fn set_up(&mut self, database: &Database, max_connections: u32, clients: usize) -> Result<()> {
        let root = servers::OpenBao::new(&self.server.url(), None, self.server.root_token())?;
        let call = async |path: &str, body: Value| root.write(path, &body).await;
        call("sys/mounts/database", json!({"type": "database"})).await?;
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
                self.server.address()
            );
            clients.push(HttpClient::connect(self.server.address(), Requests::Same(request.into_bytes()), 200).await?);
        }
        Ok(clients)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.server.pid().context("OpenBao does not run")
    }
}
