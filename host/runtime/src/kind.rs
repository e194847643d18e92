//! The kinds of plugins.

use std::fmt;

use crate::capability::Grant;

/// What a plugin is, by what it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Context => "context",
            Self::Driver => "driver",
        }
    }

    /// Whether plugins of this kind are asked about requests.
    pub(crate) fn reads_requests(self) -> bool {
        matches!(self, Self::Policy | Self::Context)
    }

    /// What a plugin of this kind may be granted at most. When the configuration says nothing, it is
    /// granted what of that it imports.
    #[must_use]
    pub fn grants(self) -> &'static [Grant] {
        match self {
            Self::Policy => &[Grant::Log],
            Self::Context => &[Grant::Log, Grant::Secrets, Grant::Session, Grant::Http],
            Self::Driver => Grant::ALL,
        }
    }
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
