//! UNTRUSTED-ANSWER: every value that a plugin returns is checked here before anything uses it.
//!
//! Texts that are only shown are cut and escaped. Values that something is decided by (names,
//! times, labels) are taken whole or refused.

use std::collections::BTreeMap;

use jit_core::name::RoleName;
use jit_core::policy::{Allowance, Requirement, Verdict};
use jit_core::ttl::Ttl;

use crate::bindings::{policy, types};
use crate::fault::{ConfigProblem, FaultKind};
use crate::limits::Limits;
use crate::text::{escape, is_plain};

/// Most problems of a configuration that are passed on.
const PROBLEMS: usize = 20;

/// Most dependents that are passed on.
const DEPENDENTS: usize = 100;

/// Longest name of something in a backend, in bytes.
pub(crate) const BACKEND_NAME: usize = 256;

/// An answer that cannot be used.
pub(crate) fn refuse(why: impl Into<String>) -> FaultKind {
    FaultKind::Answer(why.into())
}

/// A text for people: cut and escaped.
pub(crate) fn reason(text: &str, limits: &Limits) -> String {
    escape(text, limits.reason_bytes)
}

/// A policy's verdict.
pub(crate) fn verdict(verdict: policy::Verdict, limits: &Limits) -> Result<Verdict, FaultKind> {
    match verdict {
        policy::Verdict::Deny(text) => {
            let text = reason(&text, limits);
            Ok(Verdict::Deny(if text.trim().is_empty() { "denied without a reason".to_owned() } else { text }))
        }
        policy::Verdict::Allow(allowance) => Ok(Verdict::Allow(self::allowance(allowance, limits)?)),
    }
}

fn allowance(allowance: policy::Allowance, limits: &Limits) -> Result<Allowance, FaultKind> {
    let max_ttl = allowance.max_ttl_seconds.map(|seconds| {
        // A cap above the longest life caps nothing that can be asked for, and is no mistake.
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX).min(i64::from(Ttl::MAX.seconds()));
        Ttl::from_seconds(seconds).map_err(|error| refuse(format!("max-ttl-seconds {error}")))
    });
    let role = allowance.role.map(|role| {
        let shown = escape(&role, 64);
        RoleName::new(role).map_err(|error| refuse(format!("role {shown:?} {error}")))
    });
    if allowance.requires.len() > limits.pairs {
        return Err(refuse(format!("more than {} requirements", limits.pairs)));
    }
    let requires = allowance.requires.iter().map(|word| {
        Requirement::from_word(word).ok_or_else(|| refuse(format!("unknown requirement {:?}", escape(word, 64))))
    });
    Ok(Allowance {
        reason: reason(&allowance.reason, limits),
        max_ttl: max_ttl.transpose()?,
        role: role.transpose()?,
        requires: requires.collect::<Result<_, _>>()?,
        labels: pairs("label", allowance.labels, limits)?.into_iter().collect(),
    })
}

/// A list of names and values: short, plain, each name once.
pub(crate) fn pairs(
    what: &str,
    pairs: Vec<(String, String)>,
    limits: &Limits,
) -> Result<Vec<(String, String)>, FaultKind> {
    if pairs.len() > limits.pairs {
        return Err(refuse(format!("{} {what}s, at most {} are taken", pairs.len(), limits.pairs)));
    }
    let mut seen = BTreeMap::new();
    for (name, value) in &pairs {
        let shown = escape(name, 64);
        if name.is_empty() || name.len() > limits.pair_name_bytes || !is_plain(name) {
            return Err(refuse(format!("{what} name {shown:?} is empty, too long or has control characters")));
        }
        if value.len() > limits.pair_value_bytes || !is_plain(value) {
            return Err(refuse(format!("the value of {what} {shown:?} is too long or has control characters")));
        }
        if seen.insert(name.as_str(), ()).is_some() {
            return Err(refuse(format!("{what} {shown:?} twice")));
        }
    }
    Ok(pairs)
}

/// Problems of a configuration. At least one.
pub(crate) fn problems(problems: Vec<types::ConfigProblem>, limits: &Limits) -> Vec<ConfigProblem> {
    let more = problems.len().saturating_sub(PROBLEMS);
    let mut checked: Vec<_> = problems
        .into_iter()
        .take(PROBLEMS)
        .map(|problem| ConfigProblem { path: escape(&problem.path, 256), message: reason(&problem.message, limits) })
        .collect();
    if more > 0 {
        checked.push(ConfigProblem { path: String::new(), message: format!("and {more} more") });
    }
    if checked.is_empty() {
        checked.push(ConfigProblem { path: String::new(), message: "refused without a reason".to_owned() });
    }
    checked
}

