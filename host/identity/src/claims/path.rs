//! A path to one claim of a token.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::{ClaimProblem, MAX_VALUE, printable};

/// The longest claim path, in bytes.
const MAX_PATH: usize = 256;
/// The most dots in a claim path: bounds the search of [`ClaimPath::find`].
pub(super) const MAX_DOTS: usize = 16;

/// Why a text is not a claim path. Reads on from "a claim path must have", or from "must be a claim path:".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimPathError {
    /// Empty or too long.
    #[error("1 to {MAX_PATH} bytes with at most {MAX_DOTS} dots")]
    Length,
    /// A brace, which only a template has.
    #[error("without braces here")]
    Brace,
    /// A control character, which no claim's name has.
    #[error("no control characters")]
    Control,
}

/// A path into a token's claims: names separated by dots.
///
/// Claim names themselves have dots and slashes (`kubernetes.io`, `https://example.com/role`), so
/// a path may be read in several ways. Every way of cutting it at dots is tried, and the one for
/// which the token has a value is taken: `kubernetes.io.serviceaccount.name` finds the claim
/// `kubernetes.io`, in it `serviceaccount`, in it `name`. When a token has values for two ways (a
/// nested claim and a flat one of the same spelling), it is refused: otherwise whoever may add a
/// flat claim could shadow the nested one. A claim that is `null` counts as absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath(String);

impl FromStr for ClaimPath {
    type Err = ClaimPathError;

    fn from_str(text: &str) -> Result<Self, ClaimPathError> {
        if text.contains(['{', '}']) {
            return Err(ClaimPathError::Brace);
        }
        if text.is_empty() || text.len() > MAX_PATH || text.bytes().filter(|&b| b == b'.').count() > MAX_DOTS {
            return Err(ClaimPathError::Length);
        }
        if text.chars().any(char::is_control) {
            return Err(ClaimPathError::Control);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClaimPath {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value that the path leads to.
    ///
    /// # Errors
    /// [`ClaimProblem::Ambiguous`] when it leads to two.
    pub(crate) fn find<'v>(&self, claims: &'v Map<String, Value>) -> Result<Option<&'v Value>, ClaimProblem> {
        let mut found = None;
        search(claims, &self.0, &mut found)?;
        Ok(found)
    }

    /// The value as text: strings as they are, numbers and booleans as JSON writes them.
    ///
    /// # Errors
    /// [`ClaimProblem`] when it is there and cannot be one printable line of at most 1 KiB.
    pub(crate) fn text(&self, claims: &Map<String, Value>) -> Result<Option<String>, ClaimProblem> {
        let text = match self.find(claims)? {
            None => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(_) => return Err(ClaimProblem::NotScalar),
        };
        if text.len() > MAX_VALUE {
            return Err(ClaimProblem::TooLong);
        }
        if !printable(&text) {
            return Err(ClaimProblem::Unprintable);
        }
        Ok(Some(text))
    }
}

/// Each object of the token is reached by at most one way of cutting, so the work is bounded by
/// the token's size (times [`MAX_DOTS`]), not by the number of ways.
fn search<'v>(object: &'v Map<String, Value>, path: &str, found: &mut Option<&'v Value>) -> Result<(), ClaimProblem> {
    let cuts = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    for cut in cuts {
        match object.get(&path[..cut]) {
            None | Some(Value::Null) => {}
            Some(value) if cut == path.len() => {
                if found.replace(value).is_some() {
                    return Err(ClaimProblem::Ambiguous);
                }
            }
            Some(Value::Object(inner)) => search(inner, &path[cut + 1..], found)?,
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => panic!("claims are an object"),
        }
    }

    fn path(text: &str) -> ClaimPath {
        text.parse().unwrap()
    }

    #[test]
    fn paths_find_claims_whose_names_have_dots_and_slashes() {
        let token = claims(json!({
            "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "payment"}},
            "https://example.com/role": "ci",
            "a": {"b": {"c.d": 7}}, "a.b": {"e": true},
            "nothing": null, "list": [1], "flat.name": "x",
        }));
        let text = |p: &str| path(p).text(&token);
        assert_eq!(text("kubernetes.io.serviceaccount.name"), Ok(Some("payment".into())));
        assert_eq!(text("https://example.com/role"), Ok(Some("ci".into())));
        assert_eq!(text("a.b.c.d"), Ok(Some("7".into())));
        assert_eq!(text("a.b.e"), Ok(Some("true".into())));
        assert_eq!(text("flat.name"), Ok(Some("x".into())));
        for absent in ["kubernetes.io.pod.name", "kubernetes", "nothing", "a.b.c.d.e", ".", "a."] {
            assert_eq!(text(absent), Ok(None), "{absent}");
        }
        assert_eq!(text("list"), Err(ClaimProblem::NotScalar));
        assert_eq!(text("kubernetes.io"), Err(ClaimProblem::NotScalar));
    }

    #[test]
    fn a_flat_claim_does_not_shadow_a_nested_one() {
        let token = claims(json!({
            "kubernetes.io": {"serviceaccount": {"name": "payment"}},
            "kubernetes.io.serviceaccount.name": "admin",
        }));
        let found = path("kubernetes.io.serviceaccount.name").find(&token);
        assert_eq!(found, Err(ClaimProblem::Ambiguous));
    }

    #[test]
    fn attributes_are_bounded_and_printable() {
        let long = "x".repeat(MAX_VALUE + 1);
        let token = claims(json!({"long": long, "nl": "a\nb", "bidi": "a\u{202e}b", "fits": "x".repeat(MAX_VALUE)}));
        assert_eq!(path("long").text(&token), Err(ClaimProblem::TooLong));
        assert_eq!(path("nl").text(&token), Err(ClaimProblem::Unprintable));
        assert_eq!(path("bidi").text(&token), Err(ClaimProblem::Unprintable));
        assert!(path("fits").text(&token).unwrap().is_some());
    }
}
