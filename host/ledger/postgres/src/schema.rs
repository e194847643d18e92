//! The tables, their version, and how they are made.
//!
//! The version has two numbers. A step that only adds what earlier releases need not know raises the second: a broker
//! of the earlier release continues beside the new one (a rolling upgrade). A step that does not fit earlier releases
//! raises the first, and they refuse the store. The tables are made and brought up under an
//! advisory lock, so that brokers that start together do it once.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tokio::time::timeout;

/// The version of the tables that this release makes.
pub(crate) const VERSION: Version = Version { major: 1, minor: 0 };

/// Advisory locks of the store, one number for each use. They are the database's own.
pub(crate) mod locks {
    /// Who makes or changes tables.
    pub(crate) const SCHEMA: i64 = 0x6a69_7473_6368_656d;
    /// The first number of locks that a broker's transactions which write share; the second is the broker's. Who fences
    /// the broker takes it alone.
    pub(crate) const WRITING: i32 = 0x6a69_7477;
    /// The first number of locks on those whose requests are counted; the second is of them.
    pub(crate) const COUNTED: i32 = 0x6a69_7463;
}

/// How long making the tables may take, the wait for another broker that does it included.
const DEADLINE: Duration = Duration::from_secs(60);

/// A version of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: i32,
    pub(crate) minor: i32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What each version adds to the one before. What is here was released: it is not changed, only added to.
const STEPS: &[(Version, &str)] = &[(Version { major: 1, minor: 0 }, TABLES)];

/// Columns beside `doc` are copies for searching, written from it and never read back as truth. Times are nanoseconds
/// since the Unix epoch, those of `usage` and `usage_holds` seconds. `owner` is a digest of issuer and workload,
/// `subject` is a digest of the subject, and empty without one. Texts are compared byte by byte ("C").
const TABLES: &str = r#"
CREATE TABLE jit_broker.leases (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    version int8 NOT NULL,
    state text COLLATE "C" NOT NULL,
    owner bytea NOT NULL,
    subject bytea NOT NULL,
    workload text COLLATE "C" NOT NULL,
    target text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    issued_at int8 NOT NULL,
    expires_at int8 NOT NULL,
    due_at int8,
    owed_since int8,
    ended_at int8,
    tried bool NOT NULL,
    -- Who made the account and has to remove it; null where nothing of it is asked.
    maker text COLLATE "C",
    external_id text COLLATE "C",
    doc text COLLATE "C" NOT NULL,
    idem_key text COLLATE "C",
    -- Which broker wrote it last: what is due of it is that one's. No broker has the number 0.
    broker int4 NOT NULL DEFAULT 0,
    -- Checked at the end of a statement: one lease lets go of a key in the statement in which another takes it.
    CONSTRAINT leases_key UNIQUE (idem_key) DEFERRABLE INITIALLY IMMEDIATE
);
CREATE INDEX leases_due ON jit_broker.leases (broker, due_at, target) WHERE due_at IS NOT NULL;
CREATE INDEX leases_pending ON jit_broker.leases (issued_at) WHERE state = 'pending';
CREATE INDEX leases_account ON jit_broker.leases (account);
CREATE INDEX leases_live ON jit_broker.leases (id) WHERE state <> 'revoked';
CREATE INDEX leases_live_of ON jit_broker.leases (owner, target, subject) WHERE state <> 'revoked';
CREATE INDEX leases_live_in ON jit_broker.leases (target, state) WHERE state <> 'revoked';
CREATE INDEX leases_owner ON jit_broker.leases (owner, id);
CREATE INDEX leases_workload ON jit_broker.leases (workload, id);
CREATE INDEX leases_ended ON jit_broker.leases (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE jit_broker.verifiers (
    digest bytea NOT NULL PRIMARY KEY,
    lease text COLLATE "C" NOT NULL,
    used_at int8 NOT NULL
);
CREATE INDEX verifiers_used ON jit_broker.verifiers (used_at);

CREATE TABLE jit_broker.sealed (
    purpose text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (purpose, name)
);

CREATE TABLE jit_broker.usage (
    owner bytea NOT NULL,
    at int8 NOT NULL,
    target text COLLATE "C" NOT NULL,
    subject bytea NOT NULL,
    requests int8 NOT NULL,
    granted int8 NOT NULL,
    PRIMARY KEY (owner, at, target, subject)
);
CREATE INDEX usage_target ON jit_broker.usage (target, at);
CREATE INDEX usage_at ON jit_broker.usage (at);
CREATE TABLE jit_broker.usage_holds (
    request_id text COLLATE "C" NOT NULL PRIMARY KEY,
    until int8 NOT NULL,
    owner bytea NOT NULL,
    subject bytea NOT NULL,
    target text COLLATE "C" NOT NULL,
    at int8 NOT NULL,
    lease bool NOT NULL
);
CREATE INDEX usage_holds_until ON jit_broker.usage_holds (until);

CREATE TABLE jit_broker.audit (
    seq int8 NOT NULL,
    record text COLLATE "C" NOT NULL,
    leaf bytea NOT NULL,
    CONSTRAINT audit_seq PRIMARY KEY (seq)
);
-- The head of the log: one row. A transaction that adds records locks it, reads it, moves it, and commits.
CREATE TABLE jit_broker.head (
    one int4 NOT NULL PRIMARY KEY CHECK (one = 1),
    size int8 NOT NULL,
    note text COLLATE "C",
    nodes bytea NOT NULL,
    -- The newest checkpoint of the history: its size, and when it was taken.
    kept_size int8 NOT NULL,
    kept_at int8 NOT NULL
);
INSERT INTO jit_broker.head VALUES (1, 0, NULL, '', 0, 0);
CREATE TABLE jit_broker.checkpoint_history (
    size int8 NOT NULL PRIMARY KEY,
    taken_at int8 NOT NULL,
    note text COLLATE "C" NOT NULL
);
CREATE TABLE jit_broker.archived (
    one int4 NOT NULL PRIMARY KEY CHECK (one = 1),
    size int8 NOT NULL,
    nodes bytea NOT NULL
);
-- Against slips, not against attackers: those are found by the tree.
CREATE FUNCTION jit_broker.audit_is_append_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;
CREATE FUNCTION jit_broker.audit_lets_go_of_archived() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM gone WHERE seq >= coalesce((SELECT size FROM jit_broker.archived), 0)) THEN
        RAISE EXCEPTION 'the audit log is append-only';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_keeps_records AFTER DELETE ON jit_broker.audit REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION jit_broker.audit_lets_go_of_archived();
