//! `[targets.NAME]`: what callers may ask for.

use std::collections::BTreeMap;
use std::time::Duration;

use jit_core::account::AccountPrefix;
use jit_core::name::RoleName;
use jit_core::policy::Mode;
use jit_core::ttl::Ttl;

use super::reference::Declared;
use super::section::{Section, shown};
use jit_core::spelling;

use super::{plugin::Policy, rotating, server};

/// One target.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The name under `[plugins]`.
    pub driver: String,
    /// The name under `[connections]`; a driver that needs none has none.
    pub connection: Option<String>,
    /// Names under `[policies]`, in the order in which they are asked. At least one enforces.
    pub policies: Vec<String>,
    /// Names under `[contexts]`: who gathers facts for the policies.
    pub contexts: Vec<String>,
    /// Where the caller asks for no length; by default `1h`, or `max_ttl` when that is less.
    pub default_ttl: Ttl,
    /// The longest life; by default `default_ttl`.
    pub max_ttl: Ttl,
    /// Where the caller asks for no role; one of `roles`.
    pub default_role: Option<RoleName>,
    /// The driver's own for the target; always an object. At the path `targets.NAME.config`.
    pub config: serde_json::Value,
    /// Each role's whole table, an object. At the path `targets.NAME.roles.ROLE`.
    pub roles: BTreeMap<RoleName, serde_json::Value>,
    /// Those of the roles that hand out one standing account whose password changes.
    pub rotating: BTreeMap<RoleName, rotating::Rotating>,
    /// This target's own prefix of account names, in place of the server's.
    pub account_prefix: Option<AccountPrefix>,
    /// The least iterations of a verifier that a caller sends, `4096` to `1000000`; by default 4096, or what the driver
    /// asks for where that is more.
    pub verifier_iterations: u32,
    /// What callers connect to, where it is not what the connection's URL says.
    pub endpoint: Option<Endpoint>,
    /// Deadline of one call of the driver, `1s` to `10m`, by default 30 s.
    pub timeout: Duration,
}

/// `[targets.NAME.endpoint]`: what callers are told; the connection's URL fills what is left out,
/// where callers speak what the connection speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// What callers speak there, the URI's scheme: `postgres`, `mysql`, …
    pub scheme: Option<String>,
    /// A host name or address.
    pub host: Option<String>,
    /// 1 to 65535.
    pub port: Option<u16>,
    /// The database.
    pub database: Option<String>,
}

/// What a target may refer to.
pub(super) struct Known<'a> {
    pub(super) plugins: &'a Declared<'a>,
    pub(super) connections: &'a Declared<'a>,
    pub(super) policies: &'a Declared<'a>,
    pub(super) contexts: &'a Declared<'a>,
    /// The policies that could be read.
    pub(super) read_policies: &'a BTreeMap<String, Policy>,
}

pub(super) fn target(name: &str, section: &Section<'_>, known: &Known<'_>) -> Option<Target> {
    section.demand("driver", "driver = \"postgres\" (the name of a [plugins.NAME])");
    let driver = section.reference("driver", known.plugins);
    let connection = section.reference("connection", known.connections);
    let policies = policies(name, section, known);
    let there = section.entry("contexts").is_some();
    let contexts = if there { section.references("contexts", known.contexts) } else { Some(Vec::new()) };
    let (default_ttl, max_ttl) = lengths(section);
    let (roles, role_names) = roles(name, section);
    let rotating = rotating::of_roles(section);
    let default_role = default_role(section, &role_names);
    let config = section.json_table("config");
    let account_prefix = server::account_prefix(section);
    let endpoint = section.optional_section("endpoint", endpoint);
    let verifier_iterations = section.count("verifier_iterations", 4_096..=1_000_000).unwrap_or(4_096);
    let timeout = section.wait("timeout", 30, 1..=600);
    Some(Target {
        driver: driver?,
        connection,
        policies: policies?,
        contexts: contexts?,
        default_ttl,
        max_ttl,
        default_role,
        config: config?,
        roles,
        rotating,
        account_prefix,
        verifier_iterations,
        endpoint,
        timeout,
    })
}

fn endpoint(section: &Section<'_>) -> Endpoint {
    Endpoint {
        scheme: section.parsed("scheme", "what callers speak there, such as \"postgres\" or \"mysql\"", |text| {
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.');
            let fits =
                text.len() <= 32 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(letters);
            if fits { Ok(text.to_owned()) } else { Err("lower-case letters, without ://") }
        }),
        host: section.parsed("host", "a host name or address", |text| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
            let fits = !text.is_empty() && text.len() <= 253 && text.chars().all(plain);
            if fits { Ok(text.to_owned()) } else { Err("1 to 253 letters, digits, '-', '.', ':'") }
        }),
        port: section.count("port", 1..=65_535).and_then(|port| u16::try_from(port).ok()),
        database: section.text("database", "the database's name"),
    }
}

