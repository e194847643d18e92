//! A target's SQL connection: the broker's own credential stays here.
//!
//! Connections are kept in two lanes, so that removals never wait behind issues: `Live` with the
//! configured number of connections, `Removal` with two of its own. A connection goes back to its
//! lane only after the server has answered everything that was sent on it; in every other case
//! (an error, a deadline, a client that went away) it is closed.
//!
//! A statement whose answer never came may still be running in the server. Its backend process is
//! remembered as abandoned, and nothing else is run before the server has ended it: a revocation
//! can therefore not be overtaken by the creation that it is to undo (NO-GHOST).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _, ValueRef as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use crate::driver::Lane;
use crate::text::escape;

/// Connections of the removal lane.
const REMOVAL_CONNECTIONS: usize = 2;

/// Connections to other databases of the same server at once. They live for one call.
const ELSEWHERE_CONNECTIONS: usize = 4;

/// A connection that was idle for longer is tested before it is used: the server may have been
/// restarted since.
const TEST_AFTER: Duration = Duration::from_secs(1);

/// A connection that was idle for longer is closed when the next one is given back.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// A connection older than that is not kept: servers grow caches per connection, and addresses move.
const MAX_LIFETIME: Duration = Duration::from_secs(1_800);

/// How long the server may take to end an abandoned backend process.
const SETTLE: Duration = Duration::from_secs(5);

/// Longest message of a server that is passed on, in bytes.
pub(crate) const MESSAGE: usize = 500;

/// Which dialect the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlKind {
    /// PostgreSQL 14 or later.
    Postgres,
}

/// How a connection is set up.
#[derive(Clone)]
pub struct SqlConnectionOptions {
    /// The connection's name in the configuration.
    pub name: String,
    /// The dialect.
    pub kind: SqlKind,
    /// Host, port, database, user and TLS options (`sslmode`, `sslrootcert`, …), without password.
    pub url: Url,
    /// The broker's password there; none where the server asks for none (peer, certificate).
    pub password: Option<SecretString>,
    /// Connections of the live lane. The removal lane has two more.
    pub max_connections: u32,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long a call waits for a free connection.
    pub acquire_timeout: Duration,
    /// How long one statement may run in the server, by the server's own clock.
    pub statement_timeout: Duration,
    /// How often the server looks whether we are still there while it runs a statement
    /// (`client_connection_check_interval`); none leaves the server's setting.
    pub client_check_interval: Option<Duration>,
}

impl SqlConnectionOptions {
    /// Defaults: 16 connections, 5 s to connect, 10 s to wait, 30 s for a statement.
    #[must_use]
    pub fn new(name: impl Into<String>, url: Url, password: Option<SecretString>) -> Self {
        Self {
            name: name.into(),
            kind: SqlKind::Postgres,
            url,
            password,
            max_connections: 16,
            connect_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            client_check_interval: Some(Duration::from_secs(2)),
        }
    }
}

/// Why a connection cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("connection {name}: {reason}")]
pub struct SqlConnectionError {
    /// The connection's name.
    pub name: String,
    /// What is wrong with its settings.
    pub reason: String,
}

/// Where callers connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The connection's own database.
    pub database: String,
}

/// The server cannot be reached, or not now. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// A target's SQL connection. Made once per configured connection, shared by its calls.
pub struct SqlConnection {
    name: String,
    endpoint: Endpoint,
    options: PgConnectOptions,
    password: Option<SecretString>,
    connect_timeout: Duration,
    acquire_timeout: Duration,
    live: Pool,
    removal: Pool,
    elsewhere: Arc<Semaphore>,
    abandoned: Mutex<BTreeMap<u64, Backend>>,
    next_abandoned: AtomicU64,
}

impl fmt::Debug for SqlConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlConnection")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// A backend process of the server: its id may be used again, its start tells two apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    pid: i32,
    start: String,
}

/// An open connection and its process in the server.
pub(crate) struct Session {
    pub(crate) connection: PgConnection,
    pub(crate) backend: Backend,
    opened: Instant,
}

struct Pool {
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<(Session, Instant)>>,
}

impl Pool {
    fn new(size: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(size)), idle: Mutex::new(Vec::new()) }
    }

    /// The connection that was used last: the others grow idle and are closed.
    fn take(&self) -> Option<(Session, Instant)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, session: Session) {
        let now = Instant::now();
        let mut stale = Vec::new();
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            while idle.first().is_some_and(|(_, since)| now.duration_since(*since) > IDLE_TIMEOUT) {
                stale.push(idle.remove(0));
            }
            if now.duration_since(session.opened) < MAX_LIFETIME {
                idle.push((session, now));
            }
        }
        // Closed here, after the lock.
        drop(stale);
    }

    fn clear(&self) {
        let old = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        drop(old);
    }
}

