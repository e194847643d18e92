//! The service of the story: it queries all the time, with the account that is in the agent's file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::task::JoinHandle;

/// How many queries run at the same time.
const WORKERS: usize = 2;
/// Between two queries of one worker.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What the agent writes.
#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
    host: String,
    port: u16,
    database: String,
}

/// What it has counted so far.
#[derive(Debug, Clone)]
pub(crate) struct Count {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// Who the last query was, as the database says (`current_user`).
    pub(crate) account: String,
    /// What the last failure was.
    pub(crate) failure: Option<String>,
}

/// A running service.
pub(crate) struct Service {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    file: PathBuf,
    pool: Mutex<PgPool>,
    ok: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
    seen: Mutex<(String, Option<String>)>,
}

impl Service {
    /// Connects with the file's account and begins.
    pub(crate) async fn start(file: &Path) -> Result<Self> {
        let shared = Arc::new(Shared {
            file: file.to_owned(),
            pool: Mutex::new(open(file).await?),
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
        });
        let mut tasks: Vec<JoinHandle<()>> = (0..WORKERS).map(|_| tokio::spawn(work(Arc::clone(&shared)))).collect();
        tasks.push(tokio::spawn(follow(Arc::clone(&shared), changed(file)?)));
        Ok(Self { shared, tasks })
    }

    /// What it has counted.
    pub(crate) fn count(&self) -> Count {
        let (account, failure) = self.shared.seen.lock().map_or_else(|_| Default::default(), |seen| seen.clone());
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Count { ok: of(&self.shared.ok), failed: of(&self.shared.failed), account, failure }
    }

    /// Lets the queries under way finish, and closes its connections.
    pub(crate) async fn stop(mut self) -> Count {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            let _ = task.await;
        }
        if let Some(pool) = self.shared.pool() {
            pool.close().await;
        }
        self.count()
    }
}

impl Shared {
    fn exchange(&self, pool: PgPool) -> Option<PgPool> {
        self.pool.lock().ok().map(|mut current| std::mem::replace(&mut *current, pool))
    }

    fn pool(&self) -> Option<PgPool> {
        self.pool.lock().ok().map(|pool| pool.clone())
    }
}

fn changed(file: &Path) -> Result<SystemTime> {
    Ok(std::fs::metadata(file)?.modified()?)
}

async fn open(file: &Path) -> Result<PgPool> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let login: Login = serde_json::from_slice(&text).context("the agent's file")?;
    let options = PgConnectOptions::new_without_pgpass()
        .host(&login.host)
        .port(login.port)
        .database(&login.database)
        .username(&login.username)
        .password(&login.password)
        .disable_statement_logging();
    let workers = u32::try_from(WORKERS)?;
    Ok(PgPoolOptions::new().max_connections(workers).min_connections(workers).connect_with(options).await?)
}

/// Exchanges the pool when the file changes. The one before finishes what it has.
async fn follow(shared: Arc<Shared>, mut seen: SystemTime) {
    while !shared.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK).await;
        let Ok(now) = changed(&shared.file) else { continue };
        if now == seen {
            continue;
        }
        // The pool stays where the new one does not open; the next look tries again.
        if let Ok(pool) = open(&shared.file).await {
            seen = now;
            if let Some(before) = shared.exchange(pool) {
                before.close().await;
            }
        }
    }
}

async fn work(shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        match query(&shared).await {
            Ok(account) => {
                shared.ok.fetch_add(1, Ordering::Relaxed);
                if let Ok(mut seen) = shared.seen.lock() {
                    seen.0 = account;
                }
            }
            Err(error) => {
                shared.failed.fetch_add(1, Ordering::Relaxed);
                if let Ok(mut seen) = shared.seen.lock() {
                    seen.1 = Some(error.to_string());
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn query(shared: &Shared) -> Result<String> {
    loop {
        let pool = shared.pool().context("the pool is gone")?;
        match sqlx::query_scalar("SELECT current_user::text FROM items LIMIT 1").fetch_one(&pool).await {
            // Exchanged between these two lines: the next one has connections.
            Err(sqlx::Error::PoolClosed) => {}
            answer => return Ok(answer?),
        }
    }
}
