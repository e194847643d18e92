//! A connection's client, its lanes and its settings.
//!
//! Requests go in two lanes, so that removals never wait behind issues: `Live` with the configured
//! number at once, `Removal` with two of its own. TCP connections are shared by both and kept.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client, redirect};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::{Host, Url};

use super::address::{AddressRules, CheckedNames, Lookup, RefusedAddress, system_lookup};
use crate::capability::credentials::{Credentials, SecretSource, SessionStore};
use crate::text::escape;
use jit_core::certificate::{Remedy, explained};
use jit_core::driver::Lane;
use jit_core::transport::{self, Spoken};

/// Requests at once on the removal lane.
const REMOVAL_REQUESTS: usize = 2;

/// A TCP connection that was idle for longer is closed: servers close theirs after a minute or so,
/// and a request on a connection that is being closed ends as unknown.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Most headers of an answer, and most bytes of them over HTTP/2. Over HTTP/1 the client reads at
/// most some 400 KiB of them.
const RESPONSE_HEADERS: usize = 100;
const RESPONSE_HEADER_BYTES: u32 = 64 << 10;

/// Longest text about a failed connection, in bytes.
const MESSAGE: usize = 200;

/// Most bytes of CA certificates.
const CA_BYTES: usize = 1 << 20;

/// How an HTTP connection is set up.
#[derive(Debug, Clone)]
pub struct HttpConnectionOptions {
    /// The connection's name in the configuration.
    pub name: String,
    /// The base URL: `https`, or `http` to a loopback address.
    pub url: Url,
    /// An operator's word that `http` to another machine is protected by something else.
    pub plaintext: bool,
    /// Certificates (PEM) that the server's must lead to; none takes the public ones.
    pub ca: Option<Vec<u8>>,
    /// Addresses that are allowed although they are link-local or otherwise refused.
    pub addresses: Vec<IpAddr>,
    /// The broker's own credentials there, by name.
    pub secrets: BTreeMap<String, Arc<dyn SecretSource>>,
    /// Where kept secrets survive a restart; none keeps them in memory only.
    pub store: Option<Arc<dyn SessionStore>>,
    /// Requests at once on the live lane. The removal lane has two more.
    pub max_connections: u32,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long one request may take, its answer included. As long it may wait for its turn.
    pub request_timeout: Duration,
}

/// Why a connection cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("connection {name}: {reason}")]
pub struct HttpConnectionError {
    /// The connection's name.
    pub name: String,
    /// What is wrong with its settings.
    pub reason: String,
}

/// A target's HTTP connection. Made once per configured connection, shared by its calls.
pub struct HttpConnection {
    name: String,
    base: Url,
    client: Client,
    credentials: Arc<Credentials>,
    live: Arc<Semaphore>,
    removal: Arc<Semaphore>,
    pub(super) request_timeout: Duration,
}

impl fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnection").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// An address that is refused.
    Refused(String),
    /// Nothing was sent.
    NotSent(String),
    /// Something may have been sent.
    Lost(String),
}

impl HttpConnection {
    /// Reads the settings. Connects lazily.
    ///
    /// # Errors
    /// When a setting is not usable.
    pub fn new(options: HttpConnectionOptions) -> Result<Self, HttpConnectionError> {
        Self::with_lookup(options, system_lookup())
    }

    fn with_lookup(options: HttpConnectionOptions, lookup: Lookup) -> Result<Self, HttpConnectionError> {
        let name = options.name.clone();
        Self::build(options, lookup).map_err(|reason| HttpConnectionError { name, reason })
    }

