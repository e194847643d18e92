//! Calls to Vault with the broker's token: logging in, keeping the token, logging in again when it
//! is no longer taken.
//!
//! The token is a handle. It is kept for the connection, because every lease of Vault's dies with
//! the token that made it: a login for each call would end the leases of the call before.

use jit_plugin::http::{self, Body, Method, Part, Request, Response};
use jit_plugin::{Error, Http, OwnedSecret, Secret};
use serde_json::{Value, json};

use crate::config::{AuthMethod, TargetConfig, segments};
use crate::failure;

/// Seconds that a kept token has to be valid for to be used. `maintain` renews it long before.
const MIN_LEFT: u64 = 10;

/// How long a token that never ends is kept at a time, in seconds.
const ENDLESS: u64 = 365 * 86_400;

/// One request, before the token.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Segments below `/v1/`.
    pub(crate) path: Vec<&'a str>,
    pub(crate) query: Vec<(&'a str, &'a str)>,
    pub(crate) body: Option<Value>,
    pub(crate) withhold: Vec<&'a str>,
    pub(crate) changes: bool,
    /// What the token's policy has to allow on the path.
    pub(crate) capabilities: &'static [&'static str],
}

impl<'a> Call<'a> {
    /// Reads.
    pub(crate) fn get(path: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            method: Method::Get,
            path: path.into_iter().collect(),
            query: Vec::new(),
            body: None,
            withhold: Vec::new(),
            changes: false,
            capabilities: &["read"],
        }
    }

    /// Writes or asks with a body.
    pub(crate) fn post(path: impl IntoIterator<Item = &'a str>, body: Value) -> Self {
        Self { method: Method::Post, body: Some(body), capabilities: &["update"], ..Self::get(path) }
    }

    /// Lists what is below a path. `?list=true` is the LIST verb for those who have only GET.
    pub(crate) fn list(path: impl IntoIterator<Item = &'a str>) -> Self {
        Self { query: vec![("list", "true")], capabilities: &["list", "sudo"], ..Self::get(path) }
    }

    /// The answer has a secret there.
    pub(crate) fn withholding(mut self, pointer: &'a str) -> Self {
        self.withhold.push(pointer);
        self
    }

    /// It may change an account or a lease.
    pub(crate) fn changing(mut self) -> Self {
        self.changes = true;
        self
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        self.path.join("/")
    }

    /// The line that the token's policy has to have.
    pub(crate) fn policy_hint(&self) -> String {
        // A policy speaks of a list with a slash at its end.
        let slash = if self.query.is_empty() { "" } else { "/" };
        format!("the broker's policy needs {}", policy_line(&format!("{}{slash}", self.shown()), self.capabilities))
    }

    fn request<'r>(&'r self, config: &'r TargetConfig, token: Secret<'r>) -> Request<'r> {
        let mut request = self.bare(config).header("X-Vault-Token", [Part::Secret(token)]);
        if let Some(body) = &self.body {
            request = request.body(Body::Json(body.clone(), Vec::new()));
        }
        request
    }

    fn bare<'r>(&'r self, config: &'r TargetConfig) -> Request<'r> {
        // Without this header an agent in front of Vault refuses (server-side request forgery).
        let mut request = Request::new(self.method, std::iter::once("v1").chain(self.path.iter().copied()))
            .header("X-Vault-Request", [Part::Text("true")]);
        if let Some(namespace) = &config.namespace {
            request = request.header("X-Vault-Namespace", [Part::Text(namespace)]);
        }
        if config.forward_to_active_node {
            request = request.header("X-Vault-Forward", [Part::Text("active-node")]);
        }
        request.query.extend(&self.query);
        request.withhold.extend(&self.withhold);
        request.changes = self.changes;
        request
    }
}

/// A line of a policy, to be copied.
pub(crate) fn policy_line(path: &str, capabilities: &[&str]) -> String {
    let capabilities: Vec<String> = capabilities.iter().map(|capability| format!("\"{capability}\"")).collect();
    format!("`path \"{path}\" {{ capabilities = [{}] }}`", capabilities.join(", "))
}

