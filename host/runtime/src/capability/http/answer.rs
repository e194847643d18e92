//! From a server's answer to what a guest may see: read within bounds, its secrets taken out,
//! and whatever the request placed blotted out of the rest.

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use secrecy::{SecretBox, SecretString};
use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

use super::blot::blot;
use super::connection::lost;

/// The longest body, in bytes.
pub(super) const MAX_BODY: usize = 1 << 20;

/// Most headers of one name, and most bytes of a value: what is beyond is left out.
const VALUES: usize = 8;
const VALUE_BYTES: usize = 4 << 10;

/// Stands for a body that cannot be shown.
const NOT_SHOWN: &str = "(not shown: it has secrets to withhold and is not JSON)";

/// What was read of an answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: Zeroizing<Vec<u8>>,
}

/// What the guest is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Answer {
    /// Reads the whole answer, of at most so many bytes.
    ///
    /// # Errors
    /// In words, when it broke off or is longer.
    pub(super) async fn read(mut response: reqwest::Response, limit: usize) -> Result<Self, String> {
        let status = response.status();
        let headers = listed(response.headers());
        let limit =
            limit.min(MAX_BODY).saturating_sub(headers.iter().map(|(name, value)| name.len() + value.len()).sum());
        let too_long = || format!("the answer has more than the {limit} bytes that are left");
        // A content-length is only a claim: room is made for what comes.
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error.without_url()))? {
            if body.len() + chunk.len() > limit {
                return Err(too_long());
            }
            append(&mut body, &chunk);
        }
        Ok(Self { status, headers, body })
    }

    /// The first value of a listed header.
    pub(super) fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str())
    }

    /// The body, with the secrets in it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    /// Takes the secrets at these JSON Pointers out, and blots those that were placed.
    ///
    /// # Errors
    /// In words, when the body is no text.
    pub(super) fn open(
        self,
        withhold: &[String],
        placed: &[SecretString],
    ) -> Result<(Shown, Vec<Option<SecretString>>), String> {
        let Ok(text) = std::str::from_utf8(&self.body) else {
            return Err(format!("the answer (status {}) is not UTF-8", self.status.as_u16()));
        };
        let (body, withheld) = cut(text, withhold);
        let mut secrets = placed.to_vec();
        secrets.extend(withheld.iter().flatten().cloned());
        let headers = self.headers.iter().map(|(name, value)| ((*name).to_owned(), blot(value, &secrets))).collect();
        let shown = Shown { status: self.status.as_u16(), headers, body: blot(&body, &secrets) };
        Ok((shown, withheld))
    }
}

/// Adds to a buffer whose old memory is wiped when it grows.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if body.len() + chunk.len() > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity((body.len() + chunk.len()).max(2 * body.capacity())));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

/// The headers that a guest may see, where they are text.
fn listed(headers: &HeaderMap) -> Vec<(&'static str, String)> {
    let names = [
        (CONTENT_TYPE, "content-type"),
        (RETRY_AFTER, "retry-after"),
        (LOCATION, "location"),
        (WWW_AUTHENTICATE, "www-authenticate"),
    ];
    let mut listed = Vec::new();
    for (header, name) in names {
        let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        let values = values.filter(|value| value.len() <= VALUE_BYTES).take(VALUES);
        listed.extend(values.map(|value| (name, value.to_owned())));
    }
    listed
}

