//! What the clients of a storm ask, and what they know afterwards: each secret that they hold, each lease that they
//! gave back. What must hold for one lease at once is checked here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::diary::Diary;
use crate::database::Database;
use crate::http::{self, Reply};
use crate::issuer::{Issuer, Key};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a login may take.
const LOGIN: Duration = Duration::from_secs(10);
/// So close to a lease's end a login proves nothing.
const CLOSE: Duration = Duration::from_secs(1);
/// The target that all ask for.
pub const TARGET: &str = "inventory_db";
/// The workload that may have [`MOST`] leases at once.
pub const FEW: &str = "payment-few";
/// How many leases [`FEW`] may have at once.
pub const MOST: usize = 3;

/// A credential that a client holds.
#[derive(Clone)]
pub struct Held {
    /// The lease's id.
    pub lease: String,
    /// The workload that has it.
    pub workload: String,
    /// The account's name.
    pub username: String,
    password: SecretString,
    /// The end that the client was told last.
    pub expires_at: Timestamp,
}

/// How a request for an account ended.
pub enum Issued {
    /// With a credential.
    Got(Held),
    /// Without one, and nothing of it is still under way.
    Refused,
    /// Without one; something of it may still happen.
    Unclear,
}

impl Issued {
    /// The credential, if there is one.
    #[must_use]
    pub fn held(self) -> Option<Held> {
        match self {
            Self::Got(held) => Some(held),
            Self::Refused | Self::Unclear => None,
        }
    }
}

/// What all clients know together.
#[derive(Default)]
pub struct Known {
    /// Each lease whose secret a client got, with the account's name.
    pub disclosed: BTreeMap<String, String>,
    /// Each lease that was revoked with 200, with its workload.
    pub revoked: BTreeMap<String, String>,
    /// Credentials that are to be good at the end.
    pub kept: Vec<Held>,
    /// The leases that each Idempotency-Key was answered with.
    pub keys: BTreeMap<String, Vec<String>>,
}

/// What a client asks with: shared by all of them.
pub struct Asker {
    /// What the clients know.
    known: Mutex<Known>,
    /// Where answers are counted.
    pub diary: Arc<Diary>,
    http: reqwest::Client,
    database: Database,
    issuer: Issuer,
    key: Key,
}

