//! A world of one test: its database, its broker's folder and process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::broker::BrokerProcess;
use crate::database::Database;
use crate::http::Client;
use crate::{random_name, surroundings};

/// What a test wants to be otherwise.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `[targets.inventory_db]` table's policies, in order. `allow` is always there: it allows
    /// `payment-*` everything in every target.
    pub policies: Vec<String>,
    /// Keys for `[server]`.
    pub server: String,
    /// Keys for `[store]`.
    pub store: String,
    /// Keys for `[targets.inventory_db]`.
    pub target: String,
    /// Keys for `[connections.inventory]`.
    pub connection: String,
    /// More sections, at the end of the configuration.
    pub more: String,
    /// `[limits] requests_per_second`.
    pub requests_per_second: u32,
    /// Which binary: the one with failpoints.
    pub failpoints: bool,
    /// A superuser's URL of another server than the shared one.
    pub superuser: Option<String>,
    /// Whether the broker serves changed files by itself. It does by default; a test that counts its own
    /// reloads does not want that.
    pub watch: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policies: vec!["allow".to_owned()],
            server: String::new(),
            store: "url = \"sqlite:broker.db\"".to_owned(),
            target: String::new(),
            connection: String::new(),
            more: String::new(),
            requests_per_second: 10_000,
            failpoints: false,
            superuser: None,
            watch: false,
        }
    }
}

/// A database, a configuration, and maybe a running broker.
pub struct World {
    /// The broker, while it runs. Dropped before the folder, so that a failed test shows its log.
    pub broker: Option<BrokerProcess>,
    /// The folder of configuration, store, audit log and sockets.
    pub folder: TempDir,
    /// The database in which accounts are made.
    pub database: Database,
    /// How the names of this world's accounts begin.
    pub prefix: String,
    settings: Settings,
    /// The embedded issuer's port: the same after a restart, so that tokens stay good to ask for.
    issuer: String,
}

