//! Explaining a decision: the same answer as a request would get, without any effect.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jit_core::looked_at::{Field, LookedAt};
use jit_core::policy::{DecidedBy, Mode, OnFailure, Verdict};
use jit_ledger_memory::MemoryLedger;

use super::*;
use crate::backend::Backend;
use crate::doubles::{APP, READ_ONLY, SHOP, at_most, began, narrower, no, policy, target, yes};
use crate::facts::ContextLink;
use crate::ports::{Context, Policy, PolicyFault, PolicyReply};
use crate::target::ChainLink;

fn question() -> Question {
    serde_json::from_value(serde_json::json!({
        "workload": "payment",
        "issuer": "cluster",
        "subject": "payment-1",
        "request": { "target": SHOP, "role": APP },
        "time": began(),
    }))
    .unwrap()
}

fn issuers(names: &[&str]) -> Vec<KnownIssuer> {
    let attributes = || vec!["namespace".to_owned()];
    names.iter().map(|name| KnownIssuer { name: (*name).to_owned(), attributes: attributes() }).collect()
}

fn serving_of(target: Target) -> Serving {
    Serving { targets: [(target.name.clone(), Arc::new(target))].into(), ..Serving::default() }
}

fn serving(chain: Vec<ChainLink>) -> Serving {
    serving_of(target(Arc::new(Backend::default()), chain, Vec::new()))
}

async fn explained(serving: &Serving, question: Question) -> Explanation {
    explain(serving, None, &[], question).await.unwrap_or_else(|refused| panic!("{refused}"))
}

async fn refused(issuers: &[KnownIssuer], question: Question) -> String {
    let serving = serving(vec![policy("yes", Mode::Enforce, yes)]);
    explain(&serving, None, issuers, question).await.expect_err("it was explained").to_string()
}

