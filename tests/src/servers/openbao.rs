//! OpenBao by its HTTP API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::Value;

use crate::http::{Reply, reply};
use crate::surroundings;

/// A client with a token.
#[derive(Clone)]
pub struct OpenBao {
    http: reqwest::Client,
    url: String,
    authority: Option<PathBuf>,
    token: String,
}

impl OpenBao {
    /// The suite's server, as root.
    ///
    /// # Errors
    /// When its authority cannot be read.
    pub fn of_the_suite() -> Result<Self> {
        let authority = surroundings("JIT_TEST_OPENBAO_CA");
        Self::new(&surroundings("JIT_TEST_OPENBAO"), Some(authority.as_ref()), &surroundings("JIT_TEST_OPENBAO_TOKEN"))
    }

    /// A server at a URL without a path, trusted only if that authority signed its certificate.
    ///
    /// # Errors
    /// When the authority cannot be read.
    pub fn new(url: &str, authority: Option<&Path>, token: &str) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
        if let Some(authority) = authority {
            let pem = std::fs::read(authority).with_context(|| format!("cannot read {}", authority.display()))?;
            http = http.https_only(true).tls_certs_only([reqwest::Certificate::from_pem(&pem)?]);
        }
        let authority = authority.map(Path::to_owned);
        Ok(Self { http: http.build()?, url: url.to_owned(), authority, token: token.to_owned() })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Who signed its certificate.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// The same server with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// One request, `path` without `/v1/`; `Null` sends no body.
    ///
    /// # Errors
    /// When there is no answer; a refusal is one.
    pub async fn request(&self, method: Method, path: &str, body: &Value) -> Result<Reply> {
        let mut request = self.http.request(method, format!("{}/v1/{path}", self.url));
        if !self.token.is_empty() {
            request = request.header("x-vault-token", &self.token);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        reply(request).await
    }

    /// Writes, and expects that it is taken.
    ///
    /// # Errors
    /// When it is not.
    pub async fn write(&self, path: &str, body: &Value) -> Result<Value> {
        let reply = self.request(Method::POST, path, body).await?;
        ensure!((200..300).contains(&reply.status), "{path}: {} {}", reply.status, reply.text);
        Ok(reply.json)
    }
}
