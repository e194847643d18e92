//! Writes and builds jit-broker plugins. Of Rust: finds a compiler for
//! `wasm32-unknown-unknown`, compiles guest crates and turns the core modules into components. Of Python and
//! JavaScript: fetches what snapshots an interpreter with the sources. Either way the result is checked
//! against the contract.
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
mod embedded;
mod error;
mod finished;
mod grants;
mod heartbeat;
mod interpreted;
pub mod process;
mod progress;
mod project;
mod scaffold;
pub mod toolchain;
mod workspace;

pub use build::{BuildOptions, BuiltPlugin, build_plugin, build_plugins, encode_component};
pub use check::{CheckReport, Problem, check};
pub use contract::{Contract, Kind, MAX_PLUGIN_BYTES, PluginIdentity, host_contract};
pub use error::{Attempt, Error};
pub use grants::granted;
pub use heartbeat::Heartbeat;
pub use interpreted::prepare as prepare_language;
pub use progress::{Progress, Silent};
pub use project::{Language, check_name, language};
pub use scaffold::{Created, NewPlugin, Template, create};
pub use workspace::{Package, Workspace, cargo, registry_remap_flag};

/// What plugins are compiled for. It gives components without any WASI import (NO-AMBIENT).
pub const GUEST_TARGET: &str = "wasm32-unknown-unknown";
