//! From a guest's data to a request: URL, headers and body with the secrets placed.
//!
//! The guest chooses no byte of the request's structure: segments and parameters are escaped here,
//! names of headers are tokens, values have no line ends, a JSON text is parsed and written anew.
//! What holds a secret is wiped when the client drops it.

use std::{io, vec};

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde_json::Value;
use url::{Url, form_urlencoded};
use wasmtime::component::{ResourceTable, ResourceTableError};
use zeroize::Zeroizing;

use crate::bindings::http::{Body, Field, JsonBody, Method, Part, Request};
use crate::text::escape;

/// Most segments, and most bytes of the URL.
const SEGMENTS: usize = 32;
const URL_BYTES: usize = 8 << 10;
/// Most parameters.
const PARAMETERS: usize = 64;
/// Most headers, and most bytes of them, secrets included.
const HEADERS: usize = 32;
const HEADER_BYTES: usize = 32 << 10;
/// Most fields of a form.
const FIELDS: usize = 256;
/// Most parts of a value or a text.
const PARTS: usize = 256;
/// Most secrets that are placed.
const SECRETS: usize = 16;
/// Most bytes of a body, secrets included.
const BODY_BYTES: usize = 1 << 20;
/// Most pointers, and most bytes of one.
const POINTERS: usize = 16;
const POINTER_BYTES: usize = 1 << 10;

/// Headers that are the host's to set: those of the connection and of the message's own shape
/// (RFC 9110, section 7.6.1; RFC 9112), its type, and who sends it.
const RESERVED: [&str; 16] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "http2-settings",
    "user-agent",
];

/// A request that can be sent.
#[derive(Debug)]
pub(super) struct Composed {
    pub(super) request: reqwest::Request,
    /// The secrets in it: each as it is, and as it is written where that differs.
    pub(super) placed: Vec<SecretString>,
}

/// Why a request is not sent.
#[derive(Debug)]
pub(super) enum Unfit {
    /// In words for the guest.
    Denied(String),
    /// A handle that is not one of the call's.
    Handle(ResourceTableError),
}

impl From<ResourceTableError> for Unfit {
    fn from(error: ResourceTableError) -> Self {
        Self::Handle(error)
    }
}

fn deny<T>(reason: impl Into<String>) -> Result<T, Unfit> {
    Err(Unfit::Denied(reason.into()))
}

/// Makes the request. `handles` are the call's, `encoded` what [`super::encode`] made of its parts.
///
/// # Errors
/// [`Unfit`], with nothing of a secret in its words.
pub(super) fn compose(
    base: &Url,
    request: &Request,
    handles: &ResourceTable,
    encoded: Vec<SecretString>,
) -> Result<Composed, Unfit> {
    let url = target(base, &request.path, &request.query)?;
    check_pointers(&request.withhold)?;
    let mut placing = Placing { handles, placed: Vec::new(), encoded: encoded.clone().into_iter() };
    let mut headers = placing.headers(&request.headers)?;
    let body = match &request.body {
        Body::None => None,
        Body::Json(json) => Some(("application/json", placing.json(json)?)),
        Body::Form(fields) => Some(("application/x-www-form-urlencoded", placing.form(fields)?)),
        Body::Text(parts) => Some(("text/plain; charset=utf-8", placing.joined(parts, BODY_BYTES, "the body")?.0)),
    };
    let mut composed = reqwest::Request::new(method(request.method), url);
    if let Some((media_type, bytes)) = body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        *composed.body_mut() = Some(Bytes::from_owner(bytes).into());
    }
    *composed.headers_mut() = headers;
    let mut placed = placing.placed;
    placed.extend(encoded);
    Ok(Composed { request: composed, placed })
}

fn method(method: Method) -> reqwest::Method {
    match method {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Patch => reqwest::Method::PATCH,
        Method::Delete => reqwest::Method::DELETE,
    }
}

