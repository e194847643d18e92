//! Domain types and state machines of jit-broker.
//!
//! In scope: what a lease, an account, a decision, an audit event is; which steps are allowed.
//! Everything here is a pure function of its arguments, except that ids, account names and passwords are random.
//! Out of scope: tokio, wasmtime, HTTP, SQL, files: this crate knows none of them, so each rule
//! can be read and tested alone.
//!
//! | module | what it holds |
//! |---|---|
//! | [`name`] | names of targets, roles and workloads, checked where they enter |
//! | [`id`] | lease and request ids |
//! | [`ttl`] | durations as applications write them |
//! | [`account`] | the account's name, chosen by the host before any call (INTENT-FIRST) |
//! | [`secret`] | generated passwords |
//! | [`lease`] | the lease and its states |
//! | [`rotation`] | rotating accounts and their states |
//! | [`outcome`] | THREE-OUTCOMES: done, refused, unknown |
//! | [`place`] | where an account is (RIGHT-PLACE) |
//! | [`driver`] | what is said to a driver and what it answers |
//! | [`policy`] | what is said to a policy, what it answers, and how answers add up |
//! | [`operation`], [`looked_at`] | what is to be decided; what a policy read to decide it |
//! | [`rollout`], [`glob`] | for whom a policy counts already |
//! | [`usage`] | what is counted for policies |
//! | [`event`] | the audit events |
//! | [`trace`] | for whom a call to a backend is made |
//! | [`transport`] | how the way to each kind of server is protected |
//! | [`brake`] | how many accounts without a lease one pass removes |
//! | [`causes`] | an error with what is behind it, on one line |
//! | [`spelling`] | the nearest of the words that would have been right |
//! | [`space`] | the marks below which a full disk stops something |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub use jit_api::certificate;

pub mod account;
pub mod brake;
pub mod causes;
pub mod counted;
pub mod driver;
pub mod event;
pub mod glob;
pub mod id;
pub mod lease;
pub mod looked_at;
pub mod name;
pub mod operation;
pub mod operator;
pub mod outcome;
pub mod place;
pub mod policy;
pub mod rollout;
pub mod rotation;
pub mod secret;
pub mod space;
pub mod spelling;
pub mod trace;
pub mod transport;
pub mod ttl;
pub mod usage;
