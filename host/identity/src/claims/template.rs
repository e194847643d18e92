//! How a workload's name is made from claims.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::path::{ClaimPath, ClaimPathError};
use super::{ClaimProblem, check_workload};

/// The longest template, in bytes.
const MAX_TEMPLATE: usize = 1024;

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
        self.parts.iter().map(|(path, _)| path.as_str())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::path::MAX_DOTS;
    use super::*;

    fn claims(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => panic!("claims are an object"),
        }
    }

    fn template(text: &str) -> Result<WorkloadTemplate, TemplateError> {
        text.parse()
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
            "separator": "shop/payment", "braces": "{sub}", "space": "\u{2003}payment", "zero": "pay\u{200b}load",
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
