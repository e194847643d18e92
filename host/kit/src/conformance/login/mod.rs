//! How the kit sees that an account can log in: it does so, with the account's own name and password.
//! SQL and directories here; an API by requests (`http`), everything else by a command (`command`).

mod command;
mod http;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jit_core::transport::{self, Security, Spoken};
use jit_files::read_authorities;
use jit_runtime::capability::sql::{mysql, postgres};
use jit_runtime::directory_login;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use url::Url;

pub use self::http::Ask;

/// Stands for the password that an account gives itself.
const NEW: &str = "{new}";

/// How long one login may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// `[conformance.login]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginConfig {
    /// `postgres`, `mysql`, `ldap`, `http` or `command`.
    pub kind: LoginKind,
    /// The server and, for SQL, the database, without a user; TLS options as in a connection. A command
    /// has none.
    pub url: Option<Url>,
    /// For `ldap` and `http`: certificates (PEM) that the server's must lead to.
    pub ca: Option<std::path::PathBuf>,
    /// For `ldap`: the name to bind as; `{name}` stands for the account's.
    pub bind_name: Option<String>,
    /// For `http`: the request that logs in.
    pub request: Option<Ask>,
    /// For `http`: the statuses that mean that the account is not let in, by default 401 and 403.
    pub refused_with: Option<Vec<u16>>,
    /// For `http`: a JSON pointer to what the login gives in the place of the password, as `{token}` in other
    /// requests.
    pub token: Option<String>,
    /// For `command`: the program and its arguments, in which `{name}` stands for the account's name. It gets
    /// the password on its standard input.
    #[serde(default)]
    pub command: Vec<String>,
    /// What the account may do.
    #[serde(default)]
    pub allowed: Vec<Act>,
    /// What it may not do.
    #[serde(default)]
    pub refused: Vec<Act>,
    /// What it may do to hold up its own removal (locks, open transactions), each in a session of its own that
    /// stays open. SQL only.
    #[serde(default)]
    pub holds: Vec<Act>,
    /// How it changes its own password: a statement or a request, in which `{new}` stands for the new one.
    pub change_password: Option<Act>,
}

/// Something that an account tries.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Act {
    /// A statement of SQL.
    Statement(String),
    /// A command line, as for the login.
    Command(Vec<String>),
    /// A request.
    Request(Box<Ask>),
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
    /// A request to an API.
    Http,
    /// A command.
    Command,
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
    /// What an API gave.
    Http(http::Session),
    /// What a command would be run as.
    Command(command::Session),
    /// A directory's sessions are not kept.
    None,
}

impl Login {
    /// # Errors
    /// When a setting is missing.
    pub fn new(config: LoginConfig) -> Result<Self> {
        let kind = config.kind;
        ensure!(
            kind != LoginKind::Ldap || config.bind_name.as_ref().is_some_and(|name| name.contains("{name}")),
            "[conformance.login] bind_name is missing: bind_name = \"uid={{name}},ou=jit,dc=example,dc=test\""
        );
        match kind {
            LoginKind::Command => ensure!(
                !config.command.is_empty(),
                "[conformance.login] command is missing: command = [\"./log-in.sh\", \"{{name}}\"]"
            ),
            _ => ensure!(config.url.is_some(), "[conformance.login] url is missing"),
        }
        if kind == LoginKind::Http {
            let ask = config.request.as_ref();
            let ask =
                ask.context("[conformance.login] request is missing: request = { path = \"/me\", basic = true }")?;
            ask.check().context("[conformance.login] request")?;
            ensure!(ask.places_password(), "[conformance.login] request does not say where the password goes");
        }
        ensure!(
            config.holds.is_empty() || matches!(kind, LoginKind::Postgres | LoginKind::Mysql),
            "[conformance.login] holds: this kind of login keeps no session"
        );
        if let Some(change) = &config.change_password {
            let places = match change {
                Act::Statement(statement) => statement.contains(NEW),
                Act::Request(ask) => ask.places(NEW),
                Act::Command(_) => bail!("[conformance.login] change_password: a command would show the password"),
            };
            ensure!(places, "[conformance.login] change_password does not say where {NEW} goes");
        }
        for act in config.allowed.iter().chain(&config.refused).chain(&config.holds).chain(&config.change_password) {
            let fits = match act {
                Act::Statement(_) => matches!(kind, LoginKind::Postgres | LoginKind::Mysql),
                Act::Command(_) => kind == LoginKind::Command,
                Act::Request(ask) => {
                    ask.check().with_context(|| format!("[conformance.login] {act}"))?;
                    kind == LoginKind::Http
                }
            };
            ensure!(fits, "[conformance.login] has something that this kind of login cannot try: {act}");
        }
        Ok(Self(config))
    }

    /// Whether sessions can be kept open.
    #[must_use]
    pub fn keeps_sessions(&self) -> bool {
        matches!(self.0.kind, LoginKind::Postgres | LoginKind::Mysql)
    }

    /// Whether it says what an account may do.
    #[must_use]
    pub fn knows_allowed(&self) -> bool {
        !self.0.allowed.is_empty()
    }

    /// Whether it says what an account may not do.
    #[must_use]
    pub fn knows_refused(&self) -> bool {
        !self.0.refused.is_empty()
    }

    /// What it may do to hold up its removal.
    #[must_use]
    pub fn holds(&self) -> &[Act] {
        &self.0.holds
    }

    /// Whether it says how an account changes its own password.
    #[must_use]
    pub fn knows_change_of_password(&self) -> bool {
        self.0.change_password.is_some()
    }

