//! What several policies say together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jit_core::name::RoleName;
use jit_core::policy::{Allowance, Mode, PolicyRequest, Verdict};
use jit_core::ttl::Ttl;

use super::*;
use crate::backend::Backend;
use crate::doubles::{APP, READ_ONLY, at_most, input, narrower, no, policy, target, yes};
use crate::ports::PolicyFault;
use crate::target::ChainLink;

fn ask_all(chain: Vec<ChainLink>) -> Result<Said, Refused> {
    let target = target(Arc::new(Backend::default()), chain, Vec::new());
    ask(&target, RoleName::new(APP).unwrap(), Ttl::from_seconds(600).unwrap(), &input())
}

fn said(chain: Vec<ChainLink>) -> Said {
    ask_all(chain).unwrap_or_else(|refused| panic!("{refused}"))
}

/// Who said no, and why.
fn denied(said: &Said) -> (&str, &str) {
    match &said.verdict {
        Final::Deny { policy, reason } => (policy, reason),
        Final::Allow { .. } => panic!("it was allowed"),
    }
}

fn labelled(label: &'static str) -> impl Fn(&PolicyRequest) -> Result<Verdict, PolicyFault> {
    move |_| {
        let labels = BTreeMap::from([(label.to_owned(), "1".to_owned())]);
        Ok(Verdict::Allow(Allowance { labels, ..Allowance::default() }))
    }
}

#[test]
fn all_yes_is_a_yes_for_the_shortest_time_with_every_label() {
    let said = said(vec![
        policy("a", Mode::Enforce, labelled("a")),
        policy("b", Mode::Enforce, at_most(120)),
        policy("c", Mode::Enforce, labelled("c")),
        policy("d", Mode::Enforce, at_most(300)),
    ]);
    let Final::Allow { ttl, labels } = &said.verdict else { panic!("it was denied") };
    assert_eq!(ttl.seconds(), 120);
    assert_eq!(labels.keys().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(said.policies.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert!(said.narrowed_by.is_empty() && said.shadow_diffs.is_empty());
}

/// No policy can lengthen what another one, or the target, allows.
#[test]
fn a_policy_that_grants_more_than_is_asked_lengthens_nothing() {
    let said = said(vec![policy("generous", Mode::Enforce, at_most(86_400))]);
    let Final::Allow { ttl, .. } = said.verdict else { panic!("it was denied") };
    assert_eq!(ttl.seconds(), 600);
}

#[test]
fn a_no_denies_wherever_it_stands_and_the_others_are_asked_for_the_record() {
    for at in 0..3 {
        let mut chain: Vec<ChainLink> = ["a", "b"].into_iter().map(|name| policy(name, Mode::Enforce, yes)).collect();
        chain.insert(at, policy("no", Mode::Enforce, no));
        let said = said(chain);
        assert_eq!(denied(&said), ("no", "not today"), "at {at}");
        assert_eq!(said.policies.len(), 3, "at {at}");
    }
}

/// CLOSED: whatever goes wrong in a policy is its no. Only that nobody could ask it is not.
#[test]
fn a_policy_that_fails_denies_by_its_name_and_one_without_room_is_not_blamed() {
    let fails = |_: &PolicyRequest| Err(PolicyFault::Failed("it trapped".to_owned()));
    let failed = said(vec![policy("yes", Mode::Enforce, yes), policy("broken", Mode::Enforce, fails)]);
    let (policy_name, reason) = denied(&failed);
    assert_eq!(policy_name, "broken");
    assert!(reason.contains("it trapped"), "{reason}");
    assert!(failed.policies[1].failed && !failed.policies[0].failed);

    let busy = |_: &PolicyRequest| Err(PolicyFault::Overloaded);
    let refused = ask_all(vec![policy("no", Mode::Enforce, no), policy("busy", Mode::Enforce, busy)]);
    assert!(matches!(refused, Err(Refused::Overloaded)));
}

#[test]
fn a_policy_in_shadow_that_fails_denies_nobody() {
    let fails = |_: &PolicyRequest| Err(PolicyFault::Failed("it trapped".to_owned()));
    let said = said(vec![policy("yes", Mode::Enforce, yes), policy("trial", Mode::Shadow, fails)]);
    assert!(matches!(said.verdict, Final::Allow { .. }));
    assert_eq!(said.shadow_diffs.len(), 1, "{:?}", said.shadow_diffs);
}

#[test]
fn nothing_in_force_is_a_no_and_what_is_off_is_not_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let counting = move |request: &PolicyRequest| {
        counts.fetch_add(1, Ordering::SeqCst);
        yes(request)
    };
    for chain in [vec![], vec![policy("shadow", Mode::Shadow, yes)], vec![policy("off", Mode::Off, counting)]] {
        denied(&said(chain));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// Each policy, also those before the one that named it, judges the narrower role; and what one says of the first role
/// does not count for the second.
#[test]
fn a_narrower_role_is_put_to_the_whole_chain_again() {
    let roles = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&roles);
    let watches = move |request: &PolicyRequest| {
        seen.lock().push(request.role.clone());
        yes(request)
    };
    let said = said(vec![policy("watch", Mode::Enforce, watches), policy("narrow", Mode::Enforce, narrower)]);
    assert_eq!(*roles.lock(), [APP, READ_ONLY]);
    assert!(matches!(said.verdict, Final::Allow { .. }));
    assert_eq!((said.role.as_str(), said.narrowed_by.as_slice()), (READ_ONLY, ["narrow".to_owned()].as_slice()));
}

#[test]
fn policies_that_send_each_other_round_in_circles_are_denied() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let other = move |request: &PolicyRequest| {
        counts.fetch_add(1, Ordering::SeqCst);
        let role = if request.role == APP { READ_ONLY } else { APP };
        Ok(Verdict::Allow(Allowance { role: Some(RoleName::new(role).unwrap()), ..Allowance::default() }))
    };
    let said = said(vec![policy("round", Mode::Enforce, other)]);
    assert_eq!(denied(&said).0, CHAIN);
    assert_eq!((asked.load(Ordering::SeqCst), said.narrowed_by.len()), (MOST_NARROWINGS + 1, MOST_NARROWINGS));
}

#[test]
fn a_role_that_the_target_does_not_have_is_a_no_of_the_chain() {
    let elsewhere = |_: &PolicyRequest| {
        let role = Some(RoleName::new("superuser").unwrap());
        Ok(Verdict::Allow(Allowance { role, ..Allowance::default() }))
    };
    let said = said(vec![policy("elsewhere", Mode::Enforce, elsewhere)]);
    assert_eq!(denied(&said), (CHAIN, not_grantable(&RoleName::new("superuser").unwrap()).as_str()));
}

#[test]
fn a_shadow_says_what_it_would_have_changed_and_changes_nothing() {
    let diff = |trial: ChainLink| {
        let said = said(vec![policy("yes", Mode::Enforce, yes), trial]);
        let Final::Allow { ttl, .. } = said.verdict else { panic!("a shadow denied") };
        assert_eq!((ttl.seconds(), said.role.as_str()), (600, APP));
        said.shadow_diffs.into_iter().map(|(_, how)| how).collect::<Vec<_>>()
    };
    assert_eq!(diff(policy("trial", Mode::Shadow, no)), ["would deny: not today"]);
    assert_eq!(diff(policy("trial", Mode::Shadow, narrower)), [format!("would narrow the role to {READ_ONLY}")]);
    assert_eq!(diff(policy("trial", Mode::Shadow, at_most(60))), ["would lower the TTL to 1m"]);
    assert!(diff(policy("trial", Mode::Shadow, at_most(6_000))).is_empty(), "it agrees");
}
