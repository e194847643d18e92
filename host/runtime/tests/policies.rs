//! The policies and the context provider that come with the broker, as real components: what they may
//! import, that they are pure, that their pages' examples hold, and what Cedar decides.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "policies/cedar.rs"]
mod cedar;
mod fixtures;
#[path = "fixtures/web.rs"]
mod web;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use fixtures::{Bench, fixture, request};
use jit_core::lease::VerifierKind;
use jit_core::policy::{Allowance, DecidedBy, Operation, PolicyRequest, Requirement, Verdict, about_credential};
use jit_core::trace::OnBehalf;
use jit_runtime::{
    ConfigFault, ConfiguredAnswer, ConfiguredPolicy, ContextScope, Fault, Grant, HttpConnectionOptions, Plugin,
    PluginSpec, PolicyPlugin,
};
use serde_json::{Value, json};
use web::{Backend, Source, connection, options, reply};

/// One for all tests: Cedar's component is large, and compiled once, before the tests part.
fn bench() -> &'static Bench {
    static BENCH: LazyLock<Bench> = LazyLock::new(|| {
        let bench = fixtures::bench();
        bench.policy("policy-cedar");
        bench
    });
    &BENCH
}

const POLICIES: [&str; 5] =
    ["policy-allow-list", "policy-cedar", "policy-environment", "policy-quota", "policy-time-window"];

/// Loads a component with these grants and no others.
fn granted(bench: &Bench, name: &str, grants: &[Grant]) -> Plugin {
    let spec = PluginSpec { name: name.to_owned(), path: fixture(name), sha256: None, grants: Some(grants.to_vec()) };
    bench.runtime.load(&spec).unwrap()
}

/// The page of a plugin.
fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins").join(name).join("README.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The configurations (JSON) that a page shows in that table, by their names there.
fn shown(name: &str, table: &str) -> Vec<(String, String)> {
    let page = page(name);
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let mut found = Vec::new();
    for block in blocks {
        let block: toml::Table = toml::from_str(block).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (section, value) in block.get(table).and_then(toml::Value::as_table).into_iter().flatten() {
            found.push((section.clone(), serde_json::to_string(&value["config"]).unwrap()));
        }
    }
    assert!(!found.is_empty(), "{name} shows no [{table}.…]");
    found
}

#[test]
fn no_policy_imports_anything_but_the_log() {
    let bench = bench();
    for name in POLICIES {
        assert_eq!(granted(bench, name, &[Grant::Log]).grants(), [Grant::Log], "{name}");
    }
    let asks = [Grant::Log, Grant::Secrets, Grant::Session, Grant::Http];
    granted(bench, "context-posture", &asks);
}

#[tokio::test]
async fn the_examples_of_every_page_are_accepted() {
    let bench = bench();
    for name in POLICIES {
        let policy = bench.policy(name);
        for (section, config) in shown(name, "policies") {
            policy.validate(&config).unwrap_or_else(|error| panic!("{name}, {section}: {error}"));
        }
    }
    let context = bench.load("context-posture").as_context().unwrap().clone();
    for (section, config) in shown("context-posture", "contexts") {
        context.validate(&config).await.unwrap_or_else(|error| panic!("{section}: {error}"));
    }
}

/// Requests that differ in everything that a policy can look at.
fn requests() -> Vec<PolicyRequest> {
    let facts = |count: &str| -> BTreeMap<String, String> {
        let windows = ["60", "600", "3600"].map(|window| format!("requests.{window}"));
        let names = windows.into_iter().chain(["leases".to_owned()]);
        let scopes = ["workload", "workload_target", "target"];
        let usage = names.flat_map(|name| scopes.map(|scope| (format!("usage.{scope}.{name}"), count.to_owned())));
        usage.chain([("posture.score".to_owned(), "87".to_owned())]).collect()
    };
    let mut requests = vec![request()];
    for (day, count) in (0..9).zip(["1", "2", "5", "20", "21", "100", "101", "x", ""]) {
        requests.push(PolicyRequest { time: 1_800_000_000 + day * 100_000, facts: facts(count), ..request() });
    }
    for (workload, target, role) in
        [("copier", "crown_jewels", "owner"), ("batch-1", "orders_dev", "app"), ("", "", "")]
    {
        let names = |text: &str| text.to_owned();
        requests.push(PolicyRequest {
            operation: Operation::Renew,
            workload: names(workload),
            target: names(target),
            role: names(role),
            attributes: BTreeMap::from([("env".to_owned(), "dev".to_owned())]),
            facts: facts("1"),
            ticket: Some("OPS-1".to_owned()),
            ..request()
        });
    }
    requests
}

