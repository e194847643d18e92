//! The store held by one broker.
//!
//! The holder has a session-level advisory lock for as long as its session lives, and a number, the epoch, which the
//! next holder raises. Each transaction that writes checks the epoch: a broker that was frozen or cut off while
//! another one took the store over writes nothing more, whatever it still believes. It has to be started again.
//!
//! The session of a broker that is stopped in the middle (a debugger, SIGSTOP) lives on. So the holder says every two
//! seconds that it is there. A broker that waits ends the session of a holder that was silent for [`SILENCE`]. The
//! database's clock decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::schema::locks;
use super::servers::{ConnectError, Purpose, Servers};

/// How often the session of the hold is looked at, and a lost one replaced.
const LOOK: Duration = Duration::from_secs(2);
/// How long one look may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(8);
/// A holder that has said nothing for so long, in seconds, is followed.
const SILENCE: i32 = 20;
/// How often a broker that waits for the store asks for it.
const ASK: Duration = Duration::from_millis(500);

/// Why the store is not ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldError {
    #[error("{0}")]
    Held(String),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Why the store is lost to this process, once it is.
pub(crate) type Lost = watch::Sender<Option<String>>;

/// The store is ours as long as the epoch is this one.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) epoch: i64,
    /// Another broker took the store over.
    fenced: AtomicBool,
    /// Receives the reason.
    lost: Lost,
    /// Ends the session.
    stop: watch::Sender<bool>,
}

impl Hold {
    /// Takes the store, waiting for `patience` while another broker has it. `name` is what that one is shown.
    pub(crate) async fn take(
        servers: &Arc<Servers>,
        name: &str,
        patience: Duration,
        lost: Lost,
    ) -> Result<(Arc<Self>, JoinHandle<()>), HoldError> {
        let begun = Instant::now();
        let mut told = false;
        let mut session = servers.connect(Purpose::Serve).await?;
        loop {
            if lock(&mut session).await? {
                break;
            }
            let holder = holder(&mut session).await?;
            if end_if_silent(&mut session).await? {
                tracing::warn!("{holder} has said nothing for {SILENCE} s: its session was ended");
                continue;
            }
            if begun.elapsed() >= patience {
                return Err(HoldError::Held(holder));
            }
            if !told {
                tracing::warn!("the store is held by {holder}; waiting for it");
                told = true;
            }
            sleep(ASK).await;
        }
        let epoch = take_over(&mut session, name).await?;
        let (stop, stopped) = watch::channel(false);
        let hold = Arc::new(Self { epoch, fenced: AtomicBool::new(false), lost, stop });
        let keeping = tokio::spawn(keep(Arc::clone(&hold), Arc::clone(servers), session, stopped));
        Ok((hold, keeping))
    }

    /// Whether `found`, the epoch in the store, is still this one. Tells of the loss once.
    pub(crate) fn is_ours(&self, found: i64) -> bool {
        let ours = found == self.epoch && !self.fenced.load(Ordering::Relaxed);
        if !ours {
            metrics::counter!("jit_store_fenced_writes_total").increment(1);
            if !self.fenced.swap(true, Ordering::Relaxed) {
                self.lost.send_replace(Some("another broker took the store over while this one was away".to_owned()));
            }
        }
        ours
    }

    /// Lets go of the store.
    pub(crate) fn release(&self) {
        self.stop.send_replace(true);
    }
}

async fn lock(session: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(locks::HOLD).fetch_one(session).await
}

/// Who has the store, in words.
async fn holder(session: &mut PgConnection) -> Result<String, sqlx::Error> {
    let statement = "SELECT name, to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
        FROM jit_broker.holder";
    let row = sqlx::query(statement).fetch_one(session).await?;
    let (name, since): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(format!("another broker ({name}, since {since})"))
}

/// Ends the session that holds the store, where its broker has been silent for too long. Whether one was ended.
async fn end_if_silent(session: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // The two halves of the number, as `pg_locks` shows them.
    let statement = "SELECT count(*) FILTER (WHERE pg_terminate_backend(l.pid)) > 0 FROM pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ExclusiveLock' AND l.objsubid = 1
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND l.classid = ($1 >> 32)::int8::oid AND l.objid = ($1 & 4294967295)::int8::oid
            AND (SELECT seen < clock_timestamp() - make_interval(secs => $2) FROM jit_broker.holder)";
    sqlx::query_scalar(statement).bind(locks::HOLD).bind(f64::from(SILENCE)).fetch_one(session).await
}

/// Raises the epoch once no transaction of the last holder is in the middle of its work.
async fn take_over(session: &mut PgConnection, name: &str) -> Result<i64, sqlx::Error> {
    let mut transaction = session.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(locks::WRITING).execute(&mut *transaction).await?;
    let statement =
        "UPDATE jit_broker.holder SET epoch = epoch + 1, name = $1, since = clock_timestamp(), seen = clock_timestamp()
        RETURNING epoch";
    let epoch = sqlx::query_scalar(statement).bind(name).fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(epoch)
}

/// Keeps the session that has the lock, and opens another one where it is lost.
async fn keep(hold: Arc<Hold>, servers: Arc<Servers>, session: PgConnection, mut stopped: watch::Receiver<bool>) {
    let mut session = Some(session);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            () = sleep(LOOK) => {}
        }
        if hold.fenced.load(Ordering::Relaxed) {
            break;
        }
        let look = async {
            let mut open = match session.take() {
                Some(open) => open,
                None => {
                    let mut open = servers.connect(Purpose::Serve).await?;
                    if lock(&mut open).await? {
                        tracing::info!("the store is held again");
                    }
                    open
                }
            };
            // Others may have it by now: the epoch decides, and not the lock.
            let statement =
                "UPDATE jit_broker.holder SET seen = CASE WHEN epoch = $1 THEN clock_timestamp() ELSE seen END
                RETURNING epoch";
            let found = sqlx::query_scalar(statement).bind(hold.epoch).fetch_one(&mut open).await?;
            hold.is_ours(found);
            Ok::<_, HoldError>(open)
        };
        match timeout(LOOK_DEADLINE, look).await {
            Ok(Ok(open)) => session = Some(open),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the session that holds the store is lost");
            }
            Err(_) => tracing::warn!("the session that holds the store does not answer"),
        }
    }
    if let Some(session) = session {
        let _closed = timeout(LOOK_DEADLINE, session.close()).await;
    }
}

/// What every transaction that writes begins with, and the epoch that it finds. `batch` is the number that it adds.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    batch: Option<super::batch::Batch>,
) -> Result<i64, sqlx::Error> {
    let batch = batch
        .map_or_else(String::new, |batch| format!("INSERT INTO jit_broker.batches (id) VALUES ({});", batch.literal()));
    // One message, and each statement sees what was committed before it: the epoch is read under the lock.
    let text = format!(
        "BEGIN; SELECT pg_advisory_xact_lock_shared({}); {batch} SELECT epoch FROM jit_broker.holder",
        locks::WRITING
    );
    let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(text))).await?;
    rows.last().ok_or(sqlx::Error::RowNotFound)?.try_get(0)
}
