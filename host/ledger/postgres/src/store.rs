//! The store's handle: questions by the pool, changes to the task that commits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::id::LeaseId;
use jit_core::lease::Lease;
use jit_core::name::TargetName;
use jit_core::usage::Usage;
use jit_ledger::columns::{MAX_ROWS, add_counts, column, decode, decode_all, moment, most, nanos};
use jit_ledger::{
    Change, Counted, Counts, LeaseFilter, MAX_SEALED_LISTED, Maker, Peer, Peers, Store, StoreError, StoredRecord,
};
use jit_tlog::checkpoint::{LogKey, Origin, VerifierKey};
use jit_tlog::merkle::CompactRange;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, Row as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::counting::{Counting, ToCount};
use super::listen;
use super::log::{self, FRONTIER, HeadError, LogError};
use super::member::{JoinError, Member};
use super::pool::{Pool, Question, failed};
use super::rows::{Prepared, owner, subject};
use super::schema::{self, SchemaError};
use super::servers::{ConnectError, Place, Purpose, Servers};
use super::usage;
use super::work::Work;
use super::writer::{Job, Writer};

/// Changes, or requests to count, that may wait for their task; more wait for room.
const QUEUE: usize = 1024;
/// How long a change or question may take before its caller gets an error.
const DEADLINE: Duration = Duration::from_secs(30);
/// Names or handles that are looked for at once.
const AT_ONCE: usize = 10_000;

/// What the store is opened with.
#[derive(Debug)]
pub struct PgOptions {
    /// Where it is.
    pub place: Place,
    /// The key that signs the audit log's checkpoints: the same in all brokers of the store.
    pub signer: LogKey,
    /// Which log this is: the checkpoints' first line and the key's name.
    pub origin: Origin,
    /// What the other brokers of the store are shown of this one: the process and the machine.
    pub name: String,
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No server can be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Not our tables, or those of a newer release.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The audit log in it cannot be continued.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The database said no.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl From<HeadError> for OpenError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Log(error) => Self::Log(error),
            HeadError::Database(error) => Self::Database(error),
        }
    }
}

impl From<JoinError> for OpenError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Connect(error) => Self::Connect(error),
            JoinError::Database(error) => Self::Database(error),
        }
    }
}

/// The store in a PostgreSQL database. Dropping it without [`Store::close`] loses nothing that was committed; changes
/// still queued may or may not be made.
#[derive(Debug)]
pub struct PgStore {
    jobs: mpsc::Sender<Job>,
    counting: mpsc::Sender<ToCount>,
    pool: Arc<Pool>,
    size: watch::Receiver<u64>,
    verifier: VerifierKey,
    member: Arc<Member>,
    lost: watch::Receiver<Option<String>>,
    beating: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl PgStore {
    /// Finds the server, makes the tables or checks them, joins the brokers of the store, and starts the tasks on the
    /// current Tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`]: no server, another program's tables or a newer release's, or an audit log that does not fit its
    /// last signed checkpoint.
    pub async fn open(options: PgOptions) -> Result<Self, OpenError> {
        let PgOptions { place, signer, origin, name } = options;
        let servers = Arc::new(Servers::new(place)?);
        let verifier = signer.verifier(&origin);
        let mut connection = servers.connect(Purpose::Serve).await?;
        schema::prepare(&mut connection).await?;
        warn_of_a_forgetful_server(&mut connection).await?;
        let head = log::load(&mut connection, &verifier).await?;
        let (lost_sender, lost) = watch::channel(None);
        let (member, beating) = Member::join(&servers, &name, lost_sender.clone()).await?;
        let seen = head.seen();
        let (size_sender, size) = watch::channel(seen.size);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (counting, requests) = mpsc::channel(QUEUE);
        let pool = Arc::new(Pool::new(Arc::clone(&servers)));
        let writer = Writer {
            servers: Arc::clone(&servers),
            member: Arc::clone(&member),
            key: signer,
            origin,
            verifier: verifier.clone(),
            connection: Some(connection),
            seen: Some(seen),
            size: size_sender.clone(),
            lost: lost_sender,
        };
        tokio::spawn(writer.run(queue));
        let counter = Counting { servers: Arc::clone(&servers), member: Arc::clone(&member), connection: None };
        tokio::spawn(counter.run(requests));
        tokio::spawn(listen::watch_log(servers, Arc::clone(&pool), size_sender));
        Ok(Self { jobs, counting, pool, size, verifier, member, lost, beating: parking_lot::Mutex::new(Some(beating)) })
    }

    /// What others need to check the log's checkpoints.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Asks the writer and waits, for a bounded time, for what it says.
    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        within_deadline(async {
            self.jobs.send(job(reply)).await.map_err(|_| closed())?;
            answer.await.map_err(|_| StoreError::Failed("it was closed in the middle".into()))?
        })
        .await
    }

