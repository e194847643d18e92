//! Durations as people write them: `90s`, `30m`, `1h`, `2d`, or whole seconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A positive, whole number of seconds, at most [`Ttl::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u32);

/// Why a text or number is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TtlError {
    /// Not a number with a unit.
    #[error("must be a duration such as \"90s\", \"30m\", \"1h\" or whole seconds")]
    Syntax,
    /// Zero or negative: a credential that never lives is a mistake, not a wish.
    #[error("must be greater than zero")]
    NotPositive,
    /// More than ten years.
    #[error("must be at most ten years")]
    TooLong,
}

impl Ttl {
    /// Ten years, in seconds: beyond that, times stop fitting the targets' own types.
    pub const MAX: Ttl = Ttl(10 * 365 * 86_400);

    /// From whole seconds.
    ///
    /// # Errors
    /// [`TtlError`] when not within `1..=MAX`.
    pub fn from_seconds(seconds: i64) -> Result<Self, TtlError> {
        if seconds <= 0 {
            return Err(TtlError::NotPositive);
        }
        match u32::try_from(seconds) {
            Ok(s) if s <= Self::MAX.0 => Ok(Self(s)),
            _ => Err(TtlError::TooLong),
        }
    }

    /// In seconds.
    #[must_use]
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }

    /// When to renew, after the start: at 80 % of the life, so that the last 20 % is the buffer
    /// for a broker that is away.
    #[must_use]
    pub fn renew_after(self) -> Duration {
        Duration::from_millis(u64::from(self.0) * 800)
    }
}

impl FromStr for Ttl {
    type Err = TtlError;

    fn from_str(text: &str) -> Result<Self, TtlError> {
        let (number, scale): (&str, i64) = match text.as_bytes().last() {
            Some(b's') => (&text[..text.len() - 1], 1),
            Some(b'm') => (&text[..text.len() - 1], 60),
            Some(b'h') => (&text[..text.len() - 1], 3_600),
            Some(b'd') => (&text[..text.len() - 1], 86_400),
            _ => (text, 1),
        };
        let digits = number.strip_prefix('-').unwrap_or(number);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(TtlError::Syntax);
        }
        if digits.len() < number.len() {
            return Err(TtlError::NotPositive);
        }
        // Digits that are no i64 are a number that is too large, however many there are.
        let number: i64 = digits.parse().map_err(|_| TtlError::TooLong)?;
        Self::from_seconds(number.checked_mul(scale).ok_or(TtlError::TooLong)?)
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s % 86_400 == 0 => write!(f, "{}d", s / 86_400),
            s if s % 3_600 == 0 => write!(f, "{}h", s / 3_600),
            s if s % 60 == 0 => write!(f, "{}m", s / 60),
            s => write!(f, "{s}s"),
        }
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TtlVisitor;
        impl Visitor<'_> for TtlVisitor {
            type Value = Ttl;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"30m\" or whole seconds")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ttl, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Ttl, E> {
                Ttl::from_seconds(seconds).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Ttl, E> {
                Ttl::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX)).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(TtlVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units_and_refuses_the_rest() {
        for (text, seconds) in [("90s", 90), ("30m", 1_800), ("1h", 3_600), ("2d", 172_800), ("45", 45)] {
            assert_eq!(text.parse::<Ttl>().map(Ttl::seconds), Ok(seconds), "{text}");
        }
        for (text, error) in [
            ("0s", TtlError::NotPositive),
            ("-5m", TtlError::NotPositive),
            ("0", TtlError::NotPositive),
            ("", TtlError::Syntax),
            ("h", TtlError::Syntax),
            ("1.5h", TtlError::Syntax),
            ("-", TtlError::Syntax),
            ("--5", TtlError::Syntax),
            ("+5", TtlError::Syntax),
            ("-99999999999999999999h", TtlError::NotPositive),
            ("99999999999999999999", TtlError::TooLong),
            ("9223372036854775808", TtlError::TooLong),
            ("1é", TtlError::Syntax),
            ("1H", TtlError::Syntax),
            (" 1h", TtlError::Syntax),
            ("99999999999999999999d", TtlError::TooLong),
            ("100000d", TtlError::TooLong),
        ] {
            assert_eq!(text.parse::<Ttl>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn renews_at_four_fifths() {
        let hour = Ttl::from_seconds(3_600).unwrap();
        assert_eq!(hour.renew_after(), Duration::from_secs(48 * 60));
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["90s", "30m", "1h", "2d"] {
            assert_eq!(text.parse::<Ttl>().unwrap().to_string(), text);
        }
    }
}
