//! The account's name: chosen by the host before any call, so that an account which may exist is
//! always one that the store knows (INTENT-FIRST).
//!
//! `<prefix><workload>-<16 random characters>`. The prefix is the broker's own, by configuration:
//! the reconciler looks at nothing else, and two brokers that share a server need different ones.
//! The last character is a check digit over the random ones, so that a name which a person chose
//! by chance does not look like one of ours (and is not removed as a ghost).

use std::fmt;

use rand::Rng as _;
use serde::{Deserialize, Serialize};

/// Lower case and digits without those that look alike; safe in every backend's names.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Random characters (75 bits) before the check digit.
const RANDOM: usize = 15;
/// What a name needs beside prefix and workload: `-`, the random characters, the check digit.
const TAIL: usize = 1 + RANDOM + 1;

/// The name of an account that the broker made in a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountName(String);

impl AccountName {
    /// A name that a driver or store gave back; compare it, never trust it as ours before
    /// [`AccountPrefix::owns`].
    #[must_use]
    pub fn from_backend(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether some broker made this name, whatever its prefix is now. A driver is asked to remove
    /// such a name and no other: a store that was tampered with cannot make the broker drop a role
    /// of its choice.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        self.0.len().checked_sub(RANDOM + 1).is_some_and(|at| at >= 2 && has_valid_tail(&self.0.as_bytes()[at..]))
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a prefix cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 12 lower-case letters, digits or '-', begin with a letter and end with '-', such as \"v-\"")]
pub struct PrefixError;

/// The broker's own prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountPrefix(String);

impl Default for AccountPrefix {
    fn default() -> Self {
        Self("v-".to_owned())
    }
}

impl TryFrom<String> for AccountPrefix {
    type Error = PrefixError;
    fn try_from(text: String) -> Result<Self, PrefixError> {
        let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let letter = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if plain && letter && text.ends_with('-') && text.len() <= 12 { Ok(Self(text)) } else { Err(PrefixError) }
    }
}

impl From<AccountPrefix> for String {
    fn from(prefix: AccountPrefix) -> String {
        prefix.0
    }
}

impl AccountPrefix {
    /// The shortest `max_length` that leaves room for a name with this prefix, in bytes.
    #[must_use]
    pub fn least_length(&self) -> usize {
        self.0.len() + TAIL - 1
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A new name of at most `max_length` bytes for that workload. The workload's part is cut or
    /// left out where there is no room: it is for people to read, the rest is what makes it unique.
    #[must_use]
    pub fn generate(&self, workload: &str, max_length: usize) -> AccountName {
        let room = max_length.saturating_sub(self.0.len() + TAIL).min(24);
        let mut name = self.0.clone();
        let slug = readable(workload, room);
        if !slug.is_empty() {
            name.push_str(&slug);
            name.push('-');
        }
        let mut random = [0_u8; RANDOM];
        rand::rng().fill_bytes(&mut random);
        let tail = random.map(|byte| ALPHABET[usize::from(byte & 31)]);
        name.extend(tail.iter().map(|&b| char::from(b)));
        name.push(char::from(check_digit(&tail)));
        AccountName(name)
    }

    /// Whether a name found in a backend is one that this broker makes.
    #[must_use]
    pub fn owns(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(self.0.as_str()) else { return false };
        let rest = rest.as_bytes();
        let Some(at) = rest.len().checked_sub(RANDOM + 1) else { return false };
        let (slug, tail) = rest.split_at(at);
        let slug_ok = slug.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            && slug.last().is_none_or(|b| *b == b'-');
        slug_ok && has_valid_tail(tail)
    }
}

/// Random characters and the check digit over them.
fn has_valid_tail(tail: &[u8]) -> bool {
    let (random, check) = tail.split_at(RANDOM);
    random.iter().all(|b| ALPHABET.contains(b)) && check == [check_digit(random)]
}

/// Weighted sum over the random characters: one changed or swapped character changes it.
fn check_digit(random: &[u8]) -> u8 {
    let sum = random.iter().enumerate().fold(7_usize, |sum, (place, byte)| {
        let value = ALPHABET.iter().position(|a| a == byte).unwrap_or(0);
        sum + (2 * place + 1) * value
    });
    ALPHABET[sum % 32]
}

/// What of a workload's name a person reads first: all of it where it fits, else its last part, since
/// `team-of-a-long-name/payment-service` is about the payment service.
fn readable(workload: &str, room: usize) -> String {
    let whole = slug(workload, usize::MAX);
    if whole.len() <= room {
        return whole;
    }
    let last = workload.rsplit(['/', ':']).find(|part| part.chars().any(|c| c.is_ascii_alphanumeric()));
    slug(last.unwrap_or(workload), room)
}

/// The workload's name as lower-case letters, digits and single hyphens.
fn slug(workload: &str, room: usize) -> String {
    let mut slug = String::new();
    for c in workload.chars() {
        if slug.len() >= room {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_say_whose_they_are() {
        let prefix = AccountPrefix::default();
        let name = prefix.generate("payment-service", 63);
        assert!(name.as_str().starts_with("v-payment-service-"), "{name}");
        assert!(prefix.owns(name.as_str()));
        assert_ne!(name, prefix.generate("payment-service", 63));
        let with = |workload: &str, max: usize| prefix.generate(workload, max).to_string();
        assert!(with("shop/payment-service", 63).starts_with("v-shop-payment-service-"));
        assert!(with("a-namespace-of-a-long-name/payment-service", 63).starts_with("v-payment-service-"));
        assert!(with("system:serviceaccount:shop:payment-service", 63).starts_with("v-payment-service-"));
        assert!(with("shop/payment-service", 32).starts_with("v-payment-"), "where there is little room");
    }

    #[test]
    fn foreign_names_are_not_ours() {
        let prefix = AccountPrefix::default();
        for foreign in ["postgres", "v-", "v-reporting", "v-nightly-abcdefghijkmnpqr", "V-x-abcdefghijkmnpqa", ""] {
            assert!(!prefix.owns(foreign), "{foreign}");
            assert!(!AccountName::from_backend(foreign).is_generated(), "{foreign}");
        }
        let other = AccountPrefix::try_from("other-".to_owned()).unwrap();
        assert!(!prefix.owns(other.generate("x", 63).as_str()));
    }

    #[test]
    fn prefixes_are_plain() {
        for bad in ["", "v", "-", "V-", "v_", "v'-", "abcdefghijkl-", "1-"] {
            assert!(AccountPrefix::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_workload_gives_a_plain_name_within_the_limit(workload in ".{0,80}", max in 20_usize..=63) {
            let prefix = AccountPrefix::default();
            let name = prefix.generate(&workload, max);
            prop_assert!(name.as_str().len() <= max.max(prefix.least_length()));
            prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(prefix.owns(name.as_str()), "{}", name);
            prop_assert!(name.is_generated());
        }
    }
}
