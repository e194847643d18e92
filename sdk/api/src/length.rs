//! A duration in a request.

use std::fmt;

use jit_contract::{DurationError, Seconds};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A length of time as a caller wrote it: a text such as "90s" or "1h30m", or whole seconds. It is not checked
/// yet; [`Length::read`] does that.
///
/// ```
/// use jit_api::Length;
///
/// assert_eq!(Length::from("1h30m").read().unwrap().get(), 5_400);
/// assert!(Length::from("soon").read().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Length(Written);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Written {
    Text(String),
    /// Whole seconds; what is larger than the type stands as its largest value.
    Seconds(i64),
}

impl Length {
    /// The duration that is meant. One that is longer than any lease counts as the longest that there is, so that
    /// the target's cap lowers it: a length above the cap is never refused for that alone.
    ///
    /// # Errors
    /// [`DurationError`] where it is not a duration, zero or negative.
    pub fn read(&self) -> Result<Seconds, DurationError> {
        let read = match &self.0 {
            Written::Text(text) => text.parse(),
            Written::Seconds(seconds) => Seconds::from_seconds(*seconds),
        };
        match read {
            Err(DurationError::TooLong) => Ok(Seconds::MAX),
            read => read,
        }
    }
}

impl From<&str> for Length {
    fn from(text: &str) -> Self {
        Self(Written::Text(text.to_owned()))
    }
}

impl From<String> for Length {
    fn from(text: String) -> Self {
        Self(Written::Text(text))
    }
}

impl From<Seconds> for Length {
    fn from(seconds: Seconds) -> Self {
        Self(Written::Text(seconds.to_string()))
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Written::Text(text) => f.write_str(text),
            Written::Seconds(seconds) => seconds.fmt(f),
        }
    }
}

impl Serialize for Length {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Written::Text(text) => serializer.serialize_str(text),
            Written::Seconds(seconds) => serializer.serialize_i64(*seconds),
        }
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LengthVisitor;
        impl Visitor<'_> for LengthVisitor {
            type Value = Length;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(DurationError::RULE)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Length, E> {
                Ok(text.into())
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Length, E> {
                Ok(text.into())
            }
            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Length, E> {
                Ok(Length(Written::Seconds(seconds)))
            }
            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Length, E> {
                Ok(Length(Written::Seconds(i64::try_from(seconds).unwrap_or(i64::MAX))))
            }
            // A number that is not a u64 arrives as this, and so does 1e9.
            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Length, E> {
                if seconds.fract() != 0.0 {
                    return Err(E::custom(DurationError::Syntax));
                }
                #[allow(clippy::cast_possible_truncation, reason = "`as` saturates, and all of these are too long")]
                Ok(Length(Written::Seconds(seconds as i64)))
            }
        }
        deserializer.deserialize_any(LengthVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<u64> {
        serde_json::from_str::<Length>(json).ok()?.read().ok().map(Seconds::get)
    }

    #[test]
    fn texts_and_numbers_are_read() {
        for (json, seconds) in [
            ("\"90s\"", 90),
            ("\"1h30m\"", 5_400),
            ("\"45\"", 45),
            ("60", 60),
            ("1e3", 1_000),
            ("60.0", 60),
            ("\"9999h\"", 9_999 * 3_600),
        ] {
            assert_eq!(read(json), Some(seconds), "{json}");
        }
    }

    #[test]
    fn a_length_beyond_every_cap_is_the_longest_there_is() {
        for json in [
            "1000000000",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "1e300",
            "\"1000000d\"",
            "\"99999999999999999999d\"",
            "\"9223372036854775808\"",
        ] {
            assert_eq!(read(json), Some(Seconds::MAX.get()), "{json}");
        }
    }

    #[test]
    fn what_is_not_a_length_is_refused() {
        for json in [
            "0",
            "-0.0",
            "0.0",
            "-1",
            "-1e300",
            "-9223372036854775809",
            "1.5",
            "\"-99999999999999999999d\"",
            "\"0d\"",
            "\"\"",
            "[]",
            "true",
            "null",
        ] {
            assert_eq!(read(json), None, "{json}");
        }
    }

    #[test]
    fn it_is_sent_as_it_was_written() {
        for json in ["\"1h30m\"", "\"soon\"", "90", "-5"] {
            let length: Length = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&length).unwrap(), json);
        }
    }
}
