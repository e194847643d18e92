//! An OIDC issuer for one's own machine, so that `jit-broker dev` needs no cluster.
//!
//! It gives a token for any workload to whoever asks, and so listens on loopback only. Its tokens
//! look like those of a Kubernetes service account, and the broker verifies them the way it
//! verifies any issuer's: by discovery and key set.
//!
//! ```text
//! TOKEN=$(curl -s 'http://127.0.0.1:8701/token?workload=payment-service&claim.tier=batch')
//! curl -s http://127.0.0.1:8701/token -H 'content-type: application/json' \
//!      -d '{"workload": "payment-service", "namespace": "shop", "claims": {"env": "prod"}}'
//! curl -s -X POST 'http://127.0.0.1:8701/rotate?drop=1'
//! ```

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jit_core::ttl::Ttl;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::{Mutex, RwLock};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// Retired keys that stay published, so that their tokens hold until they expire.
const MAX_RETIRED: usize = 8;
/// The longest life of a token.
const MAX_TTL_SECONDS: u32 = 24 * 3600;
/// The longest workload, namespace, pod, audience and env, in bytes.
const MAX_TEXT: usize = 253;
/// The largest request body, in bytes.
const MAX_BODY: usize = 8 * 1024;
/// Claims that the issuer sets itself.
const RESERVED: [&str; 8] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "kubernetes.io"];

/// What the dev issuer cannot do.
#[derive(Debug, thiserror::Error)]
pub enum DevIssuerError {
    /// It would hand out identities to the network.
    #[error("the dev issuer gives a token to whoever asks, so it only listens on loopback addresses, not on {0}")]
    NotLoopback(SocketAddr),
    /// The address is in use, for example.
    #[error("the dev issuer cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// [`DevIssuer::serve`] was called twice.
    #[error("the dev issuer is already serving")]
    AlreadyServing,
    /// The server stopped.
    #[error("the dev issuer stopped serving")]
    Serve(#[source] std::io::Error),
    /// The crypto library cannot make a key or a signature.
    #[error("the dev issuer cannot make a key or a signature")]
    Crypto,
    /// A token was asked for that it does not make.
    #[error("{0}")]
    Request(String),
}

/// What token to make. As JSON it is the body of `POST /token`. In the query of `GET /token` a claim is
/// `claim.NAME=TEXT`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The service account's name.
    pub workload: String,
    /// Its namespace: `default` unless given.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Its pod: `<workload>-dev` unless given.
    #[serde(default)]
    pub pod: Option<String>,
    /// Whom the token is for: `jit-broker` unless given.
    #[serde(default = "default_audience")]
    pub audience: String,
    /// How long it lives: `10m` unless given, at most a day.
    #[serde(default = "default_ttl")]
    pub ttl: Ttl,
    /// A claim `env`, if given.
    #[serde(default)]
    pub env: Option<String>,
    /// Further claims.
    #[serde(default)]
    pub claims: Map<String, Value>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn default_audience() -> String {
    "jit-broker".to_owned()
}

fn default_ttl() -> Ttl {
    // 600 is within Ttl's range; the fallback is never used and still a valid time.
    Ttl::from_seconds(600).unwrap_or(Ttl::MAX)
}

impl TokenRequest {
    /// A token for this workload, everything else as if not given.
    #[must_use]
    pub fn new(workload: impl Into<String>) -> Self {
        Self {
            workload: workload.into(),
            namespace: default_namespace(),
            pod: None,
            audience: default_audience(),
            ttl: default_ttl(),
            env: None,
            claims: Map::new(),
        }
    }

    fn check(&self) -> Result<(), DevIssuerError> {
        let texts = [
            ("workload", Some(&self.workload)),
            ("namespace", Some(&self.namespace)),
            ("pod", self.pod.as_ref()),
            ("audience", Some(&self.audience)),
            ("env", self.env.as_ref()),
        ];
        for (field, text) in texts {
            if text.is_some_and(|text| text.is_empty() || text.len() > MAX_TEXT) {
                let problem = format!("`{field}` must have 1 to {MAX_TEXT} bytes");
                return Err(DevIssuerError::Request(problem));
            }
        }
        if self.ttl.seconds() > MAX_TTL_SECONDS {
            return Err(DevIssuerError::Request("`ttl` must be at most \"1d\"".to_owned()));
        }
        if let Some(claim) = self.claims.keys().find(|claim| RESERVED.contains(&claim.as_str())) {
            let problem = format!("`claims` cannot set `{claim}`: the issuer sets it");
            return Err(DevIssuerError::Request(problem));
        }
        Ok(())
    }
}

struct SigningKey {
    kid: String,
    private: EncodingKey,
    public: Value,
}

impl SigningKey {
    fn generate() -> Result<Self, DevIssuerError> {
        let crypto = |_| DevIssuerError::Crypto;
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(crypto)?;
        let document = pair.to_pkcs8v1().map_err(crypto)?;
        // An uncompressed point: 4, then x and y of 32 bytes each.
        let point = pair.public_key().as_ref();
        let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else {
            return Err(DevIssuerError::Crypto);
        };
        let kid = hex::encode(rand::random::<[u8; 8]>());
        let public = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        });
        Ok(Self { kid, private: EncodingKey::from_ec_der(document.as_ref()), public })
    }
}