impl SqlConnection {
    /// Reads the settings. Connects lazily.
    ///
    /// # Errors
    /// When the URL is not usable or a number is out of range.
    pub fn new(options: SqlConnectionOptions) -> Result<Self, SqlConnectionError> {
        let fail = |reason: &str| SqlConnectionError { name: options.name.clone(), reason: reason.to_owned() };
        if !matches!(options.url.scheme(), "postgres" | "postgresql") {
            return Err(fail("the URL must begin with postgres:// or postgresql://"));
        }
        if options.url.password().is_some() || options.url.query_pairs().any(|(key, _)| key == "password") {
            return Err(fail("the URL must not hold a password: give it as a secret"));
        }
        if options.url.username().is_empty() {
            return Err(fail("the URL must name the user: postgres://user@host/database"));
        }
        if !(1..=1_000).contains(&options.max_connections) {
            return Err(fail("max_connections must be 1 to 1000"));
        }
        let database = options.url.path().trim_start_matches('/');
        if database.is_empty() {
            return Err(fail("the URL must name the database: postgres://user@host/database"));
        }
        // sqlx's own text is not passed on: it could quote the URL.
        let mut pg = PgConnectOptions::from_url(&options.url).map_err(|_| fail("the URL is not a PostgreSQL URL"))?;
        pg = pg
            .application_name("jit-broker")
            // No prepared statements: all goes by the simple protocol.
            .statement_cache_capacity(0)
            .options([("statement_timeout", options.statement_timeout.as_millis().to_string())])
            // Notices would be read, and logged, whatever their length.
            .options([("client_min_messages", "error")])
            .disable_statement_logging();
        if let Some(interval) = options.client_check_interval {
            pg = pg.options([("client_connection_check_interval", interval.as_millis().to_string())]);
        }
        let endpoint = Endpoint {
            host: pg.get_host().to_owned(),
            port: pg.get_port(),
            database: pg.get_database().unwrap_or(database).to_owned(),
        };
        Ok(Self {
            name: options.name,
            endpoint,
            options: pg,
            password: options.password,
            connect_timeout: options.connect_timeout,
            acquire_timeout: options.acquire_timeout,
            live: Pool::new(options.max_connections as usize),
            removal: Pool::new(REMOVAL_CONNECTIONS),
            elsewhere: Arc::new(Semaphore::new(ELSEWHERE_CONNECTIONS)),
            abandoned: Mutex::new(BTreeMap::new()),
            next_abandoned: AtomicU64::new(0),
        })
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where callers connect to: for the reply of an issue.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the server answers now.
    ///
    /// # Errors
    /// Why it does not, in words for operators.
    pub async fn ping(&self) -> Result<(), Unavailable> {
        let mut lease = self.acquire(Lane::Removal).await?;
        match tokio::time::timeout(self.connect_timeout, lease.session().connection.ping()).await {
            Ok(Ok(())) => {
                lease.give_back();
                Ok(())
            }
            Ok(Err(error)) => Err(Unavailable(describe(&error))),
            Err(_) => Err(Unavailable("no answer in time".to_owned())),
        }
    }

    /// A connection of the lane, to the connection's own database.
    pub(crate) async fn acquire(&self, lane: Lane) -> Result<SqlLease<'_>, Unavailable> {
        let pool = match lane {
            Lane::Live => &self.live,
            Lane::Removal => &self.removal,
        };
        let permit = self.permit(&pool.permits).await?;
        let mut session = None;
        while let Some((mut candidate, since)) = pool.take() {
            if since.elapsed() < TEST_AFTER || self.answers(&mut candidate).await {
                session = Some(candidate);
                break;
            }
            // One dead connection: the others are most likely from before the same restart.
            pool.clear();
        }
        let mut session = match session {
            Some(session) => session,
            None => self.connect(None).await?,
        };
        self.settle_abandoned(&mut session).await?;
        Ok(SqlLease { pool, session: Some(session), _permit: permit })
    }

    /// A connection to another database of the server, for one call.
    pub(crate) async fn elsewhere(&self, database: &str) -> Result<(Session, OwnedSemaphorePermit), Unavailable> {
        let permit = self.permit(&self.elsewhere).await?;
        let mut session = self.connect(Some(database)).await?;
        self.settle_abandoned(&mut session).await?;
        Ok((session, permit))
    }

