//! What it is for: a credential that exists only for its lease.

use jit_tests::World;
use jit_tests::world::eventually;
use serde_json::json;
use sqlx::Row as _;

#[tokio::test]
async fn an_account_lives_exactly_as_long_as_its_lease() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let issued =
        client.issue(&token, &json!({"target": "inventory_db", "ttl": "6s", "reason": "story"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    assert_eq!(issued.headers["cache-control"], "no-store");
    assert_eq!(issued.headers["location"], format!("/v1/leases/{}", issued.lease()));
    assert_eq!(issued.json["ttl_seconds"], 6);

    let mut session = world.database.login(issued.username(), issued.password()).await.unwrap();
    let row = sqlx::query("SELECT count(*) FROM items").fetch_one(&mut session).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 3);
    let denied = sqlx::query("DELETE FROM items").execute(&mut session).await;
    assert!(denied.is_err(), "the role may only read");

    // The server itself ends the login with the lease (BACKSTOP).
    let valid_until = format!(
        "SELECT floor(extract(epoch FROM rolvaliduntil))::bigint FROM pg_roles WHERE rolname = '{}'",
        issued.username()
    );
    let backstop: i64 = world.database.value(&valid_until).await.unwrap().parse().unwrap();
    let expires: i64 = world
        .database
        .value(&format!("SELECT extract(epoch FROM '{}'::timestamptz)::bigint", issued.text_at("/expires_at")))
        .await
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(backstop, expires);

    eventually("the account is gone", async || world.accounts().await.is_empty()).await;
    assert!(world.database.login(issued.username(), issued.password()).await.is_err());
    let ended = sqlx::query("SELECT 1").execute(&mut session).await;
    assert!(ended.is_err(), "a session that was open at the end is ended");
    eventually("the lease is revoked", async || {
        let lease = client.get(&format!("/v1/leases/{}", issued.lease()), &token).await.unwrap();
        lease.json["state"] == "revoked"
    })
    .await;

    let granted = &world.events("issue.granted")[0];
    for field in [
        "seq",
        "timestamp",
        "request_id",
        "lease_id",
        "workload",
        "identity_issuer",
        "k8s_namespace",
        "target_db",
        "role",
        "ephemeral_id",
        "ttl_minutes",
        "expires_at",
        "issued_by",
        "reason",
        "policies",
        "driver_sha256",
    ] {
        assert!(!granted[field].is_null(), "{field} is missing in {granted}");
    }
    assert_eq!(granted["ephemeral_id"], issued.username());
    assert_eq!(world.events("lease.expired").len(), 1);
    world.assert_log_is_intact();
}
