//! Which targets are out of reach, as the calls to their drivers found: for the status, for a metric, and for a probe
//! that asks them again. No flow decides by it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jit_core::name::TargetName;
use jit_core::outcome::{Outcome, Refusal};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// After this number of calls in a row that reached nobody, a target counts as away: a single one may be an accident.
/// The first wakes the probe, whose call is the second.
const CALLS: u32 = 2;

/// What the calls of all targets found. It outlives a reload.
#[derive(Debug, Default)]
pub struct Reach {
    missed: Mutex<BTreeMap<TargetName, Missed>>,
    /// A target was missed for the first time.
    missed_one: Notify,
}

#[derive(Debug)]
struct Missed {
    calls: u32,
    since: Timestamp,
    reason: String,
}

/// A target that is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// Since the first call that reached nobody.
    pub since: Timestamp,
    /// Why the last one did not, in words for operators.
    pub reason: String,
}

impl Reach {
    /// Notes how a call ended that only a target which is there can have done. Gives the outcome back.
    pub fn noted<T>(&self, target: &TargetName, now: Timestamp, outcome: Outcome<T>) -> Outcome<T> {
        match &outcome {
            Outcome::Refused(Refusal::Unavailable { reason, answered: false, .. }) => self.misses(target, now, reason),
            // A mistake in the configuration, in the plugin or in what the caller sent can be found without asking the
            // target.
            Outcome::Refused(Refusal::Configuration(_) | Refusal::Plugin(_) | Refusal::Verifier(_))
            | Outcome::Unknown(_) => {}
            Outcome::Done(_) | Outcome::Refused(_) => self.reaches(target, now),
        }
        outcome
    }

    fn misses(&self, target: &TargetName, now: Timestamp, reason: &str) {
        let mut all = self.missed.lock();
        let new = || Missed { calls: 0, since: now, reason: String::new() };
        let missed = all.entry(target.clone()).or_insert_with(new);
        missed.calls = missed.calls.saturating_add(1);
        reason.clone_into(&mut missed.reason);
        if missed.calls == 1 {
            self.missed_one.notify_one();
        }
        if missed.calls == CALLS {
            metrics::gauge!("jit_target_away", "target" => target.to_string()).set(1.0);
            tracing::warn!(%target, reason, "the target is away: nothing is created there, and removals wait");
        }
    }

    fn reaches(&self, target: &TargetName, now: Timestamp) {
        let missed = self.missed.lock().remove(target);
        if let Some(missed) = missed.filter(|missed| missed.calls >= CALLS) {
            metrics::gauge!("jit_target_away", "target" => target.to_string()).set(0.0);
            let seconds = now.as_second().saturating_sub(missed.since.as_second());
            tracing::info!(%target, away_seconds = seconds, "the target is back");
        }
    }

    /// Whether the target was missed by the last call, once or more often.
    #[must_use]
    pub fn is_missed(&self, target: &TargetName) -> bool {
        self.missed.lock().contains_key(target)
    }

    /// Since when and why a target is away; none where it is not.
    #[must_use]
    pub fn away(&self, target: &TargetName) -> Option<Away> {
        let all = self.missed.lock();
        let missed = all.get(target).filter(|missed| missed.calls >= CALLS)?;
        Some(Away { since: missed.since, reason: missed.reason.clone() })
    }

    /// Waits until a target is missed that was not before.
    pub async fn first_miss(&self) {
        self.missed_one.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Outcome<()> {
        Outcome::Unknown("lost".to_owned())
    }

    fn gone(answered: bool) -> Outcome<()> {
        Outcome::Refused(Refusal::Unavailable { reason: "no route".to_owned(), answered, after_ms: None })
    }

    #[test]
    fn a_target_is_away_from_the_first_of_two_calls_that_reached_nobody() {
        let (reach, shop) = (Reach::default(), TargetName::new("shop").unwrap());
        let at = |second| Timestamp::from_second(second).unwrap();
        let _ = reach.noted(&shop, at(1), gone(false));
        assert!(reach.is_missed(&shop));
        assert_eq!(reach.away(&shop), None);
        for silent in [lost(), Outcome::Refused(Refusal::Configuration("x".to_owned()))] {
            let _ = reach.noted(&shop, at(2), silent);
        }
        let _ = reach.noted(&shop, at(3), gone(false));
        assert_eq!(reach.away(&shop), Some(Away { since: at(1), reason: "no route".to_owned() }));
        assert_eq!(reach.away(&TargetName::new("orders").unwrap()), None);
    }

    #[test]
    fn any_answer_brings_it_back() {
        let (reach, shop) = (Reach::default(), TargetName::new("shop").unwrap());
        for answer in [Outcome::Done(()), gone(true), Outcome::Refused(Refusal::Target("no".to_owned()))] {
            let _ = reach.noted(&shop, Timestamp::UNIX_EPOCH, gone(false));
            let _ = reach.noted(&shop, Timestamp::UNIX_EPOCH, gone(false));
            assert!(reach.away(&shop).is_some());
            let _ = reach.noted(&shop, Timestamp::UNIX_EPOCH, answer);
            assert!(reach.away(&shop).is_none() && !reach.is_missed(&shop));
        }
    }

    #[tokio::test]
    async fn the_first_miss_wakes_the_probe() {
        let (reach, shop) = (Reach::default(), TargetName::new("shop").unwrap());
        let _ = reach.noted(&shop, Timestamp::UNIX_EPOCH, gone(false));
        reach.first_miss().await;
        let _ = reach.noted(&shop, Timestamp::UNIX_EPOCH, gone(false));
        let again = tokio::time::timeout(std::time::Duration::from_millis(20), reach.first_miss()).await;
        assert!(again.is_err(), "the second miss wakes nobody");
    }
}