/// The base URL with segments below it.
fn target(base: &Url, segments: &[String], query: &[(String, String)]) -> Result<Url, Unfit> {
    if segments.len() > SEGMENTS {
        return deny(format!("more than {SEGMENTS} segments of a path"));
    }
    if query.len() > PARAMETERS {
        return deny(format!("more than {PARAMETERS} parameters"));
    }
    let given = segments.iter().map(String::len).sum::<usize>()
        + query.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if given > URL_BYTES {
        return deny(format!("a URL of more than {URL_BYTES} bytes"));
    }
    let mut path = base.path().trim_end_matches('/').to_owned();
    for segment in segments {
        if matches!(segment.as_str(), "" | "." | "..") {
            return deny("a segment of a path that is empty, \".\" or \"..\"");
        }
        path.push('/');
        for &byte in segment.as_bytes() {
            push_escaped(&mut path, byte);
        }
    }
    let mut url = base.clone();
    if !segments.is_empty() {
        url.set_path(&path);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    if url.as_str().len() > 4 * URL_BYTES {
        return deny("the URL is too long");
    }
    Ok(url)
}

/// All but the unreserved characters of RFC 3986, so that no server sees structure in it.
fn push_escaped(path: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        path.push(char::from(byte));
    } else {
        path.push('%');
        path.push(char::from(DIGITS[usize::from(byte >> 4)]));
        path.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn check_pointers(pointers: &[String]) -> Result<(), Unfit> {
    if pointers.len() > POINTERS {
        return deny(format!("more than {POINTERS} values to withhold"));
    }
    for pointer in pointers {
        if pointer.len() > POINTER_BYTES || !is_pointer(pointer) {
            return deny(format!("{:?} is no JSON Pointer", escape(pointer, 80)));
        }
    }
    Ok(())
}

/// RFC 6901, section 3.
fn is_pointer(text: &str) -> bool {
    (text.is_empty() || text.starts_with('/'))
        && text.split('~').skip(1).all(|rest| rest.starts_with('0') || rest.starts_with('1'))
}

/// Places secrets, and notes which.
struct Placing<'a> {
    handles: &'a ResourceTable,
    placed: Vec<SecretString>,
    /// The encoded parts that are still to be placed, in their order.
    encoded: vec::IntoIter<SecretString>,
}

impl Placing<'_> {
    fn secret(
        &mut self,
        handle: &wasmtime::component::Resource<crate::capability::secrets::GuestSecret>,
    ) -> Result<SecretString, Unfit> {
        let secret = match self.handles.get(handle)?.password() {
            Ok(secret) => secret.clone(),
            Err(reason) => return deny(reason),
        };
        if !self.placed.iter().any(|placed| placed.expose_secret() == secret.expose_secret()) {
            if self.placed.len() >= SECRETS {
                return deny(format!("more than {SECRETS} secrets in one request"));
            }
            self.placed.push(secret.clone());
        }
        Ok(secret)
    }

    /// Parts one after the other, and whether one is a secret.
    fn joined(&mut self, parts: &[Part], most: usize, what: &str) -> Result<(Zeroizing<Vec<u8>>, bool), Unfit> {
        if parts.len() > PARTS {
            return deny(format!("{what} has more than {PARTS} parts"));
        }
        let mut secrets = Vec::new();
        for part in parts {
            match part {
                Part::Text(_) => {}
                Part::Secret(handle) => secrets.push(self.secret(handle)?),
                Part::Basic((_, handle)) | Part::Encoded((handle, _)) => {
                    self.secret(handle)?;
                    let Some(encoded) = self.encoded.next() else { return deny("a secret was not encoded") };
                    secrets.push(encoded);
                }
            }
        }
        let texts = parts.iter().map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum::<usize>();
        let length = texts + secrets.iter().map(|secret| secret.expose_secret().len()).sum::<usize>();
        if length > most {
            return deny(format!("{what} has more than {most} bytes"));
        }
        // Reserved at once, so that no reallocation leaves a copy of a secret behind.
        let mut out = Zeroizing::new(Vec::with_capacity(length));
        let mut next = secrets.iter();
        for part in parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Secret(_) | Part::Basic(_) | Part::Encoded(_) => {
                    out.extend(next.next().map_or(&[][..], |s| s.expose_secret().as_bytes()));
                }
            }
        }
        Ok((out, !secrets.is_empty()))
    }

    fn headers(&mut self, fields: &[Field]) -> Result<HeaderMap, Unfit> {
        if fields.len() > HEADERS {
            return deny(format!("more than {HEADERS} headers"));
        }
        let mut headers = HeaderMap::with_capacity(fields.len() + 1);
        let mut bytes = 0;
        for field in fields {
            let shown = escape(&field.name, 64);
            let Ok(name) = HeaderName::from_bytes(field.name.as_bytes()) else {
                return deny(format!("{shown:?} is no name of a header"));
            };
            if RESERVED.contains(&name.as_str()) {
                return deny(format!("the header {shown:?} is the host's to set"));
            }
            let (value, is_secret) = self.joined(&field.value, HEADER_BYTES, "a header")?;
            bytes += name.as_str().len() + value.len();
            // Not quoted: it may hold a secret.
            let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::from_owner(value)) else {
                return deny(format!("the value of the header {shown:?} has a line end or another control character"));
            };
            // So that HTTP/2 never keeps it in a table of the connection, and no log shows it.
            value.set_sensitive(is_secret);
            headers.append(name, value);
        }
        if bytes > HEADER_BYTES {
            return deny(format!("headers of more than {HEADER_BYTES} bytes"));
        }
        Ok(headers)
    }

    fn json(&mut self, body: &JsonBody) -> Result<Zeroizing<Vec<u8>>, Unfit> {
        if body.text.len() > BODY_BYTES {
            return deny(format!("the body has more than {BODY_BYTES} bytes"));
        }
        let Ok(value) = serde_json::from_str::<Value>(&body.text) else {
            return deny("the body is not JSON");
        };
        if body.secrets.len() > SECRETS {
            return deny(format!("more than {SECRETS} secrets in one request"));
        }
        let mut members: Vec<(&Value, SecretString)> = Vec::with_capacity(body.secrets.len());
        for Field { name: pointer, value: parts } in &body.secrets {
            let bytes = self.joined(parts, BODY_BYTES, "a member of the body")?.0;
            let Ok(text) = std::str::from_utf8(&bytes) else { return deny("a member of the body is not text") };
            let shown = escape(pointer, 80);
            let Some(member) = value.pointer(pointer).filter(|_| is_pointer(pointer)) else {
                return deny(format!("the body has no member {shown:?} for a secret"));
            };
            members.push((member, SecretBox::new(Box::from(text))));
        }
        // Once to know the length, so that the buffer of the secrets is never moved.
        let mut length = Count(0);
        let placed = write_json(&value, &members, &mut length).unwrap_or(0);
        if placed != members.len() {
            return deny("two secrets for one member of the body, or one within another");
        }
        if length.0 > BODY_BYTES {
            return deny(format!("the body has more than {BODY_BYTES} bytes"));
        }
        let mut out = Zeroizing::new(Vec::with_capacity(length.0));
        if write_json(&value, &members, &mut *out).is_err() {
            return deny("the body cannot be written");
        }
        Ok(out)
    }

    fn form(&mut self, fields: &[Field]) -> Result<Zeroizing<Vec<u8>>, Unfit> {
        if fields.len() > FIELDS {
            return deny(format!("more than {FIELDS} fields of a form"));
        }
        let mut values = Vec::with_capacity(fields.len());
        for field in fields {
            values.push(self.joined(&field.value, BODY_BYTES, "a field")?.0);
        }
        let encoded = |bytes| form_urlencoded::byte_serialize(bytes);
        let length = |bytes| encoded(bytes).map(str::len).sum::<usize>();
        let total: usize =
            fields.iter().zip(&values).map(|(field, value)| length(field.name.as_bytes()) + length(value) + 2).sum();
        if total > BODY_BYTES {
            return deny(format!("the body has more than {BODY_BYTES} bytes"));
        }
        let mut out = Zeroizing::new(Vec::with_capacity(total));
        for (field, value) in fields.iter().zip(&values) {
            if !out.is_empty() {
                out.push(b'&');
            }
            encoded(field.name.as_bytes()).for_each(|piece| out.extend_from_slice(piece.as_bytes()));
            out.push(b'=');
            encoded(value).for_each(|piece| out.extend_from_slice(piece.as_bytes()));
        }
        Ok(out)
    }
}

