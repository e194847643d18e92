//! Puts the broker together from a configuration, in the order in which a request passes:
//! identity, plugins, connections, targets, store. Nothing else constructs these.

use crate::connection::Connected;
use crate::loaded::Active;
use crate::loaded::Loaded;
use crate::prepare::Prepared;
use crate::rotation_setup;
use crate::session_store;
use crate::store;
use crate::targets::resolve;
use anyhow::Context as _;
use anyhow::anyhow;
use arc_swap::ArcSwap;
use jit_config::Config;
use jit_config::ConfigErrors;
use jit_config::RejectedPlugin;
use jit_core::causes::with_causes;
use jit_core::driver::Feature;
use jit_core::event::AuditEvent;
use jit_core::event::Event;
use jit_core::event::PluginRejected;
use jit_core::event::PluginServed;
use jit_core::event::Process;
use jit_identity::Identity;
use jit_identity::IdentityOptions;
use jit_identity::JwtIssuer;
use jit_identity::Method;
use jit_ledger::Change;
use jit_ledger::Store;
use jit_ledger::audit;
use jit_pipeline::birth::{self, Marking};
use jit_pipeline::broker::{Broker, Parts};
use jit_pipeline::denials::DenialBudget;
use jit_pipeline::ledger::COMMIT_DEADLINE;
use jit_pipeline::limits::RateLimits;
use jit_pipeline::ports::Clock as _;
use jit_pipeline::ports::Drivers;
use jit_pipeline::ports::SystemClock;
use jit_pipeline::space::Space;
use jit_pipeline::target::Serving;
use jit_pipeline::tasks::archive::Archiving;
use jit_runtime::Connection;
use jit_runtime::Grant;
use jit_runtime::Limits;
use jit_runtime::Plugin;
use jit_runtime::PluginSpec;
use jit_runtime::Runtime;
use jit_runtime::SessionStore;
use jit_runtime::Terms;
use jit_runtime::{CacheError, CompileWatch, RuntimeError, RuntimeOptions, Snapshots};
use jit_tlog::checkpoint::LogKey;
use jit_tlog::checkpoint::Origin;
use secrecy::ExposeSecret as _;
use sha2::Digest as _;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// Driver calls at once, unless configured. Each may hold one instance with its memory.
const DRIVER_CALLS: usize = 128;

/// How `serve` and `dev` differ.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mode {
    /// Accept issuers over plain HTTP on loopback, and make an audit key where there is none.
    pub dev: bool,
    /// Ask the policies each time, also what they have decided already.
    pub no_memory: bool,
    /// When snapshots of prepared policies and context providers are taken.
    pub snapshots: Snapshots,
}

/// The broker and its store, which has to be closed in the end.
pub struct Composed {
    /// The pipeline's state.
    pub broker: Arc<Broker>,
    /// The plugins and connections that serve; swapped whole at a reload.
    pub loaded: Arc<ArcSwap<Loaded>>,
    /// The same store as the broker's.
    pub store: Arc<dyn Store>,
    /// What loads plugins.
    pub runtime: Arc<Runtime>,
    /// Where connections keep what outlives a restart; none without a sealing key.
    pub sessions: Option<Arc<dyn SessionStore>>,
    /// The mark on its accounts, sealed for the record of the start.
    pub account_mark: String,
}

