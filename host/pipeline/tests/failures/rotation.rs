//! The rotation of a standing account.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jit_core::operator::Operator;
use jit_ledger_memory::{Fault, Faults};
use jit_pipeline::broker::Broker;
use jit_pipeline::issue::Disclosure;
use jit_pipeline::rotation::operate;
use secrecy::SecretString;

use crate::cell::{After, Cell, LONG, every_cell, go_on, lose};
use crate::world::{Answer, OVERLAP, PERIOD, SHOP, STANDING, Verb, World};

/// How long before the next rotation is due a test begins.
const BEFORE: Duration = Duration::from_secs(10);
/// From there on until the rotation is over or has failed, a commit that stalls included.
const DUE: Duration = Duration::from_secs(45);

/// Somebody who was given the password.
struct Holder {
    password: SecretString,
    until: Timestamp,
}

impl Holder {
    fn of(disclosure: &Disclosure) -> Self {
        Self { password: disclosure.handover.secret.clone().unwrap(), until: disclosure.lease.expires_at }
    }

    /// Their password works until the time that they were told.
    fn may_go_on(&self, world: &World, cell: Cell) {
        if world.now() < self.until {
            assert!(world.backend.standing().lets_in(&self.password), "{cell:?}: a password ended before its time");
        }
    }
}

/// Somebody asks for the password now. What they get, if they get it, works and is on record with the rotation that
/// made it.
async fn ask(world: &World, broker: &Arc<Broker>, cell: Cell) -> Option<Holder> {
    let disclosure = world.issue_standing(broker).await.ok()?;
    let holder = Holder::of(&disclosure);
    holder.may_go_on(world, cell);
    let generation = disclosure.lease.rotating.unwrap().number();
    let records = world.records().await;
    let has = |event: &str| {
        records.iter().any(|record| record["event"] == event && record["generation"].as_u64() == Some(generation))
    };
    assert!(has("account.rotated"), "{cell:?}: a password was handed out whose rotation is not on record");
    assert!(has("issue.granted"), "{cell:?}: a password was handed out without its record");
    Some(holder)
}

/// An account whose first rotation is long over, and somebody who has its password.
async fn rotated_once() -> (World, Arc<Broker>, Holder) {
    let world = World::rotating().await;
    let broker = world.broker();
    // The first password, and the end of the overlap with the one that nobody knew. Nothing is due in between.
    world.pass(&broker, BEFORE).await;
    tokio::time::sleep(OVERLAP - BEFORE).await;
    world.pass(&broker, BEFORE).await;
    tokio::time::sleep(PERIOD - OVERLAP - 2 * BEFORE).await;
    let holder = Holder::of(&world.issue_standing(&broker).await.unwrap());
    assert!(world.now() + Duration::from_secs(500) < holder.until, "the password is held over the rotation");
    (world, broker, holder)
}

/// Whatever was lost: in the end there is one password, the broker knows it, and the old one is gone.
async fn one_password_is_left(world: &World, broker: Arc<Broker>, cell: Cell, first: &Holder) {
    world.pass(&broker, OVERLAP + Duration::from_secs(60)).await;
    let events = world.events().await;
    let last = ask(world, &broker, cell).await.unwrap_or_else(|| panic!("{cell:?}: nothing is handed out; {events:?}"));
    let standing = world.backend.standing();
    assert!(!standing.lets_in(&first.password), "{cell:?}: the old password still works; {events:?}");
    assert!(standing.lets_in(&last.password), "{cell:?}");
    assert_eq!(standing.passwords().len(), 1, "{cell:?}: a password works that nobody ends; {events:?}");
    let rows = operate::list(&broker.operate).await.unwrap();
    assert_eq!(rows[0].phase, "stable", "{cell:?}");
    let tampered = events.iter().filter(|event| *event == "account.tampered").count();
    assert_eq!(tampered, 0, "{cell:?}: nobody else changed it; {events:?}");
}

/// That, and the end of the overlap is on record.
async fn ends_well(world: &World, broker: Arc<Broker>, cell: Cell, first: &Holder) {
    one_password_is_left(world, broker, cell, first).await;
    let events = world.events().await;
    // The first is that of the account's first rotation.
    let ended = events.iter().filter(|event| *event == "rotation.overlap_ended").count();
    assert!(ended >= 2, "{cell:?}: {events:?}");
}

