//! The statements of the writer's transaction.
//!
//! All that a transaction writes is one row for a view of the writing connection, and a trigger puts its parts where they
//! belong. So the whole is one statement, and a transaction by itself: each further statement would be a hop to SQLite's
//! thread, and wake the runtime when it is done.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor as _, Row as _};

use jit_ledger::ground::{Ground, Row as _};

use super::log::Signed;
use super::rows::{LeaseRow, Prepared};
use super::sealed::SealedGroup;

/// The view and its trigger. They are the connection's own (TEMP) and never in the file.
const VIEW: &str = "
CREATE TEMP VIEW writes AS SELECT NULL AS leases, NULL AS verifiers, NULL AS sealed, NULL AS settled, NULL AS records,
    NULL AS size, NULL AS note, NULL AS nodes, NULL AS history_at;
CREATE TEMP TRIGGER put INSTEAD OF INSERT ON writes BEGIN
    INSERT INTO leases (id, version, state, issuer, workload, subject, target, account, issued_at, due_at, owed_since,
            ended_at, doc, idem_key)
        SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8,
            value->>9, value->>10, value->>11, value->>12, value->>13
        FROM jsonb_each(new.leases) WHERE true
        ON CONFLICT (id) DO UPDATE SET version = excluded.version, state = excluded.state, account = excluded.account,
            due_at = excluded.due_at, owed_since = excluded.owed_since, ended_at = excluded.ended_at,
            doc = excluded.doc, idem_key = excluded.idem_key;
    INSERT INTO verifiers (digest, lease, used_at)
        SELECT unhex(value->>0), value->>1, value->>2 FROM jsonb_each(new.verifiers) WHERE true
        ON CONFLICT (digest) DO UPDATE SET lease = excluded.lease, used_at = excluded.used_at;
    INSERT INTO sealed (purpose, name, value)
        SELECT value->>0, value->>1, unhex(value->>2) FROM jsonb_each(new.sealed) WHERE value->>2 IS NOT NULL
        ON CONFLICT (purpose, name) DO UPDATE SET value = excluded.value;
    DELETE FROM sealed WHERE (purpose, name) IN
        (SELECT value->>0, value->>1 FROM jsonb_each(new.sealed) WHERE value->>2 IS NULL);
    INSERT INTO usage (issuer, workload, subject, target, at, requests, granted)
        SELECT held.issuer, held.workload, held.subject, held.target, held.at, 0, 1
        FROM jsonb_each(new.settled) AS settled JOIN usage_holds AS held ON held.request_id = settled.value->>0
        WHERE settled.value->>1
        ON CONFLICT DO UPDATE SET granted = granted + 1;
    DELETE FROM usage_holds WHERE request_id IN (SELECT value->>0 FROM jsonb_each(new.settled));
    INSERT INTO audit (seq, record, leaf)
        SELECT value->>0, value->>1, unhex(value->>2) FROM jsonb_each(new.records);
    INSERT INTO checkpoint (one, size, note, nodes) SELECT 1, new.size, new.note, new.nodes WHERE new.size IS NOT NULL
        ON CONFLICT (one) DO UPDATE SET size = excluded.size, note = excluded.note, nodes = excluded.nodes;
    INSERT INTO checkpoint_history (size, taken_at, note)
        SELECT new.size, new.history_at, new.note WHERE new.history_at IS NOT NULL;
END;";

/// Makes a new writing connection ready for [`Writes::commit`].
pub(super) async fn prepare(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(VIEW)).await.map(|_| ())
}

/// What one transaction writes. The texts are JSON arrays, empty where there is nothing.
#[derive(Default)]
pub(super) struct Writes<'g> {
    pub(super) leases: String,
    pub(super) verifiers: String,
    pub(super) sealed: SealedGroup<'g>,
    pub(super) settled: Vec<&'g (String, bool)>,
    pub(super) records: String,
    /// The checkpoint over the records, where there are some.
    pub(super) signed: Option<Signed>,
    /// Records before this leave the store: size and nodes of the tree over them.
    pub(super) archived: Option<&'g (i64, Vec<u8>)>,
}

