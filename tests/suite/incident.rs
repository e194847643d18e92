//! The one action of an incident: an operator ends all leases of a workload, an issuer, a target or a plugin.

use std::collections::BTreeSet;
use std::process::Output;

use jit_tests::page::{commands, run};
use jit_tests::world::eventually;
use jit_tests::{Issuer, Key, Settings, World, surroundings};
use serde_json::{Value, json};

/// A second target, with another plugin, in which nothing has to be made.
const OTHER: &str = r#"
[plugins.noop]
path = "PLUGINS/driver-noop.wasm"
[targets.other]
driver = "noop"
policies = ["allow"]
default_role = "any"
roles.any = {}
"#;

fn other_target() -> String {
    OTHER.replace("PLUGINS", &surroundings("JIT_TEST_PLUGINS"))
}

fn expect(output: &Output, code: i32) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

async fn issue(world: &World, token: &str, target: &str, count: usize) -> BTreeSet<String> {
    let (client, mut leases) = (world.client(), BTreeSet::new());
    for _ in 0..count {
        let issued = client.issue(token, &json!({"target": target})).await.unwrap();
        assert_eq!(issued.status, 201, "{}", issued.text);
        leases.insert(issued.lease().to_owned());
    }
    leases
}

/// The leases in that state.
fn in_state(world: &World, state: &str) -> BTreeSet<String> {
    let leases = world.leases().into_iter().filter(|lease| lease["state"] == state);
    leases.map(|lease| lease["lease_id"].as_str().unwrap().to_owned()).collect()
}

