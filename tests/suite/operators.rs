//! What operators see of a running broker, and of one that was tampered with: beyond `cli.rs`, the
//! cases that go wrong.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use jit_tests::world::eventually;
use jit_tests::{Settings, World};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

fn expect(output: &Output, code: i32) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

async fn issue(world: &World) -> (String, String) {
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let issued = client.issue(&token, &json!({"target": "inventory_db", "ttl": "10m"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    (issued.lease().to_owned(), issued.username().to_owned())
}

/// Makes a role as the broker would: so it may remove it, too.
async fn create_role(world: &World, name: &str) {
    let database = &world.database;
    let mut broker: PgConnection = database.login(&database.broker, &database.password).await.unwrap();
    let statement = format!("CREATE ROLE \"{name}\" LOGIN IN ROLE {}", database.read_only);
    broker.execute(AssertSqlSafe(statement)).await.unwrap();
}

#[tokio::test]
async fn a_ghost_is_shown_by_a_dry_run_and_goes_with_the_real_one() {
    let world = World::new().await;
    let (kept, account) = issue(&world).await;
    let (gone, ghost) = issue(&world).await;
    expect(&world.cli(&["lease", "revoke", &gone]), 0);
    // An account that nobody leased: a name that this broker makes, and no live lease.
    create_role(&world, &ghost).await;
    // Somebody else's: the check character at the end is another one.
    let last = if ghost.ends_with('a') { 'b' } else { 'a' };
    let foreign = format!("{}{last}", &ghost[..ghost.len() - 1]);
    create_role(&world, &foreign).await;
    let mut all = vec![account.clone(), ghost.clone(), foreign.clone()];
    all.sort();

    let dry = world.cli(&["reconcile", "--dry-run", "--format", "json"]);
    let report: Value = serde_json::from_str(&expect(&dry, 0)).unwrap();
    let target = &report["targets"][0];
    assert_eq!((&report["dry_run"], &target["accounts"]), (&json!(true), &json!(2)), "{report}");
    assert_eq!((&target["ghosts"], &target["missing"]), (&json!([ghost]), &json!([])), "{report}");
    let table = expect(&world.cli(&["reconcile", "--dry-run"]), 0);
    assert!(table.contains(&ghost) && table.contains("nothing was changed"), "{table}");
    assert_eq!(world.accounts().await, all);
    assert!(world.events("reconcile.ghost_removed").is_empty());

    let real = expect(&world.cli(&["reconcile"]), 0);
    let left = format!("1 name like ours is left alone, without this broker's mark: {foreign}");
    assert!(real.contains(&ghost) && real.contains(&left), "{real}");
    eventually("the ghost is on record", async || !world.events("reconcile.ghost_removed").is_empty()).await;
    assert_eq!(world.events("reconcile.ghost_removed")[0]["ephemeral_id"], ghost);
    all.retain(|name| *name != ghost);
    assert_eq!(world.accounts().await, all);
    assert_eq!(world.lease(&kept)["state"], "active");
    // Each time it was asked for is on record, and whether it was to change something.
    let asked: Vec<Value> =
        world.events("admin.reconcile").into_iter().map(|record| record["dry_run"].clone()).collect();
    assert_eq!(asked, [true, true, false]);
    world.assert_log_is_intact();
}

#[tokio::test]
async fn only_the_brokers_own_user_can_administer_it() {
    let world = World::new().await;
    let mode = |file: &str| std::fs::metadata(world.folder.path().join(file)).unwrap().permissions().mode() & 0o777;
    eventually("the export has begun", async || world.folder.path().join("audit.jsonl").exists()).await;
    for private in ["admin.sock", "broker.db", "audit.key", "audit.jsonl"] {
        assert_eq!(mode(private), 0o600, "{private}");
    }
    // The administration is not on the port that everybody reaches.
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    for path in ["/admin/leases", "/admin/plugins", "/admin/reconcile"] {
        client.get(path, &token).await.unwrap().assert_problem(404, "not-found");
    }
}

#[tokio::test]
async fn a_second_broker_on_the_same_port_is_refused_before_it_touches_anything() {
    let first = World::new().await;
    let address = first.client().broker.trim_start_matches("http://").to_owned();
    let mut second = World::prepared(Settings::default()).await;
    let text = std::fs::read_to_string(second.config()).unwrap();
    std::fs::write(second.config(), text.replace("127.0.0.1:0", &address)).unwrap();
    let told = format!("{:#}", second.try_start(&[]).unwrap_err());
    assert!(told.contains(&format!("cannot listen on {address}")) && told.contains("[server] listen"), "{told}");
    assert!(!second.folder.path().join("broker.db").exists(), "nothing was made");
    issue(&first).await;
}

#[tokio::test]
async fn a_log_that_was_set_back_whole_is_found_by_a_checkpoint_kept_elsewhere() {
    let mut world = World::new().await;
    let folder = world.folder.path().to_owned();
    let path = |name: &str| folder.join(name);
    issue(&world).await;
    world.process().stop().unwrap();
    let earlier = std::fs::read(path("broker.db")).unwrap();
    world.start(&[]).await;
    issue(&world).await;
    let out = path("copy.jsonl").display().to_string();
    expect(&world.cli(&["audit", "export", "--out", &out]), 0);
    let checkpoint = path("copy.jsonl.checkpoint").display().to_string();
    world.process().stop().unwrap();
    world.assert_log_is_intact();

    // The store of an hour ago, with the checkpoint of an hour ago: by itself all in order.
    for side in ["broker.db-wal", "broker.db-shm"] {
        let _ = std::fs::remove_file(path(side));
    }
    std::fs::write(path("broker.db"), earlier).unwrap();
    world.assert_log_is_intact();
    let found = expect(&world.cli(&["audit", "verify", "--against", &checkpoint]), 3);
    assert!(found.contains("NOT INTACT") && found.contains("truncated"), "{found}");

    // Gone on with from there, the two histories contradict each other.
    world.start(&[]).await;
    for _ in 0..6 {
        issue(&world).await;
    }
    world.process().stop().unwrap();
    world.assert_log_is_intact();
    let found = expect(&world.cli(&["audit", "verify", "--against", &checkpoint]), 3);
    assert!(found.contains("NOT INTACT"), "{found}");
    // What is no checkpoint, or one of another key, is not taken for one.
    std::fs::write(path("nonsense"), "jit-broker\n7\nAAAA\n").unwrap();
    let nonsense = path("nonsense").display().to_string();
    assert_ne!(world.cli(&["audit", "verify", "--against", &nonsense]).status.code(), Some(0));
    let other = World::new().await;
    let key = expect(&other.cli(&["audit", "key", &other.folder.path().join("audit.key").display().to_string()]), 0);
    expect(&world.cli(&["audit", "verify", "--key", key.trim()]), 3);
}

#[tokio::test]
async fn records_are_found_by_lease_event_and_workload_and_an_export_overwrites_nothing() {
    let world = World::new().await;
    let (first, _) = issue(&world).await;
    let (second, _) = issue(&world).await;
    expect(&world.cli(&["lease", "revoke", &first]), 0);
    let show = |filter: &[&str]| {
        let args: Vec<&str> = ["audit", "show", "--format", "json"].iter().chain(filter).copied().collect();
        let text = expect(&world.cli(&args), 0);
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(show(&["--lease", &first]), ["issue.granted", "admin.revoke", "lease.revoked"]);
    assert_eq!(show(&["--lease", &second]), ["issue.granted"]);
    assert_eq!(show(&["--event", "issue."]), ["issue.granted", "issue.granted"]);
    assert_eq!(show(&["--event", "issue.granted", "--last", "1"]), ["issue.granted"]);
    assert_eq!(show(&["--workload", "payment-other"]), Vec::<Value>::new());
    assert!(show(&["--workload", "payment-service"]).len() >= 3);
    assert_eq!(show(&["--event", "issue.", "--since", "1h"]), ["issue.granted", "issue.granted"]);
    let granted = world.events("issue.granted");
    let request = granted.iter().find(|record| record["lease_id"] == first.as_str()).unwrap()["request_id"].clone();
    assert_eq!(show(&["--request", request.as_str().unwrap()])[0], "issue.granted");
    assert_eq!(show(&["--request", "req_00000000000000000000000000"]), Vec::<Value>::new());
    assert_eq!(show(&["--target", "inventory_db", "--event", "issue."]), ["issue.granted", "issue.granted"]);
    assert_eq!(show(&["--target", "another_db"]), Vec::<Value>::new());
    // In a pipe the table has all: what stands in it can be copied into the next command.
    let table = expect(&world.cli(&["audit", "show", "--lease", &first]), 0);
    assert!(table.contains("payment-service") && table.contains("app_read_only"), "{table}");
    assert!(table.contains(&first) && table.contains(request.as_str().unwrap()), "{table}");
    // Without a readable configuration, the store's file is enough. The error names the flag for it.
    let broken = world.folder.path().join("broken.toml").display().to_string();
    std::fs::write(&broken, "[store").unwrap();
    let told = world.cli(&["audit", "show", "--config", &broken]);
    assert!(!told.status.success(), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("--store FILE"), "{told:?}");
    let file = world.folder.path().join("broker.db").display().to_string();
    let table = expect(&world.cli(&["audit", "show", "--config", &broken, "--store", &file, "--lease", &second]), 0);
    assert!(table.contains("issue.granted") && table.contains(&second), "{table}");

    let out = world.folder.path().join("copy.jsonl").display().to_string();
    expect(&world.cli(&["audit", "export", "--out", &out]), 0);
    let before = std::fs::read(&out).unwrap();
    let told = expect(&world.cli(&["audit", "export", "--out", &out]), 1);
    assert!(told.contains("is there already: choose another name"), "{told}");
    assert_eq!(std::fs::read(&out).unwrap(), before);
    // And the broker's own export has the same lines.
    let exported = world.folder.path().join("audit.jsonl");
    let records = world.audit().len();
    eventually("the export has caught up", async || {
        std::fs::read_to_string(&exported).is_ok_and(|text| text.lines().count() == records)
    })
    .await;
    assert_eq!(std::fs::read(&exported).unwrap(), before);
}

#[tokio::test]
async fn every_command_there_is_has_a_text_and_the_readme_names_no_other() {
    let world = World::prepared(Settings::default()).await;
    let mut commands = vec![Vec::<String>::new()];
    let mut at = 0;
    while let Some(command) = commands.get(at).cloned() {
        let args: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = expect(&world.cli(&args), 0);
        let (about, rest) = help.split_once("\n\nUsage:").unwrap();
        assert!(about.len() > 10, "{command:?} says nothing: {help}");
        let (_, listed) = rest.split_once("Commands:\n").unwrap_or_default();
        for line in listed.split("\n\n").next().unwrap_or("").lines() {
            // What goes on from the line before stands further in.
            let row = line.strip_prefix("  ").filter(|row| !row.starts_with(' ')).unwrap_or_default();
            let name = row.split(' ').next().unwrap();
            if !name.is_empty() && name != "help" {
                commands.push(command.iter().cloned().chain([name.to_owned()]).collect());
            }
        }
        at += 1;
    }
    let known: Vec<String> = commands.iter().map(|command| command.join(" ")).collect();
    assert!(known.len() > 15, "{known:?}");
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    for named in readme.split("`jit-broker ").skip(1).map(|part| part.split('`').next().unwrap()) {
        let words = named.split_whitespace().take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()));
        let command = words.collect::<Vec<_>>().join(" ");
        assert!(known.contains(&command), "the README names {command:?}; there are {known:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = expect(&world.cli(&["completions", shell]), 0);
        assert!(script.contains("jit-broker") && script.contains("reconcile"), "{shell}: {script}");
    }
}

/// Below a mark of free space nothing new is handed out, and what was handed out can still be taken back.
#[tokio::test]
async fn on_a_disk_that_is_nearly_full_only_removals_go_on() {
    let mut world = World::new().await;
    let token = world.client().token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db"});
    let held = world.client().issue(&token, &body).await.unwrap();
    assert_eq!(held.status, 201, "{}", held.text);
    world.process().stop().unwrap();
    // No disk has as much: what is free is below each mark.
    world.rewrite("[store]\n", "[store]\nlow_space_mib = 1000000000\nstop_space_mib = 1000000000\n");
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let refused = client.issue(&token, &body).await.unwrap();
    refused.assert_problem(503, "audit-unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    let path = format!("/v1/leases/{}", held.lease());
    let renewed = client.post(&format!("{path}/renew"), &token, &json!({})).await.unwrap();
    renewed.assert_problem(503, "audit-unavailable");
    let ready = client.raw().get(format!("{}/readyz", client.broker)).send().await.unwrap();
    let status = ready.status();
    let told = ready.text().await.unwrap();
    assert!(status.is_success() && told.contains("nearly full"), "{told}");
    assert!(client.metric("jit_disk_room", &[]).await.unwrap() > 1.5, "the second mark");
    let revoked = client.post(&format!("{path}/revoke"), &token, &json!({})).await.unwrap();
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert_eq!(world.records_of(held.lease(), "lease.revoked"), 1);

    // Between the marks leases are issued, and denials are only counted.
    world.process().stop().unwrap();
    world.rewrite("stop_space_mib = 1000000000", "stop_space_mib = 0");
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    assert_eq!(client.issue(&token, &body).await.unwrap().status, 201);
    let other = client.token("reporting").await.unwrap();
    client.issue(&other, &body).await.unwrap().assert_problem(403, "policy-denied");
    eventually("the denial is counted", async || !world.events("issue.denied").is_empty()).await;
    let denied = world.events("issue.denied");
    assert_eq!((&denied[0]["count"], denied[0].get("input")), (&json!(1), None), "{denied:?}");
}

/// The log's oldest records leave the store for segments, on record, and the two are verified as one log.
#[tokio::test]
async fn the_log_is_closed_into_segments_that_verification_joins() {
    let mut world = World::prepared(Settings::default()).await;
    world.rewrite("[audit]\n", "[audit]\narchive = { path = \"archive\", keep = \"30d\" }\n");
    world.start(&[]).await;
    let token = world.client().token("payment-service").await.unwrap();
    for _ in 0..3 {
        let reply = world.client().issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
        assert_eq!(reply.status, 201, "{}", reply.text);
    }
    // A signed checkpoint is kept each minute, and when the broker stops.
    world.process().stop().unwrap();
    world.start(&[]).await;
    let oldest = |world: &World| world.audit().iter().filter_map(|record| record["seq"].as_u64()).min().unwrap();
    let before = oldest(&world);
    eventually("something was archived", async || {
        let output = world.cli(&["audit", "archive", "--keep", "1s", "--format", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let segments: Value = serde_json::from_slice(&output.stdout).unwrap();
        segments.as_array().is_some_and(|segments| !segments.is_empty())
    })
    .await;
    let archived = world.events("audit.archived");
    let (file, to) = (archived[0]["file"].as_str().unwrap(), archived[0]["to"].as_u64().unwrap());
    assert!(to >= 1, "{archived:?}");
    assert_eq!(std::fs::read_to_string(world.folder.path().join(file)).unwrap().lines().count() as u64, to);
    assert!(!world.events("admin.archive").is_empty());
    let left = oldest(&world);
    assert!(left >= before + to, "they left the store: from {before}, now from {left}, archived up to {to}");
    let output = world.cli(&["audit", "verify"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !told.contains("not read"), "{told}");
    // Nothing else is different: the broker goes on, also after a restart.
    world.process().stop().unwrap();
    world.start(&[]).await;
    // The issuer that is built in has new keys after a restart.
    let token = world.client().token("payment-service").await.unwrap();
    let reply = world.client().issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    world.assert_log_is_intact();
}
