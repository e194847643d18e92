//! What the policies' answers come to over HTTP, and that the API's description of itself is true.

use jit_tests::http::reply;
use jit_tests::{Description, Settings, World};
use serde_json::{Value, json};

/// `strict` wants a reason, gives ten minutes at most, and the reading role only.
fn strict() -> Settings {
    let more = r#"
[policies.strict]
plugin = "allow-list"
[[policies.strict.config.rules]]
name = "readers"
workload = "payment-*"
target = "inventory_db"
roles = ["app_read_only"]
max_ttl = "10m"
require_reason = true
"#;
    Settings { policies: vec!["allow".into(), "strict".into()], more: more.into(), ..Settings::default() }
}

#[tokio::test]
async fn a_denial_names_its_policy_and_reason_and_is_on_record() {
    let world = World::with(strict()).await;
    let client = world.client();
    let stranger = client.token("reporting").await.unwrap();
    let denied = client.issue(&stranger, &json!({"target": "inventory_db", "reason": "x"})).await.unwrap();
    denied.assert_problem(403, "policy-denied");
    assert_eq!(denied.json["policy"], "allow", "the first that says no");
    assert!(denied.text_at("/detail").contains("reporting"), "{}", denied.text);

    let token = client.token("payment-service").await.unwrap();
    let no_reason = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    no_reason.assert_problem(403, "policy-denied");
    assert_eq!(no_reason.json["policy"], "strict");
    assert!(no_reason.text_at("/detail").contains("reason"), "{}", no_reason.text);
    let other_role = json!({"target": "inventory_db", "role": "app_read_write", "reason": "x"});
    let other_role = client.issue(&token, &other_role).await.unwrap();
    other_role.assert_problem(403, "policy-denied");

    let records = world.events("issue.denied");
    assert_eq!(records.len(), 3);
    for (record, reply) in records.iter().zip([&denied, &no_reason, &other_role]) {
        assert_eq!(record["request_id"], reply.json["request_id"]);
        assert_eq!(record["policy"], reply.json["policy"]);
        assert_eq!(record["error"], reply.json["detail"]);
        assert_eq!(record["target_db"], "inventory_db");
        let policies = record["policies"].as_array().unwrap();
        let named = policies.iter().find(|policy| policy["name"] == reply.json["policy"]).unwrap();
        assert_eq!(named["verdict"], "deny", "{record}");
        assert_eq!(named["plugin_sha256"].as_str().unwrap().len(), 64, "{record}");
        assert!(record.get("lease_id").is_none(), "a denial makes no lease: {record}");
    }
    assert_eq!(records[0]["workload"], "reporting");
    assert!(world.leases().is_empty() && world.accounts().await.is_empty());
}

#[tokio::test]
async fn what_the_target_does_not_have_is_told_apart_from_what_a_policy_denies() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    for path in ["/issue", "/v1/simulate"] {
        let unknown = client.post(path, &token, &json!({"target": "payroll_db"})).await.unwrap();
        unknown.assert_problem(404, "unknown-target");
        let superuser = json!({"target": "inventory_db", "role": "postgres"});
        client.post(path, &token, &superuser).await.unwrap().assert_problem(403, "role-not-allowed");
    }
    assert!(world.leases().is_empty() && world.accounts().await.is_empty());
}

#[tokio::test]
async fn a_policys_cap_lowers_the_lease_at_issue_and_at_renewal() {
    let world = World::with(strict()).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "2h", "reason": "nightly export"});
    let lease = client.issue(&token, &body).await.unwrap();
    assert_eq!((lease.status, &lease.json["ttl_seconds"]), (201, &json!(600)), "{}", lease.text);
    let path = format!("/v1/leases/{}/renew", lease.lease());
    let renewed = client.post(&path, &token, &json!({"ttl": "2h"})).await.unwrap();
    assert_eq!((renewed.status, &renewed.json["ttl_seconds"]), (200, &json!(600)), "{}", renewed.text);
    let granted = &world.events("issue.granted")[0];
    assert_eq!(granted["ttl_minutes"], 10);
    let verdicts: Vec<&Value> = granted["policies"].as_array().unwrap().iter().map(|p| &p["verdict"]).collect();
    assert_eq!(verdicts, ["allow", "allow"]);
    assert_eq!(granted["labels"]["rule"], "readers");
}

