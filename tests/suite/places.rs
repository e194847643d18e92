//! Whose an account is, and where (RIGHT-PLACE, ONE-OWNER).

use jit_tests::world::eventually;
use jit_tests::{Client, Database, Reply, Settings, World};
use serde_json::{Value, json};

use crate::outage::own_server;

async fn issue(client: &Client) -> (String, Reply) {
    let token = client.token("payment-service").await.unwrap();
    let issued = client.issue(&token, &json!({"target": "inventory_db", "ttl": "1h"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    (token, issued)
}

fn lease(world: &World, id: &str) -> Value {
    world.leases().into_iter().find(|lease| lease["lease_id"] == id).unwrap()
}

/// The connection's URL is changed over a restart, as by a new ConfigMap: another server answers that it knows no such
/// account, which is true and no removal.
#[tokio::test]
async fn an_account_is_removed_in_the_server_that_has_it_and_nowhere_else() {
    let server = own_server(&[]);
    let mut world = World::new().await;
    let (_, gone) = issue(&world.client()).await;
    let (_, kept) = issue(&world.client()).await;
    let suffix = world.database.name.trim_start_matches("inventory_").to_owned();
    let other = Database::create_named(&server.url("postgres"), &suffix).await.unwrap();
    let at = |database: &Database| format!("@{}:{}/", database.host, database.port);
    let (here, there) = (at(&world.database), at(&other));

    world.process().stop().unwrap();
    world.rewrite(&here, &there);
    world.write_secret("inventory.password", &other.password).unwrap();
    world.start(&[]).await;
    eventually("the start names the accounts", async || {
        let log = std::fs::read_to_string(world.log_path()).unwrap();
        log.contains("this configuration cannot remove accounts that are still there")
            && log.contains("the account is at server")
    })
    .await;

    // A comparison does not take them for lost.
    let reconciled = world.cli(&["reconcile", "--format", "json"]);
    let report: Value = serde_json::from_slice(&reconciled.stdout).unwrap();
    assert_eq!(
        (&report["targets"][0]["missing"], &report["targets"][0]["error"]),
        (&json!([]), &Value::Null),
        "{report}"
    );
    let client = world.client();
    // The embedded issuer has new keys.
    let token = client.token("payment-service").await.unwrap();
    let renewed = client.post(&format!("/v1/leases/{}/renew", kept.lease()), &token, &json!({})).await.unwrap();
    assert_eq!((renewed.status, renewed.code()), (503, "wrong-place"), "{}", renewed.text);
    let revoked = world.cli(&["lease", "revoke", gone.lease()]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    let owed = lease(&world, gone.lease());
    assert_eq!(owed["state"], "revoking");
    assert!(owed["last_error"].as_str().unwrap().contains("what answers now is server"), "{owed}");
    assert_eq!(world.events("removal.wrong_place")[0]["lease_id"], gone.lease());
    assert!(world.events("lease.revoked").is_empty() && world.events("reconcile.drift").is_empty());
    let counted = client.metric("jit_removals_wrong_place_total", &["target=\"inventory_db\""]).await.unwrap();
    assert!(counted >= 1.0, "{counted}");
    assert_eq!(lease(&world, kept.lease())["state"], "active");
    assert_eq!(world.accounts().await.len(), 2);

    // Back again, what is owed is done.
    world.rewrite(&there, &here);
    world.write_secret("inventory.password", &world.database.password).unwrap();
    let reloaded = world.cli(&["config", "reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    eventually("the account is gone", async || world.accounts().await == [kept.username()]).await;
    eventually("it is on record", async || world.events("lease.revoked").len() == 1).await;
    world.assert_log_is_intact();
}

/// The prefix of one broker is the beginning of the other's, and they share a server.
#[tokio::test]
async fn no_prefix_makes_one_brokers_account_anothers_ghost() {
    let ours = World::new().await;
    let nested = format!("account_prefix = \"{}b-\"", ours.prefix);
    let theirs = World::with(Settings { target: nested, ..Settings::default() }).await;
    let (_, account) = issue(&theirs.client()).await;
    assert!(account.username().starts_with(&ours.prefix), "{}", account.username());
    let reconciled = ours.cli(&["reconcile", "--format", "json"]);
    let report: Value = serde_json::from_slice(&reconciled.stdout).unwrap();
    let target = &report["targets"][0];
    assert_eq!((&target["ghosts"], &target["accounts"]), (&json!([]), &json!(0)), "{report}");
    assert_eq!(target["strangers"], json!([account.username()]), "{report}");
    theirs.database.login(account.username(), account.password()).await.unwrap();
    assert_eq!(lease(&theirs, account.lease())["state"], "active");
}

/// Each is told what became of the lease, never that the backend refused: its reason was another request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_beside_revocations_are_told_that_the_lease_has_ended() {
    let world = World::new().await;
    let client = world.client();
    for _ in 0..5 {
        let (token, lease) = issue(&client).await;
        let mut calls = tokio::task::JoinSet::new();
        for verb in ["renew", "renew", "renew", "revoke", "renew", "renew", "renew", "revoke"] {
            let (client, token) = (client.clone(), token.clone());
            let path = format!("/v1/leases/{}/{verb}", lease.lease());
            calls.spawn(async move { (verb, client.post(&path, &token, &json!({})).await.unwrap()) });
        }
        while let Some(called) = calls.join_next().await {
            let (verb, reply) = called.unwrap();
            match (verb, reply.status) {
                ("renew", 200) | ("revoke", 200 | 202) => {}
                ("renew", 409) => assert_eq!(reply.code(), "lease-not-active", "{}", reply.text),
                _ => panic!("{verb}: {} {}", reply.status, reply.text),
            }
        }
        eventually("the lease is over", async || self::lease(&world, lease.lease())["state"] == "revoked").await;
    }
    assert!(world.events("reconcile.drift").is_empty());
}

#[tokio::test]
async fn a_renewal_finds_that_the_account_has_vanished() {
    let world = World::new().await;
    let client = world.client();
    let (token, issued) = issue(&client).await;
    world.database.execute(&format!("DROP ROLE \"{}\"", issued.username())).await.unwrap();
    let renewed = client.post(&format!("/v1/leases/{}/renew", issued.lease()), &token, &json!({})).await.unwrap();
    assert_eq!((renewed.status, renewed.code()), (409, "lease-not-active"), "{}", renewed.text);
    assert!(renewed.text_at("/detail").contains("ask for a new one"), "{}", renewed.text);
    eventually("the lease is closed", async || lease(&world, issued.lease())["state"] == "revoked").await;
    assert_eq!(world.events("reconcile.drift")[0]["lease_id"], issued.lease());
}

/// A retry after a restart that also changed the URL: the account of that name in the other server is somebody
/// else's, and keeps its password.
#[tokio::test]
async fn a_retry_resets_no_password_in_another_server() {
    let server = own_server(&[]);
    let mut world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "1h"});
    let first = client.issue_with_key(&token, "moved", &body).await.unwrap();
    assert_eq!(first.status, 201, "{}", first.text);
    let suffix = world.database.name.trim_start_matches("inventory_").to_owned();
    let other = Database::create_named(&server.url("postgres"), &suffix).await.unwrap();
    let namesake = format!("CREATE ROLE \"{}\" LOGIN PASSWORD 'theirs'", first.username());
    other.execute(&namesake).await.unwrap();
    let at = |database: &Database| format!("@{}:{}/", database.host, database.port);

    world.process().stop().unwrap();
    world.rewrite(&at(&world.database), &at(&other));
    world.write_secret("inventory.password", &other.password).unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let again = client.issue_with_key(&token, "moved", &body).await.unwrap();
    assert_eq!((again.status, again.code()), (503, "wrong-place"), "{}", again.text);
    other.login(first.username(), "theirs").await.unwrap();
    world.database.login(first.username(), first.password()).await.unwrap();
    let denied = world.events("issue.denied");
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!(denied[0]["lease_id"], first.lease());
    assert!(denied[0]["error"].as_str().unwrap().contains("what answers now is server"), "{denied:?}");
    assert!(world.events("issue.replayed").is_empty());
}
