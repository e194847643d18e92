//! Snapshots of prepared instances: the same answers as without, fresh copies, and what cannot be copied.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fixtures;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fixtures::{Bench, bench, fixture, request};
use jit_core::policy::{PolicyRequest, Verdict};
use jit_core::trace::OnBehalf;
use jit_runtime::{
    ConfigFault, ConfiguredContext, ConfiguredPolicy, ContextScope, Fault, FaultKind, Limits, LogCompilations,
    PluginSpec, Runtime, RuntimeOptions, Snapshots,
};
use serde_json::json;

/// Hostile modes of each kind: of time, memory, stack, traps, the log, the host's functions and the answer.
const HOSTILE: [&str; 9] =
    ["loop", "hog", "stack", "trap", "fields", "busy-host", "huge-labels", "read-odd", "keep-request"];

fn hostile(bench: &Bench, mode: &str) -> ConfiguredPolicy {
    ConfiguredPolicy::new(bench.policy("policy-hostile"), &json!({ "mode": mode }).to_string())
}

/// What runs into several limits may meet this one first on a busy machine.
fn is_out_of_time(fault: Option<&Fault>) -> bool {
    fault.is_some_and(|fault| matches!(fault.kind, FaultKind::Deadline { .. }))
}

/// One for all tests, so that a component is compiled once.
fn copying() -> &'static Bench {
    static BENCH: LazyLock<Bench> = LazyLock::new(fixtures::copying);
    &BENCH
}

#[test]
fn a_hostile_policy_is_stopped_on_a_copy_as_without() {
    let (with, without) = (copying(), fixtures::forgetful());
    for mode in HOSTILE {
        let (copied, prepared) = (hostile(with, mode), hostile(&without, mode));
        assert!(copied.has_snapshot(), "{mode}");
        assert!(!prepared.has_snapshot(), "{mode}");
        for _ in 0..2 {
            let (copied, prepared) = (copied.ask(&request()).answer, prepared.ask(&request()).answer);
            if [&copied, &prepared].iter().any(|answer| is_out_of_time(answer.verdict.as_ref().err())) {
                assert!(copied.verdict.is_err() && prepared.verdict.is_err(), "{mode}: {copied:?} and {prepared:?}");
            } else {
                assert_eq!(copied, prepared, "{mode}");
            }
        }
    }
    // What was stopped left nothing behind.
    let good = ConfiguredPolicy::new(with.policy("policy-allow"), "{}");
    assert!(matches!(good.ask(&request()).answer.verdict, Ok(Verdict::Allow(_))));
}

#[test]
fn each_decision_has_a_copy_of_its_own() {
    let bench = copying();
    let policy = hostile(bench, "count");
    assert!(policy.has_snapshot());
    for _ in 0..100 {
        let answer = policy.ask(&request()).answer;
        assert!(matches!(answer.verdict, Ok(Verdict::Allow(_))), "{answer:?}");
    }
}

#[test]
fn copies_are_made_side_by_side() {
    let bench = copying();
    let policy = hostile(bench, "count");
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..200 {
                    assert!(matches!(policy.ask(&request()).answer.verdict, Ok(Verdict::Allow(_))));
                }
            });
        }
    });
}

#[test]
fn what_cannot_be_prepared_has_no_snapshot_and_denies() {
    let bench = copying();
    for mode in ["slow-prepare", "trap-prepare", "refuse-prepare"] {
        let policy = hostile(bench, mode);
        assert!(!policy.has_snapshot(), "{mode}");
        assert!(policy.ask(&request()).answer.verdict.is_err(), "{mode}");
    }
}

#[test]
fn configurations_do_not_mix() {
    let bench = copying();
    let plugin = bench.policy("policy-allow-list");
    let rule = |workload: &str| json!({"rules": [{"workload": workload, "target": "*", "roles": ["*"]}]}).to_string();
    let (ours, theirs) = (rule("payment-service"), rule("somebody"));
    let allows = |config: &str| {
        let policy = ConfiguredPolicy::new(plugin.clone(), config);
        assert!(policy.has_snapshot());
        matches!(policy.ask(&request()).answer.verdict, Ok(Verdict::Allow(_)))
    };
    assert_eq!([&ours, &theirs, &ours, &theirs].map(|config| allows(config)), [true, false, true, false]);
}

/// A runtime over a cache folder that stays.
fn runtime(cache: &std::path::Path, snapshots: Snapshots) -> Runtime {
    Runtime::new(RuntimeOptions {
        cache_dir: cache.to_owned(),
        limits: Limits::default(),
        max_concurrent_calls: 16,
        remember: false,
        snapshots,
        watch: Arc::new(LogCompilations),
    })
    .unwrap()
}

