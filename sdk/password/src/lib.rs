//! Passwords for accounts, and verifiers: what a server stores of a password in order to check it.
//!
//! The broker makes both for callers that ask for a password. A caller that makes its own password sends a
//! [`Verifier`] alone, so that the broker never holds the password (NEVER-HELD). Both sides use the same code.
//!
//! In scope: random passwords, the hashes that databases and directories store, and the checks of a verifier that
//! somebody else made. Out of scope: where a verifier is placed, and whether it was used before.
//!
//! A verifier can be attacked offline, so it is a secret: it is not in `Debug`, and is wiped when dropped.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod generate;
pub mod mysql;
pub mod salted;
pub mod scram;
mod verifier;

pub use generate::{PASSWORD_LENGTH, generate_password};
pub use jit_contract::VerifierKind;
pub use verifier::{MAX_TEXT, Unmade, Verifier, WeakVerifier, least_iterations, most_iterations};
