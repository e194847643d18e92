//! `cargo xtask`: everything around the broker that a developer does with one command.
#![allow(clippy::print_stdout)] // a command line prints

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    bench::{self, BenchArgs},
    demo::{self, DemoArgs},
    plugins,
    servers::{openbao, postgres},
    steps::Steps,
    suite,
};

/// Prepares, builds and shows jit-broker.
///
/// What is missing is downloaded into a cache of the user (XDG_CACHE_HOME, else ~/.cache, for root
/// /var/cache) and found there the next time. Nothing is installed, and no command needs root.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build all plugins and hostile guests into target/plugins.
    ///
    /// A compiler for guests is prepared first if there is none (about a minute, once). The
    /// variable JIT_GUEST_TOOLCHAIN=rustup|distribution|debian forces where it comes from.
    Plugins {
        /// Only these packages; all of plugins/ and tests/guests/ when none.
        packages: Vec<String>,
    },
    /// Fetch what the other commands need: the guest toolchain and real servers.
    Setup {
        /// Major versions of PostgreSQL, 14 to 18.
        #[arg(long, value_delimiter = ',', default_values_t = postgres::DEFAULT_MAJORS)]
        postgres: Vec<u32>,
        /// Also OpenBao, which only the bench compares with.
        #[arg(long)]
        openbao: bool,
    },
    /// Measure the broker beside the database alone and beside OpenBao, all on this machine.
    #[command(after_help = bench::EXAMPLES)]
    Bench(BenchArgs),
    /// Watch it work: a real PostgreSQL, the broker, and an account from its first to its last second.
    ///
    /// Gets what is missing (guest toolchain, PostgreSQL), builds, and plays the story step by step,
    /// each step checked. Everything it starts is stopped at the end, on Ctrl-C too.
    #[command(after_help = demo::EXAMPLES)]
    Demo(DemoArgs),
    /// Run all tests, those against real servers included; fetches what is missing.
    Test {
        /// Major versions of PostgreSQL to have ready.
        #[arg(long, value_delimiter = ',', default_values_t = postgres::DEFAULT_MAJORS)]
        postgres: Vec<u32>,
        /// Arguments for `cargo test`, after `--`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

fn main() -> Result<()> {
    let steps = Steps::new();
    match Cli::parse().command {
        Command::Plugins { packages } => {
            let built = plugins::build(&packages, &steps)?;
            steps.finish();
            for plugin in &built {
                println!(
                    "{:<28} {:>9} bytes  {}  {}",
                    plugin.name,
                    plugin.size,
                    &plugin.sha256[..12],
                    if plugin.changed { "built" } else { "unchanged" }
                );
            }
        }
        Command::Bench(args) => bench::run(&args, &steps)?,
        Command::Demo(args) => demo::run(&args, &steps)?,
        Command::Test { postgres, arguments } => suite::run(&postgres, &arguments, &steps)?,
        Command::Setup { postgres, openbao } => setup(&postgres, openbao, &steps)?,
    }
    Ok(())
}

fn setup(postgres_majors: &[u32], with_openbao: bool, steps: &Steps) -> Result<()> {
    let toolchain = plugins::toolchain(steps)?;
    steps.done(&format!("guest toolchain: {toolchain}"));
    for major in postgres_majors {
        let binaries = postgres::binaries(*major, steps)?;
        steps.done(&format!("{} in {}", binaries.version(), binaries.bin().display()));
    }
    if with_openbao {
        let bao = openbao::binary(steps)?;
        steps.done(&format!("OpenBao: {}", bao.display()));
    }
    Ok(())
}
