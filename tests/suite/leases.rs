//! Leases over HTTP: whose they are, how they are renewed, listed and given back.

use jit_tests::{Settings, World};
use serde_json::json;

/// When the server itself ends an account's login, in the API's own form.
async fn valid_until(world: &World, account: &str) -> String {
    let query = "to_char(rolvaliduntil AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    world.database.value(&format!("SELECT {query} FROM pg_roles WHERE rolname = '{account}'")).await.unwrap()
}

#[tokio::test]
async fn another_identitys_lease_is_as_if_it_were_not_there() {
    let world = World::new().await;
    let client = world.client();
    let owner = client.token("payment-service").await.unwrap();
    let other = client.token("payment-other").await.unwrap();
    let lease = client.issue(&owner, &json!({"target": "inventory_db"})).await.unwrap();
    let path = format!("/v1/leases/{}", lease.lease());
    client.get(&path, &other).await.unwrap().assert_problem(404, "unknown-lease");
    client.post(&format!("{path}/renew"), &other, &json!({})).await.unwrap().assert_problem(404, "unknown-lease");
    client.post(&format!("{path}/revoke"), &other, &json!({})).await.unwrap().assert_problem(404, "unknown-lease");
    // To the word: whether it exists cannot be told.
    let hers = client.get(&path, &other).await.unwrap();
    let nobodys = client.get("/v1/leases/lease_01jd3x7k2m9v5q8w4r6t0y1z3b", &other).await.unwrap();
    assert_eq!(hers.json["detail"], nobodys.json["detail"]);

    let listed = client.get("/v1/leases", &other).await.unwrap();
    assert_eq!(listed.json, json!({"leases": [], "next_cursor": null}));
    // As a cursor it shows nothing of anybody else's either.
    let after = client.get(&format!("/v1/leases?cursor={}", lease.lease()), &other).await.unwrap();
    assert_eq!(after.json["leases"], json!([]));

    let own = client.get(&path, &owner).await.unwrap();
    assert_eq!((own.status, own.text_at("/state")), (200, "active"));
    assert!(!own.text.contains("password"), "a lease is shown without its secret: {}", own.text);
    assert!(world.database.login(lease.username(), lease.password()).await.is_ok());
}