/// Puts everything together.
///
/// # Errors
/// With what is wrong and what to do about it.
pub async fn compose(config: &Config, prepared: Prepared) -> anyhow::Result<Composed> {
    let Prepared { identity, runtime, sealer, log, .. } = prepared;
    let (runtime, sealer) = (Arc::new(runtime), sealer.map(Arc::new));
    // On the heap: it is large, and lives across the opening.
    let marking = Box::new(Marking::new(&log.0)?);
    let store = store::open(&config.store, log).await?;
    let sessions = sealer
        .clone()
        .map(|sealer| Arc::new(session_store::SessionStore::new(Arc::clone(&store), sealer)) as Arc<dyn SessionStore>);
    let Active { serving, loaded } = match serving(config, &runtime, None, sessions.as_ref()) {
        Ok(active) => active,
        Err(error) => {
            record_refused_start(&*store, &error).await;
            return Err(error);
        }
    };
    warn_of_lost_sessions(config, sealer.is_some());
    let records = *store.log_size().borrow();
    let exports = config.audit.export.iter().map(|jit_config::Export::Jsonl { path }| path.clone());
    let exports: Vec<PathBuf> = exports.collect();
    let birth = birth::of_store(&*store, records, &exports, SystemClock.wall()).await?;
    let account_mark = marking.seal(&birth.mark)?;
    let space = Space::new(store::file(&config.store), &exports, config.store.marks);
    let limits = &config.limits;
    let burst = NonZeroU32::new(limits.burst).unwrap_or(NonZeroU32::MIN);
    let broker = Arc::new(Broker::new(Parts {
        store: Arc::clone(&store),
        space,
        exports: config.audit.export.len(),
        archive: config.audit.archive.clone().map(|jit_config::Archive { path, keep }| Archiving { path, keep }),
        serving,
        identity,
        limits: RateLimits::new(NonZeroU32::new(limits.requests_per_second), burst),
        denials: DenialBudget {
            burst: NonZeroU32::new(limits.denials_in_full).unwrap_or(NonZeroU32::MIN),
            ..DenialBudget::default()
        },
        most_leftovers: limits.leftover_accounts as usize,
        sealer,
        birth,
        bound: config.reconcile_bound,
        clock: Arc::new(SystemClock),
    }));
    let loaded = Arc::new(ArcSwap::new(loaded));
    Ok(Composed { broker, loaded, store, runtime, sessions, account_mark })
}

/// What a driver of an HTTP API keeps between its calls outlives the process only when it is sealed.
fn warn_of_lost_sessions(config: &Config, sealing: bool) {
    let http = |connection: &jit_config::Connection| connection.protocol.capability() == Grant::Http.as_str();
    if !sealing && config.connections.values().any(http) {
        tracing::warn!(
            "without [store] sealing_key the logins of HTTP connections are kept in memory only: a restart makes new \
             ones, and a backend that ends what an old login made ends the accounts of its leases"
        );
    }
}

/// The identity methods of the configuration: the issuers that are trusted.
///
/// # Errors
/// When an entry cannot be used.
pub fn identity(config: &Config, mode: Mode) -> anyhow::Result<Identity> {
    let options = IdentityOptions { allow_http_loopback: mode.dev, ..IdentityOptions::default() };
    let mut methods: Vec<Arc<dyn Method>> = Vec::new();
    for entry in &config.identity.jwt {
        methods.push(Arc::new(JwtIssuer::new(entry.clone(), &options)?));
    }
    Ok(Identity::new(methods, &options)?)
}

/// What cannot be done where the Wasm host is missing.
const NO_RUNTIME: &str = "the plugin runtime cannot start";

/// The Wasm host with the limits of the configuration. Compiled plugins are kept in the configured folder, else in the
/// one that all commands of this user share ([`compiled_by_user`]), so that each plugin is compiled once. A user
/// without a place for that (a service without a home) has them beside the store.
///
/// # Errors
/// When the engine cannot start or the cache folder is not ours alone.
pub fn runtime(config: &Config, mode: Mode, watch: Arc<dyn CompileWatch>) -> anyhow::Result<Runtime> {
    let limits = Some(&config.plugin_limits);
    if let Some(folder) = &config.plugin_limits.cache_dir {
        return runtime_with(limits, folder.clone(), mode, watch).context(NO_RUNTIME);
    }
    if let Ok(folder) = compiled_by_user() {
        match runtime_with(limits, folder, mode, Arc::clone(&watch)) {
            Err(RuntimeError::Cache(CacheError::Open { path, source })) => {
                tracing::debug!(path = %path.display(), %source, "no cache of this user's; it is beside the store");
            }
            other => return other.context(NO_RUNTIME),
        }
    }
    let file = store::file(&config.store);
    let file = file.context("no cache for compiled plugins: name a folder with [runtime] cache_dir")?;
    let beside = file.parent().unwrap_or(Path::new(".")).join("plugin-cache");
    runtime_with(limits, beside, mode, watch).context(NO_RUNTIME)
}