    /// Divides work; returns how many rows it was about.
    async fn divide(&self, work: Work) -> Result<u64, StoreError> {
        self.ask(|reply| Job::Work(work, reply)).await
    }

    /// The documents of leases.
    async fn documents<'q>(&self, make: impl Fn() -> Question<'q>) -> Result<Vec<String>, StoreError> {
        self.pool.rows(make).await?.iter().map(|row| get(row, 0)).collect()
    }
}

impl Drop for PgStore {
    fn drop(&mut self) {
        self.pool.close();
        self.member.leave();
    }
}

async fn within_deadline<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || Err(StoreError::Failed(format!("no answer within {} s", DEADLINE.as_secs())));
    timeout(DEADLINE, asked).await.unwrap_or_else(|_| late())
}

fn closed() -> StoreError {
    StoreError::failed("it is closed")
}

async fn warn_of_a_forgetful_server(connection: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
    let statement = "SELECT current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'";
    if !sqlx::query_scalar::<_, bool>(statement).fetch_one(connection).await? {
        tracing::warn!("the store's server has fsync or full_page_writes off: a power failure there loses leases");
    }
    Ok(())
}

/// A column of an answer.
fn get<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    column: usize,
) -> Result<T, StoreError> {
    row.try_get(column).map_err(|error| failed(&error))
}

