//! A world of one test with a rotating account in a real MySQL server.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tempfile::TempDir;

use crate::broker::BrokerProcess;
use crate::http::{Client, Reply};
use crate::{random_name, surroundings};

/// A rotating account, a configuration, and maybe a running broker. Needs `JIT_TEST_MYSQL`.
pub struct MysqlWorld {
    /// The broker, while it runs. Dropped before the folder, so that a failed test shows its log.
    pub broker: Option<BrokerProcess>,
    /// The folder of configuration, store, audit log and sockets.
    pub folder: TempDir,
    /// The account.
    pub account: String,
    /// What an administrator set before the broker knew the account.
    pub first_password: String,
    admin: MySqlConnectOptions,
    authority: String,
    host: String,
    port: u16,
    /// The broker's own user.
    user: String,
    /// Whether the binary is the one with failpoints.
    pub failpoints: bool,
    issuer: String,
}

/// What a test's rotation is like.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From one password to the next.
    pub period: &'static str,
    /// How long both work.
    pub overlap: &'static str,
}

impl MysqlWorld {
    /// A world whose broker is not started yet.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn prepared(times: Times) -> Self {
        Self::create(times).await.unwrap_or_else(|error| panic!("no world: {error:#}"))
    }

    async fn create(times: Times) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url = url::Url::parse(&surroundings("JIT_TEST_MYSQL"))?;
        let authority = surroundings("JIT_TEST_MYSQL_CA");
        let admin: MySqlConnectOptions = url.as_str().parse()?;
        let name = random_name();
        let world = Self {
            broker: None,
            folder: TempDir::with_prefix("jit-")?,
            account: format!("app_{name}"),
            first_password: format!("first-{}{}", random_name(), random_name()),
            admin: admin.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(&authority).disable_statement_logging(),
            host: url.host_str().unwrap_or("127.0.0.1").to_owned(),
            port: url.port().unwrap_or(3306),
            authority,
            user: format!("jit_{name}"),
            failpoints: false,
            issuer: "127.0.0.1:0".to_owned(),
        };
        let password = format!("broker-{}{}", random_name(), random_name());
        let mut server = world.admin.connect().await?;
        let setup = crate::setup::file("driver-mysql", "setup/mysql.sql");
        let names = [("inventory", "mysql"), ("app_read_only", &format!("role_{name}")), ("jit_broker", &world.user)];
        let setup = crate::setup::with_names(&setup, &names).replace('…', &password);
        let account = format!("CREATE USER {}@'%' IDENTIFIED BY '{}' REQUIRE SSL", world.account, world.first_password);
        for statement in crate::setup::statements(&setup).into_iter().chain([account]) {
            server.execute(AssertSqlSafe(statement)).await?;
        }
        server.close().await?;
        world.write_secret("shop.password", &password)?;
        std::fs::write(world.config(), world.config_text(times))?;
        Ok(world)
    }

    /// The configuration file's path.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("broker.toml")
    }

    fn config_text(&self, Times { period, overlap }: Times) -> String {
        let Self { host, port, user, account, authority, .. } = self;
        let plugins = surroundings("JIT_TEST_PLUGINS");
        format!(
            r#"
[server]
listen = "127.0.0.1:0"
admin_socket = "admin.sock"
watch = false
[store]
url = "sqlite:broker.db"
sealing_key = {{ file = "sealing.key" }}
[audit]
signing_key = {{ file = "audit.key" }}
export = [{{ kind = "jsonl", path = "audit.jsonl" }}]
[limits]
requests_per_second = 10000
[plugins.mysql]
path = "{plugins}/driver-mysql.wasm"
[plugins.allow-list]
path = "{plugins}/policy-allow-list.wasm"
[connections.shop]
kind = "mysql"
url = "mysql://{user}@{host}:{port}"
password = {{ file = "shop.password" }}
ca = "{authority}"
connect_timeout = "5s"
[policies.allow]
plugin = "allow-list"
config = {{ rules = [{{ workload = "payment-*", target = "*", roles = ["*"] }}] }}
[targets.shop_db]
driver = "mysql"
connection = "shop"
policies = ["allow"]
default_ttl = "1h"
max_ttl = "8h"
default_role = "app"
timeout = "10s"
[targets.shop_db.roles.app]
rotating = {{ account = "{account}", period = "{period}", overlap = "{overlap}" }}
"#
        )
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

    /// Changes the configuration file.
    ///
    /// # Panics
    /// When it does not have `from`.
    pub fn rewrite(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap_or_default();
        assert!(text.contains(from), "{from:?} is not in the configuration");
        std::fs::write(self.config(), text.replace(from, to)).unwrap_or_else(|error| panic!("{error}"));
    }

    fn binary(&self) -> PathBuf {
        surroundings(if self.failpoints { "JIT_TEST_BROKER_FAILPOINTS" } else { "JIT_TEST_BROKER" }).into()
    }

    /// Starts the broker, with environment variables. The sealing key is made where there is none.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn try_start(&mut self, env: &[(&str, &str)]) -> Result<()> {
        self.broker = None;
        let made = self.cli(&["store", "key", &self.folder.path().join("sealing.key").display().to_string()]);
        anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let log = self.folder.path().join("broker.log");
        let broker = BrokerProcess::start(&self.binary(), &self.config(), &self.issuer, env, &log)?;
        self.issuer = broker.issuer.trim_start_matches("http://").to_owned();
        self.broker = Some(broker);
        Ok(())
    }

    /// Starts the broker, with environment variables.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(&mut self, env: &[(&str, &str)]) {
        self.try_start(env).unwrap_or_else(|error| panic!("{error:#}"));
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

    /// Asks for the password; none when the broker died over it.
    ///
    /// # Panics
    /// When the issuer does not answer.
    pub async fn ask(&self, key: Option<&str>) -> Option<Reply> {
        let client = self.client();
        let token = client.token("payment-service").await.ok()?;
        let body = serde_json::json!({"target": "shop_db"});
        match key {
            Some(key) => client.issue_with_key(&token, key, &body).await.ok(),
            None => client.issue(&token, &body).await.ok(),
        }
    }

    /// The password, which works.
    ///
    /// # Panics
    /// When there is none, or it does not.
    pub async fn granted(&self) -> Reply {
        let reply = self.ask(None).await.unwrap_or_else(|| panic!("no reply"));
        assert_eq!(reply.status, 201, "{}", reply.text);
        assert!(self.login(reply.password()).await, "the password does not work: {:?}", self.rotation());
        reply
    }

    /// The broker's own user.
    #[must_use]
    pub fn user(&self) -> String {
        self.user.clone()
    }

    /// The connection's URL leads to another server of the suite from the next start on.
    ///
    /// # Panics
    /// When that server's URL is none.
    pub fn move_to(&self, server: &str) {
        let url = url::Url::parse(&surroundings(server)).unwrap_or_else(|error| panic!("{error}"));
        let there = format!("{}:{}", url.host_str().unwrap_or("127.0.0.1"), url.port().unwrap_or(3306));
        self.rewrite(&format!("@{}:{}", self.host, self.port), &format!("@{there}"));
        self.rewrite(&self.authority, &surroundings(&format!("{server}_CA")));
    }

    /// The account's record in the store of a broker that does not run.
    ///
    /// # Panics
    /// When it has none.
    pub async fn sealed_rotation(&self) -> Vec<u8> {
        let query = sqlx::query_scalar("SELECT value FROM sealed WHERE purpose = 'rotation'");
        let value = query.fetch_one(&mut self.store().await).await;
        value.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Puts a record into the store of a broker that does not run, as somebody who means harm would.
    ///
    /// # Panics
    /// When there is none to replace.
    pub async fn put_sealed_rotation(&self, value: &[u8]) {
        let mut store = self.store().await;
        let update = sqlx::query("UPDATE sealed SET value = ? WHERE purpose = 'rotation'").bind(value);
        let done = update.execute(&mut store).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(done.rows_affected(), 1);
        store.close().await.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn store(&self) -> sqlx::SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.folder.path().join("broker.db"));
        options.connect().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A session of the account, opened with that password.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn session(&self, password: &str) -> MySqlConnection {
        let opened = self.open(password).await;
        opened.unwrap_or_else(|error| panic!("the account cannot log in: {error}"))
    }

    async fn open(&self, password: &str) -> Result<MySqlConnection, sqlx::Error> {
        let options = MySqlConnectOptions::new()
            .host(&self.host)
            .port(self.port)
            .username(&self.account)
            .password(password)
            .ssl_mode(MySqlSslMode::VerifyIdentity)
            .ssl_ca(&self.authority)
            .disable_statement_logging();
        MySqlConnection::connect_with(&options).await
    }

    /// Whether the account can log in with that password.
    ///
    /// # Panics
    /// When the server is away.
    pub async fn login(&self, password: &str) -> bool {
        match self.open(password).await {
            Ok(connection) => {
                let _ = connection.close().await;
                true
            }
            Err(sqlx::Error::Database(error)) if error.message().contains("Access denied") => false,
            Err(error) => panic!("the server is away: {error}"),
        }
    }

    /// One statement, as administrator.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn execute(&self, statement: &str) -> Result<()> {
        let mut server = self.admin.connect().await?;
        server.execute(AssertSqlSafe(statement.to_owned())).await?;
        Ok(server.close().await?)
    }

    /// Locks the broker out of the server, or lets it in again: it is as if the server were away
    /// from the broker's rotation, and not from the applications.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn lock_out_broker(&self, locked: bool) -> Result<()> {
        let word = if locked { "LOCK" } else { "UNLOCK" };
        self.execute(&format!("ALTER USER {}@'%' ACCOUNT {word}", self.user)).await?;
        if locked {
            let mut server = self.admin.connect().await?;
            let query = "SELECT CAST(id AS CHAR) FROM information_schema.processlist WHERE user = ?";
            let sessions: Vec<String> = sqlx::query_scalar(query).bind(&self.user).fetch_all(&mut server).await?;
            for session in sessions {
                let _gone = server.execute(AssertSqlSafe(format!("KILL {session}"))).await;
            }
        }
        Ok(())
    }

    /// Runs a command of the broker's binary with this world's configuration.
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

    /// The account's rotation, by the command that operators use.
    ///
    /// # Panics
    /// When the running broker does not answer.
    #[must_use]
    pub fn rotation(&self) -> Value {
        let output = self.cli(&["rotation", "list", "--format", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}"));
        rows[0].clone()
    }

    /// Waits until the rotation stands so.
    ///
    /// # Panics
    /// After a minute.
    pub async fn rotation_becomes(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let row = self.rotation();
            if holds(&row) {
                return row;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "never came true: {what}: {row}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The audit records of an event.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn events(&self, event: &str) -> Vec<Value> {
        let output = self.cli(&["audit", "show", "--last", "100000", "--event", event, "--format", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// Whether a text stands in any file of the world's folder.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn is_written_anywhere(&self, text: &str) -> Result<Option<String>> {
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if !path.is_file() {
                continue;
            }
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                return Ok(Some(path.display().to_string()));
            }
        }
        Ok(None)
    }
}
