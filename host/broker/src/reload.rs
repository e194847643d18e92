//! A new configuration without a restart: plugins, policies, targets, connections and issuers are
//! replaced whole, or not at all.
//!
//! Everything new is loaded and checked first, while the old serves. Then it is put on record, then
//! swapped. Requests in flight finish on what they began with. On any failure the old serves on,
//! with an error, a metric and an audit event.

use std::sync::Arc;

use jiff::Timestamp;
use jit_core::event::{AuditEvent, EventKind};
use jit_runtime::Runtime;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::broker::Broker;
use crate::compose::{self, Mode};
use crate::config::{Config, ConfigErrors};
use crate::store::Change;
use crate::target::Serving;

/// Where the configuration is read anew.
pub type Source = Box<dyn Fn() -> Result<Config, ConfigErrors> + Send + Sync>;

/// What a reload changed.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Plugins that are new or have another digest.
    pub loaded: Vec<String>,
    /// Plugins that serve no longer.
    pub unloaded: Vec<String>,
    /// Targets that are new.
    pub targets_added: Vec<String>,
    /// Targets that are gone; leases there are still removed as long as driver and connection are
    /// configured.
    pub targets_removed: Vec<String>,
    /// Sections that changed and hold only after a restart.
    pub needs_restart: Vec<String>,
}

/// Replaces what is served.
pub struct Reloader {
    broker: Arc<Broker>,
    runtime: Arc<Runtime>,
    source: Source,
    mode: Mode,
    /// What is in force. Held through a reload: one after the other.
    current: Mutex<Config>,
}

impl Reloader {
    /// For a broker that serves `current`.
    #[must_use]
    pub fn new(broker: Arc<Broker>, runtime: Arc<Runtime>, source: Source, mode: Mode, current: Config) -> Self {
        Self { broker, runtime, source, mode, current: Mutex::new(current) }
    }

    /// Reads the configuration anew and serves it.
    ///
    /// # Errors
    /// With what is wrong; the old configuration serves on.
    pub async fn reload(&self) -> anyhow::Result<Report> {
        let mut current = self.current.lock().await;
        let result = self.replace(&mut current).await;
        let outcome = if result.is_ok() { "done" } else { "refused" };
        metrics::counter!("jit_reload_total", "outcome" => outcome).increment(1);
        match &result {
            Ok(report) => tracing::info!(?report, "the configuration was reloaded"),
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the new configuration is refused; the old one serves on"
                );
                let text = match error.downcast_ref::<ConfigErrors>() {
                    Some(problems) => problems.problems().first().map_or_else(String::new, |first| first.plain()),
                    None => format!("{error:#}"),
                };
                let event = AuditEvent::new(EventKind::PluginRejected, Timestamp::now()).with_error(text.trim());
                if let Err(error) = self.broker.commit(Change { events: vec![event], ..Change::default() }).await {
                    tracing::error!(%error, "the refusal could not be recorded");
                }
            }
        }
        result
    }

    async fn replace(&self, current: &mut Config) -> anyhow::Result<Report> {
        let config = (self.source)()?;
        if !self.mode.dev {
            config.check_files()?;
        }
        let old = self.broker.serving.load_full();
        let identity = if config.identity == current.identity {
            // Its keys stay known, also while an issuer is away.
            None
        } else {
            Some(compose::identity(&config, self.mode)?)
        };
        let (runtime, for_loading, before) = (Arc::clone(&self.runtime), config.clone(), Arc::clone(&old));
        // Compiles plugins: not on a thread that serves.
        let new =
            tokio::task::spawn_blocking(move || compose::serving(&for_loading, &runtime, Some(&before))).await??;
        let report = difference(&old, &new, current, &config);
        self.broker.commit(Change { events: events(&report, &old, &new), ..Change::default() }).await?;
        self.broker.serving.store(Arc::new(new));
        if let Some(identity) = identity {
            self.broker.identity.store(Arc::new(identity));
        }
        *current = config;
        self.broker.wake.removal.notify_one();
        Ok(report)
    }
}

fn difference(old: &Serving, new: &Serving, before: &Config, after: &Config) -> Report {
    let digest = |serving: &Serving, name: &str| serving.plugins.get(name).map(|plugin| plugin.sha256().to_owned());
    let names = |serving: &Serving| serving.targets.keys().map(ToString::to_string).collect::<Vec<_>>();
    let (had, has) = (names(old), names(new));
    let mut needs_restart = Vec::new();
    for (section, changed) in [
        ("[server]", before.server != after.server || before.account_prefix != after.account_prefix),
        ("[store]", before.store != after.store),
        ("[audit]", before.audit != after.audit),
        ("[limits]", before.limits != after.limits),
        ("[runtime]", before.plugin_limits != after.plugin_limits),
        ("[reconcile]", before.reconcile_interval != after.reconcile_interval),
        ("[log]", before.log_format != after.log_format),
    ] {
        if changed {
            needs_restart.push(section.to_owned());
        }
    }
    Report {
        loaded: new.plugins.keys().filter(|name| digest(old, name) != digest(new, name)).cloned().collect(),
        unloaded: old.plugins.keys().filter(|name| !new.plugins.contains_key(*name)).cloned().collect(),
        targets_added: has.iter().filter(|name| !had.contains(name)).cloned().collect(),
        targets_removed: had.iter().filter(|name| !has.contains(name)).cloned().collect(),
        needs_restart,
    }
}

fn events(report: &Report, old: &Serving, new: &Serving) -> Vec<AuditEvent> {
    let now = Timestamp::now();
    let loaded = report.loaded.iter().filter_map(|name| new.plugins.get(name));
    let unloaded = report.unloaded.iter().filter_map(|name| old.plugins.get(name));
    let mut events: Vec<AuditEvent> = loaded
        .map(|plugin| compose::plugin_event(EventKind::PluginLoaded, plugin))
        .chain(unloaded.map(|plugin| compose::plugin_event(EventKind::PluginUnloaded, plugin)))
        .collect();
    let done = AuditEvent::new(EventKind::ConfigReloaded, now);
    events.push(
        done.with("targets_added", report.targets_added.clone())
            .with("targets_removed", report.targets_removed.clone())
            .with("needs_restart", report.needs_restart.clone()),
    );
    events
}
