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
    let is_field = message.starts_with("unknown field");
    if is_field || message.starts_with("unknown variant") {
        let wrong = quoted.next().unwrap_or_default();
        let allowed: Vec<&str> = quoted.collect();
        let advice = match nearest(wrong, allowed.iter().copied()) {
            Some(near) => format!("write `{near}`"),
            None if allowed.is_empty() => "there are no keys here".to_owned(),
            None => format!("there are {}", allowed.join(", ")),
        };
        return match is_field {
            true => format!("unknown key `{wrong}`: {advice}"),
            false => format!("`{wrong}` is not one of {}: {advice}", allowed.join(", ")),
        };
    }
    of_kind(message).unwrap_or_else(|| message.to_owned())
}

/// Serde's words for a value of another kind, as the broker says it of its own keys. What was written is not
/// repeated: it may be a secret in a wrong place.
fn of_kind(message: &str) -> Option<String> {
    let (found, wanted) = message.strip_prefix("invalid type: ")?.split_once(", expected ")?;
    let is_text = found.starts_with("string ");
    let found = match found.split(' ').next()? {
        "string" => "a text",
        "integer" | "floating" => "a number",
        "boolean" => "true or false",
        "sequence" => "a list",
        "map" => "a table",
        "null" => "nothing",
        _ => return None,
    };
    let wanted = match wanted {
        "a sequence" if is_text => "a list, such as [\"…\"]",
        "a sequence" => "a list",
        "a string" => "a text in quotes",
        "a map" => "a table",
        "a boolean" => "true or false",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        wanted if wanted.starts_with("struct ") => "a table",
        // A type's own words: "a duration such as …".
        wanted => wanted,
    };
    Some(format!("must be {wanted}, not {found}"))
}

/// Of these words the one that was likely meant: two changes away at most.
///
/// ```
/// let roles = ["app_read_only", "app_read_write"];
/// assert_eq!(jit_plugin::config::nearest("app_raed_only", roles), Some("app_read_only"));
/// assert_eq!(jit_plugin::config::nearest("postgres", roles), None);
/// ```
pub fn nearest<'w>(wrong: &str, candidates: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let near = candidates.into_iter().map(|candidate| (distance(wrong, candidate), candidate)).min()?;
    // Of a very short word everything is two changes away.
    (near.0 <= 2 && near.0 < wrong.len()).then_some(near.1)
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
        assert_eq!(message, "unknown key `max_tll`: write `max_ttl`");

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
        assert_eq!(message, "unknown key `colour`: there are max_ttl");
    }

    #[test]
    fn a_value_of_another_kind_is_told_in_words_of_toml_and_not_repeated() {
        assert_eq!(problem(r#"{"rules": "hunter2"}"#).1, "must be a list, such as [\"…\"], not a text");
        assert_eq!(problem(r#"{"rules": [7]}"#).1, "must be a table, not a number");
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Others {
            #[serde(default, rename = "count")]
            _count: u32,
            #[serde(default, rename = "name")]
            _name: String,
            #[serde(default, rename = "on")]
            _on: bool,
            #[serde(rename = "mode")]
            _mode: Option<Mode>,
        }
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Mode {
            Strict,
            Lax,
        }
        let message = |json: &str| parse::<Others>(json).unwrap_err().remove(0).message;
        assert_eq!(message(r#"{"count": "7"}"#), "must be a whole number, 0 or more, not a text");
        assert_eq!(message(r#"{"name": [1]}"#), "must be a text in quotes, not a list");
        assert_eq!(message(r#"{"on": 1}"#), "must be true or false, not a number");
        assert_eq!(message(r#"{"mode": "laxx"}"#), "`laxx` is not one of strict, lax: write `lax`");
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
