//! Targets whose backend names its accounts itself: compared by the backend's own handles.
//!
//! The host cannot know such a handle before the backend has answered. So one that no lease has is
//! at first only a suspect: its creation may still be under way, or its answer on the way to the
//! store. It is a ghost when it is seen again after the grace, and no lease that was intended
//! before it was first seen is still waiting for its answer.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use jit_api::admin::TargetReport;
use jit_core::driver::Lane;
use jit_core::lease::{Lease, LeaseState};
use jit_core::name::TargetName;
use parking_lot::Mutex;

use super::{Here, Lost, Pass, active_leases, brake, haunt, list};
use crate::target::Target;
use jit_ledger::{Store, StoreError};

/// The most suspects that are remembered; more are looked at when these are settled.
const MOST_SUSPECTS: usize = 100_000;
/// How long an answer may take from the backend into the store.
const SETTLING: Duration = Duration::from_secs(15);
/// Leases that wait for their answer, read at most.
const MOST_PENDING: usize = 1_000;

/// Which backend: the target, its driver and its connection.
type Backend = (TargetName, String, Option<String>);

fn backend(target: &Target) -> Backend {
    let made_by = target.driver_ref();
    (target.name.clone(), made_by.plugin, made_by.connection)
}

/// What the passes saw. Losing it costs another grace.
#[derive(Default)]
pub struct Listings {
    /// When the last complete listing began.
    began: Mutex<HashMap<Backend, Timestamp>>,
    /// Handles without a lease, and when they were seen first.
    suspects: Mutex<HashMap<Backend, HashMap<String, Timestamp>>>,
    /// Handles without a lease that were there already at the first listing of this process. What came later
    /// is of this broker's own making.
    inherited: Mutex<HashMap<Backend, HashSet<String>>>,
}

impl Listings {
    /// Whether the target's backend was listed, beginning at that time or later.
    #[must_use]
    pub fn since(&self, target: &Target, from: Timestamp) -> bool {
        let began = self.began.lock();
        began.get(&backend(target)).is_some_and(|began| *began >= from)
    }

    /// Every account of a listing that began then was dealt with: what no lease has is removed.
    fn dealt_with(&self, target: &Target, at: Timestamp) {
        self.began.lock().insert(backend(target), at);
    }

    /// Whether an account was there before this process, as far as it knows.
    fn is_inherited(&self, target: &Target, id: &str) -> bool {
        let inherited = self.inherited.lock();
        inherited.get(&backend(target)).is_none_or(|ids| ids.contains(id))
    }

    /// Notes a complete listing with the handles that no lease has; gives when each was seen first.
    fn note(&self, target: &Target, at: Timestamp, unknown: &[String]) -> Vec<(String, Timestamp)> {
        let place = backend(target);
        self.inherited.lock().entry(place.clone()).or_insert_with(|| unknown.iter().cloned().collect());
        let mut suspects = self.suspects.lock();
        let before = suspects.remove(&place).unwrap_or_default();
        // What is not there any more is forgotten with the rest of `before`.
        let now: HashMap<String, Timestamp> =
            unknown.iter().take(MOST_SUSPECTS).map(|id| (id.clone(), before.get(id).copied().unwrap_or(at))).collect();
        let seen = now.iter().map(|(id, first)| (id.clone(), *first)).collect();
        if !now.is_empty() {
            suspects.insert(place, now);
        }
        seen
    }
}

