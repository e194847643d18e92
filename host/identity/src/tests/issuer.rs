//! An issuer whose every answer a test can spoil, and which counts what it is asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use aws_lc_rs::{hmac, rand};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::{
    Evidence, Identity, IdentityError, IdentityOptions, IssuerUrl, JwtIssuer, JwtIssuerConfig, Method, Unverified,
};

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A key of the issuer.
pub(super) struct Key {
    pub(super) kid: String,
    algorithm: &'static str,
    pair: Pair,
}

impl Key {
    pub(super) fn new(kid: &str, algorithm: &'static str) -> Self {
        let pair = match algorithm {
            "RS256" | "PS256" => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
            "ES256" => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            "ES384" => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()),
            "EdDSA" => Pair::Ed(Ed25519KeyPair::generate().unwrap()),
            other => panic!("no test key for {other}"),
        };
        Self { kid: kid.to_owned(), algorithm, pair }
    }

    /// As published.
    pub(super) fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": b64(public.n), "e": b64(public.e)})
            }
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
            }
            Pair::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key())})
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["alg"] = json!(self.algorithm);
        jwk["use"] = json!("sig");
        jwk
    }

    /// The public key as a PEM file has it: what the HS256 confusion signs with.
    pub(super) fn public_pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_der().unwrap(),
            Pair::Ec(pair) => pair.public_key().as_der().unwrap(),
            Pair::Ed(pair) => pair.public_key().as_der().unwrap(),
        };
        let text = STANDARD.encode(der.as_ref());
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let padding: &dyn aws_lc_rs::signature::RsaEncoding =
                    if self.algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &rng, message, &mut signature).unwrap();
                signature
            }
            Pair::Ec(pair) => pair.sign(&rng, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with the usual header.
    pub(super) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm, "typ": "JWT", "kid": self.kid}), claims)
    }

    /// A token with any header, signed with this key whatever the header says.
    pub(super) fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.sign_parts(header.to_string(), claims.to_string())
    }

    /// A token of any bytes.
    pub(super) fn sign_parts(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        let message = format!("{}.{}", b64(header), b64(claims));
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", b64(signature))
    }
}

/// A token signed with a shared secret.
pub(super) fn hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", b64(tag))
}

/// How the issuer answers.
#[derive(Clone)]
pub(super) enum Mode {
    /// As it should.
    Well,
    /// Accepts the request and never answers.
    Hang,
    /// With the key set of when it was asked, as soon as there is a permit.
    Gate(Arc<Semaphore>),
    /// With 500.
    Error,
    /// With 401 for the key set.
    Unauthorized,
    /// To another address, where the right answer would be.
    Redirect,
    /// With half of the right answer.
    Truncated,
    /// With a key set of exactly these bytes.
    Keys(Vec<u8>),
    /// With this discovery document.
    Discovery(Value),
    /// With a key set of this many bytes, sent in pieces.
    Endless(usize),
}

struct Shared {
    url: String,
    mode: Mutex<Mode>,
    keys: Mutex<Vec<Value>>,
    discoveries: AtomicUsize,
    key_fetches: AtomicUsize,
    authorization: Mutex<Option<String>>,
}