    fn build(options: HttpConnectionOptions, lookup: Lookup) -> Result<Self, String> {
        let url = &options.url;
        check_url(url)?;
        let ca = options.ca.is_some();
        transport::security(Spoken::Http, url, options.plaintext, ca).map_err(|wrong| wrong.to_string())?;
        if !(1..=1_000).contains(&options.max_connections) {
            return Err("max_connections must be 1 to 1000".to_owned());
        }
        if options.connect_timeout.is_zero() || options.request_timeout.is_zero() {
            return Err("a timeout must be longer than nothing".to_owned());
        }
        let rules = AddressRules::of(url, &options.addresses);
        // The client asks the resolver for names only.
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if let Some(address) = literal {
            rules.check(address).map_err(|error| error.to_string())?;
        }
        // reqwest panics without a provider where it is built without one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err("no TLS crypto provider is installed in this process".to_owned());
        }
        let secure = url.scheme() == "https";
        let live = options.max_connections as usize;
        let mut builder = Client::builder()
            .user_agent(concat!("jit-broker/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            // A proxy from the environment would see every credential.
            .no_proxy()
            .referer(false)
            .https_only(secure)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .dns_resolver(Arc::new(CheckedNames { rules, lookup }))
            .http1_max_headers(RESPONSE_HEADERS)
            .http2_max_header_list_size(RESPONSE_HEADER_BYTES)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(live + REMOVAL_REQUESTS)
            .connect_timeout(options.connect_timeout);
        if let Some(pem) = &options.ca {
            builder = builder.tls_certs_only(certificates(pem)?);
        } else if !secure {
            // No TLS will be spoken: do not ask for the system's certificates, which a small
            // container does not have.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| {
            format!("cannot prepare the HTTP client (no system certificates? set `ca`): {}", describe(&error))
        })?;
        Ok(Self {
            base: options.url,
            client,
            credentials: Arc::new(Credentials::new(options.name.clone(), options.secrets, options.store)),
            live: Arc::new(Semaphore::new(live)),
            removal: Arc::new(Semaphore::new(REMOVAL_REQUESTS)),
            request_timeout: options.request_timeout,
            name: options.name,
        })
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The broker's own credentials there, and what plugins keep.
    pub(super) fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials)
    }

    /// The URL that requests are made below.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// A turn in the lane; waits as long as a request may take.
    pub(super) async fn turn(&self, lane: Lane) -> Result<OwnedSemaphorePermit, Failure> {
        let permits = match lane {
            Lane::Live => &self.live,
            Lane::Removal => &self.removal,
        };
        match tokio::time::timeout(self.request_timeout, Arc::clone(permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            // Never closed, so this is the deadline.
            Ok(Err(_)) | Err(_) => {
                let waited = self.request_timeout.as_millis();
                Err(Failure::NotSent(format!("no free connection of {} within {waited} ms", self.name)))
            }
        }
    }

    /// Sends a request and waits for the head of its answer. Within the caller's own deadline.
    pub(super) async fn head(&self, request: reqwest::Request) -> Result<reqwest::Response, Failure> {
        self.client.execute(request).await.map_err(|error| self.failure(&error.without_url()))
    }

    /// What an error of the client means.
    fn failure(&self, error: &reqwest::Error) -> Failure {
        let name = &self.name;
        if let Some(refused) = cause::<RefusedAddress>(error) {
            return Failure::Refused(refused.to_string());
        }
        if error.is_builder() {
            return Failure::Refused(format!("not a request that can be sent: {}", describe(error)));
        }
        if error.is_connect() {
            return Failure::NotSent(format!("cannot connect to {name}: {}", describe(error)));
        }
        Failure::Lost(lost(error))
    }
}

/// Words for an answer that broke off.
pub(super) fn lost(error: &reqwest::Error) -> String {
    format!("the connection was lost after sending: {}", describe(error))
}

fn check_url(url: &Url) -> Result<(), String> {
    match url.scheme() {
        "https" | "http" => {}
        _ => return Err("the URL must begin with https://".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL must not hold a user or a password: give them as secrets".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the URL must have no query and no fragment".to_owned());
    }
    Ok(())
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    if pem.len() > CA_BYTES {
        return Err(format!("the CA certificates have more than {CA_BYTES} bytes"));
    }
    // What is wrong inside is not quoted: somebody may have given a key's file.
    let certificates = Certificate::from_pem_bundle(pem).map_err(|_| "the CA is no PEM certificate".to_owned())?;
    if certificates.is_empty() {
        return Err("the CA has no PEM certificate in it".to_owned());
    }
    Ok(certificates)
}

/// The first cause of that type.
fn cause<E: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// The innermost cause: it says what happened, and has no URL.
fn describe(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    escape(&explained(&innermost.to_string(), Remedy::CONNECTION), MESSAGE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::net::SocketAddr;

    use super::*;

    fn options(url: &str) -> HttpConnectionOptions {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        HttpConnectionOptions {
            name: "vault".to_owned(),
            url: Url::parse(url).unwrap(),
            plaintext: false,
            // Some certificate is needed where the system has none: nothing is verified here.
            ca: Some(rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem().into_bytes()),
            addresses: Vec::new(),
            secrets: BTreeMap::new(),
            store: None,
            max_connections: 1,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
        }
    }

    fn resolving_to(address: &'static str) -> Lookup {
        Arc::new(move |_| Box::pin(async move { Ok(vec![SocketAddr::new(address.parse().unwrap(), 0)]) }))
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_refused_address_is_denied_before_anything_is_sent() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in ["127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254"] {
            let options = options(&format!("https://vault.example:{port}"));
            let connection = HttpConnection::with_lookup(options, resolving_to(address)).unwrap();
            let request = reqwest::Request::new(reqwest::Method::GET, connection.base().clone());
            let failure = connection.head(request).await.unwrap_err();
            assert!(matches!(&failure, Failure::Refused(text) if text.contains("addresses")), "{failure:?}");
        }
        // The name is the same; the address is listed now, and the connection is tried.
        let mut options = options(&format!("https://vault.example:{port}"));
        options.addresses = vec!["127.0.0.1".parse().unwrap()];
        let connection = HttpConnection::with_lookup(options, resolving_to("127.0.0.1")).unwrap();
        let request = reqwest::Request::new(reqwest::Method::GET, connection.base().clone());
        let (failure, accepted) = tokio::join!(connection.head(request), async {
            listener.accept().await.unwrap();
        });
        assert_eq!(accepted, ());
        assert!(matches!(failure, Err(Failure::NotSent(_))), "{failure:?}");
    }

    #[tokio::test]
    async fn localhost_is_this_machine_whatever_the_resolver_says() {
        let connection = HttpConnection::with_lookup(options("http://localhost:9"), resolving_to("10.0.0.1")).unwrap();
        let request = reqwest::Request::new(reqwest::Method::GET, connection.base().clone());
        let failure = connection.head(request).await.unwrap_err();
        assert!(matches!(&failure, Failure::Refused(text) if text.contains("10.0.0.1 is no loopback")), "{failure:?}");
    }
}
