//! What a mistake looks like to the person who made it, and what hostile files do.
#![allow(clippy::unwrap_used, reason = "a test that does not get what it expects has failed")]

mod files;
mod hostile;
mod identities;
mod meaning;
mod mistakes;
mod pages;
pub(crate) mod reference;
mod secrecy;

use super::{Config, ConfigErrors};

/// A small configuration without mistakes.
const BASE: &str = r#"[server]
listen = "127.0.0.1:8700"

[audit]
signing_key = { file = "data/audit.key" }

[[identity.jwt]]
name = "cluster"
issuer = "https://kubernetes.default.svc"
audiences = ["jit-broker"]
workload = "{sub}"

[plugins.postgres]
path = "plugins/driver-postgres.wasm"

[plugins.allow-list]
path = "plugins/policy-allow-list.wasm"

[connections.inventory]
kind = "postgres"
url = "postgres://jit_broker@127.0.0.1:5432/inventory"
password = { file = "secrets/inventory" }

[policies.allow-listed]
plugin = "allow-list"

[targets.inventory_db]
driver = "postgres"
connection = "inventory"
policies = ["allow-listed"]
default_ttl = "1h"
max_ttl = "8h"
default_role = "reader"
roles.reader = { grants = ["app_read_only"] }
"#;

/// [`BASE`] with one place changed; the place must be there once.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(BASE.matches(from).count(), 1, "{from:?} is not once in the base");
    BASE.replacen(from, to, 1)
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "broker.toml")
}

/// `line:column` of the first place with that text, as an editor counts.
fn position(text: &str, at: &str) -> String {
    let at = text.find(at).unwrap_or_else(|| panic!("{at:?} is not in the text"));
    let line_start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[..at].matches('\n').count() + 1;
    format!("{line}:{}", text[line_start..at].chars().count() + 1)
}
