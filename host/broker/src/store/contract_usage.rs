//! What every store must do when it counts.

use std::collections::BTreeMap;

use jit_core::usage::Scoped;

use super::{Harness, active, insert, lease_at, time, update};
use crate::store::{Change, Counted, Store};
use jit_core::id::RequestId;
use jit_core::lease::{Cause, Lease};
use jit_core::name::{Principal, TargetName};

fn request(second: i64, workload: &str, target: &str) -> Counted {
    Counted {
        request_id: RequestId::generate(time(second)),
        principal: Principal { issuer: "cluster".into(), workload: workload.into() },
        target: TargetName::new(target).unwrap(),
        at: time(second),
        windows: vec![10, 100],
        holds: false,
    }
}

/// Each request sees itself and those before it, in its scopes and windows only, also from many tasks
/// at once; and a question counts nothing.
pub(crate) async fn counts_each_request_once<H: Harness>(harness: H) {
    let store = harness.open().await;
    for (second, workload, target) in [(0, "a", "x"), (5, "a", "y"), (5, "b", "x"), (50, "a", "x")] {
        store.count(&request(second, workload, target)).await.unwrap();
    }
    let expected = BTreeMap::from([
        (10, Scoped { workload: 2, workload_target: 2, target: 2 }),
        (100, Scoped { workload: 4, workload_target: 3, target: 4 }),
    ]);
    for _ in 0..2 {
        let asked = store.usage(&request(55, "a", "x")).await.unwrap();
        assert_eq!((asked.requests, asked.leases), (expected.clone(), Scoped::default()));
    }
    assert_eq!(store.count(&request(55, "a", "x")).await.unwrap().requests, expected);
    let foreign =
        Counted { principal: Principal { issuer: "other".into(), workload: "a".into() }, ..request(55, "a", "z") };
    let alone = Scoped { workload: 1, workload_target: 1, target: 1 };
    assert_eq!(store.count(&foreign).await.unwrap().requests[&100], alone, "an issuer's names are its own");

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
pub(crate) async fn holds_a_request_until_it_is_a_lease<H: Harness>(harness: H) {
    let store = harness.open().await;
    let holding = |second: i64| Counted { holds: true, ..request(second, "payment-service", "inventory_db") };
    let live =
        async |second: i64| store.usage(&request(second, "payment-service", "inventory_db")).await.unwrap().leases;

    let first = holding(0);
    assert_eq!(store.count(&first).await.unwrap().leases, Scoped { workload: 1, workload_target: 1, target: 1 });
    assert_eq!(store.count(&holding(0)).await.unwrap().leases.workload, 2, "both at once are seen");
    assert_eq!(store.usage(&holding(0)).await.unwrap().leases.workload, 3, "a question adds itself only to its answer");

    let lease = Lease { request_id: first.request_id.clone(), ..lease_at(0) };
    store.commit(Change { settled: vec![first.request_id.clone()], ..insert(&lease) }).await.unwrap();
    assert_eq!(live(1).await.workload, 2, "the hold became the lease");
    let other = Counted { target: TargetName::new("orders_db").unwrap(), ..request(1, "payment-service", "x") };
    assert_eq!(store.usage(&other).await.unwrap().leases, Scoped { workload: 2, workload_target: 0, target: 0 });

    // Denied: settled without a lease.
    let denied = holding(1);
    store.count(&denied).await.unwrap();
    store.commit(Change { settled: vec![denied.request_id], ..Change::default() }).await.unwrap();
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
