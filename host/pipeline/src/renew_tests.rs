//! Whose lease may be renewed, and what the policies say of its next term. No driver is called here; the table of
//! failures has the flow as a whole.

use jit_core::name::Principal;
use jit_core::policy::{Mode, PolicyRequest, Verdict};
use jit_core::space::Marks;
use jit_ledger_contract::lease_at;
use jit_ledger_memory::MemoryLedger;
use parking_lot::Mutex;

use super::*;
use crate::backend::Backend;
use crate::denials::Denials;
use crate::doubles::{APP, PausedClock, SHOP, at_most, began, caller, narrower, no, policy, target, yes};
use crate::ports::PolicyFault;
use crate::space::Space;
use crate::target::{ChainLink, Serving};

/// A broker that can decide, and nothing else.
struct Deciding {
    store: MemoryLedger,
    flow: DecideFlow,
    caller: Arc<Verified>,
}

async fn deciding(chain: Vec<ChainLink>) -> Deciding {
    let store = MemoryLedger::new();
    let target = target(Arc::new(Backend::default()), chain, Vec::new());
    let targets = [(target.name.clone(), Arc::new(target))].into();
    let space = Space::new(None, [], Marks::default());
    let flow = DecideFlow {
        ledger: Ledger::new(Arc::new(store.reopened()), Arc::new(space), Arc::new(Denials::default())),
        serving: Arc::new(arc_swap::ArcSwap::from_pointee(Serving { targets, ..Serving::default() })),
        clock: Arc::new(LeaseClock::new(Arc::new(PausedClock(tokio::time::Instant::now())))),
    };
    Deciding { store, flow, caller: caller().await }
}

impl Deciding {
    /// An active lease of the caller's: made a minute ago, for ten minutes, an hour at most.
    fn lease(&self) -> Lease {
        let serving = self.flow.serving.load();
        let target = serving.targets.get(SHOP).unwrap();
        let issued_at = began() - std::time::Duration::from_secs(60);
        let lease = jit_ledger_contract::active(&lease_at(0));
        Lease {
            principal: self.caller.principal.clone(),
            target: target.name.clone(),
            role: jit_core::name::RoleName::new(APP).unwrap(),
            driver: target.driver_ref(),
            reason: Some("a deploy".to_owned()),
            issued_at,
            term_start: issued_at,
            expires_at: issued_at + std::time::Duration::from_secs(600),
            max_expires_at: issued_at + std::time::Duration::from_secs(3_600),
            renewable: true,
            ..lease
        }
    }

    async fn judge(&self, lease: Lease) -> Result<Judged, Refused> {
        let id = RequestId::generate(began());
        judge(&self.flow, Renewable(lease), Arc::clone(&self.caller), RenewRequest::default(), None, id).await
    }

    async fn records(&self) -> Vec<serde_json::Value> {
        let records = self.store.records(0, 100).await.unwrap();
        records.iter().map(|record| serde_json::from_str(&record.json).unwrap()).collect()
    }
}

fn refusal<T>(result: Result<T, Refused>) -> Refused {
    result.err().expect("it was granted")
}

