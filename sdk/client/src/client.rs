//! The broker's HTTP API, as an application needs it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use jit_api::{
    Code, CredentialType, IssueReply, IssueRequest, LeaseView, Length, Problem, ProblemCode, RenewRequest, TargetView,
};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use secrecy::zeroize::Zeroizing;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::backoff::{Bursts, Schedule};
use crate::clock::{Clock, SystemClock, broker_time};
use crate::credential::{Credential, Lease, Seen, credential};
use crate::error::{Error, chain};
use crate::own::{Asked, CredentialChoice, Known, Offer, may_ask_for_a_password};
use crate::token::{TokenSource, bearer};

/// The most bytes of an answer that are read.
const MOST_ANSWER: usize = 256 * 1024;
/// How much of a detail is shown: an answer may come from anything between us and the broker.
const MOST_DETAIL: usize = 1_000;

/// A client of one broker. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    base: Url,
    token: TokenSource,
    clock: Arc<dyn Clock>,
    choice: CredentialChoice,
    /// What targets offer.
    known: Known,
}

/// Ties attempts together: all with the same key get the same account, with the same password.
#[derive(Clone)]
pub struct IdempotencyKey {
    text: String,
    /// What the attempts ask for, once the first has found out what the target takes.
    asked: Arc<Mutex<Option<Asked>>>,
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IdempotencyKey").field(&self.text).finish()
    }
}

impl PartialEq for IdempotencyKey {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for IdempotencyKey {}

impl IdempotencyKey {
    /// A new one, of 128 random bits.
    #[must_use]
    pub fn generate() -> Self {
        Self { text: format!("jit-client-{:032x}", rand::random::<u128>()), asked: Arc::default() }
    }

    /// As it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn asked(&self) -> Option<Asked> {
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn ask_for(&self, asked: Asked) -> Asked {
        *self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(asked.clone());
        asked
    }
}

/// How long a start tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchOptions {
    /// No attempt begins after it, and one that runs is cut off.
    pub patience: Duration,
    /// How attempts are spaced.
    pub schedule: Schedule,
}

impl Default for FetchOptions {
    /// Two minutes.
    fn default() -> Self {
        Self { patience: Duration::from_secs(120), schedule: Schedule::default() }
    }
}

/// Settings of a [`Client`].
#[derive(Clone)]
pub struct ClientBuilder {
    broker: String,
    token: Option<TokenSource>,
    ca_file: Option<PathBuf>,
    allow_plaintext: bool,
    connect_timeout: Duration,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    choice: CredentialChoice,
}

impl ClientBuilder {
    /// Where the workload's token comes from.
    #[must_use]
    pub fn token(mut self, source: TokenSource) -> Self {
        self.token = Some(source);
        self
    }

    /// The only authorities for the broker's certificate, as PEM. Without it, the system's.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Allows `http://` to other machines: for a mesh whose proxy beside us does the TLS.
    #[must_use]
    pub fn allow_plaintext(mut self, allow: bool) -> Self {
        self.allow_plaintext = allow;
        self
    }

    /// How long a connection may take to open; 5 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one attempt may take; 30 s by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Which type of credential is asked for; by default the client makes passwords where it can.
    #[must_use]
    pub fn credential(mut self, choice: CredentialChoice) -> Self {
        self.choice = choice;
        self
    }

