//! A rule's whole story, as docs/policies.md tells it: every command and every piece of configuration of
//! that page, in its order, against a running broker under load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jit_tests::page::{self, Block, blocks};
use jit_tests::{Client, Settings, World, surroundings};
use serde_json::{Value, json};

fn page() -> Vec<Block> {
    let blocks = blocks("docs/policies.md", "policy_story");
    assert!(blocks.len() >= 14, "{}", blocks.len());
    blocks
}

/// The broker of a team whose plugins lie in `plugins/` beside its configuration.
async fn team() -> World {
    let plugins = surroundings("JIT_TEST_PLUGINS");
    // Where `plugin test` puts components compiled: that of an interpreter takes a while.
    let compiled = jit_plugin_build::cache::folder().unwrap().join("compiled");
    let more = format!(
        "[runtime]\ncache_dir = \"{}\"\n[plugins.noop]\npath = \"plugins/driver-noop.wasm\"\n\
         [targets.scratch]\ndriver = \"noop\"\npolicies = [\"allow\"]\ndefault_role = \"any\"\nroles.any = {{}}\n\
         [[identity.jwt]]\nname = \"cluster\"\nissuer = \"https://issuer.invalid\"\naudiences = [\"jit-broker\"]\n\
         workload = \"{{sub}}\"\n",
        compiled.display()
    );
    let mut world = World::prepared(Settings { more, ..Settings::default() }).await;
    let own = world.folder.path().join("plugins");
    std::fs::create_dir(&own).unwrap();
    for file in ["driver-postgres", "policy-allow-list", "driver-noop"] {
        std::fs::copy(format!("{plugins}/{file}.wasm"), own.join(format!("{file}.wasm"))).unwrap();
    }
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace(&format!("{plugins}/"), "plugins/")).unwrap();
    world.start(&[]).await;
    world
}

/// Runs the page's commands as they stand, in the folder of the configuration. Gives the exit code of
/// the last one and what they printed.
fn run(world: &World, commands: &str) -> (i32, String) {
    page::run(world.folder.path(), commands, &[("JIT_CONFIG", &world.config().display().to_string())])
}

fn done(world: &World, commands: &str) -> String {
    let (code, text) = run(world, commands);
    assert_eq!(code, 0, "{commands}\n{text}");
    text
}

/// Puts a piece of configuration into the file as a person would: tables of a policy or plugin are
/// replaced, keys of other tables are added.
fn put(world: &World, piece: &str) {
    let mut config: toml::Table = std::fs::read_to_string(world.config()).unwrap().parse().unwrap();
    let piece: toml::Table = piece.parse().unwrap();
    for (section, value) in piece {
        let value = value.as_table().unwrap().clone();
        let there = config.entry(section).or_insert_with(|| toml::Table::new().into());
        there.as_table_mut().unwrap().extend(value);
    }
    std::fs::write(world.config(), config.to_string()).unwrap();
}

fn name_in_targets(world: &World, policy: &str) {
    let mut config: toml::Table = std::fs::read_to_string(world.config()).unwrap().parse().unwrap();
    for target in ["inventory_db", "scratch"] {
        let policies = config["targets"][target].as_table_mut().unwrap().get_mut("policies").unwrap();
        policies.as_array_mut().unwrap().push(policy.into());
    }
    std::fs::write(world.config(), config.to_string()).unwrap();
}

/// Sixteen clients that never stop asking; none of them may ever fail.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<BTreeMap<u16, usize>>>,
}

impl Load {
    async fn start(client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for number in 0..16 {
            let token = token(client, &format!("payment-{number}"), if number % 2 == 0 { "prod" } else { "dev" }).await;
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            clients.push(tokio::spawn(async move {
                let mut seen = BTreeMap::new();
                while !stop.load(Ordering::SeqCst) {
                    let reply = client.issue(&token, &json!({"target": "scratch", "ttl": "1h"})).await.unwrap();
                    assert!(matches!(reply.status, 201 | 403), "{}", reply.text);
                    *seen.entry(reply.status).or_default() += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
                }
                seen
            }));
        }
        Self { stop, clients }
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let mut asked = 0;
        for client in self.clients {
            asked += client.await.unwrap().values().sum::<usize>();
        }
        asked
    }
}

async fn token(client: &Client, workload: &str, env: &str) -> String {
    let url = format!("{}/token?workload={workload}&namespace=shop&env={env}", client.issuer);
    client.raw().get(url).send().await.unwrap().text().await.unwrap().trim().to_owned()
}

