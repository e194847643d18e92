//! A target's directory: the broker's own credential stays here.
//!
//! Connections are kept in two lanes, so that removals never wait behind issues: `Live` with the
//! configured number of connections, `Removal` with two of its own. A connection goes back to its
//! lane only after the server has answered everything that was sent on it; in every other case
//! (an error, a deadline, a client that went away) it is closed.
//!
//! A change whose answer never came may still be under way in the server, and LDAP has no way to end
//! it for sure. Its connection is therefore not closed at once but listened to, since an answer, whatever
//! it says, is the end of the change. Nothing runs in the removal lane meanwhile: a revocation is not
//! overtaken by the creation that it is to undo (NO-GHOST). A connection that says nothing for
//! [`PATIENCE`] is reset, so that what this machine has not delivered is never delivered, and a moment
//! later removals go on. What remains is a server that acts later than that on a connection that is no
//! more: such an account has its own expiry from the same operation (BACKSTOP), and the reconciler finds
//! it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use url::Url;
use zeroize::Zeroizing;

use super::client::{Client, Lost, Place, Security};
use super::name;
use super::request::{INVALID_CREDENTIALS, Octets, SUCCESS, Search};
use super::tls;
use crate::backend::{Endpoint, Unavailable};
use crate::text::escape;
use jit_core::certificate::{Remedy, explained};
use jit_core::driver::Lane;
use jit_core::transport::{self, Spoken};

/// Connections of the removal lane.
const REMOVAL_CONNECTIONS: usize = 2;

/// Logins that are tried at once.
const TRIALS: usize = 4;

/// A connection that was idle for longer is tested before it is used: the server may have been
/// restarted since.
const TEST_AFTER: Duration = Duration::from_secs(1);

/// A connection that was idle for longer is closed when the next one is given back.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// A connection older than that is not kept: addresses and certificates change.
const MAX_LIFETIME: Duration = Duration::from_secs(1_800);

/// How long the answer to a change that nobody waits for is listened to.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long after a connection's end a change that was sent on it may still take effect.
const AFTERMATH: Duration = Duration::from_secs(1);

/// How long a removal waits for such changes before it is told to come back.
const SETTLE: Duration = Duration::from_secs(5);

/// Longest message of a server that is passed on, in bytes.
pub(crate) const MESSAGE: usize = 500;

/// How a directory's connection is set up.
#[derive(Clone)]
pub struct LdapConnectionOptions {
    /// The connection's name in the configuration.
    pub name: String,
    /// `ldaps://host:port`, or `ldap://host:port` with StartTLS.
    pub url: Url,
    /// Whether an `ldap` connection is not encrypted; to another machine that is an operator's word that
    /// something else protects the way.
    pub plaintext: bool,
    /// Certificates (PEM) that the server's must lead to; none takes the public ones.
    pub ca: Option<Vec<u8>>,
    /// Distinguished name of the broker's own account.
    pub bind_dn: String,
    /// Its password.
    pub password: SecretString,
    /// Connections of the live lane. The removal lane has two more.
    pub max_connections: u32,
    /// How long one attempt to connect and bind may take.
    pub connect_timeout: Duration,
    /// How long one operation may take, and how long a call waits for a free connection.
    pub operation_timeout: Duration,
}

/// Why a connection cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("connection {name}: {reason}")]
pub struct LdapConnectionError {
    /// The connection's name.
    pub name: String,
    /// What is wrong with its settings.
    pub reason: String,
}

/// A target's directory. Made once per configured connection, shared by its calls.
pub struct LdapConnection {
    name: String,
    endpoint: Endpoint,
    place: Place,
    bind_dn: String,
    password: SecretString,
    connect_timeout: Duration,
    operation_timeout: Duration,
    live: Pool,
    removal: Pool,
    trials: Arc<Semaphore>,
    /// How many changes are listened to.
    unsettled: Arc<watch::Sender<usize>>,
}

impl fmt::Debug for LdapConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LdapConnection")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

struct Pool {
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<(Client, Instant)>>,
}