    /// Another clock than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The client. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Config`] when a setting is wrong.
    pub fn build(self) -> Result<Client, Error> {
        let base = base_url(&self.broker, self.allow_plaintext)?;
        let token =
            self.token.ok_or_else(|| Error::Config("no token source: say where the workload's token is".into()))?;
        // Where the application has chosen a provider, it stays; reqwest needs one in any case.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(self.connect_timeout)
            .timeout(self.timeout)
            .pool_max_idle_per_host(1)
            // Long enough for a burst, too short to be found dead at the next renewal.
            .pool_idle_timeout(Duration::from_secs(5))
            .user_agent(concat!("jit-client/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &self.ca_file {
            http = http.tls_certs_only(authorities(path)?);
        } else if base.scheme() == "http" {
            // There is nothing to verify; reading the system's authorities takes longer than a request.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|error| Error::Config(format!("no HTTP client: {}", chain(&error))))?;
        let (clock, choice, known) = (self.clock, self.choice, Known::default());
        Ok(Client { inner: Arc::new(Inner { http, base, token, clock, choice, known }) })
    }
}

fn base_url(broker: &str, allow_plaintext: bool) -> Result<Url, Error> {
    let wrong = |why: &str| Error::Config(format!("the broker's URL {broker:?} {why}"));
    let url = Url::parse(broker).map_err(|error| wrong(&format!("is none: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("must begin with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::Config("the broker's URL must not hold a user name or password".to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
        return Err(wrong("must end after the port"));
    }
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(wrong("has no host")),
    };
    if url.scheme() == "https" || loopback || allow_plaintext {
        return Ok(url);
    }
    Err(wrong(
        "is not https: tokens and passwords would cross the network in clear. Use https, or allow plaintext where \
         something on this machine does the TLS",
    ))
}

fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>, Error> {
    let wrong = |why: String| Error::Config(format!("the CA file {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(chain(&error)))?;
    if found.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

impl Client {
    /// Settings for a client of the broker at a URL, such as `https://broker.example.com:8700`.
    #[must_use]
    pub fn builder(broker: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            broker: broker.into(),
            token: None,
            ca_file: None,
            allow_plaintext: false,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            clock: Arc::new(SystemClock),
            choice: CredentialChoice::default(),
        }
    }

    /// The clock it goes by.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.clock)
    }

    /// A credential, tried for at most two minutes: for an application's start.
    ///
    /// # Errors
    /// What no retry betters, at once; [`Error::GaveUp`] when time is over.
    pub async fn fetch(&self, request: &IssueRequest) -> Result<Credential, Error> {
        self.fetch_with(request, FetchOptions::default()).await
    }

    /// A credential, tried as long as the options say.
    ///
    /// # Errors
    /// As [`Client::fetch`].
    pub async fn fetch_with(&self, request: &IssueRequest, options: FetchOptions) -> Result<Credential, Error> {
        self.fetch_until(request, options, std::future::pending()).await
    }

    /// A credential, tried as long as the options say, and until `stop` is done: no attempt begins after it. One that
    /// is under way is not cut off, since the broker may have made an account for it already: its answer is
    /// returned, and whoever has stopped gives the credential back.
    ///
    /// # Errors
    /// As [`Client::fetch`]; [`Error::Closed`] when it was stopped and there is nothing to give back.
    pub async fn fetch_until(
        &self,
        request: &IssueRequest,
        options: FetchOptions,
        stop: impl Future<Output = ()>,
    ) -> Result<Credential, Error> {
        let mut key = IdempotencyKey::generate();
        let begun = self.inner.clock.steady();
        let elapsed = || self.inner.clock.steady().saturating_sub(begun);
        let mut bursts = Bursts::new(options.schedule);
        let mut attempts = 0;
        let mut last = None;
        let mut stop = std::pin::pin!(stop);
        let mut stopped = false;
        loop {
            let left = options.patience.saturating_sub(elapsed());
            let answer = {
                let mut attempt = std::pin::pin!(tokio::time::timeout(left, self.issue(request, &key)));
                tokio::select! {
                    biased;
                    answer = &mut attempt => answer,
                    () = &mut stop, if !stopped => {
                        stopped = true;
                        attempt.await
                    }
                }
            };
            let Ok(answer) = answer else {
                let last = last.unwrap_or_else(|| Error::Unreachable {
                    broker: self.inner.base.to_string(),
                    reason: "it took too long".to_owned(),
                });
                return Err(Error::GaveUp { attempts: attempts + 1, after: elapsed(), last: Box::new(last) });
            };
            attempts += 1;
            let error = match answer {
                Ok(credential) => return Ok(credential),
                Err(error) if error.is(ProblemCode::LeaseNotActive) => {
                    // The account that an earlier attempt made has gone meanwhile.
                    key = IdempotencyKey::generate();
                    error
                }
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => error,
            };
            if stopped {
                return Err(Error::Closed);
            }
            let wait = bursts.failed(error.retry_after(), false).wait;
            if elapsed() + wait >= options.patience {
                return Err(Error::GaveUp { attempts, after: elapsed(), last: Box::new(error) });
            }
            tracing::warn!(
                error = error.chain(),
                "no credential of {} yet, next attempt in {wait:.1?}",
                request.target
            );
            last = Some(error);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = &mut stop => return Err(Error::Closed),
            }
        }
    }

    /// One attempt at `POST /issue`. Where the client makes the password, the first attempt asks the broker beforehand what
    /// the target takes, unless it knows that from a request of the last minutes.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_transient`] tells whether to try again, with the same key.
    pub async fn issue(&self, request: &IssueRequest, key: &IdempotencyKey) -> Result<Credential, Error> {
        let asked = match key.asked() {
            Some(asked) => asked,
            None => key.ask_for(self.choose(request).await?),
        };
        match self.issue_as(request, key, asked.clone()).await {
            Err(error)
                if asked.is_own() && self.inner.choice == CredentialChoice::Auto && may_ask_for_a_password(&error) =>
            {
                self.inner.known.put(request, self.inner.clock.steady(), None);
                tells_fallback(request, &error.chain());
                self.issue_as(request, key, key.ask_for(Asked::Password)).await
            }
            answer => answer,
        }
    }

    async fn issue_as(&self, request: &IssueRequest, key: &IdempotencyKey, asked: Asked) -> Result<Credential, Error> {
        let body = asked.request(request);
        let (seen, reply): (_, IssueReply) = self.ask(Method::POST, &["issue"], Some(key), Some(&body)).await?;
        let credential = credential(reply, seen, asked.password());
        credential.map_err(|reason| Error::Answer { broker: self.inner.base.to_string(), reason })
    }

    /// Whether the client makes the password.
    async fn choose(&self, request: &IssueRequest) -> Result<Asked, Error> {
        let Inner { choice, known, clock, .. } = &*self.inner;
        match &request.credential {
            Some(asked) if asked.kind == CredentialType::Password => return Ok(Asked::Password),
            Some(_) => {
                let reason = "the client makes verifiers itself: leave `credential` out of the request";
                return Err(Error::Config(reason.to_owned()));
            }
            None if *choice == CredentialChoice::Password => return Ok(Asked::Password),
            None => {}
        }
        let offer = match known.get(request, clock.steady()) {
            Some(offer) => offer,
            None => match self.target(request).await {
                Ok(view) => {
                    let offer = Offer::of(&view);
                    known.put(request, clock.steady(), offer);
                    if offer.is_none() && *choice == CredentialChoice::Auto {
                        tells_fallback(request, "the target takes no verifier that this client makes");
                    }
                    offer
                }
                // The request itself will be refused for the same reason, or it says more than was asked here.
                Err(error) if *choice == CredentialChoice::Auto && !error.is_transient() && is_of_request(&error) => {
                    tells_fallback(request, &error.chain());
                    None
                }
                Err(error) => return Err(error),
            },
        };
        match offer {
            Some(offer) => Asked::made(offer).await,
            None if *choice == CredentialChoice::Verifier => {
                let reason = format!("{} takes no verifier that this client makes", request.target);
                Err(Error::Config(reason))
            }
            None => Ok(Asked::Password),
        }
    }

    /// What may be asked of the request's target in its role.
    ///
    /// # Errors
    /// [`Error`]; a caller that would get nothing is refused as its request would be.
    pub async fn target(&self, request: &IssueRequest) -> Result<TargetView, Error> {
        let given = [("role", &request.role), ("reason", &request.reason), ("ticket", &request.ticket)];
        let query: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
        let path = ["v1", "targets", &request.target];
        let (_, view) = self.ask_with(Method::GET, &path, &query, None, None::<&()>).await?;
        Ok(view)
    }

    /// One attempt at a later expiry of the same account.
    ///
    /// # Errors
    /// [`Error`]; `lease-not-active`, `unknown-lease` and `invalid-request` mean that only a new account helps.
    pub async fn renew(&self, lease_id: &str, ttl: Option<Length>) -> Result<Lease, Error> {
        let body = RenewRequest { ttl };
        self.ask_lease(Method::POST, &["v1", "leases", lease_id, "renew"], Some(&body)).await
    }

    /// A lease of one's own.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn lease(&self, lease_id: &str) -> Result<Lease, Error> {
        self.ask_lease(Method::GET, &["v1", "leases", lease_id], None::<&()>).await
    }

    async fn ask_lease<B: Serialize>(&self, method: Method, path: &[&str], body: Option<&B>) -> Result<Lease, Error> {
        let (seen, view): (Seen, LeaseView) = self.ask(method, path, None, body).await?;
        Ok(Lease { view, seen: Some(seen) })
    }

    pub(crate) async fn ask<B: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        key: Option<&IdempotencyKey>,
        body: Option<&B>,
    ) -> Result<(Seen, A), Error> {
        self.ask_with(method, path, &[], key, body).await
    }

    async fn ask_with<B: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        key: Option<&IdempotencyKey>,
        body: Option<&B>,
    ) -> Result<(Seen, A), Error> {
        let Inner { http, base, token, clock, .. } = &*self.inner;
        let token = bearer(&token.token().await?)?;
        let mut url = base.clone();
        // Segment by segment: an id from a file cannot become another path.
        url.path_segments_mut()
            .map_err(|()| Error::Config("the broker's URL has no path".into()))?
            .clear()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = http.request(method, url).header(reqwest::header::AUTHORIZATION, token);
        if let Some(key) = key {
            request = request.header("idempotency-key", key.as_str());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let unreachable = |error: reqwest::Error| Error::Unreachable {
            broker: base.to_string(),
            reason: chain(&error.without_url()),
        };
        let response = request.send().await.map_err(unreachable)?;
        let seen = Seen { steady: clock.steady(), broker: broker_time(date(response.headers()), clock.wall()) };
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = bounded(response, base).await?;
        if !status.is_success() {
            return Err(Error::Refused(Box::new(problem(status, &headers, &bytes))));
        }
        let answer = serde_json::from_slice(&bytes).map_err(|error| {
            // Where it is, not what is there: the answer may hold a password.
            let reason = format!("it cannot be read at line {} column {}", error.line(), error.column());
            Error::Answer { broker: base.to_string(), reason }
        })?;
        Ok((seen, answer))
    }
}

/// Whether the broker refused for what stands in the request.
fn is_of_request(error: &Error) -> bool {
    error.problem().is_some_and(|problem| matches!(problem.status, 400 | 403 | 404 | 405))
}

/// The log says whenever the broker knows a password that it need not know.
fn tells_fallback(request: &IssueRequest, reason: &str) {
    tracing::info!(target_db = request.target, reason, "the broker makes the password, not this client");
}

async fn bounded(mut response: reqwest::Response, base: &Url) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut bytes = Zeroizing::new(Vec::new());
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() <= MOST_ANSWER => bytes.extend_from_slice(&chunk),
            Ok(Some(_)) => {
                let reason = format!("it is longer than {MOST_ANSWER} bytes");
                return Err(Error::Answer { broker: base.to_string(), reason });
            }
            Ok(None) => return Ok(bytes),
            Err(error) => {
                return Err(Error::Unreachable { broker: base.to_string(), reason: chain(&error.without_url()) });
            }
        }
    }
}

