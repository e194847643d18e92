//! Patterns of the configuration: `*` is any run of characters, `?` exactly one; everything else is itself.

use std::fmt;

/// The longest pattern, in bytes.
pub const MAX_PATTERN: usize = 512;

/// A pattern that a text fits, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// It would fit nothing.
    #[error("must not be empty: \"*\" fits everything")]
    Empty,
    /// It is longer than [`MAX_PATTERN`].
    #[error("must be at most {MAX_PATTERN} bytes")]
    TooLong,
}

impl Glob {
    /// Checks a pattern.
    ///
    /// # Errors
    /// [`GlobError`] when it is empty or too long.
    pub fn new(pattern: impl Into<String>) -> Result<Self, GlobError> {
        let pattern = pattern.into();
        match pattern.len() {
            0 => Err(GlobError::Empty),
            1..=MAX_PATTERN => Ok(Self(pattern)),
            _ => Err(GlobError::TooLong),
        }
    }

    /// Whether the text fits, from its first to its last character. Linear in practice and at worst the
    /// product of both lengths: after a mismatch only the last `*` is gone back to.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let (pattern, text): (Vec<char>, Vec<char>) = (self.0.chars().collect(), text.chars().collect());
        let (mut at, mut in_text) = (0, 0);
        let mut last_star: Option<(usize, usize)> = None;
        while in_text < text.len() {
            match pattern.get(at) {
                Some('*') => {
                    last_star = Some((at, in_text));
                    at += 1;
                }
                Some(c) if *c == '?' || *c == text[in_text] => {
                    at += 1;
                    in_text += 1;
                }
                _ => {
                    let Some((star, from)) = last_star else { return false };
                    last_star = Some((star, from + 1));
                    at = star + 1;
                    in_text = from + 1;
                }
            }
        }
        pattern[at..].iter().all(|c| *c == '*')
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_from_end_to_end() {
        for (pattern, text, fits) in [
            ("payment-*", "payment-service", true),
            ("payment-*", "payment-", true),
            ("payment-*", "xpayment-service", false),
            ("*-service", "payment-service", true),
            ("*-service", "payment-services", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("?", "ä", true),
            ("?", "", false),
            ("*", "", true),
            ("**", "x", true),
            ("exact", "exact", true),
            ("exact", "Exact", false),
            ("*a*a*a*b", &"a".repeat(400), false),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().fits(text), fits, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_would_fit_nothing_or_has_no_bound_is_refused() {
        assert_eq!(Glob::new(""), Err(GlobError::Empty));
        assert_eq!(Glob::new("x".repeat(MAX_PATTERN + 1)), Err(GlobError::TooLong));
    }
}
