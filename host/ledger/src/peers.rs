//! The brokers that serve from one store.

use std::collections::BTreeSet;

use jiff::Timestamp;

/// A broker of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number: another one after each start. Every transaction of the broker checks it.
    pub number: i32,
    /// The process and the machine.
    pub name: String,
    /// Since when it serves, by the store's clock.
    pub since: Timestamp,
    /// The digest of its configuration, once it has shown it.
    pub config: Option<String>,
    /// How many records its exports have; none where it exports nothing or has not said it yet.
    pub exported: Option<u64>,
    /// Whether it is this one.
    pub is_this: bool,
}

/// What is known of a store's brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    /// Those that serve, by their numbers.
    pub serving: Vec<Peer>,
    /// Brokers have ended, and their leases may not have been taken over yet.
    pub ended: bool,
}

impl Peers {
    /// Whether two that serve have shown different configurations.
    #[must_use]
    pub fn drift(&self) -> bool {
        configurations(self.serving.iter().map(|peer| peer.config.as_deref())) > 1
    }
}

/// How many different configurations brokers have shown, of the digests of all of them.
pub fn configurations<'d>(digests: impl Iterator<Item = Option<&'d str>>) -> usize {
    digests.flatten().collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_configurations_that_were_shown_can_differ() {
        let peer = |config: Option<&str>| Peer {
            number: 1,
            name: String::new(),
            since: Timestamp::UNIX_EPOCH,
            config: config.map(Into::into),
            exported: None,
            is_this: false,
        };
        let drift = |configs: &[Option<&str>]| {
            Peers { serving: configs.iter().copied().map(peer).collect(), ended: false }.drift()
        };
        assert!(!drift(&[]));
        assert!(!drift(&[None, Some("a"), None, Some("a")]));
        assert!(drift(&[None, Some("a"), Some("b")]));
    }
}
