//! Drivers in Python and JavaScript: the templates and an example on a real server pass the conformance kit, and
//! what is told of each mistake names its place in the author's file.

use std::path::PathBuf;

use jit_tests::kit::people::{BY_REQUESTS, People};
use jit_tests::kit::userpass::Mount;
use jit_tests::kit::{KitFixture, KitReport, VERIFIERS};
use jit_tests::{Settings, World};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::languages::{broker, built, run};

/// A login without a session, and a connection without an authority of its own, cannot try these.
const NOT_TRIED: [&str; 2] = ["lifecycle::a_session_ends_with_it", "hostile::one_that_holds_all_it_may_is_gone"];

async fn kit(component: PathBuf, fixture: KitFixture, only: &'static [&'static str]) -> KitReport {
    spawn_blocking(move || fixture.run_component(&component, only)).await.unwrap().unwrap()
}

/// From `plugin new` to a green kit, with nothing changed but headers beside the template's own: they have every
/// encoding that the host writes, so that each of its names is one that the host knows.
async fn the_template_conforms(lang: &str, unit_tests: &[&str], file: &str, encoded: &[(&str, &str)]) {
    let folder = TempDir::with_prefix("jit-").unwrap();
    let new = ["plugin", "new", "driver", "our-people", "--world", "http", "--lang", lang];
    let said = broker(folder.path(), &new, 0);
    assert!(said.contains("HTTP driver") && said.contains(&unit_tests.join(" ")), "{said}");
    let project = folder.path().join("our-people");
    run(&project, unit_tests);
    let mut source = std::fs::read_to_string(project.join(file)).unwrap();
    for (from, to) in encoded {
        assert!(source.contains(from), "{from}: {source}");
        source = source.replacen(from, to, 1);
    }
    std::fs::write(project.join(file), source).unwrap();
    broker(&project, &["plugin", "build", "."], 0);
    let component = project.join("target/plugins/our-people.wasm");
    let checked = broker(&project, &["plugin", "check", component.to_str().unwrap()], 0);
    assert!(checked.contains("calls itself our-people 0.1.0"), "{checked}");

    let people = People::start().unwrap();
    let fixture = people.fixture("none", BY_REQUESTS).unwrap();
    let text = std::fs::read_to_string(fixture.path()).unwrap();
    fixture.write(&text.replace("config = { mistake = \"none\" }\n", "")).unwrap();
    let report =
        kit(component, fixture, &["lifecycle::", "hostile::", "names::", "crash::", "refusals::", "outage::"]).await;
    let left_out = [
        NOT_TRIED[0],
        NOT_TRIED[1],
        "refusals::a_strange_authority_is_not_trusted",
        "refusals::missing_permission_is_told",
        "crash::rotate_can_be_cut_off_anywhere",
    ];
    report.must_pass_without(&left_out).unwrap();
}

#[tokio::test]
async fn the_template_of_a_driver_in_python_conforms() {
    let encoded = [
        ("from jit_plugin import (", "from jit_plugin import encode\nfrom jit_plugin import ("),
        (
            "    headers = {\"authorization\": [\"Bearer \", http.credential(TOKEN)]}",
            r#"    token = http.credential(TOKEN)
    headers = {
        "authorization": ["Bearer ", token],
        "x-basic": encode.basic("user", token),
        "x-written": encode.written(token, "base64url"),
        "x-digest": ["{SHA512}", encode.digest(token, "sha512", notation="hex")],
        "x-before": encode.salted_digest(token, "sha384", salt="before", salt_bytes=4, notation="base64"),
        "x-after": encode.salted_digest(token, "sha1", salt="after", salt_bytes=64, notation="hex"),
        "x-bcrypt": encode.bcrypt(token, cost=4, prefix="2y"),
        "x-pbkdf2": encode.pbkdf2(token, "sha256", iterations=1),
    }"#,
        ),
    ];
    the_template_conforms("python", &["python3", "-m", "unittest"], "driver.py", &encoded).await;
}

#[tokio::test]
async fn the_template_of_a_driver_in_javascript_conforms() {
    let encoded = [
        ("import {\n", "import { encode } from './jit-plugin/index.js';\nimport {\n"),
        (
            "  const headers = { authorization: ['Bearer ', http.credential(TOKEN)] };",
            r"  const token = http.credential(TOKEN);
  const headers = {
    authorization: ['Bearer ', token],
    'x-basic': encode.basic('user', token),
    'x-written': encode.written(token, 'base64url'),
    'x-digest': ['{SHA512}', encode.digest(token, 'sha512', { notation: 'hex' })],
    'x-before': encode.saltedDigest(token, 'sha384', { salt: 'before', saltBytes: 4, notation: 'base64' }),
    'x-after': encode.saltedDigest(token, 'sha1', { salt: 'after', saltBytes: 64, notation: 'hex' }),
    'x-bcrypt': encode.bcrypt(token, { cost: 4, prefix: '2y' }),
    'x-pbkdf2': encode.pbkdf2(token, 'sha256', { iterations: 1 }),
  };",
        ),
    ];
    the_template_conforms("js", &["node", "--test"], "driver.js", &encoded).await;
}

