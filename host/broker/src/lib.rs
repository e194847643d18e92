//! The broker: HTTP, what puts everything together, reloads, the conformance kit, the command line.
//!
//! In scope: the life of the process, and what only the whole program can do. Out of scope: what is done with a request
//! ([`jit_pipeline`]), the configuration's text ([`jit_config`]), who is asking ([`jit_identity`]), the store and the log
//! ([`jit_ledger`]), how plugins run ([`jit_runtime`]), and what leases, decisions and events are ([`jit_core`]).
//!
//! A request comes in by [`http`] and is handled by the pipeline. [`compose`] puts it all together.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod certificates;
pub mod cli;
pub mod compose;
pub mod conformance;
pub mod connection;
pub mod dev_issuer;
pub mod http;
pub mod loaded;
pub mod policy_replay;
pub mod policy_test;
pub mod prepare;
pub mod reload;
pub mod rotation_setup;
pub mod sealing_key;
pub mod serve;
pub mod session_store;
mod store;
pub mod watch;
pub mod way_in;
