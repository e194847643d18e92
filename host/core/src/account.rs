//! The account's name: chosen by the host before any call, so that an account which may exist is
//! always one that the store knows (INTENT-FIRST).
//!
//! `<prefix><workload>-<12 random characters><4 of a tag>`. The prefix is for people and for listing. What
//! makes the account this broker's own is the tag (ONE-OWNER): an HMAC over all the rest, with a key
//! that the store keeps. No other broker can make it, whatever its prefix is, nor can anybody else who makes
//! roles in the target. Another's account is never removed as a ghost.
//!
//! Earlier releases had 15 random characters and a public check digit. Such an account is removed by its
//! lease, and never taken for a ghost.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Lower case and digits without those that look alike; safe in every backend's names.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Random characters (60 bits) before the tag.
const RANDOM: usize = 12;
/// Characters of the tag (20 bits): with so many guesses for one hit, a forged name is not worth the roles
/// that have to be made for it.
const TAG: usize = 4;
/// What a name ends with.
const END: usize = RANDOM + TAG;
/// What a name needs beside prefix and workload: `-` and its end.
const TAIL: usize = 1 + END;

/// What marks accounts as one broker's own: made with its store, and kept there.
#[derive(Clone)]
pub struct Mark(Zeroizing<[u8; Mark::BYTES]>);

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark")
    }
}

impl Mark {
    /// Bytes of its key.
    pub const BYTES: usize = 32;

    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        let mut key = Zeroizing::new([0; Self::BYTES]);
        rand::rng().fill_bytes(key.as_mut_slice());
        Self(key)
    }

    /// From what [`Self::bytes`] gave; none when it has another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// For the store.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The tag over a name up to its random part, that included.
    fn tag(&self, marked: &[u8]) -> [u8; TAG] {
        // A key of any length is one.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_slice()) else { return [0; TAG] };
        mac.update(b"account-name\0");
        mac.update(marked);
        let sum = mac.finalize().into_bytes();
        std::array::from_fn(|at| ALPHABET[usize::from(sum[at] & 31)])
    }

    /// Whether the name ends with its own tag.
    fn is_on(&self, name: &[u8]) -> bool {
        name.split_last_chunk::<TAG>().is_some_and(|(marked, tag)| self.tag(marked) == *tag)
    }
}

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

    /// Whether this broker made the name, whatever its prefix was then, or an earlier release did. A driver
    /// is asked to remove such a name and no other: a store that was tampered with cannot make the broker drop
    /// a role of its choice.
    #[must_use]
    pub fn is_made_by(&self, mark: &Mark) -> bool {
        self.has_shape() && (mark.is_on(self.0.as_bytes()) || has_check_digit(self.0.as_bytes()))
    }

    /// Whether it looks like a name that some broker makes.
    #[must_use]
    pub fn has_shape(&self) -> bool {
        let name = self.0.as_bytes();
        name.split_last_chunk::<END>().is_some_and(|(head, end)| {
            let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
            head.len() >= 2
                && head.ends_with(b"-")
                && head.iter().all(plain)
                && end.iter().all(|b| ALPHABET.contains(b))
        })
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

    /// A new name of at most `max_length` bytes for that workload, with that mark. The workload's part is cut
    /// or left out where there is no room: it is for people to read, the rest is what makes it unique.
    #[must_use]
    pub fn generate(&self, mark: &Mark, workload: &str, max_length: usize) -> AccountName {
        let room = max_length.saturating_sub(self.0.len() + TAIL).min(24);
        let mut name = self.0.clone();
        let slug = readable(workload, room);
        if !slug.is_empty() {
            name.push_str(&slug);
            name.push('-');
        }
        let mut random = [0_u8; RANDOM];
        rand::rng().fill_bytes(&mut random);
        name.extend(random.map(|byte| char::from(ALPHABET[usize::from(byte & 31)])));
        let tag = mark.tag(name.as_bytes());
        name.extend(tag.map(char::from));
        AccountName(name)
    }

    /// Whether a name found in a backend is one that the broker with that mark makes.
    #[must_use]
    pub fn owns(&self, mark: &Mark, name: &str) -> bool {
        name.starts_with(self.0.as_str()) && AccountName::from_backend(name).has_shape() && mark.is_on(name.as_bytes())
    }
}

