//! A target's SQL connection: the broker's own credential stays here.
//!
//! Connections are kept in two lanes, so that removals never wait behind issues: `Live` with the
//! configured number of connections, `Removal` with two of its own. A connection goes back to its
//! lane only after the server has answered everything that was sent on it; in every other case
//! (an error, a deadline, a client that went away) it is closed.
//!
//! A statement whose answer never came may still be running in the server. Its backend is
//! remembered as abandoned, and nothing else is run before the server has ended it: a revocation
//! can therefore not be overtaken by the creation that it is to undo (NO-GHOST). A connection that
//! takes the place of another one to the same server ([`SqlConnection::succeeding`]) shares what was
//! abandoned with it.
//!
//! One connection of the removal lane stays open ([`TargetBackend::keep_way_in`]): accounts that take
//! all connections which the server gives must not keep their own removal out.
//!
//! What differs by dialect is in [`super::dialect`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::dialect::{Backend, Dialer, Wire};
use super::{MESSAGE, SqlSession};
use crate::backend::{Backend as TargetBackend, Endpoint, Session, Unavailable};
use crate::capability::Grant;
use crate::declared::Declared;
use crate::text::escape;
use jit_core::certificate::{Remedy, explained};
use jit_core::driver::Lane;

pub use super::dialect::SqlKind;

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

/// How long the server may take to end an abandoned backend.
pub(crate) const SETTLE: Duration = Duration::from_secs(5);

/// Logins that are tried at once.
const TRIALS: usize = 2;

/// How a connection is set up.
#[derive(Clone)]
pub struct SqlConnectionOptions {
    /// The connection's name in the configuration.
    pub name: String,
    /// The dialect.
    pub kind: SqlKind,
    /// Host, port, database, user and TLS options ([`Spoken::settings`]), without password. For MySQL the
    /// database may be left out.
    ///
    /// [`Spoken::settings`]: jit_core::transport::Spoken::settings
    pub url: Url,
    /// An operator's word that the server need not be verified although it is on another machine.
    pub plaintext: bool,
    /// The broker's password there; none where the server asks for none (peer, certificate).
    pub password: Option<SecretString>,
    /// Connections of the live lane. The removal lane has two more.
    pub max_connections: u32,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long a call waits for a free connection.
    pub acquire_timeout: Duration,
    /// How long one statement may run in the server, by the server's own clock. MySQL bounds only
    /// queries and waits for locks, in whole seconds; MariaDB bounds all.
    pub statement_timeout: Duration,
    /// How often the server looks whether we are still there while it runs a statement
    /// (`client_connection_check_interval`); none leaves the server's setting. MySQL has no such.
    pub client_check_interval: Option<Duration>,
}

impl SqlConnectionOptions {
    /// Defaults: PostgreSQL, 16 connections, 5 s to connect, 10 s to wait, 30 s for a statement.
    #[must_use]
    pub fn new(name: impl Into<String>, url: Url, password: Option<SecretString>) -> Self {
        Self {
            name: name.into(),
            kind: SqlKind::Postgres,
            url,
            plaintext: false,
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

/// A target's SQL connection. Made once per configured connection, shared by its calls.
pub struct SqlConnection {
    name: String,
    endpoint: Endpoint,
    dialer: Dialer,
    password: Option<SecretString>,
    connect_timeout: Duration,
    acquire_timeout: Duration,
    live: Pool,
    removal: Pool,
    elsewhere: Arc<Semaphore>,
    trials: Arc<Semaphore>,
    abandoned: Arc<Abandoned>,
}

/// Backends whose answer nobody waits for any more.
#[derive(Default)]
struct Abandoned {
    backends: Mutex<BTreeMap<u64, Backend>>,
    next: AtomicU64,
}

impl Abandoned {
    fn add(&self, backend: Backend) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.backends.lock().insert(number, backend);
    }

    fn all(&self) -> BTreeMap<u64, Backend> {
        self.backends.lock().clone()
    }

    fn ended(&self, number: u64) {
        self.backends.lock().remove(&number);
    }
}

impl fmt::Debug for SqlConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlConnection")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// An open connection and what serves it in the server.
pub(crate) struct Open {
    pub(crate) wire: Wire,
    pub(crate) backend: Backend,
    opened: Instant,
}

impl Open {
    fn is_old(&self, now: Instant) -> bool {
        now.duration_since(self.opened) >= MAX_LIFETIME
    }
}

struct Pool {
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<(Open, Instant)>>,
    /// So many are not closed for their age.
    kept: usize,
}

impl Pool {
    fn new(size: usize, kept: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(size)), idle: Mutex::new(Vec::new()), kept }
    }

