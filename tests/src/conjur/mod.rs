//! A strict stand-in for a Conjur server, in this process, on loopback.
//!
//! No registry that the tests reach has Conjur's server. This one is built from its REST reference
//! and from the behaviour that its public test suite (`cucumber/api/features`) and controllers pin
//! down, for what the driver uses: two authenticators, variables with privileges, versions and
//! rotators. It is stricter where Conjur is lenient: an id must be one escaped segment of the path,
//! a login's body must have the right type, and the quotes of the token's header must be there.
//!
//! It notes each request as text without its secrets. `plugins/driver-conjur/fixtures` has what the
//! driver sends in the same form.

mod answers;
mod message;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Shared};
use axum::response::Response;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use serde_json::Value;

use message::Message;
use state::State;
pub use state::{JwtAuthenticator, Privilege};

/// The longest body that is read, in bytes.
const MAX_BODY: usize = 1 << 20;

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);

/// A running server. Dropped, it stops.
pub struct Conjur {
    url: String,
    authority: Option<String>,
    state: Arc<Mutex<State>>,
    handle: Handle<SocketAddr>,
}

impl Conjur {
    /// Starts one with this account on a free port, over plain HTTP.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(account: &str) -> Result<Self> {
        Self::serve(account, None, None).await
    }

    /// Starts one over TLS, with a certificate of an authority made for it.
    ///
    /// # Errors
    /// When it cannot listen, or the crypto library cannot make keys.
    pub async fn start_tls(account: &str) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = rcgen::KeyPair::generate()?;
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        authority.distinguished_name.push(rcgen::DnType::CommonName, "a strict Conjur's authority");
        let certificate = authority.self_signed(&key)?;
        let issuer = rcgen::Issuer::new(authority, key);
        let server_key = rcgen::KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = rcgen::CertificateParams::new(names)?.signed_by(&server_key, &issuer)?;
        let key = server_key.serialize_pem().into_bytes();
        let tls = RustlsConfig::from_pem(server.pem().into_bytes(), key).await?;
        Self::serve(account, Some(tls), Some(certificate.pem())).await
    }

    async fn serve(account: &str, tls: Option<RustlsConfig>, authority: Option<String>) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::new(account)));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state)).into_make_service();
        let handle = Handle::new();
        let scheme = if tls.is_some() { "https" } else { "http" };
        match tls {
            None => {
                let server = axum_server::from_tcp(listener)?.handle(handle.clone());
                tokio::spawn(server.serve(router));
            }
            Some(tls) => {
                let server = axum_server::from_tcp_rustls(listener, tls)?.handle(handle.clone());
                tokio::spawn(server.serve(router));
            }
        }
        let listening = tokio::time::timeout(START, handle.listening()).await.context("it does not listen in time")?;
        if listening.is_none() {
            bail!("it does not listen");
        }
        Ok(Self { url: format!("{scheme}://{address}"), authority, state, handle })
    }

    /// The base URL, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate to trust, as PEM; with TLS only.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// Makes a host (`jit-broker`), or gives it a new API key; gives the key.
    #[must_use = "the key is shown once"]
    pub fn host(&self, id: &str) -> String {
        self.state().host(id)
    }

    /// Has the JWT authenticator of that service id log in hosts.
    pub fn authenticator(&self, service: &str, authenticator: JwtAuthenticator) {
        self.state().authenticators.insert(service.to_owned(), authenticator);
    }

    /// Makes a variable without a value, and nobody may see it yet.
    pub fn variable(&self, id: &str) {
        self.state().variables.entry(id.to_owned()).or_default();
    }

    /// Gives a variable an annotation: `rotation/rotator` makes it rotate.
    pub fn annotate(&self, id: &str, name: &str, value: &str) {
        let mut state = self.state();
        let variable = state.variables.entry(id.to_owned()).or_default();
        variable.annotations.insert(name.to_owned(), value.to_owned());
    }

    /// Adds a version; gives its number.
    pub fn set(&self, id: &str, value: impl Into<Vec<u8>>) -> u64 {
        self.state().variables.entry(id.to_owned()).or_default().add(value.into(), None)
    }

    /// Lets a host do that with a variable.
    pub fn permit(&self, host: &str, id: &str, privileges: &[Privilege]) {
        self.state().permit(host, id, privileges);
    }

    /// Takes all privileges of a host on a variable.
    pub fn deny(&self, host: &str, id: &str) {
        self.state().deny(host, id);
    }

    /// Has so many seconds pass for its tokens.
    pub fn pass(&self, seconds: u64) {
        self.state().offset += seconds;
    }

    /// Signs with another key from here on: no token of before is taken.
    pub fn change_signing_key(&self) {
        self.state().tokens.clear();
    }

    /// From here on rotators run as soon as they are triggered; else only by [`Self::run_rotators`].
    pub fn rotate_at_once(&self, at_once: bool) {
        self.state().rotates_at_once = at_once;
    }

    /// One round of the rotators; gives the ids that were changed.
    #[must_use = "what was changed is what a test looks at"]
    pub fn run_rotators(&self) -> Vec<String> {
        self.state().run_rotators()
    }

    /// The latest value of a variable.
    #[must_use]
    pub fn value(&self, id: &str) -> Option<Vec<u8>> {
        Some(self.state().variables.get(id)?.versions.last()?.value.clone())
    }

    /// The number of the latest version.
    #[must_use]
    pub fn version(&self, id: &str) -> Option<u64> {
        Some(self.state().variables.get(id)?.versions.last()?.number)
    }

    /// Answers the next so many requests with this status and nothing else.
    pub fn fail_next(&self, count: usize, status: u16) {
        self.state().failures = (count, status);
    }

    /// Each request as text, in order, with `<api-key>`, `<jwt>`, `<token>` and `<value>` for what is
    /// secret.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Conjur {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(Shared(state): Shared<Arc<Mutex<State>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else { return status(413) };
    let Some(message) = Message::read(&head, &body) else { return status(400) };
    let mut state = lock(&state);
    let noted = message.noted();
    state.requests.push(noted);
    if state.failures.0 > 0 {
        state.failures.0 -= 1;
        return status(state.failures.1);
    }
    answers::answer(&mut state, &message)
}

/// An answer with nothing in it.
fn status(status: u16) -> Response {
    reply(status, &[], Vec::new())
}

/// Conjur's errors.
fn error(status: u16, code: &str, message: &str) -> Response {
    json(status, &serde_json::json!({"error": {"code": code, "message": message}}))
}

fn json(status: u16, body: &Value) -> Response {
    reply(status, &[("content-type", "application/json; charset=utf-8")], body.to_string().into_bytes())
}

fn reply(status: u16, headers: &[(&str, &str)], body: Vec<u8>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    // Statuses and headers are this module's own words.
    response.body(Body::from(body)).unwrap_or_default()
}
