//! Patterns of names. One grammar for configurations of the host and of plugins: `*` stands for any run of
//! characters and `?` for any one. Nothing else is special, and what is special elsewhere (`[`, `]`, `{`,
//! `}`, `\`) is refused rather than taken literally: an author who writes `payment-[a-z]` means a class, and
//! a pattern that then matches nobody would let a rule lapse without a word.
//!
//! Texts are compared character by character, without case folding or normalisation, and no pattern takes
//! more than the product of both lengths.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// The longest pattern, in bytes.
pub const MAX_PATTERN: usize = 512;
/// The longest text that a pattern is held against, in bytes: the longest SPIFFE ID.
pub const MAX_TEXT: usize = 2048;
/// Characters that other pattern languages give a meaning.
const SPECIAL_ELSEWHERE: &str = "[]{}\\";

/// A name, or a pattern with `*` and `?`.
///
/// ```
/// use jit_contract::Glob;
///
/// let pattern = Glob::new("payment-*").unwrap();
/// assert!(pattern.fits("payment-service"));
/// assert!(!pattern.fits("prepayment-service"));
/// assert!(Glob::new("payment-[a-z]").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

/// Why a text is not a pattern, and what to write instead. To be read after the pattern's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobError {
    /// It would fit nothing.
    Empty,
    /// It is longer than [`MAX_PATTERN`].
    TooLong,
    /// It has a control character.
    Control,
    /// It has a character that other pattern languages give a meaning.
    Special(char),
}

impl fmt::Display for GlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty: write a name, or `*` for any"),
            Self::TooLong => write!(f, "is longer than {MAX_PATTERN} bytes"),
            Self::Control => f.write_str("has a control character: no name that it could fit is accepted"),
            Self::Special(character) => write!(
                f,
                "has `{character}`, and only `*` and `?` are special here: write one rule or entry for each name"
            ),
        }
    }
}

impl std::error::Error for GlobError {}

impl Glob {
    /// Checks a pattern of 1 to [`MAX_PATTERN`] bytes.
    ///
    /// # Errors
    /// [`GlobError`]: what is wrong with it and what to write instead.
    pub fn new(pattern: impl Into<String>) -> Result<Self, GlobError> {
        let pattern = pattern.into();
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        if pattern.len() > MAX_PATTERN {
            return Err(GlobError::TooLong);
        }
        if pattern.chars().any(char::is_control) {
            return Err(GlobError::Control);
        }
        match pattern.chars().find(|character| SPECIAL_ELSEWHERE.contains(*character)) {
            Some(character) => Err(GlobError::Special(character)),
            None => Ok(Self(pattern)),
        }
    }

    /// Whether the whole text fits. A text that is longer than [`MAX_TEXT`] or has control characters fits
    /// nothing, not even `*`: such a name is meant to be taken for another one in a log. The host accepts
    /// no such name in a token.
    ///
    /// There is no backtracking: every run between two stars is searched once, from where the one
    /// before it ended.
    #[must_use]
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

    /// Whether it is a name without `*` and `?`: only the name itself fits.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, text: &str) -> bool {
        Glob::new(pattern).unwrap().fits(text)
    }

    #[test]
    fn a_pattern_fits_from_end_to_end() {
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
            ("*-service", "payment-services"),
            ("?", ""),
            ("?", "ab"),
            ("a*b*c", "a-c-b"),
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
    fn pathological_patterns_end() {
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
        for (pattern, error) in [
            ("", GlobError::Empty),
            ("payment-[a-z]", GlobError::Special('[')),
            ("{a,b}", GlobError::Special('{')),
            ("a\\*", GlobError::Special('\\')),
            ("a\n", GlobError::Control),
            (&"a".repeat(MAX_PATTERN + 1), GlobError::TooLong),
        ] {
            assert_eq!(Glob::new(pattern), Err(error), "{pattern:?}");
        }
    }
}
