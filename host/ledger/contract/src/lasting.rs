//! What a store lets go of, and what holds while many use it and after it was closed.

use super::*;

/// Revoked leases are forgotten after their time, no others, and their records stay.
pub async fn forgets_only_what_is_over<H: Harness>(harness: H) {
    let store = harness.open().await;
    let leases: Vec<Lease> = (0..4).map(lease_at).collect();
    for lease in &leases {
        store.commit(insert(lease)).await.unwrap();
        store.commit(settled(&active(lease))).await.unwrap();
    }
    for (lease, at) in leases.iter().zip([100, 200, 300]) {
        let revoking = active(lease).begin_revocation(Cause::Requested, time(at)).unwrap();
        store.commit(update(&revoking)).await.unwrap();
        if at < 300 {
            store.commit(update(&revoking.removed().unwrap())).await.unwrap();
        }
    }
    assert_eq!(store.forget_revoked(time(100), 10).await.unwrap(), 0);
    assert_eq!(store.forget_revoked(time(9_999), 1).await.unwrap(), 1);
    assert_eq!(store.lease(&leases[0].id).await.unwrap(), None, "the one that ended first");
    assert_eq!(store.forget_revoked(time(9_999), 10).await.unwrap(), 1);
    assert_eq!(store.forget_revoked(time(9_999), 10).await.unwrap(), 0);
    assert_eq!(ids(&*store, LeaseFilter { limit: 10, ..LeaseFilter::default() }).await.len(), 2);
    assert_eq!(check_log(&*store, &harness.verifier()).await, 4);
    harness.close(store).await;
}

/// The store removes archived records and keeps those after them. New records continue the same log.
pub async fn lets_go_of_what_was_archived<H: Harness>(harness: H) {
    let store = harness.open().await;
    let mut leaves = Vec::new();
    for second in 0..7 {
        let lease = lease_at(second);
        store.commit(insert(&lease).with(granted(&lease))).await.unwrap();
    }
    let tree = |leaves: &[Hash]| {
        let mut range = CompactRange::new();
        range.extend(leaves.iter().copied());
        range
    };
    for record in store.records(0, 100).await.unwrap() {
        leaves.push(Hash::of_leaf(record.json.as_bytes()));
    }
    assert_eq!(store.frontier().await.unwrap().size(), 0);
    let leave = |size: usize| Change { archived: Some(Frontier(tree(&leaves[..size]))), ..Change::default() };
    store.commit(Change { events: vec![granted(&lease_at(8))], ..leave(5) }).await.unwrap();
    let left: Vec<u64> = store.records(0, 100).await.unwrap().iter().map(|record| record.seq).collect();
    assert_eq!(left, [5, 6, 7]);
    assert_eq!(store.frontier().await.unwrap().nodes(), tree(&leaves[..5]).nodes());
    // It never moves back.
    store.commit(leave(3)).await.unwrap();
    assert_eq!(store.frontier().await.unwrap().size(), 5);
    harness.close(store).await;
    let store = harness.open().await;
    store.commit(Change::record(granted(&lease_at(9)))).await.unwrap();
    for record in store.records(7, 100).await.unwrap() {
        leaves.push(Hash::of_leaf(record.json.as_bytes()));
    }
    let signed = harness.verifier().open(&store.checkpoint().await.unwrap().unwrap()).unwrap();
    assert_eq!((signed.size, signed.root), (9, root(&leaves)));
    // All of it: the next record is still the next.
    let leave = Change { archived: Some(Frontier(tree(&leaves))), ..Change::default() };
    store.commit(leave).await.unwrap();
    assert!(store.records(0, 100).await.unwrap().is_empty());
    harness.close(store).await;
    let store = harness.open().await;
    store.commit(Change::record(granted(&lease_at(10)))).await.unwrap();
    assert_eq!(store.records(0, 100).await.unwrap()[0].seq, 9);
    harness.close(store).await;
}

/// 64 tasks at once: every step that was taken is there once, every record has its number.
pub async fn serves_many_at_once<H: Harness>(harness: H) {
    let store = harness.open().await;
    let shared = lease_at(0);
    store.commit(insert(&shared)).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let (store, shared) = (Arc::clone(&store), shared.clone());
            tokio::spawn(async move {
                for n in 0..10 {
                    let lease = lease_at(task * 100 + n);
                    store.commit(insert(&lease)).await.unwrap();
                    store.commit(settled(&active(&lease))).await.unwrap();
                    assert_eq!(store.lease(&lease.id).await.unwrap().unwrap().state, LeaseState::Active);
                }
                // All want the same step, and the same key: one gets it.
                let step = store.commit(settled(&active(&shared))).await;
                let key = store.commit(insert(&with_key("contended"))).await;
                assert!(step.is_ok() || stale(step.clone(), &shared));
                assert!(matches!(key, Ok(()) | Err(StoreError::KeyTaken(_))));
                (u64::from(step.is_ok()), u64::from(key.is_ok()))
            })
        })
        .collect();
    let mut wins = (0, 0);
    for task in tasks {
        let (step, key) = task.await.unwrap();
        wins = (wins.0 + step, wins.1 + key);
    }
    assert_eq!(wins, (1, 1));
    assert_eq!(check_log(&*store, &harness.verifier()).await, 641);
    let records = store.records(0, 1_000).await.unwrap();
    let named: BTreeSet<String> = records
        .iter()
        .map(|record| serde_json::from_str::<serde_json::Value>(&record.json).unwrap()["lease_id"].to_string())
        .collect();
    assert_eq!(named.len(), 641, "one record for each lease");
    harness.close(store).await;
}

