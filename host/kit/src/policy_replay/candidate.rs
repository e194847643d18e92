//! A component with its configuration, loaded as the broker loads it and ready to be asked.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use jit_core::policy::{PolicyRecord, PolicyRequest, Verdict};
use jit_runtime::{ConfigFault, ConfiguredPolicy, Plugin, PluginSpec, PolicyPlugin, Runtime};

use jit_assembly::compose;
use jit_config::{Config, ConfigErrors, PluginTable};

/// A policy that is asked about recorded inputs.
#[derive(Debug, Clone)]
pub struct Candidate {
    name: String,
    policy: ConfiguredPolicy,
    config_sha256: String,
    /// The windows whose counts it decides by; none of a policy that decides without.
    windows: Option<Vec<u64>>,
}

impl Candidate {
    /// Loads a component and lets it check its configuration.
    ///
    /// # Errors
    /// With every mistake, at its place in the table's file.
    pub fn load(runtime: &Runtime, name: &str, component: &Path, table: &PluginTable) -> anyhow::Result<Self> {
        let spec = PluginSpec { name: name.to_owned(), path: component.to_owned(), sha256: None, grants: None };
        let plugin = policy(runtime.load(&spec)?)?;
        match plugin.validate(table.json()) {
            Ok(()) => {}
            Err(ConfigFault::Invalid(found)) => {
                let problems = found.into_iter().map(|problem| table.explain(&problem.path, told(&problem))).collect();
                return Err(ConfigErrors::of(problems).into());
            }
            Err(fault) => return Err(fault).context("the policy cannot check its configuration"),
        }
        Self::new(name, plugin, table.json())
    }

    /// Every policy of a broker's configuration, as it is configured now.
    ///
    /// # Errors
    /// When one cannot be loaded or does not take its configuration.
    pub fn of_config(runtime: &Runtime, config: &Config) -> anyhow::Result<Vec<Self>> {
        let mut plugins: BTreeMap<&str, PolicyPlugin> = BTreeMap::new();
        let mut candidates = Vec::new();
        for (name, settings) in &config.policies {
            let plugin = match plugins.get(settings.plugin.as_str()) {
                Some(plugin) => plugin.clone(),
                None => {
                    let of = config.plugins.get(&settings.plugin).context("a policy without a plugin")?;
                    let plugin = policy(runtime.load(&compose::plugin_spec(&settings.plugin, of))?)?;
                    plugins.insert(&settings.plugin, plugin.clone());
                    plugin
                }
            };
            let json = settings.config.to_string();
            plugin.validate(&json).with_context(|| format!("policies.{name}"))?;
            candidates.push(Self::new(name, plugin, &json)?);
        }
        Ok(candidates)
    }

    fn new(name: &str, plugin: PolicyPlugin, config: &str) -> anyhow::Result<Self> {
        let windows = plugin.windows(config)?;
        let config_sha256 = compose::config_sha256(config);
        Ok(Self { name: name.to_owned(), policy: ConfiguredPolicy::new(plugin, config), config_sha256, windows })
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The component's digest, in hexadecimal.
    #[must_use]
    pub fn plugin_sha256(&self) -> &str {
        self.policy.plugin().sha256()
    }

    /// The configuration's digest, in hexadecimal, as records have it.
    #[must_use]
    pub fn config_sha256(&self) -> &str {
        &self.config_sha256
    }

    /// Asks it; what it has decided already it remembers, unless the runtime was told not to.
    ///
    /// # Errors
    /// Why it does not answer, as a broker's denial would say.
    pub fn decide(&self, input: &PolicyRequest) -> Result<Verdict, String> {
        self.policy.ask(input).answer.verdict.map_err(|fault| fault.kind.to_string())
    }

    /// Whether that record is of the same bytes, component and configuration.
    #[must_use]
    pub fn made(&self, record: &PolicyRecord) -> bool {
        record.plugin_sha256 == self.plugin_sha256() && record.config_sha256 == self.config_sha256
    }

    /// Whether what it decides by was counted for that request.
    #[must_use]
    pub fn has_its_counts(&self, input: &PolicyRequest) -> bool {
        let counted = |window: &u64| input.facts.contains_key(&format!("usage.workload.requests.{window}"));
        self.windows
            .as_ref()
            .is_none_or(|windows| input.facts.contains_key("usage.workload.leases") && windows.iter().all(counted))
    }
}

fn policy(plugin: Plugin) -> anyhow::Result<PolicyPlugin> {
    match plugin {
        Plugin::Policy(plugin) => Ok(plugin),
        other => bail!("{} is a {}, not a policy", other.name(), other.kind()),
    }
}

fn told(problem: &jit_runtime::ConfigProblem) -> String {
    match problem.path.as_str() {
        "" => problem.message.clone(),
        path => format!("`{path}` {}", problem.message),
    }
}
