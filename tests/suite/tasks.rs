//! Background tasks of a running broker: what `jit-broker status` says of them, and what a panic costs.

use std::path::Path;
use std::process::{Command, Output};

use jit_tests::world::eventually;
use jit_tests::{Settings, World};
use serde_json::{Value, json};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn expect(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    said(output)
}

/// What `status --json` says, with its exit code.
fn status(world: &World) -> (Option<i32>, Value) {
    let output = world.cli(&["status", "--json"]);
    let status = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (output.status.code(), status)
}

fn task<'s>(status: &'s Value, name: &str) -> &'s Value {
    let tasks = status["tasks"].as_array().unwrap();
    tasks.iter().find(|task| task["name"] == name).unwrap_or_else(|| panic!("no task {name}: {status}"))
}

fn about(status: &Value) -> Vec<&str> {
    status["alarms"].as_array().unwrap().iter().map(|alarm| alarm["about"].as_str().unwrap()).collect()
}

/// As `sha256sum` says it.
fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

async fn issue(world: &World, ttl: &str) -> String {
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let issued = client.issue(&token, &json!({"target": "inventory_db", "ttl": ttl})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    issued.lease().to_owned()
}

async fn readyz(world: &World) -> (u16, String) {
    let client = world.client();
    let ready = client.raw().get(format!("{}/readyz", client.broker)).send().await.unwrap();
    (ready.status().as_u16(), ready.text().await.unwrap())
}

#[tokio::test]
async fn status_says_how_a_broker_is_and_its_exit_code_does_too() {
    let mut world = World::new().await;
    issue(&world, "10m").await;
    eventually("all is well", async || status(&world).0 == Some(0)).await;
    let (_, well) = status(&world);
    assert_eq!((&well["alarms"], &well["store"]["kind"]), (&json!([]), &json!("sqlite")), "{well}");
    assert_eq!((&well["store"]["answers"], &well["store"]["room"]), (&json!(true), &json!("ample")), "{well}");
    assert!(well["store"]["records"].as_u64().unwrap() >= 3, "{well}");
    assert_eq!(well["config"]["trigger"], "start");
    assert_eq!(well["config"]["sha256"], sha256(&world.config()));
    assert_eq!(well["config"]["path"], world.config().display().to_string());
    let target = &well["targets"][0];
    assert_eq!(
        (&target["target"], &target["active"], &target["overdue"]),
        (&json!("inventory_db"), &json!(1), &json!(0))
    );
    for name in ["removal", "reconcile", "rotation", "upkeep", "housekeeping", "export", "target-check"] {
        let row = task(&well, name);
        assert_eq!((&row["last_result"], &row["failures_in_a_row"]), (&json!("ok"), &json!(0)), "{row}");
        assert!(row["last_success"].is_string() && row["runs"]["ok"].as_u64().unwrap() >= 1, "{row}");
    }
    let metric = world.client().metric("jit_task_last_success_seconds", &["task=\"removal\""]).await.unwrap();
    assert!(metric > 1_700_000_000.0, "{metric}");

    let table = expect(&world.cli(&["status"]), 0);
    assert!(table.contains("inventory_db") && table.contains("housekeeping") && table.contains("steady"), "{table}");
    assert!(!table.contains("ALARM") && !table.contains('\u{1b}'), "{table}");

    // In a pipe `top` prints once and ends: target, rate, asked, granted, denied, failed, active, overdue.
    let top = expect(&world.cli(&["top"]), 0);
    let row = top.lines().find(|line| line.contains("inventory_db")).unwrap_or_else(|| panic!("{top}"));
    let numbers: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(numbers, ["inventory_db", "-", "1", "1", "0", "0", "1", "0", "-"], "{top}");
    assert!(!top.contains('\u{1b}'), "{top}");

    // What the file says now is refused: the broker serves what it read before, and says so.
    let path = world.config();
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{good}\n[tarquets]\n")).unwrap();
    reload(&mut world);
    eventually("the file is refused", async || status_by_socket(&world, &path).0 == Some(1)).await;
    let (_, refused) = status_by_socket(&world, &path);
    assert!(about(&refused).contains(&"config"), "{refused}");
    assert!(refused["config"]["refused"].as_str().unwrap().contains("tarquets"), "{refused}");
    let socket = world.folder.path().join("admin.sock").display().to_string();
    let table = expect(&world.cli(&["status", "--socket", &socket]), 1);
    assert!(table.starts_with("ALARM  config: "), "{table}");
    std::fs::write(&path, good).unwrap();
    reload(&mut world);
    eventually("the good file is back", async || status_by_socket(&world, &path).0 == Some(0)).await;
    assert_eq!(status(&world).1["config"]["refused"], Value::Null);

    world.process().stop().unwrap();
    let nobody = expect(&world.cli(&["status"]), 2);
    assert!(nobody.contains("no broker answers"), "{nobody}");
}

/// The broker reads its configuration again.
fn reload(world: &mut World) {
    let pid = world.process().pid().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
}

/// As [`status`], while the configuration cannot be read.
fn status_by_socket(world: &World, config: &Path) -> (Option<i32>, Value) {
    let socket = config.with_file_name("admin.sock").display().to_string();
    let output = world.cli(&["status", "--json", "--socket", &socket]);
    let status = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (output.status.code(), status)
}

/// The pass itself, and the work on one lease that it hands over.
#[tokio::test]
async fn a_removal_task_that_panics_is_seen_and_the_account_is_removed_nevertheless() {
    let mut world = World::prepared(Settings { failpoints: true, ..Settings::default() }).await;
    world.start(&[("JIT_FAILPOINTS", "removal.pass=panic#2; revoke.driver=panic#1")]).await;
    let lease = issue(&world, "2s").await;
    world.lease_becomes(&lease, "revoked").await;
    assert!(world.accounts().await.is_empty());
    assert_eq!(world.records_of(&lease, "lease.expired"), 1);

    let log = world.process().log();
    let told = |what: &str| log.lines().any(|line| line.contains(what) && line.contains("removal"));
    assert!(told("a background task panicked"), "{log}");
    assert!(log.contains("the code panicked as it removed an account"), "{log}");
    let client = world.client();
    let (task_label, panicked) = ("task=\"removal\"", "result=\"panicked\"");
    let count = async |name, labels: &[&str]| client.metric(name, labels).await.unwrap();
    assert!((count("jit_task_runs_total", &[task_label, panicked]).await - 1.0).abs() < 0.5);
    assert!((count("jit_task_side_panics_total", &[task_label]).await - 1.0).abs() < 0.5);
    // The removal that panicked counts as one that failed.
    assert!((count("jit_revoke_failed_total", &["target=\"inventory_db\""]).await - 1.0).abs() < 0.5);
    let (_, after) = status(&world);
    let row = task(&after, "removal");
    assert_eq!((&row["runs"]["panicked"], &row["last_result"]), (&json!(1), &json!("ok")), "{row}");
    assert_eq!(row["beside_panicked"], Value::Null, "the lease was removed since: {row}");
    world.assert_log_is_intact();
}

#[tokio::test]
async fn without_a_removal_task_nothing_is_handed_out_and_what_is_out_can_be_given_back() {
    let mut world = World::prepared(Settings { failpoints: true, ..Settings::default() }).await;
    world.start(&[]).await;
    let held = issue(&world, "10m").await;
    world.process().stop().unwrap();
    world.start(&[("JIT_FAILPOINTS", "removal.pass=panic")]).await;
    eventually("the task is down", async || readyz(&world).await.1.contains("removal task")).await;
    assert_eq!(readyz(&world).await.0, 200, "revocations are served");
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let refused = client.issue(&token, &json!({"target": "inventory_db", "ttl": "10m"})).await.unwrap();
    refused.assert_problem(503, "removal-down");
    let path = format!("/v1/leases/{held}");
    client.post(&format!("{path}/renew"), &token, &json!({})).await.unwrap().assert_problem(503, "removal-down");
    let (code, unwell) = status(&world);
    assert_eq!((code, about(&unwell)[0]), (Some(1), "task removal"), "{unwell}");
    let table = expect(&world.cli(&["status"]), 1);
    assert!(table.starts_with("ALARM  task removal: no account is removed"), "{table}");
    let revoked = client.post(&format!("{path}/revoke"), &token, &json!({})).await.unwrap();
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert!(world.accounts().await.is_empty());
}
