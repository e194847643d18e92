//! ONE-OWNER: a lease belongs to issuer and subject. A display name that two workloads share, as a template
//! without the namespace gives it, merges no owners.

use jit_tests::World;
use serde_json::json;

#[tokio::test]
async fn a_namesake_of_another_namespace_sees_gets_and_revokes_nothing() {
    // The tests' template names the service account alone.
    let world = World::new().await;
    let client = world.client();
    let shop = client.token("payment-service").await.unwrap();
    let evil = client.token_in("evil", "payment-service").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "10m"});
    let victim = client.issue_with_key(&shop, "nightly-1", &body).await.unwrap();
    assert_eq!(victim.status, 201, "{}", victim.text);

    let listed = client.get("/v1/leases", &evil).await.unwrap();
    assert_eq!((listed.status, &listed.json["leases"]), (200, &json!([])));
    let path = format!("/v1/leases/{}", victim.lease());
    client.get(&path, &evil).await.unwrap().assert_problem(404, "unknown-lease");
    for verb in ["renew", "revoke"] {
        let reply = client.post(&format!("{path}/{verb}"), &evil, &json!({})).await.unwrap();
        reply.assert_problem(404, "unknown-lease");
    }
    // The victim's Idempotency-Key is a key of their own to them: another lease, another account.
    let other = client.issue_with_key(&evil, "nightly-1", &body).await.unwrap();
    assert_eq!(other.status, 201, "{}", other.text);
    assert_ne!((other.lease(), other.username()), (victim.lease(), victim.username()));
    assert_ne!(other.password(), victim.password());

    let subjects: Vec<String> =
        world.events("issue.granted").iter().map(|record| record["identity_subject"].to_string()).collect();
    assert!(subjects[0].contains(":shop:") && subjects[1].contains(":evil:"), "{subjects:?}");

    // The owner has all of it, by any token of its own, also after a restart.
    let again = client.token("payment-service").await.unwrap();
    let listed = client.get("/v1/leases", &again).await.unwrap();
    assert_eq!(listed.json["leases"].as_array().map(Vec::len), Some(1), "{}", listed.text);
    assert_eq!(client.get(&path, &again).await.unwrap().json["state"], "active");
    assert!(world.database.login(victim.username(), victim.password()).await.is_ok());
    assert_eq!(client.issue_with_key(&again, "nightly-1", &body).await.unwrap().json, victim.json);
    let revoked = client.post(&format!("{path}/revoke"), &again, &json!({})).await.unwrap();
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert!(world.database.login(other.username(), other.password()).await.is_ok(), "the other's lease is its own");
}
