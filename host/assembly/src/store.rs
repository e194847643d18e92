//! The configured store: the one place that knows which kinds there are.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use jit_config::StoreKind;
use jit_ledger::Store;
use jit_ledger::audit::sources::LogSource;
use jit_ledger_sqlite::{SqliteLog, SqliteOptions, SqliteStore};
use jit_tlog::checkpoint::{LogKey, Origin};

/// Opens the store for serving.
///
/// # Errors
/// When it cannot be opened, with where it is.
pub async fn open(store: &jit_config::Store, (signer, origin): (LogKey, Origin)) -> anyhow::Result<Arc<dyn Store>> {
    let StoreKind::Sqlite(path) = &store.kind;
    let options = SqliteOptions { path: path.clone(), signer, origin };
    let opened = SqliteStore::open(options).await;
    Ok(Arc::new(opened.with_context(|| format!("the store {} cannot be opened", path.display()))?))
}

/// The audit log in the store, read without the broker.
pub fn log(store: &jit_config::Store) -> Arc<dyn LogSource> {
    let StoreKind::Sqlite(path) = &store.kind;
    Arc::new(SqliteLog::new(path))
}

/// The file that the store fills on this machine. The broker keeps room for it, and its own files beside it.
pub fn file(store: &jit_config::Store) -> &Path {
    let StoreKind::Sqlite(path) = &store.kind;
    path
}
