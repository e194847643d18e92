//! The configured store: the one place that knows which kinds there are.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use jit_config::{PostgresStore, StoreKind};
use jit_ledger::Store;
use jit_ledger::audit::sources::{LogReader, LogSource, ReadError};
use jit_ledger_postgres::{Password, PgLog, PgOptions, PgStore, Place};
use jit_ledger_sqlite::{Found, SqliteLog, SqliteOptions, SqliteStore};
use jit_tlog::checkpoint::{LogKey, Origin};

use crate::connection::read_ca;

/// Opens the store for serving.
///
/// # Errors
/// When it cannot be opened, with where it is.
pub async fn open(store: &jit_config::Store, (signer, origin): (LogKey, Origin)) -> anyhow::Result<Arc<dyn Store>> {
    match &store.kind {
        StoreKind::Sqlite(path) => {
            let options = SqliteOptions { path: path.clone(), signer, origin };
            let opened = SqliteStore::open(options).await;
            Ok(Arc::new(opened.with_context(|| format!("the store {} cannot be opened", path.display()))?))
        }
        StoreKind::Postgres(database) => {
            let opening = async {
                let options = PgOptions { place: place_of(database)?, signer, origin, name: this_broker() };
                Ok::<_, anyhow::Error>(PgStore::open(options).await?)
            };
            Ok(Arc::new(opening.await.with_context(|| format!("the store {} cannot be opened", place(store)))?))
        }
    }
}

/// The process and the machine, for the other brokers of the store and for those who look at them.
fn this_broker() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("process {} on {}", std::process::id(), host.trim())
}

/// # Errors
/// When the certificates of `ca` cannot be read.
pub(crate) fn place_of(store: &PostgresStore) -> anyhow::Result<Place> {
    let PostgresStore { servers, password, ca, plaintext } = store;
    let password = password.clone().map(|password| {
        // The cause is the operating system's; neither has any of the content.
        Password::new(move || password.resolve().map_err(|error| format!("{:#}", anyhow::Error::from(error))))
    });
    let ca = ca.as_deref().map(read_ca).transpose()?;
    Ok(Place { servers: servers.clone(), password, ca, plaintext: plaintext.is_some() })
}

/// The audit log in the store, read without the broker.
pub fn log(store: &jit_config::Store) -> Arc<dyn LogSource> {
    match &store.kind {
        StoreKind::Sqlite(path) => Arc::new(SqliteLog::new(path)),
        StoreKind::Postgres(database) => Arc::new(DatabaseLog((**database).clone())),
    }
}

/// The log in a database, whose certificates are read when it is opened.
#[derive(Debug)]
struct DatabaseLog(PostgresStore);

#[async_trait]
impl LogSource for DatabaseLog {
    async fn open(&self) -> Result<Box<dyn LogReader>, ReadError> {
        let place = place_of(&self.0).map_err(|error| ReadError::Store(error.into()))?;
        PgLog::new(place).open().await
    }
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
    match &store.kind {
        StoreKind::Sqlite(path) => look_at_file(path).await,
        StoreKind::Postgres(database) => look_at_database(&place(store), database).await,
    }
}

async fn look_at_file(path: &Path) -> Look {
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

async fn look_at_database(shown: &str, database: &PostgresStore) -> Look {
    let place = match place_of(database) {
        Ok(place) => place,
        Err(error) => return Look::Bad(format!("store {shown}: {error:#}")),
    };
    match jit_ledger_postgres::look(place).await {
        Ok(jit_ledger_postgres::Found { version: None, .. }) => {
            Look::Good(format!("store {shown}: no tables yet; `serve` makes them"))
        }
        Ok(jit_ledger_postgres::Found { version: Some(version), latest, records }) if version == latest => {
            Look::Good(format!("store {shown}: good, version {version}, {records} audit records"))
        }
        Ok(jit_ledger_postgres::Found { version: Some(version), latest, records }) => {
            Look::Good(format!("store {shown}: version {version}, {records} audit records; this release's is {latest}"))
        }
        Err(error) => Look::Bad(format!("store {shown}: {:#}", anyhow::Error::new(error))),
    }
}

/// The file that the store fills on this machine, where it is one. The broker keeps room for it, and its own files
/// beside it.
pub fn file(store: &jit_config::Store) -> Option<&Path> {
    match &store.kind {
        StoreKind::Sqlite(path) => Some(path),
        StoreKind::Postgres(_) => None,
    }
}

/// Which kind it is, in the word that the status has.
pub fn kind(store: &jit_config::Store) -> &'static str {
    match store.kind {
        StoreKind::Sqlite(_) => "sqlite",
        StoreKind::Postgres(_) => "postgres",
    }
}

/// Where it is, for people; without anything secret.
pub fn place(store: &jit_config::Store) -> String {
    match &store.kind {
        StoreKind::Sqlite(path) => path.display().to_string(),
        StoreKind::Postgres(database) => {
            let PostgresStore { servers, .. } = &**database;
            let port = |url: &url::Url| url.port().map_or_else(String::new, |port| format!(":{port}"));
            let hosts = servers.iter().map(|url| format!("{}{}", url.host_str().unwrap_or_default(), port(url)));
            let name = servers.first().map_or("", |url| url.path());
            format!("postgres://{}{name}", hosts.collect::<Vec<_>>().join(","))
        }
    }
}
