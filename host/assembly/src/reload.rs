//! A new configuration without a restart: plugins, policies, targets, connections and issuers are
//! replaced whole, or not at all.
//!
//! A changed file ([`crate::watch`]), SIGHUP and the admin socket lead here. Everything new is loaded and checked first, while the old serves. Then it is put on record, then
//! swapped. Requests in flight finish on what they began with. On any failure the old serves on,
//! with an error, a metric and an audit event: one for each bad state, however often it is looked at.
//!
//! A configuration without the means to remove accounts that are still there (their driver, their
//! connection) is refused, unless it is forced (NO-GHOST).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use jit_api::admin::ReloadReport;
use jit_api::status::ConfigStatus;
use jit_core::event::{AuditEvent, Event, Reloaded};
use jit_runtime::{Plugin, Runtime, SessionStore};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use crate::compose::{self, Mode};
use crate::loaded::{Active, Loaded};
use crate::prepare;
use crate::store;
use crate::tls::Tls;
use crate::watch::contents::Contents;
use jit_config::{Config, ConfigErrors};
use jit_core::operator::Operator;
use jit_ledger::{Change, Maker};
use jit_pipeline::broker::Broker;
use jit_pipeline::places::{Misplaced, Places};
use jit_pipeline::target::Serving;
use jit_pipeline::tasks::driver::Pace;

/// The most mistakes of a refused configuration that are logged, each on its line.
const MOST_TOLD: usize = 50;

/// The times of the tasks that reload: a reload compiles plugins and asks servers.
pub const RELOADS: Pace = Pace {
    deadline: Duration::from_secs(600),
    first_backoff: Duration::from_secs(1),
    last_backoff: Duration::from_secs(60),
};

/// Where the configuration is read anew.
pub type Source = Box<dyn Fn() -> Result<Config, ConfigErrors> + Send + Sync>;

/// What made the broker read its configuration anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A file that decides what is served has changed.
    File,
    /// SIGHUP.
    Signal,
    /// An operator, through the admin socket.
    Admin(Operator),
}

impl Trigger {
    /// Its word in the audit log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Signal => "signal",
            Self::Admin(_) => "admin",
        }
    }
}

/// A configuration under which accounts could not be removed any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "the new configuration could not remove accounts that are still there:\n{}\nkeep what they need until they have ended, or reload with --force",
    .0.join("\n")
)]
pub struct Orphaned(Vec<String>);

/// What loads plugins and opens connections, and what they are now.
pub struct Loader {
    /// The plugins and connections that serve; swapped whole.
    pub loaded: Arc<ArcSwap<Loaded>>,
    /// What loads plugins.
    pub runtime: Arc<Runtime>,
    /// Where connections keep what outlives a restart.
    pub sessions: Option<Arc<dyn SessionStore>>,
}

/// Replaces what is served.
pub struct Reloader {
    broker: Arc<Broker>,
    loader: Loader,
    source: Source,
    mode: Mode,
    /// The listener's certificate, which is read again at each reload.
    tls: Option<Arc<Tls>>,
    /// What is in force. Held through a reload: one after the other.
    current: Mutex<Current>,
    /// The same for operators, who do not wait for a reload.
    status: ArcSwap<ConfigStatus>,
    store_kind: &'static str,
}

/// What is in force, and what was looked at last.
struct Current {
    config: Config,
    /// The files as they were just before they were read last.
    read: Contents,
    /// What was recorded of the last reading, when it was refused.
    refused: Option<String>,
}

impl Reloader {
    /// For a broker that serves `config`, which was read after its files had these contents.
    #[must_use]
    pub fn new(
        broker: Arc<Broker>,
        loader: Loader,
        source: Source,
        mode: Mode,
        config: Config,
        read: Contents,
    ) -> Self {
        let status = ArcSwap::from_pointee(in_force(&config, &read, "start"));
        let store_kind = store::kind(&config.store);
        let current = Mutex::new(Current { config, read, refused: None });
        Self { broker, loader, source, mode, tls: None, current, status, store_kind }
    }

