//! The cost of a decision, for each policy: on a fresh copy, prepared each time, remembered; and what a load costs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jit_core::policy::{DecidedBy, Operation, PolicyRequest, Verdict};
use jit_runtime::{ConfiguredPolicy, Limits, LogCompilations, PluginSpec, Runtime, RuntimeOptions, Snapshots};
use serde::Serialize;
use serde_json::json;

use crate::broker::rules;
use crate::load::quantile;

/// Evaluations before any is measured, and how long they may take.
const WARM_UP: usize = 1_000;
const WARM_UP_TIME: Duration = Duration::from_secs(1);
/// A slow policy is measured for so long, and so often at least.
const LONGEST: Duration = Duration::from_secs(5);
const LEAST: usize = 100;
/// A snapshot that is not there after this is not going to be.
const SNAPSHOT: Duration = Duration::from_secs(120);
/// How long one decision of a policy takes, and its load.
#[derive(Debug, Serialize)]
pub(crate) struct Evaluation {
    /// The component.
    pub(crate) policy: String,
    /// What it was configured with.
    pub(crate) config: &'static str,
    /// On a fresh copy of the prepared instance: the median in microseconds.
    pub(crate) p50_us: f64,
    /// The 99th percentile of the same.
    pub(crate) p99_us: f64,
    /// Page faults of one, on average.
    pub(crate) faults: f64,
    /// Without a snapshot, when each decision prepares an instance: the median in microseconds.
    pub(crate) prepared_us: f64,
    /// The median of one that is remembered, in microseconds; none where the policy reads the time.
    pub(crate) remembered_us: Option<f64>,
    /// From the file to the first answer, with an empty compile cache, in milliseconds.
    pub(crate) first_load_ms: f64,
    /// From another configuration to its first answer, in milliseconds.
    pub(crate) other_config_ms: f64,
    /// From another configuration to its snapshot, in the background, in milliseconds.
    pub(crate) snapshot_ms: f64,
}

/// The policy that does nothing: what any costs at least.
pub(crate) const FLOOR: &str = "policy-allow";
/// The policy that the goal is about.
pub(crate) const RULES: &str = "policy-allow-list";

/// A policy with a configuration that allows [`request`].
struct Subject {
    policy: &'static str,
    about: &'static str,
    config: serde_json::Value,
    /// Without it there is no report.
    needed: bool,
}

fn subjects() -> Vec<Subject> {
    let needed = |policy, about, config| Subject { policy, about, config, needed: true };
    let rule = || json!({"environments": ["prod"], "max_ttl": "30m", "need_ticket": ["app_read_write"]});
    vec![
        needed(FLOOR, "nothing: the floor", json!({})),
        needed(RULES, "20 rules, the last fits", rules()),
        needed(
            "policy-time-window",
            "working hours of a time zone",
            json!({"time_zone": "Europe/Berlin", "days": ["mon-fri"], "from": "08:00", "to": "18:00"}),
        ),
        needed(
            "policy-environment",
            "of two environments",
            json!({"targets": [
                {"environment": "dev", "targets": ["*_dev"]},
                {"environment": "prod", "targets": ["*_prod", "inventory_db"]},
            ]}),
        ),
        needed(
            "policy-quota",
            "two windows and leases",
            json!({"limits": [{"per": "workload", "requests": {"1m": 10, "1h": 100}, "leases": 20}]}),
        ),
        Subject {
            policy: "policy-cedar",
            about: "one policy in Cedar, by an attribute",
            config: json!({"policies":
                "permit (principal, action, resource) when { principal.hasTag(\"env\") && principal.getTag(\"env\") == \"prod\" };"}),
            needed: false,
        },
        Subject { policy: "policy-python", about: "the template's rule, in Python", config: rule(), needed: false },
        Subject {
            policy: "policy-javascript",
            about: "the template's rule, in JavaScript",
            config: rule(),
            needed: false,
        },
    ]
}

