//! The usage tables: what policies that decide by it want counted.
//!
//! Requests of one owner, and requests for one target, are counted one after the other, in whatever broker: a
//! transaction locks both before it counts, so each request sees another number. A request is held until a change
//! settles it, as a lease where it may become one; the lease is inserted in that same change, so it is never counted
//! twice and never not at all.

use std::collections::{BTreeMap, BTreeSet};

use jit_core::usage::{Scoped, Usage};
use jit_ledger::Counted;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::pool::Question;
use super::rows::{owner, subject};
use super::schema::locks;

/// How long a hold that is over is kept, in seconds: a renewal is granted only when its target has answered.
pub(crate) const KEEP_HOLDS: i64 = 900;

/// Of one request and each of its windows: the numbers without it. `$1` owner, `$2` subject, `$3` target, `$4` now,
/// `$5` the windows, `$6` the request; the row without a window has the live leases. A question without a subject
/// counts all that the name has. The last column says whether the request is not held yet.
///
/// For a target counts what was granted, and what is being decided: what was denied is its asker's own.
macro_rules! numbers {
    () => {
        "SELECT w,
            (SELECT coalesce(sum(requests), 0)::int8 FROM jit_broker.usage
                WHERE owner = $1 AND at > $4 - w AND ($2 = '' OR subject IN ('', $2))),
            (SELECT coalesce(sum(requests), 0)::int8 FROM jit_broker.usage
                WHERE owner = $1 AND at > $4 - w AND target = $3 AND ($2 = '' OR subject IN ('', $2))),
            (SELECT coalesce(sum(granted), 0)::int8 FROM jit_broker.usage WHERE target = $3 AND at > $4 - w)
                + (SELECT count(*) FROM jit_broker.usage_holds WHERE until > $4 AND at > $4 - w AND target = $3),
            NOT EXISTS (SELECT FROM jit_broker.usage_holds WHERE request_id = $6 AND until > $4)
        FROM unnest($5::int8[]) AS windows (w)
        UNION ALL SELECT NULL,
            (SELECT count(*) FROM jit_broker.leases
                WHERE state <> 'revoked' AND owner = $1 AND ($2 = '' OR subject IN ('', $2)))
                + (SELECT count(*) FROM jit_broker.usage_holds
                WHERE until > $4 AND lease AND owner = $1 AND ($2 = '' OR subject = $2)),
            (SELECT count(*) FROM jit_broker.leases
                WHERE state <> 'revoked' AND owner = $1 AND target = $3 AND ($2 = '' OR subject IN ('', $2)))
                + (SELECT count(*) FROM jit_broker.usage_holds
                WHERE until > $4 AND lease AND owner = $1 AND target = $3 AND ($2 = '' OR subject = $2)),
            (SELECT count(*) FROM jit_broker.leases WHERE state <> 'revoked' AND target = $3)
                + (SELECT count(*) FROM jit_broker.usage_holds WHERE until > $4 AND lease AND target = $3),
            NOT EXISTS (SELECT FROM jit_broker.usage_holds WHERE request_id = $6 AND until > $4)"
    };
}

const NUMBERS: &str = numbers!();
/// Counts the request, and tells the numbers as they were before it: one statement sees one state.
const COUNT: &str = concat!(
    "WITH counted AS (INSERT INTO jit_broker.usage AS u (owner, at, target, subject, requests, granted)
            VALUES ($1, $4, $3, $2, 1, 0)
            ON CONFLICT (owner, at, target, subject) DO UPDATE SET requests = u.requests + 1),
        held AS (INSERT INTO jit_broker.usage_holds (request_id, until, owner, subject, target, at, lease)
            VALUES ($6, $7, $1, $2, $3, $4, $8) ON CONFLICT (request_id) DO UPDATE SET until = excluded.until) ",
    numbers!()
);

/// Locks all whose requests are counted, until the transaction ends; in one order, so that no two wait for each other.
pub(crate) async fn lock(connection: &mut PgConnection, requests: &[&Counted]) -> Result<(), sqlx::Error> {
    let mut keys = BTreeSet::new();
    for request in requests {
        keys.insert(key(b"owner", &owner(&request.principal)));
        keys.insert(key(b"target", request.target.as_str().as_bytes()));
    }
    let statement =
        "SELECT count(*) FROM (SELECT pg_advisory_xact_lock($1, k) FROM unnest($2::int4[]) AS keys (k)) locked";
    let keys: Vec<i32> = keys.into_iter().collect();
    sqlx::query(statement).bind(locks::COUNTED).bind(keys).execute(connection).await.map(drop)
}

/// Two that have the same key by chance only wait for each other.
fn key(kind: &[u8], of: &[u8]) -> i32 {
    let digest = Sha256::new().chain_update(kind).chain_update(of).finalize();
    i32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Counts the request, within the caller's transaction, which has [`lock`]ed it.
pub(crate) async fn count(connection: &mut PgConnection, request: &Counted) -> Result<Usage, sqlx::Error> {
    let until = request.at.as_second().saturating_add(i64::try_from(Counted::HOLD.as_secs()).unwrap_or(i64::MAX));
    let rows = question(COUNT, request).bind(until).bind(request.holds).fetch_all(connection).await?;
    let (usage, new) = usage(&rows)?;
    Ok(with(usage, new, new && request.holds))
}

/// What counting it would say now: asked of [`NUMBERS`].
pub(crate) fn ask(request: &Counted) -> Question<'_> {
    question(NUMBERS, request)
}

/// The answer to [`ask`].
pub(crate) fn usage_of(rows: &[PgRow], request: &Counted) -> Result<Usage, sqlx::Error> {
    let (usage, _) = usage(rows)?;
    Ok(if request.again { usage } else { with(usage, true, request.holds) })
}

fn question<'q>(statement: &'static str, request: &'q Counted) -> Question<'q> {
    let windows: Vec<i64> = request.windows.iter().map(|w| i64::try_from(*w).unwrap_or(i64::MAX)).collect();
    sqlx::query(statement)
        .bind(owner(&request.principal))
        .bind(subject(&request.principal))
        .bind(request.target.as_str())
        .bind(request.at.as_second())
        .bind(windows)
        .bind(request.request_id.as_str())
}

/// The numbers with the request itself: for its asker, for its target where it was not held before, and as a lease.
fn with(usage: Usage, target: bool, lease: bool) -> Usage {
    let more = |counts: Scoped| Scoped {
        workload: counts.workload + 1,
        workload_target: counts.workload_target + 1,
        target: counts.target + u64::from(target),
    };
    let requests = usage.requests.into_iter().map(|(window, counts)| (window, more(counts))).collect();
    Usage { requests, leases: usage.leases.plus(u64::from(lease)) }
}

/// The numbers, and whether the request is not held yet.
fn usage(rows: &[PgRow]) -> Result<(Usage, bool), sqlx::Error> {
    let mut usage = Usage { requests: BTreeMap::new(), leases: Scoped::default() };
    let mut new = true;
    for row in rows {
        let number = |at: usize| row.try_get::<i64, _>(at).map(i64::unsigned_abs);
        let counts = Scoped { workload: number(1)?, workload_target: number(2)?, target: number(3)? };
        new = row.try_get(4)?;
        match row.try_get::<Option<i64>, _>(0)? {
            Some(window) => {
                usage.requests.insert(window.unsigned_abs(), counts);
            }
            None => usage.leases = counts,
        }
    }
    Ok((usage, new))
}
