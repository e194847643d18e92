//! A login at an API: requests that the fixture writes down, with the account's name and password in the
//! places that it says.
//!
//! `{name}`, `{password}` and `{token}` in a header or in a text of the JSON body stand for the account's own, `{new}`
//! for the password that it gives itself.
//! A path takes `{name}` only: passwords do not belong into addresses.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result, ensure};
use jit_files::read_authorities;
use reqwest::{Certificate, Client, Method, StatusCode, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{DEADLINE, LoginConfig};

/// The most of an answer that is read for a token, in bytes.
const MOST_ANSWER: usize = 64 * 1024;

/// One request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// By default `GET`.
    #[serde(default = "get")]
    pub method: String,
    /// Below the URL; `{name}` is the account's name.
    pub path: String,
    /// Name and password as HTTP Basic.
    #[serde(default)]
    pub basic: bool,
    /// A bearer token: `{password}` or `{token}`.
    pub bearer: Option<String>,
    /// More headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A body.
    pub json: Option<Value>,
    /// The statuses that are expected; by default 200 to 299 for what is allowed, 401 and 403 for what is
    /// refused.
    pub status: Option<Vec<u16>>,
}

fn get() -> String {
    "GET".to_owned()
}

/// An account that was let in.
pub struct Session {
    client: Client,
    base: Url,
    username: String,
    password: SecretString,
    token: Option<SecretString>,
    new: Option<SecretString>,
}

/// `[401, 403]`, or what the fixture says.
fn refusals(told: Option<&Vec<u16>>) -> Vec<u16> {
    told.cloned().unwrap_or_else(|| vec![401, 403])
}

/// Whether the API lets the account in.
pub(super) async fn log_in(login: &LoginConfig, username: &str, password: &SecretString) -> Result<Option<Session>> {
    let ask = login.request.as_ref().context("[conformance.login] request is missing")?;
    let base = login.url.clone().context("[conformance.login] url is missing")?;
    let mut session = Session {
        client: client(login)?,
        base,
        username: username.to_owned(),
        password: password.clone(),
        token: None,
        new: None,
    };
    let (status, body) = session.send(ask).await?;
    if ask.allows(status) {
        if let Some(pointer) = &login.token {
            let body: Value = serde_json::from_slice(&body).context("the login's answer is no JSON")?;
            let token = body.pointer(pointer).and_then(Value::as_str);
            let token = token.with_context(|| format!("the login's answer has no text at {pointer}"))?;
            session.token = Some(SecretString::from(token));
        }
        return Ok(Some(session));
    }
    ensure!(
        refusals(login.refused_with.as_ref()).contains(&status.as_u16()),
        "the login is answered with {status}, which is neither yes nor no (see status and refused_with)"
    );
    Ok(None)
}

fn client(login: &LoginConfig) -> Result<Client> {
    let mut builder = Client::builder().redirect(redirect::Policy::none()).no_proxy().timeout(DEADLINE);
    if let Some(ca) = &login.ca {
        let pem = read_authorities(ca).with_context(|| format!("[conformance.login] ca {}", ca.display()))?;
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(&pem).context("[conformance.login] ca")?);
    } else if login.url.as_ref().is_some_and(|url| url.scheme() == "http") {
        // No TLS will be spoken: a small machine has no certificates of authorities.
        builder = builder.tls_certs_only([]);
    }
    builder.build().context("the HTTP client cannot be prepared")
}

impl Session {
    /// What `{new}` stands for from now on.
    pub(super) fn will_be(&mut self, new: SecretString) {
        self.new = Some(new);
    }

    /// None when the API does it, else how it is refused. `allowed` says what is expected, and so what the
    /// request's `status` means.
    pub(super) async fn act(&self, ask: &Ask, allowed: bool) -> Result<Option<String>> {
        let (status, _) = self.send(ask).await?;
        let refused = Ok(Some(format!("answered with {status}")));
        if allowed {
            return if ask.allows(status) { Ok(None) } else { refused };
        }
        if refusals(ask.status.as_ref()).contains(&status.as_u16()) {
            return refused;
        }
        ensure!(status.is_success(), "answered with {status}, which is neither yes nor no (see status)");
        Ok(None)
    }

