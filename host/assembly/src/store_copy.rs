//! Moving the configured store into another one.

use jit_config::StoreKind;
use jit_ledger::transfer::Copied;
use jit_ledger_postgres::import;
use jit_ledger_sqlite::SqliteSnapshot;
use jit_tlog::checkpoint::VerifierKey;

use crate::store::{place, place_of};

/// What was copied, and whether a broker was still writing to the source.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    /// How much.
    pub copied: Copied,
    /// A broker served from the source: there is more in it by now.
    pub served: bool,
}

/// Copies a store in SQLite into one in PostgreSQL, as of one moment: into an empty database, or into one that has an
/// earlier copy of the same store. No broker can begin to serve from the source while it is copied. `progress`
/// receives how many records were read, and of how many.
///
/// # Errors
/// When the stores are of other kinds, one of them cannot be opened, the destination is in use or has another store, or
/// the source's log is not what was signed by that key. The destination then is as it was.
pub async fn copy(
    from: &jit_config::Store,
    to: &jit_config::Store,
    verifier: &VerifierKey,
    progress: impl FnMut(u64, u64) + Send,
) -> anyhow::Result<Moved> {
    let (StoreKind::Sqlite(path), StoreKind::Postgres(database)) = (&from.kind, &to.kind) else {
        anyhow::bail!(
            "a store is copied from SQLite to PostgreSQL, and this would be from {} to {}. From one database to \
             another, PostgreSQL's own means are the way (pg_dump, replication); between two files, `store backup`",
            place(from),
            place(to)
        );
    };
    let mut source = SqliteSnapshot::open(path).await?;
    let served = source.is_served();
    let copied = import(place_of(database)?, &mut source, verifier, progress).await?;
    Ok(Moved { copied, served })
}
