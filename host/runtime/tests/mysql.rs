//! The `sql` capability and driver-mysql against a real MySQL and a real MariaDB: `JIT_TEST_MYSQL`
//! and `JIT_TEST_MARIADB` are URLs of their administrators, `JIT_TEST_MYSQL_CA` and
//! `JIT_TEST_MARIADB_CA` the files of the authorities behind their certificates.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "mysql/faults.rs"]
mod faults;
mod fixtures;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixtures::{account_named, bench, bench_with, role, scope_with, target};
use jit_core::account::{AccountName, AccountPrefix, Mark};
use jit_core::driver::{AccountView, RoleView, RotationStep, TargetView};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::secret::generate_password;
use jit_runtime::{DriverPlugin, DriverScope, Lane, Limits, SqlConnection, SqlConnectionOptions, SqlKind};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, MySqlConnection, Row as _};
use url::Url;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    MySql,
    MariaDb,
}

use Flavour::{MariaDb, MySql};

const BOTH: [Flavour; 2] = [MySql, MariaDb];

/// A schema, a role and a broker's account, of one test's own, made by the plugin's own set-up.
struct Server {
    name: String,
    admin: Url,
    authority: String,
    broker: SecretString,
}

impl Server {
    async fn new(flavour: Flavour) -> Self {
        let variable = if flavour == MySql { "JIT_TEST_MYSQL" } else { "JIT_TEST_MARIADB" };
        let needed = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} must be set, see this file's head: run `cargo xtask servers mysql mariadb`")
            })
        };
        let random = AccountPrefix::default().generate(&Mark::generate(), "", 20);
        let server = Self {
            name: format!("rt_{}", random.as_str().trim_start_matches("v-").replace('-', "_")),
            admin: Url::parse(&needed(variable)).unwrap(),
            authority: needed(&format!("{variable}_CA")),
            broker: generate_password(),
        };
        let n = &server.name;
        server.admin_run(&format!("CREATE DATABASE {n}")).await;
        let setup = match flavour {
            MySql => include_str!("../../../plugins/driver-mysql/setup/mysql.sql"),
            MariaDb => include_str!("../../../plugins/driver-mysql/setup/mariadb.sql"),
        };
        // In GRANT, `_` is a wildcard of a schema's name.
        let setup = setup
            .replace("inventory.*", &format!("`{}`.*", n.replace('_', "\\_")))
            .replace("app_read_only", &server.app())
            .replace("jit_broker", &server.login_of_broker())
            .replace('…', server.broker.expose_secret());
        let setup: Vec<&str> = setup.lines().filter(|line| !line.starts_with("--")).collect();
        for statement in setup.join("\n").split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            server.admin_run(statement).await;
        }
        server
    }

    fn app(&self) -> String {
        format!("{}_app", self.name)
    }

    fn login_of_broker(&self) -> String {
        format!("{}_b", self.name)
    }

    fn options(&self) -> SqlConnectionOptions {
        let mut url = self.admin.clone();
        url.set_username(&self.login_of_broker()).unwrap();
        url.set_password(None).unwrap();
        url.set_path("");
        url.query_pairs_mut().append_pair("ssl-mode", "VERIFY_IDENTITY").append_pair("ssl-ca", &self.authority);
        let mut options = SqlConnectionOptions::new("inventory", url, Some(self.broker.clone()));
        options.kind = SqlKind::MySql;
        options
    }

    fn connection(&self) -> Arc<SqlConnection> {
        Arc::new(SqlConnection::new(self.options()).unwrap())
    }

    async fn open(&self, user: &str, password: &str) -> Result<MySqlConnection, sqlx::Error> {
        let options = MySqlConnectOptions::from_url(&self.admin).unwrap().username(user).password(password);
        let options = match user {
            "root" => options,
            _ => MySqlConnectOptions::new()
                .host(self.admin.host_str().unwrap())
                .port(self.admin.port().unwrap())
                .username(user)
                .password(password),
        };
        options.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(&self.authority).connect().await
    }

    async fn admin(&self) -> MySqlConnection {
        self.open(self.admin.username(), self.admin.password().unwrap()).await.unwrap()
    }

    async fn admin_run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.admin().await).await.expect(sql);
    }

    /// The first column of the first row, as text.
    async fn admin_ask(&self, sql: &str) -> Option<String> {
        let row = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_optional(&mut self.admin().await).await.unwrap();
        row.and_then(|row| row.try_get_unchecked::<Option<String>, _>(0).unwrap())
    }

    async fn account_exists(&self, name: &str) -> bool {
        self.admin_ask(&format!("SELECT User FROM mysql.user WHERE User = '{name}'")).await.is_some()
    }

    /// Sessions of the broker that run a statement like that now.
    async fn running(&self, like: &str) -> u32 {
        let broker = self.login_of_broker();
        let sql = format!(
            "SELECT CAST(COUNT(*) AS CHAR) FROM information_schema.processlist \
             WHERE user = '{broker}' AND info LIKE '%{like}%'"
        );
        self.admin_ask(&sql).await.unwrap().parse().unwrap()
    }

    async fn until_running(&self, like: &str, wanted: u32) {
        for _ in 0..600 {
            if self.running(like).await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} statements like {like}, expected {wanted}", self.running(like).await);
    }

    async fn login(&self, account: &AccountView, password: &SecretString) -> Result<MySqlConnection, sqlx::Error> {
        self.open(account.name.as_str(), password.expose_secret()).await
    }

    async fn drop_all(&self) {
        let n = &self.name;
        self.admin_run(&format!("DROP DATABASE {n}")).await;
        self.admin_run(&format!("DROP USER IF EXISTS '{}'@'%', '{n}_standing'@'%'", self.login_of_broker())).await;
        self.admin_run(&format!("DROP ROLE {}", self.app())).await;
    }

    fn role(&self) -> RoleView {
        role(&format!(r#"{{"roles":["{}"],"require_tls":true,"max_user_connections":3}}"#, self.app()))
    }
}

fn account() -> AccountView {
    account_named(AccountPrefix::default().generate(&Mark::generate(), "payments", 32))
}

fn plain() -> TargetView {
    target("{}")
}

/// What the probe says of a mode: whatever it says, the host has its own word on the outcome.
async fn probe(driver: &DriverPlugin, scope: &DriverScope, config: &str) -> Outcome<()> {
    let password = generate_password();
    driver.create(scope, &target(config), &role("{}"), &account(), &password).await.map(drop)
}

/// The text of an outcome in which nothing took effect.
fn refused(outcome: Outcome<()>) -> String {
    match outcome {
        Outcome::Refused(refusal) => refusal.reason(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_account_lives_and_dies() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let bench = bench();
        let driver = bench.driver("driver-mysql");
        let connection = server.connection();
        assert_eq!(connection.endpoint().database, None);
        connection.ping().await.unwrap();
        let (scope, role) = (scope_with(&connection), server.role());
        let (mut account, password) = (account(), generate_password());
        let name = account.name.as_str().to_owned();

        let valid = driver.validate(&scope, &plain(), std::slice::from_ref(&role)).await;
        assert_eq!(valid, Outcome::Done(()), "{flavour:?}");
        let issued = driver.create(&scope, &plain(), &role, &account, &password).await;
        let Outcome::Done(issued) = issued else { panic!("{flavour:?}: {issued:?}") };
        account.external_id = issued.external_id;
        let mut session = server.login(&account, &password).await.unwrap();
        let active = sqlx::raw_sql("SELECT CURRENT_ROLE()").fetch_one(&mut session).await.unwrap();
        assert!(active.try_get_unchecked::<String, _>(0).unwrap().contains(&server.app()));
        let stored = format!("SELECT authentication_string FROM mysql.user WHERE User = '{name}'");
        let stored = server.admin_ask(&stored).await.unwrap();
        assert!(stored.starts_with(if flavour == MySql { "$A$005$" } else { "*" }), "{stored}");

        let again = driver.create(&scope, &plain(), &role, &account, &password).await;
        assert!(matches!(again, Outcome::Refused(Refusal::Conflict(_))), "{again:?}");
        server.login(&account, &password).await.unwrap().close().await.unwrap();

        account.expires_at += 600;
        assert_eq!(driver.renew(&scope, &plain(), &role, &account).await, Outcome::Done(account.expires_at));
        let state = driver.inspect(&scope, &plain(), &name).await;
        assert!(matches!(state, Outcome::Done(s) if s.can_login && s.expires_at.is_none()));
        let page = driver.list_accounts(&scope, &plain(), "v-payments-", None).await;
        assert!(matches!(page, Outcome::Done(page) if page.names.contains(&name)));
        let page = driver.list_accounts(&scope, &plain(), "v_payments", None).await;
        assert!(matches!(page, Outcome::Done(page) if page.names.is_empty()), "no wildcard");

        let rotated = generate_password();
        let staged = driver.rotate(&scope, &plain(), &account, RotationStep::Stage, Some(&rotated)).await;
        assert_eq!(staged, Outcome::Done(()));
        server.login(&account, &rotated).await.unwrap().close().await.unwrap();
        assert_eq!(server.login(&account, &password).await.is_ok(), flavour == MySql);

        let removal = DriverScope { lane: Lane::Removal, ..scope.clone() };
        assert_eq!(driver.revoke(&removal, &plain(), &account).await, Outcome::Done(()));
        assert!(sqlx::raw_sql("SELECT 1").execute(&mut session).await.is_err(), "its session was ended");
        assert!(!server.account_exists(&name).await);
        assert_eq!(driver.revoke(&removal, &plain(), &account).await, Outcome::Done(()));
        assert_eq!(driver.inspect(&scope, &plain(), &name).await, Outcome::Refused(Refusal::NotFound));
        let renewed = driver.renew(&scope, &plain(), &role, &account).await;
        assert_eq!(renewed, Outcome::Refused(Refusal::NotFound));
        assert_eq!(bench.runtime.handles_left_behind(), 0);
        server.drop_all().await;
    }
}

#[tokio::test]
async fn a_standing_accounts_old_password_is_valid_until_it_is_discarded() {
    let server = Server::new(MySql).await;
    let bench = bench();
    let driver = bench.driver("driver-mysql");
    let scope = scope_with(&server.connection());
    let account = account_named(AccountName::from_backend(format!("{}_standing", server.name)));
    let name = account.name.as_str();
    let passwords = [generate_password(), generate_password(), generate_password()];
    let [held, next, stranger] = &passwords;
    server.admin_run(&format!("CREATE USER '{name}'@'%' IDENTIFIED BY '{}'", held.expose_secret())).await;
    let rotating = role(&format!(r#"{{"rotating":{{"account":"{name}","period":"1h","overlap":"10m"}}}}"#));
    assert_eq!(driver.validate(&scope, &plain(), &[rotating]).await, Outcome::Done(()));

    let config = plain();
    let stage = |password| driver.rotate(&scope, &config, &account, RotationStep::Stage, Some(password));
    for _ in 0..2 {
        // The second time as after an answer that was lost.
        assert_eq!(stage(next).await, Outcome::Done(()));
        for valid in [held, next] {
            server.login(&account, valid).await.unwrap().close().await.unwrap();
        }
    }
    // A third password would end the first.
    assert!(matches!(stage(stranger).await, Outcome::Refused(Refusal::Conflict(_))));
    server.login(&account, held).await.unwrap().close().await.unwrap();

    for step in [RotationStep::Commit, RotationStep::Discard, RotationStep::Discard] {
        assert_eq!(driver.rotate(&scope, &plain(), &account, step, Some(next)).await, Outcome::Done(()));
    }
    assert!(server.login(&account, held).await.is_err());
    server.login(&account, next).await.unwrap().close().await.unwrap();
    assert_eq!(stage(stranger).await, Outcome::Done(()));
    server.login(&account, next).await.unwrap().close().await.unwrap();
    server.drop_all().await;
}

#[tokio::test]
async fn mariadb_rotates_no_standing_account() {
    let server = Server::new(MariaDb).await;
    let bench = bench();
    let driver = bench.driver("driver-mysql");
    let scope = scope_with(&server.connection());
    let account = account_named(AccountName::from_backend(format!("{}_standing", server.name)));
    let (name, held) = (account.name.as_str(), generate_password());
    server.admin_run(&format!("CREATE USER '{name}'@'%' IDENTIFIED BY '{}'", held.expose_secret())).await;
    let rotating = role(&format!(r#"{{"rotating":{{"account":"{name}"}}}}"#));
    let valid = driver.validate(&scope, &plain(), &[rotating]).await;
    assert!(refused(valid).contains("MariaDB keeps one password"));
    let staged = driver.rotate(&scope, &plain(), &account, RotationStep::Stage, Some(&generate_password())).await;
    assert!(refused(staged).contains("MariaDB keeps one password"));
    server.login(&account, &held).await.unwrap().close().await.unwrap();
    server.drop_all().await;
}

#[tokio::test]
async fn what_a_broker_lacks_is_told_with_the_statement_that_mends_it() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let bench = bench();
        let driver = bench.driver("driver-mysql");
        let (broker, app) = (server.login_of_broker(), server.app());
        // Each change is seen by connections that begin after it.
        let validate =
            async || refused(driver.validate(&scope_with(&server.connection()), &plain(), &[server.role()]).await);
        server.admin_run(&format!("REVOKE {app} FROM '{broker}'@'%'")).await;
        let told = validate().await;
        assert!(told.contains(&format!("GRANT '{app}' TO '{broker}'@'%' WITH ADMIN OPTION")), "{told}");
        server.admin_run(&format!("REVOKE ALL ON mysql.user FROM '{broker}'@'%'")).await;
        let told = validate().await;
        assert!(told.contains("may not read mysql.user: GRANT SELECT"), "{told}");
        server.admin_run(&format!("REVOKE PROCESS ON *.* FROM '{broker}'@'%'")).await;
        let told = validate().await;
        assert!(told.contains(&format!("lacks PROCESS: GRANT PROCESS ON *.* TO '{broker}'@'%'")), "{told}");
        server.drop_all().await;
    }
}

#[tokio::test]
async fn what_an_account_defined_keeps_it_but_locked() {
    let server = Server::new(MySql).await;
    let bench = bench();
    let driver = bench.driver("driver-mysql");
    let scope = scope_with(&server.connection());
    let (account, password) = (account(), generate_password());
    let (n, name) = (&server.name, account.name.as_str());
    let issued = driver.create(&scope, &plain(), &server.role(), &account, &password).await;
    assert!(matches!(issued, Outcome::Done(_)), "{issued:?}");
    server.admin_run(&format!("CREATE DEFINER='{name}'@'%' VIEW {n}.kept AS SELECT 1 AS a")).await;
    let revoked = driver.revoke(&scope, &plain(), &account).await;
    let Outcome::Refused(Refusal::Dependents(things)) = revoked else { panic!("{revoked:?}") };
    assert!(things.iter().any(|thing| thing.contains("definer account in a view")), "{things:?}");
    assert!(server.login(&account, &password).await.is_err());
    let state = driver.inspect(&scope, &plain(), name).await;
    assert!(matches!(state, Outcome::Done(state) if !state.can_login));
    let renewed = driver.renew(&scope, &plain(), &server.role(), &account).await;
    assert!(matches!(renewed, Outcome::Refused(Refusal::Target(_))), "{renewed:?}");
    server.admin_run(&format!("DROP VIEW {n}.kept")).await;
    assert_eq!(driver.revoke(&scope, &plain(), &account).await, Outcome::Done(()));
    assert!(!server.account_exists(name).await);
    server.drop_all().await;
}

#[tokio::test]
async fn hostile_names_are_only_names() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let bench = bench();
        let driver = bench.driver("driver-mysql");
        let scope = scope_with(&server.connection());
        for hostile in ["a'; DROP USER x; #", "it's", "back\\slash\\'", "new\nline", "größe", "a`b\"c", "{}", "x@y"] {
            let account = account_named(AccountName::from_backend(format!("v-{hostile}")));
            let name = account.name.as_str();
            let issued = driver.create(&scope, &plain(), &server.role(), &account, &generate_password()).await;
            assert!(matches!(issued, Outcome::Done(_)), "{flavour:?} {hostile:?}: {issued:?}");
            let state = driver.inspect(&scope, &plain(), name).await;
            assert!(matches!(state, Outcome::Done(_)), "{hostile:?}: {state:?}");
            assert_eq!(driver.revoke(&scope, &plain(), &account).await, Outcome::Done(()), "{hostile:?}");
            assert_eq!(driver.inspect(&scope, &plain(), name).await, Outcome::Refused(Refusal::NotFound));
        }
        for bad in ["x".repeat(129), "a\0b".to_owned()] {
            let account = account_named(AccountName::from_backend(bad));
            let issued = driver.create(&scope, &plain(), &server.role(), &account, &generate_password()).await;
            assert!(matches!(issued, Outcome::Refused(_)), "{issued:?}");
        }
        server.drop_all().await;
    }
}

#[tokio::test]
async fn values_arrive_as_they_were_given() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let bench = bench();
        let driver = bench.driver("driver-mysql-probe");
        let scope = scope_with(&server.connection());
        let texts = r#"["", "'", "''", "\\", "\\'", "a\\", "\\\\'; SELECT 2; --", "\"", "`", "größe 🙂", "a\nb\t", "{}", "%_", "\u001a", "/*!1*/"]"#;
        let echoed = probe(&driver, &scope, &format!(r#"{{"mode":"echo","texts":{texts}}}"#)).await;
        assert_eq!(refused(echoed), "same", "{flavour:?}");
        let kinds = refused(probe(&driver, &scope, r#"{"mode":"kinds"}"#).await);
        assert_eq!(kinds, "\\|-42|2027-01-15 08:00:00|1|NULL|1|2");
        let settings = refused(probe(&driver, &scope, r#"{"mode":"settings"}"#).await);
        assert!(!settings.contains("ANSI") && !settings.contains("NO_BACKSLASH"), "{settings}");
        assert!(settings.contains("STRICT_ALL_TABLES") && settings.contains("|+00:00|1|30|utf8mb4|"), "{settings}");
        let elsewhere = format!(r#"{{"mode":"elsewhere","schema":"{}"}}"#, server.name);
        let elsewhere = refused(probe(&driver, &scope, &elsewhere).await);
        assert!(elsewhere.contains("denied"), "the broker has nothing there: {elsewhere}");
        server.drop_all().await;
    }
}

#[tokio::test]
async fn rows_are_bounded_by_the_server() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let bench = bench_with(Limits { driver_time: Duration::from_secs(20), ..Limits::default() }, 4);
        let driver = bench.driver("driver-mysql-probe");
        let scope = DriverScope { deadline: Duration::from_secs(60), ..scope_with(&server.connection()) };
        let many = refused(probe(&driver, &scope, r#"{"mode":"many-rows"}"#).await);
        assert_eq!(many, "1000 rows, truncated: true", "{flavour:?}");
        let long = refused(probe(&driver, &scope, r#"{"mode":"long-cell"}"#).await);
        assert!(long.contains("a row has more than"), "{long}");
        let bytes = refused(probe(&driver, &scope, r#"{"mode":"bytes"}"#).await);
        assert!(bytes.contains("not text"), "{bytes}");
        let fewer = bench_with(Limits { host_bytes: 64 << 10, ..Limits::default() }, 1);
        let many = refused(probe(&fewer.driver("driver-mysql-probe"), &scope, r#"{"mode":"many-rows"}"#).await);
        assert!(many.contains("bytes that are left"), "{many}");
        let narrow = bench_with(Limits { columns: 1, ..Limits::default() }, 1);
        let wide = refused(probe(&narrow.driver("driver-mysql-probe"), &scope, r#"{"mode":"settings"}"#).await);
        assert!(wide.contains("more than 1 columns"), "{wide}");
        // The connection is as it was after each of them.
        let no_column = refused(probe(&driver, &scope, r#"{"mode":"refused-query"}"#).await);
        assert!(no_column.starts_with("refused 1054"), "{no_column}");
        let after = refused(probe(&driver, &scope, r#"{"mode":"kinds"}"#).await);
        assert!(after.ends_with("|NULL|1|2"), "{after}");
        server.drop_all().await;
    }
}

#[tokio::test]
async fn a_statement_serves_what_its_first_word_says() {
    let server = Server::new(MySql).await;
    let bench = bench();
    let driver = bench.driver("driver-mysql-probe");
    let scope = scope_with(&server.connection());
    for (mode, word) in [("execute-a-query", "use query"), ("query-a-change", "use execute")] {
        let outcome = refused(probe(&driver, &scope, &format!(r#"{{"mode":"{mode}"}}"#)).await);
        assert!(outcome.contains(word), "{outcome}");
    }
    let postgres = bench.driver("driver-postgres");
    let inspected = postgres.inspect(&scope, &plain(), "nobody").await;
    let Outcome::Refused(refusal) = inspected else { panic!("{inspected:?}") };
    assert!(refusal.reason().contains("written for PostgreSQL, the connection is to MySQL"), "{refusal:?}");
    server.drop_all().await;
}

/// THREE-OUTCOMES: what changes accounts commits by itself, so a batch can take effect in part.
#[tokio::test]
async fn a_batch_that_took_effect_in_part_is_no_refusal() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let bench = bench();
        let driver = bench.driver("driver-mysql-probe");
        let scope = scope_with(&server.connection());
        // CREATE ROLE takes no more than CREATE USER.
        let (account, password) = (account(), generate_password());
        let run = async |mode: &str| {
            let config = target(&format!(r#"{{"mode":"{mode}"}}"#));
            driver.create(&scope, &config, &role("{}"), &account, &password).await.map(drop)
        };
        let Outcome::Unknown(text) = run("twice").await else { panic!("{flavour:?}: it took effect") };
        assert!(text.contains("refused 1396"), "{text}");
        assert!(server.account_exists(account.name.as_str()).await);
        assert!(refused(run("once").await).contains("refused 1396"));
        server.admin_run(&format!("DROP ROLE `{}`", account.name.as_str())).await;
        server.drop_all().await;
    }
}

#[tokio::test]
async fn a_password_goes_only_where_it_is_hashed() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let n = &server.name;
        server.admin_run(&format!("CREATE TABLE {n}.kept (secret TEXT)")).await;
        server.admin_run(&format!("GRANT ALL ON {n}.* TO '{}'@'%'", server.login_of_broker())).await;
        let bench = bench();
        let driver = bench.driver("driver-mysql-probe");
        let scope = scope_with(&server.connection());
        let account = account();
        let password = SecretString::from("canary-9c41d7e2");
        let run = async |mode: &str| {
            let config = target(&format!(r#"{{"mode":"{mode}","schema":"{n}"}}"#));
            driver.create(&scope, &config, &role("{}"), &account, &password).await.map(drop)
        };
        assert!(refused(run("keep").await).contains("only after IDENTIFIED BY"));
        assert!(refused(run("show").await).contains("a query takes no secret"));
        assert_eq!(server.admin_ask(&format!("SELECT COUNT(*) > 0 FROM {n}.kept")).await.as_deref(), Some("0"));
        // One that the server cannot read would stand in its history of statements.
        assert!(refused(run("quoted-in-an-error").await).contains("only after IDENTIFIED BY"));

        let hashed = if flavour == MySql { "caching-sha2" } else { "mysql-native" };
        if flavour == MariaDb {
            assert!(refused(run("plain").await).contains("set a hash"));
        }
        for mode in if flavour == MySql { vec![hashed, "plain"] } else { vec![hashed] } {
            let Outcome::Unknown(done) = run(mode).await else { panic!("{mode}") };
            assert!(done.contains("done"), "{done}");
            server.login(&account, &password).await.unwrap().close().await.unwrap();
            let wrong = server.login(&account, &generate_password()).await;
            assert!(wrong.is_err());
            assert_eq!(refused(run("authenticate").await), "true");
            server.admin_run(&format!("ALTER USER '{}'@'%' ACCOUNT LOCK", account.name.as_str())).await;
            // Neither yes nor "not with that password".
            assert!(refused(run("authenticate").await).starts_with("unavailable"), "{flavour:?}");
            server.admin_run(&format!("DROP USER '{}'@'%'", account.name.as_str())).await;
        }
        assert_eq!(refused(run("authenticate").await), "false");
        server.drop_all().await;
    }
}

/// The driver decides what a held lock means: a removal ends the sessions that may hold it before it tries again.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// BLIND-PLUGIN, and the log: at the most talkative level, no line holds a password or a hash.
#[tokio::test]
async fn no_log_line_holds_a_secret() {
    let server = Server::new(MySql).await;
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let bench = bench();
    let driver = bench.driver("driver-mysql");
    let scope = scope_with(&server.connection());
    let (account, password, next) = (account(), generate_password(), generate_password());
    let issued = driver.create(&scope, &plain(), &server.role(), &account, &password).await;
    assert!(matches!(issued, Outcome::Done(_)), "{issued:?}");
    for _ in 0..2 {
        let staged = driver.rotate(&scope, &plain(), &account, RotationStep::Stage, Some(&next)).await;
        assert_eq!(staged, Outcome::Done(()));
    }
    assert_eq!(driver.revoke(&scope, &plain(), &account).await, Outcome::Done(()));
    tracing::trace!("the log was on");
    drop(guard);
    let text = String::from_utf8_lossy(&captured.0.lock().unwrap()).into_owned();
    assert!(text.contains("the log was on"));
    for secret in [password.expose_secret(), next.expose_secret(), server.broker.expose_secret(), "$A$005$"] {
        assert!(!text.contains(secret), "a line holds {secret}");
    }
    server.drop_all().await;
}
