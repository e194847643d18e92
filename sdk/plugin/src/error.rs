//! Failures of a driver, by what the host has to do about them.

use crate::config::ConfigProblem;

pub use crate::bindings::host::jit::plugin::types::{Error, Retry};

impl Error {
    /// Nothing was done, and the same call may work later; when is the host's choice.
    pub fn retryable(reason: impl Into<String>) -> Self {
        Self::Retryable(Retry { reason: reason.into(), after_ms: None })
    }

    /// One mistake in a target's or role's configuration, at a dotted path below it.
    pub fn invalid_config(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidConfig(vec![ConfigProblem::new(path, message)])
    }
}
