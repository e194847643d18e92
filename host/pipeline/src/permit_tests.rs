//! Deciding: facts, counts, the chain, and the permit that only a yes makes.

use async_trait::async_trait;
use jit_core::policy::{Mode, OnFailure};
use jit_ledger::Store as _;
use jit_ledger_memory::MemoryLedger;

use super::*;
use crate::backend::Backend;
use crate::doubles::{APP, READ_ONLY, at_most, began, caller, narrower, no, policy, target, yes};
use crate::facts::ContextLink;
use crate::ports::{Context, PolicyFault};
use crate::target::ChainLink;

/// The windows that the target of these tests has counted.
const WINDOW: u64 = 3_600;

async fn asked(target: Target, operation: Operation) -> Asked {
    let request = jit_api::IssueRequest {
        target: target.name.to_string(),
        role: Some(APP.to_owned()),
        ttl: None,
        reason: Some("a deploy".to_owned()),
        ticket: None,
        metadata: BTreeMap::new(),
        credential: None,
    };
    Asked {
        caller: caller().await,
        target: Arc::new(target),
        role: RoleName::new(APP).unwrap(),
        ttl: Ttl::from_seconds(600).unwrap(),
        request: CheckedRequest::check(request).unwrap(),
        request_id: RequestId::generate(began()),
        at: began(),
        operation,
        resource: BTreeMap::new(),
    }
}

fn plain(chain: Vec<ChainLink>) -> Target {
    target(Arc::new(Backend::default()), chain, Vec::new())
}

fn counting(chain: Vec<ChainLink>) -> Target {
    Target { usage_windows: Some(vec![WINDOW]), ..plain(chain) }
}

async fn decided(store: &MemoryLedger, target: Target, how: Counting) -> Result<Permit, Box<Denial>> {
    decide(store, asked(target, Operation::Issue).await, how).await.unwrap_or_else(|refused| panic!("{refused}"))
}

/// A policy that says yes to so many requests within the window, the one that asks included.
fn at_most_requests(most: u64) -> impl Fn(&PolicyRequest) -> Result<jit_core::policy::Verdict, PolicyFault> {
    move |request| {
        let count = request.facts.get("usage.workload.requests.3600").expect("it is counted");
        if count.parse::<u64>().unwrap() <= most { yes(request) } else { no(request) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_yes_is_a_permit_of_what_the_chain_granted() {
    let store = MemoryLedger::new();
    let chain = vec![policy("narrow", Mode::Enforce, narrower), policy("short", Mode::Enforce, at_most(60))];
    let permit =
        decided(&store, plain(chain), Counting::Count).await.unwrap_or_else(|denial| panic!("{}", denial.reason));
    assert_eq!((permit.role.as_str(), permit.ttl.seconds()), (READ_ONLY, 60));
    let recorded = permit.decision.recorded();
    assert_eq!(recorded.input.reason.as_deref(), Some("a deploy"));
    assert_eq!(recorded.narrowed.unwrap().narrowed_to, READ_ONLY);
    assert!(permit.decision.settles(true).is_empty(), "nobody wanted it counted");
    assert_eq!(*store.log_size().borrow(), 0, "deciding records nothing by itself");
}

#[tokio::test(start_paused = true)]
async fn a_no_names_who_said_it() {
    let store = MemoryLedger::new();
    let denial = decided(&store, plain(vec![policy("no", Mode::Enforce, no)]), Counting::Count).await.err().unwrap();
    assert_eq!((denial.policy.as_str(), denial.reason.as_str()), ("no", "not today"));
    assert!(matches!(denial.refused(), Refused::PolicyDenied { policy, .. } if policy == "no"));
    assert_eq!(denial.recorded().by.unwrap().as_str(), "no");
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_once_and_one_that_only_asks_does_not_count() {
    let store = MemoryLedger::new();
    let target = || counting(vec![policy("quota", Mode::Enforce, at_most_requests(2))]);
    for _ in 0..3 {
        assert!(decided(&store, target(), Counting::Peek).await.is_ok(), "looking uses nothing up");
    }
    let first = decided(&store, target(), Counting::Count).await.unwrap_or_else(|denial| panic!("{}", denial.reason));
    assert_eq!(first.decision.settles(true).len(), 1, "it waits for its end");
    assert!(decided(&store, target(), Counting::Peek).await.is_ok());
    assert!(decided(&store, target(), Counting::Count).await.is_ok());
    assert!(decided(&store, target(), Counting::Count).await.is_err(), "the third is one too many");
}

/// A count that cannot be had is no reason to say yes.
#[tokio::test(start_paused = true)]
async fn without_the_counts_that_a_policy_wants_nothing_is_decided() {
    let store = MemoryLedger::new();
    store.close().await;
    let asked = asked(counting(vec![policy("yes", Mode::Enforce, yes)]), Operation::Issue).await;
    let refused = decide(&store, asked, Counting::Count).await.err().unwrap();
    assert!(matches!(refused, Refused::AuditUnavailable), "{refused}");
}

struct Away;

#[async_trait]
impl Context for Away {
    fn sha256(&self) -> &str {
        "00"
    }

    async fn gather(&self, _: &PolicyRequest) -> Result<BTreeMap<String, String>, String> {
        Err("it is away".to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_denies_by_failing_is_named_and_the_chain_is_not_asked() {
    let never = |_: &PolicyRequest| -> Result<jit_core::policy::Verdict, PolicyFault> { panic!("it was asked") };
    let link = ContextLink::new("oncall".to_owned(), Arc::new(Away), OnFailure::Deny, Duration::ZERO);
    let target = target(Arc::new(Backend::default()), vec![policy("never", Mode::Enforce, never)], vec![link]);
    let denial = decided(&MemoryLedger::new(), target, Counting::Count).await.err().unwrap();
    assert_eq!(denial.policy, "oncall");
    assert!(!denial.reason.contains("away"), "the caller does not hear of the inside: {}", denial.reason);
    assert_eq!(denial.decision.contexts[0].error.as_deref(), Some("it is away"));
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_gets_no_room_in_time_is_refused_as_overload() {
    let target = plain(vec![policy("yes", Mode::Enforce, yes)]);
    let busy = Arc::clone(&target.deciding).acquire_many_owned(8).await.unwrap();
    let refused = decide(&MemoryLedger::new(), asked(target, Operation::Issue).await, Counting::Count).await;
    assert!(matches!(refused, Err(Refused::Overloaded)));
    drop(busy);
}

/// A policy's panic is no yes.
#[tokio::test(start_paused = true)]
async fn a_panic_in_the_middle_of_deciding_is_no_yes() {
    let panics = |_: &PolicyRequest| -> Result<jit_core::policy::Verdict, PolicyFault> { panic!("a fault") };
    let target = plain(vec![policy("broken", Mode::Enforce, panics)]);
    let refused = decide(&MemoryLedger::new(), asked(target, Operation::Issue).await, Counting::Count).await;
    assert!(matches!(refused, Err(Refused::Overloaded)));
}