/// A store that is opened again has all that it had when it was closed. New records continue the same log.
pub async fn opens_where_it_was_closed<H: Harness>(harness: H) {
    let mut written = Vec::new();
    for round in 0..3_i64 {
        let store = harness.open().await;
        for lease in &written {
            assert_eq!(store.lease(&active(lease).id).await.unwrap(), Some(active(lease)));
        }
        for n in 0..5 {
            let lease = lease_at(round * 10 + n);
            store.commit(insert(&lease)).await.unwrap();
            store.commit(settled(&active(&lease))).await.unwrap();
            written.push(lease);
        }
        assert_eq!(check_log(&*store, &harness.verifier()).await, written.len() as u64);
        harness.close(store).await;
    }
}

/// What the backends named, and who made what is still to be removed.
pub async fn knows_what_backends_named_and_who_made_it<H: Harness>(harness: H) {
    let store = harness.open().await;
    let vault = DriverRef { plugin: "vault".into(), config: Some("{\"mount\":\"db\"}".into()), ..lease_at(0).driver };
    let made = |second, id: &str| Lease {
        external_id: Some(id.into()),
        username: Some(format!("v-root-{id}")),
        driver: vault.clone(),
        ..lease_at(second)
    };
    let (kept, gone) = (made(0, "creds/a/1"), made(1, "creds/a/2"));
    for lease in [&kept, &gone, &lease_at(2)] {
        store.commit(insert(lease)).await.unwrap();
    }
    assert_eq!(store.lease(&kept.id).await.unwrap().as_ref(), Some(&kept));
    store.commit(update(&gone.refuse(time(2), "no".into()).unwrap())).await.unwrap();
    let ids: Vec<String> = ["creds/a/1", "creds/a/2", "'; --", ""].map(Into::into).to_vec();
    assert_eq!(store.known_external_ids(&ids).await.unwrap(), ["creds/a/1"]);
    assert!(store.known_external_ids(&[]).await.unwrap().is_empty());
    let many: Vec<String> = (0..25_000).map(|n| format!("x/{n}")).chain(["creds/a/1".to_owned()]).collect();
    assert_eq!(store.known_external_ids(&many).await.unwrap(), ["creds/a/1"]);

    let mut makers = store.makers().await.unwrap();
    makers.sort_by(|one, other| one.driver.plugin.cmp(&other.driver.plugin));
    let told: Vec<_> = makers.iter().map(|maker| (maker.driver.plugin.as_str(), maker.leases)).collect();
    assert_eq!(told, [("postgres", 1), ("vault", 1)]);
    assert_eq!((&makers[1].driver, makers[1].target.as_str()), (&vault, "inventory_db"));
    assert_eq!(makers[1].last_expiry, kept.expires_at);
    harness.close(store).await;
}

/// What a broker left that has ended is taken over by the next one: its issue that did not come to its end, and its
/// leases.
pub async fn takes_over_what_an_ended_broker_left<H: Harness>(harness: H) {
    let store = harness.open().await;
    let (unfinished, kept, over) = (lease_at(0), lease_at(1), lease_at(2));
    for lease in [&unfinished, &kept, &over] {
        store.commit(insert(lease)).await.unwrap();
    }
    let active = active(&kept);
    store.commit(update(&active)).await.unwrap();
    store.commit(update(&over.refuse(time(3), "no".into()).unwrap())).await.unwrap();
    assert!(store.owns(&kept.id).await.unwrap() && store.claim("some work").await.unwrap() && store.holds());
    harness.close(store).await;

    let next = harness.open().await;
    let ids = |leases: Vec<Lease>| leases.into_iter().map(|lease| lease.id).collect::<Vec<_>>();
    assert_eq!(ids(next.unfinished(time(100), 10).await.unwrap()), std::slice::from_ref(&unfinished.id));
    assert!(ids(next.unfinished(time(0), 10).await.unwrap()).is_empty(), "asked for before");
    while next.adopt(1).await.unwrap() > 0 {}
    assert!(next.owns(&kept.id).await.unwrap());
    assert_eq!(ids(next.due(time(9_999), 10).await.unwrap()), std::slice::from_ref(&kept.id));
    assert_eq!(next.next_due().await.unwrap(), active.due_at());
    assert!(next.claim("some work").await.unwrap() && next.claim("some work").await.unwrap(), "again and again");
    next.release("some work").await;
    assert!(!next.hand_over(&kept.id).await.unwrap(), "there is nobody else");
    harness.close(next).await;
}
