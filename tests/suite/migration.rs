//! A target is moved to another driver or connection while leases that the old one made live on.

use std::path::Path;
use std::process::Output;

use jit_tests::world::eventually;
use jit_tests::{Client, Settings, World, surroundings};
use serde_json::{Value, json};

/// Changes the configuration file.
fn rewrite(world: &World, from: &str, to: &str) {
    let text = std::fs::read_to_string(world.config()).unwrap();
    assert!(text.contains(from), "{from:?} is not in the configuration");
    std::fs::write(world.config(), text.replace(from, to)).unwrap();
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A world whose target can be moved: to a second plugin with a second connection, of the same
/// server here.
async fn world() -> World {
    let mut world = World::prepared(Settings::default()).await;
    let plugins = surroundings("JIT_TEST_PLUGINS");
    let text = std::fs::read_to_string(world.config()).unwrap();
    let start = text.find("[connections.inventory]").unwrap();
    let end = text.find("[policies.allow]").unwrap();
    let connection = text[start..end].replace("[connections.inventory]", "[connections.moved]");
    let more = format!("\n[plugins.pg_new]\npath = \"{plugins}/driver-postgres.wasm\"\n{connection}");
    std::fs::write(world.config(), text + &more).unwrap();
    world.start(&[]).await;
    world
}

const OLD: &str = "driver = \"postgres\"\nconnection = \"inventory\"";
const NEW: &str = "driver = \"pg_new\"\nconnection = \"moved\"";

async fn issue(client: &Client, token: &str) -> jit_tests::Reply {
    let issued = client.issue(token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    issued
}

fn lease(world: &World, id: &str) -> Value {
    world.leases().into_iter().find(|lease| lease["lease_id"] == id).unwrap()
}

#[tokio::test]
async fn the_old_driver_ends_what_it_made_and_the_new_one_is_not_asked_for_it() {
    let world = world().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let (old, other) = (issue(&client, &token).await, issue(&client, &token).await);

    rewrite(&world, OLD, NEW);
    let reloaded = world.cli(&["config", "reload"]);
    assert!(reloaded.status.success(), "{}", text(&reloaded));
    let new = issue(&client, &token).await;
    assert_eq!(lease(&world, new.lease())["driver"], "pg_new");

    // Old credentials work until their time is over; they are not prolonged, and the code says to
    // ask anew.
    world.database.login(old.username(), old.password()).await.unwrap();
    let renewed = client.post(&format!("/v1/leases/{}/renew", old.lease()), &token, &json!({})).await.unwrap();
    assert_eq!((renewed.status, renewed.json["code"].as_str()), (409, Some("lease-not-active")), "{}", renewed.text);
    assert!(renewed.json["detail"].as_str().unwrap().contains("ask for a new lease"), "{}", renewed.text);
    assert_eq!(lease(&world, old.lease())["state"], "active");
    assert_eq!(world.events("renew.denied").len(), 1);
    let renewed = client.post(&format!("/v1/leases/{}/renew", new.lease()), &token, &json!({})).await.unwrap();
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    // The new driver does not take them for lost or for ghosts.
    let reconciled = world.cli(&["reconcile"]);
    assert!(reconciled.status.success(), "{}", text(&reconciled));
    assert_eq!(world.accounts().await.len(), 3);

    for issued in [&old, &new] {
        let path = format!("/v1/leases/{}/revoke", issued.lease());
        let revoked = client.post(&path, &token, &json!({})).await.unwrap();
        assert_eq!(revoked.status, 200, "{}", revoked.text);
    }
    assert_eq!(world.accounts().await, [other.username()]);
    assert!(world.events("reconcile.drift").is_empty());

    // Its target gone altogether, the last one still goes the way it came.
    let text_now = std::fs::read_to_string(world.config()).unwrap();
    let start = text_now.find("[targets.inventory_db]").unwrap();
    let end = text_now.find("[plugins.pg_new]").unwrap();
    std::fs::write(world.config(), format!("{}{}", &text_now[..start], &text_now[end..])).unwrap();
    let reloaded = world.cli(&["config", "reload"]);
    assert!(reloaded.status.success(), "{}", text(&reloaded));
    let revoked = world.cli(&["lease", "revoke", other.lease()]);
    assert!(revoked.status.success(), "{}", text(&revoked));
    eventually("the account is gone", async || world.accounts().await.is_empty()).await;
    world.assert_log_is_intact();
}

/// Leaves out of the file what begins with `header`, up to the next section.
fn without(path: &Path, header: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    let start = text.find(header).unwrap();
    let end = text[start + 1..].find("\n[").map_or(text.len(), |end| start + 1 + end + 1);
    std::fs::write(path, format!("{}{}", &text[..start], &text[end..])).unwrap();
}

#[tokio::test]
async fn what_live_leases_need_is_not_dropped_unless_it_is_forced() {
    let mut world = world().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let old = issue(&client, &token).await;
    let before = std::fs::read_to_string(world.config()).unwrap();

    rewrite(&world, OLD, NEW);
    without(&world.config(), "[plugins.postgres]");
    without(&world.config(), "[connections.inventory]");
    let refused = world.cli(&["config", "reload"]);
    let told = text(&refused);
    assert!(!refused.status.success());
    assert!(
        told.contains("1 leases of target inventory_db")
            && told.contains("keep [plugins.postgres] and [connections.inventory]"),
        "{told}"
    );
    assert_eq!(world.events("config.reloaded").len(), 0);
    assert_eq!(lease(&world, issue(&client, &token).await.lease())["driver"], "postgres", "the old serves on");

    // Another server under the old connection's name would answer that nothing is there.
    std::fs::write(world.config(), before.replace(&format!("@{}:", world.database.host), "@127.9.9.9:")).unwrap();
    let refused = world.cli(&["config", "reload"]);
    assert!(!refused.status.success() && text(&refused).contains("leads to another server"), "{}", text(&refused));

    rewrite(&world, "@127.9.9.9:", &format!("@{}:", world.database.host));
    rewrite(&world, OLD, NEW);
    without(&world.config(), "[plugins.postgres]");
    let forced = world.cli(&["config", "reload", "--force"]);
    assert!(
        forced.status.success() && text(&forced).contains("accounts that cannot be removed now"),
        "{}",
        text(&forced)
    );
    let failing = world.cli(&["lease", "revoke", old.lease()]);
    assert!(failing.status.success(), "{}", text(&failing));
    eventually("it is tried and kept", async || {
        let lease = lease(&world, old.lease());
        lease["state"] == "revoking"
            && lease["last_error"].as_str().is_some_and(|error| error.contains("no longer has the driver"))
    })
    .await;

    // A start says it too, and what is there again is used.
    drop(world.broker.take());
    world.start(&[]).await;
    eventually("the start names the account", async || {
        let log = std::fs::read_to_string(world.log_path()).unwrap();
        log.contains("this configuration cannot remove accounts that are still there")
    })
    .await;
    std::fs::write(world.config(), before).unwrap();
    let mended = world.cli(&["config", "reload"]);
    assert!(mended.status.success(), "{}", text(&mended));
    eventually("the account is gone", async || !world.accounts().await.contains(&old.username().to_owned())).await;
    world.assert_log_is_intact();
}

#[tokio::test]
async fn another_driver_under_the_old_ones_name_is_not_believed() {
    let mut world = world().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let old = issue(&client, &token).await;
    // In place, over a stop: this driver would say yes to everything.
    rewrite(&world, "driver-postgres.wasm\"\n[plugins.allow-list]", "driver-noop.wasm\"\n[plugins.allow-list]");
    let refused = world.cli(&["config", "reload"]);
    assert!(
        !refused.status.success() && text(&refused).contains("which did not make the account"),
        "{}",
        text(&refused)
    );
    drop(world.broker.take());
    world.start(&[]).await;
    let revoked = world.cli(&["lease", "revoke", old.lease()]);
    assert!(revoked.status.success(), "{}", text(&revoked));
    assert_eq!(lease(&world, old.lease())["state"], "revoking");
    assert!(world.accounts().await.contains(&old.username().to_owned()));
    rewrite(&world, "driver-noop.wasm\"\n[plugins.allow-list]", "driver-postgres.wasm\"\n[plugins.allow-list]");
    let mended = world.cli(&["config", "reload"]);
    assert!(mended.status.success(), "{}", text(&mended));
    eventually("the account is gone", async || world.accounts().await.is_empty()).await;
}
