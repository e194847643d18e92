//! What one recorded decision would have become with the candidate in the chain.

use jit_core::name::RoleName;
use jit_core::policy::{
    Allowance, Answer, ChainVerdict, Mode, Operation, PolicyRecord, PolicyRequest, Told, Verdict, add_up,
};

use super::record::{Decision, Outcome, Roles};
use jit_pipeline::chain::{CHAIN, not_grantable, only_narrower};

/// Where the candidate stands in the chain. It counts for everybody, whatever the mode and roll-out of
/// the policy that it replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the place of the policy of that name; chains without it are not concerned.
    Replaces(String),
    /// At the end of every chain.
    Added,
}

/// What the candidate is called in reasons where it is added.
pub const ADDED: &str = "candidate";

impl Place {
    /// The candidate's name in the chain.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Replaces(name) => name,
            Self::Added => ADDED,
        }
    }
}

/// What the candidate would have done to a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Its policy is not in that chain.
    NotConcerned,
    /// The same.
    Unchanged,
    /// A yes would be a no.
    AllowToDeny {
        /// Who would say it.
        policy: String,
        /// Why.
        reason: String,
    },
    /// A no would be a yes.
    DenyToAllow {
        /// Who said no.
        policy: String,
        /// Why.
        reason: String,
    },
    /// A yes with another role or length.
    Changed(String),
    /// The candidate does not answer, which denies (CLOSED).
    Failed(String),
}

/// The candidate and what it said so far about one decision: rounds differ in the role alone.
pub struct Asking<'a> {
    decision: &'a Decision,
    decide: &'a dyn Fn(&PolicyRequest) -> Result<Verdict, String>,
    said: Vec<(String, Result<Verdict, String>)>,
}

impl<'a> Asking<'a> {
    /// Nothing has been asked yet.
    #[must_use]
    pub fn new(decision: &'a Decision, decide: &'a dyn Fn(&PolicyRequest) -> Result<Verdict, String>) -> Self {
        Self { decision, decide, said: Vec::new() }
    }

    /// What the candidate says about a role.
    ///
    /// # Errors
    /// Why it does not answer.
    pub fn about(&mut self, role: &str) -> Result<Verdict, String> {
        if let Some((_, said)) = self.said.iter().find(|(of, _)| of == role) {
            return said.clone();
        }
        let said = (self.decide)(&self.decision.input_with(role));
        self.said.push((role.to_owned(), said.clone()));
        said
    }

    /// What the record of the last round would say of the candidate.
    ///
    /// # Errors
    /// Why it does not answer.
    pub fn told(&mut self) -> Result<Told, String> {
        let last = self.decision.last_input();
        Ok(self.about(&last.role)?.told(&last))
    }
}

/// Puts the candidate into the chain of a decision.
#[must_use]
pub fn compare(asking: &mut Asking<'_>, place: &Place, roles: &Roles) -> Effect {
    let decision = asking.decision;
    let position = match place {
        Place::Added => decision.answers.len(),
        Place::Replaces(name) => match decision.answers.iter().position(|answer| answer.record.name == *name) {
            Some(position) => position,
            None => return Effect::NotConcerned,
        },
    };
    let mut others = decision.answers.clone();
    if matches!(place, Place::Replaces(_)) {
        others.remove(position);
    }
    let chain = Chain { name: place.name(), position, others, roles };
    match chain.outcome(asking) {
        Ok(now) => effect(&decision.outcome, now),
        Err(reason) => Effect::Failed(reason),
    }
}

fn effect(then: &Outcome, now: Outcome) -> Effect {
    match (then, now) {
        (Outcome::Allow { .. }, Outcome::Deny { policy, reason }) => Effect::AllowToDeny { policy, reason },
        (Outcome::Deny { policy, reason }, Outcome::Allow { .. }) => {
            Effect::DenyToAllow { policy: policy.clone(), reason: reason.clone() }
        }
        (Outcome::Allow { role: was, .. }, Outcome::Allow { role, .. }) if *was != role => {
            Effect::Changed(format!("role {role} instead of {was}"))
        }
        (Outcome::Allow { ttl: was, .. }, Outcome::Allow { ttl, .. }) if *was != ttl => {
            Effect::Changed(format!("TTL {ttl} instead of {was}"))
        }
        _ => Effect::Unchanged,
    }
}

fn by_chain(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deny { policy, .. } if policy == CHAIN)
}