impl Asker {
    /// For a target, with tokens of that issuer.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(database: Database, issuer: Issuer, key: Key, diary: Arc<Diary>) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { known: Mutex::default(), diary, http, database, issuer, key })
    }

    /// What the clients know.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fresh token of a workload.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn token(&self, workload: &str) -> Result<String> {
        self.key.token(&self.issuer.claims(workload))
    }

    /// A request for an account. The key, where there is one, is its ticket too: so it is on record.
    #[must_use]
    pub fn body(ttl: Duration, key: Option<&str>) -> Value {
        let mut body = json!({"target": TARGET, "ttl": ttl.as_secs()});
        if let Some(key) = key {
            body["ticket"] = key.into();
        }
        body
    }

    /// `POST /issue` at a broker.
    ///
    /// # Errors
    /// When no token can be made.
    pub async fn issue(&self, url: &str, workload: &str, ttl: Duration, key: Option<&str>) -> Result<Issued> {
        let request = self.http.post(format!("{url}/issue")).bearer_auth(self.token(workload)?);
        let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
        let asked = match key {
            Some(_) => "issue with a key",
            None if workload == FEW => "issue under a quota",
            None => "issue",
        };
        let Some(reply) = self.send(asked, request.json(&Self::body(ttl, key))).await else {
            return Ok(Issued::Unclear);
        };
        match (reply.status, reply.code()) {
            (201, _) => {}
            (403 | 409, _) | (_, "overloaded") => return Ok(Issued::Refused),
            _ => return Ok(Issued::Unclear),
        }
        let Ok(expires_at) = reply.text_at("/expires_at").parse() else {
            self.diary.broken("answers that are no answers", format!("{} without an end", reply.lease()));
            return Ok(Issued::Unclear);
        };
        let held = Held {
            lease: reply.lease().to_owned(),
            workload: workload.to_owned(),
            username: reply.username().to_owned(),
            password: reply.password().to_owned().into(),
            expires_at,
        };
        let mut known = self.known();
        known.disclosed.insert(held.lease.clone(), held.username.clone());
        if let Some(key) = key {
            let leases = known.keys.entry(key.to_owned()).or_default();
            if !leases.contains(&held.lease) {
                leases.push(held.lease.clone());
            }
        }
        Ok(Issued::Got(held))
    }

    /// Gives a lease back, at any broker. Where that was answered with 200, the account is gone at once.
    ///
    /// # Errors
    /// When no token can be made.
    pub async fn revoke(&self, url: &str, held: &Held) -> Result<()> {
        let path = format!("{url}/v1/leases/{}/revoke", held.lease);
        let request = self.http.post(path).bearer_auth(self.token(&held.workload)?).json(&json!({}));
        let Some(reply) = self.send("revoke", request).await else { return Ok(()) };
        if reply.status == 200 {
            self.known().revoked.insert(held.lease.clone(), held.workload.clone());
            if matches!(self.login(held).await, Login::In) {
                self.diary.broken("logins after a revoke", format!("{} was revoked with 200", held.lease));
            }
        }
        Ok(())
    }

    /// Renews a lease, at any broker. Returns whether it has a later end now.
    ///
    /// # Errors
    /// When no token can be made.
    pub async fn renew(&self, url: &str, held: &mut Held, ttl: Duration) -> Result<bool> {
        let path = format!("{url}/v1/leases/{}/renew", held.lease);
        let request = self.http.post(path).bearer_auth(self.token(&held.workload)?);
        let Some(reply) = self.send("renew", request.json(&json!({"ttl": ttl.as_secs()}))).await else {
            return Ok(false);
        };
        match reply.text_at("/expires_at").parse::<Timestamp>() {
            Ok(later) if reply.status == 200 => {
                held.expires_at = later;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Asks a broker for a lease that was revoked with 200, and for its renewal: both must be refused.
    ///
    /// # Errors
    /// When no token can be made, or the broker does not answer.
    pub async fn must_be_refused(&self, url: &str, lease: &str, workload: &str) -> Result<()> {
        let token = self.token(workload)?;
        let path = format!("{url}/v1/leases/{lease}");
        let found = http::reply(self.http.get(&path).bearer_auth(&token)).await?;
        let renewed = self.http.post(format!("{path}/renew")).bearer_auth(&token).json(&json!({"ttl": "1m"}));
        let renewed = http::reply(renewed).await?;
        let over = found.status == 404 || found.json["state"] == "revoked";
        if !over || !matches!((renewed.status, renewed.code()), (409, "lease-not-active") | (404, "unknown-lease")) {
            let how = format!("{lease} at {url}: {} {}, renewal {}", found.status, found.json["state"], renewed.status);
            self.diary.broken("revoked leases that a broker takes", how);
        }
        Ok(())
    }

    /// Logs in with a secret whose lease is live.
    pub async fn must_log_in(&self, held: &Held, when: &str) {
        let live = || Timestamp::now() + CLOSE < held.expires_at;
        if !live() {
            return;
        }
        match self.login(held).await {
            Login::In => self.diary.logged_in(true),
            Login::NoAnswer => self.diary.logged_in(false),
            Login::Refused(why) if live() => {
                let how = format!("{} ({}, until {}) {when}: {why}", held.lease, held.username, held.expires_at);
                self.diary.broken("secrets that do not work", how);
            }
            Login::Refused(_) => {}
        }
    }

    async fn login(&self, held: &Held) -> Login {
        let login = self.database.login(&held.username, held.password.expose_secret());
        match timeout(LOGIN, login).await {
            Ok(Ok(_)) => Login::In,
            Ok(Err(sqlx::Error::Database(error))) if error.code().is_some_and(|code| code.starts_with("28")) => {
                Login::Refused(error.message().to_owned())
            }
            Ok(Err(_)) | Err(_) => Login::NoAnswer,
        }
    }

    /// Sends a request and counts its answer. Each must be one that a fault explains.
    async fn send(&self, asked: &str, request: reqwest::RequestBuilder) -> Option<Reply> {
        let Ok(reply) = http::reply(request).await else {
            self.diary.answered(asked, "no answer");
            return None;
        };
        let answer = format!("{} {}", reply.status, reply.code());
        self.diary.answered(asked, answer.trim());
        let fits = match (asked, reply.status) {
            (_, 502..=504) | ("renew", 200) | ("revoke", 200 | 202) => true,
            (_, 201) => asked.starts_with("issue"),
            ("issue under a quota", 403) => reply.code() == "policy-denied",
            // A key, or a renewal, of a lease that is over.
            ("issue with a key" | "renew", 409) => reply.code() == "lease-not-active",
            _ => false,
        };
        if !fits {
            self.diary.broken("answers without a reason", format!("{asked}: {}", reply.text));
        }
        Some(reply)
    }
}

enum Login {
    In,
    Refused(String),
    NoAnswer,
}
