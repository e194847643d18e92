//! The usage tables: what policies that decide by it want counted.
//!
//! Counting is a write of its own, in the one task that writes: requests come one after the other, so
//! each sees another number. A request that may become a lease is held as one until a change settles
//! it; the lease is inserted in that same change, so it is never counted twice and never not at all.

use std::collections::BTreeMap;

use jit_core::usage::{Scoped, Usage};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row as _, SqliteExecutor};

use super::Counted;
use super::rows::column;

/// Of one request and each of its windows: the numbers. `?1` issuer, `?2` workload, `?3` target, `?4` now,
/// `?5` the windows as a JSON array; the row without a window has the live leases.
const NUMBERS: &str = "
    SELECT value,
        (SELECT coalesce(sum(requests), 0) FROM usage WHERE issuer = ?1 AND workload = ?2 AND at > ?4 - value),
        (SELECT coalesce(sum(requests), 0) FROM usage
            WHERE issuer = ?1 AND workload = ?2 AND at > ?4 - value AND target = ?3),
        (SELECT coalesce(sum(requests), 0) FROM usage WHERE target = ?3 AND at > ?4 - value)
    FROM json_each(?5)
    UNION ALL SELECT NULL,
        (SELECT count(*) FROM leases WHERE state <> 'revoked' AND issuer = ?1 AND workload = ?2)
            + (SELECT count(*) FROM usage_holds WHERE until > ?4 AND issuer = ?1 AND workload = ?2),
        (SELECT count(*) FROM leases WHERE state <> 'revoked' AND issuer = ?1 AND workload = ?2 AND target = ?3)
            + (SELECT count(*) FROM usage_holds WHERE until > ?4 AND issuer = ?1 AND workload = ?2 AND target = ?3),
        (SELECT count(*) FROM leases WHERE state <> 'revoked' AND target = ?3)
            + (SELECT count(*) FROM usage_holds WHERE until > ?4 AND target = ?3)";

/// Counts the request, within the caller's transaction.
pub(super) async fn count(connection: &mut SqliteConnection, request: &Counted) -> Result<Usage, sqlx::Error> {
    let principal = &request.principal;
    let now = request.at.as_second();
    let add = "INSERT INTO usage (issuer, workload, at, target, requests) VALUES (?, ?, ?, ?, 1)
        ON CONFLICT DO UPDATE SET requests = requests + 1";
    sqlx::query(add)
        .bind(column(&principal.issuer))
        .bind(column(&principal.workload))
        .bind(now)
        .bind(request.target.as_str())
        .execute(&mut *connection)
        .await?;
    if request.holds {
        let hold = "INSERT INTO usage_holds (request_id, until, issuer, workload, target) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT DO UPDATE SET until = excluded.until";
        sqlx::query(hold)
            .bind(request.request_id.as_str())
            .bind(now.saturating_add(i64::try_from(Counted::HOLD.as_secs()).unwrap_or(i64::MAX)))
            .bind(column(&principal.issuer))
            .bind(column(&principal.workload))
            .bind(request.target.as_str())
            .execute(&mut *connection)
            .await?;
    }
    numbers(connection, request).await
}

/// What counting it would say now.
pub(super) async fn peek(executor: impl SqliteExecutor<'_>, request: &Counted) -> Result<Usage, sqlx::Error> {
    let usage = numbers(executor, request).await?;
    let requests = usage.requests.into_iter().map(|(window, counts)| (window, counts.plus(1))).collect();
    Ok(Usage { requests, leases: usage.leases.plus(u64::from(request.holds)) })
}

async fn numbers(executor: impl SqliteExecutor<'_>, request: &Counted) -> Result<Usage, sqlx::Error> {
    let rows = sqlx::query(NUMBERS)
        .bind(column(&request.principal.issuer))
        .bind(column(&request.principal.workload))
        .bind(request.target.as_str())
        .bind(request.at.as_second())
        .bind(serde_json::json!(request.windows).to_string())
        .fetch_all(executor)
        .await?;
    let mut usage = Usage { requests: BTreeMap::new(), leases: Scoped::default() };
    for row in rows {
        let number = |at: usize| row.try_get::<i64, _>(at).map(i64::unsigned_abs);
        let counts = Scoped { workload: number(1)?, workload_target: number(2)?, target: number(3)? };
        match row.try_get::<Option<i64>, _>(0)? {
            Some(window) => {
                usage.requests.insert(window.unsigned_abs(), counts);
            }
            None => usage.leases = counts,
        }
    }
    Ok(usage)
}

/// What was counted before that second, and holds that nobody settled.
pub(super) async fn forget(connection: &mut SqliteConnection, before: i64, now: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM usage WHERE at < ?").bind(before).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM usage_holds WHERE until <= ?").bind(now).execute(connection).await?;
    Ok(())
}
