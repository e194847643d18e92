//! Templates: `{{username}}` stands for a value, `{{password | json}}` for it in the quoting of a form.
//!
//! Filters: `raw` (the value as it is; also without any), `sh` (a word of a shell, quotes included), `json` (a
//! string, quotes included), `properties` (the value part of a line), `mycnf` (quotes included), `url`
//! (percent-encoded), `xml` (text or attribute). `{{{{` is a literal `{{`.

use std::path::Path;

use secrecy::zeroize::Zeroizing;

use super::{Fields, NAMES, env, java, mycnf, unfit};
use crate::error::AgentError;

/// The largest template.
const MOST: u64 = 256 * 1024;
const FILTERS: [&str; 7] = ["raw", "sh", "json", "properties", "mycnf", "url", "xml"];

/// A template, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value { name: &'static str, filter: &'static str },
}

impl Template {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, AgentError> {
        use std::io::Read as _;
        let wrong = |why: String| AgentError::Config(format!("the template {}: {why}", path.display()));
        let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
        let mut text = String::new();
        file.take(MOST + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
        if text.len() as u64 > MOST {
            return Err(wrong(format!("it is longer than {MOST} bytes")));
        }
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(open) = rest.find("{{") {
            plain.push_str(&rest[..open]);
            let line = text[..text.len() - rest.len() + open].matches('\n').count() + 1;
            let inside = &rest[open + 2..];
            if let Some(after) = inside.strip_prefix("{{") {
                plain.push_str("{{");
                rest = after;
                continue;
            }
            let close = inside.find("}}").ok_or_else(|| format!("line {line}: {{{{ without }}}}"))?;
            let value = value(&inside[..close]).map_err(|why| format!("line {line}: {why}"))?;
            parts.extend([Part::Text(std::mem::take(&mut plain)), value]);
            rest = &inside[close + 2..];
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self { parts })
    }

    /// The text with the values in place.
    pub(crate) fn fill(&self, fields: &Fields) -> Result<Zeroizing<String>, AgentError> {
        let mut text = Zeroizing::new(String::with_capacity(8_192));
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Value { name, filter } => text.push_str(&filtered(fields.get(name), filter)?),
            }
        }
        Ok(text)
    }
}

fn value(inside: &str) -> Result<Part, String> {
    let (name, filter) = inside.split_once('|').unwrap_or((inside, "raw"));
    let (name, filter) = (name.trim(), filter.trim());
    let find = |all: &[&'static str], word: &str| all.iter().find(|known| **known == word).copied();
    let name = find(&NAMES, name).ok_or_else(|| format!("no value {name:?}; there are {}", NAMES.join(", ")))?;
    let filter =
        find(&FILTERS, filter).ok_or_else(|| format!("no filter {filter:?}; there are {}", FILTERS.join(", ")))?;
    Ok(Part::Value { name, filter })
}

fn filtered(value: &str, filter: &str) -> Result<Zeroizing<String>, AgentError> {
    Ok(match filter {
        "sh" if value.contains('\0') => return Err(unfit("template", "a zero byte is no part of a shell's word")),
        "sh" => env::quoted(value),
        "json" => Zeroizing::new(serde_json::to_string(value).expect("a string has a form in JSON")),
        "properties" => java::escaped(value, false),
        "mycnf" => mycnf::quoted(value),
        "url" => url(value),
        "xml" => xml(value)?,
        _ => Zeroizing::new(value.to_owned()),
    })
}

fn url(value: &str) -> Zeroizing<String> {
    // As large as it can become: growing would leave a copy of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(value.len() * 3));
    text.extend(jit_api::url::encode(value));
    text
}

fn xml(value: &str) -> Result<Zeroizing<String>, AgentError> {
    let mut text = Zeroizing::new(String::with_capacity(value.len() * 2));
    for character in value.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&apos;"),
            '\t' | '\n' | '\r' => text.push_str(&format!("&#{};", character as u32)),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                return Err(unfit("template", "XML 1.0 has no way to write a control character"));
            }
            _ => text.push(character),
        }
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::format::tests::credential;

    fn filled(text: &str, password: &str) -> String {
        let fields = Fields::of(&credential("v-app", password));
        Template::parse(text).unwrap().fill(&fields).unwrap().to_string()
    }

    #[test]
    fn values_take_their_places() {
        assert_eq!(filled("u={{username}}\np={{ password }}\n", "geheim"), "u=v-app\np=geheim\n");
        assert_eq!(filled("{{{{username}} {} }} { {{port}}", "x"), "{{username}} {} }} { 5432");
        assert_eq!(filled("", "x"), "");
    }

    #[test]
    fn each_filter_quotes_for_its_form() {
        let hostile = "a'b\"c\\d=<&> \n";
        for (filter, expected) in [
            ("raw", hostile.to_owned()),
            ("sh", "'a'\\''b\"c\\d=<&> \n'".to_owned()),
            ("json", "\"a'b\\\"c\\\\d=<&> \\n\"".to_owned()),
            ("properties", "a'b\"c\\\\d\\=<&> \\n".to_owned()),
            ("mycnf", "\"a'b\\\"c\\\\d=<&> \\n\"".to_owned()),
            ("url", "a%27b%22c%5Cd%3D%3C%26%3E%20%0A".to_owned()),
            ("xml", "a&apos;b&quot;c\\d=&lt;&amp;&gt; &#10;".to_owned()),
        ] {
            assert_eq!(filled(&format!("{{{{password|{filter}}}}}"), hostile), expected, "{filter}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, told) in [
            ("a\n{{pasword}}", "line 2: no value \"pasword\"; there are username, password"),
            ("{{password|base64}}", "line 1: no filter \"base64\""),
            ("\n\n{{password", "line 3: {{ without }}"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.starts_with(told), "{error}");
        }
        let fields = Fields::of(&credential("v", "a\0b"));
        assert!(Template::parse("{{password|sh}}").unwrap().fill(&fields).is_err());
        assert!(Template::parse("{{password|xml}}").unwrap().fill(&fields).is_err());
    }

    #[test]
    fn a_value_that_looks_like_a_place_is_no_place() {
        assert_eq!(filled("{{password}}", "{{username}}"), "{{username}}");
    }
}