/// Whether a name of the right shape ends with the check digit of earlier releases: a weighted sum over the
/// 15 characters before it.
fn has_check_digit(name: &[u8]) -> bool {
    let Some((random, check)) = name.last_chunk::<END>().and_then(|end| end.split_last_chunk::<1>()) else {
        return false;
    };
    let sum = random.iter().enumerate().fold(7_usize, |sum, (place, byte)| {
        let value = ALPHABET.iter().position(|a| a == byte).unwrap_or(0);
        sum + (2 * place + 1) * value
    });
    *check == [ALPHABET[sum % 32]]
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
        let (prefix, mark) = (AccountPrefix::default(), Mark::generate());
        let name = prefix.generate(&mark, "payment-service", 63);
        assert!(name.as_str().starts_with("v-payment-service-"), "{name}");
        assert!(prefix.owns(&mark, name.as_str()) && name.is_made_by(&mark));
        assert_ne!(name, prefix.generate(&mark, "payment-service", 63));
        let kept = Mark::from_bytes(mark.bytes()).unwrap();
        assert!(prefix.owns(&kept, name.as_str()), "after a restart");
        assert_eq!(format!("{mark:?}"), "Mark");
        let with = |workload: &str, max: usize| prefix.generate(&mark, workload, max).to_string();
        assert!(with("shop/payment-service", 63).starts_with("v-shop-payment-service-"));
        assert!(with("a-namespace-of-a-long-name/payment-service", 63).starts_with("v-payment-service-"));
        assert!(with("system:serviceaccount:shop:payment-service", 63).starts_with("v-payment-service-"));
        assert!(with("shop/payment-service", 32).starts_with("v-payment-"), "where there is little room");
    }

    #[test]
    fn foreign_names_are_not_ours() {
        let (prefix, mark) = (AccountPrefix::default(), Mark::generate());
        for foreign in ["postgres", "v-", "v-reporting", "v-nightly-abcdefghijkmnpqr", "V-x-abcdefghijkmnpqa", "", "-a"]
        {
            assert!(!prefix.owns(&mark, foreign), "{foreign}");
            assert!(!AccountName::from_backend(foreign).has_shape() || foreign.len() > 20, "{foreign}");
        }
        let other = AccountPrefix::try_from("other-".to_owned()).unwrap();
        assert!(!prefix.owns(&mark, other.generate(&mark, "x", 63).as_str()));
    }

    /// The default prefix is the beginning of the other broker's, and both share the server.
    #[test]
    fn no_prefix_makes_one_brokers_account_anothers() {
        let (ours, theirs) = (Mark::generate(), Mark::generate());
        let prefix = AccountPrefix::default();
        let other = AccountPrefix::try_from("v-team-".to_owned()).unwrap();
        for _ in 0..200 {
            let name = other.generate(&theirs, "w", 63);
            assert!(name.has_shape() && other.owns(&theirs, name.as_str()));
            // One of a million is, by chance.
            assert!(!prefix.owns(&ours, name.as_str()), "{name}");
        }
    }

    /// What is in front of the random part is under the tag as well: nobody makes a second name from a first.
    #[test]
    fn a_changed_name_is_nobodys() {
        let (prefix, mark) = (AccountPrefix::default(), Mark::generate());
        let name = prefix.generate(&mark, "payment", 63).as_str().to_owned();
        assert!(!prefix.owns(&mark, &name.replacen("payment", "paymemt", 1)));
        let last = if name.ends_with('a') { 'b' } else { 'a' };
        assert!(!prefix.owns(&mark, &format!("{}{last}", &name[..name.len() - 1])));
    }

    #[test]
    fn an_account_of_an_earlier_release_can_be_removed_and_is_no_ghost() {
        let name = AccountName::from_backend("v-payment-service-aaaaaaaaaaaaaaah");
        let mark = Mark::generate();
        assert!(name.is_made_by(&mark), "by its lease");
        assert!(!AccountPrefix::default().owns(&mark, name.as_str()));
        assert!(!AccountName::from_backend("v-payment-service-aaaaaaaaaaaaaaai").is_made_by(&mark));
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
            let (prefix, mark) = (AccountPrefix::default(), Mark::from_bytes(&[7; Mark::BYTES]).unwrap());
            let name = prefix.generate(&mark, &workload, max);
            prop_assert!(name.as_str().len() <= max.max(prefix.least_length()));
            prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(prefix.owns(&mark, name.as_str()), "{}", name);
            prop_assert!(name.is_made_by(&mark));
        }
    }
}
