//! `cargo xtask bench`: gets what is missing, builds optimised, and lets the bench measure.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use jit_plugin_build::Progress as _;

use crate::servers::{openbao, postgres};
use crate::{binaries, plugins, steps::Steps};

/// The version that is fetched; an installed one of another version serves as well.
const POSTGRES: u32 = 17;
/// The cargo profile unless another is named: as released, without link-time optimisation.
const PROFILE: &str = "bench";
/// What is loaded.
const PLUGINS: [&str; 7] = [
    "driver-postgres",
    "driver-noop",
    "policy-allow-list",
    "policy-allow",
    "policy-time-window",
    "policy-environment",
    "policy-quota",
];
/// What is measured too where it can be built: it needs more than the others.
const CEDAR: &str = "policy-cedar";
/// Policies made from the templates, by their language.
const LANGUAGES: [(&str, &str); 2] = [("python", "policy-python"), ("js", "policy-javascript")];

/// What may be chosen.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// Shorter rounds, and fewer: to see that it works.
    #[arg(long)]
    quick: bool,
    /// Only the cost of a decision, for each policy.
    #[arg(long)]
    policies: bool,
    /// Only these of those side by side: ceiling, ceiling-light, broker, verifier, broker-light, openbao, noop, before.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only with so many clients, of 1, 4, 16 and 64.
    #[arg(long, value_delimiter = ',')]
    clients: Vec<u8>,
    /// Seconds of each cell without a database in each round.
    #[arg(long)]
    seconds: Option<u16>,
    /// Accounts of each cell with a database in each round.
    #[arg(long)]
    accounts: Option<u16>,
    /// Connections to the database, for each of the three.
    #[arg(long, default_value_t = 8)]
    connections: u32,
    /// The cargo profile: `release` takes some minutes more and is a little faster.
    #[arg(long, default_value = PROFILE)]
    profile: String,
    /// Write what was measured there, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// An earlier broker, built with the same profile, to compare with in the same run.
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,
    /// Write the report there, as Markdown; docs/measurements.md is made so.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The figures of the last committed run.
const COMMITTED: &str = "docs/measurements.json";

/// Examples for the help.
pub const EXAMPLES: &str = "\
Examples:
  cargo xtask bench --quick
  cargo xtask bench --policies
  cargo xtask bench --only broker,noop --clients 16 --seconds 30 --accounts 5000     # to profile
  cargo xtask bench --before ../earlier/target/release/jit-broker
  cargo xtask bench --json docs/measurements.json --report docs/measurements.md

The optimised build takes some minutes the first time, the measuring about six. Leave the machine
alone meanwhile: what else runs on it is measured too.";

/// Prepares everything and becomes the bench.
///
/// # Errors
/// When something cannot be prepared. When all can, it does not return.
pub fn run(args: &BenchArgs, steps: &Steps) -> Result<()> {
    plugins::build(&PLUGINS.map(str::to_owned), steps)?;
    steps.done(&format!("plugins: {}", PLUGINS.join(", ")));
    if let Err(error) = plugins::build(&[CEDAR.to_owned()], steps) {
        steps.step(&format!("without {CEDAR}: {error:#}"));
    }
    let postgres = postgres::any(POSTGRES, steps)?;
    steps.done(postgres.version());
    let openbao = match openbao::binary(steps) {
        Ok(bao) => {
            steps.done(&format!("OpenBao: {}", bao.display()));
            Some(bao)
        }
        Err(error) => {
            steps.step(&format!("without OpenBao, so there is nothing to compare with: {error:#}"));
            None
        }
    };
    steps.step("building the broker, the agent and the bench, optimised");
    steps.finish();
    let options = ["--profile", &args.profile];
    let packages = ["jit-broker", "jit-agent", "jit-tests"];
    let [broker, agent, bench] = binaries::build(&packages, ["jit-broker", "jit-agent", "bench"], &options)?;
    let languages = plugins::root().join("target/languages");
    for (language, name) in LANGUAGES {
        if let Err(error) = from_template(&broker, &languages, language, name) {
            eprintln!("without {name}: {error:#}");
        }
    }
    let mut command = Command::new(bench);
    command.arg("--languages").arg(languages).arg("--agent").arg(agent);
    command.arg("--postgres").arg(postgres.bin()).arg("--broker").arg(broker);
    command.arg("--plugins").arg(plugins::folder()).args(["--profile", &args.profile]);
    if let Some(bao) = openbao {
        command.arg("--openbao").arg(bao);
    }
    command.arg("--connections").arg(args.connections.to_string());
    if args.quick {
        command.arg("--quick");
    }
    if args.policies {
        command.arg("--policies");
    }
    for system in &args.only {
        command.arg("--only").arg(system);
    }
    for clients in &args.clients {
        command.arg("--clients").arg(clients.to_string());
    }
    for (option, number) in [("--seconds", args.seconds), ("--accounts", args.accounts)] {
        if let Some(number) = number {
            command.arg(option).arg(number.to_string());
        }
    }
    let committed = Some(plugins::root().join(COMMITTED)).filter(|file| file.is_file());
    let files =
        [("--json", &args.json), ("--report", &args.report), ("--before", &args.before), ("--compare", &committed)];
    for (option, path) in files {
        if let Some(path) = path {
            command.arg(option).arg(path);
        }
    }
    Err(command.exec()).context("cannot start the bench")
}

/// The template's policy in another language, made and built as its author would. What is there is kept.
fn from_template(broker: &Path, folder: &Path, language: &str, name: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let run = |arguments: &[&str]| -> Result<()> {
        let output = Command::new(broker).args(arguments).current_dir(folder).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{}: {}", arguments.join(" "), said.trim_end());
        Ok(())
    };
    if folder.join(format!("{name}.wasm")).is_file() {
        return Ok(());
    }
    if !folder.join(name).is_dir() {
        run(&["plugin", "new", "policy", name, "--lang", language])?;
    }
    run(&["plugin", "build", name, "--out", "."])
}
