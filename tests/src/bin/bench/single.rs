//! Figures that need no load: one policy evaluation, memory at rest, the start.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jit_core::policy::{Operation, PolicyRequest, Verdict};
use jit_runtime::{ConfiguredPolicy, Limits, LogCompilations, PluginSpec, Runtime, RuntimeOptions};
use serde::Serialize;
use serde_json::json;

use crate::broker::{Running, Setting, rules};
use crate::load::{Asks as _, quantile};
use crate::machine::memory_mb;

/// Evaluations before any is measured, and how long they may take.
const WARM_UP: usize = 1_000;
const WARM_UP_TIME: Duration = Duration::from_secs(1);
/// A slow policy is measured for so long, and so often at least.
const LONGEST: Duration = Duration::from_secs(5);
const LEAST: usize = 100;
/// Plugins of the broker whose memory is measured.
pub(crate) const PLUGINS: usize = 10;
/// Its leases.
pub(crate) const LEASES: usize = 2_000;
/// How long the broker may settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

/// How long one evaluation takes, a fresh instance included.
#[derive(Debug, Serialize)]
pub(crate) struct Evaluation {
    /// The component.
    pub(crate) policy: String,
    /// What it was configured with.
    pub(crate) config: &'static str,
    /// The median in microseconds.
    pub(crate) p50_us: f64,
    /// The 99th percentile in microseconds.
    pub(crate) p99_us: f64,
    /// The median of one that is remembered, in microseconds; none where the policy reads the time.
    pub(crate) remembered_us: Option<f64>,
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

/// Memory of a broker at rest.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// Resident, in MiB.
    pub(crate) resident: f64,
    /// Of that, not backed by a file: what the broker itself took.
    pub(crate) anonymous: f64,
    /// Of that, mapped from files: program and compiled plugins.
    pub(crate) mapped: f64,
}

/// Evaluates the same request again and again, in this process, through the runtime's facade. A policy
/// that was not built (Cedar, Python and JavaScript need more than the others) is left out with a line.
pub(crate) fn evaluations(folders: &[&Path], count: usize) -> Result<Vec<Evaluation>> {
    let cache = tempfile::tempdir()?;
    let options = RuntimeOptions {
        cache_dir: cache.path().join("cache"),
        limits: Limits::default(),
        max_concurrent_calls: 128,
        remember: true,
        watch: std::sync::Arc::new(LogCompilations),
    };
    let runtime = Runtime::new(options)?;
    let request = request();
    let mut evaluations = Vec::new();
    for Subject { policy, about, config, needed } in subjects() {
        let file = format!("{policy}.wasm");
        let path = folders.iter().map(|folder| folder.join(&file)).find(|path| path.is_file());
        let path = match path {
            Some(path) => path,
            None if needed => anyhow::bail!("{file} is missing"),
            None => {
                eprintln!("without {policy}: there is no {file}");
                continue;
            }
        };
        let spec = PluginSpec { name: policy.to_owned(), path, sha256: None, grants: None };
        let plugin = runtime.load(&spec)?;
        let plugin = plugin.as_policy().context("no policy")?;
        let config = config.to_string();
        plugin.validate(&config)?;
        let remembered_us = remembered(&ConfiguredPolicy::new(plugin.clone(), &config), &request, count);
        let (begun, mut nanoseconds) = (Instant::now(), Vec::new());
        let mut warming = WARM_UP;
        while nanoseconds.len() < count && (nanoseconds.len() < LEAST || begun.elapsed() < LONGEST) {
            let call = Instant::now();
            let verdict = plugin.decide(&config, &request)?;
            let took = call.elapsed().as_nanos();
            anyhow::ensure!(matches!(verdict, Verdict::Allow { .. }), "{policy} denies: {verdict:?}");
            if warming > 0 && begun.elapsed() < WARM_UP_TIME {
                warming -= 1;
            } else {
                warming = 0;
                nanoseconds.push(u32::try_from(took).unwrap_or(u32::MAX));
            }
        }
        nanoseconds.sort_unstable();
        let (p50_us, p99_us) = (quantile(&nanoseconds, 0.5) / 1e3, quantile(&nanoseconds, 0.99) / 1e3);
        evaluations.push(Evaluation { policy: policy.to_owned(), config: about, p50_us, p99_us, remembered_us });
    }
    Ok(evaluations)
}

/// The median in microseconds of a decision that was made before.
fn remembered(policy: &ConfiguredPolicy, request: &PolicyRequest, count: usize) -> Option<f64> {
    let _learned = policy.ask(request);
    let mut nanoseconds = Vec::with_capacity(count);
    for _ in 0..count {
        let call = Instant::now();
        if !policy.ask(request).remembered {
            return None;
        }
        nanoseconds.push(u32::try_from(call.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
    nanoseconds.sort_unstable();
    Some(quantile(&nanoseconds, 0.5) / 1e3)
}

/// The memory of a broker with its plugins and leases, and the milliseconds of its further starts.
pub(crate) async fn memory_and_starts(setting: &Setting<'_>, starts: usize) -> Result<(Memory, Vec<f64>)> {
    let mut broker = Running::start(setting, PLUGINS, 16).await?;
    let mut clients = broker.clients("inventory_db", 16).await?;
    let each = LEASES / clients.len();
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = clients
        .drain(..)
        .map(|mut client| {
            local.spawn_local(async move {
                for _ in 0..each {
                    client.ask().await?;
                }
                Ok::<_, anyhow::Error>(client)
            })
        })
        .collect();
    let clients: Vec<_> = local
        .run_until(async {
            let mut clients = Vec::new();
            for task in tasks {
                clients.push(task.await??);
            }
            Ok::<_, anyhow::Error>(clients)
        })
        .await?;
    tokio::time::sleep(SETTLE).await;
    let pid = broker.pid()?;
    let field = |name| memory_mb(pid, name).with_context(|| format!("no {name} of the broker"));
    let memory = Memory { resident: field("VmRSS:")?, anonymous: field("RssAnon:")?, mapped: field("RssFile:")? };
    drop(clients);
    let mut took = Vec::new();
    for _ in 0..starts {
        broker.stop()?;
        took.push(broker.start_again()?);
    }
    broker.stop()?;
    took.sort_by(f64::total_cmp);
    Ok((memory, took))
}