#[async_trait]
impl Store for PgStore {
    /// When it fails with [`StoreError::Failed`], and also when the caller does not wait for the end, the change may
    /// or may not be made. Where that is known, the error says what was not made; where it cannot be found out, that.
    async fn commit(&self, change: Change) -> Result<(), StoreError> {
        if change.is_empty() {
            return Ok(());
        }
        let prepared = Prepared::new(&change)?;
        self.ask(|reply| Job::Commit(prepared, reply)).await
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<Lease>, StoreError> {
        let question = || sqlx::query("SELECT doc FROM jit_broker.leases WHERE id = $1").bind(id.as_str());
        self.documents(question).await?.first().map(|document| decode(document)).transpose()
    }

    async fn lease_by_key(&self, key: &str) -> Result<Option<Lease>, StoreError> {
        let statement = "SELECT doc FROM jit_broker.leases WHERE idem_key = $1";
        let found = self.documents(|| sqlx::query(statement).bind(column(key))).await?;
        let lease = found.first().map(|document| decode(document)).transpose()?;
        // The document is the truth, also for a key with characters that the column has not.
        Ok(lease.filter(|lease| lease.idempotency.as_ref().is_some_and(|held| held.key == key)))
    }

    async fn leases(&self, filter: &LeaseFilter) -> Result<Vec<Lease>, StoreError> {
        let LeaseFilter { principal, target, state, ended, workload, own, before, limit } = filter;
        let mut wanted = Wanted::new("SELECT doc FROM jit_broker.leases WHERE true");
        if let Some(principal) = principal {
            wanted.and("owner =", owner(principal))?;
            // Without a subject: of an earlier release.
            wanted.and("subject IN ('',", subject(principal))?.close();
        }
        if let Some(target) = target {
            wanted.and("target =", target.as_str().to_owned())?;
        }
        if let Some(state) = state {
            wanted.and("state =", state.as_str())?;
        }
        if let Some(ended) = ended {
            wanted.text.push_str(if *ended { " AND state = 'revoked'" } else { " AND state <> 'revoked'" });
        }
        if let Some(workload) = workload {
            wanted.and("workload =", column(workload).into_owned())?;
        }
        if *own {
            wanted.and("broker =", self.member.number)?;
        }
        if let Some(before) = before {
            wanted.and("id <", before.to_string())?;
        }
        let Wanted { text, arguments, .. } = wanted;
        let text = format!("{text} ORDER BY id DESC LIMIT {}", most(*limit));
        let question = || sqlx::query_with(sqlx::AssertSqlSafe(text.clone()), arguments.clone());
        let found = self.documents(question);
        let mut leases = decode_all(found.await?);
        if let Some(principal) = principal {
            leases.retain(|lease| principal.owns(&lease.principal));
        }
        Ok(leases)
    }

    async fn due(&self, now: Timestamp, per_target: usize) -> Result<Vec<Lease>, StoreError> {
        let statement = "SELECT doc FROM jit_broker.leases WHERE id IN
                (SELECT id FROM
                    (SELECT id, row_number() OVER (PARTITION BY target, tried ORDER BY due_at) AS place
                     FROM jit_broker.leases WHERE broker = $3 AND due_at <= $1) AS due
                 WHERE place <= $2)
            ORDER BY due_at, id";
        let number = self.member.number;
        let found = self.documents(|| sqlx::query(statement).bind(nanos(now)).bind(most(per_target)).bind(number));
        Ok(decode_all(found.await?))
    }

    async fn pending(&self, before: Timestamp, limit: usize) -> Result<Vec<Lease>, StoreError> {
        let statement = "SELECT doc FROM jit_broker.leases WHERE state = 'pending' AND issued_at < $1
            ORDER BY issued_at, id LIMIT $2";
        let found = self.documents(|| sqlx::query(statement).bind(nanos(before)).bind(most(limit)));
        Ok(decode_all(found.await?))
    }

    async fn unfinished(&self, before: Timestamp, limit: usize) -> Result<Vec<Lease>, StoreError> {
        let statement = "SELECT doc FROM jit_broker.leases WHERE state = 'pending' AND issued_at < $1
                AND broker NOT IN (SELECT number FROM jit_broker.brokers WHERE ended IS NULL)
            ORDER BY issued_at, id LIMIT $2";
        let found = self.documents(|| sqlx::query(statement).bind(nanos(before)).bind(most(limit)));
        Ok(decode_all(found.await?))
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let statement = "SELECT min(due_at) FROM jit_broker.leases WHERE broker = $1 AND due_at IS NOT NULL";
        let rows = self.pool.rows(|| sqlx::query(statement).bind(self.member.number)).await?;
        let earliest: Option<i64> = rows.first().map(|row| get(row, 0)).transpose()?.flatten();
        Ok(earliest.map(moment))
    }

    async fn known_accounts(&self, names: &[String]) -> Result<Vec<AccountName>, StoreError> {
        let statement = "SELECT account, doc FROM jit_broker.leases WHERE state <> 'revoked' AND account = ANY($1)";
        let mut known = Vec::new();
        for part in names.chunks(MAX_ROWS) {
            let wanted: Vec<String> = part.iter().map(|name| column(name).into_owned()).collect();
            let mut found = std::collections::HashSet::new();
            for row in self.pool.rows(|| sqlx::query(statement).bind(wanted.clone())).await? {
                // A lease that cannot be read removes nothing: its account is one without a lease.
                if !decode_all(vec![get(&row, 1)?]).is_empty() {
                    found.insert(get::<String>(&row, 0)?);
                }
            }
            let named = part.iter().filter(|name| found.contains(&*column(name)));
            known.extend(named.map(|name| AccountName::from_backend(name.as_str())));
        }
        Ok(known)
    }

    async fn ended_accounts(&self, names: &[String]) -> Result<Vec<AccountName>, StoreError> {
        let statement = "SELECT DISTINCT account FROM jit_broker.leases WHERE state = 'revoked' AND account = ANY($1)";
        let ended = self.named(statement, names).await?;
        Ok(ended.into_iter().map(AccountName::from_backend).collect())
    }

    async fn known_external_ids(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        // All live leases are read for each part: for a reconciliation that is often enough.
        let statement =
            "SELECT DISTINCT external_id FROM jit_broker.leases WHERE state <> 'revoked' AND external_id = ANY($1)";
        self.named(statement, ids).await
    }

    async fn ended_external_ids(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        let statement =
            "SELECT DISTINCT external_id FROM jit_broker.leases WHERE state = 'revoked' AND external_id = ANY($1)";
        self.named(statement, ids).await
    }

    async fn makers(&self) -> Result<Vec<Maker>, StoreError> {
        let statement = "SELECT target, maker, count(*), max(expires_at) FROM jit_broker.leases
            WHERE state <> 'revoked' AND maker IS NOT NULL GROUP BY target, maker ORDER BY target, maker LIMIT $1";
        let unreadable = |what: &str| StoreError::Failed(format!("a lease in it has no readable {what}"));
        let maker = |row: &PgRow| {
            Ok(Maker {
                target: TargetName::new(get::<String>(row, 0)?).map_err(|_| unreadable("target"))?,
                driver: serde_json::from_str(get(row, 1)?).map_err(|_| unreadable("driver"))?,
                leases: get::<i64>(row, 2)?.unsigned_abs(),
                last_expiry: moment(get(row, 3)?),
            })
        };
        self.pool.rows(|| sqlx::query(statement).bind(most(MAX_ROWS))).await?.iter().map(maker).collect()
    }

    async fn counts(&self, now: Timestamp) -> Result<Counts, StoreError> {
        let statement = "SELECT target, state, count(*), count(*) FILTER (WHERE owed_since <= $1),
                min(owed_since) FILTER (WHERE owed_since <= $1)
            FROM jit_broker.leases WHERE state <> 'revoked' GROUP BY target, state";
        let mut counts = Counts::default();
        for row in self.pool.rows(|| sqlx::query(statement).bind(nanos(now))).await? {
            let (target, state): (String, String) = (get(&row, 0)?, get(&row, 1)?);
            let (all, overdue): (i64, i64) = (get(&row, 2)?, get(&row, 3)?);
            add_counts(&mut counts, target, &state, all, overdue, get(&row, 4)?);
        }
        Ok(counts)
    }

    async fn forget_revoked(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.ask(|reply| Job::Forget(nanos(before), most(limit), reply)).await
    }

    async fn count(&self, request: &Counted) -> Result<Usage, StoreError> {
        let (reply, answer) = oneshot::channel();
        within_deadline(async {
            self.counting.send((Box::new(request.clone()), reply)).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        })
        .await
    }

    async fn usage(&self, request: &Counted) -> Result<Usage, StoreError> {
        let rows = self.pool.rows(|| usage::ask(request)).await?;
        usage::usage_of(&rows, request).map_err(|error| failed(&error))
    }

    async fn forget_usage(&self, before: Timestamp) -> Result<(), StoreError> {
        self.ask(|reply| Job::ForgetUsage(before.as_second(), reply)).await
    }

    async fn sealed(&self, purpose: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let statement = "SELECT value FROM jit_broker.sealed WHERE purpose = $1 AND name = $2";
        let rows = self.pool.rows(|| sqlx::query(statement).bind(purpose).bind(name)).await?;
        rows.first().map(|row| get(row, 0)).transpose()
    }

    async fn sealed_of(&self, purpose: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let statement = "SELECT name, value FROM jit_broker.sealed WHERE purpose = $1 ORDER BY name LIMIT $2";
        let most = i64::try_from(MAX_SEALED_LISTED).unwrap_or(i64::MAX);
        let rows = self.pool.rows(|| sqlx::query(statement).bind(purpose).bind(most)).await?;
        rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
    }

    async fn frontier(&self) -> Result<CompactRange, StoreError> {
        let rows = self.pool.rows(|| sqlx::query(FRONTIER)).await?;
        log::frontier(rows.first()).map_err(StoreError::failed)
    }

    async fn kept_checkpoints(&self, after: u64, before: Timestamp) -> Result<Vec<(u64, String)>, StoreError> {
        let statement = "SELECT size, note FROM jit_broker.checkpoint_history WHERE size > $1 AND taken_at < $2
            ORDER BY size LIMIT $3";
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let question = || sqlx::query(statement).bind(after).bind(nanos(before)).bind(most(MAX_ROWS));
        let rows = self.pool.rows(question).await?;
        rows.iter().map(|row| Ok((get::<i64>(row, 0)?.unsigned_abs(), get(row, 1)?))).collect()
    }

    async fn records(&self, from_seq: u64, limit: usize) -> Result<Vec<StoredRecord>, StoreError> {
        let Ok(from) = i64::try_from(from_seq) else { return Ok(Vec::new()) };
        let statement = "SELECT seq, record FROM jit_broker.audit WHERE seq >= $1 ORDER BY seq LIMIT $2";
        let rows = self.pool.rows(|| sqlx::query(statement).bind(from).bind(most(limit))).await?;
        let record = |row: &PgRow| Ok(StoredRecord { seq: get::<i64>(row, 0)?.unsigned_abs(), json: get(row, 1)? });
        rows.iter().map(record).collect()
    }

    async fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        let rows = self.pool.rows(|| sqlx::query("SELECT note FROM jit_broker.head")).await?;
        Ok(rows.first().map(|row| get(row, 0)).transpose()?.flatten())
    }

