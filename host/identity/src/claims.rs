//! From a token's claims to a workload's name and to attributes, by configuration.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

/// The longest claim path, in bytes.
const MAX_PATH: usize = 256;
/// The longest template, in bytes.
const MAX_TEMPLATE: usize = 1024;
/// The most dots in a claim path: bounds the search of [`ClaimPath::find`].
const MAX_DOTS: usize = 16;
/// The longest workload name, in characters (a DNS name's limit).
const MAX_WORKLOAD: usize = 253;
/// The longest attribute, in bytes.
pub(crate) const MAX_VALUE: usize = 1024;
/// The most attributes of one caller.
pub const MAX_ATTRIBUTES: usize = 64;

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

/// Why a text is not a workload template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("each {{ needs its }}")]
    Brace,
    /// What is between braces is not a claim path.
    #[error("a claim path has {0}")]
    Path(#[from] ClaimPathError),
    /// Two claims without a text between them: where one ends could not be told.
    #[error("two claims need a text between them, as in \"{{namespace}}/{{name}}\"")]
    NoSeparator,
    /// Too long, or a control character.
    #[error("at most {MAX_TEMPLATE} bytes, no control characters")]
    Text,
    /// Every token of the issuer would be the same workload.
    #[error("without a claim every token would be the same workload")]
    NoClaim,
}

/// What is wrong with a claim that the configuration maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimProblem {
    /// Not in the token.
    #[error("claim is missing")]
    Missing,
    /// The path can be read in two ways, and the token has a value for both.
    #[error("claim path fits two claims of the token")]
    Ambiguous,
    /// An object or a list.
    #[error("claim is not a string, number or boolean")]
    NotScalar,
    /// The empty string where a name is needed.
    #[error("claim is empty")]
    Empty,
    /// Beyond the limit.
    #[error("claim is too long")]
    TooLong,
    /// Control or invisible characters, or spaces around it.
    #[error("claim has control or invisible characters, or spaces around it")]
    Unprintable,
    /// More attributes than a caller may have.
    #[error("more than {MAX_ATTRIBUTES} attributes")]
    TooMany,
    /// An attribute's name.
    #[error("an attribute has a name that no configuration may use")]
    Name,
    /// A claim's value has the template's separator in it: two workloads could get one name.
    #[error("claim contains the separator that the workload template has after it")]
    Separator,
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

/// No control characters, and none that make a text look like another one (zero width, direction).
pub(crate) fn printable(text: &str) -> bool {
    let invisible = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    !text.chars().any(invisible)
}

/// How a workload's name is made from claims: literal text and `{claim.path}`s.
///
/// Different claims never make the same name: between two paths there is a text, and a token
/// whose claim contains the first character of the text after it is refused. (With
/// `{namespace}/{name}`, a namespace `a/b` with name `c` would otherwise be the workload of
/// namespace `a` with name `b/c`.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadTemplate {
    prefix: String,
    /// Each path and the text after it.
    parts: Vec<(ClaimPath, String)>,
}

impl FromStr for WorkloadTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let (prefix, mut rest) = text.split_at(text.find('{').unwrap_or(text.len()));
        if prefix.contains('}') {
            return Err(TemplateError::Brace);
        }
        let mut parts: Vec<(ClaimPath, String)> = Vec::new();
        while let Some(after) = rest.strip_prefix('{') {
            let (path, after) = after.split_once('}').ok_or(TemplateError::Brace)?;
            let (literal, next) = after.split_at(after.find('{').unwrap_or(after.len()));
            let path = path.parse()?;
            if literal.contains('}') {
                return Err(TemplateError::Brace);
            }
            if literal.is_empty() && !next.is_empty() {
                return Err(TemplateError::NoSeparator);
            }
            parts.push((path, literal.to_owned()));
            rest = next;
        }
        if text.len() > MAX_TEMPLATE || text.chars().any(char::is_control) {
            return Err(TemplateError::Text);
        }
        if parts.is_empty() {
            return Err(TemplateError::NoClaim);
        }
        Ok(Self { prefix: prefix.to_owned(), parts })
    }
}

