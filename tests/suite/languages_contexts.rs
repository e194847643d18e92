//! Context providers in Python and JavaScript: from `plugin new` to a fact that a policy decides by, asking a real
//! server with a secret that they do not see, and what is told of each mistake.

use std::path::Path;

use jit_tests::{Settings, World, surroundings};
use serde_json::json;
use tempfile::TempDir;

use super::contexts::{Answer, Facts};
use super::languages::{broker, built, run, token};

/// Where components are kept compiled: those with an interpreter take a while.
fn cache() -> String {
    let compiled = jit_plugin_build::cache::folder().unwrap().join("compiled");
    format!("[runtime]\ncache_dir = \"{}\"\n", compiled.display())
}

/// Sections of a target `scratch` that is for whom the fact fits.
fn scratch(context: &str, fact: &str, value: &str) -> String {
    let plugins = surroundings("JIT_TEST_PLUGINS");
    format!(
        r#"
[plugins.scripted]
path = "{plugins}/policy-scripted.wasm"
[plugins.noop]
path = "{plugins}/driver-noop.wasm"
[policies.by-fact]
plugin = "scripted"
[[policies.by-fact.config.rules]]
when = {{ facts = {{ "{context}.{fact}" = "{value}" }} }}
reason = "the fact fits"
[[policies.by-fact.config.rules]]
deny = "the fact does not fit"
[targets.scratch]
driver = "noop"
contexts = ["{context}"]
policies = ["by-fact"]
default_role = "any"
roles.any = {{}}
"#
    )
}

/// A context provider in that language, from its first command to a fact that a policy decides by.
async fn gathers_in_a_broker(lang: &str, unit_tests: &[&str]) {
    let folder = TempDir::with_prefix("jit-").unwrap();
    let said = broker(folder.path(), &["plugin", "new", "context", "our-teams", "--lang", lang], 0);
    assert!(said.contains(&unit_tests.join(" ")), "{said}");
    let project = folder.path().join("our-teams");
    run(&project, unit_tests);
    broker(&project, &["plugin", "build", "."], 0);
    let component = project.join("target/plugins/our-teams.wasm");
    let checked = broker(&project, &["plugin", "check", component.to_str().unwrap(), "--grants", "log"], 0);
    assert!(checked.contains("context provider, contract 0.2.0"), "{checked}");

    let mut more = cache() + &scratch("teams", "team", "payments");
    more += &format!(
        "[plugins.our-teams]\npath = \"{}\"\ngrants = [\"log\"]\n[contexts.teams]\nplugin = \"our-teams\"\n\
         config = {{ teams = [{{ prefix = \"payment-\", team = \"payments\" }}] }}\n",
        component.display()
    );
    let world = World::with(Settings { more, ..Settings::default() }).await;
    let client = world.client();
    let ask = json!({"target": "scratch"});
    let issued = client.issue(&token(&client, "prod").await, &ask).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    let granted = &world.events("issue.granted")[0];
    assert_eq!(granted["input"]["facts"], json!({"teams.team": "payments", "teams.status": "ok"}), "{granted}");
    let other = client.issue(&client.token("batch").await.unwrap(), &ask).await.unwrap();
    other.assert_problem(403, "policy-denied");
    assert_eq!(other.text_at("/detail"), "the fact does not fit");
    world.assert_log_is_intact();
}

#[tokio::test]
async fn a_context_provider_in_python_from_nothing_to_facts() {
    gathers_in_a_broker("python", &["python3", "-m", "unittest"]).await;
}

#[tokio::test]
async fn a_context_provider_in_javascript_from_nothing_to_facts() {
    gathers_in_a_broker("js", &["node", "--test"]).await;
}

