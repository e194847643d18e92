//! The command line: one file per command. Only this module prints.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output is what it prints")]

mod admin;
mod audit;
mod check;
mod client;
mod conformance;
mod dev;
mod json_lines;
mod lease;
mod lease_revoke;
mod plugin;
mod plugin_check;
mod plugin_new;
mod policy;
mod policy_replay;
mod progress;
mod relative;
mod rotation;
mod said;
mod signing;
mod status;
mod store;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use self::json_lines::JsonLines;
use crate::traces::Exporter;
use jit_assembly::compose::Mode;
use jit_config::{Config, ConfigErrors, LogFormat};
use jit_runtime::Snapshots;

/// Just-in-time credentials for workloads: an application proves its identity and gets an account
/// that exists only for its lease.
#[derive(Parser)]
#[command(
    name = "jit-broker",
    version = version(),
    after_help = "Exit codes: 0 done · 1 failed · 2 wrong arguments · 3 checked and found wrong (config check, audit verify, plugin check, test and verify), denied (policy simulate), or flipping (policy replay) · 4 no broker answers on the admin socket. `status` has its own",
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a configuration.
    #[command(after_help = "Example:\n  jit-broker serve --config /etc/jit-broker/broker.toml")]
    Serve {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        asking: AskingArgs,
    },
    /// Serve on a laptop, with an embedded token issuer. Makes an audit key if there is none.
    #[command(after_help = dev::EXAMPLES)]
    Dev(dev::DevArgs),
    /// Check a configuration, reload it, or print an example.
    #[command(subcommand)]
    Config(check::ConfigCommand),
    /// See whether a running broker is well: its alarms, leases, store and background tasks.
    #[command(after_help = status::HELP)]
    Status(status::StatusArgs),
    /// Watch what is asked of a running broker, by target, every two seconds.
    #[command(after_help = top::HELP)]
    Top(top::TopArgs),
    /// List, show and end leases, through a running broker's admin socket.
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// List rotating accounts and rotate them now, through a running broker's admin socket.
    #[command(subcommand)]
    Rotation(rotation::RotationCommand),
    /// Back up the store; make the key that seals passwords in it.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Compare the store with the accounts in the targets now.
    #[command(
        after_help = "Examples:\n  jit-broker reconcile --dry-run\n  jit-broker reconcile --confirm --target inventory_db"
    )]
    Reconcile(admin::ReconcileArgs),
    /// Decide what happens after the wall clock jumped, through a running broker's admin socket.
    #[command(subcommand)]
    Clock(admin::ClockCommand),
    /// Read, verify and export the audit log; works without a running broker.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Write, build, check, test, sign and list plugins.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Explain a decision, or let a policy decide recorded requests again.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Print the API's description (OpenAPI 3.1).
    Openapi,
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  jit-broker completions bash > /etc/bash_completion.d/jit-broker")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How a broker asks policies. Answers and records are the same in each way.
#[derive(clap::Args)]
struct AskingArgs {
    /// Ask the policies each time, also what they have decided already. Answers and records are the same.
    #[arg(long, env = "JIT_NO_MEMORY")]
    no_memory: bool,
    /// `background`: prepare a policy once with its configuration, and start each decision from a snapshot of it (as
    /// `serve` does by default). `off`: prepare it at each decision (as `dev` does). Answers and records are the same.
    #[arg(long, env = "JIT_SNAPSHOTS", value_name = "WHEN", hide_possible_values = true)]
    snapshots: Option<SnapshotsArg>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum SnapshotsArg {
    Background,
    Off,
}

impl AskingArgs {
    fn mode(&self, dev: bool) -> Mode {
        let snapshots = match self.snapshots {
            Some(SnapshotsArg::Background) => Snapshots::Background,
            Some(SnapshotsArg::Off) => Snapshots::Off,
            // A laptop has better things to do than to compile twice.
            None if dev => Snapshots::Off,
            None => Snapshots::Background,
        };
        Mode { dev, no_memory: self.no_memory, snapshots }
    }
}

/// Where the configuration is.
#[derive(clap::Args, Debug, Clone)]
struct ConfigArg {
    /// The configuration file.
    #[arg(long, short, env = "JIT_CONFIG", value_name = "FILE", default_value = "broker.toml")]
    config: PathBuf,
}

/// How lists are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Why a command ends without success, with its exit code.
enum Stop {
    /// It failed.
    Failed(anyhow::Error),
    /// What was checked is wrong; that has been printed.
    FoundWrong,
    /// No broker answers.
    NoBroker(anyhow::Error),
    /// `status` found something wrong; that has been printed.
    Unwell,
    /// `status` could not ask.
    CannotAsk(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn version() -> &'static str {
    if jit_failpoint::COMPILED_IN {
        concat!(env!("CARGO_PKG_VERSION"), "+failpoints")
    } else {
        env!("CARGO_PKG_VERSION")
    }
}

/// The command line as clap knows it, for the page that is generated from it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line and gives the exit code.
#[must_use]
pub fn run() -> ExitCode {
    crate::memory::keep_private();
    end_with_the_reader();
    let cli = Cli::parse();
    // One crypto provider in the process; a second installation cannot happen.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::FoundWrong) => ExitCode::from(3),
        Err(Stop::Unwell) => ExitCode::from(1),
        Err(Stop::CannotAsk(error)) => {
            tell(&error);
            ExitCode::from(2)
        }
        Err(Stop::NoBroker(error)) => {
            eprintln!("jit-broker: {error:#}");
            ExitCode::from(4)
        }
        Err(Stop::Failed(error)) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

fn tell(error: &anyhow::Error) {
    match error.downcast_ref::<ConfigErrors>() {
        Some(problems) => eprint!("{}", problems.render(coloured(&std::io::stderr()))),
        None => eprintln!("jit-broker: {error:#}"),
    }
}

/// Whoever reads the output may stop, as `head` does. Printing then panics, since Rust ignores SIGPIPE: end as the
/// signal would have ended the process, without a word.
fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(128 + rustix::process::Signal::PIPE.as_raw());
        }
        usual(panic);
    }));
}