CREATE TRIGGER audit_changes_nothing BEFORE UPDATE OR TRUNCATE ON jit_broker.audit
    FOR EACH STATEMENT EXECUTE FUNCTION jit_broker.audit_is_append_only();

-- Transactions, by a random number that each of them writes: after a lost answer it says whether it was committed.
CREATE TABLE jit_broker.batches (
    id bytea NOT NULL PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX batches_at ON jit_broker.batches (at);

-- The brokers of the store. A transaction that writes checks that its broker's number has not ended.
CREATE TABLE jit_broker.brokers (
    number int4 NOT NULL PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When it last said that it is there, by this server's clock: for people.
    seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    beats int8 NOT NULL DEFAULT 0,
    -- Null while it serves; 'left' or 'fenced'.
    ended text COLLATE "C",
    config text COLLATE "C",
    exported int8
);
-- Work that one broker at a time does, by name. What a broker that has ended had is free.
CREATE TABLE jit_broker.claims (
    work text COLLATE "C" NOT NULL PRIMARY KEY,
    broker int4 NOT NULL
);
"#;

/// Why a database cannot be used as the store.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Made by a newer release that this one does not understand.
    #[error(
        "the store has version {found}, this release knows up to {}: use the release that wrote it, or a newer one",
        VERSION.major
    )]
    Newer {
        /// The first number of its version.
        found: i32,
    },
    /// The schema is not the broker's own.
    #[error(
        "the schema jit_broker belongs to the role {owner}: its owner can change the store behind the broker's \
         back. Give it to the broker's role: ALTER SCHEMA jit_broker OWNER TO …"
    )]
    Foreign {
        /// Who owns it.
        owner: String,
    },
    /// The schema is not there, and this role may not make it.
    #[error(
        "the database has no schema jit_broker, and the broker's role may not make it: \
         CREATE SCHEMA jit_broker AUTHORIZATION … as the database's owner"
    )]
    Missing,
    /// Something else has tables there.
    #[error("the schema jit_broker has tables of another program")]
    OtherTables,
    /// Another broker makes the tables, and takes too long.
    #[error("making the store's tables took longer than {} s", DEADLINE.as_secs())]
    Deadline,
    /// The database said no.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Makes the tables, or checks that those which are there are ours and understood, and brings them up to this
