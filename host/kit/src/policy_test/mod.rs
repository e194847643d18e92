//! `plugin test --policy`: asks a policy's component a table of cases and compares its answers with what
//! was expected of it.
//!
//! In scope: one policy, as the broker would ask it, through the same facade, limits and checks. Out of
//! scope: how the answers of several policies add up (`jit-core`), and drivers ([`crate::conformance`]).
//!
//! # Asked more than once
//!
//! A decision is replayed from the audit record (PURE-POLICY), so each case is asked several times and
//! every answer must be the same. What could make them differ is little, which is why the check is cheap to pass and worth
//! having: each answer comes from a fresh instance, whose memory begins with the same bytes; nothing is imported but
//! the log, which tells nothing; there are no threads; the engine makes every NaN the same
//! (`cranelift_nan_canonicalization`) and relaxed SIMD instructions deterministic. A
//! guest that wanted to answer by chance has no place to take chance from, so there is no such
//! fixture: `replay` itself is tested with scripted answers. What remains, and what the check does find, is a policy near
//! one of its limits: guest time is measured, so the same call may end with its verdict or with
//! the limit's fault. And a defect of the host that let one call see another would show here.

pub mod cases;
mod expected;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use jit_core::policy::{PolicyRequest, Verdict};
use jit_runtime::{ConfigFault, Plugin, PluginSpec, PolicyPlugin, Runtime};

use crate::conformance::Progress;
use crate::conformance::report::{self, CaseResult, Report, Subject, Tested};
use cases::{Case, Cases};

/// How often each case is asked unless it is said otherwise.
pub const ASKED: u32 = 5;
/// The most often that it may be.
pub const MOST_ASKED: u32 = 10_000;

/// What is to be tested.
#[derive(Debug, Clone)]
pub struct Options {
    /// The policy's component.
    pub policy: PathBuf,
    /// The table of cases.
    pub cases: PathBuf,
    /// A configuration in the place of the one that cases share (TOML or JSON).
    pub config: Option<PathBuf>,
    /// Only cases whose names contain one of these; all when there is none.
    pub only: Vec<String>,
    /// How often each is asked, `1` to [`MOST_ASKED`].
    pub asked: u32,
}

/// What a policy said in one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It does not accept the configuration, for these reasons (`path: message`).
    Problems(Vec<String>),
    /// It decided.
    Verdict(Verdict),
    /// It failed, which denies (CLOSED).
    Fault(String),
}

/// Someone who decides: a component, or a script in the tests of this module.
pub(crate) trait Decides {
    /// See [`PolicyPlugin::validate`].
    fn validate(&self, config: &str) -> Result<(), ConfigFault>;
    /// See [`PolicyPlugin::decide`].
    fn decide(&self, config: &str, request: &PolicyRequest) -> Result<Verdict, jit_runtime::Fault>;
}

impl Decides for PolicyPlugin {
    fn validate(&self, config: &str) -> Result<(), ConfigFault> {
        self.validate(config)
    }

    fn decide(&self, config: &str, request: &PolicyRequest) -> Result<Verdict, jit_runtime::Fault> {
        self.decide(config, request)
    }
}

/// Asks all cases.
///
/// # Errors
/// When the component or the cases are not fit to begin with. A case that fails is no error: it is in
/// the report.
pub fn run(runtime: &Runtime, options: &Options, progress: &dyn Progress) -> Result<Report> {
    ensure!((1..=MOST_ASKED).contains(&options.asked), "a case is asked 1 to {MOST_ASKED} times");
    let cases = Cases::load(&options.cases, options.config.as_deref())?;
    let only = &options.only;
    let chosen: Vec<&Case> = cases
        .cases
        .iter()
        .filter(|case| only.is_empty() || only.iter().any(|part| case.name.contains(part.as_str())))
        .collect();
    ensure!(!chosen.is_empty(), "no case of {} has that in its name", options.cases.display());
    let policy = load(runtime, &options.policy)?;
    let bytes = std::fs::read(&options.policy).with_context(|| format!("cannot read {}", options.policy.display()))?;
    let identity = jit_plugin_build::check(&bytes).contract.and_then(|contract| contract.identity);
    drop(bytes);
    let (name, version) = identity.map_or_else(
        || (options.policy.file_stem().unwrap_or_default().to_string_lossy().into_owned(), String::new()),
        |identity| (identity.name, identity.version),
    );
    let mut results = Vec::new();
    for (place, case) in chosen.iter().enumerate() {
        progress.begins(place + 1, chosen.len(), &case.name);
        let result = one(&policy, case, options.asked);
        progress.ended(&result);
        results.push(result);
    }
    let sha256 = Plugin::Policy(policy).sha256().to_owned();
    Ok(Report {
        tested: Tested::Policy(Subject { name, version, sha256, features: Vec::new() }),
        cases: results,
        not_tried: Vec::new(),
    })
}

fn load(runtime: &Runtime, component: &Path) -> Result<PolicyPlugin> {
    let spec = PluginSpec { name: "policy".to_owned(), path: component.to_owned(), sha256: None, grants: None };
    match runtime.load(&spec)? {
        Plugin::Policy(policy) => Ok(policy),
        other => bail!("{} is a {}, not a policy: drivers are tested with --driver", component.display(), other.kind()),
    }
}

