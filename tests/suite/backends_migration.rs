//! A target moves from one vendor to another while applications use it: from OpenBao, which makes the
//! accounts of a database, to the broker's own driver for the same database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jit_tests::kit::vault::Engine;
use jit_tests::world::eventually;
use jit_tests::{Client, Database, Reply, Settings, World, surroundings};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// How often an application comes by.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(150);

/// The target on OpenBao, in the place of the one on PostgreSQL; the rest is the same.
fn on_openbao(world: &World, mount: &str) -> String {
    let text = std::fs::read_to_string(world.config()).unwrap();
    let (start, end) = (text.find("[targets.inventory_db]").unwrap(), text.find("[plugins.vault]").unwrap());
    let Database { host, port, name, .. } = &world.database;
    let target = format!(
        r#"[targets.inventory_db]
driver = "vault"
connection = "openbao"
policies = ["allow"]
default_ttl = "1h"
max_ttl = "8h"
default_role = "app_read_only"
endpoint = {{ scheme = "postgres", host = "{host}", port = {port}, database = "{name}" }}
[targets.inventory_db.config]
auth = {{ method = "token", secret = "token" }}
mount = "{mount}"
exclusive = true
roles = ["app_read_only"]
[targets.inventory_db.roles.app_read_only]
role = "app_read_only"
"#
    );
    format!("{}{target}{}", &text[..start], &text[end..])
}

fn more() -> String {
    format!(
        r#"[plugins.vault]
path = "{}/driver-vault.wasm"
[connections.openbao]
kind = "http"
url = "{}"
ca = "{}"
secrets = {{ token = {{ file = "openbao.token" }} }}
"#,
        surroundings("JIT_TEST_PLUGINS"),
        surroundings("JIT_TEST_OPENBAO"),
        surroundings("JIT_TEST_OPENBAO_CA")
    )
}