/// The request with one thing changed at a time: every field, and of every list a new name, another value, and
/// one name less.
fn changed(request: &PolicyRequest) -> Vec<PolicyRequest> {
    type Change = fn(&mut PolicyRequest);
    type List = fn(&mut PolicyRequest) -> &mut BTreeMap<String, String>;
    let fields: [Change; 10] = [
        |r| r.operation = if r.operation == Operation::Issue { Operation::Renew } else { Operation::Issue },
        |r| r.time += 40_000,
        |r| r.workload.push('x'),
        |r| r.issuer.push('x'),
        |r| r.target.push('x'),
        |r| r.role.push('x'),
        |r| r.ttl_seconds += 7_200,
        |r| r.reason = r.reason.is_none().then(|| "because".to_owned()),
        |r| r.ticket = r.ticket.is_none().then(|| "OPS-7".to_owned()),
        |r| r.caller_address = Some("192.0.2.7".parse().unwrap()),
    ];
    let lists: [List; 4] = [|r| &mut r.attributes, |r| &mut r.metadata, |r| &mut r.facts, |r| &mut r.resource];
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut PolicyRequest)| {
        let mut other = request.clone();
        change(&mut other);
        all.push(other);
    };
    for change in fields {
        with(&change);
    }
    for list in lists {
        with(&|r| drop(list(r).insert("another".to_owned(), "1".to_owned())));
        let names: Vec<String> = list(&mut request.clone()).keys().cloned().collect();
        for name in names {
            with(&|r| drop(list(r).insert(name.clone(), "9999".to_owned())));
            with(&|r| drop(list(r).remove(&name)));
        }
    }
    all
}

/// PURE-POLICY: equal reads are an equal decision, and nothing is read that is not noted.
#[test]
fn what_a_policy_did_not_look_at_changes_nothing() {
    let bench = bench();
    for name in POLICIES {
        let policy = bench.policy(name);
        let (mut same, mut other) = (0, 0);
        for (section, config) in shown(name, "policies") {
            for request in requests() {
                let answer = policy.ask(&config, &request);
                for changed in changed(&request) {
                    if !answer.looked_at.agree(&request, &changed) {
                        other += 1;
                        continue;
                    }
                    let again = policy.ask(&config, &changed);
                    assert_eq!(again, answer, "{name}, {section}: {request:?} and {changed:?}");
                    same += 1;
                }
            }
        }
        assert!(same > 50 && other > 50, "{name}: {same} agree in what was looked at, {other} do not");
    }
}

/// Memory changes no answer, and what a policy did not look at does not make it ask again.
#[test]
fn a_policy_that_remembers_answers_as_one_that_does_not() {
    let bench = bench();
    for name in POLICIES {
        let policy = bench.policy(name);
        let (mut remembered, mut read_time) = (0, 0);
        for (section, config) in shown(name, "policies") {
            let configured = ConfiguredPolicy::new(policy.clone(), &config);
            for request in requests() {
                for request in std::iter::once(request.clone()).chain(changed(&request)) {
                    let ConfiguredAnswer { answer, by } = configured.ask(&request);
                    let was = by == DecidedBy::Memory;
                    assert_eq!(answer, policy.ask(&config, &request), "{name}, {section}: {request:?}");
                    let by_time = answer.looked_at.words().contains(&"time".to_owned());
                    assert!(!(was && by_time), "{name}, {section}: the time is another one each time");
                    assert!(
                        by_time || configured.ask(&request).by == DecidedBy::Memory,
                        "{name}, {section}: {request:?}"
                    );
                    remembered += usize::from(was);
                    read_time += usize::from(by_time);
                }
            }
        }
        assert!(remembered + read_time > 50, "{name}: {remembered} were remembered, {read_time} read the time");
        assert!(remembered > 50 || ["policy-cedar", "policy-time-window"].contains(&name), "{name}");
    }
}

#[test]
fn a_decision_that_logged_or_failed_is_made_again() {
    let bench = bench();
    let policy = bench.policy("policy-hostile");
    for (mode, allows) in [("log", true), ("trap", false), ("read-many", true), ("read-odd", true)] {
        let configured = ConfiguredPolicy::new(policy.clone(), &json!({"mode": mode}).to_string());
        let first = configured.ask(&request());
        assert_eq!(first.answer.verdict.is_ok(), allows, "{mode}: {first:?}");
        let second = configured.ask(&request());
        assert_eq!(second.answer, first.answer, "{mode}");
        assert_eq!(second.by == DecidedBy::Memory, mode == "read-odd", "{mode}");
    }
}