    async fn send(&self, ask: &Ask) -> Result<(StatusCode, Vec<u8>)> {
        let method = Method::from_bytes(ask.method.as_bytes()).context("method")?;
        let mut request = self.client.request(method, self.address(&ask.path)?);
        if ask.basic {
            request = request.basic_auth(&self.username, Some(self.password.expose_secret()));
        }
        if let Some(bearer) = &ask.bearer {
            request = request.bearer_auth(self.filled(bearer)?);
        }
        for (name, value) in &ask.headers {
            request = request.header(name, self.filled(value)?);
        }
        if let Some(body) = &ask.json {
            request = request.json(&self.filled_json(body)?);
        }
        // Its address may have a name in it, and its headers a password: neither is quoted.
        let mut answer = request.send().await.map_err(|error| error.without_url()).context("no answer")?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| error.without_url()).context("no whole answer")? {
            ensure!(body.len() + part.len() <= MOST_ANSWER, "the answer has more than {MOST_ANSWER} bytes");
            body.extend_from_slice(&part);
        }
        Ok((status, body))
    }

    fn address(&self, path: &str) -> Result<Url> {
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        {
            let mut segments = url.path_segments_mut().map_err(|()| anyhow::anyhow!("the url takes no path"))?;
            segments.pop_if_empty();
            for part in path.trim_start_matches('/').split('/') {
                segments.push(&part.replace("{name}", &self.username));
            }
        }
        url.set_query(query);
        Ok(url)
    }

    fn filled(&self, text: &str) -> Result<String> {
        let mut filled = text.replace("{name}", &self.username);
        if filled.contains("{token}") {
            let token = self.token.as_ref().context("{token} is known only after a login with `token`")?;
            filled = filled.replace("{token}", token.expose_secret());
        }
        if let Some(new) = &self.new {
            filled = filled.replace("{new}", new.expose_secret());
        }
        Ok(filled.replace("{password}", self.password.expose_secret()))
    }

    fn filled_json(&self, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::String(text) => self.filled(text)?.into(),
            Value::Array(items) => items.iter().map(|item| self.filled_json(item)).collect::<Result<Vec<_>>>()?.into(),
            Value::Object(map) => {
                let each = map.iter().map(|(key, value)| Ok((key.clone(), self.filled_json(value)?)));
                Value::Object(each.collect::<Result<_>>()?)
            }
            other => other.clone(),
        })
    }
}

impl Ask {
    /// What cannot be sent.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(Method::from_bytes(self.method.as_bytes()).is_ok(), "method {:?} is not an HTTP method", self.method);
        ensure!(self.path.starts_with('/'), "path must begin with /");
        ensure!(
            ["{password}", "{token}", "{new}"].iter().all(|secret| !self.path.contains(secret)),
            "path must not hold a password: addresses are written into logs"
        );
        ensure!(self.status.as_ref().is_none_or(|status| !status.is_empty()), "status is empty");
        Ok(())
    }

    /// Whether the password is sent at all.
    pub(super) fn places_password(&self) -> bool {
        self.basic || self.places("{password}")
    }

    /// Whether that word stands in a header or in the body.
    pub(super) fn places(&self, word: &str) -> bool {
        let has = |text: &str| text.contains(word);
        self.bearer.as_deref().is_some_and(has)
            || self.headers.values().any(|value| has(value))
            || self.json.as_ref().is_some_and(|json| has(&json.to_string()))
    }

    fn allows(&self, status: StatusCode) -> bool {
        self.status.as_ref().map_or(status.is_success(), |expected| expected.contains(&status.as_u16()))
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Ask {
        toml::from_str(text).unwrap()
    }

    fn session() -> Session {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Session {
            client: Client::builder().tls_certs_only([]).build().unwrap(),
            base: Url::parse("http://127.0.0.1:9/base/").unwrap(),
            username: "v-a/../b".to_owned(),
            password: SecretString::from("s3cret"),
            token: None,
            new: None,
        }
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_a_path() {
        let url = session().address("/users/{name}/roles?full=1").unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:9/base/users/v-a%2F..%2Fb/roles?full=1");
    }

    #[test]
    fn a_password_has_its_place_and_never_one_in_an_address() {
        for (text, places) in [
            ("path = \"/me\"\nbasic = true", true),
            ("path = \"/me\"\nbearer = \"{password}\"", true),
            ("path = \"/login/{name}\"\nmethod = \"POST\"\njson = { a = [{ password = \"{password}\" }] }", true),
            ("path = \"/me\"\nheaders = { x-key = \"{password}\" }", true),
            ("path = \"/me\"", false),
        ] {
            assert_eq!(ask(text).places_password(), places, "{text}");
            ask(text).check().unwrap();
        }
        for text in ["path = \"/me?p={password}\"", "path = \"me\"", "path = \"/\"\nmethod = \"A B\""] {
            assert!(ask(text).check().is_err(), "{text}");
        }
    }

    #[test]
    fn texts_are_filled_where_they_stand() {
        let body =
            ask("path = \"/\"\njson = { user = \"{name}\", deep = [{ p = \"{password}\" }], n = 3 }").json.unwrap();
        let filled = session().filled_json(&body).unwrap();
        assert_eq!(filled, serde_json::json!({"user": "v-a/../b", "deep": [{"p": "s3cret"}], "n": 3}));
        assert!(session().filled("{token}").is_err(), "there is none yet");
    }
}
