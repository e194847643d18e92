//! The store in a PostgreSQL database, made for several brokers at the same time.
//!
//! In scope: how leases, audit records, counts and sealed values are kept in the tables of one schema, in one
//! transaction each; finding the server that can be written to; which brokers serve from it; reading the log in it without
//! the broker ([`PgLog`]).
//! Out of scope: what a change means (jit-ledger), what a sealed value holds, how PostgreSQL is made highly available.
//!
//! | module | what it holds |
//! |---|---|
//! | `store` | the store's handle: questions by the pool, changes to the writer |
//! | `servers`, `pool` | the servers of the URL, and the connections that questions are asked on |
//! | `writer` | the task that commits, a group of changes in one transaction, and what it does when that fails |
//! | `transaction` | that transaction, statement by statement |
//! | `batch` | whether a transaction was committed whose answer was lost |
//! | `counting`, `usage` | the task that counts requests, and what it sends |
//! | `member` | this broker among those of the store, with a number that every transaction checks |
//! | `work` | what is divided among them |
//! | `rows` | what the writer's statements take |
//! | `log` | the log's head, and its signed checkpoint |
//! | `listen` | hears of records that other brokers wrote |
//! | `schema` | the tables and their version |
//! | `offline` | the log read without the broker |
//! | `import` | a whole store of another kind, taken over |
//!
//! All brokers of one store have the same signing key and origin: each of them continues the same log. A broker
//! with another key is refused when it opens the store.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod batch;
mod counting;
mod import;
mod listen;
mod log;
mod member;
mod offline;
mod pool;
mod rows;
mod schema;
mod servers;
mod store;
mod transaction;
mod usage;
mod work;
mod writer;

pub use import::{ImportError, import};
pub use log::LogError;
pub use offline::{Found, OfflineError, PgLog, look};
pub use schema::SchemaError;
pub use servers::{ConnectError, Password, Place};
pub use store::{OpenError, PgOptions, PgStore};