#[tokio::test(start_paused = true)]
async fn a_yes_says_what_would_hold() {
    let chain = vec![policy("narrow", Mode::Enforce, narrower), policy("short", Mode::Enforce, at_most(60))];
    let explanation = explained(&serving(chain), question()).await;
    assert_eq!((explanation.decision.as_str(), explanation.policy, explanation.reason), ("allow", None, None));
    assert_eq!((explanation.role.as_str(), explanation.ttl_seconds), (READ_ONLY, 60));
    assert_eq!(explanation.narrowed_to.as_deref(), Some(READ_ONLY));
    assert_eq!(explanation.policies.len(), 2);
    assert_eq!(explanation.input.time, u64::try_from(began().as_second()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_no_says_whose_it_is_and_what_a_shadow_would_have_said() {
    let denied = explained(&serving(vec![policy("no", Mode::Enforce, no)]), question()).await;
    assert_eq!(denied.decision, "deny");
    assert_eq!((denied.policy.as_deref(), denied.reason.as_deref()), (Some("no"), Some("not today")));
    assert_eq!(denied.ttl_seconds, 600, "what was asked for, within the target's cap");

    let chain = vec![policy("yes", Mode::Enforce, yes), policy("trial", Mode::Shadow, no)];
    let allowed = explained(&serving(chain), question()).await;
    assert_eq!(allowed.decision, "allow");
    assert_eq!(allowed.shadow_diffs, [("trial".to_owned(), "would deny: not today".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn the_issuer_is_the_one_that_there_is_and_otherwise_has_to_be_named() {
    let nobody = Question { issuer: String::new(), ..question() };
    let serving = serving(vec![policy("yes", Mode::Enforce, yes)]);
    let only = explain(&serving, None, &issuers(&["cluster"]), nobody.clone()).await.unwrap();
    assert_eq!(only.input.issuer, "cluster");
    assert_eq!(only.lacks, ["attribute namespace (--attribute namespace=…)"], "a policy may want it");
    let given = Question { attributes: BTreeMap::from([("namespace".into(), "shop".into())]), ..nobody.clone() };
    assert!(explain(&serving, None, &issuers(&["cluster"]), given).await.unwrap().lacks.is_empty());

    let several = refused(&issuers(&["cluster", "ci"]), nobody).await;
    assert!(several.contains("cluster, ci"), "{several}");
    let near = refused(&issuers(&["cluster", "ci"]), Question { issuer: "clustr".into(), ..question() }).await;
    assert!(near.contains("did you mean `cluster`?"), "{near}");
}

fn only_verifiers(request: &PolicyRequest) -> Result<Verdict, PolicyFault> {
    match request.resource.get("credential").map(String::as_str) {
        Some("verifier") => yes(request),
        other => Ok(Verdict::Deny(format!("{other:?} is not enough"))),
    }
}

#[tokio::test(start_paused = true)]
async fn the_credential_is_what_issue_would_be_asked_for() {
    let with = |word: &str| Question { credential: Some(word.to_owned()), ..question() };
    let blind = serving(vec![policy("blind", Mode::Enforce, only_verifiers)]);
    for word in ["verifier", "scram_sha_256"] {
        let allowed = explained(&blind, with(word)).await;
        assert_eq!(allowed.decision, "allow", "{word}");
        assert_eq!(allowed.input.resource["verifier"], "scram_sha_256", "{word}");
    }
    for asked in [with("password"), question()] {
        assert_eq!(explained(&blind, asked).await.decision, "deny");
    }
    let other = refused(&[], with("ssha")).await;
    assert!(other.contains("offers password, verifier (scram_sha_256"), "{other}");
    let odd = refused(&[], with("hash")).await;
    assert!(odd.contains("password, verifier, or one of scram_sha_256"), "{odd}");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_has_a_bound() {
    let long = "x".repeat(MOST_TEXT + 1);
    let many: BTreeMap<String, String> = (0..=MOST_PAIRS).map(|n| (n.to_string(), String::new())).collect();
    for wrong in [
        Question { workload: String::new(), ..question() },
        Question { workload: long.clone(), ..question() },
        Question { subject: "a\nb".into(), ..question() },
        Question { attributes: many.clone(), ..question() },
        Question { facts: many.clone(), ..question() },
        Question { resource: many, ..question() },
        Question { facts: BTreeMap::from([("a".into(), long)]), ..question() },
    ] {
        let why = refused(&[], wrong).await;
        assert!(why.contains("at most"), "{why}");
    }
}

#[derive(Default)]
struct Provider(AtomicUsize);

#[async_trait]
impl Context for Provider {
    fn sha256(&self) -> &str {
        "00"
    }

    async fn gather(&self, _: &PolicyRequest) -> Result<BTreeMap<String, String>, String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err("it is away".to_owned())
    }
}

/// Facts of the operator's choice stand in place of a provider's, which is not asked.
#[tokio::test(start_paused = true)]
async fn a_provider_whose_facts_are_given_is_not_asked() {
    let provider = Arc::new(Provider::default());
    let link = ContextLink::new(
        "oncall".to_owned(),
        Arc::clone(&provider) as Arc<dyn Context>,
        OnFailure::Deny,
        Duration::ZERO,
    );
    let wants = |request: &PolicyRequest| {
        if request.facts.get("oncall.level").is_some_and(|level| level == "3") { yes(request) } else { no(request) }
    };
    let chain = vec![policy("wants", Mode::Enforce, wants)];
    let serving = serving_of(target(Arc::new(Backend::default()), chain, vec![link]));
    let given = Question { facts: BTreeMap::from([("oncall.level".into(), "3".into())]), ..question() };
    assert_eq!(explained(&serving, given).await.decision, "allow");
    assert_eq!(provider.0.load(Ordering::SeqCst), 0);

    let asked = explained(&serving, question()).await;
    assert_eq!((asked.decision.as_str(), asked.policy.as_deref()), ("deny", Some("oncall")));
    assert_eq!(provider.0.load(Ordering::SeqCst), 1);
    assert!(asked.policies.is_empty(), "the chain was not asked");
}

/// Explaining counts nothing and records nothing: an operator may ask as often as they like.
#[tokio::test(start_paused = true)]
async fn explaining_uses_nothing_up() {
    let quota = |request: &PolicyRequest| {
        let count = request.facts.get("usage.workload.requests.3600").map_or("none", String::as_str);
        // The request itself counts.
        if count == "1" { yes(request) } else { Ok(Verdict::Deny(format!("{count} requests"))) }
    };
    let target = Target {
        usage_windows: Some(vec![3_600]),
        ..target(Arc::new(Backend::default()), vec![policy("quota", Mode::Enforce, quota)], Vec::new())
    };
    let (serving, store) = (serving_of(target), MemoryLedger::new());
    for _ in 0..3 {
        let explanation = explain(&serving, Some(&store), &[], question()).await.unwrap();
        assert_eq!(explanation.decision, "allow", "{:?}", explanation.reason);
        assert!(explanation.lacks.is_empty(), "{:?}", explanation.lacks);
    }
    assert_eq!(*store.log_size().borrow(), 0);

    // Counts of the operator's choice stand in place of the store's.
    let facts = BTreeMap::from([("usage.workload.requests.3600".to_owned(), "7".to_owned())]);
    let chosen = explain(&serving, Some(&store), &[], Question { facts, ..question() }).await.unwrap();
    assert_eq!(chosen.reason.as_deref(), Some("7 requests"));

    // What is missing is named: whose counts they are, and that no broker was asked.
    let anybody = Question { subject: String::new(), ..question() };
    let lacks = explain(&serving, Some(&store), &[], anybody).await.unwrap().lacks;
    assert!(lacks[0].contains("--subject"), "{lacks:?}");
    let lacks = explain(&serving, None, &[], question()).await.unwrap().lacks;
    assert!(lacks[0].contains("no broker was asked"), "{lacks:?}");
}

/// A policy that looks at where the caller is.
struct Looks;

impl Policy for Looks {
    fn sha256(&self) -> &str {
        "00"
    }

    fn decide(&self, request: &PolicyRequest) -> PolicyReply {
        let mut looked_at = LookedAt::default();
        looked_at.note(Field::CallerAddress);
        PolicyReply { verdict: Ok::<_, PolicyFault>(yes(request).unwrap()), looked_at, by: DecidedBy::Instance }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_policy_looked_at_and_the_question_has_not_is_named() {
    let link = ChainLink { policy: Arc::new(Looks), ..policy("looks", Mode::Enforce, yes) };
    let serving = serving(vec![link]);
    let lacks = explained(&serving, question()).await.lacks;
    assert_eq!(lacks, ["the caller's address (--caller-address …)"]);
    let from = Question { caller_address: Some("10.0.0.7".parse().unwrap()), ..question() };
    assert!(explained(&serving, from).await.lacks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_explained_as_one() {
    let only_issue = |request: &PolicyRequest| {
        if request.operation == Operation::Renew { no(request) } else { yes(request) }
    };
    let serving = serving(vec![policy("only-issue", Mode::Enforce, only_issue)]);
    assert_eq!(explained(&serving, question()).await.decision, "allow");
    let renewal = Question { operation: Operation::Renew, ..question() };
    assert_eq!(explained(&serving, renewal).await.decision, "deny");
}
