//! A service that queries all the time, and never notices that its account changes.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jit_client::{Client, CredentialWatch, Request, TokenSource, pool};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::signal::unix::{SignalKind, signal};

/// What it has counted.
#[derive(Default)]
struct Counts {
    ok: AtomicU64,
    failed: AtomicU64,
    accounts: Mutex<BTreeSet<String>>,
    stop: AtomicBool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let set = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let broker = Client::builder(set("JIT_BROKER_URL")?).token(TokenSource::file(set("JIT_TOKEN_FILE")?)).build()?;

    // Fails within two minutes where there is no credential: then this must not look alive.
    let watch = CredentialWatch::builder(broker, Request::new("inventory_db"))
        .on_alert(|alert| eprintln!("{}: {}", alert.kind.as_str(), alert.detail))
        .start()
        .await?;
    // An ordinary pool, whose connections change accounts with the watch.
    let options = PgPoolOptions::new().max_connections(4).max_lifetime(Duration::from_secs(45 * 60));
    let database = pool::connect(&watch, options, pool::postgres).await?;

    let counts = Counts::default();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopped = async {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        counts.stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(work(&database, &counts), work(&database, &counts), stopped);

    // First the connections, then the account.
    database.close().await;
    watch.close().await?;
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let accounts = counts.accounts.lock().map_or(0, |accounts| accounts.len());
    println!("{}", serde_json::json!({"queries": of(&counts.ok), "failed": of(&counts.failed), "accounts": accounts}));
    Ok(())
}

async fn work(database: &PgPool, counts: &Counts) {
    while !counts.stop.load(Ordering::Relaxed) {
        match sqlx::query_scalar("SELECT current_user::text FROM items LIMIT 1").fetch_one(database).await {
            Ok(account) => counts.saw(account),
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("a query failed: {error}");
            }
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

impl Counts {
    fn saw(&self, account: String) {
        self.ok.fetch_add(1, Ordering::Relaxed);
        if self.accounts.lock().is_ok_and(|mut accounts| accounts.insert(account.clone())) {
            println!("{}", serde_json::json!({"account": account}));
        }
    }
}
