//! Who vouches for plugins: what nobody does is not loaded, at a start or a reload, and that is on
//! record. Keys are changed without a pause.

use std::path::{Path, PathBuf};
use std::process::Output;

use jit_tests::world::{eventually, put};
use jit_tests::{Settings, World, surroundings};
use serde_json::{Value, json};

fn expect(output: &Output, code: i32) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// A world of signed plugins that is not started yet.
struct Signed {
    world: World,
    folder: PathBuf,
}

impl Signed {
    /// All of its plugins lie in its own folder, of every kind that the suite has.
    async fn new() -> Self {
        let plugins = surroundings("JIT_TEST_PLUGINS");
        let more = "[plugins.noop]\npath = \"driver-noop.wasm\"\n[plugins.rule]\npath = \"rule.wasm\"\n\
                    [policies.ruled]\nplugin = \"rule\"\nconfig = {}\n\
                    [targets.scratch]\ndriver = \"noop\"\npolicies = [\"ruled\"]\nroles.any = {}\n\
                    [plugins]\nrequire_signature = true\ntrusted_keys = []\n";
        let world = World::prepared(Settings { more: more.to_owned(), watch: true, ..Settings::default() }).await;
        let folder = world.folder.path().to_owned();
        world.rewrite(&format!("{plugins}/"), "");
        let copies = [("driver-postgres", "driver-postgres"), ("policy-allow-list", "policy-allow-list")];
        for (from, to) in copies.into_iter().chain([("driver-noop", "driver-noop"), ("policy-allow", "rule")]) {
            std::fs::copy(format!("{plugins}/{from}.wasm"), folder.join(format!("{to}.wasm"))).unwrap();
        }
        Self { world, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Makes a key and gives its public half.
    fn key(&self, name: &str) -> String {
        let made = self.world.cli(&["plugin", "key", &self.path(name)]);
        expect(&made, 0);
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    /// Signs with these keys; by the program, as a release would.
    fn sign(&self, files: &[&str], keys: &[&str]) -> String {
        let files: Vec<String> = files.iter().map(|file| self.path(file)).collect();
        let keys: Vec<String> = keys.iter().map(|key| self.path(key)).collect();
        let mut arguments = vec!["plugin", "sign"];
        arguments.extend(files.iter().map(String::as_str));
        arguments.extend(keys.iter().flat_map(|key| ["--key", key.as_str()]));
        expect(&self.world.cli(&arguments), 0)
    }

    fn trust(&self, before: &[&str], after: &[&str]) {
        let line = |keys: &[&str]| format!("trusted_keys = {}\n", json!(keys));
        self.world.rewrite(&line(before), &line(after));
    }

    fn rejected(&self) -> Vec<Value> {
        self.world.events("plugin.rejected")
    }
}

const ALL: [&str; 4] = ["driver-postgres.wasm", "policy-allow-list.wasm", "driver-noop.wasm", "rule.wasm"];

/// Name and id of a verifier key; base64 has plus signs of its own.
fn label(key: &str) -> String {
    key.splitn(3, '+').take(2).collect::<Vec<_>>().join("+")
}

fn sha256(file: &Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn what_nobody_vouches_for_is_not_loaded_and_that_is_on_record() {
    let mut signed = Signed::new().await;
    let (team, stranger) = (signed.key("team.key"), signed.key("stranger.key"));
    signed.trust(&[], &[&team]);

    // At the start there is nothing to go back to; it is on record all the same.
    signed.sign(&ALL[..3], &["team.key"]);
    let refused = signed.world.try_start(&[]).unwrap_err().to_string();
    assert!(refused.contains("is not signed, and must be"), "{refused}");
    assert!(refused.contains("jit-broker plugin sign"), "it says what to do: {refused}");
    let rule = signed.folder.join("rule.wasm");
    let record = signed.rejected().pop().unwrap();
    assert_eq!((&record["plugin"], &record["trigger"]), (&json!("rule"), &json!("start")));
    assert_eq!(record["plugin_sha256"], sha256(&rule));
    // A stranger's word is not enough.
    signed.sign(&["rule.wasm"], &["stranger.key"]);
    let refused = signed.world.try_start(&[]).unwrap_err().to_string();
    assert!(refused.contains(&label(&stranger)), "it says who signed: {refused}");
    assert_eq!(signed.rejected().len(), 2);

    signed.sign(&["rule.wasm"], &["team.key"]);
    signed.world.start(&[]).await;
    let loaded = signed.world.events("plugin.loaded");
    assert_eq!(loaded.len(), ALL.len());
    assert!(loaded.iter().all(|record| record["signed_by"] == json!([label(&team)])), "{loaded:#?}");
    let listed = expect(&signed.world.cli(&["plugin", "list"]), 0);
    assert_eq!(listed.matches(&label(&team)).count(), ALL.len(), "{listed}");

    // Altered by one byte behind the broker's back: what serves goes on, and what was tried is on record.
    let client = signed.world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "scratch", "role": "any"});
    let mut bytes = std::fs::read(&rule).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    put(&rule, &bytes);
    eventually("the altered one is refused", async || signed.rejected().len() == 3).await;
    let record = signed.rejected().pop().unwrap();
    assert_eq!((&record["plugin"], &record["trigger"]), (&json!("rule"), &json!("file")));
    assert_eq!(record["plugin_sha256"], sha256(&rule));
    assert!(record["error"].as_str().unwrap().contains("altered or rebuilt"), "{record}");
    assert_eq!(client.issue(&token, &body).await.unwrap().status, 201);
    // Another good component under the signature of this one.
    std::fs::copy(signed.folder.join("policy-allow-list.wasm"), signed.folder.join("swap")).unwrap();
    std::fs::rename(signed.folder.join("swap"), &rule).unwrap();
    eventually("the swapped one is refused", async || signed.rejected().len() == 4).await;

    // A new version comes with its signature; the configuration that fits it comes last.
    signed.sign(&["rule.wasm"], &["team.key"]);
    let rules = r#"config = { rules = [{ workload = "nobody", target = "*", roles = ["*"] }] }"#;
    signed.world.rewrite("config = {}\n", &format!("{rules}\n"));
    eventually("the new version is served", async || client.issue(&token, &body).await.unwrap().status == 403).await;
    // And without its signature it is not even found in the cache, though it serves.
    std::fs::remove_file(signed.folder.join("rule.wasm.sig")).unwrap();
    let before = signed.rejected().len();
    eventually("the missing signature is noticed", async || signed.rejected().len() > before).await;
    let refused = expect(&signed.world.cli(&["config", "reload"]), 1);
    assert!(refused.contains("is not signed"), "{refused}");
    assert_eq!(client.issue(&token, &body).await.unwrap().status, 403);
    let checked = expect(
        &signed.world.cli(&[
            "config",
            "check",
            "--offline",
            "--config",
            &signed.world.config_with_issuer().display().to_string(),
        ]),
        3,
    );
    assert!(checked.contains("is not signed"), "{checked}");
    signed.world.assert_log_is_intact();
}

#[tokio::test]
async fn keys_are_changed_without_a_pause() {
    let mut signed = Signed::new().await;
    let (old, new) = (signed.key("team.key"), signed.key("team-2.key"));
    signed.trust(&[], &[&old]);
    signed.sign(&ALL, &["team.key"]);
    signed.world.start(&[]).await;
    let reloads = async |signed: &Signed, count: usize| {
        eventually("it is served", async || signed.world.events("config.reloaded").len() == count).await;
    };
    let vouched = |signed: &Signed| {
        let listed = signed.world.cli(&["plugin", "list", "--format", "json"]);
        let rows: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
        rows.into_iter().map(|row| row["signed_by"].clone()).collect::<Vec<_>>()
    };

    // Both are trusted, then both have signed, then only the new one is trusted.
    signed.trust(&[&old], &[&old, &new]);
    reloads(&signed, 1).await;
    assert_eq!(vouched(&signed), vec![json!([label(&old)]); ALL.len()]);
    // Another signature keeps the first; all in one go, so that it is one reload or a few.
    let told = signed.sign(&ALL, &["team-2.key"]);
    assert!(told.lines().all(|line| line.contains(&label(&old)) && line.contains(&label(&new))), "{told}");
    let both = json!([label(&old), label(&new)]);
    eventually("both vouch", async || vouched(&signed).iter().all(|keys| *keys == both)).await;
    assert!(signed.rejected().is_empty());
    signed.trust(&[&old, &new], &[&new]);
    eventually("the new one vouches", async || vouched(&signed).iter().all(|keys| *keys == json!([label(&new)]))).await;
    // From here on the old key opens nothing.
    std::fs::remove_file(signed.folder.join("rule.wasm.sig")).unwrap();
    signed.sign(&["rule.wasm"], &["team.key"]);
    eventually("the old key is refused", async || {
        signed
            .rejected()
            .iter()
            .any(|record| record["error"].as_str().unwrap().contains("none of these keys is trusted"))
    })
    .await;
    assert_eq!(vouched(&signed), vec![json!([label(&new)]); ALL.len()], "what serves goes on");

    // A key that stands in a file of its own is read with each reload.
    let stands = format!("trusted_keys = [{}, {{ file = \"old.pub\" }}]\n", json!(new));
    std::fs::write(signed.folder.join("old.pub"), format!("{old}\n")).unwrap();
    signed.world.rewrite(&format!("trusted_keys = {}\n", json!([new])), &stands);
    eventually("the file's key is trusted", async || vouched(&signed).contains(&json!([label(&old)]))).await;
    put(&signed.folder.join("old.pub"), b"not a key\n");
    let before = signed.rejected().len();
    eventually("a broken key file is refused", async || signed.rejected().len() > before).await;
    signed.world.assert_log_is_intact();
}

#[tokio::test]
async fn signing_by_hand() {
    let signed = Signed::new().await;
    let team = signed.key("team.key");
    let (key, rule) = (signed.path("team.key"), signed.path("rule.wasm"));
    assert!(team.starts_with("team+"), "named after its file: {team}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions()) & 0o777;
    assert_eq!(mode, 0o600);
    let cli = |arguments: &[&str]| signed.world.cli(arguments);
    assert!(expect(&cli(&["plugin", "key", &key]), 0).contains(&team), "it is never replaced");
    assert!(expect(&cli(&["plugin", "key", &key, "--show", "--name", "other"]), 1).contains("is the key team"));
    let named = expect(&cli(&["plugin", "key", &signed.path("a b.key"), "--name", "example.com/release"]), 0);
    assert!(named.contains("example.com/release+"), "{named}");
    expect(&cli(&["plugin", "key", &signed.path("c d.key")]), 1);

    // Exit codes for scripts.
    assert!(expect(&cli(&["plugin", "verify", &rule, "--key", &team]), 3).contains("is not signed"));
    signed.sign(&["rule.wasm"], &["team.key"]);
    assert!(expect(&cli(&["plugin", "verify", &rule, "--key", &team]), 0).contains(&sha256(Path::new(&rule))));
    std::fs::write(signed.path("team.pub"), format!("{team}\n")).unwrap();
    expect(&cli(&["plugin", "verify", &rule, "--key", &signed.path("team.pub")]), 0);
    expect(&cli(&["plugin", "verify", &rule, "--key", "nonsense"]), 1);
    signed.trust(&[], &[&team]);
    let all = expect(&cli(&["plugin", "verify", "--config", &signed.world.config().display().to_string()]), 3);
    assert_eq!((all.matches("is not signed").count(), all.matches("signed by team+").count()), (3, 1), "{all}");
    signed.sign(&ALL, &["team.key"]);
    expect(&cli(&["plugin", "verify", "--config", &signed.world.config().display().to_string()]), 0);

    // Elsewhere, and what cannot be.
    let elsewhere = signed.path("elsewhere.sig");
    expect(&cli(&["plugin", "sign", &rule, "--key", &key, "--out", &elsewhere]), 0);
    assert_eq!(std::fs::read(&elsewhere).unwrap(), std::fs::read(format!("{rule}.sig")).unwrap());
    expect(&cli(&["plugin", "sign", &rule, &rule, "--key", &key, "--out", &elsewhere]), 1);
    let text = expect(&cli(&["plugin", "sign", &key, "--key", &key]), 1);
    assert!(text.contains("is not a WebAssembly component"), "{text}");
    // An audit log's key is no key for plugins, and a key that others may read is none at all.
    let audit = signed.path("audit-2.key");
    expect(&cli(&["audit", "key", &audit]), 0);
    assert!(expect(&cli(&["plugin", "sign", &rule, "--key", &audit]), 1).contains("does not sign plugins"));
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(expect(&cli(&["plugin", "sign", &rule, "--key", &key]), 1).contains("chmod 600"));
}
