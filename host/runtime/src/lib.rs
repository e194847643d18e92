//! The Wasm host of jit-broker: the only crate that knows wasmtime.
//!
//! In scope: loading plugins and holding them to the contract, their limits, the capabilities they
//! may be granted, and one facade per kind that checks every answer (UNTRUSTED-ANSWER).
//! Out of scope: which plugin is asked when, leases, configuration files, HTTP.
//!
//! | module | what it holds |
//! |---|---|
//! | [`engine`] | [`Runtime`]: the engine, its ticker, the slots for concurrent calls |
//! | [`limits`] | [`Limits`] of one call |
//! | [`load`] | from a file to a [`Plugin`]: digest, kind, grant, types, compilation |
//! | [`file`] | a component's bytes, read once, and who vouches for them |
//! | `cache` | compiled plugins between starts |
//! | `call` | what one call has used, and the meters that stop it |
//! | [`plugin`], [`policy`], [`context`], [`driver`] | the facades |
//! | `answer` | the checks of what plugins return |
//! | [`capability`] | what plugins can ask of the host: log, secret handles, SQL, HTTP, directories |
//! | [`catalog`] | the plugins that serve, replaced atomically |
//! | [`fault`] | what plugins do wrong |
//! | [`text`] | texts from a sandbox, made safe to show |

mod answer;
mod bindings;
mod cache;
mod call;
pub mod capability;
pub mod catalog;
pub mod context;
pub mod driver;
pub mod engine;
pub mod fault;
pub mod file;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod load;
pub mod plugin;
pub mod policy;
pub mod text;

pub use cache::CacheError;
pub use capability::http::{HttpConnection, HttpConnectionError, HttpConnectionOptions};
pub use capability::ldap::{LdapConnection, LdapConnectionError, LdapConnectionOptions, LdapEndpoint, directory_login};
pub use capability::session::{Kept, SecretSource, SessionStore};
pub use capability::sql::connection::{
    Endpoint, SqlConnection, SqlConnectionError, SqlConnectionOptions, SqlKind, Unavailable,
};
pub use capability::{Connection, Grant};
pub use catalog::Catalog;
pub use context::{ContextPlugin, ContextScope};
pub use driver::{DriverPlugin, DriverScope, Lane};
pub use engine::{EPOCH_TICK, Runtime, RuntimeError, RuntimeOptions};
pub use fault::{ConfigFault, ConfigProblem, Fault, FaultKind};
pub use limits::Limits;
pub use load::{LoadError, LoadErrorKind, PluginSpec, Terms};
pub use plugin::{Plugin, PluginKind};
pub use policy::PolicyPlugin;
