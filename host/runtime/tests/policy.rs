//! Policies: a fresh instance per call, limits, checked answers, CLOSED.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fixtures;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixtures::{Bench, bench, bench_with, request};
use jit_core::policy::{Operation, PolicyRequest, Verdict};
use jit_runtime::{ConfigFault, Fault, FaultKind, Limits, PolicyPlugin};
use tracing_subscriber::fmt::MakeWriter;

fn hostile(bench: &Bench, mode: &str) -> Result<Verdict, Fault> {
    decide(&bench.policy("policy-hostile"), mode)
}

fn decide(policy: &PolicyPlugin, mode: &str) -> Result<Verdict, Fault> {
    policy.decide(&format!(r#"{{"mode":"{mode}"}}"#), &request())
}

/// What a hostile policy in that mode did.
fn kind(bench: &Bench, mode: &str) -> FaultKind {
    hostile(bench, mode).expect_err(mode).kind
}

#[test]
fn a_good_policy_decides_again_and_again() {
    let bench = bench();
    let policy = bench.policy("policy-allow");
    policy.validate("{}").unwrap();
    for _ in 0..500 {
        assert!(matches!(policy.decide("{}", &request()), Ok(Verdict::Allow(_))));
    }
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

#[test]
fn a_configuration_is_told_what_to_mend() {
    let bench = bench();
    let policy = bench.policy("policy-allow-list");
    let ConfigFault::Invalid(problems) = policy.validate(r#"{"rules": 7}"#).unwrap_err() else {
        panic!("a wrong configuration is no fault of the plugin")
    };
    assert!(!problems.is_empty());
    assert!(problems.iter().all(|problem| !problem.message.is_empty()));
}

#[test]
fn a_loop_is_stopped_by_name_in_both_functions() {
    let bench = bench();
    let fault = hostile(&bench, "loop").unwrap_err();
    assert_eq!(fault.to_string(), "plugin policy-hostile exceeded 50 ms of guest time");
    let policy = bench.policy("policy-hostile");
    let ConfigFault::Fault(fault) = policy.validate(r#"{"mode":"slow-validate"}"#).unwrap_err() else {
        panic!("a loop is a fault")
    };
    assert_eq!(fault.kind, FaultKind::Deadline { limit_ms: 50 });
}

#[test]
fn a_slow_policy_never_trips_a_fast_one() {
    let bench = bench();
    let (fast, slow) = (bench.policy("policy-allow"), bench.policy("policy-hostile"));
    std::thread::scope(|threads| {
        // More threads than processors, all busy: wall time is not guest time.
        for _ in 0..6 {
            let slow = slow.clone();
            threads.spawn(move || {
                for _ in 0..4 {
                    let fault = decide(&slow, "loop").unwrap_err();
                    assert_eq!(fault.kind, FaultKind::Deadline { limit_ms: 50 });
                }
            });
        }
        for _ in 0..200 {
            assert!(matches!(fast.decide("{}", &request()), Ok(Verdict::Allow(_))));
        }
    });
}

#[test]
fn memory_is_bounded() {
    let limits = Limits { policy_time: Duration::from_secs(20), ..Limits::default() };
    let bench = bench_with(limits, 1);
    assert_eq!(kind(&bench, "hog"), FaultKind::Memory { limit: 64 << 20 });
    // The same plugin within its memory: a fresh instance, not the one that ran out.
    assert_eq!(kind(&bench, "wrong-ttl"), kind(&bench, "wrong-ttl"));
    assert!(matches!(bench.policy("policy-allow").decide("{}", &request()), Ok(Verdict::Allow(_))));
}

#[test]
fn traps_are_faults_with_a_cause() {
    let bench = bench();
    let FaultKind::Trap { message } = kind(&bench, "trap") else { panic!("a panic is a trap") };
    assert!(message.contains("unreachable"), "{message}");
    let FaultKind::Trap { message } = kind(&bench, "stack") else { panic!("no stack is a trap") };
    // Rust keeps a stack of its own in linear memory; which of the two ends first is the compiler's.
    assert!(message.contains("stack") || message.contains("out of bounds"), "{message}");
    let ConfigFault::Fault(fault) = bench.policy("policy-hostile").validate(r#"{"mode":"trap-validate"}"#).unwrap_err()
    else {
        panic!("a trap is a fault")
    };
    assert!(matches!(fault.kind, FaultKind::Trap { .. }));
}

#[test]
fn a_preparation_that_misbehaves_is_found_at_load_and_denies() {
    let bench = bench();
    let policy = bench.policy("policy-hostile");
    let load = |mode: &str| policy.validate(&format!(r#"{{"mode":"{mode}"}}"#)).unwrap_err();
    for (mode, is_it) in [
        ("slow-prepare", (|kind| matches!(kind, FaultKind::Deadline { limit_ms: 50 })) as fn(&FaultKind) -> bool),
        ("trap-prepare", |kind| matches!(kind, FaultKind::Trap { .. })),
    ] {
        let ConfigFault::Fault(fault) = load(mode) else { panic!("{mode}: a fault is not a wrong configuration") };
        assert!(is_it(&fault.kind), "{mode}: {fault}");
        assert!(is_it(&kind(&bench, mode)), "{mode}");
    }
    let ConfigFault::Invalid(problems) = load("refuse-prepare") else { panic!("a refusal is not a fault") };
    assert_eq!(problems[0].to_string(), "mode: is\\nnot what it was");
    let refused = hostile(&bench, "refuse-prepare").unwrap_err().to_string();
    assert!(refused.contains("does not accept its configuration: mode: is\\n"), "{refused}");
}

#[test]
fn reads_are_noted_within_bounds_whatever_a_guest_does() {
    let limits = Limits { policy_time: Duration::from_secs(20), ..Limits::default() };
    let bench = bench_with(limits, 1);
    let policy = bench.policy("policy-hostile");
    let ask = |mode: &str| policy.ask(&format!(r#"{{"mode":"{mode}"}}"#), &request());
    let huge = ask("read-huge");
    assert_eq!(huge.verdict.unwrap_err().kind, FaultKind::HostBytes { limit: 4 << 20 });
    assert_eq!(huge.looked_at.words(), ["operation", "attributes"]);
    let forever = ask("read-forever");
    assert_eq!(forever.verdict.unwrap_err().kind, FaultKind::HostCalls { limit: 1_000 });
    assert_eq!(forever.looked_at.words(), ["operation", "attribute env"]);
    let many = ask("read-many");
    assert_eq!(many.verdict, Ok(Verdict::Deny("0 are there".to_owned())));
    assert_eq!(many.looked_at.words(), ["operation", "attributes"]);
    let odd = ask("read-odd");
    assert!(matches!(odd.verdict, Ok(Verdict::Allow(_))));
    assert_eq!(odd.looked_at.words(), ["operation", "metadata"]);
    // With all the calls and time that it wants, a guest is still stopped, and its reads take no room.
    let limits = Limits { host_calls: u32::MAX, ..Limits::default() };
    assert_eq!(kind(&bench_with(limits, 1), "read-forever"), FaultKind::Deadline { limit_ms: 50 });
}

#[test]
fn a_request_cannot_be_kept() {
    let bench = bench();
    let FaultKind::Trap { message } = kind(&bench, "keep-request") else { panic!("to keep it is a trap") };
    assert!(message.contains("borrow"), "{message}");
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

#[test]
fn an_operation_that_a_policy_does_not_know_is_denied() {
    let bench = bench();
    for (name, config) in [
        ("policy-allow", "{}"),
        ("policy-allow-list", r#"{"rules": [{"workload": "*", "target": "*", "roles": ["*"]}]}"#),
        ("policy-cedar", r#"{"policies": "permit (principal, action, resource);"}"#),
        ("policy-environment", r#"{"targets": [{"environment": "prod", "targets": ["*"]}]}"#),
        ("policy-quota", r#"{"limits": [{"per": "target", "targets": ["elsewhere"], "leases": 1}]}"#),
        ("policy-time-window", r#"{"time_zone": "UTC", "days": ["mon-sun"], "from": "00:00", "to": "24:00"}"#),
    ] {
        let policy = bench.policy(name);
        policy.validate(config).unwrap();
        let ask = |operation: &str| {
            let operation = Operation::from_word(operation).unwrap();
            policy.decide(config, &PolicyRequest { operation, ..request() }).unwrap()
        };
        assert!(matches!(ask("issue"), Verdict::Allow(_)), "{name}: {:?}", ask("issue"));
        for unknown in ["exchange", "proxy.http", "admin.revoke"] {
            let Verdict::Deny(reason) = ask(unknown) else { panic!("{name} allows {unknown}") };
            assert!(reason.contains(&format!("does not know the operation `{unknown}`")), "{name}: {reason}");
        }
    }
}

#[test]
fn calls_to_the_host_are_counted() {
    let bench = bench();
    assert_eq!(kind(&bench, "busy-host"), FaultKind::HostCalls { limit: 1_000 });
    // With room for the bytes and calls of one line the same plugin is stopped by its time.
    let limits = Limits { host_calls: u32::MAX, ..Limits::default() };
    assert_eq!(kind(&bench_with(limits, 1), "busy-host"), FaultKind::Deadline { limit_ms: 50 });
}

#[test]
fn data_to_the_host_is_bounded_in_calls_and_answers() {
    let limits = Limits { policy_time: Duration::from_secs(20), ..Limits::default() };
    let bench = bench_with(limits, 1);
    let too_much = FaultKind::HostBytes { limit: 4 << 20 };
    for mode in ["flood", "fields", "huge"] {
        assert_eq!(kind(&bench, mode), too_much, "{mode}");
    }
    let labels = kind(&bench, "huge-labels");
    assert!(labels == too_much || labels == FaultKind::Memory { limit: 64 << 20 }, "{labels}");
}

#[test]
fn wrong_answers_are_faults() {
    let bench = bench();
    for mode in ["wrong-ttl", "wrong-requirement", "wrong-labels"] {
        let kind = kind(&bench, mode);
        assert!(matches!(kind, FaultKind::Answer(_)), "{mode}: {kind}");
    }
    // A role that does not exist is well-formed: whether the target has it is the pipeline's to check.
    assert!(matches!(hostile(&bench, "wrong-role"), Ok(Verdict::Allow(a)) if a.role.is_some()));
}

#[test]
fn a_policy_that_cannot_read_its_configuration_denies() {
    let bench = bench();
    let verdict = bench.policy("policy-hostile").decide("not json", &request());
    assert!(!matches!(verdict, Ok(Verdict::Allow(_))), "{verdict:?}");
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The log lines of a hostile policy in that mode.
fn log_of(limits: Limits, mode: &str) -> Vec<String> {
    let bench = bench_with(limits, 1);
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(captured.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        hostile(&bench, mode).unwrap_err();
    });
    let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    let lines = text.lines().filter(|line| line.contains(" plugin: "));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_flood_of_log_lines_is_cut_with_one_last_line() {
    let lines = log_of(Limits::default(), "busy-host");
    assert_eq!(lines.len(), 101);
    assert!(lines.iter().all(|line| line.contains("plugin=\"policy-hostile\"")));
    assert!(lines[100].contains("more than 100 log lines in one call"), "{}", lines[100]);
}

#[test]
fn a_log_line_is_one_short_line_whatever_it_holds() {
    let limits = Limits { policy_time: Duration::from_secs(20), ..Limits::default() };
    for (mode, least) in [("flood", 1), ("fields", 0)] {
        let lines = log_of(limits, mode);
        // All that one call may bring to the host is 4 MiB, and a line of this plugin is 1 MB or more.
        assert!((least..=4).contains(&lines.len()), "{mode}: {} lines", lines.len());
        for line in &lines {
            // Escaping makes a byte nine at most, and the host's own part is short.
            assert!(line.len() <= (4 << 10) * 9 + 200, "{mode}: {} bytes", line.len());
            assert!(!line.contains(['\u{1b}', '\u{202e}', '\0']), "{mode}");
            assert!(line.contains("plugin=\"policy-hostile\""), "{mode}: a forged line");
        }
    }
}
