//! A request that is signed as a whole: cloud providers' request signatures and HTTP message signatures.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

use crate::rejected::Rejected;

/// The longest method, in bytes.
const MAX_METHOD: usize = 16;
/// The longest path with its query, in bytes.
pub const MAX_TARGET: usize = 8 * 1024;
/// The most headers.
pub const MAX_HEADERS: usize = 64;
/// The longest header name, in bytes.
const MAX_NAME: usize = 128;
/// The most bytes of all header names and values together.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// What a signature can cover, as it was read from the request.
#[derive(Debug, Clone)]
pub struct RequestParts {
    /// The method, as `POST`.
    pub method: String,
    /// The path and, after a `?`, the query: in the request's own spelling, because that was signed.
    pub target: String,
    /// The headers in their order, the names in lower case. A name may come twice.
    pub headers: Vec<(String, SecretString)>,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
}

/// A signed request, bounded and well formed. Whether the signature holds, and whether it was seen
/// before, is for an identity method to decide.
#[derive(Clone)]
pub struct SignedRequest(RequestParts);

impl SignedRequest {
    /// Checks the parts.
    ///
    /// # Errors
    /// [`Rejected::TooLarge`] and [`Rejected::TooMany`] beyond a bound, [`Rejected::Malformed`] for
    /// characters that no request has there.
    pub fn new(parts: RequestParts) -> Result<Self, Rejected> {
        let malformed = |problem| Err(Rejected::Malformed { what: "signed request", problem });
        if parts.method.len() > MAX_METHOD {
            return Err(Rejected::too_large("method", MAX_METHOD));
        }
        if parts.method.is_empty() || !parts.method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return malformed("the method is not a word in capitals");
        }
        if parts.target.len() > MAX_TARGET {
            return Err(Rejected::too_large("path", MAX_TARGET));
        }
        if !parts.target.starts_with('/') || !parts.target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return malformed("the path is not printable ASCII after a slash");
        }
        if parts.headers.len() > MAX_HEADERS {
            return Err(Rejected::too_many("headers", MAX_HEADERS));
        }
        let mut bytes = 0;
        for (name, value) in &parts.headers {
            let value = value.expose_secret();
            bytes += name.len() + value.len();
            if name.len() > MAX_NAME {
                return Err(Rejected::too_large("header name", MAX_NAME));
            }
            if name.is_empty() || !name.bytes().all(is_name_byte) {
                return malformed("a header name is not a token in lower case");
            }
            if value.chars().any(|c| c.is_control() && c != '\t') {
                return malformed("a header value has control characters");
            }
        }
        if bytes > MAX_HEADER_BYTES {
            return Err(Rejected::too_large("headers", MAX_HEADER_BYTES));
        }
        Ok(Self(parts))
    }

    /// The checked parts. Header values may be secret (a session token, a signature), so the method that
    /// verifies them has to ask for each.
    #[must_use]
    pub fn parts(&self) -> &RequestParts {
        &self.0
    }
}

impl fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The query may hold a signature too.
        let path = self.0.target.split('?').next().unwrap_or_default();
        write!(f, "SignedRequest({} {path}, {} headers)", self.0.method, self.0.headers.len())
    }
}

/// A character of a header name (RFC 9110 section 5.6.2), in lower case.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> RequestParts {
        RequestParts {
            method: "POST".to_owned(),
            target: "/?Action=GetCallerIdentity&X-Signature=hunter2".to_owned(),
            headers: vec![("authorization".to_owned(), SecretString::from("hunter2"))],
            body_sha256: [0; 32],
        }
    }

    fn reason(change: impl FnOnce(&mut RequestParts)) -> &'static str {
        let mut parts = good();
        change(&mut parts);
        SignedRequest::new(parts).map_or_else(|reason| reason.label(), |_| "ok")
    }

    fn header(name: &str, value: &str) -> Vec<(String, SecretString)> {
        vec![(name.to_owned(), SecretString::from(value))]
    }

    #[test]
    fn requests_have_bounds() {
        assert_eq!(reason(|_| {}), "ok");
        assert_eq!(reason(|parts| parts.method = "M".repeat(MAX_METHOD + 1)), "too_large");
        assert_eq!(reason(|parts| parts.target = format!("/{}", "a".repeat(MAX_TARGET - 1))), "ok");
        assert_eq!(reason(|parts| parts.target = format!("/{}", "a".repeat(MAX_TARGET))), "too_large");
        assert_eq!(reason(|parts| parts.headers = vec![("a".to_owned(), "b".into()); MAX_HEADERS]), "ok");
        assert_eq!(reason(|parts| parts.headers = vec![("a".to_owned(), "b".into()); MAX_HEADERS + 1]), "too_many");
        assert_eq!(reason(|parts| parts.headers = header(&"a".repeat(MAX_NAME + 1), "b")), "too_large");
        assert_eq!(reason(|parts| parts.headers = header("a", &"b".repeat(MAX_HEADER_BYTES - 1))), "ok");
        assert_eq!(reason(|parts| parts.headers = header("a", &"b".repeat(MAX_HEADER_BYTES))), "too_large");
    }

    #[test]
    fn requests_have_the_characters_of_requests() {
        for method in ["", "post", "POST ", "P\r\n"] {
            assert_eq!(reason(|parts| parts.method = method.to_owned()), "malformed", "{method:?}");
        }
        for target in ["", "a", "/a b", "/a\r\nb", "/é", "https://evil.example/"] {
            assert_eq!(reason(|parts| parts.target = target.to_owned()), "malformed", "{target:?}");
        }
        for name in ["", "Authorization", "a:", "a b", "é"] {
            assert_eq!(reason(|parts| parts.headers = header(name, "v")), "malformed", "{name:?}");
        }
        for value in ["a\r\nb", "a\u{0}"] {
            assert_eq!(reason(|parts| parts.headers = header("a", value)), "malformed", "{value:?}");
        }
        assert_eq!(reason(|parts| parts.headers = header("a", "b\tc")), "ok");
    }

    #[test]
    fn nothing_secret_is_printed() {
        let printed = SignedRequest::new(good()).map(|request| format!("{request:?} {:?}", request.parts().headers));
        assert!(printed.is_ok_and(|text| text.contains("POST /") && !text.contains("hunter2")));
    }
}
