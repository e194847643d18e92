//! The one action of an incident: which leases it ends, that each request is bounded, and that a request which fails in
//! the middle is continued by the next.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test file uses a part of the world")]

mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jit_api::admin::{RevokeMany, RevokedIn, RevokedMany};
use jit_core::id::LeaseId;
use jit_core::lease::{Lease, LeaseState};
use jit_core::name::TargetName;
use jit_core::operator::Operator;
use jit_ledger::{Change, Store as _};
use jit_ledger_memory::{Fault, Faults};
use jit_pipeline::broker::Broker;
use jit_pipeline::refusal::Refused;
use jit_pipeline::revoke_many::revoke_many;
use world::World;

const OPERATOR: Operator = Operator { uid: 1_000, pid: Some(7) };

/// Active leases like one that was issued, each changed by `change`.
async fn stored(world: &World, like: &Lease, count: usize, change: impl Fn(&mut Lease)) -> BTreeSet<LeaseId> {
    let mut ids = BTreeSet::new();
    for _ in 0..count {
        let mut lease = Lease { id: LeaseId::generate(world.now()), ..like.clone() };
        change(&mut lease);
        ids.insert(lease.id.clone());
        world.ledger.commit(Change::insert(lease)).await.unwrap();
    }
    ids
}

async fn ask(broker: &Arc<Broker>, asked: RevokeMany) -> Result<RevokedMany, Refused> {
    revoke_many(&broker.revoke, asked, OPERATOR).await
}

fn of_workload(name: &str, limit: usize) -> RevokeMany {
    RevokeMany { workload: Some(name.to_owned()), limit, ..RevokeMany::default() }
}

/// The leases whose end is on record.
async fn ended(world: &World) -> BTreeSet<LeaseId> {
    let leases = world.leases().await.into_iter();
    leases.filter(|lease| lease.state != LeaseState::Active).map(|lease| lease.id).collect()
}

