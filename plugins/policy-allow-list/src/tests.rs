//! The policy as a whole, on the SDK's request.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use super::*;
use jit_plugin::testing::request;

const CONFIG: &str = r#"{"rules": [
    {"workload": "payment-*", "issuer": "https://issuer.test", "target": "inventory_db",
     "roles": ["app_read_only"], "attributes": {"env": "prod"}, "max_ttl": "30m", "require_reason": true},
    {"name": "reports", "k8s_namespace": "reporting-*", "k8s_service_account": "nightly",
     "target": "inventory_db", "roles": ["app_*"], "require_ticket": true},
    {"spiffe_prefix": "spiffe://corp.test/ns/pay", "target": "*", "roles": ["*"]},
    {"workload": "secret-project", "target": "crown_jewels", "roles": ["owner"]},
    {"attributes": {"team": "data-*", "tier": "batch"}, "target": "warehouse", "roles": ["loader"]}
]}"#;

fn config() -> Config {
    let config: Config = jit_plugin::config::parse(CONFIG).unwrap();
    assert_eq!(AllowList::validate(&config), []);
    config
}

fn allowed(request: &Request) -> Allowance {
    match AllowList::decide(&config(), request) {
        Verdict::Allow(allowance) => allowance,
        Verdict::Deny(reason) => panic!("{reason}"),
    }
}

fn denied(request: &Request) -> String {
    match AllowList::decide(&config(), request) {
        Verdict::Deny(reason) => reason,
        Verdict::Allow(allowance) => panic!("{allowance:?}"),
    }
}

#[test]
fn the_first_rule_that_fits_allows_with_its_conditions() {
    let prod = request().with_attribute("env", "prod");
    assert_eq!(
        allowed(&prod),
        Allowance {
            reason: "allowed by rules[0]".into(),
            max_ttl_seconds: Some(1800),
            role: None,
            requires: vec!["reason".into()],
            labels: vec![("rule".into(), "rules[0]".into())],
        }
    );
    // Its namespace would fit the second rule as well.
    let both = prod.with_attribute("k8s_namespace", "reporting-eu").with_attribute("k8s_service_account", "nightly");
    assert_eq!(allowed(&both).max_ttl_seconds, Some(1800));
}

#[test]
fn kubernetes_and_spiffe_identities() {
    let mut pod =
        request().with_attribute("k8s_namespace", "reporting-eu").with_attribute("k8s_service_account", "nightly");
    pod = pod.with_workload("nightly");
    let allowance = allowed(&pod);
    assert_eq!(allowance.requires, ["ticket"]);
    assert_eq!(allowance.labels, [("rule".into(), "reports".into())]);

    let mut by_name = request().with_workload("spiffe://corp.test/ns/pay/sa/api").with_target("anything");
    allowed(&by_name);
    let by_attribute = request().with_attribute("spiffe_id", "spiffe://corp.test/ns/pay").with_target("anything");
    allowed(&by_attribute);
    by_name = by_name.with_workload("spiffe://corp.test/ns/payments");
    denied(&by_name);
}

#[test]
fn a_rule_may_know_its_workloads_by_attributes_alone() {
    let asked = |attributes: &[(&str, &str)]| {
        let request = request().with_workload("anybody").with_target("warehouse").with_role("loader");
        attributes.iter().fold(request, |request, (name, value)| request.with_attribute(name, value))
    };
    allowed(&asked(&[("team", "data-eu"), ("tier", "batch")]));
    for attributes in [&[][..], &[("team", "data-eu")], &[("tier", "batch")], &[("team", "web"), ("tier", "batch")]] {
        let reason = denied(&asked(attributes));
        assert!(reason.contains("no rule") && !reason.contains("tier") && !reason.contains("team"), "{reason}");
    }
    let other = asked(&[("team", "data-eu"), ("tier", "batch")]).with_role("owner");
    assert!(denied(&other).contains("does not give"));
}

