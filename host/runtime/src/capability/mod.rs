//! What a plugin can ask of the host. A capability is one WIT file and one module here; what the
//! grant of a plugin leaves out is not linked (NO-AMBIENT).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wasmtime::component::{HasSelf, Linker};

use crate::call::Call;

pub(crate) mod log;
pub(crate) mod secrets;
pub mod sql;

/// A capability that a plugin may be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    /// Lines in the host's log.
    Log,
    /// Handles of secrets: to place, never to read.
    Secrets,
    /// Listed statements on the target's SQL connection.
    Sql,
}

impl Grant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Log, Self::Secrets, Self::Sql];

    /// The configuration's word, which is also the name of the contract's interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Secrets => "secrets",
            Self::Sql => "sql",
        }
    }

    /// Links the capability.
    pub(crate) fn link(self, linker: &mut Linker<Call>) -> wasmtime::Result<()> {
        match self {
            Self::Log => crate::bindings::log::add_to_linker::<_, HasSelf<Call>>(linker, |call| call),
            Self::Secrets => crate::bindings::secrets::add_to_linker::<_, HasSelf<Call>>(linker, |call| call),
            Self::Sql => crate::bindings::sql::add_to_linker::<_, HasSelf<Call>>(linker, |call| call),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a word is not a grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a capability: expected log, secrets or sql")]
pub struct GrantError;

impl FromStr for Grant {
    type Err = GrantError;
    fn from_str(word: &str) -> Result<Self, GrantError> {
        Self::ALL.into_iter().find(|grant| grant.as_str() == word).ok_or(GrantError)
    }
}

/// The contract's own types import nothing but types.
impl crate::bindings::types::Host for Call {}
