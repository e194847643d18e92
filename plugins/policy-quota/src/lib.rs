//! Policy `quota`: so many requests in a window, and so many live leases, per workload, per target, or
//! per workload and target.
//!
//! ```toml
//! [policies.fair-use]
//! plugin = "quota"
//! mode = "enforce"
//! [[policies.fair-use.config.limits]]
//! name = "per service"
//! per = "workload"
//! requests = { 1m = 10, 1h = 100 }
//! leases = 20
//! ```
//!
//! The host counts, the request itself included, so requests at the same moment cannot slip through
//! together; what it counted is among the request's facts, and this policy compares. A count that is
//! missing or is no number denies (CLOSED).
//!
//! In scope: how often and how many. Not in scope: who (the allow-list) and when (time windows).

mod limit;

use jit_plugin::usage::{MAX_WINDOW, MAX_WINDOWS};
use jit_plugin::{Allowance, ConfigProblem, Policy, Request, Seconds, UsagePolicy, Verdict};
use serde::Deserialize;

use crate::limit::{Held, Limit, Standing};

/// More limits than this belong into several policies: each decision reads them all.
const MAX_LIMITS: usize = 200;

/// The policy's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// All that fit a request must hold.
    limits: Vec<Limit>,
    /// What renewals are held to. They are requests, so the host counts them in any case.
    #[serde(default)]
    renewals: Renewals,
}

/// What renewals are held to.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Renewals {
    /// To the limits of requests. A lease that is renewed is no new one, so it should not be lost
    /// because meanwhile there are as many leases as there may be.
    #[default]
    Requests,
    /// To the limits of requests and of leases.
    All,
    /// To none.
    None,
}

impl Config {
    fn held(&self, operation: &str) -> Held {
        match (operation, self.renewals) {
            ("renew", Renewals::Requests) => Held { requests: true, leases: false },
            ("renew", Renewals::None) => Held { requests: false, leases: false },
            // What is not known is held to everything.
            _ => Held { requests: true, leases: true },
        }
    }
}

/// The policy.
#[derive(Debug)]
pub struct Quota;

impl Policy for Quota {
    type Config = Config;

    fn validate(config: &Config) -> Vec<ConfigProblem> {
        if config.limits.is_empty() {
            let message = "is empty, which limits nothing: add a limit, or leave the policy out";
            return vec![ConfigProblem::new("limits", message)];
        }
        if config.limits.len() > MAX_LIMITS {
            let message = format!("has more than {MAX_LIMITS} limits: split it over several policies");
            return vec![ConfigProblem::new("limits", message)];
        }
        let limits = config.limits.iter().enumerate();
        let mut problems: Vec<_> =
            limits.flat_map(|(index, limit)| limit.problems(&format!("limits[{index}]"))).collect();
        let mut windows: Vec<u64> = Self::windows(config);
        windows.sort_unstable();
        windows.dedup();
        if windows.len() > MAX_WINDOWS {
            let message = format!(
                "have {} different windows, and at most {MAX_WINDOWS} are counted: use the same windows for \
                 several limits, or split them over several policies",
                windows.len()
            );
            problems.push(ConfigProblem::new("limits", message));
        }
        problems
    }

    fn decide(config: &Config, request: &Request) -> Verdict {
        let held = config.held(request.operation());
        let mut tightest: Option<Standing<'_>> = None;
        for (index, limit) in config.limits.iter().enumerate().filter(|(_, limit)| limit.is_for(request)) {
            for standing in limit.standings(index, held) {
                let standing = match standing.counted(request) {
                    Ok(standing) => standing,
                    Err(uncounted) => {
                        let reason = format!("{} cannot be judged, so it denies: {uncounted}", standing.limit_name());
                        return Verdict::deny(reason);
                    }
                };
                if standing.is_over() {
                    return Verdict::deny(standing.why_not(request));
                }
                if tightest.as_ref().is_none_or(|other| standing.is_tighter_than(other)) {
                    tightest = Some(standing);
                }
            }
        }
        let reason = match tightest {
            Some(standing) => format!("within {}", standing.described()),
            None => "no limit is for this request".to_owned(),
        };
        Verdict::Allow(Allowance { reason, ..Allowance::default() })
    }
}

impl UsagePolicy for Quota {
    fn windows(config: &Config) -> Vec<u64> {
        config.limits.iter().flat_map(|limit| limit.requests.0.keys().map(|window| window.get())).collect()
    }
}

/// Why a window cannot be counted.
fn window_problem(window: Seconds) -> Option<String> {
    (window.get() > MAX_WINDOW).then(|| format!("is a window of {window}, and the host counts 31 days at most"))
}

jit_plugin::register_usage_policy!(Quota);

#[cfg(test)]
mod tests;