/// The Wasm host of a command that asks plugins beside a broker: with the limits of the configuration, if
/// there is one, so that a policy has the time and memory that it has in the broker. A configured cache that is not
/// this user's is left to the broker's.
///
/// # Errors
/// When the engine cannot start or the cache cannot be used.
pub fn runtime_of_user(config: Option<&Config>, mode: Mode, watch: Arc<dyn CompileWatch>) -> anyhow::Result<Runtime> {
    let limits = config.map(|config| &config.plugin_limits);
    if let Some(folder) = limits.and_then(|limits| limits.cache_dir.as_ref()) {
        match runtime_with(limits, folder.clone(), mode, Arc::clone(&watch)) {
            Err(RuntimeError::Cache(_)) => {}
            other => return other.context(NO_RUNTIME),
        }
    }
    runtime_with(limits, compiled_by_user()?, mode, watch).context(NO_RUNTIME)
}

/// Where a user's commands and brokers keep compiled plugins: one with an interpreter in it takes many seconds to
/// compile.
///
/// # Errors
/// When there is no place for a cache.
pub fn compiled_by_user() -> anyhow::Result<PathBuf> {
    let folder = jit_plugin_build::cache::folder();
    let folder = folder.context("no cache for compiled plugins; XDG_CACHE_HOME names another folder")?;
    Ok(folder.join("compiled"))
}

/// The Wasm host with configured limits, or those that hold without a configuration.
fn runtime_with(
    limits: Option<&jit_config::PluginLimits>,
    cache_dir: PathBuf,
    mode: Mode,
    watch: Arc<dyn CompileWatch>,
) -> Result<Runtime, RuntimeError> {
    let mut options = RuntimeOptions {
        cache_dir,
        limits: Limits::default(),
        max_concurrent_calls: DRIVER_CALLS,
        remember: !mode.no_memory,
        snapshots: mode.snapshots,
        watch,
    };
    if let Some(limits) = limits {
        if let Some(calls) = limits.max_calls {
            options.max_concurrent_calls = calls as usize;
        }
        if let Some(mib) = limits.memory_mib {
            options.limits.memory_bytes = mib as usize * 1024 * 1024;
        }
        if let Some(time) = limits.policy_time {
            options.limits.policy_time = time;
        }
        if let Some(time) = limits.driver_time {
            options.limits.driver_time = time;
        }
    }
    Runtime::new(options)
}

/// Loads the plugins, resolves the targets, and lets each policy check its configuration. Connections
/// that serve already and have not changed are kept.
///
/// # Errors
/// With every mistake, at its place in the file.
pub fn serving(
    config: &Config,
    runtime: &Runtime,
    before: Option<&Loaded>,
    sessions: Option<&Arc<dyn SessionStore>>,
) -> anyhow::Result<Active> {
    let mut problems = Vec::new();
    let (plugins, rejected) = load_plugins(config, runtime, before, &mut problems);
    let connections = connections(config, before, sessions, &mut problems);
    let reach = before.map_or_else(Arc::default, |before| Arc::clone(&before.reach));
    let loaded = Arc::new(Loaded { plugins, connections, reach: Arc::clone(&reach) });
    let drivers = Arc::clone(&loaded) as Arc<dyn Drivers>;
    let mut serving = Serving { targets: BTreeMap::new(), drivers, reach };
    for (name, target) in &config.targets {
        match resolve(config, &loaded, name, target) {
            Ok(target) => {
                serving.targets.insert(name.clone(), Arc::new(target));
            }
            Err(found) => problems.extend(found),
        }
    }
    problems.extend(rotation_setup::conflicts(config, &serving));
    if !problems.is_empty() {
        return Err(ConfigErrors::of(problems).with_rejected(rejected).into());
    }
    Ok(Active { serving: Arc::new(serving), loaded })
}

