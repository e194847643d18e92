//! A secret leaves once, in the reply. (Written with canaries: the very values that went out.)

use std::path::Path;

use jit_tests::World;
use serde_json::json;

/// Everything, but for the compiler's own thoughts about the plugins' code: hundreds of megabytes.
const LOG: &str = "trace,cranelift_codegen=info,regalloc2=info,wasmtime_internal_cranelift=info,wasmtime_environ=info";

/// Every file below a folder, as bytes.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[tokio::test]
async fn no_password_token_or_verifier_is_in_any_log_file_metric_or_later_reply() {
    let mut world = World::prepared(jit_tests::Settings::default()).await;
    world.start(&[("JIT_LOG", LOG)]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let stranger = client.token("reporting").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "10m"});
    let first = client.issue_with_key(&token, "canary", &body).await.unwrap();
    assert_eq!(first.status, 201, "{}", first.text);
    let renewed = client.post(&format!("/v1/leases/{}/renew", first.lease()), &token, &json!({})).await.unwrap();
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    let denied = client.issue(&stranger, &body).await.unwrap();
    assert_eq!(denied.status, 403);
    let unknown = client.issue(&token, &json!({"target": "nowhere"})).await.unwrap();
    let shown = client.get(&format!("/v1/leases/{}", first.lease()), &token).await.unwrap();
    let listed = client.get("/v1/leases", &token).await.unwrap();

    // A restart, so that the retry resets the password; then the end.
    world.process().kill().unwrap();
    world.start(&[("JIT_LOG", LOG)]).await;
    let client = world.client();
    let token_after = client.token("payment-service").await.unwrap();
    let second = client.issue_with_key(&token_after, "canary", &body).await.unwrap();
    assert_eq!(second.status, 201, "{}", second.text);
    assert_ne!(first.password(), second.password());
    let verifier = world
        .database
        .value(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{}'", second.username()))
        .await
        .unwrap();
    assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "the server holds a verifier");
    let salt = verifier.split([':', '$']).nth(2).unwrap().to_owned();
    let keys = verifier.rsplit('$').next().unwrap().to_owned();
    let metrics = client.raw().get(format!("{}/metrics", client.broker)).send().await.unwrap().text().await.unwrap();
    let operator = world.cli(&["lease", "show", first.lease(), "--format", "json"]);
    let revoked = client.post(&format!("/v1/leases/{}/revoke", first.lease()), &token_after, &json!({})).await.unwrap();
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    world.process().stop().unwrap();

    let canaries = [
        ("the first password", first.password()),
        ("the second password", second.password()),
        ("the broker's password", world.database.password.as_str()),
        ("a token", token.as_str()),
        ("a token's signature", token.rsplit('.').next().unwrap()),
        ("another token", token_after.as_str()),
        ("the verifier's salt", salt.as_str()),
        ("the verifier's keys", keys.as_str()),
    ];
    let mut places = Vec::new();
    files(world.folder.path(), &mut places);
    // The broker's own password is where the test put it.
    places.retain(|(name, _)| !name.ends_with("inventory.password"));
    assert!(places.iter().any(|(name, _)| name.ends_with("broker.db")), "the store is among them");
    assert!(places.iter().any(|(name, bytes)| name.ends_with("broker.log") && bytes.len() > 10_000), "so is the log");
    for (name, text) in [
        ("the metrics", metrics),
        ("lease show", String::from_utf8_lossy(&operator.stdout).into_owned()),
        ("renew", renewed.text),
        ("denied", denied.text),
        ("unknown target", unknown.text),
        ("GET lease", shown.text),
        ("GET leases", listed.text),
        ("revoke", revoked.text),
    ] {
        places.push((name.to_owned(), text.into_bytes()));
    }
    for (place, bytes) in &places {
        for (what, canary) in &canaries {
            assert!(canary.len() >= 16, "{what} is long enough to be found");
            assert!(!holds(bytes, canary), "{what} is in {place}");
        }
    }
}

#[tokio::test]
async fn what_the_database_says_to_a_refused_statement_is_told_without_what_the_statement_held() {
    let mut world = World::prepared(jit_tests::Settings::default()).await;
    world.start(&[("JIT_LOG", LOG)]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let database = &world.database;
    database.execute(&format!("REVOKE {} FROM {}", database.read_only, database.broker)).await.unwrap();
    let refused = client.issue_with_key(&token, "refused", &json!({"target": "inventory_db"})).await.unwrap();
    refused.assert_problem(502, "target-refused");
    assert!(refused.text_at("/detail").contains("permission denied"), "the server's words: {}", refused.text);
    let failed = world.events("issue.failed");
    assert_eq!(failed.len(), 1);
    assert!(world.accounts().await.is_empty());
    world.process().stop().unwrap();

    let mut places = vec![("the reply".to_owned(), refused.text.into_bytes())];
    files(world.folder.path(), &mut places);
    for (place, bytes) in places.iter().filter(|(name, _)| !name.ends_with("inventory.password")) {
        for canary in ["SCRAM-SHA-256$", "PASSWORD '", world.database.password.as_str(), token.as_str()] {
            assert!(!holds(bytes, canary), "{canary} is in {place}");
        }
    }
}
