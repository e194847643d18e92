//! Asking a target's policies: each in a fresh instance, all of them about the same input, and again
//! where one of them names a narrower role. A function of the chain and its input alone, so it serves
//! a request and a simulation alike.

use std::collections::BTreeMap;

use crate::ports::PolicyFault;
use jit_core::name::RoleName;
use jit_core::policy::{Answer, ChainVerdict, DecidedBy, Mode, PolicyRecord, PolicyRequest, Verdict, add_up};
use jit_core::ttl::Ttl;
use tokio::time::Instant;

use crate::refusal::Refused;
use crate::target::{ChainLink, Target};

/// How often a chain is asked again because a policy named a narrower role.
const MOST_NARROWINGS: usize = 4;

/// Who denies what the policies together cannot agree on.
pub const CHAIN: &str = "chain";

/// Why a chain denies when its policies name a role that the target does not have.
#[must_use]
pub fn not_grantable(role: &RoleName) -> String {
    format!("the policies want role {role}, which cannot be granted here")
}

/// Why a renewal is denied when the policies name a narrower role than the lease's.
#[must_use]
pub fn only_narrower(role: &RoleName) -> String {
    format!("the policies now grant only role {role}; ask for a new lease")
}

/// What a chain said in the end.
pub struct Said {
    /// A yes with what holds, or a no.
    pub verdict: Final,
    /// The role that the last round was about; the one asked for unless a policy named another.
    pub role: RoleName,
    /// Who named the narrower roles, round by round.
    pub narrowed_by: Vec<String>,
    /// Each policy's part, of the last round.
    pub policies: Vec<PolicyRecord>,
    /// Policies without effect here that would have decided otherwise: name, and how.
    pub shadow_diffs: Vec<(String, String)>,
}

/// A chain's last word.
pub enum Final {
    /// All that count say yes.
    Allow {
        /// The length that holds.
        ttl: Ttl,
        /// Labels that policies gave.
        labels: BTreeMap<String, String>,
    },
    /// One that counts says no.
    Deny {
        /// Which one.
        policy: String,
        /// Why.
        reason: String,
    },
}

/// Asks the target's chain about a role for a length. Blocks for as long as the policies take.
///
/// # Errors
/// [`Refused::Overloaded`] when a policy could not be asked for want of room.
pub fn ask(target: &Target, role: RoleName, ttl: Ttl, input: &PolicyRequest) -> Result<Said, Refused> {
    let mut role = role;
    let mut input = input.clone();
    let mut narrowed_by = Vec::new();
    loop {
        let answers: Vec<Answer> = target
            .chain
            .iter()
            .filter(|link| link.mode != Mode::Off)
            .map(|link| ask_one(link, &input))
            .collect::<Result<_, _>>()?;
        let verdict = add_up(&input, ttl, &answers);
        if let ChainVerdict::Narrow(narrower) = &verdict
            && narrowed_by.len() < MOST_NARROWINGS
            && target.roles.contains_key(narrower)
        {
            narrowed_by.push(who_named(narrower, &answers));
            role = narrower.clone();
            input.role = narrower.to_string();
            continue;
        }
        let shadow_diffs = shadow_diffs(&input, ttl, &answers, &verdict);
        let verdict = match verdict {
            ChainVerdict::Allow { ttl, labels } => Final::Allow { ttl, labels },
            ChainVerdict::Deny { policy, reason } => Final::Deny { policy, reason },
            ChainVerdict::Narrow(narrower) => {
                Final::Deny { policy: CHAIN.to_owned(), reason: not_grantable(&narrower) }
            }
        };
        let policies = answers.into_iter().map(|answer| answer.record).collect();
        return Ok(Said { verdict, role, narrowed_by, policies, shadow_diffs });
    }
}

/// The policy in force that named that role.
fn who_named(role: &RoleName, answers: &[Answer]) -> String {
    let named = |answer: &&Answer| {
        answer.record.mode == Mode::Enforce
            && matches!(&answer.verdict, Verdict::Allow(allowance) if allowance.role.as_ref() == Some(role))
    };
    answers.iter().find(named).map_or_else(String::new, |answer| answer.record.name.clone())
}

/// Asks one policy. Whatever goes wrong in it denies, by its name (CLOSED).
fn ask_one(link: &ChainLink, input: &PolicyRequest) -> Result<Answer, Refused> {
    let started = Instant::now();
    let answer = link.policy.decide(input);
    match answer.by {
        DecidedBy::Memory => {
            metrics::counter!("jit_policy_remembered_total", "policy" => link.name.clone()).increment(1);
        }
        DecidedBy::Copy => metrics::counter!("jit_policy_copied_total", "policy" => link.name.clone()).increment(1),
        DecidedBy::Instance => {}
    }
    let (verdict, failed) = match answer.verdict {
        Ok(verdict) => (verdict, false),
        // Not the policy's doing, so not its no.
        Err(PolicyFault::Overloaded) => return Err(Refused::Overloaded),
        Err(fault) => {
            metrics::counter!("jit_plugin_faults_total", "plugin" => link.name.clone()).increment(1);
            tracing::warn!(policy = link.name, %fault, "a policy failed and denies");
            (Verdict::Deny(format!("policy {} failed: {fault}", link.name)), true)
        }
    };
    let took = started.elapsed();
    metrics::histogram!("jit_policy_seconds", "policy" => link.name.clone()).record(took);
    let (mode, rolled_out) = link.reaches(input);
    let told = verdict.told(input);
    let record = PolicyRecord {
        name: link.name.clone(),
        mode,
        verdict: told.verdict.to_owned(),
        reason: told.reason,
        obligations: told.obligations,
        looked_at: answer.looked_at.words(),
        failed,
        rolled_out,
        plugin_sha256: link.policy.sha256().to_owned(),
        config_sha256: link.config_sha256.clone(),
        micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    };
    Ok(Answer { record, verdict })
}

/// What each policy without effect would have changed, had it counted alone beside the others.
fn shadow_diffs(input: &PolicyRequest, ttl: Ttl, answers: &[Answer], actual: &ChainVerdict) -> Vec<(String, String)> {
    let mut diffs = Vec::new();
    for (at, answer) in answers.iter().enumerate().filter(|(_, answer)| answer.record.mode == Mode::Shadow) {
        let mut counted = answers.to_vec();
        counted[at].record.mode = Mode::Enforce;
        let reason = match (actual, add_up(input, ttl, &counted)) {
            (ChainVerdict::Allow { .. }, ChainVerdict::Deny { reason, .. }) => format!("would deny: {reason}"),
            (ChainVerdict::Allow { .. }, ChainVerdict::Narrow(role)) => format!("would narrow the role to {role}"),
            (ChainVerdict::Allow { ttl: now, .. }, ChainVerdict::Allow { ttl: then, .. }) if then < *now => {
                format!("would lower the TTL to {then}")
            }
            _ => continue,
        };
        diffs.push((answer.record.name.clone(), reason));
    }
    diffs
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
