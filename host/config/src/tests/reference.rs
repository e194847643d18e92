//! docs/reference/configuration.md has every key that the reader asks for, and no other.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::parse;

thread_local! {
    /// What the sections that were read on this thread asked for: the section's path, and the key.
    static ASKED: RefCell<BTreeSet<(String, &'static str)>> = RefCell::default();
}

/// Notes what a section asked for.
pub(crate) fn note(path: &str, keys: &[&'static str]) {
    ASKED.with_borrow_mut(|asked| asked.extend(keys.iter().map(|key| (general(path), *key))));
}

/// A section's path with the author's own names made general: `targets.NAME.roles.ROLE.rotating`.
fn general(path: &str) -> String {
    let mut before = "";
    let mut parts = Vec::new();
    for part in path.split('.') {
        let part = part.split('[').next().unwrap();
        parts.push(match before {
            "plugins" | "connections" | "policies" | "contexts" | "targets" => "NAME",
            "roles" => "ROLE",
            _ => part,
        });
        before = if matches!(parts.last(), Some(&"NAME" | &"ROLE")) { "" } else { part };
    }
    parts.join(".")
}

/// The page's sections, and the keys of its tables.
fn page() -> (BTreeSet<String>, BTreeSet<(String, String)>) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/configuration.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (mut sections, mut keys) = (BTreeSet::new(), BTreeSet::new());
    let mut section = String::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix('#') {
            section = heading.split('`').nth(1).unwrap_or_default().trim_matches(['[', ']']).to_owned();
            sections.insert(section.clone());
        } else if let Some(row) = line.strip_prefix("| `") {
            keys.insert((section.clone(), row.split('`').next().unwrap().to_owned()));
        }
    }
    (sections, keys)
}

/// Every section there is, with every table that is read only where it stands in the file.
const EVERYTHING: &str = r#"
[server]
operator_listen = "127.0.0.1:9700"
tls = { cert = "cert.pem", key = "key.pem" }
[store]
url = "postgres://store@db-1.example,db-2.example:5433/store"
plaintext = { because = "the mesh encrypts" }
sealing_key = { file = "sealing.key" }
[audit]
signing_key = { file = "audit.key" }
export = [{ kind = "jsonl", path = "audit.jsonl" }]
archive = { path = "archive" }
[[identity.jwt]]
name = "cluster"
issuer = "https://issuer.example"
audiences = ["jit-broker"]
workload = "{sub}"
[plugins.driver]
path = "driver.wasm"
[plugins.rule]
path = "rule.wasm"
[plugins.facts]
path = "facts.wasm"
[connections.postgres]
kind = "postgres"
url = "postgres://broker@db.example/shop"
plaintext = { because = "the mesh encrypts" }
[connections.mysql]
kind = "mysql"
url = "mysql://broker@127.0.0.1"
[connections.ldap]
kind = "ldap"
url = "ldaps://directory.example"
bind_dn = "cn=broker"
password = { env = "PASSWORD" }
[connections.http]
kind = "http"
url = "https://api.example"
[policies.rule]
plugin = "rule"
rollout = { match = { workload = "a*" } }
[contexts.facts]
plugin = "facts"
connection = "http"
[targets.shop]
driver = "driver"
connection = "mysql"
policies = ["rule"]
contexts = ["facts"]
endpoint = { host = "db.example" }
roles.app = { rotating = { account = "app" } }
[targets.more]
driver = "driver"
connection = "postgres"
policies = ["rule"]
roles.app = {}
[traces]
url = "http://collector.example/v1/traces"
plaintext = { because = "the mesh encrypts" }
headers = { x-api-key = { env = "KEY" } }
[targets.people]
driver = "driver"
connection = "ldap"
policies = ["rule"]
roles.app = {}
"#;

#[test]
fn the_page_has_every_key_and_no_other() {
    parse(EVERYTHING).unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    let asked = ASKED.with_borrow(Clone::clone);
    // Where a secret is stands at the top of the page, for all of them.
    let secrets: BTreeSet<&String> =
        asked.iter().filter(|(_, key)| matches!(*key, "file" | "env")).map(|(path, _)| path).collect();
    let read: BTreeSet<(String, String)> = asked
        .iter()
        .filter(|(path, _)| !secrets.contains(path))
        .map(|(path, key)| (path.clone(), (*key).to_owned()))
        .collect();
    assert!(read.len() > 100, "only {} keys were read", read.len());

    let (sections, documented) = page();
    let below = |path: &str, key: &str| {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        sections.iter().any(|section| *section == path || section.starts_with(&format!("{path}.")))
    };
    let missing: Vec<_> = read
        .iter()
        .filter(|(path, key)| !documented.contains(&(path.clone(), key.clone())) && !below(path, key))
        .collect();
    assert!(missing.is_empty(), "the page has not: {missing:?}");
    let invented: Vec<_> = documented.difference(&read).collect();
    assert!(invented.is_empty(), "the program does not read: {invented:?}");
}

#[test]
fn names_are_made_general() {
    for (path, expected) in [
        ("", ""),
        ("server.tls", "server.tls"),
        ("identity.jwt[0]", "identity.jwt"),
        ("targets.plugins.roles.app.rotating", "targets.NAME.roles.ROLE.rotating"),
    ] {
        assert_eq!(general(path), expected);
    }
}
