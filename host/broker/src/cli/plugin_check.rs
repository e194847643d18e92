//! `plugin check`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use jit_plugin_build::{check, granted};
use jit_runtime::Grant;

use super::Stop;
use jit_config::Config;

pub(super) const EXAMPLES: &str = "\
Examples:
  jit-broker plugin check my-rule.wasm
  jit-broker plugin check my-driver.wasm --grants log,http
  jit-broker plugin check my-driver.wasm --config broker.toml --plugin my-driver

Prints one line for each thing that is wrong, with what to do about it. Exits with 3 if there is any.";

#[derive(clap::Args)]
pub(super) struct CheckArgs {
    /// The component.
    file: PathBuf,
    /// What it would be granted: any of log, secrets, sql, session, http, ldap. An empty text grants nothing.
    #[arg(long, value_name = "LIST", conflicts_with = "config")]
    grants: Option<String>,
    /// A broker's configuration, which says what it is granted.
    #[arg(long, value_name = "FILE", requires = "plugin")]
    config: Option<PathBuf>,
    /// Its name in that configuration.
    #[arg(long, value_name = "NAME", requires = "config")]
    plugin: Option<String>,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), Stop> {
    let file = &args.file;
    let grants = grants(args)?;
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut report = check(&bytes);
    if let (Some(contract), Some(grants)) = (&report.contract, &grants) {
        report.problems.extend(granted(contract, grants));
    }
    if let Some(contract) = &report.contract {
        let kind = contract.kind.map_or_else(|| "unknown kind".to_owned(), |kind| kind.to_string());
        println!("{}: {kind}, contract {}", file.display(), contract.version.as_deref().unwrap_or("unknown"));
        if let Some(identity) = &contract.identity {
            println!("calls itself {} {}", identity.name, identity.version);
        }
        println!("imports: {}", contract.imports.join(" "));
    }
    if let Some(grants) = &grants {
        println!("granted: {}", if grants.is_empty() { "nothing".to_owned() } else { grants.join(" ") });
    }
    if report.problems.is_empty() {
        println!("a broker can load it");
        return Ok(());
    }
    for problem in &report.problems {
        println!("{}", problem.in_a_line());
    }
    Err(Stop::FoundWrong)
}

/// What the plugin is granted, if something says so; none is what it imports of its world.
fn grants(args: &CheckArgs) -> anyhow::Result<Option<Vec<String>>> {
    if let Some(list) = &args.grants {
        let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
        let known = words.map(|word| {
            word.parse::<Grant>()
                .map(|grant| grant.to_string())
                .map_err(|error| anyhow!("--grants: {word:?} is {error}"))
        });
        return known.collect::<anyhow::Result<_>>().map(Some);
    }
    let (Some(path), Some(name)) = (&args.config, &args.plugin) else { return Ok(None) };
    of_config(path, name)
}

fn of_config(path: &Path, name: &str) -> anyhow::Result<Option<Vec<String>>> {
    let config = Config::load(path)?;
    match config.plugins.get(name) {
        Some(plugin) => Ok(plugin.grants.clone()),
        None => {
            let there: Vec<_> = config.plugins.keys().map(String::as_str).collect();
            Err(anyhow!("{}: there is no [plugins.{name}], but {}", path.display(), there.join(", ")))
        }
    }
}