struct Keys {
    current: SigningKey,
    retired: Vec<Value>,
}

struct Inner {
    url: String,
    keys: RwLock<Keys>,
    listener: Mutex<Option<TcpListener>>,
}

/// The issuer; clones are the same one.
#[derive(Clone)]
pub struct DevIssuer(Arc<Inner>);

impl DevIssuer {
    /// Makes a key and listens, on a free port where `address` has port 0. Answers once
    /// [`DevIssuer::serve`] runs.
    ///
    /// # Errors
    /// [`DevIssuerError`]: not a loopback address, in use, or no key.
    pub async fn bind(address: SocketAddr) -> Result<(Self, SocketAddr), DevIssuerError> {
        if !address.ip().is_loopback() {
            return Err(DevIssuerError::NotLoopback(address));
        }
        let listen = |source| DevIssuerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let local = listener.local_addr().map_err(listen)?;
        let keys = Keys { current: SigningKey::generate()?, retired: Vec::new() };
        let inner =
            Inner { url: format!("http://{local}"), keys: RwLock::new(keys), listener: Mutex::new(Some(listener)) };
        Ok((Self(Arc::new(inner)), local))
    }

    /// The `iss` of its tokens, and where discovery begins.
    #[must_use]
    pub fn issuer_url(&self) -> &str {
        &self.0.url
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`DevIssuerError::Request`] says what is wrong with the request.
    pub fn mint(&self, request: &TokenRequest) -> Result<SecretString, DevIssuerError> {
        request.check()?;
        let now = Timestamp::now().as_second();
        let TokenRequest { workload, namespace, .. } = request;
        let pod = request.pod.clone().unwrap_or_else(|| format!("{workload}-dev"));
        let mut claims = request.claims.clone();
        if let Some(env) = &request.env {
            claims.insert("env".to_owned(), json!(env));
        }
        let registered = [
            ("iss", json!(self.0.url)),
            ("sub", json!(format!("system:serviceaccount:{namespace}:{workload}"))),
            ("aud", json!([request.audience])),
            ("iat", json!(now)),
            ("nbf", json!(now)),
            ("exp", json!(now + i64::from(request.ttl.seconds()))),
            ("jti", json!(hex::encode(rand::random::<[u8; 16]>()))),
            (
                "kubernetes.io",
                json!({
                    "namespace": namespace,
                    "serviceaccount": {"name": workload},
                    "pod": {"name": pod},
                }),
            ),
        ];
        claims.extend(registered.map(|(name, value)| (name.to_owned(), value)));

        let keys = self.0.keys.read();
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(keys.current.kid.clone());
        jsonwebtoken::encode(&header, &claims, &keys.current.private)
            .map(SecretString::from)
            .map_err(|_| DevIssuerError::Crypto)
    }

    /// Signs with a new key from now on. The old key stays in the key set, so that its tokens
    /// hold; with `drop_old` only the new one is published.
    ///
    /// # Errors
    /// [`DevIssuerError::Crypto`] when there is no new key; the old one stays.
    pub fn rotate(&self, drop_old: bool) -> Result<(), DevIssuerError> {
        let new = SigningKey::generate()?;
        let mut keys = self.0.keys.write();
        let old = std::mem::replace(&mut keys.current, new);
        if drop_old {
            keys.retired.clear();
        } else {
            keys.retired.insert(0, old.public);
            keys.retired.truncate(MAX_RETIRED);
        }
        Ok(())
    }

    /// Answers until `shutdown` ends, then finishes the requests under way.
    ///
    /// # Errors
    /// [`DevIssuerError::AlreadyServing`] at the second call.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), DevIssuerError> {
        let listener = self.0.listener.lock().take();
        let listener = listener.ok_or(DevIssuerError::AlreadyServing)?;
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(key_set))
            .route("/token", get(token_as_text).post(token_as_json))
            .route("/rotate", post(rotate))
            .layer(middleware::from_fn(refuse_browsers))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self);
        axum::serve(listener, router).with_graceful_shutdown(shutdown).await.map_err(DevIssuerError::Serve)
    }
}

