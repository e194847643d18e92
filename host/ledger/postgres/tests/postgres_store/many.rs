//! Several brokers on one store, and the store held by one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jit_core::id::RequestId;
use jit_core::lease::{CallersVerifier, Lease, VerifierKind};
use jit_core::name::{Principal, TargetName};
use jit_ledger::{Counted, Store as _, StoreError};
use jit_ledger_contract::{Harness as _, active, check_log, insert, lease_at, settled, time, with_key};
use jit_ledger_postgres::{OpenError, PgStore, Sharing};

use super::database::Database;

async fn three(database: &Database) -> [Arc<PgStore>; 3] {
    [database.shared().await, database.shared().await, database.shared().await]
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
            tokio::spawn(async move { database.shared().await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().close().await;
    }
}

/// One broker holds the store. A second one learns who it is, and gets the store when the first one ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_held_has_one_broker() {
    let database = Database::create().await;
    let first = database.alone("host-a, process 7").await.unwrap();
    let lease = lease_at(0);
    first.commit(insert(&lease)).await.unwrap();
    let refused = database.alone("host-b").await.unwrap_err();
    assert!(matches!(&refused, OpenError::Held(by) if by.contains("host-a, process 7")), "{refused}");
    // The one that waits gets it when the first one ends.
    let patience = Duration::from_secs(60);
    let waiting = database.open_at(database.place(), Sharing::Alone { name: "host-b".into(), patience });
    let closing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        first.commit(settled(&active(&lease))).await.unwrap();
        first.close().await;
    };
    let (second, ()) = tokio::join!(waiting, closing);
    let second = second.unwrap();
    // It continues from what was written while it waited.
    second.commit(settled(&active(&lease))).await.unwrap_err();
    second.commit(insert(&lease_at(1)).with(jit_ledger_contract::granted(&lease))).await.unwrap();
    assert_eq!(check_log(&second, &database.verifier()).await, 2);
    second.close().await;
}

/// A broker whose hold was lost, and which another one followed, writes nothing more: no lease, no count, no record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_followed_writes_nothing() {
    let database = Database::create().await;
    let first = database.alone("first").await.unwrap();
    let lease = lease_at(0);
    first.commit(insert(&lease)).await.unwrap();
    // As when its machine is frozen: the session ends, and the process does not know.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    database.tamper(end).await;
    let second = database.alone("second").await.unwrap();
    for _ in 0..2 {
        let late = first.commit(settled(&active(&lease))).await.unwrap_err();
        assert!(late.to_string().contains("another broker took the store over"), "{late}");
    }
    assert!(first.lost().await.contains("another broker took the store over"));
    let request = Counted {
        request_id: RequestId::generate(time(0)),
        principal: lease.principal.clone(),
        target: lease.target.clone(),
        at: time(0),
        windows: vec![60],
        holds: false,
        again: false,
    };
    assert!(matches!(first.count(&request).await, Err(StoreError::Failed(_))));
    assert!(matches!(first.forget_usage(time(9_999)).await, Err(StoreError::Failed(_))));
    assert_eq!(check_log(&second, &database.verifier()).await, 0);
    assert_eq!(second.lease(&lease.id).await.unwrap(), Some(lease.clone()));
    first.close().await;
    second.commit(settled(&active(&lease))).await.unwrap();
    assert_eq!(second.count(&request).await.unwrap().requests[&60].workload, 1);
    second.close().await;
}

/// A holder that loses its session keeps the store if no other broker took it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_outlives_its_session() {
    let database = Database::create().await;
    let store = database.alone("first").await.unwrap();
    let role = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", database.name);
    database.tamper(&role).await;
    store.commit(insert(&lease_at(0))).await.unwrap();
    // The lock comes back, and keeps others out.
    let begun = std::time::Instant::now();
    while database
        .value::<i64>(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .await
        == 0
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "the lock does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(matches!(database.alone("second").await, Err(OpenError::Held(_))));
    store.commit(insert(&lease_at(1))).await.unwrap();
    store.close().await;
}