#[tokio::test]
async fn a_renewal_moves_the_lease_and_the_servers_own_expiry_but_never_past_the_cap() {
    let world = World::with(Settings { target: "timeout = \"20s\"".into(), ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let lease = client.issue(&token, &json!({"target": "inventory_db", "ttl": "10m"})).await.unwrap();
    let path = format!("/v1/leases/{}/renew", lease.lease());

    let renewed = client.post(&path, &token, &json!({"ttl": "1h"})).await.unwrap();
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    assert!(renewed.text_at("/expires_at") > lease.text_at("/expires_at"));
    assert_eq!(renewed.json["ttl_seconds"], 3_600);
    assert_eq!(renewed.text_at("/ephemeral_id"), lease.username(), "the same account");
    assert_eq!(valid_until(&world, lease.username()).await, renewed.text_at("/expires_at"));
    assert!(world.database.login(lease.username(), lease.password()).await.is_ok(), "the same password");

    // A shorter wish takes nothing away.
    let shorter = client.post(&path, &token, &json!({"ttl": "1m"})).await.unwrap();
    assert_eq!(shorter.status, 200, "{}", shorter.text);
    assert_eq!(shorter.text_at("/expires_at"), renewed.text_at("/expires_at"));
    assert_eq!(valid_until(&world, lease.username()).await, renewed.text_at("/expires_at"));

    // Into the next second, so that the cap and a full term from now differ.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let capped = client.post(&path, &token, &json!({"ttl": "7d"})).await.unwrap();
    assert_eq!(capped.status, 200, "{}", capped.text);
    assert_eq!(capped.text_at("/expires_at"), lease.text_at("/max_expires_at"));
    assert_eq!(capped.text_at("/max_expires_at"), lease.text_at("/max_expires_at"));
    assert_eq!(valid_until(&world, lease.username()).await, lease.text_at("/max_expires_at"));

    let records = world.events("lease.renewed");
    let ends: Vec<&str> = records.iter().filter_map(|record| record["expires_at"].as_str()).collect();
    assert_eq!(ends, [renewed.text_at("/expires_at"), shorter.text_at("/expires_at"), capped.text_at("/expires_at")]);
    world.assert_settled(&[lease.lease().to_owned()]).await;
}

#[tokio::test]
async fn a_lease_that_was_given_back_is_over_and_giving_back_is_repeatable() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let lease = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    let path = format!("/v1/leases/{}", lease.lease());
    for _ in 0..3 {
        let revoked = client.post(&format!("{path}/revoke"), &token, &json!({})).await.unwrap();
        assert_eq!((revoked.status, revoked.text_at("/state")), (200, "revoked"), "{}", revoked.text);
    }
    assert_eq!(world.accounts().await, Vec::<String>::new());
    let renewed = client.post(&format!("{path}/renew"), &token, &json!({"ttl": "1h"})).await.unwrap();
    renewed.assert_problem(409, "lease-not-active");
    assert_eq!(renewed.json["lease_id"], lease.lease());
    assert_eq!(world.records_of(lease.lease(), "lease.revoked"), 1, "once on record, however often it was asked for");
    world.assert_settled(&[lease.lease().to_owned()]).await;
}

#[tokio::test]
async fn a_list_of_leases_comes_in_pages_each_lease_once_newest_first() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let mut issued = Vec::new();
    for _ in 0..5 {
        let lease = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
        assert_eq!(lease.status, 201, "{}", lease.text);
        issued.push(lease.lease().to_owned());
    }
    issued.reverse();
    let strangers = client.token("payment-other").await.unwrap();
    client.issue(&strangers, &json!({"target": "inventory_db"})).await.unwrap();

    for limit in [1, 2, 3, 5, 6, 500] {
        let mut listed = Vec::new();
        let mut path = format!("/v1/leases?limit={limit}");
        for _ in 0..=issued.len() {
            let page = client.get(&path, &token).await.unwrap();
            assert_eq!(page.status, 200, "{}", page.text);
            let leases = page.json["leases"].as_array().unwrap();
            assert!(leases.len() <= limit, "{}", page.text);
            listed.extend(leases.iter().map(|lease| lease["lease_id"].as_str().unwrap().to_owned()));
            match page.json["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/leases?limit={limit}&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(listed, issued, "in pages of {limit}");
    }

    let revoke = format!("/v1/leases/{}/revoke", issued[2]);
    assert_eq!(client.post(&revoke, &token, &json!({})).await.unwrap().status, 200);
    let count = async |query: &str| {
        let page = client.get(&format!("/v1/leases?{query}"), &token).await.unwrap();
        assert_eq!(page.status, 200, "{}", page.text);
        page.json["leases"].as_array().unwrap().len()
    };
    assert_eq!(count("state=active").await, 4);
    assert_eq!(count("state=revoked").await, 1);
    assert_eq!(count("state=pending").await, 0);
    assert_eq!(count("target=inventory_db&state=active&limit=500").await, 4);
    assert_eq!(count("target=elsewhere").await, 0);
}

/// The token is a proof at the moment of asking. What becomes of it later is not the lease's matter.
#[tokio::test]
async fn a_lease_outlives_the_token_that_asked_for_it() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let lease = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(lease.status, 201, "{}", lease.text);
    // The issuer takes back the key that signed the token; the next token brings the broker to its new keys.
    let rotate = format!("{}/rotate?drop=1", client.issuer);
    assert!(client.raw().post(rotate).send().await.unwrap().status().is_success());
    let next = client.token("payment-service").await.unwrap();
    let path = format!("/v1/leases/{}", lease.lease());
    assert_eq!(client.get(&path, &next).await.unwrap().text_at("/state"), "active");
    client.get(&path, &token).await.unwrap().assert_problem(401, "unauthenticated");

    assert!(world.database.login(lease.username(), lease.password()).await.is_ok(), "the account is as it was");
    assert_eq!(world.accounts().await, [lease.username()]);
    // It is still its owner's, who has another token now.
    let renewed = client.post(&format!("{path}/renew"), &next, &json!({"ttl": "2h"})).await.unwrap();
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    world.assert_settled(&[lease.lease().to_owned()]).await;
}
