//! What every store must do when it counts.

use std::collections::BTreeMap;

use jit_core::usage::Scoped;

use super::{Harness, active, insert, lease_at, time, update};
use jit_core::id::RequestId;
use jit_core::lease::{Cause, Lease};
use jit_core::name::{Principal, TargetName};
use jit_ledger::{Change, Counted, Settled, Store};

fn of(issuer: &str, workload: &str, subject: &str) -> Principal {
    Principal { issuer: issuer.into(), workload: workload.into(), subject: subject.into() }
}

/// A request that was counted and is over.
fn over(request: &Counted, granted: bool) -> Change {
    Change::default().settling([Settled { request_id: request.request_id.clone(), granted }])
}

fn request(second: i64, workload: &str, target: &str) -> Counted {
    Counted {
        request_id: RequestId::generate(time(second)),
        principal: of("cluster", workload, &format!("system:serviceaccount:shop:{workload}")),
        target: TargetName::new(target).unwrap(),
        at: time(second),
        windows: vec![10, 100],
        holds: false,
        again: false,
    }
}

/// Each request sees itself and those before it, in its scopes and windows only, also from many tasks
/// at once; and a question counts nothing.
pub async fn counts_each_request_once<H: Harness>(harness: H) {
    let store = harness.open().await;
    for (second, workload, target) in [(0, "a", "x"), (5, "a", "y"), (5, "b", "x"), (50, "a", "x")] {
        let one = request(second, workload, target);
        store.count(&one).await.unwrap();
        store.commit(over(&one, true)).await.unwrap();
    }
    let expected = BTreeMap::from([
        (10, Scoped { workload: 2, workload_target: 2, target: 2 }),
        (100, Scoped { workload: 4, workload_target: 3, target: 4 }),
    ]);
    for _ in 0..2 {
        let asked = store.usage(&request(55, "a", "x")).await.unwrap();
        assert_eq!((asked.requests, asked.leases), (expected.clone(), Scoped::default()));
    }
    assert_eq!(store.count(&request(55, "a", "x")).await.unwrap().requests, expected.clone());
    let alone = Scoped { workload: 1, workload_target: 1, target: 1 };
    let again = store.usage(&Counted { again: true, holds: true, ..request(55, "a", "x") }).await.unwrap();
    assert_eq!((again.requests, again.leases), (expected, Scoped::default()), "one that was counted adds nothing");
    let foreign = Counted { principal: of("other", "a", "s"), ..request(55, "a", "z") };
    assert_eq!(store.count(&foreign).await.unwrap().requests[&100], alone, "an issuer's names are its own");
    let namesake = Counted { principal: of("cluster", "a", "another"), ..request(55, "a", "zz") };
    assert_eq!(store.count(&namesake).await.unwrap().requests[&100], alone, "a name is no owner");
    let by_name = Counted { principal: of("cluster", "a", ""), ..request(55, "a", "zz") };
    assert_eq!(store.usage(&by_name).await.unwrap().requests[&100].workload, 6, "a question may ask by name");

    let many = (0..40).map(|_| {
        let store = std::sync::Arc::clone(&store);
        tokio::spawn(async move { store.count(&request(500, "c", "x")).await.unwrap().requests[&10].workload })
    });
    let mut seen = Vec::new();
    for one in many.collect::<Vec<_>>() {
        seen.push(one.await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=40).collect::<Vec<_>>(), "no two saw the same number");

    store.forget_usage(time(400)).await.unwrap();
    let left = store.usage(&Counted { windows: vec![10_000], ..request(500, "a", "x") }).await.unwrap();
    assert_eq!(left.requests[&10_000], Scoped { workload: 1, workload_target: 1, target: 41 });
    // What was counted is still there after a restart.
    harness.close(store).await;
    let store = harness.open().await;
    assert_eq!(store.usage(&request(500, "c", "x")).await.unwrap().requests[&10].workload, 41);
    harness.close(store).await;
}

