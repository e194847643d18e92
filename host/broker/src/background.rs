//! The background tasks of a broker that serves: which there are, and those that are about this process rather than
//! about leases.
//!
//! What is not here and runs beside the requests nevertheless: the fetch of an issuer's keys (`jit-identity`) and the
//! write of a connection's kept login (`jit-runtime`). Each is begun by the request that needs it, ends with its own
//! deadline, and its failure is that request's. Passwords are made ahead on a thread of its own priority
//! (`pipeline/ready.rs`); where it fails, requests make their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jit_assembly::reload::{RELOADS, Reloader, Trigger};
use jit_assembly::watch::Watching;
use jit_assembly::way_in::WayIn;
use jit_config::{Config, Export};
use jit_core::name::TargetName;
use jit_ledger::audit::export::JsonlOptions;
use jit_pipeline::broker::Broker;
use jit_pipeline::reach::Reach;
use jit_pipeline::target_check::{self, Wrong};
use jit_pipeline::tasks;
use jit_pipeline::tasks::driver::{Driver, Next, Pace, Pass, Task};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::Signal;
use tokio::time::Instant;

/// What the tasks work with beside the broker.
pub(crate) struct Parts<'p> {
    /// The configuration that serves.
    pub(crate) config: &'p Config,
    /// Whether the start had to recover leases.
    pub(crate) recovered: bool,
    /// The metrics' recorder.
    pub(crate) metrics: PrometheusHandle,
    /// What reads the configuration again.
    pub(crate) reloader: Arc<Reloader>,
    /// SIGHUP.
    pub(crate) hangup: Signal,
}

/// Starts every task.
pub(crate) fn start(broker: &Arc<Broker>, parts: Parts<'_>) -> Driver {
    let Parts { config, recovered, metrics, reloader, hangup } = parts;
    broker.ready.start();
    let mut driver = Driver::new(Arc::clone(&broker.board), broker.work.stopping.clone());
    driver.start(tasks::removal::Removal::new(Arc::clone(&broker.sweep)));
    let interval = config.reconcile_interval;
    driver.start(tasks::reconcile::Reconciliation::new(Arc::clone(&broker.reconcile), interval, recovered));
    driver.start(tasks::maintain::Upkeep::new(broker.upkeep()));
    driver.start(WayIn::new(Arc::clone(&reloader)));
    driver.start(tasks::rotation::RotationTask::new(broker.operate.clone(), broker.beside()));
    driver.start(tasks::housekeeping::Housekeeping::new(Arc::clone(&broker.housekeeping), config.store.keep_revoked));
    let exports = config.audit.export.iter().zip(&broker.exported);
    for (number, (Export::Jsonl { path }, exported)) in (1..).zip(exports) {
        let (store, options) = (Arc::clone(&broker.store), JsonlOptions::new(path.clone()));
        driver.start(tasks::export::Export::new(number, store, options, Arc::clone(exported)));
    }
    let served = Arc::clone(&reloader);
    let digest = Arc::new(move || served.status().shared_sha256);
    if let Some(peers) = tasks::peers::PeersTask::new(broker.peers(), digest) {
        driver.start(peers);
    }
    if let Some(archive) = tasks::archive::Archive::new(Arc::clone(&broker.archive)) {
        driver.start(archive);
    }
    driver.start(MetricsUpkeep { metrics });
    let (next, reach) = (tokio::time::Instant::now(), Arc::clone(&broker.serving.load().reach));
    driver.start(TargetCheck { broker: Arc::clone(broker), reach, every: interval, next, before: HashMap::new() });
    driver.start(IssuerKeys { broker: Arc::clone(broker) });
    driver.start(ReloadOnSignal { hangup, reloader: Arc::clone(&reloader), wanted: false });
    if config.server.watch {
        driver.start(Watching::new(reloader));
    }
    driver
}

/// Drains what the histograms have gathered.
struct MetricsUpkeep {
    metrics: PrometheusHandle,
}

#[async_trait]
impl Task for MetricsUpkeep {
    fn name(&self) -> &str {
        "metrics"
    }

    async fn pass(&mut self) -> Pass {
        self.metrics.run_upkeep();
        Pass::done([], Next::In(Duration::from_secs(5)))
    }
}

/// Fetches the issuers' keys before the first caller needs them, and then so often that a withdrawn key
/// does not stay good for want of a caller.
struct IssuerKeys {
    broker: Arc<Broker>,
}

/// How often issuers are asked for their keys again, where these have come of age.
const KEYS_PACE: Duration = Duration::from_secs(30);

#[async_trait]
impl Task for IssuerKeys {
    fn name(&self) -> &str {
        "issuer-keys"
    }

