//! A scripted HTTP server for native tests of drivers. Like the host, it gives no secret to the
//! plugin: what an answer withholds becomes a handle, whose name is the value itself.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fmt::Write as _;

use serde_json::Value;

use crate::driver::{Handle, OwnedSecret, Secret};
use crate::http::{Body, Http, HttpError, Method, Part, Request, Response, members};
use crate::testing::encoding_words;

/// A request as a [`FakeHttp`] saw it. A placed secret is shown as `<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// `GET`, `POST`, …
    pub method: &'static str,
    /// The path's segments, as the driver gave them.
    pub path: Vec<String>,
    /// Parameters.
    pub query: Vec<(String, String)>,
    /// Headers in the driver's order, names in lower case, `content-type` of the body included.
    pub headers: Vec<(String, String)>,
    /// The body as text; empty where there is none.
    pub body: String,
    /// Pointers of what is withheld.
    pub withhold: Vec<String>,
    /// Whether it may change an account or a lease.
    pub changes: bool,
}

impl Sent {
    /// Method, path and parameters as a request line has them: `GET /v1/a%2Fb?list=true`. All but
    /// unreserved characters (RFC 3986, section 2.3) are escaped.
    pub fn line(&self) -> String {
        let mut line = self.method.to_owned();
        line.push(' ');
        for segment in &self.path {
            line.push('/');
            escape(segment, &mut line);
        }
        for (index, (name, value)) in self.query.iter().enumerate() {
            line.push(if index == 0 { '?' } else { '&' });
            escape(name, &mut line);
            line.push('=');
            escape(value, &mut line);
        }
        line
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The whole as text: the request line, headers by name, an empty line, the body.
    pub fn text(&self) -> String {
        let mut headers = self.headers.clone();
        headers.sort();
        let mut text = self.line();
        text.push('\n');
        for (name, value) in headers {
            // A String takes everything.
            let _ = writeln!(text, "{name}: {value}");
        }
        if !self.body.is_empty() {
            let _ = write!(text, "\n{}\n", self.body);
        }
        text
    }
}

fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

/// An answer of a [`FakeHttp`], with its secrets in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// With a text as body.
    pub fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned() }
    }

    /// With JSON as body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string())
    }

    /// With one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Answer<'f> = Box<dyn FnMut(&Sent) -> Result<Reply, HttpError> + 'f>;

/// A server that a test scripts: it notes every request and asks the test for the answer. It has
/// the host's session, too, with a clock that the test moves.
pub struct FakeHttp<'f> {
    /// What was sent, in order.
    pub sent: Vec<Sent>,
    /// The session's clock, in seconds.
    pub now: u64,
    /// Nothing more can be kept.
    pub is_full: bool,
    credentials: BTreeMap<String, String>,
    kept: BTreeMap<String, (String, u64)>,
    meanwhile: VecDeque<(String, String, u64)>,
    answer: Answer<'f>,
}

impl fmt::Debug for FakeHttp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeHttp").field("sent", &self.sent).field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl<'f> FakeHttp<'f> {
    /// A server that answers so.
    pub fn new(answer: impl FnMut(&Sent) -> Result<Reply, HttpError> + 'f) -> Self {
        Self {
            sent: Vec::new(),
            now: 1_800_000_000,
            is_full: false,
            credentials: BTreeMap::new(),
            kept: BTreeMap::new(),
            meanwhile: VecDeque::new(),
            answer: Box::new(answer),
        }
    }

    /// With a secret in the connection's `secrets` table.
    #[must_use]
    pub fn with_credential(mut self, name: &str, secret: &str) -> Self {
        self.credentials.insert(name.to_owned(), secret.to_owned());
        self
    }

    /// With a secret kept by an earlier call, for so many seconds from now.
    #[must_use]
    pub fn with_kept(mut self, key: &str, secret: &str, seconds: u64) -> Self {
        self.kept.insert(key.to_owned(), (secret.to_owned(), self.now + seconds));
        self
    }

    /// Another call keeps this secret while the next request is under way.
    pub fn meanwhile_keeps(&mut self, key: &str, secret: &str, seconds: u64) {
        self.meanwhile.push_back((key.to_owned(), secret.to_owned(), seconds));
    }

    /// What is kept under the key, and for how many seconds from now.
    pub fn kept_now(&self, key: &str) -> Option<(&str, u64)> {
        self.kept.get(key).map(|(name, until)| (name.as_str(), until.saturating_sub(self.now)))
    }

    /// The keys under which something is kept.
    pub fn keys(&self) -> Vec<&str> {
        self.kept.keys().map(String::as_str).collect()
    }

    /// The request lines, in order.
    pub fn lines(&self) -> Vec<String> {
        self.sent.iter().map(Sent::line).collect()
    }
}