/// A request that may become a lease counts as one until it is one, and then once.
pub async fn holds_a_request_until_it_is_a_lease<H: Harness>(harness: H) {
    let store = harness.open().await;
    let holding = |second: i64| Counted { holds: true, ..request(second, "payment-service", "inventory_db") };
    let live =
        async |second: i64| store.usage(&request(second, "payment-service", "inventory_db")).await.unwrap().leases;

    let first = holding(0);
    assert_eq!(store.count(&first).await.unwrap().leases, Scoped { workload: 1, workload_target: 1, target: 1 });
    assert_eq!(store.count(&holding(0)).await.unwrap().leases.workload, 2, "both at once are seen");
    assert_eq!(store.usage(&holding(0)).await.unwrap().leases.workload, 3, "a question adds itself only to its answer");

    let lease = Lease { request_id: first.request_id.clone(), ..lease_at(0) };
    store.commit(insert(&lease).settling(over(&first, true).settled)).await.unwrap();
    assert_eq!(live(1).await.workload, 2, "the hold became the lease");
    let other = Counted { target: TargetName::new("orders_db").unwrap(), ..request(1, "payment-service", "x") };
    assert_eq!(store.usage(&other).await.unwrap().leases, Scoped { workload: 2, workload_target: 0, target: 0 });

    // Denied: settled without a lease.
    let denied = holding(1);
    store.count(&denied).await.unwrap();
    store.commit(over(&denied, false)).await.unwrap();
    assert_eq!(live(2).await.workload, 2);
    // The second of the beginning died undecided: it counts for a while, and then no longer.
    let later = 1 + i64::try_from(Counted::HOLD.as_secs()).unwrap();
    assert_eq!(live(later).await.workload, 1);

    let revoking = active(&lease);
    store.commit(update(&revoking)).await.unwrap();
    let revoking = revoking.begin_revocation(Cause::Requested, time(3)).unwrap();
    store.commit(update(&revoking)).await.unwrap();
    assert_eq!(live(later).await.workload, 1, "an account that is still there counts");
    let gone = revoking.removed().unwrap();
    store.commit(update(&gone)).await.unwrap();
    assert_eq!(live(later).await, Scoped::default());
    harness.close(store).await;
}

/// What was denied counts for who asked, and never for the target: nobody can use up what others may have.
pub async fn counts_for_a_target_only_what_was_granted<H: Harness>(harness: H) {
    let store = harness.open().await;
    let seen = async |second: i64| store.usage(&request(second, "other", "x")).await.unwrap().requests[&100].target;
    for second in 0..5 {
        let denied = request(second, "hostile", "x");
        assert_eq!(store.count(&denied).await.unwrap().requests[&100].target, 1, "itself");
        assert_eq!(seen(second).await, 2, "while it is being decided it counts");
        store.commit(over(&denied, false)).await.unwrap();
    }
    assert_eq!(seen(5).await, 1);
    let own = store.usage(&request(5, "hostile", "x")).await.unwrap().requests[&100];
    assert_eq!(own, Scoped { workload: 6, workload_target: 6, target: 1 }, "its own quota it uses up");

    // Two in one change, and a renewal that is granted long after it was counted.
    let (one, two, slow) = (request(6, "a", "x"), request(6, "a", "x"), request(7, "a", "x"));
    for counted in [&one, &two, &slow] {
        store.count(counted).await.unwrap();
    }
    let both = [&one, &two].map(|one| Settled { request_id: one.request_id.clone(), granted: true });
    store.commit(Change::default().settling(both)).await.unwrap();
    assert_eq!(seen(8).await, 4);
    let later = 7 + i64::try_from(Counted::HOLD.as_secs()).unwrap();
    assert_eq!(seen(later).await, 3, "an undecided one counts for a while only");
    store.commit(over(&slow, true)).await.unwrap();
    assert_eq!(seen(later).await, 4);
    // Settled twice, as after an answer that was lost, it counts once.
    store.commit(over(&slow, true)).await.unwrap();
    assert_eq!(seen(later).await, 4);
    harness.close(store).await;
}
