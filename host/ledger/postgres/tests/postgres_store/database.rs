//! A database of one test's own, set up as docs/scaling.md says.

use std::sync::Arc;

use jit_ledger::Store as _;
use jit_ledger_contract::Harness;
use jit_ledger_postgres::{OpenError, Password, PgLog, PgOptions, PgStore, Place};
use jit_tlog::checkpoint::{LogKey, Origin, VerifierKey};
use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use url::Url;

/// What the role of the broker needs, and nothing else.
pub(crate) const SETUP: &str = include_str!("../../setup.sql");

pub(crate) struct Database {
    admin: Url,
    /// Of the database and of the role.
    pub(crate) name: String,
    password: String,
    pub(crate) key: String,
}

pub(crate) fn origin() -> Origin {
    Origin::new("jit-broker/test").unwrap()
}

fn admin() -> Url {
    let admin = std::env::var("JIT_TEST_POSTGRES_URL");
    let admin = admin.expect("JIT_TEST_POSTGRES_URL must name a superuser of a test server: run `cargo xtask test`");
    Url::parse(&admin).unwrap()
}

impl Database {
    pub(crate) async fn create() -> Self {
        let database = Self::new();
        database.set_up().await;
        database
    }

    /// Makes the role and the database as the page says, under this test's names.
    async fn set_up(&self) {
        let mut server = self.superuser(None).await;
        let exists = sqlx::query("SELECT FROM pg_database WHERE datname = $1").bind(&self.name);
        if exists.fetch_optional(&mut server).await.unwrap().is_some() {
            return;
        }
        let text = SETUP.replace("jit_store", &self.name).replace('…', &self.password);
        for statement in text.lines().filter(|line| !line.trim_start().starts_with("--") && !line.trim().is_empty()) {
            match statement.strip_prefix("\\connect ") {
                Some(_) => server = self.superuser(Some(&self.name)).await,
                None => drop(server.execute(AssertSqlSafe(statement.to_owned())).await.unwrap()),
            }
        }
    }

    pub(crate) async fn superuser(&self, database: Option<&str>) -> PgConnection {
        let mut options = PgConnectOptions::from_url(&self.admin).unwrap().disable_statement_logging();
        if let Some(database) = database {
            options = options.database(database);
        }
        options.connect().await.unwrap()
    }

    /// As somebody with access to the database would.
    pub(crate) async fn tamper(&self, statements: &str) {
        let mut superuser = self.superuser(Some(&self.name)).await;
        superuser.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await.unwrap();
    }

    pub(crate) async fn value<T>(&self, query: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(query).fetch_one(&mut self.superuser(Some(&self.name)).await).await.unwrap()
    }

    pub(crate) fn url(&self, address: Option<&str>) -> Url {
        let mut url = self.admin.clone();
        url.set_username(&self.name).unwrap();
        url.set_password(None).unwrap();
        url.set_path(&self.name);
        if let Some((host, port)) = address.and_then(|address| address.rsplit_once(':')) {
            url.set_host(Some(host)).unwrap();
            url.set_port(port.parse().ok()).unwrap();
        }
        url
    }

    pub(crate) fn place_at(&self, servers: Vec<Url>) -> Place {
        let password = self.password.clone();
        let password = Password::new(move || Ok(SecretString::from(password.clone())));
        Place { servers, password: Some(password), ca: None, plaintext: false }
    }

    pub(crate) fn place(&self) -> Place {
        self.place_at(vec![self.url(None)])
    }

    pub(crate) async fn open_at(&self, place: Place, name: &str) -> Result<PgStore, OpenError> {
        let signer = LogKey::from_text(&self.key).unwrap();
        PgStore::open(PgOptions { place, signer, origin: origin(), name: name.to_owned() }).await
    }

    pub(crate) async fn broker(&self, name: &str) -> Arc<PgStore> {
        Arc::new(self.open_at(self.place(), name).await.unwrap())
    }

    pub(crate) fn log(&self) -> PgLog {
        PgLog::new(self.place())
    }
}

impl Harness for Database {
    type Store = PgStore;

    fn new() -> Self {
        let random = format!("{:016x}", rand::random::<u64>());
        Self {
            admin: admin(),
            name: format!("store_{random}"),
            password: format!("pw-{random}"),
            key: LogKey::generate().to_text().to_string(),
        }
    }

    async fn open(&self) -> Arc<PgStore> {
        self.set_up().await;
        self.broker("broker").await
    }

    async fn close(&self, store: Arc<PgStore>) {
        store.close().await;
    }

    fn verifier(&self) -> VerifierKey {
        LogKey::from_text(&self.key).unwrap().verifier(&origin())
    }
}