/// A refusal, whoever made it: a proxy's page is shortened, and its control characters go.
fn problem(status: StatusCode, headers: &HeaderMap, bytes: &[u8]) -> Problem {
    let mut problem = serde_json::from_slice::<Problem>(bytes).unwrap_or_else(|_| Problem {
        code: Code::Other("not-a-problem".to_owned()),
        detail: String::from_utf8_lossy(bytes).into_owned(),
        ..Problem::default()
    });
    problem.status = status.as_u16();
    let code = match &mut problem.code {
        Code::Known(_) => None,
        Code::Other(word) => Some(word),
    };
    let given = [code, problem.policy.as_mut(), problem.field.as_mut(), problem.lease_id.as_mut()];
    let texts = [&mut problem.kind, &mut problem.title, &mut problem.detail, &mut problem.request_id];
    for text in given.into_iter().flatten().chain(texts) {
        *text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_DETAIL).collect();
    }
    if problem.detail.trim().is_empty() {
        problem.detail = status.canonical_reason().unwrap_or("no reason given").to_owned();
    }
    if let Some(seconds) = retry_after(headers) {
        problem.retry_after_seconds = Some(seconds);
    }
    problem
}

/// Seconds, or a date (RFC 9110) measured against the answer's own.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let at = http_date(text)?.as_second();
    let now = date(headers).unwrap_or_else(Timestamp::now).as_second();
    Some(u64::try_from(at - now).unwrap_or(0))
}

fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