/// Asks a server with a secret of the connection; and each mistake (`mode`, what is told) denies by name.
async fn asks_a_server(fixture: &str, sdk: &str, mistakes: &[(&str, &str)]) {
    let folder = TempDir::with_prefix("jit-").unwrap();
    let component = built(&format!("contexts/{fixture}"), sdk, &folder);
    refuses_another_world(&component, sdk);
    let facts = Facts::new().await;
    let mut more = cache() + &scratch("hosts", "score", "87");
    more += &format!(
        "[plugins.facts]\npath = \"{}\"\n[connections.edr]\nkind = \"http\"\nurl = \"{}\"\n\
         secrets = {{ token = {{ file = \"edr.token\" }} }}\n[contexts.hosts]\nplugin = \"facts\"\nconnection = \"edr\"\n\
         cache = false\n",
        component.display(),
        facts.url
    );
    for (mode, _) in mistakes {
        more += &format!(
            "[contexts.{mode}]\nplugin = \"facts\"\nconnection = \"edr\"\ncache = false\n\
             config = {{ mode = \"{mode}\" }}\n\
             [targets.{mode}]\ndriver = \"noop\"\ncontexts = [\"{mode}\"]\npolicies = [\"allow\"]\nroles.any = {{}}\n"
        );
    }
    let mut world = World::prepared(Settings { more, ..Settings::default() }).await;
    world.write_secret("edr.token", "s3cr3t-of-the-edr").unwrap();
    world.start(&[]).await;
    let client = world.client();
    let caller = client.token("payment-service").await.unwrap();
    let body = json!({"target": "scratch"});
    facts.say(Answer::Say(200, json!({"score": 87}).to_string()));
    let issued = client.issue(&caller, &body).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    let last = facts.last();
    assert_eq!(last, ("/hosts/payment-service".to_owned(), "Bearer s3cr3t-of-the-edr".to_owned()));
    // The server shows the secret, and it goes no further.
    facts.say(Answer::Say(200, json!({"score": "s3cr3t-of-the-edr"}).to_string()));
    client.issue(&caller, &body).await.unwrap().assert_problem(403, "policy-denied");
    facts.say(Answer::Say(404, String::new()));
    let unknown = client.issue(&caller, &body).await.unwrap();
    assert_eq!(unknown.text_at("/detail"), "the fact does not fit", "{}", unknown.text);

    for (mode, told) in mistakes {
        let reply = client.issue(&caller, &json!({"target": mode, "role": "any"})).await.unwrap();
        reply.assert_problem(403, "policy-denied");
        let denied = world.events("issue.denied").pop().unwrap();
        let error = denied["contexts"][0]["error"].as_str().unwrap().to_owned();
        assert!(error.contains(told), "{mode}: {error}");
    }
    assert!(world.audit().iter().all(|record| !record.to_string().contains("s3cr3t-of-the-edr")));
    assert!(!world.process().log().contains("s3cr3t-of-the-edr"));
}

/// A provider that asks a server in a project that says that it asks none is told while it is built.
fn refuses_another_world(component: &Path, sdk: &str) {
    let project = component.parent().unwrap();
    let (file, line) = match sdk {
        "python/jit_plugin" => ("pyproject.toml", "world = \"http\"\n"),
        _ => ("package.json", "\"world\": \"http\",\n"),
    };
    let manifest = std::fs::read_to_string(project.join(file)).unwrap();
    let bare = manifest.replace(line, "");
    assert_ne!(manifest, bare);
    std::fs::write(project.join(file), bare).unwrap();
    let said = broker(project, &["plugin", "build", ".", "--out", "bare"], 1);
    assert!(said.contains(&format!("add {}", line.trim_end().trim_end_matches(','))), "{said}");
    std::fs::write(project.join(file), manifest).unwrap();
}

#[tokio::test]
async fn a_context_provider_in_python_asks_a_server() {
    let mistakes = [
        ("raises", "KeyError: 'no such key' (facts.py:"),
        (
            "parses",
            "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1) (facts.py:",
        ),
        ("gives_a_list", "gather returned what it must not: facts must be a dict of str, not list (facts.py:"),
        ("gives_a_number", "gather returned what it must not: facts['score'] must be a str, not int (facts.py:"),
        ("loops", "exceeded 50 ms of guest time"),
    ];
    asks_a_server("facts-python", "python/jit_plugin", &mistakes).await;
}

#[tokio::test]
async fn a_context_provider_in_javascript_asks_a_server() {
    let mistakes = [
        ("raises", "TypeError: can't access property \"score\" of undefined (facts.js:11 in raises)"),
        ("parses", "of the JSON data (facts.js:12 in parses)"),
        (
            "gives_a_list",
            "gather returned what it must not: facts must be an object of texts, not a list (facts.js, gather)",
        ),
        (
            "gives_a_number",
            "gather returned what it must not: facts.score must be a text, not a number (facts.js, gather)",
        ),
        ("loops", "exceeded 50 ms of guest time"),
    ];
    asks_a_server("facts-js", "js/jit-plugin", &mistakes).await;
}
