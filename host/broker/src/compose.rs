//! Puts the broker together from a configuration, in the order in which a request passes:
//! identity, plugins, connections, targets, store. Nothing else constructs these.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use jit_core::checkpoint::{LogKey, Origin};
use jit_core::driver::{Feature, RoleView, TargetView};
use jit_core::event::{AuditEvent, EventKind};
use jit_core::outcome::{Outcome, Refusal};
use jit_runtime::{
    ConfigFault, Connection, Grant, Lane, Limits, Plugin, PluginSpec, Runtime, RuntimeOptions, SqlConnection,
    SqlConnectionOptions, SqlKind,
};
use secrecy::ExposeSecret as _;
use tokio::sync::Semaphore;

use crate::audit;
use crate::broker::{Broker, Parts};
use crate::config::{self, Config, ConfigErrors, ConnectionKind};
use crate::identity::{Identity, IdentityOptions, JwtIssuerConfig};
use crate::limits::RateLimits;
use crate::store::Change;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::target::{ChainLink, Connected, Endpoint, Serving, Target, TargetRole};

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
    /// The same store as the broker's, by its own type.
    pub store: Arc<SqliteStore>,
    /// What loads plugins.
    pub runtime: Arc<Runtime>,
}

/// Puts everything together.
///
/// # Errors
/// With what is wrong and what to do about it.
pub async fn compose(config: &Config, mode: Mode) -> anyhow::Result<Composed> {
    let identity = identity(config, mode)?;
    let runtime = Arc::new(runtime(config)?);
    let serving = serving(config, &runtime, None)?;
    let store = Arc::new(store(config, mode).await?);
    let limits = &config.limits;
    let burst = NonZeroU32::new(limits.burst).unwrap_or(NonZeroU32::MIN);
    let broker = Broker::new(Parts {
        store: Arc::clone(&store) as Arc<dyn crate::store::Store>,
        serving,
        identity,
        limits: RateLimits::new(NonZeroU32::new(limits.requests_per_second), burst),
    });
    Ok(Composed { broker, store, runtime })
}

/// The issuers that are trusted.
///
/// # Errors
/// When an entry cannot be used.
pub fn identity(config: &Config, mode: Mode) -> anyhow::Result<Identity> {
    let issuers = config.identity.jwt.iter().map(verifier).collect::<Result<Vec<_>, _>>()?;
    let options = IdentityOptions { allow_http_loopback: mode.dev, ..IdentityOptions::default() };
    Ok(Identity::new(issuers, &options)?)
}

/// An entry of the configuration as the verifier reads it.
fn verifier(entry: &config::JwtIssuer) -> anyhow::Result<JwtIssuerConfig> {
    let algorithms: Vec<&str> = entry.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
    let json = serde_json::json!({
        "name": entry.name,
        "issuer": entry.issuer,
        "audiences": entry.audiences,
        "workload": entry.workload,
        "attributes": entry.attributes,
        "algorithms": algorithms,
        "jwks_url": entry.jwks_url,
        "ca": entry.ca,
        "bearer_token_file": entry.bearer_token_file,
        "leeway": entry.leeway.as_secs(),
        "max_token_lifetime": entry.max_token_lifetime,
    });
    serde_json::from_value(json).with_context(|| format!("[[identity.jwt]] {}", entry.name))
}

/// The Wasm host.
///
/// # Errors
/// When the engine cannot start or the cache folder is not ours alone.
pub fn runtime(config: &Config) -> anyhow::Result<Runtime> {
    let mut options =
        RuntimeOptions { cache_dir: cache_dir(config), limits: Limits::default(), max_concurrent_calls: DRIVER_CALLS };
    let limits = &config.plugin_limits;
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
    Runtime::new(options).context("the plugin runtime cannot start")
}

/// Beside the store unless configured: compiled plugins belong to one installation.
fn cache_dir(config: &Config) -> PathBuf {
    if let Some(folder) = &config.plugin_limits.cache_dir {
        return folder.clone();
    }
    let config::StoreKind::Sqlite(path) = &config.store.kind;
    path.parent().unwrap_or(Path::new(".")).join("plugin-cache")
}

