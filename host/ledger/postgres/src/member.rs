//! This broker among those that serve from the store (FENCED).
//!
//! Each broker that opens the store joins it under a random number. Every transaction that writes checks that the
//! number still counts: it is the fencing number of all that the broker does. Every two seconds the broker raises its
//! count of beats. One whose count does not change for five looks in a row, of a broker that looks every two seconds,
//! is fenced: its number counts no more, and whatever it wrote last is another broker's to finish. No clock decides
//! that: a server whose clock jumps, and a failover during which nobody can beat, fence nobody.
//!
//! A broker that was frozen or cut off for so long finds out at its next transaction or beat. It has to be started
//! again, and then joins under another number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jit_ledger::columns::moment;
use jit_ledger::{Peer, Peers};
use parking_lot::Mutex;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::batch::Batch;
use super::schema::locks;
use super::servers::{ConnectError, Purpose, Servers};
use super::writer::WriteError;

/// How often a broker beats, and looks at the others.
const LOOK: Duration = Duration::from_secs(2);
/// How long one look may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(8);
/// A broker whose count has not changed for this number of looks in a row is fenced.
const SILENT_LOOKS: u32 = 5;
/// For how long after a beat was begun no other broker can have fenced this one: shorter than [`SILENT_LOOKS`] looks.
const HOLDS: Duration = Duration::from_secs(8);
/// The most brokers of one store that are looked at.
const MOST: i64 = 1_000;

/// Why the store is lost to this process, once it is.
pub(crate) type Lost = watch::Sender<Option<String>>;

/// What the others are shown of this broker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Shown {
    config: Option<String>,
    exported: Option<i64>,
}

/// This broker's number, and what it knows of the others.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) number: i32,
    /// Another broker fenced this one.
    fenced: AtomicBool,
    /// When the last beat that the store took was begun.
    beat: Mutex<Instant>,
    shown: Mutex<Shown>,
    /// Brokers that this one fenced, until somebody asks.
    fenced_others: Mutex<Vec<Peer>>,
    peers: watch::Sender<Peers>,
    /// Receives the reason.
    lost: Lost,
    /// Ends the session.
    stop: watch::Sender<bool>,
}

/// What a look found of another broker's count.
#[derive(Debug, Clone, Copy)]
struct Heard {
    beats: i64,
    silent: u32,
}

impl Member {
    /// Joins the store. `name` is what others are shown.
    pub(crate) async fn join(
        servers: &Arc<Servers>,
        name: &str,
        lost: Lost,
    ) -> Result<(Arc<Self>, JoinHandle<()>), JoinError> {
        let mut session = servers.connect(Purpose::Serve).await?;
        let begun = Instant::now();
        let number = rand::random_range(1..=i32::MAX);
        let statement = "INSERT INTO jit_broker.brokers (number, name) VALUES ($1, $2)";
        sqlx::query(statement).bind(number).bind(name).execute(&mut session).await?;
        let (stop, stopped) = watch::channel(false);
        let (peers, _) = watch::channel(Peers::default());
        let member = Arc::new(Self {
            number,
            fenced: AtomicBool::new(false),
            beat: Mutex::new(begun),
            shown: Mutex::default(),
            fenced_others: Mutex::default(),
            peers,
            lost,
            stop,
        });
        let mut heard = HashMap::new();
        member.look(&mut session, &mut heard).await?;
        let keeping = tokio::spawn(keep(Arc::clone(&member), Arc::clone(servers), session, heard, stopped));
        Ok((member, keeping))
    }

    pub(crate) fn peers(&self) -> watch::Receiver<Peers> {
        self.peers.subscribe()
    }

    pub(crate) fn fenced_others(&self) -> Vec<Peer> {
        std::mem::take(&mut self.fenced_others.lock())
    }

    /// Whether no other broker can have fenced this one yet.
    pub(crate) fn holds(&self) -> bool {
        !self.fenced.load(Ordering::Relaxed) && self.beat.lock().elapsed() < HOLDS
    }

    /// What the others are shown from the next beat on.
    pub(crate) fn show(&self, config: Option<&str>, exported: Option<u64>) {
        let exported = exported.map(|records| i64::try_from(records).unwrap_or(i64::MAX));
        *self.shown.lock() = Shown { config: config.map(ToOwned::to_owned), exported };
    }

    /// Notes whether this broker's number still counts, as the store says.
    fn counts(&self, counts: bool) -> bool {
        let counts = counts && !self.fenced.load(Ordering::Relaxed);
        if !counts && !self.fenced.swap(true, Ordering::Relaxed) {
            let reason = "another broker fenced this one: the store had not heard of it for 10 s";
            self.lost.send_replace(Some(reason.to_owned()));
        }
        counts
    }

    /// Ends the session, and has the others take over.
    pub(crate) fn leave(&self) {
        self.stop.send_replace(true);
    }