/// Counts what is written.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the value with a secret in place of each of these members of it. Returns how many were
/// placed. The parser bounds how deep a value is.
fn write_json(value: &Value, members: &[(&Value, SecretString)], out: &mut impl io::Write) -> io::Result<usize> {
    if let Some((_, secret)) = members.iter().find(|(member, _)| std::ptr::eq(*member, value)) {
        serde_json::to_writer(out, secret.expose_secret())?;
        return Ok(1);
    }
    let mut placed = 0;
    match value {
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                out.write_all(if number == 0 { b"[" } else { b"," })?;
                placed += write_json(item, members, out)?;
            }
            out.write_all(if items.is_empty() { b"[]" } else { b"]" })?;
        }
        Value::Object(fields) => {
            for (number, (name, field)) in fields.iter().enumerate() {
                out.write_all(if number == 0 { b"{" } else { b"," })?;
                serde_json::to_writer(&mut *out, name)?;
                out.write_all(b":")?;
                placed += write_json(field, members, out)?;
            }
            out.write_all(if fields.is_empty() { b"{}" } else { b"}" })?;
        }
        leaf => serde_json::to_writer(out, leaf)?,
    }
    Ok(placed)
}

/// Bytes that a request brings from the guest.
pub(super) fn size_of(request: &Request) -> usize {
    let parts = |parts: &[Part]| -> usize {
        let text = |part: &Part| match part {
            Part::Text(text) | Part::Basic((text, _)) => text.len(),
            Part::Secret(_) | Part::Encoded(_) => 0,
        };
        parts.iter().map(|part| 8 + text(part)).sum()
    };
    let fields =
        |fields: &[Field]| fields.iter().map(|field| 8 + field.name.len() + parts(&field.value)).sum::<usize>();
    let body = match &request.body {
        Body::None => 0,
        Body::Json(json) => json.text.len() + fields(&json.secrets),
        Body::Form(form) => fields(form),
        Body::Text(text) => parts(text),
    };
    let texts = request.path.iter().chain(&request.withhold).map(|text| 8 + text.len()).sum::<usize>();
    let query = request.query.iter().map(|(name, value)| 16 + name.len() + value.len()).sum::<usize>();
    texts + query + fields(&request.headers) + body
}

#[cfg(test)]
mod tests;
