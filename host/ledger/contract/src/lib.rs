//! What every store must do, as tests over the real thing. A store has one row:
//! `jit_ledger_contract::for_store!(Harness)`.
//!
//! In scope: what is true of each store, and the leases and changes that tests make. Out of scope: what one store
//! promises beside it, such as the permissions of its file. Only tests depend on this crate.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::missing_panics_doc, reason = "each function here is a test or a part of one")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::event::{Attempted, AuditEvent, Decided, Event, Granted, LeaseRest, Process};
use jit_core::id::{LeaseId, RequestId};
use jit_core::lease::{CallersVerifier, Cause, DriverRef, Idempotency, Lease, LeaseState, VerifierKind};
use jit_core::name::{Principal, RoleName, TargetName};
use jit_core::policy::{Operation, PolicyRequest};
use jit_tlog::checkpoint::{Checkpoint, VerifierKey};
use jit_tlog::merkle::{CompactRange, Hash, root};

use jit_ledger::{Change, Frontier, LeaseFilter, LeaseWrite, SealedWrite, Store, StoreError, VERIFIER_MEMORY};

mod lasting;
mod usage;
pub use lasting::{
    forgets_only_what_is_over, knows_what_backends_named_and_who_made_it, lets_go_of_what_was_archived,
    opens_where_it_was_closed, serves_many_at_once, takes_over_what_an_ended_broker_left,
};
pub use usage::{
    counts_each_request_once, counts_for_a_target_only_what_was_granted, holds_a_request_until_it_is_a_lease,
};

/// A place where a store can be opened again and again.
pub trait Harness {
    /// The store.
    type Store: Store;
    /// An empty place.
    fn new() -> Self;
    /// Opens it.
    fn open(&self) -> impl Future<Output = Arc<Self::Store>> + Send;
    /// Closes it in order, so that it can be opened again.
    fn close(&self, store: Arc<Self::Store>) -> impl Future<Output = ()> + Send;
    /// Checks the log's checkpoints.
    fn verifier(&self) -> VerifierKey;
}

/// A moment, in seconds after a fixed one.
#[must_use]
pub fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A pending lease that was asked for at that second.
#[must_use]
pub fn lease_at(second: i64) -> Lease {
    let now = time(second);
    let id = LeaseId::generate(now);
    Lease {
        account: AccountName::from_backend(format!("v-{id}")),
        id,
        version: 0,
        state: LeaseState::Pending,
        principal: Principal {
            issuer: "cluster".into(),
            workload: "payment-service".into(),
            subject: "system:serviceaccount:shop:payment-service".into(),
        },
        attributes: BTreeMap::from([("env".into(), "prod".into())]),
        target: TargetName::new("inventory_db").unwrap(),
        role: RoleName::new("app_read_only").unwrap(),
        username: None,
        external_id: None,
        standing: false,
        driver: DriverRef {
            plugin: "postgres".into(),
            connection: None,
            sha256: "00".repeat(32),
            name: None,
            config: None,
            place: None,
        },
        request_id: RequestId::generate(now),
        issued_at: now,
        term_start: now,
        expires_at: now + Duration::from_secs(1_800),
        max_expires_at: now + Duration::from_secs(3_600),
        renewable: true,
        reason: None,
        ticket: None,
        metadata: BTreeMap::new(),
        idempotency: None,
        removal: None,
        verifier: None,
        rotating: None,
    }
}

/// A pending lease with an Idempotency-Key.
#[must_use]
pub fn with_key(key: &str) -> Lease {
    Lease { idempotency: Some(Idempotency { key: key.into(), body: "body".into() }), ..lease_at(0) }
}

/// The lease once its account is there.
#[must_use]
pub fn active(pending: &Lease) -> Lease {
    pending.settle(None, pending.expires_at).unwrap()
}

/// The change that adds a lease.
#[must_use]
pub fn insert(lease: &Lease) -> Change {
    Change::insert(lease.clone())
}

/// The change that takes a lease a step on.
#[must_use]
pub fn update(lease: &Lease) -> Change {
    Change::step(lease.clone())
}

/// A write of a sealed value.
#[must_use]
pub fn sealed(name: &str, value: Option<&[u8]>) -> SealedWrite {
    SealedWrite { purpose: "test", name: name.to_owned(), value: value.map(<[u8]>::to_vec) }
}

