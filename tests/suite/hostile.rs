//! Plugins that loop, hog, trap, flood, lie or try what they may not: denied or failed by name, no
//! account left, the broker unharmed and everybody else served.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jit_tests::world::read;
use jit_tests::{Client, Reply, Settings, World, surroundings};
use serde_json::{Value, json};

/// The fixtures' own lists of what they do: a mode that is added there is tried here.
const POLICY: &str = include_str!("../guests/policy-hostile/src/lib.rs");
const DRIVER: &str = include_str!("../guests/driver-hostile/src/lib.rs");
const SCRIPTED: &str = include_str!("../guests/driver-scripted/src/lib.rs");

/// The variants of an enum in a source, as they are written in a configuration.
pub(crate) fn variants(source: &str, header: &str) -> Vec<String> {
    let body = source.split_once(header).unwrap().1.split_once("\n}").unwrap().0;
    let names = body.lines().filter_map(|line| line.trim().strip_suffix(','));
    let kebab = |name: &str| {
        let mut kebab = String::new();
        for letter in name.chars() {
            if letter.is_uppercase() && !kebab.is_empty() {
                kebab.push('-');
            }
            kebab.push(letter.to_ascii_lowercase());
        }
        kebab
    };
    let names: Vec<String> =
        names.filter(|name| name.chars().all(|letter| letter.is_ascii_alphabetic())).map(kebab).collect();
    assert!(names.len() > 5, "{names:?}");
    names
}

fn plugin(name: &str, file: &str) -> String {
    format!("[plugins.{name}]\npath = \"{}/{file}.wasm\"\n", surroundings("JIT_TEST_PLUGINS"))
}

/// Modes that misbehave before anything is asked: the host asks a policy to take its configuration, and prepares it.
fn at_load(mode: &str) -> bool {
    mode.ends_with("-validate") || mode.ends_with("-prepare")
}

/// Modes that only read in a strange way, and then say yes.
fn allows(mode: &str) -> bool {
    ["read-odd", "log", "count", "chatty"].contains(&mode)
}

/// A target with a driver that does nothing for each mode of the hostile policy.
fn hostile_policies() -> String {
    let mut more = plugin("hostile", "policy-hostile") + &plugin("noop", "driver-noop");
    for mode in variants(POLICY, "pub enum Mode {").iter().filter(|mode| !at_load(mode)) {
        let _ = writeln!(
            more,
            "[policies.p-{mode}]\nplugin = \"hostile\"\nconfig = {{ mode = \"{mode}\" }}\n\
             [targets.p-{mode}]\ndriver = \"noop\"\npolicies = [\"allow\", \"p-{mode}\"]\nroles.any = {{}}"
        );
    }
    more
}

async fn ask(client: &Client, token: &str, target: &str) -> Reply {
    client.issue(token, &json!({"target": target, "role": "any"})).await.unwrap()
}

async fn alive(client: &Client) {
    for path in ["livez", "readyz"] {
        let reply = client.raw().get(format!("{}/{path}", client.broker)).send().await.unwrap();
        assert_eq!(reply.status(), 200, "{path}");
    }
}

/// No line is forged, none is endless, nothing moves a terminal's cursor.
pub(crate) fn assert_log_is_sane(world: &mut World) {
    let log = world.process().log();
    assert!(log.len() < 8 << 20, "{} bytes of log", log.len());
    for line in log.lines() {
        assert!(line.len() < 64 << 10, "a line of {} bytes: {:?}", line.len(), &line[..200]);
        assert!(line.starts_with("20"), "a line that the broker did not write: {line:?}");
        let bad = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!line.contains(bad), "control characters in {line:?}");
    }
}

