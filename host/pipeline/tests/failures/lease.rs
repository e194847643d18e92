//! Issue, renewal, revocation and expiry of one lease.

use std::time::Duration;

use jit_core::lease::LeaseState;
use jit_ledger_memory::Fault;
use secrecy::ExposeSecret as _;

use crate::cell::{LONG, every_cell, go_on, lose, nothing_is_left};
use crate::world::{Answer, Verb, World};

#[test]
fn whatever_is_lost_in_an_issue_no_account_is_left_that_nobody_may_use() {
    every_cell(async |cell| {
        let world = World::new().await;
        let broker = world.broker();
        lose(&world, cell);
        world.backend.plan(Verb::Create, cell.answer);
        let issued = world.issue(&broker).await;
        match issued {
            Ok(disclosure) => {
                assert_eq!(cell.answer, Answer::Done, "{cell:?}: a secret left that the backend did not confirm");
                let events = world.events().await;
                assert!(events.contains(&"issue.granted".to_owned()), "{cell:?}: a secret without its record");
                go_on(&world, broker, cell, Duration::from_secs(60)).await;
                let accounts = world.backend.accounts();
                let account = &accounts[disclosure.lease.account.as_str()];
                assert_eq!(account.password, disclosure.handover.secret.as_ref().unwrap().expose_secret(), "{cell:?}");
                let lease = &world.leases().await[0];
                assert_eq!((lease.state, accounts.len()), (LeaseState::Active, 1), "{cell:?}");
                // It ends at its time.
                let broker = world.restart().await;
                world.pass(&broker, Duration::from_secs(900)).await;
            }
            Err(refused) => {
                let all_well = cell.lost.is_none() && cell.answer == Answer::Done;
                assert!(!all_well, "{cell:?}: {refused}");
                go_on(&world, broker, cell, LONG).await;
            }
        }
        nothing_is_left(&world, cell).await;
    });
}

#[test]
fn whatever_is_lost_in_a_renewal_the_account_ends_with_its_lease() {
    every_cell(async |cell| {
        let world = World::new().await;
        let broker = world.broker();
        let issued = world.issue(&broker).await.unwrap();
        tokio::time::sleep(Duration::from_secs(300)).await;
        lose(&world, cell);
        world.backend.plan(Verb::Renew, cell.answer);
        let before = world.leases().await[0].expires_at;
        let renewed = world.renew(&broker, &issued.lease.id).await;
        let stored = world.leases().await.remove(0);
        if let Ok(lease) = &renewed {
            assert_eq!(cell.answer, Answer::Done, "{cell:?}: a renewal that the backend did not confirm");
            assert_eq!(stored.expires_at, lease.expires_at, "{cell:?}: told what is not recorded");
            assert!(lease.expires_at > before, "{cell:?}");
            assert!(world.events().await.contains(&"lease.renewed".to_owned()), "{cell:?}");
        }
        // The backend never ends an account before its lease ends.
        let account = &world.backend.accounts()[issued.lease.account.as_str()];
        assert!(account.expires_at >= u64::try_from(stored.expires_at.as_second()).unwrap(), "{cell:?}");
        let broker = go_on(&world, broker, cell, Duration::from_secs(60)).await;
        assert_eq!(world.backend.accounts().len(), 1, "{cell:?}: it ended before its time");
        world.pass(&broker, Duration::from_secs(1_800)).await;
        nothing_is_left(&world, cell).await;
    });
}

#[test]
fn whatever_is_lost_in_a_revocation_the_account_ends_and_is_on_record_once() {
    every_cell(async |cell| {
        let world = World::new().await;
        let broker = world.broker();
        let issued = world.issue(&broker).await.unwrap();
        lose(&world, cell);
        world.backend.plan(Verb::Revoke, cell.answer);
        let revoked = world.revoke(&broker, &issued.lease.id).await;
        if revoked.is_ok_and(|lease| lease.state == LeaseState::Revoked) {
            assert_eq!(world.backend.accounts().len(), 0, "{cell:?}: told removed, and it is there");
        }
        let asked_in_vain = cell.lost.is_some_and(|lost| lost != Fault::FailedButPersisted) && cell.commit == 1;
        let broker = go_on(&world, broker, cell, LONG).await;
        if asked_in_vain {
            // Nothing durable says that it must end: its own expiry does.
            world.pass(&broker, Duration::from_secs(900)).await;
        }
        nothing_is_left(&world, cell).await;
        let ends = |event: &&String| ["lease.revoked", "lease.expired"].contains(&event.as_str());
        assert_eq!(world.events().await.iter().filter(ends).count(), 1, "{cell:?}: {:?}", world.events().await);
    });
}

#[test]
fn whatever_is_lost_at_an_expiry_the_account_ends_and_is_on_record_once() {
    every_cell(async |cell| {
        let world = World::new().await;
        let broker = world.broker();
        world.issue(&broker).await.unwrap();
        lose(&world, cell);
        world.backend.plan(Verb::Revoke, cell.answer);
        world.pass(&broker, Duration::from_secs(605)).await;
        go_on(&world, broker, cell, LONG).await;
        nothing_is_left(&world, cell).await;
        let events = world.events().await;
        assert_eq!(events.iter().filter(|event| *event == "lease.expired").count(), 1, "{cell:?}: {events:?}");
    });
}
