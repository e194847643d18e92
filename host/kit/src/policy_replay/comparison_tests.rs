//! Records are made here as the broker writes them, and read as the log is read.

use std::collections::BTreeSet;

use jit_core::ttl::Ttl;
use serde_json::{Value, json};

use super::super::record::{Filter, Read, Unfit, read};
use super::*;

fn policy(name: &str, verdict: &str, more: Value) -> Value {
    let mut record = json!({"name": name, "mode": "enforce", "verdict": verdict, "plugin_sha256": "00", "micros": 1});
    record.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    record
}

fn record(event: &str, policies: Value, more: Value) -> Value {
    let mut record = json!({
        "seq": 7, "timestamp": "2026-03-01T10:00:00Z", "event": event, "request_id": "req_1",
        "workload": "payment-service", "target_db": "inventory_db", "policies": policies,
        "input": {
            "operation": if event.starts_with("issue") { "issue" } else { "renew" }, "time": 1_772_359_200,
            "workload": "payment-service", "issuer": "cluster", "attributes": {}, "target": "inventory_db",
            "role": "app_admin", "ttl_seconds": 3_600, "reason": null, "ticket": null, "metadata": {}, "facts": {}
        }
    });
    record.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    record
}

fn read_value(record: &Value) -> Read {
    read(record.to_string().as_bytes(), 0, &Filter::default())
}

fn decision(record: &Value) -> Decision {
    match read_value(record) {
        Read::Decision(decision) => *decision,
        other => panic!("{other:?}"),
    }
}

fn granted(policies: Value) -> Decision {
    decision(&record("issue.granted", policies, json!({})))
}

fn denied(policies: Value, policy: &str, reason: &str) -> Decision {
    decision(&record("issue.denied", policies, json!({"policy": policy, "error": reason})))
}

fn yes(change: impl FnOnce(&mut Allowance)) -> Verdict {
    let mut allowance = Allowance::default();
    change(&mut allowance);
    Verdict::Allow(allowance)
}

fn role(name: &str) -> RoleName {
    RoleName::new(name).unwrap()
}

fn replaced(decision: &Decision, name: &str, decide: impl Fn(&PolicyRequest) -> Verdict) -> Effect {
    let decide = move |request: &PolicyRequest| Ok(decide(request));
    compare(&mut Asking::new(decision, &decide), &Place::Replaces(name.into()), &Roles::new())
}

fn added(decision: &Decision, decide: impl Fn(&PolicyRequest) -> Verdict) -> Effect {
    let decide = move |request: &PolicyRequest| Ok(decide(request));
    compare(&mut Asking::new(decision, &decide), &Place::Added, &Roles::new())
}

fn no(reason: &str) -> Verdict {
    Verdict::Deny(reason.into())
}

#[test]
fn a_no_of_the_candidate_flips_a_yes() {
    let decision = granted(json!([policy("a", "allow", json!({})), policy("b", "allow", json!({}))]));
    let flipped = Effect::AllowToDeny { policy: "b".into(), reason: "closed".into() };
    assert_eq!(replaced(&decision, "b", |_| no("closed")), flipped);
    assert!(matches!(added(&decision, |_| no("closed")), Effect::AllowToDeny { policy, .. } if policy == ADDED));
    assert_eq!(replaced(&decision, "b", |_| yes(|_| ())), Effect::Unchanged);
    assert_eq!(replaced(&decision, "c", |_| no("closed")), Effect::NotConcerned);
}

#[test]
fn a_requirement_that_the_request_does_not_meet_is_a_no() {
    let decision = granted(json!([policy("a", "allow", json!({}))]));
    let wants_ticket = |_: &PolicyRequest| yes(|a| a.requires = vec![jit_core::policy::Requirement::Ticket]);
    assert!(matches!(added(&decision, wants_ticket), Effect::AllowToDeny { reason, .. } if reason.contains("ticket")));
}