/// A new token.
pub(crate) struct Login {
    pub(crate) token: OwnedSecret,
    /// Seconds.
    pub(crate) valid_for: u64,
}

/// What a token says of itself.
#[derive(Debug)]
pub(crate) struct TokenState {
    /// Seconds that it has left; 0 is a token that never ends.
    pub(crate) left: u64,
    /// Seconds that it has when it is new or just renewed.
    pub(crate) full: u64,
    /// Each renewal gives the full time again, without an end.
    pub(crate) is_periodic: bool,
    pub(crate) is_renewable: bool,
}

/// Vault as one call of the driver sees it.
pub(crate) struct Vault<'c> {
    http: &'c mut dyn Http,
    config: &'c TargetConfig,
    token: Option<OwnedSecret>,
    /// The token was made by this very call: a refusal is not its age.
    is_fresh: bool,
}

impl<'c> Vault<'c> {
    pub(crate) fn new(http: &'c mut dyn Http, config: &'c TargetConfig) -> Self {
        Self { http, config, token: None, is_fresh: false }
    }

    /// Sends with the broker's token and gives a success, or the failure by what the host has to do.
    pub(crate) fn call(&mut self, call: &Call<'_>) -> Result<Response, Error> {
        let response = self.send(call)?;
        if (200..300).contains(&response.status) { Ok(response) } else { Err(failure::of(call, &response)) }
    }

    /// Sends with the broker's token and gives the answer, whatever its status. Where Vault no
    /// longer takes a kept token, a new login and one more attempt.
    pub(crate) fn send(&mut self, call: &Call<'_>) -> Result<Response, Error> {
        let response = self.send_once(call)?;
        // Vault says 403 both for a token that is gone and for a policy that lacks a line. A token
        // that is good must not be left: it would no longer be renewed, and its leases die with it.
        let may_be_gone = response.status == 403 && !self.is_fresh && self.config.auth.method != AuthMethod::Token;
        if !may_be_gone || self.state_of_token()?.is_some() {
            return Ok(response);
        }
        self.forget();
        self.send_once(call)
    }

    fn send_once(&mut self, call: &Call<'_>) -> Result<Response, Error> {
        let token = match self.token.take() {
            Some(token) => token,
            None => self.a_token()?,
        };
        let sent = self.http.send(&call.request(self.config, token.borrow()));
        self.token = Some(token);
        sent.map_err(|error| failure::of_sending(call, error))
    }

    /// The kept token, or a new one.
    fn a_token(&mut self) -> Result<OwnedSecret, Error> {
        if self.config.auth.method == AuthMethod::Token {
            return self.credential();
        }
        if let Some(kept) = self.http.kept(&key(self.config), MIN_LEFT) {
            return Ok(kept);
        }
        // Of several calls that log in at once, one token holds. The others end by themselves.
        let token = self.log_in(MIN_LEFT)?.token;
        self.is_fresh = true;
        Ok(token)
    }

    /// The token that is kept, however little it is valid for; none when there is none.
    pub(crate) fn kept(&mut self) -> Option<OwnedSecret> {
        self.http.kept(&key(self.config), 0)
    }

    /// Moves the end of the token in use.
    pub(crate) fn keep_for(&mut self, valid_for: u64) {
        if let Some(token) = &self.token {
            // Another call's new login stays: it is there because this one was no longer taken.
            // Where it is no longer kept, there is nothing to move.
            let _ = self.http.keep(&key(self.config), token.borrow(), valid_for, 0);
        }
    }

    /// Works with that token from here on.
    pub(crate) fn work_with(&mut self, token: OwnedSecret) {
        self.token = Some(token);
        self.is_fresh = true;
    }

    /// Forgets the token in use, which Vault does not take, and logs in unless another call has.
    pub(crate) fn replace_gone(&mut self) -> Result<Login, Error> {
        self.forget();
        self.log_in(MIN_LEFT)
    }