    /// The connection that was used last: the others grow idle and are closed.
    fn take(&self) -> Option<(Open, Instant)> {
        self.idle.lock().pop()
    }

    fn put(&self, session: Open) {
        let now = Instant::now();
        let mut stale = Vec::new();
        {
            let mut idle = self.idle.lock();
            let is_idle = |(_, since): &(Open, Instant)| now.duration_since(*since) > IDLE_TIMEOUT;
            while idle.len() >= self.kept && idle.first().is_some_and(is_idle) {
                stale.push(idle.remove(0));
            }
            if idle.len() < self.kept || !session.is_old(now) {
                idle.push((session, now));
            }
        }
        // Closed here, after the lock.
        drop(stale);
    }

    fn clear(&self) {
        let old = std::mem::take(&mut *self.idle.lock());
        drop(old);
    }
}

impl SqlConnection {
    /// Reads the settings. Connects lazily.
    ///
    /// # Errors
    /// When the URL is not usable or a number is out of range.
    pub fn new(options: SqlConnectionOptions) -> Result<Self, SqlConnectionError> {
        let (dialer, endpoint) = Dialer::new(&options)?;
        if !(1..=1_000).contains(&options.max_connections) {
            let reason = "max_connections must be 1 to 1000".to_owned();
            return Err(SqlConnectionError { name: options.name, reason });
        }
        Ok(Self {
            name: options.name,
            endpoint,
            dialer,
            password: options.password,
            connect_timeout: options.connect_timeout,
            acquire_timeout: options.acquire_timeout,
            live: Pool::new(options.max_connections as usize, 0),
            removal: Pool::new(REMOVAL_CONNECTIONS, 1),
            elsewhere: Arc::new(Semaphore::new(ELSEWHERE_CONNECTIONS)),
            trials: Arc::new(Semaphore::new(TRIALS)),
            abandoned: Arc::default(),
        })
    }

    /// The same in the place of another connection to the same server: what was abandoned on that one,
    /// now or later, is waited for on both.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn succeeding(options: SqlConnectionOptions, before: &Self) -> Result<Self, SqlConnectionError> {
        Ok(Self { abandoned: Arc::clone(&before.abandoned), ..Self::new(options)? })
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The dialect of its server.
    #[must_use]
    pub fn kind(&self) -> SqlKind {
        self.dialer.kind()
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
        match tokio::time::timeout(self.connect_timeout, lease.session().wire.ping()).await {
            Ok(Ok(())) => {
                lease.give_back();
                Ok(())
            }
            Ok(Err(error)) => Err(Unavailable(describe(&error))),
            Err(_) => Err(Unavailable("no answer in time".to_owned())),
        }
    }