/// Loads each plugin; those that serve already and have not changed are kept.
fn load_plugins(
    config: &Config,
    runtime: &Runtime,
    before: Option<&Loaded>,
    problems: &mut Vec<jit_config::Problem>,
) -> (BTreeMap<String, Plugin>, Vec<RejectedPlugin>) {
    let (mut plugins, mut rejected) = (BTreeMap::new(), Vec::new());
    let trusted = match config.signing.keys() {
        Ok(trusted) => trusted,
        Err((index, wrong)) => {
            problems.push(config.explain(&format!("plugins.trusted_keys[{index}]"), wrong));
            return (plugins, rejected);
        }
    };
    for (name, plugin) in &config.plugins {
        let serving = before.and_then(|before| before.plugins.get(name));
        let terms = Terms { trusted: trusted.as_deref(), serving };
        match runtime.load_on(&plugin_spec(name, plugin), terms) {
            Ok(plugin) => {
                if serving.is_none_or(|serving| !serving.is_same(&plugin)) {
                    let grants: Vec<String> = plugin.grants().iter().map(ToString::to_string).collect();
                    // Left out where nobody had to vouch for it.
                    let signed_by = Some(plugin.signed_by().join(",")).filter(|signers| !signers.is_empty());
                    tracing::info!(plugin = name, kind = %plugin.kind(), sha256 = plugin.sha256(), grants = grants.join(","), signed_by, "plugin loaded");
                }
                plugins.insert(name.clone(), plugin);
            }
            Err(error) => {
                let reason = with_causes(&error);
                problems.push(config.explain(&format!("plugins.{name}"), reason.clone()));
                rejected.push(RejectedPlugin { plugin: name.clone(), sha256: error.sha256.map(String::from), reason });
            }
        }
    }
    (plugins, rejected)
}

/// A start that fails for a plugin is on record like a reload that does: somebody may be trying what
/// can be loaded. `trigger` says what made the broker look.
#[must_use]
pub fn rejections(error: &anyhow::Error, trigger: &'static str) -> Vec<AuditEvent> {
    let rejected = |plugin: Option<&RejectedPlugin>, text: &str| {
        let rejected = PluginRejected {
            trigger,
            plugin: plugin.map(|rejected| rejected.plugin.clone()),
            plugin_sha256: plugin.and_then(|rejected| rejected.sha256.clone()),
        };
        AuditEvent::new(Event::PluginRejected(rejected), jiff::Timestamp::now()).with_error(text.trim())
    };
    let Some(problems) = error.downcast_ref::<ConfigErrors>() else {
        return vec![rejected(None, &format!("{error:#}"))];
    };
    if problems.rejected().is_empty() {
        let text = problems.problems().first().map_or_else(String::new, jit_config::Problem::plain);
        return vec![rejected(None, &text)];
    }
    problems.rejected().iter().map(|plugin| rejected(Some(plugin), &plugin.reason)).collect()
}

async fn record_refused_start(store: &dyn Store, error: &anyhow::Error) {
    let change = Change::events(rejections(error, "start"));
    match tokio::time::timeout(COMMIT_DEADLINE, store.commit(change)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the refused start could not be recorded"),
        Err(_) => tracing::error!("the refused start could not be recorded in time"),
    }
    store.close().await;
}

/// What the configuration says of a plugin, for the runtime.
pub fn plugin_spec(name: &str, plugin: &jit_config::PluginConfig) -> PluginSpec {
    let grants = plugin
        .grants
        .as_ref()
        .map(|words| words.iter().filter_map(|word| word.parse::<Grant>().ok()).collect::<Vec<_>>());
    PluginSpec { name: name.to_owned(), path: plugin.path.clone(), sha256: plugin.sha256.map(hex::encode), grants }
}

/// The digest that records have of a policy's configuration (JSON as it is passed), in hexadecimal.
pub fn config_sha256(json: &str) -> String {
    hex::encode(Sha256::digest(json))
}

