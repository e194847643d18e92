use jit_core::looked_at::LookedAt;
use jit_core::policy::{Allowance, Operation, Verdict};

use super::*;

fn request() -> PolicyRequest {
    PolicyRequest {
        operation: Operation::Issue,
        time: 1_700_000_000,
        workload: "shop/payment".into(),
        issuer: "cluster".into(),
        attributes: [("env".to_owned(), "prod".to_owned())].into(),
        target: "inventory_db".into(),
        role: "app_read".into(),
        ttl_seconds: 900,
        reason: None,
        ticket: None,
        metadata: BTreeMap::new(),
        facts: BTreeMap::new(),
        caller_address: None,
        resource: BTreeMap::new(),
    }
}

/// A policy written as a function of what it reads, as a guest does: each read is noted.
struct Reading<'a> {
    request: &'a PolicyRequest,
    reads: Reads,
    looked_at: LookedAt,
}

impl Reading<'_> {
    fn role(&mut self) -> String {
        self.reads.field(Field::Role);
        self.looked_at.note(Field::Role);
        self.request.role.clone()
    }

    fn attribute(&mut self, name: &str) -> Option<String> {
        self.reads.name(List::Attributes, name);
        self.looked_at.note_name(List::Attributes, name);
        self.request.attributes.get(name).cloned()
    }

    fn time(&mut self) -> u64 {
        self.reads.field(Field::Time);
        self.looked_at.note(Field::Time);
        self.request.time
    }
}

fn ask(memory: &Memory, request: &PolicyRequest, policy: impl Fn(&mut Reading<'_>) -> Verdict) -> (PolicyAnswer, bool) {
    if let Some(answer) = memory.recall(request) {
        return (answer, true);
    }
    let mut reading = Reading { request, reads: Reads::default(), looked_at: LookedAt::default() };
    let verdict = policy(&mut reading);
    let answer = PolicyAnswer { verdict: Ok(verdict), looked_at: reading.looked_at };
    memory.learn(reading.reads, request, &answer);
    (answer, false)
}

/// Readers may have everything in production; owners must have a team; and the owners of one team depend on the time.
fn rules(reading: &mut Reading<'_>) -> Verdict {
    if reading.role() == "app_read" {
        return Verdict::Allow(Allowance {
            reason: reading.attribute("env").unwrap_or_default(),
            ..Default::default()
        });
    }
    match reading.attribute("team").as_deref() {
        None => Verdict::Deny("no team".into()),
        Some("night") if !reading.time().is_multiple_of(2) => Verdict::Deny("an odd second".into()),
        Some(team) => Verdict::Allow(Allowance { reason: team.into(), ..Default::default() }),
    }
}

fn with(role: &str, attributes: &[(&str, &str)], time: u64) -> PolicyRequest {
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    PolicyRequest { role: role.into(), attributes, time, ..request() }
}

#[test]
fn what_agrees_in_all_that_was_read_is_remembered_and_nothing_else() {
    let memory = Memory::default();
    let reader = with("app_read", &[("env", "prod")], 1);
    assert!(!ask(&memory, &reader, rules).1);
    let elsewhere = PolicyRequest { workload: "other".into(), time: 9, ttl_seconds: 1, ..reader.clone() };
    assert_eq!(ask(&memory, &elsewhere, rules), (ask(&memory, &reader, rules).0, true), "it read neither");
    for different in [with("app_read", &[("env", "dev")], 1), with("app_read", &[], 1), with("owner", &[], 1)] {
        let (answer, remembered) = ask(&memory, &different, rules);
        assert!(!remembered, "{different:?}");
        assert_eq!(ask(&memory, &different, rules), (answer, true));
    }
}

#[test]
fn every_request_has_the_answer_that_it_has_without_memory() {
    let memory = Memory::default();
    let (roles, envs, teams) =
        (["app_read", "owner", ""], [None, Some("prod"), Some("")], [None, Some("day"), Some("night")]);
    let mut remembered = 0;
    for round in 0..3 {
        for role in roles {
            for (env, team) in envs.iter().flat_map(|env| teams.iter().map(move |team| (*env, *team))) {
                let attributes: Vec<_> =
                    [("env", env), ("team", team)].into_iter().filter_map(|(n, v)| v.map(|v| (n, v))).collect();
                let request = with(role, &attributes, round);
                let (answer, was) = ask(&memory, &request, rules);
                assert_eq!(answer, ask(&Memory::default(), &request, rules).0, "{request:?}");
                remembered += usize::from(was);
            }
        }
    }
    // All 27 but the first of each path: 3 of readers, 3 of each other role. `night` reads the time, so it never is.
    assert_eq!(remembered, 81 - (3 + 2 * 2) - 2 * 3 * 3);
}

#[test]
fn what_read_the_time_failed_or_read_too_much_is_not_remembered() {
    let memory = Memory::default();
    let night = with("owner", &[("team", "night")], 2);
    assert!(!ask(&memory, &night, rules).1);
    assert!(!ask(&memory, &night, rules).1);

    let fault = crate::Fault { plugin: "p".into(), kind: crate::FaultKind::Overloaded };
    let failed = PolicyAnswer { verdict: Err(fault), looked_at: LookedAt::default() };
    memory.learn(Reads::default(), &request(), &failed);
    assert_eq!(memory.recall(&request()), None);

    let greedy = |reading: &mut Reading<'_>| {
        (0..=MAX_READS).for_each(|number| drop(reading.attribute(&number.to_string())));
        Verdict::Deny("no".into())
    };
    let memory = Memory::default();
    assert!(!ask(&memory, &request(), greedy).1);
    assert!(!ask(&memory, &request(), greedy).1);
}

#[test]
fn a_read_that_is_repeated_counts_once() {
    let memory = Memory::default();
    let twice = |reading: &mut Reading<'_>| {
        (0..1000).for_each(|_| drop(reading.role()));
        Verdict::Deny(reading.role())
    };
    ask(&memory, &request(), twice);
    assert!(ask(&memory, &request(), twice).1);
}

#[test]
fn a_tree_is_bounded_whatever_callers_send() {
    let memory = Memory::default();
    let by_reason = |reading: &mut Reading<'_>| {
        reading.reads.field(Field::Reason);
        reading.looked_at.note(Field::Reason);
        Verdict::Deny("no".into())
    };
    for number in 0..20_000 {
        let reason = Some(format!("{number} {}", "x".repeat(300)));
        ask(&memory, &PolicyRequest { reason, ..request() }, by_reason);
        assert!(memory.tree.read().bytes <= MAX_BYTES);
    }
    assert!(memory.tree.read().bytes > MAX_BYTES / 100, "it still learns");
    let huge = PolicyRequest { reason: Some("x".repeat(MAX_BYTES)), ..request() };
    ask(&memory, &huge, by_reason);
    assert!(!ask(&memory, &huge, by_reason).1);
}

#[test]
fn a_policy_that_reads_something_else_for_the_same_values_is_not_believed() {
    let memory = Memory::default();
    let no = |reading: &mut Reading<'_>| Verdict::Deny(reading.role());
    ask(&memory, &request(), no);
    let answer = PolicyAnswer { verdict: Ok(Verdict::Deny("no".into())), looked_at: LookedAt::default() };
    let mut others = Reads::default();
    others.field(Field::Target);
    memory.learn(others, &request(), &answer);
    assert_eq!(memory.recall(&request()), None);
}
