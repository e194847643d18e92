//! `policy replay`: what a candidate would have decided, over the recorded decisions.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use jit_core::glob::Glob;
use jit_core::ttl::Ttl;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::admin::table;
use super::progress::{Compilations, Line};
use super::{Format, Stop, block_on, coloured};
use jit_assembly::compose::{self, Mode};
use jit_assembly::store;
use jit_config::{Config, PluginTable, render};
use jit_kit::policy_replay::candidate::Candidate;
use jit_kit::policy_replay::comparison::Place;
use jit_kit::policy_replay::record::{Filter, Reference};
use jit_kit::policy_replay::report::{Kind, Report, Totals};
use jit_kit::policy_replay::run::{self, Progress, Replay, Subject};
use jit_kit::policy_replay::source::Source;

pub(super) const EXAMPLES: &str = "\
Examples:
  jit-broker policy replay --policy new.wasm --config new.toml --since 30d
  jit-broker policy replay --policy new.wasm --config new.toml --name business-hours --target 'prod_*'
  jit-broker policy replay --policy new.wasm --audit audit.jsonl --format json    # on a laptop
  jit-broker policy replay --reproduce -c broker.toml        # does every policy answer as is recorded?

It reads the store that the broker's configuration names, beside a running broker or without one, and
changes nothing. The candidate counts for every workload, as if it were enforced; the other policies'
answers are taken from the records. NEW.TOML is what would stand under [policies.NAME.config].

Exit codes: 0 nothing flips · 3 something flips, or the candidate does not answer · 1 failed, nothing to
replay, or the same component and configuration do not answer as is recorded.";

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub(super) struct ReplayArgs {
    /// The candidate's component.
    #[arg(long, value_name = "WASM", required_unless_present = "reproduce")]
    policy: Option<PathBuf>,
    /// The candidate's own configuration table (TOML); by default empty.
    #[arg(long, value_name = "FILE", requires = "policy")]
    config: Option<PathBuf>,
    /// The configured policy that it replaces; by default it is added to every chain.
    #[arg(long, value_name = "NAME", requires = "policy")]
    name: Option<String>,
    /// Only hold policies to what is recorded of the same component and configuration: the one given,
    /// or all of the broker's configuration.
    #[arg(long)]
    reproduce: bool,
    /// The broker's configuration, which names the store; by default broker.toml unless --audit is given.
    #[arg(long, short = 'c', env = "JIT_CONFIG", value_name = "FILE")]
    broker_config: Option<PathBuf>,
    /// An exported audit log (JSON lines) in place of the store.
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Only decisions since then: a duration (30d: since thirty days ago) or a time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only decisions before then: a duration (1d: until a day ago) or a time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only of targets that fit this pattern.
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    target: Option<Glob>,
    /// Only of workloads that fit this pattern.
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    workload: Option<Glob>,
    /// Ask the policy about each record, also where it has decided the same before. The report is the same, later.
    #[arg(long)]
    no_memory: bool,
    /// The most groups that are shown.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// A time, or how long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let wrong = || "write how long ago (30d, 12h) or a time (2026-03-01T00:00:00Z)".to_owned();
    let ago = text.parse::<Ttl>().map_err(|_| wrong())?;
    Timestamp::now().checked_sub(ago.duration()).map_err(|_| wrong())
}

fn pattern(text: &str) -> Result<Glob, String> {
    Glob::new(text).map_err(|error| format!("the pattern {error}"))
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate: Option<Shown<'a>>,
    #[serde(flatten)]
    report: &'a Report,
}

#[derive(Serialize)]
struct Shown<'a> {
    plugin_sha256: &'a str,
    config_sha256: &'a str,
    /// The policy that it replaces; none is added.
    replaces: Option<&'a str>,
}

pub(super) fn run(args: ReplayArgs) -> Result<(), Stop> {
    let config = match (&args.broker_config, &args.audit) {
        (Some(path), _) => Some(Config::load(path)?),
        (None, None) => Some(Config::load(std::path::Path::new("broker.toml"))?),
        (None, Some(_)) => None,
    };
    let source = match (&args.audit, &config) {
        (Some(path), _) => Source::Export(path.clone()),
        (None, Some(config)) => Source::Store { log: store::log(&config.store), place: store::place(&config.store) },
        (None, None) => return Err(anyhow!("there is neither a configuration nor --audit").into()),
    };
    let subject = subject(&args, config.as_ref())?;
    let filter = Filter { since: args.since, until: args.until, workload: args.workload, target: args.target };
    let replay = Arc::new(Replay { source, filter, subject });
    let begun = Instant::now();
    let tally = block_on(watched(Arc::clone(&replay), args.format))?;
    let place = match &replay.subject {
        Subject::Candidate { place, .. } => Some(place),
        Subject::Reproduce(_) => None,
    };
    let nothing = run::something_replayed(&tally, place);
    let report = tally.report(args.limit);
    let candidate = match &replay.subject {
        Subject::Candidate { candidate, .. } => Some(Shown {
            plugin_sha256: candidate.plugin_sha256(),
            config_sha256: candidate.config_sha256(),
            replaces: args.name.as_deref(),
        }),
        Subject::Reproduce(_) => None,
    };
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&Printed { candidate, report: &report })?),
        Format::Table => print!("{}", for_people(&report, candidate.is_some(), begun.elapsed())),
    }
    nothing?;
    if report.totals.not_reproduced > 0 {
        let count = report.totals.not_reproduced;
        return Err(anyhow!(
            "{count} recorded answers are not what the same component with the same configuration says now: either the \
             records were changed (`jit-broker audit verify` tells), or the policy is no function of its input and must not be used"
        )
        .into());
    }
    if report.flips() { Err(Stop::FoundWrong) } else { Ok(()) }
}

