//! The usage tables: what policies that decide by it want counted.
//!
//! Counting is a write of its own, in the one task that writes: requests come one after the other, so
//! each sees another number. A request is held until a change settles it, as a lease where it may become one;
//! the lease is inserted in that same change, so it is never counted twice and never not at all.

use std::collections::BTreeMap;

use jit_core::usage::{Scoped, Usage};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row as _, SqliteExecutor};

use jit_ledger::Counted;
use jit_ledger::columns::column;

/// Of one request and each of its windows: the numbers. `?1` issuer, `?2` workload, `?3` target, `?4` now,
/// `?5` the windows as a JSON array, `?6` the subject; the row without a window has the live leases. What has
/// no subject is of an earlier release and counts for the name; a question without one counts all of it.
///
/// For a target counts what was granted, and what is being decided: what was denied is its asker's own.
const NUMBERS: &str = "
    SELECT value,
        (SELECT coalesce(sum(requests), 0) FROM usage
            WHERE issuer = ?1 AND workload = ?2 AND at > ?4 - value AND (?6 = '' OR subject IN ('', ?6))),
        (SELECT coalesce(sum(requests), 0) FROM usage
            WHERE issuer = ?1 AND workload = ?2 AND at > ?4 - value AND target = ?3 AND (?6 = '' OR subject IN ('', ?6))),
        (SELECT coalesce(sum(granted), 0) FROM usage WHERE target = ?3 AND at > ?4 - value)
            + (SELECT count(*) FROM usage_holds WHERE until > ?4 AND at > ?4 - value AND target = ?3)
    FROM json_each(?5)
    UNION ALL SELECT NULL,
        (SELECT count(*) FROM leases
            WHERE state <> 'revoked' AND issuer = ?1 AND workload = ?2 AND (?6 = '' OR subject IN ('', ?6)))
            + (SELECT count(*) FROM usage_holds
            WHERE until > ?4 AND lease AND issuer = ?1 AND workload = ?2 AND (?6 = '' OR subject = ?6)),
        (SELECT count(*) FROM leases
            WHERE state <> 'revoked' AND issuer = ?1 AND workload = ?2 AND target = ?3 AND (?6 = '' OR subject IN ('', ?6)))
            + (SELECT count(*) FROM usage_holds
            WHERE until > ?4 AND lease AND issuer = ?1 AND workload = ?2 AND target = ?3 AND (?6 = '' OR subject = ?6)),
        (SELECT count(*) FROM leases WHERE state <> 'revoked' AND target = ?3)
            + (SELECT count(*) FROM usage_holds WHERE until > ?4 AND lease AND target = ?3)";

/// How long a hold that is over is kept, in seconds: a renewal is granted only when its target has answered.
const KEEP_HOLDS: i64 = 900;

/// Counts the request, within the caller's transaction.
pub(super) async fn count(connection: &mut SqliteConnection, request: &Counted) -> Result<Usage, sqlx::Error> {
    let principal = &request.principal;
    let now = request.at.as_second();
    let add =
        "INSERT INTO usage (issuer, workload, subject, at, target, requests, granted) VALUES (?, ?, ?, ?, ?, 1, 0)
        ON CONFLICT DO UPDATE SET requests = requests + 1";
    sqlx::query(add)
        .bind(column(&principal.issuer))
        .bind(column(&principal.workload))
        .bind(column(&principal.subject))
        .bind(now)
        .bind(request.target.as_str())
        .execute(&mut *connection)
        .await?;
    let hold = "INSERT INTO usage_holds (request_id, until, issuer, workload, subject, target, at, lease)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET until = excluded.until";
    sqlx::query(hold)
        .bind(request.request_id.as_str())
        .bind(now.saturating_add(i64::try_from(Counted::HOLD.as_secs()).unwrap_or(i64::MAX)))
        .bind(column(&principal.issuer))
        .bind(column(&principal.workload))
        .bind(column(&principal.subject))
        .bind(request.target.as_str())
        .bind(now)
        .bind(request.holds)
        .execute(&mut *connection)
        .await?;
    numbers(connection, request).await
}

/// What counting it would say now.
pub(super) async fn peek(executor: impl SqliteExecutor<'_>, request: &Counted) -> Result<Usage, sqlx::Error> {
    let usage = numbers(executor, request).await?;
    if request.again {
        return Ok(usage);
    }
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
        .bind(column(&request.principal.subject))
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

/// Forgets what was counted before that second, and holds that nobody settled.
pub(super) async fn forget(connection: &mut SqliteConnection, before: i64, now: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM usage WHERE at < ?").bind(before).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM usage_holds WHERE until <= ?").bind(now - KEEP_HOLDS).execute(connection).await?;
    Ok(())
}
