//! The broker: configuration, the issue pipeline, HTTP, store, audit log, background tasks, command line.
//!
//! In scope: everything between a request and the plugin that serves it. Out of scope: how plugins
//! run (jit-runtime), who is asking (jit-identity) and what leases, decisions and events are (jit-core).
//!
//! In the order of a request: [`http`] → [`jit_identity`] → [`permit`] ([`facts`], [`chain`]) → [`issue`] → the store ([`jit_ledger`]); and for
//! the end of each account, [`removal`] and [`tasks`]. [`compose`] puts it all together.

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
