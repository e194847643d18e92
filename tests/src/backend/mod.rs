//! A broker process in front of any backend: what the kit prepares for a driver's conformance is here
//! one target of a whole configuration, and its login is how a test looks at an account.

mod login;
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use toml::Table;

use crate::broker::BrokerProcess;
use crate::http::{Client, Reply};
use crate::kit::KitFixture;
use crate::{random_name, surroundings};

pub use login::Login;
pub use server::Backend;

/// The one target of each such world.
pub const TARGET: &str = "inventory_db";

/// A target, a configuration, and maybe a running broker.
pub struct BackendWorld {
    /// The broker, while it runs. Dropped before the folder, so that a failed test shows its log.
    pub broker: Option<BrokerProcess>,
    fixture: KitFixture,
    /// How accounts are looked at from outside.
    pub login: Login,
    /// How the names of this world's accounts begin, where the broker chooses them.
    pub prefix: String,
    config: Table,
    issuer: String,
}

impl BackendWorld {
    /// A world whose broker is not started yet. `more` is laid over the configuration: its tables
    /// are merged, other values replaced.
    ///
    /// # Errors
    /// When fixture or `more` are not what they should be.
    pub fn prepared(fixture: KitFixture, driver: &str, more: &str) -> Result<Self> {
        let mut parts = std::fs::read_to_string(fixture.path())?.parse::<Table>()?;
        let expected = parts.remove("conformance").context("no [conformance]")?;
        let login: Login = expected.get("login").context("no login")?.clone().try_into()?;
        let mut targets = section(&mut parts, "targets")?.clone();
        let (name, mut target) =
            targets.iter().next().map(|(name, target)| (name.clone(), target.clone())).context("no target")?;
        targets.remove(&name);
        ensure!(targets.is_empty(), "more than one target");
        let roles = target.get_mut("roles").and_then(toml::Value::as_table_mut).context("no roles")?;
        // What the backend does not have is for the kit alone.
        for role in expected.get("refused_roles").and_then(toml::Value::as_array).into_iter().flatten() {
            roles.remove(role.as_str().unwrap_or_default());
        }
        parts.insert("targets".to_owned(), Table::from_iter([(TARGET.to_owned(), target)]).into());
        section(&mut parts, "connections")?.remove("weak");

        let prefix = format!("t{}-", random_name());
        let mut config = broker_sections(&prefix, driver).parse::<Table>()?;
        lay_over(&mut config, parts);
        lay_over(&mut config, more.parse()?);
        let world = Self { broker: None, fixture, login, prefix, config, issuer: "127.0.0.1:0".to_owned() };
        world.write_config()?;
        Ok(world)
    }

