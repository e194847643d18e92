//! The Wasm host of jit-broker: the only crate that knows wasmtime.
//!
//! In scope: loading plugins and holding them to the contract, their limits, the capabilities they
//! may be granted, and one facade per kind that checks every answer (UNTRUSTED-ANSWER).
//! Out of scope: which plugin is asked when, leases, configuration files, HTTP.
//!
//! | module | what it holds |
//! |---|---|
//! | [`runtime`] | [`Runtime`]: what starts the host and loads plugins |
//! | [`engine`] | the engine, its ticker, the slots for concurrent calls |
//! | [`limits`], `meter` | [`Limits`] of one call; what it has used, and may have done to the backend |
//! | [`load`] | from a file to a [`Plugin`]: digest, kind, grant, types, compilation |
//! | [`mod@file`] | a component's bytes, read once, and who vouches for them |
//! | `cache` | compiled plugins between starts |
//! | `snapshot` | copies of prepared instances: from which state a call starts |
//! | `call` | the data of one call, and what stops it |
//! | `loaded` | what plugins of all kinds have once they are loaded |
//! | [`policy`], [`context`], [`driver`], [`plugin`] | the facades of each kind, and of any |
//! | `request` | the request as policies and context providers read it; every read is noted |
//! | `answer` | the checks of what plugins return |
//! | [`capability`] | what plugins can ask of the host: log, secret handles, SQL, HTTP, directories |
//! | [`backend`] | a target's connection and a call's use of it, whatever is spoken there |
//! | `view`, [`declared`] | what a capability sees of a call, and of what a driver says at load |
//! | [`catalog`] | the plugins that serve, replaced atomically |
//! | [`fault`] | what plugins do wrong |
//! | [`text`] | texts from a sandbox, made safe to show |

mod answer;
pub mod backend;
mod bindings;
mod cache;
mod call;
pub mod capability;
pub mod catalog;
pub mod context;
pub mod declared;
pub mod driver;
pub mod engine;
pub mod fault;
pub mod file;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod load;
mod loaded;
mod meter;
pub mod plugin;
pub mod policy;
mod remembered;
mod request;
pub mod runtime;
mod snapshot;
pub mod text;
mod view;

pub use backend::{Backend, Connection, Endpoint, Unavailable};
pub use cache::{CacheError, CompileWatch, LogCompilations};
pub use capability::Grant;
pub use capability::credentials::{Kept, SecretSource, SessionStore};
pub use capability::http::{HttpConnection, HttpConnectionError, HttpConnectionOptions};
pub use capability::ldap::{LdapConnection, LdapConnectionError, LdapConnectionOptions, directory_login};
pub use capability::sql::connection::{SqlConnection, SqlConnectionError, SqlConnectionOptions, SqlKind};
pub use catalog::Catalog;
pub use context::{ConfiguredContext, ContextPlugin, ContextScope};
pub use driver::{DriverPlugin, DriverScope};
pub use engine::{EPOCH_TICK, RuntimeError, RuntimeOptions, open_page_map};
pub use fault::{ConfigFault, ConfigProblem, Fault, FaultKind};
pub use jit_contract::PluginKind;
pub use jit_core::driver::Lane;
pub use limits::Limits;
pub use load::{LoadError, LoadErrorKind, PluginSpec, Terms};
pub use plugin::Plugin;
pub use policy::{ConfiguredAnswer, ConfiguredPolicy, PolicyAnswer, PolicyPlugin};
pub use runtime::Runtime;
pub use snapshot::Snapshots;
