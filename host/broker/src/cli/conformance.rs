//! `plugin test`: the conformance kit for drivers, tables of cases for policies.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueEnum;

use super::admin::table;
use super::{Stop, block_on};
use jit_assembly::compose::{self, Mode};
use jit_kit::conformance::cases::CASES;
use jit_kit::conformance::report::{CaseResult, Report, Verdict};
use jit_kit::conformance::{self, Progress};
use jit_kit::policy_test;

/// How many compiled plugins are kept between runs: one with an interpreter in it has some 50 MB.
const COMPILED_KEPT: usize = 8;

pub(super) const EXAMPLES: &str = "\
Examples:
  jit-broker plugin test --policy my-rule.wasm --cases cases.toml
  jit-broker plugin test --policy my-rule.wasm --cases cases.toml --config production.toml --format junit
  jit-broker plugin test --list
  jit-broker plugin test --driver driver-postgres.wasm --fixture postgres.toml
  jit-broker plugin test --driver mine.wasm --fixture mine.toml --only crash:: --only outage::
  jit-broker plugin test --driver mine.wasm --fixture mine.toml --format junit --output report.xml

A policy is asked each case several times, each time on a fresh instance. All answers must be the expected
one. docs/plugins.md has the form of the cases.

A fixture is a piece of the broker's configuration (one connection, one target) and a section
[conformance] that says how an account logs in; docs/drivers/conformance.md explains it.
The kit makes and removes accounts whose names begin with \"jk-\": give it a backend for tests. It
plays outages only to a backend on this machine.";

#[derive(clap::Args)]
pub(super) struct TestArgs {
    /// The driver's component.
    #[arg(long, value_name = "WASM", required_unless_present_any = ["list", "policy"])]
    driver: Option<PathBuf>,
    /// What the kit needs to know about the backend (TOML).
    #[arg(long, value_name = "FILE", required_unless_present_any = ["list", "policy"])]
    fixture: Option<PathBuf>,
    /// The policy's component.
    #[arg(long, value_name = "WASM", conflicts_with_all = ["driver", "fixture", "list"], requires = "cases")]
    policy: Option<PathBuf>,
    /// What the policy is asked and what it must answer (TOML).
    #[arg(long, value_name = "FILE", requires = "policy")]
    cases: Option<PathBuf>,
    /// The policy's configuration (TOML or JSON), instead of the one that the cases share.
    #[arg(long, value_name = "FILE", requires = "policy")]
    config: Option<PathBuf>,
    /// How often the policy is asked each case.
    #[arg(long, value_name = "TIMES", default_value_t = policy_test::ASKED, value_parser = clap::value_parser!(u32).range(1..=i64::from(policy_test::MOST_ASKED)))]
    asked: u32,
    /// Only cases whose names contain this; repeat for more.
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    format: ReportFormat,
    /// The file for the report; by default standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// List the cases without running them.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For CI.
    Junit,
}

/// One line for each case on standard error, while the report is still to come.
struct OnStderr;

impl Progress for OnStderr {
    fn begins(&self, place: usize, of: usize, case: &str) {
        eprint!("[{place:>2}/{of}] {case} … ");
    }

    fn ended(&self, result: &CaseResult) {
        let seconds = std::time::Duration::from_millis(result.millis).as_secs_f64();
        eprintln!("{} ({seconds:.1} s)", result.verdict.as_str());
    }
}

pub(super) fn run(args: &TestArgs) -> Result<(), Stop> {
    if args.list {
        let mut table = table(&["CASE", "WHAT IT SHOWS"]);
        for case in CASES {
            table.add_row([case.name, case.promise]);
        }
        println!("{table}");
        return Ok(());
    }
    let report = match &args.policy {
        Some(policy) => of_policy(policy, args)?,
        None => of_driver(args)?,
    };
    let text = match args.format {
        ReportFormat::Table => for_people(&report),
        ReportFormat::Json => report.json()? + "\n",
        ReportFormat::Junit => report.junit(),
    };
    write(args.output.as_deref(), &text)?;
    eprintln!("{}", report.summary());
    if let Some(warning) = report.warning() {
        eprintln!("{warning}");
    }
    if report.passed() { Ok(()) } else { Err(Stop::FoundWrong) }
}

fn of_policy(policy: &Path, args: &TestArgs) -> anyhow::Result<Report> {
    let options = policy_test::Options {
        policy: policy.to_owned(),
        cases: args.cases.clone().context("--cases is missing")?,
        config: args.config.clone(),
        only: args.only.clone(),
        asked: args.asked,
    };
    jit_plugin_build::cache::keep_newest(&compose::compiled_by_user()?, COMPILED_KEPT);
    let runtime = compose::runtime_of_user(None, Mode::default())?;
    eprintln!("loading {} (the first time it is compiled)", policy.display());
    policy_test::run(&runtime, &options, &OnStderr)
}

fn of_driver(args: &TestArgs) -> anyhow::Result<Report> {
    let missing = |what: &str| anyhow::anyhow!("--{what} is missing");
    let driver = args.driver.as_deref().ok_or_else(|| missing("driver"))?;
    let fixture = args.fixture.as_deref().ok_or_else(|| missing("fixture"))?;
    if let Ok(compiled) = compose::compiled_by_user() {
        jit_plugin_build::cache::keep_newest(&compiled, COMPILED_KEPT);
    }
    eprintln!("loading {} (the first time it is compiled)", driver.display());
    block_on(conformance::run(driver, fixture, &args.only, &OnStderr))
}

fn for_people(report: &Report) -> String {
    let mut rows = table(&["CASE", "VERDICT", "SECONDS", "SEEN"]);
    for case in &report.cases {
        let seconds = format!("{:.1}", std::time::Duration::from_millis(case.millis).as_secs_f64());
        let seen = match case.verdict {
            Verdict::Failed => format!("{} — {}", case.promise, case.detail),
            _ => case.detail.clone(),
        };
        rows.add_row([&case.name, case.verdict.as_str(), &seconds, &seen]);
    }
    let subject = report.tested.subject();
    let features = match subject.features[..] {
        [] => String::new(),
        _ => format!("features: {}\n", subject.features.join(" ")),
    };
    let kind = report.tested.kind();
    format!("{kind} {} {}, sha256 {}\n{features}{rows}\n", subject.name, subject.version, subject.sha256)
}

fn write(output: Option<&Path>, text: &str) -> anyhow::Result<()> {
    match output {
        Some(path) => std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}
