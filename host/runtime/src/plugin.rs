//! A loaded plugin, whatever its kind.

use std::path::Path;

use crate::capability::Grant;
use crate::context::ContextPlugin;
use crate::driver::DriverPlugin;
use crate::loaded::Loaded;
use crate::policy::PolicyPlugin;
use jit_contract::PluginKind;

/// A plugin that can be called. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Plugin {
    /// A policy.
    Policy(PolicyPlugin),
    /// A context provider.
    Context(ContextPlugin),
    /// A driver.
    Driver(DriverPlugin),
}

impl Plugin {
    pub(crate) fn loaded(&self) -> &Loaded {
        match self {
            Self::Policy(plugin) => &plugin.loaded,
            Self::Context(plugin) => &plugin.loaded,
            Self::Driver(plugin) => &plugin.loaded,
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.loaded().name
    }

    /// The SHA-256 of its component, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.loaded().sha256
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> PluginKind {
        self.loaded().kind
    }

    /// What it may ask of the host.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.loaded().grants
    }

    /// The names and ids of the trusted keys that vouch for it; none where nobody had to.
    #[must_use]
    pub fn signed_by(&self) -> &[String] {
        &self.loaded().signed_by
    }

    /// Whether both are the same loaded plugin, not only alike.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.loaded(), other.loaded())
    }

    /// The version of the contract that it was built for.
    #[must_use]
    pub fn contract_version(&self) -> &str {
        &self.loaded().contract_version
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.loaded().path
    }

    /// As a policy.
    #[must_use]
    pub fn as_policy(&self) -> Option<&PolicyPlugin> {
        if let Self::Policy(plugin) = self { Some(plugin) } else { None }
    }

    /// As a context provider.
    #[must_use]
    pub fn as_context(&self) -> Option<&ContextPlugin> {
        if let Self::Context(plugin) = self { Some(plugin) } else { None }
    }

    /// As a driver.
    #[must_use]
    pub fn as_driver(&self) -> Option<&DriverPlugin> {
        if let Self::Driver(plugin) = self { Some(plugin) } else { None }
    }
}
