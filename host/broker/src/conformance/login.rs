//! How the kit sees that an account can log in: it does so, with the account's own name and password.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jit_runtime::directory_login;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use url::Url;

/// How long one login may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// `[conformance.login]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginConfig {
    /// `postgres`, `mysql` or `ldap`.
    pub kind: LoginKind,
    /// The server and, for SQL, the database, without a user; TLS options as in a connection.
    pub url: Url,
    /// For `ldap`: certificates (PEM) that the server's must lead to.
    pub ca: Option<std::path::PathBuf>,
    /// For `ldap`: the name to bind as; `{name}` stands for the account's.
    pub bind_name: Option<String>,
    /// Statements that the account may run.
    #[serde(default)]
    pub allowed: Vec<String>,
    /// Statements that it may not run.
    #[serde(default)]
    pub refused: Vec<String>,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoginKind {
    /// PostgreSQL.
    Postgres,
    /// MySQL or MariaDB.
    Mysql,
    /// A simple bind.
    Ldap,
}

/// A way to log in.
#[derive(Debug, Clone)]
pub struct Login(LoginConfig);

/// An open session of an account.
pub enum OpenSession {
    /// With PostgreSQL.
    Postgres(PgConnection),
    /// With MySQL.
    Mysql(MySqlConnection),
    /// A directory's sessions are not kept.
    None,
}

impl Login {
    /// # Errors
    /// When a setting is missing.
    pub fn new(config: LoginConfig) -> Result<Self> {
        ensure!(
            config.kind != LoginKind::Ldap || config.bind_name.as_ref().is_some_and(|name| name.contains("{name}")),
            "[conformance.login] bind_name is missing: bind_name = \"uid={{name}},ou=jit,dc=example,dc=test\""
        );
        Ok(Self(config))
    }

    /// Whether sessions can be kept open.
    #[must_use]
    pub fn keeps_sessions(&self) -> bool {
        self.0.kind != LoginKind::Ldap
    }

    /// Whether it says what an account may do.
    #[must_use]
    pub fn knows_privileges(&self) -> bool {
        !self.0.allowed.is_empty() || !self.0.refused.is_empty()
    }

    /// Whether the server lets them in. `Ok(None)` when it says no.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn try_in(&self, username: &str, password: &SecretString) -> Result<Option<OpenSession>> {
        match tokio::time::timeout(DEADLINE, self.open(username, password)).await {
            Ok(opened) => opened,
            Err(_) => bail!("no answer to a login within {} s", DEADLINE.as_secs()),
        }
    }

    async fn open(&self, username: &str, password: &SecretString) -> Result<Option<OpenSession>> {
        let opened = match self.0.kind {
            LoginKind::Postgres => {
                let options = PgConnectOptions::from_url(&self.0.url).context("[conformance.login] url")?;
                let options = options.username(username).password(password.expose_secret()).disable_statement_logging();
                options.connect().await.map(OpenSession::Postgres)
            }
            LoginKind::Mysql => {
                let options = MySqlConnectOptions::from_url(&self.0.url).context("[conformance.login] url")?;
                let options = options.username(username).password(password.expose_secret()).disable_statement_logging();
                options.connect().await.map(OpenSession::Mysql)
            }
            LoginKind::Ldap => {
                let ca = self.0.ca.as_ref().map(std::fs::read).transpose().context("[conformance.login] ca")?;
                let name = self.0.bind_name.as_deref().unwrap_or_default().replace("{name}", username);
                let in_ = directory_login(&self.0.url, ca.as_deref(), &name, password, DEADLINE).await?;
                return Ok(in_.then_some(OpenSession::None));
            }
        };
        match opened {
            Ok(session) => Ok(Some(session)),
            Err(error) if is_refused(&error) => Ok(None),
            Err(error) => Err(error).context("logging in as the account"),
        }
    }

    /// Runs what the account may and may not run.
    ///
    /// # Errors
    /// Which statement went the other way.
    pub async fn check_privileges(&self, session: &mut OpenSession) -> Result<()> {
        for statement in &self.0.allowed {
            let ran = session.run(statement).await;
            ensure!(ran.is_ok(), "the account may not run what it should: {statement}: {}", told(ran));
        }
        for statement in &self.0.refused {
            ensure!(session.run(statement).await.is_err(), "the account may run what it should not: {statement}");
        }
        Ok(())
    }
}

fn told(result: Result<(), sqlx::Error>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

impl OpenSession {
    async fn run(&mut self, statement: &str) -> Result<(), sqlx::Error> {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
        match self {
            Self::Postgres(session) => session.execute(statement).await.map(drop),
            Self::Mysql(session) => session.execute(statement).await.map(drop),
            Self::None => Ok(()),
        }
    }

    /// Whether it still serves.
    pub async fn is_alive(&mut self) -> bool {
        matches!(tokio::time::timeout(DEADLINE, self.run("SELECT 1")).await, Ok(Ok(())))
    }

    /// Ends it.
    pub async fn close(self) {
        let closing = async {
            match self {
                Self::Postgres(session) => session.close().await,
                Self::Mysql(session) => session.close().await,
                Self::None => Ok(()),
            }
        };
        let _ = tokio::time::timeout(DEADLINE, closing).await;
    }
}

/// The server said no to this account. PostgreSQL: class 28; MySQL: access denied (1044, 1045,
/// 1698), account locked (3118), password expired (1862), no such user hiding behind the plugin (1524).
fn is_refused(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    if let Some(mysql) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return [1044, 1045, 1524, 1698, 1862, 3118, 4151].contains(&mysql.number());
    }
    error.code().is_some_and(|code| code.starts_with("28"))
}