    fn forget(&mut self) {
        if let Some(gone) = self.token.take() {
            self.http.forget(&key(self.config), gone.borrow());
        }
    }

    /// The credential of the connection's `secrets` table, as it is now.
    pub(crate) fn credential(&mut self) -> Result<OwnedSecret, Error> {
        // A file that is being replaced is there again in a moment.
        self.http.credential(&self.config.auth.secret).map_err(Error::retryable)
    }

    /// Logs in and keeps the token, unless another call has kept one meanwhile that is valid for
    /// longer than `unless_valid_for` seconds.
    pub(crate) fn log_in(&mut self, unless_valid_for: u64) -> Result<Login, Error> {
        let auth = &self.config.auth;
        let credential = self.credential()?;
        let (member, value) = auth.login_as();
        let secret_member = if auth.method == AuthMethod::Approle { "secret_id" } else { "jwt" };
        let pointer = format!("/{secret_member}");
        let mut path = vec!["auth"];
        path.extend(segments(auth.mount()));
        path.push("login");
        let call = Call::post(path, Value::Null).withholding("/auth/client_token");
        let body = json!({ member: value, secret_member: "" });
        let request =
            call.bare(self.config).body(Body::Json(body, vec![(&pointer, Part::Secret(credential.borrow()))]));
        let sent = self.http.send(&request);
        let mut response = sent.map_err(|error| failure::of_sending(&call, error))?;
        match response.status {
            200 => {}
            400..=404 => {
                let words = failure::words(&response);
                return Err(Error::Refused(format!("{} as {member} {value}: {words}", call.shown())));
            }
            _ => return Err(failure::of(&call, &response)),
        }
        let token = response.withheld.pop().flatten();
        let token = token.ok_or_else(|| Error::Refused(format!("{}: the login gave no token", call.shown())))?;
        let valid_for = match response.json()?.pointer("/auth/lease_duration").and_then(Value::as_u64) {
            None | Some(0) => ENDLESS,
            Some(seconds) => seconds,
        };
        // A token that is not kept is not renewed: its leases would end with it, without a word.
        let kept = self.http.keep(&key(self.config), token.borrow(), valid_for, unless_valid_for);
        let token = kept.map_err(|reason| Error::Refused(format!("the token of a login cannot be kept: {reason}")))?;
        Ok(Login { token, valid_for })
    }

    /// What the token in use says of itself; none when Vault does not take it.
    pub(crate) fn state_of_token(&mut self) -> Result<Option<TokenState>, Error> {
        // The answer repeats the token.
        let call = Call::get(["auth", "token", "lookup-self"]).withholding("/data/id");
        let response = self.send_once(&call)?;
        match response.status {
            200 => {}
            // A gateway's 403 says nothing of the token, which is not left: its leases would end with it.
            403 if failure::is_vaults(&response) => return Ok(None),
            403 => return Err(failure::not_vaults(&call, &response)),
            _ => return Err(failure::of(&call, &response)),
        }
        let body = response.json().unwrap_or_default();
        if !body.get("data").is_some_and(Value::is_object) {
            return Err(failure::not_vaults(&call, &response));
        }
        let number = |member: &str| body.pointer(member).and_then(Value::as_u64).unwrap_or(0);
        let period = number("/data/period");
        Ok(Some(TokenState {
            left: number("/data/ttl"),
            full: period.max(number("/data/creation_ttl")),
            is_periodic: period > 0,
            is_renewable: body.pointer("/data/renewable").and_then(Value::as_bool).unwrap_or(false),
        }))
    }
}

/// Where the token is kept. Targets that share a connection share it too, where they log in alike: with
/// another secret they are somebody else to Vault.
pub(crate) fn key(config: &TargetConfig) -> String {
    let (member, value) = config.auth.login_as();
    let namespace = config.namespace.as_deref().unwrap_or_default();
    http::key("token", &[namespace, config.auth.mount(), member, value, &config.auth.secret])
}
