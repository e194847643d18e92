//! The tamper-evident log: the Merkle tree over its records, and the signed notes that speak of it.
//!
//! In scope: pure functions and values over bytes and keys, as RFC 6962 and C2SP define them. A key is made from
//! the system's random numbers; nothing else here has an effect.
//! Out of scope: files, the store, what a record says (jit-ledger, jit-core).
//!
//! | module | what it holds |
//! |---|---|
//! | [`merkle`] | the tree over the records |
//! | [`checkpoint`] | signed checkpoints of the tree, and the keys that sign and verify notes |
//! | [`signature`] | signed notes that vouch for the bytes of a plugin |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod checkpoint;
pub mod merkle;
pub mod signature;
