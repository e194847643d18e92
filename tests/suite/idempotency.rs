//! SAME-ANSWER: a retry with the same Idempotency-Key gets the same lease, never a second account.

use jit_tests::{Gate, Settings, World};
use serde_json::json;

#[tokio::test]
async fn the_same_key_twice_is_one_lease_with_one_password_and_one_account() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "10m", "reason": "nightly"});
    let first = client.issue_with_key(&token, "job-7", &body).await.unwrap();
    assert_eq!(first.status, 201, "{}", first.text);
    // Another spelling of the same request is the same request.
    let same = json!({"reason": "nightly", "ttl": 600, "target": "inventory_db"});
    for body in [&body, &same] {
        let again = client.issue_with_key(&token, "job-7", body).await.unwrap();
        assert_eq!((again.status, &again.json), (201, &first.json));
        assert_eq!(again.headers["location"], first.headers["location"]);
    }
    assert_eq!(world.accounts().await, [first.username()]);
    assert_eq!(world.leases().len(), 1);
    assert_eq!(world.events("issue.granted").len(), 1);
    let replayed = world.events("issue.replayed");
    assert_eq!(replayed.len(), 2, "each time that the secret left is on record");
    assert_eq!((&replayed[0]["lease_id"], &replayed[0]["password_reset"]), (&json!(first.lease()), &json!(false)));

    let other = json!({"target": "inventory_db", "ttl": "11m", "reason": "nightly"});
    let conflict = client.issue_with_key(&token, "job-7", &other).await.unwrap();
    conflict.assert_problem(409, "idempotency-conflict");
    assert_eq!(conflict.json["lease_id"], first.lease());
    assert_eq!(conflict.text.matches(first.password()).count(), 0);
    world.assert_settled(&[first.lease().to_owned()]).await;
}

#[tokio::test]
async fn sixteen_at_once_with_one_key_all_get_the_one_lease() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    // All of them are there before the first can be answered.
    let gate = Gate::close(&world.database, &world.database.read_only).await.unwrap();
    let requests: Vec<_> = (0..16)
        .map(|_| {
            let (client, token) = (client.clone(), token.clone());
            tokio::spawn(async move {
                client.issue_with_key(&token, "at-once", &json!({"target": "inventory_db"})).await.unwrap()
            })
        })
        .collect();
    world.database.waiting_become(1).await;
    gate.open().await.unwrap();
    let mut leases = Vec::new();
    for request in requests {
        let reply = request.await.unwrap();
        assert_eq!(reply.status, 201, "{}", reply.text);
        leases.push((reply.lease().to_owned(), reply.password().to_owned()));
    }
    leases.dedup();
    assert_eq!(leases.len(), 1, "sixteen replies, one lease, one password");
    assert_eq!(world.accounts().await.len(), 1);
    assert_eq!(world.events("issue.granted").len(), 1);
}

#[tokio::test]
async fn after_a_kill_the_same_key_gives_the_same_lease_with_a_new_password() {
    let mut world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db"});
    let first = client.issue_with_key(&token, "survivor", &body).await.unwrap();
    assert_eq!(first.status, 201, "{}", first.text);
    world.process().kill().unwrap();
    world.start(&[]).await;

    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let second = client.issue_with_key(&token, "survivor", &body).await.unwrap();
    assert_eq!((second.status, second.lease()), (201, first.lease()), "{}", second.text);
    assert_eq!(second.username(), first.username());
    assert_eq!(second.json["expires_at"], first.json["expires_at"], "a retry prolongs nothing");
    assert_ne!(second.password(), first.password(), "the first one was never stored");
    assert!(world.database.login(second.username(), second.password()).await.is_ok());
    assert!(world.database.login(first.username(), first.password()).await.is_err(), "the old one is worthless");
    // And from now on it is remembered again.
    let third = client.issue_with_key(&token, "survivor", &body).await.unwrap();
    assert_eq!(third.json, second.json);

    let replayed = world.events("issue.replayed");
    assert_eq!(replayed.len(), 2);
    assert_eq!(replayed[0]["lease_id"], first.lease());
    assert_eq!(replayed[0]["request_id"], second.headers["x-request-id"].to_str().unwrap());
    assert_eq!((&replayed[0]["password_reset"], &replayed[1]["password_reset"]), (&json!(true), &json!(false)));
    assert_eq!(replayed[0]["policies"][0]["verdict"], "allow", "the policies were asked before the reset");
    let conflict = client.issue_with_key(&token, "survivor", &json!({"target": "inventory_db", "ttl": 60})).await;
    conflict.unwrap().assert_problem(409, "idempotency-conflict");
    assert_eq!(world.accounts().await.len(), 1);
    world.assert_settled(&[first.lease().to_owned()]).await;
}

