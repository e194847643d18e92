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
mod error;
mod exec;
mod format;
mod health;
mod keep;
mod notify;
mod output;
mod place;
mod run;
mod settings;
mod state;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command, LogFormat};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log, cli.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // For name resolution, one at a time.
        .max_blocking_threads(1)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("no runtime: {error}");
            return ExitCode::from(3);
        }
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Fetch(args) => run::fetch(args).await.map(|()| ExitCode::SUCCESS),
            Command::Renew(args) => run::renew(args).await.map(|()| ExitCode::SUCCESS),
            Command::Exec(args) => exec::exec(args).await,
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

fn start_log(level: tracing::level_filters::LevelFilter, format: LogFormat) {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}
