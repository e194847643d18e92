//! What a plugin is, and what it may import.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A capability that a plugin may be granted. Its word stands in `grants` of `[plugins.NAME]` and is the name
/// of the contract's interface in `wit/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Lines in the host's log.
    Log,
    /// Handles of secrets: to place, never to read.
    Secrets,
    /// Listed statements on the target's SQL connection.
    Sql,
    /// The connection's own credentials as handles, and secrets kept between calls.
    Session,
    /// Requests to the connection's HTTP server.
    Http,
    /// Operations on the connection's directory.
    Ldap,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Log, Self::Secrets, Self::Sql, Self::Session, Self::Http, Self::Ldap];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Secrets => "secrets",
            Self::Sql => "sql",
            Self::Session => "session",
            Self::Http => "http",
            Self::Ldap => "ldap",
        }
    }

    /// The capability of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.as_str() == word)
    }

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

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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

/// What a plugin does for the broker. A component is what it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginKind {
    /// Decides who may have what.
    Policy,
    /// Gathers facts for policies.
    Context,
    /// Makes and removes accounts.
    Driver,
}

impl PluginKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Policy, Self::Context, Self::Driver];

    /// Its word, which is also the name of the interface that makes a component one.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Context => "context",
            Self::Driver => "driver",
        }
    }

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

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
