//! The contract, and the faults.

use std::sync::Arc;

use jit_ledger::{Change, LeaseWrite, Store as _, StoreError};
use jit_ledger_contract::{Harness, active, check_log, insert, lease_at, settled};
use jit_tlog::checkpoint::VerifierKey;

use crate::{DEADLINE, Fault, Faults, MemoryLedger};

/// One content that is opened again and again.
struct Content(MemoryLedger);

impl Harness for Content {
    type Store = MemoryLedger;

    fn new() -> Self {
        Self(MemoryLedger::new())
    }

    async fn open(&self) -> Arc<MemoryLedger> {
        Arc::new(self.0.reopened())
    }

    async fn close(&self, store: Arc<MemoryLedger>) {
        store.close().await;
    }

    fn verifier(&self) -> VerifierKey {
        self.0.verifier()
    }
}

mod contract {
    jit_ledger_contract::for_store!(super::Content);
}

fn failed(result: Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Failed(_)))
}

#[tokio::test]
async fn each_fault_is_what_it_says_once() {
    let faults = Faults::none().at(2, Fault::Failed).at(3, Fault::FailedButPersisted);
    let store = MemoryLedger::with_faults(faults);
    let pending = lease_at(0);
    store.commit(insert(&pending)).await.unwrap();
    store.commit(Change::default()).await.unwrap();
    assert!(failed(store.commit(settled(&active(&pending))).await));
    assert_eq!(store.lease(&pending.id).await.unwrap().as_ref(), Some(&pending), "nothing was made");
    assert_eq!(check_log(&store, &store.verifier()).await, 0);
    assert!(failed(store.commit(settled(&active(&pending))).await));
    assert_eq!(store.lease(&pending.id).await.unwrap(), Some(active(&pending)), "it was made");
    assert_eq!((check_log(&store, &store.verifier()).await, *store.log_size().borrow()), (1, 1));
    // The caller tries again, and learns that it was made.
    assert!(matches!(store.commit(settled(&active(&pending))).await, Err(StoreError::Stale(_))));
    assert_eq!(store.commits(), 4);
}

#[tokio::test]
async fn a_fault_may_wait_for_its_change() {
    let inserts = |change: &Change| change.leases.iter().any(|write| matches!(write, LeaseWrite::Insert(_)));
    let store = MemoryLedger::with_faults(Faults::none().first(inserts, Fault::Failed));
    assert!(failed(store.commit(insert(&lease_at(0))).await));
    store.commit(insert(&lease_at(1))).await.unwrap();
    store.plan(Faults::none().every(inserts, Fault::Failed));
    for second in 2..4 {
        assert!(failed(store.commit(insert(&lease_at(second))).await));
    }
}

/// A refusal is told as one also where the answer would be lost: nothing was made that it could be about.
#[tokio::test]
async fn a_change_that_is_refused_is_refused_whatever_is_planned() {
    let store = MemoryLedger::with_faults(Faults::none().at(2, Fault::FailedButPersisted));
    let lease = lease_at(0);
    store.commit(insert(&lease)).await.unwrap();
    assert!(matches!(store.commit(insert(&lease)).await, Err(StoreError::Stale(_))));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_commit_fails_at_its_deadline_and_makes_nothing() {
    let store = MemoryLedger::with_faults(Faults::none().at(1, Fault::Stalled));
    let lease = lease_at(0);
    let began = tokio::time::Instant::now();
    assert!(failed(store.commit(insert(&lease)).await));
    assert_eq!(began.elapsed(), DEADLINE);
    assert_eq!(store.lease(&lease.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_closed_handle_says_so_and_another_goes_on() {
    let store = MemoryLedger::new();
    store.commit(settled_new()).await.unwrap();
    store.close().await;
    assert!(failed(store.commit(settled_new()).await));
    assert!(store.checkpoint().await.is_err());
    let again = store.reopened();
    again.commit(settled_new()).await.unwrap();
    assert_eq!(check_log(&again, &again.verifier()).await, 2);
}

fn settled_new() -> Change {
    let lease = lease_at(0);
    insert(&lease).with(jit_ledger_contract::granted(&lease))
}
