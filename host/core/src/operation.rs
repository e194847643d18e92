//! What is to be decided. The contract's word is open: policies that know it judge it, others deny.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest word of an operation, in bytes.
const MAX_WORD: usize = 64;

/// What is to be decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Operation {
    /// A new lease.
    Issue,
    /// A later expiry.
    Renew,
    /// Something that this release does not ask about itself: in a policy's test cases, in a simulation, and in
    /// records of later releases.
    Other(OtherOperation),
}

/// The word of an operation that this release does not know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OtherOperation(Box<str>);

/// Why a word is not an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an operation is a word of at most {MAX_WORD} lower-case letters, digits, dots and hyphens, such as issue or renew"
)]
pub struct OperationError;

impl Operation {
    /// From the contract's word.
    ///
    /// # Errors
    /// [`OperationError`] for what cannot be such a word.
    pub fn from_word(word: &str) -> Result<Self, OperationError> {
        match word {
            "issue" => Ok(Self::Issue),
            "renew" => Ok(Self::Renew),
            other => {
                let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
                let begins = other.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
                if !begins || other.len() > MAX_WORD || !other.bytes().all(plain) {
                    return Err(OperationError);
                }
                Ok(Self::Other(OtherOperation(other.into())))
            }
        }
    }

    /// The contract's word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Issue => "issue",
            Self::Renew => "renew",
            Self::Other(OtherOperation(word)) => word,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Operation {
    type Error = OperationError;
    fn try_from(word: String) -> Result<Self, OperationError> {
        Self::from_word(&word)
    }
}

impl From<Operation> for String {
    fn from(operation: Operation) -> Self {
        operation.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_one_value_and_comes_back() {
        assert_eq!(Operation::from_word("issue"), Ok(Operation::Issue));
        assert_eq!(Operation::from_word("renew"), Ok(Operation::Renew));
        for word in ["exchange", "proxy.http", "admin.revoke", &"x".repeat(MAX_WORD)] {
            let operation = Operation::from_word(word).unwrap();
            assert!(matches!(operation, Operation::Other(_)));
            let json = serde_json::to_value(&operation).unwrap();
            assert_eq!(json, word);
            assert_eq!(serde_json::from_value::<Operation>(json).unwrap(), operation);
        }
        for bad in ["", "Issue", "issue ", "a\nb", ".x", "7", "\u{202e}", &"x".repeat(MAX_WORD + 1)] {
            assert!(Operation::from_word(bad).is_err(), "{bad:?}");
            assert!(serde_json::from_value::<Operation>(bad.into()).is_err());
        }
    }
}