/// The event of a lease that was granted.
#[must_use]
pub fn granted(lease: &Lease) -> AuditEvent {
    let input = PolicyRequest {
        operation: Operation::Issue,
        time: 0,
        workload: lease.principal.workload.clone(),
        issuer: lease.principal.issuer.clone(),
        attributes: BTreeMap::new(),
        target: lease.target.to_string(),
        role: lease.role.to_string(),
        ttl_seconds: u64::from(lease.ttl().seconds()),
        reason: lease.reason.clone(),
        ticket: lease.ticket.clone(),
        metadata: BTreeMap::new(),
        facts: BTreeMap::new(),
        caller_address: None,
        resource: BTreeMap::new(),
    };
    let decision = Decided { input: Box::new(input), labels: BTreeMap::new(), contexts: Vec::new(), narrowed: None };
    let granted =
        Event::IssueGranted(Granted { decision, generation: None, verifier: None, lease: LeaseRest::of(lease) });
    AuditEvent::of_lease(granted, lease.issued_at, lease)
}

/// A step with its event.
#[must_use]
pub fn settled(lease: &Lease) -> Change {
    update(lease).with(granted(lease))
}

fn stale(result: Result<(), StoreError>, lease: &Lease) -> bool {
    matches!(result, Err(StoreError::Stale(id)) if id == lease.id)
}

async fn ids<S: Store>(store: &S, filter: LeaseFilter) -> Vec<LeaseId> {
    store.leases(&filter).await.unwrap().into_iter().map(|lease| lease.id).collect()
}

/// The whole log: numbers without gaps, each record with its number, and the tree under the
/// signed checkpoint. Gives the number of records.
pub async fn check_log<S: Store>(store: &S, verifier: &VerifierKey) -> u64 {
    let mut leaves = Vec::new();
    loop {
        let page = store.records(leaves.len() as u64, 100).await.unwrap();
        if page.is_empty() {
            break;
        }
        for record in page {
            assert_eq!(record.seq, leaves.len() as u64);
            let json: serde_json::Value = serde_json::from_str(&record.json).unwrap();
            assert_eq!(json["seq"], record.seq);
            leaves.push(Hash::of_leaf(record.json.as_bytes()));
        }
    }
    let size = leaves.len() as u64;
    match store.checkpoint().await.unwrap() {
        None => assert_eq!(size, 0),
        Some(note) => {
            let expected = Checkpoint { origin: verifier.origin().clone(), size, root: root(&leaves) };
            assert_eq!(verifier.open(&note).unwrap(), expected);
        }
    }
    size
}

/// A change with leases and events is made whole, and read back as it was.
pub async fn keeps_what_it_was_given<H: Harness>(harness: H) {
    let store = harness.open().await;
    assert!(store.checkpoint().await.unwrap().is_none());
    let pending = lease_at(0);
    store.commit(insert(&pending)).await.unwrap();
    assert_eq!(store.lease(&pending.id).await.unwrap().as_ref(), Some(&pending));
    let active = active(&pending);
    store.commit(settled(&active)).await.unwrap();
    assert_eq!(store.lease(&pending.id).await.unwrap().as_ref(), Some(&active));
    assert_eq!(store.lease(&LeaseId::generate(time(0))).await.unwrap(), None);
    let records = store.records(0, 10).await.unwrap();
    let mut expected = serde_json::to_value(granted(&active)).unwrap();
    expected["seq"] = 0.into();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&records[0].json).unwrap(), expected);
    assert_eq!(records.len(), 1);
    assert_eq!(check_log(&*store, &harness.verifier()).await, 1);
    let mut size = store.log_size();
    assert_eq!(*size.borrow_and_update(), 1);
    store.commit(Change::default()).await.unwrap();
    assert!(!size.has_changed().unwrap(), "nothing was made");
    store.commit(Change::record(granted(&active))).await.unwrap();
    assert_eq!(*size.borrow_and_update(), 2);
    harness.close(Arc::clone(&store)).await;
    assert!(matches!(store.commit(insert(&lease_at(1))).await, Err(StoreError::Failed(_))), "it is closed");
}

