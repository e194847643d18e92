//! `[plugins.NAME]` and `[policies.NAME]`: which components are loaded, and who decides with them.

use std::path::PathBuf;

use jit_core::policy::Mode;

use super::reference::Declared;
use super::section::{Section, shown};
use super::spelling;

/// One component. Whether it is a driver or a policy is what it exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginConfig {
    /// The component.
    pub path: PathBuf,
    /// Its digest; any other bytes are not loaded.
    pub sha256: Option<[u8; 32]>,
    /// What it may import, of [`CAPABILITIES`]; none is what it imports of its world, an empty list nothing.
    pub grants: Option<Vec<String>>,
}

/// What can be granted: the imports of the contract's worlds.
pub const CAPABILITIES: [&str; 6] = ["log", "secrets", "sql", "session", "http", "ldap"];

/// One policy: a plugin with a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The name under `[plugins]`.
    pub plugin: String,
    /// How much it counts, by default [`Mode::Enforce`].
    pub mode: Mode,
    /// The plugin's own; always an object. Stands at the path `policies.NAME.config`.
    pub config: serde_json::Value,
}

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
    for grant in grants.iter().flatten().filter(|grant| !CAPABILITIES.contains(&grant.as_str())) {
        let near =
            spelling::nearest(grant, CAPABILITIES).map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
        let help = format!("there are: {}", CAPABILITIES.join(", "));
        section.error("grants", format!("there is no capability `{}`{near}", shown(grant)), Some(help));
    }
    Some(PluginConfig { path: path?, sha256, grants })
}

pub(super) fn policy(section: &Section<'_>, plugins: &Declared<'_>) -> Option<Policy> {
    section.demand("plugin", "plugin = \"allow-list\" (the name of a [plugins.NAME])");
    let plugin = section.reference("plugin", plugins);
    let mode = section.choice("mode", &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow), ("off", Mode::Off)]);
    let config = section.json_table("config");
    Some(Policy { plugin: plugin?, mode: mode.unwrap_or_default(), config: config? })
}
