//! Clients that go away in the middle: what was made for them goes, unless they come back for it.

use jit_tests::wire::request;
use jit_tests::world::eventually;
use jit_tests::{Gate, Settings, Wire, World};
use serde_json::json;

const BODY: &str = r#"{"target": "inventory_db", "ttl": "10m"}"#;

/// The bytes of `POST /issue`.
fn issue(token: &str, more: &[(&str, &[u8])]) -> Vec<u8> {
    let authorization = format!("Bearer {token}");
    let mut headers = vec![("authorization", authorization.as_bytes()), ("content-type", b"application/json")];
    headers.extend_from_slice(more);
    request(b"POST /issue", &headers, BODY.as_bytes())
}

/// Sends a request and closes the connection while the database works at it. What the database
/// does then, it does for nobody.
async fn hang_up_in_the_middle(world: &World, request: &[u8]) {
    let gate = Gate::close(&world.database, &world.database.read_only).await.unwrap();
    let mut wire = Wire::connect(&world.client().broker).await.unwrap();
    wire.send(request).await.unwrap();
    world.database.waiting_become(1).await;
    wire.hang_up().await.unwrap();
    gate.open().await.unwrap();
}

#[tokio::test]
async fn an_account_whose_caller_hung_up_is_removed_at_once() {
    let world = World::new().await;
    let token = world.client().token("payment-service").await.unwrap();
    hang_up_in_the_middle(&world, &issue(&token, &[])).await;
    eventually("its lease is over", async || {
        let leases = world.leases();
        leases.len() == 1 && leases[0]["state"] == "revoked"
    })
    .await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
    // Granted and taken back: both are on record.
    assert_eq!(world.events("issue.granted").len(), 1);
    assert_eq!(world.events("lease.revoked")[0]["cause"], "abandoned");
    world.assert_settled(&[]).await;
}

#[tokio::test]
async fn a_caller_that_hung_up_and_comes_back_with_its_key_gets_the_lease() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    hang_up_in_the_middle(&world, &issue(&token, &[("idempotency-key", b"come-back")])).await;
    eventually("its lease is active", async || {
        let leases = world.leases();
        leases.len() == 1 && leases[0]["state"] == "active"
    })
    .await;
    let retry = client.issue_with_key(&token, "come-back", &serde_json::from_str(BODY).unwrap()).await.unwrap();
    assert_eq!(retry.status, 201, "{}", retry.text);
    assert!(world.database.login(retry.username(), retry.password()).await.is_ok());
    assert_eq!(world.accounts().await, [retry.username()]);
    assert_eq!(world.leases()[0]["lease_id"], retry.lease());
    world.assert_settled(&[retry.lease().to_owned()]).await;
}

#[tokio::test]
async fn what_nobody_came_back_for_is_gone_with_the_broker_at_the_latest() {
    let mut world = World::new().await;
    let token = world.client().token("payment-service").await.unwrap();
    hang_up_in_the_middle(&world, &issue(&token, &[("idempotency-key", b"never-back")])).await;
    eventually("its lease is active", async || world.leases().iter().any(|lease| lease["state"] == "active")).await;
    assert!(world.process().stop().unwrap().success());
    world.start(&[]).await;
    eventually("the account is gone", async || world.accounts().await.is_empty()).await;
    world.assert_settled(&[]).await;
    // The key is free: nobody ever got anything for it.
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let again = client.issue_with_key(&token, "never-back", &serde_json::from_str(BODY).unwrap()).await.unwrap();
    assert_eq!(again.status, 201, "{}", again.text);
}

#[tokio::test]
async fn a_renewal_and_a_revocation_whose_caller_hung_up_are_finished() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let lease = client.issue(&token, &serde_json::from_str(BODY).unwrap()).await.unwrap();
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_bytes()), ("content-type", &b"application/json"[..])];
    // The server changes nothing about the account until this lock goes.
    let hold = format!("COMMENT ON ROLE \"{}\" IS 'held by a test'", lease.username());
    for (verb, body) in [("renew", r#"{"ttl": "1h"}"#), ("revoke", "")] {
        let mut session = world.database.superuser().await.unwrap();
        sqlx::Executor::execute(&mut session, "BEGIN").await.unwrap();
        sqlx::Executor::execute(&mut session, sqlx::AssertSqlSafe(hold.clone())).await.unwrap();
        // The row as well: `ALTER ROLE` takes no other lock.
        let row = format!("UPDATE pg_authid SET rolname = rolname WHERE rolname = '{}'", lease.username());
        sqlx::Executor::execute(&mut session, sqlx::AssertSqlSafe(row)).await.unwrap();
        let line = format!("POST /v1/leases/{}/{verb}", lease.lease());
        let mut wire = Wire::connect(&client.broker).await.unwrap();
        wire.send(&request(line.as_bytes(), &headers, body.as_bytes())).await.unwrap();
        world.database.waiting_become(1).await;
        wire.hang_up().await.unwrap();
        sqlx::Executor::execute(&mut session, "ROLLBACK").await.unwrap();
        let event = if verb == "renew" { "lease.renewed" } else { "lease.revoked" };
        eventually(event, async || world.records_of(lease.lease(), event) == 1).await;
    }
    assert_eq!(world.accounts().await, Vec::<String>::new());
    world.assert_settled(&[lease.lease().to_owned()]).await;
}

#[tokio::test]
async fn a_request_that_never_comes_whole_is_given_up() {
    let world = World::with(Settings { server: "request_timeout = \"4s\"".into(), ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let whole = issue(&token, &[]);
    let body_at = whole.len() - BODY.len();

    // Gone in the middle of the head, before the body, in the middle of it.
    for end in [1, 20, body_at - 2, body_at, body_at + 10, whole.len() - 1] {
        let mut wire = Wire::connect(&client.broker).await.unwrap();
        wire.send(&whole[..end]).await.unwrap();
        drop(wire);
    }
    // The end is told, and what was promised has not come.
    let mut cut_off = Wire::connect(&client.broker).await.unwrap();
    cut_off.send(&whole[..body_at + 10]).await.unwrap();
    cut_off.end().await.unwrap();
    let told = cut_off.until_closed().await.unwrap();
    assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 400"), "{:?}", String::from_utf8_lossy(&told));
    // Still there, and silent: in the body, in the head (cut off after ten seconds), and from the start.
    let mut in_body = Wire::connect(&client.broker).await.unwrap();
    in_body.send(&whole[..body_at + 10]).await.unwrap();
    in_body.reply().await.unwrap().assert_problem(503, "overloaded");
    let mut in_head = Wire::connect(&client.broker).await.unwrap();
    in_head.send(b"POST /issue HTTP/1.1\r\nhost: broker\r\nx-slow: ").await.unwrap();
    let mut silent = Wire::connect(&client.broker).await.unwrap();
    let ended = in_head.until_closed().await.unwrap();
    assert!(ended.is_empty() || ended.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&ended));
    silent.until_closed().await.unwrap();

    assert!(world.leases().is_empty() && world.accounts().await.is_empty());
    let fine = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(fine.status, 201, "{}", fine.text);
}
