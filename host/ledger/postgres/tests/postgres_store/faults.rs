//! Connections that are cut around a COMMIT, and what the store then says: it looks up what became of the transaction,
//! and never guesses.

use std::time::Duration;

use jit_ledger::{Store as _, StoreError};
use jit_ledger_contract::{Harness as _, active, check_log, insert, lease_at, settled};
use jit_ledger_postgres::PgStore;

use super::database::Database;
use super::relay::{Break, Relay};

async fn through_a_relay() -> (Database, Relay, PgStore) {
    let database = Database::create().await;
    let direct = database.url(None);
    let relay = Relay::before(&format!("{}:{}", direct.host_str().unwrap(), direct.port().unwrap())).await;
    let place = database.place_at(vec![database.url(Some(&relay.address))]);
    let store = database.open_at(place, "broker").await.unwrap();
    (database, relay, store)
}

/// The change is made once, and its caller gets that answer, even if the connection is lost around the COMMIT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_looked_up() {
    let (database, relay, store) = through_a_relay().await;
    let late = Duration::from_millis(700);
    let breaks = [Break::Before, Break::After, Break::Late(late), Break::Hanging(late)];
    for (round, how) in breaks.into_iter().enumerate() {
        let lease = lease_at(i64::try_from(round).unwrap());
        store.commit(insert(&lease)).await.unwrap();
        relay.break_next(how);
        store.commit(settled(&active(&lease))).await.unwrap_or_else(|error| panic!("{how:?}: {error}"));
        assert_eq!(relay.broken(), round + 1, "{how:?}");
        assert_eq!(store.lease(&lease.id).await.unwrap(), Some(active(&lease)), "{how:?}");
        assert_eq!(check_log(&store, &database.verifier()).await, round as u64 + 1, "{how:?}");
        // The same step again is one too many.
        let again = store.commit(settled(&active(&lease))).await;
        assert!(matches!(again, Err(StoreError::Stale(_))), "{how:?}: {again:?}");
    }
    store.close().await;
}

/// The answer to a refused change is the refusal, even if the connection is lost: it needs no COMMIT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_the_server_ends_are_replaced() {
    let (database, _relay, store) = through_a_relay().await;
    let lease = lease_at(0);
    store.commit(insert(&lease)).await.unwrap();
    for round in 0..3 {
        let role =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", database.name);
        database.tamper(&role).await;
        assert!(store.lease(&lease.id).await.unwrap().is_some(), "a question");
        store.commit(insert(&lease_at(round + 1))).await.unwrap();
    }
    store.close().await;
}

/// Where it cannot be found out, the error says that, and the change that was made is there afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_known_is_said_to_be_unknown() {
    let (database, relay, store) = through_a_relay().await;
    let lease = lease_at(0);
    store.commit(insert(&lease)).await.unwrap();
    relay.break_next(Break::AfterAndShut);
    let told = store.commit(settled(&active(&lease))).await.unwrap_err();
    assert!(told.to_string().contains("could not be found out"), "{told}");
    let direct = database.broker("broker").await;
    assert_eq!(direct.lease(&lease.id).await.unwrap(), Some(active(&lease)));
    assert_eq!(check_log(&*direct, &database.verifier()).await, 1);
    direct.close().await;
}
