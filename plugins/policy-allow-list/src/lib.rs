//! Policy `allow-list`: the first rule that fits the workload, the target, the role and the
//! attributes allows, with its conditions; whatever no rule names is denied.
//!
//! ```toml
//! [policies.allow-listed]
//! plugin = "allow-list"
//! mode = "enforce"
//! [[policies.allow-listed.config.rules]]
//! workload = "payment-*"
//! issuer = "cluster-prod"
//! target = "inventory_db"
//! roles = ["app_read_only"]
//! attributes = { env = "prod" }
//! max_ttl = "30m"
//! require_reason = true
//! ```
//!
//! In scope: who may have what. Not in scope: when (time windows) and how often (quotas), which
//! are policies of their own.

mod reason;
mod rule;

use jit_plugin::{Allowance, ConfigProblem, Policy, Request, Verdict};
use serde::Deserialize;

use crate::reason::Progress;
use crate::rule::Rule;

/// More rules than this belong into several policies: each decision reads them all.
const MAX_RULES: usize = 2000;

/// The policy's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Looked at in order; the first that fits decides.
    rules: Vec<Rule>,
}

/// The policy.
#[derive(Debug)]
pub struct AllowList;

impl Policy for AllowList {
    type Config = Config;

    fn validate(config: &Config) -> Vec<ConfigProblem> {
        if config.rules.is_empty() {
            let message = "is empty, which denies everything: add a rule, or leave the policy out";
            return vec![ConfigProblem::new("rules", message)];
        }
        if config.rules.len() > MAX_RULES {
            let message = format!("has more than {MAX_RULES} rules: split it over several policies");
            return vec![ConfigProblem::new("rules", message)];
        }
        let rules = config.rules.iter().enumerate();
        rules.flat_map(|(index, rule)| rule.problems(&format!("rules[{index}]"))).collect()
    }

    fn decide(config: &Config, request: &Request) -> Verdict {
        let mut furthest = Progress::NoRule;
        for (index, rule) in config.rules.iter().enumerate() {
            match rule.progress(request) {
                Progress::Fits => return allow(rule, index),
                progress => furthest = furthest.max(progress),
            }
        }
        Verdict::deny(reason::why_not(&furthest, request))
    }
}

fn allow(rule: &Rule, index: usize) -> Verdict {
    let mut requires = Vec::new();
    if rule.require_reason {
        requires.push("reason".to_owned());
    }
    if rule.require_ticket {
        requires.push("ticket".to_owned());
    }
    let name = match &rule.name {
        Some(name) => name.to_string(),
        None => format!("rules[{index}]"),
    };
    Verdict::Allow(Allowance {
        reason: format!("allowed by {name}"),
        max_ttl_seconds: rule.max_ttl.map(|ttl| ttl.get()),
        role: None,
        requires,
        labels: vec![("rule".to_owned(), name)],
    })
}

jit_plugin::register_policy!(AllowList);

#[cfg(test)]
mod tests;
