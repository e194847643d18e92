//! Durations as people write them. One grammar for configurations, the API, command lines and plugins:
//!
//! ```text
//! duration = seconds | parts
//! seconds  = digits                                        whole seconds: 90
//! parts    = [digits "d"] [digits "h"] [digits "m"] [digits "s"]      at least one: 1h30m
//! ```
//!
//! Each unit stands at most once, the larger one first. Where the format has numbers (JSON, TOML), a whole
//! number is whole seconds. A duration has at least one second and at most ten years. Zero, negative
//! numbers, fractions, other units, capital letters and spaces are refused, all with the same sentence.
//!
//! The parser is our own because no library has this grammar: `jiff` refuses days in a plain duration and
//! accepts fractions and signs; `humantime` accepts months, years and spaces.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Units, largest first, with their seconds.
const UNITS: [(u8, u64); 4] = [(b'd', 86_400), (b'h', 3_600), (b'm', 60), (b's', 1)];

/// A positive, whole number of seconds, at most [`Seconds::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(u32);

/// Why a text or number is not a duration. Every variant has the same sentence, since an author who made
/// one mistake needs the whole rule; programs can tell the variants apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationError {
    /// It is not written as a duration.
    Syntax,
    /// Zero or negative: a credential that never lives is certainly a mistake.
    NotPositive,
    /// More than ten years.
    TooLong,
}

impl DurationError {
    /// The rule, to be read after "must be".
    pub const RULE: &'static str = "a duration such as \"90s\", \"30m\" or \"1h30m\", from one second to ten years";
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be {}", Self::RULE)
    }
}

impl std::error::Error for DurationError {}

impl Seconds {
    /// Ten years: beyond that, times stop fitting the targets' own types.
    pub const MAX: Self = Self(10 * 365 * 86_400);

    /// From whole seconds.
    ///
    /// # Errors
    /// [`DurationError`] when the number is not within `1..=MAX`.
    pub fn from_seconds(seconds: i64) -> Result<Self, DurationError> {
        if seconds <= 0 {
            return Err(DurationError::NotPositive);
        }
        match u32::try_from(seconds) {
            Ok(seconds) if seconds <= Self::MAX.0 => Ok(Self(seconds)),
            _ => Err(DurationError::TooLong),
        }
    }

    /// From its written form; `None` where that is not a duration. [`FromStr`] tells why.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    /// In seconds.
    #[must_use]
    pub fn get(self) -> u64 {
        u64::from(self.0)
    }

    /// In seconds, as the number that it is kept as.
    #[must_use]
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// As the standard library's duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.get())
    }
}

impl FromStr for Seconds {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if let Some(positive) = text.strip_prefix('-') {
            // A negative duration is told from what is not one.
            return match total(positive) {
                Some(_) => Err(DurationError::NotPositive),
                None => Err(DurationError::Syntax),
            };
        }
        // A sum that is not an i64 is too long, however many digits it has.
        let seconds = total(text).ok_or(DurationError::Syntax)?;
        Self::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
    }
}

/// The seconds of a written duration, at most `u64::MAX`; `None` where it is not one.
fn total(text: &str) -> Option<u64> {
    let mut sum: Option<u64> = None;
    let mut number: Option<u64> = None;
    let mut units = UNITS.iter();
    for byte in text.bytes() {
        if byte.is_ascii_digit() {
            let digit = u64::from(byte - b'0');
            number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
            continue;
        }
        // Only units that are smaller than the one before are left.
        let (_, scale) = units.find(|(unit, _)| *unit == byte)?;
        let part = number.take()?.saturating_mul(*scale);
        sum = Some(sum.unwrap_or(0).saturating_add(part));
    }
    match (sum, number) {
        (Some(_), Some(_)) => None,
        (sum, seconds) => sum.or(seconds),
    }
}

/// The shortest written form with the largest units: 90 seconds are `1m30s`, 48 hours are `2d`.
impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.get();
        for (unit, scale) in UNITS {
            if rest >= scale {
                write!(f, "{}{}", rest / scale, char::from(unit))?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    /// From a text or from whole seconds.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecondsVisitor;
        impl Visitor<'_> for SecondsVisitor {
            type Value = Seconds;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(DurationError::RULE)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Seconds, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Seconds, E> {
                Seconds::from_seconds(seconds).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Seconds, E> {
                Seconds::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX)).map_err(E::custom)
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Seconds, E> {
                Err(E::custom(DurationError::Syntax))
            }
        }
        deserializer.deserialize_any(SecondsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_added_up() {
        for (text, seconds) in [
            ("90s", 90),
            ("30m", 1_800),
            ("1h", 3_600),
            ("1h30m", 5_400),
            ("2d", 172_800),
            ("1d1h1m1s", 90_061),
            ("45", 45),
            ("007m", 420),
            ("0h5m", 300),
            ("3650d", 315_360_000),
        ] {
            assert_eq!(text.parse::<Seconds>().map(Seconds::get), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        use DurationError::{NotPositive, Syntax, TooLong};
        for (text, error) in [
            ("0s", NotPositive),
            ("0", NotPositive),
            ("0h0m", NotPositive),
            ("-5m", NotPositive),
            ("-1h30m", NotPositive),
            ("-99999999999999999999h", NotPositive),
            ("", Syntax),
            ("-", Syntax),
            ("--5", Syntax),
            ("+5", Syntax),
            ("h", Syntax),
            ("1h30", Syntax),
            ("30m1h", Syntax),
            ("1h1h", Syntax),
            ("1.5h", Syntax),
            ("1,5h", Syntax),
            ("1H", Syntax),
            ("1w", Syntax),
            ("500ms", Syntax),
            (" 1h", Syntax),
            ("1h 30m", Syntax),
            ("1é", Syntax),
            ("١s", Syntax),
            ("soon", Syntax),
            ("3650d1s", TooLong),
            ("100000d", TooLong),
            ("9223372036854775808", TooLong),
            ("99999999999999999999d", TooLong),
            ("18446744073709551615d18446744073709551615s", TooLong),
        ] {
            assert_eq!(text.parse::<Seconds>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn every_refusal_has_the_one_sentence() {
        let sentence = "must be a duration such as \"90s\", \"30m\" or \"1h30m\", from one second to ten years";
        for json in ["0", "-5", "1.5", "\"\"", "\"0s\"", "\"-1m\"", "\"1.5h\"", "99999999999", "1e300", "\"9999999d\""]
        {
            let error = serde_json::from_str::<Seconds>(json).unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{json}: {error}");
        }
        for json in ["true", "null", "[]", "{}"] {
            let error = serde_json::from_str::<Seconds>(json).unwrap_err().to_string();
            assert!(error.contains(DurationError::RULE), "{json}: {error}");
        }
    }

    #[test]
    fn numbers_are_whole_seconds() {
        assert_eq!(serde_json::from_str::<Seconds>("60").unwrap().get(), 60);
        assert_eq!(serde_json::to_string(&Seconds::from_seconds(5_400).unwrap()).unwrap(), "\"1h30m\"");
    }

    #[test]
    fn the_largest_units_are_written() {
        for text in ["1s", "59s", "1m30s", "1h", "1h30m", "7d", "1d1h1m1s"] {
            assert_eq!(text.parse::<Seconds>().unwrap().to_string(), text);
        }
        assert_eq!("90s".parse::<Seconds>().unwrap().to_string(), "1m30s");
        assert_eq!("48h".parse::<Seconds>().unwrap().to_string(), "2d");
    }
}
