//! Names that arrive from outside: checked once, where they enter, and carried as types.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or more than [`MAX_NAME`] bytes.
    #[error("must have 1 to {MAX_NAME} characters")]
    Length,
    /// A character that no name has.
    #[error("may only have ASCII letters, digits, '_', '-', '.', and must begin with a letter or digit")]
    Character,
}

/// The longest name of a target or role, in bytes.
pub const MAX_NAME: usize = 63;

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > MAX_NAME {
        return Err(NameError::Length);
    }
    let ok = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
    let bytes = text.as_bytes();
    if !bytes.iter().copied().all(ok) || !bytes[0].is_ascii_alphanumeric() {
        return Err(NameError::Character);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks the text.
            ///
            /// # Errors
            /// [`NameError`] when it is not a name.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The name of a configured target.
    TargetName
}
name! {
    /// The name of a role of a target, as callers ask for it.
    RoleName
}

/// Who a verified token speaks for: the issuer's configured name, the workload's name there, and the
/// subject that the issuer vouches for. Two issuers may both know a `payment-service`; they are different
/// principals. So are two subjects of one issuer that the configuration gives one name (ONE-OWNER).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// The name of the `[[identity.*]]` entry that verified the token.
    pub issuer: String,
    /// The workload's name, from the claims by configuration.
    pub workload: String,
    /// The token's `sub`, which its issuer gives to nobody else. Empty in leases of an earlier release and
    /// in an operator's question: there the name alone counts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
}

impl Principal {
    /// Whether what is recorded under `other` belongs to this principal (ONE-OWNER): issuer, name and
    /// subject are the same. What has no subject is of an earlier release and goes by name until it ends.
    #[must_use]
    pub fn owns(&self, other: &Self) -> bool {
        let same_subject = self.subject == other.subject || other.subject.is_empty();
        self.issuer == other.issuer && self.workload == other.workload && same_subject
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.issuer, self.workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_ascii_without_quotes_or_separators() {
        for good in ["inventory_db", "a", "app-read.only", "0"] {
            assert!(TargetName::new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(MAX_NAME + 1);
        for bad in ["", "a b", "a\0", "a'b", "a\"b", "a\nb", "é", "😀", "-a", ".", "a;drop", &long] {
            assert!(TargetName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_that_two_subjects_share_makes_no_common_owner() {
        let of = |subject: &str| Principal { issuer: "c".into(), workload: "payment".into(), subject: subject.into() };
        let (shop, evil) = (of("system:serviceaccount:shop:payment"), of("system:serviceaccount:evil:payment"));
        assert!(shop.owns(&shop) && !evil.owns(&shop) && !shop.owns(&evil));
        let before: Principal = serde_json::from_str(r#"{"issuer": "c", "workload": "payment"}"#).unwrap();
        assert!(shop.owns(&before), "of an earlier release: by name");
        assert!(!before.owns(&shop), "nobody without a subject owns what has one");
        let renamed = Principal { workload: "other".into(), ..shop.clone() };
        assert!(!renamed.owns(&shop) && !renamed.owns(&before));
    }

    #[test]
    fn deserialising_checks_too() {
        assert!(serde_json::from_str::<RoleName>("\"app_read_only\"").is_ok());
        assert!(serde_json::from_str::<RoleName>("\"a' OR 1=1\"").is_err());
    }
}