    /// Reads also the listener's certificate again at each reload, whatever becomes of the configuration.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..self }
    }

    /// Which configuration serves, and why another one does not.
    #[must_use]
    pub fn status(&self) -> ConfigStatus {
        ConfigStatus::clone(&self.status.load())
    }

    /// The word for the kind of store.
    #[must_use]
    pub fn store_kind(&self) -> &'static str {
        self.store_kind
    }

    /// The plugins and connections that serve now.
    #[must_use]
    pub fn loaded(&self) -> Arc<Loaded> {
        self.loader.loaded.load_full()
    }

    /// Reads the configuration anew and serves it.
    ///
    /// # Errors
    /// With what is wrong; the old configuration serves on. [`Orphaned`] where only `force` would
    /// put it in force.
    pub async fn reload(&self, trigger: Trigger, force: bool) -> anyhow::Result<ReloadReport> {
        let mut current = self.current.lock().await;
        let contents = Contents::of(current.read.files()).await;
        self.read_anew(&mut current, contents, trigger, force).await
    }

    /// As [`Self::reload`], when a file is not as it was when it was read last; gives whether one was.
    /// `again` also reads what was refused before: it may have been refused for what is in no file.
    /// What comes of it is logged and on record.
    pub async fn reload_changed(&self, again: bool) -> bool {
        let mut current = self.current.lock().await;
        let contents = Contents::of(current.read.files()).await;
        let changed = contents != current.read;
        if changed || (again && current.refused.is_some()) {
            drop(self.read_anew(&mut current, contents, Trigger::File, false).await);
        }
        changed
    }

    /// The files whose content decides what is served, those of a refused configuration included.
    pub async fn files(&self) -> BTreeSet<PathBuf> {
        self.current.lock().await.read.files()
    }

    /// Whether the files as they are now are not what serves.
    pub async fn is_refused(&self) -> bool {
        self.current.lock().await.refused.is_some()
    }

    /// `contents` must have been looked at before: what changes after that is found by the next look.
    async fn read_anew(
        &self,
        current: &mut Current,
        contents: Contents,
        trigger: Trigger,
        force: bool,
    ) -> anyhow::Result<ReloadReport> {
        if let Some(tls) = &self.tls {
            tls.reload().await;
        }
        let before = std::mem::replace(&mut current.read, contents);
        let config = (self.source)();
        if let Ok(config) = &config {
            let mut files = config.served_files();
            files.extend(current.config.served_files());
            current.read.follow(files).await;
        }
        let result = match config {
            Ok(config) => self.replace(current, config, trigger, force).await,
            Err(problems) => Err(problems.into()),
        };
        match &result {
            Ok(report) => {
                count("done");
                let names = |names: &[String]| names.join(", ");
                tracing::info!(
                    trigger = trigger.as_str(),
                    loaded = names(&report.loaded),
                    unloaded = names(&report.unloaded),
                    targets_added = names(&report.targets_added),
                    targets_removed = names(&report.targets_removed),
                    changed = names(&report.changed),
                    needs_restart = names(&report.needs_restart),
                    orphans = report.orphans.len(),
                    "the configuration was reloaded"
                );
                current.refused = None;
                self.status.store(Arc::new(in_force(&current.config, &current.read, trigger.as_str())));
                let files = current.config.served_files();
                current.read.follow(files).await;
            }
            Err(error) => {
                let told = what_is_bad(error);
                let known = current.read == before && current.refused.as_ref() == Some(&told);
                if known && trigger == Trigger::File {
                    tracing::debug!("the new configuration is still refused");
                } else {
                    count("refused");
                    tracing::error!(
                        error = format!("{error:#}"),
                        trigger = trigger.as_str(),
                        "the new configuration is refused; the old one stays in force"
                    );
                    tell_mistakes(error);
                }
                let status = ConfigStatus { refused: Some(in_short(error)), ..self.status() };
                self.status.store(Arc::new(status));
                current.refused = Some(told);
                if !known {
                    self.record_refusal(error, trigger).await;
                }
            }
        }
        result
    }

    async fn record_refusal(&self, error: &anyhow::Error, trigger: Trigger) {
        let events = compose::rejections(error, trigger.as_str());
        if let Err(error) = self.broker.ledger.commit(Change::events(events)).await {
            tracing::error!(%error, "the refusal could not be recorded");
        }
    }

    async fn replace(
        &self,
        current: &mut Current,
        config: Config,
        trigger: Trigger,
        force: bool,
    ) -> anyhow::Result<ReloadReport> {
        prepare::files(&config, self.mode)?;
        let old = Active { serving: self.broker.serving.load_full(), loaded: self.loaded() };
        let identity = if config.identity == current.config.identity {
            // Its keys stay known, also while an issuer is away.
            None
        } else {
            Some(compose::identity(&config, self.mode)?)
        };
        let (runtime, for_loading, before) =
            (Arc::clone(&self.loader.runtime), config.clone(), Arc::clone(&old.loaded));
        if !self.broker.rotation.has_key() && config.targets.values().any(|target| !target.rotating.is_empty()) {
            return Err(anyhow::anyhow!(
                "a rotating account needs [store] sealing_key, which holds only after a restart"
            ));
        }
        let sessions = self.loader.sessions.clone();
        // Compiles plugins: not on a thread that serves.
        let new = tokio::task::spawn_blocking(move || {
            compose::serving(&for_loading, &runtime, Some(&before), sessions.as_ref())
        })
        .await??;
        let mut report = difference(&old, &new, &current.config, &config);
        let makers = self.broker.store.makers().await?;
        let orphans = orphans(&self.broker.places, &makers, &new, Some(&old)).await;
        if !orphans.is_empty() && !force {
            return Err(Orphaned(orphans).into());
        }
        for orphan in &orphans {
            tracing::error!(orphan, "forced: these accounts cannot be removed by the broker now");
        }
        report.orphans = orphans;
        self.broker.ledger.commit(Change::events(events(&report, trigger, &old.loaded, &new.loaded))).await?;
        self.loader.loaded.store(new.loaded);
        self.broker.serving.store(new.serving);
        self.broker.ready.forget();
        if let Some(identity) = identity {
            self.broker.identity.store(Arc::new(identity));
        }
        current.config = config;
        self.broker.wake.removal.notify_one();
        self.broker.wake.rotation.notify_one();
        self.broker.wake.maintain.notify_one();
        Ok(report)
    }
}