    /// Makes sure that a connection of the removal lane is open, and young enough. To be called now and
    /// then: it is opened while there is room for it in the server.
    ///
    /// # Errors
    /// Why there is none, in words for operators.
    async fn open_way_in(&self) -> Result<(), Unavailable> {
        // Both are in use: so there is one.
        let Ok(_permit) = Arc::clone(&self.removal.permits).try_acquire_owned() else {
            return Ok(());
        };
        let mut answering = None;
        if let Some((mut session, _)) = self.removal.take()
            && self.answers(&mut session).await
        {
            answering = Some(session);
        }
        let opened = match &answering {
            Some(session) if !session.is_old(Instant::now()) => None,
            _ => Some(self.connect(None, Lane::Removal).await),
        };
        // An old one is better than none.
        let (kept, result) = match opened {
            Some(Ok(session)) => (Some(session), Ok(())),
            Some(Err(error)) => (answering, Err(error)),
            None => (answering, Ok(())),
        };
        if let Some(session) = kept {
            self.removal.put(session);
        }
        result
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
            None => self.connect(None, lane).await?,
        };
        self.settle_abandoned(&mut session).await?;
        Ok(SqlLease { pool, session: Some(session), _permit: permit })
    }

    /// A connection to another database of the server, for one call.
    pub(crate) async fn elsewhere(&self, database: &str) -> Result<(Open, OwnedSemaphorePermit), Unavailable> {
        let permit = self.permit(&self.elsewhere).await?;
        let mut session = self.connect(Some(database), Lane::Live).await?;
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

    async fn answers(&self, session: &mut Open) -> bool {
        matches!(tokio::time::timeout(self.connect_timeout, session.wire.ping()).await, Ok(Ok(())))
    }

    async fn connect(&self, database: Option<&str>, lane: Lane) -> Result<Open, Unavailable> {
        let open = self.dialer.connect(self.password.as_ref(), database, lane);
        let place = format!("{}:{}", self.endpoint.host, self.endpoint.port);
        match tokio::time::timeout(self.connect_timeout, open).await {
            Ok(Ok((wire, backend))) => Ok(Open { wire, backend, opened: Instant::now() }),
            Ok(Err(sqlx::Error::Database(error))) => {
                Err(Unavailable(format!("{place} refuses the connection: {}", describe(&sqlx::Error::Database(error)))))
            }
            Ok(Err(error)) => Err(Unavailable(format!("cannot connect to {place}: {}", describe(&error)))),
            Err(_) => {
                let waited = self.connect_timeout.as_millis();
                Err(Unavailable(format!("cannot connect to {place} within {waited} ms")))
            }
        }
    }

    /// Whether a login with that name and password succeeds now, on a connection of its own.
    pub(crate) async fn try_login(&self, user: &str, password: &SecretString) -> Result<bool, Unavailable> {
        let _permit = self.permit(&self.trials).await?;
        match tokio::time::timeout(self.connect_timeout, self.dialer.authenticate(user, password)).await {
            Ok(Ok(succeeds)) => Ok(succeeds),
            Ok(Err(error)) => Err(Unavailable(format!("the login cannot be tried: {}", describe(&error)))),
            Err(_) => {
                let waited = self.connect_timeout.as_millis();
                Err(Unavailable(format!("the login cannot be tried within {waited} ms")))
            }
        }
    }

    /// Notes that a statement was sent on a connection whose answer nobody waits for any more.
    pub(crate) fn abandon(&self, backend: Backend) {
        self.abandoned.add(backend);
    }

    /// Makes sure that no abandoned statement can take effect any more.
    async fn settle_abandoned(&self, session: &mut Open) -> Result<(), Unavailable> {
        let waiting = self.abandoned.all();
        if waiting.is_empty() {
            return Ok(());
        }
        let settle = async {
            for (number, backend) in waiting {
                if !session.wire.end(&backend).await? {
                    return Ok(false);
                }
                self.abandoned.ended(number);
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

#[async_trait]
impl TargetBackend for SqlConnection {
    fn name(&self) -> &str {
        self.name()
    }

    fn capability(&self) -> &'static str {
        Grant::Sql.as_str()
    }

    fn session(self: Arc<Self>, lane: Lane, declared: &Declared) -> Box<dyn Session> {
        Box::new(SqlSession { connection: self, templates: declared.get(), lane, elsewhere: None })
    }

    fn endpoint(&self) -> Option<Endpoint> {
        Some(self.endpoint.clone())
    }

    async fn authenticate(&self, user: &str, password: &SecretString) -> Option<Result<bool, Unavailable>> {
        Some(self.try_login(user, password).await)
    }

    async fn keep_way_in(&self) -> Result<(), Unavailable> {
        self.open_way_in().await
    }
}

/// A host without the brackets that a URL puts around an IPv6 address.
pub(crate) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// A connection on loan. Closed when dropped; [`SqlLease::give_back`] returns it to its lane.
pub(crate) struct SqlLease<'a> {
    pool: &'a Pool,
    session: Option<Open>,
    _permit: OwnedSemaphorePermit,
}

impl SqlLease<'_> {
    /// The connection.
    #[expect(clippy::expect_used, reason = "only give_back and into_session take it, and both consume the lease")]
    pub(crate) fn session(&mut self) -> &mut Open {
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
            let number = super::mysql::error::number_of(error.as_ref());
            let code = match (number, error.code()) {
                (Some(number), _) => format!("error {number}"),
                (None, code) => format!("SQLSTATE {}", code.unwrap_or_default()),
            };
            escape(&format!("{} ({code})", error.message()), MESSAGE)
        }
        sqlx::Error::Io(error) => escape(&explained(&error.to_string(), Remedy::CONNECTION), MESSAGE),
        sqlx::Error::Tls(error) => escape(&explained(&format!("TLS: {error}"), Remedy::CONNECTION), MESSAGE),
        sqlx::Error::Protocol(text) => escape(text, MESSAGE),
        sqlx::Error::Configuration(error) => escape(&error.to_string(), MESSAGE),
        other => escape(&other.to_string(), MESSAGE),
    }
}
