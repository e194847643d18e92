//! `cargo xtask storm`: gets what is missing, builds, and lets it storm.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use jit_plugin_build::Progress as _;

use crate::demo::POSTGRES;
use crate::servers::postgres;
use crate::{binaries, plugins, steps::Steps, suite};

/// What is loaded.
const PLUGINS: [&str; 3] = ["driver-postgres", "policy-allow-list", "policy-quota"];

/// What may be chosen.
#[derive(Debug, clap::Args)]
pub struct StormArgs {
    /// How many brokers serve from one store.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    brokers: u8,
    /// How long it storms; what is checked afterwards takes some minutes more.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// What faults and requests are drawn from. A new one each time unless it is named.
    #[arg(long)]
    seed: Option<u64>,
}

/// Examples for the help.
pub const EXAMPLES: &str = "\
Examples:
  cargo xtask storm                                       # three brokers, ten minutes, a new seed
  cargo xtask storm --brokers 2 --minutes 2
  cargo xtask storm --brokers 3 --minutes 10 --seed 42    # the faults of an earlier storm again

Each fault is printed with its second. The table at the end says how often each promise was broken.
Where one was, the command fails, prints the seed, and leaves the brokers' logs. docs/scaling.md says
what is checked.";

/// Prepares everything and becomes the storm.
///
/// # Errors
/// When something cannot be prepared. When all can, it does not return.
pub fn run(args: &StormArgs, steps: &Steps) -> Result<()> {
    plugins::build(&PLUGINS.map(str::to_owned), steps)?;
    steps.done(&format!("plugins: {}", PLUGINS.join(", ")));
    steps.done(postgres::any(POSTGRES, steps)?.version());
    steps.step("building the broker and the storm");
    steps.finish();
    let [broker, storm] = binaries::build(&["jit-broker", "jit-tests"], ["jit-broker", "storm"], &[])?;
    let folder = plugins::root().join("target/storm");
    std::fs::create_dir_all(&folder)?;
    let [ours, storms] = ["jit-broker", "storm"].map(|name| folder.join(name));
    suite::put_aside(&broker, &ours)?;
    suite::put_aside(&storm, &storms)?;
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ since_1970());
    let mut command = Command::new(storms);
    command
        .args(["--brokers", &args.brokers.to_string()])
        .args(["--seconds", &(args.minutes * 60).to_string()])
        .args(["--seed", &seed.to_string()])
        .env("JIT_TEST_BROKER", ours)
        .env("JIT_TEST_PLUGINS", plugins::folder());
    Err(command.exec()).context("cannot start the storm")
}

fn since_1970() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