/// The most memory that the broker had, in KiB.
pub(crate) fn most_memory(world: &mut World) -> u64 {
    let status = read(format!("/proc/{}/status", world.process().pid()).as_ref()).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_policy_that_misbehaves_denies_by_name() {
    let mut world = World::with(Settings { more: hostile_policies(), ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let mut denials = 0;
    for mode in variants(POLICY, "pub enum Mode {").iter().filter(|mode| !at_load(mode) && !allows(mode)) {
        let reply = ask(&client, &token, &format!("p-{mode}")).await;
        assert_eq!((reply.status, reply.code()), (403, "policy-denied"), "{mode}: {}", reply.text);
        let by = if mode == "wrong-role" { "chain".to_owned() } else { format!("p-{mode}") };
        assert_eq!(reply.text_at("/policy"), by, "{mode}: {}", reply.text);
        assert!((10..4096).contains(&reply.text_at("/detail").len()), "{mode}: it says why: {}", reply.text);
        let denied = world.events("issue.denied");
        denials += 1;
        assert_eq!(denied.len(), denials, "{mode}: on record before it was said");
        assert_eq!(denied[denials - 1]["target_db"], format!("p-{mode}"));
        assert!(denied[denials - 1].to_string().len() < 64 << 10);
        alive(&client).await;
    }
    let good = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(good.status, 201, "{}", good.text);
    world.assert_settled(&[good.lease().to_owned()]).await;
    assert_eq!(world.leases().len(), 1, "a denied request makes no lease");
    assert_log_is_sane(&mut world);
    let memory = most_memory(&mut world);
    assert!(memory < 1 << 20, "{memory} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_served_while_a_policy_burns_its_time() {
    let mut world = World::with(Settings { more: hostile_policies(), ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let denied = Arc::new(AtomicUsize::new(0));
    let mut hammers = tokio::task::JoinSet::new();
    for number in 0..8_usize {
        let (client, token, done, denied) = (client.clone(), token.clone(), Arc::clone(&done), Arc::clone(&denied));
        hammers.spawn(async move {
            let targets = ["p-loop", "p-hog", "p-flood", "p-busy-host", "p-trap", "p-stack"];
            let mut next = number;
            while !done.load(Ordering::SeqCst) {
                let reply = ask(&client, &token, targets[next % targets.len()]).await;
                // Where eight at once are more than a target decides on, the rest is told to wait.
                assert!(matches!(reply.status, 403 | 503), "{}", reply.text);
                denied.fetch_add(usize::from(reply.status == 403), Ordering::SeqCst);
                next += 1;
            }
        });
    }
    let mut disclosed = Vec::new();
    while disclosed.len() < 30 || denied.load(Ordering::SeqCst) < 30 {
        let good = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
        assert_eq!(good.status, 201, "{}", good.text);
        disclosed.push(good.lease().to_owned());
        alive(&client).await;
    }
    done.store(true, Ordering::SeqCst);
    while let Some(hammer) = hammers.join_next().await {
        hammer.unwrap();
    }
    world.assert_settled(&disclosed).await;
    assert_eq!(world.leases().len(), disclosed.len());
    assert_log_is_sane(&mut world);
}

#[tokio::test]
async fn a_policy_on_trial_cannot_deny_whatever_it_does() {
    let mut more = plugin("hostile", "policy-hostile");
    for mode in ["trap", "loop", "wrong-role"] {
        let _ = writeln!(
            more,
            "[policies.trial-{mode}]\nplugin = \"hostile\"\nmode = \"shadow\"\nconfig = {{ mode = \"{mode}\" }}"
        );
    }
    let policies = ["allow", "trial-trap", "trial-loop", "trial-wrong-role"].map(str::to_owned).to_vec();
    let world = World::with(Settings { policies, more, ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let reply = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    let diffs = world.events("policy.shadow_diff");
    let by: Vec<&str> = diffs.iter().filter_map(|diff| diff["policy"].as_str()).collect();
    assert_eq!(by, ["trial-trap", "trial-loop", "trial-wrong-role"], "{diffs:?}");
    assert!(diffs.iter().all(|diff| diff["error"].as_str().is_some_and(|error| error.starts_with("would"))));
    world.assert_settled(&[reply.lease().to_owned()]).await;
}

/// What the hostile driver does with a lie, not with a call that the host could refuse: it is
/// believed that there is an account, until the reconciler finds none.
fn lies_about_success(mode: &str) -> bool {
    mode == "huge-rows" || ["renew-", "list-", "inspect-"].iter().any(|verb| mode.starts_with(verb))
}

#[tokio::test]
async fn a_driver_that_misbehaves_fails_by_name() {
    let modes = variants(DRIVER, "pub enum Mode {");
    let mut more = plugin("hostile", "driver-hostile");
    for mode in &modes {
        let _ = writeln!(
            more,
            "[targets.d-{mode}]\ndriver = \"hostile\"\nconnection = \"hostile\"\npolicies = [\"allow\"]\n\
             timeout = \"5s\"\nconfig = {{ mode = \"{mode}\" }}\nroles.any = {{}}"
        );
    }
    let mut world = World::prepared(Settings { more, ..Settings::default() }).await;
    // A connection of its own: what it does to that one is its own loss.
    let whole = read(&world.config()).unwrap();
    let (_, own) = whole.split_once("[connections.inventory]").unwrap();
    let own = own.split_once("\n[").unwrap().0;
    std::fs::write(world.config(), format!("{whole}\n[connections.hostile]{own}\n")).unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let mut disclosed = Vec::new();
    for mode in &modes {
        let reply = ask(&client, &token, &format!("d-{mode}")).await;
        let told = format!("{mode}: {}", reply.text);
        match mode.as_str() {
            mode if lies_about_success(mode) => assert_eq!(reply.status, 201, "{told}"),
            // Something may have been done by then.
            "endless-execute" => assert_eq!((reply.status, reply.code()), (504, "target-timeout"), "{told}"),
            "slow-statement" => assert_eq!((reply.status, reply.code()), (503, "target-unavailable"), "{told}"),
            // The server makes it, and may take longer than the call has.
            "many-databases" | "huge-cell" => assert!(matches!(reply.status, 502..=504), "{told}"),
            _ => {
                assert_eq!((reply.status, reply.code()), (502, "target-refused"), "{told}");
                let shown = reply.text_at("/detail");
                assert!((20..4096).contains(&shown.len()), "{told}");
                assert!(!shown.contains(char::is_control), "{told}");
            }
        }
        if reply.status == 201 {
            disclosed.push(reply.lease().to_owned());
        }
        let good = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
        assert_eq!(good.status, 201, "after {mode}: {}", good.text);
        disclosed.push(good.lease().to_owned());
        alive(&client).await;
        if mode.starts_with("renew-") {
            let path = format!("/v1/leases/{}/renew", reply.lease());
            let renewed = client.post(&path, &token, &json!({"ttl": "30m"})).await.unwrap();
            let expected = if mode == "renew-far" { 502 } else { 200 };
            assert_eq!(renewed.status, expected, "{mode}: {}", renewed.text);
            let seen = world.lease(reply.lease());
            assert!(seen["expires_at"].as_str().unwrap() >= reply.text_at("/expires_at"), "{mode}: {seen}");
            assert!(seen["expires_at"].as_str().unwrap() <= reply.text_at("/max_expires_at"), "{mode}: {seen}");
        }
    }
    let good: Vec<String> = world.accounts().await;
    assert_eq!(good.len(), modes.len(), "the good target's, and no other");

    // The reconciler believes no name that cannot be one of its own, and finds the lies.
    let output = world.cli(&["reconcile", "--format", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for target in report["targets"].as_array().unwrap() {
        let name = target["target"].as_str().unwrap();
        let unbelievable = name.starts_with("d-list-") || name == "d-inspect-huge";
        assert_eq!(target["error"].is_string(), unbelievable, "{target}");
        assert_eq!(target["ghosts"], json!([]), "{target}");
        assert!(target["error"].as_str().is_none_or(|error| error.len() < 4096), "{target}");
    }
    for lease in world.leases().iter().filter(|lease| lease["state"] == "active") {
        if lease["target"] != "inventory_db" {
            assert!(world.cli(&["lease", "revoke", lease["lease_id"].as_str().unwrap()]).status.success());
        }
    }
    world.assert_settled(&disclosed).await;
    assert_eq!(world.accounts().await, good);
    for role in [&world.database.broker, &world.database.owner, "postgres"] {
        assert!(!world.database.roles(role).await.unwrap().is_empty(), "{role} is still there");
    }
    assert_eq!(world.database.value("SELECT count(*) FROM items").await.unwrap(), "3");
    assert_log_is_sane(&mut world);
    let memory = most_memory(&mut world);
    assert!(memory < 1 << 20, "{memory} KiB");
}

/// A password that is set is not for the driver's eyes: a query that would give it back does not run.
#[tokio::test]
async fn a_driver_cannot_read_the_password_that_it_sets() {
    let more = plugin("hostile", "driver-hostile")
        + "[targets.thief]\ndriver = \"hostile\"\nconnection = \"inventory\"\npolicies = [\"allow\"]\n\
           config = { mode = \"read-secret\" }\nroles.any = {}\n";
    let world = World::with(Settings { more, ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let reply = ask(&client, &token, "thief").await;
    assert_eq!((reply.status, reply.code()), (502, "target-refused"), "{}", reply.text);
    assert!(reply.text_at("/detail").contains("secret"), "the host says what was tried: {}", reply.text);
    assert!(!reply.text.contains("the password is"), "{}", reply.text);
    world.assert_settled(&[]).await;
}

#[tokio::test]
async fn every_way_in_which_a_driver_can_end() {
    let ends = variants(SCRIPTED, "pub enum End {");
    let mut more = plugin("scripted", "driver-scripted");
    for end in &ends {
        for verb in ["create", "revoke"] {
            let _ = writeln!(
                more,
                "[targets.{verb}-{end}]\ndriver = \"scripted\"\nconnection = \"inventory\"\npolicies = [\"allow\"]\n\
                 timeout = \"5s\"\nconfig = {{ {verb} = \"{end}\" }}\nroles.any = {{}}"
            );
        }
    }
    let mut world = World::with(Settings { more, ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let mut disclosed = Vec::new();
    let mut stuck = Vec::new();
    for end in &ends {
        let created = ask(&client, &token, &format!("create-{end}")).await;
        let expected = match end.as_str() {
            "ok" | "slow-sql" => (201, ""),
            "retryable" => (503, "target-unavailable"),
            "unknown" | "conflict" => (504, "target-timeout"),
            _ => (502, "target-refused"),
        };
        assert_eq!((created.status, created.code()), expected, "create {end}: {}", created.text);

        let lease = ask(&client, &token, &format!("revoke-{end}")).await;
        assert_eq!(lease.status, 201, "{}", lease.text);
        disclosed.push(lease.lease().to_owned());
        let path = format!("/v1/leases/{}/revoke", lease.lease());
        let revoked = client.post(&path, &token, &json!({})).await.unwrap();
        if matches!(end.as_str(), "ok" | "slow-sql" | "not-found" | "wrong-name") {
            assert_eq!((revoked.status, revoked.text_at("/state")), (200, "revoked"), "{end}: {}", revoked.text);
        } else {
            assert_eq!((revoked.status, revoked.text_at("/state")), (202, "revoking"), "{end}: {}", revoked.text);
            let seen = world.lease(lease.lease());
            assert!(seen["last_error"].as_str().is_some_and(|error| error.len() < 4096), "{end}: {seen}");
            stuck.push(lease.lease().to_owned());
        }
        alive(&client).await;
    }
    assert_eq!(stuck.len(), ends.len() - 4);

    // Never given up: they go when the driver is mended.
    let mended = read(&world.config()).unwrap();
    let mended: Vec<String> = mended
        .lines()
        .map(|line| if line.starts_with("config = { revoke =") { String::new() } else { line.to_owned() })
        .collect();
    std::fs::write(world.config(), mended.join("\n")).unwrap();
    world.start(&[]).await;
    for lease in &stuck {
        world.lease_becomes(lease, "revoked").await;
        assert_eq!(world.records_of(lease, "lease.revoked"), 1);
    }
    assert_eq!(world.leases().iter().filter(|lease| lease["state"] == "doubtful").count(), 0);
    world.assert_log_is_intact();
    assert_log_is_sane(&mut world);
}

/// What cannot be loaded stops the start, at its place in the file, with what to do.
#[tokio::test]
async fn what_cannot_be_loaded_is_told_with_file_and_line() {
    let mut world = World::new().await;
    world.process().stop().unwrap();
    let whole = read(&world.config()).unwrap();
    let folder = world.folder.path().to_owned();
    std::fs::write(folder.join("garbage.wasm"), "MZ\u{90}\0 this is not WebAssembly").unwrap();
    std::fs::write(folder.join("core.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let allow_list = format!("path = \"{}/policy-allow-list.wasm\"", surroundings("JIT_TEST_PLUGINS"));
    let policy = |mode: &str| {
        let chained = whole.replace("policies = [\"allow\"]", "policies = [\"allow\", \"bad\"]");
        let hostile = plugin("hostile", "policy-hostile");
        format!("{chained}\n{hostile}[policies.bad]\nplugin = \"hostile\"\nconfig = {{ mode = \"{mode}\" }}\n")
    };
    let pinned = format!("{allow_list}\nsha256 = \"{}\"", "0".repeat(64));
    let cases: [(&str, String, &str, &[&str]); 8] = [
        ("garbage", whole.replace(&allow_list, "path = \"garbage.wasm\""), "plugins.allow-list", &["component"]),
        ("a core module", whole.replace(&allow_list, "path = \"core.wasm\""), "plugins.allow-list", &["component"]),
        ("no file", whole.replace(&allow_list, "path = \"nowhere.wasm\""), "plugins.allow-list", &["nowhere.wasm"]),
        ("another digest", whole.replace(&allow_list, &pinned), "plugins.allow-list", &["is pinned"]),
        (
            "a policy as driver",
            whole.replace("driver = \"postgres\"", "driver = \"allow-list\""),
            "driver = \"allow-list\"",
            &["allow-list is a policy, not a driver"],
        ),
        (
            "a driver as policy",
            whole.replace("plugin = \"allow-list\"", "plugin = \"postgres\""),
            "plugin = \"postgres\"",
            &["postgres is a driver, not a policy"],
        ),
        ("a validation without end", policy("slow-validate"), "plugin = \"hostile\"", &["hostile", "guest time"]),
        ("a validation that traps", policy("trap-validate"), "plugin = \"hostile\"", &["hostile", "trapped"]),
    ];
    for (what, config, place, words) in cases {
        assert_ne!(config, whole, "{what}");
        std::fs::write(world.config(), &config).unwrap();
        let line = config.lines().position(|line| line.contains(place)).unwrap() + 1;
        let checked = world.config_with_issuer();
        let output = world.cli(&["config", "check", "--offline", "--config", &checked.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{what}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{what}: {said}");
        let mut told = said.split("with-issuer.toml:").filter_map(|rest| rest.split(':').next()?.parse::<usize>().ok());
        assert!(told.any(|told| told.abs_diff(line) <= 1), "{what} in line {line}: {said}");

        let since = std::fs::read_to_string(world.log_path()).unwrap_or_default().len();
        world.try_start(&[]).expect_err(what);
        let log = &read(&world.log_path()).unwrap()[since..];
        assert!(words.iter().all(|word| log.contains(word)), "{what}: {log}");
    }
    std::fs::write(world.config(), &whole).unwrap();
    world.start(&[]).await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
}