#[test]
fn a_no_becomes_a_yes_only_when_nobody_else_said_no() {
    let no_of_b = json!([policy("a", "allow", json!({})), policy("b", "deny", json!({"reason": "night"}))]);
    let decision = denied(no_of_b, "b", "night");
    let flipped = Effect::DenyToAllow { policy: "b".into(), reason: "night".into() };
    assert_eq!(replaced(&decision, "b", |_| yes(|_| ())), flipped);
    assert_eq!(replaced(&decision, "a", |_| yes(|_| ())), Effect::Unchanged, "b still says no");
    assert_eq!(added(&decision, |_| yes(|_| ())), Effect::Unchanged);
    // A shadow's no never counted; a failed policy's did.
    let shadow = json!([
        policy("a", "deny", json!({"reason": "x"})),
        policy("s", "deny", json!({"mode": "shadow", "reason": "y"}))
    ]);
    assert!(matches!(replaced(&denied(shadow, "a", "x"), "a", |_| yes(|_| ())), Effect::DenyToAllow { .. }));
    let failed = json!([
        policy("a", "deny", json!({"reason": "x"})),
        policy("f", "deny", json!({"reason": "policy f failed", "failed": true}))
    ]);
    assert_eq!(replaced(&denied(failed, "a", "x"), "a", |_| yes(|_| ())), Effect::Unchanged);
}

#[test]
fn another_length_or_role_is_a_change_and_no_flip() {
    let decision =
        granted(json!([policy("a", "allow", json!({"max_ttl_seconds": 1_800})), policy("b", "allow", json!({}))]));
    let cap = |seconds| move |_: &PolicyRequest| yes(|a| a.max_ttl = Ttl::from_seconds(seconds).ok());
    assert_eq!(replaced(&decision, "b", cap(600)), Effect::Changed("TTL 10m instead of 30m".into()));
    assert_eq!(replaced(&decision, "b", cap(3_000)), Effect::Unchanged, "the other cap holds");
    assert_eq!(replaced(&decision, "a", |_| yes(|_| ())), Effect::Changed("TTL 1h instead of 30m".into()));
    let reads = |_: &PolicyRequest| yes(|a| a.role = Some(role("app_read_only")));
    assert_eq!(added(&decision, reads), Effect::Changed("role app_read_only instead of app_admin".into()));
    let roles = Roles::from([("inventory_db".to_owned(), BTreeSet::from([role("app_admin")]))]);
    let decide = |request: &PolicyRequest| Ok(reads(request));
    let effect = compare(&mut Asking::new(&decision, &decide), &Place::Added, &roles);
    assert!(matches!(effect, Effect::AllowToDeny { policy, .. } if policy == CHAIN), "the target has no such role");
}

/// `n` named a narrower role, and the second round was about that.
fn narrowed(more_of_others: Value) -> Decision {
    let last = json!([policy("n", "allow", json!({})), policy("b", "allow", more_of_others)]);
    decision(&record("issue.granted", last, json!({"narrowed_to": "app_read_only", "narrowed_by": ["n"]})))
}

#[test]
fn a_narrowed_decision_is_replayed_in_both_rounds() {
    let decision = narrowed(json!({}));
    assert_eq!(
        decision.outcome,
        Outcome::Allow { role: "app_read_only".into(), ttl: Ttl::from_seconds(3_600).unwrap() }
    );
    let only = |wanted: &'static str| {
        move |request: &PolicyRequest| if request.role == wanted { yes(|_| ()) } else { no("not that role") }
    };
    assert_eq!(added(&decision, |_| yes(|_| ())), Effect::Unchanged);
    assert!(matches!(added(&decision, only("app_read_only")), Effect::AllowToDeny { .. }), "it is asked in round one");
    assert!(matches!(added(&decision, only("app_admin")), Effect::AllowToDeny { .. }), "and in round two");
    // Without the policy that narrowed, the role asked for holds.
    let widened = Effect::Changed("role app_admin instead of app_read_only".into());
    assert_eq!(replaced(&decision, "n", |_| yes(|_| ())), widened);
    assert_eq!(replaced(&decision, "n", |_| yes(|a| a.role = Some(role("app_read_only")))), Effect::Unchanged);
    // Whoever takes the place of the other changes nothing of that, whatever `n` said of the narrower role.
    assert_eq!(replaced(&decision, "b", |_| yes(|_| ())), Effect::Unchanged);
    // Somebody else narrows too.
    let both = narrowed(json!({"narrower_role": "app_read_only"}));
    assert_eq!(replaced(&both, "n", |_| yes(|_| ())), Effect::Unchanged);
}

