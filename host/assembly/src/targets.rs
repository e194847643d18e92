//! What callers may ask for: each target with its driver, connection, policies and context providers.

use crate::compose::{Mode, audit_key, config_sha256};
use crate::connection::Connected;
use crate::connection::usual_port;
use crate::loaded::BoundContext;
use crate::loaded::BoundDriver;
use crate::loaded::BoundPolicy;
use crate::loaded::Loaded;
use crate::rotation_setup;
use jit_config::Config;
use jit_core::causes::with_causes;
use jit_core::driver::Description;
use jit_core::driver::PlacedVerifier;
use jit_core::driver::RoleView;
use jit_core::driver::TargetView;
use jit_core::policy::Mode as PolicyMode;
use jit_core::rollout::ShareKey;
use jit_core::secret::{least_iterations, most_iterations};
use jit_core::trace::OnBehalf;
use jit_core::usage::checked_windows;
use jit_pipeline::facts::ContextLink;
use jit_pipeline::ready::LastForm;
use jit_pipeline::target::ChainLink;
use jit_pipeline::target::Endpoint;
use jit_pipeline::target::OfferedVerifier;
use jit_pipeline::target::Target;
use jit_pipeline::target::TargetRole;
use jit_runtime::ConfigFault;
use jit_runtime::ContextScope;
use jit_runtime::Grant;
use jit_runtime::Plugin;
use jit_runtime::{ConfiguredContext, ConfiguredPolicy};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Decisions of one target at once: a policy that burns its time limit holds up its own target
/// and no other.
const DECISIONS: usize = 8;
/// Creations at once in a role of a driver without a connection.
const SLOTS_WITHOUT_CONNECTION: usize = 1_024;

/// Binds one target to its driver, connection, policies and context providers.
///
/// # Errors
/// With every mistake, at its line. What failed to load is named where it failed, and not again here.
pub(crate) fn resolve(
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
    let verifiers = verifiers(driver.description(), target).map_err(|message| at(".driver", message))?;
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
        roles.insert(
            role.clone(),
            TargetRole { view, slots, form: LastForm::default(), rotating: rotating.map(Arc::new) },
        );
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
        driver: Arc::new(BoundDriver { plugin: driver, connection: bound, reach: Arc::clone(&loaded.reach) }),
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
        verifiers,
        prefix,
        endpoint,
        timeout: target.timeout,
        site: connected.map(Connected::site).unwrap_or_default(),
    })
}

/// The verifiers of callers that the driver places in this target, with the least iterations.
fn verifiers(driver: &Description, target: &jit_config::Target) -> Result<Vec<OfferedVerifier>, String> {
    let placed = driver.verifiers(&target.config)?;
    let offered = placed.into_iter().map(|placed| {
        let PlacedVerifier { kind, iterations, never_empty } = placed;
        let least = least_iterations(kind).max(target.verifier_iterations).max(iterations.unwrap_or(0));
        OfferedVerifier { kind, least_iterations: least.min(most_iterations(kind)), never_empty }
    });
    Ok(offered.collect())
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
                policy: Arc::new(BoundPolicy { policy: ConfiguredPolicy::new(plugin, &json) }),
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
        let provider = BoundContext { provider: ConfiguredContext::new(plugin, &json), scope };
        links.push(ContextLink::new(name.clone(), Arc::new(provider), context.on_failure, context.fresh_for));
    }
    if problems.is_empty() { Ok(links) } else { Err(problems) }
}
