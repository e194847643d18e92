//! The policy as a whole, on the SDK's request.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use super::*;
use jit_plugin::testing::request;
use jit_plugin::usage::Scope;

const CONFIG: &str = r#"{"limits": [
    {"name": "per service", "per": "workload", "requests": {"1m": 10, "1h": 100}, "leases": 5},
    {"per": "workload_target", "targets": ["crown_*"], "leases": 1},
    {"name": "batch", "per": "target", "workloads": ["batch-*"], "requests": {"60s": 3}}
]}"#;

fn config(json: &str) -> Config {
    let config: Config = jit_plugin::config::parse(json).unwrap();
    assert_eq!(Quota::validate(&config), []);
    config
}

/// A request of the workload that is counted once everywhere.
fn counted() -> Request<'static> {
    Scope::ALL.into_iter().fold(request(), |request, scope| {
        request.with_leases(scope, 1).with_requests(scope, 60, 1).with_requests(scope, 3600, 1)
    })
}

/// The same, with another value of one fact.
fn with(fact: &str, value: &str) -> Request<'static> {
    let request = counted();
    assert!(request.fact(fact).is_some(), "{fact} is not counted");
    request.with_fact(fact, value)
}

fn allowed(json: &str, request: &Request) -> String {
    match Quota::decide(&config(json), request) {
        Verdict::Allow(allowance) => {
            assert_eq!((allowance.max_ttl_seconds, &allowance.role), (None, &None));
            allowance.reason
        }
        Verdict::Deny(reason) => panic!("{reason}"),
    }
}

fn denied(json: &str, request: &Request) -> String {
    match Quota::decide(&config(json), request) {
        Verdict::Deny(reason) => reason,
        Verdict::Allow(allowance) => panic!("{allowance:?}"),
    }
}

#[test]
fn the_last_one_that_fits_passes_and_the_next_does_not() {
    for (fact, most) in
        [("usage.workload.requests.60", 10), ("usage.workload.requests.3600", 100), ("usage.workload.leases", 5)]
    {
        allowed(CONFIG, &with(fact, &most.to_string()));
        denied(CONFIG, &with(fact, &(most + 1).to_string()));
        denied(CONFIG, &with(fact, &u64::MAX.to_string()));
    }
}

#[test]
fn a_yes_names_the_limit_that_leaves_the_least() {
    assert_eq!(
        allowed(CONFIG, &with("usage.workload.requests.3600", "90")),
        "within limit `per service`: 90 of 100 requests in 1h per workload"
    );
    assert_eq!(
        allowed(CONFIG, &with("usage.workload.leases", "5")),
        "within limit `per service`: 5 of 5 live leases per workload"
    );
    let elsewhere = r#"{"limits": [{"per": "target", "targets": ["other"], "leases": 1}]}"#;
    assert_eq!(allowed(elsewhere, &request()), "no limit is for this request");
}

#[test]
fn a_no_says_which_limit_how_many_and_what_helps() {
    assert_eq!(
        denied(CONFIG, &with("usage.workload.requests.60", "11")),
        "limit `per service` is reached: workload `payment-service` may make 10 requests in 1m, and this is number \
         11; requests count for 1m, so try again later; keeping a credential until its lease ends takes fewer of them"
    );
    assert_eq!(
        denied(CONFIG, &with("usage.workload.leases", "6")),
        "limit `per service` is reached: workload `payment-service` may have 5 live leases, and this makes 6; revoke \
         a lease that is no longer needed, or wait until one ends"
    );
}

#[test]
fn limits_are_for_the_workloads_and_targets_that_they_name() {
    let mut crown = with("usage.workload_target.leases", "2");
    allowed(CONFIG, &crown);
    crown = crown.with_target("crown_jewels");
    assert!(denied(CONFIG, &crown).contains("limits[1]"));
    assert!(denied(CONFIG, &crown).contains("workload `payment-service` at target `crown_jewels`"));

    let mut batch = with("usage.target.requests.60", "4");
    allowed(CONFIG, &batch);
    batch = batch.with_workload("batch-7");
    assert!(denied(CONFIG, &batch).contains("target `inventory_db` may make 3 requests in 1m"));
}

#[test]
fn a_count_that_is_missing_or_no_number_denies() {
    for fact in ["usage.workload.requests.60", "usage.workload.requests.3600", "usage.workload.leases"] {
        let request = counted().without_fact(fact);
        let reason = denied(CONFIG, &request);
        assert!(reason.contains(fact) && reason.contains("so it denies"), "{reason}");
        for value in ["", "-1", "+1", "1e3", " 1", "1\n", "NaN", "99999999999999999999"] {
            let reason = denied(CONFIG, &with(fact, value));
            assert!(reason.contains("no number") && !reason.contains('\n'), "{reason}");
        }
    }
    // What no limit looks at need not be there.
    let all = counted();
    let elsewhere = all.facts().iter().filter(|(name, _)| !name.starts_with("usage.workload."));
    let request = elsewhere.fold(counted(), |request, (name, _)| request.without_fact(name));
    assert!(request.facts().len() < all.facts().len());
    allowed(CONFIG, &request);
}

