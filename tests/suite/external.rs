//! Backends that name their accounts themselves, and accounts that outlive their leases.

use jit_tests::world::eventually;
use jit_tests::{Settings, World, surroundings};
use serde_json::json;

/// Targets whose driver plays such a backend on the world's database. `more` are further keys of
/// the target's own configuration.
fn settings(namespace: &str, more: &str) -> Settings {
    let plugins = surroundings("JIT_TEST_PLUGINS");
    Settings {
        more: format!(
            r#"
[plugins.external]
path = "{plugins}/driver-external.wasm"
[targets.vaulted]
driver = "external"
connection = "inventory"
policies = ["allow"]
default_ttl = "1h"
max_ttl = "8h"
default_role = "plain"
timeout = "6s"
endpoint = {{ host = "db.example.com" }}
config = {{ namespace = "{namespace}"{more} }}
[targets.vaulted.roles.plain]
[targets.vaulted.roles.slow]
answer_ms = 700
[targets.vaulted.roles.lossy]
lose_answer = true
"#
        ),
        ..Settings::default()
    }
}

/// A namespace of the backend's that is this test's alone.
fn namespace() -> String {
    format!("x{}_", jit_tests::random_name())
}

async fn accounts(world: &World, namespace: &str) -> Vec<String> {
    world.database.roles(namespace).await.unwrap()
}

