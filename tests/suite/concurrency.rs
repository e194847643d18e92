//! Many at once: nobody gets another's account, and what is slow or too much for one workload,
//! role or target is no matter for the others.

use std::collections::HashSet;

use jit_tests::{Client, Gate, Reply, Settings, World};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Starts a request; it is on its way when this returns or soon after.
fn start(client: &Client, token: &str, body: &Value) -> JoinHandle<Reply> {
    let (client, token, body) = (client.clone(), token.to_owned(), body.clone());
    tokio::spawn(async move { client.issue(&token, &body).await.unwrap() })
}

async fn all(requests: Vec<JoinHandle<Reply>>) -> Vec<Reply> {
    let mut replies = Vec::new();
    for request in requests {
        replies.push(request.await.unwrap());
    }
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_at_once_get_sixty_four_accounts_and_all_give_them_back_at_once() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "10m"});
    let replies = all((0..64).map(|_| start(&client, &token, &body)).collect()).await;
    let mut seen: [HashSet<&str>; 3] = Default::default();
    for reply in &replies {
        assert_eq!(reply.status, 201, "{}", reply.text);
        seen[0].insert(reply.lease());
        seen[1].insert(reply.username());
        seen[2].insert(reply.password());
    }
    assert_eq!(seen.map(|set| set.len()), [64, 64, 64], "no lease, account or password is given twice");
    let mut sessions = Vec::new();
    for reply in &replies {
        sessions.push(world.database.login(reply.username(), reply.password()).await.unwrap());
    }
    drop(sessions);

    let revocations: Vec<_> = replies
        .iter()
        .map(|reply| {
            let (client, token, path) = (client.clone(), token.clone(), format!("/v1/leases/{}/revoke", reply.lease()));
            tokio::spawn(async move { client.post(&path, &token, &json!({})).await.unwrap() })
        })
        .collect();
    for revoked in all(revocations).await {
        assert!(matches!(revoked.status, 200 | 202), "{}", revoked.text);
    }
    let disclosed: Vec<String> = replies.iter().map(|reply| reply.lease().to_owned()).collect();
    world.assert_settled(&disclosed).await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
    assert_eq!(world.events("lease.revoked").len(), 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_slow_to_create_does_not_slow_another_of_the_same_target() {
    let world = World::new().await;
    if !Gate::is_of_one_role(&world.database).await.unwrap() {
        eprintln!("NOT run: before PostgreSQL 16 nothing holds up the grants of one role alone");
        return;
    }
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let slow = json!({"target": "inventory_db", "role": "app_read_write", "ttl": "10m"});
    let fast = json!({"target": "inventory_db", "role": "app_read_only", "ttl": "10m"});
    // The server makes no account in that role until the gate opens: as slow as can be.
    let gate = Gate::close(&world.database, &world.database.read_write).await.unwrap();
    let slow: Vec<_> = (0..12).map(|_| start(&client, &token, &slow)).collect();
    // As many of the connection's eight sessions as one role may hold.
    world.database.waiting_become(4).await;

    for reply in all((0..8).map(|_| start(&client, &token, &fast)).collect()).await {
        assert_eq!(reply.status, 201, "{}", reply.text);
    }
    let revoke = world.leases().into_iter().find(|lease| lease["state"] == "active").unwrap();
    let path = format!("/v1/leases/{}/revoke", revoke["lease_id"].as_str().unwrap());
    assert_eq!(client.post(&path, &token, &json!({})).await.unwrap().status, 200, "nor are removals slowed");
    assert!(slow.iter().all(|request| !request.is_finished()), "the slow ones are still where they were");

    gate.open().await.unwrap();
    for reply in all(slow).await {
        assert_eq!(reply.status, 201, "{}", reply.text);
    }
    assert_eq!(world.accounts().await.len(), 12 + 8 - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_asks_too_fast_is_told_to_wait_and_no_other_is() {
    let world = World::with(Settings { requests_per_second: 1, ..Settings::default() }).await;
    let client = world.client();
    let loops = client.token("payment-loop").await.unwrap();
    let calm = client.token("payment-calm").await.unwrap();
    let body = json!({"target": "inventory_db"});
    let mut limited = None;
    // One a second with a burst of two: long before the thirtieth.
    for _ in 0..30 {
        let reply = client.post("/v1/simulate", &loops, &body).await.unwrap();
        if reply.status != 200 {
            limited = Some(reply);
            break;
        }
    }
    let limited = limited.unwrap();
    limited.assert_problem(429, "rate-limited");
    let wait: u64 = limited.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(limited.json["retry_after_seconds"], wait);
    assert!((1..=2).contains(&wait), "{}", limited.text);
    let other = client.issue(&calm, &body).await.unwrap();
    assert_eq!(other.status, 201, "{}", other.text);
    // As told, it may again.
    tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
    assert_eq!(client.issue(&loops, &body).await.unwrap().status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_broker_takes_on_at_once_is_told_to_come_back() {
    let world = World::with(Settings { server: "max_in_flight = 1".into(), ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "10m"});
    let gate = Gate::close(&world.database, &world.database.read_only).await.unwrap();
    let first = start(&client, &token, &body);
    world.database.waiting_become(1).await;

    let second = client.issue(&token, &body).await.unwrap();
    second.assert_problem(503, "overloaded");
    assert!(second.headers["retry-after"].to_str().unwrap().parse::<u64>().is_ok());
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(client.get(path, &token).await.unwrap().status, 200, "{path} answers all the same");
    }
    assert!(client.metric("jit_overloaded_total", &[]).await.unwrap() >= 1.0);

    gate.open().await.unwrap();
    assert_eq!(first.await.unwrap().status, 201);
    assert_eq!(client.issue(&token, &body).await.unwrap().status, 201, "and now there is room");
    assert_eq!(world.accounts().await.len(), 2);
}
