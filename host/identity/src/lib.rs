//! Who is asking: from the evidence that came with a request to a principal that the broker vouches for.
//!
//! In scope: the kinds of evidence, the methods that verify them, the keys of their issuers, the mapping
//! of claims. Out of scope: what the principal may do (policy), and how HTTP reports a refusal (every
//! [`Rejected`] is the same 401 to the caller; the reason is for the log and the metrics only).
//!
//! ```text
//!   request ─▶ Evidence ─▶ Identity::verify ───────────────────────────▶ Verified
//!   (HTTP collects,         │ asks each Method in order                    ▲
//!    never chooses)         ▼                                              │
//!                          Method::verify ─▶ Claimed ─▶ checked for all ───┘
//! ```
//!
//! Only [`Identity::verify`] makes a [`Verified`], from what a configured method claims, after checks that
//! are the same for all methods (`verified.rs`). So a method cannot name another method's callers, and a
//! mistake in one cannot let unbounded or unprintable names into policies and records.
//!
//! What a stranger sends is cheap to refuse: a malformed, expired or foreign token costs no
//! cryptography and no network; an unknown key costs at most one fetch for everybody who waits,
//! and at most one each few seconds (see [`KeyPolicy`]).
//!
//! Trusted: the configured issuers, for the names of their own workloads and nothing else. An
//! issuer that lies can name any workload *of that issuer*: the principal carries the issuer's
//! configured name, so it cannot speak for another's.
//!
//! | module | what it holds |
//! |---|---|
//! | `evidence` | what a request can bring: bearer token, peer certificate, signed request |
//! | `method` | the trait of every identity method |
//! | `verified` | what a method claims, and what the broker vouches for |
//! | `identity` | asks the methods, remembers their verdicts |
//! | [`jwt`] | the method for JWTs of OIDC issuers |
//! | `claims` | from claims to a workload's name and to attributes |
//! | `contract` | what every method must do, as tests |
//!
//! A new identity method is a folder beside [`jwt`] with an implementation of [`Method`], and a row of
//! `contract.rs`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod algorithm;
mod claims;
#[cfg(test)]
mod contract;
mod error;
mod evidence;
mod identity;
pub mod jwt;
mod method;
mod options;
mod rejected;
#[cfg(test)]
mod tests;
mod verified;

pub use self::algorithm::{AlgorithmError, SigningAlgorithm};
pub use self::claims::{ClaimPath, ClaimPathError, ClaimProblem, MAX_ATTRIBUTES, TemplateError, WorkloadTemplate};
pub use self::error::IdentityError;
pub use self::evidence::{
    Evidence, MAX_CERTIFICATE, MAX_CERTIFICATES, MAX_HEADER_BYTES, MAX_HEADERS, MAX_TARGET, MAX_TOKEN, PeerChain,
    Preview, RequestParts, SignedRequest, Unverified, read_preview,
};
pub use self::identity::{Identity, KnownIssuer};
pub use self::jwt::{IssuerUrl, JwtIssuer, JwtIssuerConfig, KeyUrl, KeyUrlError};
pub use self::method::{Declined, MAX_METHODS, Method};
pub use self::options::{IdentityOptions, KeyPolicy};
pub use self::rejected::{Quoted, Rejected};
pub use self::verified::{Claimed, Verified};