impl Http for FakeHttp<'_> {
    fn send(&mut self, request: &Request<'_>) -> Result<Response, HttpError> {
        let sent = seen(request).map_err(|why| HttpError::Denied(why.to_owned()))?;
        self.sent.push(sent.clone());
        let reply = (self.answer)(&sent)?;
        if let Some((key, secret, seconds)) = self.meanwhile.pop_front() {
            self.kept.insert(key, (secret, self.now + seconds));
        }
        Ok(blind(reply, &sent.withhold, &placed(request)))
    }

    fn credential(&mut self, name: &str) -> Result<OwnedSecret, String> {
        let secret = self.credentials.get(name).ok_or_else(|| format!("no secret {name}"))?;
        Ok(OwnedSecret::of_test(secret))
    }

    fn kept(&mut self, key: &str, at_least_seconds: u64) -> Option<OwnedSecret> {
        let (name, until) = self.kept.get(key)?;
        let valid = *until > self.now && *until - self.now >= at_least_seconds;
        valid.then(|| OwnedSecret::of_test(name))
    }

    fn keep(
        &mut self,
        key: &str,
        secret: Secret<'_>,
        valid_seconds: u64,
        unless_valid_for: u64,
    ) -> Result<OwnedSecret, String> {
        if self.is_full && !self.kept.contains_key(key) {
            return Err("too many secrets are kept".to_owned());
        }
        let name = name(secret);
        if let Some((other, until)) = self.kept.get(key)
            && other != name
            && until.saturating_sub(self.now) > unless_valid_for
        {
            return Ok(OwnedSecret::of_test(other));
        }
        self.kept.insert(key.to_owned(), (name.to_owned(), self.now.saturating_add(valid_seconds)));
        Ok(OwnedSecret::of_test(name))
    }

    fn forget(&mut self, key: &str, secret: Secret<'_>) -> bool {
        let is_it = self.kept.get(key).is_some_and(|(there, _)| there == name(secret));
        is_it && self.kept.remove(key).is_some()
    }
}

fn name(secret: Secret<'_>) -> &str {
    match secret.0 {
        Handle::Test(name) => name,
        Handle::Host(_) => "host",
    }
}

/// The request as it would go out; a reason where the host would not send it.
fn seen(request: &Request<'_>) -> Result<Sent, &'static str> {
    if request.path.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
        return Err("a segment of the path is empty or a dot");
    }
    let mut headers = Vec::new();
    for (name, parts) in &request.headers {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let value = joined(parts);
        if name.is_empty() || !plain || value.chars().any(char::is_control) {
            return Err("a header with characters that it cannot have");
        }
        headers.push((name.to_ascii_lowercase(), value));
    }
    let (content_type, body) = match &request.body {
        Body::None => (None, String::new()),
        Body::Json(value, secrets) => {
            let mut value = value.clone();
            for (pointer, parts) in members(secrets) {
                let place = value.pointer_mut(pointer).ok_or("a pointer to a member that the text does not have")?;
                *place = Value::String(joined(&parts));
            }
            (Some("application/json"), value.to_string())
        }
        Body::Form(fields) => {
            let mut body = String::new();
            for (index, (name, part)) in fields.iter().enumerate() {
                body.push_str(if index == 0 { "" } else { "&" });
                escape(name, &mut body);
                body.push('=');
                match part {
                    Part::Text(text) => escape(text, &mut body),
                    Part::Secret(_) | Part::Encoded(..) | Part::Basic(..) => body.push_str(&joined(&[*part])),
                }
            }
            (Some("application/x-www-form-urlencoded"), body)
        }
        Body::Text(parts) => (Some("text/plain"), joined(parts)),
    };
    headers.extend(content_type.map(|kind| ("content-type".to_owned(), kind.to_owned())));
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Ok(Sent {
        method: match request.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        },
        path: request.path.iter().map(|segment| (*segment).to_owned()).collect(),
        query: request.query.iter().map(owned).collect(),
        headers,
        body,
        withhold: request.withhold.iter().map(|pointer| (*pointer).to_owned()).collect(),
        changes: request.changes,
    })
}