/// One case: is the answer the expected one, and always the same?
fn one(policy: &impl Decides, case: &Case, asked: u32) -> CaseResult {
    let began = Instant::now();
    let first = ask(policy, case);
    let wrong = match replay(&first, asked, || ask(policy, case)) {
        Some(difference) => Some(difference),
        None => expected::difference(&case.expect, &first),
    };
    let each = began.elapsed() / asked.max(1);
    let (verdict, detail) = match wrong {
        Some(wrong) => (report::Verdict::Failed, wrong),
        None => (report::Verdict::Passed, format!("{first} ({} µs each)", each.as_micros())),
    };
    CaseResult {
        name: case.name.clone().into(),
        promise: case.expect.to_string().into(),
        verdict,
        detail,
        millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// Asks as the broker does: the configuration first, then the decision.
fn ask(policy: &impl Decides, case: &Case) -> Outcome {
    match policy.validate(&case.config) {
        Ok(()) => {}
        Err(ConfigFault::Invalid(problems)) => {
            return Outcome::Problems(problems.iter().map(ToString::to_string).collect());
        }
        Err(ConfigFault::Fault(fault)) => return Outcome::Fault(fault.kind.to_string()),
    }
    match policy.decide(&case.config, &case.request) {
        Ok(verdict) => Outcome::Verdict(verdict),
        Err(fault) => Outcome::Fault(fault.kind.to_string()),
    }
}

/// Asks again until it has been asked so often; says how an answer differs from the first, if one does.
fn replay(first: &Outcome, asked: u32, mut again: impl FnMut() -> Outcome) -> Option<String> {
    for time in 2..=asked {
        let answer = again();
        if answer == *first {
            continue;
        }
        let near_a_limit = [first, &answer].iter().any(|outcome| matches!(outcome, Outcome::Fault(_)));
        let hint = if near_a_limit { ". It comes near a limit: do less for each decision" } else { "" };
        return Some(format!(
            "the same question got different answers, so no decision could be replayed: at first {first}, the {time}th \
             time {answer}{hint}"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::sync::Arc;

    use jit_core::policy::Allowance;
    use jit_runtime::{ConfigProblem, Fault, FaultKind};

    use super::*;

    /// Answers what its script says, one after the other; the last one for ever.
    struct Script(RefCell<VecDeque<Outcome>>);

    impl Script {
        fn new(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
            Self(RefCell::new(outcomes.into_iter().collect()))
        }

        fn next(&self) -> Outcome {
            let mut script = self.0.borrow_mut();
            if script.len() > 1 { script.pop_front().unwrap() } else { script[0].clone() }
        }
    }

    fn fault(kind: FaultKind) -> Fault {
        Fault { plugin: Arc::from("policy"), kind }
    }

    impl Decides for Script {
        fn validate(&self, _: &str) -> Result<(), ConfigFault> {
            match &self.0.borrow()[0] {
                Outcome::Problems(problems) => Err(ConfigFault::Invalid(
                    problems.iter().map(|text| ConfigProblem { path: text.clone(), message: String::new() }).collect(),
                )),
                _ => Ok(()),
            }
        }

        fn decide(&self, _: &str, _: &PolicyRequest) -> Result<Verdict, Fault> {
            match self.next() {
                Outcome::Verdict(verdict) => Ok(verdict),
                Outcome::Fault(text) => Err(fault(FaultKind::Failed(text))),
                Outcome::Problems(_) => unreachable!("told by validate"),
            }
        }
    }

    fn allow(reason: &str) -> Outcome {
        Outcome::Verdict(Verdict::Allow(Allowance { reason: reason.to_owned(), ..Allowance::default() }))
    }

    fn case(expect: &str) -> Case {
        let text = format!("[[case]]\nname = \"c\"\nexpect = {{ {expect} }}\n");
        Cases::parse(&text, Path::new("cases.toml"), None).unwrap().cases.remove(0)
    }

    #[test]
    fn a_policy_that_answers_otherwise_the_next_time_is_found() {
        for (later, time) in [(1, "2th"), (4, "5th")] {
            for other in
                [allow("another reason"), Outcome::Verdict(Verdict::Deny("no".into())), Outcome::Fault("x".into())]
            {
                let script = Script::new(std::iter::repeat_n(allow(""), later).chain([other]));
                let result = one(&script, &case("verdict = \"allow\""), 5);
                assert_eq!(result.verdict, report::Verdict::Failed);
                assert!(
                    result.detail.contains("different answers") && result.detail.contains(time),
                    "{}",
                    result.detail
                );
            }
        }
    }

    #[test]
    fn a_policy_near_a_limit_is_told_so() {
        let script = Script::new([allow(""), Outcome::Fault("exceeded 50 ms of guest time".into())]);
        assert!(one(&script, &case("verdict = \"allow\""), 2).detail.contains("near a limit"));
    }

    #[test]
    fn a_policy_that_answers_the_same_is_asked_so_often_and_passes() {
        let script = Script::new([allow("")]);
        let result = one(&script, &case("verdict = \"allow\""), 5);
        assert_eq!(result.verdict, report::Verdict::Passed, "{}", result.detail);
        assert!(result.detail.starts_with("allow ("), "{}", result.detail);
        // Asked once, nothing is compared.
        let script = Script::new([allow(""), Outcome::Fault("x".into())]);
        assert_eq!(one(&script, &case("verdict = \"allow\""), 1).verdict, report::Verdict::Passed);
    }

    #[test]
    fn problems_and_faults_are_outcomes_like_verdicts() {
        let refuses = Script::new([Outcome::Problems(vec!["rules".into()])]);
        assert_eq!(one(&refuses, &case("problems = [\"rules\"]"), 2).verdict, report::Verdict::Passed);
        assert_eq!(one(&refuses, &case("verdict = \"allow\""), 2).verdict, report::Verdict::Failed);
        let fails = Script::new([Outcome::Fault("of its own".into())]);
        assert_eq!(one(&fails, &case("fault = \"of its own\""), 2).verdict, report::Verdict::Passed);
        // CLOSED: a fault denies, but whoever expects a denial expects a decision.
        assert_eq!(one(&fails, &case("verdict = \"deny\""), 2).verdict, report::Verdict::Failed);
    }
}