#[tokio::test(start_paused = true)]
async fn a_yes_gives_the_next_term_from_now_and_records_nothing_yet() {
    let deciding = deciding(vec![policy("yes", Mode::Enforce, yes)]).await;
    let lease = deciding.lease();
    let judged = deciding.judge(lease.clone()).await.unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(judged.next.expires_at, began() + std::time::Duration::from_secs(600));
    assert_eq!((judged.next.term_start, judged.next.version), (began(), lease.version + 1));
    assert_eq!(judged.lease.expires_at, lease.expires_at, "until then the lease is as it was");
    assert!(deciding.records().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_term_goes_past_the_end_that_the_first_grant_set() {
    let deciding = deciding(vec![policy("yes", Mode::Enforce, yes)]).await;
    let end = began() + std::time::Duration::from_secs(300);
    let lease =
        Lease { expires_at: began() + std::time::Duration::from_secs(1), max_expires_at: end, ..deciding.lease() };
    let judged = deciding.judge(lease).await.unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(judged.next.expires_at, end);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grant_than_what_is_left_takes_nothing_away() {
    let deciding = deciding(vec![policy("short", Mode::Enforce, at_most(5))]).await;
    let lease = deciding.lease();
    let judged = deciding.judge(lease.clone()).await.unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(judged.next.expires_at, lease.expires_at);
}

/// The policies hear what the lease was granted for and which lease it is, and that it is a renewal.
#[tokio::test(start_paused = true)]
async fn the_policies_are_told_of_the_lease() {
    let seen: Arc<Mutex<Vec<PolicyRequest>>> = Arc::default();
    let notes = Arc::clone(&seen);
    let watches = move |request: &PolicyRequest| -> Result<Verdict, PolicyFault> {
        notes.lock().push(request.clone());
        yes(request)
    };
    let deciding = deciding(vec![policy("watch", Mode::Enforce, watches)]).await;
    let lease = deciding.lease();
    assert!(deciding.judge(lease.clone()).await.is_ok());
    let seen = seen.lock();
    let request = &seen[0];
    assert_eq!((&request.operation, request.role.as_str()), (&Operation::Renew, APP));
    assert_eq!(request.reason.as_deref(), Some("a deploy"));
    assert_eq!(request.resource.get(LEASE), Some(&lease.id.to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_no_is_on_record_with_the_lease_before_the_caller_hears_it() {
    let deciding = deciding(vec![policy("no", Mode::Enforce, no)]).await;
    let lease = deciding.lease();
    let refused = refusal(deciding.judge(lease.clone()).await);
    assert!(matches!(&refused, Refused::PolicyDenied { policy, .. } if policy == "no"), "{refused}");
    let records = deciding.records().await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["event"], "renew.denied");
    assert_eq!((&records[0]["policy"], &records[0]["error"]), (&"no".into(), &"not today".into()));
    assert_eq!(records[0]["lease_id"], lease.id.to_string());
    assert_eq!(records[0]["ephemeral_id"], lease.login());
}

/// An account has the rights of the role that it was made with: it cannot be narrowed, so it is not prolonged.
#[tokio::test(start_paused = true)]
async fn policies_that_now_grant_only_a_narrower_role_do_not_prolong_the_wider_one() {
    let deciding = deciding(vec![policy("narrow", Mode::Enforce, narrower)]).await;
    let refused = refusal(deciding.judge(deciding.lease()).await);
    assert!(matches!(&refused, Refused::PolicyDenied { policy, .. } if policy == chain::CHAIN), "{refused}");
    let records = deciding.records().await;
    assert_eq!(records[0]["event"], "renew.denied");
    assert!(records[0]["error"].as_str().unwrap().contains("read-only"), "{}", records[0]);
}

/// Nobody asks the policies about a lease whose account another driver made: that one could not extend it.
#[tokio::test(start_paused = true)]
async fn a_lease_of_a_target_that_was_moved_is_not_renewed_and_that_is_on_record() {
    let never = |_: &PolicyRequest| -> Result<Verdict, PolicyFault> { panic!("it was asked") };
    let deciding = deciding(vec![policy("never", Mode::Enforce, never)]).await;
    let lease = deciding.lease();
    let driver = jit_core::lease::DriverRef { connection: Some("elsewhere".to_owned()), ..lease.driver.clone() };
    let refused = refusal(deciding.judge(Lease { driver, ..lease }).await);
    assert!(matches!(refused, Refused::LeaseNotRenewable { .. }), "{refused}");
    assert_eq!(deciding.records().await[0]["event"], "renew.denied");
}

#[tokio::test(start_paused = true)]
async fn a_role_that_is_gone_is_not_renewed() {
    let deciding = deciding(vec![policy("yes", Mode::Enforce, yes)]).await;
    let role = jit_core::name::RoleName::new("gone").unwrap();
    let refused = refusal(deciding.judge(Lease { role, ..deciding.lease() }).await);
    assert!(matches!(refused, Refused::RoleNotAllowed { .. }), "{refused}");
}

/// ONE-OWNER: the id of another identity's lease is answered as one that does not exist.
#[tokio::test(start_paused = true)]
async fn another_identitys_lease_is_as_if_it_were_not_there() {
    let deciding = deciding(Vec::new()).await;
    let own = deciding.lease();
    let principal = Principal { subject: "its namesake".to_owned(), ..own.principal.clone() };
    let others = Lease { id: LeaseId::generate(began()), principal, ..own.clone() };
    for lease in [&own, &others] {
        deciding.store.commit(Change::insert(lease.clone())).await.unwrap();
    }
    let caller = &deciding.caller;
    assert_eq!(own_lease(&deciding.store, caller, &own.id).await.unwrap().id, own.id);
    for id in [&others.id, &LeaseId::generate(began())] {
        let refused = refusal(own_lease(&deciding.store, caller, id).await);
        assert!(matches!(refused, Refused::UnknownLease), "{refused}");
    }
}
