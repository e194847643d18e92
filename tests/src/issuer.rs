//! A token issuer of the test's own, for tokens that the embedded one does not make.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A signing key.
pub struct Key {
    /// Its name.
    pub kid: String,
    /// The public part, as the key set shows it.
    pub public: Value,
    /// The public part as bytes: what anybody could use as the secret of a symmetric signature.
    pub point: Vec<u8>,
    private: EncodingKey,
}

impl Key {
    /// A new key of curve P-256.
    ///
    /// # Errors
    /// When the crypto library cannot make one.
    pub fn generate(kid: &str) -> Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let point = pair.public_key().as_ref().to_vec();
        let private = EncodingKey::from_ec_der(pair.to_pkcs8v1()?.as_ref());
        let coordinate = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let public = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
            "x": coordinate(&point[1..33]), "y": coordinate(&point[33..65]),
        });
        Ok(Self { kid: kid.to_owned(), public, point, private })
    }

    /// A token with the usual header.
    ///
    /// # Errors
    /// When the crypto library cannot sign.
    pub fn token(&self, claims: &Value) -> Result<String> {
        self.sign(&json!({"alg": "ES256", "typ": "JWT", "kid": self.kid}), claims)
    }

    /// A token with any header; the signature is this key's, whatever the header says.
    ///
    /// # Errors
    /// When the crypto library cannot sign.
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String> {
        let message = message(header, claims);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, Algorithm::ES256)?;
        Ok(format!("{message}.{signature}"))
    }
}

/// Header and claims of a token, without a signature.
#[must_use]
pub fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// The issuer: discovery and key set over HTTP, while the test's runtime lives.
pub struct Issuer {
    /// `http://127.0.0.1:…`, the `iss` of its tokens.
    pub url: String,
    published: Arc<Mutex<Vec<Value>>>,
}

impl Issuer {
    /// Serves on a free port, with these keys published.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(keys: &[&Key]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let issuer = Self { url: format!("http://{}", listener.local_addr()?), published: Arc::default() };
        issuer.publish(keys);
        let (url, published) = (issuer.url.clone(), Arc::clone(&issuer.published));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let keys = published.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A caller that hangs up has no answer, and the next one is served.
                let _ = answer(stream, &url, &keys).await;
            }
        });
        Ok(issuer)
    }

    /// From now on these keys are published and no others.
    pub fn publish(&self, keys: &[&Key]) {
        let keys = keys.iter().map(|key| key.public.clone()).collect();
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Claims of a good token of a workload, for ten minutes.
    #[must_use]
    pub fn claims(&self, workload: &str) -> Value {
        let now = now();
        json!({"iss": self.url, "sub": workload, "aud": ["jit-broker"], "iat": now, "nbf": now, "exp": now + 600})
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether a request with that head takes a reply of that media type.
fn accepts(head: &str, kind: &str) -> bool {
    let accept = head.lines().filter_map(|line| line.split_once(':'));
    let accept: Vec<&str> = accept
        .filter(|(name, _)| name.eq_ignore_ascii_case("accept"))
        .flat_map(|(_, value)| value.split(','))
        .collect();
    let types = accept.iter().map(|item| item.split(';').next().unwrap_or_default().trim());
    accept.is_empty() || types.into_iter().any(|accepted| [kind, "application/*", "*/*"].contains(&accepted))
}

async fn answer(mut stream: TcpStream, url: &str, keys: &[Value]) -> Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut bytes = [0; 4_096];
        let read = stream.read(&mut bytes).await?;
        anyhow::ensure!(read > 0 && head.len() < 64 * 1024, "no request");
        head.extend_from_slice(&bytes[..read]);
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).context("no path")?;
    let (kind, body) = match path {
        "/.well-known/openid-configuration" => {
            ("application/json", json!({"issuer": url, "jwks_uri": format!("{url}/jwks")}))
        }
        "/jwks" => ("application/jwk-set+json", json!({"keys": keys})),
        _ => ("application/json", json!(null)),
    };
    // As strict as a Kubernetes API server, which has one type for each and says 406 to who does not take it.
    let (status, body) =
        if accepts(&head, kind) { ("200 OK", body.to_string()) } else { ("406 Not Acceptable", String::new()) };
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: ");
    stream.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    Ok(stream.shutdown().await?)
}
