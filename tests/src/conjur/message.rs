//! A request as the server reads it, and as it notes it.

use std::fmt::Write as _;

use axum::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use axum::http::request::Parts;
use url::form_urlencoded;

/// A request, its path still in segments as they were escaped.
pub(super) struct Message {
    pub(super) method: String,
    /// Each decoded; a `/` in one was escaped.
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) authorization: Option<String>,
    pub(super) accept_encoding: Option<String>,
    /// Without parameters.
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// None where it is not to be read: an escape that is none, a header that is no text.
    pub(super) fn read(head: &Parts, body: &[u8]) -> Option<Self> {
        let path = head.uri.path().strip_prefix('/')?;
        let header = |name| head.headers.get(name).map(|value| value.to_str().map(str::to_owned)).transpose().ok();
        let media_type =
            header(CONTENT_TYPE)?.and_then(|kind| kind.split(';').next().map(|kind| kind.trim().to_owned()));
        Some(Self {
            method: head.method.to_string(),
            path: path.split('/').map(unescaped).collect::<Option<_>>()?,
            query: form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect(),
            authorization: header(AUTHORIZATION)?,
            accept_encoding: header(ACCEPT_ENCODING)?,
            content_type: media_type,
            body: body.to_vec(),
        })
    }

    /// A parameter, if it is there.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }

    /// The token between the quotes of the header.
    pub(super) fn token(&self) -> Option<&str> {
        self.authorization.as_deref()?.strip_prefix("Token token=\"")?.strip_suffix('"')
    }

    /// Whether the client takes base64, among others.
    pub(super) fn takes_base64(&self) -> bool {
        let encodings = self.accept_encoding.as_deref().unwrap_or_default();
        encodings.split(',').any(|encoding| encoding.trim().eq_ignore_ascii_case("base64"))
    }

    /// A field of a form.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let is_form = self.content_type.as_deref() == Some("application/x-www-form-urlencoded");
        let mut fields = form_urlencoded::parse(&self.body).into_owned();
        fields.find(|(there, _)| is_form && there == name).map(|(_, value)| value)
    }

    fn logs_in(&self) -> bool {
        self.path.last().is_some_and(|last| last == "authenticate")
    }

    /// The request as text: line, headers that matter, body. What is secret never gets into it.
    pub(super) fn noted(&self) -> String {
        let mut text = format!("{} ", self.method);
        for segment in &self.path {
            text.push('/');
            escape(segment, &mut text);
        }
        for (index, (name, value)) in self.query.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            escape(name, &mut text);
            text.push('=');
            escape(value, &mut text);
        }
        text.push('\n');
        let encoding =
            self.accept_encoding.as_deref().filter(|encoding| encoding.to_ascii_lowercase().contains("base64"));
        let authorization = self.authorization.as_ref().map(|_| match self.token() {
            Some(_) => "Token token=\"<token>\"",
            None => "<something else>",
        });
        let headers = [
            ("accept-encoding", encoding),
            ("authorization", authorization),
            ("content-type", self.content_type.as_deref()),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                // A String takes everything.
                let _ = writeln!(text, "{name}: {value}");
            }
        }
        let body = match self.path.first().map(String::as_str) {
            _ if self.body.is_empty() => return text,
            Some("authn") if self.logs_in() => "<api-key>",
            Some("authn-jwt") if self.logs_in() && self.field("jwt").is_some() => "jwt=<jwt>",
            _ => "<value>",
        };
        let _ = write!(text, "\n{body}\n");
        text
    }
}

/// Percent-encoding undone; none where it is broken, or no text.
fn unescaped(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// All but the unreserved characters of RFC 3986.
fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}
