//! A client of the broker's HTTP API that hides nothing from a test: status, headers, body.

use std::time::Duration;

use anyhow::Result;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// A client of one broker and its embedded issuer.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// `http://127.0.0.1:…`
    pub broker: String,
    /// `http://127.0.0.1:…`
    pub issuer: String,
}

/// A reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; `Null` where it is no JSON.
    pub json: Value,
    /// The body as it came.
    pub text: String,
}

impl Reply {
    /// `code` of a problem.
    #[must_use]
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or("")
    }

    /// A text field; empty when it is not there.
    #[must_use]
    pub fn text_at(&self, pointer: &str) -> &str {
        self.json.pointer(pointer).and_then(Value::as_str).unwrap_or("")
    }

    /// The lease's id.
    #[must_use]
    pub fn lease(&self) -> &str {
        self.text_at("/lease_id")
    }

    /// The account's name.
    #[must_use]
    pub fn username(&self) -> &str {
        self.text_at("/credential/username")
    }

    /// Its password.
    #[must_use]
    pub fn password(&self) -> &str {
        self.text_at("/credential/password")
    }
}

impl Client {
    /// A client.
    ///
    /// # Panics
    /// When the HTTP client cannot be made.
    #[must_use]
    pub fn new(broker: &str, issuer: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap_or_else(|error| panic!("no HTTP client: {error}"));
        Self { http, broker: broker.to_owned(), issuer: issuer.to_owned() }
    }

    /// A token of the embedded issuer for that workload.
    ///
    /// # Errors
    /// When the issuer does not answer.
    pub async fn token(&self, workload: &str) -> Result<String> {
        self.token_in("shop", workload).await
    }

    /// A token of a workload in a namespace.
    ///
    /// # Errors
    /// When the issuer does not answer.
    pub async fn token_in(&self, namespace: &str, workload: &str) -> Result<String> {
        let url = format!("{}/token?workload={workload}&namespace={namespace}", self.issuer);
        Ok(self.http.get(url).send().await?.error_for_status()?.text().await?.trim().to_owned())
    }

    /// A request to any URL, for what the other methods do not say.
    #[must_use]
    pub fn raw(&self) -> &reqwest::Client {
        &self.http
    }

    /// `POST /issue`.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn issue(&self, token: &str, body: &Value) -> Result<Reply> {
        self.post("/issue", token, body).await
    }

    /// `POST /issue` with an Idempotency-Key.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn issue_with_key(&self, token: &str, key: &str, body: &Value) -> Result<Reply> {
        let request = self.http.post(format!("{}/issue", self.broker)).bearer_auth(token);
        reply(request.header("idempotency-key", key).json(body)).await
    }

    /// Any POST with a JSON body.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Result<Reply> {
        reply(self.http.post(format!("{}{path}", self.broker)).bearer_auth(token).json(body)).await
    }

    /// Any GET.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn get(&self, path: &str, token: &str) -> Result<Reply> {
        reply(self.http.get(format!("{}{path}", self.broker)).bearer_auth(token)).await
    }

    /// The sum of a metric's series whose labels include all of these, as `name="value"`.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = self.http.get(format!("{}/metrics", self.broker)).send().await?.text().await?;
        Ok(text
            .lines()
            .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
            .filter(|line| matches!(line.as_bytes().get(name.len()), Some(b'{' | b' ')))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }
}

/// Sends a request and reads all of the reply.
///
/// # Errors
/// When there is no reply.
pub async fn reply(request: reqwest::RequestBuilder) -> Result<Reply> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await?;
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Ok(Reply { status, headers, json, text })
}
