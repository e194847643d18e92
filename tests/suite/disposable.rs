//! Stores come and go: a backup is made while the broker serves and put back, a lost store is made again from the
//! exported log, and a store moves to PostgreSQL.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jit_tests::world::eventually;
use jit_tests::{Reply, Settings, StoreDatabase, World, surroundings};
use serde_json::{Value, json};

async fn issue(world: &World, key: &str) -> Reply {
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "1h"});
    let issued = client.issue_with_key(&token, key, &body).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    issued
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

fn path(world: &World, name: &str) -> String {
    world.folder.path().join(name).to_str().unwrap().to_owned()
}

/// Takes the store away, as a lost disk does.
fn lose_the_store(world: &World) {
    for name in ["broker.db", "broker.db-wal", "broker.db-shm"] {
        let _not_there = std::fs::remove_file(world.folder.path().join(name));
    }
}

/// Whether the account of the reply gets in.
async fn works(world: &World, reply: &Reply) -> bool {
    world.database.login(reply.username(), reply.password()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_made_while_the_broker_issues_and_is_served_from() {
    let mut world = World::new().await;
    let first = issue(&world, "first").await;
    let (ended, issued) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking = {
        let (client, ended, issued) = (world.client(), Arc::clone(&ended), Arc::clone(&issued));
        tokio::spawn(async move {
            let token = client.token("payment-service").await.unwrap();
            while !ended.load(Ordering::Relaxed) {
                let reply = client.issue(&token, &json!({"target": "inventory_db", "ttl": "1h"})).await.unwrap();
                assert_eq!(reply.status, 201, "{}", reply.text);
                issued.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let serves_on = async || {
        let before = issued.load(Ordering::Relaxed);
        eventually("more is issued", async || issued.load(Ordering::Relaxed) > before + 5).await;
    };
    serves_on().await;
    let copy = path(&world, "copy.db");
    let backup = |more: &[&str]| world.cli(&[&["store", "backup", "--to", copy.as_str()], more].concat());
    let text = done(&backup(&[]));
    assert!(text.contains("copy.db: ") && text.contains(" audit records, "), "{text}");
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = backup(&[]);
    assert!(!refused.status.success() && said(&refused).contains("add --replace"), "{}", said(&refused));
    done(&backup(&["--replace"]));
    serves_on().await;
    ended.store(true, Ordering::Relaxed);
    asking.await.unwrap();
    done(&world.cli(&["audit", "verify", "--store", copy.as_str()]));

    // What was issued after it is not in it: such accounts are held, and end by themselves.
    assert!(world.process().stop().unwrap().success());
    lose_the_store(&world);
    std::fs::rename(&copy, world.folder.path().join("broker.db")).unwrap();
    std::fs::remove_file(world.folder.path().join("audit.jsonl")).unwrap();
    world.start(&[]).await;
    let again = issue(&world, "first").await;
    assert_eq!((again.lease(), again.username()), (first.lease(), first.username()));
    assert!(works(&world, &again).await);
    world.assert_log_is_intact();
}

#[tokio::test]
async fn a_database_is_backed_up_by_its_own_means() {
    let store = StoreDatabase::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let world = World::prepared(Settings { store: store.section(), ..Settings::default() }).await;
    world.write_secret("store.password", &store.password).unwrap();
    let config = world.config_with_issuer();
    let refused =
        world.cli(&["store", "backup", "--config", config.to_str().unwrap(), "--to", path(&world, "x").as_str()]);
    let text = said(&refused);
    assert!(!refused.status.success() && text.contains("pg_dump --format=custom --schema=jit_broker"), "{text}");
    assert!(text.contains(&format!("'postgres://{}@{}/{}'", store.name, store.address, store.name)), "{text}");
}

async fn post(world: &World, path: &str, body: &Value) -> Reply {
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    client.post(path, &token, body).await.unwrap()
}

/// Leases as the operator sees them, without the moment of their end: the log has that of the record.
fn leases(world: &World) -> Vec<Value> {
    let mut leases = world.leases();
    leases.iter_mut().for_each(|lease| drop(lease.as_object_mut().unwrap().remove("ended_at")));
    leases
}

/// The accounts that a comparison holds.
fn held(world: &World) -> Vec<String> {
    let output = world.cli(&["reconcile", "--dry-run", "--format", "json"]);
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let held = report["targets"][0]["held"].as_array();
    held.into_iter().flatten().map(|account| account["account"].as_str().unwrap().to_owned()).collect()
}

/// The store is deleted while leases live. One more account was made after the last exported record.
#[tokio::test]
async fn a_lost_store_is_made_again_from_the_log() {
    let mut world = World::new().await;
    let (kept, renewed, given_back) =
        (issue(&world, "kept").await, issue(&world, "renewed").await, issue(&world, "given-back").await);
    let later = post(&world, &format!("/v1/leases/{}/renew", renewed.lease()), &json!({"ttl": "2h"})).await;
    assert_eq!(later.status, 200, "{}", later.text);
    let revoked = post(&world, &format!("/v1/leases/{}/revoke", given_back.lease()), &json!({})).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    let before = leases(&world);
    assert!(world.process().stop().unwrap().success());
    let shipped = ["audit.jsonl", "audit.jsonl.checkpoint"]
        .map(|name| (world.folder.path().join(name), std::fs::read(world.folder.path().join(name)).unwrap()));
    world.start(&[]).await;
    let forgotten = issue(&world, "forgotten").await;
    assert!(world.process().stop().unwrap().success());

    let export = path(&world, "audit.jsonl");
    let rebuild = |more: &[&str]| world.cli(&[&["store", "rebuild", "--from", export.as_str()], more].concat());
    let refused = rebuild(&[]);
    assert!(!refused.status.success() && said(&refused).contains("is not empty"), "{}", said(&refused));
    lose_the_store(&world);
    // A line that nobody signed, and one that was not written to its end.
    shipped.iter().for_each(|(path, content)| std::fs::write(path, content).unwrap());
    let records = shipped[0].1.iter().filter(|byte| **byte == b'\n').count();
    let mut lines = std::fs::OpenOptions::new().append(true).open(&export).unwrap();
    writeln!(lines, "{{\"seq\":{records},\"timestamp\":\"2026-01-01T00:00:00Z\",\"event\":\"x\"}}").unwrap();
    let refused = rebuild(&[]);
    assert!(!refused.status.success() && said(&refused).contains("--unsigned"), "{}", said(&refused));
    lines.set_len(shipped[0].1.len() as u64).unwrap();
    lines.write_all(b"{\"seq\":1").unwrap();
    let text = done(&rebuild(&[]));
    assert!(text.contains(&format!("{records} audit records, 2 active leases, 0 to be removed, 1 that")), "{text}");
    assert!(text.contains("8 bytes were cut off"), "{text}");
    done(&world.cli(&["audit", "verify"]));

    world.start(&[]).await;
    assert_eq!(leases(&world), before, "each lease is as it was");
    let again = issue(&world, "kept").await;
    assert_eq!((again.lease(), again.username()), (kept.lease(), kept.username()));
    assert!(works(&world, &again).await);
    assert_eq!(held(&world), [forgotten.username()], "it has no lease, and is held");
    let path = |lease: &Reply, what| format!("/v1/leases/{}/{what}", lease.lease());
    let later = post(&world, &path(&renewed, "renew"), &json!({"ttl": "3h"})).await;
    assert_eq!(later.status, 200, "{}", later.text);
    let revoked = post(&world, "/v1/leases/revoke", &json!({"all": true})).await;
    assert!(matches!(revoked.status, 200 | 202), "{}", revoked.text);
    eventually("the accounts are gone", async || world.accounts().await == [forgotten.username()]).await;
    done(&world.cli(&["reconcile", "--confirm", "--target", "inventory_db"]));
    eventually("nothing is left", async || world.accounts().await.is_empty()).await;
    world.assert_log_is_intact();
    assert!(world.process().stop().unwrap().success());
    done(&world.cli(&["audit", "verify", "--jsonl", export.as_str()]));
}

/// The store moves to PostgreSQL: most of it while the broker serves, the rest when it has stopped.
#[tokio::test]
async fn a_store_moves_to_postgres() {
    let store = StoreDatabase::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let mut world = World::new().await;
    world.write_secret("store.password", &store.password).unwrap();
    let (to, other) = (path(&world, "broker-pg.toml"), path(&world, "other.toml"));
    let text = jit_tests::world::read(&world.config()).unwrap();
    let text = text.replace("url = \"sqlite:broker.db\"", &store.section());
    std::fs::write(&to, &text).unwrap();
    std::fs::write(&other, text.replace("[audit]\n", "[audit]\norigin = \"another\"\n")).unwrap();
    let copy = |to: &str| world.cli(&["store", "copy", "--to-config", to]);
    let kept = issue(&world, "kept").await;
    let given_back = issue(&world, "given-back").await;
    let refused = copy(&other);
    assert!(!refused.status.success() && said(&refused).contains("origin"), "{}", said(&refused));
    let first = done(&copy(&to));
    assert!(first.contains("2 leases (2 new or changed)") && first.contains("A broker serves from"), "{first}");

    let revoked = post(&world, &format!("/v1/leases/{}/revoke", given_back.lease()), &json!({})).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    let late = issue(&world, "late").await;
    let before = leases(&world);
    assert!(world.process().stop().unwrap().success());
    let copy = |to: &str| world.cli(&["store", "copy", "--to-config", to]);
    let last = done(&copy(&to));
    assert!(last.contains("3 leases (2 new or changed)") && last.contains("No broker served from"), "{last}");
    assert!(done(&copy(&to)).contains("(0 new), 3 leases (0 new or changed)"), "there is nothing more");

    let records = world.audit();
    std::fs::rename(world.config(), world.folder.path().join("broker-sqlite.toml")).unwrap();
    std::fs::rename(&to, world.config()).unwrap();
    assert_eq!(world.audit(), records, "each record is there");
    world.start(&[]).await;
    assert_eq!(leases(&world), before, "each lease is as it was");
    for (key, lease) in [("kept", &kept), ("late", &late)] {
        let again = issue(&world, key).await;
        assert_eq!((again.lease(), again.username()), (lease.lease(), lease.username()));
        assert!(works(&world, &again).await);
    }
    assert!(held(&world).is_empty(), "it knows all of its accounts");

    // A database that a broker serves from, and one that it has served from.
    let again = |world: &World| {
        let (from, to) = (path(world, "broker-sqlite.toml"), path(world, "broker.toml"));
        said(&world.cli(&["store", "copy", "--config", from.as_str(), "--to-config", to.as_str()]))
    };
    let refused = again(&world);
    assert!(refused.contains("the database is in use by "), "{refused}");
    let revoked = post(&world, "/v1/leases/revoke", &json!({"all": true})).await;
    assert!(matches!(revoked.status, 200 | 202), "{}", revoked.text);
    eventually("the accounts are gone", async || world.accounts().await.is_empty()).await;
    world.assert_log_is_intact();
    assert!(world.process().stop().unwrap().success());
    let refused = again(&world);
    assert!(refused.contains("a broker has served from since"), "{refused}");
}