/// What each of them is asked: a Wednesday at noon, in Berlin.
fn request() -> PolicyRequest {
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    PolicyRequest {
        operation: Operation::Issue,
        time: 1_795_000_000,
        workload: "payment-7".to_owned(),
        issuer: "dev".to_owned(),
        attributes: pairs(&[("env", "prod"), ("k8s_namespace", "shop"), ("k8s_pod", "payment-7-5d9c7b6f4-x2x9q")]),
        target: "inventory_db".to_owned(),
        role: "app_read_only".to_owned(),
        ttl_seconds: 1_800,
        reason: Some("nightly export".to_owned()),
        ticket: None,
        metadata: BTreeMap::new(),
        caller_address: None,
        resource: BTreeMap::new(),
        facts: pairs(&[
            ("usage.workload.leases", "2"),
            ("usage.workload.requests.60", "3"),
            ("usage.workload.requests.3600", "30"),
        ]),
    }
}

/// The tables, as Markdown.
pub(crate) fn table(text: &mut String, evaluations: &[Evaluation]) {
    text.push_str(
        "## The cost of a decision, for each policy\n\nOne decision after the other. On a copy: a fresh copy of the \
         instance that was prepared once. Prepared each time: as before its snapshot is ready. Remembered: a \
         decision that agrees with an earlier one in all that the policy reads.\n\n\
         | policy | on a copy, p50 | p99 | p50, to the floor | page faults | prepared each time, p50 | remembered, p50 |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let floor = evaluations.iter().find(|of| of.policy == FLOOR).map_or(f64::NAN, |of| of.p50_us);
    for of in evaluations {
        let Evaluation { policy, config, p50_us, p99_us, faults, prepared_us, remembered_us, .. } = of;
        let remembered = remembered_us.map_or_else(|| "reads the time".to_owned(), |us| format!("{us:.1} µs"));
        let ratio = p50_us / floor;
        let _ = writeln!(
            text,
            "| {policy} ({config}) | {p50_us:.1} µs | {p99_us:.1} µs | {ratio:.1} × | {faults:.1} | {prepared_us:.1} µs | {remembered} |"
        );
    }
    text.push_str(
        "\nWhat a load costs: from the file to the first answer, with nothing compiled before; from another \
         configuration to its first answer; and to its snapshot, which is taken meanwhile.\n\n\
         | policy | first load | another configuration | its snapshot |\n|---|---|---|---|\n",
    );
    for Evaluation { policy, first_load_ms, other_config_ms, snapshot_ms, .. } in evaluations {
        let _ = writeln!(text, "| {policy} | {first_load_ms:.0} ms | {other_config_ms:.1} ms | {snapshot_ms:.0} ms |");
    }
    text.push('\n');
}

/// Decides the same request again and again, in this process, through the runtime's facade. A policy
/// that was not built (Cedar, Python and JavaScript need more than the others) is left out with a line.
pub(crate) fn evaluations(folders: &[&Path], count: usize) -> Result<Vec<Evaluation>> {
    let mut evaluations = Vec::new();
    for subject in subjects() {
        let file = format!("{}.wasm", subject.policy);
        match folders.iter().map(|folder| folder.join(&file)).find(|path| path.is_file()) {
            Some(path) => evaluations.push(evaluation(&subject, path, count).context(subject.policy)?),
            None if subject.needed => anyhow::bail!("{file} is missing"),
            None => eprintln!("without {}: there is no {file}", subject.policy),
        }
    }
    Ok(evaluations)
}

fn evaluation(subject: &Subject, path: PathBuf, count: usize) -> Result<Evaluation> {
    let cache = tempfile::tempdir()?;
    let runtime = |remember, snapshots| {
        Runtime::new(RuntimeOptions {
            cache_dir: cache.path().join("cache"),
            limits: Limits::default(),
            max_concurrent_calls: 128,
            remember,
            snapshots,
            watch: Arc::new(LogCompilations),
        })
    };
    let spec = PluginSpec { name: subject.policy.to_owned(), path, sha256: None, grants: None };
    let (config, request) = (subject.config.to_string(), request());
    let allows = |policy: &ConfiguredPolicy| {
        let verdict = policy.ask(&request).answer.verdict?;
        ensure!(matches!(verdict, Verdict::Allow { .. }), "it denies: {verdict:?}");
        Ok(())
    };

    let copying = runtime(false, Snapshots::Background)?;
    let begun = Instant::now();
    let plugin = copying.load(&spec)?;
    let plugin = plugin.as_policy().context("no policy")?;
    plugin.validate(&config)?;
    let policy = ConfiguredPolicy::new(plugin.clone(), &config);
    allows(&policy)?;
    let first_load_ms = ms(begun);
    wait_for_snapshot(&policy)?;

    // The same to the policy, and another text to the host.
    let begun = Instant::now();
    let other = format!("{config} ");
    plugin.validate(&other)?;
    let other = ConfiguredPolicy::new(plugin.clone(), &other);
    allows(&other)?;
    let other_config_ms = ms(begun);
    wait_for_snapshot(&other)?;
    let snapshot_ms = ms(begun);

    let before = page_faults()?;
    let copied = times(count, || allows(&policy))?;
    // Those of the warm-up are among them, and its decisions too: close enough.
    let faults = (page_faults()? - before) / copied.len() as f64;
    let plain = runtime(false, Snapshots::Off)?;
    let plain = plain.load(&spec)?.as_policy().context("no policy")?.clone();
    let plain = ConfiguredPolicy::new(plain, &config);
    let prepared = times(count, || allows(&plain))?;
    let remembering = runtime(true, Snapshots::Off)?;
    let remembering = remembering.load(&spec)?.as_policy().context("no policy")?.clone();
    let remembered_us = remembered(&ConfiguredPolicy::new(remembering, &config), &request, count);
    Ok(Evaluation {
        policy: subject.policy.to_owned(),
        config: subject.about,
        p50_us: quantile(&copied, 0.5) / 1e3,
        p99_us: quantile(&copied, 0.99) / 1e3,
        faults,
        prepared_us: quantile(&prepared, 0.5) / 1e3,
        remembered_us,
        first_load_ms,
        other_config_ms,
        snapshot_ms,
    })
}

/// Page faults of this process so far that no disk was needed for (proc(5), field 10).
fn page_faults() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, after_name) = stat.rsplit_once(')').context("no process name in /proc/self/stat")?;
    let faults = after_name.split_whitespace().nth(7).context("no page faults in /proc/self/stat")?;
    Ok(faults.parse()?)
}

fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

fn wait_for_snapshot(policy: &ConfiguredPolicy) -> Result<()> {
    let begun = Instant::now();
    while !policy.has_snapshot() {
        ensure!(begun.elapsed() < SNAPSHOT, "no snapshot after {} s", SNAPSHOT.as_secs());
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// How long each of many calls takes, in nanoseconds, sorted; the first are not counted.
fn times(count: usize, mut call: impl FnMut() -> Result<()>) -> Result<Vec<u32>> {
    let (begun, mut nanoseconds) = (Instant::now(), Vec::new());
    let mut warming = WARM_UP;
    while nanoseconds.len() < count && (nanoseconds.len() < LEAST || begun.elapsed() < LONGEST) {
        let one = Instant::now();
        call()?;
        let took = one.elapsed().as_nanos();
        if warming > 0 && begun.elapsed() < WARM_UP_TIME {
            warming -= 1;
        } else {
            warming = 0;
            nanoseconds.push(u32::try_from(took).unwrap_or(u32::MAX));
        }
    }
    nanoseconds.sort_unstable();
    Ok(nanoseconds)
}

/// The median in microseconds of a decision that was made before.
fn remembered(policy: &ConfiguredPolicy, request: &PolicyRequest, count: usize) -> Option<f64> {
    let _learned = policy.ask(request);
    let mut nanoseconds = Vec::with_capacity(count);
    for _ in 0..count {
        let call = Instant::now();
        if policy.ask(request).by != DecidedBy::Memory {
            return None;
        }
        nanoseconds.push(u32::try_from(call.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
    nanoseconds.sort_unstable();
    Some(quantile(&nanoseconds, 0.5) / 1e3)
}
