//! The one action of an incident: an operator ends all leases of a workload, an issuer, a target or a plugin. A request
//! reads and ends a bounded number; the caller repeats it with the cursor of its reply. Each end is durable by itself,
//! so a caller that begins again continues with what is left.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jit_api::admin::{RevokeMany, RevokedIn, RevokedMany};
use jit_core::event::{AuditEvent, Event, Plain};
use jit_core::id::LeaseId;
use jit_core::lease::{EndedBy, Lease, LeaseState};
use jit_core::name::TargetName;
use jit_core::operator::Operator;
use jit_ledger::{LeaseFilter, StoreError};

use crate::end::begin_by;
use crate::refusal::Refused;
use crate::revoke::{RECORDING, RevokeFlow};
use crate::trace::carried;

/// The most leases that one request ends.
pub const MOST_AT_ONCE: usize = 1_000;
/// The most leases that one request reads: those of other issuers and plugins are passed over after they were read.
const MOST_READ: usize = 5_000;
/// Leases of a page.
const PAGE: usize = 500;
/// The longest name that is compared, in bytes.
const MOST_NAME: usize = 4_096;

/// Which leases are meant, checked.
struct Matching {
    asked: RevokeMany,
    target: Option<TargetName>,
    before: Option<LeaseId>,
}

/// How a lease stands after its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Ended { standing: bool },
    Ending,
    Pending,
    Over,
}

/// Ends leases, or counts them, as one of the broker's tasks: a caller that goes away does not cut it off. It does not
/// wait until their accounts are gone.
///
/// # Errors
/// [`Refused::InvalidRequest`] for a request that narrows nothing or has no sound value. When the end of one lease
/// could not be recorded: others may have ended.
pub async fn revoke_many(
    flow: &Arc<RevokeFlow>,
    asked: RevokeMany,
    operator: Operator,
) -> Result<RevokedMany, Refused> {
    let matching = Matching::check(asked)?;
    let owned = Arc::clone(flow);
    let work = flow.work.spawn(carried(async move {
        let done = walk(&owned, matching, operator).await;
        // Also when it failed: some are on record.
        owned.wake.removal.notify_one();
        done
    }));
    work.await.unwrap_or(Err(Refused::Overloaded))
}

impl Matching {
    fn check(asked: RevokeMany) -> Result<Self, Refused> {
        let named = [
            ("workload", &asked.workload),
            ("issuer", &asked.issuer),
            ("target", &asked.target),
            ("plugin", &asked.plugin),
        ];
        if named.iter().all(|(_, name)| name.is_none()) {
            return Err(Refused::field("workload", "one of workload, issuer, target and plugin must be given"));
        }
        for (field, name) in named {
            if name.as_ref().is_some_and(|name| name.is_empty() || name.len() > MOST_NAME) {
                return Err(Refused::field(field, format!("{field} must have 1 to {MOST_NAME} bytes")));
            }
        }
        if !(1..=MOST_AT_ONCE).contains(&asked.limit) {
            return Err(Refused::field("limit", format!("limit must be 1 to {MOST_AT_ONCE}")));
        }
        let target = asked.target.clone().map(TargetName::new).transpose();
        let target = target.map_err(|error| Refused::field("target", format!("target {error}")))?;
        let before = asked.cursor.as_deref().map(str::parse).transpose();
        let before =
            before.map_err(|_| Refused::field("cursor", "cursor must be a next_cursor of an earlier request"))?;
        Ok(Self { asked, target, before })
    }

    /// The store compares copies of some names, in which characters may stand for others; the lease itself decides.
    fn is_meant(&self, lease: &Lease) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        same(&self.asked.workload, &lease.principal.workload)
            && same(&self.asked.issuer, &lease.principal.issuer)
            && same(&self.asked.target, lease.target.as_str())
            && same(&self.asked.plugin, &lease.driver.plugin)
    }

    fn page(&self, before: Option<LeaseId>) -> LeaseFilter {
        LeaseFilter {
            target: self.target.clone(),
            workload: self.asked.workload.clone(),
            ended: Some(false),
            before,
            limit: PAGE,
            ..LeaseFilter::default()
        }
    }
}

async fn walk(flow: &RevokeFlow, matching: Matching, operator: Operator) -> Result<RevokedMany, Refused> {
    let mut done = RevokedMany::default();
    let mut cursor = matching.before.clone();
    let (mut left, mut read) = (matching.asked.limit, 0);
    while left > 0 && read < MOST_READ {
        let page = flow.ledger.store().leases(&matching.page(cursor.clone())).await?;
        // A short page may have left out a lease that cannot be read: only an empty one is the end.
        if page.is_empty() {
            return Ok(done);
        }
        read += page.len();
        let mut turn = Vec::new();
        for lease in page {
            if left == 0 {
                break;
            }
            cursor = Some(lease.id.clone());
            if matching.is_meant(&lease) {
                left -= usize::from(lease.state == LeaseState::Active);
                turn.push(lease);
            }
        }
        let dry = matching.asked.dry_run;
        let turns: Vec<(TargetName, Turn)> = stream::iter(turn)
            .map(async |lease| {
                let target = lease.target.clone();
                let turn = if dry { Ok(standing_of(&lease)) } else { end(flow, lease, operator).await };
                turn.map(|turn| (target, turn))
            })
            .buffered(RECORDING)
            .try_collect()
            .await?;
        for (target, turn) in turns {
            count(&mut done, &target, turn);
        }
    }
    done.next_cursor = cursor.map(|id| id.to_string());
    Ok(done)
}

fn count(done: &mut RevokedMany, target: &TargetName, turn: Turn) {
    let one = match turn {
        Turn::Ended { standing } => RevokedIn { ended: 1, standing: u64::from(standing), ..RevokedIn::default() },
        Turn::Ending => RevokedIn { ending: 1, ..RevokedIn::default() },
        Turn::Pending => RevokedIn { pending: 1, ..RevokedIn::default() },
        Turn::Over => return,
    };
    done.targets.entry(target.to_string()).or_default().add(one);
}

/// How a lease stands before its turn: one that is active is to be ended.
fn standing_of(lease: &Lease) -> Turn {
    match lease.state {
        LeaseState::Active => Turn::Ended { standing: lease.standing || lease.rotating.is_some() },
        LeaseState::Revoking | LeaseState::Doubtful => Turn::Ending,
        LeaseState::Pending => Turn::Pending,
        LeaseState::Revoked => Turn::Over,
    }
}

/// Puts a lease's end on record, with who asked for it, in one change.
async fn end(flow: &RevokeFlow, mut lease: Lease, operator: Operator) -> Result<Turn, Refused> {
    let mut turn = standing_of(&lease);
    // Somebody else's step in between is read again; a few times is more than enough.
    for _ in 0..4 {
        if lease.state != LeaseState::Active {
            return Ok(turn);
        }
        let now = flow.removal.end.clock.now();
        let asked = AuditEvent::of_lease(Event::AdminRevoke(Plain {}), now, &lease).by(operator);
        match begin_by(&flow.removal.end, &lease, EndedBy::Operator(operator), vec![asked]).await {
            Ok(_) => return Ok(turn),
            Err(StoreError::Stale(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(stored) = flow.ledger.store().lease(&lease.id).await? else { return Ok(Turn::Over) };
        lease = stored;
        turn = standing_of(&lease);
    }
    // It is renewed as fast as it is ended: another request tries again.
    Ok(Turn::Pending)
}
