//! Requests to Conjur with the broker's token: logging in, keeping the token, logging in again when
//! it is no longer taken.

use jit_plugin::http::{self, Body, Method, Part, Request, Response};
use jit_plugin::{Error, Http, OwnedSecret};
use serde_json::Value;

use crate::config::{AuthMethod, TargetConfig};
use crate::failure::{self, Asked};

/// How long a token is kept, in seconds: Conjur takes it for 480.
const LIFE: u64 = 470;

/// Seconds that a kept token has to be valid for to be used: a call and its retries end within.
const MIN_LEFT: u64 = 60;

/// Conjur as one call of the driver sees it.
pub(crate) struct Conjur<'c> {
    pub(crate) http: &'c mut dyn Http,
    pub(crate) config: &'c TargetConfig,
    token: Option<OwnedSecret>,
    /// The token was made by this very call: a refusal is not its age.
    is_fresh: bool,
}

/// A request, before the token.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) request: Request<'a>,
    pub(crate) asked: Asked<'a>,
}

impl<'c> Conjur<'c> {
    pub(crate) fn new(http: &'c mut dyn Http, config: &'c TargetConfig) -> Self {
        Self { http, config, token: None, is_fresh: false }
    }

    /// Sends with the broker's token and gives the answer, whatever its status. Where Conjur no
    /// longer takes a kept token, a new login and one more attempt.
    pub(crate) fn send(&mut self, call: &Call<'_>) -> Result<Response, Error> {
        let response = self.send_once(call)?;
        if response.status != 401 || self.is_fresh {
            return Ok(response);
        }
        if let Some(old) = self.token.take() {
            self.http.forget(&self.key(), old.borrow());
        }
        self.send_once(call)
    }

    /// The same, with every status but a success as the failure that it is.
    pub(crate) fn call(&mut self, call: &Call<'_>) -> Result<Response, Error> {
        let response = self.send(call)?;
        if (200..300).contains(&response.status) { Ok(response) } else { Err(failure::of(call.asked, &response)) }
    }

    fn send_once(&mut self, call: &Call<'_>) -> Result<Response, Error> {
        let token = match self.token.take() {
            Some(token) => token,
            None => self.a_token()?,
        };
        // Conjur's scheme wants the quotes.
        let value = [Part::Text("Token token=\""), Part::Secret(token.borrow()), Part::Text("\"")];
        let sent = self.http.send(&call.request.clone().header("Authorization", value));
        self.token = Some(token);
        sent.map_err(|error| failure::of_sending(call.asked, error))
    }

    /// The kept token, or a new one.
    fn a_token(&mut self) -> Result<OwnedSecret, Error> {
        let key = self.key();
        if let Some(kept) = self.http.kept(&key, MIN_LEFT) {
            return Ok(kept);
        }
        let token = self.log_in()?;
        self.is_fresh = true;
        // Of several calls that log in at once, one token holds. The others end by themselves.
        // Nothing depends on it: where it cannot be kept, each call logs in.
        Ok(self.http.keep(&key, token.borrow(), LIFE, MIN_LEFT).unwrap_or(token))
    }

    /// The token in use, as something that the host can keep a note under.
    pub(crate) fn token(&mut self) -> Result<OwnedSecret, Error> {
        self.a_token()
    }

    fn log_in(&mut self) -> Result<OwnedSecret, Error> {
        let auth = &self.config.auth;
        let login = auth.login.as_deref();
        let mut path = match auth.method {
            AuthMethod::ApiKey => vec!["authn", self.config.account.as_str()],
            AuthMethod::Jwt => vec!["authn-jwt", auth.service.as_deref().unwrap_or_default(), &self.config.account],
        };
        path.extend(login);
        path.push("authenticate");
        // A file that is being replaced is there again in a moment.
        let credential = self.http.credential(&auth.secret).map_err(Error::retryable)?;
        let body = match auth.method {
            AuthMethod::ApiKey => Body::Text(vec![Part::Secret(credential.borrow())]),
            AuthMethod::Jwt => Body::Form(vec![("jwt", Part::Secret(credential.borrow()))]),
        };
        // In this encoding the token comes as the header wants it.
        let request =
            Request::new(Method::Post, path).header("Accept-Encoding", [Part::Text("base64")]).body(body).withhold("");
        let what = format!("logging in to account {} as {}", self.config.account, login.unwrap_or("the token says"));
        let asked = Asked { what: &what, privilege: "authenticate", changes: false };
        let mut response = self.http.send(&request).map_err(|error| failure::of_sending(asked, error))?;
        match response.status {
            200 => {}
            // The whole answer is withheld: there is no more to say.
            status @ 400..=404 => return Err(Error::Refused(format!("{what}: refused (status {status})"))),
            _ => return Err(failure::of(asked, &response)),
        }
        response.withheld.pop().flatten().ok_or_else(|| Error::Refused(format!("{what}: the answer has no token")))
    }

