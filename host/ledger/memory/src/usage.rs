//! What policies want counted.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use jit_core::lease::{Lease, LeaseState};
use jit_core::name::{Principal, TargetName};
use jit_core::usage::{Scoped, Usage};
use jit_ledger::{Counted, Settled};

/// How long a hold that is over is kept: a renewal is granted only when its target has answered.
const KEEP_HOLDS: Duration = Duration::from_secs(900);

/// One request that was counted.
struct Request {
    principal: Principal,
    target: TargetName,
    /// In seconds since the Unix epoch.
    at: i64,
    /// Whether it got what it asked for; what is undecided or denied does not count for its target.
    granted: bool,
}

/// A request that is not decided yet.
struct Hold {
    principal: Principal,
    target: TargetName,
    at: i64,
    until: i64,
    /// Whether it may become a lease.
    lease: bool,
    /// Where its request stands in the table.
    request: usize,
}

/// The requests and the holds.
#[derive(Default)]
pub(crate) struct UsageTable {
    requests: BTreeMap<usize, Request>,
    next: usize,
    holds: HashMap<String, Hold>,
    /// The time of the newest request, in seconds.
    newest: i64,
}

/// Whether something of `owner` counts when `asker` asks. Without a subject the question is about all that have
/// the name.
fn counts_for(asker: &Principal, owner: &Principal) -> bool {
    let same_name = asker.issuer == owner.issuer && asker.workload == owner.workload;
    same_name && (asker.subject.is_empty() || owner.subject.is_empty() || asker.subject == owner.subject)
}

impl UsageTable {
    pub(crate) fn count(&mut self, request: &Counted) {
        let Counted { principal, target, .. } = request;
        let at = request.at.as_second();
        self.newest = self.newest.max(at);
        let place = self.next;
        self.next += 1;
        let counted = Request { principal: principal.clone(), target: target.clone(), at, granted: false };
        self.requests.insert(place, counted);
        let until = at.saturating_add(Counted::HOLD.as_secs().cast_signed());
        let hold = self.holds.entry(request.request_id.to_string()).or_insert_with(|| Hold {
            principal: principal.clone(),
            target: target.clone(),
            at,
            until,
            lease: request.holds,
            request: place,
        });
        hold.until = until;
    }

    pub(crate) fn settle(&mut self, settled: &Settled) {
        let Some(hold) = self.holds.remove(settled.request_id.as_str()) else { return };
        if settled.granted
            && let Some(request) = self.requests.get_mut(&hold.request)
        {
            request.granted = true;
        }
    }

    pub(crate) fn peek<'l>(&self, request: &Counted, leases: impl Iterator<Item = &'l Lease>) -> Usage {
        let usage = self.numbers(request, leases);
        if request.again {
            return usage;
        }
        let requests = usage.requests.into_iter().map(|(window, counts)| (window, counts.plus(1))).collect();
        Usage { requests, leases: usage.leases.plus(u64::from(request.holds)) }
    }

    pub(crate) fn numbers<'l>(&self, asked: &Counted, leases: impl Iterator<Item = &'l Lease>) -> Usage {
        let now = asked.at.as_second();
        let mut usage = Usage::default();
        for window in &asked.windows {
            let since = now.saturating_sub(i64::try_from(*window).unwrap_or(i64::MAX));
            let mut counts = Scoped::default();
            for request in self.requests.values().filter(|request| request.at > since) {
                let here = request.target == asked.target;
                let own = counts_for(&asked.principal, &request.principal);
                counts.workload += u64::from(own);
                counts.workload_target += u64::from(own && here);
                counts.target += u64::from(request.granted && here);
            }
            let held = |hold: &&Hold| hold.until > now && hold.at > since && hold.target == asked.target;
            counts.target += self.holds.values().filter(held).count() as u64;
            usage.requests.insert(*window, counts);
        }
        let live = leases.filter(|lease| lease.state != LeaseState::Revoked);
        let live = live.map(|lease| (&lease.principal, &lease.target));
        let held = self.holds.values().filter(|hold| hold.lease && hold.until > now);
        for (principal, target) in live.chain(held.map(|hold| (&hold.principal, &hold.target))) {
            let here = *target == asked.target;
            let own = counts_for(&asked.principal, principal);
            usage.leases.workload += u64::from(own);
            usage.leases.workload_target += u64::from(own && here);
            usage.leases.target += u64::from(here);
        }
        usage
    }

    pub(crate) fn forget(&mut self, before: Timestamp) {
        let before = before.as_second();
        self.requests.retain(|_, request| request.at >= before);
        let over = self.newest.saturating_sub(KEEP_HOLDS.as_secs().cast_signed());
        self.holds.retain(|_, hold| hold.until > over);
    }
}
