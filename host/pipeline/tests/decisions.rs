//! What policies and context providers say, and what follows from it: facts, the chain, the permit, the lease and the
//! record.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jit_core::name::RoleName;
use jit_core::policy::{Allowance, Mode, OnFailure, PolicyRequest, Verdict};
use jit_pipeline::facts::ContextLink;
use jit_pipeline::ports::{Context, PolicyFault};
use jit_pipeline::refusal::Refused;
use jit_pipeline::target::ChainLink;
use world::{APP, READ_ONLY, SHOP, World, at_most, narrower, no, policy, yes};

async fn world(chain: Vec<ChainLink>) -> World {
    World::new().await.with_chain(chain)
}

/// Nothing was made and nothing is owed: the denial is all there is.
async fn is_denied(world: &World, by: &str) -> serde_json::Value {
    let refused = world.issue(&world.broker()).await.err().expect("it was granted");
    assert!(matches!(&refused, Refused::PolicyDenied { policy, .. } if policy == by), "{refused}");
    assert!(world.leases().await.is_empty() && world.backend.accounts().is_empty());
    let records = world.records().await;
    let denied = records.iter().find(|record| record["event"] == "issue.denied").unwrap();
    assert_eq!(denied["policy"], by);
    assert_eq!(denied["input"]["target"], SHOP, "from its record the decision can be replayed");
    denied.clone()
}