/// One line for each mistake: with the file watch nobody else reads them.
fn tell_mistakes(error: &anyhow::Error) {
    let Some(problems) = error.downcast_ref::<ConfigErrors>() else { return };
    for problem in problems.problems().iter().take(MOST_TOLD) {
        problem.log();
    }
    if let Some(more) = problems.problems().len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
        tracing::error!(more, "there are more mistakes: `jit-broker config check` lists them");
    }
}

/// The digest of what all brokers of a store should have alike: the configuration but for what belongs to one process,
/// and the plugins' bytes.
fn shared(config: &Config, read: &Contents) -> String {
    let mut digest = Sha256::new();
    digest.update(config.shared_sha256());
    for (name, plugin) in &config.plugins {
        digest.update(format!("\n{name} {}", read.sha256(&plugin.path).unwrap_or_default()));
    }
    hex::encode(digest.finalize())
}

/// What serves from now on.
fn in_force(config: &Config, read: &Contents, trigger: &str) -> ConfigStatus {
    ConfigStatus {
        path: Some(config.file().display().to_string()),
        loaded_at: Timestamp::now(),
        trigger: trigger.to_owned(),
        sha256: read.sha256(config.file()),
        shared_sha256: Some(shared(config, read)),
        refused: None,
    }
}

/// The first mistake in one line, for a table; the log has all of them.
fn in_short(error: &anyhow::Error) -> String {
    const MAX: usize = 300;
    let text = match error.downcast_ref::<ConfigErrors>().and_then(|problems| problems.problems().first()) {
        Some(problem) => problem.to_string(),
        None => format!("{error:#}"),
    };
    text.lines().next().unwrap_or_default().chars().take(MAX).collect()
}

/// The same for the same bad state: how many accounts would be orphaned changes by itself.
fn what_is_bad(error: &anyhow::Error) -> String {
    match error.downcast_ref::<ConfigErrors>() {
        Some(problems) => problems.render(false),
        None if error.is::<Orphaned>() => "orphans".to_owned(),
        None => format!("{error:#}"),
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("jit_reload_total", "outcome" => outcome).increment(1);
}

fn difference(old: &Active, new: &Active, before: &Config, after: &Config) -> ReloadReport {
    // Another digest, other grants, or somebody else who vouches for it.
    let changed =
        |(name, plugin): &(&String, &Plugin)| !old.loaded.plugins.get(*name).is_some_and(|old| old.is_same(plugin));
    let names = |serving: &Serving| serving.targets.keys().map(ToString::to_string).collect::<Vec<_>>();
    let (had, has) = (names(&old.serving), names(&new.serving));
    let mut needs_restart = Vec::new();
    for (section, changed) in [
        ("[server]", before.server != after.server || before.account_prefix != after.account_prefix),
        ("[store]", before.store != after.store),
        ("[audit]", before.audit != after.audit),
        ("[limits]", before.limits != after.limits),
        ("[runtime]", before.plugin_limits != after.plugin_limits),
        (
            "[reconcile]",
            before.reconcile_interval != after.reconcile_interval || before.reconcile_bound != after.reconcile_bound,
        ),
        ("[log]", before.log_format != after.log_format),
        ("[traces]", before.traces != after.traces),
    ] {
        if changed {
            needs_restart.push(section.to_owned());
        }
    }
    ReloadReport {
        loaded: new.loaded.plugins.iter().filter(changed).map(|(name, _)| name.clone()).collect(),
        unloaded: old.loaded.plugins.keys().filter(|name| !new.loaded.plugins.contains_key(*name)).cloned().collect(),
        targets_added: has.iter().filter(|name| !had.contains(name)).cloned().collect(),
        targets_removed: had.iter().filter(|name| !has.contains(name)).cloned().collect(),
        changed: changed_sections(before, after),
        needs_restart,
        orphans: Vec::new(),
    }
}

/// The sections beside the plugins that are not what they were. Of targets those that stay: new ones and those that
/// are gone can be told apart.
fn changed_sections(before: &Config, after: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    if before.identity != after.identity {
        changed.push("identity".to_owned());
    }
    if before.signing != after.signing {
        changed.push("plugins".to_owned());
    }
    changed.extend(entries("connections", &before.connections, &after.connections));
    changed.extend(entries("policies", &before.policies, &after.policies));
    changed.extend(entries("contexts", &before.contexts, &after.contexts));
    let targets =
        after.targets.iter().filter(|(name, target)| before.targets.get(*name).is_some_and(|before| before != *target));
    changed.extend(targets.map(|(name, _)| format!("targets.{name}")));
    changed
}

/// What became of the entries of a section, by name.
fn entries<T: PartialEq>(
    section: &str,
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
) -> impl Iterator<Item = String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let told = names.into_iter().filter_map(move |name| match (before.get(name), after.get(name)) {
        (Some(before), Some(after)) if before == after => None,
        (Some(_), Some(_)) => Some(format!("{section}.{name}")),
        (None, _) => Some(format!("{section}.{name} (new)")),
        (Some(_), None) => Some(format!("{section}.{name} (gone)")),
    });
    told.collect::<Vec<_>>().into_iter()
}

