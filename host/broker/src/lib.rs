//! The broker: configuration, the issue pipeline, HTTP, store, audit log, background tasks, command line.
//!
//! In scope: everything between a request and the plugin that serves it. Out of scope: how plugins
//! run (jit-runtime), who is asking (jit-identity) and what leases, decisions and events are (jit-core).
//!
//! In the order of a request: [`http`] → [`jit_identity`] → [`permit`] ([`facts`], [`chain`]) → [`issue`] → the store ([`jit_ledger`]); and for
//! the end of each account, [`removal`] and [`tasks`]. [`compose`] puts it all together.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod birth;
pub mod broker;
pub mod certificates;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod compose;
pub mod conformance;
pub mod connection;
pub mod denials;
pub mod dev_issuer;
pub mod facts;
pub mod http;
pub mod issue;
pub mod leftover;
pub mod limits;
pub mod permit;
pub mod places;
pub mod policy_replay;
pub mod policy_test;
pub mod prepare;
pub mod refusal;
pub mod reload;
pub mod removal;
pub mod renew;
pub mod replay;
pub mod request;
pub mod rotation;
pub mod sealing;
pub mod serve;
pub mod session_store;
pub mod simulate;
pub mod space;
pub mod target;
pub mod target_check;
pub mod tasks;
pub mod watch;
