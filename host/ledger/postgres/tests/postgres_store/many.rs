//! Several brokers on one store: what they write at the same time, and what becomes of one that ends or is silent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jit_core::id::RequestId;
use jit_core::lease::{CallersVerifier, Lease, VerifierKind};
use jit_core::name::{Principal, TargetName};
use jit_ledger::{Counted, Store as _, StoreError};
use jit_ledger_contract::{Harness as _, active, check_log, insert, lease_at, settled, time, update, with_key};
use jit_ledger_postgres::PgStore;

use super::database::Database;

async fn three(database: &Database) -> [Arc<PgStore>; 3] {
    [database.broker("a").await, database.broker("b").await, database.broker("c").await]
}

/// What each of the three says to its change, all at the same time.
async fn at_once(stores: &[Arc<PgStore>; 3], changes: [jit_ledger::Change; 3]) -> Vec<Result<(), StoreError>> {
    let tasks: Vec<_> = stores
        .iter()
        .zip(changes)
        .map(|(store, change)| {
            let store = Arc::clone(store);
            tokio::spawn(async move { store.commit(change).await })
        })
        .collect();
    let mut said = Vec::new();
    for task in tasks {
        said.push(task.await.unwrap());
    }
    said
}

/// They write one log, without gaps, and each hears of what the others wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_write_one_log() {
    let database = Database::create().await;
    let stores = three(&database).await;
    let tasks: Vec<_> = (0..12_i64)
        .map(|task| {
            let store = Arc::clone(&stores[usize::try_from(task % 3).unwrap()]);
            tokio::spawn(async move {
                for n in 0..10 {
                    let lease = lease_at(task * 100 + n);
                    store.commit(insert(&lease)).await.unwrap();
                    store.commit(settled(&active(&lease))).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for store in &stores {
        let mut size = store.log_size();
        let heard = size.wait_for(|size| *size == 120);
        tokio::time::timeout(Duration::from_secs(60), heard).await.unwrap().unwrap();
        assert_eq!(check_log(&**store, &database.verifier()).await, 120);
    }
    for store in stores {
        store.close().await;
    }
}

/// A key, a step and a verifier each go to one of them, also when all ask at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_them_gets_what_there_is_once() {
    let database = Database::create().await;
    let stores = three(&database).await;
    let won = |said: &[Result<(), StoreError>]| said.iter().filter(|one| one.is_ok()).count();
    for round in 0..15 {
        let key = format!("key-{round}");
        let said = at_once(&stores, [0, 1, 2].map(|_| insert(&with_key(&key)))).await;
        assert_eq!(won(&said), 1, "{said:?}");
        let holder = stores[0].lease_by_key(&key).await.unwrap().unwrap();
        let taken = said.iter().filter(|one| matches!(one, Err(StoreError::KeyTaken(id)) if *id == holder.id));
        assert_eq!(taken.count(), 2, "{said:?}");

        let said = at_once(&stores, [0, 1, 2].map(|_| settled(&active(&holder)))).await;
        assert_eq!(won(&said), 1, "{said:?}");
        let stale = said.iter().filter(|one| matches!(one, Err(StoreError::Stale(id)) if *id == holder.id));
        assert_eq!(stale.count(), 2, "{said:?}");

        let verifier =
            CallersVerifier { kind: VerifierKind::ScramSha256, digest: format!("{round:064x}"), takes_over: None };
        let with = |second| insert(&Lease { verifier: Some(verifier.clone()), ..lease_at(second) });
        let said = at_once(&stores, [0, 1, 2].map(with)).await;
        assert_eq!(won(&said), 1, "{said:?}");
        let used = said.iter().filter(|one| matches!(one, Err(StoreError::VerifierUsed(_))));
        assert_eq!(used.count(), 2, "{said:?}");
    }
    assert_eq!(check_log(&*stores[0], &database.verifier()).await, 15);
    for store in stores {
        store.close().await;
    }
}

/// No two requests see the same number, of one workload or of one target.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_exact_over_all() {
    let database = Database::create().await;
    let stores = three(&database).await;
    for by_target in [false, true] {
        let tasks: Vec<_> = (0..60_usize)
            .map(|n| {
                let store = Arc::clone(&stores[n % 3]);
                let (workload, target) =
                    if by_target { (format!("w{n}"), "shared".to_owned()) } else { ("w".to_owned(), format!("t{n}")) };
                let request = Counted {
                    request_id: RequestId::generate(time(0)),
                    principal: Principal { issuer: "cluster".into(), workload, subject: "s".into() },
                    target: TargetName::new(target).unwrap(),
                    at: time(0),
                    windows: vec![60],
                    holds: true,
                    again: false,
                };
                tokio::spawn(async move { store.count(&request).await.unwrap() })
            })
            .collect();
        let (mut requests, mut leases) = (BTreeSet::new(), BTreeSet::new());
        for task in tasks {
            let usage = task.await.unwrap();
            let of = |counts: jit_core::usage::Scoped| if by_target { counts.target } else { counts.workload };
            requests.insert(of(usage.requests[&60]));
            leases.insert(of(usage.leases));
        }
        assert_eq!(requests, (1..=60).collect(), "{by_target}");
        assert_eq!(leases, (1..=60).collect(), "{by_target}");
    }
    for store in stores {
        store.close().await;
    }
}

/// The first broker makes the tables, and they are made once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_database_may_be_opened_by_many_at_once() {
    let database = Arc::new(Database::create().await);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let database = Arc::clone(&database);
            tokio::spawn(async move { database.broker("one of many").await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().close().await;
    }
}

/// How the leases of a broker pass to the others.
async fn due(store: &PgStore) -> Vec<jit_core::id::LeaseId> {
    let mut ids: Vec<_> = store.due(time(9_999), 100).await.unwrap().into_iter().map(|lease| lease.id).collect();
    ids.sort();
    ids
}

/// A lease is due in the broker that wrote it last. Work is claimed by one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_one_brokers_at_a_time() {
    let database = Database::create().await;
    let (first, second) = (database.broker("first").await, database.broker("second").await);
    let lease = lease_at(0);
    first.commit(insert(&lease)).await.unwrap();
    assert!(second.unfinished(time(9_999), 10).await.unwrap().is_empty(), "its broker is at it");
    assert_eq!(second.pending(time(9_999), 10).await.unwrap().len(), 1);
    first.commit(settled(&active(&lease))).await.unwrap();
    assert_eq!((due(&first).await, due(&second).await), (vec![lease.id.clone()], vec![]));
    assert_eq!((first.owns(&lease.id).await.unwrap(), second.owns(&lease.id).await.unwrap()), (true, false));
    assert_eq!(second.next_due().await.unwrap(), None);
    assert_eq!(second.adopt(10).await.unwrap(), 0, "its broker serves");
    // A step by the other makes it the other's.
    let renewed = active(&lease).moved(jiff::SignedDuration::from_secs(60));
    second.commit(update(&renewed)).await.unwrap();
    assert_eq!((due(&first).await, due(&second).await), (vec![], vec![lease.id.clone()]));
    // A lease that it has no driver for passes to another broker.
    assert!(!first.hand_over(&lease.id).await.unwrap(), "it is not its own");
    assert!(second.hand_over(&lease.id).await.unwrap());
    assert_eq!((due(&first).await, due(&second).await), (vec![lease.id.clone()], vec![]));

    assert!(first.claim("reconcile/a").await.unwrap() && first.claim("reconcile/a").await.unwrap());
    assert!(!second.claim("reconcile/a").await.unwrap() && second.claim("reconcile/b").await.unwrap());
    second.release("reconcile/a").await;
    assert!(!second.claim("reconcile/a").await.unwrap(), "only who has it lets go of it");
    first.release("reconcile/a").await;
    assert!(second.claim("reconcile/a").await.unwrap());
    for store in [first, second] {
        store.close().await;
    }
}

/// What a broker leaves is divided among the others, each lease to one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_a_broker_that_left_go_to_one_each() {
    let database = Database::create().await;
    let stores = three(&database).await;
    let leases: Vec<Lease> = (0..40).map(lease_at).collect();
    for lease in &leases {
        stores[0].commit(insert(lease)).await.unwrap();
        stores[0].commit(update(&active(lease))).await.unwrap();
    }
    assert!(stores[0].claim("export").await.unwrap() && !stores[1].claim("export").await.unwrap());
    stores[0].close().await;
    let adopting = [1, 2].map(|broker: usize| {
        let store = Arc::clone(&stores[broker]);
        tokio::spawn(async move {
            let mut adopted = 0;
            loop {
                match store.adopt(3).await.unwrap() {
                    0 => return adopted,
                    more => adopted += more,
                }
            }
        })
    });
    let mut adopted = 0;
    for task in adopting {
        adopted += task.await.unwrap();
    }
    let all: BTreeSet<_> = due(&stores[1]).await.into_iter().chain(due(&stores[2]).await).collect();
    assert_eq!((adopted, all.len()), (40, 40));
    assert!(stores[1].claim("export").await.unwrap(), "what it had claimed is free");
    assert_eq!(database.value::<i64>("SELECT count(*) FROM jit_broker.brokers").await, 2, "nothing is left of it");
    for store in &stores[1..] {
        store.close().await;
    }
}

