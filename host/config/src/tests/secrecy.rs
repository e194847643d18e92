//! Whoever writes a secret into the file does not find it again in any output.

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::{BASE, changed, parse, position};

const PASSWORD: &str = "password = { file = \"secrets/inventory\" }";
const URL: &str = "postgres://jit_broker@127.0.0.1:5432/inventory";

/// With a second mistake on the line before, so that neighbours are shown too.
fn canary(from: &str, to: &str) {
    let text = changed(from, to).replace("kind = ", "knid = ");
    let errors = parse(&text).unwrap_err();
    let mut default_frames = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none()).with_context_lines(3);
    handler.render_report(&mut default_frames, &errors).unwrap();
    for output in [errors.render(true), errors.render(false), default_frames, format!("{errors:?} {errors}")] {
        assert!(!output.contains("hunter") && !output.contains("hun\\"), "{to}\n{output}");
    }
}

#[test]
fn a_literal_is_never_shown() {
    for to in [
        "password = \"hunter2\"",
        "password = 'hunter2'",
        "password = \"\"\"hunter\nhunter\"\"\"",
        "password = [\"hunter2\"]",
        "password = { literal = \"hunter2\" }",
        "password = { env = \"hunter 2\" }",
        "password = \"hunter2",
        "password = hunter2",
        "password = \"\"\"\nhunter2",
        "\"password\" = 'hunter2",
        "pasword = \"hunter2\"",
        "pwd = \"hunter2\"",
        "anything = \"hunter2\"",
        "vault = { x = [{ y = 'hunter2' }] }",
        "password = 'x'\n[zzz]\nstuff = \"hunter2\"",
        "passphrase = \"hunter2\"",
        "# password = \"hunter2\"",
        "x = { password = \"hunter2\" }",
        "secrets = { jwt = \"hunter2\" }",
        "secrets = { jwt = { x = \"hunter2\" } }",
        "secrets = { jwt = { env = \"hunter 2\" } }",
        "secrets = { jwt = [\"hunter2\"] }",
        "secrets = { \"a b\" = \"hunter2\" }",
        "secrets = \"hunter2\"",
        "secrets = [\"hunter2\"]",
    ] {
        canary(PASSWORD, to);
    }
}

#[test]
fn a_password_in_a_url_is_never_shown() {
    for to in [
        "postgres://u:hunter2@h/d",
        "postgres://u:hunter2/@h/d",
        "postgres://u:hunter2@hunter2@h/d",
        "postgres://u:#hunter2@h/d",
        "postgres://:hunter2@h/d",
        "postgres://u@h/d?password=hunter2",
        "postgres://u@h/d?sslpassword=hunter2",
        "postgres//u:hunter2@h/d",
        "mysql://u:hunter2@h/d",
    ] {
        canary(URL, to);
    }
    canary("https://kubernetes.default.svc", "https://u:hunter2@h");
    canary("{ file = \"data/audit.key\" }", "\"\"\"-----BEGIN PRIVATE KEY-----\nhunter2\n\"\"\"");
}

#[test]
fn a_credential_for_a_plugin_is_a_warning() {
    let text = format!("{BASE}config = {{ api_token = \"hunter2\" }}\n");
    let config = parse(&text).unwrap();
    assert_eq!(config.warnings.len(), 1);
    let told = config.warnings[0].plain();
    assert!(told.contains("`api_token` looks like a secret") && !told.contains("hunter2"), "{told}");
    let told = config.explain("targets.inventory_db.config.api_token", "is wrong").plain();
    assert!(
        told.starts_with(&format!("broker.toml:{}: ", position(&text, "\"hunter2"))) && !told.contains("hunter2"),
        "{told}"
    );
}

#[test]
fn the_name_of_a_connections_secret_is_none() {
    let connection = "[connections.vault]\nkind = \"http\"\nurl = \"https://vault.invalid\"\n\
                      secrets = { jwt = { env = \"JIT_VAULT_JWT\" } }\n";
    let target = "[targets.vaulted]\ndriver = \"postgres\"\nconnection = \"vault\"\npolicies = [\"allow-listed\"]\n\
                  [targets.vaulted.roles.r]\n[targets.vaulted.config.auth]\n";
    let warnings =
        |secret: &str| parse(&format!("{BASE}\n{connection}{target}secret = \"{secret}\"\n")).unwrap().warnings;
    assert!(warnings("jwt").is_empty(), "{:?}", warnings("jwt")[0].plain());
    assert!(warnings("hunter2")[0].plain().contains("`secret` looks like a secret"));
}
