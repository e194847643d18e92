//! Reconciling what the store says with what the target has.

use std::sync::Arc;
use std::time::Duration;

use jit_api::admin::ReconcileReport;
use jit_core::lease::LeaseState;
use jit_pipeline::broker::Broker;
use jit_pipeline::tasks::reconcile::{Pass, reconcile};

use crate::cell::{Cell, LONG, every_cell, go_on, lose};
use crate::world::{Answer, Verb, World};

async fn mend(broker: &Broker) -> ReconcileReport {
    reconcile(&broker.reconcile, Pass::Mend, None).await
}

async fn count(world: &World, event: &str) -> usize {
    world.events().await.iter().filter(|found| *found == event).count()
}

/// A lease that is rightly there, with its account.
async fn a_lease(world: &World, broker: &Arc<Broker>) -> String {
    world.issue(broker).await.unwrap().lease.account.to_string()
}

/// A broker with [`a_lease`], and an account that no lease has: the broker, the lease's account and the ghost.
async fn with_a_ghost(world: &World) -> (Arc<Broker>, String, String) {
    let broker = world.broker();
    let account = a_lease(world, &broker).await;
    let ghost = world.ghost();
    (broker, account, ghost)
}

/// The cell's faults, from now on: its commit, and the driver's answer.
fn go_wrong(world: &World, cell: Cell, verb: Verb) {
    lose(world, cell);
    world.backend.plan(verb, cell.answer);
}

/// Compares, and lets the removals that follow from it go on for a while.
async fn mend_for_a_while(world: &World, broker: &Arc<Broker>) {
    mend(broker).await;
    world.pass(broker, Duration::from_secs(20)).await;
}

/// Compares, and lets the removals that follow from it come to their end.
async fn mend_to_the_end(world: &World, broker: &Arc<Broker>) {
    mend(broker).await;
    world.pass(broker, LONG).await;
}

/// That lease and its account are untouched.
async fn is_untouched(world: &World, cell: Cell, account: &str) {
    assert!(world.backend.accounts().contains_key(account), "{cell:?}: a lease lost its account");
    let leases = world.leases().await;
    let lease = leases.iter().find(|lease| lease.account.as_str() == account).unwrap();
    assert_eq!(lease.state, LeaseState::Active, "{cell:?}");
}

#[test]
fn whatever_is_lost_as_a_ghost_is_removed_it_ends_and_is_on_record_once() {
    every_cell(async |cell| {
        let world = World::new().await;
        let (broker, account, ghost) = with_a_ghost(&world).await;
        go_wrong(&world, cell, Verb::Revoke);
        mend_for_a_while(&world, &broker).await;
        is_untouched(&world, cell, &account).await;
        let broker = go_on(&world, broker, cell, Duration::from_secs(60)).await;
        mend_to_the_end(&world, &broker).await;
        assert!(!world.backend.accounts().contains_key(&ghost), "{cell:?}: {:?}", world.events().await);
        is_untouched(&world, cell, &account).await;
        assert_eq!(count(&world, "reconcile.ghost_removed").await, 1, "{cell:?}: {:?}", world.events().await);
    });
}

#[test]
fn whatever_is_lost_as_ghosts_are_held_they_stay_and_are_on_record_until_an_operator_decides() {
    every_cell(async |cell| {
        let world = World::of_a_new_store().await;
        let (broker, account, ghost) = with_a_ghost(&world).await;
        go_wrong(&world, cell, Verb::Revoke);
        mend_for_a_while(&world, &broker).await;
        let broker = go_on(&world, broker, cell, Duration::from_secs(60)).await;
        let report = mend(&broker).await;
        assert_eq!(report.targets[0].held[0].account, ghost, "{cell:?}");
        assert!(world.backend.accounts().contains_key(&ghost), "{cell:?}: a new store removed what it does not know");
        assert!(count(&world, "removal.braked").await >= 1, "{cell:?}: held without a record");
        assert_eq!(count(&world, "removal.confirmed").await, 0, "{cell:?}");
        is_untouched(&world, cell, &account).await;
    });
}

#[test]
fn whatever_is_lost_as_an_operator_releases_held_ghosts_they_end_and_that_is_on_record() {
    every_cell(async |cell| {
        let world = World::of_a_new_store().await;
        let (broker, account, ghost) = with_a_ghost(&world).await;
        mend(&broker).await;
        go_wrong(&world, cell, Verb::Revoke);
        let report = reconcile(&broker.reconcile, Pass::Confirmed, None).await;
        let failed = report.targets[0].error.is_some();
        world.pass(&broker, Duration::from_secs(20)).await;
        let mut broker = go_on(&world, broker, cell, Duration::from_secs(120)).await;
        if failed {
            // The operator sees the error, and asks again.
            broker = world.restart().await;
            reconcile(&broker.reconcile, Pass::Confirmed, None).await;
        }
        world.pass(&broker, LONG).await;
        assert!(!world.backend.accounts().contains_key(&ghost), "{cell:?}: {:?}", world.events().await);
        assert!(count(&world, "removal.confirmed").await >= 1, "{cell:?}: {:?}", world.events().await);
        assert_eq!(count(&world, "reconcile.ghost_removed").await, 1, "{cell:?}: {:?}", world.events().await);
        is_untouched(&world, cell, &account).await;
    });
}

#[test]
fn whatever_is_lost_as_a_lease_without_an_account_is_closed_it_ends_and_is_on_record() {
    every_cell(async |cell| {
        let world = World::new().await;
        let broker = world.broker();
        let account = a_lease(&world, &broker).await;
        world.backend.take(&a_lease(&world, &broker).await);
        go_wrong(&world, cell, Verb::Revoke);
        mend_for_a_while(&world, &broker).await;
        let broker = go_on(&world, broker, cell, Duration::from_secs(60)).await;
        mend_to_the_end(&world, &broker).await;
        is_untouched(&world, cell, &account).await;
        let open = world.leases().await.iter().filter(|lease| lease.state != LeaseState::Revoked).count();
        assert_eq!(open, 1, "{cell:?}: {:?}", world.events().await);
        assert!(count(&world, "reconcile.drift").await >= 1, "{cell:?}: {:?}", world.events().await);
    });
}

/// A driver that cannot say what there is takes nothing from anybody: neither a ghost nor a lease is judged by half a
/// list.
#[test]
fn what_a_target_does_not_tell_is_not_judged() {
    for verb in [Verb::List, Verb::Inspect] {
        every_cell(async |cell| {
            let world = World::new().await;
            let (broker, account, ghost) = with_a_ghost(&world).await;
            go_wrong(&world, cell, verb);
            let report = mend(&broker).await;
            if cell.answer != Answer::Done {
                assert!(report.targets[0].error.is_some(), "{cell:?}: {report:?}");
                assert!(report.targets[0].ghosts.is_empty() && report.targets[0].missing.is_empty(), "{cell:?}");
                assert!(world.backend.accounts().contains_key(&ghost), "{cell:?}");
            }
            is_untouched(&world, cell, &account).await;
            let broker = go_on(&world, broker, cell, Duration::from_secs(60)).await;
            mend_to_the_end(&world, &broker).await;
            assert!(!world.backend.accounts().contains_key(&ghost), "{cell:?}: {:?}", world.events().await);
            is_untouched(&world, cell, &account).await;
        });
    }
}