/// A new password is a new grant: whom the policies deny by now gets none, and the account keeps the old one.
#[tokio::test]
async fn after_a_restart_the_policies_decide_whether_a_retry_resets_the_password() {
    let mut world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "10m"});
    let first = client.issue_with_key(&token, "denied-by-now", &body).await.unwrap();
    assert_eq!(first.status, 201, "{}", first.text);
    world.process().stop().unwrap();
    world.rewrite(r#"workload = "payment-*""#, r#"workload = "reporting""#);
    world.start(&[]).await;

    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let denied = client.issue_with_key(&token, "denied-by-now", &body).await.unwrap();
    denied.assert_problem(403, "policy-denied");
    assert!(world.events("issue.replayed").is_empty());
    assert_eq!(world.events("issue.denied").len(), 1);
    assert!(world.database.login(first.username(), first.password()).await.is_ok(), "nothing was reset");
}

#[tokio::test]
async fn the_keys_of_two_workloads_never_meet() {
    let world = World::new().await;
    let client = world.client();
    let body = json!({"target": "inventory_db"});
    let mut leases = Vec::new();
    for workload in ["payment-a", "payment-b"] {
        let token = client.token(workload).await.unwrap();
        let reply = client.issue_with_key(&token, "same-key", &body).await.unwrap();
        assert_eq!(reply.status, 201, "{}", reply.text);
        leases.push(reply);
    }
    assert_ne!(leases[0].lease(), leases[1].lease());
    assert_ne!(leases[0].password(), leases[1].password());
    // Another token of the same workload is the same caller.
    let token = client.token("payment-a").await.unwrap();
    let again = client.issue_with_key(&token, "same-key", &body).await.unwrap();
    assert_eq!(again.json, leases[0].json);
    assert_eq!(world.accounts().await.len(), 2);
}

#[tokio::test]
async fn the_key_of_a_lease_that_is_over_stays_taken() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db"});
    let lease = client.issue_with_key(&token, "once", &body).await.unwrap();
    let revoke = format!("/v1/leases/{}/revoke", lease.lease());
    assert_eq!(client.post(&revoke, &token, &json!({})).await.unwrap().status, 200);
    let over = client.issue_with_key(&token, "once", &body).await.unwrap();
    over.assert_problem(409, "lease-not-active");
    assert_eq!(over.json["lease_id"], lease.lease());
    assert_eq!(client.issue_with_key(&token, "twice", &body).await.unwrap().status, 201);
    assert_eq!(world.accounts().await.len(), 1);
}

#[tokio::test]
async fn an_attempt_that_gave_nobody_anything_does_not_take_its_key() {
    let plugins = jit_tests::surroundings("JIT_TEST_PLUGINS");
    let more = format!(
        r#"
[policies.reasons]
plugin = "allow-list"
config = {{ rules = [{{ workload = "*", target = "*", roles = ["*"], require_reason = true }}] }}
[plugins.scripted]
path = "{plugins}/driver-scripted.wasm"
[targets.refusing]
driver = "scripted"
connection = "inventory"
policies = ["allow"]
default_ttl = "1h"
default_role = "refused"
[targets.refusing.roles.refused]
create = "refused"
[targets.refusing.roles.unknown]
create = "unknown"
[targets.refusing.roles.fine]
create = "ok"
"#
    );
    let policies = vec!["allow".to_owned(), "reasons".to_owned()];
    let world = World::with(Settings { policies, more, ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();

    // Denied by a policy, refused as malformed, refused by the backend, in doubt: then as it should be.
    let denied = client.issue_with_key(&token, "a", &json!({"target": "inventory_db"})).await.unwrap();
    denied.assert_problem(403, "policy-denied");
    let malformed = client.issue_with_key(&token, "a", &json!({"target": "inventory_db", "ttl": 0})).await.unwrap();
    malformed.assert_problem(400, "invalid-request");
    let granted = client.issue_with_key(&token, "a", &json!({"target": "inventory_db", "reason": "x"})).await.unwrap();
    assert_eq!(granted.status, 201, "{}", granted.text);

    let refused = client.issue_with_key(&token, "b", &json!({"target": "refusing"})).await.unwrap();
    refused.assert_problem(502, "target-refused");
    let unknown = client.issue_with_key(&token, "b", &json!({"target": "refusing", "role": "unknown"})).await.unwrap();
    unknown.assert_problem(504, "target-timeout");
    let body = json!({"target": "refusing", "role": "fine"});
    let granted = client.issue_with_key(&token, "b", &body).await.unwrap();
    assert_eq!(granted.status, 201, "{}", granted.text);
    let again = client.issue_with_key(&token, "b", &body).await.unwrap();
    assert_eq!(again.json, granted.json);
}
