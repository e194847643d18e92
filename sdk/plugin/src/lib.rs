//! Write jit-broker plugins in Rust.
//!
//! A plugin is a WebAssembly component behind the contract in `wit/`. This crate gives each kind a
//! trait with typed configuration, and a macro that registers the implementation:
//!
//! | kind | trait | registered by |
//! |---|---|---|
//! | policy | [`Policy`] | [`register_policy!`] |
//! | policy for which the host counts | [`UsagePolicy`] | [`register_usage_policy!`] |
//! | context provider | [`Context`] | [`register_context!`] |
//! | driver for SQL | [`SqlDriver`] | [`register_sql_driver!`] |
//! | driver for an HTTP API | [`HttpDriver`] | [`register_http_driver!`] |
//! | driver for a directory | [`LdapDriver`] | [`register_ldap_driver!`] |
//! | driver without a capability | [`BareDriver`] | [`register_bare_driver!`] |
//!
//! # The smallest policy
//!
//! `Cargo.toml` needs `crate-type = ["cdylib", "rlib"]` and this crate; `src/lib.rs` is:
//!
//! ```
//! use jit_plugin::{Policy, Request, Verdict};
//! use serde::Deserialize;
//!
//! /// `config = { environment = "prod" }`
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     environment: String,
//! }
//!
//! struct OneEnvironment;
//!
//! impl Policy for OneEnvironment {
//!     type Config = Config;
//!
//!     fn decide(config: &Config, request: &Request) -> Verdict {
//!         match request.attribute("env") {
//!             Some(env) if env == config.environment => Verdict::allow(),
//!             _ => Verdict::deny(format!("only workloads of env={}", config.environment)),
//!         }
//!     }
//! }
//!
//! jit_plugin::register_policy!(OneEnvironment);
//!
//! # fn main() {
//! // A native unit test needs no Wasm:
//! let request = jit_plugin::testing::request().with_attribute("env", "dev");
//! let config = jit_plugin::config::parse(r#"{"environment": "prod"}"#).unwrap();
//! assert!(matches!(OneEnvironment::decide(&config, &request), Verdict::Deny(_)));
//! # }
//! ```
//!
//! A mistake in the configuration never reaches `decide`: it is told at load, with its path and
//! what to write instead ([`config::parse`]). A panic is written to the host's log with its place,
//! and the call fails: a policy that panics denies.
//!
//! # What a plugin cannot do
//!
//! It has no network, files, environment, clock or randomness. The time is [`Request::time`], what was
//! asked before in [`Request::usage`];
//! statements go through [`Sql`], where the host quotes every parameter; a password is a
//! [`Secret`], a handle that can be placed into a statement and never read.
//!
//! # Out of scope
//!
//! Building and checking components is `jit-broker plugin build|check`; the host's side of the
//! contract is `jit-runtime`.

#[doc(hidden)]
pub mod bindings;
pub mod config;
pub mod context;
pub mod driver;
mod driver_trait;
pub mod error;
pub mod http;
pub mod http_driver;
pub mod ldap;
pub mod ldap_driver;
pub mod log;
mod panic;
pub mod pattern;
pub mod policy;
mod prepared;
mod register;
pub mod request;
pub mod sql;
pub mod sql_driver;
pub mod testing;
mod testing_http;
mod testing_ldap;
pub mod text;
pub mod usage;

pub use config::{ConfigProblem, Name, Seconds};
pub use context::Context;
pub use driver::{
    Account, AccountPage, AccountState, BareDriver, Description, Feature, Issued, OwnedSecret, Role, RotationStep,
    Secret, Target, of_role,
};
pub use error::{Error, Retry};
pub use http::Http;
pub use http_driver::HttpDriver;
pub use ldap::Ldap;
pub use ldap_driver::LdapDriver;
pub use pattern::{Pattern, SpiffePrefix};
pub use policy::{Allowance, Policy, Verdict};
pub use request::Request;
pub use sql::{Encoding, Param, Rows, ServerError, Sql, SqlError, Statement, Template};
pub use sql_driver::SqlDriver;
pub use usage::UsagePolicy;

/// The version of the contract in `wit/` that this SDK speaks. It also stands in the module's
/// `jit-plugin` section, so that the host can name a mismatch before it links anything.
pub const CONTRACT: &str = register::contract!();
