//! From a configuration to what serves: plugins loaded, connections opened, targets bound, the store opened; and again
//! at each reload.
//!
//! In scope: what `serve` and `config check` load and refuse alike, the adapters between plugins and the ports of
//! [`jit_pipeline`], files that are read again while the broker serves. Out of scope: the configuration's text
//! ([`jit_config`]), what is done with a request ([`jit_pipeline`]), how plugins run ([`jit_runtime`]), listeners, the
//! command line.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod certificates;
pub mod compose;
pub mod connection;
pub mod loaded;
pub mod prepare;
pub mod reload;
pub mod rotation_setup;
pub mod sealing_key;
pub mod session_store;
pub mod store;
pub mod store_backup;
pub mod store_copy;
pub mod store_rebuild;
mod targets;
mod telemetry;
pub mod tls;
pub mod watch;
pub mod way_in;
