//! A new configuration without a restart: plugins, policies, targets, connections and issuers are
//! replaced whole, or not at all.
//!
//! Everything new is loaded and checked first, while the old serves. Then it is put on record, then
//! swapped. Requests in flight finish on what they began with. On any failure the old serves on,
//! with an error, a metric and an audit event.
//!
//! A configuration without the means to remove accounts that are still there (their driver, their
//! connection) is refused, unless it is forced (NO-GHOST).

use std::sync::Arc;

use jiff::Timestamp;
use jit_core::event::{AuditEvent, EventKind};
use jit_runtime::{Runtime, SessionStore};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::broker::Broker;
use crate::compose::{self, Mode};
use crate::config::{Config, ConfigErrors};
use crate::store::{Change, Maker};
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
    /// Leases whose accounts cannot be removed by what is served now. Only where that was forced.
    #[serde(default)]
    pub orphans: Vec<String>,
}

/// A configuration under which accounts could not be removed any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "the new configuration could not remove accounts that are still there:\n{}\nkeep what they need until they have ended, or reload with --force",
    .0.join("\n")
)]
pub struct Orphaned(Vec<String>);

/// Replaces what is served.
pub struct Reloader {
    broker: Arc<Broker>,
    runtime: Arc<Runtime>,
    /// Where connections keep what outlives a restart.
    sessions: Option<Arc<dyn SessionStore>>,
    source: Source,
    mode: Mode,
    /// What is in force. Held through a reload: one after the other.
    current: Mutex<Config>,
}

impl Reloader {
    /// For a broker that serves `current`.
    #[must_use]
    pub fn new(
        broker: Arc<Broker>,
        runtime: Arc<Runtime>,
        sessions: Option<Arc<dyn SessionStore>>,
        source: Source,
        mode: Mode,
        current: Config,
    ) -> Self {
        Self { broker, runtime, sessions, source, mode, current: Mutex::new(current) }
    }

    /// Reads the configuration anew and serves it.
    ///
    /// # Errors
    /// With what is wrong; the old configuration serves on. [`Orphaned`] where only `force` would
    /// put it in force.
    pub async fn reload(&self, force: bool) -> anyhow::Result<Report> {
        let mut current = self.current.lock().await;
        let result = self.replace(&mut current, force).await;
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

    async fn replace(&self, current: &mut Config, force: bool) -> anyhow::Result<Report> {
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
        if self.broker.sealer.is_none() && config.targets.values().any(|target| !target.rotating.is_empty()) {
            return Err(anyhow::anyhow!(
                "a rotating account needs [store] sealing_key, which holds only after a restart"
            ));
        }
        let sessions = self.sessions.clone();
        // Compiles plugins: not on a thread that serves.
        let new = tokio::task::spawn_blocking(move || {
            compose::serving(&for_loading, &runtime, Some(&before), sessions.as_ref())
        })
        .await??;
        let mut report = difference(&old, &new, current, &config);
        let orphans = orphans(&self.broker.store.makers().await?, &new, Some(&old));
        if !orphans.is_empty() && !force {
            return Err(Orphaned(orphans).into());
        }
        for orphan in &orphans {
            tracing::error!(orphan, "forced: these accounts cannot be removed by the broker now");
        }
        report.orphans = orphans;
        self.broker.commit(Change { events: events(&report, &old, &new), ..Change::default() }).await?;
        self.broker.serving.store(Arc::new(new));
        if let Some(identity) = identity {
            self.broker.identity.store(Arc::new(identity));
        }
        *current = config;
        self.broker.wake.removal.notify_one();
        self.broker.wake.rotation.notify_one();
        self.broker.wake.maintain.notify_one();
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
        orphans: Vec::new(),
    }
}

/// One line for each maker of accounts that `new` has not, or would ask at another server than
/// `old` did.
fn orphans(makers: &[Maker], new: &Serving, old: Option<&Serving>) -> Vec<String> {
    let mut lines = Vec::new();
    for Maker { target, driver, leases, last_expiry } in makers {
        let connection = driver.connection.as_ref();
        let kept = connection.map_or_else(String::new, |name| format!(" and [connections.{name}]"));
        let told = format!("{leases} leases of target {target} (the last ends {last_expiry})");
        if let Err(reason) = new.remover(target, driver) {
            lines.push(format!("{told}: {reason}; keep [plugins.{}]{kept}", driver.plugin));
            continue;
        }
        let moved = connection.is_some_and(|name| {
            let before = old.and_then(|old| old.connections.get(name));
            before.zip(new.connections.get(name)).is_some_and(|(before, after)| before.leads_elsewhere(after))
        });
        if moved {
            let name = connection.map_or("", String::as_str);
            lines.push(format!(
                "{told}: the connection {name} leads to another server than the one that has their accounts; \
                 give the new server a connection of its own"
            ));
        }
    }
    lines
}

/// At start there is nothing to go back to: says which accounts this configuration cannot remove.
/// Their removal is tried for as long as it takes.
pub async fn tell_orphans(broker: &Broker) {
    match broker.store.makers().await {
        Ok(makers) => {
            for orphan in orphans(&makers, &broker.serving.load(), None) {
                tracing::error!(orphan, "this configuration cannot remove accounts that are still there");
            }
        }
        Err(error) => tracing::warn!(%error, "whether all accounts can be removed could not be read"),
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
            .with("needs_restart", report.needs_restart.clone())
            .with("orphans", report.orphans.clone()),
    );
    events
}