fn policies(target: &str, section: &Section<'_>, known: &Known<'_>) -> Option<Vec<String>> {
    let there = section.entry("policies").is_some();
    let names = if there { section.references("policies", known.policies)? } else { Vec::new() };
    let mode = |name: &String| known.read_policies.get(name).map(|policy| policy.mode);
    // A policy that could not be read may be in force: its own mistake is told already.
    if names.iter().any(|name| mode(name).is_none_or(|mode| mode == Mode::Enforce)) {
        return Some(names);
    }
    let message = if names.is_empty() {
        "no policy: a target needs at least one, or every request would be denied".to_owned()
    } else {
        format!("no policy in force (mode = \"enforce\") among {}: every request would be denied", names.join(", "))
    };
    let span = if there { section.span_of("policies") } else { section.span.clone() };
    section.reading.error(span, message, Some(allow_list(target)));
    None
}

fn allow_list(target: &str) -> String {
    format!(
        "write, for example:\n[plugins.allow-list]\npath = \"plugins/policy-allow-list.wasm\"\n\
         [policies.allow-listed]\nplugin = \"allow-list\"\n\
         [[policies.allow-listed.config.rules]]\nworkload = \"payment-service\"\ntarget = \"{target}\"\n\
         roles = [\"app_read_only\"]\n[targets.{target}]\npolicies = [\"allow-listed\"]"
    )
}

/// Whoever says nothing gets the shorter life.
fn lengths(section: &Section<'_>) -> (Ttl, Ttl) {
    let (default_ttl, max_ttl) = (section.ttl("default_ttl"), section.ttl("max_ttl"));
    let hour = Ttl::from_seconds(3_600).unwrap_or(Ttl::MAX);
    if let (Some(default), Some(max)) = (default_ttl, max_ttl)
        && default > max
    {
        let message = format!("`default_ttl` ({default}) is longer than `max_ttl` ({max})");
        section.error("default_ttl", message, Some("lower the one or raise the other".to_owned()));
    }
    let default = default_ttl.unwrap_or_else(|| max_ttl.map_or(hour, |max| max.min(hour)));
    (default, max_ttl.unwrap_or(default))
}

/// The roles that can be used, and the names of all that are there.
fn roles(target: &str, section: &Section<'_>) -> (BTreeMap<RoleName, serde_json::Value>, Vec<String>) {
    let entries = section.all_entries("roles");
    let mut roles = BTreeMap::new();
    let mut names = Vec::new();
    for (name, value) in &entries {
        names.push(name.get_ref().to_string());
        let role = match RoleName::new(name.get_ref().as_ref()) {
            Ok(role) => role,
            Err(error) => {
                section.reading.error(
                    name.span(),
                    format!("the role's name `{}` {error}", shown(name.get_ref())),
                    None,
                );
                continue;
            }
        };
        if !value.get_ref().is_table() {
            let message = format!(
                "role `{role}` must be a table such as {{ grants = [\"app_read_only\"] }}, not {}",
                super::field::kind(value.get_ref())
            );
            section.reading.error(value.span(), message, None);
        } else if let Some(config) = section.json(name.get_ref(), value) {
            roles.insert(role, config);
        }
    }
    let absent = section.entry("roles").is_none_or(|(_, value)| value.get_ref().is_table());
    if entries.is_empty() && absent {
        let help = format!("write, for example:\n[targets.{target}.roles.app_read_only]\ngrants = [\"app_read_only\"]");
        section.reading.error(section.span.clone(), "no role: there is nothing that could be asked for", Some(help));
    }
    (roles, names)
}

fn default_role(section: &Section<'_>, names: &[String]) -> Option<RoleName> {
    let name = section.text("default_role", "the name of a role of this target")?;
    if !names.contains(&name) {
        let near = spelling::nearest(&name, names.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |near| format!(": did you mean `{}`?", shown(near)));
        let there: Vec<_> = names.iter().take(20).map(|name| shown(name)).collect();
        let help = (!there.is_empty()).then(|| format!("there are: {}", there.join(", ")));
        section.error("default_role", format!("this target has no role `{}`{near}", shown(&name)), help);
        return None;
    }
    RoleName::new(name).ok()
}