#[test]
fn without_memory_each_decision_is_made() {
    let bench = fixtures::forgetful();
    let policy = ConfiguredPolicy::new(bench.policy("policy-allow"), "{}");
    assert_eq!(policy.ask(&request()).by, DecidedBy::Instance);
    assert_eq!(policy.ask(&request()).by, DecidedBy::Instance);
}

#[test]
fn a_decision_says_what_it_looked_at() {
    let bench = bench();
    let words = |name: &str, config: Value| bench.policy(name).ask(&config.to_string(), &request()).looked_at.words();
    let rule =
        json!({"workload": "payment-*", "target": "*", "roles": ["app_read_only"], "attributes": {"env": "prod"}});
    assert_eq!(
        words("policy-allow-list", json!({"rules": [rule]})),
        ["operation", "workload", "target", "role", "attribute env"]
    );
    let leases = json!({"limits": [{"per": "workload", "leases": 5}]});
    let quota = words("policy-quota", leases);
    assert!(quota.contains(&"fact usage.workload.leases".to_owned()), "{quota:?}");
    assert!(!quota.iter().any(|word| word.starts_with("attribute")), "{quota:?}");
    let policies = r#"permit (principal, action, resource) when { principal.hasTag("env") && context.ttl < 9 };"#;
    assert_eq!(
        words("policy-cedar", json!({"policies": policies})),
        ["operation", "workload", "issuer", "target", "role", "ttl_seconds", "attribute env"]
    );
}

/// PURE-POLICY: whatever the instance, the process's state or the order of calls.
#[test]
fn every_policy_answers_the_same_for_the_same_input() {
    let bench = bench();
    for name in POLICIES {
        let (first, second) = (bench.policy(name), bench.policy(name));
        for (section, config) in shown(name, "policies") {
            let ask = |policy: &PolicyPlugin, request: &PolicyRequest| policy.decide(&config, request).unwrap();
            let requests = requests();
            let verdicts: Vec<Verdict> = requests.iter().map(|request| ask(&first, request)).collect();
            for (request, verdict) in requests.iter().zip(&verdicts).rev() {
                for policy in [&first, &second] {
                    assert_eq!(ask(policy, request), *verdict, "{name}, {section}");
                }
            }
        }
    }
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

/// The short form, through the component: its time zones are compiled in.
#[test]
fn the_time_window_knows_daylight_saving_without_any_file() {
    let bench = bench();
    let policy = bench.policy("policy-time-window");
    let config = r#"{"time_zone": "Europe/Berlin", "days": ["mon-fri"], "from": "08:00", "to": "18:00"}"#;
    policy.validate(config).unwrap();
    // 06:30 UTC on 1 July and on 1 December 2026: 08:30 in summer, 07:30 in winter.
    let at = |time| policy.decide(config, &PolicyRequest { time, ..request() }).unwrap();
    assert!(matches!(at(1_782_887_400), Verdict::Allow(_)));
    let Verdict::Deny(reason) = at(1_796_106_600) else { panic!("07:30 is before 08:00") };
    assert!(reason.ends_with("opens Tue 2026-12-01 08:00 (UTC+01:00)"), "{reason}");
}

#[tokio::test]
async fn posture_asks_a_real_server_and_its_answers_become_facts() {
    let backend = Backend::start(|seen| {
        let body = json!({"edr": {"score": 87}, "patch": {"current": true}, "os": {"name": "debian 12"}});
        match seen.target.as_str() {
            "/base/v1/hosts/payment-service?namespace=payments" => reply(200, body.to_string()),
            _ => reply(404, "{}"),
        }
    })
    .await;
    let mut secrets = BTreeMap::new();
    secrets.insert("token".to_owned(), Source::new("canary").shared());
    let connection = connection(HttpConnectionOptions { secrets, ..options(&backend.url) });
    let scope = ContextScope {
        connection: Some(connection),
        deadline: Duration::from_secs(20),
        on_behalf: OnBehalf::default(),
    };
    let bench = bench();
    let context = bench.load("context-posture").as_context().unwrap().clone();
    let (_, config) = shown("context-posture", "contexts").remove(0);

    let facts = context.gather(&scope, &config, &request()).await.unwrap();
    let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(facts, [("os", "debian 12"), ("patched", "true"), ("score", "87")]);
    assert_eq!(backend.last().header("authorization"), Some("Bearer canary"));

    // A name that would walk about is asked about as what it is, and is not known there.
    let walker = PolicyRequest { workload: "../hosts/payment-service".to_owned(), ..request() };
    let facts = context.gather(&scope, &config, &walker).await.unwrap();
    assert_eq!(facts["score"], "0");
    assert_eq!(backend.last().target, "/base/v1/hosts/..%2Fhosts%2Fpayment-service?namespace=payments");
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}