    /// Changes the configuration, as `more` does at the beginning.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn change(&mut self, more: &str) -> Result<()> {
        lay_over(&mut self.config, more.parse()?);
        self.write_config()
    }

    fn write_config(&self) -> Result<()> {
        Ok(std::fs::write(self.config_path(), toml::to_string(&self.config)?)?)
    }

    /// The folder of configuration, store, audit log and sockets.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.fixture.folder()
    }

    fn config_path(&self) -> PathBuf {
        self.folder().join("broker.toml")
    }

    /// Writes a secret that the configuration names, for the broker's eyes only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_secret(&self, name: &str, secret: &str) -> Result<()> {
        self.fixture.secret(name, secret)
    }

    /// Starts the broker; one that runs is killed first. The sealing key is made where there is none.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&mut self) -> Result<()> {
        self.broker = None;
        let made = self.cli(&["store", "key", &self.folder().join("sealing.key").display().to_string()])?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let binary = PathBuf::from(surroundings("JIT_TEST_BROKER"));
        let log = self.folder().join("broker.log");
        let broker = BrokerProcess::start(&binary, &self.config_path(), &self.issuer, &[], &log)?;
        self.issuer = broker.issuer.trim_start_matches("http://").to_owned();
        self.broker = Some(broker);
        Ok(())
    }

    /// A client of the running broker.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn client(&self) -> Client {
        let broker = self.broker.as_ref().unwrap_or_else(|| panic!("no broker runs"));
        Client::new(&broker.broker, &broker.issuer)
    }

    /// Asks for an account.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn ask(&self, ttl: &str) -> Result<Reply> {
        let client = self.client();
        let token = client.token("payment-service").await?;
        client.issue(&token, &serde_json::json!({"target": TARGET, "ttl": ttl})).await
    }

    /// An account, which works.
    ///
    /// # Errors
    /// When there is none, or it does not.
    pub async fn granted(&self, ttl: &str) -> Result<Reply> {
        let reply = self.ask(ttl).await?;
        ensure!(reply.status == 201, "{}: {}", reply.status, reply.text);
        ensure!(self.works(&reply).await?, "{} cannot log in", reply.username());
        Ok(reply)
    }

    /// Whether an account can log in now.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn works(&self, issued: &Reply) -> Result<bool> {
        self.login.works(issued.username(), issued.password()).await
    }

    /// `POST /v1/leases/{id}/{what}` of the account's own workload.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn lease_call(&self, issued: &Reply, what: &str, body: &Value) -> Result<Reply> {
        let client = self.client();
        let token = client.token("payment-service").await?;
        client.post(&format!("/v1/leases/{}/{what}", issued.lease()), &token, body).await
    }

    /// Runs a command of the broker's binary with this world's configuration.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(surroundings("JIT_TEST_BROKER"));
        command.args(args).env("JIT_CONFIG", self.config_path()).env("NO_COLOR", "1").env_remove("JIT_FAILPOINTS");
        command.output().context("the broker's binary cannot be started")
    }

    /// What a command says that has to succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn said(&self, args: &[&str]) -> Result<String> {
        let output = self.cli(args)?;
        let (told, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{args:?}: {told}{wrong}");
        Ok(told.into_owned())
    }

    /// A lease as the operator sees it.
    ///
    /// # Errors
    /// When the broker does not know it.
    pub fn lease(&self, id: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.said(&["lease", "show", id, "--format", "json"])?)?)
    }

    /// All leases as the operator sees them.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn leases(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&self.said(&["lease", "list", "--all", "--limit", "10000", "--format", "json"])?)?)
    }

    /// The audit records of an event.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn events(&self, event: &str) -> Result<Vec<Value>> {
        let text = self.said(&["audit", "show", "--last", "100000", "--event", event, "--format", "json"])?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Everything that the broker logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("broker.log")).unwrap_or_default()
    }

    /// The file of the world's folder in which a text stands, if any: store, logs and exports are there.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn where_written(&self, text: &str) -> Result<Option<PathBuf>> {
        for entry in std::fs::read_dir(self.folder())? {
            let path = entry?.path();
            let is_there = |bytes: Vec<u8>| bytes.windows(text.len()).any(|part| part == text.as_bytes());
            if path.is_file() && is_there(std::fs::read(&path).with_context(|| path.display().to_string())?) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

fn section<'t>(table: &'t mut Table, name: &str) -> Result<&'t mut Table> {
    table.get_mut(name).and_then(toml::Value::as_table_mut).with_context(|| format!("no [{name}]"))
}

/// Merges tables; anything else of `upper` replaces what is in `lower`.
fn lay_over(lower: &mut Table, upper: Table) {
    for (name, value) in upper {
        match (lower.get_mut(&name).and_then(toml::Value::as_table_mut), value) {
            (Some(below), toml::Value::Table(above)) => lay_over(below, above),
            (_, value) => drop(lower.insert(name, value)),
        }
    }
}

fn broker_sections(prefix: &str, driver: &str) -> String {
    let plugins = surroundings("JIT_TEST_PLUGINS");
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
admin_socket = "admin.sock"
watch = false
account_prefix = "{prefix}"
[store]
url = "sqlite:broker.db"
sealing_key = {{ file = "sealing.key" }}
[audit]
signing_key = {{ file = "audit.key" }}
export = [{{ kind = "jsonl", path = "audit.jsonl" }}]
[limits]
requests_per_second = 10000
[plugins.driver]
path = "{plugins}/{driver}.wasm"
[plugins.allow-list]
path = "{plugins}/policy-allow-list.wasm"
[policies.allow]
plugin = "allow-list"
config = {{ rules = [{{ workload = "payment-*", target = "*", roles = ["*"] }}] }}
[targets.{TARGET}]
driver = "driver"
policies = ["allow"]
default_ttl = "1h"
max_ttl = "8h"
"#
    )
}