/// As it was written.
impl fmt::Display for WorkloadTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)?;
        self.parts.iter().try_for_each(|(path, literal)| write!(f, "{{{path}}}{literal}"))
    }
}

impl WorkloadTemplate {
    /// The claims that make the name, in their order.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|(path, _)| path.0.as_str())
    }

    /// The workload's name: 1 to 253 printable characters.
    ///
    /// # Errors
    /// [`ClaimProblem`] when the claims do not give one.
    pub(crate) fn workload(&self, claims: &Map<String, Value>) -> Result<String, ClaimProblem> {
        let mut name = self.prefix.clone();
        for (index, (path, literal)) in self.parts.iter().enumerate() {
            let value = path.text(claims)?.ok_or(ClaimProblem::Missing)?;
            if value.is_empty() {
                return Err(ClaimProblem::Empty);
            }
            let last = index + 1 == self.parts.len();
            if !last && literal.chars().next().is_some_and(|c| value.contains(c)) {
                return Err(ClaimProblem::Separator);
            }
            name.push_str(&value);
            name.push_str(literal);
        }
        check_workload(&name)?;
        Ok(name)
    }
}

/// Whether a text is a workload's name: 1 to 253 printable characters without spaces around them.
pub(crate) fn check_workload(name: &str) -> Result<(), ClaimProblem> {
    match name {
        "" => Err(ClaimProblem::Empty),
        name if name.chars().count() > MAX_WORKLOAD => Err(ClaimProblem::TooLong),
        name if name.trim() != name || !printable(name) => Err(ClaimProblem::Unprintable),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops where it fails

    use proptest::prelude::*;
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

    fn template(text: &str) -> Result<WorkloadTemplate, TemplateError> {
        text.parse()
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

    #[test]
    fn templates_are_checked_when_read() {
        for (text, error) in [
            ("", TemplateError::NoClaim),
            ("payment", TemplateError::NoClaim),
            ("{a", TemplateError::Brace),
            ("a}", TemplateError::Brace),
            ("{a}}", TemplateError::Brace),
            ("}{a}", TemplateError::Brace),
            ("{a{b}}", TemplateError::Path(ClaimPathError::Brace)),
            ("{}", TemplateError::Path(ClaimPathError::Length)),
            ("{a\n}", TemplateError::Path(ClaimPathError::Control)),
            ("{a}\n", TemplateError::Text),
            ("\u{7f}{a}", TemplateError::Text),
            ("{a}{b}", TemplateError::NoSeparator),
        ] {
            assert_eq!(template(text), Err(error), "{text}");
        }
        let dots = format!("{{{}}}", ".".repeat(MAX_DOTS + 1));
        assert_eq!(template(&dots), Err(TemplateError::Path(ClaimPathError::Length)));
        let long = |length: usize| format!("{{a}}{}", "x".repeat(length - 3));
        assert!(template(&long(MAX_TEMPLATE)).is_ok());
        assert_eq!(template(&long(MAX_TEMPLATE + 1)), Err(TemplateError::Text));
    }

    #[test]
    fn a_template_is_shown_as_it_was_written() {
        let text = "k8s:{kubernetes.io.namespace}/{sub}@prod";
        let template = template(text).unwrap();
        assert_eq!(template.to_string(), text);
        assert_eq!(template.claims().collect::<Vec<_>>(), ["kubernetes.io.namespace", "sub"]);
    }

    #[test]
    fn workloads_are_names() {
        let token = claims(json!({
            "ns": "shop", "sa": "payment", "slash": "a/b", "empty": "", "number": 12,
            "nul": "a\u{0}b", "space": " a", "long": "x".repeat(254),
        }));
        let name = |t: &str| template(t).unwrap().workload(&token);
        assert_eq!(name("{sa}"), Ok("payment".into()));
        assert_eq!(name("k8s:{ns}/{sa}@prod"), Ok("k8s:shop/payment@prod".into()));
        assert_eq!(name("{number}"), Ok("12".into()));
        assert_eq!(name("{ns}/{slash}"), Ok("shop/a/b".into()));
        assert_eq!(name("{slash}/{ns}"), Err(ClaimProblem::Separator));
        assert_eq!(name("{missing}"), Err(ClaimProblem::Missing));
        assert_eq!(name("x{empty}"), Err(ClaimProblem::Empty));
        assert_eq!(name("{nul}"), Err(ClaimProblem::Unprintable));
        assert_eq!(name("{space}"), Err(ClaimProblem::Unprintable));
        assert_eq!(name("{long}"), Err(ClaimProblem::TooLong));
    }

    #[test]
    fn hostile_claims_make_no_name() {
        let deep = |depth: usize| (0..depth).fold(json!("payment"), |inner, _| json!({"a": inner}));
        let token = claims(json!({
            "a": deep(MAX_DOTS), "object": {"x": 1}, "list": ["payment"], "null": null, "huge": 1e308, "neg": -0.0,
            "separator": "shop/payment", "braces": "{sub}", "space": "\u{2003}payment", "zero": "pay\u{200b}ment",
            "turned": "\u{202e}tnemyap", "tag": "a\u{e0061}", "del": "a\u{7f}", "nl": "a\r\nb", "bom": "\u{feff}a",
        }));
        let name = |t: &str| template(t).unwrap().workload(&token);
        let path = ["a"; MAX_DOTS + 1].join(".");
        assert_eq!(name(&format!("{{{path}}}")), Ok("payment".into()), "as deep as a path can reach");
        for nothing in ["{object}", "{list}", "{a}"] {
            assert_eq!(name(nothing), Err(ClaimProblem::NotScalar), "{nothing}");
        }
        assert_eq!(name("{null}"), Err(ClaimProblem::Missing));
        assert_eq!(name("{separator}/{huge}"), Err(ClaimProblem::Separator));
        // A claim is text: it is never read as a template.
        assert_eq!(name("{braces}"), Ok("{sub}".into()));
        for invisible in ["{space}", "{zero}", "{turned}", "{tag}", "{del}", "{nl}", "{bom}"] {
            assert_eq!(name(invisible), Err(ClaimProblem::Unprintable), "{invisible}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_as_written_or_refused(text in "[{}./a é\u{0}\u{7f}]{0,24}") {
            if let Ok(template) = template(&text) {
                prop_assert_eq!(template.to_string(), text);
                prop_assert!(template.claims().count() > 0);
            }
        }

        #[test]
        fn whatever_claims_say_a_name_is_a_name(x in any::<String>(), y in any::<String>(), z in ".{0,300}") {
            let template = template("k8s:{x}/{y}@{z}").unwrap();
            if let Ok(name) = template.workload(&claims(json!({"x": x, "y": y, "z": z}))) {
                prop_assert_eq!(check_workload(&name), Ok(()));
                prop_assert_eq!(name, format!("k8s:{x}/{y}@{z}"));
            }
        }
    }

    proptest! {
        #[test]
        fn different_claims_never_make_the_same_workload(
            a in "[ab/:.]{1,4}", b in "[ab/:.]{1,4}", c in "[ab/:.]{1,4}", d in "[ab/:.]{1,4}",
        ) {
            let template = template("{x}/:{y}").unwrap();
            let first = template.workload(&claims(json!({"x": a, "y": b})));
            let second = template.workload(&claims(json!({"x": c, "y": d})));
            if let (Ok(first), Ok(second)) = (first, second) {
                prop_assert_eq!(first == second, (a, b) == (c, d));
            }
        }
    }
}
