//! The servers of the store's URL, and how a connection to the one that can be written to is opened.
//!
//! sqlx knows one host for each connection. After a failover another of the hosts is the primary, so each connection
//! asks the servers in turn, beginning with the one that was right the last time, and takes the first that is no
//! standby.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jit_core::transport::{self, Security, Spoken, Unprotected};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgSeverity, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::time::timeout;
use url::Url;

/// How long one server may take until it serves us.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The server's own schema. Temporary tables come last; unnamed, they would come first.
const SEARCH_PATH: &str = "pg_catalog, pg_temp";
/// The settings of every session. The server ends by itself what a broker that is gone left behind: a statement, a wait
/// for a lock, a transaction, and within some 15 seconds a session whose client no longer answers.
const SETTINGS: [(&str, &str); 10] = [
    ("search_path", SEARCH_PATH),
    ("statement_timeout", "15000"),
    ("lock_timeout", "8000"),
    ("idle_in_transaction_session_timeout", "15000"),
    ("client_min_messages", "error"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "3"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "15000"),
    ("client_connection_check_interval", "2000"),
];

/// Where the password is read, at each new connection: a rotated one is seen.
#[derive(Clone)]
pub struct Password(Arc<dyn Fn() -> Result<SecretString, String> + Send + Sync>);