fn joined(parts: &[Part<'_>]) -> String {
    let shown = |part: &Part<'_>| match part {
        Part::Text(text) => (*text).to_owned(),
        Part::Secret(secret) => format!("<{}>", name(*secret)),
        Part::Encoded(secret, encoding) => format!("<{} as {}>", name(*secret), encoding_words(encoding)),
        Part::Basic(user, secret) => format!("Basic <{user}:{}>", name(*secret)),
    };
    parts.iter().map(shown).collect()
}

/// The names of the secrets that the request placed.
fn placed(request: &Request<'_>) -> Vec<String> {
    let of = |part: &Part<'_>| match part {
        Part::Secret(secret) | Part::Encoded(secret, _) | Part::Basic(_, secret) => Some(name(*secret).to_owned()),
        Part::Text(_) => None,
    };
    let mut names: Vec<String> = request.headers.iter().flat_map(|(_, parts)| parts.iter().filter_map(of)).collect();
    match &request.body {
        Body::None => {}
        Body::Json(_, fields) => names.extend(fields.iter().filter_map(|(_, part)| of(part))),
        Body::Form(fields) => names.extend(fields.iter().filter_map(|(_, part)| of(part))),
        Body::Text(parts) => names.extend(parts.iter().filter_map(of)),
    }
    names
}

/// The answer without its secrets.
fn blind(reply: Reply, withhold: &[String], placed: &[String]) -> Response {
    let mut json: Option<Value> = serde_json::from_str(&reply.body).ok();
    let mut whole = false;
    let mut withheld = Vec::new();
    for pointer in withhold {
        if pointer.is_empty() {
            whole = true;
            withheld.push(Some(OwnedSecret::of_test(&reply.body)));
            continue;
        }
        if pointer.split('/').skip(1).any(|segment| segment == "*") {
            let segments: Vec<String> =
                pointer.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~")).collect();
            json.iter_mut().for_each(|json| take_out(json, &segments));
            withheld.push(None);
            continue;
        }
        let place = json.as_mut().and_then(|json| json.pointer_mut(pointer));
        let taken = match place {
            Some(place) if place.is_string() => Some(place.take()),
            _ => None,
        };
        withheld.push(taken.as_ref().and_then(Value::as_str).map(OwnedSecret::of_test));
    }
    let mut body = match (&json, whole) {
        (_, true) => String::new(),
        (Some(json), false) if !withhold.is_empty() => json.to_string(),
        _ => reply.body,
    };
    for secret in placed.iter().filter(|secret| !secret.is_empty()) {
        body = body.replace(secret.as_str(), "[secret]");
    }
    Response { status: reply.status, headers: reply.headers, body, withheld }
}

