//! Patterns in configurations: exact names and globs, and beginnings of SPIFFE IDs. They are compared
//! byte for byte, without case folding or normalisation, and no pattern takes more than linear time.

use std::fmt;

use serde::{Deserialize, de};

/// The longest pattern in bytes.
const MAX_PATTERN: usize = 512;

/// The longest text in bytes that a pattern is held against: the longest SPIFFE ID.
const MAX_TEXT: usize = 2048;

/// A name, or a glob in which `*` stands for any run of characters and `?` for any one. Nothing
/// else is special, and what is special elsewhere (`[`, `{`, `\`) is refused rather than taken
/// literally.
///
/// ```
/// use jit_plugin::Pattern;
///
/// let pattern = Pattern::new("payment-*").unwrap();
/// assert!(pattern.fits("payment-service"));
/// assert!(!pattern.fits("prepayment-service"));
/// assert!(Pattern::new("payment-[a-z]").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern of 1 to 512 bytes.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        if text.is_empty() {
            return Err("is empty: write a name, or `*` for any".into());
        }
        if text.len() > MAX_PATTERN {
            return Err(format!("is longer than {MAX_PATTERN} bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err("has a control character: no name that it could fit is accepted".into());
        }
        match text.chars().find(|c| "[]{}\\".contains(*c)) {
            Some(c) => {
                Err(format!("has `{c}`, and only `*` and `?` are special here: write one rule or entry for each name"))
            }
            None => Ok(Self(text)),
        }
    }

    /// Whether the whole text fits. A text that is too long or has control characters fits
    /// nothing, not even `*`: whoever made it hopes to be taken for somebody else in a log.
    ///
    /// There is no backtracking: every run between two stars is searched once, from where the one
    /// before it ended.
    pub fn fits(&self, text: &str) -> bool {
        if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
            return false;
        }
        let Some((first, rest)) = self.0.split_once('*') else {
            return strip(text, &self.0) == Some("");
        };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(text) = strip(text, first) else {
            return false;
        };
        let Some(mut text) = strip_end(text, last) else {
            return false;
        };
        for run in middle.split('*').filter(|run| !run.is_empty()) {
            match after(text, run) {
                Some(rest) => text = rest,
                None => return false,
            }
        }
        true
    }

    /// Whether it is a name and no glob: only the name itself fits.
    pub fn is_exact(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a list of patterns fits; a list that is left out fits everything.
pub fn any_fits(patterns: Option<&[Pattern]>, text: &str) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.fits(text)))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The text after `run`, with which it must begin. In a run only `?` is special.
fn strip<'t>(text: &'t str, run: &str) -> Option<&'t str> {
    let mut rest = text.chars();
    for wanted in run.chars() {
        let found = rest.next()?;
        if wanted != '?' && wanted != found {
            return None;
        }
    }
    Some(rest.as_str())
}

/// The text before `run`, with which it must end.
fn strip_end<'t>(text: &'t str, run: &str) -> Option<&'t str> {
    let mut rest = text.chars();
    for wanted in run.chars().rev() {
        let found = rest.next_back()?;
        if wanted != '?' && wanted != found {
            return None;
        }
    }
    Some(rest.as_str())
}

/// The text after the first place of `run`.
fn after<'t>(text: &'t str, run: &str) -> Option<&'t str> {
    if !run.contains('?') {
        return text.split_once(run).map(|(_, rest)| rest);
    }
    text.char_indices().find_map(|(start, _)| strip(&text[start..], run))
}

/// The beginning of SPIFFE IDs, aligned to segments of the path: `spiffe://td/ns/pay` is
/// `spiffe://td/ns/pay` itself and what is below it, and never `spiffe://td/ns/payments`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffePrefix(String);

impl SpiffePrefix {
    /// A trust domain with a path of whole segments, or without one.
    ///
    /// # Errors
    /// What to write instead.
    pub fn new(text: &str) -> Result<Self, String> {
        let prefix = text.strip_suffix('/').unwrap_or(text);
        if !is_spiffe_id(prefix) {
            return Err("is not the beginning of a SPIFFE ID: write `spiffe://trust-domain/path`, whole \
                 segments and no globs"
                .into());
        }
        Ok(Self(prefix.to_owned()))
    }

