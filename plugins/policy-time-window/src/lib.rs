//! Policy `time-window`: a role is given on some days and at some hours of a time zone, and not on
//! holidays.
//!
//! ```toml
//! [policies.business-hours]
//! plugin = "time-window"
//! mode = "enforce"
//! config = { time_zone = "Europe/Berlin", days = ["mon-fri"], from = "08:00", to = "18:00" }
//! ```
//!
//! A window is open when the zone's own clock shows a time within it: daylight saving needs no thought.
//! An hour that a clock skips is never shown; an hour that it repeats is shown twice.
//!
//! In scope: when. Not in scope: who (the allow-list) and how often (quotas).

mod calendar;
mod config;
mod hours;
mod reason;

use jiff::Timestamp;
use jit_plugin::{Allowance, ConfigProblem, Policy, Request, Verdict};

pub use crate::config::Config;
use crate::config::Window;
use crate::hours::Hours;

/// The policy.
#[derive(Debug)]
pub struct TimeWindow;

impl Policy for TimeWindow {
    type Config = Config;

    fn validate(config: &Config) -> Vec<ConfigProblem> {
        config.problems()
    }

    fn decide(config: &Config, request: &Request) -> Verdict {
        let now = i64::try_from(request.time()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let Some(now) = now else {
            return Verdict::deny("the time of the request is none that a calendar has");
        };
        let windows: Vec<Window<'_>> = config.windows().filter(|window| window.is_for(request)).collect();
        match windows.iter().find(|window| window.hours.is_open(now)) {
            Some(window) => allow(config, window, &windows, now, request),
            None => Verdict::deny(reason::why_not(&windows, now, request)),
        }
    }
}

fn allow(config: &Config, open: &Window<'_>, windows: &[Window<'_>], now: Timestamp, request: &Request) -> Verdict {
    let max_ttl_seconds = config.cap_ttl.then(|| {
        let hours: Vec<&Hours<'_>> = windows.iter().map(|window| &window.hours).collect();
        hours::open_seconds(&hours, now, request.ttl_seconds())
    });
    Verdict::Allow(Allowance {
        reason: format!("within {}", open.name),
        max_ttl_seconds: max_ttl_seconds.flatten(),
        labels: vec![("window".to_owned(), open.name.clone())],
        ..Allowance::default()
    })
}

jit_plugin::register_policy!(TimeWindow);

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