#[tokio::test(start_paused = true)]
async fn one_no_in_force_denies_and_is_on_record_by_its_name() {
    let world = world(vec![policy("first", Mode::Enforce, yes), policy("second", Mode::Enforce, no)]).await;
    let denied = is_denied(&world, "second").await;
    assert_eq!(denied["error"], "not today");
    let asked: Vec<_> = denied["policies"].as_array().unwrap().iter().map(|policy| &policy["name"]).collect();
    assert_eq!(asked, ["first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_fails_denies() {
    let fails = |_: &PolicyRequest| Err(PolicyFault::Failed("it trapped".to_owned()));
    let world = world(vec![policy("broken", Mode::Enforce, fails), policy("yes", Mode::Enforce, yes)]).await;
    let denied = is_denied(&world, "broken").await;
    assert!(denied["error"].as_str().unwrap().contains("it trapped"));
    assert_eq!(denied["policies"][0]["failed"], true);
}

#[tokio::test(start_paused = true)]
async fn a_target_without_a_policy_in_force_denies() {
    for chain in [vec![], vec![policy("shadow", Mode::Shadow, yes)], vec![policy("off", Mode::Off, yes)]] {
        let world = world(chain).await;
        let refused = world.issue(&world.broker()).await.err().unwrap();
        assert!(matches!(refused, Refused::PolicyDenied { .. }), "{refused}");
        assert!(world.backend.accounts().is_empty());
    }
}

/// That there is no room for a policy is not its no: nothing is denied, and the caller tries again.
#[tokio::test(start_paused = true)]
async fn a_policy_that_could_not_be_asked_says_nothing() {
    let busy = |_: &PolicyRequest| Err(PolicyFault::Overloaded);
    let world = world(vec![policy("busy", Mode::Enforce, busy)]).await;
    let refused = world.issue(&world.broker()).await.err().unwrap();
    assert!(matches!(refused, Refused::Overloaded), "{refused}");
    assert!(world.events().await.is_empty(), "{:?}", world.events().await);
}

#[tokio::test(start_paused = true)]
async fn a_no_in_shadow_mode_is_recorded_and_has_no_effect() {
    let world = world(vec![policy("yes", Mode::Enforce, yes), policy("trial", Mode::Shadow, no)]).await;
    assert!(world.issue(&world.broker()).await.is_ok());
    let records = world.records().await;
    let diff = records.iter().find(|record| record["event"] == "policy.shadow_diff").unwrap();
    assert_eq!((&diff["policy"], &diff["error"]), (&"trial".into(), &"would deny: not today".into()));
}

/// Every policy judges the role that is granted in the end, not only the one that was asked for.
#[tokio::test(start_paused = true)]
async fn a_narrower_role_is_judged_by_every_policy() {
    let narrows = |request: &PolicyRequest| if request.role == READ_ONLY { yes(request) } else { narrower(request) };
    let granted = world(vec![policy("narrow", Mode::Enforce, narrows), policy("yes", Mode::Enforce, yes)]).await;
    let disclosure = granted.issue(&granted.broker()).await.unwrap();
    assert_eq!(disclosure.lease.role.as_str(), READ_ONLY);
    let records = granted.records().await;
    let record = records.iter().find(|record| record["event"] == "issue.granted").unwrap();
    assert_eq!((&record["role"], &record["narrowed_to"]), (&READ_ONLY.into(), &READ_ONLY.into()));
    assert_eq!(record["narrowed_by"], serde_json::json!(["narrow"]));

    let not_that = |request: &PolicyRequest| if request.role == READ_ONLY { no(request) } else { yes(request) };
    let denied = world(vec![policy("narrow", Mode::Enforce, narrows), policy("not-that", Mode::Enforce, not_that)]);
    is_denied(&denied.await, "not-that").await;
}

#[tokio::test(start_paused = true)]
async fn a_role_that_the_target_does_not_have_is_not_granted() {
    let elsewhere = |_: &PolicyRequest| {
        let role = Some(RoleName::new("superuser").unwrap());
        Ok(Verdict::Allow(Allowance { role, ..Allowance::default() }))
    };
    is_denied(&world(vec![policy("elsewhere", Mode::Enforce, elsewhere)]).await, "chain").await;
}

#[tokio::test(start_paused = true)]
async fn the_shortest_length_that_a_policy_grants_holds_in_lease_and_backend() {
    let chain = vec![policy("a", Mode::Enforce, at_most(300)), policy("b", Mode::Enforce, at_most(120))];
    let world = world(chain).await;
    let lease = world.issue(&world.broker()).await.unwrap().lease;
    assert_eq!(lease.ttl().seconds(), 120);
    let account = &world.backend.accounts()[lease.account.as_str()];
    assert_eq!(account.expires_at, u64::try_from(lease.expires_at.as_second()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_offered_is_on_record_with_its_code() {
    for (target, role, code) in [("elsewhere", APP, "unknown-target"), (SHOP, "superuser", "role-not-allowed")] {
        let world = World::new().await;
        assert!(world.issue_from(&world.broker(), target, role).await.is_err());
        let records = world.records().await;
        assert_eq!((&records[0]["event"], &records[0]["code"]), (&"issue.denied".into(), &code.into()));
        assert!(world.leases().await.is_empty());
    }
}

/// A context provider that fails while it is told to, and counts how often it is asked.
#[derive(Default)]
struct Provider {
    asked: AtomicUsize,
    fails: bool,
}

#[async_trait]
impl Context for Provider {
    fn sha256(&self) -> &str {
        "00"
    }

    async fn gather(&self, _: &PolicyRequest) -> Result<BTreeMap<String, String>, String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        // What a provider says of its own status does not count.
        let facts = BTreeMap::from([("level".to_owned(), "3".to_owned()), ("status".to_owned(), "ok".to_owned())]);
        if self.fails { Err("it is away".to_owned()) } else { Ok(facts) }
    }
}

/// A world whose policy wants those facts of the provider.
async fn with_provider(
    provider: &Arc<Provider>,
    on_failure: OnFailure,
    fresh: Duration,
    wants: &[(&str, &str)],
) -> World {
    let wants: Vec<(String, String)> = wants.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let judges = move |request: &PolicyRequest| {
        let told = wants.iter().all(|(name, value)| request.facts.get(name) == Some(value));
        if told { yes(request) } else { no(request) }
    };
    let link = ContextLink::new("oncall".to_owned(), Arc::clone(provider) as Arc<dyn Context>, on_failure, fresh);
    world(vec![policy("facts", Mode::Enforce, judges)]).await.with_context(link)
}

#[tokio::test(start_paused = true)]
async fn facts_reach_policies_under_their_providers_name() {
    let wants = [("oncall.level", "3"), ("oncall.status", "ok")];
    let provider = Arc::new(Provider::default());
    let world = with_provider(&provider, OnFailure::Deny, Duration::ZERO, &wants).await;
    world.issue(&world.broker()).await.unwrap();
    world.issue(&world.broker()).await.unwrap();
    assert_eq!(provider.asked.load(Ordering::SeqCst), 2, "each request asks where nothing is kept");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_denies_unless_it_may_be_done_without() {
    let provider = || Arc::new(Provider { fails: true, ..Provider::default() });
    let denying = with_provider(&provider(), OnFailure::Deny, Duration::ZERO, &[]).await;
    let denied = is_denied(&denying, "oncall").await;
    assert_eq!(denied["contexts"][0]["error"], "it is away");
    assert!(!denied["error"].as_str().unwrap().contains("away"), "the caller does not hear of the inside");

    let wants = [("oncall.status", "failed")];
    let open = with_provider(&provider(), OnFailure::Allow, Duration::ZERO, &wants).await;
    open.issue(&open.broker()).await.unwrap();
    let records = open.records().await;
    assert_eq!(records.last().unwrap()["contexts"][0]["failed_open"], true);
}

#[tokio::test(start_paused = true)]
async fn facts_are_kept_for_the_same_question_and_no_other() {
    let provider = Arc::new(Provider::default());
    let world = with_provider(&provider, OnFailure::Deny, Duration::from_secs(600), &[]).await;
    world.issue(&world.broker()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.issue(&world.broker()).await.unwrap();
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1, "the same question a second later");
    world.issue_role(&world.broker(), READ_ONLY).await.unwrap();
    assert_eq!(provider.asked.load(Ordering::SeqCst), 2, "another role is another question");
}
