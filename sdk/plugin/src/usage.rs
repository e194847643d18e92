//! Policies that judge by what was asked before and by what is live. The host counts; the policy
//! stays a pure function of its configuration and its input (PURE-POLICY).
//!
//! ```
//! use jit_plugin::usage::Scope;
//! use jit_plugin::{Policy, Request, UsagePolicy, Verdict};
//!
//! /// At most so many requests of a workload in an hour.
//! struct Hourly;
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     most: u64,
//! }
//!
//! impl Policy for Hourly {
//!     type Config = Config;
//!
//!     fn decide(config: &Config, request: &Request) -> Verdict {
//!         match request.usage().requests(Scope::Workload, 3600) {
//!             Ok(count) if count <= config.most => Verdict::allow(),
//!             Ok(count) => Verdict::deny(format!("request {count} of this hour, and {} may be made", config.most)),
//!             // What is not known is not allowed (CLOSED).
//!             Err(uncounted) => Verdict::deny(uncounted.to_string()),
//!         }
//!     }
//! }
//!
//! impl UsagePolicy for Hourly {
//!     fn windows(_: &Config) -> Vec<u64> {
//!         vec![3600]
//!     }
//! }
//!
//! jit_plugin::register_usage_policy!(Hourly);
//!
//! # fn main() {
//! let config = Config { most: 2 };
//! let third = jit_plugin::testing::request().with_requests(Scope::Workload, 3600, 3);
//! assert!(matches!(Hourly::decide(&config, &third), Verdict::Deny(_)));
//! # }
//! ```

use std::fmt;
use std::marker::PhantomData;

use crate::bindings::usage::exports::jit::plugin::usage::Guest;
use crate::policy::Policy;
use crate::prepared;
use crate::request::Request;
use crate::text::shown;

/// The longest window in seconds that the host counts: 31 days.
pub const MAX_WINDOW: u64 = 31 * 86_400;

/// The most windows that the host counts for one policy.
pub const MAX_WINDOWS: usize = 8;

/// A policy for which the host counts requests and live leases.
pub trait UsagePolicy: Policy {
    /// The windows, in seconds, whose requests the configuration needs counted: at most
    /// [`MAX_WINDOWS`], each at most [`MAX_WINDOW`]. One that is named twice counts once. Live leases
    /// are counted in any case. Called at load, on a prepared policy.
    fn windows(config: &Self::Config) -> Vec<u64>;
}

/// Of whom the requests and leases are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Of this workload, of all targets.
    Workload,
    /// Of this workload, of this target.
    WorkloadTarget,
    /// Of anybody, of this target.
    Target,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Workload, Self::WorkloadTarget, Self::Target];

    /// As in the names of the facts and in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::WorkloadTarget => "workload_target",
            Self::Target => "target",
        }
    }

    pub(crate) fn requests_fact(self, window: u64) -> String {
        format!("usage.{}.requests.{window}", self.as_str())
    }

    pub(crate) fn leases_fact(self) -> String {
        format!("usage.{}.leases", self.as_str())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A count that the host did not give, or gave as something that is no count. Deny: what is not
/// known is not allowed (CLOSED).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncounted {
    /// The fact's name.
    pub fact: String,
    /// What was there instead of a number.
    pub found: Option<String>,
}

impl fmt::Display for Uncounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            None => write!(f, "the host gave no count {}", shown(&self.fact)),
            Some(found) => write!(f, "the host's count {} is {}, which is no number", shown(&self.fact), shown(found)),
        }
    }
}

impl std::error::Error for Uncounted {}

/// What the host counted, the request itself included.
#[derive(Clone, Copy, Debug)]
pub struct Usage<'r>(&'r Request<'r>);

impl Request<'_> {
    /// What the host counted for this request.
    pub fn usage(&self) -> Usage<'_> {
        Usage(self)
    }
}

impl Usage<'_> {
    /// How many requests there were in the window, this one included. The window, in seconds, must be
    /// among those of [`UsagePolicy::windows`].
    ///
    /// # Errors
    /// [`Uncounted`]
    pub fn requests(self, scope: Scope, window: u64) -> Result<u64, Uncounted> {
        self.count(scope.requests_fact(window))
    }

    /// How many leases are live, the one that is asked for included.
    ///
    /// # Errors
    /// [`Uncounted`]
    pub fn leases(self, scope: Scope) -> Result<u64, Uncounted> {
        self.count(scope.leases_fact())
    }

    fn count(self, fact: String) -> Result<u64, Uncounted> {
        let Some(text) = self.0.fact(&fact) else {
            return Err(Uncounted { fact, found: None });
        };
        // `parse` takes a `+` too, which the contract does not have.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match digits.then(|| text.parse()) {
            Some(Ok(count)) => Ok(count),
            _ => Err(Uncounted { fact, found: Some(text.to_owned()) }),
        }
    }
}