/// The body without what is to be withheld, and that.
fn cut(text: &str, withhold: &[String]) -> (Zeroizing<String>, Vec<Option<SecretString>>) {
    if withhold.is_empty() {
        return (Zeroizing::new(text.to_owned()), Vec::new());
    }
    let whole = withhold.iter().any(String::is_empty);
    let inner = withhold.iter().any(|pointer| !pointer.is_empty());
    let mut value = if inner { serde_json::from_str::<Value>(text).ok() } else { None };
    let withheld = withhold.iter().map(|pointer| {
        if has_wildcard(pointer) {
            return None;
        }
        let found = if pointer.is_empty() { Some(text) } else { value.as_ref()?.pointer(pointer)?.as_str() };
        found.filter(|found| !found.is_empty()).map(secret)
    });
    let withheld = withheld.collect();
    let shown = match &mut value {
        _ if whole || text.is_empty() => String::new(),
        None => NOT_SHOWN.to_owned(),
        Some(value) => {
            for pointer in withhold {
                if has_wildcard(pointer) {
                    let segments: Vec<String> = pointer.split('/').skip(1).map(unescaped).collect();
                    take_out(value, &segments);
                } else if let Some(there) = value.pointer_mut(pointer) {
                    take_out(there, &[]);
                }
            }
            value.to_string()
        }
    };
    if let Some(value) = &mut value {
        wipe(value);
    }
    (Zeroizing::new(shown), withheld)
}

/// Whether a segment of it stands for all there are.
fn has_wildcard(pointer: &str) -> bool {
    pointer.split('/').skip(1).any(|segment| segment == "*")
}

