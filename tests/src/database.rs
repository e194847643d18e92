//! A database of one world, set up as the driver's README says: least privilege, and nothing that
//! another world of the same server could see.

use anyhow::{Context as _, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::{random_name, setup};

/// A database with its roles.
#[derive(Clone)]
pub struct Database {
    admin: PgConnectOptions,
    /// `127.0.0.1`, unless the server is elsewhere.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// The database's name.
    pub name: String,
    /// What applications get: SELECT on `items`.
    pub read_only: String,
    /// What applications get too: all on `items`, and CREATE in the schema.
    pub read_write: String,
    /// Who keeps what accounts leave behind.
    pub owner: String,
    /// The broker's own role.
    pub broker: String,
    /// Its password.
    pub password: String,
}

impl Database {
    /// Makes a database in a running server, through a superuser's URL.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn create(superuser: &str) -> Result<Self> {
        Self::create_named(superuser, &random_name()).await
    }

    /// The same with a given suffix; empty for the plain names of the documentation.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn create_named(superuser: &str, suffix: &str) -> Result<Self> {
        let admin: PgConnectOptions = superuser.parse().context("the superuser's URL")?;
        let name = |base: &str| {
            if suffix.is_empty() { base.to_owned() } else { format!("{base}_{suffix}") }
        };
        let url = url::Url::parse(superuser)?;
        let database = Self {
            host: url.host_str().unwrap_or("127.0.0.1").to_owned(),
            port: url.port().unwrap_or(5432),
            admin: admin.disable_statement_logging(),
            name: name("inventory"),
            read_only: name("app_read_only"),
            read_write: name("app_read_write"),
            owner: name("inventory_owner"),
            broker: name("jit_broker"),
            password: format!("broker-{}{}", random_name(), random_name()),
        };
        let mut server = database.admin.connect().await?;
        let Self { name, read_only, read_write, owner, broker, password, .. } = &database;
        server.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
        let mut inside = database.superuser().await?;
        inside.execute("CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL)").await?;
        inside.execute("INSERT INTO items VALUES (1, 'bolt'), (2, 'nut'), (3, 'washer')").await?;
        let documented = setup::file("driver-postgres", "setup.sql");
        let names = [
            ("inventory", name),
            ("app_read_only", read_only),
            ("app_read_write", read_write),
            ("inventory_owner", owner),
            ("jit_broker", broker),
        ];
        let names = names.map(|(documented, ours)| (documented, ours.as_str()));
        let documented = setup::with_names(&documented, &names).replace('…', password);
        // That text and nothing else: what it leaves out, nobody would have.
        for statement in setup::statements(&documented) {
            inside.execute(AssertSqlSafe(statement.clone())).await.with_context(|| redact(&statement))?;
        }
        Ok(database)
    }

    /// A superuser's connection to this database.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn superuser(&self) -> Result<PgConnection> {
        Ok(self.admin.clone().database(&self.name).connect().await?)
    }

    /// Logs in as an account.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn login(&self, username: &str, password: &str) -> Result<PgConnection, sqlx::Error> {
        self.login_to(&self.name, username, password).await
    }

    /// Logs in as an account to another database of the server.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn login_to(&self, database: &str, username: &str, password: &str) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .database(database)
            .username(username)
            .password(password);
        PgConnection::connect_with(&options.disable_statement_logging()).await
    }

    /// A superuser's connection to another database of the server.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn superuser_of(&self, database: &str) -> Result<PgConnection> {
        Ok(self.admin.clone().database(database).connect().await?)
    }

    /// Sections of a configuration for a further target in this database, with the roles of the
    /// usual one. The broker's password is read from the file `NAME.password` beside it.
    #[must_use]
    pub fn sections(&self, name: &str, target: &str) -> String {
        let Self { host, port, name: database, read_only, read_write, owner, broker, .. } = self;
        format!(
            r#"
[connections.{name}]
kind = "postgres"
url = "postgres://{broker}@{host}:{port}/{database}"
password = {{ file = "{name}.password" }}
[targets.{name}]
driver = "postgres"
connection = "{name}"
policies = ["allow"]
max_ttl = "8h"
default_role = "app_read_only"
config = {{ reassign_owned_to = "{owner}" }}
roles.app_read_only = {{ grants = ["{read_only}"] }}
roles.app_read_write = {{ grants = ["{read_write}"] }}
{target}
"#
        )
    }

    /// The roles whose name begins so, in order.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn roles(&self, prefix: &str) -> Result<Vec<String>> {
        let mut connection = self.superuser().await?;
        let names = sqlx::query_scalar("SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, $1) ORDER BY 1");
        Ok(names.bind(prefix).fetch_all(&mut connection).await?)
    }

    /// One statement, as superuser.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn execute(&self, statement: &str) -> Result<()> {
        self.superuser().await?.execute(AssertSqlSafe(statement.to_owned())).await?;
        Ok(())
    }

    /// One value of one row, as text, as superuser.
    ///
    /// # Errors
    /// When the server says no, or there is no row.
    pub async fn value(&self, query: &str) -> Result<String> {
        let query = format!("SELECT ({query})::text");
        Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut self.superuser().await?).await?)
    }
}

fn redact(statement: &str) -> String {
    statement.split(" PASSWORD ").next().unwrap_or_default().to_owned()
}
