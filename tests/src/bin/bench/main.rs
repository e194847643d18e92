//! The bench that `cargo xtask bench` builds and runs: the database alone, the broker, and OpenBao,
//! side by side in one run on one machine; and the agent.
//!
//! In scope: measuring and saying what was measured. It asserts nothing about time: the goals are
//! printed with what was reached.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

mod agent;
mod broker;
mod ceiling;
mod compare;
mod decisions;
mod goals;
mod load;
mod machine;
mod openbao;
mod report;
mod single;
mod systems;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use jit_plugin_build::Progress as _;
use jit_tests::Database;
use tokio::signal::unix::{SignalKind, signal};
use xtask::servers::postgres::{PostgresServer, PostgresSettings};
use xtask::steps::Steps;

use broker::{Running, Setting};
use ceiling::{Connections, PlainClient};
use load::{Bound, Measured};
use machine::{Machine, Party, memory_mb};
use openbao::OpenBao;
use report::{Cell, Report};
use systems::System;

/// How many clients at once.
const CLIENTS: [usize; 4] = [1, 4, 16, 64];
/// How far the rounds of a cell may differ: the largest and the smallest, to the median.
const SPREAD: f64 = 0.05;
/// How long one round of a cell may take.
const LONGEST: Duration = Duration::from_secs(60);

/// Measures; `cargo xtask bench` builds what it needs and says where it is.
#[derive(Parser)]
struct Args {
    /// The folder with PostgreSQL's programs.
    #[arg(long)]
    postgres: PathBuf,
    /// The broker's binary, optimised.
    #[arg(long)]
    broker: PathBuf,
    /// The folder with the built plugins.
    #[arg(long)]
    plugins: PathBuf,
    /// The folder with policies in other languages than Rust.
    #[arg(long)]
    languages: Option<PathBuf>,
    /// The agent's binary, optimised; without it, it is not measured.
    #[arg(long)]
    agent: Option<PathBuf>,
    /// OpenBao's binary; without it, there is nothing to compare with.
    #[arg(long)]
    openbao: Option<PathBuf>,
    /// Only the cost of a decision, for each policy: no server is needed.
    #[arg(long)]
    policies: bool,
    /// Fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
    /// Only these of those side by side.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<System>,
    /// Only with so many clients.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=64))]
    clients: Vec<u8>,
    /// Seconds of each cell without a database in each round.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: Option<u16>,
    /// Accounts of each cell with a database in each round.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=5_000))]
    accounts: Option<u16>,
    /// Connections to the database, for each of the three; the default is the broker's.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// Write everything that was measured there, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report there, as Markdown.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// An earlier broker, optimised, to compare with in the same run (driver that does nothing).
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,
    /// What an earlier run wrote with --json: the report says what has changed since.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// How it was built, for the report.
    #[arg(long, default_value = "release")]
    profile: String,
}

