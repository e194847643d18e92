//! `dev`: everything embedded, for a laptop.

mod made;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use url::Url;

use self::made::Made;
use super::{AskingArgs, Stop, block_on, start_log};
use jit_config::{Config, ConfigErrors};
use jit_kit::dev_issuer::DevIssuer;
use jit_pipeline::broker::Broker;
use jit_pipeline::target_check::check_targets;

pub(super) const EXAMPLES: &str = "\
Examples:
  jit-broker dev --database postgres://jit_broker@127.0.0.1:5432/inventory \\
      --password-file secrets/inventory --role app_read_only --owner inventory_owner
  TOKEN=$(curl -s 'http://127.0.0.1:8701/token?workload=payment-service&namespace=shop')
  curl -s http://127.0.0.1:8700/issue -H \"authorization: Bearer $TOKEN\" \\
      -H 'content-type: application/json' -d '{\"target\": \"inventory\", \"ttl\": \"5m\"}'

  jit-broker dev                         # again, with the configuration that is in jit-dev/
  jit-broker dev --listen 127.0.0.1:9700 # again, elsewhere
  jit-broker dev --config broker.toml    # your configuration, and the embedded issuer beside yours
  jit-broker dev --config broker.toml --attribute tier=tier    # a claim that your policies read

Whoever can reach the embedded issuer can be any workload. So it listens only on loopback, and no other command has it.
docs/dev.md says which tokens it gives.";

#[derive(clap::Args)]
pub(super) struct DevArgs {
    #[command(flatten)]
    asking: AskingArgs,
    /// Your own configuration; the embedded issuer is added to it.
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["database", "password_file", "roles", "owner", "plugins", "data"])]
    config: Option<PathBuf>,
    /// Without a configuration: the URL of the database in which accounts are created, without a password. The first
    /// start needs it; later ones have it in DIR/broker.toml, as all that follows here.
    #[arg(long, value_name = "URL")]
    database: Option<Url>,
    /// The file with the broker's own password for that database.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A role that applications may get. Repeat it for more; the first one is the default.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// The role that gets the tables that an account leaves behind.
    #[arg(long, value_name = "ROLE")]
    owner: Option<String>,
    /// The folder for the generated configuration, store and audit key.
    #[arg(long, value_name = "DIR", default_value = "jit-dev")]
    data: PathBuf,
    /// The folder with the built plugins; at the first start target/plugins.
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Where the broker listens; at the first start 127.0.0.1:8700.
    #[arg(long, conflicts_with = "config")]
    listen: Option<SocketAddr>,
    /// Where the embedded issuer listens, a loopback address; at the first start 127.0.0.1:8701.
    #[arg(long)]
    issuer: Option<SocketAddr>,
    /// How a workload's name is made from the claims of the embedded issuer's tokens.
    #[arg(
        long,
        value_name = "TEMPLATE",
        default_value = "{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}"
    )]
    workload: String,
    /// An attribute of workloads, from a claim of the embedded issuer's tokens. Repeat it for more. There are
    /// `k8s_namespace`, `k8s_pod` and `env` already.
    #[arg(long = "attribute", value_name = "NAME=CLAIM", value_parser = super::policy::pair)]
    attributes: Vec<(String, String)>,
}

pub(super) fn run(args: DevArgs) -> Result<(), Stop> {
    let made = match &args.config {
        Some(_) => None,
        None => Some(Made::plan(&args)?),
    };
    let path = match (&args.config, &made) {
        (Some(path), _) => path.clone(),
        (None, Some(made)) => made.write()?.to_owned(),
        (None, None) => return Ok(()),
    };
    let passwordless = made.as_ref().is_some_and(|made| !made.has_password());
    let issuer = args.issuer.or_else(|| made.as_ref().and_then(Made::issuer)).unwrap_or(made::ISSUER);
    // Until the end, whatever becomes of the tasks: dropped, it takes back what never worked.
    let made = Arc::new(Mutex::new(made));
    let mode = args.asking.mode(true);
    block_on(async {
        let (issuer, address) = DevIssuer::bind(issuer).await?;
        let (file, url) = (path.clone(), issuer.issuer_url().to_owned());
        let source = Box::new(move || read_with_issuer(&file, &url, &args));
        let first = source()?;
        let _until_the_end = start_log(&first)?;
        let stop = tokio_util::sync::CancellationToken::new();
        let embedded = tokio::spawn(issuer.clone().serve(stop.clone().cancelled_owned()));
        let served = crate::serve::serve(source, mode, |listens, broker| {
            if passwordless {
                println!("no password was given: a database that asks for one refuses the broker (--password-file)\n");
            }
            let (broker, made) = (Arc::clone(broker), Arc::clone(&made));
            tokio::spawn(keep_what_works(broker, made, greeting(&first, listens, address)));
        })
        .await;
        stop.cancel();
        let _ = embedded.await;
        served
    })?;
    Ok(())
}

