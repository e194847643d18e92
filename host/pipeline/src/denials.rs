//! What a workload is denied is on record, and nobody fills the disk with it.
//!
//! Each owner has a budget of denials that are recorded in full: a burst, and then one each few seconds. So has
//! everybody together. Beyond it denials are counted, and every few seconds one record for each owner and reason
//! says how many there were ([`Denials::take`]): what was asked last, its input by digest. A denial within the
//! budget is durable before its caller hears it; one beyond it is durable with the next such record, and a crash
//! in between loses that count.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::ports::{Clock as _, SystemClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use jit_core::event::{AuditEvent, Basis, CountedDenials, Decided, Denied, Event, ShadowDiff};
use jit_core::name::Principal;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// The most owners and reasons that are counted apart; what is beyond them is counted together.
const MOST_APART: usize = 1_000;
/// The longest text of an error or reason in a record that counts.
const MOST_TEXT: usize = 256;

/// How many denials are recorded in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenialBudget {
    /// Of one owner, at once.
    pub burst: NonZeroU32,
    /// Then one in that time.
    pub every: Duration,
}

impl Default for DenialBudget {
    fn default() -> Self {
        Self { burst: NonZeroU32::new(60).unwrap_or(NonZeroU32::MIN), every: Duration::from_secs(10) }
    }
}

/// Everybody together may have so many times the budget of one.
const OWNERS: u32 = 50;