#[tokio::test]
async fn a_simulation_decides_and_does_nothing() {
    let world = World::with(strict()).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let before = world.audit().len();
    let allowed = json!({"target": "inventory_db", "ttl": "2h", "reason": "x"});
    let allowed = client.post("/v1/simulate", &token, &allowed).await.unwrap();
    assert_eq!((allowed.status, allowed.text_at("/decision")), (200, "allow"), "{}", allowed.text);
    assert_eq!(allowed.json["effective"], json!({"role": "app_read_only", "ttl_seconds": 600}));
    let policies = allowed.json["policies"].as_array().unwrap();
    let names: Vec<&Value> = policies.iter().map(|policy| &policy["name"]).collect();
    assert_eq!(names, ["allow", "strict"]);

    let denied = client.post("/v1/simulate", &token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!((denied.status, denied.text_at("/decision")), (200, "deny"), "{}", denied.text);
    assert_eq!(denied.json["policy"], "strict");
    assert!(denied.text_at("/reason").contains("reason"), "{}", denied.text);

    assert!(world.leases().is_empty() && world.accounts().await.is_empty());
    assert_eq!(world.audit().len(), before, "a simulation is not on record");
}

#[tokio::test]
async fn every_reply_is_as_the_apis_own_description_says() {
    let world = World::with(strict()).await;
    let client = world.client();
    let description = Description::of(&client).await.unwrap();
    let token = client.token("payment-service").await.unwrap();
    let full = json!({"target": "inventory_db", "role": "app_read_only", "ttl": "5m", "reason": "r", "ticket": "t",
                      "metadata": {"build": "1234"}});
    let post = async |template: &str, id: &str, token: &str, body: &Value, status: u16| {
        let answer = client.post(&template.replace("{id}", id), token, body).await.unwrap();
        assert_eq!(answer.status, status, "{template}: {}", answer.text);
        description.hold("post", template, &answer);
        answer
    };
    let issued = post("/v1/issue", "", &token, &full, 201).await;
    post("/issue", "", &token, &full, 201).await;
    for path in ["/issue", "/v1/issue", "/v1/simulate"] {
        post(path, "", &token, &json!({}), 400).await;
        post(path, "", "nonsense", &full, 401).await;
        post(path, "", &token, &json!({"target": "inventory_db", "role": "none"}), 403).await;
        post(path, "", &token, &json!({"target": "none"}), 404).await;
        post(path, "", &token, &json!({"target": "x".repeat(70_000)}), 413).await;
        let untyped = client.raw().post(format!("{}{path}", client.broker)).bearer_auth(&token).body("{}");
        let untyped = reply(untyped).await.unwrap();
        assert_eq!(untyped.status, 415);
        description.hold("post", path, &untyped);
    }
    post("/v1/issue", "", &token, &json!({"target": "inventory_db"}), 403).await;
    for (key, body, status) in [("k", &full, 201), ("k", &json!({"target": "inventory_db", "reason": "q"}), 409)] {
        let answer = client.issue_with_key(&token, key, body).await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text);
        description.hold("post", "/issue", &answer);
    }
    post("/v1/simulate", "", &token, &full, 200).await;
    post("/v1/simulate", "", &token, &json!({"target": "inventory_db"}), 200).await;

    let id = issued.lease();
    let nobodys = "lease_01jd3x7k2m9v5q8w4r6t0y1z3b";
    for (template, path, token, status) in [
        ("/v1/leases/{id}", format!("/v1/leases/{id}"), token.as_str(), 200),
        ("/v1/leases/{id}", format!("/v1/leases/{nobodys}"), &token, 404),
        ("/v1/leases/{id}", format!("/v1/leases/{id}"), "x", 401),
        ("/v1/leases", "/v1/leases?limit=2".to_owned(), &token, 200),
        ("/v1/leases", "/v1/leases".to_owned(), &token, 200),
        ("/v1/leases", "/v1/leases?limit=x".to_owned(), &token, 400),
        ("/v1/leases", "/v1/leases".to_owned(), "x", 401),
        ("/livez", "/livez".to_owned(), &token, 200),
        ("/readyz", "/readyz".to_owned(), &token, 200),
        ("/metrics", "/metrics".to_owned(), &token, 200),
    ] {
        let answer = client.get(&path, token).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        description.hold("get", template, &answer);
    }
    for verb in ["renew", "revoke"] {
        let template = format!("/v1/leases/{{id}}/{verb}");
        post(&template, id, &token, &json!({}), 200).await;
        post(&template, nobodys, &token, &json!({}), 404).await;
        post(&template, id, "x", &json!({}), 401).await;
    }
    post("/v1/leases/{id}/renew", id, &token, &json!({}), 409).await;
    post("/v1/leases/{id}/renew", id, &token, &json!({"ttl": 0}), 400).await;
}

/// Denials do not fill the disk: beyond a workload's budget they are counted, and each count is on record.
#[tokio::test]
async fn beyond_its_budget_a_workload_s_denials_are_recorded_as_counts() {
    let mut world = World::prepared(Settings::default()).await;
    world.rewrite("[limits]\n", "[limits]\ndenials_in_full = 5\n");
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("batch").await.unwrap();
    let metadata: serde_json::Map<String, Value> =
        (0..16).map(|n| (format!("k{n:02}{}", "m".repeat(50)), json!("x".repeat(256)))).collect();
    let body = json!({"target": "inventory_db", "reason": "y".repeat(1_000), "metadata": metadata});
    for _ in 0..40 {
        client.issue(&token, &body).await.unwrap().assert_problem(403, "policy-denied");
    }
    // Another workload's denial is its own, and in full.
    let other = client.token("reporting").await.unwrap();
    client.issue(&other, &body).await.unwrap().assert_problem(403, "policy-denied");
    world.process().stop().unwrap();

    let denied = world.events("issue.denied");
    let (counts, full): (Vec<_>, Vec<_>) = denied.iter().partition(|record| record.get("count").is_some());
    let of =
        |records: &[&Value], workload: &str| records.iter().filter(|record| record["workload"] == workload).count();
    assert_eq!(of(&full, "reporting"), 1);
    // One more may have been due meanwhile.
    let in_full = of(&full, "batch");
    assert!((5..20).contains(&in_full), "{in_full}");
    let counted: u64 = counts.iter().filter_map(|record| record["count"].as_u64()).sum();
    assert_eq!(in_full as u64 + counted, 40, "none is lost");
    for record in counts {
        assert!(record.to_string().len() < 1_500, "{record}");
        assert!(record["input_sha256"].is_string() && record["policy"].is_string(), "{record}");
    }
    world.assert_log_is_intact();
}
