//! What a plugin can ask of the host. A capability is one WIT file and one module here; what the
//! grant of a plugin leaves out is not linked (NO-AMBIENT).
//!
//! A capability is a type that implements [`Capability`], and one line of the table below. It works on a
//! [`View`](crate::view::View) of the call, which has the session that its own kind of connection opened
//! ([`Backend`](crate::backend::Backend)). It knows no other capability and not the call; `rules.rs`
//! holds that. What several of them build on lies beneath them: [`secrets`] as handles, and the [`credentials`] of a
//! connection.

use wasmtime::component::Linker;

use crate::declared::{Reading, Said, Undeclared};
use crate::view::HasView;

pub use jit_contract::Capability as Grant;

pub mod credentials;
pub mod http;
pub mod ldap;
mod log;
pub(crate) mod secrets;
mod session;
pub mod sql;

/// What the host has to know of a capability.
pub(crate) trait Capability {
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

/// What the host does for a word of the contract, by its line in the table.
pub(crate) trait Granted {
    /// Whether a driver that has it exports the list of its statements.
    fn lists_statements(self) -> bool;

    /// Links the capability.
    fn link<T: HasView>(self, linker: &mut Linker<T>) -> wasmtime::Result<()>;

    /// Lets the capability read what a driver says of itself.
    fn declare(self, said: &Said<'_>) -> Result<Option<Reading>, Undeclared>;
}

/// The table of capabilities: a line for each word of [`jit_contract::Capability`]. A word without a line does
/// not compile.
macro_rules! capabilities {
    ($($grant:ident = $capability:ty;)+) => {
        impl Granted for Grant {
            fn lists_statements(self) -> bool {
                match self { $(Self::$grant => <$capability>::LISTS_STATEMENTS,)+ }
            }

            fn link<T: HasView>(self, linker: &mut Linker<T>) -> wasmtime::Result<()> {
                match self { $(Self::$grant => <$capability>::link(linker),)+ }
            }

            fn declare(self, said: &Said<'_>) -> Result<Option<Reading>, Undeclared> {
                match self { $(Self::$grant => <$capability>::declare(said),)+ }
            }
        }
    };
}

capabilities! {
    Log = log::LogCapability;
    Secrets = secrets::SecretsCapability;
    Sql = sql::SqlCapability;
    Session = session::SessionCapability;
    Http = http::HttpCapability;
    Ldap = ldap::LdapCapability;
}

#[cfg(test)]
mod rules;
#[cfg(test)]
mod stranger;