fn dispatch(command: Command) -> Result<(), Stop> {
    match command {
        Command::Serve { config, asking } => {
            let path = config.config;
            let first = Config::load(&path)?;
            let _until_the_end = start_log(&first)?;
            let source = Box::new(move || Config::load(&path));
            block_on(crate::serve::serve(source, asking.mode(false), |_, _| ()))?;
            Ok(())
        }
        Command::Dev(args) => dev::run(args),
        Command::Config(command) => check::run(command),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Lease(command) => lease::run(command),
        Command::Rotation(command) => rotation::run(command),
        Command::Store(command) => store::run(command),
        Command::Reconcile(args) => admin::reconcile(args),
        Command::Clock(command) => admin::clock(command),
        Command::Audit(command) => audit::run(command),
        Command::Plugin(command) => plugin::run(command),
        Command::Policy(command) => policy::run(command),
        Command::Openapi => {
            println!("{}", jit_http::openapi());
            Ok(())
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "jit-broker", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// The crates whose spans are sent to a collector.
const TRACED: [&str; 4] = ["jit_broker", "jit_http", "jit_assembly", "jit_pipeline"];

/// Whether to colour what goes there: a terminal, unless `NO_COLOR` is set (no-color.org).
fn coloured(stream: &impl std::io::IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Runs to the end on a new runtime.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// The log goes to stderr; `JIT_LOG` (as in `RUST_LOG`) chooses what, by default `info`. Spans go to the collector too,
/// if there is one: those of the broker, whatever the log has of them. What is left of them is sent when the result is
/// dropped.
fn start_log(config: &Config) -> anyhow::Result<Option<Exporter>> {
    let exporter = config.traces.as_ref().map(Exporter::new).transpose()?;
    let filter = log_filter(std::env::var("JIT_LOG").ok().as_deref());
    // A log that cannot be written (a full disk, a closed pipe) must not stop the broker: telling
    // of it on that same stderr would panic, in the middle of an issue.
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let log = match config.log_format {
        LogFormat::Json => log.event_format(JsonLines).fmt_fields(JsonFields::new()).boxed(),
        LogFormat::Text => log.with_ansi(coloured(&std::io::stderr())).boxed(),
    };
    let spans = exporter.as_ref().map(|exporter| {
        let ours = Targets::new().with_targets(TRACED.map(|name| (name, Level::DEBUG)));
        tracing_opentelemetry::layer().with_tracer(exporter.tracer()).with_filter(ours)
    });
    tracing_subscriber::registry().with(log.with_filter(filter)).with(spans).init();
    if jit_failpoint::COMPILED_IN {
        tracing::error!("this build has failpoints: it is for fault tests and must not serve anybody");
    }
    Ok(exporter)
}

/// What the log contains. `debug` alone holds for the broker and its plugins: the libraries write thousands of lines
/// there, and do so when they are named (`debug,rustls=debug`). `trace` is everything.
fn log_filter(wanted: Option<&str>) -> EnvFilter {
    let wanted = wanted.unwrap_or("").trim();
    let mut directives = Vec::new();
    for directive in wanted.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        match directive.parse::<Level>() {
            Ok(Level::DEBUG) => {
                directives.push("info".to_owned());
                directives.extend(OURS.map(|ours| format!("{ours}=debug")));
            }
            _ => directives.push(directive.to_owned()),
        }
    }
    if directives.is_empty() {
        return EnvFilter::new("info");
    }
    EnvFilter::try_new(directives.join(",")).unwrap_or_else(|error| {
        eprintln!("jit-broker: JIT_LOG={wanted:?} cannot be read ({error}); the log has `info`");
        EnvFilter::new("info")
    })
}

/// How the targets of the broker's own lines begin, and of those of its plugins.
const OURS: [&str; 2] = ["jit_", "plugin"];

#[cfg(test)]
mod tests {
    #[test]
    fn debug_alone_is_for_the_brokers_own_lines() {
        let shown = |wanted: Option<&str>| {
            let mut directives: Vec<String> =
                super::log_filter(wanted).to_string().split(',').map(str::to_owned).collect();
            directives.sort();
            directives.join(",")
        };
        assert_eq!(shown(None), "info");
        assert_eq!(shown(Some("warn")), "warn");
        assert_eq!(shown(Some("debug")), "info,jit_=debug,plugin=debug");
        assert_eq!(shown(Some("debug,rustls=debug")), "info,jit_=debug,plugin=debug,rustls=debug");
        assert_eq!(shown(Some("trace")), "trace");
        assert_eq!(shown(Some("jit_http=debug,info")), "info,jit_http=debug");
        assert_eq!(shown(Some("a=b=c")), "info", "what cannot be read");
    }
}
