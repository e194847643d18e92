//! Discovery and key set over HTTP. What comes back is untrusted until it is checked here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jit_files::read_authorities;
use reqwest::{Certificate, Client, StatusCode, redirect};
use secrecy::zeroize::Zeroize as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use super::config::JwtIssuerConfig;
use super::key_set::{KeyList, KeySetError};
use super::url::{KeyUrl, KeyUrlError};
use crate::error::IdentityError;

/// The largest discovery document and key set, in bytes. 256 RSA keys of 4096 bits with a certificate
/// each are 750 KiB.
const MAX_BODY: usize = 1024 * 1024;
/// What a key set is asked for as. The first is its own type (RFC 7517 section 8.5), and the only one
/// that a Kubernetes API server has: it answers 406 to who does not take it. The second is what most
/// others send.
const KEY_SET_TYPES: &str = "application/jwk-set+json, application/json;q=0.9";
/// What a discovery document is asked for as (OpenID Connect Discovery section 4.2).
const DISCOVERY_TYPES: &str = "application/json";
/// The largest bearer token file, in bytes.
const MAX_BEARER: u64 = 16 * 1024;
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("cannot reach {host}")]
    Transport {
        host: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{host} answered {status}{hint}")]
    Status { host: String, status: StatusCode, hint: &'static str },
    #[error("{host} sent more than {MAX_BODY} bytes")]
    TooLarge { host: String },
    #[error("the discovery document is not JSON with `issuer` and `jwks_uri`")]
    Discovery,
    #[error("the discovery document is of another issuer than configured")]
    OtherIssuer,
    #[error("the discovery document's jwks_uri cannot be used: {0}")]
    JwksUri(KeyUrlError),
    #[error("the discovery document's jwks_uri is not an https address")]
    PlainJwksUri,
    #[error(transparent)]
    KeySet(#[from] KeySetError),
    #[error("cannot read the bearer token file")]
    Bearer(#[source] std::io::Error),
    #[error("no answer within {} s", .0.as_secs_f32())]
    Deadline(Duration),
}

/// Where an issuer's keys come from.
enum Source {
    /// The discovery document, which must be of exactly this issuer.
    Discovery { url: KeyUrl, issuer: String },
    /// The key set itself.
    KeySet(KeyUrl),
}

/// Where a bearer token may be sent: scheme, host and port of the address that the operator wrote.
/// What an issuer's discovery document says is the issuer's word, and the token is not the issuer's.
type Origin = ::url::Origin;

/// An issuer's addresses and the client for them.
pub(super) struct KeyEndpoint {
    client: Client,
    source: Source,
    bearer: Option<PathBuf>,
    bearer_for: Origin,
    allow_http_loopback: bool,
}

impl KeyEndpoint {
    /// Makes the client. `config` has been checked.
    pub(super) fn new(config: &JwtIssuerConfig, allow_http_loopback: bool) -> Result<Self, IdentityError> {
        let name = || config.name.clone();
        let source = match &config.jwks_url {
            Some(url) => Source::KeySet(url.clone()),
            None => {
                let url = config.issuer.discovery().map_err(|error| IdentityError::Field {
                    name: name(),
                    field: "issuer",
                    problem: error.to_string(),
                })?;
                Source::Discovery { url, issuer: config.issuer.as_str().to_owned() }
            }
        };

        // reqwest panics without a provider where it is built without one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(IdentityError::NoTlsProvider);
        }
        let mut builder = Client::builder()
            .user_agent(concat!("jit-broker/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            // A proxy from the environment would decide which keys the broker believes.
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(1)
            .connect_timeout(CONNECT_DEADLINE);
        let (Source::Discovery { url: configured, .. } | Source::KeySet(configured)) = &source;
        let (plain, bearer_for) = (configured.is_plain(), configured.url().origin());
        if let Some(path) = &config.ca {
            builder = builder.tls_certs_only(certificates(path).map_err(|problem| IdentityError::Ca {
                name: name(),
                path: path.clone(),
                problem,
            })?);
        } else if plain {
            // No TLS will be spoken: do not ask for the system's certificates, which a small
            // container does not have.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|source| IdentityError::Client { name: name(), source })?;
        let bearer = config.bearer_token_file.clone();
        Ok(Self { client, source, bearer, bearer_for, allow_http_loopback })
    }

    /// Fetches the keys: one or two requests, all within `deadline`. Redirects are not followed: whoever
    /// could answer with one would decide where the keys come from. `jwks_url` names another place.
    pub(super) async fn fetch(&self, deadline: Duration) -> Result<KeyList, FetchError> {
        tokio::time::timeout(deadline, self.fetch_unbounded()).await.unwrap_or(Err(FetchError::Deadline(deadline)))
    }

    async fn fetch_unbounded(&self) -> Result<KeyList, FetchError> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let keys_url = match &self.source {
            Source::KeySet(url) => url.clone(),
            Source::Discovery { url, issuer } => {
                let document = self.get(url, DISCOVERY_TYPES).await?;
                let document: Discovery =
                    serde_json::from_slice(without_mark(&document)).map_err(|_| FetchError::Discovery)?;
                if document.issuer != *issuer {
                    return Err(FetchError::OtherIssuer);
                }
                let url = KeyUrl::parse(&document.jwks_uri).map_err(FetchError::JwksUri)?;
                if url.is_plain() && !self.allow_http_loopback {
                    return Err(FetchError::PlainJwksUri);
                }
                url
            }
        };
        Ok(KeyList::read(without_mark(&self.get(&keys_url, KEY_SET_TYPES).await?))?)
    }

    async fn get(&self, url: &KeyUrl, types: &'static str) -> Result<Vec<u8>, FetchError> {
        let url = url.url();
        let host = || url.host_str().unwrap_or_default().to_owned();
        let transport = |source: reqwest::Error| FetchError::Transport { host: host(), source: source.without_url() };
        let mut request = self.client.get(url.clone()).header("accept", types);
        let trusted = url.origin() == self.bearer_for;
        if let Some(path) = self.bearer.as_ref().filter(|_| trusted) {
            let token = bearer(path).await.map_err(FetchError::Bearer)?;
            request = request.bearer_auth(token.expose_secret());
        }
        let mut response = request.send().await.map_err(transport)?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            return Err(FetchError::Status { host: host(), status, hint: self.hint(status, trusted) });
        }
        // Counted while it comes: a Content-Length is only a claim.
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(FetchError::TooLarge { host: host() });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl KeyEndpoint {
    /// What an operator can do about such an answer.
    fn hint(&self, status: StatusCode, trusted: bool) -> &'static str {
        match status {
            status if status.is_redirection() => {
                "; redirects are not followed: write the key set's own address as `jwks_url`"
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.bearer.is_none() => {
                "; where it wants to know who asks, set `bearer_token_file`"
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !trusted => {
                "; the bearer token is sent only to the issuer's own host and port: if this is the same server, write \
                 `jwks_url` with the issuer's host, such as \"https://kubernetes.default.svc/openid/v1/jwks\""
            }
            _ => "",
        }
    }
}

/// A document without the byte order mark that some servers put before it.
fn without_mark(document: &[u8]) -> &[u8] {
    document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document)
}

async fn bearer(path: &PathBuf) -> std::io::Result<SecretString> {
    let mut text = String::new();
    tokio::fs::File::open(path).await?.take(MAX_BEARER).read_to_string(&mut text).await?;
    let token = SecretString::from(text.trim());
    text.zeroize();
    Ok(token)
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, String> {
    let pem = read_authorities(path).map_err(|error| error.to_string())?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("no PEM certificate in it".to_owned());
    }
    Ok(certificates)
}