/// The leases of the records of an event, each once.
fn on_record(world: &World, event: &str) -> BTreeSet<String> {
    let records = world.events(event);
    let named: BTreeSet<String> =
        records.iter().map(|record| record["lease_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(named.len(), records.len(), "{event}: once for each lease");
    named
}

#[tokio::test]
async fn one_command_ends_its_own_leases_and_no_others() {
    let world = World::with(Settings { more: other_target(), ..Settings::default() }).await;
    let client = world.client();
    let (stolen, kept) = (client.token("payment-stolen").await.unwrap(), client.token("payment-kept").await.unwrap());
    let mut inventory = issue(&world, &stolen, "inventory_db", 12).await;
    let elsewhere = issue(&world, &stolen, "other", 9).await;
    let mut others = issue(&world, &kept, "inventory_db", 5).await;
    others.extend(issue(&world, &kept, "other", 4).await);
    let revoke = |arguments: &[&str]| {
        let all: Vec<&str> = ["lease", "revoke"].iter().chain(arguments).copied().collect();
        world.cli(&all)
    };

    // What is not clear ends nothing.
    let said = expect(&revoke(&["--workload", "payment-stolen"]), 2);
    assert!(said.contains("add --all to end every lease of workload \"payment-stolen\""), "{said}");
    assert!(expect(&revoke(&["--all"]), 2).contains("--all needs a filter"));
    let said = expect(&revoke(&["--workload", "payment-stolen", "--all"]), 1);
    assert!(said.contains("End 21 leases of workload \"payment-stolen\" in 2 targets?") && said.contains("--yes"));
    let said = expect(&revoke(&["--workload", "payment-stolen", "--all", "--dry-run"]), 0);
    assert!(said.contains("would end 21 leases; nothing was changed") && said.contains("inventory_db"), "{said}");
    let said = expect(&revoke(&["--workload", "payment", "--all", "--yes"]), 0);
    assert!(said.contains("no lease of workload \"payment\""), "a beginning of a name is another name: {said}");
    assert_eq!(in_state(&world, "active").len(), 30);

    // Filters narrow each other.
    let of_one = ["--workload", "payment-stolen", "--target", "inventory_db", "--all", "--yes"];
    let said = expect(&revoke(&of_one), 0);
    assert!(said.contains("ended 12 leases") && said.contains("their accounts are gone"), "{said}");
    assert_eq!(in_state(&world, "revoked"), inventory);
    assert_eq!(world.accounts().await.len(), 5, "the other workload's");
    // By the plugin that made them, whose they are; counted for a program first.
    let by_plugin = ["--plugin", "noop", "--workload", "payment-stolen", "--all", "--format", "json"];
    let counted = revoke(&[&by_plugin[..], &["--dry-run"]].concat());
    let counted: Value = serde_json::from_str(&expect(&counted, 0)).unwrap();
    assert_eq!((&counted["dry_run"], &counted["targets"]["other"]["ended"]), (&json!(true), &json!(9)), "{counted}");
    let done: Value = serde_json::from_str(&expect(&revoke(&[&by_plugin[..], &["--yes"]].concat()), 0)).unwrap();
    assert_eq!((&done["targets"]["other"]["ended"], &done["left"]), (&json!(9), &json!({})), "{done}");
    inventory.extend(elsewhere);
    assert_eq!(in_state(&world, "revoked"), inventory);
    assert_eq!(in_state(&world, "active"), others);

    // Each has its own records, which say who it was.
    for event in ["admin.revoke", "lease.revoked"] {
        assert_eq!(on_record(&world, event), inventory, "{event}");
    }
    let uid = world.events("admin.revoke")[0]["operator_uid"].clone();
    assert!(uid.is_u64(), "{uid}");
    let ended = world.leases().into_iter().find(|lease| lease["state"] == "revoked").unwrap();
    assert_eq!((&ended["closed_because"], &ended["closed_by_uid"]), (&json!("operator"), &uid), "{ended}");
    world.assert_log_is_intact();
}

/// The page for operators, to the letter.
#[tokio::test]
async fn the_commands_of_the_page_end_what_they_say() {
    let world = World::with(Settings { more: other_target(), ..Settings::default() }).await;
    let client = world.client();
    let own = client.token("payment-service").await.unwrap();
    let mut ended = issue(&world, &own, "inventory_db", 2).await;
    ended.extend(issue(&world, &own, "other", 1).await);
    let another = client.token("payment-kept").await.unwrap();
    ended.extend(issue(&world, &another, "inventory_db", 2).await);
    let kept = issue(&world, &another, "other", 1).await;
    let page = commands("docs/operating.md", "incident").remove(0);
    let config = world.config().display().to_string();
    let (code, said) = run(world.folder.path(), &page, &[("JIT_CONFIG", &config)]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("would end 3 leases") && said.contains("ended 3 leases of workload"), "{said}");
    assert!(said.contains("ended 2 leases in target \"inventory_db\" made by plugin \"postgres\""), "{said}");
    assert_eq!((in_state(&world, "revoked"), in_state(&world, "active")), (ended, kept));
}

/// A caller chooses the name. The command treats it as data, and shows it without control characters.
#[tokio::test]
async fn a_hostile_workload_name_ends_its_own_leases_only() {
    let key = Key::generate("key-1").unwrap();
    let issuer = Issuer::start(&[&key]).await.unwrap();
    let more = format!(
        "[[identity.jwt]]\nname = \"own\"\nissuer = \"{}\"\naudiences = [\"jit-broker\"]\nworkload = \"{{sub}}\"\n",
        issuer.url
    );
    let world = World::with(Settings { more, ..Settings::default() }).await;
    let hostile = [
        "payment-' OR '1'='1",
        "payment-%",
        "payment-*",
        "payment-\"; DROP TABLE leases; --",
        "payment-é?workload=x&target=y#z",
        "payment-'; DROP TABLE leases; --",
    ];
    let mut leases = Vec::new();
    for name in hostile {
        let token = key.token(&issuer.claims(name)).unwrap();
        leases.push(issue(&world, &token, "inventory_db", 2).await);
    }
    let token = world.client().token("payment-service").await.unwrap();
    let mut left: BTreeSet<String> = leases.iter().flatten().cloned().collect();
    left.extend(issue(&world, &token, "inventory_db", 2).await);
    for (name, own) in hostile.into_iter().zip(&leases) {
        let said = expect(&world.cli(&["lease", "revoke", "--workload", name, "--all", "--yes"]), 0);
        assert!(said.contains("ended 2 leases"), "{name}: {said}");
        left.retain(|lease| !own.contains(lease));
        assert_eq!(in_state(&world, "active"), left, "{name}");
    }
    let said = expect(&world.cli(&["lease", "revoke", "--workload", "\u{1b}[2Jx\n", "--all", "--yes"]), 0);
    assert!(!said.contains('\u{1b}') && said.contains("no lease"), "{said:?}");
    // Of one issuer's workloads, whatever their names: the other's stay.
    let said = expect(&world.cli(&["lease", "revoke", "--issuer", "own", "--all", "--yes"]), 0);
    assert!(said.contains("no lease of issuer \"own\""), "{said}");
    assert_eq!(in_state(&world, "active"), left);
}

/// The broker is killed while it records the ends: what is on record ends, and the same command ends the others.
#[tokio::test]
async fn a_command_that_was_cut_off_is_run_again_and_ends_the_rest() {
    let mut world = World::prepared(Settings { failpoints: true, more: other_target(), ..Settings::default() }).await;
    world.start(&[("JIT_FAILPOINTS", "revoke.begin=crash-before#150")]).await;
    let client = world.client();
    let token = client.token("payment-stolen").await.unwrap();
    let mut stolen = issue(&world, &token, "other", 190).await;
    stolen.extend(issue(&world, &token, "inventory_db", 10).await);
    let kept = issue(&world, &client.token("payment-kept").await.unwrap(), "inventory_db", 3).await;
    let command = ["lease", "revoke", "--workload", "payment-stolen", "--all", "--yes"];
    let said = expect(&world.cli(&command), 4);
    assert!(said.contains("The same command continues"), "{said}");

    world.start(&[]).await;
    let left = in_state(&world, "active");
    assert!(kept.is_subset(&left) && left.len() > kept.len(), "the kill came before the end: {}", left.len());
    assert!(left.len() < stolen.len() + kept.len(), "the kill came after the first");
    let said = expect(&world.cli(&command), 0);
    assert!(said.contains(&format!("ended {} leases", left.len() - kept.len())), "{said}");
    eventually("the accounts are gone", async || world.accounts().await.len() == kept.len()).await;
    assert_eq!(in_state(&world, "active"), kept);
    assert_eq!(in_state(&world, "revoked"), stolen);
    assert_eq!(on_record(&world, "admin.revoke"), stolen);
    assert_eq!(on_record(&world, "lease.revoked"), stolen);
    // Once more, which finds nothing.
    assert!(expect(&world.cli(&command), 0).contains("no lease of workload \"payment-stolen\""));
    world.assert_log_is_intact();
}

/// A target that is away keeps its accounts: the command says so, and where, and a script can tell.
#[tokio::test]
async fn accounts_that_cannot_be_removed_are_named_and_go_later() {
    let world = World::new().await;
    let token = world.client().token("payment-stolen").await.unwrap();
    issue(&world, &token, "inventory_db", 3).await;
    let broker = world.database.broker.clone();
    world.database.execute(&format!("ALTER ROLE \"{broker}\" NOLOGIN")).await.unwrap();
    let sessions =
        format!("SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity WHERE usename = '{broker}'");
    world.database.value(&sessions).await.unwrap();
    let command = ["lease", "revoke", "--target", "inventory_db", "--all", "--yes", "--wait", "2s"];
    let said = expect(&world.cli(&command), 1);
    assert!(said.contains("ended 3 leases in target \"inventory_db\""), "{said}");
    assert!(said.contains("3 accounts are not removed yet"), "{said}");
    assert!(said.contains("`jit-broker lease list --target inventory_db --state revoking` says why"), "{said}");
    world.database.execute(&format!("ALTER ROLE \"{broker}\" LOGIN")).await.unwrap();
    eventually("all are gone", async || world.accounts().await.is_empty()).await;
    assert!(expect(&world.cli(&command), 0).contains("no lease in target"));
}