#[test]
fn a_renewal_keeps_its_role() {
    let decision = decision(&record("lease.renewed", json!([policy("a", "allow", json!({}))]), json!({})));
    let reads = |_: &PolicyRequest| yes(|a| a.role = Some(role("app_read_only")));
    assert!(matches!(added(&decision, reads), Effect::AllowToDeny { policy, .. } if policy == CHAIN));
}

#[test]
fn a_candidate_that_fails_is_told_apart() {
    let decision = granted(json!([policy("a", "allow", json!({}))]));
    let decide = |_: &PolicyRequest| Err("trapped".to_owned());
    let effect = compare(&mut Asking::new(&decision, &decide), &Place::Added, &Roles::new());
    assert_eq!(effect, Effect::Failed("trapped".into()));
}

#[test]
fn what_cannot_be_replayed_says_why() {
    let unfit = |record: &Value| match read_value(record) {
        Read::Unfit(unfit, _) => unfit,
        other => panic!("{other:?}"),
    };
    let nothing = json!({"policy": "posture", "error": "the context provider posture could not gather its facts"});
    assert_eq!(unfit(&record("issue.denied", json!([]), nothing)), Unfit::Provider);
    let mut old = record("issue.granted", json!([policy("a", "allow", json!({}))]), json!({}));
    old.as_object_mut().unwrap().remove("input");
    assert_eq!(unfit(&old), Unfit::NoInput);
    let mut not_offered = record("issue.denied", json!([]), json!({"code": "unknown-target", "error": "x"}));
    not_offered.as_object_mut().unwrap().remove("input");
    assert_eq!(unfit(&not_offered), Unfit::NotAsked);
    let forged = record("issue.granted", json!([policy("a", "deny", json!({"reason": "no"}))]), json!({}));
    assert_eq!(unfit(&forged), Unfit::Contradictory);
    let wrong_reason = json!({"policy": "a", "error": "another"});
    let forged = record("issue.denied", json!([policy("a", "deny", json!({"reason": "no"}))]), wrong_reason);
    assert_eq!(unfit(&forged), Unfit::Contradictory);
    let newer = record("issue.granted", json!([policy("a", "maybe", json!({}))]), json!({}));
    assert_eq!(unfit(&newer), Unfit::Unreadable);
    assert_eq!(unfit(&json!({"some": "json"})), Unfit::NoRecord);
    assert!(matches!(read(b"\xff\x00junk", 3, &Filter::default()), Read::Unfit(Unfit::NoRecord, at) if at.seq == 3));
    assert!(matches!(read_value(&record("policy.shadow_diff", json!([]), json!({}))), Read::Other));
}

#[test]
fn filters_choose_by_time_workload_and_target() {
    let line = record("issue.granted", json!([policy("a", "allow", json!({}))]), json!({})).to_string();
    let chosen = |filter: Filter| matches!(read(line.as_bytes(), 0, &filter), Read::Decision(_));
    let time = |text: &str| Some(text.parse().unwrap());
    let glob = |text: &str| Some(jit_core::glob::Glob::new(text).unwrap());
    assert!(chosen(Filter { since: time("2026-03-01T10:00:00Z"), ..Filter::default() }));
    assert!(!chosen(Filter { since: time("2026-03-01T10:00:01Z"), ..Filter::default() }));
    assert!(!chosen(Filter { until: time("2026-03-01T10:00:00Z"), ..Filter::default() }));
    assert!(chosen(Filter { workload: glob("payment-*"), target: glob("inventory_db"), ..Filter::default() }));
    assert!(!chosen(Filter { workload: glob("other"), ..Filter::default() }));
    assert!(!chosen(Filter { target: glob("other*"), ..Filter::default() }));
}

#[test]
fn what_a_record_would_say_is_of_the_last_round() {
    let decision = narrowed(json!({}));
    let decide = |request: &PolicyRequest| Ok(yes(|a| a.reason = format!("about {}", request.role)));
    assert_eq!(Asking::new(&decision, &decide).told().unwrap().reason, "about app_read_only");
}
