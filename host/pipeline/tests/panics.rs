//! What follows when the code panics in the middle of something. A panic is a fault of the program, so it is caught where
//! work begins: it takes nothing else with it, leaves no account that nobody owes, and is tried again at a growing pace.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use jit_core::lease::LeaseState;
use jit_ledger_memory::{Fault, Faults};
use jit_pipeline::broker::Broker;
use jit_pipeline::tasks::driver;
use jit_pipeline::tasks::maintain::Upkeep;
use world::{Answer, OVERLAP, PERIOD, Verb, World};

/// Nothing is left: no account, and no lease that is not over.
async fn nothing_is_left(world: &World) {
    assert!(world.backend.accounts().is_empty(), "{:?}", world.events().await);
    for lease in world.leases().await {
        assert_eq!(lease.state, LeaseState::Revoked, "{:?}", world.events().await);
    }
}

fn plan(world: &World, verb: Verb, answer: Answer, times: usize) {
    for _ in 0..times {
        world.backend.plan(verb, answer);
    }
}

/// The request's task ends in the middle, as a panic of the driver's port would end it.
async fn issue_is_cut_off(world: &World, broker: &Arc<Broker>) {
    assert!(AssertUnwindSafe(world.issue(broker)).catch_unwind().await.is_err(), "it panicked");
}

#[tokio::test(start_paused = true)]
async fn an_issue_that_panics_is_undone_by_the_same_process() {
    for answer in [Answer::PanicUndone, Answer::PanicDone] {
        let world = World::new().await;
        let broker = world.broker();
        plan(&world, Verb::Create, answer, 1);
        issue_is_cut_off(&world, &broker).await;
        assert_eq!(world.leases().await.len(), 1, "the intent is durable");
        world.pass(&broker, Duration::from_secs(60)).await;
        nothing_is_left(&world).await;
        let events = world.events().await;
        assert!(events.contains(&"lease.doubtful".to_owned()), "{events:?}");
    }
}

/// A caller that is dropped in the middle, without a panic, is the same.
#[tokio::test(start_paused = true)]
async fn an_issue_that_is_cut_off_is_undone_by_the_same_process() {
    let world = World::new().await;
    let broker = world.broker();
    // The commit that makes the lease active never ends.
    world.ledger.plan(Faults::none().at(2, Fault::Stalled));
    let issue = tokio::time::timeout(Duration::from_secs(1), world.issue(&broker));
    assert!(issue.await.is_err(), "it was to be cut off");
    assert_eq!(world.backend.accounts().len(), 1, "the account was made");
    world.mend();
    world.pass(&broker, Duration::from_secs(60)).await;
    nothing_is_left(&world).await;
}

/// Undoing an issue panics as well: the lease is closed nevertheless, and its removal is tried again.
#[tokio::test(start_paused = true)]
async fn an_undoing_that_panics_goes_on() {
    for fault in [Fault::Failed, Fault::FailedButPersisted] {
        let world = World::new().await;
        let broker = world.broker();
        // The second commit makes the lease active.
        world.ledger.plan(Faults::none().at(2, fault));
        plan(&world, Verb::Revoke, Answer::PanicUndone, 3);
        assert!(world.issue(&broker).await.is_err(), "{fault:?}");
        world.pass(&broker, Duration::from_secs(60)).await;
        assert_eq!(world.backend.called(Verb::Revoke), 4, "{fault:?}");
        nothing_is_left(&world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_always_panics_backs_off_is_on_record_and_holds_up_no_other() {
    let world = World::new().await;
    let broker = world.broker();
    let broken = world.issue(&broker).await.unwrap().lease;
    plan(&world, Verb::Revoke, Answer::PanicUndone, 1_000);
    world.revoke(&broker, &broken.id).await.unwrap();
    world.pass(&broker, Duration::from_secs(600)).await;
    let called = world.backend.called(Verb::Revoke);
    assert!((20..=30).contains(&called), "in ten minutes it was tried {called} times");
    let lease = world.leases().await.into_iter().find(|lease| lease.id == broken.id).unwrap();
    assert_eq!(lease.state, LeaseState::Revoking);
    let removal = lease.removal.unwrap();
    assert_eq!((removal.attempts as usize, removal.last_error.as_deref()), (called, Some("the code panicked")));
    assert!(world.events().await.contains(&"revoke.failed".to_owned()));
    world.mend();
    let other = world.issue(&broker).await.unwrap().lease;
    world.revoke(&broker, &other.id).await.unwrap();
    world.pass(&broker, Duration::from_secs(60)).await;
    nothing_is_left(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_panics_backs_off_and_callers_get_the_last_good_password() {
    for answer in [Answer::PanicUndone, Answer::PanicDone] {
        let world = World::rotating().await;
        let broker = world.broker();
        world.pass(&broker, Duration::from_secs(30)).await;
        world.pass(&broker, OVERLAP + Duration::from_secs(60)).await;
        let first = world.issue_standing(&broker).await.unwrap();
        let before = world.backend.called(Verb::Rotate);
        plan(&world, Verb::Rotate, answer, 1_000);
        // It is due in between.
        world.pass(&broker, PERIOD).await;
        let called = world.backend.called(Verb::Rotate) - before;
        assert!((2..=60).contains(&called), "{answer:?}: it was tried {called} times");
        assert!(
            world.backend.standing().lets_in(first.handover.secret.as_ref().unwrap()),
            "{answer:?}: a holder lost the password"
        );
        assert!(world.events().await.contains(&"rotation.failed".to_owned()), "{answer:?}");
        world.mend();
        world.pass(&broker, Duration::from_secs(60)).await;
        let next = world.issue_standing(&broker).await.unwrap();
        assert!(next.lease.rotating > first.lease.rotating, "{answer:?}: it did not go on");
        assert!(world.backend.standing().lets_in(next.handover.secret.as_ref().unwrap()), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upkeep_that_panics_backs_off_is_shown_and_goes_on() {
    let world = World::new().await;
    let broker = world.broker();
    plan(&world, Verb::Maintain, Answer::PanicUndone, 1_000);
    let upkeep = Upkeep::new(broker.upkeep());
    let task = driver::run(upkeep, Arc::clone(&broker.board), broker.work.stopping.clone());
    let task = tokio::spawn(task);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let called = world.backend.called(Verb::Maintain);
    assert!((5..=12).contains(&called), "in ten minutes it was called {called} times");
    let rows = broker.board.rows();
    let row = rows.iter().find(|row| row.name == "upkeep").unwrap();
    assert_eq!(row.error.as_deref(), Some("the driver's upkeep failed for shop"));
    assert_eq!(row.beside_panicked, ["target shop, driver driver"]);
    assert!(broker.board.down("upkeep").is_none(), "the task itself is well");
    world.mend();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let row = broker.board.rows().into_iter().find(|row| row.name == "upkeep").unwrap();
    assert_eq!((row.error, row.beside_panicked.len()), (None, 0));
    assert!(world.backend.called(Verb::Maintain) > called + 3, "it goes on at the driver's own pace");
    task.abort();
}