/// A step over another version than the one before it is refused, and nothing of its change stays.
pub async fn refuses_a_stale_step_whole<H: Harness>(harness: H) {
    let store = harness.open().await;
    let (first, second) = (lease_at(0), lease_at(1));
    store.commit(insert(&first)).await.unwrap();
    assert!(stale(store.commit(insert(&first)).await, &first));
    let stepped = active(&first);
    store.commit(update(&stepped)).await.unwrap();
    let late = Change {
        leases: vec![LeaseWrite::Insert(second.clone()), LeaseWrite::Update(stepped.clone())],
        events: vec![granted(&second)],
        sealed: vec![sealed("a", Some(b"of a refused change"))],
        ..Change::default()
    };
    assert!(stale(store.commit(late).await, &first));
    assert_eq!(store.lease(&second.id).await.unwrap(), None);
    assert_eq!(store.sealed("test", "a").await.unwrap(), None);
    assert_eq!(check_log(&*store, &harness.verifier()).await, 0);
    // A lease that is not there, a version that skips one, and one that no step gives.
    assert!(stale(store.commit(update(&active(&second))).await, &second));
    let skipped = Lease { version: 3, ..stepped.clone() };
    assert!(stale(store.commit(update(&skipped)).await, &first));
    assert!(stale(store.commit(update(&first)).await, &first));
    assert_eq!(store.lease(&first.id).await.unwrap(), Some(stepped));
    harness.close(store).await;
}

