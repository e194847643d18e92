//! One limit: whose requests and leases it is for, how many there may be, and how a request stands to it.

use std::collections::BTreeMap;
use std::fmt;

use jit_plugin::pattern::any_fits;
use jit_plugin::text::shown;
use jit_plugin::usage::{Scope, Uncounted};
use jit_plugin::{ConfigProblem, Name, Pattern, Request, Seconds};
use serde::{Deserialize, de};

use crate::window_problem;

/// A limit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    /// What reasons call it; without one, its place in the list.
    name: Option<Name>,
    /// Of whom it counts.
    per: Scope,
    /// Whose requests it is for; left out, everybody's.
    workloads: Option<Vec<Pattern>>,
    /// The targets that it is for; left out, all.
    targets: Option<Vec<Pattern>>,
    /// How many requests in which window.
    #[serde(default)]
    pub(crate) requests: Windows,
    /// How many live leases.
    leases: Option<u64>,
}

/// Windows, each with its number of requests: `{ 1m = 10, 1h = 100 }`.
#[derive(Debug, Default)]
pub(crate) struct Windows(pub(crate) BTreeMap<Seconds, u64>);

impl<'de> Deserialize<'de> for Windows {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Windows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of windows with numbers of requests, such as { 1m = 10, 1h = 100 }")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Windows, A::Error> {
                let mut windows = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let Some(window) = Seconds::parse(&key) else {
                        let key = shown(&key);
                        let message = format!("unknown window {key}: write a duration such as `1m`, `1h` or `1h30m`");
                        return Err(de::Error::custom(message));
                    };
                    let most = map.next_value::<u64>()?;
                    if windows.insert(window, most).is_some() {
                        let message = format!("has the window of {window} twice: keep one");
                        return Err(de::Error::custom(message));
                    }
                }
                Ok(Windows(windows))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Which kinds of limits a request is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) requests: bool,
    pub(crate) leases: bool,
}

impl Limit {
    /// What the types do not say.
    pub(crate) fn problems(&self, path: &str) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if self.requests.0.is_empty() && self.leases.is_none() {
            let message = "limits nothing: add `requests = { 1h = 100 }`, `leases = 20` or both";
            problems.push(ConfigProblem::new(path, message));
        }
        if self.leases == Some(0) {
            problems.push(ConfigProblem::new(format!("{path}.leases"), NOTHING));
        }
        for (window, most) in &self.requests.0 {
            let at = || format!("{path}.requests.{window}");
            problems.extend((*most == 0).then(|| ConfigProblem::new(at(), NOTHING)));
            problems.extend(window_problem(*window).map(|message| ConfigProblem::new(at(), message)));
        }
        for (key, patterns) in [("workloads", &self.workloads), ("targets", &self.targets)] {
            if patterns.as_ref().is_some_and(Vec::is_empty) {
                let message = format!("is empty, so the limit is for nothing: leave it out for all {key}");
                problems.push(ConfigProblem::new(format!("{path}.{key}"), message));
            }
        }
        problems
    }

    pub(crate) fn is_for(&self, request: &Request) -> bool {
        any_fits(self.workloads.as_deref(), request.workload()) && any_fits(self.targets.as_deref(), request.target())
    }

    /// What it limits, not yet counted; the shortest window first, then leases.
    pub(crate) fn standings(&self, index: usize, held: Held) -> impl Iterator<Item = Standing<'_>> {
        let standing = move |what, most| Standing { limit: self, index, what, most, count: 0 };
        let requests = self.requests.0.iter().filter(move |_| held.requests);
        let leases = self.leases.filter(|_| held.leases);
        requests
            .map(move |(window, most)| standing(What::Requests(*window), *most))
            .chain(leases.map(move |most| standing(What::Leases, most)))
    }
}

const NOTHING: &str = "is 0, which denies everything: write at least 1; the allow-list says who may have nothing";

/// What is counted.
#[derive(Clone, Copy, Debug)]
enum What {
    Requests(Seconds),
    Leases,
}

/// How a request stands to one number of a limit.
#[derive(Debug)]
pub(crate) struct Standing<'l> {
    limit: &'l Limit,
    index: usize,
    what: What,
    most: u64,
    count: u64,
}

impl Standing<'_> {
    /// With what the host counted, this request included.
    pub(crate) fn counted(&self, request: &Request) -> Result<Self, Uncounted> {
        let usage = request.usage();
        let count = match self.what {
            What::Requests(window) => usage.requests(self.limit.per, window.get())?,
            What::Leases => usage.leases(self.limit.per)?,
        };
        Ok(Self { count, ..*self })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.count > self.most
    }

    /// Whether it leaves less, by share.
    pub(crate) fn is_tighter_than(&self, other: &Self) -> bool {
        u128::from(self.count) * u128::from(other.most) > u128::from(other.count) * u128::from(self.most)
    }

    /// ``limit `per service` ``.
    pub(crate) fn limit_name(&self) -> String {
        match &self.limit.name {
            Some(name) => format!("limit `{name}`"),
            None => format!("limit limits[{}]", self.index),
        }
    }

    /// ``limit `per service`: 3 of 10 requests in 1m per workload``.
    pub(crate) fn described(&self) -> String {
        let per = match self.limit.per {
            Scope::WorkloadTarget => "workload and target",
            scope => scope.as_str(),
        };
        let what = match self.what {
            What::Requests(window) => format!("requests in {window}"),
            What::Leases => "live leases".to_owned(),
        };
        format!("{}: {} of {} {what} per {per}", self.limit_name(), self.count, self.most)
    }

    /// For the caller: which limit, how many, and what helps.
    pub(crate) fn why_not(&self, request: &Request) -> String {
        let whose = match self.limit.per {
            Scope::Workload => format!("workload {}", shown(request.workload())),
            Scope::Target => format!("target {}", shown(request.target())),
            Scope::WorkloadTarget => {
                format!("workload {} at target {}", shown(request.workload()), shown(request.target()))
            }
        };
        let help = match self.what {
            What::Requests(window) => format!(
                "requests count for {window}, so try again later; keeping a credential until its lease ends \
                 takes fewer of them"
            ),
            What::Leases => "revoke a lease that is no longer needed, or wait until one ends".to_owned(),
        };
        let (count, most, limit) = (self.count, self.most, self.limit_name());
        match self.what {
            What::Requests(window) => format!(
                "{limit} is reached: {whose} may make {most} requests in {window}, and this is number {count}; {help}"
            ),
            What::Leases => {
                format!("{limit} is reached: {whose} may have {most} live leases, and this makes {count}; {help}")
            }
        }
    }
}
