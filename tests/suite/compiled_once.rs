//! A component is compiled once for a user, whichever command needs it first: `plugin test`, `config check`,
//! `policy simulate --offline`, `policy replay`, `dev` and `serve` share one cache.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use jit_tests::{Settings, World, surroundings};
use serde_json::json;
use tempfile::TempDir;

/// What is in the cache: each file with its inode. A component that is compiled again is written to a new one.
fn compiled(cache: &Path) -> BTreeMap<PathBuf, u64> {
    let files = std::fs::read_dir(cache.join("jit-broker/compiled")).unwrap();
    files.map(|file| file.unwrap()).map(|file| (file.path(), file.metadata().unwrap().ino())).collect()
}

/// What the log of a broker says of compilations, at `debug`.
const COMPILED: &str = "compiled a plugin";

/// The world's command with that cache; gives its exit code and what it printed.
fn run(world: &World, cache: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(world.binary());
    command.args(args).env("JIT_CONFIG", world.config()).env("XDG_CACHE_HOME", cache).env("NO_COLOR", "1");
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test]
async fn what_one_command_compiled_no_other_compiles() {
    let plugins = PathBuf::from(surroundings("JIT_TEST_PLUGINS"));
    let rule = plugins.join("my-rule.wasm");
    let more = format!(
        "[runtime]\nmemory_mib = 48\npolicy_time_ms = 100\n[plugins.my-rule]\npath = \"{}\"\n\
         [policies.mine]\nplugin = \"my-rule\"\nmode = \"shadow\"\nconfig = {{ environments = [\"prod\"] }}\n",
        rule.display()
    );
    let policies = vec!["allow".into(), "mine".into()];
    let mut world = World::prepared(Settings { policies, more, ..Settings::default() }).await;
    let cache = TempDir::with_prefix("jit-").unwrap();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/plugin/template/policy/cases.toml");
    let (rule, cases) = (rule.to_str().unwrap(), cases.to_str().unwrap());
    let (code, told) = run(&world, cache.path(), &["plugin", "test", "--policy", rule, "--cases", cases]);
    assert_eq!(code, Some(0), "{told}");
    let of_test = compiled(cache.path());
    assert_eq!(of_test.len(), 1);

    // The policy is there; the driver and the other policy are compiled now, under other limits.
    let key = world.folder.path().join("audit.key");
    let (code, told) = run(&world, cache.path(), &["audit", "key", key.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    let config = world.config_with_issuer();
    let check = ["config", "check", "--offline", "--config", config.to_str().unwrap()];
    let (code, told) = run(&world, cache.path(), &check);
    assert_eq!(code, Some(0), "{told}");
    let of_check = compiled(cache.path());
    assert_eq!(of_check.len(), 3, "{told}");
    assert!(of_test.iter().all(|(file, inode)| of_check.get(file) == Some(inode)), "compiled again");

    let config = config.to_str().unwrap();
    let who = ["--issuer", "cluster", "--workload", "w", "--target", "inventory_db"];
    let simulate = [&["policy", "simulate", "--offline", config][..], &who].concat();
    let (_, told) = run(&world, cache.path(), &simulate);
    assert!(told.contains("inventory_db"), "{told}");
    let quiet = [("JIT_LOG", "info,jit_runtime=debug"), ("XDG_CACHE_HOME", cache.path().to_str().unwrap())];
    world.start(&quiet).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    assert_eq!(client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap().status, 201);
    let (code, told) = run(&world, cache.path(), &["policy", "replay", "--reproduce", "-c", config]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(compiled(cache.path()), of_check, "nothing was compiled again");
    assert!(!world.folder.path().join("plugin-cache").exists());
    let log = std::fs::read_to_string(world.log_path()).unwrap();
    assert_eq!(log.matches(COMPILED).count(), 0, "{log}");

    // The same broker with an empty cache says so each time: the line above is the one to count.
    let empty = TempDir::with_prefix("jit-").unwrap();
    world.process().stop().unwrap();
    world.start(&[quiet[0], ("XDG_CACHE_HOME", empty.path().to_str().unwrap())]).await;
    let log = std::fs::read_to_string(world.log_path()).unwrap();
    assert_eq!((log.matches(COMPILED).count(), compiled(empty.path()).len()), (3, 3), "{log}");
}

/// A service may have no home: then the cache is beside its store.
#[tokio::test]
async fn a_user_without_a_place_for_a_cache_has_it_beside_the_store() {
    let mut world = World::prepared(Settings::default()).await;
    let file = world.folder.path().join("no-folder");
    std::fs::write(&file, "").unwrap();
    world.start(&[("XDG_CACHE_HOME", file.to_str().unwrap())]).await;
    assert_eq!(std::fs::read_dir(world.folder.path().join("plugin-cache")).unwrap().count(), 2);
}