/// A segment of a JSON Pointer (RFC 6901, section 4).
fn unescaped(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// Wipes what stands at the segments. `*` is every item of an array and every member of an object.
fn take_out(value: &mut Value, segments: &[String]) {
    let Some((segment, rest)) = segments.split_first() else {
        wipe(value);
        *value = Value::Null;
        return;
    };
    match value {
        Value::Array(items) if segment == "*" => items.iter_mut().for_each(|item| take_out(item, rest)),
        Value::Object(members) if segment == "*" => members.values_mut().for_each(|member| take_out(member, rest)),
        Value::Array(items) => {
            if let Some(item) = segment.parse().ok().and_then(|at: usize| items.get_mut(at)) {
                take_out(item, rest);
            }
        }
        Value::Object(members) => {
            if let Some(member) = members.get_mut(segment) {
                take_out(member, rest);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A copy of exactly its size, so that nothing of it is left elsewhere.
fn secret(text: &str) -> SecretString {
    SecretBox::new(Box::from(text))
}

/// Wipes every text in a value. The parser bounds how deep it is.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use secrecy::ExposeSecret as _;

    use super::*;

    fn open(body: &str, withhold: &[&str], placed: &[&str]) -> (Shown, Vec<Option<String>>) {
        let answer = Answer {
            status: StatusCode::OK,
            headers: vec![("location", "/new?token=canary".to_owned())],
            body: Zeroizing::new(body.as_bytes().to_vec()),
        };
        let withhold: Vec<String> = withhold.iter().map(|pointer| (*pointer).to_owned()).collect();
        let placed: Vec<SecretString> = placed.iter().map(|secret| SecretString::from(*secret)).collect();
        let (shown, withheld) = answer.open(&withhold, &placed).unwrap();
        (shown, withheld.into_iter().map(|secret| secret.map(|s| s.expose_secret().to_owned())).collect())
    }

    #[test]
    fn withheld_values_are_null_and_given_in_order() {
        let body = r#"{"lease":"l1","data":{"password":"canary","n":7,"o":{"p":"x"}},"copy":["pre-canary"]}"#;
        let (shown, withheld) = open(body, &["/data/n", "/data/password", "/none", "/data/o", "/data/password"], &[]);
        let canary = Some("canary".to_owned());
        assert_eq!(withheld, [None, canary.clone(), None, None, canary]);
        assert_eq!(shown.body, r#"{"copy":["pre-***"],"data":{"n":null,"o":null,"password":null},"lease":"l1"}"#);
        assert_eq!(shown.headers, [("location".to_owned(), "/new?token=***".to_owned())]);
    }

    #[test]
    fn one_within_another_is_given_and_both_are_gone() {
        let (shown, withheld) = open(r#"{"data":{"password":"canary"},"a":1}"#, &["/data", "/data/password"], &[]);
        assert_eq!(withheld, [None, Some("canary".to_owned())]);
        assert_eq!(shown.body, r#"{"a":1,"data":null}"#);
    }

    #[test]
    fn a_star_takes_out_of_every_item_and_member_and_gives_no_handle() {
        let body = r#"[{"name":"a","password_hash":"one"},{"name":"b","password_hash":"two"},{"name":"c"},7]"#;
        let (shown, withheld) = open(body, &["/*/password_hash"], &[]);
        let rest = r#"[{"name":"a","password_hash":null},{"name":"b","password_hash":null},{"name":"c"},7]"#;
        assert_eq!((shown.body.as_str(), withheld), (rest, vec![None]));

        let body = r#"{"users":{"a":{"keys":["k1","k2"]},"*":{"keys":["k3"]}},"a~b/c":[{"x":"k4"}]}"#;
        let (shown, withheld) = open(body, &["/users/*/keys/*", "/a~0b~1c/*/x", "/users/a/keys/0"], &[]);
        let rest = r#"{"a~b/c":[{"x":null}],"users":{"*":{"keys":[null]},"a":{"keys":[null,null]}}}"#;
        assert_eq!((shown.body.as_str(), withheld), (rest, vec![None, None, Some("k1".to_owned())]));

        // One item by its number below a star, and a star where there is nothing.
        let (shown, _) = open(r#"{"a":[["x","y"],["z"]],"b":"text"}"#, &["/a/*/1", "/b/*", "/c/*"], &[]);
        assert_eq!(shown.body, r#"{"a":[["x",null],["z"]],"b":"text"}"#);
    }

    #[test]
    fn a_whole_body_is_given_as_it_is() {
        let (shown, withheld) = open(" canary\n", &[""], &[]);
        assert_eq!((shown.body.as_str(), withheld), ("", vec![Some(" canary\n".to_owned())]));
        let (shown, withheld) = open(r#"{"p":"canary"}"#, &["/p", ""], &[]);
        let both = vec![Some("canary".to_owned()), Some(r#"{"p":"canary"}"#.to_owned())];
        assert_eq!((shown.body.as_str(), withheld), ("", both));
        let (shown, withheld) = open("", &["", "/a"], &[]);
        assert_eq!((shown.body.as_str(), withheld), ("", vec![None, None]));
    }

    #[test]
    fn what_is_not_json_is_not_shown_where_something_is_to_be_withheld() {
        let deep = format!("{}\"canary\"{}", "[".repeat(200), "]".repeat(200));
        for body in ["<html>canary", r#"{"a":"canary""#, r#"{"a":"canary"} trailing"#, &deep] {
            let (shown, withheld) = open(body, &["/a"], &[]);
            assert_eq!((shown.body.as_str(), withheld), (NOT_SHOWN, vec![None]));
        }
    }

    #[test]
    fn the_last_of_two_members_of_one_name_counts_and_none_is_shown() {
        let (shown, withheld) = open(r#"{"p":"first-canary","p":"second-canary"}"#, &["/p"], &[]);
        assert_eq!((shown.body.as_str(), withheld), (r#"{"p":null}"#, vec![Some("second-canary".to_owned())]));
    }

    #[test]
    fn what_was_placed_is_blotted_out_and_the_rest_stays_as_it_was() {
        let (shown, _) = open("{ \"error\" : \"no canary, no \\u0063anary\" }", &[], &["canary"]);
        assert_eq!(shown.body, "{ \"error\" : \"no ***, no ***\" }");
        assert!(!format!("{:?}", shown.headers).contains("canary"));
    }

    #[test]
    fn a_body_that_is_no_text_is_told_by_its_status() {
        let answer = Answer { status: StatusCode::OK, headers: Vec::new(), body: Zeroizing::new(vec![0xff, b'c']) };
        assert_eq!(answer.open(&[], &[]).unwrap_err(), "the answer (status 200) is not UTF-8");
    }
}