impl Password {
    /// From a function that reads it. What it says when it cannot must hold nothing of the password.
    pub fn new(read: impl Fn() -> Result<SecretString, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Where the store is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The servers, at least one: the same user and database on each, without a password.
    pub servers: Vec<Url>,
    /// The password of the broker's role; none where the server asks for none.
    pub password: Option<Password>,
    /// Certificates (PEM) of the only authorities that the servers' certificates may come from.
    pub ca: Option<Vec<u8>>,
    /// An operator's word that the servers need not be verified although they are on other machines.
    pub plaintext: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A URL that is not PostgreSQL's, or no URL at all.
    #[error("the store's URL is no URL of a PostgreSQL database: {0}")]
    Url(&'static str),
    /// The way to a server is not protected.
    #[error(transparent)]
    Unprotected(#[from] Unprotected),
    /// The password cannot be read.
    #[error("the password cannot be read: {0}")]
    Password(String),
    /// No server serves; what each said.
    #[error("no server of the store can be used: {0}")]
    None(String),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Reading and writing: the primary.
    Serve,
    /// Reading the log beside a broker: any server.
    Read,
}

/// The servers.
#[derive(Debug)]
pub(crate) struct Servers {
    servers: Vec<(String, PgConnectOptions)>,
    password: Option<Password>,
    /// The one that was right the last time.
    last: AtomicUsize,
}

/// What is asked of a new session.
const WHO: &str = "SELECT pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('transaction_read_only') = 'on',
    pg_catalog.current_setting('search_path'), pg_catalog.current_setting('server_encoding'),
    pg_catalog.set_config('synchronous_commit',
        CASE WHEN pg_catalog.current_setting('synchronous_commit') IN ('on', 'remote_apply')
            THEN pg_catalog.current_setting('synchronous_commit') ELSE 'on' END, false)";

impl Servers {
    pub(crate) fn new(place: Place) -> Result<Self, ConnectError> {
        let Place { servers, password, ca, plaintext } = place;
        let servers =
            servers.iter().map(|url| options(url, plaintext, ca.as_deref())).collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() {
            return Err(ConnectError::Url("it names no server"));
        }
        Ok(Self { servers, password, last: AtomicUsize::new(0) })
    }

    fn password(&self) -> Result<Option<SecretString>, ConnectError> {
        self.password.as_ref().map(|Password(read)| read().map_err(ConnectError::Password)).transpose()
    }

    /// How the server is connected to that was right the last time.
    pub(crate) fn current(&self) -> Result<PgConnectOptions, ConnectError> {
        let place = self.last.load(Ordering::Relaxed) % self.servers.len();
        let options = self.servers[place].1.clone();
        Ok(match self.password()? {
            Some(password) => options.password(password.expose_secret()),
            None => options,
        })
    }

    /// The connection that is kept for writing, or a new one. It is taken out: put it back while it is of use.
    pub(crate) async fn kept_or_new(&self, kept: &mut Option<PgConnection>) -> Result<PgConnection, ConnectError> {
        match kept.take() {
            Some(connection) => Ok(connection),
            None => self.connect(Purpose::Serve).await,
        }
    }

    /// The first server that serves the purpose. Waits for each no longer than five seconds.
    pub(crate) async fn connect(&self, purpose: Purpose) -> Result<PgConnection, ConnectError> {
        let password = self.password()?;
        let first = self.last.load(Ordering::Relaxed);
        let mut said = Vec::new();
        for place in (0..self.servers.len()).map(|step| (first + step) % self.servers.len()) {
            let (name, options) = &self.servers[place];
            match timeout(CONNECT_TIMEOUT, open(options, password.as_ref(), purpose)).await {
                Ok(Ok(connection)) => {
                    if self.last.swap(place, Ordering::Relaxed) != place {
                        tracing::info!(server = name, "the store is served by another of its servers now");
                    }
                    return Ok(connection);
                }
                Ok(Err(Unfit(reason))) => said.push(format!("{name}: {reason}")),
                Err(_) => said.push(format!("{name}: no answer within {} s", CONNECT_TIMEOUT.as_secs())),
            }
        }
        Err(ConnectError::None(said.join("; ")))
    }
}

/// Why a server does not serve, in words.
struct Unfit(String);

impl From<sqlx::Error> for Unfit {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // A server's own words and the system's; sqlx adds nothing of the URL or the password.
            sqlx::Error::Database(said) if said.message().contains("startup parameter") => Self::pooler(said.message()),
            sqlx::Error::Database(said) => Self(said.message().to_owned()),
            _ => Self(error.to_string()),
        }
    }
}

impl Unfit {
    fn pooler(found: &str) -> Self {
        Self(format!(
            "{found}: a connection pooler seems to stand in between; name PostgreSQL itself in the store's url"
        ))
    }
}

async fn open(
    options: &PgConnectOptions,
    password: Option<&SecretString>,
    purpose: Purpose,
) -> Result<PgConnection, Unfit> {
    let mut options = options.clone();
    if let Some(password) = password {
        options = options.password(password.expose_secret());
    }
    let mut connection = options.connect().await?;
    let row = sqlx::query(WHO).fetch_one(&mut connection).await?;
    let (standby, path, encoding): (bool, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let unfit = if path != SEARCH_PATH {
        Some(Unfit::pooler("the session does not have the settings that it was opened with"))
    } else if encoding != "UTF8" {
        Some(Unfit(format!("the database's encoding is {encoding}: the store needs UTF8")))
    } else if standby && purpose == Purpose::Serve {
        Some(Unfit("a standby, which cannot be written to".to_owned()))
    } else {
        None
    };
    match unfit {
        None => Ok(connection),
        Some(unfit) => {
            // How it takes its end is no news.
            let _closed = connection.close().await;
            Err(unfit)
        }
    }
}

/// The server as people name it, and how it is connected to.
fn options(url: &Url, plaintext: bool, ca: Option<&[u8]>) -> Result<(String, PgConnectOptions), ConnectError> {
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(ConnectError::Url("it must begin with postgres://"));
    }
    if url.password().is_some() {
        return Err(ConnectError::Url("it must hold no password"));
    }
    if url.username().is_empty() || url.path().trim_start_matches('/').is_empty() {
        return Err(ConnectError::Url("it must name the user and the database"));
    }
    let security = transport::security(Spoken::Postgres, url, plaintext, ca.is_some())?;
    // sqlx's own text is not passed on: it could quote the URL.
    let mut options = PgConnectOptions::from_url(url).map_err(|_| ConnectError::Url("it cannot be read"))?;
    // A URL puts brackets around an IPv6 address; no resolver takes them.
    let host = options.get_host().trim_start_matches('[').trim_end_matches(']').to_owned();
    options = options
        .host(&host)
        .application_name("jit-broker store")
        // Said in any case: without a word sqlx would take the environment's, or go on in clear.
        .ssl_mode(ssl_mode(security))
        .options(SETTINGS)
        // They hold people's data.
        .disable_statement_logging();
    if let Some(ca) = ca {
        options = options.ssl_root_cert_from_pem(ca.to_vec());
    }
    Ok((format!("{host}:{}", options.get_port()), options))
}

fn ssl_mode(security: Security) -> PgSslMode {
    match security {
        Security::Plain => PgSslMode::Disable,
        Security::Preferred => PgSslMode::Prefer,
        Security::Required => PgSslMode::Require,
        Security::Authority => PgSslMode::VerifyCa,
        Security::Verified => PgSslMode::VerifyFull,
    }
}

/// What an error leaves of a connection and of what was sent on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The server said no, and the connection is kept.
    Refused,
    /// The server said no to something that may succeed in a moment: others were in between. The connection is kept.
    Crossed,
    /// The connection is of no use any more. What was sent may or may not have been done.
    Lost,
}

impl After {
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        let sqlx::Error::Database(said) = error else { return Self::Lost };
        let fatal = said
            .try_downcast_ref::<PgDatabaseError>()
            .is_none_or(|said| matches!(said.severity(), PgSeverity::Fatal | PgSeverity::Panic));
        let code = said.code().unwrap_or_default();
        match &*code {
            _ if fatal => Self::Lost,
            // A standby by now, or a server on its way down.
            "25006" | "57P01" | "57P02" | "57P03" => Self::Lost,
            // A unique index, a serialization failure, a deadlock, a lock or statement that took too long.
            "23505" | "40001" | "40P01" | "55P03" | "57014" => Self::Crossed,
            // Resources and connections of the server.
            code if code.starts_with("53") || code.starts_with("08") => Self::Lost,
            _ => Self::Refused,
        }
    }
}
