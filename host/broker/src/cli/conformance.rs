//! `plugin test`: the conformance kit for drivers, tables of cases for policies.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;
use clap::ValueEnum;

use super::admin::table;
use super::progress::{Compilations, Line};
use super::{Format, Stop, block_on};
use jit_assembly::compose::{self, Mode};
use jit_kit::conformance::cases::CASES;
use jit_kit::conformance::report::{CaseResult, Report, Verdict};
use jit_kit::conformance::{self, Progress};
use jit_kit::policy_test;

pub(super) const EXAMPLES: &str = "\
Examples:
  jit-broker plugin test --policy my-rule.wasm --cases cases.toml
  jit-broker plugin test --policy my-rule.wasm --cases cases.toml --config production.toml --format junit
  jit-broker plugin test --list
  jit-broker plugin test --driver driver-postgres.wasm --fixture postgres.toml
  jit-broker plugin test --driver mine.wasm --fixture mine.toml --only crash:: --only outage::
  jit-broker plugin test --driver mine.wasm --fixture mine.toml --format junit --output report.xml
  jit-broker plugin test --driver mine.wasm --fixture mine.toml --clean    # what runs left behind

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
    /// Run no case: remove the accounts that earlier runs with this fixture left, by the driver that is given. No other
    /// account is touched.
    #[arg(long, requires = "driver", conflicts_with_all = ["only", "list", "policy", "output"])]
    clean: bool,
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

impl ReportFormat {
    /// Whether a person or a program reads it.
    fn reader(self) -> Format {
        match self {
            Self::Table => Format::Table,
            Self::Json | Self::Junit => Format::Json,
        }
    }
}

/// Which case runs now, and how many have failed, while the report is still to come.
struct Watched {
    line: Line,
    failed: AtomicU32,
}

impl Watched {
    fn new(format: ReportFormat) -> Self {
        Self::over("tried", "cases", format.reader())
    }

    fn over(what: &'static str, unit: &'static str, reader: Format) -> Self {
        Self { line: Line::new(what, unit, reader), failed: AtomicU32::new(0) }
    }
}

impl Progress for Watched {
    fn begins(&self, place: usize, of: usize, case: &str) {
        let failed = match self.failed.load(Ordering::Relaxed) {
            0 => String::new(),
            failed => format!("{failed} failed, "),
        };
        self.line.show(place as u64 - 1, Some(of as u64), &format!("{failed}now {case}"));
    }

    fn ended(&self, result: &CaseResult) {
        if result.verdict == Verdict::Failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
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
    if args.clean {
        return clean(args);
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
    let runtime = compose::runtime_of_user(None, Mode::default(), Compilations::new(args.format.reader()))?;
    policy_test::run(&runtime, &options, &Watched::new(args.format))
}

fn driver_and_fixture(args: &TestArgs) -> anyhow::Result<(&Path, &Path)> {
    let driver = args.driver.as_deref().context("--driver is missing")?;
    Ok((driver, args.fixture.as_deref().context("--fixture is missing")?))
}

/// Removes what earlier runs left, and says what.
fn clean(args: &TestArgs) -> Result<(), Stop> {
    let (driver, fixture) = driver_and_fixture(args)?;
    let reader = args.format.reader();
    let (progress, watch) = (Watched::over("removed", "accounts", reader), Compilations::new(reader));
    let cleaned = block_on(conformance::clean::clean(driver, fixture, &progress, watch))?;
    drop(progress);
    for name in &cleaned.removed {
        println!("removed {name}");
    }
    for (name, why) in &cleaned.left {
        println!("STILL THERE: {name} ({why})");
    }
    if cleaned.removed.is_empty() && cleaned.left.is_empty() {
        println!("nothing is left of earlier runs with this fixture");
    }
    if cleaned.left.is_empty() { Ok(()) } else { Err(Stop::FoundWrong) }
}

fn of_driver(args: &TestArgs) -> anyhow::Result<Report> {
    let (driver, fixture) = driver_and_fixture(args)?;
    let (progress, watch) = (Watched::new(args.format), Compilations::new(args.format.reader()));
    block_on(conformance::run(driver, fixture, &args.only, &progress, watch))
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
