//! `cargo xtask demo`: gets what is missing, builds, and lets the demo play.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use jit_plugin_build::Progress as _;

use crate::servers::postgres;
use crate::{binaries, plugins, steps::Steps};

/// The version that is fetched; an installed one of another version serves as well.
const POSTGRES: u32 = 17;

/// What may be chosen.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave PostgreSQL and the broker running at the end, and print lines to copy.
    #[arg(long)]
    keep: bool,
    /// Stop what an earlier `--keep` left running, and do nothing else.
    #[arg(long, conflicts_with = "keep")]
    stop: bool,
    /// Where the demo keeps configuration, store, audit log and logs; emptied at the start.
    /// By default target/demo.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Examples for the help.
pub const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                  # the whole story, then everything is stopped
  cargo xtask demo --keep           # leaves it running, with curl lines to paste
  cargo xtask demo --stop           # stops what --keep left
  NO_COLOR=1 cargo xtask demo | tee story.txt

The first time takes some minutes: the guest toolchain and PostgreSQL are fetched, and everything
is compiled. After that it is about half a minute, most of it the life of the account.";

/// Prepares everything and becomes the demo: signals then go where the servers are.
///
/// # Errors
/// When something cannot be prepared. When all can, it does not return.
pub fn run(args: &DemoArgs, steps: &Steps) -> Result<()> {
    let folder = args.folder.clone().unwrap_or_else(|| plugins::root().join("target/demo"));
    if args.stop {
        steps.finish();
        let [demo] = binaries::build(&["jit-tests"], ["demo"], &[])?;
        return become_demo(Command::new(demo).arg("--folder").arg(folder).arg("--stop"));
    }
    plugins::build(&["driver-postgres".to_owned(), "policy-allow-list".to_owned()], steps)?;
    steps.done("plugins: driver-postgres, policy-allow-list");
    let postgres = postgres::any(POSTGRES, steps)?;
    steps.done(postgres.version());
    steps.step("building the broker and the demo");
    steps.finish();
    let [broker, demo] = binaries::build(&["jit-broker", "jit-tests"], ["jit-broker", "demo"], &[])?;
    let mut command = Command::new(demo);
    command
        .arg("--folder")
        .arg(folder)
        .arg("--postgres")
        .arg(postgres.bin())
        .arg("--broker")
        .arg(broker)
        .arg("--plugins")
        .arg(plugins::folder());
    if args.keep {
        command.arg("--keep");
    }
    become_demo(&mut command)
}

/// Replaces this process.
fn become_demo(command: &mut Command) -> Result<()> {
    Err(command.exec()).context("cannot start the demo")
}