#[test]
fn a_snapshot_is_kept_for_the_next_start_and_is_of_one_component() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, file) = (folder.path().join("cache"), folder.path().join("policy.wasm"));
    let config = json!({"rules": [{"workload": "*", "target": "*", "roles": ["*"]}]}).to_string();
    let load = |name: &str| {
        std::fs::copy(fixture(name), &file).unwrap();
        let spec = PluginSpec { name: "p".to_owned(), path: file.clone(), sha256: None, grants: None };
        runtime(&cache, Snapshots::AtOnce).load(&spec).unwrap().as_policy().unwrap().clone()
    };
    let kept = || {
        let files = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        files.filter(|name| name.contains(".prepared-")).collect::<Vec<_>>()
    };

    assert!(ConfiguredPolicy::new(load("policy-allow-list"), &config).has_snapshot());
    let first = kept();
    assert_eq!(first.len(), 1);

    // From the cache: the component itself, of which it would have to be taken, is gone.
    let again = load("policy-allow-list");
    std::fs::remove_file(&file).unwrap();
    let again = ConfiguredPolicy::new(again, &config);
    assert!(again.has_snapshot());
    assert!(matches!(again.ask(&request()).answer.verdict, Ok(Verdict::Allow(_))));
    assert_eq!(kept(), first);

    // A file that was exchanged after the load is not what was loaded: no snapshot is taken of it.
    let loaded = load("policy-allow-list");
    std::fs::copy(fixture("policy-allow"), &file).unwrap();
    let other = json!({"rules": [{"workload": "nobody", "target": "*", "roles": ["*"]}]}).to_string();
    let policy = ConfiguredPolicy::new(loaded, &other);
    assert!(!policy.has_snapshot());
    assert!(matches!(policy.ask(&request()).answer.verdict, Ok(Verdict::Deny(_))));

    // A damaged snapshot is taken again.
    let path = cache.join(&first[0]);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let policy = ConfiguredPolicy::new(load("policy-allow-list"), &config);
    assert!(policy.has_snapshot());
    assert_ne!(std::fs::read(&path).unwrap(), bytes);
    assert!(matches!(policy.ask(&request()).answer.verdict, Ok(Verdict::Allow(_))));
}

#[test]
fn decisions_do_not_wait_for_a_snapshot_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(&folder.path().join("cache"), Snapshots::Background);
    let spec = fixtures::spec("policy-hostile");
    let plugin = runtime.load(&spec).unwrap().as_policy().unwrap().clone();
    let policy = ConfiguredPolicy::new(plugin.clone(), r#"{"mode":"count"}"#);
    let other = ConfiguredPolicy::new(plugin, r#"{"mode":"count"}"#);
    let mut asked = 0;
    while !policy.has_snapshot() {
        assert!(matches!(policy.ask(&request()).answer.verdict, Ok(Verdict::Allow(_))));
        asked += 1;
        assert!(asked < 100_000, "no snapshot");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(other.has_snapshot(), "one configuration of one plugin has one snapshot");
    assert!(matches!(policy.ask(&request()).answer.verdict, Ok(Verdict::Allow(_))));
}

fn scope() -> ContextScope {
    ContextScope { connection: None, deadline: Duration::from_secs(20), on_behalf: OnBehalf::default() }
}

#[tokio::test]
async fn a_context_provider_starts_from_a_snapshot() {
    let bench = copying();
    let plugin = bench.load("context-hostile").as_context().unwrap().clone();
    for mode in ["forged", "two-faced", "wrong-facts", "loop", "trap", "hog", "requests", "error"] {
        let config = json!({ "mode": mode }).to_string();
        let copied = ConfiguredContext::new(plugin.clone(), &config);
        assert!(copied.has_snapshot(), "{mode}");
        let with = copied.gather(&scope(), &request()).await;
        let without = plugin.gather(&scope(), &config, &request()).await;
        if [&with, &without].iter().any(|facts| is_out_of_time(facts.as_ref().err())) {
            assert!(with.is_err() && without.is_err(), "{mode}: {with:?} and {without:?}");
        } else {
            assert_eq!(with, without, "{mode}");
        }
    }
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

#[test]
fn a_context_provider_that_asks_in_its_preparation_is_refused() {
    let bench = bench();
    let plugin = bench.load("context-hostile").as_context().unwrap().clone();
    let ConfigFault::Fault(fault) = plugin.validate_blocking(r#"{"mode":"ask-prepare"}"#).unwrap_err() else {
        panic!("it is a fault of the plugin")
    };
    assert_eq!(fault.kind, FaultKind::AskedInPrepare);
    plugin.validate_blocking(r#"{"mode":"forged"}"#).unwrap();
}

/// What interpreters keep in their memory is copied too.
#[test]
fn a_policy_in_another_language_decides_on_copies() {
    let built = |name: &str| fixture("policy-allow").with_file_name(format!("{name}.wasm")).is_file();
    let subjects = [
        ("policy-cedar", json!({"policies": "permit(principal, action, resource);"}).to_string()),
        ("quota-python", "{}".to_owned()),
        ("quota-js", "{}".to_owned()),
    ];
    let bench = copying();
    for (name, config) in subjects.iter().filter(|(name, _)| built(name)) {
        let plugin = bench.policy(name);
        if plugin.validate(config).is_err() {
            continue;
        }
        let policy = ConfiguredPolicy::new(plugin.clone(), config);
        assert!(policy.has_snapshot(), "{name}");
        for request in [request(), PolicyRequest { workload: "x".into(), ..request() }] {
            assert_eq!(policy.ask(&request).answer, plugin.ask(config, &request), "{name}");
        }
    }
}
