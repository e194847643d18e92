//! The other servers that tests run against, as an administrator or an application sees them: what a
//! driver did is asked of the server itself, on connections that have nothing to do with the broker.

mod ldap;
mod openbao;

pub use ldap::{Change, Directory, Entry, Scope};
pub use openbao::OpenBao;
