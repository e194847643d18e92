//! Taking over a whole store of another kind: into an empty database, or into one that an earlier import filled from the
//! same store. All of it is one transaction, so that the database has everything or stays as it was.
//!
//! Every record of the source is read and hashed, also those that are there already: the tree over them has to be the
//! one that the database has at its size, and the one that the source's last checkpoint is over at the end.

use std::time::Duration;

use jit_ledger::columns::{nodes_of, range_of};
use jit_ledger::transfer::{Copied, Head, Snapshot, UsageRow};
use jit_ledger::{LeaseWrite, StoreError};
use jit_tlog::checkpoint::{NoteError, VerifierKey};
use jit_tlog::merkle::{CompactRange, Hash};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use tokio::time::{Instant, sleep};

use super::rows::{LeaseColumns, LeaseRow, owner, subject};
use super::schema::{self, SchemaError};
use super::servers::{ConnectError, Place, Purpose, Servers};
use super::transaction::archive;

/// How long one statement may take.
const STATEMENT: Duration = Duration::from_secs(600);
/// How long other sessions are waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often they are looked for meanwhile.
const ASK: Duration = Duration::from_millis(100);

/// Why a store cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// No server can be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Not our tables, or those of a newer release.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The database said no.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The source cannot be read.
    #[error("the source")]
    Source(#[from] StoreError),
    /// A broker has the database open.
    #[error(
        "the database is in use by {0} other sessions of jit-broker: stop the brokers that serve from it, and commands \
         that read it"
    )]
    InUse(i64),
    /// The database has another store.
    #[error(
        "the database has another store, or a copy that a broker has served from since: its {found} audit records are \
         not the first ones of the source, which has {source_has}. Empty it as its owner, which takes that store away: \
         DROP SCHEMA jit_broker CASCADE"
    )]
    Other {
        /// How many records the database has.
        found: u64,
        /// How many the source has.
        source_has: u64,
    },
    /// Leases without a log: another store too.
    #[error("the database has leases and no audit record: it is no copy of the source")]
    Leases,
    /// The source archived records that the copy lacks.
    #[error(
        "the source has archived records that the database does not have: {found} are there, and the source's records \
         begin with {begins}. Empty it as its owner, and copy once more: DROP SCHEMA jit_broker CASCADE"
    )]
    Archived {
        /// How many records the database has.
        found: u64,
        /// The first record of the source.
        begins: u64,
    },
    /// The source's log is not what was signed.
    #[error("the source's audit log was changed ({0}): run `jit-broker audit verify` on it")]
    Changed(&'static str),
    /// The source's checkpoint is not by the configured key.
    #[error("the source's last checkpoint does not verify with the configured signing key")]
    Checkpoint(#[from] NoteError),
}

/// Takes over everything of the source. `progress` receives how many records were read, and of how many.
///
/// # Errors
/// [`ImportError`]: then the database is as it was, but for tables that were made.
pub async fn import(
    place: Place,
    source: &mut dyn Snapshot,
    verifier: &VerifierKey,
    progress: impl FnMut(u64, u64),
) -> Result<Copied, ImportError> {
    let servers = Servers::new(place)?;
    let mut connection = servers.connect(Purpose::Serve).await?;
    schema::prepare(&mut connection).await?;
    begin(&mut connection).await?;
    let head = source.head().await?;
    let new_records = put_records(&mut connection, source, &head, verifier, progress).await?;
    let (leases, new_leases) = put_leases(&mut connection, source).await?;
    put_verifiers(&mut connection, source).await?;
    put_sealed(&mut connection, source).await?;
    put_usage(&mut connection, source).await?;
    put_holds(&mut connection, source).await?;
    put_frontier(&mut connection, &head).await?;
    connection.execute("COMMIT").await?;
    connection.close().await?;
    Ok(Copied { records: head.size, new_records, leases, new_leases })
}

/// How many other sessions of jit-broker the database has. A broker always has some, whatever it is doing. They are of
/// the same role, so their names show.
async fn others(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND application_name = current_setting('application_name') AND pid <> pg_backend_pid()";
    sqlx::query_scalar(statement).fetch_one(connection).await
}

/// Begins, with nobody else at work: no broker has a session, and one that comes joins after the end.
async fn begin(connection: &mut PgConnection) -> Result<(), ImportError> {
    // A process that has just ended may still have sessions for a moment.
    let end = Instant::now() + PATIENCE;
    while others(connection).await? > 0 && Instant::now() < end {
        sleep(ASK).await;
    }
    let text = format!(
        "BEGIN; SET LOCAL statement_timeout = {0}; SET LOCAL idle_in_transaction_session_timeout = {0};
        SET CONSTRAINTS jit_broker.leases_key DEFERRED; LOCK TABLE jit_broker.brokers IN EXCLUSIVE MODE",
        STATEMENT.as_millis()
    );
    connection.execute(sqlx::raw_sql(AssertSqlSafe(text))).await?;
    match others(connection).await? {
        0 => Ok(()),
        found => Err(ImportError::InUse(found)),
    }
}

/// Adds the records that are new, moves the head, and returns how many there were.
async fn put_records(
    connection: &mut PgConnection,
    source: &mut dyn Snapshot,
    head: &Head,
    verifier: &VerifierKey,
    mut progress: impl FnMut(u64, u64),
) -> Result<u64, ImportError> {
    const RECORDS: &str = "INSERT INTO jit_broker.audit (seq, record, leaf)
        SELECT * FROM unnest($1::int8[], $2::text[], $3::bytea[])";
    let statement = "SELECT size, nodes, EXISTS (SELECT FROM jit_broker.leases) FROM jit_broker.head WHERE one = 1
        FOR UPDATE";
    let row = sqlx::query(statement).fetch_one(&mut *connection).await?;
    let (size, nodes): (i64, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
    let there =
        range_of(size, &nodes).ok_or(ImportError::Other { found: size.unsigned_abs(), source_has: head.size })?;
    if there.size() == 0 && row.try_get::<bool, _>(2)? {
        return Err(ImportError::Leases);
    }
    let begins = head.frontier.size();
    if there.size() > 0 && there.size() < begins {
        return Err(ImportError::Archived { found: there.size(), begins });
    }
    let other = ImportError::Other { found: there.size(), source_has: head.size };
    let mut range = head.frontier.clone();
    let mut same = there.size() == 0 || is(&range, &there);
    while range.size() < head.size {
        let page = source.records(range.size()).await?;
        if page.is_empty() {
            return Err(ImportError::Changed("records are missing"));
        }
        let (mut seqs, mut records, mut leaves) = (Vec::new(), Vec::new(), Vec::new());
        for record in page {
            let seq = range.size();
            if record.seq != seq {
                return Err(ImportError::Changed("a record is missing"));
            }
            let leaf = Hash::of_leaf(record.json.as_bytes());
            range.push(leaf);
            same = same || is(&range, &there);
            if seq >= there.size() {
                seqs.push(i64::try_from(seq).unwrap_or(i64::MAX));
                records.push(record.json);
                leaves.push(leaf.as_bytes().to_vec());
            }
        }
        // Before anything is added to a store that is not this one.
        if !same && range.size() >= there.size() {
            return Err(other);
        }
        if !seqs.is_empty() {
            sqlx::query(RECORDS).bind(seqs).bind(records).bind(leaves).execute(&mut *connection).await?;
        }
        progress(range.size(), head.size);
    }
    if !same {
        return Err(other);
    }
    let Some(note) = &head.note else {
        return if head.size == 0 { Ok(0) } else { Err(ImportError::Changed("its checkpoint is missing")) };
    };
    let signed = verifier.open(note)?;
    if signed.size != head.size || signed.root != range.root() {
        return Err(ImportError::Changed("the records are not those that were signed"));
    }
    let (kept_size, kept_at) = put_history(connection, source).await?.unwrap_or_default();
    sqlx::query(
        "UPDATE jit_broker.head SET size = $1, note = $2, nodes = $3, kept_size = $4, kept_at = $5 WHERE one = 1",
    )
    .bind(i64::try_from(head.size).unwrap_or(i64::MAX))
    .bind(note)
    .bind(nodes_of(&range))
    .bind(kept_size)
    .bind(kept_at)
    .execute(&mut *connection)
    .await?;
    // Without an archive the database had them from the first one on.
    let had = if there.size() == 0 { begins } else { there.size() };
    Ok(head.size - had)
}

/// Whether both are the same tree.
fn is(one: &CompactRange, other: &CompactRange) -> bool {
    one.size() == other.size() && one.nodes() == other.nodes()
}

/// Adds the checkpoints of the history. Returns the newest one's size and time.
async fn put_history(
    connection: &mut PgConnection,
    source: &mut dyn Snapshot,
) -> Result<Option<(i64, i64)>, ImportError> {
    const HISTORY: &str = "INSERT INTO jit_broker.checkpoint_history (size, taken_at, note)
        SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[]) ON CONFLICT (size) DO NOTHING";
    let mut newest: Option<(i64, i64)> = None;
    loop {
        let page = source.history(newest.map_or(i64::MIN, |(size, _)| size)).await?;
        let Some(last) = page.last() else { return Ok(newest) };
        newest = Some((last.size, last.taken_at));
        let sizes: Vec<i64> = page.iter().map(|kept| kept.size).collect();
        let times: Vec<i64> = page.iter().map(|kept| kept.taken_at).collect();
        let notes: Vec<String> = page.into_iter().map(|kept| kept.note).collect();
        sqlx::query(HISTORY).bind(sizes).bind(times).bind(notes).execute(&mut *connection).await?;
    }
}

/// Adds leases, steps on those that are older here, and forgets those that the source has forgotten. Returns how many
/// the source has, and how many were written.
async fn put_leases(connection: &mut PgConnection, source: &mut dyn Snapshot) -> Result<(u64, u64), ImportError> {
    const LEASES: &str = "
        INSERT INTO jit_broker.leases AS l (id, version, state, owner, subject, workload, target, account, issued_at,
            expires_at, due_at, owed_since, ended_at, tried, maker, external_id, doc, idem_key)
        SELECT * FROM unnest($1::text[], $2::int8[], $3::text[], $4::bytea[], $5::bytea[], $6::text[], $7::text[],
            $8::text[], $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::bool[], $15::text[],
            $16::text[], $17::text[], $18::text[])
        ON CONFLICT (id) DO UPDATE SET version = excluded.version, state = excluded.state, account = excluded.account,
            expires_at = excluded.expires_at, due_at = excluded.due_at, owed_since = excluded.owed_since,
            ended_at = excluded.ended_at, tried = excluded.tried, maker = excluded.maker,
            external_id = excluded.external_id, doc = excluded.doc, idem_key = excluded.idem_key
        WHERE l.version < excluded.version OR l.idem_key IS DISTINCT FROM excluded.idem_key";
    // Pages follow each other by id: what is here and between them the source has forgotten.
    const FORGOTTEN: &str = "DELETE FROM jit_broker.leases WHERE id > $1 AND ($2 IS NULL OR id <= $2)
        AND id <> ALL ($3::text[])";
    let (mut all, mut written, mut after) = (0, 0, String::new());
    loop {
        let page = source.leases(&after).await?;
        let last = page.last().map(|row| row.lease.id.to_string());
        let ids: Vec<String> = page.iter().map(|row| row.lease.id.to_string()).collect();
        let forgotten = sqlx::query(FORGOTTEN).bind(&after).bind(&last).bind(ids);
        forgotten.execute(&mut *connection).await?;
        let Some(last) = last else { return Ok((all, written)) };
        after = last;
        all += page.len() as u64;
        let mut c = LeaseColumns::default();
        for row in page {
            let lease = LeaseRow::new(&LeaseWrite::Insert(row.lease))?;
            c.push(&lease, row.holds_key, true);
        }
        let query = sqlx::query(LEASES).bind(c.id).bind(c.version).bind(c.state).bind(c.owner).bind(c.subject);
        let query = query.bind(c.workload).bind(c.target).bind(c.account).bind(c.issued_at).bind(c.expires_at);
        let query = query.bind(c.due_at).bind(c.owed_since).bind(c.ended_at).bind(c.tried).bind(c.maker);
        let query = query.bind(c.external_id).bind(c.document).bind(c.key);
        written += query.execute(&mut *connection).await?.rows_affected();
    }
}

async fn put_verifiers(connection: &mut PgConnection, source: &mut dyn Snapshot) -> Result<(), ImportError> {
    const VERIFIERS: &str = "INSERT INTO jit_broker.verifiers (digest, lease, used_at)
        SELECT * FROM unnest($1::bytea[], $2::text[], $3::int8[])
        ON CONFLICT (digest) DO UPDATE SET lease = excluded.lease, used_at = excluded.used_at";
    let mut after = Vec::new();
    loop {
        let page = source.verifiers(&after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.digest);
        let leases: Vec<String> = page.iter().map(|row| row.lease.clone()).collect();
        let times: Vec<i64> = page.iter().map(|row| row.used_at).collect();
        let digests: Vec<Vec<u8>> = page.into_iter().map(|row| row.digest).collect();
        sqlx::query(VERIFIERS).bind(digests).bind(leases).bind(times).execute(&mut *connection).await?;
    }
}

/// The sealed values are those of the source: what it no longer has goes.
async fn put_sealed(connection: &mut PgConnection, source: &mut dyn Snapshot) -> Result<(), ImportError> {
    const SEALED: &str = "INSERT INTO jit_broker.sealed (purpose, name, value)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])";
    connection.execute("DELETE FROM jit_broker.sealed").await?;
    let mut after = (String::new(), String::new());
    loop {
        let page = source.sealed((&after.0, &after.1)).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = (last.purpose.clone(), last.name.clone());
        let purposes: Vec<String> = page.iter().map(|row| row.purpose.clone()).collect();
        let names: Vec<String> = page.iter().map(|row| row.name.clone()).collect();
        let values: Vec<Vec<u8>> = page.into_iter().map(|row| row.value).collect();
        sqlx::query(SEALED).bind(purposes).bind(names).bind(values).execute(&mut *connection).await?;
    }
}

/// What policies count is as in the source.
async fn put_usage(connection: &mut PgConnection, source: &mut dyn Snapshot) -> Result<(), ImportError> {
    const USAGE: &str = "INSERT INTO jit_broker.usage (owner, at, target, subject, requests, granted)
        SELECT * FROM unnest($1::bytea[], $2::int8[], $3::text[], $4::bytea[], $5::int8[], $6::int8[])";
    connection.execute("DELETE FROM jit_broker.usage").await?;
    let mut after: Option<UsageRow> = None;
    loop {
        let page = source.usage(after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let owners: Vec<Vec<u8>> = page.iter().map(|row| owner(&row.principal)).collect();
        let subjects: Vec<Vec<u8>> = page.iter().map(|row| subject(&row.principal)).collect();
        let times: Vec<i64> = page.iter().map(|row| row.at).collect();
        let (requests, granted): (Vec<i64>, Vec<i64>) = page.iter().map(|row| (row.requests, row.granted)).unzip();
        let targets: Vec<String> = page.into_iter().map(|row| row.target).collect();
        let query = sqlx::query(USAGE).bind(owners).bind(times).bind(targets).bind(subjects).bind(requests);
        query.bind(granted).execute(&mut *connection).await?;
    }
}

async fn put_holds(connection: &mut PgConnection, source: &mut dyn Snapshot) -> Result<(), ImportError> {
    const HOLDS: &str = "INSERT INTO jit_broker.usage_holds (request_id, until, owner, subject, target, at, lease)
        SELECT * FROM unnest($1::text[], $2::int8[], $3::bytea[], $4::bytea[], $5::text[], $6::int8[], $7::bool[])";
    connection.execute("DELETE FROM jit_broker.usage_holds").await?;
    let mut after = String::new();
    loop {
        let page = source.holds(&after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.request_id);
        let owners: Vec<Vec<u8>> = page.iter().map(|row| owner(&row.principal)).collect();
        let subjects: Vec<Vec<u8>> = page.iter().map(|row| subject(&row.principal)).collect();
        let (until, at): (Vec<i64>, Vec<i64>) = page.iter().map(|row| (row.until, row.at)).unzip();
        let leases: Vec<bool> = page.iter().map(|row| row.lease).collect();
        let targets: Vec<String> = page.iter().map(|row| row.target.clone()).collect();
        let ids: Vec<String> = page.into_iter().map(|row| row.request_id).collect();
        let query = sqlx::query(HOLDS).bind(ids).bind(until).bind(owners).bind(subjects).bind(targets);
        query.bind(at).bind(leases).execute(&mut *connection).await?;
    }
}

/// The records begin where those of the source do. The rest is in its archive.
async fn put_frontier(connection: &mut PgConnection, head: &Head) -> Result<(), ImportError> {
    match i64::try_from(head.frontier.size()).unwrap_or(i64::MAX) {
        0 => Ok(()),
        size => Ok(archive(connection, size, &nodes_of(&head.frontier)).await?),
    }
}
