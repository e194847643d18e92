//! The broker under load: its configuration, its process, its clients.

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use jit_core::lease::VerifierKind;
use jit_core::secret::{Verifier, generate_password};
use jit_tests::{BrokerProcess, Client, Database};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use crate::load::{HttpClient, Requests};

/// Rules of the allow-list; the workloads of the bench are named by the last.
const RULES: usize = 20;

/// Which binary, which plugins, which database.
pub(crate) struct Setting<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) plugins: &'a Path,
    pub(crate) database: &'a Database,
    pub(crate) max_connections: u32,
}

/// What a replay of everything took, its start included.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Replayed {
    pub(crate) decisions: u64,
    pub(crate) seconds: f64,
}

impl Replayed {
    pub(crate) fn per_second(&self) -> f64 {
        self.decisions as f64 / self.seconds
    }
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
            let request = Requests::Same(issue(address, token, target, ""));
            clients.push(HttpClient::connect(address, request, 201).await?);
        }
        Ok(clients)
    }

    /// The same, who make their passwords: each request has the next of these verifiers.
    pub(crate) async fn callers(&self, target: &str, count: usize, verifiers: Vec<String>) -> Result<Vec<HttpClient>> {
        let address = self.address.context("no broker runs")?;
        let verifiers = Rc::new(RefCell::new(verifiers));
        let mut clients = Vec::new();
        for token in self.tokens.iter().take(count) {
            let (verifiers, token, target) = (Rc::clone(&verifiers), token.clone(), target.to_owned());
            let next = move || {
                let prepared = verifiers.borrow_mut().pop();
                let verifier = prepared.map_or_else(verifier, Ok)?;
                let credential = format!(r#","credential":{{"type":"verifier","scram_sha_256":"{verifier}"}}"#);
                Ok(issue(address, &token, &target, &credential))
            };
            clients.push(HttpClient::connect(address, Requests::Each(Box::new(next)), 201).await?);
        }
        Ok(clients)
    }

    /// Replays all that the stopped broker decided: the same policy in its own place, so that every
    /// answer is also held to the recorded one. None where nothing was decided.
    pub(crate) fn replay(&self, plugins: &Path) -> Result<Option<Replayed>> {
        let (config, table) = (self.folder.path().join("broker.toml"), self.folder.path().join("candidate.toml"));
        fs::write(&table, toml_rules("rules"))?;
        let mut command = std::process::Command::new(&self.binary);
        command.args(["policy", "replay", "--format", "json", "--name", "allow-listed", "--policy"]);
        command.arg(plugins.join("policy-allow-list.wasm")).arg("--config").arg(table).arg("-c").arg(config);
        let begun = Instant::now();
        let output = command.output().context("policy replay")?;
        let seconds = begun.elapsed().as_secs_f64();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("policy replay: {}", String::from_utf8_lossy(&output.stderr)))?;
        let count = |name: &str| report["totals"][name].as_u64().unwrap_or(0);
        let decisions = count("replayed");
        if decisions == 0 {
            return Ok(None);
        }
        let same = count("same_bytes") == decisions && count("unchanged") == decisions && count("not_reproduced") == 0;
        anyhow::ensure!(output.status.success() && same, "the replay does not come to what was recorded: {report}");
        Ok(Some(Replayed { decisions, seconds }))
    }

    /// What the broker's own metrics say, for the figures that only it knows.
    pub(crate) async fn metrics(&self) -> Result<String> {
        let process = self.process.as_ref().context("no broker runs")?;
        let client = Client::new(&process.broker, &process.issuer);
        Ok(client.raw().get(format!("{}/metrics", process.broker)).send().await?.text().await?)
    }
}

fn issue(address: SocketAddr, token: &str, target: &str, credential: &str) -> Vec<u8> {
    let body =
        format!(r#"{{"target":"{target}","role":"app_read_only","ttl":"12h","reason":"nightly export"{credential}}}"#);
    let request = format!(
        "POST /issue HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    request.into_bytes()
}

/// A verifier as a caller makes it, of a password that nobody needs here.
pub(crate) fn verifier() -> Result<String> {
    let verifier = Verifier::of(VerifierKind::ScramSha256, &generate_password(), 4_096)?;
    Ok(verifier.text().expose_secret().to_owned())
}

/// Milliseconds of processor time of one hash of 4096 iterations, as the broker makes it: the median of some.
pub(crate) fn hash_ms() -> Result<f64> {
    let mut took = Vec::new();
    for _ in 0..51 {
        let begun = Instant::now();
        verifier()?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_unstable_by(f64::total_cmp);
    Ok(took.get(took.len() / 2).copied().unwrap_or(f64::NAN))
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
    let rules = toml_rules("policies.allow-listed.config.rules");
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
[targets.inventory_light]
driver = "postgres"
connection = "inventory"
policies = ["allow-listed"]
max_ttl = "24h"
[targets.inventory_light.config]
reassign_owned_to = "{owner}"
scram_iterations = 1
[targets.inventory_light.roles.app_read_only]
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

fn toml_rules(table: &str) -> String {
    let rules = rules();
    let rules = rules["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut text = String::new();
    for rule in rules {
        text.push_str(&format!("[[{table}]]\n"));
        for (name, value) in rule.as_object().into_iter().flatten() {
            // Strings and lists of strings are the same in both; tables of strings nearly.
            let value = value.to_string();
            let value = if value.starts_with('{') { value.replace("\":\"", "\" = \"") } else { value };
            text.push_str(&format!("{name} = {value}\n"));
        }
    }
    text
}
