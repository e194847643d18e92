//! The words that both sides of jit-broker's contract must spell alike.
//!
//! In scope: durations, patterns, capabilities, plugin kinds and driver features, each with one spelling, one parser and
//! one sentence for what is wrong. The host, the guest SDK, the build tools, the client and the agent all
//! use this crate, so that a text that is accepted in one place is accepted in every place.
//! Out of scope: everything that runs. The crate has no I/O, compiles for `wasm32-unknown-unknown`
//! because guests link it, and depends on serde alone. The types of the HTTP API are in `jit-api`; the
//! types that cross the sandbox are in `wit/`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`duration`] | [`Seconds`]: `90s`, `30m`, `1h30m`, `7d` or whole seconds |
//! | [`glob`] | [`Glob`]: names with `*` and `?` |
//! | [`words!`] | an enum whose variants stand for words |
//! | [`capability`] | [`Capability`] and [`PluginKind`]: what a plugin is and what it may import |
//! | [`feature`] | [`Feature`]: what a driver can do beyond creating and revoking |
//! | [`verifier`] | [`VerifierKind`] and [`VerifierRule`]: which verifiers of callers a driver places |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod capability;
pub mod duration;
pub mod feature;
pub mod glob;
pub mod verifier;
mod words;

pub use capability::{Capability, PluginKind, UnknownWord};
pub use duration::{DurationError, Seconds};
pub use feature::Feature;
pub use glob::{Glob, GlobError};
pub use verifier::{PlacedVerifier, VERIFIERS, VerifierKind, VerifierRule};