/// How much is measured.
struct Extent {
    rounds: usize,
    /// How often a cell is repeated whose rounds differ by more than [`SPREAD`].
    more_rounds: usize,
    /// Of one cell in one round, without a database.
    length: Duration,
    /// Accounts in a database of one cell in one round: the same number for each system, because an
    /// account costs more the more there are (PostgreSQL 16 and later, roles that are no superuser).
    accounts: usize,
    evaluations: usize,
    starts: usize,
    /// How long the agent is watched while it has nothing to do.
    idle: Duration,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let mut extent = if args.quick {
        Extent {
            rounds: 1,
            more_rounds: 0,
            length: Duration::from_millis(1_500),
            accounts: 200,
            evaluations: 5_000,
            starts: 5,
            idle: Duration::from_secs(5),
        }
    } else {
        Extent {
            rounds: 3,
            more_rounds: 3,
            length: Duration::from_secs(5),
            accounts: 800,
            evaluations: 20_000,
            starts: 10,
            idle: Duration::from_secs(20),
        }
    };
    if let Some(seconds) = args.seconds {
        extent.length = Duration::from_secs(seconds.into());
    }
    if let Some(accounts) = args.accounts {
        extent.accounts = accounts.into();
    }
    if args.policies {
        let folders: Vec<&Path> = std::iter::once(args.plugins.as_path()).chain(args.languages.as_deref()).collect();
        let mut text = String::new();
        decisions::table(&mut text, &decisions::evaluations(&folders, extent.evaluations)?);
        println!("{text}");
        return Ok(());
    }
    // reqwest needs one, for tokens and set-up.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    // What was started is stopped when `measure` is dropped.
    let report = tokio::select! {
        report = measure(&args, &extent) => report?,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
        _ = hang_up.recv() => anyhow::bail!("the terminal is gone"),
    };
    let mut text = report.markdown();
    if let Some(earlier) = &args.compare {
        text.push_str(&compare::with(&report.json(), earlier)?);
    }
    println!("\n{text}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report.json())? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.report {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

async fn measure(args: &Args, extent: &Extent) -> Result<Report> {
    let steps = Steps::new();
    steps.step("starting PostgreSQL, as it comes (fsync on)");
    let settings = PostgresSettings { own_group: true, ..PostgresSettings::default() };
    let postgres = PostgresServer::start(&args.postgres, &settings)?;
    let postgres_pid = postgres.pid().context("no server")?;
    let database = Database::create_named(&postgres.url("postgres"), "").await?;
    let plugins = std::path::absolute(&args.plugins)?;
    let setting =
        Setting { binary: &args.broker, plugins: &plugins, database: &database, max_connections: args.connections };

    steps.step("the cost of a decision, for each policy");
    let folders: Vec<&Path> = std::iter::once(args.plugins.as_path()).chain(args.languages.as_deref()).collect();
    let evaluations = decisions::evaluations(&folders, extent.evaluations)?;

    steps.step("memory and start");
    let (memory, starts_ms) = single::memory_and_starts(&setting, extent.starts).await?;
    ceiling::drop_accounts(&database).await?;

    steps.step("starting the broker");
    let most = CLIENTS.into_iter().max().unwrap_or(1);
    let mut broker = Running::start(&setting, 3, most).await?;
    let agent = match &args.agent {
        Some(path) if args.only.is_empty() => {
            steps.step("the agent, and a thousand clients");
            let figures = agent::measure(path, &broker, 2 * extent.starts, extent.idle).await.context("the agent")?;
            ceiling::drop_accounts(&database).await?;
            Some(figures)
        }
        _ => None,
    };
    let chosen = |system: &System| args.only.is_empty() || args.only.contains(system);
    let openbao = match &args.openbao {
        Some(bao) if chosen(&System::OpenBao) => {
            steps.step("starting OpenBao");
            let server = OpenBao::start(bao, &database, args.connections, most).await.context("OpenBao")?;
            Some(server)
        }
        _ => None,
    };
    let before = match &args.before {
        Some(binary) if chosen(&System::Before) => {
            steps.step("starting the earlier broker");
            let earlier = Running::start(&Setting { binary, ..setting }, 3, most).await;
            Some(earlier.context("the earlier broker")?)
        }
        _ => None,
    };
    let systems: Vec<System> = System::ALL
        .into_iter()
        .filter(|system| match system {
            System::OpenBao => openbao.is_some(),
            System::Before => before.is_some(),
            _ => chosen(system),
        })
        .collect();
    let hash_ms = broker::hash_ms()?;
    let bench = Bench { database: &database, connections: args.connections, extent, broker: &broker, openbao, before };
    let mut cells: Vec<Cell> = Vec::new();
    // Interleaved: what drifts (the machine, the size of the stores) hits all alike.
    let sizes = CLIENTS
        .into_iter()
        .filter(|clients| args.clients.is_empty() || args.clients.iter().any(|of| usize::from(*of) == *clients));
    let sizes: Vec<usize> = sizes.collect();
    for round in 1..=extent.rounds + extent.more_rounds {
        for clients in &sizes {
            for system in &systems {
                let known = cells.iter().find(|cell| cell.system == *system && cell.clients == *clients);
                let steady = known.is_some_and(|cell| cell.measured.spread().is_some_and(|spread| spread <= SPREAD));
                if round > extent.rounds && steady {
                    continue;
                }
                let more = if round > extent.rounds { ", since they differ" } else { "" };
                let of = extent.rounds.max(round);
                steps.step(&format!("round {round} of {of}{more}: {clients} clients, {}", system.name()));
                let measured = bench.cell(*system, *clients, postgres_pid).await?;
                keep(&mut cells, *system, *clients, measured);
                ceiling::drop_accounts(&database).await?;
            }
        }
    }
    let Bench { openbao, before: earlier, .. } = bench;
    drop(earlier);
    let metrics = broker.metrics().await?;
    let at_the_end = report::AtTheEnd {
        broker_mb: memory_mb(broker.pid()?, "VmRSS:"),
        broker_leases: count(&cells, &[System::Broker, System::Verifier, System::BrokerLight, System::Noop]),
        openbao_mb: openbao.as_ref().and_then(|bao| memory_mb(bao.pid().ok()?, "VmRSS:")),
        openbao_leases: count(&cells, &[System::OpenBao]),
    };
    broker.stop()?;
    steps.step("replaying all that was decided");
    let replayed = broker.replay(&plugins)?;
    steps.finish();
    Ok(Report {
        machine: Machine::here(),
        versions: report::versions(args, &database).await?,
        profile: args.profile.clone(),
        quick: args.quick,
        rounds: extent.rounds,
        seconds: extent.length.as_secs_f64(),
        accounts: extent.accounts,
        max_connections: args.connections,
        cells,
        evaluations,
        memory,
        starts_ms,
        policy_seconds: report::histogram_mean_us(&metrics, "jit_policy_seconds"),
        at_the_end,
        replayed,
        agent,
        hash_ms,
    })
}

/// What the cells are measured with.
struct Bench<'a> {
    database: &'a Database,
    connections: u32,
    extent: &'a Extent,
    broker: &'a Running,
    openbao: Option<OpenBao>,
    before: Option<Running>,
}

impl Bench<'_> {
    /// One round of one cell.
    async fn cell(&self, system: System, clients: usize, postgres: u32) -> Result<Measured> {
        let bound = match system.makes_accounts() {
            true => Bound { length: LONGEST, answers: self.extent.accounts },
            false => Bound { length: self.extent.length, answers: usize::MAX },
        };
        let broker = (Party::Broker, self.broker.pid()?);
        let server = (Party::Postgres, postgres);
        match system {
            System::Ceiling | System::CeilingLight => {
                let iterations = if system == System::Ceiling { 4_096 } else { 1 };
                let shared = Connections::open(self.database, self.connections, iterations).await?;
                let plain = (0..clients).map(|_| PlainClient(shared.clone())).collect();
                let measured = load::run(plain, bound, &[server]).await?;
                shared.close().await?;
                Ok(measured)
            }
            System::Broker | System::BrokerLight => {
                let target = if system == System::Broker { "inventory_db" } else { "inventory_light" };
                load::run(self.broker.clients(target, clients).await?, bound, &[broker, server]).await
            }
            System::Verifier => {
                // Some more than are measured: for the warm-up, and for who asks last.
                let count = self.extent.accounts + 4 * clients + 200;
                let verifiers = (0..count).map(|_| broker::verifier()).collect::<Result<Vec<_>>>()?;
                let callers = self.broker.callers("inventory_db", clients, verifiers).await?;
                load::run(callers, bound, &[broker, server]).await
            }
            System::Noop => load::run(self.broker.clients("nothing", clients).await?, bound, &[broker]).await,
            System::Before => {
                let earlier = self.before.as_ref().context("no earlier broker")?;
                load::run(earlier.clients("nothing", clients).await?, bound, &[(Party::Broker, earlier.pid()?)]).await
            }
            System::OpenBao => {
                let bao = self.openbao.as_ref().context("no OpenBao")?;
                load::run(bao.clients(clients).await?, bound, &[(Party::Openbao, bao.pid()?), server]).await
            }
        }
    }
}

fn keep(cells: &mut Vec<Cell>, system: System, clients: usize, measured: Measured) {
    match cells.iter_mut().find(|cell| cell.system == system && cell.clients == clients) {
        Some(cell) => cell.measured.add(measured),
        None => cells.push(Cell { system, clients, measured }),
    }
}

fn count(cells: &[Cell], systems: &[System]) -> usize {
    cells.iter().filter(|cell| systems.contains(&cell.system)).map(|cell| cell.measured.count()).sum()
}
