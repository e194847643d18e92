//! Plugins, policies and targets are replaced at run time: all or nothing, by a command, a signal, or
//! a file that has changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jit_tests::world::{eventually, put};
use jit_tests::{Client, Settings, World, surroundings};
use serde_json::{Value, json};

#[tokio::test]
async fn a_changed_policy_holds_without_a_restart_and_a_broken_one_does_not() {
    let mut world = World::new().await;
    let client = world.client();
    let reporting = client.token("reporting").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "10m"});
    assert_eq!(client.issue(&reporting, &body).await.unwrap().status, 403);

    world.rewrite(r#"workload = "payment-*""#, r#"workload = "reporting""#);
    let reloaded = world.cli(&["config", "reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    // Command and log say what is new.
    let told = String::from_utf8_lossy(&reloaded.stdout).into_owned();
    assert!(told.contains("changed: policies.allow\n"), "{told}");
    let process = world.process();
    eventually("the log says so too", async || {
        let log = process.log();
        log.lines()
            .any(|line| line.contains("configuration was reloaded") && line.contains("changed=\"policies.allow\""))
    })
    .await;
    let issued = client.issue(&reporting, &body).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    let on_record = world.events("config.reloaded");
    assert_eq!((on_record.len(), &on_record[0]["trigger"]), (1, &json!("admin")));

    // A mistake is told with its place, and what served goes on serving.
    world.rewrite(r#"roles = ["*"]"#, r#"rolls = ["*"]"#);
    for _ in 0..2 {
        let refused = world.cli(&["config", "reload"]);
        assert!(!refused.status.success());
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains("broker.toml:") && told.contains("rolls"), "{told}");
    }
    assert_eq!(client.issue(&reporting, &body).await.unwrap().status, 201);
    assert_eq!(world.events("plugin.rejected").len(), 1, "one for the bad state, however often it is looked at");
    assert_eq!(world.events("config.reloaded").len(), 1);
    assert!((client.metric("jit_reload_total", &["refused"]).await.unwrap() - 2.0).abs() < f64::EPSILON);

    // By signal it is the same.
    world.rewrite(r#"rolls = ["*"]"#, r#"roles = ["app_read_write"]"#);
    let pid = world.process().pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    eventually("the signal is followed", async || world.events("config.reloaded").len() == 2).await;
    assert_eq!(world.events("config.reloaded")[1]["trigger"], "signal");
    assert_eq!(client.issue(&reporting, &body).await.unwrap().status, 403);

    // Leases that the old configuration made end under the new one.
    let revoked = world.cli(&["lease", "revoke", issued.lease()]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    assert!(!world.accounts().await.contains(&issued.username().to_owned()));
    world.assert_log_is_intact();
}

/// A target that costs nothing, with `rule` in the world's folder as its only policy.
fn ruled(rule: &str, config: &str) -> Settings {
    let plugins = surroundings("JIT_TEST_PLUGINS");
    let more = format!(
        "[plugins.noop]\npath = \"{plugins}/driver-noop.wasm\"\n[plugins.rule]\npath = \"{rule}\"\n\
         [policies.ruled]\nplugin = \"rule\"\nconfig = {config}\n\
         [targets.scratch]\ndriver = \"noop\"\npolicies = [\"ruled\"]\nroles.any = {{}}\n"
    );
    Settings { more, watch: true, ..Settings::default() }
}

fn built(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(surroundings("JIT_TEST_PLUGINS")).join(format!("{name}.wasm"))).unwrap()
}

/// What the chain of `scratch` comes to now.
async fn simulate(client: &Client, token: &str) -> Value {
    let reply = client.post("/v1/simulate", token, &json!({"target": "scratch", "role": "any"})).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json
}

async fn counted(client: &Client, outcome: &str) -> u32 {
    let count = client.metric("jit_reload_total", &[&format!("outcome=\"{outcome}\"")]).await.unwrap();
    count as u32
}

#[tokio::test]
async fn a_changed_file_is_served_without_a_command_and_a_broken_one_is_not() {
    let mut world = World::prepared(ruled("rule.wasm", "{}")).await;
    let rule = world.folder.path().join("rule.wasm");
    put(&rule, &built("policy-allow"));
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let first = simulate(&client, &token).await;
    assert_eq!(first["decision"], "allow");
    let digest = |answer: &Value| answer["policies"][0]["plugin_sha256"].clone();

    // The configuration, with a policy that says no to everybody.
    let rules = r#"{ rules = [{ workload = "nobody", target = "*", roles = ["*"] }] }"#;
    let (plain, listed) = ("config = {}\n", format!("config = {rules}\n"));
    world.rewrite("policies = [\"ruled\"]", "policies = [\"ruled\", \"allow\"]");
    eventually("the configuration is served", async || {
        simulate(&client, &token).await["policies"].as_array().unwrap().len() == 2
    })
    .await;
    let reloaded = world.events("config.reloaded");
    assert_eq!((reloaded.len(), &reloaded[0]["trigger"]), (1, &json!("file")));

    // The plugin: another takes its place, which does not like the configuration: nothing changes.
    put(&rule, &built("policy-allow-list"));
    eventually("the plugin is refused", async || counted(&client, "refused").await == 1).await;
    assert_eq!(digest(&simulate(&client, &token).await), digest(&first));
    // Then the configuration fits it: what was refused is served now.
    world.rewrite(plain, &listed);
    eventually("both are served", async || simulate(&client, &token).await["decision"] == "deny").await;
    assert_ne!(digest(&simulate(&client, &token).await), digest(&first));
    // And back, in one step that no look falls into.
    let rollback = async || {
        world.rewrite(&listed, plain);
        put(&rule, &built("policy-allow"));
    };
    rollback().await;
    eventually("the old one is back", async || simulate(&client, &token).await["decision"] == "allow").await;
    assert_eq!(digest(&simulate(&client, &token).await), digest(&first));

    // Half a plugin, left so.
    let rejected = world.events("plugin.rejected").len();
    let (refused, good) = (counted(&client, "refused").await, built("policy-allow"));
    put(&rule, &good[..good.len() / 2]);
    eventually("the half is refused", async || counted(&client, "refused").await == refused + 1).await;
    assert_eq!(simulate(&client, &token).await["decision"], "allow");
    put(&rule, b"something else");
    eventually("that is refused too", async || counted(&client, "refused").await == refused + 2).await;
    let on_record = world.events("plugin.rejected").split_off(rejected);
    assert_eq!(on_record.len(), 2, "{on_record:#?}");
    for record in &on_record {
        assert_eq!((&record["plugin"], &record["trigger"]), (&json!("rule"), &json!("file")), "{record}");
        assert_eq!(record["plugin_sha256"].as_str().unwrap().len(), 64, "{record}");
    }
    assert!(on_record[1]["error"].as_str().unwrap().contains("not a WebAssembly component"), "{on_record:#?}");
    // A pipe that nobody writes to is not waited for.
    std::fs::remove_file(&rule).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&rule).status().unwrap().success());
    eventually("the pipe is refused", async || counted(&client, "refused").await > refused + 2).await;

    let done = counted(&client, "done").await;
    put(&rule, &good);
    eventually("the good one is read", async || counted(&client, "done").await == done + 1).await;
    assert_eq!(digest(&simulate(&client, &token).await), digest(&first));
    world.assert_log_is_intact();
}

#[tokio::test]
async fn a_mounted_volume_and_a_broken_configuration() {
    let mut world = World::prepared(ruled("plugins/rule.wasm", "{}")).await;
    let folder = world.folder.path().join("plugins");
    // As Kubernetes mounts a ConfigMap: the file is a link through `..data`, which is turned.
    let turn = |version: &str, name: &str| {
        std::fs::create_dir_all(folder.join(version)).unwrap();
        std::fs::write(folder.join(version).join("rule.wasm"), built(name)).unwrap();
        std::os::unix::fs::symlink(version, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    turn("..1", "policy-allow");
    std::os::unix::fs::symlink("..data/rule.wasm", folder.join("rule.wasm")).unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let digest = async || simulate(&client, &token).await["policies"][0]["plugin_sha256"].clone();
    let first = digest().await;

    // Half a configuration: nothing of it is served, and it is on record once.
    let whole = std::fs::read_to_string(world.config()).unwrap();
    put(&world.config(), whole.replace("[policies.ruled]\n", "[policies.ruled\n").as_bytes());
    eventually("the broken file is refused", async || counted(&client, "refused").await == 1).await;
    assert_eq!(digest().await, first);
    // The volume turns meanwhile: with the file mended, all of it is served.
    turn("..2", "policy-allow-list");
    let listed = r#"config = { rules = [{ workload = "nobody", target = "*", roles = ["*"] }] }"#;
    put(&world.config(), whole.replace("config = {}\n", &format!("{listed}\n")).as_bytes());
    eventually("the other rule is served", async || digest().await != first).await;
    // Commands read the configuration too, so only now.
    let rejected = world.events("plugin.rejected");
    let broken: Vec<_> =
        rejected.iter().filter(|record| record["error"].as_str().unwrap().contains("not TOML")).collect();
    assert_eq!((broken.len(), &broken[0]["trigger"]), (1, &json!("file")), "{rejected:#?}");
    assert!(broken[0]["error"].as_str().unwrap().contains("broker.toml:"), "{rejected:#?}");
    put(&world.config(), whole.as_bytes());
    turn("..1", "policy-allow");
    eventually("the first one is back", async || digest().await == first).await;
    world.assert_log_is_intact();
}

/// Clients at work while the chain is replaced.
const CLIENTS: usize = 64;
/// How often it is.
const RELOADS: usize = 100;

/// Each policy of a decision with the component that decided.
fn chain(policies: &Value) -> Vec<(String, String)> {
    let text = |policy: &Value, field: &str| policy[field].as_str().unwrap().to_owned();
    policies.as_array().unwrap().iter().map(|one| (text(one, "name"), text(one, "plugin_sha256"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_or_is_half_decided_while_reloads_go_on() {
    let rule = format!("{}/policy-allow.wasm", surroundings("JIT_TEST_PLUGINS"));
    let world = World::with(Settings { watch: false, ..ruled(&rule, "{}") }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let one = chain(&simulate(&client, &token).await["policies"]);

    // The other chain has another component under the same names, and one policy more: whoever saw half of
    // each would show it.
    let whole = std::fs::read_to_string(world.config()).unwrap();
    let everybody = r#"config = { rules = [{ workload = "*", target = "*", roles = ["*"] }] }"#;
    let other = whole
        .replace("policy-allow.wasm", "policy-allow-list.wasm")
        .replace("config = {}\n", &format!("{everybody}\n[policies.second]\nplugin = \"rule\"\n{everybody}\n"))
        .replace("policies = [\"ruled\"]", "policies = [\"ruled\", \"second\"]");
    assert_ne!(other, whole);
    let (admin, base) = world.admin();
    let reload = async |text: &str| {
        put(&world.config(), text.as_bytes());
        let reply = admin.post(format!("{base}/admin/reload")).send().await.unwrap();
        assert!(reply.status().is_success(), "{}", reply.text().await.unwrap());
    };
    reload(&other).await;
    let two = chain(&simulate(&client, &token).await["policies"]);
    assert_eq!((one.len(), two.len()), (1, 2));
    assert!(one[0].0 == two[0].0 && one[0].1 != two[0].1 && two[0].1 == two[1].1, "{one:?} {two:?}");

    let over = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (client, token, over) = (client.clone(), token.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    if number % 4 == 0 {
                        // Its chain is in its audit record.
                        let body = json!({"target": "scratch", "role": "any", "ttl": "10m"});
                        let issued = client.issue(&token, &body).await.unwrap();
                        assert_eq!(issued.status, 201, "{}", issued.text);
                    } else {
                        let answer = simulate(&client, &token).await;
                        assert_eq!(answer["decision"], "allow", "{answer}");
                        let chain = chain(&answer["policies"]);
                        if !seen.contains(&chain) {
                            seen.push(chain);
                        }
                    }
                }
                seen
            })
        })
        .collect();
    for number in 0..RELOADS {
        reload(if number % 2 == 0 { &whole } else { &other }).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut seen = Vec::new();
    for worker in workers {
        seen.extend(worker.await.unwrap());
    }
    let issued = world.events("issue.granted");
    assert!(issued.len() >= CLIENTS / 4, "{} issues", issued.len());
    seen.extend(issued.iter().map(|record| chain(&record["policies"])));
    assert!(seen.contains(&one) && seen.contains(&two), "both served");
    for chain in &seen {
        assert!(*chain == one || *chain == two, "half of each: {chain:?}");
    }
    assert_eq!(world.events("config.reloaded").len(), RELOADS + 1);
    assert_eq!(counted(&client, "refused").await, 0);
    world.assert_log_is_intact();
}
