//! Puts the broker together from a configuration, in the order in which a request passes:
//! identity, plugins, connections, targets, store. Nothing else constructs these.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use jit_core::causes::with_causes;
use jit_core::driver::{Feature, RoleView, TargetView};
use jit_core::event::{AuditEvent, Event, PluginRejected, PluginServed, Process};
use jit_core::policy::Mode as PolicyMode;
use jit_core::rollout::ShareKey;
use jit_core::trace::OnBehalf;
use jit_core::usage::checked_windows;
use jit_identity::{Identity, IdentityOptions, JwtIssuer, Method};
use jit_runtime::{
    ConfigFault, Connection, ContextScope, Grant, Limits, Plugin, PluginSpec, Runtime, RuntimeOptions, SessionStore,
    Terms,
};
use jit_tlog::checkpoint::{LogKey, Origin};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::connection::{Connected, usual_port};
use crate::loaded::{Active, BoundContext, BoundDriver, BoundPolicy, Loaded};
use crate::prepare::Prepared;
use crate::rotation_setup;
use crate::session_store;
use crate::store;
use jit_config::{Config, ConfigErrors, RejectedPlugin};
use jit_ledger::audit;
use jit_ledger::{Change, Store};
use jit_pipeline::birth;
use jit_pipeline::broker::{Archiving, Broker, COMMIT_DEADLINE, Parts};
use jit_pipeline::denials::DenialBudget;
use jit_pipeline::facts::ContextLink;
use jit_pipeline::limits::RateLimits;
use jit_pipeline::ports::{Clock as _, Drivers, SystemClock};
use jit_pipeline::space::Space;
use jit_pipeline::target::{ChainLink, Endpoint, Serving, Target, TargetRole};

/// Decisions of one target at once: a policy that burns its time limit holds up its own target
/// and no other.
const DECISIONS: usize = 8;
/// Driver calls at once, unless configured. Each may hold one instance with its memory.
const DRIVER_CALLS: usize = 128;
/// Creations at once in a role of a driver without a connection.
const SLOTS_WITHOUT_CONNECTION: usize = 1_024;

/// How `serve` and `dev` differ.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mode {
    /// Accept issuers over plain HTTP on loopback, and make an audit key where there is none.
    pub dev: bool,
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
}

