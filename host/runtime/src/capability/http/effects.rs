//! Which requests may change the backend, and which answers say that they did not. Neither is a call's
//! word: the rule is the capability's, and what a driver adds to it stands in its description, which is
//! read once at load.
//!
//! Every request but a GET may change something. A driver that sends a POST which changes nothing (a
//! login, a search with a body) lists its path as `harmless-posts`; a GET that does change something is
//! marked by the request itself.

use serde_json::Value;

use super::answer::Answer;
use crate::bindings::http::{Method, Request};
use crate::declared::Said;

/// Most paths, and most segments of one.
const PATHS: usize = 32;
const SEGMENTS: usize = 32;

/// What a driver's description says of its requests.
#[derive(Debug, Default)]
pub(super) struct Effects {
    harmless: Vec<Vec<String>>,
    /// What the body of the backend's own errors has, as a JSON Pointer.
    own_errors: Option<String>,
}

impl Effects {
    /// Paths of POSTs that change nothing, with spaces between: segments below the connection's base
    /// URL, `*` for one of any name, `**` for one or more. The last one is never such a star.
    const HARMLESS_POSTS: &str = "harmless-posts";
    /// A JSON Pointer to what every error of the backend's own has. A 503 without it is somebody else's:
    /// a gateway may have passed the request on before it gave up.
    const OWN_ERRORS: &str = "own-errors";

    /// Reads a description's properties.
    ///
    /// # Errors
    /// What is wrong with one.
    pub(super) fn of(said: &Said<'_>) -> Result<Self, String> {
        let paths = said.property(Self::HARMLESS_POSTS).unwrap_or_default();
        let harmless: Vec<Vec<String>> =
            paths.split_whitespace().map(|path| path.split('/').map(str::to_owned).collect()).collect();
        let is_path = |path: &Vec<String>| {
            path.len() <= SEGMENTS
                && path.iter().all(|segment| !segment.is_empty())
                && path.iter().filter(|segment| *segment == "**").count() <= 1
                && path.last().is_some_and(|last| !matches!(last.as_str(), "*" | "**"))
        };
        if harmless.len() > PATHS || !harmless.iter().all(is_path) {
            return Err(format!(
                "the property {} is no list of at most {PATHS} paths that end in a name",
                Self::HARMLESS_POSTS
            ));
        }
        let own_errors = said.property(Self::OWN_ERRORS).map(str::to_owned);
        if own_errors.as_ref().is_some_and(|pointer| !pointer.starts_with('/')) {
            return Err(format!("the property {} is no JSON Pointer", Self::OWN_ERRORS));
        }
        Ok(Self { harmless, own_errors })
    }

    /// Whether a request may change something.
    pub(super) fn may_change(&self, request: &Request) -> bool {
        let by_method = match request.method {
            Method::Get => false,
            Method::Post => !self.harmless.iter().any(|path| matches(path, &request.path)),
            Method::Put | Method::Patch | Method::Delete => true,
        };
        by_method || request.changes
    }

    /// The backend's own no: it has done nothing. A timeout of a gateway (408, 504) is none, nor is any
    /// other server error, which may come after the effect.
    pub(super) fn is_refusal(&self, answer: &Answer) -> bool {
        match answer.status.as_u16() {
            408 => false,
            400..=499 => true,
            503 => self.own_errors.as_ref().is_some_and(|pointer| answer.has_json_at(pointer)),
            _ => false,
        }
    }

    /// Whether an answer leaves it open what became of the request.
    pub(super) fn is_open(&self, answer: &Answer) -> bool {
        answer.status.as_u16() == 408 || (answer.status.is_server_error() && !self.is_refusal(answer))
    }
}

/// Whether a path is one of a pattern's.
fn matches(pattern: &[String], path: &[String]) -> bool {
    let is = |(pattern, segment): (&String, &String)| pattern == "*" || pattern == segment;
    match pattern.iter().position(|segment| segment == "**") {
        None => pattern.len() == path.len() && pattern.iter().zip(path).all(is),
        Some(at) => {
            let after = pattern.len() - at - 1;
            path.len() >= pattern.len()
                && pattern.iter().zip(path).take(at).all(is)
                && pattern.iter().rev().zip(path.iter().rev()).take(after).all(is)
        }
    }
}

impl Answer {
    /// Whether it is JSON, by its type and its body, and has something there.
    fn has_json_at(&self, pointer: &str) -> bool {
        let is_json = self.header("content-type").is_some_and(|value| {
            let media_type = value.split(';').next().unwrap_or_default().trim();
            media_type.eq_ignore_ascii_case("application/json")
        });
        is_json && serde_json::from_slice::<Value>(self.bytes()).is_ok_and(|body| body.pointer(pointer).is_some())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::bindings::http::Body;

    fn effects(harmless: &str) -> Result<Effects, String> {
        of(&[("harmless-posts".into(), harmless.into()), ("own-errors".into(), "/errors".into())])
    }

    fn of(properties: &[(String, String)]) -> Result<Effects, String> {
        Effects::of(&Said { is_imported: true, properties, statements: None })
    }

    fn changes(effects: &Effects, method: Method, path: &str) -> bool {
        let path = path.split('/').map(str::to_owned).collect();
        let (query, headers, withhold) = (Vec::new(), Vec::new(), Vec::new());
        effects.may_change(&Request { method, path, query, headers, body: Body::None, withhold, changes: false })
    }

    #[test]
    fn every_method_but_get_changes_something_unless_the_description_says_otherwise() {
        let none = Effects::default();
        for (method, expected) in [
            (Method::Get, false),
            (Method::Post, true),
            (Method::Put, true),
            (Method::Patch, true),
            (Method::Delete, true),
        ] {
            assert_eq!(changes(&none, method, "a"), expected, "{method:?}");
        }
        let some = effects("v1/auth/**/login v1/sys/*/lookup v1/x").unwrap();
        for (path, expected) in [
            ("v1/x", false),
            ("v1/x/y", true),
            ("v1/auth/jwt/login", false),
            ("v1/auth/a/b/c/login", false),
            ("v1/auth/login", true),
            ("v1/auth/jwt/login/x", true),
            ("v2/auth/jwt/login", true),
            ("v1/sys/leases/lookup", false),
            ("v1/sys/leases/deep/lookup", true),
            ("v1/sys/leases/revoke", true),
        ] {
            assert_eq!(changes(&some, Method::Post, path), expected, "{path}");
            assert!(changes(&some, Method::Put, path), "{path}");
        }
    }

    #[test]
    fn a_description_cannot_call_everything_harmless() {
        for bad in ["**", "*", "v1/**", "v1/*", "a//b", "/a", "a/", "a/**/b/**/c"] {
            assert!(effects(bad).is_err(), "{bad}");
        }
        assert!(effects(&"a ".repeat(33)).is_err());
        assert!(of(&[("own-errors".into(), "errors".into())]).is_err());
        assert!(effects("").is_ok());
    }
}
