//! From Cedar's answer to a verdict: which policies decided, and on which conditions.

use cedar_policy::{Decision, Policy, PolicyId, PolicySet, Response};
use jit_plugin::text::shown;
use jit_plugin::{Allowance, Request, Verdict};

use crate::mistake::tame;
use crate::obligation::Obligations;

/// The most policies that a reason names.
const MAX_NAMED: usize = 8;

/// The verdict.
pub(crate) fn of(response: &Response, policies: &PolicySet, request: &Request) -> Verdict {
    let mut errors: Vec<String> = response.diagnostics().errors().map(|error| tame(&error.to_string())).collect();
    errors.sort();
    if let Some(error) = errors.first() {
        return Verdict::deny(format!("a Cedar policy cannot be evaluated, so it denies: {error}"));
    }
    let deciding = deciding(response, policies);
    let names = named(&deciding);
    match response.decision() {
        Decision::Allow => allow(&deciding, &names),
        Decision::Deny if deciding.is_empty() => Verdict::deny(format!(
            "no Cedar policy permits workload {} to {} role {} of target {}",
            shown(request.workload()),
            shown(request.operation()),
            shown(request.role()),
            shown(request.target())
        )),
        Decision::Deny => {
            let advice = deciding.iter().filter_map(|policy| policy.annotation("advice"));
            let advice: String = advice.map(|advice| format!("; {}", tame(advice))).collect();
            Verdict::deny(format!("forbidden by Cedar policy {names}{advice}"))
        }
    }
}

fn allow(deciding: &[&Policy], names: &str) -> Verdict {
    let all = deciding.iter().try_fold(Obligations::default(), |all, policy| all.and(Obligations::of(policy)?));
    let obligations = match all {
        Ok(obligations) => obligations,
        Err(why) => return Verdict::deny(format!("Cedar policies {names} permit it together, but {why}")),
    };
    Verdict::Allow(Allowance {
        reason: format!("permitted by Cedar policy {names}"),
        max_ttl_seconds: obligations.max_ttl.map(|ttl| ttl.get()),
        role: obligations.role,
        requires: obligations.requires.into_iter().map(str::to_owned).collect(),
        labels: vec![("cedar_policies".to_owned(), names.replace('`', ""))],
    })
}

/// The policies that decided, in the order of their text.
fn deciding<'p>(response: &Response, policies: &'p PolicySet) -> Vec<&'p Policy> {
    let reason: Vec<&PolicyId> = response.diagnostics().reason().collect();
    policies.policies().filter(|policy| reason.contains(&policy.id())).collect()
}

/// ``` `payments-read`, `policy3` ```
fn named(policies: &[&Policy]) -> String {
    let mut names: Vec<String> = policies.iter().take(MAX_NAMED).map(|policy| format!("`{}`", name(policy))).collect();
    if policies.len() > MAX_NAMED {
        names.push(format!("and {} more", policies.len() - MAX_NAMED));
    }
    names.join(", ")
}

/// Its `@id`, or what Cedar calls it by its place: `policy0`, `policy1`.
pub(crate) fn name(policy: &Policy) -> String {
    match policy.annotation("id") {
        Some(id) => tame(id),
        None => policy.id().to_string(),
    }
}