    fn log_size(&self) -> watch::Receiver<u64> {
        self.size.clone()
    }

    async fn adopt(&self, limit: usize) -> Result<u64, StoreError> {
        self.divide(Work::Adopt(most(limit))).await
    }

    async fn owns(&self, lease: &LeaseId) -> Result<bool, StoreError> {
        let statement = "SELECT broker = $1 FROM jit_broker.leases WHERE id = $2";
        let question = || sqlx::query(statement).bind(self.member.number).bind(lease.as_str());
        Ok(self.pool.rows(question).await?.first().map(|row| get(row, 0)).transpose()?.unwrap_or(false))
    }

    async fn hand_over(&self, lease: &LeaseId) -> Result<bool, StoreError> {
        Ok(self.divide(Work::HandOver(lease.to_string())).await? > 0)
    }

    async fn claim(&self, work: &str) -> Result<bool, StoreError> {
        Ok(self.divide(Work::Claim(column(work).into_owned())).await? > 0)
    }

    async fn release(&self, work: &str) {
        let released = self.divide(Work::Release(column(work).into_owned())).await;
        if let Err(error) = released {
            tracing::debug!(%error, work, "a piece of work stays claimed by this broker");
        }
    }

    fn holds(&self) -> bool {
        self.member.holds()
    }