    /// Whether this kind of login can do more than log in.
    #[must_use]
    pub fn acts(&self) -> bool {
        !matches!(self.0.kind, LoginKind::Ldap | LoginKind::Command)
    }

    /// The server's URL, which kinds with a server have.
    fn url(&self) -> Result<&Url> {
        self.0.url.as_ref().context("[conformance.login] url is missing")
    }

    /// How the way to the server is protected: the rule that every connection obeys.
    fn security(&self, spoken: Spoken) -> Result<Security> {
        let security = transport::security(spoken, self.url()?, false, self.0.ca.is_some());
        security.context("[conformance.login] url")
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
                let mode = postgres::ssl_mode(self.security(Spoken::Postgres)?);
                let options = PgConnectOptions::from_url(self.url()?).context("[conformance.login] url")?;
                let options = options
                    .ssl_mode(mode)
                    .username(username)
                    .password(password.expose_secret())
                    .disable_statement_logging();
                options.connect().await.map(OpenSession::Postgres)
            }
            LoginKind::Mysql => {
                let mode = mysql::ssl_mode(self.security(Spoken::MySql)?);
                let options = MySqlConnectOptions::from_url(self.url()?).context("[conformance.login] url")?;
                let options = options
                    .ssl_mode(mode)
                    .username(username)
                    .password(password.expose_secret())
                    .disable_statement_logging();
                options.connect().await.map(OpenSession::Mysql)
            }
            LoginKind::Ldap => {
                let ca = self.0.ca.as_deref().map(read_authorities).transpose().context("[conformance.login] ca")?;
                let name = self.0.bind_name.as_deref().unwrap_or_default().replace("{name}", username);
                let in_ = directory_login(self.url()?, ca.as_deref(), &name, password, DEADLINE).await?;
                return Ok(in_.then_some(OpenSession::None));
            }
            LoginKind::Http => {
                self.security(Spoken::Http)?;
                return Ok(http::log_in(&self.0, username, password).await?.map(OpenSession::Http));
            }
            LoginKind::Command => {
                return Ok(command::log_in(&self.0.command, username, password).await?.map(OpenSession::Command));
            }
        };
        match opened {
            Ok(session) => Ok(Some(session)),
            Err(error) if is_refused(&error) => Ok(None),
            Err(error) => Err(error).context("logging in as the account"),
        }
    }

    /// Does something that the account may do.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn must(&self, session: &mut OpenSession, act: &Act) -> Result<()> {
        match session.act(act, true).await? {
            None => Ok(()),
            Some(why) => bail!("the account may not do what it should: {act}: {why}"),
        }
    }

    /// Has the account change its own password.
    ///
    /// # Errors
    /// When it is refused, or nobody says how.
    pub async fn change_password(&self, session: &mut OpenSession, new: &SecretString) -> Result<()> {
        let change = self.0.change_password.as_ref().context("[conformance.login] change_password is missing")?;
        match (&mut *session, change) {
            (OpenSession::Http(session), Act::Request(_)) => session.will_be(new.clone()),
            (session, Act::Statement(statement)) => {
                let filled = statement.replace(NEW, new.expose_secret());
                let ran = tokio::time::timeout(DEADLINE, session.run(&filled)).await;
                // The statement as it stands in the fixture, and the server's code: neither has the password.
                return match ran {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(sqlx::Error::Database(error))) => {
                        bail!("the account may not change its own password: {change}: {:?}", error.code())
                    }
                    Ok(Err(_)) => bail!("{change}: the session broke"),
                    Err(_) => bail!("{change}: no answer within {} s", DEADLINE.as_secs()),
                };
            }
            _ => {}
        }
        self.must(session, change).await
    }

    /// Tries what the account may and may not do.
    ///
    /// # Errors
    /// What went the other way.
    pub async fn check_privileges(&self, session: &mut OpenSession) -> Result<()> {
        for act in &self.0.allowed {
            self.must(session, act).await?;
        }
        for act in &self.0.refused {
            ensure!(session.act(act, false).await?.is_some(), "the account may do what it should not: {act}");
        }
        Ok(())
    }
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Statement(text) => f.write_str(text),
            Self::Command(words) => f.write_str(&words.join(" ")),
            Self::Request(ask) => write!(f, "{ask}"),
        }
    }
}

impl OpenSession {
    async fn run(&mut self, statement: &str) -> Result<(), sqlx::Error> {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
        match self {
            Self::Postgres(session) => session.execute(statement).await.map(drop),
            Self::Mysql(session) => session.execute(statement).await.map(drop),
            Self::Http(_) | Self::Command(_) | Self::None => Ok(()),
        }
    }

    /// Tries something: none when it was allowed, else how it was refused.
    async fn act(&mut self, act: &Act, allowed: bool) -> Result<Option<String>> {
        let tried = async {
            match (self, act) {
                (session, Act::Statement(statement)) => match session.run(statement).await {
                    Ok(()) => Ok(None),
                    Err(error @ sqlx::Error::Database(_)) => Ok(Some(error.to_string())),
                    Err(error) => Err(error).context("the session broke"),
                },
                (Self::Http(session), Act::Request(ask)) => session.act(ask, allowed).await,
                (Self::Command(session), Act::Command(words)) => session.act(words).await,
                _ => bail!("this kind of session cannot try that"),
            }
        };
        match tokio::time::timeout(DEADLINE, tried).await {
            Ok(tried) => tried.with_context(|| act.to_string()),
            Err(_) => bail!("{act}: no answer within {} s", DEADLINE.as_secs()),
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
                Self::Http(_) | Self::Command(_) | Self::None => Ok(()),
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