/// Whose denials are counted together: owner, event, and who said no.
type Key = (Principal, &'static str, String);

struct Counted {
    count: u64,
    since: Timestamp,
    last: AuditEvent,
}

/// The budgets, and what was denied beyond them.
pub struct Denials {
    own: DefaultKeyedRateLimiter<Principal>,
    all: DefaultDirectRateLimiter,
    beyond: Mutex<HashMap<Key, Counted>>,
    /// Records of counts that could not be written yet.
    owed: Mutex<Vec<AuditEvent>>,
    /// The disk has little room: nothing is recorded in full.
    brief: AtomicBool,
}

impl Default for Denials {
    fn default() -> Self {
        Self::new(DenialBudget::default())
    }
}

impl Denials {
    /// With that budget for each owner.
    #[must_use]
    pub fn new(budget: DenialBudget) -> Self {
        let quota = |every: Duration, burst: NonZeroU32| {
            Quota::with_period(every.max(Duration::from_millis(1)))
                .map_or(Quota::per_second(burst), |quota| quota.allow_burst(burst))
        };
        let owners = NonZeroU32::new(OWNERS).unwrap_or(NonZeroU32::MIN);
        Self {
            own: RateLimiter::keyed(quota(budget.every, budget.burst)),
            all: RateLimiter::direct(quota(budget.every / OWNERS, budget.burst.saturating_mul(owners))),
            beyond: Mutex::default(),
            owed: Mutex::default(),
            brief: AtomicBool::new(false),
        }
    }

    /// Whether denials are only counted from now on, because the disk has little room.
    pub fn be_brief(&self, brief: bool) {
        self.brief.store(brief, Ordering::Relaxed);
    }

    /// The records of one denial, within the budget as they are; beyond it none, and they are counted.
    pub fn admit(&self, owner: &Principal, events: Vec<AuditEvent>) -> Vec<AuditEvent> {
        let full = !self.brief.load(Ordering::Relaxed) && self.own.check_key(owner).is_ok() && self.all.check().is_ok();
        if full {
            return events;
        }
        let mut beyond = self.beyond.lock();
        for event in events {
            metrics::counter!("jit_denials_counted_total").increment(1);
            let by = denied_by(&event.event).unwrap_or_default();
            let mut key = (owner.clone(), event.event.word(), by.to_owned());
            if beyond.len() >= MOST_APART && !beyond.contains_key(&key) {
                key = (everybody(), event.event.word(), String::new());
            }
            let since = event.timestamp;
            let counted = beyond.entry(key).or_insert_with(|| Counted { count: 0, since, last: event.clone() });
            counted.count += 1;
            counted.last = event;
        }
        Vec::new()
    }

    /// One record for each owner and reason that was counted since the last time.
    #[must_use]
    pub fn take(&self) -> Vec<AuditEvent> {
        let beyond = std::mem::take(&mut *self.beyond.lock());
        let mut events = std::mem::take(&mut *self.owed.lock());
        events.extend(beyond.into_iter().map(|((owner, ..), counted)| summary(owner, counted)));
        events
    }

    /// Keeps records that could not be written, to a bound: they are small, but a store may be away for days.
    pub fn put_back(&self, events: Vec<AuditEvent>) {
        let mut owed = self.owed.lock();
        owed.extend(events);
        owed.truncate(10 * MOST_APART);
    }

    /// Forgets owners that are quiet.
    pub fn sweep(&self) {
        self.own.retain_recent();
    }
}

/// Who said no: a policy, or the broker by its code.
fn denied_by(event: &Event) -> Option<&str> {
    match event {
        Event::IssueDenied(denied) | Event::RenewDenied(denied) => denied.by.as_ref().map(|by| by.as_str()),
        Event::ShadowDiff(diff) => Some(&diff.policy),
        _ => None,
    }
}

/// Whose denials are no longer told apart.
fn everybody() -> Principal {
    Principal { issuer: "*".to_owned(), workload: "*".to_owned(), subject: "*".to_owned() }
}

fn summary(owner: Principal, counted: Counted) -> AuditEvent {
    let Counted { count, since, last } = counted;
    let sum = |basis: Option<&Basis>| {
        let input_sha256 = match basis {
            Some(Basis::Decision(decision)) => digest(decision),
            _ => None,
        };
        Basis::Counted(CountedDenials { count, since, input_sha256 })
    };
    let denied = |denied: Denied| Denied { basis: Some(sum(denied.basis.as_ref())), ..denied };
    let event = match last.event {
        Event::IssueDenied(one) => Event::IssueDenied(denied(one)),
        Event::RenewDenied(one) => Event::RenewDenied(denied(one)),
        Event::ShadowDiff(diff) => Event::ShadowDiff(ShadowDiff { basis: sum(Some(&diff.basis)), ..diff }),
        // Nothing else is denied.
        other => other,
    };
    let cut = |text: Option<String>| text.map(|text| text.chars().take(MOST_TEXT).collect::<String>());
    AuditEvent {
        request_id: last.request_id,
        workload: Some(owner.workload),
        identity_issuer: Some(owner.issuer),
        identity_subject: Some(owner.subject),
        k8s_namespace: last.k8s_namespace,
        k8s_pod: last.k8s_pod,
        target_db: last.target_db,
        role: last.role,
        error: cut(last.error),
        ..AuditEvent::new(event, SystemClock.wall())
    }
}

/// The digest of a decision's input, in the form in which a record would have it. An input without such a form could
/// not be recorded either.
fn digest(decision: &Decided) -> Option<String> {
    let input = serde_json::to_value(&decision.input).ok()?;
    Some(hex::encode(Sha256::digest(input.to_string())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jit_core::event::DeniedBy;

    use super::*;

    fn owner(name: &str) -> Principal {
        Principal { issuer: "i".into(), workload: name.into(), subject: name.into() }
    }

    fn denied(policy: &str) -> Vec<AuditEvent> {
        let input = serde_json::json!({
            "operation": "issue", "time": 1, "workload": "w", "issuer": "i", "attributes": {}, "target": "t",
            "role": "r", "ttl_seconds": 60, "reason": "x".repeat(40_000), "ticket": null, "metadata": {}, "facts": {},
        });
        let input = serde_json::from_value(input).unwrap();
        let decision = Decided { input, labels: BTreeMap::new(), contexts: Vec::new(), narrowed: None };
        let by = Some(DeniedBy::Policy(policy.to_owned()));
        let event = Event::IssueDenied(Denied { by, basis: Some(Basis::Decision(decision)) });
        vec![AuditEvent::new(event, Timestamp::now()).with_error("y".repeat(2_000))]
    }

    fn count_of(event: &AuditEvent) -> u64 {
        match &event.event {
            Event::IssueDenied(Denied { basis: Some(Basis::Counted(counted)), .. }) => counted.count,
            other => panic!("{other:?}"),
        }
    }

    fn small() -> Denials {
        Denials::new(DenialBudget { burst: NonZeroU32::new(3).unwrap(), every: Duration::from_secs(86_400) })
    }

    #[test]
    fn beyond_its_budget_a_workload_s_denials_are_counted_and_stay_small() {
        let denials = small();
        let in_full = (0..1_000).filter(|_| !denials.admit(&owner("a"), denied("p")).is_empty()).count();
        assert_eq!(in_full, 3);
        assert_eq!(denials.admit(&owner("b"), denied("p")).len(), 1, "another one has a budget of its own");
        denials.admit(&owner("a"), denied("q"));
        let mut counted = denials.take();
        counted.sort_by_key(|event| denied_by(&event.event).unwrap().to_owned());
        let told: Vec<_> = counted.iter().map(count_of).collect();
        assert_eq!(told, [997, 1], "nothing is lost of how many there were");
        for event in &counted {
            let record = serde_json::to_string(event).unwrap();
            assert!(record.len() < 1_500, "{record}");
            assert!(record.contains(r#""input_sha256":""#) && !record.contains(r#""input":"#), "{record}");
        }
        assert!(denials.take().is_empty());
    }

    #[test]
    fn many_owners_have_a_bound_together_and_are_counted_in_bounded_memory() {
        let denials = small();
        let owners = MOST_APART * 2;
        let in_full = (0..owners).filter(|n| !denials.admit(&owner(&n.to_string()), denied("p")).is_empty()).count();
        assert_eq!(in_full, 3 * OWNERS as usize);
        let counted = denials.take();
        assert_eq!(counted.len(), MOST_APART + 1);
        let all: u64 = counted.iter().map(count_of).sum();
        assert_eq!(all as usize, owners - in_full);
    }

    #[test]
    fn with_little_room_on_the_disk_all_are_counted() {
        let denials = small();
        denials.be_brief(true);
        assert!(denials.admit(&owner("a"), denied("p")).is_empty());
        denials.be_brief(false);
        assert_eq!(denials.admit(&owner("a"), denied("p")).len(), 1);
        assert_eq!(denials.take().len(), 1);
    }
}
