//! The `sql` capability against a real PostgreSQL: `JIT_TEST_POSTGRES_URL` names a superuser of a
//! server that asks everybody else for a password.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "sql/faults.rs"]
mod faults;
mod fixtures;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixtures::{account, account_named, bench, bench_with, role, scope, scope_with, target};
use jit_core::account::{AccountName, AccountPrefix, Mark};
use jit_core::driver::{AccountView, RoleView, RotationStep, TargetView};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::secret::generate_password;
use jit_runtime::{DriverPlugin, DriverScope, Lane, Limits, SqlConnection, SqlConnectionOptions};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};
use url::Url;

/// A database, a broker's role and a role to grant, of one test's own.
struct Server {
    name: String,
    admin: Url,
    broker: SecretString,
}

impl Server {
    async fn new() -> Self {
        let admin = std::env::var("JIT_TEST_POSTGRES_URL")
            .expect("JIT_TEST_POSTGRES_URL must name a superuser of a test server: run `cargo xtask test`");
        let random = AccountPrefix::default().generate(&Mark::generate(), "", 63);
        let name = format!("rt_{}", random.as_str().trim_start_matches("v-"));
        let server = Self { name, admin: Url::parse(&admin).unwrap(), broker: generate_password() };
        let (n, password) = (&server.name, server.broker.expose_secret());
        server.admin_run(&format!("CREATE ROLE {n}_broker LOGIN CREATEROLE PASSWORD '{password}'")).await;
        server.admin_run(&format!("CREATE ROLE {n}_app NOLOGIN; CREATE ROLE {n}_keeper NOLOGIN")).await;
        server.admin_run(&format!("GRANT {n}_keeper TO {n}_broker")).await;
        server.admin_run(&format!("GRANT {n}_app TO {n}_broker WITH ADMIN OPTION")).await;
        server.admin_run(&format!("CREATE DATABASE {n}")).await;
        server
    }

    fn url(&self, user: &str, database: &str) -> Url {
        let mut url = self.admin.clone();
        url.set_username(user).unwrap();
        url.set_password(None).unwrap();
        url.set_path(database);
        url
    }

    fn options(&self) -> SqlConnectionOptions {
        let url = self.url(&format!("{}_broker", self.name), &self.name);
        SqlConnectionOptions::new("inventory", url, Some(self.broker.clone()))
    }

    fn connection(&self) -> Arc<SqlConnection> {
        Arc::new(SqlConnection::new(self.options()).unwrap())
    }

    async fn admin(&self) -> PgConnection {
        PgConnectOptions::from_url(&self.admin).unwrap().connect().await.unwrap()
    }

