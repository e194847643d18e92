//! The policy as a whole, on the SDK's request.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use super::*;
use jit_plugin::testing::request;

const CONFIG: &str = r#"{
    "targets": [
        {"environment": "staging", "targets": ["inventory_db"], "roles": ["replica_*"]},
        {"environment": "prod", "targets": ["inventory_db", "*_prod"]},
        {"environment": "dev", "targets": ["*_dev"]}
    ],
    "exceptions": [
        {"name": "anonymised copies", "from": "prod", "to": "staging", "workloads": ["copier"]},
        {"from": "staging", "to": "dev"}
    ]
}"#;

const MAPPED: &str = r#"{
    "attribute": "k8s_namespace",
    "workloads": {"prod": ["*-prod", "core"], "dev": ["*-dev", "dev-*"]},
    "targets": [{"environment": "prod", "targets": ["*_prod"]}, {"environment": "dev", "targets": ["*"]}]
}"#;

fn config(json: &str) -> Config {
    let config: Config = jit_plugin::config::parse(json).unwrap();
    assert_eq!(Environment::validate(&config), []);
    config
}

fn asked(target: &str, role: &str) -> Request<'static> {
    let mut request = request();
    request = request.with_target(target);
    request = request.with_role(role);
    request
}

fn allowed(json: &str, request: &Request) -> Allowance {
    match Environment::decide(&config(json), request) {
        Verdict::Allow(allowance) => allowance,
        Verdict::Deny(reason) => panic!("{reason}"),
    }
}

fn denied(json: &str, request: &Request) -> String {
    match Environment::decide(&config(json), request) {
        Verdict::Deny(reason) => reason,
        Verdict::Allow(allowance) => panic!("{allowance:?}"),
    }
}

#[test]
fn only_its_own_environment_is_open_to_a_workload() {
    for (target, environment) in [("inventory_db", "prod"), ("orders_prod", "prod"), ("orders_dev", "dev")] {
        let own = asked(target, "app").with_attribute("env", environment);
        assert_eq!(allowed(CONFIG, &own).labels, [("environment".to_owned(), environment.to_owned())]);
        for other in ["prod", "staging", "dev"] {
            if other != environment && (other, environment) != ("staging", "dev") {
                denied(CONFIG, &asked(target, "app").with_attribute("env", other));
            }
        }
    }
    assert_eq!(
        denied(CONFIG, &asked("inventory_db", "app").with_attribute("env", "dev")),
        "workload `payment-service` is of environment `dev` (its attribute `env`), and role `app` of target \
         `inventory_db` is of `prod`: ask from a workload of `prod`, or for a target of `dev`"
    );
}

#[test]
fn a_role_may_be_of_another_environment_than_its_target() {
    allowed(CONFIG, &asked("inventory_db", "replica_read").with_attribute("env", "staging"));
    denied(CONFIG, &asked("inventory_db", "replica_read").with_attribute("env", "prod"));
    denied(CONFIG, &asked("inventory_db", "owner").with_attribute("env", "staging"));
}

#[test]
fn what_is_not_known_denies() {
    let reason = denied(CONFIG, &asked("inventory_db", "app"));
    assert!(reason.contains("has no attribute `env`"), "{reason}");
    for value in ["Prod", "prod ", "", "production", "*", "prod\0", "test"] {
        let reason = denied(CONFIG, &asked("inventory_db", "app").with_attribute("env", value));
        assert!(reason.contains("none of this policy's"), "{value:?}: {reason}");
    }
    for target in ["hr", "INVENTORY_DB", "orders_prod2", ""] {
        let reason = denied(CONFIG, &asked(target, "app").with_attribute("env", "prod"));
        assert!(reason.contains("nothing says which environment"), "{reason}");
    }
    // Two values that are the same word name nothing either.
    denied(CONFIG, &asked("hr", "app").with_attribute("env", "hr"));
}