impl World {
    /// A world with a running broker.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    /// A world with settings and a running broker.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn with(settings: Settings) -> Self {
        let mut world = Self::prepared(settings).await;
        world.start(&[]).await;
        world
    }

    /// A world whose broker is not started yet.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn prepared(settings: Settings) -> Self {
        let superuser = settings.superuser.clone().unwrap_or_else(|| surroundings("JIT_TEST_POSTGRES"));
        let database = Database::create(&superuser).await.unwrap_or_else(|error| panic!("no database: {error:#}"));
        let folder = TempDir::with_prefix("jit-").unwrap_or_else(|error| panic!("no folder: {error}"));
        let prefix = format!("t{}-", random_name());
        let world = Self { folder, database, prefix, broker: None, settings, issuer: "127.0.0.1:0".to_owned() };
        world.write_config().unwrap_or_else(|error| panic!("no configuration: {error:#}"));
        world
    }

    /// The configuration file's path.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("broker.toml")
    }

    /// The broker's log file.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("broker.log")
    }

    fn write_config(&self) -> Result<()> {
        self.write_secret("inventory.password", &self.database.password)?;
        std::fs::write(self.config(), self.config_text())?;
        Ok(())
    }

    /// Writes a secret that the configuration names, for the broker's eyes only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_secret(&self, name: &str, secret: &str) -> Result<()> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, secret)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(())
    }

    /// A copy of the configuration that `serve` and `config check` take: with an issuer, which
    /// `dev` adds by itself.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn config_with_issuer(&self) -> PathBuf {
        let text = read(&self.config()).unwrap_or_else(|error| panic!("{error:#}"));
        let path = self.folder.path().join("with-issuer.toml");
        let issuer = "\n[[identity.jwt]]\nname = \"cluster\"\nissuer = \"https://issuer.invalid\"\n\
                      audiences = [\"jit-broker\"]\nworkload = \"{sub}\"\n";
        std::fs::write(&path, text + issuer).unwrap_or_else(|error| panic!("{error}"));
        path
    }

    fn config_text(&self) -> String {
        let Settings { policies, server, store, target, connection, more, requests_per_second, watch, .. } =
            &self.settings;
        // With it, what is left out: the default is what is tested.
        let watch = if *watch { "" } else { "watch = false" };
        let Database { host, port, name, read_only, read_write, owner, broker, .. } = &self.database;
        let plugins = surroundings("JIT_TEST_PLUGINS");
        let prefix = &self.prefix;
        let policies = serde_json::json!(policies);
        format!(
            r#"
[server]
listen = "127.0.0.1:0"
admin_socket = "admin.sock"
account_prefix = "{prefix}"
{watch}
{server}
[store]
{store}
[audit]
signing_key = {{ file = "audit.key" }}
export = [{{ kind = "jsonl", path = "audit.jsonl" }}]
[limits]
requests_per_second = {requests_per_second}
[plugins.postgres]
path = "{plugins}/driver-postgres.wasm"
[plugins.allow-list]
path = "{plugins}/policy-allow-list.wasm"
[connections.inventory]
kind = "postgres"
url = "postgres://{broker}@{host}:{port}/{name}"
password = {{ file = "inventory.password" }}
{connection}
[policies.allow]
plugin = "allow-list"
config = {{ rules = [{{ workload = "payment-*", target = "*", roles = ["*"] }}] }}
[targets.inventory_db]
driver = "postgres"
connection = "inventory"
policies = {policies}
default_ttl = "1h"
max_ttl = "8h"
default_role = "app_read_only"
{target}
[targets.inventory_db.config]
reassign_owned_to = "{owner}"
[targets.inventory_db.roles.app_read_only]
grants = ["{read_only}"]
[targets.inventory_db.roles.app_read_write]
grants = ["{read_write}"]
{more}
"#
        )
    }

    /// The binary of this world's settings.
    #[must_use]
    pub fn binary(&self) -> PathBuf {
        surroundings(if self.settings.failpoints { "JIT_TEST_BROKER_FAILPOINTS" } else { "JIT_TEST_BROKER" }).into()
    }

    /// Starts the broker, with environment variables.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(&mut self, env: &[(&str, &str)]) {
        self.try_start(env).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Starts the broker, or says why not.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn try_start(&mut self, env: &[(&str, &str)]) -> Result<()> {
        self.try_start_by(Command::new(self.binary()), env)
    }

    /// Starts the broker by a command that becomes it, or says why not.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn try_start_by(&mut self, command: Command, env: &[(&str, &str)]) -> Result<()> {
        self.broker = None;
        let broker = BrokerProcess::start_by(command, &self.config(), &self.issuer, env, &self.log_path())?;
        self.issuer = broker.issuer.trim_start_matches("http://").to_owned();
        self.broker = Some(broker);
        Ok(())
    }

    /// The running broker.
    ///
    /// # Panics
    /// When there is none.
    pub fn process(&mut self) -> &mut BrokerProcess {
        self.broker.as_mut().unwrap_or_else(|| panic!("no broker runs"))
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

    /// The accounts that this world's broker has in the database server.
    ///
    /// # Panics
    /// When the server is away.
    pub async fn accounts(&self) -> Vec<String> {
        self.database.roles(&self.prefix).await.unwrap_or_else(|error| panic!("no roles: {error:#}"))
    }

    /// Runs a command of the broker's binary with this world's configuration: `cli(&["lease", "list"])`.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Output {
        Command::new(self.binary())
            .args(args)
            .env("JIT_CONFIG", self.config())
            .env("NO_COLOR", "1")
            .env_remove("JIT_FAILPOINTS")
            .output()
            .unwrap_or_else(|error| panic!("cannot run the command: {error}"))
    }

    /// A client of the running broker's admin socket, and the URL that its paths follow: for what is done
    /// too often for a command each.
    ///
    /// # Panics
    /// When the HTTP client cannot be made.
    #[must_use]
    pub fn admin(&self) -> (reqwest::Client, &'static str) {
        let socket = self.folder.path().join("admin.sock");
        let client = reqwest::Client::builder().unix_socket(socket).no_proxy().timeout(Duration::from_secs(60));
        (client.build().unwrap_or_else(|error| panic!("no HTTP client: {error}")), "http://admin")
    }

    /// Changes the configuration file, as an editor does: written beside it and renamed.
    ///
    /// # Panics
    /// When the text to be replaced is not there, or the file cannot be written.
    pub fn rewrite(&self, from: &str, to: &str) {
        let text = read(&self.config()).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(text.contains(from), "{from:?} is not in the configuration");
        put(&self.config(), text.replace(from, to).as_bytes());
    }

    /// All audit records, by the command that operators use.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn audit(&self) -> Vec<Value> {
        let output = self.cli(&["audit", "show", "--last", "1000000", "--format", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// The audit records of an event.
    #[must_use]
    pub fn events(&self, event: &str) -> Vec<Value> {
        self.audit().into_iter().filter(|record| record["event"] == event).collect()
    }

    /// Leases as the operator sees them.
    ///
    /// # Panics
    /// When the running broker does not answer.
    #[must_use]
    pub fn leases(&self) -> Vec<Value> {
        let output = self.cli(&["lease", "list", "--all", "--limit", "100000", "--format", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Whether `audit verify` finds the log intact.
    ///
    /// # Panics
    /// When it does not.
    pub fn assert_log_is_intact(&self) {
        let output = self.cli(&["audit", "verify"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Asks again until it holds; the bound is for a test that fails, no test waits for it otherwise.
///
/// # Panics
/// After 60 seconds.
pub async fn eventually<F>(what: &str, mut holds: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(120), "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Puts a file in place in one step.
///
/// # Panics
/// When it cannot be written.
pub fn put(path: &Path, content: &[u8]) {
    let beside = path.with_extension("new");
    let put = std::fs::write(&beside, content).and_then(|()| std::fs::rename(&beside, path));
    put.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// Reads a file that a test needs.
///
/// # Errors
/// When it is not there.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
