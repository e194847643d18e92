//! Fixture: answers as its configuration says, by what it is told of the request.
//!
//! ```toml
//! [[policies.p.config.rules]]
//! when = { workload = "payment-service", facts = { "posture.score" = "90" } }
//! max_ttl_seconds = 600
//! [[policies.p.config.rules]]
//! deny = "everybody else"
//! ```

use std::collections::BTreeMap;

use jit_plugin::{Allowance, Policy, Request, Verdict};
use serde::Deserialize;

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The first that fits answers; none denies.
    rules: Vec<Rule>,
}

/// One answer.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rule {
    when: When,
    deny: Option<String>,
    reason: String,
    max_ttl_seconds: Option<u64>,
    role: Option<String>,
    requires: Vec<String>,
    labels: BTreeMap<String, String>,
}

/// What must be so.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct When {
    operation: Option<String>,
    workload: Option<String>,
    role: Option<String>,
    attributes: BTreeMap<String, String>,
    facts: BTreeMap<String, String>,
    caller_address: Option<String>,
    resource: BTreeMap<String, String>,
}

/// The policy.
#[derive(Debug)]
pub struct Scripted;

impl When {
    fn fits(&self, request: &Request) -> bool {
        // Nothing is read that no rule names.
        self.operation.as_ref().is_none_or(|wanted| wanted == request.operation())
            && self.workload.as_ref().is_none_or(|wanted| wanted == request.workload())
            && self.role.as_ref().is_none_or(|wanted| wanted == request.role())
            && self.caller_address.as_deref().is_none_or(|wanted| request.caller_address() == Some(wanted))
            && self.resource.iter().all(|(name, value)| request.resource(name) == Some(value))
            && self.attributes.iter().all(|(name, value)| request.attribute(name) == Some(value))
            && self.facts.iter().all(|(name, value)| request.fact(name) == Some(value))
    }
}

impl Policy for Scripted {
    type Config = Config;

    fn decide(config: &Config, request: &Request) -> Verdict {
        let Some(rule) = config.rules.iter().find(|rule| rule.when.fits(request)) else {
            return Verdict::deny("no rule fits");
        };
        match &rule.deny {
            Some(reason) => Verdict::deny(reason.clone()),
            None => Verdict::Allow(Allowance {
                reason: rule.reason.clone(),
                max_ttl_seconds: rule.max_ttl_seconds,
                role: rule.role.clone(),
                requires: rule.requires.clone(),
                labels: rule.labels.clone().into_iter().collect(),
            }),
        }
    }
}

jit_plugin::register_policy!(Scripted);
