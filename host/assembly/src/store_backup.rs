//! A backup of the configured store: what the broker does itself, and where a database's own means are the way.

use std::path::Path;

use jit_config::StoreKind;

pub use jit_ledger_sqlite::{Backup, BackupError};

use crate::store::place;

/// The store's file, which [`Backup`] copies.
///
/// # Errors
/// In words for an operator, where the store is in a database.
pub fn file_of(store: &jit_config::Store) -> anyhow::Result<&Path> {
    match &store.kind {
        StoreKind::Sqlite(path) => Ok(path),
        // A database has means of its own, which know of its replicas and of each moment.
        StoreKind::Postgres(database) => {
            let url = database.servers.first().map(ToString::to_string).unwrap_or_default();
            anyhow::bail!(
                "the store {} is in PostgreSQL: back it up with PostgreSQL's own means, such as\n\n  \
                 pg_dump --format=custom --schema=jit_broker --file=store.dump '{url}'\n\n\
                 A base backup with an archive of the write-ahead log (point-in-time recovery) loses less than last \
                 night's dump. `jit-broker audit verify` checks what was restored",
                place(store)
            )
        }
    }
}
