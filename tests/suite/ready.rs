//! Passwords that are made ahead: they log in, nobody gets one that another has, and a reload wipes them.

use std::collections::HashSet;

use jit_tests::world::eventually;
use jit_tests::{Settings, World};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_ready_logs_in_and_is_nobody_elses() {
    let world = World::with(Settings::default()).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db"});
    let how_many = async || client.metric("jit_ready_passwords", &[]).await.unwrap() as usize;
    let placed = async |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        client.metric("jit_ready_passwords_total", &[&outcome]).await.unwrap() as usize
    };
    assert_eq!(how_many().await, 0, "nobody asked for one yet");

    let mut handed_out = vec![client.issue(&token, &body).await.unwrap()];
    assert_eq!((placed("ready").await, placed("computed").await), (0, 1));
    for asked in 1..=8 {
        eventually("as many are ready as were asked for", async || how_many().await == asked).await;
        handed_out.push(client.issue(&token, &body).await.unwrap());
        assert_eq!((placed("ready").await, placed("computed").await), (asked, 1));
    }
    // More requests than passwords: a request that finds none gets one that is made for it.
    let at_once = (0..24).map(|_| {
        let (client, token, body) = (client.clone(), token.clone(), body.clone());
        tokio::spawn(async move { client.issue(&token, &body).await.unwrap() })
    });
    for reply in at_once.collect::<Vec<_>>() {
        handed_out.push(reply.await.unwrap());
    }
    assert_eq!(placed("ready").await + placed("computed").await, handed_out.len());
    assert!(placed("ready").await > 8);
    let different: HashSet<&str> = handed_out.iter().map(|reply| reply.password()).collect();
    assert_eq!(different.len(), handed_out.len(), "each has its own password");
    for reply in &handed_out {
        assert_eq!(reply.status, 201, "{}", reply.text);
        world.database.login(reply.username(), reply.password()).await.unwrap();
    }
    let other = world.database.login(handed_out[1].username(), handed_out[2].password()).await;
    assert!(other.is_err(), "the password of another account does not log in");
    let names = handed_out.iter().map(|reply| format!("'{}'", reply.username())).collect::<Vec<_>>().join(", ");
    let salts = "SELECT count(DISTINCT split_part(rolpassword, '$', 2))::text FROM pg_authid WHERE rolname IN";
    let salts = world.database.value(&format!("{salts} ({names})")).await.unwrap();
    assert_eq!(salts, handed_out.len().to_string(), "each has its own salt");

    eventually("the shelf is full", async || how_many().await == handed_out.len()).await;
    let reloaded = world.cli(&["config", "reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    assert_eq!(how_many().await, 0, "another configuration may need other forms");
    let after = client.issue(&token, &body).await.unwrap();
    world.database.login(after.username(), after.password()).await.unwrap();
    world.assert_log_is_intact();
}