/// A recorded chain with the candidate's place in it.
struct Chain<'a> {
    name: &'a str,
    position: usize,
    others: Vec<Answer>,
    roles: &'a Roles,
}

impl Chain<'_> {
    fn outcome(&self, asking: &mut Asking<'_>) -> Result<Outcome, String> {
        let decision = asking.decision;
        let asked = decision.input.role.as_str();
        let first = asking.about(asked)?;
        let Some(narrowed) = &decision.narrowed_to else {
            let verdict = add_up(&decision.input, decision.ttl, &self.with(&self.others, first));
            return match verdict {
                // Another policy names a role still, and it is on record that this comes to nothing.
                ChainVerdict::Narrow(_) if self.others_want().is_some() && by_chain(&decision.outcome) => {
                    Ok(decision.outcome.clone())
                }
                ChainVerdict::Narrow(role) => self.narrowed(asking, &role),
                verdict => Ok(decision.outcome_of(&decision.input, verdict)),
            };
        };
        // There were several rounds, and the others' answers are known of the last one. In the rounds
        // before it they all said yes, or the chain would have ended there.
        let wanted = match &first {
            Verdict::Deny(reason) => return Ok(self.denied(reason)),
            Verdict::Allow(allowance) => match allowance.missing(&decision.input) {
                Some(missing) => return Ok(self.denied(missing)),
                None => allowance.role.clone().filter(|role| role.as_str() != asked),
            },
        };
        let by_others = self.added(decision)
            || decision.narrowed_by.iter().any(|name| name != self.name)
            || self.others_want().is_some_and(|role| role == narrowed.as_str());
        match wanted {
            _ if by_others => self.last_round(asking, narrowed),
            Some(role) if role == *narrowed => self.last_round(asking, narrowed),
            Some(role) => self.narrowed(asking, &role),
            None => {
                let yes = |answer: &Answer| match &answer.verdict {
                    Verdict::Deny(_) => Answer { verdict: Verdict::Allow(Allowance::default()), ..answer.clone() },
                    Verdict::Allow(_) => answer.clone(),
                };
                let others: Vec<Answer> = self.others.iter().map(yes).collect();
                let verdict = add_up(&decision.input, decision.ttl, &self.with(&others, first));
                Ok(decision.outcome_of(&decision.input, verdict))
            }
        }
    }

    /// The round that was recorded, with the candidate's answer about its role.
    fn last_round(&self, asking: &mut Asking<'_>, role: &RoleName) -> Result<Outcome, String> {
        let decision = asking.decision;
        let verdict = asking.about(role.as_str())?;
        let round = decision.input_with(role.as_str());
        let verdict = add_up(&round, decision.ttl, &self.with(&self.others, verdict));
        Ok(decision.outcome_of(&round, verdict))
    }

    /// The candidate names a role that the others were not asked about: they are taken to say of it what
    /// they said of the one that they were asked about.
    fn narrowed(&self, asking: &mut Asking<'_>, role: &RoleName) -> Result<Outcome, String> {
        let decision = asking.decision;
        let of_chain = |reason| Ok(Outcome::Deny { policy: CHAIN.to_owned(), reason });
        if self.roles.get(&decision.input.target).is_some_and(|roles| !roles.contains(role)) {
            return of_chain(not_grantable(role));
        }
        if decision.input.operation == Operation::Renew {
            return of_chain(only_narrower(role));
        }
        self.last_round(asking, role)
    }

    fn denied(&self, reason: &str) -> Outcome {
        Outcome::Deny { policy: self.name.to_owned(), reason: reason.to_owned() }
    }

    fn added(&self, decision: &Decision) -> bool {
        self.others.len() == decision.answers.len()
    }

    /// The role that a policy in force names.
    fn others_want(&self) -> Option<&str> {
        let in_force = self.others.iter().filter(|answer| answer.record.mode == Mode::Enforce);
        in_force.filter_map(|answer| answer.record.obligations.role.as_deref()).next()
    }

    fn with(&self, others: &[Answer], verdict: Verdict) -> Vec<Answer> {
        let record = PolicyRecord::unanswered(self.name, Mode::Enforce);
        let mut answers = others.to_vec();
        answers.insert(self.position, Answer { record, verdict });
        answers
    }
}

#[cfg(test)]
#[path = "comparison_tests.rs"]
mod tests;