    async fn permit(&self, permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Unavailable> {
        match tokio::time::timeout(self.acquire_timeout, Arc::clone(permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Unavailable(format!("connection {} is closed", self.name))),
            Err(_) => {
                let waited = self.acquire_timeout.as_millis();
                Err(Unavailable(format!("no free connection of {} within {waited} ms", self.name)))
            }
        }
    }

    async fn answers(&self, session: &mut Session) -> bool {
        matches!(tokio::time::timeout(self.connect_timeout, session.connection.ping()).await, Ok(Ok(())))
    }

    async fn connect(&self, database: Option<&str>) -> Result<Session, Unavailable> {
        let mut options = self.options.clone();
        if let Some(password) = &self.password {
            options = options.password(password.expose_secret());
        }
        if let Some(database) = database {
            options = options.database(database);
        }
        let open = async {
            let mut connection = options.connect().await?;
            let row = connection.fetch_one(sqlx::raw_sql(WHO_AM_I)).await?;
            let backend = backend_of(&row)?;
            Ok::<_, sqlx::Error>(Session { connection, backend, opened: Instant::now() })
        };
        let place = format!("{}:{}", self.endpoint.host, self.endpoint.port);
        match tokio::time::timeout(self.connect_timeout, open).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => Err(Unavailable(format!("cannot connect to {place}: {}", describe(&error)))),
            Err(_) => {
                let waited = self.connect_timeout.as_millis();
                Err(Unavailable(format!("cannot connect to {place} within {waited} ms")))
            }
        }
    }

    /// Notes that a statement was sent on a connection whose answer nobody waits for any more.
    pub(crate) fn abandon(&self, backend: Backend) {
        let number = self.next_abandoned.fetch_add(1, Ordering::Relaxed);
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).insert(number, backend);
    }

    /// Makes sure that no abandoned statement can take effect any more.
    async fn settle_abandoned(&self, session: &mut Session) -> Result<(), Unavailable> {
        let waiting = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if waiting.is_empty() {
            return Ok(());
        }
        let settle = async {
            for (number, backend) in waiting {
                if !end_backend(&mut session.connection, &backend).await? {
                    return Ok(false);
                }
                self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            }
            Ok::<_, sqlx::Error>(true)
        };
        match tokio::time::timeout(SETTLE * 2, settle).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Err(error)) => Err(Unavailable(format!("an abandoned statement cannot be ended: {}", describe(&error)))),
            Ok(Ok(false)) | Err(_) => Err(Unavailable("an abandoned statement does not end".to_owned())),
        }
    }
}

/// Which backend process serves this connection.
const WHO_AM_I: &str = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()";

fn backend_of(row: &PgRow) -> Result<Backend, sqlx::Error> {
    let text = |column: usize| -> Result<String, sqlx::Error> {
        let value = row.try_get_raw(column)?;
        if value.is_null() {
            return Err(sqlx::Error::Protocol("pg_stat_activity does not show our own connection".to_owned()));
        }
        value.as_str().map(str::to_owned).map_err(sqlx::Error::Decode)
    };
    let pid = text(0)?.parse().map_err(|_| sqlx::Error::Protocol("not a process id".to_owned()))?;
    Ok(Backend { pid, start: text(1)? })
}

/// Ends a backend process, and waits until it is gone. `false` when it is still there.
async fn end_backend(connection: &mut PgConnection, backend: &Backend) -> Result<bool, sqlx::Error> {
    let mut start = String::new();
    super::quote::literal(&mut start, &backend.start)
        .map_err(|_| sqlx::Error::Protocol("not a timestamp".to_owned()))?;
    let wait = SETTLE.as_millis();
    let pid = backend.pid;
    let statement = format!(
        "SELECT pg_terminate_backend(pid, {wait}) FROM pg_stat_activity \
         WHERE pid = {pid} AND backend_start = {start}::timestamptz"
    );
    let row = connection.fetch_optional(sqlx::raw_sql(sqlx::AssertSqlSafe(statement))).await?;
    match row {
        None => Ok(true),
        Some(row) => Ok(row.try_get_raw(0)?.as_str().is_ok_and(|text| text == "t")),
    }
}

/// A connection on loan. Closed when dropped; [`SqlLease::give_back`] returns it to its lane.
pub(crate) struct SqlLease<'a> {
    pool: &'a Pool,
    session: Option<Session>,
    _permit: OwnedSemaphorePermit,
}

impl SqlLease<'_> {
    /// The connection.
    #[expect(clippy::expect_used, reason = "only give_back and into_session take it, and both consume the lease")]
    pub(crate) fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("a lease holds a session until it ends")
    }

    /// Everything sent on it has been answered.
    pub(crate) fn give_back(mut self) {
        if let Some(session) = self.session.take() {
            self.pool.put(session);
        }
    }
}

/// An error of sqlx without anything of a statement in it.
pub(crate) fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            escape(&format!("{} (SQLSTATE {code})", error.message()), MESSAGE)
        }
        sqlx::Error::Io(error) => escape(&error.to_string(), MESSAGE),
        sqlx::Error::Tls(error) => escape(&format!("TLS: {error}"), MESSAGE),
        sqlx::Error::Protocol(text) => escape(text, MESSAGE),
        sqlx::Error::Configuration(error) => escape(&error.to_string(), MESSAGE),
        other => escape(&other.to_string(), MESSAGE),
    }
}
