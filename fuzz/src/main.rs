//! `jit-fuzz`: runs the fuzz targets; `cargo xtask fuzz` builds and starts it.
#![allow(clippy::print_stdout)] // a command line prints

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use jit_fuzz::{Target, all, runner};

/// Runs the fuzz targets: every input of the corpus, then changed ones until the time is over.
#[derive(Parser)]
struct Cli {
    /// Only these targets; all when none are named.
    targets: Vec<String>,
    /// How long changed inputs are run, over all targets, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The same seed makes the same inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this file alone, on the one target that is named.
    #[arg(long)]
    input: Option<PathBuf>,
    /// Where inputs that break a property are kept.
    #[arg(long, default_value = "target/fuzz-artifacts")]
    artifacts: PathBuf,
    /// List the targets.
    #[arg(long)]
    list: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let targets = chosen(&cli.targets)?;
    if cli.list {
        for target in targets {
            println!("{:<16} {}", target.name, target.about);
        }
        return Ok(());
    }
    if let Some(path) = cli.input {
        let [target] = targets[..] else { bail!("--input needs the name of one target") };
        let input = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        return runner::run_one(target, &input).map_err(|said| anyhow::anyhow!("{}: {said}", target.name));
    }
    let each = Duration::from_secs(cli.seconds) / u32::try_from(targets.len())?;
    let mut failed = Vec::new();
    for target in targets {
        let corpus = runner::corpus(&runner::corpus_folder(target.name))?;
        match runner::run(target, &corpus, each, cli.seed, &cli.artifacts) {
            Ok(run) => println!("{:<16} {:>4} of the corpus, {:>8} changed", target.name, run.corpus, run.changed),
            Err(error) => {
                println!("{error:#}");
                failed.push(target.name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("properties do not hold: {}", failed.join(", "));
    }
    Ok(())
}

/// The named targets, or all.
fn chosen(names: &[String]) -> Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(all().iter().collect());
    }
    let find =
        |name: &String| all().iter().find(|target| target.name == name).with_context(|| format!("no target `{name}`"));
    names.iter().map(find).collect()
}