/// Puts everything together.
///
/// # Errors
/// With what is wrong and what to do about it.
pub async fn compose(config: &Config, prepared: Prepared) -> anyhow::Result<Composed> {
    let Prepared { identity, runtime, sealer, log, .. } = prepared;
    let (runtime, sealer) = (Arc::new(runtime), sealer.map(Arc::new));
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
    let space = Space::new(store::file(&config.store), &exports, config.store.marks);
    let limits = &config.limits;
    let burst = NonZeroU32::new(limits.burst).unwrap_or(NonZeroU32::MIN);
    let broker = Broker::new(Parts {
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
    });
    let loaded = Arc::new(ArcSwap::new(loaded));
    Ok(Composed { broker, loaded, store, runtime, sessions })
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

/// The Wasm host.
///
/// # Errors
/// When the engine cannot start or the cache folder is not ours alone.
pub fn runtime(config: &Config) -> anyhow::Result<Runtime> {
    runtime_with(Some(&config.plugin_limits), cache_dir(config))
}

/// The Wasm host of a command that asks plugins beside a broker: with the limits of the configuration, if
/// there is one, so that a policy has the time and memory that it has in the broker. Compiled components
/// go to the user's own cache ([`compiled_by_user`]) and not beside the broker's store.
///
/// # Errors
/// When the engine cannot start or the cache cannot be used.
pub fn runtime_of_user(config: Option<&Config>) -> anyhow::Result<Runtime> {
    runtime_with(config.map(|config| &config.plugin_limits), compiled_by_user()?)
}

/// Where commands keep compiled plugins between runs: one with an interpreter in it takes seconds to
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
fn runtime_with(limits: Option<&jit_config::PluginLimits>, cache_dir: PathBuf) -> anyhow::Result<Runtime> {
    let mut options = RuntimeOptions { cache_dir, limits: Limits::default(), max_concurrent_calls: DRIVER_CALLS };
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
    Runtime::new(options).context("the plugin runtime cannot start")
}

/// Beside the store unless configured: compiled plugins belong to one installation.
fn cache_dir(config: &Config) -> PathBuf {
    if let Some(folder) = &config.plugin_limits.cache_dir {
        return folder.clone();
    }
    store::file(&config.store).parent().unwrap_or(Path::new(".")).join("plugin-cache")
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
    let loaded = Arc::new(Loaded { plugins, connections });
    let mut serving = Serving { targets: BTreeMap::new(), drivers: Arc::clone(&loaded) as Arc<dyn Drivers> };
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

fn resolve(
    config: &Config,
    loaded: &Loaded,
    name: &jit_core::name::TargetName,
    target: &jit_config::Target,
) -> Result<Target, Vec<jit_config::Problem>> {
    let at = |path: &str, message: String| vec![config.explain(&format!("targets.{name}{path}"), message)];
    let driver = match loaded.plugins.get(&target.driver) {
        Some(Plugin::Driver(driver)) => driver.clone(),
        Some(other) => {
            return Err(at(".driver", format!("plugin {} is a {}, not a driver", target.driver, other.kind())));
        }
        // Told where the plugin failed to load.
        None => return Err(Vec::new()),
    };
    let bound = match &target.connection {
        None => None,
        Some(connection) => match loaded.connections.get(connection) {
            Some(found) => Some(found.connection.clone()),
            None => return Err(Vec::new()),
        },
    };
    let prefix = target.account_prefix.clone().unwrap_or_else(|| config.account_prefix.clone());
    let room = driver.description().max_name_length;
    if room < prefix.least_length() {
        let message = format!(
            "the driver takes names of at most {room} bytes, and account_prefix {:?} needs {}",
            prefix.as_str(),
            prefix.least_length()
        );
        return Err(at(".driver", message));
    }
    let chain = policy_chain(config, loaded, &target.policies)?;
    let usage_windows = usage_windows(config, loaded, &target.policies)?;
    let contexts = contexts(config, loaded, &target.contexts)?;
    let slots = target.connection.as_ref().map_or(SLOTS_WITHOUT_CONNECTION, |name| {
        let most = config.connections.get(name).map_or(2, |connection| connection.max_connections as usize);
        most.div_ceil(2).max(1)
    });
    let mut roles = BTreeMap::new();
    for (role, table) in &target.roles {
        let view = RoleView { name: role.clone(), config: table.to_string() };
        let rotating = rotation_setup::account(config, target, role, &driver)
            .map_err(|message| at(&format!(".roles.{role}.rotating"), message))?;
        let slots = Arc::new(Semaphore::new(slots));
        roles.insert(role.clone(), TargetRole { view, slots, rotating: rotating.map(Arc::new) });
    }
    let connected = target.connection.as_ref().and_then(|name| loaded.connections.get(name));
    if let Some(wrong) = connected.and_then(|connected| unfit(&loaded.plugins[&target.driver], connected)) {
        return Err(at(".connection", wrong));
    }
    let told = target.endpoint.as_ref();
    let by_socket = connected.is_some_and(|connected| connected.settings.is_socket());
    if by_socket && told.is_none_or(|told| told.host.is_none() || told.port.is_none()) {
        let mut problem = config.explain(
            &format!("targets.{name}.endpoint"),
            "the connection is a Unix socket, which an application on another machine cannot reach: say what \
             applications connect to",
        );
        problem.help = Some("write, for example: endpoint = { host = \"db.example.com\", port = 5432 }".to_owned());
        return Err(vec![problem]);
    }
    let endpoint =
        endpoint(told, connected.and_then(Connected::endpoint)).map_err(|message| at(".endpoint", message))?;
    Ok(Target {
        name: name.clone(),
        driver_name: target.driver.clone(),
        driver: Arc::new(BoundDriver { plugin: driver, connection: bound }),
        connection: target.connection.clone(),
        view: TargetView { name: name.clone(), config: target.config.to_string() },
        roles,
        deciding: Arc::new(Semaphore::new(DECISIONS)),
        default_role: target.default_role.clone(),
        default_ttl: target.default_ttl,
        max_ttl: target.max_ttl,
        contexts: contexts.into(),
        usage_windows,
        chain: chain.into(),
        prefix,
        endpoint,
        timeout: target.timeout,
        site: connected.map(Connected::site).unwrap_or_default(),
    })
}

/// Why the plugin cannot work on that connection.
fn unfit(plugin: &Plugin, connected: &Connected) -> Option<String> {
    let reaches: Vec<Grant> = plugin.grants().iter().copied().filter(|grant| grant.reaches_a_backend()).collect();
    let needed = connected.settings.protocol.capability();
    if reaches.is_empty() || reaches.iter().any(|grant| grant.as_str() == needed) {
        return None;
    }
    let words: Vec<&str> = reaches.iter().map(|grant| grant.as_str()).collect();
    let kind = connected.settings.protocol.as_str();
    Some(format!("the plugin works by {}, and this connection is {kind}", words.join(" and ")))
}

/// Where callers connect: what the target says, filled up with what the connection tells where
/// callers speak the same as the connection.
fn endpoint(told: Option<&jit_config::Endpoint>, own: Option<Endpoint>) -> Result<Option<Endpoint>, String> {
    let Some(told) = told else { return Ok(own) };
    let own = own.filter(|own| told.scheme.as_ref().is_none_or(|scheme| *scheme == own.scheme));
    let missing = |key: &str| format!("`{key}` is missing: the target's connection does not tell it");
    let scheme = told.scheme.clone().or_else(|| own.as_ref().map(|own| own.scheme.clone()));
    let scheme = scheme.ok_or_else(|| missing("scheme"))?;
    // With or without the brackets of a URL: the reply's URI puts its own.
    let without_brackets = |host: &String| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let host = told.host.as_ref().map(without_brackets).or_else(|| own.as_ref().map(|own| own.host.clone()));
    let port = told.port.or_else(|| own.as_ref().map(|own| own.port)).or_else(|| usual_port(&scheme));
    Ok(Some(Endpoint {
        host: host.ok_or_else(|| missing("host"))?,
        port: port.ok_or_else(|| missing("port"))?,
        database: told.database.clone().or_else(|| own.and_then(|own| own.database)),
        scheme,
    }))
}

fn policy_chain(
    config: &Config,
    loaded: &Loaded,
    names: &[String],
) -> Result<Vec<ChainLink>, Vec<jit_config::Problem>> {
    let mut chain = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        let Some(policy) = config.policies.get(name) else { continue };
        let at = format!("policies.{name}");
        let plugin = match loaded.plugins.get(&policy.plugin) {
            Some(Plugin::Policy(plugin)) => plugin.clone(),
            Some(other) => {
                let message = format!("plugin {} is a {}, not a policy", policy.plugin, other.kind());
                problems.push(config.explain(&format!("{at}.plugin"), message));
                continue;
            }
            None => continue,
        };
        let draws = policy.rollout.as_ref().is_some_and(|rollout| rollout.share.draws());
        let share_key = match draws.then(|| audit_key(&config.audit.signing_key, Mode::default())).transpose() {
            Ok(key) => key.as_ref().map(|key| ShareKey::new(key.derive(ShareKey::PURPOSE))),
            Err(error) => {
                let message = format!("whom the share reaches is drawn with a secret of audit.signing_key: {error:#}");
                problems.push(config.explain(&format!("{at}.rollout"), message));
                continue;
            }
        };
        let json = policy.config.to_string();
        match plugin.validate(&json) {
            Ok(()) => chain.push(ChainLink {
                name: name.clone(),
                mode: policy.mode,
                rollout: policy.rollout.clone(),
                share_key,
                config_sha256: config_sha256(&json),
                policy: Arc::new(BoundPolicy { plugin, config: json }),
            }),
            Err(fault) => problems.extend(at_fault(config, &at, fault)),
        }
    }
    if problems.is_empty() { Ok(chain) } else { Err(problems) }
}

/// What a plugin says of its configuration, at its place in the file.
fn at_fault(config: &Config, at: &str, fault: ConfigFault) -> Vec<jit_config::Problem> {
    match fault {
        ConfigFault::Invalid(found) => found
            .into_iter()
            .map(|problem| {
                let path = if problem.path.is_empty() {
                    format!("{at}.config")
                } else {
                    format!("{at}.config.{}", problem.path)
                };
                config.explain(&path, problem.message)
            })
            .collect(),
        ConfigFault::Fault(fault) => vec![config.explain(&format!("{at}.plugin"), with_causes(&fault))],
    }
}

/// What the policies of one target want counted, together.
fn usage_windows(
    config: &Config,
    loaded: &Loaded,
    names: &[String],
) -> Result<Option<Vec<u64>>, Vec<jit_config::Problem>> {
    let mut wanted: Option<Vec<u64>> = None;
    for name in names {
        let Some(policy) = config.policies.get(name).filter(|policy| policy.mode != PolicyMode::Off) else { continue };
        let Some(Plugin::Policy(plugin)) = loaded.plugins.get(&policy.plugin) else { continue };
        let at = format!("policies.{name}.config");
        match plugin.windows(&policy.config.to_string()) {
            Ok(None) => {}
            Ok(Some(windows)) => {
                let mut all = wanted.take().unwrap_or_default();
                all.extend(windows);
                let all = checked_windows(all).map_err(|message| {
                    vec![config.explain(&at, format!("with the target's other policies, {message}"))]
                })?;
                wanted = Some(all);
            }
            Err(fault) => return Err(vec![config.explain(&at, with_causes(&fault))]),
        }
    }
    Ok(wanted)
}

fn contexts(config: &Config, loaded: &Loaded, names: &[String]) -> Result<Vec<ContextLink>, Vec<jit_config::Problem>> {
    let mut links = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        let Some(context) = config.contexts.get(name) else { continue };
        let at = format!("contexts.{name}");
        let plugin = match loaded.plugins.get(&context.plugin) {
            Some(Plugin::Context(plugin)) => plugin.clone(),
            Some(other) => {
                let message = format!("plugin {} is a {}, not a context provider", context.plugin, other.kind());
                problems.push(config.explain(&format!("{at}.plugin"), message));
                continue;
            }
            None => continue,
        };
        let connected = context.connection.as_ref().and_then(|name| loaded.connections.get(name));
        if context.connection.is_none() && plugin.grants().contains(&Grant::Http) {
            let message =
                "the plugin asks an HTTP server: add `connection`, the name of a [connections.NAME] of kind http";
            problems.push(config.explain(&at, message));
            continue;
        }
        let unfit = connected.and_then(|connected| unfit(&loaded.plugins[&context.plugin], connected));
        if let Some(wrong) = unfit {
            problems.push(config.explain(&format!("{at}.connection"), wrong));
            continue;
        }
        let json = context.config.to_string();
        if let Err(fault) = plugin.validate_blocking(&json) {
            problems.extend(at_fault(config, &at, fault));
            continue;
        }
        let connection = connected.map(|connected| connected.connection.clone());
        let scope = ContextScope { connection, deadline: context.timeout, on_behalf: OnBehalf::default() };
        let provider = BoundContext { plugin, config: json, scope };
        links.push(ContextLink::new(name.clone(), Arc::new(provider), context.on_failure, context.fresh_for));
    }
    if problems.is_empty() { Ok(links) } else { Err(problems) }
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
        jit_config::SecretRef::File(path) => audit::key::load(path).with_context(|| {
            format!("the audit log cannot be signed; `jit-broker audit key {}` makes a key", path.display())
        }),
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
pub async fn record_start(broker: &Broker, loaded: &Loaded) -> anyhow::Result<()> {
    let now = jiff::Timestamp::now();
    let process = Process { version: env!("CARGO_PKG_VERSION") };
    let mut events = vec![AuditEvent::new(Event::BrokerStarted(process), now)];
    let loaded = loaded.plugins.values().map(|plugin| AuditEvent::new(Event::PluginLoaded(served(plugin)), now));
    events.extend(loaded);
    broker.commit(Change::events(events)).await.map_err(|error| anyhow!("the audit log cannot be written: {error}"))
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
