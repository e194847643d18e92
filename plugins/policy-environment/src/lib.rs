//! Policy `environment`: a workload of one environment never gets a role of another, whatever the
//! backend would allow.
//!
//! ```toml
//! [policies.environments]
//! plugin = "environment"
//! mode = "enforce"
//! [[policies.environments.config.targets]]
//! environment = "prod"
//! targets = ["*_prod", "inventory_db"]
//! [[policies.environments.config.targets]]
//! environment = "dev"
//! targets = ["*_dev"]
//! ```
//!
//! An environment that is not known, of the workload or of what it asks for, denies (CLOSED).
//! Exceptions are explicit, and of one direction.

mod reason;
mod side;

use std::collections::{BTreeMap, BTreeSet};

use jit_plugin::pattern::any_fits;
use jit_plugin::{Allowance, ConfigProblem, Name, Pattern, Policy, Request, Verdict};
use serde::Deserialize;

use crate::side::{Known, Unknown};

/// More entries than this belong into several policies: each decision reads them all.
const MAX_ENTRIES: usize = 1000;

/// The policy's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The attribute of the identity that tells the workload's environment.
    #[serde(default = "env")]
    attribute: String,
    /// The attribute's values of each environment; left out, a value is the environment's own name.
    workloads: Option<BTreeMap<Name, Vec<Pattern>>>,
    /// Which environment a target, or a role of it, belongs to: the first entry that fits.
    targets: Vec<TargetEntry>,
    /// Who may cross, and where to.
    #[serde(default)]
    exceptions: Vec<Exception>,
}

fn env() -> String {
    "env".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetEntry {
    environment: Name,
    targets: Vec<Pattern>,
    /// Left out, all roles.
    roles: Option<Vec<Pattern>>,
}

/// Workloads of `from` may have roles of `to`; never the other way by this.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    /// What the audit record calls it.
    name: Option<Name>,
    from: Name,
    to: Name,
    workloads: Option<Vec<Pattern>>,
    targets: Option<Vec<Pattern>>,
    roles: Option<Vec<Pattern>>,
}

impl Exception {
    fn fits(&self, from: &str, to: &str, request: &Request) -> bool {
        self.from.as_str() == from
            && self.to.as_str() == to
            && any_fits(self.workloads.as_deref(), request.workload())
            && any_fits(self.targets.as_deref(), request.target())
            && any_fits(self.roles.as_deref(), request.role())
    }
}

/// The policy.
#[derive(Debug)]
pub struct Environment;

impl Policy for Environment {
    type Config = Config;

    fn validate(config: &Config) -> Vec<ConfigProblem> {
        config.problems()
    }

    fn decide(config: &Config, request: &Request) -> Verdict {
        let (workload, target) = match (config.of_workload(request), config.of_target(request)) {
            (Ok(workload), Ok(target)) => (workload, target),
            (Err(unknown), _) | (_, Err(unknown)) => return Verdict::deny(reason::unknown(config, &unknown, request)),
        };
        if workload == target {
            return allow(format!("both of environment `{target}`"), target, None);
        }
        let fits = |(_, exception): &(usize, &Exception)| exception.fits(workload, target, request);
        match config.exceptions.iter().enumerate().find(fits) {
            Some((index, exception)) => {
                let name = match &exception.name {
                    Some(name) => name.to_string(),
                    None => format!("exceptions[{index}]"),
                };
                allow(format!("from `{workload}` to `{target}` by exception {name}"), target, Some(name))
            }
            None => Verdict::deny(reason::crossing(config, workload, target, request)),
        }
    }
}

fn allow(reason: String, environment: Known<'_>, exception: Option<String>) -> Verdict {
    let mut labels = vec![("environment".to_owned(), environment.to_owned())];
    labels.extend(exception.map(|name| ("environment_exception".to_owned(), name)));
    Verdict::Allow(Allowance { reason, labels, ..Allowance::default() })
}

impl Config {
    fn of_workload<'c>(&'c self, request: &'c Request) -> Result<Known<'c>, Unknown> {
        let value = request.attribute(&self.attribute).ok_or(Unknown::NoAttribute)?;
        match &self.workloads {
            None => self.environments().get(value).copied().ok_or(Unknown::Value),
            Some(environments) => side::only(environments, value),
        }
    }

    fn of_target(&self, request: &Request) -> Result<Known<'_>, Unknown> {
        let fits = |entry: &&TargetEntry| {
            any_fits(Some(&entry.targets), request.target()) && any_fits(entry.roles.as_deref(), request.role())
        };
        self.targets.iter().find(fits).map(|entry| entry.environment.as_str()).ok_or(Unknown::Target)
    }

    /// All environments that the configuration names, but for those that only exceptions do.
    fn environments(&self) -> BTreeSet<&str> {
        let of_targets = self.targets.iter().map(|entry| entry.environment.as_str());
        let of_workloads = self.workloads.iter().flatten().map(|(name, _)| name.as_str());
        of_targets.chain(of_workloads).collect()
    }

    fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut problem = |path: String, message: &str| problems.push(ConfigProblem::new(path, message));
        if self.attribute.is_empty() || self.attribute.chars().any(char::is_control) {
            problem("attribute".into(), "is no attribute's name: write one that the identity's configuration maps");
        }
        if self.targets.is_empty() {
            problem("targets".into(), "is empty, which denies everything: say which environment each target is of");
        }
        let patterns = self.workloads.iter().flatten().map(|(_, patterns)| patterns.len()).sum::<usize>();
        if self.targets.len() + self.exceptions.len() + patterns > MAX_ENTRIES {
            problem(String::new(), "has more than 1000 entries: split it over several policies");
        }
        for (name, patterns) in self.workloads.iter().flatten() {
            if patterns.is_empty() {
                problem(format!("workloads.{name}"), "is empty: write the attribute's values, such as [\"prod\"]");
            }
        }
        for (index, entry) in self.targets.iter().enumerate() {
            if entry.targets.is_empty() {
                problem(format!("targets[{index}].targets"), "is empty: name targets, or write [\"*\"]");
            }
            if entry.roles.as_ref().is_some_and(Vec::is_empty) {
                problem(format!("targets[{index}].roles"), "is empty: name roles, or leave it out for all");
            }
        }
        let known = self.environments();
        for (index, exception) in self.exceptions.iter().enumerate() {
            let path = format!("exceptions[{index}]");
            if exception.from == exception.to {
                problem(path.clone(), "is from an environment to itself, which needs no exception");
            }
            for (key, name) in [("from", &exception.from), ("to", &exception.to)] {
                if !known.contains(name.as_str()) {
                    let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                    let message = format!("is no environment that is known here: write one of {}", known.join(", "));
                    problem(format!("{path}.{key}"), &message);
                }
            }
            for (key, patterns) in
                [("workloads", &exception.workloads), ("targets", &exception.targets), ("roles", &exception.roles)]
            {
                if patterns.as_ref().is_some_and(Vec::is_empty) {
                    problem(format!("{path}.{key}"), "is empty, so it is for nothing: leave it out for all");
                }
            }
        }
        problems
    }
}

jit_plugin::register_policy!(Environment);

#[cfg(test)]
mod tests;
