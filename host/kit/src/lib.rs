//! What a plugin is tried with before it serves: the conformance kit for drivers, tables of cases for policies, the
//! replay of recorded decisions, an issuer for development.
//!
//! In scope: running a plugin as the broker would, and saying what came of it. Out of scope: printing and the command
//! line, which are the broker's.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod conformance;
pub mod dev_issuer;
pub mod policy_replay;
pub mod policy_test;