/// Opens one connection of the configuration. No server is asked yet.
///
/// # Errors
/// When there is none of that name, or it cannot be opened.
pub fn connection(config: &Config, name: &str) -> anyhow::Result<Connection> {
    let settings = config.connections.get(name).with_context(|| format!("there is no connection {name}"))?;
    Ok(Connected::open(name, settings, None, None)?.connection)
}

fn connections(
    config: &Config,
    before: Option<&Loaded>,
    sessions: Option<&Arc<dyn SessionStore>>,
    problems: &mut Vec<jit_config::Problem>,
) -> BTreeMap<String, Connected> {
    let mut connections = BTreeMap::new();
    for (name, connection) in &config.connections {
        let before = before.and_then(|serving| serving.connections.get(name));
        match Connected::open(name, connection, before, sessions.cloned()) {
            Ok(connected) => {
                if let (Some(because), false) = (&connection.plaintext, connection.is_here()) {
                    tracing::warn!(
                        connection = name,
                        because,
                        "the server of this connection is on another machine and is not verified"
                    );
                }
                connections.insert(name.clone(), connected);
            }
            Err(error) => problems.push(config.explain(&format!("connections.{name}"), format!("{error:#}"))),
        }
    }
    connections
}

/// The key that signs the audit log's checkpoints.
///
/// # Errors
/// When it is missing (`jit-broker audit key` makes one), readable by others, or none.
pub fn audit_key(place: &jit_config::SecretRef, mode: Mode) -> anyhow::Result<LogKey> {
    match place {
        jit_config::SecretRef::File(path) if mode.dev => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            Ok(audit::key::load_or_generate(path)?)
        }
        jit_config::SecretRef::File(path) => audit::key::load(path).context("the audit log cannot be signed"),
        jit_config::SecretRef::Env(_) => {
            let text = place.resolve().context("[audit] signing_key")?;
            LogKey::from_text(text.expose_secret()).context("[audit] signing_key")
        }
    }
}

/// The key that signs the audit log's checkpoints, and the log's name.
///
/// # Errors
/// When one of them cannot be used.
pub(crate) fn log_key(config: &Config, mode: Mode) -> anyhow::Result<(LogKey, Origin)> {
    let signer = audit_key(&config.audit.signing_key, mode)?;
    Ok((signer, Origin::new(config.audit.origin.clone()).context("[audit] origin")?))
}

/// Puts the start on record: what serves, with which digests.
///
/// # Errors
/// When the audit log cannot be written: then nothing may be served.
pub async fn record_start(broker: &Broker, loaded: &Loaded, account_mark: &str) -> anyhow::Result<()> {
    let now = jiff::Timestamp::now();
    let process = Process { version: env!("CARGO_PKG_VERSION"), account_mark: Some(account_mark.to_owned()) };
    let mut events = vec![AuditEvent::new(Event::BrokerStarted(process), now)];
    let loaded = loaded.plugins.values().map(|plugin| AuditEvent::new(Event::PluginLoaded(served(plugin)), now));
    events.extend(loaded);
    broker
        .ledger
        .commit(Change::events(events))
        .await
        .map_err(|error| anyhow!("the audit log cannot be written: {error}"))
}

/// What the record says of a plugin: which bytes, with which grants.
#[must_use]
pub fn served(plugin: &Plugin) -> PluginServed {
    PluginServed {
        plugin: plugin.name().to_owned(),
        kind: plugin.kind().to_string(),
        plugin_sha256: plugin.sha256().to_owned(),
        grants: plugin.grants().iter().map(ToString::to_string).collect(),
        signed_by: plugin.signed_by().to_vec(),
    }
}

/// What an operator has to know of each target's driver, told at start: that it cannot expire
/// accounts by itself, or that its accounts outlive their leases.
pub fn warn_of_weak_ends(serving: &Serving) {
    for target in serving.targets.values() {
        if target.standing() {
            tracing::warn!(
                target = %target.name,
                "target {} hands out standing accounts: they exist before and after each lease, and its end does not take back what was handed out",
                target.name
            );
        } else if !target.driver.description().has(Feature::Backstop) {
            tracing::warn!(target = %target.name, "this target cannot expire accounts by itself: only the broker removes them");
        }
    }
}
