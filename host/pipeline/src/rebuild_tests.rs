//! The leases of a store, lost and made again from its log.

use jit_core::event::{Attempted, AuditEvent, Doubtful, Ended, Event, Failed, Plain, Process};
use jit_ledger_contract::{active, granted, lease_at, time, with_key};
use jit_tlog::checkpoint::LogKey;

use super::*;

struct Log {
    key: LogKey,
    mark: Mark,
    lines: Vec<String>,
}

impl Log {
    /// A log that begins with a start.
    fn new() -> Self {
        let mut log = Self { key: LogKey::generate(), mark: Mark::generate(), lines: Vec::new() };
        let sealed = Marking::new(&log.key).unwrap().seal(&log.mark).unwrap();
        log.add(&AuditEvent::new(Event::BrokerStarted(Process { version: "1", account_mark: Some(sealed) }), time(0)));
        log
    }

    fn add(&mut self, event: &AuditEvent) {
        let json = serde_json::to_string(event).unwrap();
        self.lines.push(format!("{{\"seq\":{},{}", self.lines.len(), &json[1..]));
    }

    fn of(&mut self, event: Event, second: i64, lease: &Lease) {
        self.add(&AuditEvent::of_lease(event, time(second), lease));
    }

    fn replayed(&self) -> Result<Rebuilt, RebuildError> {
        let mut replaying = Replaying::new(Marking::new(&self.key).unwrap(), time(50), time(0));
        for line in &self.lines {
            replaying.record(line.as_bytes())?;
        }
        replaying.end(time(1_000))
    }

    fn leases(&self) -> Vec<Lease> {
        self.replayed().unwrap().leases
    }
}

fn ended(cause: Cause) -> Ended {
    Ended { cause, account_removed: true, account_removed_at: None, closed_because: None }
}

/// As it was, but for what the log does not count: the number of its steps.
fn same(made: &Lease, lost: &Lease) {
    let input_has_none = BTreeMap::new();
    let lost = Lease { version: made.version, attributes: input_has_none, ..lost.clone() };
    assert_eq!(made, &lost);
}

#[test]
fn a_lease_is_as_it_was() {
    let mut log = Log::new();
    let place = jit_core::place::Place::new(Some("postgres://a:1".into()), vec![("server".into(), "7".into())]);
    let mut full = with_key("k");
    full.driver.place = Some(place);
    full.driver.connection = Some("shop".into());
    full.driver.config = Some("{\"a\":1}".into());
    full.ticket = Some("OPS-1".into());
    let first = active(&full.with_account(Some("named-by-it".into()), Some("handle".into())));
    let second = active(&lease_at(5));
    for lease in [&first, &second] {
        log.add(&granted(lease));
    }
    let renewed = second.renew(time(60), time(3_000)).unwrap();
    log.of(Event::LeaseRenewed(decided(&granted(&second))), 60, &renewed);
    let leases = log.leases();
    same(&leases[0], &first);
    same(&leases[1], &renewed);
    let made = log.replayed().unwrap();
    assert_eq!(made.birth.mark.bytes(), log.mark.bytes());
    assert_eq!((made.birth.since, made.birth.set_back), (time(0), Some(time(1_000))));
    assert_eq!((made.until, made.left_out.len()), (Some(time(60)), 0));
}

fn decided(granted: &AuditEvent) -> jit_core::event::Decided {
    match &granted.event {
        Event::IssueGranted(granted) => granted.decision.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_to_be_removed_is_still_to_be_removed() {
    let mut log = Log::new();
    let leases: Vec<Lease> = (0..6).map(|second| active(&lease_at(second))).collect();
    for lease in &leases {
        log.add(&granted(lease));
    }
    let operator = Operator { uid: 7, pid: None };
    log.add(&AuditEvent::of_lease(Event::AdminRevoke(Plain {}), time(60), &leases[0]).by(operator));
    let failed = Failed { decision: None, cause: Some(Cause::NotAudited) };
    log.of(Event::IssueFailed(failed), 60, &leases[1]);
    log.of(Event::Drift(Plain {}), 60, &leases[2]);
    log.of(Event::RevokeFailed(Attempted { attempts: 1 }), 60, &leases[3]);
    log.of(Event::WrongPlace(Attempted { attempts: 1 }), 5_000, &leases[4]);
    log.of(Event::IssueFailed(Failed { decision: None, cause: None }), 60, &leases[5]);
    let doubted = lease_at(6).doubt(Cause::Doubtful, time(61)).unwrap();
    log.of(Event::LeaseDoubtful(Doubtful { cause: None, lease: LeaseRest::of(&doubted) }), 61, &doubted);
    let made = log.leases();
    let causes: Vec<_> = made.iter().map(|lease| (lease.state, lease.removal.as_ref().map(|r| r.cause))).collect();
    let revoking = |cause| (LeaseState::Revoking, Some(cause));
    let expected = [
        revoking(Cause::Operator),
        revoking(Cause::NotAudited),
        revoking(Cause::Drift),
        revoking(Cause::Requested),
        revoking(Cause::Expired),
        (LeaseState::Active, None),
        (LeaseState::Doubtful, Some(Cause::Doubtful)),
    ];
    assert_eq!(causes, expected);
    assert_eq!(made[0].removal.as_ref().unwrap().operator_uid, Some(7));
    assert!(made.iter().all(|lease| lease.due_at().is_some()), "each is due some day");
}

#[test]
fn what_ended_lately_answers_its_key_and_has_no_account() {
    let mut log = Log::new();
    let (old, late) = (active(&lease_at(1)), active(&with_key("k")));
    for lease in [&old, &late] {
        log.add(&granted(lease));
    }
    log.of(Event::LeaseExpired(ended(Cause::Expired)), 40, &old);
    log.of(Event::LeaseRevoked(ended(Cause::Requested)), 60, &late);
    // Nobody got this one's secret, so the next one may take its key.
    let unheard = active(&Lease { issued_at: time(70), ..with_key("other") });
    log.add(&granted(&unheard));
    log.of(Event::LeaseRevoked(ended(Cause::Abandoned)), 80, &unheard);
    let taker = active(&Lease { issued_at: time(90), ..with_key("other") });
    log.add(&granted(&taker));
    let made = log.leases();
    let seen: Vec<_> = made.iter().map(|lease| (lease.id.clone(), lease.state, lease.holds_key())).collect();
    let expected = [
        (late.id, LeaseState::Revoked, true),
        (unheard.id, LeaseState::Revoked, false),
        (taker.id, LeaseState::Active, true),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn what_the_log_lacks_is_named() {
    let mut log = Log::new();
    let lease = active(&lease_at(1));
    log.add(&granted(&lease));
    let line = log.lines.pop().unwrap();
    let (before, rest) = line.split_once(",\"lease\":{").unwrap();
    let after = rest.split_once('}').unwrap().1;
    log.lines.push(format!("{before}{after}"));
    let made = log.replayed().unwrap();
    assert!(made.leases.is_empty());
    assert!(made.left_out[0].contains(lease.account.as_str()) && made.left_out[0].contains("record 1"));
    log.lines.push("{\"seq\":2}".into());
    assert!(matches!(log.replayed(), Err(RebuildError::Record { seq: 2, .. })));
    let mut other = Log::new();
    other.key = LogKey::generate();
    assert!(matches!(other.replayed(), Err(RebuildError::NoMark)), "sealed under another key");
}
