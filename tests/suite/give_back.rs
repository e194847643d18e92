//! Giving access back: never refused for its rate, many leases in one request, nobody else's.

use std::collections::BTreeSet;

use jit_tests::world::eventually;
use jit_tests::{Client, Reply, Settings, World};
use serde_json::{Value, json};

const ASK: &str = "inventory_db";

async fn issue(client: &Client, token: &str) -> String {
    let issued = client.issue(token, &json!({"target": ASK, "ttl": "1h"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    issued.lease().to_owned()
}

async fn give_back(client: &Client, token: &str, body: &Value) -> Reply {
    client.post("/v1/leases/revoke", token, body).await.unwrap()
}

/// The leases of a reply with their states, and nothing else.
fn states(reply: &Reply) -> Vec<(String, String)> {
    let leases = reply.json["leases"].as_array().unwrap_or_else(|| panic!("no leases: {}", reply.text));
    let word = |lease: &Value, field: &str| lease[field].as_str().unwrap_or_default().to_owned();
    leases.iter().map(|lease| (word(lease, "lease_id"), word(lease, "state") + &word(lease, "code"))).collect()
}

#[tokio::test]
async fn many_leases_go_back_in_one_request_and_nobody_elses() {
    let world = World::new().await;
    let client = world.client();
    let mine = client.token("payment-service").await.unwrap();
    let theirs = client.token("payment-admin").await.unwrap();
    let mut own = Vec::new();
    for _ in 0..4 {
        own.push(issue(&client, &mine).await);
    }
    let foreign = issue(&client, &theirs).await;

    // Two by name, one of them twice, with one that is somebody else's and one that is none.
    let body = json!({"leases": [own[0], foreign, own[1], own[0], "lease_x"]});
    let some = give_back(&client, &mine, &body).await;
    assert!(matches!(some.status, 200 | 202), "{}", some.text);
    let told = states(&some);
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!((told[1].1.as_str(), told[3].1.as_str()), ("unknown-lease", "unknown-lease"));
    for (at, lease) in [(0, &own[0]), (2, &own[1])] {
        assert_eq!(&told[at].0, lease);
        assert!(matches!(told[at].1.as_str(), "revoked" | "revoking"), "{told:?}");
    }
    eventually("the two are gone", async || world.accounts().await.len() == 3).await;
    // Again, which changes nothing.
    let again = give_back(&client, &mine, &body).await;
    assert_eq!((again.status, states(&again)[0].1.as_str()), (200, "revoked"), "{}", again.text);

    // All that is left of the caller's.
    let all = give_back(&client, &mine, &json!({"all": true})).await;
    let told: BTreeSet<String> = states(&all).into_iter().map(|(lease, _)| lease).collect();
    assert_eq!(told, own[2..].iter().cloned().collect::<BTreeSet<_>>());
    eventually("the other's is left", async || world.accounts().await.len() == 1).await;
    let none = give_back(&client, &mine, &json!({"all": true})).await;
    assert_eq!((none.status, states(&none)), (200, Vec::new()), "{}", none.text);
    let kept = client.get(&format!("/v1/leases/{foreign}"), &theirs).await.unwrap();
    assert_eq!(kept.json["state"], "active", "{}", kept.text);

    for wrong in [json!({}), json!({"all": false}), json!({"leases": []}), json!({"leases": [own[0]], "all": true})] {
        give_back(&client, &mine, &wrong).await.assert_problem(400, "invalid-request");
    }
    give_back(&client, "nonsense", &json!({"all": true})).await.assert_problem(401, "unauthenticated");
    assert_eq!(world.accounts().await.len(), 1);
    let revoked = world.events("lease.revoked");
    let revoked: BTreeSet<&str> = revoked.iter().filter_map(|record| record["lease_id"].as_str()).collect();
    assert_eq!(revoked, own.iter().map(String::as_str).collect());
    world.assert_log_is_intact();
}

/// One request a second, and everything that was issued before goes back at once.
#[tokio::test]
async fn giving_back_is_not_refused_for_its_rate() {
    let settings = Settings { requests_per_second: 1, ..Settings::default() };
    // As many as the burst of a workload allows, of several workloads in one process.
    let world = World::with(settings).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let mut leases = Vec::new();
    while leases.len() < 2 {
        leases.push(issue(&client, &token).await);
    }
    let body = json!({"target": ASK});
    let refused = async || client.post("/v1/simulate", &token, &body).await.unwrap().status == 429;
    eventually("the workload asks too fast", refused).await;
    // Far more than the rate and the burst.
    for round in 0..12 {
        let path = format!("/v1/leases/{}/revoke", leases[round % 2]);
        let reply = client.post(&path, &token, &json!({})).await.unwrap();
        assert!(matches!(reply.status, 200 | 202), "{round}: {}", reply.text);
        let reply = give_back(&client, &token, &json!({"leases": leases})).await;
        assert!(matches!(reply.status, 200 | 202), "{round}: {}", reply.text);
    }
    eventually("both are gone", async || world.accounts().await.is_empty()).await;
}
