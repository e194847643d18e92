//! SIGTERM and SIGINT: what is at work is finished or taken back, on record, and nothing is
//! forgotten. A statement that outlives the broker leaves nothing either.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use jit_tests::world::eventually;
use jit_tests::{Settings, World};
use serde_json::json;
use sqlx::Executor as _;

use crate::outage::{on, own_server};

/// How often a broker is started and stopped at another moment; far more often with `JIT_TEST_STOPS`.
const STOPS: u64 = 8;

/// SIGTERM at any moment of a start and after it ends the process, and what it leaves is in order.
#[tokio::test]
async fn a_stop_at_any_moment_ends_the_process() {
    let mut world = World::new().await;
    world.process().stop().unwrap();
    world.broker = None;
    let stops = std::env::var("JIT_TEST_STOPS").ok().and_then(|text| text.parse().ok()).unwrap_or(STOPS);
    for number in 0..stops {
        let log = std::fs::OpenOptions::new().append(true).open(world.log_path()).unwrap();
        let mut broker = Command::new(world.binary())
            .args(["dev", "--issuer", "127.0.0.1:0", "--config"])
            .arg(world.config())
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        // Spread over two seconds, in an order that comes near every moment.
        tokio::time::sleep(Duration::from_millis(number * 1_237 % 2_000)).await;
        let pid = broker.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let begun = std::time::Instant::now();
        let status = loop {
            if let Some(status) = broker.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > Duration::from_secs(90) {
                broker.kill().unwrap();
                panic!("SIGTERM after {} ms was lost", number * 1_237 % 2_000);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // So early that nothing was there to be ended in order.
        let at_once = std::os::unix::process::ExitStatusExt::signal(&status) == Some(15);
        assert!(status.success() || at_once, "{status}");
    }
    world.start(&[]).await;
    world.assert_log_is_intact();
    world.assert_settled(&[]).await;
}

fn signal(world: &mut World, name: &str) {
    let pid = world.process().pid().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}

async fn ends_in_order(name: &str) {
    let mut world = World::prepared(Settings { failpoints: true, ..Settings::default() }).await;
    world.start(&[("JIT_FAILPOINTS", "issue.create=stall")]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (client, token) = (client.clone(), token.clone());
        callers.spawn(async move { client.issue(&token, &json!({"target": "inventory_db", "ttl": "1h"})).await });
    }
    eventually("all are under way", async || {
        world.leases().iter().filter(|lease| lease["state"] == "pending").count() == 6
    })
    .await;
    signal(&mut world, name);
    eventually("no new connection is taken", async || {
        tokio::net::TcpStream::connect(client.broker.trim_start_matches("http://")).await.is_err()
    })
    .await;
    let mut disclosed = Vec::new();
    while let Some(reply) = callers.join_next().await {
        // No reply at all is an end that a client has to expect; a refusal says so.
        if let Ok(reply) = reply.unwrap()
            && reply.status == 201
        {
            disclosed.push(reply);
        }
    }
    let status = world.process().wait_for_end(Duration::from_secs(60)).unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(disclosed.len(), 6, "there was time enough to finish them");
    let records = world.audit();
    assert_eq!(records.last().unwrap()["event"], "broker.stopped");
    world.assert_log_is_intact();
    let there: BTreeSet<String> = world.accounts().await.into_iter().collect();
    let told: BTreeSet<String> = disclosed.iter().map(|reply| reply.username().to_owned()).collect();
    assert_eq!(there, told);

    world.start(&[]).await;
    let disclosed: Vec<String> = disclosed.iter().map(|reply| reply.lease().to_owned()).collect();
    world.assert_settled(&disclosed).await;
    assert!(world.leases().iter().all(|lease| lease["state"] == "active"), "nothing had to be recovered");
    assert_eq!(world.events("lease.doubtful").len(), 0);
    let exported = jit_tests::world::read(&world.folder.path().join("audit.jsonl")).unwrap();
    assert!(exported.contains("broker.stopped"));
}

#[tokio::test]
async fn sigterm_finishes_what_is_under_way() {
    ends_in_order("TERM").await;
}

#[tokio::test]
async fn sigint_does_the_same() {
    ends_in_order("INT").await;
}

#[tokio::test]
async fn a_reply_that_nobody_came_for_goes_at_the_stop() {
    let mut world = World::prepared(Settings { failpoints: true, ..Settings::default() }).await;
    world.start(&[("JIT_FAILPOINTS", "issue.create=stall")]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let ask = client
        .raw()
        .post(format!("{}/issue", client.broker))
        .bearer_auth(&token)
        .header("idempotency-key", "gone")
        .json(&json!({"target": "inventory_db"}));
    let caller = tokio::spawn(ask.send());
    eventually("it is under way", async || world.leases().len() == 1).await;
    caller.abort();
    eventually("it is settled, for a retry that may come", async || world.leases()[0]["state"] == "active").await;
    let status = world.process().stop().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(world.accounts().await, Vec::<String>::new(), "nobody can come for it any more");
    assert_eq!(world.audit().last().unwrap()["event"], "broker.stopped");
    world.start(&[]).await;
    world.assert_settled(&[]).await;
    assert_eq!(world.leases()[0]["state"], "revoked");
}

/// The server holds the statements back for longer than the broker waits: it ends all the same,
/// and what they do after its end is undone by its next start.
async fn statements_that_outlive_the_broker(end: impl AsyncFnOnce(&mut World)) {
    let server = own_server(&[]);
    let mut world = World::with(Settings { server: "shutdown_grace = \"1s\"".to_owned(), ..on(&server) }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let mut lock = world.database.superuser().await.unwrap();
    lock.execute("BEGIN; LOCK TABLE pg_authid IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (client, token) = (client.clone(), token.clone());
        callers.spawn(async move { client.issue(&token, &json!({"target": "inventory_db", "ttl": "1h"})).await });
    }
    let broker = world.database.broker.clone();
    let waiting =
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{broker}' AND wait_event_type = 'Lock'");
    eventually("the server holds them back", async || world.database.value(&waiting).await.unwrap() == "4").await;
    end(&mut world).await;
    while let Some(reply) = callers.join_next().await {
        assert!(reply.unwrap().map_or(0, |reply| reply.status) != 201);
    }
    world.start(&[]).await;
    lock.execute("COMMIT").await.unwrap();
    eventually("the statements have ended", async || world.database.value(&waiting).await.unwrap() == "0").await;
    world.assert_settled(&[]).await;
    // Whatever they did last: once more, when no statement of the dead broker can be left.
    eventually("no session is older than the broker", async || {
        let old = "SELECT count(*) FROM pg_stat_activity \
                   WHERE state = 'active' AND query LIKE '%CREATE ROLE%' AND pid <> pg_backend_pid()";
        world.database.value(old).await.unwrap() == "0"
    })
    .await;
    world.assert_settled(&[]).await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_server_that_does_not_answer() {
    statements_that_outlive_the_broker(async |world| {
        signal(world, "TERM");
        let status = world.process().wait_for_end(Duration::from_secs(60)).unwrap();
        assert!(status.success(), "{status}");
    })
    .await;
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_statement_that_waits() {
    statements_that_outlive_the_broker(async |world| world.process().kill().unwrap()).await;
}
