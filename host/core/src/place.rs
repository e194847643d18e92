//! Where an account is (RIGHT-PLACE): which server, by what it says of itself, and where in it.
//!
//! It stands in the lease. An account is removed there and nowhere else: "not there" said by another
//! server is no removal.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The word by which a driver tells the server's own identity.
const SERVER: &str = "server";

/// One place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The server's own identity, the same at every address and on every physical replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What the host knows of the connection: kind, host and port. It counts where the server says nothing
    /// of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Where in the server, by the driver's names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub within: BTreeMap<String, String>,
}

/// Why a place is not the recorded one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the account is at {recorded}, and what answers now is {found}")]
pub struct Elsewhere {
    /// Where the account is.
    pub recorded: Place,
    /// Where the configuration leads now.
    pub found: Place,
}

impl Place {
    /// What the host knows of the connection and what the driver tells.
    #[must_use]
    pub fn new(address: Option<String>, told: Vec<(String, String)>) -> Self {
        let mut within: BTreeMap<String, String> = told.into_iter().collect();
        Self { server: within.remove(SERVER), address, within }
    }

    /// Whether an account that was made here is found at `now`. `replaced` are identities of servers whose
    /// accounts the server of `now` has taken over, by an operator's word.
    ///
    /// # Errors
    /// [`Elsewhere`] unless everything that was recorded is so now.
    pub fn is_at(&self, now: &Self, replaced: &[String]) -> Result<(), Box<Elsewhere>> {
        let same_server = match (&self.server, &now.server) {
            (Some(recorded), Some(found)) => recorded == found || replaced.contains(recorded),
            // It said who it was. Something at the same address that does not is not known to be the same.
            (Some(recorded), None) => replaced.contains(recorded),
            (None, _) => match &self.address {
                Some(recorded) => now.address.as_ref() == Some(recorded) || replaced.contains(recorded),
                None => true,
            },
        };
        let same_within = self.within.iter().all(|(name, value)| now.within.get(name) == Some(value));
        if same_server && same_within {
            Ok(())
        } else {
            Err(Box::new(Elsewhere { recorded: self.clone(), found: now.clone() }))
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.server, &self.address) {
            (Some(server), Some(address)) => write!(f, "server {server} ({address})")?,
            (Some(server), None) => write!(f, "server {server}")?,
            (None, Some(address)) => write!(f, "{address}, which does not say who it is")?,
            (None, None) => write!(f, "a server that does not say who it is")?,
        }
        for (name, value) in &self.within {
            write!(f, ", {name} {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(server: Option<&str>, address: &str, within: &[(&str, &str)]) -> Place {
        let told = server.map(|server| (SERVER.to_owned(), server.to_owned()));
        let within = within.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Place::new(Some(address.to_owned()), told.into_iter().chain(within).collect())
    }

    #[test]
    fn a_server_that_says_who_it_is_is_the_same_at_any_address() {
        let made = place(Some("7"), "postgres://a:5432", &[]);
        assert!(made.is_at(&place(Some("7"), "postgres://replica:5433", &[]), &[]).is_ok());
        let other = made.is_at(&place(Some("8"), "postgres://a:5432", &[]), &[]).unwrap_err();
        assert_eq!(
            other.to_string(),
            "the account is at server 7 (postgres://a:5432), and what answers now is server 8 (postgres://a:5432)"
        );
        assert!(made.is_at(&place(None, "postgres://a:5432", &[]), &[]).is_err(), "it no longer says who it is");
        assert!(
            made.is_at(&place(Some("8"), "postgres://a:5432", &[]), &["7".to_owned()]).is_ok(),
            "by an operator's word"
        );
    }

    #[test]
    fn a_server_that_says_nothing_is_its_address() {
        let made = place(None, "mysql://a:3306", &[]);
        assert!(made.is_at(&place(None, "mysql://a:3306", &[]), &[]).is_ok());
        assert!(made.is_at(&place(Some("later"), "mysql://a:3306", &[]), &[]).is_ok(), "it was updated");
        assert!(made.is_at(&place(None, "mysql://b:3306", &[]), &[]).is_err());
        assert!(made.is_at(&place(None, "mysql://b:3306", &[]), &["mysql://a:3306".to_owned()]).is_ok());
    }

    #[test]
    fn a_mount_or_base_is_part_of_the_place() {
        let made = place(Some("c"), "http://v:8200", &[("mount", "database")]);
        assert!(made.is_at(&place(Some("c"), "http://v:8200", &[("mount", "database"), ("new", "x")]), &[]).is_ok());
        assert!(made.is_at(&place(Some("c"), "http://v:8200", &[("mount", "other")]), &[]).is_err());
        assert!(made.is_at(&place(Some("c"), "http://v:8200", &[]), &["c".to_owned()]).is_err());
    }

    #[test]
    fn what_is_not_known_is_not_written() {
        let text = serde_json::to_string(&Place::default()).unwrap();
        assert_eq!(text, "{}");
        assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), Place::default());
    }
}
