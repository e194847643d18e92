//! A store that was set back: an older copy of its file is put in its place, as from a backup (BRAKE).

use jit_tests::world::eventually;
use jit_tests::{Reply, Settings, World};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

async fn issue(world: &World) -> Reply {
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let issued = client.issue(&token, &json!({"target": "inventory_db", "ttl": "1h"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    issued
}

/// The store's files, of a broker that was stopped: its log of changes is in the file by then, or beside it.
fn files(world: &World) -> Vec<std::path::PathBuf> {
    let names = ["broker.db", "broker.db-wal", "broker.db-shm"];
    names.iter().map(|name| world.folder.path().join(name)).collect()
}

/// Copies the store of a stopped broker, and gives the copy.
fn backup(world: &World) -> Vec<Option<Vec<u8>>> {
    files(world).iter().map(|path| std::fs::read(path).ok()).collect()
}

fn put_back(world: &World, copy: &[Option<Vec<u8>>]) {
    for (path, content) in files(world).iter().zip(copy) {
        match content {
            Some(content) => std::fs::write(path, content).unwrap(),
            None => drop(std::fs::remove_file(path)),
        }
    }
}

/// A broker that has run for longer than its longest lease: its store is not new any more.
async fn aged(settings: Settings, without_export: bool) -> World {
    let mut world = World::prepared(settings).await;
    if without_export {
        world.rewrite("export = [{ kind = \"jsonl\", path = \"audit.jsonl\" }]", "export = []");
    }
    world.start(&[]).await;
    world.process().stop().unwrap();
    let store = SqliteConnectOptions::new().filename(world.folder.path().join("broker.db"));
    let mut store = store.connect().await.unwrap();
    let since = "UPDATE sealed SET value = CAST(json_set(CAST(value AS TEXT), '$.since', '2026-01-01T00:00:00Z') \
                 AS BLOB) WHERE purpose = 'broker'";
    assert_eq!(sqlx::query(since).execute(&mut store).await.unwrap().rows_affected(), 1);
    store.close().await.unwrap();
    world.start(&[]).await;
    world
}

/// Puts an older copy of the store in its place; `lost` leases are issued in between.
async fn set_back(world: &mut World, lost: usize) -> Vec<Reply> {
    world.process().stop().unwrap();
    let copy = backup(world);
    world.start(&[]).await;
    let mut issued = Vec::new();
    for _ in 0..lost {
        issued.push(issue(world).await);
    }
    world.process().stop().unwrap();
    put_back(world, &copy);
    world.start(&[]).await;
    issued
}

fn names(accounts: &[Reply]) -> Vec<String> {
    let mut names: Vec<String> = accounts.iter().map(|account| account.username().to_owned()).collect();
    names.sort_unstable();
    names
}

/// What a comparison would hold: name, reason, expiry.
fn held(world: &World) -> Vec<(String, String, bool)> {
    let output = world.cli(&["reconcile", "--dry-run", "--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let held = report["targets"][0]["held"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut held: Vec<_> =
        held.iter().map(|it| (text(&it["account"]), text(&it["reason"]), it["expires_at"].is_string())).collect();
    held.sort_unstable();
    held
}

async fn reconcile(world: &World, arguments: &[&str]) {
    let output = world.cli(&[&["reconcile"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn can_log_in(world: &World, account: &Reply) -> bool {
    world.database.login(account.username(), account.password()).await.is_ok()
}

/// The export has records that the store has not: that is noticed at the start and stays known.
#[tokio::test]
async fn a_store_that_lacks_what_its_export_has_ends_no_account_that_it_forgot() {
    let mut world = aged(Settings::default(), false).await;
    let kept = issue(&world).await;
    let lost = set_back(&mut world, 2).await;

    // Said in the log, on record, in the metrics, and by the command that operators use.
    eventually("it is on record", async || world.events("removal.braked").len() == 1).await;
    let braked = &world.events("removal.braked")[0];
    assert_eq!((&braked["accounts"], &braked["named"]), (&json!(2), &json!(names(&lost))), "{braked}");
    assert!(braked["error"].as_str().unwrap().contains("the store was rolled back"), "{braked}");
    let log = world.process().log();
    assert!(log.contains("the store was rolled back") && log.contains("audit.jsonl has "), "{log}");
    let client = world.client();
    let target = ["target=\"inventory_db\""];
    assert_eq!(client.metric("jit_removals_braked", &target).await.unwrap(), 2.0);
    assert_eq!(client.metric("jit_store_set_back", &[]).await.unwrap(), 1.0);
    let told = held(&world);
    assert_eq!(told.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>(), names(&lost));
    assert!(told.iter().all(|(_, reason, expires)| reason.contains("was rolled back") && *expires), "{told:?}");

    // No pass ends them, and neither does a restart with the export out of the way.
    reconcile(&world, &[]).await;
    world.process().stop().unwrap();
    std::fs::rename(world.folder.path().join("audit.jsonl"), world.folder.path().join("kept.jsonl")).unwrap();
    std::fs::remove_file(world.folder.path().join("audit.jsonl.checkpoint")).unwrap();
    world.start(&[]).await;
    reconcile(&world, &[]).await;
    for account in lost.iter().chain([&kept]) {
        assert!(can_log_in(&world, account).await, "{} is ended", account.username());
    }
    assert_eq!(held(&world).len(), 2);

    // One goes at its own expiry, the other when an operator says so; what the store knows stays.
    let over = format!("ALTER ROLE \"{}\" VALID UNTIL '2026-01-02'", lost[0].username());
    world.database.execute(&over).await.unwrap();
    reconcile(&world, &[]).await;
    eventually("it has run out", async || !world.accounts().await.contains(&names(&lost[..1])[0])).await;
    assert!(can_log_in(&world, &lost[1]).await);
    reconcile(&world, &["--confirm", "--target", "inventory_db"]).await;
    eventually("only what it knows is there", async || world.accounts().await == [kept.username()]).await;
    assert_eq!(world.events("removal.confirmed")[0]["named"], json!([lost[1].username()]));
    assert!(can_log_in(&world, &kept).await);
    world.assert_log_is_intact();
}

/// Without an export nothing tells that the store once had more. A young one does not end what it does not know.
#[tokio::test]
async fn a_young_store_without_an_export_ends_no_account_that_it_forgot() {
    let mut world = World::prepared(Settings::default()).await;
    world.rewrite("export = [{ kind = \"jsonl\", path = \"audit.jsonl\" }]", "export = []");
    world.start(&[]).await;
    let lost = set_back(&mut world, 2).await;
    eventually("they are held", async || held(&world).len() == 2).await;
    assert!(held(&world).iter().all(|(_, reason, _)| reason.contains("the store is new")), "{:?}", held(&world));
    reconcile(&world, &[]).await;
    for account in &lost {
        assert!(can_log_in(&world, account).await, "{} is ended", account.username());
    }
    assert_eq!(world.client().metric("jit_store_set_back", &[]).await.unwrap(), 0.0, "nothing tells that it was");
    reconcile(&world, &["--confirm"]).await;
    eventually("an operator has decided", async || world.accounts().await.is_empty()).await;
}

/// An old one has only the bound on how many go at once. What stays below it is not noticed, as docs/trouble.md says.
#[tokio::test]
async fn an_old_store_without_an_export_ends_no_accounts_in_numbers() {
    let mut world = aged(Settings::default(), true).await;
    let lost = set_back(&mut world, 6).await;
    eventually("they are held", async || held(&world).len() == 6).await;
    assert!(held(&world).iter().all(|(_, reason, _)| reason.contains("without a lease at once")), "{:?}", held(&world));
    reconcile(&world, &[]).await;
    for account in &lost {
        assert!(can_log_in(&world, account).await, "{} is ended", account.username());
    }
    reconcile(&world, &["--confirm"]).await;
    eventually("an operator has decided", async || world.accounts().await.is_empty()).await;
}
