//! `[plugins.NAME]`, `[policies.NAME]` and `[contexts.NAME]`: which components are loaded, who decides
//! with them, and who gathers facts for that.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jit_contract::Capability;
use jit_core::glob::Glob;
use jit_core::policy::Mode;
use jit_core::rollout::{Rollout, Share};

use jit_core::policy::OnFailure;

use super::reference::Declared;
use super::section::{Section, shown};
use jit_core::spelling;

/// One component. Whether it is a driver or a policy is what it exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginConfig {
    /// The component.
    pub path: PathBuf,
    /// Its digest; any other bytes are not loaded.
    pub sha256: Option<[u8; 32]>,
    /// What it may import, of [`Capability::words`]; none is what it imports of its world, an empty list nothing.
    pub grants: Option<Vec<String>>,
}

/// One policy: a plugin with a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The name under `[plugins]`.
    pub plugin: String,
    /// How much it counts, by default [`Mode::Enforce`].
    pub mode: Mode,
    /// For whom it counts already; none is everybody.
    pub rollout: Option<Rollout>,
    /// The plugin's own; always an object. Stands at the path `policies.NAME.config`.
    pub config: serde_json::Value,
}

/// What a pattern is, for messages.
const PATTERN: &str = "a pattern such as \"payment-*\"";

pub(super) fn plugin(name: &str, section: &Section<'_>) -> Option<PluginConfig> {
    section.demand("path", &format!("path = \"plugins/{name}.wasm\""));
    let path = section.path("path");
    let sha256 = section.parsed("sha256", "64 hexadecimal digits, as `sha256sum` prints them", |text| {
        let mut digest = [0_u8; 32];
        match hex::decode_to_slice(text, &mut digest) {
            Ok(()) => Ok(digest),
            Err(_) if text.chars().count() == 64 => Err("it has other characters".to_owned()),
            Err(_) => Err(format!("it has {} characters", text.chars().count())),
        }
    });
    let grants = section.texts("grants", "a list such as [\"log\", \"sql\"]");
    for grant in grants.iter().flatten().filter(|grant| Capability::from_word(grant).is_none()) {
        let near = spelling::nearest(grant, Capability::words())
            .map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
        let help = format!("there are: {}", Capability::words().collect::<Vec<_>>().join(", "));
        section.error("grants", format!("there is no capability `{}`{near}", shown(grant)), Some(help));
    }
    Some(PluginConfig { path: path?, sha256, grants })
}

pub(super) fn policy(section: &Section<'_>, plugins: &Declared<'_>) -> Option<Policy> {
    section.demand("plugin", "plugin = \"allow-list\" (the name of a [plugins.NAME])");
    let plugin = section.reference("plugin", plugins);
    let mode = section.choice("mode", &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow), ("off", Mode::Off)]);
    let mode = mode.unwrap_or_default();
    let rollout = section.optional_section("rollout", rollout).flatten();
    if rollout.is_some() && mode != Mode::Enforce {
        let message =
            format!("`rollout` says for whom a policy is enforced, and this one has mode = \"{}\"", mode.as_str());
        section.error("rollout", message, Some("leave `rollout` out, or write mode = \"enforce\"".to_owned()));
    }
    let config = section.json_table("config");
    Some(Policy { plugin: plugin?, mode, rollout, config: config? })
}

/// For whom a policy counts already.
fn rollout(section: &Section<'_>) -> Option<Rollout> {
    let share = match section.entry("percent") {
        None => Some(Share::ALL),
        Some(_) => section.percent("percent").and_then(Share::from_percent),
    };
    let matching = section.optional_section("match", |section| {
        let pattern = |key| section.parsed(key, PATTERN, |text| Glob::new(text).map_err(|error| format!("it {error}")));
        let (workload, issuer, target) = (pattern("workload"), pattern("issuer"), pattern("target"));
        Rollout { share: Share::ALL, workload, issuer, target, attributes: attributes(section) }
    });
    let everybody =
        Rollout { share: Share::ALL, workload: None, issuer: None, target: None, attributes: BTreeMap::new() };
    Some(Rollout { share: share?, ..matching.unwrap_or(everybody) })
}

fn attributes(section: &Section<'_>) -> BTreeMap<String, Glob> {
    let mut attributes = BTreeMap::new();
    for (name, value) in section.all_entries("attributes") {
        let pattern = value.get_ref().as_str().map(Glob::new);
        match pattern {
            Some(Ok(pattern)) => {
                attributes.insert(name.get_ref().to_string(), pattern);
            }
            Some(Err(error)) => {
                let message = format!("the pattern of attribute `{}` {error}", shown(name.get_ref()));
                section.reading.error(value.span(), message, None);
            }
            None => {
                let (name, found) = (shown(name.get_ref()), super::field::kind(value.get_ref()));
                let message = format!("attribute `{name}` must be {PATTERN}, not {found}");
                section.reading.error(value.span(), message, None);
            }
        }
    }
    attributes
}

/// `[contexts.NAME]`: a provider of facts.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// The name under `[plugins]`.
    pub plugin: String,
    /// The name under `[connections]` of what it asks; kind `http`.
    pub connection: Option<String>,
    /// Deadline of one call, its requests included: `1s` to `30s`, by default 2 s.
    pub timeout: Duration,
    /// How long its facts are good for, `1s` to `1h`, by default 30 s; zero (`cache = false`) asks for
    /// each request.
    pub fresh_for: Duration,
    /// What its failure means, by default [`OnFailure::Deny`].
    pub on_failure: OnFailure,
    /// The plugin's own; always an object. Stands at the path `contexts.NAME.config`.
    pub config: serde_json::Value,
}

/// Facts are `NAME.fact`: this is the host's own.
const RESERVED: &str = "usage";

pub(super) fn context(
    name: &str,
    section: &Section<'_>,
    plugins: &Declared<'_>,
    connections: &Declared<'_>,
) -> Option<Context> {
    if name == RESERVED {
        let message =
            format!("a context provider cannot be called `{RESERVED}`: facts of that name are the broker's own counts");
        section.reading.error(section.span.clone(), message, Some("give it another name".to_owned()));
    }
    section.demand("plugin", "plugin = \"posture\" (the name of a [plugins.NAME])");
    let plugin = section.reference("plugin", plugins);
    let connection = section.reference("connection", connections);
    let timeout = section.wait("timeout", 2, 1..=30);
    let fresh_for = section.wait("cache_ttl", 30, 1..=3_600);
    let cached = section.flag("cache").unwrap_or(true);
    if !cached && section.entry("cache_ttl").is_some() {
        section.error("cache_ttl", "`cache_ttl` has no meaning with cache = false", None);
    }
    let on_failure =
        section.choice("on_failure", &[("deny", OnFailure::Deny), ("allow", OnFailure::Allow)]).unwrap_or_default();
    let config = section.json_table("config");
    Some(Context {
        plugin: plugin?,
        connection,
        timeout,
        fresh_for: if cached { fresh_for } else { Duration::ZERO },
        on_failure,
        config: config?,
    })
}
