//! The demo's configuration, to be read by a person.

use crate::backend::{Backend, Sections};

/// How long leases of the target are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// `default_ttl`.
    pub(crate) default_ttl: &'static str,
    /// `max_ttl`.
    pub(crate) max_ttl: &'static str,
}

/// Those of an ordinary target.
pub(crate) const USUAL: Terms = Terms { default_ttl: "15m", max_ttl: "1h" };

/// `broker.toml`: everything beside it has relative paths.
pub(crate) fn text<B: Backend>(backend: &B, terms: Terms) -> String {
    let Terms { default_ttl, max_ttl } = terms;
    let driver = B::KIND.word();
    let Sections { connection, target } = backend.sections();
    format!(
        r#"# The demo's configuration, made by `cargo xtask demo`. Every key is explained by
# `jit-broker config example`; `jit-broker dev` adds its embedded issuer to it.

[server]
listen = "127.0.0.1:0"                      # a free port
admin_socket = "admin.sock"

[store]
url = "sqlite:broker.db"

[audit]
signing_key = {{ file = "audit.key" }}
export = [{{ kind = "jsonl", path = "audit.jsonl" }}]

# WebAssembly components: what they may do is what the host hands them, call by call.
[plugins.{driver}]
path = "plugins/driver-{driver}.wasm"

[plugins.allow-list]
path = "plugins/policy-allow-list.wasm"

# What the host opens; no plugin sees the credential.
[connections.inventory]
{connection}

# Who may have what: what no rule names is denied.
[policies.allow-listed]
plugin = "allow-list"
[[policies.allow-listed.config.rules]]
name = "payments-read-inventory"
workload = "payment-service"
k8s_namespace = "shop"
target = "inventory_db"
roles = ["app_read_only"]
max_ttl = "30m"

# A stricter rule on trial: it is asked and recorded, and decides nothing yet.
[policies.ticket-required]
plugin = "allow-list"
mode = "shadow"
[[policies.ticket-required.config.rules]]
name = "with-ticket"
workload = "*"
target = "inventory_db"
roles = ["*"]
require_ticket = true

# What applications ask for. They cannot tell which driver serves it.
[targets.inventory_db]
driver = "{driver}"
connection = "inventory"
policies = ["allow-listed", "ticket-required"]
default_ttl = "{default_ttl}"
max_ttl = "{max_ttl}"
default_role = "app_read_only"
{target}
"#
    )
}
