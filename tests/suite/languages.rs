//! Plugins from nothing to decisions, as their authors type it: `plugin new`, `build`, `check` and `test` in
//! each language, and the policies in Python and JavaScript deciding in a running broker.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jit_tests::{Client, Settings, World, surroundings};
use serde_json::{Value, json};
use tempfile::TempDir;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The broker's command in a folder; gives what it printed.
pub(crate) fn broker(folder: &Path, args: &[&str], code: i32) -> String {
    let output = Command::new(surroundings("JIT_TEST_BROKER"))
        .args(args)
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .env_remove("JIT_CONFIG")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
    text(&output)
}

/// Any other command, which must succeed.
pub(crate) fn run(folder: &Path, command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .current_dir(folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A policy from its first command to a component that passes its cases.
fn from_new_to_tested(folder: &Path, lang: &str, unit_tests: &[&str]) -> PathBuf {
    let said = broker(folder, &["plugin", "new", "policy", "office-rule", "--lang", lang], 0);
    assert!(said.contains("jit-broker plugin build .") && said.contains(&unit_tests.join(" ")), "{said}");
    broker(folder, &["plugin", "new", "policy", "office-rule", "--lang", lang], 1);
    let project = folder.join("office-rule");
    run(&project, unit_tests);

    broker(&project, &["plugin", "build", "."], 0);
    let component = project.join("target/plugins/office-rule.wasm");
    let file = component.to_str().unwrap();
    let checked = broker(&project, &["plugin", "check", file, "--grants", "log"], 0);
    assert!(
        checked.contains("policy, contract 0.2.0") && checked.contains("calls itself office-rule 0.1.0"),
        "{checked}"
    );
    assert!(!checked.contains("wasi:"), "{checked}");
    let refused = broker(&project, &["plugin", "check", file, "--grants", ""], 3);
    assert!(refused.contains("imports `jit:plugin/log@0.2.0`, which is not granted: add \"log\""), "{refused}");

    let report = project.join("target/report.json");
    let test = ["plugin", "test", "--policy", file, "--cases", "cases.toml", "--format", "json", "--output"];
    let said = broker(&project, &[&test[..], &[report.to_str().unwrap()]].concat(), 0);
    assert!(said.contains("office-rule 0.1.0: 6 passed, 0 failed"), "{said}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["policy"]["name"], "office-rule");
    component
}

/// The second build of the same sources comes from the cache, byte for byte.
fn is_not_built_twice(component: &Path) {
    let before = std::fs::read(component).unwrap();
    std::fs::remove_file(component).unwrap();
    let project = component.ancestors().nth(3).unwrap();
    let said = broker(project, &["plugin", "build", "."], 0);
    assert!(said.contains("nothing changed since it was built"), "{said}");
    assert_eq!(before, std::fs::read(component).unwrap());
}

fn settings(component: &Path) -> Settings {
    // Where `plugin test` has put it compiled: that of an interpreter takes a while.
    let compiled = jit_plugin_build::cache::folder().unwrap().join("compiled");
    let more = format!(
        r#"
[runtime]
cache_dir = "{}"
[plugins.office-rule]
path = "{}"
[policies.office]
plugin = "office-rule"
config = {{ environments = ["prod"], max_ttl = "10m", need_ticket = ["app_read_write"] }}
"#,
        compiled.display(),
        component.display()
    );
    Settings { policies: vec!["allow".into(), "office".into()], more, ..Settings::default() }
}

/// A token of that environment.
pub(crate) async fn token(client: &Client, environment: &str) -> String {
    let url = format!("{}/token?workload=payment-service&namespace=shop&env={environment}", client.issuer);
    client.raw().get(url).send().await.unwrap().text().await.unwrap().trim().to_owned()
}

/// The policy decides for real: who it denies gets nothing, who it allows gets an account within its conditions.
async fn decides_in_a_broker(component: &Path) {
    let world = World::with(settings(component)).await;
    let client = world.client();
    let (prod, dev) = (token(&client, "prod").await, token(&client, "dev").await);

    let denied = client.issue(&dev, &json!({"target": "inventory_db"})).await.unwrap();
    denied.assert_problem(403, "policy-denied");
    assert_eq!(denied.json["policy"], "office");
    assert!(denied.text_at("/detail").contains("only workloads of prod; payment-service is of dev"), "{}", denied.text);
    assert!(world.accounts().await.is_empty());

    let issued = client.issue(&prod, &json!({"target": "inventory_db", "ttl": "2h"})).await.unwrap();
    assert_eq!((issued.status, &issued.json["ttl_seconds"]), (201, &json!(600)), "{}", issued.text);
    let write = json!({"target": "inventory_db", "role": "app_read_write"});
    let without = client.issue(&prod, &write).await.unwrap();
    without.assert_problem(403, "policy-denied");
    assert!(without.text_at("/detail").contains("ticket"), "{}", without.text);
    let with = json!({"target": "inventory_db", "role": "app_read_write", "ticket": "OPS-42"});
    assert_eq!(client.issue(&prod, &with).await.unwrap().status, 201);

    // Its digest stands in the record of what it decided.
    let digest = jit_plugin_digest(component);
    let granted = world.events("issue.granted");
    let policies = granted[0]["policies"].as_array().unwrap();
    let office = policies.iter().find(|policy| policy["name"] == "office").unwrap();
    assert_eq!((office["verdict"].as_str(), office["plugin_sha256"].as_str()), (Some("allow"), Some(digest.as_str())));

    // At once, each on an instance of its own: none is refused for want of room or time.
    let asked = (0..24).map(|_| {
        let (client, prod) = (client.clone(), prod.clone());
        tokio::spawn(
            async move { client.post("/v1/simulate", &prod, &json!({"target": "inventory_db"})).await.unwrap() },
        )
    });
    for reply in asked.collect::<Vec<_>>() {
        let reply = reply.await.unwrap();
        assert_eq!(reply.json["decision"], "allow", "{}", reply.text);
    }
    world.assert_log_is_intact();
}

fn jit_plugin_digest(component: &Path) -> String {
    let bytes = std::fs::read(component).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_policy_in_python_from_nothing_to_decisions() {
    let folder = TempDir::with_prefix("jit-").unwrap();
    let component = from_new_to_tested(folder.path(), "python", &["python3", "-m", "unittest"]);
    is_not_built_twice(&component);
    decides_in_a_broker(&component).await;
}

#[tokio::test]
async fn a_policy_in_javascript_from_nothing_to_decisions() {
    let folder = TempDir::with_prefix("jit-").unwrap();
    let component = from_new_to_tested(folder.path(), "js", &["node", "--test"]);
    is_not_built_twice(&component);
    decides_in_a_broker(&component).await;
}

#[tokio::test]
async fn a_policy_in_rust_from_nothing_to_decisions() {
    // In one place, run after run, and with the guests' own target folder: what the SDK needs is compiled there.
    let folder = root().join("target/suite/new-plugin");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    broker(&folder, &["plugin", "new", "policy", "office-rule"], 0);
    let project = folder.join("office-rule");
    std::os::unix::fs::symlink(root().join("target"), project.join("target")).unwrap();
    broker(&project, &["plugin", "build", ".", "--out", "built"], 0);
    let component = project.join("built/office-rule.wasm");
    let file = component.to_str().unwrap();
    broker(&project, &["plugin", "check", file, "--grants", "log"], 0);
    let said = broker(&project, &["plugin", "test", "--policy", file, "--cases", "cases.toml"], 0);
    assert!(said.contains("6 passed, 0 failed"), "{said}");
    decides_in_a_broker(&component).await;
}

/// What a policy tries that no policy may do, and what comes of it: its cases say so.
fn hostile(fixture: &str, sdk: &str) {
    let folder = TempDir::with_prefix("jit-").unwrap();
    passes_its_cases(fixture, sdk, &folder);
    // Nothing of the machine that built it got in.
    let bytes = std::fs::read(folder.path().join("project").join(format!("{fixture}.wasm"))).unwrap();
    for trace in [root().to_str().unwrap(), folder.path().to_str().unwrap()] {
        assert!(!bytes.windows(trace.len()).any(|window| window == trace.as_bytes()), "{trace}");
    }
}

/// Builds a policy of `tests/policies` with that SDK, and asks it its cases. Returns its component.
fn passes_its_cases(fixture: &str, sdk: &str, folder: &TempDir) -> PathBuf {
    let component = built(&format!("policies/{fixture}"), sdk, folder);
    let project = component.parent().unwrap();
    let file = component.to_str().unwrap();
    let said = broker(project, &["plugin", "test", "--policy", file, "--cases", "cases.toml"], 0);
    assert!(said.contains(" 0 failed"), "{said}");
    component
}

/// Builds a project of `tests/` with that SDK. Returns its component.
pub(crate) fn built(fixture: &str, sdk: &str, folder: &TempDir) -> PathBuf {
    let project = folder.path().join("project");
    copy(&root().join("tests").join(fixture), &project);
    let name = Path::new(sdk).file_name().unwrap();
    copy(&root().join("sdk").join(sdk), &project.join(name));
    broker(&project, &["plugin", "build", ".", "--out", "."], 0);
    project.join(format!("{}.wasm", Path::new(fixture).file_name().unwrap().to_str().unwrap()))
}

/// The host counts for a policy in that language, and tells it where the caller is and which lease is renewed.
async fn decides_by_counts(fixture: &str, sdk: &str) {
    let folder = TempDir::with_prefix("jit-").unwrap();
    let component = passes_its_cases(fixture, sdk, &folder);
    let compiled = jit_plugin_build::cache::folder().unwrap().join("compiled");
    let more = format!(
        "[runtime]\ncache_dir = \"{}\"\n[plugins.quota]\npath = \"{}\"\n[policies.few]\nplugin = \"quota\"\n\
         config = {{ requests = 3, window = \"1h\", leases = 1 }}\n",
        compiled.display(),
        component.display()
    );
    let policies = vec!["allow".into(), "few".into()];
    let world = World::with(Settings { policies, more, ..Settings::default() }).await;
    let client = world.client();
    let prod = token(&client, "prod").await;
    let ask = json!({"target": "inventory_db", "ttl": "30m"});
    let issued = client.issue(&prod, &ask).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    let second = client.issue(&prod, &ask).await.unwrap();
    second.assert_problem(403, "policy-denied");
    assert!(second.text_at("/detail").contains("too many live leases"), "{}", second.text);
    let lease = issued.text_at("/lease_id").to_owned();
    let renewed = client.post(&format!("/v1/leases/{lease}/renew"), &prod, &json!({"ttl": "40m"})).await.unwrap();
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    let fourth = client.post(&format!("/v1/leases/{lease}/renew"), &prod, &json!({"ttl": "50m"})).await.unwrap();
    fourth.assert_problem(403, "policy-denied");
    assert!(fourth.text_at("/detail").contains("request 4 of 3"), "{}", fourth.text);

    let few = |record: &Value| {
        let policies = record["policies"].as_array().unwrap();
        policies.iter().find(|policy| policy["name"] == "few").unwrap().clone()
    };
    let granted = &world.events("issue.granted")[0];
    assert_eq!(granted["input"]["caller_address"], "127.0.0.1", "{granted}");
    assert_eq!(few(granted)["labels"], json!({"from": "127.0.0.1", "about": "nothing"}));
    assert_eq!(
        few(granted)["looked_at"],
        json!([
            "operation",
            "caller_address",
            "fact usage.workload.requests.3600",
            "fact usage.workload_target.leases",
            "resource lease"
        ])
    );
    let renewed = &world.events("lease.renewed")[0];
    assert_eq!(renewed["input"]["resource"], json!({"lease": lease, "credential": "password"}), "{renewed}");
    assert_eq!(few(renewed)["labels"]["about"], json!(lease));
    world.assert_log_is_intact();
}

#[tokio::test]
async fn a_policy_in_python_decides_by_counts() {
    decides_by_counts("quota-python", "python/jit_plugin").await;
}

#[tokio::test]
async fn a_policy_in_javascript_decides_by_counts() {
    decides_by_counts("quota-js", "js/jit-plugin").await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_hostile_policy_in_python_gets_nowhere() {
    hostile("hostile-python", "python/jit_plugin");
}

#[test]
fn a_hostile_policy_in_javascript_gets_nowhere() {
    hostile("hostile-js", "js/jit-plugin");
}

#[test]
fn every_kind_is_written_and_its_template_builds_to_what_a_broker_loads() {
    let folder = TempDir::with_prefix("jit-").unwrap();
    let sdk = root();
    let drivers = ["sql", "http", "ldap", "bare"].map(|world| vec!["driver", "my-backend", "--world", world]);
    for kind in drivers.into_iter().chain([vec!["context", "my-backend"]]) {
        let dir = format!("{}-{}", kind[0], kind.last().unwrap());
        let args = [&["plugin", "new"], &kind[..], &["--dir", &dir, "--sdk", sdk.to_str().unwrap()]].concat();
        let said = broker(folder.path(), &args, 0);
        assert!(said.contains("cargo test"), "{said}");
        // With another name it is the template, and that is built with the suite's plugins.
        let manifest = std::fs::read_to_string(folder.path().join(&dir).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("name = \"my-backend\"") && manifest.contains("sdk/plugin\""), "{manifest}");
    }
    let plugins = PathBuf::from(surroundings("JIT_TEST_PLUGINS"));
    for (template, kind) in [
        ("my-rule", "policy"),
        ("my-facts", "context provider"),
        ("my-sql-driver", "SQL driver"),
        ("my-http-driver", "HTTP driver"),
        ("my-ldap-driver", "LDAP driver"),
        ("my-bare-driver", "driver without capabilities"),
    ] {
        let file = plugins.join(format!("{template}.wasm"));
        let said = broker(folder.path(), &["plugin", "check", file.to_str().unwrap()], 0);
        assert!(said.contains(kind), "{said}");
    }
    for (args, told) in [
        (vec!["plugin", "new", "driver", "x", "--lang", "python"], "--lang rust"),
        (vec!["plugin", "new", "policy", "../x"], "cannot be a plugin's name"),
        (vec!["plugin", "build", "."], "plugin new"),
    ] {
        let said = broker(folder.path(), &args, 1);
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn the_sdks_pass_their_own_tests() {
    let sdk = root().join("sdk");
    run(&sdk.join("python"), &["python3", "-m", "unittest"]);
    run(&sdk.join("js"), &["node", "--test", "test/"]);
}

#[test]
fn a_failing_case_is_told_in_each_form() {
    let folder = TempDir::with_prefix("jit-").unwrap();
    let cases = "[config]\nrules = [{ workload = \"payment-*\", target = \"*\", roles = [\"*\"] }]\n\
                 [[case]]\nname = \"right\"\nexpect = { verdict = \"allow\" }\n\
                 [[case]]\nname = \"wrong\"\nrequest = { workload = \"batch\" }\nexpect = { verdict = \"allow\" }\n";
    std::fs::write(folder.path().join("cases.toml"), cases).unwrap();
    let policy = format!("{}/policy-allow-list.wasm", surroundings("JIT_TEST_PLUGINS"));
    let test = ["plugin", "test", "--policy", &policy, "--cases", "cases.toml"];
    let table = broker(folder.path(), &test, 3);
    assert!(table.contains("FAILED") && table.contains("expected allow, got deny"), "{table}");
    let junit = broker(folder.path(), &[&test[..], &["--format", "junit"]].concat(), 3);
    assert!(junit.contains("tests=\"2\" failures=\"1\""), "{junit}");
    let one = broker(folder.path(), &[&test[..], &["--only", "right", "--asked", "200"]].concat(), 0);
    assert!(one.contains("1 passed, 0 failed"), "{one}");
    // Another configuration for all that share one.
    std::fs::write(folder.path().join("other.toml"), "rules = 7\n").unwrap();
    let other = broker(folder.path(), &[&test[..], &["--config", "other.toml"]].concat(), 3);
    assert!(other.contains("problems of the configuration"), "{other}");
    let driver = format!("{}/driver-postgres.wasm", surroundings("JIT_TEST_PLUGINS"));
    let driver = broker(folder.path(), &["plugin", "test", "--policy", &driver, "--cases", "cases.toml"], 1);
    assert!(driver.contains("not a policy"), "{driver}");
}