/// What holds an account in place, for people.
pub(crate) fn dependents(list: Vec<String>) -> Vec<String> {
    let more = list.len().saturating_sub(DEPENDENTS);
    let mut checked: Vec<_> = list.iter().take(DEPENDENTS).map(|name| escape(name, BACKEND_NAME)).collect();
    if more > 0 {
        checked.push(format!("and {more} more"));
    }
    checked
}

/// A name that a backend uses.
pub(crate) fn backend_name(what: &str, name: &str) -> Result<(), FaultKind> {
    if name.is_empty() || name.len() > BACKEND_NAME || !is_plain(name) {
        return Err(refuse(format!("{what} {:?} is empty, too long or has control characters", escape(name, 64))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn allow(change: impl FnOnce(&mut policy::Allowance)) -> Result<Verdict, FaultKind> {
        let mut allowance = policy::Allowance {
            reason: String::new(),
            max_ttl_seconds: None,
            role: None,
            requires: Vec::new(),
            labels: Vec::new(),
        };
        change(&mut allowance);
        verdict(policy::Verdict::Allow(allowance), &Limits::default())
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_good_allowance_is_taken_whole() {
        let good = allow(|a| {
            a.reason = "team\nowns it".to_owned();
            a.max_ttl_seconds = Some(600);
            a.role = Some("app_read_only".to_owned());
            a.requires = vec!["ticket".to_owned()];
            a.labels = vec![pair("team", "payments")];
        });
        let Verdict::Allow(good) = good.unwrap() else { panic!("a yes became a no") };
        assert_eq!(good.reason, "team\\nowns it");
        assert_eq!(good.max_ttl, Ttl::from_seconds(600).ok());
        assert_eq!(good.role, RoleName::new("app_read_only").ok());
        assert_eq!(good.requires, [Requirement::Ticket]);
        assert_eq!(good.labels.get("team").map(String::as_str), Some("payments"));
    }

    #[test]
    fn what_something_is_decided_by_is_refused_when_it_is_wrong() {
        type Change = Box<dyn FnOnce(&mut policy::Allowance)>;
        let bad: [Change; 9] = [
            Box::new(|a| a.max_ttl_seconds = Some(0)),
            Box::new(|a| a.role = Some("a' OR 1=1".to_owned())),
            Box::new(|a| a.role = Some(String::new())),
            Box::new(|a| a.requires = vec!["blood".to_owned()]),
            Box::new(|a| a.requires = vec!["ticket".to_owned(); 33]),
            Box::new(|a| a.labels = vec![pair("", "x")]),
            Box::new(|a| a.labels = vec![pair("x", "a\nb")]),
            Box::new(|a| a.labels = vec![pair("x", "1"), pair("x", "2")]),
            Box::new(|a| a.labels = (0..33).map(|i| pair(&i.to_string(), "")).collect()),
        ];
        for change in bad {
            assert!(matches!(allow(change), Err(FaultKind::Answer(_))));
        }
        assert!(allow(|a| a.labels = vec![pair("x", &"y".repeat(1_025))]).is_err());
        assert!(allow(|a| a.labels = vec![pair("x", &"y".repeat(1_024))]).is_ok());
    }

    #[test]
    fn a_cap_beyond_the_longest_life_caps_nothing() {
        let Verdict::Allow(allowance) = allow(|a| a.max_ttl_seconds = Some(u64::MAX)).unwrap() else { panic!() };
        assert_eq!(allowance.max_ttl, Some(Ttl::MAX));
    }

    #[test]
    fn reasons_are_cut_and_never_empty_for_a_no() {
        let long = verdict(policy::Verdict::Deny("x".repeat(5_000)), &Limits::default()).unwrap();
        let Verdict::Deny(text) = long else { panic!() };
        assert_eq!(text.len(), 1_024 + '…'.len_utf8());
        let empty = verdict(policy::Verdict::Deny("  ".to_owned()), &Limits::default()).unwrap();
        assert_eq!(empty, Verdict::Deny("denied without a reason".to_owned()));
    }

    #[test]
    fn lists_for_people_are_bounded_and_say_so() {
        let many = vec![types::ConfigProblem { path: "a".to_owned(), message: "b\u{1b}".to_owned() }; 25];
        let checked = problems(many, &Limits::default());
        assert_eq!(checked.len(), 21);
        assert_eq!(checked[0].to_string(), "a: b\\u{1b}");
        assert_eq!(checked[20].to_string(), "and 5 more");
        assert_eq!(problems(Vec::new(), &Limits::default()).len(), 1);
        assert_eq!(dependents(vec!["t".to_owned(); 250]).len(), 101);
    }
}