/// What [`crate::register_usage_policy!`] exports beside the policy.
#[doc(hidden)]
pub struct Exported<P>(PhantomData<P>);

impl<P: UsagePolicy> Guest for Exported<P> {
    fn windows() -> Result<Option<Vec<u64>>, String> {
        crate::panic::install();
        let config = prepared::config::<P::Config>()?;
        windows::<P>(&config).map(Some)
    }
}

/// Each once, in order.
fn windows<P: UsagePolicy>(config: &P::Config) -> Result<Vec<u64>, String> {
    let mut windows = P::windows(config);
    windows.sort_unstable();
    windows.dedup();
    match windows.iter().find(|window| !(1..=MAX_WINDOW).contains(*window)) {
        Some(window) => Err(format!("a window of {window} s: it is 1 to {MAX_WINDOW} s (31 days)")),
        None if windows.len() > MAX_WINDOWS => {
            Err(format!("{} windows: at most {MAX_WINDOWS} are counted", windows.len()))
        }
        None => Ok(windows),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]
    use super::*;
    use crate::policy::Verdict;
    use crate::testing::request;

    #[test]
    fn counts_are_read_by_scope_and_window() {
        let request = request()
            .with_requests(Scope::Workload, 3600, 7)
            .with_requests(Scope::Target, 60, 2)
            .with_leases(Scope::WorkloadTarget, 3);
        assert_eq!(request.usage().requests(Scope::Workload, 3600), Ok(7));
        assert_eq!(request.usage().requests(Scope::Target, 60), Ok(2));
        assert_eq!(request.usage().leases(Scope::WorkloadTarget), Ok(3));
        assert_eq!(request.fact("usage.workload.requests.3600"), Some("7"));
        assert_eq!(request.fact("usage.workload_target.leases"), Some("3"));

        let missing = request.usage().requests(Scope::Workload, 60).unwrap_err();
        assert_eq!(missing.to_string(), "the host gave no count `usage.workload.requests.60`");
    }

    #[test]
    fn what_is_no_number_is_no_count() {
        for text in ["", "+1", "-1", "1.0", " 1", "1 ", "0x1", "١", "many", "18446744073709551616"] {
            let request = request().with_fact("usage.target.leases", text);
            let uncounted = request.usage().leases(Scope::Target).unwrap_err();
            assert_eq!(uncounted.found.as_deref(), Some(text));
            assert!(uncounted.to_string().contains("no number"));
        }
        let most = request().with_fact("usage.target.leases", "18446744073709551615");
        assert_eq!(most.usage().leases(Scope::Target), Ok(u64::MAX));
    }

    struct Fixed;

    impl Policy for Fixed {
        type Config = Vec<u64>;

        fn decide(_: &Vec<u64>, _: &Request) -> Verdict {
            Verdict::allow()
        }
    }

    impl UsagePolicy for Fixed {
        fn windows(config: &Vec<u64>) -> Vec<u64> {
            config.clone()
        }
    }

    #[test]
    fn windows_are_each_named_once_and_within_the_contract() {
        assert_eq!(windows::<Fixed>(&vec![3600, 60, 3600]), Ok(vec![60, 3600]));
        assert_eq!(windows::<Fixed>(&vec![]), Ok(vec![]));
        assert!(windows::<Fixed>(&vec![0]).unwrap_err().contains("0 s"));
        assert!(windows::<Fixed>(&vec![MAX_WINDOW]).is_ok());
        assert!(windows::<Fixed>(&vec![MAX_WINDOW + 1]).is_err());
        assert!(windows::<Fixed>(&(1..=8).collect()).is_ok());
        assert!(windows::<Fixed>(&(1..=9).collect()).unwrap_err().contains("9 windows"));
    }

    /// The numbers stand in the contract's text too.
    #[test]
    fn the_bounds_are_those_of_the_wit() {
        let wit = include_str!("../../../wit/usage.wit");
        assert!(wit.contains(&MAX_WINDOW.to_string()) && wit.contains("at most eight"));
    }
}