/// One line for each maker of accounts that `new` has not, or would ask in another place than the one that
/// has the accounts: by what the servers say, and where they say nothing now, by what the connection was in `old`.
async fn orphans(places: &Places, makers: &[Maker], new: &Active, old: Option<&Active>) -> Vec<String> {
    let mut lines = Vec::new();
    for Maker { target, driver, leases, last_expiry } in makers {
        let connection = driver.connection.as_ref();
        let kept = connection.map_or_else(String::new, |name| format!(" and [connections.{name}]"));
        let told = format!("{leases} leases of target {target} (the last ends {last_expiry})");
        let remover = match new.serving.remover(target, driver) {
            Ok(remover) => remover,
            Err(reason) => {
                lines.push(format!("{told}: {reason}; keep [plugins.{}]{kept}", driver.plugin));
                continue;
            }
        };
        let name = connection.map_or("", String::as_str);
        match places.check_removal(driver, &remover).await {
            Ok(()) if driver.place.is_some() => continue,
            Err(Misplaced::Elsewhere(elsewhere)) => {
                lines.push(format!(
                    "{told}: {elsewhere}; give the new server a connection of its own, or, where it has taken over the \
                     accounts, name the former one in [connections.{name}] replaces"
                ));
                continue;
            }
            Ok(()) | Err(Misplaced::NotTold(_)) => {}
        }
        let moved = connection.is_some_and(|name| {
            let before = old.and_then(|old| old.loaded.connections.get(name));
            before.zip(new.loaded.connections.get(name)).is_some_and(|(before, after)| before.leads_elsewhere(after))
        });
        let recorded = driver.place.as_ref().and_then(|place| place.address.as_ref());
        let another = recorded.is_some_and(|recorded| remover.site.address.as_ref() != Some(recorded));
        if moved || another {
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
pub async fn tell_orphans(broker: Arc<Broker>, loaded: Arc<Loaded>) {
    match broker.store.makers().await {
        Ok(makers) => {
            let active = Active { serving: broker.serving.load_full(), loaded };
            for orphan in orphans(&broker.places, &makers, &active, None).await {
                tracing::error!(orphan, "this configuration cannot remove accounts that are still there");
            }
        }
        Err(error) => tracing::warn!(%error, "whether all accounts can be removed could not be read"),
    }
}

fn events(report: &ReloadReport, trigger: Trigger, old: &Loaded, new: &Loaded) -> Vec<AuditEvent> {
    let now = Timestamp::now();
    let loaded = report.loaded.iter().filter_map(|name| new.plugins.get(name));
    let unloaded = report.unloaded.iter().filter_map(|name| old.plugins.get(name));
    let loaded = loaded.map(|plugin| Event::PluginLoaded(compose::served(plugin)));
    let unloaded = unloaded.map(|plugin| Event::PluginUnloaded(compose::served(plugin)));
    let reloaded = Event::ConfigReloaded(Reloaded {
        trigger: trigger.as_str(),
        targets_added: report.targets_added.clone(),
        targets_removed: report.targets_removed.clone(),
        needs_restart: report.needs_restart.clone(),
        orphans: report.orphans.clone(),
    });
    let operator = match trigger {
        Trigger::Admin(operator) => Some(operator),
        _ => None,
    };
    let events = loaded.chain(unloaded).chain([reloaded]);
    events.map(|event| AuditEvent { operator, ..AuditEvent::new(event, now) }).collect()
}