/// A broker that is frozen for longer than the others wait writes nothing when it wakes up: no lease, no count, no
/// claim, no record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_frozen_writes_nothing_more() {
    let database = Arc::new(Database::create().await);
    let second = database.broker("second").await;
    let lease = lease_at(0);
    let (opened, is_open) = std::sync::mpsc::channel();
    let (wake, frozen) = std::sync::mpsc::channel::<()>();
    // A runtime of its own, whose one thread stands still: nothing of this broker runs meanwhile.
    let (its_database, its_lease) = (Arc::clone(&database), lease.clone());
    let first = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let first = its_database.broker("first").await;
            first.commit(insert(&its_lease)).await.unwrap();
            opened.send(()).unwrap();
            frozen.recv().unwrap();
            assert!(!first.holds(), "it knows that it may have been fenced");
            for _ in 0..2 {
                let late = first.commit(settled(&active(&its_lease))).await.unwrap_err();
                assert!(late.to_string().contains("another broker fenced this one"), "{late}");
            }
            assert!(first.lost().await.contains("another broker fenced this one"));
            let request = Counted {
                request_id: RequestId::generate(time(0)),
                principal: its_lease.principal.clone(),
                target: its_lease.target.clone(),
                at: time(0),
                windows: vec![60],
                holds: false,
                again: false,
            };
            assert!(matches!(first.count(&request).await, Err(StoreError::Failed(_))));
            assert!(matches!(first.claim("anything").await, Err(StoreError::Failed(_))));
            assert!(matches!(first.adopt(10).await, Err(StoreError::Failed(_))));
            assert!(matches!(first.forget_usage(time(9_999)).await, Err(StoreError::Failed(_))));
            first.close().await;
        });
    });
    tokio::task::spawn_blocking(move || is_open.recv().unwrap()).await.unwrap();
    let mut peers = second.peers().unwrap();
    let fenced = tokio::time::timeout(Duration::from_secs(60), peers.wait_for(|peers| peers.ended)).await;
    fenced.expect("a silent broker is fenced").unwrap();
    assert_eq!(second.fenced().into_iter().map(|peer| peer.name).collect::<Vec<_>>(), ["first"]);
    assert!(second.fenced().is_empty(), "each is named once");
    let unfinished = second.unfinished(time(9_999), 10).await.unwrap();
    assert_eq!(unfinished, std::slice::from_ref(&lease));
    wake.send(()).unwrap();
    tokio::task::spawn_blocking(move || first.join().unwrap()).await.unwrap();
    assert_eq!(check_log(&*second, &database.verifier()).await, 0);
    assert_eq!(second.lease(&lease.id).await.unwrap(), Some(lease.clone()));
    second.commit(settled(&active(&lease))).await.unwrap();
    assert!(second.holds());
    second.close().await;
}