/// release's version, in one transaction under a lock.
pub(crate) async fn prepare(connection: &mut PgConnection) -> Result<(), SchemaError> {
    if check(connection).await?.is_some_and(|found| found >= VERSION) {
        return Ok(());
    }
    timeout(DEADLINE, bring_up(connection)).await.unwrap_or(Err(SchemaError::Deadline))
}

async fn bring_up(connection: &mut PgConnection) -> Result<(), SchemaError> {
    // Long enough to wait for another broker that does the same.
    let begin = format!(
        "BEGIN; SET LOCAL lock_timeout = 50000; SET LOCAL statement_timeout = 55000;
        SELECT pg_catalog.pg_advisory_xact_lock({})",
        locks::SCHEMA
    );
    connection.execute(sqlx::raw_sql(AssertSqlSafe(begin))).await?;
    // It may have done it.
    let found = check(connection).await?;
    let mut sql = String::new();
    if found.is_none() {
        let there: bool =
            sqlx::query_scalar("SELECT to_regnamespace('jit_broker') IS NOT NULL").fetch_one(&mut *connection).await?;
        if !there {
            sql.push_str("CREATE SCHEMA jit_broker;\n");
        }
        sql.push_str(
            "CREATE TABLE jit_broker.version (one int4 NOT NULL PRIMARY KEY CHECK (one = 1),
            major int4 NOT NULL, minor int4 NOT NULL);\n",
        );
    }
    let missing = STEPS.iter().filter(|(version, _)| found.is_none_or(|found| *version > found));
    sql.extend(missing.map(|(_, step)| *step));
    sql.push_str(&format!(
        "INSERT INTO jit_broker.version VALUES (1, {0}, {1})
            ON CONFLICT (one) DO UPDATE SET major = {0}, minor = {1}
            WHERE (version.major, version.minor) < ({0}, {1});
        COMMIT",
        VERSION.major, VERSION.minor
    ));
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    Ok(())
}

/// Gives the tables' version; none where there are none yet.
pub(crate) async fn check(connection: &mut PgConnection) -> Result<Option<Version>, SchemaError> {
    let statement = "SELECT s.nspowner::regrole::text, pg_has_role(s.nspowner, 'USAGE'),
            EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = s.oid AND c.relname = 'version'),
            EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = s.oid)
        FROM (SELECT 1) one LEFT JOIN pg_namespace s ON s.nspname = 'jit_broker'";
    let row = sqlx::query(statement).fetch_one(&mut *connection).await?;
    let Some(owner) = row.try_get::<Option<String>, _>(0)? else {
        let may = "SELECT has_database_privilege(current_database(), 'CREATE')";
        let may: bool = sqlx::query_scalar(may).fetch_one(&mut *connection).await?;
        return if may { Ok(None) } else { Err(SchemaError::Missing) };
    };
    let (ours, versioned, tables): (bool, bool, bool) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    match (ours, versioned, tables) {
        (false, ..) => Err(SchemaError::Foreign { owner }),
        (true, false, false) => Ok(None),
        (true, false, true) => Err(SchemaError::OtherTables),
        (true, true, _) => {
            let row = sqlx::query("SELECT major, minor FROM jit_broker.version").fetch_optional(connection).await?;
            let Some(row) = row else { return Err(SchemaError::OtherTables) };
            let found = Version { major: row.try_get(0)?, minor: row.try_get(1)? };
            if found.major > VERSION.major { Err(SchemaError::Newer { found: found.major }) } else { Ok(Some(found)) }
        }
    }
}
