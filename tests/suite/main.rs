//! End to end, against real servers. One binary, so that it is linked once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(missing_docs, reason = "each test's name says what holds")]

mod agent;
mod agent_faults;
mod api;
mod away;
mod backends;
mod backends_directory;
mod backends_faults;
mod backends_migration;
mod backends_vault;
mod cli;
mod client;
mod client_faults;
mod client_mysql;
mod concurrency;
mod conformance;
mod conjur_server;
mod contexts;
mod decisions;
mod deploy;
mod examples;
mod external;
mod faults;
mod hostile;
mod hostile_tenant;
mod idempotency;
mod languages;
mod leases;
mod migration;
mod operators;
mod outage;
mod policies;
mod policy_replay;
mod policy_story;
mod readme;
mod reload;
mod removal;
mod rotating;
mod secrets;
mod servers;
mod shutdown;
mod signing;
mod story;
mod tls;
mod tokens;