/// An account of a real server, from the broker's API: it logs in, and after its lease neither it nor the session that
/// it had is let in.
async fn hands_out_accounts(component: &std::path::Path, mount: &Mount) {
    let compiled = jit_plugin_build::cache::folder().unwrap().join("compiled");
    let more = format!(
        "[runtime]\ncache_dir = \"{}\"\n[plugins.userpass]\npath = \"{}\"\n{}\
         [targets.people]\ndriver = \"userpass\"\nconnection = \"backend\"\npolicies = [\"allow\"]\n\
         default_role = \"reader\"\nconfig = {{ mount = \"{}\" }}\nroles.reader = {{ policies = [\"{}\"] }}\n",
        compiled.display(),
        component.display(),
        mount.connection("backend", "bao.token"),
        mount.path,
        mount.reader()
    );
    let mut world = World::prepared(Settings { more, ..Settings::default() }).await;
    world.write_secret("bao.token", &mount.token(&[&mount.path]).await.unwrap()).unwrap();
    world.start(&[]).await;
    let client = world.client();
    let caller = client.token("payment-service").await.unwrap();
    let issued = client.issue(&caller, &json!({"target": "people"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    let (name, password) = (issued.username().to_owned(), issued.password().to_owned());
    let session = mount.log_in(&name, &password).await.unwrap().expect("it is let in");
    assert!(mount.reads(&session).await.unwrap());
    assert!(mount.log_in(&name, "another").await.unwrap().is_none());
    let ended = client.post(&format!("/v1/leases/{}/revoke", issued.lease()), &caller, &json!({})).await.unwrap();
    assert!(ended.status < 300, "{}", ended.text);
    world.lease_becomes(issued.lease(), "revoked").await;
    assert!(mount.log_in(&name, &password).await.unwrap().is_none());
    assert!(!mount.reads(&session).await.unwrap(), "its session ended with it");
    assert!(mount.users().await.unwrap().is_empty());
    for record in world.audit() {
        assert!(!record.to_string().contains(&password));
    }
    assert!(!world.process().log().contains(&password));
    world.assert_log_is_intact();
}

async fn conforms_on_a_real_server(fixture: &str, sdk: &str) {
    let folder = TempDir::with_prefix("jit-").unwrap();
    let component = built(&format!("drivers/{fixture}"), sdk, &folder);
    let mount = Mount::of_the_suite().await.unwrap();
    let report = kit(component.clone(), mount.fixture().await.unwrap(), &[]).await;
    let left_out = [NOT_TRIED[0], "lifecycle::it_expires_by_itself", NOT_TRIED[1], VERIFIERS[0], VERIFIERS[1]];
    report.must_pass_without(&left_out).unwrap();
    hands_out_accounts(&component, &mount).await;
}

#[tokio::test]
async fn a_driver_in_python_conforms_on_openbao() {
    conforms_on_a_real_server("userpass-python", "python/jit_plugin").await;
}

#[tokio::test]
async fn a_driver_in_javascript_conforms_on_openbao() {
    conforms_on_a_real_server("userpass-js", "js/jit-plugin").await;
}

/// A mistake: the target's `mode`, and what is told of it.
type Mistake = (&'static str, &'static str);

/// What is told of a mistake has its place in the author's file: of those that `validate` makes in `config check`, of
/// those that `create` makes in the kit.
async fn mistakes_are_told(fixture: &str, sdk: &str, validates: &[Mistake], creates: &[Mistake]) {
    let folder = TempDir::with_prefix("jit-").unwrap();
    let component = built(&format!("drivers/{fixture}"), sdk, &folder);
    let people = People::start().unwrap();
    let connection = people.fixture("none", "").unwrap();
    let compiled = jit_plugin_build::cache::folder().unwrap().join("compiled");
    let mut more = format!(
        "[runtime]\ncache_dir = \"{}\"\n[plugins.hostile]\npath = \"{}\"\n",
        compiled.display(),
        component.display()
    );
    let text = std::fs::read_to_string(connection.path()).unwrap();
    more += &text[text.find("[connections.backend]").unwrap()..text.find("[targets.people]").unwrap()];
    for (mode, _) in validates {
        more += &format!(
            "[targets.{mode}]\ndriver = \"hostile\"\nconnection = \"backend\"\npolicies = [\"allow\"]\n\
             config = {{ mode = \"{mode}\" }}\nroles.any = {{}}\n"
        );
    }
    let world = World::prepared(Settings { more, ..Settings::default() }).await;
    world.write_secret("token", "the-brokers-token").unwrap();
    let key = world.folder.path().join("audit.key").display().to_string();
    assert!(world.cli(&["audit", "key", &key]).status.success());
    let config = world.config_with_issuer().display().to_string();
    let output = world.cli(&["config", "check", "--config", &config]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for (mode, told) in validates {
        // The finding, and in the next line what stands at its place.
        let lines: Vec<&str> = said.lines().collect();
        let at = format!("[targets.{mode}]");
        let is_told = |pair: &[&str]| pair[0].contains(told) && pair[1].contains(&at);
        assert!(lines.windows(2).any(is_told), "{mode}: {told}: {said}");
    }
    for (mode, told) in creates {
        let only = "lifecycle::an_account_logs_in";
        let fixture = people.fixture("none", BY_REQUESTS).unwrap();
        let text = std::fs::read_to_string(fixture.path()).unwrap();
        let text = text.replace("mistake = \"none\"", &format!("mode = \"{mode}\"")).replace("[\"missing\"]", "[]");
        let text = text.replace("roles.missing = { group = \"\" }\n", "").replace("{ group = \"readers\" }", "{}");
        fixture.write(&text).unwrap();
        let report = kit(component.clone(), fixture, &["lifecycle::an_account_logs_in"]).await;
        assert!(report.detail(only).contains(told), "{mode}: {}", report.detail(only));
    }
}

#[tokio::test]
async fn what_goes_wrong_in_a_driver_in_python_is_told_with_its_place() {
    let validates = [
        ("raises", "KeyError: 'no such key' (hostile.py:32 in raises)"),
        ("yields", "KeyError: 'no such key' (hostile.py:35 in yields)"),
        ("misuses_the_sdk", "TypeError: path must be a list of str, not str (hostile.py:38 in misuses_the_sdk)"),
        ("parses", "(hostile.py:41 in parses)"),
        ("returns_a_number", "must return a list of Problem or yield them, not int (hostile.py:25 in validate)"),
        ("shows_a_secret", "a secret has no text: give it as a part, such as [\"Bearer \", token] (hostile.py:47 in"),
        ("waits", "a plugin has no clock: use request.time, in a driver account.now (hostile.py:50 in waits)"),
        ("loops", "exceeded 500 ms of guest time"),
        ("grows", "MemoryError (hostile.py:57 in grows)"),
        ("recurses", "RecursionError: maximum recursion depth exceeded (hostile.py:60 in recurses)"),
        ("leaves", "SystemExit: 0 (hostile.py:63 in leaves)"),
        ("hoards", "exceeded 64 handles"),
    ];
    let creates = [
        ("created_text", "create must return Issued, not str (hostile.py:68 in create)"),
        ("gives_back", "secret is the password that the host gave: leave it out, the host knows it (hostile.py:72 in"),
        ("sends_first", "ValueError: create is broken (hostile.py:75 in create)"),
    ];
    mistakes_are_told("hostile-python", "python/jit_plugin", &validates, &creates).await;
}

#[tokio::test]
async fn what_goes_wrong_in_a_driver_in_javascript_is_told_with_its_place() {
    let validates = [
        ("raises", "(hostile.js:6 in raises)"),
        ("yields", "(hostile.js:8 in yields)"),
        ("misuses_the_sdk", "TypeError: path must be a list of texts, not a text (hostile.js:10 in misuses_the_sdk)"),
        ("parses", "(hostile.js:11 in parses)"),
        (
            "returns_a_number",
            "validate must return a list of problems or yield them, not a number (hostile.js, validate)",
        ),
        ("promises", "validate must return a list of problems or yield them, not a promise (hostile.js, validate)"),
        ("shows_a_secret", "a secret has no text: give it as a part, such as [\"Bearer \", token] (hostile.js:14 in"),
        ("waits", "a plugin has no clock: use request.time, in a driver account.now (hostile.js:15 in waits)"),
        ("loops", "exceeded 500 ms of guest time"),
        ("grows", "out of memory (hostile.js)"),
        ("recurses", "InternalError: too much recursion (hostile.js:20 in recurses)"),
        ("throws_text", "only a text (hostile.js)"),
    ];
    let creates = [
        ("created_text", "create returned what it must not: what was issued must be an object, not a text"),
        (
            "gives_back",
            "secret is the password that the host gave: leave it out, the host knows it (hostile.js, create)",
        ),
        ("sends_first", "RangeError: create is broken (hostile.js:37 in create)"),
    ];
    mistakes_are_told("hostile-js", "js/jit-plugin", &validates, &creates).await;
}
