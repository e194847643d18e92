//! Hears of records that other brokers wrote. The server tells at each commit that adds some (`NOTIFY`); where a
//! notice is lost with its connection, the next look at the log's size finds what it was about.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::time::sleep;

use super::pool::Pool;
use super::servers::Servers;
use super::writer::grow;

/// Where the writer's transactions tell the log's size.
const CHANNEL: &str = "jit_broker_log";
/// Between two looks, and before a lost connection is replaced.
const LOOK: Duration = Duration::from_secs(2);
/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Listens, and looks at the log's size, until the pool is closed.
pub(crate) async fn watch_log(servers: Arc<Servers>, pool: Arc<Pool>, size: watch::Sender<u64>) {
    tokio::select! {
        () = pool.closed() => {}
        () = look(&pool, &size) => {}
        () = listen(&servers, &size) => {}
    }
}

async fn look(pool: &Pool, size: &watch::Sender<u64>) {
    loop {
        sleep(LOOK).await;
        match pool.rows(|| sqlx::query("SELECT size FROM jit_broker.head")).await {
            Ok(rows) => {
                let records = rows.first().and_then(|row| row.try_get::<i64, _>(0).ok());
                grow(size, records.map_or(0, i64::unsigned_abs));
            }
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "the log's size is not known"),
        }
    }
}

async fn listen(servers: &Servers, size: &watch::Sender<u64>) {
    loop {
        if let Err(error) = hear(servers, size).await {
            tracing::debug!(error, "no notices from the store; its size is looked at");
        }
        sleep(LOOK).await;
    }
}

/// Listens on one connection, until it is lost.
async fn hear(servers: &Servers, size: &watch::Sender<u64>) -> Result<(), String> {
    let options = servers.current().map_err(|error| error.to_string())?;
    // sqlx listens on connections of its own pool only: one of one.
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_DEADLINE).connect_lazy_with(options);
    let text = |error: sqlx::Error| error.to_string();
    let mut listener = PgListener::connect_with(&pool).await.map_err(text)?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await.map_err(text)?;
    while let Some(notice) = listener.try_recv().await.map_err(text)? {
        if let Ok(records) = notice.payload().parse() {
            grow(size, records);
        }
    }
    Ok(())
}
