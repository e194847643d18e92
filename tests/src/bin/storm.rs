//! The storm that `cargo xtask storm` builds and runs: several brokers, everything failing at random, and every promise
//! checked afterwards.
//!
//! In scope: options and printing. The storm itself is `jit_tests::storm`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is printed")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use jit_tests::storm::{self, Options};
use tokio::signal::unix::{SignalKind, signal};

/// Lets it storm; `cargo xtask storm` builds what it needs and says where it is.
#[derive(Parser)]
struct Args {
    /// How many brokers serve from one store.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
    brokers: u8,
    /// How long it storms, in seconds.
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// What all is drawn from.
    #[arg(long)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { brokers, seconds, seed } = Args::parse();
    let options = Options { brokers: usize::from(brokers), length: Duration::from_secs(seconds), seed };
    let interrupted = async {
        match signal(SignalKind::terminate()) {
            Ok(mut term) => tokio::select! {
                _ = term.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            },
            // Without it the storm ends as any process does.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        ran = storm::run(options) => match ran {
            Ok(report) => {
                println!("{report}");
                if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => {
                eprintln!("The storm with seed {seed} could not be ended: {error:#}");
                ExitCode::FAILURE
            }
        },
        () = interrupted => {
            eprintln!("Interrupted; seed {seed}.");
            ExitCode::from(130)
        }
    }
}