async fn issue(client: &Client, token: &str, ttl: &str) -> Reply {
    let issued = client.issue(token, &json!({"target": "inventory_db", "ttl": ttl})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    issued
}

async fn call(client: &Client, token: &str, lease: &str, what: &str) -> Reply {
    let body = if what == "renew" { json!({"ttl": "20s"}) } else { json!({}) };
    client.post(&format!("/v1/leases/{lease}/{what}"), token, &body).await.unwrap()
}

/// What applications met, together.
#[derive(Default)]
struct Met {
    rounds: AtomicUsize,
    renewed: AtomicUsize,
    asked_anew: AtomicUsize,
    done: AtomicBool,
}

/// An application: it holds a credential, uses it, prolongs it, and asks anew when that is the answer.
/// It knows nothing of a migration, and panics at whatever the API does not promise.
async fn application(client: Client, database: Database, token: String, met: Arc<Met>) {
    while !met.done.load(Ordering::SeqCst) {
        let held = issue(&client, &token, "20s").await;
        for _ in 0..3 {
            let session = database.login(held.username(), held.password()).await.unwrap();
            drop(session);
            tokio::time::sleep(PAUSE).await;
            let renewed = call(&client, &token, held.lease(), "renew").await;
            match (renewed.status, renewed.code()) {
                (200, _) => met.renewed.fetch_add(1, Ordering::SeqCst),
                (409, "lease-not-active") => {
                    assert!(renewed.text_at("/detail").contains("ask for a new lease"), "{}", renewed.text);
                    met.asked_anew.fetch_add(1, Ordering::SeqCst);
                    // What it holds works to its end all the same.
                    drop(database.login(held.username(), held.password()).await.unwrap());
                    break;
                }
                _ => panic!("{}: {}", renewed.status, renewed.text),
            };
        }
        met.rounds.fetch_add(1, Ordering::SeqCst);
    }
}

async fn rounds_go_on(met: &Met, applications: &mut JoinSet<()>) {
    let before = met.rounds.load(Ordering::SeqCst);
    let wanted = before + 2 * applications.len();
    let met = &met;
    eventually("applications go on", async || met.rounds.load(Ordering::SeqCst) >= wanted).await;
    if let Some(ended) = applications.try_join_next() {
        ended.unwrap();
        panic!("an application ended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_do_not_notice_that_the_vendor_changes() {
    let mut world = World::prepared(Settings { more: more(), ..Settings::default() }).await;
    let engine = Engine::mount(world.database.clone()).await.unwrap();
    world.write_secret("openbao.token", &engine.token(&[&engine.mount]).await.unwrap()).unwrap();
    let on_postgres = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), on_openbao(&world, &engine.mount)).unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();

    let met = Arc::<Met>::default();
    let mut applications = JoinSet::new();
    for name in ["payment-a", "payment-b", "payment-c"] {
        let token = client.token(name).await.unwrap();
        applications.spawn(application(client.clone(), world.database.clone(), token, Arc::clone(&met)));
    }
    let (old, other) = (issue(&client, &token, "1h").await, issue(&client, &token, "1h").await);
    rounds_go_on(&met, &mut applications).await;
    assert!(old.username().starts_with("v-token-"), "the name is OpenBao's: {}", old.username());
    assert!(met.renewed.load(Ordering::SeqCst) > 0);
    assert!(engine.leases().await.unwrap().len() >= 2);

    std::fs::write(world.config(), on_postgres).unwrap();
    let reloaded = world.cli(&["config", "reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    let new = issue(&client, &token, "1h").await;
    assert!(new.username().starts_with(&world.prefix), "the name is the broker's: {}", new.username());
    let keys = |reply: &Reply| reply.json.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&new), keys(&old));
    let place = |reply: &Reply| ["host", "port", "database"].map(|part| reply.json["connection"][part].clone());
    assert_eq!(place(&new), place(&old));
    rounds_go_on(&met, &mut applications).await;
    eventually("somebody was told to ask anew", async || met.asked_anew.load(Ordering::SeqCst) > 0).await;

    // What OpenBao made works on, is not prolonged, and is taken away by the driver that made it.
    world.database.login(old.username(), old.password()).await.unwrap();
    let renewed = call(&client, &token, old.lease(), "renew").await;
    assert_eq!((renewed.status, renewed.code()), (409, "lease-not-active"), "{}", renewed.text);
    assert_eq!(
        (&world.lease(old.lease())["driver"], &world.lease(new.lease())["driver"]),
        (&json!("vault"), &json!("postgres"))
    );
    let revoked = call(&client, &token, old.lease(), "revoke").await;
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (200, Some("revoked")), "{}", revoked.text);
    assert!(world.database.login(old.username(), old.password()).await.is_err());
    assert!(!engine.accounts().await.unwrap().iter().any(|name| name == old.username()));
    world.database.login(other.username(), other.password()).await.unwrap();

    rounds_go_on(&met, &mut applications).await;
    met.done.store(true, Ordering::SeqCst);
    while let Some(ended) = applications.join_next().await {
        ended.unwrap();
    }
    // The rest of the old ones: one is ended by hand, the others by their time.
    let ended = world.cli(&["lease", "revoke", other.lease()]);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let of_openbao =
        |leases: &[Value]| leases.iter().filter(|lease| lease["driver"] == "vault").cloned().collect::<Vec<_>>();
    eventually("all old leases are over", async || {
        of_openbao(&world.leases()).iter().all(|lease| lease["state"] == "revoked")
    })
    .await;
    assert!(of_openbao(&world.leases()).len() > 2);
    assert_eq!(engine.leases().await.unwrap(), Vec::<String>::new(), "OpenBao has a lease left");
    eventually("all others are over", async || engine.accounts().await.unwrap() == [new.username()]).await;
    let issued = world.events("issue.granted").len();
    assert_eq!(issued, world.leases().len());
    for event in ["issue.failed", "issue.denied", "revoke.failed", "reconcile.drift", "reconcile.ghost_removed"] {
        assert_eq!(world.events(event), Vec::<Value>::new());
    }
    let revoked = call(&client, &token, new.lease(), "revoke").await;
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert_eq!(engine.accounts().await.unwrap(), Vec::<String>::new());
    world.assert_log_is_intact();
}