impl IntoResponse for DevIssuerError {
    fn into_response(self) -> Response {
        let status = match self {
            DevIssuerError::Request(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({"error": self.to_string()}))).into_response()
    }
}

/// Web pages can reach loopback too: by a cross-site request (which has `Origin`) or by a DNS name
/// that they point here (which is then the `Host`). Neither is for them.
async fn refuse_browsers(headers: HeaderMap, request: Request, next: Next) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    if headers.contains_key(header::ORIGIN) || !host.is_some_and(loopback_host) {
        return DevIssuerError::Request("only for programs on this machine".to_owned()).into_response();
    }
    next.run(request).await
}

fn loopback_host(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

async fn discovery(State(issuer): State<DevIssuer>) -> Json<Value> {
    let url = issuer.issuer_url();
    Json(json!({
        "issuer": url,
        "jwks_uri": format!("{url}/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

/// The media type of a key set (RFC 7517 section 8.5).
const KEY_SET: &str = "application/jwk-set+json";

/// As strict as a Kubernetes API server: who does not take a key set's own media type gets 406, so that
/// what works here works in a cluster.
async fn key_set(State(issuer): State<DevIssuer>, headers: HeaderMap) -> Response {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let types =
        accept.iter().flat_map(|value| value.split(',')).map(|item| item.split(';').next().unwrap_or("").trim());
    if !accept.is_empty() && !types.into_iter().any(|accepted| [KEY_SET, "application/*", "*/*"].contains(&accepted)) {
        return (StatusCode::NOT_ACCEPTABLE, format!("the key set is {KEY_SET}\n")).into_response();
    }
    let keys = issuer.0.keys.read();
    let published: Vec<&Value> = std::iter::once(&keys.current.public).chain(&keys.retired).collect();
    ([(header::CONTENT_TYPE, KEY_SET)], json!({"keys": published}).to_string()).into_response()
}

/// A claim in a query begins with this.
const CLAIM: &str = "claim.";

/// The request that a query is: texts only, each once.
fn of_query(pairs: Vec<(String, String)>) -> Result<TokenRequest, DevIssuerError> {
    let (mut fields, mut claims) = (Map::new(), Map::new());
    for (name, value) in pairs {
        let (into, key) = match name.strip_prefix(CLAIM) {
            Some(claim) => (&mut claims, claim),
            None if name == "claims" => {
                let problem = "write each claim as claim.NAME=TEXT, or POST the request as JSON";
                return Err(DevIssuerError::Request(problem.to_owned()));
            }
            None => (&mut fields, name.as_str()),
        };
        if value.len() > MAX_TEXT || key.is_empty() || key.len() > MAX_TEXT {
            return Err(DevIssuerError::Request(format!("`{name}` and its value must have 1 to {MAX_TEXT} bytes")));
        }
        if into.insert(key.to_owned(), Value::String(value)).is_some() {
            return Err(DevIssuerError::Request(format!("`{name}` is given twice")));
        }
    }
    fields.insert("claims".to_owned(), Value::Object(claims));
    serde_json::from_value(Value::Object(fields)).map_err(|error| DevIssuerError::Request(error.to_string()))
}

async fn token_as_text(
    State(issuer): State<DevIssuer>,
    request: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, DevIssuerError> {
    let Query(pairs) = request.map_err(|e| DevIssuerError::Request(e.body_text()))?;
    let token = issuer.mint(&of_query(pairs)?)?;
    let body = format!("{}\n", token.expose_secret());
    Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
}

async fn token_as_json(
    State(issuer): State<DevIssuer>,
    request: Result<Json<TokenRequest>, JsonRejection>,
) -> Result<Response, DevIssuerError> {
    let Json(request) = request.map_err(|e| DevIssuerError::Request(e.body_text()))?;
    let token = issuer.mint(&request)?;
    let body = Json(json!({"token": token.expose_secret()}));
    Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
}

/// The query of `POST /rotate`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RotateRequest {
    /// `1` to withdraw the old keys.
    #[serde(default)]
    drop: u8,
}

async fn rotate(
    State(issuer): State<DevIssuer>,
    request: Result<Query<RotateRequest>, QueryRejection>,
) -> Result<Json<Value>, DevIssuerError> {
    let Query(request) = request.map_err(|e| DevIssuerError::Request(e.body_text()))?;
    issuer.rotate(request.drop != 0)?;
    let keys = issuer.0.keys.read();
    Ok(Json(json!({"kid": keys.current.kid, "published": 1 + keys.retired.len()})))
}