/// A broker that loses its sessions and finds the store again keeps its number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_outlives_its_sessions() {
    let database = Database::create().await;
    let (store, other) = (database.broker("first").await, database.broker("second").await);
    store.commit(insert(&lease_at(0))).await.unwrap();
    let beats = "SELECT sum(beats)::int8 FROM jit_broker.brokers";
    for _ in 0..2 {
        let role =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", database.name);
        database.tamper(&role).await;
        let before = database.value::<i64>(beats).await;
        let begun = std::time::Instant::now();
        while database.value::<i64>(beats).await < before + 4 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the beats do not come back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    store.commit(settled(&active(&lease_at(0)))).await.unwrap_err();
    store.commit(insert(&lease_at(1))).await.unwrap();
    assert!(other.fenced().is_empty() && store.fenced().is_empty());
    for store in [store, other] {
        store.close().await;
    }
}

/// Each sees the others, and whether their configurations differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_see_each_other() {
    let database = Database::create().await;
    let (first, second) = (database.broker("first").await, database.broker("second").await);
    first.show(Some("aa"), Some(7));
    second.show(Some("bb"), None);
    let mut peers = first.peers().unwrap();
    let differ = tokio::time::timeout(Duration::from_secs(60), peers.wait_for(jit_ledger::Peers::drift)).await;
    let seen = differ.expect("they are seen").unwrap().clone();
    let of = |name: &str| seen.serving.iter().find(|peer| peer.name == name).unwrap();
    assert_eq!((of("first").config.as_deref(), of("first").exported, of("first").is_this), (Some("aa"), Some(7), true));
    assert_eq!((of("second").config.as_deref(), of("second").is_this), (Some("bb"), false));
    second.close().await;
    let left = tokio::time::timeout(Duration::from_secs(60), peers.wait_for(|peers| peers.serving.len() == 1)).await;
    assert!(left.expect("it left").is_ok());
    first.close().await;
}