/// How many of twenty workloads of an environment the rule denies.
async fn denied(client: &Client, env: &str) -> usize {
    let mut denied = 0;
    for number in 0..20 {
        let token = token(client, &format!("payment-{number}"), env).await;
        let reply = client.post("/v1/simulate", &token, &json!({"target": "inventory_db"})).await.unwrap();
        denied += usize::from(reply.json["policy"] == "own-environment");
    }
    denied
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_from_nothing_to_everybody_and_back() {
    let world = team().await;
    let client = world.client();
    let blocks = page();
    let mut blocks = blocks.iter();
    let mut next = |language: &str, with: &str| {
        let block = blocks.next().unwrap();
        assert_eq!(block.language, language, "{}", block.text);
        assert!(block.text.contains(with), "{with:?} is not in\n{}", block.text);
        block.text.clone()
    };
    let load = Load::start(&client).await;

    // 1. Written, tried, built.
    let built = done(&world, &next("sh", "plugin new"));
    assert!(built.contains("a broker can load it"), "{built}");
    // 2. Signed, and nothing else is loaded from now on.
    done(&world, &next("sh", "plugin sign"));
    put(&world, &next("toml", "require_signature"));
    done(&world, "jit-broker config reload");

    // 3. Against what was decided so far: the load has made decisions of both environments.
    let (code, replayed) = run(&world, &next("sh", "policy replay"));
    assert_eq!(code, 3, "some of them would flip: {replayed}");
    assert!(replayed.contains("only workloads of prod"), "{replayed}");

    // 4. In shadow nothing changes, and what would is on record.
    put(&world, &next("toml", "mode = \"shadow\""));
    name_in_targets(&world, "own-environment");
    done(&world, &next("sh", "config check"));
    assert_eq!(denied(&client, "dev").await, 0);
    let dev = token(&client, "payment-service", "dev").await;
    let body = json!({"target": "inventory_db", "ttl": "1h"});
    assert_eq!(client.issue(&dev, &body).await.unwrap().status, 201);
    let shown = done(&world, &next("sh", "policy.shadow_diff"));
    assert!(shown.contains("payment-"), "{shown}");

    // 5. Half of them, always the same; then all.
    put(&world, &next("toml", "percent = 50"));
    let simulated = done(&world, &next("sh", "policy simulate"));
    assert!(simulated.contains("own-environment"), "{simulated}");
    assert!(simulated.contains("decided by: operation, workload, role, attribute env\n"), "{simulated}");
    let half = denied(&client, "dev").await;
    assert!((3..=17).contains(&half), "{half} of 20");
    assert_eq!(denied(&client, "dev").await, half);
    assert_eq!(denied(&client, "prod").await, 0);
    put(&world, &next("toml", "mode = \"enforce\""));
    done(&world, &next("sh", "config reload"));
    assert_eq!(denied(&client, "dev").await, 20);
    let prod = token(&client, "payment-service", "prod").await;
    let issued = client.issue(&prod, &body).await.unwrap();
    assert_eq!((issued.status, &issued.json["ttl_seconds"]), (201, &json!(1_800)), "{}", issued.text);

    // 6. A broken version, and one that nobody signed, are refused; the good one serves on.
    done(&world, &next("sh", "mkdir -p previous"));
    let digest = |world: &World| {
        let granted = world.events("issue.granted");
        let record = granted.iter().rev().find(|record| record["target_db"] == "inventory_db").unwrap().clone();
        let policies = record["policies"].as_array().unwrap().clone();
        policies.iter().find(|policy| policy["name"] == "own-environment").unwrap()["plugin_sha256"].clone()
    };
    let good: Value = digest(&world);
    let file = world.folder.path().join("plugins/own-environment.wasm");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let (code, told) = run(&world, "jit-broker config reload");
    assert!(code == 1 && told.contains("own-environment"), "{told}");
    done(&world, "jit-broker plugin sign plugins/own-environment.wasm --key security-team.key");
    let (code, told) = run(&world, "jit-broker config reload");
    assert!(code == 1 && told.contains("own-environment"), "signed rubbish is rubbish: {told}");
    assert!(world.events("plugin.rejected").len() >= 2);
    assert_eq!(denied(&client, "dev").await, 20, "the good one serves on");

    // A version that loads and decides otherwise: back with the old files.
    done(&world, "sed -i 's/environment not in config.environments/environment is None/' own-environment/rule.py");
    done(&world, "jit-broker plugin build own-environment --out plugins");
    done(
        &world,
        "jit-broker plugin sign plugins/own-environment.wasm --key security-team.key\njit-broker config reload",
    );
    assert_eq!(denied(&client, "dev").await, 0, "the new version lets everybody in");
    done(&world, &next("sh", "cp previous/"));
    assert_eq!(denied(&client, "dev").await, 20);
    assert_eq!(client.issue(&prod, &body).await.unwrap().status, 201);
    assert_eq!(digest(&world), good);

    let explained = done(&world, &next("sh", "--attribute env=dev"));
    assert!(explained.contains("DENIED by own-environment"), "{explained}");
    assert!(load.end().await > 100, "all the while requests were answered");
    world.assert_log_is_intact();
}
