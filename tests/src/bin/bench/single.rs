//! Figures that need no load: one policy evaluation, memory at rest, the start.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jit_core::policy::{Operation, PolicyRequest, Verdict};
use jit_runtime::{Limits, PluginSpec, Runtime, RuntimeOptions};
use serde::Serialize;

use crate::broker::{Running, Setting, rules};
use crate::load::{Asks as _, quantile};
use crate::machine::memory_mb;

/// Evaluations before any is measured.
const WARM_UP: usize = 1_000;
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
    pub(crate) policy: &'static str,
    /// What it was configured with.
    pub(crate) config: &'static str,
    /// The median in microseconds.
    pub(crate) p50_us: f64,
    /// The 99th percentile in microseconds.
    pub(crate) p99_us: f64,
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

/// Evaluates the same request again and again, in this process, through the runtime's facade.
pub(crate) fn evaluations(plugins: &Path, count: usize) -> Result<Vec<Evaluation>> {
    let cache = tempfile::tempdir()?;
    let options =
        RuntimeOptions { cache_dir: cache.path().join("cache"), limits: Limits::default(), max_concurrent_calls: 128 };
    let runtime = Runtime::new(options)?;
    let request = PolicyRequest {
        operation: Operation::Issue,
        time: 1_795_000_000,
        workload: "payment-7".to_owned(),
        issuer: "dev".to_owned(),
        attributes: [("env", "prod"), ("k8s_namespace", "shop"), ("k8s_pod", "payment-7-5d9c7b6f4-x2x9q")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        target: "inventory_db".to_owned(),
        role: "app_read_only".to_owned(),
        ttl_seconds: 1_800,
        reason: Some("nightly export".to_owned()),
        ticket: None,
        metadata: BTreeMap::new(),
        facts: BTreeMap::new(),
    };
    let list = rules().to_string();
    let subjects =
        [("policy-allow-list", "20 rules, the last fits", list.as_str()), ("policy-allow", "nothing: the floor", "{}")];
    let mut evaluations = Vec::new();
    for (policy, about, config) in subjects {
        let spec = PluginSpec {
            name: policy.to_owned(),
            path: plugins.join(format!("{policy}.wasm")),
            sha256: None,
            grants: None,
        };
        let plugin = runtime.load(&spec)?;
        let plugin = plugin.as_policy().context("no policy")?;
        let mut nanoseconds = Vec::new();
        for number in 0..WARM_UP + count {
            let begun = Instant::now();
            let verdict = plugin.decide(config, &request)?;
            let took = begun.elapsed().as_nanos();
            anyhow::ensure!(matches!(verdict, Verdict::Allow { .. }), "{policy} denies: {verdict:?}");
            if number >= WARM_UP {
                nanoseconds.push(u32::try_from(took).unwrap_or(u32::MAX));
            }
        }
        nanoseconds.sort_unstable();
        let (p50_us, p99_us) = (quantile(&nanoseconds, 0.5) / 1e3, quantile(&nanoseconds, 0.99) / 1e3);
        evaluations.push(Evaluation { policy, config: about, p50_us, p99_us });
    }
    Ok(evaluations)
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
