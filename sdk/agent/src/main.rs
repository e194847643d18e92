//! `jit-agent`: credentials of jit-broker for programs that know nothing of it: in a file that is always
//! good, or in a command's environment.
//!
//! In scope: files (forms, permissions, atomic replacement), the state between `fetch` and `renew`, signals and
//! commands after a change, a command's life, probes and metrics. Getting and renewing credentials is
//! `jit-client`'s.
//!
//! One thread: between renewals the agent sleeps, and it stays small.

mod board;
mod cli;
mod descendants;
mod error;
mod exec;
mod format;
mod health;
mod keep;
mod log;
mod notify;
mod output;
mod place;
mod run;
mod settings;
mod signals;
mod state;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command};
use signals::Signals;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // For name resolution, one at a time.
        .max_blocking_threads(1)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::from(3);
        }
    };
    // Before anything else: a stop that comes while the agent starts is not lost.
    let listened = {
        let _inside = runtime.enter();
        Signals::listen()
    };
    let cli = Cli::parse();
    log::start(cli.log, cli.log_format);
    let signals = match listened {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!("{error}");
            return error.exit_code();
        }
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Fetch(args) => run::fetch(args, signals).await.map(|()| ExitCode::SUCCESS),
            Command::Renew(args) => run::renew(args, signals).await.map(|()| ExitCode::SUCCESS),
            Command::Exec(args) => exec::exec(args, signals).await,
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Cli::command(), "jit-agent", &mut std::io::stdout());
                Ok(ExitCode::SUCCESS)
            }
        }
    });
    // A lookup that hangs does not keep the process.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| {
        tracing::error!("{error}");
        error.exit_code()
    })
}
