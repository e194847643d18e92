//! What a driver can do.

use serde::{Deserialize, Serialize};

crate::words! {
    /// What a driver can do beyond creating and revoking. The driver names its features in its description, by
    /// these words; a host calls nothing that is not named.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub enum Feature {
        /// `renew` moves an account's expiry in the backend.
        Renew = "renew",
        /// `rotate` changes an account's password.
        Rotate = "rotate",
        /// After a rotation the previous password stays valid until it is discarded.
        Overlap = "overlap",
        /// The backend lets an account expire by itself (BACKSTOP).
        Backstop = "backstop",
        /// `inspect` reads an account's state.
        Inspect = "inspect",
        /// `list-accounts` lists accounts by prefix: the target can be reconciled.
        ListAccounts = "list-accounts",
        /// The backend chooses the account's name and secret.
        ExternalAccounts = "external-accounts",
        /// What is handed out stands before and after its lease: revocation cannot take it back.
        StandingAccounts = "standing-accounts",
        /// `maintain` has something to do between calls.
        Maintain = "maintain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract lists the words for those who write drivers.
    #[test]
    fn every_word_stands_in_the_contract() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/driver.wit");
        let text = std::fs::read_to_string(path).unwrap();
        for feature in Feature::ALL {
            assert!(text.contains(&format!("`{feature}`")), "{feature}");
            assert_eq!(Feature::from_word(feature.as_str()), Some(feature));
        }
    }
}
