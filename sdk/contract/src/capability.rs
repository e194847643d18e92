//! What a plugin is, and what it may import.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

crate::words! {
    /// A capability that a plugin may be granted. Its word stands in `grants` of `[plugins.NAME]` and is the name
    /// of the contract's interface in `wit/`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub enum Capability {
        /// Lines in the host's log.
        Log = "log",
        /// Handles of secrets: to place, never to read.
        Secrets = "secrets",
        /// Listed statements on the target's SQL connection.
        Sql = "sql",
        /// The connection's own credentials as handles, and secrets kept between calls.
        Session = "session",
        /// Requests to the connection's HTTP server.
        Http = "http",
        /// Operations on the connection's directory.
        Ldap = "ldap",
    }
}

impl Capability {
    /// Every word, in the order of [`Capability::ALL`].
    pub fn words() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().map(Self::as_str)
    }

    /// Whether it works on a target's connection.
    #[must_use]
    pub const fn reaches_a_backend(self) -> bool {
        matches!(self, Self::Sql | Self::Http | Self::Ldap)
    }
}

/// A word that is not a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownWord;

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = Capability::words().collect();
        let (last, others) = words.split_last().unwrap_or((&"", &[]));
        write!(f, "not a capability: expected {} or {last}", others.join(", "))
    }
}

impl std::error::Error for UnknownWord {}

impl FromStr for Capability {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::from_word(word).ok_or(UnknownWord)
    }
}

crate::words! {
    /// What a plugin does for the broker. A component is what it exports.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub enum PluginKind {
        /// Decides who may have what.
        Policy = "policy",
        /// Gathers facts for policies.
        Context = "context",
        /// Makes and removes accounts.
        Driver = "driver",
    }
}

impl PluginKind {
    /// What a plugin of this kind may be granted at most. Without `grants` in its configuration, it is
    /// granted what of that it imports.
    #[must_use]
    pub const fn capabilities(self) -> &'static [Capability] {
        match self {
            Self::Policy => &[Capability::Log],
            Self::Context => &[Capability::Log, Capability::Secrets, Capability::Session, Capability::Http],
            Self::Driver => &Capability::ALL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back() {
        for capability in Capability::ALL {
            assert_eq!(capability.as_str().parse(), Ok(capability));
            assert_eq!(serde_json::to_value(capability).unwrap(), capability.as_str());
        }
        for kind in PluginKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert_eq!("redis".parse::<Capability>(), Err(UnknownWord));
        assert_eq!(UnknownWord.to_string(), "not a capability: expected log, secrets, sql, session, http or ldap");
    }

    /// Each capability is an interface of the contract, and each interface that a plugin imports for more
    /// than its types is a capability.
    #[test]
    fn the_words_are_the_contracts_interfaces() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        for capability in Capability::ALL {
            let file = folder.join(format!("{capability}.wit"));
            let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert!(text.contains(&format!("interface {capability} {{")), "{capability}");
        }
        for kind in PluginKind::ALL {
            let file = folder.join(format!("{kind}.wit"));
            assert!(std::fs::read_to_string(&file).unwrap().contains(&format!("interface {kind} {{")), "{kind}");
        }
    }
}