    /// Where the token is kept. Targets that share a connection share it too, where they log in alike.
    fn key(&self) -> String {
        key(self.config)
    }
}

/// See [`Conjur::key`].
pub(crate) fn key(config: &TargetConfig) -> String {
    let auth = &config.auth;
    let parts = [auth.service.as_deref(), Some(&config.account), auth.login.as_deref(), Some(&auth.secret)];
    http::key("token", &parts.map(Option::unwrap_or_default))
}

/// The full id of a variable, as a request for several and its answer have it.
pub(crate) fn full_id(config: &TargetConfig, id: &str) -> String {
    format!("{}:variable:{id}", config.account)
}

/// What Conjur tells of a variable besides its value.
#[derive(Debug)]
pub(crate) struct Variable {
    /// The number of its last version; none when it never had a value.
    pub(crate) version: Option<u64>,
    /// Whether something changes it.
    pub(crate) has_rotator: bool,
}

impl Conjur<'_> {
    /// What Conjur tells of a variable; needs any privilege on it.
    pub(crate) fn variable(&mut self, id: &str) -> Result<Variable, Error> {
        let config = self.config;
        let request = Request::new(Method::Get, ["resources", &config.account, "variable", id]);
        let call = Call { request, asked: Asked { what: id, privilege: "read", changes: false } };
        let body = self.call(&call)?.json().unwrap_or_default();
        if !body.get("secrets").is_some_and(Value::is_array) {
            return Err(Error::retryable(format!(
                "{id}: the answer is not Conjur's own; check what stands between the broker and Conjur"
            )));
        }
        let list = |name: &str| body.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let versions = list("secrets").iter().filter_map(|secret| secret.get("version").and_then(Value::as_u64));
        let is_rotator = |note: &Value| note.get("name").and_then(Value::as_str) == Some("rotation/rotator");
        Ok(Variable { version: versions.max(), has_rotator: list("annotations").iter().any(is_rotator) })
    }

    /// Whether the broker's host has a privilege on a variable.
    pub(crate) fn may(&mut self, privilege: &str, id: &str) -> Result<bool, Error> {
        let config = self.config;
        let request = Request::new(Method::Get, ["resources", &config.account, "variable", id])
            .query("check", "true")
            .query("privilege", privilege);
        let call = Call { request, asked: Asked { what: id, privilege, changes: false } };
        let response = self.send(&call)?;
        match response.status {
            // Conjur's yes has no content. A page of a gateway's is none.
            204 => Ok(true),
            403 | 404 => Ok(false),
            _ => Err(failure::of(call.asked, &response)),
        }
    }

    /// Has Conjur's rotator change a variable, at its next round.
    pub(crate) fn rotate(&mut self, id: &str) -> Result<(), Error> {
        let config = self.config;
        let mut request =
            Request::new(Method::Post, ["secrets", &config.account, "variable", id]).query("expirations", "");
        request.changes = true;
        let call = Call { request, asked: Asked { what: id, privilege: "update", changes: true } };
        match self.send(&call)? {
            // As Conjur says it. A page of a gateway's is no rotation.
            response if response.status == 201 && response.body.is_empty() => Ok(()),
            response if (200..300).contains(&response.status) => Err(Error::OutcomeUnknown(format!(
                "{id}: the answer (status {}) is not Conjur's own; check what stands between the broker and Conjur",
                response.status
            ))),
            response => Err(failure::of(call.asked, &response)),
        }
    }
}
