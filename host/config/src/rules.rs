//! Rules of an allow-list that can never fit: they name a target, a role or an issuer that is not there.
//!
//! A policy is a plugin, and what its configuration means is its own. This looks only at what is shaped as
//! the rules of `allow-list` are (a list of tables with `workload` and `target`), and only warns.

use std::collections::BTreeSet;

use serde_json::Value;

use super::problem::{Problem, Severity};
use super::section::shown;
use jit_core::spelling;

use super::Config;

/// The most warnings of one file.
const MOST: usize = 50;

impl Config {
    /// Warnings, each at its line.
    #[must_use]
    pub fn rules_that_never_fit(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        for (name, policy) in &self.policies {
            let rules = policy.config.get("rules").and_then(Value::as_array);
            for (index, rule) in rules.into_iter().flatten().enumerate() {
                if rule.get("workload").is_some() && rule.get("target").is_some() {
                    self.look_at(rule, &format!("policies.{name}.config.rules[{index}]"), &mut found);
                }
            }
        }
        found.truncate(MOST);
        found
    }

    fn look_at(&self, rule: &Value, at: &str, found: &mut Vec<Problem>) {
        let mut warn = |path: String, what: &str, word: &str, known: &BTreeSet<&str>| {
            let near = spelling::nearest(word, known.iter().copied());
            let near = near.map_or_else(String::new, |near| format!(": did you mean `{}`?", shown(near)));
            let message = format!("this rule never fits: {what} `{}`{near}", shown(word));
            let mut problem = self.explain(&path, message);
            problem.severity = Severity::Warning;
            found.push(problem);
        };
        let issuers: BTreeSet<&str> = self.identity.jwt.iter().map(|issuer| issuer.name.as_str()).collect();
        if let Some(word) = literal(rule.get("issuer"))
            && !issuers.is_empty()
            && !issuers.contains(word)
        {
            warn(format!("{at}.issuer"), "there is no issuer", word, &issuers);
        }
        let targets: BTreeSet<&str> = self.targets.keys().map(|name| name.as_str()).collect();
        let one = literal(rule.get("target"));
        if let Some(word) = one
            && !targets.contains(word)
        {
            warn(format!("{at}.target"), "there is no target", word, &targets);
            return;
        }
        // Of the one target that it names, or else of any.
        let fits = |name: &str| one.is_none_or(|one| one == name);
        let roles: BTreeSet<&str> = self
            .targets
            .iter()
            .filter(|(name, _)| fits(name.as_str()))
            .flat_map(|(_, target)| target.roles.keys().map(|role| role.as_str()))
            .collect();
        let asked = rule.get("roles").and_then(Value::as_array);
        for (index, role) in asked.into_iter().flatten().enumerate() {
            if let Some(word) = literal(Some(role))
                && !roles.contains(word)
            {
                let what = one.map_or("no target has a role".to_owned(), |one| format!("{} has no role", shown(one)));
                warn(format!("{at}.roles[{index}]"), &what, word, &roles);
            }
        }
    }
}

/// A text that stands for itself and is no pattern.
fn literal(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str).filter(|text| !text.contains(['*', '?', '[', '{']))
}
