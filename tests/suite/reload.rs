//! Plugins, policies and targets are replaced at run time: all or nothing.

use jit_tests::World;
use jit_tests::world::eventually;
use serde_json::json;

/// Changes the configuration file.
fn rewrite(world: &World, from: &str, to: &str) {
    let text = std::fs::read_to_string(world.config()).unwrap();
    assert!(text.contains(from), "{from:?} is not in the configuration");
    std::fs::write(world.config(), text.replace(from, to)).unwrap();
}

#[tokio::test]
async fn a_changed_policy_holds_without_a_restart_and_a_broken_one_does_not() {
    let mut world = World::new().await;
    let client = world.client();
    let reporting = client.token("reporting").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "10m"});
    assert_eq!(client.issue(&reporting, &body).await.unwrap().status, 403);

    rewrite(&world, r#"workload = "payment-*""#, r#"workload = "reporting""#);
    let reloaded = world.cli(&["config", "reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    let issued = client.issue(&reporting, &body).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    assert_eq!(world.events("config.reloaded").len(), 1);

    // A mistake is told with its place, and what served goes on serving.
    rewrite(&world, r#"roles = ["*"]"#, r#"rolls = ["*"]"#);
    let refused = world.cli(&["config", "reload"]);
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("broker.toml:") && told.contains("rolls"), "{told}");
    assert_eq!(client.issue(&reporting, &body).await.unwrap().status, 201);
    assert_eq!(world.events("plugin.rejected").len(), 1);
    assert_eq!(world.events("config.reloaded").len(), 1);

    // By signal it is the same.
    rewrite(&world, r#"rolls = ["*"]"#, r#"roles = ["app_read_write"]"#);
    let pid = world.process().pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    eventually("the signal is followed", async || world.events("config.reloaded").len() == 2).await;
    assert_eq!(client.issue(&reporting, &body).await.unwrap().status, 403);

    // Leases that the old configuration made end under the new one.
    let revoked = world.cli(&["lease", "revoke", issued.lease()]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    assert!(!world.accounts().await.contains(&issued.username().to_owned()));
    world.assert_log_is_intact();
}

#[tokio::test]
async fn no_request_fails_or_is_half_decided_while_reloads_go_on() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let stranger = client.token("reporting").await.unwrap();
    let workers: Vec<_> = (0..8)
        .map(|number| {
            let (client, token) = (client.clone(), if number % 2 == 0 { token.clone() } else { stranger.clone() });
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                for _ in 0..40 {
                    let body = json!({"target": "inventory_db", "ttl": "10m"});
                    statuses.push(client.post("/v1/simulate", &token, &body).await.unwrap().json["decision"].clone());
                }
                (number, statuses)
            })
        })
        .collect();
    for _ in 0..10 {
        let reloaded = world.cli(&["config", "reload"]);
        assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    }
    for worker in workers {
        let (number, decisions) = worker.await.unwrap();
        let expected = if number % 2 == 0 { "allow" } else { "deny" };
        assert!(decisions.iter().all(|decision| decision == expected), "{decisions:?}");
    }
}
