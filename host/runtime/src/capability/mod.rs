//! What a plugin can ask of the host. A capability is one WIT file and one module here; what the
//! grant of a plugin leaves out is not linked (NO-AMBIENT).
//!
//! A capability is a type that implements [`Capability`], and one line of the table below. It works on a
//! [`View`](crate::view::View) of the call, which has the session that its own kind of connection opened
//! ([`Backend`](crate::backend::Backend)). It knows no other capability and not the call; a test below holds
//! that. What several of them build on lies beneath them: [`secrets`] as handles, and the [`credentials`] of a
//! connection.

use std::fmt;
use std::str::FromStr;

use wasmtime::component::Linker;

use crate::declared::{Reading, Said, Undeclared};
use crate::view::HasView;

pub mod credentials;
pub mod http;
pub mod ldap;
mod log;
pub(crate) mod secrets;
mod session;
pub mod sql;

/// What the host has to know of a capability.
pub(crate) trait Capability {
    /// The configuration's word, which is also the name of the contract's interface.
    const WORD: &'static str;

    /// Whether it works on a target's connection.
    const REACHES_A_BACKEND: bool = false;

    /// Whether a driver that has it exports the list of its statements.
    const LISTS_STATEMENTS: bool = false;

    /// Links its interface.
    fn link<T: HasView>(linker: &mut Linker<T>) -> wasmtime::Result<()>;

    /// Reads what a driver says of itself at load; its sessions find it in
    /// [`Declared`](crate::declared::Declared).
    fn declare(said: &Said<'_>) -> Result<Option<Reading>, Undeclared> {
        let _ = said;
        Ok(None)
    }
}

/// The table of capabilities: a line for each. Their order is that of every list of grants.
macro_rules! capabilities {
    ($($(#[$doc:meta])+ $grant:ident = $capability:ty;)+) => {
        /// A capability that a plugin may be granted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Grant {
            $($(#[$doc])+ $grant,)+
        }

        impl Grant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$grant,)+];

            /// The configuration's word, which is also the name of the contract's interface.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$grant => <$capability>::WORD,)+ }
            }

            /// Whether it works on a target's connection.
            #[must_use]
            pub const fn reaches_a_backend(self) -> bool {
                match self { $(Self::$grant => <$capability>::REACHES_A_BACKEND,)+ }
            }

            /// Whether a driver that has it exports the list of its statements.
            pub(crate) const fn lists_statements(self) -> bool {
                match self { $(Self::$grant => <$capability>::LISTS_STATEMENTS,)+ }
            }

            /// Links the capability.
            pub(crate) fn link<T: HasView>(self, linker: &mut Linker<T>) -> wasmtime::Result<()> {
                match self { $(Self::$grant => <$capability>::link(linker),)+ }
            }

            /// Lets the capability read what a driver says of itself.
            pub(crate) fn declare(self, said: &Said<'_>) -> Result<Option<Reading>, Undeclared> {
                match self { $(Self::$grant => <$capability>::declare(said),)+ }
            }
        }
    };
}

capabilities! {
    /// Lines in the host's log.
    Log = log::LogCapability;
    /// Handles of secrets: to place, never to read.
    Secrets = secrets::SecretsCapability;
    /// Listed statements on the target's SQL connection.
    Sql = sql::SqlCapability;
    /// The connection's own credentials as handles, and secrets kept between calls.
    Session = session::SessionCapability;
    /// Requests to the connection's HTTP server.
    Http = http::HttpCapability;
    /// Operations on the connection's directory.
    Ldap = ldap::LdapCapability;
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a word is not a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantError;

impl std::error::Error for GrantError {}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a capability: expected ")?;
        for (number, grant) in Grant::ALL.iter().enumerate() {
            let before = match number {
                0 => "",
                _ if number + 1 == Grant::ALL.len() => " or ",
                _ => ", ",
            };
            write!(f, "{before}{grant}")?;
        }
        Ok(())
    }
}

impl FromStr for Grant {
    type Err = GrantError;
    fn from_str(word: &str) -> Result<Self, GrantError> {
        Self::ALL.iter().copied().find(|grant| grant.as_str() == word).ok_or(GrantError)
    }
}

#[cfg(test)]
mod rules;
#[cfg(test)]
mod stranger;