#[test]
fn renewals_are_held_to_what_the_configuration_says() {
    let renewal = |fact: &str, value: &str| {
        let mut request = with(fact, value);
        request = request.with_operation("renew");
        request
    };
    let requests = renewal("usage.workload.requests.60", "11");
    let leases = renewal("usage.workload.leases", "6");
    let with_renewals = |word: &str| CONFIG.replacen('{', &format!(r#"{{"renewals": "{word}", "#), 1);

    for json in [CONFIG, &with_renewals("requests")] {
        denied(json, &requests);
        allowed(json, &leases);
    }
    denied(&with_renewals("all"), &requests);
    denied(&with_renewals("all"), &leases);
    allowed(&with_renewals("none"), &requests);
    allowed(&with_renewals("none"), &leases);
    // Only a renewal is one.
    let mut unknown = leases;
    unknown = unknown.with_operation("transfer");
    denied(&with_renewals("none"), &unknown);
}

#[test]
fn the_host_is_asked_for_each_window_that_is_named() {
    let mut windows = Quota::windows(&config(CONFIG));
    windows.sort_unstable();
    windows.dedup();
    assert_eq!(windows, [60, 3600]);
    let leases = config(r#"{"limits": [{"per": "target", "leases": 1}]}"#);
    assert!(Quota::windows(&leases).is_empty());
}

#[test]
fn hostile_strings_are_tame_in_reasons() {
    for hostile in ["a\nlevel=error", "\u{1b}[2J", "\u{202e}", "`; DROP", &"x".repeat(1 << 20)] {
        let json = r#"{"limits": [{"per": "workload_target", "leases": 1}]}"#;
        let mut request = request().with_leases(Scope::WorkloadTarget, 2);
        request = request.with_workload(hostile);
        request = request.with_target(hostile);
        let reason = denied(json, &request);
        assert!(reason.len() < 2000 && !reason.chars().any(char::is_control), "{reason:?}");
        assert!(!reason.contains('\u{202e}'), "{reason:?}");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let nine: Vec<String> = (1..=9).map(|minute| format!(r#""{minute}m": 1"#)).collect();
    let nine = format!(r#"{{"limits": [{{"per": "target", "requests": {{{}}}}}]}}"#, nine.join(","));
    for (json, path, word) in [
        ("{}", "", "`limits` is missing"),
        (r#"{"limits": []}"#, "limits", "add a limit"),
        (r#"{"limits": [{"per": "workload"}]}"#, "limits[0]", "leases = 20"),
        (r#"{"limits": [{"leases": 1}]}"#, "limits[0]", "`per` is missing"),
        (r#"{"limits": [{"per": "worklaod", "leases": 1}]}"#, "limits[0].per", "write `workload`"),
        (r#"{"limits": [{"per": "target", "leases": 0}]}"#, "limits[0].leases", "at least 1"),
        (r#"{"limits": [{"per": "target", "leases": -1}]}"#, "limits[0].leases", "u64"),
        (r#"{"limits": [{"per": "target", "requests": {"1h": 0}}]}"#, "limits[0].requests.1h", "at least 1"),
        (r#"{"limits": [{"per": "target", "requests": {"32d": 1}}]}"#, "limits[0].requests.32d", "31 days"),
        (r#"{"limits": [{"per": "target", "requests": {"hour": 1}}]}"#, "limits[0].requests", "write a duration"),
        (r#"{"limits": [{"per": "target", "requests": {"1m": 1, "60s": 2}}]}"#, "limits[0].requests", "twice"),
        (r#"{"limits": [{"per": "target", "requests": 7}]}"#, "limits[0].requests", "1h = 100"),
        (r#"{"limits": [{"per": "target", "leases": 1, "targets": []}]}"#, "limits[0].targets", "leave it out"),
        (
            r#"{"limits": [{"per": "target", "requests": {"1minute": 10}}]}"#,
            "limits[0].requests",
            "unknown window `1minute`: write a duration",
        ),
        (r#"{"limits": [{"per": "target", "lease": 1}]}"#, "limits[0].lease", "write `leases`"),
        (r#"{"limits": [{"per": "target", "leases": 1, "name": ""}]}"#, "limits[0].name", "empty"),
        (r#"{"limits": [{"per": "target", "leases": 1}], "renewals": "some"}"#, "renewals", "`some` is not one of"),
        (&nine, "limits", "9 different windows"),
    ] {
        let problems = match jit_plugin::config::parse::<Config>(json) {
            Ok(config) => Quota::validate(&config),
            Err(problems) => problems,
        };
        assert_eq!(problems.len(), 1, "{json} {problems:?}");
        assert!(problems[0].path.starts_with(path), "{json} {problems:?}");
        assert!(problems[0].message.contains(word), "{json} {problems:?}");
    }
}