/// Values that it cannot read: kept, replaced and removed with what else changes, or not at all.
pub async fn keeps_sealed_values<H: Harness>(harness: H) {
    let store = harness.open().await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let events = vec![AuditEvent::new(Event::BrokerStarted(Process { version: "1", account_mark: None }), time(1))];
    let both = vec![sealed("a", Some(&all_bytes)), sealed("o'b \"\u{e4}", Some(b""))];
    store.commit(Change { events, sealed: both, ..Change::default() }).await.unwrap();
    assert_eq!(store.sealed("test", "a").await.unwrap().as_deref(), Some(&all_bytes[..]));
    assert_eq!(store.sealed("test", "o'b \"\u{e4}").await.unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(store.sealed("other", "a").await.unwrap(), None);
    assert_eq!(check_log(&*store, &harness.verifier()).await, 1);
    // Without an event or lease, and several at once: the last holds.
    let writes = vec![sealed("b", Some(b"1")), sealed("b", None), sealed("a", Some(b"2")), sealed("b", Some(b"3"))];
    store.commit(Change { sealed: writes, ..Change::default() }).await.unwrap();
    let listed = store.sealed_of("test").await.unwrap();
    let listed: Vec<_> = listed.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    assert_eq!(listed, [("a", &b"2"[..]), ("b", b"3"), ("o'b \"\u{e4}", b"")]);
    store.commit(Change { sealed: vec![sealed("b", None), sealed("c", None)], ..Change::default() }).await.unwrap();
    assert_eq!(store.sealed("test", "b").await.unwrap(), None);
    for (name, value) in [("x".repeat(1_025), vec![0; 1]), (String::new(), vec![0; 1]), ("x".into(), vec![0; 131_073])]
    {
        let refused = store.commit(Change { sealed: vec![sealed(&name, Some(&value))], ..Change::default() }).await;
        assert!(matches!(refused, Err(StoreError::Failed(_))));
    }
    harness.close(store).await;
    let again = harness.open().await;
    assert_eq!(again.sealed("test", "a").await.unwrap().as_deref(), Some(&b"2"[..]));
    harness.close(again).await;
}

/// Two steps of one lease in one change, and a change that takes a lease all the way.
pub async fn takes_several_steps_at_once<H: Harness>(harness: H) {
    let store = harness.open().await;
    let pending = lease_at(0);
    let active = active(&pending);
    let revoking = active.begin_revocation(Cause::Requested, time(5)).unwrap();
    let whole = Change {
        leases: vec![
            LeaseWrite::Insert(pending.clone()),
            LeaseWrite::Update(active.clone()),
            LeaseWrite::Update(revoking.clone()),
        ],
        events: vec![granted(&active), AuditEvent::new(Event::RevokeFailed(Attempted { attempts: 1 }), time(5))],
        ..Change::default()
    };
    store.commit(whole).await.unwrap();
    assert_eq!(store.lease(&pending.id).await.unwrap(), Some(revoking));
    assert_eq!(check_log(&*store, &harness.verifier()).await, 2);
    harness.close(store).await;
}

/// One lease holds a key; it is free again once its holder never gave its secret to anybody.
pub async fn guards_idempotency_keys<H: Harness>(harness: H) {
    let store = harness.open().await;
    let (first, second) = (with_key("k'1"), with_key("k'1"));
    store.commit(insert(&first)).await.unwrap();
    assert_eq!(store.lease_by_key("k'1").await.unwrap().as_ref(), Some(&first));
    assert_eq!(store.lease_by_key("k").await.unwrap(), None);
    let taken = store.commit(insert(&second)).await;
    assert!(matches!(taken, Err(StoreError::KeyTaken(id)) if id == first.id));
    assert_eq!(store.lease(&second.id).await.unwrap(), None);
    // Both steps in one change: the key passes from one to the other.
    let doubtful = first.doubt(Cause::Doubtful, time(1)).unwrap();
    let handover = Change {
        leases: vec![LeaseWrite::Insert(second.clone()), LeaseWrite::Update(doubtful.clone())],
        ..Change::default()
    };
    assert!(matches!(store.commit(handover).await, Err(StoreError::KeyTaken(_))), "taken before it is free");
    let handover = Change {
        leases: vec![LeaseWrite::Update(doubtful.clone()), LeaseWrite::Insert(second.clone())],
        ..Change::default()
    };
    store.commit(handover).await.unwrap();
    assert_eq!(store.lease_by_key("k'1").await.unwrap().as_ref(), Some(&second));
    // The first one's removal goes on without the key.
    store.commit(update(&doubtful.removed().unwrap())).await.unwrap();
    // A lease that gave its secret keeps the key after its end.
    let given = active(&second);
    let revoking = given.begin_revocation(Cause::Expired, time(2)).unwrap();
    for step in [&given, &revoking, &revoking.removed().unwrap()] {
        store.commit(update(step)).await.unwrap();
    }
    assert!(matches!(store.commit(insert(&with_key("k'1"))).await, Err(StoreError::KeyTaken(id)) if id == second.id));
    harness.close(store).await;
}

/// A verifier is used for one lease, also after that lease was forgotten; only a lease that takes it over from the one
/// that used it may have it, too.
pub async fn uses_a_verifier_once<H: Harness>(harness: H) {
    let store = harness.open().await;
    let with = |second: i64, digit: &str, takes_over: Option<&Lease>| Lease {
        verifier: Some(CallersVerifier {
            kind: VerifierKind::ScramSha256,
            digest: digit.repeat(64),
            takes_over: takes_over.map(|lease| lease.id.clone()),
        }),
        ..lease_at(second)
    };
    let first = with(0, "a", None);
    store.commit(insert(&first)).await.unwrap();
    assert_eq!(store.lease(&first.id).await.unwrap().as_ref(), Some(&first));
    let used = |result: Result<(), StoreError>, by: &Lease| {
        assert!(matches!(&result, Err(StoreError::VerifierUsed(id)) if *id == by.id), "{result:?}");
    };
    used(store.commit(insert(&with(1, "a", None))).await, &first);
    // Twice in one change: nothing of it is made.
    let (one, other) = (with(2, "b", None), with(3, "b", None));
    let both = Change {
        leases: vec![LeaseWrite::Insert(one.clone()), LeaseWrite::Insert(other.clone())],
        ..Change::default()
    };
    used(store.commit(both).await, &one);
    assert_eq!(store.lease(&one.id).await.unwrap(), None);
    store.commit(insert(&other)).await.unwrap();
    used(store.commit(insert(&with(4, "a", Some(&other)))).await, &first);
    // The lease goes through its life with the verifier, and another takes that over.
    let doubtful = first.doubt(Cause::Doubtful, time(1)).unwrap();
    store.commit(update(&doubtful)).await.unwrap();
    let second = with(5, "a", Some(&first));
    store.commit(insert(&second)).await.unwrap();
    used(store.commit(insert(&with(6, "a", Some(&first)))).await, &second);
    let ended = doubtful.removed().unwrap();
    store.commit(update(&ended)).await.unwrap();
    assert_eq!(store.forget_revoked(time(9_999), 10).await.unwrap(), 1);
    used(store.commit(insert(&with(7, "a", None))).await, &second);
    assert_eq!(store.forget_revoked(time(9_999) + VERIFIER_MEMORY, 10).await.unwrap(), 0);
    store.commit(insert(&with(8, "a", None))).await.unwrap();
    harness.close(store).await;
}

/// A lease whose cause would give the key back to it after its end does not take it from the one
/// that has it now, and its removal does not fail.
pub async fn a_removal_never_fails_for_a_key<H: Harness>(harness: H) {
    let store = harness.open().await;
    let (first, second) = (with_key("k"), with_key("k"));
    let doubtful = first.doubt(Cause::Requested, time(1)).unwrap();
    let removed = doubtful.removed().unwrap();
    assert!(!doubtful.holds_key() && removed.holds_key());
    store.commit(insert(&first)).await.unwrap();
    store.commit(update(&doubtful)).await.unwrap();
    store.commit(insert(&second)).await.unwrap();
    store.commit(update(&removed)).await.unwrap();
    assert_eq!(store.lease_by_key("k").await.unwrap().unwrap().id, second.id);
    harness.close(store).await;
}

/// What is due comes in its order, bounded per target, and never early.
pub async fn tells_what_is_due<H: Harness>(harness: H) {
    let store = harness.open().await;
    assert_eq!(store.next_due().await.unwrap(), None);
    let pending: Vec<Lease> = [30, 10, 20].map(lease_at).to_vec();
    let other = Lease { target: TargetName::new("other").unwrap(), ..lease_at(25) };
    for lease in pending.iter().chain([&other]) {
        store.commit(insert(lease)).await.unwrap();
    }
    assert_eq!(store.next_due().await.unwrap(), None, "pending leases are not due");
    let found = store.pending(time(25), 10).await.unwrap();
    let found: Vec<&LeaseId> = found.iter().map(|lease| &lease.id).collect();
    assert_eq!(found, [&pending[1].id, &pending[2].id], "asked for before, the oldest first");
    for lease in pending.iter().chain([&other]) {
        store.commit(update(&active(lease))).await.unwrap();
    }
    assert!(store.pending(time(100), 10).await.unwrap().is_empty());
    let first = pending[1].expires_at;
    assert_eq!(store.next_due().await.unwrap(), Some(first));
    assert!(store.due(first - Duration::from_nanos(1), 10).await.unwrap().is_empty());
    let due = |now: Timestamp, limit: usize| {
        let store = &store;
        async move { store.due(now, limit).await.unwrap().into_iter().map(|lease| lease.id).collect::<Vec<_>>() }
    };
    assert_eq!(due(first, 10).await, [pending[1].id.clone()]);
    let all = [&pending[1], &pending[2], &other, &pending[0]].map(|lease| lease.id.clone());
    assert_eq!(due(time(9_999), 10).await, all);
    assert_eq!(due(time(9_999), 1).await, [pending[1].id.clone(), other.id.clone()], "one of each target");
    // A failed removal is due later; one that succeeded never.
    let revoking = active(&pending[1]).begin_revocation(Cause::Expired, first).unwrap();
    let failed = revoking.removal_failed("down".into(), first).unwrap();
    store.commit(update(&revoking)).await.unwrap();
    assert_eq!(due(first, 10).await, [pending[1].id.clone()]);
    store.commit(update(&failed)).await.unwrap();
    assert!(due(first, 10).await.is_empty());
    assert_eq!(store.next_due().await.unwrap(), failed.due_at());
    // What failed before takes no room from what has never been tried.
    let late = failed.due_at().unwrap().max(time(9_999));
    assert_eq!(due(late, 1).await.len(), 3, "one of each target never tried, and one tried before");
    assert!(due(late, 1).await.contains(&pending[1].id) && due(late, 1).await.contains(&pending[2].id));
    store.commit(update(&failed.removed().unwrap())).await.unwrap();
    assert_eq!(store.next_due().await.unwrap(), Some(pending[2].expires_at));
    harness.close(store).await;
}

/// Which accounts a lease accounts for, and how many there are.
pub async fn knows_its_accounts<H: Harness>(harness: H) {
    let store = harness.open().await;
    let kept = lease_at(0);
    let gone = lease_at(1);
    store.commit(insert(&kept)).await.unwrap();
    store.commit(insert(&gone)).await.unwrap();
    store.commit(update(&gone.refuse(time(2), "no".into()).unwrap())).await.unwrap();
    let names: Vec<String> =
        ["v-nobody", kept.account.as_str(), gone.account.as_str(), "'; --"].map(Into::into).to_vec();
    assert_eq!(store.known_accounts(&names).await.unwrap(), std::slice::from_ref(&kept.account));
    assert_eq!(store.ended_accounts(&names).await.unwrap(), std::slice::from_ref(&gone.account));
    assert!(store.known_accounts(&[]).await.unwrap().is_empty());
    let many: Vec<String> = (0..5_000).map(|n| format!("v-{n}")).chain([kept.account.to_string()]).collect();
    assert_eq!(store.known_accounts(&many).await.unwrap(), std::slice::from_ref(&kept.account));

    let counts = store.counts(time(0)).await.unwrap();
    assert_eq!(counts.live.get(&("inventory_db".into(), LeaseState::Pending)), Some(&1));
    assert_eq!((counts.live.len(), counts.overdue.len()), (1, 0));
    let active = active(&kept);
    store.commit(update(&active)).await.unwrap();
    assert!(store.counts(time(1_799)).await.unwrap().overdue.is_empty());
    assert_eq!(store.counts(time(1_800)).await.unwrap().overdue["inventory_db"], (1, kept.expires_at));
    // Overdue also while it waits for its next attempt.
    let revoking = active.begin_revocation(Cause::Expired, time(1_801)).unwrap();
    let failed = revoking.removal_failed("down".into(), time(1_805)).unwrap();
    store.commit(update(&revoking)).await.unwrap();
    store.commit(update(&failed)).await.unwrap();
    assert_eq!(store.counts(time(1_805)).await.unwrap().overdue["inventory_db"], (1, time(1_801)));
    harness.close(store).await;
}

/// Lists are of whom was asked for, newest first, page by page.
pub async fn lists_page_by_page<H: Harness>(harness: H) {
    let store = harness.open().await;
    let mut all: Vec<Lease> = (0..25).map(lease_at).collect();
    all[3].principal.workload = "other".into();
    all[4].principal.issuer = "other".into();
    all[5].target = TargetName::new("other").unwrap();
    // Another owner by the same name, and one of an earlier release.
    all[7].principal.subject = "system:serviceaccount:evil:payment-service".into();
    all[8].principal.subject = String::new();
    for lease in &all {
        store.commit(insert(lease)).await.unwrap();
    }
    store.commit(update(&active(&all[6]))).await.unwrap();
    all.reverse();
    let every: Vec<LeaseId> = all.iter().map(|lease| lease.id.clone()).collect();
    assert_eq!(ids(&*store, LeaseFilter { limit: 100, ..LeaseFilter::default() }).await, every);
    let mut filter = LeaseFilter { limit: 10, ..LeaseFilter::default() };
    let mut paged = Vec::new();
    for _ in 0..3 {
        let page = ids(&*store, filter.clone()).await;
        filter.before = page.last().cloned();
        paged.extend(page);
    }
    assert_eq!(paged, every);
    assert!(ids(&*store, filter).await.is_empty());
    let of = |change: fn(&mut LeaseFilter)| {
        let mut filter = LeaseFilter { limit: 100, ..LeaseFilter::default() };
        change(&mut filter);
        ids(&*store, filter)
    };
    assert_eq!(of(|f| f.principal = Some(lease_at(0).principal)).await.len(), 22);
    let evil = Principal { subject: "system:serviceaccount:evil:payment-service".into(), ..lease_at(0).principal };
    let evils = LeaseFilter { principal: Some(evil), limit: 100, ..LeaseFilter::default() };
    assert_eq!(ids(&*store, evils).await, [all[16].id.clone(), all[17].id.clone()], "a name is no owner");
    assert_eq!(of(|f| f.target = TargetName::new("other").ok()).await.len(), 1);
    assert_eq!(of(|f| f.state = Some(LeaseState::Active)).await.len(), 1);
    assert_eq!(of(|f| f.limit = 0).await.len(), 1, "at least one");
    assert_eq!(of(|f| f.workload = Some("other".to_owned())).await, [all[21].id.clone()]);
    // What lives and what has ended, page by page too.
    let revoking = active(&all[0]).begin_revocation(Cause::Operator, time(9)).unwrap();
    for step in [active(&all[0]), revoking.clone(), revoking.removed().unwrap()] {
        store.commit(update(&step)).await.unwrap();
    }
    assert_eq!(of(|f| f.ended = Some(true)).await, [all[0].id.clone()]);
    assert_eq!(of(|f| f.ended = Some(false)).await, every[1..]);
    let page = LeaseFilter { ended: Some(false), limit: 10, before: Some(every[1].clone()), ..LeaseFilter::default() };
    assert_eq!(ids(&*store, page).await, every[2..12]);
    harness.close(store).await;
}

/// Texts that look like something else come back as they were, and only to whom they belong.
pub async fn keeps_hostile_texts<H: Harness>(harness: H) {
    let store = harness.open().await;
    let texts = [
        "'; DROP TABLE leases; --",
        "\"}],[\"",
        "nul\0nul",
        "nul",
        "line\nline\r\u{2028}",
        "\\u0000\\\"",
        "😀𝕵 é ﷽ \u{202e}",
        "\u{1}\u{7f}\u{fffd}",
        "nul\u{fffd}nul",
        "",
    ];
    for text in texts {
        let mut lease = with_key(text);
        lease.principal.workload = text.into();
        lease.reason = Some(text.into());
        lease.account = AccountName::from_backend(text);
        lease.metadata.insert(text.into(), text.into());
        let stored = store.commit(insert(&lease)).await;
        if text == "nul\u{fffd}nul" && matches!(stored, Err(StoreError::KeyTaken(_))) {
            // A key is a digest in hexadecimal; this one only must not be taken for the other.
            assert_eq!(store.lease_by_key(text).await.unwrap(), None);
            continue;
        }
        stored.unwrap();
        let active = active(&lease);
        let mut event = granted(&active).with_error(text);
        if let Event::IssueGranted(granted) = &mut event.event {
            granted.decision.labels.insert(text.to_owned(), text.to_owned());
        }
        store.commit(Change { events: vec![event], ..update(&active) }).await.unwrap();
        assert_eq!(store.lease(&lease.id).await.unwrap().as_ref(), Some(&active), "{text:?}");
        assert_eq!(store.lease_by_key(text).await.unwrap().as_ref(), Some(&active), "{text:?}");
        let own = LeaseFilter { principal: Some(lease.principal.clone()), limit: 10, ..LeaseFilter::default() };
        assert_eq!(ids(&*store, own).await, [lease.id.clone()], "{text:?}");
        assert_eq!(store.known_accounts(&[text.to_owned()]).await.unwrap(), [AccountName::from_backend(text)]);
        let seq = check_log(&*store, &harness.verifier()).await - 1;
        let record = store.records(seq, 1).await.unwrap().remove(0);
        assert!(!record.json.contains('\n'));
        let record: serde_json::Value = serde_json::from_str(&record.json).unwrap();
        assert_eq!((&record["labels"][text], &record["reason"]), (&text.into(), &text.into()));
    }
    harness.close(store).await;
}

/// The tests of one store.
#[macro_export]
macro_rules! for_store {
    ($harness:ty) => {
        $crate::for_store!(
            $harness: keeps_what_it_was_given, keeps_sealed_values, refuses_a_stale_step_whole, takes_several_steps_at_once,
            guards_idempotency_keys, uses_a_verifier_once, a_removal_never_fails_for_a_key, tells_what_is_due, knows_its_accounts,
            knows_what_backends_named_and_who_made_it, lists_page_by_page, forgets_only_what_is_over, lets_go_of_what_was_archived, serves_many_at_once, opens_where_it_was_closed,
            takes_over_what_an_ended_broker_left,
            keeps_hostile_texts,
            counts_each_request_once,
            counts_for_a_target_only_what_was_granted,
            holds_a_request_until_it_is_a_lease
        );
    };
    ($harness:ty: $($promise:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::$promise(<$harness as $crate::Harness>::new()).await;
            }
        )+
    };
}
