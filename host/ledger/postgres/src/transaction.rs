//! One transaction of the writer, from its first statement to the one before COMMIT.
//!
//! The order of locks is the same in every broker: leases by their ids, then verifiers, keys and counts, and the log's
//! head at last, for two statements and the commit. What others hold in between is waited for, and a group that crosses
//! with another one (a unique index, a deadlock) is tried again from the beginning and sees what the other one did.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jit_ledger::StoreError;
use jit_ledger::ground::{Ground, Row as _};
use jit_tlog::checkpoint::{LogKey, Origin, VerifierKey};
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::log::{HEAD, Head, HeadError, LogError, Seen, Signed};
use super::rows::{LeaseColumns, LeaseRow, Prepared};

/// What the statements need beside the group.
pub(crate) struct Signing<'s> {
    pub(crate) key: &'s LogKey,
    pub(crate) origin: &'s Origin,
    pub(crate) verifier: &'s VerifierKey,
    pub(crate) seen: Option<&'s Seen>,
    /// Whose the leases become.
    pub(crate) broker: i32,
}

/// What a transaction would make.
pub(crate) struct Written {
    /// Of each change of the group.
    pub(crate) verdicts: Vec<Result<(), StoreError>>,
    /// The log after it; none where it adds no record.
    pub(crate) seen: Option<Seen>,
    /// Whether there is anything to commit.
    pub(crate) anything: bool,
}

/// Writes all changes of the group that are admitted, in a transaction that has begun.
pub(crate) async fn write(
    connection: &mut PgConnection,
    group: &[&Prepared],
    signing: &Signing<'_>,
) -> Result<Written, HeadError> {
    let mut ground = Ground::default();
    stand(connection, group, &mut ground).await?;
    let mut verdicts = Vec::with_capacity(group.len());
    let mut admitted = Vec::with_capacity(group.len());
    for change in group {
        let verdict = ground.admit(&change.leases);
        if verdict.is_ok() {
            admitted.push(*change);
        }
        verdicts.push(verdict);
    }
    if admitted.is_empty() {
        return Ok(Written { verdicts, seen: None, anything: false });
    }
    put_leases(connection, &ground, signing.broker).await?;
    put_verifiers(connection, &ground).await?;
    put_sealed(connection, &admitted).await?;
    settle(connection, &admitted).await?;
    let seen = put_records(connection, &admitted, signing).await?;
    if let Some((size, nodes)) = admitted.iter().rev().find_map(|change| change.archived.as_ref()) {
        archive(connection, *size, nodes).await?;
    }
    Ok(Written { verdicts, seen, anything: true })
}