#[tokio::test(start_paused = true)]
async fn filters_narrow_each_other_and_a_name_is_compared_to_the_letter() {
    let world = World::new().await;
    let broker = world.broker();
    world.issue(&broker).await.unwrap();
    let like = world.leases().await.remove(0);
    let evil = "pay'; DROP TABLE leases; --%_\0";
    let wanted = stored(&world, &like, 3, |lease| lease.principal.workload = evil.to_owned()).await;
    // Each is another's by one field, and the last by a character that a column may keep as the same.
    stored(&world, &like, 1, |lease| lease.principal.workload = evil.replace('\0', "\u{fffd}")).await;
    stored(&world, &like, 1, |lease| lease.principal.workload = evil.to_uppercase()).await;
    stored(&world, &like, 1, |lease| {
        lease.principal.workload = evil.to_owned();
        lease.principal.issuer = "another".to_owned();
    })
    .await;
    stored(&world, &like, 1, |lease| {
        lease.principal.workload = evil.to_owned();
        lease.driver.plugin = "another".to_owned();
    })
    .await;
    stored(&world, &like, 1, |lease| {
        lease.principal.workload = evil.to_owned();
        lease.target = TargetName::new("another").unwrap();
    })
    .await;

    let asked = RevokeMany {
        issuer: Some(like.principal.issuer.clone()),
        target: Some(like.target.to_string()),
        plugin: Some(like.driver.plugin.clone()),
        ..of_workload(evil, 1_000)
    };
    let counted = ask(&broker, RevokeMany { dry_run: true, ..asked.clone() }).await.unwrap();
    let three = RevokedIn { ended: 3, ..RevokedIn::default() };
    assert_eq!(counted.targets.iter().collect::<Vec<_>>(), [(&like.target.to_string(), &three)]);
    assert!(ended(&world).await.is_empty(), "counting ends nothing");
    assert_eq!(ask(&broker, asked.clone()).await.unwrap().targets, counted.targets);
    assert_eq!(ended(&world).await, wanted);
    // Again: they are being removed, and nothing else is touched.
    let again = ask(&broker, asked).await.unwrap();
    assert_eq!(again.targets[like.target.as_str()], RevokedIn { ending: 3, ..RevokedIn::default() });
    let named = |field: fn(&mut RevokeMany)| {
        let mut asked = RevokeMany { limit: 1_000, dry_run: true, ..RevokeMany::default() };
        field(&mut asked);
        ask(&broker, asked)
    };
    let active = |done: RevokedMany| done.targets.values().map(|one| one.ended).sum::<u64>();
    assert_eq!(active(named(|asked| asked.issuer = Some("another".to_owned())).await.unwrap()), 1);
    assert_eq!(active(named(|asked| asked.plugin = Some("another".to_owned())).await.unwrap()), 1);
    assert_eq!(active(named(|asked| asked.target = Some("another".to_owned())).await.unwrap()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_narrows_nothing_is_refused() {
    let world = World::new().await;
    let broker = world.broker();
    world.issue(&broker).await.unwrap();
    for asked in [
        RevokeMany { limit: 10, ..RevokeMany::default() },
        of_workload("", 10),
        of_workload(&"x".repeat(5_000), 10),
        of_workload("payment", 0),
        of_workload("payment", 1_001),
        RevokeMany { target: Some("no target's name!".to_owned()), ..of_workload("payment", 10) },
        RevokeMany { cursor: Some("nonsense".to_owned()), ..of_workload("payment", 10) },
    ] {
        let refused = ask(&broker, asked.clone()).await;
        assert!(matches!(refused, Err(Refused::InvalidRequest { .. })), "{asked:?}: {refused:?}");
    }
    assert!(ended(&world).await.is_empty());
}

/// Page by page with a cursor, each lease once, and the accounts go afterwards.
#[tokio::test(start_paused = true)]
async fn many_leases_end_in_bounded_requests_each_on_record_with_the_operator() {
    let world = World::new().await;
    let broker = world.broker();
    let mut leases = BTreeSet::new();
    for _ in 0..25 {
        leases.insert(world.issue(&broker).await.unwrap().lease.id);
    }
    let workload = world.leases().await[0].principal.workload.clone();
    let mut asked = of_workload(&workload, 10);
    let mut counts = Vec::new();
    for _ in 0..10 {
        let done = ask(&broker, asked.clone()).await.unwrap();
        counts.push(done.targets.values().map(|one| one.ended).sum::<u64>());
        asked.cursor = done.next_cursor;
        if asked.cursor.is_none() {
            break;
        }
    }
    assert_eq!(counts, [10, 10, 5]);
    world.pass(&broker, Duration::from_secs(60)).await;
    assert!(world.backend.accounts().is_empty());
    for lease in world.leases().await {
        assert_eq!(lease.state, LeaseState::Revoked);
        assert_eq!(lease.removal.unwrap().operator_uid, Some(OPERATOR.uid));
    }
    let records = world.records().await;
    for event in ["admin.revoke", "lease.revoked"] {
        let of = records.iter().filter(|record| record["event"] == event);
        let named: Vec<LeaseId> = of.map(|record| record["lease_id"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(named.len(), leases.len(), "{event}: one for each lease");
        assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), leases, "{event}");
    }
    let asked = records.iter().find(|record| record["event"] == "admin.revoke").unwrap();
    assert_eq!(asked["operator_uid"], OPERATOR.uid);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_in_the_middle_is_continued_by_the_next() {
    for fault in [Fault::Failed, Fault::FailedButPersisted] {
        let world = World::new().await;
        let broker = world.broker();
        for _ in 0..6 {
            world.issue(&broker).await.unwrap();
        }
        let workload = world.leases().await[0].principal.workload.clone();
        world.ledger.plan(Faults::none().at(3, fault));
        assert!(ask(&broker, of_workload(&workload, 100)).await.is_err(), "{fault:?}");
        world.mend();
        let done = ask(&broker, of_workload(&workload, 100)).await.unwrap();
        let one = done.targets.values().next().unwrap();
        assert_eq!((one.ended + one.ending, one.pending), (6, 0), "{fault:?}");
        world.pass(&broker, Duration::from_secs(60)).await;
        assert!(world.backend.accounts().is_empty(), "{fault:?}");
        let asked = world.events().await.into_iter().filter(|event| event == "admin.revoke").count();
        assert_eq!(asked, 6, "{fault:?}: one for each lease");
    }
}
