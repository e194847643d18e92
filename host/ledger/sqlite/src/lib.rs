//! The embedded store: one SQLite file, written by one task, read by a few connections.
//!
//! In scope: how leases, audit records, counts and sealed values are kept in the file, in one transaction each;
//! the file's lock and permissions; reading the log in it without the broker ([`SqliteLog`]).
//! Out of scope: what a change means (jit-ledger), what a sealed value holds, who may open the file.
//!
//! | module | what it holds |
//! |---|---|
//! | `store` | the store's handle: questions by readers, changes to the writer |
//! | `writer` | the one task that writes, a group of changes in one transaction |
//! | `recent` | what was written last |
//! | `statements` | the statements of the writer's transaction |
//! | `rows`, `sealed`, `usage` | what the writer's statements take |
//! | `log` | the log's state, and its signed checkpoint |
//! | `schema`, `files` | the tables and their version; the file and its lock |
//! | `offline` | the log read without the broker |
//! | `snapshot` | the whole store as of one moment, for another store |
//! | `rebuild` | a store made again from its exported log |
//! | `backup` | a copy of the file while a broker serves from it |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod backup;
mod files;
mod log;
mod offline;
mod rebuild;
mod recent;
mod rows;
mod schema;
mod sealed;
mod snapshot;
mod statements;
mod store;
mod usage;
mod writer;

pub use backup::{Backup, BackupError};
pub use log::LogError;
pub use offline::{Found, OfflineError, SqliteLog, look};
pub use rebuild::{Rebuild, RebuildError, UsedVerifier};
pub use schema::SchemaError;
pub use snapshot::{SnapshotError, SqliteSnapshot};
pub use store::{OpenError, SqliteOptions, SqliteStore};
