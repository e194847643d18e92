//! Builds jit-broker plugins: finds or prepares a compiler for `wasm32-unknown-unknown`, compiles
//! guest crates, turns the core modules into components and checks them against the contract.
//!
//! In scope: everything between a plugin's source and a `.wasm` file that a broker loads. Out of
//! scope: running plugins (jit-runtime) and what is inside them (jit-plugin). Used by
//! `cargo xtask` and by `jit-broker plugin build|check`.
//!
//! ```no_run
//! use jit_plugin_build::{BuildOptions, Silent, build_plugin};
//!
//! # fn main() -> Result<(), jit_plugin_build::Error> {
//! let plugin = build_plugin("my-policy".as_ref(), &BuildOptions::default(), &Silent)?;
//! println!("{} {}", plugin.sha256, plugin.wasm_path.display());
//! # Ok(())
//! # }
//! ```

mod build;
pub mod cache;
mod check;
mod contract;
mod error;
mod finished;
pub mod process;
mod progress;
pub mod toolchain;
mod workspace;

pub use build::{BuildOptions, BuiltPlugin, build_plugin, build_plugins, encode_component};
pub use check::{CheckReport, Problem, check};
pub use contract::{Contract, Kind, MAX_PLUGIN_BYTES, PluginIdentity, host_contract};
pub use error::{Attempt, Error};
pub use progress::{Progress, Silent};
pub use workspace::{Package, Workspace};

/// What plugins are compiled for. It gives components without any WASI import (NO-AMBIENT).
pub const GUEST_TARGET: &str = "wasm32-unknown-unknown";