/// How long the greeting waits for what the targets say.
const PATIENCE: Duration = Duration::from_secs(5);

/// Greets, and keeps the configuration of this start once its targets are in order. A role that the database does not
/// have must not be what the next start begins with.
async fn keep_what_works(broker: Arc<Broker>, made: Arc<Mutex<Option<Made>>>, greeting: String) {
    let mut greeting = Some(greeting);
    loop {
        let serving = broker.serving.load_full();
        let asked = tokio::time::timeout(PATIENCE, check_targets(&serving)).await;
        let wrong: Option<Vec<String>> = asked.ok().map(|asked| {
            let wrong = asked.into_iter().filter_map(|(target, found)| Some((target, found.err()?)));
            wrong.map(|(target, wrong)| format!("target {target}: {wrong}")).collect()
        });
        let works = wrong.as_ref().is_some_and(Vec::is_empty);
        if works && let Some(made) = &mut *made.lock() {
            made.keep();
        }
        if let Some(greeting) = greeting.take() {
            let is_new = made.lock().as_ref().is_some_and(Made::is_new);
            if !works && is_new {
                wrong.iter().flatten().for_each(|line| println!("{line}"));
                println!("this start's flags are kept for the next one when the target is in order\n");
            }
            print!("{greeting}");
        }
        if works {
            return;
        }
        tokio::time::sleep(PATIENCE).await;
    }
}

/// Where everything is, and what to paste for a first account.
fn greeting(config: &Config, broker: SocketAddr, issuer: SocketAddr) -> String {
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    let (broker, issuer) = (format!("{scheme}://{broker}"), format!("http://{issuer}"));
    let mut text = format!("broker   {broker}\nissuer   {issuer}\nconfig   {}\n", config.file().display());
    let _ =
        writeln!(text, "look in  jit-broker status -c {}   (or: top, lease list, audit show)", config.file().display());
    let Some((name, target)) = config.targets.iter().next() else { return text };
    let role = match (&target.default_role, target.roles.keys().next()) {
        (None, Some(role)) => format!(", \"role\": \"{role}\""),
        _ => String::new(),
    };
    let _ = write!(
        text,
        "\na token of a workload, and an account for it:\n  \
         TOKEN=$(curl -s '{issuer}/token?workload=payment-service&namespace=shop')\n  \
         curl -s {broker}/issue -H \"authorization: Bearer $TOKEN\" \\\n      \
         -H 'content-type: application/json' -d '{{\"target\": \"{name}\"{role}, \"ttl\": \"5m\"}}'\n"
    );
    text
}

/// The configuration with the embedded issuer beside its own.
fn read_with_issuer(path: &Path, issuer: &str, args: &DevArgs) -> Result<Config, ConfigErrors> {
    match std::fs::read_to_string(path) {
        Ok(text) => with_issuer(&text, path, issuer, args),
        // Says what is wrong with the file.
        Err(_) => Config::load(path),
    }
}

fn with_issuer(text: &str, path: &Path, issuer: &str, args: &DevArgs) -> Result<Config, ConfigErrors> {
    let mut text = text.to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let claims = ATTRIBUTES.iter().map(|(name, claim)| ((*name).to_owned(), (*claim).to_owned()));
    let attributes: BTreeMap<String, String> = claims.chain(args.attributes.iter().cloned()).collect();
    let attributes: Vec<String> =
        attributes.iter().map(|(name, claim)| format!("{} = {}", quoted(name), quoted(claim))).collect();
    let _ = write!(
        text,
        r#"
[[identity.jwt]]   # added by `jit-broker dev`
name = "dev"
issuer = "{issuer}"
audiences = ["jit-broker"]
workload = {}
attributes = {{ {} }}
"#,
        quoted(&args.workload),
        attributes.join(", ")
    );
    Config::parse(&text, &path.display().to_string())
}

/// The attributes that workloads of the embedded issuer have in any case.
const ATTRIBUTES: [(&str, &str); 3] =
    [("k8s_namespace", "kubernetes.io.namespace"), ("k8s_pod", "kubernetes.io.pod.name"), ("env", "env")];

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
