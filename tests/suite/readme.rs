//! What the README shows is run here to the letter.

use std::path::Path;
use std::process::Command;

use jit_tests::{Settings, World, page};
use serde_json::json;

/// The fenced blocks of a language that the README marks as run here, in order.
fn blocks(language: &str) -> Vec<String> {
    let blocks = page::blocks("README.md", "readme").into_iter();
    blocks.filter(|block| block.language == language).map(|block| block.text).collect()
}

#[tokio::test]
async fn the_curl_line_gets_a_credential() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let curl = blocks("sh").into_iter().find(|block| block.contains("curl")).unwrap();
    let output =
        Command::new("bash").args(["-c", &curl]).env("BROKER", &client.broker).env("TOKEN", &token).output().unwrap();
    let reply: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |pointer: &str| reply.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let (username, password) = (text("/credential/username"), text("/credential/password"));
    world.database.login(&username, &password).await.unwrap();
    assert_eq!(reply["ttl_seconds"], 1_800);

    // The reply that the README shows has the same fields.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let shown = readme.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let shown: serde_json::Value = serde_json::from_str(shown).unwrap();
    let fields = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&shown), fields(&reply));
    assert_eq!(fields(&shown["connection"]), fields(&reply["connection"]));
}

#[tokio::test]
async fn the_smallest_policy_builds_is_checked_and_decides() {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let toml = blocks("toml");
    let manifest = toml[0].replace("../jit-broker/sdk/plugin", &root.join("sdk/plugin").display().to_string());
    std::fs::create_dir(folder.path().join("src")).unwrap();
    std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    // Known versions, so that the registry need not be asked.
    std::fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    std::fs::write(folder.path().join("src/lib.rs"), &blocks("rust")[0]).unwrap();
    let commands = blocks("sh").into_iter().find(|block| block.contains("plugin build")).unwrap();
    let (code, text) = page::run(folder.path(), &commands, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("a broker can load it"), "{text}");

    let fragment = toml[1].replace(
        "plugins/one-environment.wasm",
        &folder.path().join("plugins/one-environment.wasm").display().to_string(),
    );
    let settings =
        Settings { policies: vec!["allow".into(), "prod-only".into()], more: fragment, ..Settings::default() };
    let world = World::with(settings).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let simulated = client.post("/v1/simulate", &token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(simulated.json["decision"], "allow", "{}", simulated.text);
    let shadow = &simulated.json["policies"][1];
    assert_eq!(
        (&shadow["name"], &shadow["mode"], &shadow["verdict"]),
        (&json!("prod-only"), &json!("shadow"), &json!("deny"))
    );
    assert_eq!(shadow["reason"], "only workloads of env=prod");
    let issued = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    assert_eq!(world.events("policy.shadow_diff").len(), 1);
}