/// Takes out what stands at the segments; `*` is every item and every member.
fn take_out(value: &mut Value, segments: &[String]) {
    let Some((segment, rest)) = segments.split_first() else {
        *value = Value::Null;
        return;
    };
    match value {
        Value::Array(items) if segment == "*" => items.iter_mut().for_each(|item| take_out(item, rest)),
        Value::Object(members) if segment == "*" => members.values_mut().for_each(|member| take_out(member, rest)),
        Value::Array(items) => {
            let item = segment.parse().ok().and_then(|at: usize| items.get_mut(at));
            item.into_iter().for_each(|item| take_out(item, rest));
        }
        Value::Object(members) => members.get_mut(segment).into_iter().for_each(|member| take_out(member, rest)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]
    use serde_json::json;

    use super::*;
    use crate::http::{Bcrypt, BcryptPrefix, Encoding};

    #[test]
    fn a_plugin_reads_no_secret_of_an_answer() {
        let answer = json!({"data": {"password": "pw-1", "username": "v-1"}, "echo": "token-1"});
        let mut http = FakeHttp::new(move |_| Ok(Reply::json(200, &answer)));
        let token = OwnedSecret::of_test("token-1");
        let request = Request::new(Method::Get, ["v1", "a/b"])
            .header("X-Token", [Part::Text("t="), Part::Secret(token.borrow())])
            .query("list", "a b")
            .withhold("/data/password")
            .withhold("/data/missing");
        let response = http.send(&request).unwrap();
        assert!(!response.body.contains("pw-1") && !response.body.contains("token-1"), "{}", response.body);
        assert!(response.body.contains("v-1"));
        let names: Vec<_> =
            response.withheld.iter().map(|held| held.as_ref().map(|held| name(held.borrow()))).collect();
        assert_eq!(names, [Some("pw-1"), None]);
        assert_eq!(http.sent[0].line(), "GET /v1/a%2Fb?list=a%20b");
        assert_eq!(http.sent[0].header("x-token"), Some("t=<token-1>"));

        let whole = http.send(&Request::new(Method::Get, ["v1"]).withhold("")).unwrap();
        assert_eq!(whole.body, "");
        assert!(whole.withheld[0].is_some());
    }

    #[test]
    fn secrets_are_placed_into_bodies_and_only_where_the_text_has_a_member() {
        let mut http = FakeHttp::new(|_| Ok(Reply::text(204, "")));
        let secret = OwnedSecret::of_test("jwt-1");
        let mut send = |body| http.send(&Request::new(Method::Post, ["login"]).body(body)).map(drop);
        send(Body::Json(json!({"jwt": "", "role": "r"}), vec![("/jwt", Part::Secret(secret.borrow()))])).unwrap();
        send(Body::Form(vec![("jwt", Part::Secret(secret.borrow())), ("a", Part::Text("b c"))])).unwrap();
        send(Body::Text(vec![Part::Secret(secret.borrow())])).unwrap();
        let stretched = Encoding::Bcrypt(Bcrypt { prefix: BcryptPrefix::TwoA, cost: 10 });
        let hash = Part::Encoded(secret.borrow(), stretched);
        send(Body::Json(json!({"hash": ""}), vec![("/hash", Part::Text("{x}")), ("/hash", hash)])).unwrap();
        let missing = send(Body::Json(json!({}), vec![("/jwt", Part::Secret(secret.borrow()))]));
        assert!(matches!(missing, Err(HttpError::Denied(_))));
        let bodies: Vec<&str> = http.sent.iter().map(|sent| sent.body.as_str()).collect();
        assert_eq!(
            bodies,
            [
                r#"{"jwt":"<jwt-1>","role":"r"}"#,
                "jwt=<jwt-1>&a=b%20c",
                "<jwt-1>",
                r#"{"hash":"{x}<jwt-1 as bcrypt/2a/10>"}"#
            ]
        );
        assert_eq!(
            http.sent[1].text(),
            "POST /login\ncontent-type: application/x-www-form-urlencoded\n\njwt=<jwt-1>&a=b%20c\n"
        );
        for path in ["", ".", ".."] {
            assert!(matches!(http.send(&Request::new(Method::Get, [path])), Err(HttpError::Denied(_))));
        }
    }

    #[test]
    fn the_broker_says_who_it_is_by_basic_and_sees_no_hash_of_a_list() {
        let rows = json!([{"name": "a", "password_hash": "h1"}, {"name": "b", "password_hash": "h2"}]);
        let mut http = FakeHttp::new(move |_| Ok(Reply::json(200, &rows)));
        let secret = OwnedSecret::of_test("root-pw");
        let request = Request::new(Method::Get, ["users"]).basic("root", secret.borrow()).withhold("/*/password_hash");
        let response = http.send(&request).unwrap();
        assert_eq!(http.sent[0].header("authorization"), Some("Basic <root:root-pw>"));
        assert_eq!(
            response.json().unwrap(),
            json!([{"name": "a", "password_hash": null}, {"name": "b", "password_hash": null}])
        );
        assert!(response.withheld[0].is_none());
    }

    #[test]
    fn what_is_kept_runs_out_and_gives_way_to_what_is_valid_for_longer() {
        let mut http = FakeHttp::new(|_| Ok(Reply::text(204, "")));
        let (first, second) = (OwnedSecret::of_test("first"), OwnedSecret::of_test("second"));
        assert!(http.kept("token", 0).is_none());
        let mut keep = |secret: &OwnedSecret, valid, unless| {
            let holds = http.keep("token", secret.borrow(), valid, unless).unwrap_or_else(|why| panic!("{why}"));
            name(holds.borrow()).to_owned()
        };
        assert_eq!(keep(&first, 100, 0), "first");
        assert_eq!(keep(&second, 500, 50), "first");
        assert_eq!(keep(&second, 500, 100), "second");
        assert!(http.kept("token", 501).is_none());
        assert!(!http.forget("token", first.borrow()));
        assert_eq!(http.kept_now("token"), Some(("second", 500)));
        http.now += 500;
        assert!(http.kept("token", 0).is_none());
        assert!(http.forget("token", second.borrow()) && !http.forget("token", second.borrow()));
        assert!(http.keys().is_empty());
        http.is_full = true;
        assert!(http.keep("token", first.borrow(), 1, 0).is_err());
    }
}
