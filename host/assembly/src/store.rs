//! The configured store: the one place that knows which kinds there are.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use jit_config::StoreKind;
use jit_ledger::Store;
use jit_ledger::audit::sources::{LogSource, ReadError};
use jit_ledger_sqlite::{Found, SqliteLog, SqliteOptions, SqliteStore};
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

/// The audit log in a store's file that no configuration names, read without the broker.
pub fn log_in(file: &Path) -> Arc<dyn LogSource> {
    Arc::new(SqliteLog::new(file))
}

/// What `config check` says of the store, which it does not change.
pub enum Look {
    /// Nothing that serving would stumble over; in words.
    Good(String),
    /// It could not be looked at from here.
    Unseen(String),
    /// Serving would refuse it.
    Bad(String),
}

/// Looks at the store without changing it; a broker may be serving from it.
pub async fn look(store: &jit_config::Store) -> Look {
    let StoreKind::Sqlite(path) = &store.kind;
    let shown = path.display();
    match jit_ledger_sqlite::look(path).await {
        Ok(Found { version: 0, .. }) => Look::Good(format!("store {shown}: empty")),
        Ok(Found { version, latest, records }) if version == latest => {
            Look::Good(format!("store {shown}: good, version {version}, {records} audit records"))
        }
        Ok(Found { version, latest, records }) => Look::Good(format!(
            "store {shown}: version {version}, {records} audit records; `serve` brings it up to version {latest}, \
             which an older release does not open: keep a copy"
        )),
        Err(ReadError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Look::Good(format!("store {shown}: not there yet; `serve` makes it"))
        }
        Err(ReadError::File { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            Look::Unseen(format!("store {shown}: warning: this user may not read it, so it was not looked at"))
        }
        Err(error) => Look::Bad(format!("store {shown}: {:#}", anyhow::Error::new(error))),
    }
}

/// The file that the store fills on this machine, where it is one. The broker keeps room for it, and its own files
/// beside it.
pub fn file(store: &jit_config::Store) -> Option<&Path> {
    let StoreKind::Sqlite(path) = &store.kind;
    Some(path)
}

/// Which kind it is, in the word that the status has.
pub fn kind(store: &jit_config::Store) -> &'static str {
    match store.kind {
        StoreKind::Sqlite(_) => "sqlite",
    }
}

/// Where it is, for people; without anything secret.
pub fn place(store: &jit_config::Store) -> String {
    match &store.kind {
        StoreKind::Sqlite(path) => path.display().to_string(),
    }
}