/// A running issuer; stops when dropped.
pub(super) struct Issuer {
    pub(super) address: SocketAddr,
    pub(super) key: Key,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Issuer {
    /// On a free port, with one ES256 key `k1`.
    pub(super) async fn start() -> Self {
        Self::start_with(Key::new("k1", "ES256")).await
    }

    pub(super) async fn start_with(key: Key) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, key)
    }

    /// On an address where one was before.
    pub(super) async fn start_again(address: SocketAddr, key: Key) -> Self {
        Self::serve(TcpListener::bind(address).await.unwrap(), key)
    }

    fn serve(listener: TcpListener, key: Key) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            url: format!("http://{address}"),
            mode: Mutex::new(Mode::Well),
            keys: Mutex::new(vec![key.jwk()]),
            discoveries: AtomicUsize::new(0),
            key_fetches: AtomicUsize::new(0),
            authorization: Mutex::new(None),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, key, shared, task }
    }

    pub(super) fn url(&self) -> String {
        self.shared.url.clone()
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// What the key set has from now on.
    pub(super) fn publish(&self, keys: Vec<Value>) {
        *self.shared.keys.lock().unwrap() = keys;
    }

    /// Requests so far, of either kind.
    pub(super) fn requests(&self) -> usize {
        self.shared.discoveries.load(Ordering::SeqCst) + self.key_fetches()
    }

    /// Requests for the key set so far.
    pub(super) fn key_fetches(&self) -> usize {
        self.shared.key_fetches.load(Ordering::SeqCst)
    }

    /// The last request's `Authorization`.
    pub(super) fn authorization(&self) -> Option<String> {
        self.shared.authorization.lock().unwrap().clone()
    }

    /// Claims of a good token.
    pub(super) fn claims(&self) -> Value {
        let now = Timestamp::now().as_second();
        json!({
            "iss": self.url(), "sub": "system:serviceaccount:shop:payment", "aud": ["jit-broker"],
            "iat": now, "nbf": now, "exp": now + 600, "jti": rand_hex(), "env": "test",
            "kubernetes.io": {
                "namespace": "shop", "serviceaccount": {"name": "payment"}, "pod": {"name": "payment-7"},
            },
        })
    }

    /// A good token, different each time.
    pub(super) fn token(&self) -> String {
        self.key.token(&self.claims())
    }

    /// The entry that trusts this issuer.
    pub(super) fn config(&self) -> JwtIssuerConfig {
        let mut entry = config("cluster", &self.url(), "jit-broker", "{kubernetes.io.serviceaccount.name}");
        let attributes = [
            ("k8s_namespace", "kubernetes.io.namespace"),
            ("k8s_pod", "kubernetes.io.pod.name"),
            ("env", "env"),
            ("absent", "nothing"),
        ];
        // More than an entry accepts by itself: tests sign with every kind of key.
        let algorithms = ["RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA"];
        entry.algorithms = algorithms.map(|name| name.parse().unwrap()).into();
        entry.attributes = attributes.map(|(name, path)| (name.to_owned(), path.parse().unwrap())).into();
        entry
    }

    pub(super) fn identity(&self) -> Identity {
        identity(vec![self.config()], &options())
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn rand_hex() -> String {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).unwrap();
    hex::encode(bytes)
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: axum::http::HeaderMap) -> Response {
    let discovery = uri.path() == "/.well-known/openid-configuration";
    let counter = if discovery { &shared.discoveries } else { &shared.key_fetches };
    counter.fetch_add(1, Ordering::SeqCst);
    *shared.authorization.lock().unwrap() =
        headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let right = if discovery {
        json!({"issuer": shared.url, "jwks_uri": format!("{}/keys", shared.url)})
    } else {
        json!({"keys": *shared.keys.lock().unwrap()})
    };
    let kind = if discovery { "application/json" } else { "application/jwk-set+json" };
    // As strict as a Kubernetes API server, which has one type for each.
    let accept = headers.get("accept").map_or("*/*", |value| value.to_str().unwrap());
    let accepted = accept.split(',').map(|item| item.split(';').next().unwrap().trim());
    if !accepted.into_iter().any(|accepted| [kind, "application/*", "*/*"].contains(&accepted)) {
        return axum::http::StatusCode::NOT_ACCEPTABLE.into_response();
    }
    let right = right.to_string();
    let mode = shared.mode.lock().unwrap().clone();
    match mode {
        Mode::Hang => std::future::pending().await,
        Mode::Gate(gate) if !discovery => {
            let _permit = gate.acquire().await.unwrap();
            right.into_response()
        }
        Mode::Error => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mode::Unauthorized if !discovery => axum::http::StatusCode::UNAUTHORIZED.into_response(),
        Mode::Redirect if uri.query().is_none() => {
            let location = format!("{}{}?again", shared.url, uri.path());
            (axum::http::StatusCode::FOUND, [("location", location)]).into_response()
        }
        Mode::Truncated => right[..right.len() / 2].to_owned().into_response(),
        Mode::Keys(bytes) if !discovery => bytes.into_response(),
        Mode::Discovery(document) if discovery => document.to_string().into_response(),
        Mode::Endless(bytes) if !discovery => {
            let piece = vec![b' '; 16 * 1024];
            let pieces = futures_util::stream::iter(
                (0..bytes / piece.len()).map(move |_| Ok::<_, std::io::Error>(piece.clone())),
            );
            Body::from_stream(pieces).into_response()
        }
        _ => right.into_response(),
    }
}

pub(super) fn config(name: &str, issuer: &str, audience: &str, workload: &str) -> JwtIssuerConfig {
    let issuer = IssuerUrl::parse(issuer).unwrap();
    JwtIssuerConfig::new(name.to_owned(), issuer, vec![audience.to_owned()], workload.parse().unwrap())
}

/// The defaults, but for http on loopback and no pause after a failure.
pub(super) fn options() -> IdentityOptions {
    let mut options = IdentityOptions { allow_http_loopback: true, ..Default::default() };
    options.keys.retry_floor = Duration::ZERO;
    options
}

pub(super) fn identity(issuers: Vec<JwtIssuerConfig>, options: &IdentityOptions) -> Identity {
    try_identity(issuers, options).unwrap()
}

pub(super) fn try_identity(
    issuers: Vec<JwtIssuerConfig>,
    options: &IdentityOptions,
) -> Result<Identity, IdentityError> {
    let methods = issuers.into_iter().map(|config| method(config, options)).collect::<Result<_, _>>()?;
    Identity::new(methods, options)
}

pub(super) fn method(config: JwtIssuerConfig, options: &IdentityOptions) -> Result<Arc<dyn Method>, IdentityError> {
    // The first test to come installs it, as `main` does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(Arc::new(JwtIssuer::new(config, options)?))
}

pub(super) fn bearer(token: &str) -> Vec<Evidence> {
    vec![Evidence::Bearer(Unverified::from_header(&format!("Bearer {token}")).unwrap())]
}