fn reconcile(world: &World) -> String {
    let output = world.cli(&["reconcile", "--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_backends_own_name_is_shown_everywhere_and_its_handle_ends_the_account() {
    let namespace = namespace();
    let mut world = World::with(settings(&namespace, "")).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let issued = client.issue(&token, &json!({"target": "vaulted"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    let name = issued.username().to_owned();
    assert!(name.starts_with(&namespace), "{name}");
    assert_eq!(issued.json["ephemeral_id"], name.as_str());
    assert_eq!(issued.json["properties"], json!({"backend": "external"}));
    assert_eq!(issued.json["connection"]["host"], "db.example.com");
    assert_eq!(issued.json["connection"]["port"], world.database.port);
    assert!(issued.json["connection"]["uri"].as_str().unwrap().starts_with(&format!("postgres://{name}:")));
    assert!(issued.json.get("revocable").is_none());
    world.database.login(&name, issued.password()).await.unwrap();

    let renewed = client.post(&format!("/v1/leases/{}/renew", issued.lease()), &token, &json!({"ttl": "2h"})).await;
    let renewed = renewed.unwrap();
    assert_eq!((renewed.status, renewed.json["ephemeral_id"].as_str()), (200, Some(name.as_str())), "{}", renewed.text);
    assert_eq!(world.leases()[0]["account"], name.as_str());
    assert_eq!(world.events("issue.granted")[0]["ephemeral_id"], name.as_str());

    // The handle is durable: another process ends the account by it.
    drop(world.broker.take());
    world.start(&[]).await;
    let path = format!("/v1/leases/{}/revoke", issued.lease());
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let revoked = client.post(&path, &token, &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (200, Some("revoked")), "{}", revoked.text);
    assert!(accounts(&world, &namespace).await.is_empty());
    let record = &world.events("lease.revoked")[0];
    assert_eq!((record["ephemeral_id"].as_str(), record.get("account_removed")), (Some(name.as_str()), None));
    world.assert_log_is_intact();
}

#[tokio::test]
async fn an_account_whose_answer_was_lost_is_found_by_the_list_and_removed() {
    let namespace = namespace();
    let world = World::with(settings(&namespace, "")).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let lost = client.issue(&token, &json!({"target": "vaulted", "role": "lossy"})).await.unwrap();
    assert_eq!(lost.status, 504, "{}", lost.text);
    assert_eq!(accounts(&world, &namespace).await.len(), 1, "it is there, and nobody knows its name");
    // Revoking without a handle says yes and does nothing: the lease does not believe it.
    let lease = lost.json["lease_id"].as_str().unwrap().to_owned();
    let output = world.cli(&["lease", "revoke", &lease]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(world.leases()[0]["state"], "doubtful");

    eventually("the account is gone", async || accounts(&world, &namespace).await.is_empty()).await;
    eventually("both leases are closed", async || {
        world.leases().iter().all(|lease| lease["state"] == "revoked") && world.leases().len() == 2
    })
    .await;
    let ghost = &world.events("reconcile.ghost_removed")[0];
    assert!(ghost["ephemeral_id"].as_str().unwrap().starts_with(&format!("creds/{namespace}")), "{ghost}");
    let closed = world.events("lease.revoked");
    let closed = closed.iter().find(|record| record["lease_id"] == lease.as_str()).unwrap();
    assert!(closed["closed_because"].as_str().unwrap().starts_with("the backend was listed"), "{closed}");
    world.assert_log_is_intact();
}

#[tokio::test]
async fn where_the_backend_cannot_be_listed_a_doubtful_lease_waits_for_its_expiry() {
    let namespace = namespace();
    let world = World::with(settings(&namespace, ", unlisted = true")).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let lost = client.issue(&token, &json!({"target": "vaulted", "role": "lossy", "ttl": "15s"})).await.unwrap();
    assert_eq!(lost.status, 504, "{}", lost.text);
    assert!(reconcile(&world).contains("permission denied"));
    eventually("it is closed", async || {
        let seen = world.leases().remove(0);
        assert_eq!(seen["attempts"], 0, "waiting is no failure: {seen}");
        seen["state"] == "revoked"
    })
    .await;
    let seen = world.leases().remove(0);
    let closed = &world.events("lease.revoked")[0];
    assert!(closed["closed_because"].as_str().unwrap().contains("has expired there by itself"), "{closed}");
    let moment = |value: &serde_json::Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(moment(&closed["timestamp"]) > moment(&seen["expires_at"]), "not before its expiry: {closed}");
    assert!(world.events("revoke.failed").is_empty());
}

#[tokio::test]
async fn an_account_that_is_being_made_is_never_a_ghost_and_a_foreign_one_is_after_the_grace() {
    let namespace = namespace();
    let mut settings = settings(&namespace, "");
    settings.failpoints = true;
    let mut world = World::prepared(settings).await;
    // The answer takes 0.7 s, and a second more into the store. The grace, twice the timeout, is far longer: on a
    // busy machine each step may take its time.
    world.start(&[("JIT_FAILPOINTS", "issue.settle=stall")]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "vaulted", "role": "slow"});
    let issuing: Vec<_> = (0..4)
        .map(|_| {
            let (client, token, body) = (client.clone(), token.clone(), body.clone());
            tokio::spawn(async move { client.issue(&token, &body).await.unwrap() })
        })
        .collect();
    let mut suspects = 0;
    let begun = std::time::Instant::now();
    while !issuing.iter().all(tokio::task::JoinHandle::is_finished) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "the requests do not end");
        // The command below holds this thread: the requests need it, too.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let report: serde_json::Value = serde_json::from_str(&reconcile(&world)).unwrap();
        let found = report["targets"].as_array().unwrap().iter().find(|target| target["target"] == "vaulted").unwrap();
        assert_eq!(found["ghosts"], json!([]), "{report}");
        suspects += found["suspects"].as_u64().unwrap();
    }
    assert!(suspects > 0, "no pass saw an account before its lease was settled");
    for issued in issuing {
        let issued = issued.await.unwrap();
        assert_eq!(issued.status, 201, "{}", issued.text);
        world.database.login(issued.username(), issued.password()).await.unwrap();
    }
    // Nobody's: made beside the broker, in its name.
    let grant = format!("GRANT {namespace}nobody TO {} WITH ADMIN OPTION", world.database.broker);
    for statement in [format!("CREATE ROLE {namespace}nobody"), grant] {
        world.database.execute(&statement).await.unwrap();
    }
    assert!(reconcile(&world).contains("vaulted"));
    assert_eq!(accounts(&world, &namespace).await.len(), 5, "seen once, it may be anybody's");
    eventually("the ghost is gone", async || accounts(&world, &namespace).await.len() == 4).await;
    assert_eq!(world.events("reconcile.ghost_removed").len(), 1);
    assert!(world.events("reconcile.drift").is_empty());
}

#[tokio::test]
async fn a_standing_account_is_told_from_one_that_goes() {
    let plugins = surroundings("JIT_TEST_PLUGINS");
    let more = format!(
        r#"
[plugins.standing]
path = "{plugins}/driver-standing.wasm"
[targets.shared]
driver = "standing"
policies = ["allow"]
default_ttl = "1h"
default_role = "plain"
roles.plain = {{ username = "reporting" }}
[targets.neglected]
driver = "standing"
policies = ["allow"]
config = {{ broken = true }}
roles.plain = {{ username = "reporting" }}
"#
    );
    let world = World::with(Settings { more, ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let issued = client.issue(&token, &json!({"target": "shared"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    assert_eq!((issued.username(), &issued.json["revocable"]), ("reporting", &json!(false)));
    assert!(issued.json.get("connection").is_none());
    let path = format!("/v1/leases/{}", issued.lease());
    let lease = client.get(&path, &token).await.unwrap();
    assert_eq!((&lease.json["revocable"], lease.json.get("note")), (&json!(false), None), "{}", lease.text);
    let revoked = client.post(&format!("{path}/revoke"), &token, &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (200, Some("revoked")), "{}", revoked.text);
    assert!(revoked.json["note"].as_str().unwrap().contains("its account stands"), "{}", revoked.text);
    assert_eq!(world.events("lease.revoked")[0]["account_removed"], false);

    // What drivers want done between calls is done, and a failure is told without a stop.
    let log = || std::fs::read_to_string(world.log_path()).unwrap();
    assert!(log().contains("target shared hands out standing accounts"));
    eventually("upkeep comes again", async || log().matches("upkeep [target: shared").count() >= 3).await;
    eventually("failed upkeep is counted", async || {
        client.metric("jit_maintain_failures_total", &["target=\"neglected\""]).await.unwrap() >= 1.0
    })
    .await;
    assert!(log().contains("the login is refused"));

    // What a driver has to say of its target reaches whoever checks the configuration.
    let check = world.cli(&["config", "check", "--config", world.config_with_issuer().to_str().unwrap()]);
    let told = String::from_utf8_lossy(&check.stdout).into_owned();
    // Its issuer is nowhere.
    assert_eq!(check.status.code(), Some(3), "{told}{}", String::from_utf8_lossy(&check.stderr));
    assert!(told.contains("target shared: warning: the broker's login may do more than it needs"), "{told}");
    assert!(told.contains("target shared: good"), "{told}");
}