    /// Whether the ID is the prefix or below it.
    pub fn fits(&self, id: &str) -> bool {
        is_spiffe_id(id) && id.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl<'de> Deserialize<'de> for SpiffePrefix {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// As the SPIFFE-ID standard has it (section 2): a trust domain of lower-case letters, digits, `.`,
/// `-`, `_`; segments of letters, digits and the same, none of them empty, `.` or `..`.
fn is_spiffe_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else {
        return false;
    };
    let (domain, path) = match rest.split_once('/') {
        Some((domain, path)) => (domain, Some(path)),
        None => (rest, None),
    };
    let mark = |b: u8| matches!(b, b'.' | b'-' | b'_');
    let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || mark(b);
    let in_segment = |b: u8| b.is_ascii_alphanumeric() || mark(b);
    let is_segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(in_segment);
    text.len() <= MAX_TEXT
        && !domain.is_empty()
        && domain.len() <= 255
        && domain.bytes().all(in_domain)
        && path.is_none_or(|path| path.split('/').all(is_segment))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]
    use super::*;

    fn fits(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().fits(text)
    }

    #[test]
    fn globs() {
        for (pattern, text) in [
            ("payment", "payment"),
            ("payment-*", "payment-"),
            ("payment-*", "payment-service"),
            ("*-service", "payment-service"),
            ("*", ""),
            ("**", "anything"),
            ("p?y*s*v?ce", "payment-service"),
            ("?", "é"),
            ("a*?", "ab"),
            ("a*b*c", "a-b-b-c"),
            ("*b?d*", "abcbbd"),
            ("a*a", "aa"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("payment", "payments"),
            ("payment", "Payment"),
            ("payment-*", "payment"),
            ("payment-*", "x-payment-service"),
            ("?", ""),
            ("?", "ab"),
            ("a*a", "a"),
            ("a*?b", "ab"),
            ("*b?d*", "abccd"),
            ("a.c", "abc"),
            ("é", "e\u{301}"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    /// With backtracking these would take longer than the universe has.
    #[test]
    fn pathological_globs_end() {
        let text = "a".repeat(MAX_TEXT);
        assert!(!fits(&"a*".repeat(MAX_PATTERN / 2 - 1).replace("a*a*", "a*"), &format!("{text}b")));
        assert!(!fits(&format!("{}b", "*a".repeat(255)), &text));
        assert!(!fits(&format!("{}b", "*?".repeat(255)), &text));
        assert!(fits(&"*a".repeat(256), &text));
        assert!(!fits(&format!("*{}b*", "?".repeat(500)), &text));
    }

    #[test]
    fn a_hostile_text_fits_nothing() {
        for text in ["a\0", "a\nb", "\u{1b}[31m", "a\u{85}"] {
            assert!(!fits("*", text), "{text:?}");
        }
        assert!(fits("*", &"a".repeat(MAX_TEXT)));
        assert!(!fits("*", &"a".repeat(MAX_TEXT + 1)));
    }

    #[test]
    fn what_would_be_special_elsewhere_is_refused() {
        for pattern in ["", "a[bc]", "{a,b}", "a\\*", "a\n", &"a".repeat(MAX_PATTERN + 1)] {
            assert!(Pattern::new(pattern).is_err(), "{pattern:?}");
        }
    }

    #[test]
    fn spiffe_prefixes_end_at_a_segment() {
        let prefix = SpiffePrefix::new("spiffe://corp.test/ns/pay").unwrap();
        assert!(prefix.fits("spiffe://corp.test/ns/pay"));
        assert!(prefix.fits("spiffe://corp.test/ns/pay/sa/api"));
        for id in [
            "spiffe://corp.test/ns/payments",
            "spiffe://corp.test/ns/pay/",
            "spiffe://corp.test/ns/pay/../root",
            "spiffe://corp.test/ns/pay//x",
            "spiffe://corp.test/ns/pay/%2e%2e",
            "spiffe://corp.test.evil/ns/pay",
            "spiffe://corp.test/ns",
            "https://corp.test/ns/pay",
        ] {
            assert!(!prefix.fits(id), "{id}");
        }
        let domain = SpiffePrefix::new("spiffe://corp.test/").unwrap();
        assert!(domain.fits("spiffe://corp.test/ns/x"));
        assert!(!domain.fits("spiffe://corp.test.evil/ns/x"));
        for prefix in ["", "spiffe://", "spiffe://Corp/x", "spiffe://a/*", "spiffe://a/b//", "a/b"] {
            assert!(SpiffePrefix::new(prefix).is_err(), "{prefix:?}");
        }
    }
}