impl Pool {
    fn new(size: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(size)), idle: Mutex::new(Vec::new()) }
    }

    /// The connection that was used last: the others grow idle and are closed.
    fn take(&self) -> Option<(Client, Instant)> {
        self.idle.lock().pop()
    }

    fn put(&self, client: Client) {
        let now = Instant::now();
        let mut stale = Vec::new();
        {
            let mut idle = self.idle.lock();
            while idle.first().is_some_and(|(_, since)| now.duration_since(*since) > IDLE_TIMEOUT) {
                stale.push(idle.remove(0));
            }
            if client.age() < MAX_LIFETIME && client.is_at_rest() {
                idle.push((client, now));
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

impl LdapConnection {
    /// Reads the settings. Connects lazily.
    ///
    /// # Errors
    /// When a setting is not usable.
    pub fn new(options: LdapConnectionOptions) -> Result<Self, LdapConnectionError> {
        let fail = |reason: &str| LdapConnectionError { name: options.name.clone(), reason: reason.to_owned() };
        let url = &options.url;
        let (scheme, usual_port) = match url.scheme() {
            "ldaps" => ("ldaps", 636),
            "ldap" => ("ldap", 389),
            _ => return Err(fail("the URL must begin with ldaps:// or ldap://")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fail("the URL must hold no user: bind_dn and password say who binds"));
        }
        let has_more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
        let host = url.host_str().filter(|host| !host.is_empty());
        let Some(host) = host.filter(|_| !has_more) else {
            return Err(fail("the URL must be ldaps://host:port or ldap://host:port and no more"));
        };
        if host.starts_with('[') && !options.plaintext {
            // ldap3 looks for the brackets in the certificate.
            return Err(fail("with TLS, the URL must name the host, or give its IPv4 address"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if !(1..=1_000).contains(&options.max_connections) {
            return Err(fail("max_connections must be 1 to 1000"));
        }
        if options.bind_dn.is_empty() {
            return Err(fail("bind_dn is empty: a bind without a name is anonymous"));
        }
        // Active Directory also binds user@domain and DOMAIN\user, which are no distinguished names.
        let is_name = if options.bind_dn.contains('=') {
            name::check(&options.bind_dn).map_err(|reason| fail(&format!("bind_dn {reason}")))
        } else if options.bind_dn.len() <= 256 && options.bind_dn.contains(['@', '\\']) {
            Ok(())
        } else {
            Err(fail("bind_dn must be a distinguished name, or user@domain for Active Directory"))
        };
        is_name?;
        if options.password.expose_secret().is_empty() {
            return Err(fail("the password is empty: such a bind is anonymous"));
        }
        let tls = || tls::config(&host, options.ca.as_deref()).map_err(|reason| fail(&reason));
        let protection = transport::security(Spoken::Ldap, url, options.plaintext, options.ca.is_some());
        let security = match protection.map_err(|wrong| fail(&wrong.to_string()))? {
            transport::Security::Plain if transport::is_here(Spoken::Ldap, url) => Security::Loopback,
            transport::Security::Plain => Security::Plain,
            _ if scheme == "ldaps" => Security::Ldaps(tls()?),
            _ => Security::StartTls(tls()?),
        };
        let port = url.port().unwrap_or(usual_port);
        Ok(Self {
            name: options.name.clone(),
            endpoint: Endpoint { scheme, host: host.clone(), port, database: None },
            place: Place { host, port, security },
            bind_dn: options.bind_dn,
            password: options.password,
            connect_timeout: options.connect_timeout,
            operation_timeout: options.operation_timeout,
            live: Pool::new(options.max_connections as usize),
            removal: Pool::new(REMOVAL_CONNECTIONS),
            trials: Arc::new(Semaphore::new(TRIALS)),
            unsettled: Arc::new(watch::Sender::new(0)),
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

    /// Whether what is sent on it is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        !matches!(self.place.security, Security::Loopback | Security::Plain)
    }

    /// How long one operation may take.
    pub(crate) fn operation_timeout(&self) -> Duration {
        self.operation_timeout
    }

    /// Whether the server answers now, and knows the broker.
    ///
    /// # Errors
    /// Why it does not, in words for operators.
    pub async fn ping(&self) -> Result<(), Unavailable> {
        let permit = self.permit(&self.removal.permits).await?;
        let client = self.client(&self.removal).await?;
        let mut lease = LdapLease { connection: self, pool: &self.removal, client: Some(client), permit: Some(permit) };
        match tokio::time::timeout(self.connect_timeout, answers(lease.client())).await {
            Ok(Ok(())) => {
                lease.give_back();
                Ok(())
            }
            Ok(Err(lost)) => Err(Unavailable(describe(&lost))),
            Err(_) => Err(Unavailable("no answer in time".to_owned())),
        }
    }

    /// A connection of the lane.
    pub(crate) async fn acquire(&self, lane: Lane) -> Result<LdapLease<'_>, Unavailable> {
        let pool = match lane {
            Lane::Live => &self.live,
            Lane::Removal => &self.removal,
        };
        let permit = self.permit(&pool.permits).await?;
        let client = self.client(pool).await?;
        let lease = LdapLease { connection: self, pool, client: Some(client), permit: Some(permit) };
        if lane == Lane::Removal
            && let Err(unavailable) = self.settled().await
        {
            lease.give_back();
            return Err(unavailable);
        }
        Ok(lease)
    }

    /// One that is idle and answers, or a new one.
    async fn client(&self, pool: &Pool) -> Result<Client, Unavailable> {
        while let Some((mut candidate, since)) = pool.take() {
            let is_fresh = since.elapsed() < TEST_AFTER && candidate.is_at_rest();
            if is_fresh
                || matches!(tokio::time::timeout(self.connect_timeout, answers(&mut candidate)).await, Ok(Ok(())))
            {
                return Ok(candidate);
            }
            // One dead connection: the others are most likely from before the same restart.
            pool.clear();
        }
        self.open(&self.bind_dn, self.own_password()).await?.map_err(|refused| {
            let Place { host, port, .. } = &self.place;
            Unavailable(format!("cannot bind to {host}:{port}: {refused}"))
        })
    }

    fn own_password(&self) -> Octets {
        Zeroizing::new(self.password.expose_secret().as_bytes().to_vec())
    }

    /// A new connection, bound; or the server's no to the bind.
    async fn open(&self, name: &str, password: Octets) -> Result<Result<Client, Refused>, Unavailable> {
        let open = async {
            let mut client = Client::open(&self.place).await?;
            let answer = client.bind(name, password).await?;
            if answer.code != SUCCESS {
                return Ok(Err(Refused { code: answer.code, message: escape(&answer.message, MESSAGE) }));
            }
            Ok::<_, Lost>(Ok(client))
        };
        let Place { host, port, .. } = &self.place;
        match tokio::time::timeout(self.connect_timeout, open).await {
            Ok(Ok(bound)) => Ok(bound),
            Ok(Err(lost)) => Err(Unavailable(format!("cannot connect to {host}:{port}: {}", describe(&lost)))),
            Err(_) => {
                let waited = self.connect_timeout.as_millis();
                Err(Unavailable(format!("cannot connect to {host}:{port} within {waited} ms")))
            }
        }
    }

    /// Whether somebody can log in: on a connection of its own, which is closed afterwards.
    pub(crate) async fn try_login(&self, name: &str, password: Octets) -> Result<Result<(), Refused>, Unavailable> {
        let _permit = self.permit(&self.trials).await?;
        Ok(self.open(name, password).await?.map(drop))
    }

    async fn permit(&self, permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Unavailable> {
        match tokio::time::timeout(self.operation_timeout, Arc::clone(permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Unavailable(format!("connection {} is closed", self.name))),
            Err(_) => {
                let waited = self.operation_timeout.as_millis();
                Err(Unavailable(format!("no free connection of {} within {waited} ms", self.name)))
            }
        }
    }

    /// Waits until no change is listened to.
    async fn settled(&self) -> Result<(), Unavailable> {
        let mut unsettled = self.unsettled.subscribe();
        // The sender lives as long as we do.
        match tokio::time::timeout(SETTLE, unsettled.wait_for(|count| *count == 0)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Unavailable("a change that was sent before is still without an answer".to_owned())),
        }
    }

    /// Listens to a connection whose change has no answer, until it can have no effect any more. The
    /// permit is kept as long: a server that answers nothing gets no more connections.
    fn abandon(&self, mut client: Client, permit: Option<OwnedSemaphorePermit>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let unsettled = Unsettled::new(&self.unsettled);
        runtime.spawn(async move {
            let _held = (unsettled, permit);
            let answered = tokio::time::timeout(PATIENCE, client.await_answer()).await;
            let ended = matches!(answered, Ok(Ok(())));
            // Closes it; with a reset unless it has been answered.
            drop(client);
            if !ended {
                tokio::time::sleep(AFTERMATH).await;
            }
        });
    }
}

/// Whether a simple bind with that name and password succeeds now, on a connection that is closed
/// afterwards: for suites that look whether an account works.
///
/// # Errors
/// When the server did not say.
pub async fn directory_login(
    url: &Url,
    ca: Option<&[u8]>,
    name: &str,
    password: &SecretString,
    deadline: Duration,
) -> Result<bool, Unavailable> {
    let connection = LdapConnection::new(LdapConnectionOptions {
        name: "login".to_owned(),
        url: url.clone(),
        plaintext: false,
        ca: ca.map(<[u8]>::to_vec),
        bind_dn: name.to_owned(),
        password: password.clone(),
        max_connections: 1,
        connect_timeout: deadline,
        operation_timeout: deadline,
    })
    .map_err(|error| Unavailable(error.to_string()))?;
    match connection.try_login(name, connection.own_password()).await? {
        Ok(()) => Ok(true),
        Err(Refused { code: INVALID_CREDENTIALS, .. }) => Ok(false),
        Err(refused) => Err(Unavailable(refused.to_string())),
    }
}

/// Counts one change that is listened to.
struct Unsettled(Arc<watch::Sender<usize>>);

impl Unsettled {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(Arc::clone(count))
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// The server's own no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (LDAP result {code})")]
pub(crate) struct Refused {
    pub(crate) code: u32,
    pub(crate) message: String,
}

/// Asks for nothing of the root DSE.
async fn answers(client: &mut Client) -> Result<(), Lost> {
    let search = Search {
        base: String::new(),
        scope: ldap3::Scope::Base,
        filter: "(objectClass=*)".to_owned(),
        attributes: vec!["1.1".to_owned()],
        size_limit: 1,
        time_limit: 0,
    };
    client.search(&search, 1, Vec::new(), 1, MESSAGE).await.map(drop)
}

/// A connection on loan. Closed when dropped, or listened to where a change has no answer;
/// [`LdapLease::give_back`] returns it to its lane.
pub(crate) struct LdapLease<'a> {
    connection: &'a LdapConnection,
    pool: &'a Pool,
    client: Option<Client>,
    permit: Option<OwnedSemaphorePermit>,
}

impl LdapLease<'_> {
    /// The connection.
    #[expect(clippy::expect_used, reason = "only give_back and drop take it, and both end the lease")]
    pub(crate) fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("a lease holds a client until it ends")
    }

    /// Everything sent on it has been answered.
    pub(crate) fn give_back(mut self) {
        if let Some(client) = self.client.take() {
            self.pool.put(client);
        }
    }
}

impl Drop for LdapLease<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take()
            && client.has_unanswered_change()
        {
            self.connection.abandon(client, self.permit.take());
        }
    }
}

/// Why there is no answer, in words that hold nothing of a request.
pub(crate) fn describe(lost: &Lost) -> String {
    escape(&explained(&lost.to_string(), Remedy::CONNECTION), MESSAGE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn options(url: &str) -> LdapConnectionOptions {
        LdapConnectionOptions {
            name: "people".into(),
            url: Url::parse(url).unwrap(),
            plaintext: false,
            ca: None,
            bind_dn: "cn=jit,dc=example,dc=com".into(),
            password: SecretString::from("canary"),
            max_connections: 2,
            connect_timeout: Duration::from_secs(1),
            operation_timeout: Duration::from_secs(1),
        }
    }

    fn problem(change: impl FnOnce(&mut LdapConnectionOptions), url: &str) -> Option<String> {
        let mut options = options(url);
        change(&mut options);
        LdapConnection::new(options).err().map(|error| error.reason)
    }

    #[test]
    fn settings_are_checked_before_anything_is_connected() {
        for good in ["ldaps://ldap.example.com", "ldap://10.0.0.1:1389", "ldaps://127.0.0.1:636/"] {
            assert_eq!(problem(|_| {}, good), None, "{good}");
        }
        for bad in [
            "https://a",
            "ldap:a",
            "ldaps://user@a",
            "ldaps://a/dc=b",
            "ldaps://a?x",
            "ldapi://%2frun",
            "ldaps://[::1]",
        ] {
            assert!(problem(|_| {}, bad).is_some(), "{bad}");
        }
        let url = "ldap://localhost";
        assert_eq!(problem(|o| o.plaintext = true, url), None);
        assert_eq!(problem(|o| o.plaintext = true, "ldap://127.0.0.1:389"), None);
        assert_eq!(problem(|o| o.plaintext = true, "ldap://ldap.example.com"), None, "an operator's word");
        assert!(problem(|o| o.plaintext = true, "ldaps://localhost").is_some());
        assert!(problem(|o| o.bind_dn = String::new(), url).is_some());
        assert!(problem(|o| o.bind_dn = "cn=a\0".into(), url).is_some());
        assert!(problem(|o| o.bind_dn = "admin".into(), url).is_some());
        assert_eq!(problem(|o| o.bind_dn = "jit@example.com".into(), url), None);
        assert!(problem(|o| o.password = SecretString::from(""), url).is_some());
        assert!(problem(|o| o.max_connections = 0, url).is_some());
        assert!(problem(|o| o.ca = Some(b"x".to_vec()), url).is_some());
        assert!(problem(|o| (o.plaintext, o.ca) = (true, Some(b"x".to_vec())), url).is_some());
    }

    #[test]
    fn it_does_not_show_its_password() {
        let connection = LdapConnection::new(options("ldaps://ldap.example.com")).unwrap();
        assert!(!format!("{connection:?}").contains("canary"));
        assert_eq!(connection.endpoint().port, 636);
    }
}
