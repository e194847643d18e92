//! Pools of sqlx that follow a credential: one ordinary [`Pool`], whose connections change accounts.
//!
//! ```no_run
//! # async fn run(watch: &jit_client::CredentialWatch) -> Result<(), sqlx::Error> {
//! use sqlx::postgres::PgPoolOptions;
//!
//! let options = PgPoolOptions::new().max_connections(8);
//! let pool = jit_client::pool::connect(watch, options, jit_client::pool::postgres).await?;
//! sqlx::query("SELECT 1").execute(&pool).await?;
//! # Ok(())
//! # }
//! ```
//!
//! After a change of accounts, new connections use the new one at once; idle connections of the old one are
//! closed, those in use when they come back. What is under way is not touched: it has the rest of the old lease's
//! term, a fifth of it at least, to finish. A transaction that takes longer than that is cut off when the account
//! goes; give such work longer leases.
//!
//! Keep the watch as long as the pool: when it is dropped, the account goes, and the connections with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jit_api::Connection as Endpoint;
use secrecy::ExposeSecret as _;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::pool::{PoolConnectionMetadata, PoolOptions};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Database, Pool};
use tokio::sync::watch;

use crate::credential::Credential;
use crate::watch::{CredentialWatch, Snapshot};

/// What connections are opened with.
type OptionsOf<DB> = <<DB as Database>::Connection as Connection>::Options;

/// A pool whose connections follow the watch. `to_options` makes the way to connect from a credential: [`postgres`],
/// [`mysql`], or a closure around one of them that adds what else is needed (TLS, an application's name).
///
/// The options' `before_acquire` and `after_release` are the pool's own here.
///
/// # Errors
/// When no connection can be opened with the present credential.
pub async fn connect<DB: Database>(
    watch: &CredentialWatch,
    options: PoolOptions<DB>,
    to_options: impl Fn(&Credential) -> Result<OptionsOf<DB>, sqlx::Error> + Send + 'static,
) -> Result<Pool<DB>, sqlx::Error> {
    // Followed from before the credential is read: a change in between is not missed.
    let mut snapshots = watch.subscribe();
    let generation = snapshots.borrow_and_update().generation;
    let first = to_options(&watch.credential())?;
    let horizon = Arc::new(Horizon::new());
    let (on_acquire, on_release) = (Arc::clone(&horizon), Arc::clone(&horizon));
    let connecting = options.get_acquire_timeout();
    let pool = options
        .before_acquire(move |_, meta| {
            let stays = on_acquire.passes(&meta);
            Box::pin(async move { Ok(stays) })
        })
        .after_release(move |_, meta| {
            let stays = on_release.passes(&meta);
            Box::pin(async move { Ok(stays) })
        })
        .connect_with(first)
        .await?;
    let follower = Follower { pool: pool.clone(), horizon, snapshots, generation, connecting, to_options };
    tokio::spawn(follower.run());
    Ok(pool)
}

/// How to connect to PostgreSQL with a credential.
///
/// # Errors
/// When the broker did not say where.
pub fn postgres(credential: &Credential) -> Result<PgConnectOptions, sqlx::Error> {
    let to = endpoint(credential)?;
    let options = PgConnectOptions::new_without_pgpass()
        .host(&to.host)
        .port(to.port)
        .username(&credential.username)
        .password(credential.password.expose_secret());
    Ok(match &to.database {
        Some(database) => options.database(database),
        None => options,
    })
}

/// How to connect to MySQL or MariaDB with a credential.
///
/// # Errors
/// When the broker did not say where.
pub fn mysql(credential: &Credential) -> Result<MySqlConnectOptions, sqlx::Error> {
    let to = endpoint(credential)?;
    let options = MySqlConnectOptions::new()
        .host(&to.host)
        .port(to.port)
        .username(&credential.username)
        .password(credential.password.expose_secret());
    Ok(match &to.database {
        Some(database) => options.database(database),
        None => options,
    })
}

fn endpoint(credential: &Credential) -> Result<&Endpoint, sqlx::Error> {
    let none = || {
        let target = &credential.lease.target;
        sqlx::Error::Configuration(
            format!("the broker does not say where {target} is: its target has no endpoint").into(),
        )
    };
    credential.connection.as_ref().ok_or_else(none)
}

/// Connections that were opened before it belong to a former account.
struct Horizon {
    begun: Instant,
    /// Microseconds since `begun`.
    at: AtomicU64,
}

impl Horizon {
    fn new() -> Self {
        Self { begun: Instant::now(), at: AtomicU64::new(0) }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX)
    }

    fn move_to_now(&self) {
        self.at.store(self.micros(Instant::now()), Ordering::Release);
    }

    fn passes(&self, meta: &PoolConnectionMetadata) -> bool {
        let opened = Instant::now().checked_sub(meta.age).map_or(0, |opened| self.micros(opened));
        opened >= self.at.load(Ordering::Acquire)
    }
}

/// Moves the pool on to each new account.
struct Follower<DB: Database, F> {
    pool: Pool<DB>,
    horizon: Arc<Horizon>,
    snapshots: watch::Receiver<Snapshot>,
    generation: u64,
    /// How long opening a connection may take.
    connecting: Duration,
    to_options: F,
}

impl<DB, F> Follower<DB, F>
where
    DB: Database,
    F: Fn(&Credential) -> Result<OptionsOf<DB>, sqlx::Error> + Send + 'static,
{
    /// Until the pool is closed or the watch is gone.
    async fn run(mut self) {
        let pool = self.pool.clone();
        let closed = pool.close_event();
        tokio::pin!(closed);
        // A connection that was being opened during a change may be the old account's although it was finished
        // after it: once that cannot be any more, all that are older than this moment go.
        let mut again: Option<tokio::time::Instant> = None;
        loop {
            let settled = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut closed => return,
                () = settled => {
                    again = None;
                    self.retire();
                }
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let snapshot = self.snapshots.borrow_and_update().clone();
                    if snapshot.generation != self.generation
                        && let Some(credential) = &snapshot.credential
                    {
                        self.generation = snapshot.generation;
                        self.move_on(credential);
                        // What is left of the old account's term is a fifth of it at least, or nothing.
                        again = Some(tokio::time::Instant::now() + self.connecting.min(snapshot.lease.length() / 10));
                    }
                }
            }
        }
    }

    fn move_on(&self, credential: &Credential) {
        match (self.to_options)(credential) {
            Ok(options) => {
                self.pool.set_connect_options(options);
                self.retire();
                tracing::debug!(account = credential.lease.ephemeral_id, "the pool uses the new account");
            }
            // The old one goes on as long as it can.
            Err(error) => tracing::error!(%error, "the pool cannot use the new account"),
        }
    }

    /// From now on no older connection is handed out. Idle ones are taken and given back, which closes them.
    fn retire(&self) {
        self.horizon.move_to_now();
        let mut idle = Vec::new();
        while let Some(connection) = self.pool.try_acquire() {
            idle.push(connection);
        }
    }
}