    /// Only asks for it: each issuer's keys are fetched by a task of their own, with its own deadline and backoff,
    /// which requests wait for as well. An issuer that is away is told of there.
    async fn pass(&mut self) -> Pass {
        self.broker.identity.load().refresh();
        Pass::done([], Next::Every(KEYS_PACE))
    }
}

/// Asks the targets, beside the serving, whether their configuration holds: at the start, and then as often as
/// accounts are compared. What a role leads to can change in the target at any time. A target that is away is asked
/// more often, so that the status does not say so for longer than it is true.
struct TargetCheck {
    broker: Arc<Broker>,
    reach: Arc<Reach>,
    every: Duration,
    /// When all are asked again.
    next: Instant,
    before: HashMap<String, Result<(), Wrong>>,
}

/// How often a target is asked that is away.
const ASK_AWAY: Duration = Duration::from_secs(5);

impl TargetCheck {
    /// Logs what is new, and keeps it.
    fn note(&mut self, target: String, result: Result<(), Wrong>) {
        let wrong = matches!(result, Err(Wrong::Configuration(_)));
        metrics::gauge!("jit_target_wrong", "target" => target.clone()).set(f64::from(u8::from(wrong)));
        // The same answer is not logged again. `Reach` logs that a target is away.
        if self.before.get(&target) != Some(&result) {
            match &result {
                Ok(()) => tracing::info!(target, "target checked"),
                Err(Wrong::Connection(_)) => {}
                Err(reason) => tracing::error!(
                    target,
                    %reason,
                    "the target's configuration is wrong; `jit-broker config check` says more"
                ),
            }
        }
        self.before.insert(target, result);
    }
}

#[async_trait]
impl Task for TargetCheck {
    fn name(&self) -> &str {
        "target-check"
    }

    fn pace(&self) -> Pace {
        // One target after another, each with its own deadline. One that is away is back long before the next period.
        Pace {
            deadline: Duration::from_secs(900),
            first_backoff: self.every.min(Duration::from_secs(30)),
            last_backoff: self.every.min(Duration::from_secs(300)),
        }
    }

    async fn pass(&mut self) -> Pass {
        let serving = self.broker.serving.load_full();
        let all = Instant::now() >= self.next;
        let is_due = |name: &TargetName| {
            self.reach.is_missed(name) || self.before.get(name.as_str()).is_some_and(Result::is_err)
        };
        let checked = target_check::check_some(&serving, |target| all || is_due(&target.name)).await;
        if all {
            self.next = Instant::now() + self.every;
        }
        for (target, result) in checked {
            self.note(target, result);
        }
        self.before.retain(|target, _| serving.targets.keys().any(|name| name.as_str() == target));
        let (away, wrong): (Vec<_>, Vec<_>) = self
            .before
            .iter()
            .filter_map(|(target, result)| Some((target.as_str(), result.as_ref().err()?)))
            .partition(|(_, wrong)| matches!(wrong, Wrong::Connection(_)));
        let asks_away = !away.is_empty() || serving.targets.keys().any(|target| self.reach.is_missed(target));
        if !wrong.is_empty() {
            let mut names: Vec<&str> = wrong.iter().map(|(target, _)| *target).collect();
            names.sort_unstable();
            let why = format!("wrong: {}", names.join(", "));
            return if asks_away { Pass::failed_until(why, Next::In(ASK_AWAY)) } else { Pass::failed(why) };
        }
        let rest = self.next.saturating_duration_since(Instant::now());
        let next = if asks_away { Next::In(ASK_AWAY) } else { Next::Every(rest) };
        Pass::done([("targets", (self.before.len() - away.len()) as u64), ("away", away.len() as u64)], next)
    }

    async fn woken(&mut self) {
        self.reach.first_miss().await;
    }
}

/// SIGHUP reads the configuration anew. What comes of it is logged and on record.
struct ReloadOnSignal {
    hangup: Signal,
    reloader: Arc<Reloader>,
    /// A signal has come. The first pass of all has none.
    wanted: bool,
}

#[async_trait]
impl Task for ReloadOnSignal {
    fn name(&self) -> &str {
        "reload-on-signal"
    }

    fn pace(&self) -> Pace {
        RELOADS
    }

    async fn pass(&mut self) -> Pass {
        if !std::mem::take(&mut self.wanted) {
            return Pass::done([], Next::WhenWoken);
        }
        // That a configuration is refused is shown as the configuration's state, until one serves, whoever reads it.
        let refused = self.reloader.reload(Trigger::Signal, false).await.is_err();
        Pass::done([("refused", u64::from(refused))], Next::WhenWoken)
    }

    async fn woken(&mut self) {
        if self.hangup.recv().await.is_none() {
            std::future::pending().await
        }
        self.wanted = true;
    }
}
