//! BRAKE: what keeps accounts that the store does not know from being removed in numbers.
//!
//! - A store that is younger than the longest lease, or was set back, does not know accounts that are rightly
//!   there. Those run out by themselves; they are listed, reported and alerted of meanwhile. Once so much time
//!   has passed as the longest lease has, whatever the store does not know has no right to be there.
//! - More than a bound in one pass is more likely a mistake (another store, another prefix, a wrong list)
//!   than so many ghosts.
//!
//! An operator decides about both: `jit-broker reconcile --confirm`.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use jit_api::admin::{HeldAccount, TargetReport};
use jit_core::event::{AuditEvent, Braked, Event};
use parking_lot::Mutex;

use super::Pass;
use crate::birth::Birth;
use crate::ledger::Ledger;
use jit_core::brake::Bound;
use jit_ledger::{Change, StoreError};

/// The most accounts that an event names.
const NAMED: usize = 20;

/// An account of ours in a target that no living lease has.
#[derive(Debug, Clone)]
pub(super) struct Unknown {
    pub(super) name: String,
    /// Its own expiry in the target.
    pub(super) expires_at: Option<Timestamp>,
    /// A lease of this store had it and has ended, or it was made since this process began: it is this
    /// store's own.
    pub(super) ended_here: bool,
}

/// What a pass judges by.
pub(super) struct Ground<'g> {
    pub(super) birth: &'g Birth,
    /// The longest life of a lease.
    pub(super) longest: Duration,
    pub(super) now: Timestamp,
    pub(super) pass: Pass,
}

impl Ground<'_> {
    /// Until when accounts may live that were there at that moment; none when that is over.
    fn until(&self, since: Timestamp) -> Option<Timestamp> {
        Some(since.checked_add(self.longest).unwrap_or(Timestamp::MAX)).filter(|until| *until > self.now)
    }

    /// Says whether the store lacks leases that may still live, as far as that was noticed.
    pub(super) fn show(&self) {
        let set_back = self.birth.set_back.and_then(|since| self.until(since)).is_some();
        metrics::gauge!("jit_store_set_back").set(f64::from(u8::from(set_back)));
    }

    /// Why the store may not know accounts that are rightly there, and until when.
    fn blind(&self) -> Option<String> {
        let until = |since| self.until(since);
        if let Some(until) = self.birth.set_back.and_then(until) {
            return Some(format!(
                "the store was rolled back and does not know it; accounts from before may live until {until}"
            ));
        }
        let until = until(self.birth.since)?;
        Some(format!("the store is new and does not know it; accounts from before may live until {until}"))
    }

    /// Which of these accounts go; the others are held.
    pub(super) fn judge(&self, unknown: Vec<Unknown>, bound: usize, held: &mut Vec<HeldAccount>) -> Vec<String> {
        let (known, unknown): (Vec<_>, Vec<_>) = unknown.into_iter().partition(|account| account.ended_here);
        let mut ghosts: Vec<String> = known.into_iter().map(|account| account.name).collect();
        if self.pass == Pass::Confirmed {
            ghosts.extend(unknown.into_iter().map(|account| account.name));
            return ghosts;
        }
        let mut hold = |account: Unknown, reason: &str| {
            let Unknown { name, expires_at, .. } = account;
            held.push(HeldAccount { account: name, reason: reason.to_owned(), expires_at });
        };
        let mut sure = Vec::new();
        match self.blind() {
            None => sure = unknown,
            Some(reason) => {
                for account in unknown {
                    let over = account.expires_at.is_some_and(|at| at <= self.now);
                    if over { sure.push(account) } else { hold(account, &reason) }
                }
            }
        }
        if sure.len() > bound {
            let reason = format!("{} accounts without a lease at once, more than {bound}", sure.len());
            sure.into_iter().for_each(|account| hold(account, &reason));
        } else {
            ghosts.extend(sure.into_iter().map(|account| account.name));
        }
        ghosts
    }
}

/// What was told last of each target, so that each is told once.
#[derive(Debug)]
pub struct Brake {
    bound: Bound,
    told: Mutex<HashMap<String, Vec<String>>>,
}

impl Brake {
    /// With that bound.
    #[must_use]
    pub fn new(bound: Bound) -> Self {
        Self { bound, told: Mutex::default() }
    }

    /// The most of `listed` that one pass removes without asking.
    #[must_use]
    pub fn bound(&self, listed: usize) -> usize {
        self.bound.of(listed)
    }

    fn was_told(&self, target: &str, all: &[String]) -> bool {
        let told = self.told.lock();
        told.get(target).is_some_and(|told| told == all)
    }

