//! End to end, against real servers. One binary, so that it is linked once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(missing_docs, reason = "each test's name says what holds")]

mod api;
mod decisions;
mod idempotency;
mod leases;
mod tokens;
mod concurrency;
mod away;
mod faults;
mod outage;
mod removal;
mod shutdown;
mod story;
mod readme;
mod reload;
mod secrets;
mod cli;
mod tls;
