//! The demo's configuration, to be read by a person.

use jit_tests::Database;

/// `broker.toml`: everything beside it has relative paths.
pub(crate) fn text(database: &Database) -> String {
    let Database { host, port, name, read_only, read_write, owner, broker, .. } = database;
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
[plugins.postgres]
path = "plugins/driver-postgres.wasm"

[plugins.allow-list]
path = "plugins/policy-allow-list.wasm"

# What the host opens; no plugin sees the password.
[connections.inventory]
kind = "postgres"
url = "postgres://{broker}@{host}:{port}/{name}"
password = {{ file = "secrets/inventory" }}

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

[targets.inventory_db]
driver = "postgres"
connection = "inventory"
policies = ["allow-listed", "ticket-required"]
default_ttl = "15m"
max_ttl = "1h"
default_role = "app_read_only"
[targets.inventory_db.config]
reassign_owned_to = "{owner}"      # keeps the tables that an account leaves behind
[targets.inventory_db.roles.app_read_only]
grants = ["{read_only}"]
[targets.inventory_db.roles.app_read_write]
grants = ["{read_write}"]
"#
    )
}
