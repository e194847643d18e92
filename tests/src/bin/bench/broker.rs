//! The broker under load: its configuration, its process, its clients.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use jit_tests::{BrokerProcess, Client, Database};
use tempfile::TempDir;

use crate::load::HttpClient;

/// Rules of the allow-list; the workloads of the bench are named by the last.
const RULES: usize = 20;

/// Which binary, which plugins, which database.
pub(crate) struct Setting<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) plugins: &'a Path,
    pub(crate) database: &'a Database,
    pub(crate) max_connections: u32,
}

/// A broker with its folder.
pub(crate) struct Running {
    folder: TempDir,
    binary: PathBuf,
    /// None while it is stopped.
    process: Option<BrokerProcess>,
    address: Option<SocketAddr>,
    tokens: Vec<String>,
}

impl Running {
    /// Starts a broker with a new store and so many plugins, and gets a token for each client.
    pub(crate) async fn start(setting: &Setting<'_>, plugins: usize, clients: usize) -> Result<Self> {
        let folder = TempDir::with_prefix("jit-bench-")?;
        let secret = folder.path().join("inventory.password");
        fs::write(&secret, &setting.database.password)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        fs::write(folder.path().join("broker.toml"), configuration(setting, plugins))?;
        let binary = setting.binary.to_owned();
        let mut running = Self { folder, binary, process: None, address: None, tokens: Vec::new() };
        running.start_again()?;
        let process = running.process.as_ref().context("no broker")?;
        let client = Client::new(&process.broker, &process.issuer);
        for number in 0..clients {
            let url = format!("{}/token?workload=payment-{number}&namespace=shop&env=prod&ttl=12h", process.issuer);
            let token = client.raw().get(url).send().await?.error_for_status()?.text().await?;
            running.tokens.push(token.trim().to_owned());
        }
        Ok(running)
    }

    /// Starts the stopped broker and gives the milliseconds until it served.
    pub(crate) fn start_again(&mut self) -> Result<f64> {
        let (config, log) = (self.folder.path().join("broker.toml"), self.folder.path().join("broker.log"));
        let begun = Instant::now();
        let process = BrokerProcess::start(&self.binary, &config, "127.0.0.1:0", &[], &log)?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        self.address = Some(process.broker.trim_start_matches("http://").parse()?);
        self.process = Some(process);
        Ok(took)
    }

    /// Stops it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop().map(|_| ()),
            None => Ok(()),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("no broker runs")?.pid())
    }

    /// Where it serves.
    pub(crate) fn url(&self) -> Result<String> {
        Ok(format!("http://{}", self.address.context("no broker runs")?))
    }

    /// One of its tokens.
    pub(crate) fn token(&self, number: usize) -> Result<&str> {
        self.tokens.get(number).map(String::as_str).context("no such token")
    }

    /// Connected clients, each with its own workload's token.
    pub(crate) async fn clients(&self, target: &str, count: usize) -> Result<Vec<HttpClient>> {
        let address = self.address.context("no broker runs")?;
        let mut clients = Vec::new();
        for token in self.tokens.iter().take(count) {
            let body =
                format!(r#"{{"target":"{target}","role":"app_read_only","ttl":"12h","reason":"nightly export"}}"#);
            let request = format!(
                "POST /issue HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            clients.push(HttpClient::connect(address, request.into_bytes(), 201).await?);
        }
        Ok(clients)
    }

    /// What the broker's own metrics say, for the figures that only it knows.
    pub(crate) async fn metrics(&self) -> Result<String> {
        let process = self.process.as_ref().context("no broker runs")?;
        let client = Client::new(&process.broker, &process.issuer);
        Ok(client.raw().get(format!("{}/metrics", process.broker)).send().await?.text().await?)
    }
}

/// The rules of a policy in use: the one that fits comes last.
pub(crate) fn rules() -> serde_json::Value {
    let mut rules: Vec<serde_json::Value> = (1..RULES)
        .map(|number| {
            serde_json::json!({
                "name": format!("team-{number}"),
                "workload": format!("team-{number}-*"),
                "target": "inventory_db",
                "roles": ["app_read_only", "app_read_write"],
                "attributes": {"env": "prod"},
                "max_ttl": "8h",
            })
        })
        .collect();
    rules.push(serde_json::json!({
        "name": "payments",
        "workload": "payment-*",
        "issuer": "dev",
        "k8s_namespace": "shop",
        "target": "*",
        "roles": ["app_read_only"],
        "attributes": {"env": "prod"},
        "max_ttl": "24h",
    }));
    serde_json::json!({ "rules": rules })
}

fn configuration(setting: &Setting<'_>, plugins: usize) -> String {
    let Setting { plugins: folder, database, max_connections, .. } = setting;
    let folder = folder.display();
    let Database { host, port, name, read_only, broker, owner, .. } = database;
    let rules = toml_rules();
    let mut text = format!(
        r#"
[server]
listen = "127.0.0.1:0"
admin_socket = "admin.sock"
[store]
url = "sqlite:broker.db"
[audit]
signing_key = {{ file = "audit.key" }}
export = [{{ kind = "jsonl", path = "audit.jsonl" }}]
[limits]
requests_per_second = 1000000
[plugins.postgres]
path = "{folder}/driver-postgres.wasm"
[plugins.noop]
path = "{folder}/driver-noop.wasm"
[plugins.allow-list]
path = "{folder}/policy-allow-list.wasm"
[connections.inventory]
kind = "postgres"
url = "postgres://{broker}@{host}:{port}/{name}"
password = {{ file = "inventory.password" }}
max_connections = {max_connections}
[policies.allow-listed]
plugin = "allow-list"
{rules}
[targets.inventory_db]
driver = "postgres"
connection = "inventory"
policies = ["allow-listed"]
max_ttl = "24h"
[targets.inventory_db.config]
reassign_owned_to = "{owner}"
[targets.inventory_db.roles.app_read_only]
grants = ["{read_only}"]
[targets.nothing]
driver = "noop"
policies = ["allow-listed"]
max_ttl = "24h"
[targets.nothing.roles.app_read_only]
"#
    );
    // Three are there; the others are the same components under further names.
    for number in 3..plugins {
        let file = if number % 2 == 0 { "driver-postgres" } else { "policy-allow-list" };
        text.push_str(&format!("[plugins.more-{number}]\npath = \"{folder}/{file}.wasm\"\n"));
    }
    text
}

fn toml_rules() -> String {
    let rules = rules();
    let rules = rules["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut text = String::new();
    for rule in rules {
        text.push_str("[[policies.allow-listed.config.rules]]\n");
        for (name, value) in rule.as_object().into_iter().flatten() {
            // Strings and lists of strings are the same in both; tables of strings nearly.
            let value = value.to_string();
            let value = if value.starts_with('{') { value.replace("\":\"", "\" = \"") } else { value };
            text.push_str(&format!("{name} = {value}\n"));
        }
    }
    text
}
