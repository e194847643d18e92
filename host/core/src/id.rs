//! Ids of leases and requests: sortable by time, not guessable.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use rand::Rng as _;
use serde::{Deserialize, Serialize};

/// Crockford's base 32, lower case (as ULIDs use): sorts as the number it stands for.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// 48 bits of milliseconds and 80 random bits, in 26 characters.
fn time_ordered(now: Timestamp) -> String {
    let millis = u128::try_from(now.as_millisecond()).unwrap_or(0) & 0xffff_ffff_ffff;
    let mut random = [0_u8; 16];
    rand::rng().fill_bytes(&mut random[6..]);
    let mut value = (millis << 80) | u128::from_be_bytes(random);
    let mut text = [0_u8; 26];
    for place in text.iter_mut().rev() {
        *place = ALPHABET[(value & 31) as usize];
        value >>= 5;
    }
    text.iter().map(|&b| char::from(b)).collect()
}

/// The time of such a text, to the millisecond; none where it is no such text.
fn time_of(text: &str) -> Option<Timestamp> {
    let digits = text.as_bytes().get(..10)?;
    let millis = digits.iter().try_fold(0_i64, |millis, digit| {
        let value = ALPHABET.iter().position(|letter| letter == digit)?;
        Some((millis << 5) | i64::try_from(value).ok()?)
    })?;
    Timestamp::from_millisecond(millis).ok()
}

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a lease id: expected 'lease_' and 26 characters")]
pub struct IdError;

/// The id of a lease: `lease_` and 26 characters, sorted by the time it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LeaseId(String);

impl LeaseId {
    /// A new id; its randomness is the operating system's seeded generator.
    #[must_use]
    pub fn generate(now: Timestamp) -> Self {
        Self(format!("lease_{}", time_ordered(now)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it was made, by the clock of its broker.
    #[must_use]
    pub fn made_at(&self) -> Option<Timestamp> {
        time_of(self.0.strip_prefix("lease_")?)
    }
}

impl FromStr for LeaseId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let rest = text.strip_prefix("lease_").ok_or(IdError)?;
        if rest.len() == 26 && rest.bytes().all(|b| ALPHABET.contains(&b)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError)
        }
    }
}

impl TryFrom<String> for LeaseId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<LeaseId> for String {
    fn from(id: LeaseId) -> String {
        id.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a request, in every reply, log line and audit record that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId(String);

impl RequestId {
    /// A new id.
    #[must_use]
    pub fn generate(now: Timestamp) -> Self {
        Self(format!("req_{}", time_ordered(now)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it was made, by the clock of its broker: when the request came.
    #[must_use]
    pub fn made_at(&self) -> Option<Timestamp> {
        time_of(self.0.strip_prefix("req_")?)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinct_sorted_by_time_and_parse_back() {
        let early = LeaseId::generate(Timestamp::from_second(1_700_000_000).unwrap());
        let late = LeaseId::generate(Timestamp::from_second(1_700_000_001).unwrap());
        assert!(early < late);
        let again = LeaseId::generate(Timestamp::from_second(1_700_000_000).unwrap());
        assert_ne!(early, again);
        assert_eq!(early.as_str().parse(), Ok(early.clone()));
        let at = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        assert_eq!((LeaseId::generate(at).made_at(), RequestId::generate(at).made_at()), (Some(at), Some(at)));
        for bad in ["", "lease_", "lease_01", "x", "lease_0000000000000000000000000'"] {
            assert!(bad.parse::<LeaseId>().is_err(), "{bad:?}");
        }
    }
}