#[test]
fn an_exception_goes_one_way_and_no_further() {
    let mut copier = asked("inventory_db", "replica_read").with_attribute("env", "prod");
    denied(CONFIG, &copier);
    copier = copier.with_workload("copier");
    let allowance = allowed(CONFIG, &copier);
    assert_eq!(allowance.reason, "from `prod` to `staging` by exception anonymised copies");
    assert_eq!(allowance.labels[1], ("environment_exception".to_owned(), "anonymised copies".to_owned()));

    let mut back = asked("orders_prod", "app").with_attribute("env", "staging");
    back = back.with_workload("copier");
    denied(CONFIG, &back);
    let staging = asked("orders_dev", "app").with_attribute("env", "staging");
    assert_eq!(allowed(CONFIG, &staging).labels[1].1, "exceptions[1]");
    // Two exceptions do not make a third: prod → staging → dev is none.
    copier = copier.with_target("orders_dev");
    denied(CONFIG, &copier);
}

#[test]
fn another_attribute_may_tell_the_environment_by_its_values() {
    let of = |namespace: &str, target: &str| asked(target, "app").with_attribute("k8s_namespace", namespace);
    for namespace in ["payments-prod", "core"] {
        allowed(MAPPED, &of(namespace, "orders_prod"));
        denied(MAPPED, &of(namespace, "orders"));
    }
    allowed(MAPPED, &of("dev-3", "orders"));
    let reason = denied(MAPPED, &of("dev-prod", "orders"));
    assert!(reason.contains("not clear") && reason.ends_with("of dev and of prod"), "{reason}");
    // With a table of values a name alone is none.
    denied(MAPPED, &of("prod", "orders_prod"));
    denied(MAPPED, &of("", "orders_prod").with_attribute("env", "prod"));
}

#[test]
fn an_attribute_has_one_value() {
    let twice = asked("inventory_db", "app").with_attribute("env", "prod").with_attribute("env", "dev");
    denied(CONFIG, &twice);
}

#[test]
fn metadata_of_the_caller_is_no_identity() {
    denied(CONFIG, &asked("inventory_db", "app").with_metadata("env", "prod").with_fact("env", "prod"));
}

#[test]
fn hostile_strings_are_tame_in_reasons() {
    for hostile in ["a\nlevel=error", "\u{1b}[2J", "\u{202e}", &"x".repeat(1 << 20)] {
        for value in ["dev", hostile] {
            let mut request = asked(hostile, hostile).with_attribute("env", value);
            request = request.with_workload(hostile);
            let reason = denied(CONFIG, &request);
            assert!(reason.len() < 2000 && !reason.chars().any(char::is_control), "{reason:?}");
            assert!(!reason.contains('\u{202e}'), "{reason:?}");
        }
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let with = |more: &str| format!(r#"{{"targets": [{{"environment": "prod", "targets": ["*"]}}], {more}}}"#);
    for (json, path, word) in [
        ("{}".to_owned(), "", "`targets` is missing"),
        (r#"{"targets": []}"#.to_owned(), "targets", "denies everything"),
        (r#"{"targets": [{"targets": ["a"]}]}"#.to_owned(), "targets[0]", "`environment` is missing"),
        (r#"{"targets": [{"environment": "a", "targets": []}]}"#.to_owned(), "targets[0].targets", "[\"*\"]"),
        (
            r#"{"targets": [{"environment": "a", "targets": ["x"], "roles": []}]}"#.to_owned(),
            "targets[0].roles",
            "leave it out",
        ),
        (with(r#""attribute": """#), "attribute", "no attribute's name"),
        (with(r#""atribute": "env""#), "atribute", "write `attribute`"),
        (with(r#""workloads": {"prod": []}"#), "workloads.prod", "values"),
        (with(r#""exceptions": [{"from": "prod", "to": "prod"}]"#), "exceptions[0]", "no exception"),
        (with(r#""exceptions": [{"from": "prod", "to": "prd"}]"#), "exceptions[0].to", "one of `prod`"),
        (
            with(r#""workloads": {"dev": ["d"]}, "exceptions": [{"from": "dev", "to": "prod", "roles": []}]"#),
            "exceptions[0].roles",
            "leave it out",
        ),
    ] {
        let problems = match jit_plugin::config::parse::<Config>(&json) {
            Ok(config) => Environment::validate(&config),
            Err(problems) => problems,
        };
        assert_eq!(problems.len(), 1, "{json} {problems:?}");
        assert_eq!(problems[0].path, path, "{json} {problems:?}");
        assert!(problems[0].message.contains(word), "{json} {problems:?}");
    }
}