impl Writes<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.leases.is_empty()
            && self.signed.is_none()
            && self.sealed.is_empty()
            && self.settled.is_empty()
            && self.archived.is_none()
    }

    /// Makes everything durable in one transaction. After an error the connection has none open.
    pub(super) async fn commit(self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let Some((size, nodes)) = self.archived else { return self.put(connection).await };
        let archiving = async {
            connection.execute("BEGIN IMMEDIATE").await?;
            self.put(connection).await?;
            archive(connection, *size, nodes).await?;
            connection.execute("COMMIT").await.map(|_| ())
        };
        let done = archiving.await;
        if done.is_err() {
            let _none = connection.execute("ROLLBACK").await;
        }
        done
    }

    /// Writes everything, but what leaves the store: a transaction by itself, or a part of one that has begun.
    pub(super) async fn put(self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        const PUT: &str = "INSERT INTO writes
            (leases, verifiers, sealed, settled, records, size, note, nodes, history_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let some = |array: String| Some(array).filter(|array| !array.is_empty());
        let (size, note, nodes, history_at) = match self.signed {
            Some(Signed { size, note, nodes, history_at }) => (Some(size), Some(note), Some(nodes), history_at),
            None => (None, None, None, None),
        };
        let put = sqlx::query(PUT)
            .bind(some(self.leases))
            .bind(some(self.verifiers))
            .bind((!self.sealed.is_empty()).then(|| self.sealed.array()))
            .bind((!self.settled.is_empty()).then(|| serde_json::json!(self.settled).to_string()))
            .bind(some(self.records))
            .bind(size)
            .bind(note)
            .bind(nodes)
            .bind(history_at);
        put.execute(connection).await.map(|_| ())
    }
}

/// Reads how the leases of the group stand, and who holds the keys that it asks for.
pub(super) async fn stand<'g>(
    connection: &mut SqliteConnection,
    group: &'g [Prepared],
    ground: &mut Ground<'g, LeaseRow>,
) -> Result<(), sqlx::Error> {
    let rows = || group.iter().flat_map(|change| &change.leases).map(LeaseRow::step);
    let ids: Vec<&str> = rows().map(|row| row.id.as_str()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = rows().filter_map(|row| row.key.as_deref()).collect();
    let json = |list: &[&str]| serde_json::Value::from(list).to_string();
    // This task is the only one that writes (the file is locked), so what is read before the transaction still holds
    // in it. UNION, not OR: each half uses its own index.
    let statement = "SELECT id, version, idem_key FROM leases WHERE id IN (SELECT value FROM json_each(?))
        UNION SELECT id, version, idem_key FROM leases WHERE idem_key IN (SELECT value FROM json_each(?))";
    for row in sqlx::query(statement).bind(json(&ids)).bind(json(&keys)).fetch_all(&mut *connection).await? {
        ground.found(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    }
    let digests: Vec<&str> = rows().filter_map(|row| Some(row.verifier.as_ref()?.digest.as_str())).collect();
    if digests.is_empty() {
        return Ok(());
    }
    let statement = "SELECT lower(hex(digest)), lease FROM verifiers
        WHERE digest IN (SELECT unhex(value) FROM json_each(?))";
    for row in sqlx::query(statement).bind(json(&digests)).fetch_all(connection).await? {
        ground.found_verifier(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(())
}

/// Lets go of the records that are in an archive, and of the checkpoints over less. The frontier goes first:
/// it is what the table's guard against slips looks at. It only moves forward, and never past the log's end.
async fn archive(connection: &mut SqliteConnection, size: i64, nodes: &[u8]) -> Result<(), sqlx::Error> {
    let forward = "INSERT INTO archived (one, size, nodes) SELECT 1, ?1, ?2
            WHERE ?1 > coalesce((SELECT size FROM archived), 0) AND ?1 <= (SELECT size FROM checkpoint)
        ON CONFLICT (one) DO UPDATE SET size = excluded.size, nodes = excluded.nodes";
    if sqlx::query(forward).bind(size).bind(nodes).execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query("DELETE FROM audit WHERE seq < ?").bind(size).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM checkpoint_history WHERE size < ?").bind(size).execute(connection).await?;
    Ok(())
}