    fn show(&self, config: Option<&str>, exported: Option<u64>) {
        self.member.show(config, exported);
    }

    fn peers(&self) -> Option<watch::Receiver<Peers>> {
        Some(self.member.peers())
    }

    fn fenced(&self) -> Vec<Peer> {
        self.member.fenced_others()
    }

    async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        let reason = lost.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // It was closed.
            None => std::future::pending().await,
        }
    }

    /// Leaves the brokers of the store too, so that another one takes over what this one has.
    async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.jobs.send(Job::Close(reply)).await.is_ok() {
            let _closed = timeout(DEADLINE, done).await;
        }
        self.pool.close();
        self.member.leave();
        let beating = self.beating.lock().take();
        if let Some(beating) = beating {
            let _left = timeout(DEADLINE, beating).await;
        }
    }
}

/// A question of parts that are there or not.
struct Wanted {
    text: String,
    arguments: PgArguments,
    count: usize,
}

impl Wanted {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), arguments: PgArguments::default(), count: 0 }
    }

    /// One more condition: `condition` with the value behind it.
    fn and<T>(&mut self, condition: &str, value: T) -> Result<&mut Self, StoreError>
    where
        T: for<'q> sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.arguments.add(value).map_err(StoreError::failed)?;
        self.count += 1;
        self.text.push_str(&format!(" AND {condition} ${}", self.count));
        Ok(self)
    }

    fn close(&mut self) {
        self.text.push(')');
    }
}

impl PgStore {
    /// Of these texts, those that the statement finds.
    async fn named(&self, statement: &'static str, names: &[String]) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        for part in names.chunks(AT_ONCE) {
            let wanted: Vec<String> = part.iter().map(|name| column(name).into_owned()).collect();
            let rows = self.pool.rows(|| sqlx::query(statement).bind(wanted.clone())).await?;
            for row in &rows {
                found.push(get(row, 0)?);
            }
        }
        Ok(found)
    }
}