/// Loads the plugins, resolves the targets, and lets each policy check its configuration. Connections
/// that serve already and have not changed are kept.
///
/// # Errors
/// With every mistake, at its place in the file.
pub fn serving(config: &Config, runtime: &Runtime, before: Option<&Serving>) -> anyhow::Result<Serving> {
    let mut problems = Vec::new();
    let plugins = load_plugins(config, runtime, &mut problems);
    let connections = connections(config, before, &mut problems);
    let mut serving = Serving { targets: BTreeMap::new(), plugins, connections };
    for (name, target) in &config.targets {
        match resolve(config, &serving, name, target) {
            Ok(target) => {
                serving.targets.insert(name.clone(), Arc::new(target));
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(serving) } else { Err(ConfigErrors::of(problems).into()) }
}

fn load_plugins(config: &Config, runtime: &Runtime, problems: &mut Vec<config::Problem>) -> BTreeMap<String, Plugin> {
    let mut plugins = BTreeMap::new();
    for (name, plugin) in &config.plugins {
        let grants = plugin
            .grants
            .as_ref()
            .map(|words| words.iter().filter_map(|word| word.parse::<Grant>().ok()).collect::<Vec<_>>());
        let spec = PluginSpec {
            name: name.clone(),
            path: plugin.path.clone(),
            sha256: plugin.sha256.map(hex::encode),
            grants,
        };
        match runtime.load(&spec) {
            Ok(plugin) => {
                let grants: Vec<String> = plugin.grants().iter().map(ToString::to_string).collect();
                tracing::info!(plugin = name, kind = %plugin.kind(), sha256 = plugin.sha256(), grants = grants.join(","), "plugin loaded");
                plugins.insert(name.clone(), plugin);
            }
            Err(error) => problems.push(config.explain(&format!("plugins.{name}"), with_causes(&error))),
        }
    }
    plugins
}

/// An error with its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn connections(
    config: &Config,
    before: Option<&Serving>,
    problems: &mut Vec<config::Problem>,
) -> BTreeMap<String, Connected> {
    let mut connections = BTreeMap::new();
    for (name, connection) in &config.connections {
        let made = (|| {
            let password = connection.password.as_ref().map(config::SecretRef::resolve).transpose()?;
            let kept = before.and_then(|serving| serving.connections.get(name));
            if let Some(kept) = kept.filter(|kept| kept.is_made_of(connection, password.as_ref())) {
                return Ok((password, kept.connection.clone()));
            }
            let kind = match connection.kind {
                ConnectionKind::Postgres => SqlKind::Postgres,
            };
            let options = SqlConnectionOptions {
                kind,
                max_connections: connection.max_connections,
                connect_timeout: connection.connect_timeout,
                ..SqlConnectionOptions::new(name.clone(), connection.url.clone(), password.clone())
            };
            let made = Connection::Sql(Arc::new(SqlConnection::new(options)?));
            Ok::<_, anyhow::Error>((password, made))
        })();
        match made {
            Ok((password, made)) => {
                let connected = Connected { settings: connection.clone(), password, connection: made };
                connections.insert(name.clone(), connected);
            }
            Err(error) => problems.push(config.explain(&format!("connections.{name}"), format!("{error:#}"))),
        }
    }
    connections
}

fn resolve(
    config: &Config,
    serving: &Serving,
    name: &jit_core::name::TargetName,
    target: &config::Target,
) -> Result<Target, Vec<config::Problem>> {
    let at = |path: &str, message: String| vec![config.explain(&format!("targets.{name}{path}"), message)];
    let driver = match serving.plugins.get(&target.driver) {
        Some(Plugin::Driver(driver)) => driver.clone(),
        Some(other) => {
            return Err(at(".driver", format!("plugin {} is a {}, not a driver", target.driver, other.kind())));
        }
        // Told where the plugin failed to load.
        None => return Err(Vec::new()),
    };
    let connection = match &target.connection {
        None => None,
        Some(connection) => match serving.connections.get(connection) {
            Some(found) => Some((connection.clone(), found.connection.clone())),
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
    let chain = policy_chain(config, serving, &target.policies)?;
    let slots = connection.as_ref().map_or(SLOTS_WITHOUT_CONNECTION, |(name, _)| {
        let most = config.connections.get(name).map_or(2, |connection| connection.max_connections as usize);
        most.div_ceil(2).max(1)
    });
    let roles = target.roles.iter().map(|(role, table)| {
        let view = RoleView { name: role.clone(), config: table.to_string() };
        (role.clone(), TargetRole { view, slots: Arc::new(Semaphore::new(slots)) })
    });
    let endpoint = connection.as_ref().and_then(|(_, connection)| {
        let Connection::Sql(connection) = connection else { return None };
        let own = connection.endpoint();
        let told = target.endpoint.clone().unwrap_or_default();
        Some(Endpoint {
            scheme: "postgres",
            host: told.host.unwrap_or_else(|| own.host.clone()),
            port: told.port.unwrap_or(own.port),
            database: own.database.clone(),
        })
    });
    Ok(Target {
        name: name.clone(),
        driver_name: target.driver.clone(),
        driver,
        connection,
        view: TargetView { name: name.clone(), config: target.config.to_string() },
        roles: roles.collect(),
        deciding: Arc::new(Semaphore::new(DECISIONS)),
        default_role: target.default_role.clone(),
        default_ttl: target.default_ttl,
        max_ttl: target.max_ttl,
        chain: chain.into(),
        prefix,
        endpoint,
        timeout: target.timeout,
    })
}

fn policy_chain(config: &Config, serving: &Serving, names: &[String]) -> Result<Vec<ChainLink>, Vec<config::Problem>> {
    let mut chain = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        let Some(policy) = config.policies.get(name) else { continue };
        let at = format!("policies.{name}");
        let (sha256, plugin) = match serving.plugins.get(&policy.plugin) {
            Some(loaded @ Plugin::Policy(plugin)) => (loaded.sha256().to_owned(), plugin.clone()),
            Some(other) => {
                let message = format!("plugin {} is a {}, not a policy", policy.plugin, other.kind());
                problems.push(config.explain(&format!("{at}.plugin"), message));
                continue;
            }
            None => continue,
        };
        let json = policy.config.to_string();
        match plugin.validate(&json) {
            Ok(()) => chain.push(ChainLink { name: name.clone(), mode: policy.mode, plugin, sha256, config: json }),
            Err(ConfigFault::Invalid(found)) => problems.extend(found.into_iter().map(|problem| {
                let path = if problem.path.is_empty() {
                    format!("{at}.config")
                } else {
                    format!("{at}.config.{}", problem.path)
                };
                config.explain(&path, problem.message)
            })),
            Err(ConfigFault::Fault(fault)) => {
                problems.push(config.explain(&format!("{at}.plugin"), with_causes(&fault)))
            }
        }
    }
    if problems.is_empty() { Ok(chain) } else { Err(problems) }
}

/// The key that signs the audit log's checkpoints.
///
/// # Errors
/// When it is missing (`jit-broker audit key` makes one), readable by others, or none.
pub fn audit_key(place: &config::SecretRef, mode: Mode) -> anyhow::Result<LogKey> {
    match place {
        config::SecretRef::File(path) if mode.dev => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            Ok(audit::key::load_or_generate(path)?)
        }
        config::SecretRef::File(path) => audit::key::load(path).with_context(|| {
            format!("the audit log cannot be signed; `jit-broker audit key {}` makes a key", path.display())
        }),
        config::SecretRef::Env(_) => {
            let text = place.resolve().context("[audit] signing_key")?;
            LogKey::from_text(text.expose_secret()).context("[audit] signing_key")
        }
    }
}

async fn store(config: &Config, mode: Mode) -> anyhow::Result<SqliteStore> {
    let config::StoreKind::Sqlite(path) = &config.store.kind;
    let signer = audit_key(&config.audit.signing_key, mode)?;
    let origin = Origin::new(config.audit.origin.clone()).context("[audit] origin")?;
    let options = SqliteOptions { path: path.clone(), signer, origin };
    SqliteStore::open(options).await.with_context(|| format!("the store {} cannot be opened", path.display()))
}

/// Asks every target's driver whether its configuration holds, in so far as the target answers.
/// Gives one line for each that does not.
pub async fn validate_targets(serving: &Serving) -> Vec<(String, Result<(), String>)> {
    let checks = serving.targets.values().map(|target| async move {
        let roles: Vec<RoleView> = target.roles.values().map(|role| role.view.clone()).collect();
        let result = match target.driver.validate(&target.scope(Lane::Removal), &target.view, &roles).await {
            Outcome::Done(()) => Ok(()),
            Outcome::Refused(Refusal::Configuration(text)) => Err(text),
            Outcome::Refused(refusal) => Err(refusal.reason()),
            Outcome::Unknown(reason) => Err(reason),
        };
        (target.name.to_string(), result)
    });
    futures_util::future::join_all(checks).await
}

/// Puts the start on record: what serves, with which digests.
///
/// # Errors
/// When the audit log cannot be written: then nothing may be served.
pub async fn record_start(broker: &Broker) -> anyhow::Result<()> {
    let now = jiff::Timestamp::now();
    let serving = broker.serving.load();
    let mut events = vec![AuditEvent::new(EventKind::BrokerStarted, now).with("version", env!("CARGO_PKG_VERSION"))];
    events.extend(serving.plugins.values().map(|plugin| plugin_event(EventKind::PluginLoaded, plugin)));
    broker
        .commit(Change { events, ..Change::default() })
        .await
        .map_err(|error| anyhow!("the audit log cannot be written: {error}"))
}

/// An event about a plugin: which bytes, with which grants.
#[must_use]
pub fn plugin_event(kind: EventKind, plugin: &Plugin) -> AuditEvent {
    let grants: Vec<String> = plugin.grants().iter().map(ToString::to_string).collect();
    AuditEvent::new(kind, jiff::Timestamp::now())
        .with("plugin", plugin.name())
        .with("kind", plugin.kind().to_string())
        .with("plugin_sha256", plugin.sha256())
        .with("grants", grants)
}

/// Whether every target expires accounts by itself; those that do not are told at start.
pub fn warn_without_backstop(serving: &Serving) {
    for target in serving.targets.values() {
        if !target.driver.description().has(Feature::Backstop) {
            tracing::warn!(target = %target.name, "this target cannot expire accounts by itself: only the broker removes them");
        }
    }
}
