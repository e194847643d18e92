//! `dev`: everything embedded, for a laptop.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use url::Url;

use super::{MemoryArg, Stop, block_on, start_log};
use jit_assembly::compose::Mode;
use jit_config::{Config, ConfigErrors};
use jit_kit::dev_issuer::DevIssuer;

pub(super) const EXAMPLES: &str = "\
Examples:
  jit-broker dev --database postgres://jit_broker@127.0.0.1:5432/inventory \\
      --password-file secrets/inventory --role app_read_only --owner inventory_owner
  TOKEN=$(curl -s 'http://127.0.0.1:8701/token?workload=payment-service&namespace=shop')
  curl -s http://127.0.0.1:8700/issue -H \"authorization: Bearer $TOKEN\" \\
      -H 'content-type: application/json' -d '{\"target\": \"inventory\", \"ttl\": \"5m\"}'

  jit-broker dev --config broker.toml    # your configuration, and the embedded issuer beside yours

Whoever can reach the embedded issuer can be any workload. So it listens only on loopback, and no other command has it.";

#[derive(clap::Args)]
pub(super) struct DevArgs {
    #[command(flatten)]
    memory: MemoryArg,
    /// Your own configuration; the embedded issuer is added to it.
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["database", "password_file", "roles", "owner"])]
    config: Option<PathBuf>,
    /// Without a configuration: the URL of the database in which accounts are created, without a password.
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    database: Option<Url>,
    /// The file with the broker's own password for that database.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A role that applications may get. Repeat it for more; the first one is the default.
    #[arg(long = "role", value_name = "ROLE", required_unless_present = "config")]
    roles: Vec<String>,
    /// The role that gets the tables that an account leaves behind.
    #[arg(long, value_name = "ROLE")]
    owner: Option<String>,
    /// The folder for the generated configuration, store and audit key.
    #[arg(long, value_name = "DIR", default_value = "jit-dev")]
    data: PathBuf,
    /// The folder with the built plugins.
    #[arg(long, value_name = "DIR", default_value = "target/plugins")]
    plugins: PathBuf,
    /// Where the broker listens.
    #[arg(long, default_value = "127.0.0.1:8700", conflicts_with = "config")]
    listen: SocketAddr,
    /// Where the embedded issuer listens; must be a loopback address.
    #[arg(long, default_value = "127.0.0.1:8701")]
    issuer: SocketAddr,
    /// How a workload's name is made from the claims of the embedded issuer's tokens.
    #[arg(
        long,
        value_name = "TEMPLATE",
        default_value = "{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}"
    )]
    workload: String,
}

pub(super) fn run(args: DevArgs) -> Result<(), Stop> {
    let path = match &args.config {
        Some(path) => path.clone(),
        None => generate(&args)?,
    };
    block_on(async {
        let (issuer, address) = DevIssuer::bind(args.issuer).await?;
        let (file, url) = (path.clone(), issuer.issuer_url().to_owned());
        let workload = args.workload.clone();
        let source = Box::new(move || with_issuer(&file, &url, &workload));
        let first = source()?;
        let _until_the_end = start_log(&first)?;
        let stop = tokio_util::sync::CancellationToken::new();
        let embedded = tokio::spawn(issuer.clone().serve(stop.clone().cancelled_owned()));
        let served = crate::serve::serve(source, Mode { dev: true, no_memory: args.memory.no_memory }, |broker| {
            println!("broker   http://{broker}");
            println!("issuer   http://{address}");
            println!("config   {}", path.display());
            println!("token    curl -s 'http://{address}/token?workload=payment-service&namespace=shop'");
        })
        .await;
        stop.cancel();
        let _ = embedded.await;
        served
    })?;
    Ok(())
}

/// The configuration with the embedded issuer beside its own.
fn with_issuer(path: &Path, issuer: &str, workload: &str) -> Result<Config, ConfigErrors> {
    let Ok(mut text) = std::fs::read_to_string(path) else {
        // Says what is wrong with the file.
        return Config::load(path);
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let _ = write!(
        text,
        r#"
[[identity.jwt]]   # added by `jit-broker dev`
name = "dev"
issuer = "{issuer}"
audiences = ["jit-broker"]
workload = {}
attributes = {{ k8s_namespace = "kubernetes.io.namespace", k8s_pod = "kubernetes.io.pod.name", env = "env" }}
"#,
        quoted(workload)
    );
    Config::parse(&text, &path.display().to_string())
}

/// Writes a configuration to start from, once: what is there is not touched.
fn generate(args: &DevArgs) -> anyhow::Result<PathBuf> {
    let path = args.data.join("broker.toml");
    if path.exists() {
        eprintln!("using {} as it is; remove it to have it made anew", path.display());
        return Ok(path);
    }
    let Some(database) = &args.database else { bail!("--database is missing") };
    if database.password().is_some() {
        bail!("put the password into a file and name it with --password-file: it must not stand in a command");
    }
    std::fs::create_dir_all(&args.data).with_context(|| format!("cannot make {}", args.data.display()))?;
    let plugins = std::path::absolute(&args.plugins)?;
    let password = match &args.password_file {
        Some(file) => {
            format!("password = {{ file = {} }}\n", quoted(&std::path::absolute(file)?.display().to_string()))
        }
        None => String::new(),
    };
    let owner = args.owner.as_ref().map(|owner| format!("config = {{ reassign_owned_to = {} }}\n", quoted(owner)));
    let first = args.roles.first().map(String::as_str).unwrap_or_default();
    let mut text = format!(
        r#"# Made by `jit-broker dev`; yours to change.
[server]
listen = "{listen}"
admin_socket = "admin.sock"

[store]
url = "sqlite:broker.db"

[audit]
signing_key = {{ file = "audit.key" }}
export = [{{ kind = "jsonl", path = "audit.jsonl" }}]

[plugins.postgres]
path = {driver}

[plugins.allow-list]
path = {policy}

[connections.database]
kind = "postgres"
url = {url}
{password}
[policies.allow]
plugin = "allow-list"
config = {{ rules = [{{ workload = "*", target = "inventory", roles = ["*"] }}] }}

[targets.inventory]
driver = "postgres"
connection = "database"
policies = ["allow"]
default_ttl = "1h"
max_ttl = "8h"
default_role = {role}
{owner}"#,
        listen = args.listen,
        driver = quoted(&plugins.join("driver-postgres.wasm").display().to_string()),
        policy = quoted(&plugins.join("policy-allow-list.wasm").display().to_string()),
        url = quoted(database.as_str()),
        role = quoted(first),
        owner = owner.unwrap_or_default(),
    );
    for role in &args.roles {
        let _ = write!(text, "[targets.inventory.roles.{}]\ngrants = [{}]\n", quoted(role), quoted(role));
    }
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