    /// Beats, looks at the others, and fences those that are silent.
    async fn look(&self, session: &mut PgConnection, heard: &mut HashMap<i32, Heard>) -> Result<(), sqlx::Error> {
        let begun = Instant::now();
        let shown = self.shown.lock().clone();
        let beat = "UPDATE jit_broker.brokers SET beats = beats + 1, seen = clock_timestamp(), config = $2,
                exported = $3 WHERE number = $1 AND ended IS NULL";
        let beat = sqlx::query(beat).bind(self.number).bind(shown.config).bind(shown.exported);
        if !self.counts(beat.execute(&mut *session).await?.rows_affected() > 0) {
            return Ok(());
        }
        *self.beat.lock() = begun;
        let all = "SELECT number, name, (extract(epoch FROM since) * 1000000)::int8 * 1000, config, exported, beats,
                ended IS NOT NULL FROM jit_broker.brokers ORDER BY number LIMIT $1";
        let rows = sqlx::query(all).bind(MOST).fetch_all(&mut *session).await?;
        let mut peers = Peers::default();
        let mut now = HashMap::new();
        for row in &rows {
            let (peer, beats) = self.peer(row)?;
            if row.try_get(6)? {
                peers.ended = true;
                continue;
            }
            let before = heard.get(&peer.number).filter(|before| before.beats == beats);
            let silent = before.map_or(0, |before| before.silent + 1);
            if !peer.is_this && silent >= SILENT_LOOKS && fence(session, peer.number, beats).await? {
                tracing::warn!(
                    broker = peer.name,
                    "a broker was silent for 10 s and is fenced; its work is taken over"
                );
                peers.ended = true;
                self.fenced_others.lock().push(peer);
                continue;
            }
            now.insert(peer.number, Heard { beats, silent });
            peers.serving.push(peer);
        }
        *heard = now;
        self.peers.send_if_modified(|known| {
            // What has ended stays a reason to wake until its work was taken over.
            let changed = *known != peers || peers.ended;
            *known = peers;
            changed
        });
        Ok(())
    }

    fn peer(&self, row: &PgRow) -> Result<(Peer, i64), sqlx::Error> {
        let number = row.try_get(0)?;
        let exported: Option<i64> = row.try_get(4)?;
        let peer = Peer {
            number,
            name: row.try_get(1)?,
            since: moment(row.try_get(2)?),
            config: row.try_get(3)?,
            exported: exported.map(i64::unsigned_abs),
            is_this: number == self.number,
        };
        Ok((peer, row.try_get(5)?))
    }
}

/// Why the store cannot be joined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Fences a broker whose count of beats is still that one. No transaction of it is in the middle of its work then: one
/// that is has its session ended, and the next look fences the broker.
async fn fence(session: &mut PgConnection, number: i32, beats: i64) -> Result<bool, sqlx::Error> {
    let mut transaction = session.begin().await?;
    let alone = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, $2)").bind(locks::WRITING).bind(number);
    if !alone.fetch_one(&mut *transaction).await? {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks
            WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = $1::int4::oid
                AND objid = $2::int4::oid AND pid <> pg_backend_pid()
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        sqlx::query(end).bind(locks::WRITING).bind(number).execute(&mut *transaction).await?;
        transaction.rollback().await?;
        return Ok(false);
    }
    let end = "UPDATE jit_broker.brokers SET ended = 'fenced' WHERE number = $1 AND beats = $2 AND ended IS NULL";
    let fenced = sqlx::query(end).bind(number).bind(beats).execute(&mut *transaction).await?.rows_affected() > 0;
    transaction.commit().await?;
    Ok(fenced)
}

/// Beats and looks until the broker leaves, on a session of its own that is replaced where it is lost.
async fn keep(
    member: Arc<Member>,
    servers: Arc<Servers>,
    session: PgConnection,
    mut heard: HashMap<i32, Heard>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut session = Some(session);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            () = sleep(LOOK) => {}
        }
        if member.fenced.load(Ordering::Relaxed) {
            break;
        }
        let look = async {
            let mut open = match session.take() {
                Some(open) => open,
                None => servers.connect(Purpose::Serve).await?,
            };
            member.look(&mut open, &mut heard).await?;
            Ok::<_, JoinError>(open)
        };
        match timeout(LOOK_DEADLINE, look).await {
            Ok(Ok(open)) => session = Some(open),
            Ok(Err(error)) => {
                // What was counted before is of another time: looks in a row are what counts.
                heard.clear();
                tracing::warn!(error = &error as &dyn std::error::Error, "the store does not hear of this broker");
            }
            Err(_) => {
                heard.clear();
                tracing::warn!("the store does not hear of this broker: it does not answer");
            }
        }
    }
    if let Some(session) = session {
        let _left = timeout(LOOK_DEADLINE, leave(session, member.number)).await;
    }
}

async fn leave(mut session: PgConnection, number: i32) -> Result<(), sqlx::Error> {
    let end = "UPDATE jit_broker.brokers SET ended = 'left' WHERE number = $1 AND ended IS NULL";
    sqlx::query(end).bind(number).execute(&mut session).await?;
    session.close().await
}

/// Begins a transaction that writes, which only a broker whose number counts may. `batch` is the number that it adds.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    member: &Member,
    batch: Option<Batch>,
) -> Result<(), WriteError> {
    let batch = batch
        .map_or_else(String::new, |batch| format!("INSERT INTO jit_broker.batches (id) VALUES ({});", batch.literal()));
    // One message, and each statement sees what was committed before it: the number is checked under the lock.
    let text = format!(
        "BEGIN; SELECT pg_advisory_xact_lock_shared({}, {number}); {batch} SELECT EXISTS
            (SELECT FROM jit_broker.brokers WHERE number = {number} AND ended IS NULL)",
        locks::WRITING,
        number = member.number
    );
    let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(text))).await?;
    let counts = rows.last().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
    if member.counts(counts) {
        return Ok(());
    }
    metrics::counter!("jit_store_fenced_writes_total").increment(1);
    Err(WriteError::Fenced)
}