    /// How many accounts and leases are held, as the last pass over each target found.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.told.lock().values().map(|held| held.len() as u64).sum()
    }

    /// Alerts of what a pass held, and puts it on record when it is something else than the last time; so it
    /// does with what an operator confirmed.
    pub(super) async fn tell(
        &self,
        ledger: &Ledger,
        ground: &Ground<'_>,
        found: &TargetReport,
    ) -> Result<(), StoreError> {
        let target = found.target.as_str();
        let braked = |names: &[String], leases: &[String]| Braked {
            accounts: names.len(),
            named: names.iter().take(NAMED).cloned().collect(),
            leases_without_account: leases.len(),
        };
        let event = |event: Event| {
            let target_db = Some(target.to_owned());
            AuditEvent { target_db, ..AuditEvent::new(event, ground.now) }
        };
        if ground.pass == Pass::Confirmed {
            let confirmed = event(Event::RemovalConfirmed(braked(&found.ghosts, &found.missing)));
            return ledger.commit(Change::record(confirmed)).await;
        }
        if ground.pass == Pass::Look {
            return Ok(());
        }
        let held: Vec<String> = found.held.iter().map(|held| held.account.clone()).collect();
        let gauge = metrics::gauge!("jit_removals_braked", "target" => target.to_owned());
        gauge.set((held.len() + found.held_leases.len()) as f64);
        let all: Vec<String> = held.iter().chain(&found.held_leases).cloned().collect();
        let reason = found.held.first().map_or_else(
            || format!("{} leases without an account at once", found.held_leases.len()),
            |held| held.reason.clone(),
        );
        if !all.is_empty() {
            tracing::error!(
                target,
                accounts = held.len(),
                leases = found.held_leases.len(),
                reason,
                "removals are braked: an operator decides with `jit-broker reconcile --confirm`; see \"Braked\" in docs/trouble.md"
            );
        }
        if !all.is_empty() && !self.was_told(target, &all) {
            let braked = event(Event::RemovalBraked(braked(&held, &found.held_leases))).with_error(reason);
            ledger.commit(Change::record(braked)).await?;
        }
        // Only now: what could not be recorded is recorded by the next pass.
        self.told.lock().insert(target.to_owned(), all);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn unknown(name: &str, expires_at: Option<i64>) -> Unknown {
        Unknown { name: name.to_owned(), expires_at: expires_at.map(at), ended_here: false }
    }

    fn judge(since: i64, set_back: Option<i64>, pass: Pass, unknown: Vec<Unknown>) -> (Vec<String>, Vec<HeldAccount>) {
        let birth = Birth { since: at(since), set_back: set_back.map(at), ..Birth::at(at(since)) };
        let ground = Ground { birth: &birth, longest: Duration::from_secs(3_600), now: at(0), pass };
        let mut held = Vec::new();
        (ground.judge(unknown, Bound::default().of(100), &mut held), held)
    }

    #[test]
    fn a_young_or_set_back_store_leaves_what_it_does_not_know_to_its_own_expiry() {
        let accounts = || {
            let ended = Unknown { ended_here: true, ..unknown("ended", Some(60)) };
            vec![unknown("over", Some(-1)), unknown("alive", Some(60)), unknown("endless", None), ended]
        };
        for (since, set_back) in [(-3_599, None), (-86_400, Some(-3_599))] {
            let (ghosts, held) = judge(since, set_back, Pass::Mend, accounts());
            assert_eq!(ghosts, ["ended", "over"]);
            let named: Vec<_> = held.iter().map(|held| (held.account.as_str(), held.expires_at)).collect();
            assert_eq!(named, [("alive", Some(at(60))), ("endless", None)]);
            assert_eq!(judge(since, set_back, Pass::Confirmed, accounts()).0.len(), 4);
        }
        // No lease from before can still be alive.
        assert_eq!(judge(-3_600, Some(-3_600), Pass::Mend, accounts()).0.len(), 4);
    }

    #[test]
    fn more_than_the_bound_goes_only_when_it_is_confirmed() {
        let many = |count: usize| (0..count).map(|i| unknown(&i.to_string(), None)).collect::<Vec<_>>();
        assert_eq!(judge(-86_400, None, Pass::Mend, many(10)).0.len(), 10);
        let (ghosts, held) = judge(-86_400, None, Pass::Mend, many(11));
        assert_eq!((ghosts.len(), held.len()), (0, 11));
        assert_eq!(judge(-86_400, None, Pass::Confirmed, many(11)).0.len(), 11);
        // What the store itself knows to have ended counts for nothing.
        let ended = many(30).into_iter().map(|account| Unknown { ended_here: true, ..account }).collect();
        assert_eq!(judge(-86_400, None, Pass::Mend, ended).0.len(), 30);
    }

    #[test]
    fn the_bound_is_a_share_a_number_and_at_least_a_handful() {
        let bound = Bound::default();
        assert_eq!([0, 40, 60, 100, 200, 100_000].map(|listed| bound.of(listed)), [5, 5, 6, 10, 20, 20]);
    }
}