    async fn admin_run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.admin().await).await.expect(sql);
    }

    /// The first column of the first row, as text.
    async fn admin_ask(&self, sql: &str) -> Option<String> {
        let row = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_optional(&mut self.admin().await).await.unwrap();
        row.and_then(|row| row.try_get_unchecked::<Option<String>, _>(0).unwrap())
    }

    async fn role_exists(&self, name: &str) -> bool {
        self.admin_ask(&format!("SELECT rolname::text FROM pg_roles WHERE rolname = '{name}'")).await.is_some()
    }

    /// Sessions of the broker that run a statement like that now.
    async fn running(&self, like: &str) -> u32 {
        let broker = format!("{}_broker", self.name);
        let sql = format!(
            "SELECT count(*)::text FROM pg_stat_activity WHERE usename = '{broker}' AND state = 'active' AND query LIKE '%{like}%'"
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

    async fn login(
        &self,
        account: &AccountView,
        password: &SecretString,
        database: &str,
    ) -> Result<PgConnection, sqlx::Error> {
        let url = self.url(account.name.as_str(), database);
        let options = PgConnectOptions::from_url(&url).unwrap().password(password.expose_secret());
        options.connect().await
    }

    async fn drop_all(&self) {
        let n = &self.name;
        self.admin_run(&format!("DROP DATABASE IF EXISTS {n}_other WITH (FORCE)")).await;
        self.admin_run(&format!("DROP DATABASE {n} WITH (FORCE)")).await;
        self.admin_run(&format!(
            "DROP OWNED BY {n}_broker; DROP ROLE {n}_broker; DROP OWNED BY {n}_app; DROP ROLE {n}_app; \
             DROP OWNED BY {n}_keeper; DROP ROLE {n}_keeper"
        ))
        .await;
    }

    fn target(&self) -> TargetView {
        target(&format!(r#"{{"reassign_owned_to":"{}_keeper","scram_iterations":4096}}"#, self.name))
    }

    fn role(&self) -> RoleView {
        role(&format!(r#"{{"grants":["{}_app"]}}"#, self.name))
    }
}

/// The most resident memory that this process ever had, in bytes (proc(5), VmHWM).
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// The hostile driver's creation in that mode.
async fn hostile(driver: &DriverPlugin, scope: &DriverScope, mode: &str) -> Outcome<()> {
    let config = target(&format!(r#"{{"mode":"{mode}"}}"#));
    driver.create(scope, &config, &role("{}"), &account(), &generate_password()).await.map(drop)
}

#[tokio::test]
async fn an_account_lives_and_dies() {
    let server = Server::new().await;
    let bench = bench();
    let driver = bench.driver("driver-postgres");
    let connection = server.connection();
    assert_eq!(connection.endpoint().database.as_ref(), Some(&server.name));
    connection.ping().await.unwrap();
    let (scope, target, role) = (scope_with(&connection), server.target(), server.role());
    let mut account = account();
    let name = account.name.as_str().to_owned();
    let password = generate_password();

    let valid = driver.validate(&scope, &target, std::slice::from_ref(&role)).await;
    assert_eq!(valid, Outcome::Done(()));
    let issued = driver.create(&scope, &target, &role, &account, &password).await;
    assert!(matches!(issued, Outcome::Done(_)), "{issued:?}");
    server.login(&account, &password, &server.name).await.unwrap().close().await.unwrap();
    let stored = server.admin_ask(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{name}'")).await;
    assert!(stored.unwrap().starts_with("SCRAM-SHA-256$4096:"));

    let again = driver.create(&scope, &target, &role, &account, &password).await;
    assert!(matches!(again, Outcome::Refused(Refusal::Conflict(_))), "{again:?}");

    account.expires_at += 600;
    assert_eq!(driver.renew(&scope, &target, &role, &account).await, Outcome::Done(account.expires_at));
    let state = driver.inspect(&scope, &target, &name).await;
    assert!(matches!(state, Outcome::Done(s) if s.can_login && s.expires_at == Some(account.expires_at)));

    let rotated = generate_password();
    let staged = driver.rotate(&scope, &target, &account, RotationStep::Stage, Some(&rotated)).await;
    assert_eq!(staged, Outcome::Done(()));
    assert!(server.login(&account, &password, &server.name).await.is_err());
    server.login(&account, &rotated, &server.name).await.unwrap().close().await.unwrap();

    let page = driver.list_accounts(&scope, &target, "v-payments-", None).await;
    assert!(matches!(page, Outcome::Done(page) if page.names.contains(&name)));

    let removal = DriverScope { lane: Lane::Removal, ..scope.clone() };
    assert_eq!(driver.revoke(&removal, &target, &account).await, Outcome::Done(()));
    assert!(!server.role_exists(&name).await);
    assert_eq!(driver.revoke(&removal, &target, &account).await, Outcome::Done(()));
    assert_eq!(driver.inspect(&scope, &target, &name).await, Outcome::Refused(Refusal::NotFound));
    assert_eq!(bench.runtime.handles_left_behind(), 0);
    server.drop_all().await;
}

#[tokio::test]
async fn what_an_account_owns_elsewhere_is_kept() {
    let server = Server::new().await;
    let other = format!("{}_other", server.name);
    server.admin_run(&format!("CREATE DATABASE {other} OWNER {}_app", server.name)).await;
    // Schemas are kept by who may make some.
    server.admin_run(&format!("GRANT CREATE ON DATABASE {other} TO {}_keeper", server.name)).await;
    let bench = bench();
    let driver = bench.driver("driver-postgres");
    let scope = scope_with(&server.connection());
    let (account, password) = (account(), generate_password());
    let issued = driver.create(&scope, &server.target(), &server.role(), &account, &password).await;
    assert!(matches!(issued, Outcome::Done(_)), "{issued:?}");
    let mut session = server.login(&account, &password, &other).await.unwrap();
    sqlx::raw_sql("CREATE SCHEMA kept; CREATE TABLE kept.orders AS SELECT 7 AS id")
        .execute(&mut session)
        .await
        .unwrap();

    let removal = DriverScope { lane: Lane::Removal, ..scope };
    assert_eq!(driver.revoke(&removal, &server.target(), &account).await, Outcome::Done(()));
    assert!(!server.role_exists(account.name.as_str()).await);
    assert!(sqlx::raw_sql("SELECT 1").execute(&mut session).await.is_err(), "its session was ended");
    let mut url = server.admin.clone();
    url.set_path(&other);
    let mut admin = PgConnectOptions::from_url(&url).unwrap().connect().await.unwrap();
    let row = sqlx::raw_sql("SELECT tableowner::text FROM pg_tables WHERE tablename = 'orders'")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(row.try_get_unchecked::<String, _>(0).unwrap(), format!("{}_keeper", server.name));
    // The connection to the other database ended with the call.
    let left = format!(
        "SELECT count(*)::text FROM pg_stat_activity \
         WHERE datname = '{other}' AND usename LIKE '%_broker'"
    );
    assert_eq!(server.admin_ask(&left).await.as_deref(), Some("0"));
    admin.close().await.unwrap();
    server.drop_all().await;
}

#[tokio::test]
async fn hostile_names_are_only_names() {
    let server = Server::new().await;
    let bench = bench();
    let driver = bench.driver("driver-postgres");
    let scope = scope_with(&server.connection());
    for hostile in ["a\"; DROP DATABASE x; --", "it's", "back\\slash", "new\nline", "größe🙂", "$$body$$", "{}"] {
        let account = account_named(AccountName::from_backend(format!("v-{hostile}")));
        let name = account.name.as_str();
        let issued = driver.create(&scope, &server.target(), &server.role(), &account, &generate_password()).await;
        assert!(matches!(issued, Outcome::Done(_)), "{hostile:?}: {issued:?}");
        let state = driver.inspect(&scope, &server.target(), name).await;
        assert!(matches!(state, Outcome::Done(_)), "{hostile:?}: {state:?}");
        assert_eq!(driver.revoke(&scope, &server.target(), &account).await, Outcome::Done(()), "{hostile:?}");
        assert_eq!(driver.inspect(&scope, &server.target(), name).await, Outcome::Refused(Refusal::NotFound));
    }
    for refused in ["x".repeat(64), "a\0b".to_owned()] {
        let account = account_named(AccountName::from_backend(refused));
        let issued = driver.create(&scope, &server.target(), &server.role(), &account, &generate_password()).await;
        assert!(matches!(issued, Outcome::Refused(_)), "{issued:?}");
    }
    server.drop_all().await;
}

#[tokio::test]
async fn only_listed_templates_with_fitting_parameters_run() {
    let server = Server::new().await;
    // With room for the bytes of a hundred thousand statements, to see that their number counts.
    let bench = bench_with(Limits { host_bytes: 64 << 20, ..Limits::default() }, 1);
    let driver = bench.driver("driver-hostile");
    let scope = scope_with(&server.connection());
    for (mode, word) in [
        ("unlisted-template", "not a listed template"),
        ("extended-template", "not a listed template"),
        ("too-few-params", "takes 1 parameters, 0 given"),
        ("too-many-params", "takes 1 parameters, 2 given"),
        ("empty-idents", "must not be empty"),
        ("nul-literal", "NUL"),
        ("huge-batch", "1 to 64 statements"),
    ] {
        let Outcome::Refused(refusal) = hostile(&driver, &scope, mode).await else { panic!("{mode}") };
        assert!(refusal.reason().contains(word), "{mode}: {refusal:?}");
    }
    server.drop_all().await;
}

#[tokio::test]
async fn a_secret_cannot_be_read_back() {
    let server = Server::new().await;
    let bench = bench();
    let driver = bench.driver("driver-hostile");
    let scope = scope_with(&server.connection());
    let Outcome::Refused(refusal) = hostile(&driver, &scope, "read-secret").await else { panic!() };
    assert!(refusal.reason().contains("a query takes no secret"), "{refusal:?}");
    server.drop_all().await;
}

#[tokio::test]
async fn calls_and_bytes_are_bounded() {
    let server = Server::new().await;
    let bench = bench_with(Limits { driver_time: Duration::from_secs(20), ..Limits::default() }, 1);
    let driver = bench.driver("driver-hostile");
    let scope = DriverScope { deadline: Duration::from_secs(60), ..scope_with(&server.connection()) };
    // Statements were sent and answered well: the host cannot call it undone.
    let endless = hostile(&driver, &scope, "endless-execute").await;
    assert!(matches!(&endless, Outcome::Unknown(t) if t.contains("exceeded 1000 calls to the host")), "{endless:?}");
    let Outcome::Refused(refusal) = hostile(&driver, &scope, "huge-param").await else { panic!() };
    assert!(refusal.reason().contains("exceeded 4194304 bytes of data"), "{refusal:?}");
    // Ten million rows of 1 KB: a thousand come, the rest is never read.
    assert_eq!(hostile(&driver, &scope, "huge-rows").await, Outcome::Done(()));
    let fewer = bench_with(Limits { host_bytes: 64 << 10, ..Limits::default() }, 1);
    let Outcome::Refused(refusal) = hostile(&fewer.driver("driver-hostile"), &scope, "huge-rows").await else {
        panic!()
    };
    assert!(refusal.reason().contains("bytes that are left"), "{refusal:?}");
    // One cell of 500 MB never leaves the server.
    let outcome = hostile(&driver, &scope, "huge-cell").await;
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome:?}") };
    assert!(refusal.reason().contains("a row has more than"), "{refusal:?}");
    assert!(peak_memory() < 250 << 20, "{} bytes", peak_memory());
    let narrow = bench_with(Limits { columns: 0, ..Limits::default() }, 1);
    let Outcome::Refused(refusal) = hostile(&narrow.driver("driver-hostile"), &scope, "huge-rows").await else {
        panic!("a column too many")
    };
    assert!(refusal.reason().contains("more than 0 columns"), "{refusal:?}");
    server.drop_all().await;
}

#[tokio::test]
async fn many_databases_cost_no_more_than_a_few_connections() {
    let server = Server::new().await;
    let limits = Limits { driver_time: Duration::from_secs(20), host_calls: 50, ..Limits::default() };
    let bench = bench_with(limits, 1);
    let scope = scope_with(&server.connection());
    let outcome = hostile(&bench.driver("driver-hostile"), &scope, "many-databases").await;
    // None of them exists, so nothing was ever sent.
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome:?}") };
    assert!(refusal.reason().contains("exceeded 50 calls to the host"), "{refusal:?}");
    server.drop_all().await;
}

#[test]
fn settings_of_a_connection_are_checked() {
    let new = |url: &str, connections: u32| {
        let mut options = SqlConnectionOptions::new("c", Url::parse(url).unwrap(), None);
        options.max_connections = connections;
        SqlConnection::new(options)
    };
    assert!(new("postgres://user@host/db", 1).is_ok());
    for (url, connections, word) in [
        ("mysql://user@host/db", 1, "postgres://"),
        ("postgres://user:canary@host/db", 1, "must not hold a password"),
        ("postgres://user@host/db?password=canary", 1, "must not hold a password"),
        ("postgres://host/db", 1, "name the user"),
        ("postgres://user@host", 1, "name the database"),
        ("postgres://user@host/db?sslmode=maybe", 1, "`sslmode` must be one of"),
        ("postgres://user@host/db?sslmode=require", 1, "sslmode=verify-full"),
        ("postgres://user@localhost/db?hostaddr=10.0.0.1", 1, "settings may be"),
        ("postgres://user@host/db", 0, "max_connections"),
    ] {
        let error = new(url, connections).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("canary"), "{url}: {error}");
    }
}

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

/// BLIND-PLUGIN, and the log: at the most talkative level, no line holds a password or a verifier.
#[tokio::test]
async fn no_log_line_holds_a_secret() {
    let server = Server::new().await;
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let bench = bench();
    let driver = bench.driver("driver-postgres");
    let scope = scope_with(&server.connection());
    let (account, password) = (account(), generate_password());
    let issued = driver.create(&scope, &server.target(), &server.role(), &account, &password).await;
    assert!(matches!(issued, Outcome::Done(_)), "{issued:?}");
    let conflict = driver.create(&scope, &server.target(), &server.role(), &account, &password).await;
    assert!(matches!(conflict, Outcome::Refused(_)));
    assert_eq!(driver.revoke(&scope, &server.target(), &account).await, Outcome::Done(()));
    tracing::trace!("the log was on");
    drop(guard);
    let text = String::from_utf8_lossy(&captured.0.lock().unwrap()).into_owned();
    assert!(text.contains("the log was on"));
    for secret in [password.expose_secret(), server.broker.expose_secret(), "SCRAM-SHA-256$"] {
        assert!(!text.contains(secret), "a line holds {secret}");
    }
    server.drop_all().await;
}

#[tokio::test]
async fn a_driver_without_the_sql_grant_has_no_connection() {
    let server = Server::new().await;
    let bench = bench();
    // It imports nothing of SQL: that a connection is in the scope changes nothing.
    let driver = bench.driver("driver-noop");
    let issued = driver
        .create(&scope_with(&server.connection()), &target("{}"), &role("{}"), &account(), &generate_password())
        .await;
    assert!(matches!(issued, Outcome::Done(_)));
    let none = scope();
    assert!(none.connection.is_none());
    server.drop_all().await;
}
