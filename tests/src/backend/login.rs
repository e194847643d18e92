//! How a test sees that an account can log in, and what it may do: with the account's own name and
//! password, on a connection that has nothing to do with the broker.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

use crate::servers::Directory;

/// How long one login may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// LDAP's result codes.
const SUCCESS: u32 = 0;
const INVALID_CREDENTIALS: u32 = 49;

/// The kit's `[conformance.login]`.
#[derive(Debug, Clone, Deserialize)]
pub struct Login {
    kind: LoginKind,
    /// The server, without a user.
    pub url: url::Url,
    ca: Option<PathBuf>,
    bind_name: Option<String>,
    /// Statements that the role lets an account run.
    #[serde(default)]
    pub allowed: Vec<String>,
    /// Statements that it does not.
    #[serde(default)]
    pub refused: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LoginKind {
    Postgres,
    Mysql,
    Ldap,
}

enum Session {
    Postgres(PgConnection),
    Mysql(MySqlConnection),
    Ldap,
}

impl Login {
    /// Whether the account can log in: false only when the server refuses name or password.
    ///
    /// # Errors
    /// When the server is away, or refuses for another reason.
    pub async fn works(&self, name: &str, password: &str) -> Result<bool> {
        Ok(self.session(name, password).await?.is_some())
    }

    /// The account may do what its role lets it, and not what it does not.
    ///
    /// # Errors
    /// With the statement for which that is wrong.
    pub async fn has_exactly_its_rights(&self, name: &str, password: &str) -> Result<()> {
        let mut session = self.session(name, password).await?.context("the login is refused")?;
        for statement in &self.allowed {
            session.run(statement).await.with_context(|| format!("not allowed: {statement}"))?;
        }
        for statement in &self.refused {
            ensure!(session.run(statement).await.is_err(), "allowed: {statement}");
        }
        Ok(())
    }

    /// The account's name in a directory.
    ///
    /// # Errors
    /// When the backend is none.
    pub fn entry(&self, name: &str) -> Result<String> {
        Ok(self.bind_name.as_ref().context("no directory")?.replace("{name}", name))
    }

    async fn session(&self, name: &str, password: &str) -> Result<Option<Session>> {
        let opened = tokio::time::timeout(DEADLINE, self.open(name, password)).await;
        opened.context("the login takes too long")?
    }

    async fn open(&self, name: &str, password: &str) -> Result<Option<Session>> {
        let opened = match self.kind {
            LoginKind::Postgres => {
                let options: PgConnectOptions = self.url.as_str().parse()?;
                let options = options.username(name).password(password).disable_statement_logging();
                options.connect().await.map(Session::Postgres)
            }
            LoginKind::Mysql => {
                let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
                let options: MySqlConnectOptions = self.url.as_str().parse()?;
                let options = options.username(name).password(password).disable_statement_logging();
                // MariaDB knows fewer of the modes that would be set.
                options.pipes_as_concat(false).no_engine_substitution(false).connect().await.map(Session::Mysql)
            }
            LoginKind::Ldap => {
                let (login, entry, password) = (self.clone(), self.entry(name)?, password.to_owned());
                return tokio::task::spawn_blocking(move || login.bind(&entry, &password)).await?;
            }
        };
        match opened {
            Ok(session) => Ok(Some(session)),
            // PostgreSQL: invalid authorization, invalid password. MySQL: access denied, and to this
            // database; the account is locked (MySQL's number, MariaDB's).
            Err(sqlx::Error::Database(error)) if is_refusal(error.as_ref()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn bind(&self, entry: &str, password: &str) -> Result<Option<Session>> {
        let mut directory = Directory::connect(self.url.as_str(), self.ca.as_ref().context("no authority")?)?;
        match directory.bind(entry, password)? {
            SUCCESS => Ok(Some(Session::Ldap)),
            INVALID_CREDENTIALS => Ok(None),
            code => bail!("the directory answers {code}"),
        }
    }
}

fn is_refusal(error: &dyn sqlx::error::DatabaseError) -> bool {
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return matches!(error.number(), 1044 | 1045 | 3118 | 4151);
    }
    matches!(error.code().as_deref(), Some("28000" | "28P01"))
}

impl Session {
    async fn run(&mut self, statement: &str) -> Result<()> {
        let statement = AssertSqlSafe(statement.to_owned());
        match self {
            Self::Postgres(session) => session.execute(statement).await.map(|_| ())?,
            Self::Mysql(session) => session.execute(statement).await.map(|_| ())?,
            Self::Ldap => bail!("a directory runs no statements"),
        }
        Ok(())
    }
}