/// One pass over one target.
pub(super) async fn compare(
    here: &Here<'_>,
    ground: &brake::Ground<'_>,
    found: &mut TargetReport,
) -> Result<(), String> {
    let Here { flow, target, .. } = here;
    let failed = |error: StoreError| error.to_string();
    let began = flow.clock.now();
    let ids = list(target, &target.scope(Lane::Removal)).await?;
    found.accounts = ids.len();
    // In this order: a lease that is no longer waiting here has its handle in the store there.
    let oldest = oldest_pending(flow.ledger.store(), target).await.map_err(failed)?;
    let mut unknown: Vec<String> = ids.iter().cloned().collect();
    unknown.sort_unstable();
    let known: HashSet<String> =
        flow.ledger.store().known_external_ids(&unknown).await.map_err(failed)?.into_iter().collect();
    unknown.retain(|id| !known.contains(id));
    let mut ghosts = Vec::new();
    for (id, first_seen) in flow.listings.note(target, began, &unknown) {
        if is_ghost(first_seen, began, target.grace(), oldest) {
            // The backend's own expiry takes it out of the list.
            ghosts.push(brake::Unknown { name: id, expires_at: None, ended_here: false });
        } else {
            found.suspects += 1;
        }
    }
    let names: Vec<String> = ghosts.iter().map(|ghost| ghost.name.clone()).collect();
    let ended: HashSet<String> =
        flow.ledger.store().ended_external_ids(&names).await.map_err(failed)?.into_iter().collect();
    for ghost in &mut ghosts {
        ghost.ended_here = ended.contains(&ghost.name) || !flow.listings.is_inherited(target, &ghost.name);
    }
    for id in ground.judge(ghosts, flow.brake.bound(ids.len()), &mut found.held) {
        found.ghosts.push(id.clone());
        if ground.pass != Pass::Look {
            let most = target.driver.description().max_name_length;
            let account = target.prefix.generate(&flow.birth.mark, "ghost", most);
            haunt(here, account, Some(id)).await.map_err(failed)?;
        }
    }
    found.ghosts.sort_unstable();
    if found.held.is_empty() {
        // Else one that is held may be what a doubtful lease made.
        flow.listings.dealt_with(target, began);
    }
    let mut lost = Lost::default();
    let mut before = None;
    loop {
        let (leases, next) = active_leases(here, before).await.map_err(failed)?;
        for lease in leases {
            lost.looked_at += 1;
            let gone = lease.external_id.as_ref().is_some_and(|id| !ids.contains(id));
            // Made after the listing: then it may be there.
            if gone && lease.issued_at + target.grace() + SETTLING <= began {
                lost.leases.push(lease);
            }
        }
        if next.is_none() {
            return lost.close(here, ground, found).await.map_err(failed);
        }
        before = next;
    }
}

/// Whether a handle without a lease, seen first at `first_seen` and again by a pass that began at
/// `began`, is a ghost. `oldest` is when the oldest lease was asked for that waits for its answer.
fn is_ghost(first_seen: Timestamp, began: Timestamp, grace: Duration, oldest: Option<Timestamp>) -> bool {
    // A lease is asked for before its account can be seen. So one that was asked for later is not
    // whose account this is: a busy backend hides no ghost.
    let on_its_way = oldest.is_some_and(|oldest| oldest <= first_seen);
    !on_its_way && began >= first_seen + grace
}

/// When the oldest lease was asked for that still waits for the answer of this backend.
async fn oldest_pending(store: &dyn Store, target: &Target) -> Result<Option<Timestamp>, StoreError> {
    let made_by = target.driver_ref();
    let pending = store.pending(Timestamp::MAX, MOST_PENDING).await?;
    // Where there are more than were read, one of those may be older than what was found.
    let all_read = pending.len() < MOST_PENDING;
    let ours = |lease: &&Lease| {
        debug_assert_eq!(lease.state, LeaseState::Pending);
        !all_read || (lease.driver.plugin == made_by.plugin && lease.driver.connection == made_by.connection)
    };
    Ok(pending.iter().filter(ours).map(|lease| lease.issued_at).min())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_suspect_is_a_ghost_only_after_the_grace_and_when_nobody_waits_for_it() {
        let grace = Duration::from_secs(60);
        assert!(!is_ghost(at(0), at(0), grace, None), "seen once");
        assert!(!is_ghost(at(0), at(59), grace, None), "its answer may be under way");
        assert!(is_ghost(at(0), at(60), grace, None));
        assert!(!is_ghost(at(0), at(999), grace, Some(at(-5))), "its lease still waits");
        assert!(!is_ghost(at(0), at(999), grace, Some(at(0))), "asked for within the same second");
        assert!(is_ghost(at(0), at(60), grace, Some(at(1))), "later leases wait for other accounts");
    }
}
