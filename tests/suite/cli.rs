//! The commands, as an operator types them.

use std::process::Output;

use jit_tests::world::eventually;
use jit_tests::{Settings, World, surroundings};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn expect(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    text(output)
}

/// Issues one lease and gives its id.
async fn issue(world: &World) -> String {
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let issued = client.issue(&token, &json!({"target": "inventory_db", "ttl": "10m"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    issued.lease().to_owned()
}

/// Changes the store of a broker that does not run, as somebody who means harm would.
async fn tamper(world: &World, statements: &[&str]) {
    let path = world.folder.path().join("broker.db");
    let mut store = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    for statement in ["DROP TRIGGER IF EXISTS audit_keeps_records", "DROP TRIGGER IF EXISTS audit_changes_nothing"] {
        store.execute(statement).await.unwrap();
    }
    for statement in statements {
        let done = store.execute(AssertSqlSafe((*statement).to_owned())).await.unwrap();
        // One that finds nothing to change would be no harm, and nothing to be found.
        assert!(done.rows_affected() > 0, "it changed nothing: {statement}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn leases_are_listed_shown_and_revoked() {
    let world = World::new().await;
    let id = issue(&world).await;
    let listed = expect(&world.cli(&["lease", "list"]), 0);
    assert!(listed.contains(&id) && listed.contains("payment-service") && listed.contains("1 lease\n"), "{listed}");
    let shown = world.cli(&["lease", "show", &id, "--format", "json"]);
    let lease: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&lease["state"], &lease["attempts"]), (&json!("active"), &json!(0)));
    assert!(lease["request_id"].as_str().unwrap().starts_with("req_") && lease.get("ended_at").is_none(), "{lease}");
    let revoked = expect(&world.cli(&["lease", "revoke", &id]), 0);
    assert!(revoked.contains("is gone"), "{revoked}");
    assert!(world.accounts().await.is_empty());
    assert_eq!(world.events("admin.revoke").len(), 1);
    let none = expect(&world.cli(&["lease", "show", "lease_00000000000000000000000000"]), 1);
    assert!(none.contains("no such lease"), "{none}");
    let empty = expect(&world.cli(&["lease", "list", "--state", "active"]), 0);
    assert!(empty.contains("0 leases"), "{empty}");
    // How it ended, and by whom: the test's own user.
    let shown = world.cli(&["lease", "show", &id, "--format", "json"]);
    let lease: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(world.config()).unwrap());
    assert_eq!((&lease["closed_because"], &lease["closed_by_uid"]), (&json!("operator"), &json!(uid)), "{lease}");
    let [issued, ended] =
        ["issued_at", "ended_at"].map(|field| lease[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    assert!(ended >= issued, "{lease}");
    let said = expect(&world.cli(&["lease", "show", &id]), 0);
    assert!(said.contains(&format!("revoked by the operator with uid {uid}")), "{said}");
    expect(&world.cli(&["lease", "list", "--state", "sleeping"]), 1);
}

#[tokio::test]
async fn a_list_has_what_lives_and_on_request_what_has_ended() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(issue(&world).await);
    }
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let own = client.post(&format!("/v1/leases/{}/revoke", ids[0]), &token, &json!({})).await.unwrap();
    assert_eq!(own.status, 200, "{}", own.text);
    expect(&world.cli(&["lease", "revoke", &ids[1]]), 0);
    let list = |more: &[&str]| {
        let mut arguments = vec!["lease", "list"];
        arguments.extend(more);
        expect(&world.cli(&arguments), 0)
    };
    let has = |text: &str| ids.iter().map(|id| text.contains(id.as_str())).collect::<Vec<_>>();
    let lives = list(&[]);
    assert_eq!(has(&lives), [false, false, true, true], "{lives}");
    assert!(lives.contains("2 leases") && lives.contains("ENDS") && lives.contains("in "), "{lives}");
    assert!(!lives.contains("there are more"), "{lives}");
    let ended = list(&["--ended"]);
    assert_eq!(has(&ended), [true, true, false, false], "{ended}");
    assert!(ended.contains("given back, ") && ended.contains("revoked by the operator with uid"), "{ended}");
    assert_eq!(has(&list(&["--all"])), [true; 4]);
    // The newest, and that there are more.
    let newest = list(&["--all", "--limit", "3"]);
    assert_eq!(has(&newest), [false, true, true, true], "{newest}");
    assert!(newest.contains("3 leases") && newest.contains("there are more"), "{newest}");
    let exactly = list(&["--all", "--limit", "4"]);
    assert!(exactly.contains("4 leases") && !exactly.contains("there are more"), "{exactly}");
    assert_eq!(has(&list(&["--workload", "payment-service"])), [false, false, true, true]);
    let nobody = list(&["--workload", "nobody", "--target", "inventory_db"]);
    assert!(nobody.starts_with("0 leases") && nobody.contains("--all"), "{nobody}");
    let both = expect(&world.cli(&["lease", "list", "--all", "--ended"]), 2);
    assert!(both.contains("cannot be used with"), "{both}");
}

#[tokio::test]
async fn without_a_broker_the_command_says_so_and_where_it_looked() {
    let world = World::prepared(Settings::default()).await;
    let told = expect(&world.cli(&["lease", "list"]), 4);
    assert!(told.contains("no broker answers on") && told.contains("admin.sock"), "{told}");
}

#[tokio::test]
async fn a_second_broker_on_the_same_store_is_refused() {
    let world = World::new().await;
    let second = std::process::Command::new(world.binary())
        .args(["dev", "--issuer", "127.0.0.1:0", "--config"])
        .arg(world.config())
        .output()
        .unwrap();
    let told = expect(&second, 1);
    assert!(told.contains("broker.db") && told.contains("another"), "{told}");
    assert_eq!(issue(&world).await.len(), 32, "the first serves on");
}

#[tokio::test]
async fn a_configuration_is_checked_with_file_line_and_remedy() {
    let world = World::prepared(Settings::default()).await;
    let good = std::fs::read_to_string(world.config()).unwrap();
    for (from, to, told) in [
        ("listen =", "lisen =", "did you mean `listen`"),
        ("driver = \"postgres\"", "driver = \"postgre\"", "postgre"),
        ("default_ttl = \"1h\"", "default_ttl = \"soon\"", "duration"),
        ("default_role = \"app_read_only\"", "default_role = \"app_read\"", "app_read"),
        ("policies = [\"allow\"]", "policies = []", "polic"),
        ("password = { file = \"inventory.password\" }", "password = \"hunter2-hunter2\"", "file"),
    ] {
        assert!(good.contains(from), "{from}");
        let line = good.lines().position(|line| line.contains(from)).unwrap() + 1;
        std::fs::write(world.config(), good.replacen(from, to, 1)).unwrap();
        let checked = world.cli(&["config", "check", "--offline"]);
        let out = expect(&checked, 3);
        assert!(out.contains(&format!("broker.toml:{line}:")) && out.contains(told), "{to}: {out}");
        assert!(!out.contains("hunter2"), "{out}");
    }
    let example = world.cli(&["config", "example"]);
    let example = expect(&example, 0);
    std::fs::write(world.config(), &example).unwrap();
    let out = expect(&world.cli(&["config", "check", "--offline"]), 3);
    assert!(out.contains("driver-postgres.wasm") && !out.contains("unknown key"), "only its files are missing: {out}");
}

#[tokio::test]
async fn a_configuration_check_asks_the_target() {
    let settings = Settings {
        more: "[[identity.jwt]]\nname = \"x\"\nissuer = \"https://issuer.invalid\"\naudiences = [\"jit-broker\"]\nworkload = \"{sub}\"\n".into(),
        ..Settings::default()
    };
    let world = World::prepared(settings).await;
    expect(&world.cli(&["audit", "key", &world.folder.path().join("audit.key").display().to_string()]), 0);
    // Its issuer is nowhere; a whole that is good is in `check::`.
    let out = expect(&world.cli(&["config", "check"]), 3);
    assert!(out.contains("target inventory_db: good") && out.contains("1 issuer is not in order"), "{out}");
    let revoke = format!("REVOKE {} FROM {}", world.database.read_only, world.database.broker);
    world.database.execute(&revoke).await.unwrap();
    let out = expect(&world.cli(&["config", "check"]), 3);
    assert!(out.contains(&world.database.read_only), "what is missing is named: {out}");
}

/// BRAKE: a store that is new, or was set back, does not end accounts that it does not know.
#[tokio::test]
async fn an_account_that_the_store_forgot_is_held_until_an_operator_decides() {
    let mut world = World::new().await;
    let id = issue(&world).await;
    let account = world.accounts().await[0].clone();
    // The store forgets the lease, as after a restore of an old backup.
    world.process().kill().unwrap();
    tamper(&world, &[&format!("DELETE FROM leases WHERE id = '{id}'")]).await;
    let foreign = format!("{}nightly-report", world.prefix);
    world.database.execute(&format!("CREATE ROLE \"{foreign}\" LOGIN")).await.unwrap();
    std::fs::remove_file(world.folder.path().join("admin.sock")).ok();
    world.start(&[]).await;
    eventually("it is on record", async || world.events("removal.braked").len() == 1).await;
    let braked = &world.events("removal.braked")[0];
    assert_eq!((&braked["accounts"], &braked["named"]), (&json!(1), &json!([account])), "{braked}");
    assert!(braked["error"].as_str().unwrap().contains("the store is new"), "{braked}");
    // Neither the passes at the start nor one on demand remove it, and a dry run says why.
    expect(&world.cli(&["reconcile"]), 0);
    let report = expect(&world.cli(&["reconcile", "--dry-run", "--format", "json"]), 0);
    let report: Value = serde_json::from_str(&report).unwrap();
    let held = &report["targets"][0]["held"];
    assert_eq!((&held[0]["account"], held.as_array().unwrap().len()), (&json!(account), 1), "{report}");
    assert!(held[0]["expires_at"].is_string() && report["targets"][0]["ghosts"] == json!([]), "{report}");
    let table = expect(&world.cli(&["reconcile", "--dry-run"]), 0);
    assert!(table.contains("1 account held") && table.contains(&account), "{table}");
    assert!(world.accounts().await.contains(&account));
    assert_eq!(world.events("removal.braked").len(), 1, "one for each thing that is held");

    expect(&world.cli(&["reconcile", "--confirm", "--target", "inventory_db"]), 0);
    eventually("the account is gone", async || !world.accounts().await.contains(&account)).await;
    eventually("it is on record", async || world.events("reconcile.ghost_removed").len() == 1).await;
    assert_eq!(world.events("reconcile.ghost_removed")[0]["ephemeral_id"], account);
    assert_eq!(world.events("removal.confirmed")[0]["named"], json!([account]));
    assert_eq!(world.accounts().await, [foreign], "a name without this broker's mark is not ours");
}

#[tokio::test]
async fn a_lease_whose_account_is_missing_is_closed() {
    let world = World::new().await;
    let id = issue(&world).await;
    let account = world.accounts().await[0].clone();
    world.database.execute(&format!("DROP ROLE \"{account}\"")).await.unwrap();
    let dry = expect(&world.cli(&["reconcile", "--dry-run"]), 0);
    assert!(dry.contains(&id) && dry.contains("nothing was changed"), "{dry}");
    assert_eq!(world.leases()[0]["state"], "active");
    expect(&world.cli(&["reconcile"]), 0);
    eventually("the lease is closed", async || world.leases()[0]["state"] == "revoked").await;
    assert_eq!(world.events("reconcile.drift").len(), 1);
    let end = world.events("lease.revoked");
    assert_eq!((end.len(), &end[0]["cause"]), (1, &json!("drift")));
}

#[tokio::test]
async fn the_log_is_exported_and_verified_and_every_change_is_found() {
    let mut world = World::new().await;
    for _ in 0..5 {
        issue(&world).await;
    }
    let folder = world.folder.path().to_owned();
    let path = |name: &str| folder.join(name).display().to_string();
    world.assert_log_is_intact();
    expect(&world.cli(&["audit", "export", "--out", &path("copy.jsonl")]), 0);
    let key = expect(&world.cli(&["audit", "key", &path("audit.key"), "--show"]), 0).trim().to_owned();
    expect(&world.cli(&["audit", "verify", "--jsonl", &path("copy.jsonl"), "--key", &key]), 0);
    let lines = std::fs::read_to_string(path("copy.jsonl")).unwrap();
    std::fs::write(path("copy.jsonl"), lines.replacen("payment-service", "payment-servicE", 1)).unwrap();
    let out = expect(&world.cli(&["audit", "verify", "--jsonl", &path("copy.jsonl"), "--key", &key]), 3);
    assert!(out.contains("NOT INTACT"), "{out}");
    let kept = std::fs::read(path("copy.jsonl.checkpoint")).unwrap();
    std::fs::write(path("kept.checkpoint"), kept).unwrap();
    issue(&world).await;
    world.process().stop().unwrap();
    world.assert_log_is_intact();
    expect(&world.cli(&["audit", "verify", "--against", &path("kept.checkpoint")]), 0);

    let store = world.folder.path().join("broker.db");
    let good = std::fs::read(&store).unwrap();
    for (what, statement) in [
        (
            "3",
            "UPDATE audit SET record = replace(record, 'granted', 'denied') WHERE seq = (SELECT min(seq) FROM audit WHERE record LIKE '%granted%')",
        ),
        ("2", "DELETE FROM audit WHERE seq = 2"),
        (
            "record",
            "UPDATE audit SET record = (SELECT record FROM audit WHERE seq = 4), leaf = (SELECT leaf FROM audit WHERE seq = 4) WHERE seq = 3",
        ),
        ("truncated", "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)"),
        // The size, which every note has; a letter of its base64 is not in all of them.
        (
            "checkpoint",
            "UPDATE checkpoint SET note = replace(note, char(10) || size || char(10), char(10) || (size + 1) || char(10))",
        ),
    ] {
        std::fs::write(&store, &good).unwrap();
        tamper(&world, &[statement]).await;
        let out = expect(&world.cli(&["audit", "verify"]), 3);
        assert!(out.contains("NOT INTACT") && out.contains(what), "{statement}: {out}");
    }
}

#[tokio::test]
async fn plugins_are_listed_with_every_statement_and_checked() {
    let world = World::new().await;
    let listed = expect(&world.cli(&["plugin", "list", "--statements"]), 0);
    for part in ["postgres", "allow-list", "driver", "policy", "sql", "CREATE ROLE", "DROP ROLE"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let plugins = surroundings("JIT_TEST_PLUGINS");
    let good = expect(&world.cli(&["plugin", "check", &format!("{plugins}/policy-allow-list.wasm")]), 0);
    assert!(good.contains("a broker can load it"), "{good}");
    let garbage = world.folder.path().join("garbage.wasm");
    for (bytes, told) in [(&b"garbage"[..], "not"), (b"\0asm\x01\0\0\0", "component")] {
        std::fs::write(&garbage, bytes).unwrap();
        let out = expect(&world.cli(&["plugin", "check", &garbage.display().to_string()]), 3);
        assert!(out.contains(told), "{out}");
    }
}

#[tokio::test]
async fn every_command_explains_itself() {
    let world = World::prepared(Settings::default()).await;
    for command in [
        &["--help"][..],
        &["serve", "--help"],
        &["dev", "--help"],
        &["config", "check", "--help"],
        &["config", "reload", "--help"],
        &["plugin", "key", "--help"],
        &["plugin", "sign", "--help"],
        &["plugin", "verify", "--help"],
        &["lease", "list", "--help"],
        &["lease", "show", "--help"],
        &["lease", "revoke", "--help"],
        &["reconcile", "--help"],
        &["audit", "show", "--help"],
        &["audit", "verify", "--help"],
        &["audit", "export", "--help"],
        &["audit", "key", "--help"],
        &["plugin", "list", "--help"],
        &["plugin", "new", "--help"],
        &["plugin", "build", "--help"],
        &["plugin", "check", "--help"],
        &["plugin", "test", "--help"],
        &["policy", "simulate", "--help"],
        &["policy", "replay", "--help"],
    ] {
        let help = expect(&world.cli(command), 0);
        assert!(help.contains("Example") || help.contains("Exit codes"), "{command:?} shows how: {help}");
    }
    assert!(expect(&world.cli(&["completions", "bash"]), 0).contains("jit-broker"));
    let openapi = expect(&world.cli(&["openapi"]), 0);
    assert_eq!(
        serde_json::from_str::<Value>(&openapi).unwrap()["openapi"].as_str().unwrap().split('.').next(),
        Some("3")
    );
    assert_eq!(world.cli(&["--version"]).status.code(), Some(0));
    expect(&world.cli(&["leese"]), 2);
}

#[test]
fn a_reader_that_stops_ends_a_command_without_a_word() {
    for command in [&["openapi"][..], &["config", "example"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = std::process::Command::new(jit_tests::surroundings("JIT_TEST_BROKER"))
            .args(command)
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!((ended.status.code(), said.as_str()), (Some(141), ""), "{command:?}");
    }
}