#[test]
fn a_denial_says_which_part_did_not_fit() {
    let prod = || request().with_attribute("env", "prod");

    let other = prod().with_workload("orders");
    assert!(denied(&other).contains("no rule of the allow-list is for workload `orders`"));
    let other = prod().with_issuer("https://issuer.evil");
    assert!(denied(&other).contains("of issuer `https://issuer.evil`"));
    let other = prod().with_target("hr");
    assert!(denied(&other).contains("nothing on target `hr`"));
    let other = prod().with_role("owner");
    assert!(denied(&other).contains("does not give workload `payment-service` role `owner`"));
    assert!(denied(&request()).contains("with attribute `env`, which"));
    let dev = request().with_attribute("env", "dev");
    assert!(denied(&dev).contains("another value of attribute `env`"));
}

#[test]
fn a_denial_does_not_speak_of_the_rules_of_others() {
    let stranger = request().with_workload("stranger");
    let reason = denied(&stranger);
    for word in ["secret-project", "crown_jewels", "reporting", "nightly", "env", "prod"] {
        assert!(!reason.contains(word), "{reason}");
    }
}

#[test]
fn hostile_strings_are_denied_and_their_echo_is_tame() {
    let long = "x".repeat(1 << 20);
    for hostile in [
        "payment-\0",
        "payment-x\nlevel=error forged",
        "payment-\u{1b}[2J",
        "payment-service ",
        "' OR 1=1 --",
        "payment*",
        "",
        "😀\u{202e}",
        &long,
    ] {
        let request = request().with_attribute("env", "prod").with_workload(hostile);
        if hostile == "payment-service " {
            // A glob fits what it fits; exactness is the rule's choice.
            allowed(&request);
            continue;
        }
        let reason = denied(&request);
        assert!(reason.len() < 2000 && !reason.chars().any(char::is_control), "{reason:?}");
        assert!(!reason.contains('\u{202e}'), "{reason:?}");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (json, path, word) in [
        ("{}", "", "`rules` is missing"),
        (r#"{"rules": []}"#, "rules", "add a rule"),
        (r#"{"rules": [{"target": "a", "roles": ["b"]}]}"#, "rules[0]", "`workload`"),
        (r#"{"rules": [{"issuer": "i", "target": "a", "roles": ["b"]}]}"#, "rules[0]", "`workload`"),
        (r#"{"rules": [{"workload": "w", "target": "a", "roles": []}]}"#, "rules[0].roles", "[\"*\"]"),
        (
            r#"{"rules": [{"workload": "w[0-9]", "target": "a", "roles": ["b"]}]}"#,
            "rules[0].workload",
            "only `*` and `?`",
        ),
        (r#"{"rules": [{"workload": "w", "traget": "a", "roles": ["b"]}]}"#, "rules[0].traget", "write `target`"),
        (
            r#"{"rules": [{"spiffe_prefix": "spiffe://x/*", "target": "a", "roles": ["b"]}]}"#,
            "rules[0].spiffe_prefix",
            "whole segments",
        ),
        (
            r#"{"rules": [{"workload": "w", "target": "a", "roles": ["b"], "max_ttl": "0s"}]}"#,
            "rules[0].max_ttl",
            "30m",
        ),
        (
            r#"{"rules": [{"workload": "w", "target": "a", "roles": ["b"], "name": "a\nb"}]}"#,
            "rules[0].name",
            "control",
        ),
    ] {
        let problems = match jit_plugin::config::parse::<Config>(json) {
            Ok(config) => AllowList::validate(&config),
            Err(problems) => problems,
        };
        assert_eq!(problems.len(), 1, "{json}");
        assert_eq!(problems[0].path, path, "{json}");
        assert!(problems[0].message.contains(word), "{problems:?}");
    }
}

#[test]
fn a_rule_may_require_that_the_caller_makes_the_password() {
    let json = r#"{"rules": [{"workload": "*", "target": "*", "roles": ["*"], "require_verifier": true}]}"#;
    let config: Config = jit_plugin::config::parse(json).unwrap();
    assert_eq!(AllowList::validate(&config), []);
    let with = |credential: &str| AllowList::decide(&config, &request().with_resource("credential", credential));
    assert!(matches!(with("verifier"), Verdict::Allow(_)));
    for verdict in [with("password"), with(""), AllowList::decide(&config, &request())] {
        let Verdict::Deny(reason) = verdict else { panic!("{verdict:?}") };
        assert!(reason.contains("\"verifier\""), "{reason}");
    }
}