fn subject(args: &ReplayArgs, config: Option<&Config>) -> anyhow::Result<Subject> {
    let mode = Mode { no_memory: args.no_memory, ..Mode::default() };
    let runtime = compose::runtime_of_user(config, mode, Compilations::new(args.format))?;
    let Some(component) = &args.policy else {
        let config = config.context("--reproduce needs --policy, or a broker's configuration")?;
        return Ok(Subject::Reproduce(Candidate::of_config(&runtime, config)?));
    };
    let table = match &args.config {
        Some(path) => PluginTable::load(path)?,
        None => PluginTable::parse("", "(no --config)")?,
    };
    eprint!("{}", render(&table.warnings, coloured(&std::io::stderr())));
    let place = args.name.clone().map_or(Place::Added, Place::Replaces);
    let candidate = Candidate::load(&runtime, place.name(), component, &table)?;
    if args.reproduce {
        return Ok(Subject::Reproduce(vec![candidate]));
    }
    Ok(Subject::Candidate { candidate, place, roles: config.map(run::roles_of).unwrap_or_default() })
}

/// Runs on threads of its own, shows how far it is, and ends at Ctrl-C.
async fn watched(replay: Arc<Replay>, format: Format) -> anyhow::Result<jit_kit::policy_replay::report::Tally> {
    let progress = Arc::new(Progress::default());
    let mut work = {
        let progress = Arc::clone(&progress);
        tokio::task::spawn_blocking(move || run::run(&replay, &progress))
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let line = Line::new("read", "% of the log", format);
    let mut tick = tokio::time::interval(TICK);
    tick.tick().await;
    loop {
        tokio::select! {
            done = &mut work => {
                return done.context("the replay was cut off")?;
            }
            _ = interrupt.recv() => progress.stop.store(true, Ordering::Relaxed),
            _ = tick.tick() => show(&line, &progress),
        }
    }
}

/// How far the log is read.
fn show(line: &Line, progress: &Progress) {
    let of = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    let (position, total, decisions) = (of(&progress.position), of(&progress.total), of(&progress.decisions));
    let percent = position.saturating_mul(100) / total.max(1);
    line.show(percent, Some(100), &format!("({decisions} decisions)"));
}

fn for_people(report: &Report, with_candidate: bool, took: Duration) -> String {
    let Totals { decisions, replayed, unchanged, allow_to_deny, deny_to_allow, changed, .. } = report.totals;
    let Totals { candidate_failed, not_concerned, not_replayable, same_bytes, not_reproduced, other_bytes, .. } =
        report.totals;
    let seconds = took.as_secs_f64();
    let mut lines = vec![format!("{decisions} recorded decisions, {replayed} of them replayed, in {seconds:.1} s")];
    let mut line = |count: u64, what: &str, always: bool| {
        if always || count > 0 {
            lines.push(format!("{count:>10}  {what}"));
        }
    };
    if with_candidate {
        line(unchanged, "unchanged", true);
        line(allow_to_deny, "would be denied and were allowed (allow → deny)", true);
        line(deny_to_allow, "would be allowed and were denied (deny → allow)", true);
        line(changed, "would be allowed with another role or TTL", false);
        line(candidate_failed, "the candidate did not answer, which denies", false);
        line(not_concerned, "not concerned: the policy that is replaced is not in their chain", false);
    }
    line(
        same_bytes - not_reproduced,
        "recorded answers of the same component and configuration, reproduced exactly",
        !with_candidate,
    );
    line(not_reproduced, "recorded answers of the same component and configuration, NOT REPRODUCED", false);
    line(other_bytes, "recorded answers of other components or configurations", false);
    line(not_replayable, "not replayable:", false);
    for unfit in &report.not_replayable {
        lines.push(format!("{:>14}  {} ({})", unfit.count, unfit.reason, examples(&unfit.examples)));
    }
    let mut text = lines.join("\n") + "\n";
    if !report.groups.is_empty() {
        let mut rows = table(&["WHAT", "COUNT", "WORKLOAD", "TARGET", "POLICY", "WHY", "FOR EXAMPLE"]);
        for group in &report.groups {
            let why = match group.kind {
                Kind::DenyToAllow => format!("denied then: {}", group.reason),
                _ => group.reason.clone(),
            };
            rows.add_row([
                group.kind.as_str(),
                &group.count.to_string(),
                &group.workload,
                &group.target,
                &group.policy,
                &why,
                &examples(&group.examples[..1.min(group.examples.len())]),
            ]);
        }
        text.push_str(&format!("\n{rows}\n"));
    }
    if report.left_out_decisions > 0 {
        let (groups, decisions) = (report.left_out_groups, report.left_out_decisions);
        text.push_str(&format!("… and {decisions} more decisions in {groups} more groups: --limit shows more\n"));
    }
    text
}

fn examples(of: &[Reference]) -> String {
    let one = |at: &Reference| match &at.request_id {
        Some(id) => format!("seq {} {}", at.seq, jit_runtime::text::escape(id, 64)),
        None => format!("seq {}", at.seq),
    };
    of.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        assert_eq!(moment("2026-03-01T00:00:00Z").unwrap().to_string(), "2026-03-01T00:00:00Z");
        let then = moment("30d").unwrap();
        let month = Timestamp::now().duration_since(then);
        assert_eq!(month.as_secs() / 86_400, 30);
        for wrong in ["", "yesterday", "-1d", "0d"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
