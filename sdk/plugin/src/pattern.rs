//! Patterns in configurations: names and globs, and beginnings of SPIFFE IDs.

pub use jit_contract::Glob as Pattern;
use jit_contract::glob::MAX_TEXT;
use serde::{Deserialize, de};

/// Whether a list of patterns fits; a list that is left out fits everything.
pub fn any_fits(patterns: Option<&[Pattern]>, text: &str) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.fits(text)))
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

    #[test]
    fn a_list_that_is_left_out_fits_everything() {
        let patterns = ["payment-*", "shop"].map(|text| Pattern::new(text).unwrap());
        assert!(any_fits(None, "anything"));
        assert!(any_fits(Some(&patterns), "shop") && any_fits(Some(&patterns), "payment-api"));
        assert!(!any_fits(Some(&patterns), "shops") && !any_fits(Some(&[]), "shop"));
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
