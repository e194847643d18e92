//! Typed configuration: what an operator wrote, or what to write instead.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer};

pub use crate::bindings::host::jit::plugin::types::ConfigProblem;

/// The longest configuration in bytes that is parsed.
const MAX_CONFIG: usize = 1 << 20;

impl ConfigProblem {
    /// A mistake at a dotted path (`rules[0].max_ttl`), empty for the whole; say what to write instead.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// Parses a plugin's configuration (JSON, as the host hands it over; empty is `{}`). A mistake
/// comes with its path and with what to write instead. Give the type
/// `#[serde(deny_unknown_fields)]`, so that a misspelt key is a mistake too.
///
/// # Errors
/// One problem: the first that was found.
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Vec<ConfigProblem>> {
    if json.len() > MAX_CONFIG {
        let message = format!("is longer than {MAX_CONFIG} bytes: split it over several plugins");
        return Err(vec![ConfigProblem::new("", message)]);
    }
    let json = match json.trim() {
        "" | "null" => "{}",
        json => json,
    };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = match error.path().to_string() {
            root if root == "." => String::new(),
            path => path,
        };
        vec![ConfigProblem::new(path, advise(&error.inner().to_string()))]
    })
}

/// Turns serde's words into what the author can do. Places in the JSON are dropped: the author
/// wrote TOML and never saw it.
fn advise(message: &str) -> String {
    let message = match message.rfind(" at line ") {
        Some(end) => &message[..end],
        None => message,
    };
    let mut quoted = message.split('`').skip(1).step_by(2);
    if let Some(field) = message.starts_with("missing field").then(|| quoted.next()).flatten() {
        return format!("`{field}` is missing: add `{field} = …`");
    }
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        let wrong = quoted.next().unwrap_or_default();
        let nearest = quoted.map(|candidate| (distance(wrong, candidate), candidate)).min();
        if let Some((changes, candidate)) = nearest
            && changes <= 2
        {
            return format!("{message}: write `{candidate}`");
        }
    }
    message.to_owned()
}

/// Levenshtein's distance, in bytes: keys are ASCII and short. Long ones are not compared.
fn distance(a: &str, b: &str) -> usize {
    if a.len().max(b.len()) > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A duration in a configuration: `"90s"`, `"30m"`, `"1h30m"`, `"7d"` or whole seconds, at least one second and at
/// most ten years; the grammar is the contract's.
pub use jit_contract::Seconds;

/// What an operator calls a part of a configuration (a rule, a limit, a window). It stands in reasons
/// and in the audit log, so it is one line of 1 to 100 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim().is_empty() || text.len() > 100 || text.chars().any(char::is_control) {
            let message = "is empty, longer than 100 bytes or has control characters: it goes into the audit log";
            return Err(de::Error::custom(message));
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        rules: Vec<Rule>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        max_ttl: Option<Seconds>,
    }

    fn problem(json: &str) -> (String, String) {
        let problem = parse::<Config>(json).unwrap_err().remove(0);
        (problem.path, problem.message)
    }

    #[test]
    fn a_mistake_is_told_with_its_path_and_what_to_write() {
        let (path, message) = problem(r#"{"rules": [{}, {"max_tll": "1h"}]}"#);
        assert_eq!(path, "rules[1].max_tll");
        assert!(message.ends_with("write `max_ttl`"), "{message}");

        assert_eq!(problem("{}"), (String::new(), "`rules` is missing: add `rules = …`".into()));
        let (path, message) = problem(r#"{"rules": [{"max_ttl": "soon"}]}"#);
        assert_eq!(path, "rules[0].max_ttl");
        assert!(message.contains("\"30m\"") && !message.contains("line"), "{message}");
    }

    #[test]
    fn what_is_right_is_taken() {
        let config = parse::<Config>(r#"{"rules": [{}, {"max_ttl": "1h"}]}"#).unwrap();
        let ttls: Vec<_> = config.rules.iter().map(|rule| rule.max_ttl).collect();
        assert_eq!(ttls, [None, Seconds::parse("1h")]);
    }

    #[test]
    fn what_is_not_near_is_not_suggested() {
        let (_, message) = problem(r#"{"rules": [{"colour": 1}]}"#);
        assert!(!message.contains("write `"), "{message}");
    }

    #[test]
    fn an_empty_configuration_is_an_empty_table() {
        assert!(parse::<std::collections::BTreeMap<String, String>>("").unwrap().is_empty());
        assert!(parse::<Config>(&" ".repeat(MAX_CONFIG + 1)).is_err());
    }

    #[test]
    fn names_are_one_short_line() {
        assert_eq!(serde_json::from_str::<Name>("\"office hours\"").unwrap().as_str(), "office hours");
        for text in ["", "  ", "a\\nb", "\\u001b[2J", &"x".repeat(101)] {
            assert!(serde_json::from_str::<Name>(&format!("\"{text}\"")).is_err(), "{text}");
        }
    }
}
