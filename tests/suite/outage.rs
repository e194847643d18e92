//! The target is away, refuses, or has no room: the broker says so, keeps what it owes, and does
//! it once it can.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use jit_tests::world::eventually;
use jit_tests::{Client, Database, Settings, World, surroundings};
use serde_json::json;
use xtask::servers::postgres::{PostgresServer, PostgresSettings, binaries};
use xtask::steps::Steps;

/// A server of one's own, that a test can stop.
pub(crate) fn own_server(parameters: &[(&str, &str)]) -> PostgresServer {
    let binaries = binaries(17, &Steps::new()).unwrap();
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    PostgresServer::start(binaries.bin(), &PostgresSettings { parameters, ..PostgresSettings::default() }).unwrap()
}

pub(crate) fn on(server: &PostgresServer) -> Settings {
    Settings { superuser: Some(server.url("postgres")), ..Settings::default() }
}

async fn overdue(client: &Client, target: &str) -> f64 {
    client.metric("jit_revocations_overdue", &[&format!("target=\"{target}\"")]).await.unwrap()
}

/// 503, once no connection is left that was good a moment ago: what was sent on such a one may have
/// arrived, so that is 504 and a doubtful lease.
async fn unavailable(client: &Client, token: &str) {
    for _ in 0..100 {
        let refused = client.issue(token, &json!({"target": "inventory_db"})).await.unwrap();
        if refused.status == 503 {
            assert_eq!(refused.code(), "target-unavailable", "{}", refused.text);
            assert!(refused.headers.contains_key("retry-after"));
            let detail = refused.text_at("/detail");
            assert!(detail.contains("cannot be reached") && !detail.contains("127.0.0.1"), "{}", refused.text);
            return;
        }
        assert_eq!((refused.status, refused.code()), (504, "target-timeout"), "{}", refused.text);
    }
    panic!("the target is away, and issues go on timing out");
}