/// A rotation is due, and the calls of its driver end as said: the first ones are done, the next one as the cell says.
fn a_due_rotation(calls_before: usize) {
    every_cell(async |cell| {
        let (world, broker, first) = rotated_once().await;
        lose(&world, cell);
        for _ in 0..calls_before {
            world.backend.plan(Verb::Rotate, Answer::Done);
        }
        world.backend.plan(Verb::Rotate, cell.answer);
        world.pass(&broker, DUE).await;
        first.may_go_on(&world, cell);
        let second = ask(&world, &broker, cell).await;
        let broker = go_on(&world, broker, cell, Duration::from_secs(60)).await;
        first.may_go_on(&world, cell);
        let third = ask(&world, &broker, cell).await;
        assert!(third.is_some(), "{cell:?}: nothing is handed out though nothing fails; {:?}", world.events().await);
        for holder in second.iter().chain(&third) {
            holder.may_go_on(&world, cell);
        }
        world.pass(&broker, OVERLAP - Duration::from_secs(120)).await;
        for holder in [&first].into_iter().chain(&second).chain(&third) {
            holder.may_go_on(&world, cell);
        }
        ends_well(&world, broker, cell, &first).await;
    });
}

#[test]
fn whatever_is_lost_as_the_next_password_is_staged_the_one_that_is_handed_out_works() {
    a_due_rotation(0);
}

#[test]
fn whatever_is_lost_as_the_next_password_is_committed_the_one_that_is_handed_out_works() {
    a_due_rotation(1);
}

#[test]
fn whatever_is_lost_at_the_end_of_an_overlap_the_old_password_ends_and_the_new_one_works() {
    every_cell(async |cell| {
        let (world, broker, first) = rotated_once().await;
        world.pass(&broker, DUE).await;
        world.pass(&broker, OVERLAP - DUE - Duration::from_secs(10)).await;
        let second = ask(&world, &broker, cell).await.unwrap();
        first.may_go_on(&world, cell);
        lose(&world, cell);
        world.backend.plan(Verb::Rotate, cell.answer);
        world.pass(&broker, DUE).await;
        second.may_go_on(&world, cell);
        let broker = go_on(&world, broker, cell, Duration::from_secs(60)).await;
        second.may_go_on(&world, cell);
        ends_well(&world, broker, cell, &first).await;
        second.may_go_on(&world, cell);
    });
}

#[test]
fn whatever_is_lost_as_an_operator_replaces_a_password_the_old_one_ends_and_the_new_one_works() {
    every_cell(async |cell| {
        let (world, broker, first) = rotated_once().await;
        lose(&world, cell);
        world.backend.plan(Verb::Rotate, cell.answer);
        let operator = Operator { uid: 0, pid: None };
        let asked = {
            let asked = operate::rotate_now(&broker.operate, SHOP, STANDING, true, operator);
            let (asked, ()) = tokio::join!(asked, world.pass(&broker, DUE));
            asked
        };
        if asked.is_ok() {
            assert!(world.events().await.contains(&"admin.rotate".to_owned()), "{cell:?}: done without its record");
        }
        let second = ask(&world, &broker, cell).await;
        let broker = go_on(&world, broker, cell, Duration::from_secs(60)).await;
        if asked.is_ok() {
            assert!(!world.backend.standing().lets_in(&first.password), "{cell:?}: the replaced password still works");
        }
        // A process that dies in the middle has another one made: a decision that it finds in the store may be an old
        // one that was put back.
        if let (Some(second), After::Lives) = (&second, cell.after) {
            second.may_go_on(&world, cell);
        }
        if asked.is_err() {
            // Nothing says that it must be replaced: it is rotated at its time.
            world.pass(&broker, Duration::from_secs(60)).await;
        }
        one_password_is_left(&world, broker, cell, &first).await;
    });
}

#[test]
fn a_store_that_cannot_be_written_hands_out_nothing() {
    for fault in [Fault::Failed, Fault::FailedButPersisted, Fault::Stalled] {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (world, broker, _) = rotated_once().await;
            world.ledger.plan(Faults::none().every(|_| true, fault));
            assert!(world.issue(&broker).await.is_err(), "{fault:?}: an account's own password");
            assert!(world.issue_standing(&broker).await.is_err(), "{fault:?}: a rotating account's");
            world.mend();
            world.pass(&broker, LONG).await;
            assert_eq!(world.backend.accounts().len(), 0, "{fault:?}: an account is left that nobody may use");
            assert!(world.issue_standing(&broker).await.is_ok(), "{fault:?}");
        });
    }
}
