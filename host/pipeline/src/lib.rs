//! What the broker does with a request, and with the end of each account.
//!
//! In scope: deciding, issuing, renewing, replaying, rotating, removing, reconciling, and the tasks that do so beside the
//! requests. Out of scope, and not known here: how plugins run, HTTP, the configuration's file, SQL. The world is reached
//! through [`ports`] and through the store ([`jit_ledger::Store`]).
//!
//! In the order of a request: [`request`] → [`permit`] ([`facts`], [`chain`]) → [`issue`] → the store; and for the end of
//! each account, [`removal`] and [`tasks`].

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make times of their own"))]

// The doubles of the tests that run the flows together serve the unit tests too.
#[cfg(test)]
extern crate self as jit_pipeline;
#[cfg(test)]
#[path = "../tests/world/backend.rs"]
#[allow(dead_code, reason = "the unit tests use a part of it")]
mod backend;
#[cfg(test)]
#[path = "../tests/world/doubles.rs"]
#[allow(dead_code, reason = "the unit tests use a part of it")]
mod doubles;

pub mod birth;
pub mod broker;
pub mod chain;
pub mod clock;
pub mod denials;
pub mod end;
pub mod facts;
pub mod gate;
pub mod issue;
pub mod ledger;
pub mod leftover;
pub mod limits;
pub mod permit;
pub mod places;
pub mod ports;
pub mod reach;
pub mod ready;
pub mod rebuild;
pub mod refusal;
pub mod removal;
pub mod renew;
pub mod replay;
pub mod request;
pub mod revoke;
pub mod revoke_many;
pub mod rotation;
pub mod sealing;
pub mod simulate;
pub mod space;
pub mod target;
pub mod target_check;
pub mod tasks;
pub mod trace;
pub mod undo;
pub mod verifying;
pub mod work;
