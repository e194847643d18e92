//! What a plugin can ask of the host. A capability is one WIT file and one module here; what the
//! grant of a plugin leaves out is not linked (NO-AMBIENT).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmtime::component::{HasSelf, Linker};

use crate::call::Call;

use http::HttpConnection;
use ldap::LdapConnection;
use sql::connection::SqlConnection;

pub mod http;
pub mod ldap;
pub(crate) mod log;
pub(crate) mod secrets;
pub mod session;
pub mod sql;
#[cfg(test)]
mod stranger;

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
    /// The connection's own credentials as handles, and secrets kept between calls.
    Session,
    /// Requests to the connection's HTTP server.
    Http,
    /// Operations on the connection's directory.
    Ldap,
}

impl Grant {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Log, Self::Secrets, Self::Sql, Self::Session, Self::Http, Self::Ldap];

    /// The configuration's word, which is also the name of the contract's interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Secrets => "secrets",
            Self::Sql => "sql",
            Self::Session => "session",
            Self::Http => "http",
            Self::Ldap => "ldap",
        }
    }

    /// Whether it works on a target's connection.
    #[must_use]
    pub fn reaches_a_backend(self) -> bool {
        matches!(self, Self::Sql | Self::Http | Self::Ldap)
    }

    /// Links the capability.
    pub(crate) fn link(self, linker: &mut Linker<Call>) -> wasmtime::Result<()> {
        match self {
            Self::Log => crate::bindings::log::add_to_linker::<_, HasSelf<Call>>(linker, |call| call),
            Self::Secrets => crate::bindings::secrets::add_to_linker::<_, HasSelf<Call>>(linker, |call| call),
            Self::Sql => crate::bindings::sql::add_to_linker::<_, HasSelf<Call>>(linker, |call| call),
            Self::Session => crate::bindings::session::add_to_linker::<_, HasSelf<Call>>(linker, |call| call),
            Self::Http => crate::bindings::http::add_to_linker::<_, HasSelf<Call>>(linker, |call| call),
            Self::Ldap => crate::bindings::ldap::add_to_linker::<_, HasSelf<Call>>(linker, |call| call),
        }
    }
}

/// What a target's driver works on: opened by the host, unseen by the plugin (BLIND-PLUGIN).
#[derive(Debug, Clone)]
pub enum Connection {
    /// A server that speaks SQL.
    Sql(Arc<SqlConnection>),
    /// An HTTP API.
    Http(Arc<HttpConnection>),
    /// A directory.
    Ldap(Arc<LdapConnection>),
}

impl Connection {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Sql(connection) => connection.name(),
            Self::Http(connection) => connection.name(),
            Self::Ldap(connection) => connection.name(),
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
#[error("not a capability: expected log, secrets, sql, session, http or ldap")]
pub struct GrantError;

impl FromStr for Grant {
    type Err = GrantError;
    fn from_str(word: &str) -> Result<Self, GrantError> {
        Self::ALL.into_iter().find(|grant| grant.as_str() == word).ok_or(GrantError)
    }
}

/// The contract's own types import nothing but types.
impl crate::bindings::types::Host for Call {}