/// Reads how the leases of the group stand, and who holds the keys and verifiers that it asks for. They stand like
/// that until the transaction ends.
async fn stand<'g>(
    connection: &mut PgConnection,
    group: &[&'g Prepared],
    ground: &mut Ground<'g, LeaseRow>,
) -> Result<(), sqlx::Error> {
    let steps = || group.iter().flat_map(|change| &change.leases).map(LeaseRow::step);
    let ids: Vec<&str> = steps().map(|step| step.id.as_str()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = steps().filter_map(|step| step.key.as_deref()).collect();
    let statement = "SELECT id, version, idem_key FROM jit_broker.leases WHERE id = ANY($1) OR idem_key = ANY($2)
        ORDER BY id FOR UPDATE";
    for row in sqlx::query(statement).bind(ids).bind(keys).fetch_all(&mut *connection).await? {
        ground.found(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    }
    let digests: Vec<Vec<u8>> = steps().filter_map(|step| hex::decode(&step.verifier.as_ref()?.digest).ok()).collect();
    if digests.is_empty() {
        return Ok(());
    }
    let statement = "SELECT encode(digest, 'hex'), lease FROM jit_broker.verifiers WHERE digest = ANY($1)
        ORDER BY digest FOR UPDATE";
    for row in sqlx::query(statement).bind(digests).fetch_all(connection).await? {
        ground.found_verifier(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(())
}

async fn put_leases(
    connection: &mut PgConnection,
    ground: &Ground<'_, LeaseRow>,
    broker: i32,
) -> Result<(), sqlx::Error> {
    // One statement, so that keys change hands in it.
    const LEASES: &str = "
        WITH rows AS MATERIALIZED (SELECT * FROM unnest($1::bool[], $2::text[], $3::int8[], $4::text[], $5::bytea[],
                $6::bytea[], $7::text[], $8::text[], $9::text[], $10::int8[], $11::int8[], $12::int8[], $13::int8[],
                $14::int8[], $15::bool[], $16::text[], $17::text[], $18::text[], $19::text[])
            AS r (new, id, version, state, owner, subject, workload, target, account, issued_at, expires_at, due_at,
                owed_since, ended_at, tried, maker, external_id, doc, idem_key)),
        stepped AS (UPDATE jit_broker.leases AS l SET version = r.version, state = r.state, account = r.account,
                expires_at = r.expires_at, due_at = r.due_at, owed_since = r.owed_since, ended_at = r.ended_at,
                tried = r.tried, maker = r.maker, external_id = r.external_id, doc = r.doc, idem_key = r.idem_key,
                broker = $20
            FROM rows AS r WHERE l.id = r.id AND NOT r.new)
        INSERT INTO jit_broker.leases (id, version, state, owner, subject, workload, target, account, issued_at,
            expires_at, due_at, owed_since, ended_at, tried, maker, external_id, doc, idem_key, broker)
        SELECT id, version, state, owner, subject, workload, target, account, issued_at, expires_at, due_at,
            owed_since, ended_at, tried, maker, external_id, doc, idem_key, $20
        FROM rows WHERE new ORDER BY idem_key, id";
    let writes = ground.writes();
    if writes.is_empty() {
        return Ok(());
    }
    let mut c = LeaseColumns::default();
    for write in &writes {
        c.push(write.row, write.holds_key, write.new);
    }
    let query = sqlx::query(LEASES).bind(c.new).bind(c.id).bind(c.version).bind(c.state).bind(c.owner).bind(c.subject);
    let query = query.bind(c.workload).bind(c.target).bind(c.account).bind(c.issued_at).bind(c.expires_at);
    let query = query.bind(c.due_at).bind(c.owed_since).bind(c.ended_at).bind(c.tried).bind(c.maker);
    let query = query.bind(c.external_id).bind(c.document).bind(c.key).bind(broker);
    query.execute(connection).await.map(drop)
}

async fn put_verifiers(connection: &mut PgConnection, ground: &Ground<'_, LeaseRow>) -> Result<(), sqlx::Error> {
    const VERIFIERS: &str = "
        WITH rows AS MATERIALIZED (SELECT new, decode(digest, 'hex') AS digest, lease, used_at
            FROM unnest($1::bool[], $2::text[], $3::text[], $4::int8[]) AS r (new, digest, lease, used_at)),
        taken AS (UPDATE jit_broker.verifiers AS v SET lease = r.lease, used_at = r.used_at
            FROM rows AS r WHERE v.digest = r.digest AND NOT r.new)
        INSERT INTO jit_broker.verifiers (digest, lease, used_at) SELECT digest, lease, used_at FROM rows WHERE new
            ORDER BY digest";
    let writes = ground.verifiers();
    if writes.is_empty() {
        return Ok(());
    }
    let new: Vec<bool> = writes.iter().map(|write| write.new).collect();
    let digests: Vec<&str> = writes.iter().map(|write| write.digest).collect();
    let leases: Vec<&str> = writes.iter().map(|write| write.lease).collect();
    let used_at: Vec<i64> = writes.iter().map(|write| write.used_at).collect();
    sqlx::query(VERIFIERS).bind(new).bind(digests).bind(leases).bind(used_at).execute(connection).await.map(drop)
}

/// Of several writes to one name, the last holds.
async fn put_sealed(connection: &mut PgConnection, admitted: &[&Prepared]) -> Result<(), sqlx::Error> {
    const SEALED: &str = "
        WITH rows AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[]) AS r (purpose, name, value)),
        gone AS (DELETE FROM jit_broker.sealed AS s USING rows AS r
            WHERE s.purpose = r.purpose AND s.name = r.name AND r.value IS NULL)
        INSERT INTO jit_broker.sealed (purpose, name, value)
            SELECT purpose, name, value FROM rows WHERE value IS NOT NULL ORDER BY purpose, name
            ON CONFLICT (purpose, name) DO UPDATE SET value = excluded.value";
    let mut last: BTreeMap<(&str, &str), Option<&[u8]>> = BTreeMap::new();
    for row in admitted.iter().flat_map(|change| &change.sealed) {
        last.insert((row.purpose, &row.name), row.value.as_deref());
    }
    if last.is_empty() {
        return Ok(());
    }
    let purposes: Vec<&str> = last.keys().map(|(purpose, _)| *purpose).collect();
    let names: Vec<&str> = last.keys().map(|(_, name)| *name).collect();
    let values: Vec<Option<&[u8]>> = last.values().copied().collect();
    sqlx::query(SEALED).bind(purposes).bind(names).bind(values).execute(connection).await.map(drop)
}

/// Ends what was held for requests that are decided, and counts those that were granted.
async fn settle(connection: &mut PgConnection, admitted: &[&Prepared]) -> Result<(), sqlx::Error> {
    const SETTLED: &str = "
        WITH settled AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::bool[]) AS s (request_id, granted)),
        ended AS (DELETE FROM jit_broker.usage_holds AS h USING settled AS s WHERE h.request_id = s.request_id
            RETURNING h.owner, h.at, h.target, h.subject, s.granted)
        INSERT INTO jit_broker.usage AS u (owner, at, target, subject, requests, granted)
            SELECT owner, at, target, subject, 0, count(*) FROM ended WHERE granted
            GROUP BY owner, at, target, subject ORDER BY owner, at, target, subject
            ON CONFLICT (owner, at, target, subject) DO UPDATE SET granted = u.granted + excluded.granted";
    let settled = || admitted.iter().flat_map(|change| &change.settled);
    let ids: Vec<&str> = settled().map(|(id, _)| id.as_str()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let granted: Vec<bool> = settled().map(|(_, granted)| *granted).collect();
    sqlx::query(SETTLED).bind(ids).bind(granted).execute(connection).await.map(drop)
}

/// Takes the log's head, numbers the records, and moves the head. From here on other brokers wait for the commit.
async fn put_records(
    connection: &mut PgConnection,
    admitted: &[&Prepared],
    signing: &Signing<'_>,
) -> Result<Option<Seen>, HeadError> {
    const RECORDS: &str = "
        WITH records AS (INSERT INTO jit_broker.audit (seq, record, leaf)
            SELECT * FROM unnest($1::int8[], $2::text[], $3::bytea[])),
        kept AS (INSERT INTO jit_broker.checkpoint_history (size, taken_at, note) SELECT $4, $8, $5 WHERE $9)
        UPDATE jit_broker.head SET size = $4, note = $5, nodes = $6, kept_size = $7, kept_at = $8 WHERE one = 1
        RETURNING pg_notify('jit_broker_log', $4::text) IS NULL";
    let events = || admitted.iter().flat_map(|change| &change.events);
    if events().next().is_none() {
        return Ok(None);
    }
    let row = sqlx::query(HEAD).fetch_optional(&mut *connection).await?;
    let row = row.ok_or(LogError::Changed("its head is missing"))?;
    let mut head = Head::of(&row, signing.verifier, signing.seen)?;
    let (mut seqs, mut records, mut leaves) = (Vec::new(), Vec::new(), Vec::new());
    for event in events() {
        let seq = head.range.size();
        let (record, leaf) = event.numbered(seq);
        head.range.push(leaf);
        seqs.push(i64::try_from(seq).unwrap_or(i64::MAX));
        records.push(record);
        leaves.push(leaf.as_bytes().to_vec());
    }
    let Signed { size, note, nodes, kept_size, kept_at, keep } =
        head.sign(signing.key, signing.origin, Timestamp::now());
    let query = sqlx::query(RECORDS).bind(seqs).bind(records).bind(leaves).bind(size).bind(note).bind(nodes);
    let moved = query.bind(kept_size).bind(kept_at).bind(keep).fetch_all(connection).await;
    moved.map_err(|error| match &error {
        sqlx::Error::Database(said) if said.constraint() == Some("audit_seq") => {
            HeadError::from(LogError::Changed("it has records beyond its head"))
        }
        _ => error.into(),
    })?;
    Ok(Some(head.seen()))
}

/// Lets go of the records that are in an archive, and of the checkpoints over less. The frontier goes first: it is
/// what the table's guard against slips looks at. It only moves forward, and never past the log's end.
pub(crate) async fn archive(connection: &mut PgConnection, size: i64, nodes: &[u8]) -> Result<(), sqlx::Error> {
    let forward = "INSERT INTO jit_broker.archived AS a (one, size, nodes)
        SELECT 1, $1, $2 WHERE $1 <= (SELECT size FROM jit_broker.head)
        ON CONFLICT (one) DO UPDATE SET size = excluded.size, nodes = excluded.nodes WHERE a.size < excluded.size";
    if sqlx::query(forward).bind(size).bind(nodes).execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query("DELETE FROM jit_broker.audit WHERE seq < $1").bind(size).execute(&mut *connection).await?;
    let history = "DELETE FROM jit_broker.checkpoint_history WHERE size < $1";
    sqlx::query(history).bind(size).execute(connection).await.map(drop)
}