#[tokio::test]
async fn a_server_that_is_stopped_across_an_expiry() {
    let mut server = own_server(&[]);
    let other = Database::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let mut world = World::prepared(Settings { more: other.sections("other", ""), ..on(&server) }).await;
    world.write_secret("other.password", &other.password).unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let here = json!({"target": "inventory_db", "ttl": "8s"});
    let mut disclosed = Vec::new();
    let mut doomed = Vec::new();
    for _ in 0..3 {
        let issued = client.issue(&token, &here).await.unwrap();
        assert_eq!(issued.status, 201, "{}", issued.text);
        disclosed.push(issued.lease().to_owned());
        doomed.push(issued);
    }
    let stays = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    disclosed.push(stays.lease().to_owned());
    server.stop().unwrap();

    // Everything else goes on.
    let elsewhere = client.issue(&token, &json!({"target": "other", "ttl": "6s"})).await.unwrap();
    assert_eq!(elsewhere.status, 201, "{}", elsewhere.text);
    disclosed.push(elsewhere.lease().to_owned());
    other.login(elsewhere.username(), elsewhere.password()).await.unwrap();
    unavailable(&client, &token).await;
    eventually("the other target's lease is over", async || other.roles(&world.prefix).await.unwrap().is_empty()).await;
    eventually("the overdue removals show", async || overdue(&client, "inventory_db").await >= 3.0).await;
    assert_eq!(overdue(&client, "other").await, 0.0);
    let ready = client.raw().get(format!("{}/readyz", client.broker)).send().await.unwrap();
    assert_eq!(ready.status(), 200, "a target that is away takes nobody out of service");

    // One line for one request that failed, and it has the reason.
    let log = world.process().log();
    let failed: Vec<&str> = log.lines().filter(|line| line.contains("code=\"target-unavailable\"")).collect();
    let request = failed.first().and_then(|line| line.split("request_id=").nth(1)?.split(' ').next()).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains(request)).count(), 1, "{log}");
    assert!(failed[0].contains(" WARN ") && failed[0].contains("reason=\"cannot connect to "), "{log}");
    eventually("the status says that it is away", async || {
        let output = world.cli(&["status"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let alarm = said.lines().find(|line| line.starts_with("ALARM  target inventory_db: away since "));
        output.status.code() == Some(1)
            && alarm.is_some_and(|alarm| alarm.contains(" removals wait, the oldest for "))
            && said.contains("inventory_db (away)")
            && !said.contains("ALARM  target other")
    })
    .await;
    let away = async || client.metric("jit_target_away", &["target=\"inventory_db\""]).await.unwrap();
    assert_eq!(away().await, 1.0);

    // Long enough that the next try of one of them is far away.
    let attempts = |world: &World, id: &str| world.lease(id)["attempts"].as_u64().unwrap();
    eventually("it was tried", async || doomed.iter().any(|lease| attempts(&world, lease.lease()) >= 5)).await;
    let tried = doomed.iter().find(|lease| attempts(&world, lease.lease()) >= 5).unwrap().lease().to_owned();
    assert!(world.lease(&tried)["last_error"].as_str().unwrap().contains("connect"), "{}", world.lease(&tried));
    let fourth = world.events("revoke.failed");
    let fourth = fourth.iter().rfind(|record| record["lease_id"] == *tried && record["attempts"] == 4).unwrap();

    server.start_again().unwrap();
    for lease in &doomed {
        let login = world.database.login(lease.username(), lease.password()).await;
        assert!(login.is_err(), "its time was over, whether or not the broker came by");
    }
    eventually("the accounts are gone", async || world.accounts().await == [stays.username()]).await;
    world.assert_settled_in(&[&world.database, &other], &disclosed).await;
    for lease in &doomed {
        assert_eq!(world.records_of(lease.lease(), "lease.expired"), 1);
    }
    // The fifth failure put the next try 16 s off; it came with the server's return.
    let expired = world.events("lease.expired");
    let expired = expired.iter().find(|record| record["lease_id"] == *tried).unwrap();
    let early = format!(
        "'{}'::timestamptz < '{}'::timestamptz + interval '16 s'",
        expired["timestamp"].as_str().unwrap(),
        fourth["timestamp"].as_str().unwrap()
    );
    assert_eq!(world.database.value(&early).await.unwrap(), "true", "{expired} after {fourth}");
    eventually("nothing is overdue", async || overdue(&client, "inventory_db").await == 0.0).await;
    eventually("the status is well again", async || world.cli(&["status"]).status.success()).await;
    assert_eq!(away().await, 0.0);
    let again = client.issue(&token, &here).await.unwrap();
    assert_eq!(again.status, 201, "{}", again.text);
    world.database.login(stays.username(), stays.password()).await.unwrap();
}

#[tokio::test]
async fn the_login_lapses_also_while_the_broker_is_dead() {
    let mut world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let issued = client.issue(&token, &json!({"target": "inventory_db", "ttl": "6s"})).await.unwrap();
    world.database.login(issued.username(), issued.password()).await.unwrap();
    world.process().kill().unwrap();
    eventually("the server refuses", async || {
        world.database.login(issued.username(), issued.password()).await.is_err()
    })
    .await;
    assert_eq!(world.accounts().await, [issued.username()]);
    world.start(&[]).await;
    world.lease_becomes(issued.lease(), "revoked").await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
    assert_eq!(world.records_of(issued.lease(), "lease.expired"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_under_load() {
    let mut server = own_server(&[]);
    let world = World::with(on(&server)).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let disclosed: Arc<Mutex<Vec<String>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (client, token, disclosed, done) =
            (client.clone(), token.clone(), Arc::clone(&disclosed), Arc::clone(&done));
        callers.spawn(async move {
            while !done.load(Ordering::SeqCst) {
                let reply = client.issue(&token, &json!({"target": "inventory_db", "ttl": "1h"})).await.unwrap();
                match reply.status {
                    201 => disclosed.lock().unwrap().push(reply.lease().to_owned()),
                    503 | 504 => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                    _ => panic!("{}: {}", reply.status, reply.text),
                }
            }
        });
    }
    let count = || disclosed.lock().unwrap().len();
    for _ in 0..2 {
        let before = count();
        eventually("it issues", async || count() >= before + 20).await;
        server.kill();
        server.start_again().unwrap();
    }
    let before = count();
    eventually("it issues again", async || count() > before).await;
    done.store(true, Ordering::SeqCst);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let disclosed = disclosed.lock().unwrap().clone();
    world.assert_settled(&disclosed).await;
    assert_eq!(world.accounts().await.len(), disclosed.len());
}

#[tokio::test]
async fn a_target_that_refuses_says_what_is_wrong_and_recovers() {
    let mut world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let read_only = json!({"target": "inventory_db", "role": "app_read_only", "ttl": "1h"});
    let read_write = json!({"target": "inventory_db", "role": "app_read_write", "ttl": "3s"});
    let granted = client.issue(&token, &read_write).await.unwrap();
    assert_eq!(granted.status, 201, "{}", granted.text);
    let disclosed = vec![granted.lease().to_owned()];

    // Not allowed to grant.
    let (broker, role) = (world.database.broker.clone(), world.database.read_only.clone());
    world.database.execute(&format!("REVOKE {role} FROM {broker}")).await.unwrap();
    let refused = client.issue(&token, &read_only).await.unwrap();
    assert_eq!((refused.status, refused.code()), (502, "target-refused"), "{}", refused.text);
    assert!(refused.text_at("/detail").contains("lacks a privilege"), "{}", refused.text);
    let check = world.cli(&["config", "check", "--config", &world.config_with_issuer().display().to_string()]);
    let said = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(3), "{said}");
    assert!(said.contains("WITH ADMIN OPTION"), "it says how to mend it: {said}");
    world.database.execute(&format!("GRANT {role} TO {broker} WITH ADMIN OPTION")).await.unwrap();
    assert_eq!(client.issue(&token, &read_only).await.unwrap().status, 201);

    // A role that is dropped after the start; the account that had it goes all the same.
    let role = world.database.read_write.clone();
    world.database.execute(&format!("DROP OWNED BY {role}")).await.unwrap();
    world.database.execute(&format!("REVOKE CONNECT ON DATABASE {} FROM {role}", world.database.name)).await.unwrap();
    world.database.execute(&format!("DROP ROLE {role}")).await.unwrap();
    let refused = client.issue(&token, &read_write).await.unwrap();
    assert_eq!((refused.status, refused.code()), (502, "target-refused"), "{}", refused.text);
    assert!(refused.text_at("/detail").contains(&role), "it names the role: {}", refused.text);
    world.lease_becomes(granted.lease(), "revoked").await;
    world.assert_settled(&disclosed).await;

    // The broker's own password is wrong.
    let password = world.database.password.clone();
    world.write_secret("inventory.password", "quite-another-secret").unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let refused = client.issue(&token, &read_only).await.unwrap();
    assert_eq!((refused.status, refused.code()), (503, "target-unavailable"), "{}", refused.text);
    // What the server said is for the operators, under the request's id.
    assert!(!refused.text.contains("authentication"), "{}", refused.text);
    let log = world.process().log();
    let line = log.lines().find(|line| line.contains(refused.text_at("/request_id"))).unwrap();
    assert!(line.contains("password authentication failed"), "{line}");
    assert!(!refused.text.contains("quite-another-secret") && !log.contains("quite-another-secret"));
    world.write_secret("inventory.password", &password).unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    assert_eq!(client.issue(&token, &read_only).await.unwrap().status, 201);
    assert_eq!(world.events("issue.failed").len(), 3);
    world.assert_settled(&disclosed).await;
}

#[tokio::test]
async fn a_server_without_a_free_connection() {
    let server = own_server(&[("max_connections", "12"), ("superuser_reserved_connections", "6")]);
    let mut world = World::prepared(on(&server)).await;
    world.database.execute("CREATE ROLE hog LOGIN PASSWORD 'hog'").await.unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    // Longer than it takes to fill the server, on a busy machine too.
    let body = json!({"target": "inventory_db", "ttl": "20s"});
    let issued = client.issue(&token, &body).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    let name = world.database.name.clone();
    let broker = world.database.broker.clone();
    // The broker's own sessions are ended, and others take their places.
    let mut hogs = Vec::new();
    let sessions = format!("FROM pg_stat_activity WHERE usename = '{broker}'");
    for _ in 0..100 {
        world.database.execute(&format!("SELECT pg_terminate_backend(pid) {sessions}")).await.unwrap();
        while let Ok(hog) = world.database.login_to(&name, "hog", "hog").await {
            hogs.push(hog);
        }
        if world.database.value(&format!("SELECT count(*) {sessions}")).await.unwrap() == "0" {
            break;
        }
    }
    unavailable(&client, &token).await;
    eventually("the removal fails and is kept", async || world.lease(issued.lease())["attempts"].as_u64() >= Some(1))
        .await;
    drop(hogs);
    world.lease_becomes(issued.lease(), "revoked").await;
    world.assert_settled(&[issued.lease().to_owned()]).await;
    assert_eq!(client.issue(&token, &body).await.unwrap().status, 201);
}
