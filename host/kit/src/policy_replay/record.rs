//! A record of the audit log as a decision that can be replayed, or why it cannot.
//!
//! Records may come from an exported file of anybody's: nothing in them is trusted to be whole.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jit_core::glob::Glob;
use jit_core::name::RoleName;
use jit_core::policy::{Answer, ChainVerdict, Operation, PolicyRecord, PolicyRequest, add_up};
use jit_core::ttl::Ttl;
use serde::{Deserialize, Serialize};

use jit_pipeline::chain::{CHAIN, not_grantable, only_narrower};

/// Which decisions are replayed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Not those before.
    pub since: Option<Timestamp>,
    /// Not those from then on.
    pub until: Option<Timestamp>,
    /// Only of these workloads.
    pub workload: Option<Glob>,
    /// Only of these targets.
    pub target: Option<Glob>,
}

/// Where a decision stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Reference {
    /// The record's number; of an exported line without one, the line's.
    pub seq: u64,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// A decision with all that it was made of.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Where it stands.
    pub at: Reference,
    /// What the policies were told, with the role that was asked for.
    pub input: PolicyRequest,
    /// The length asked for.
    pub ttl: Ttl,
    /// The role of the last round, where a policy named a narrower one.
    pub narrowed_to: Option<RoleName>,
    /// Who named it, and who named those before it.
    pub narrowed_by: Vec<String>,
    /// Each policy's part in the last round.
    pub answers: Vec<Answer>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a chain decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A lease, of that role for at most so long.
    Allow {
        /// The role.
        role: String,
        /// The length.
        ttl: Ttl,
    },
    /// None.
    Deny {
        /// Who said so.
        policy: String,
        /// Why.
        reason: String,
    },
}

/// Why a decision cannot be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfit {
    /// It is no record at all.
    NoRecord,
    /// A context provider failed, so no policy was asked.
    Provider,
    /// It was refused before the policies: the target does not offer that.
    NotAsked,
    /// It was recorded without the policies' input.
    NoInput,
    /// It holds what this release does not know.
    Unreadable,
    /// Its policies' verdicts are not what it says came of them.
    Contradictory,
    /// The candidate decides by counts that nobody counted then.
    NoCounts,
}

impl Unfit {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRecord => "not a record of the audit log",
            Self::Provider => "a context provider failed, so no policy was asked",
            Self::NotAsked => "refused before any policy was asked",
            Self::NoInput => "recorded without the policies' input (by an older release)",
            Self::Unreadable => "written by a release that this one cannot read",
            Self::Contradictory => "the policies' recorded verdicts are not what the record says came of them",
            Self::NoCounts => "the candidate wants usage counts that were not counted then",
        }
    }
}

/// What a line of the log is.
#[derive(Debug)]
pub enum Read {
    /// Something else, or not asked for.
    Other,
    /// A decision.
    Decision(Box<Decision>),
    /// A decision that cannot be replayed.
    Unfit(Unfit, Reference),
}

#[derive(Deserialize)]
struct Head<'a> {
    seq: Option<u64>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    workload: Option<Cow<'a, str>>,
    #[serde(borrow)]
    target_db: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default)]
    policies: Vec<PolicyRecord>,
    input: Option<PolicyRequest>,
    narrowed_to: Option<String>,
    #[serde(default)]
    narrowed_by: Vec<String>,
    /// Who denied.
    #[serde(borrow)]
    policy: Option<Cow<'a, str>>,
    /// Why.
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
}

/// Whether an event is about a decision, and whether that was a yes. A failed issue was allowed first.
fn decided(event: &str) -> Option<bool> {
    match event {
        "issue.granted" | "issue.failed" | "lease.renewed" => Some(true),
        "issue.denied" | "renew.denied" => Some(false),
        _ => None,
    }
}

/// Reads one line; `place` is its number where it has none of its own.
#[must_use]
pub fn read(line: &[u8], place: u64, filter: &Filter) -> Read {
    let nowhere = Reference { seq: place, request_id: None };
    let Ok(head) = serde_json::from_slice::<Head<'_>>(line) else { return Read::Unfit(Unfit::NoRecord, nowhere) };
    let Some(allowed) = decided(&head.event) else { return Read::Other };
    let Ok(time) = head.timestamp.parse::<Timestamp>() else { return Read::Unfit(Unfit::NoRecord, nowhere) };
    let fits = |wanted: &Option<Glob>, value: Option<&str>| {
        wanted.as_ref().is_none_or(|wanted| value.is_some_and(|value| wanted.fits(value)))
    };
    if filter.since.is_some_and(|since| time < since)
        || filter.until.is_some_and(|until| time >= until)
        || !fits(&filter.workload, head.workload.as_deref())
        || !fits(&filter.target, head.target_db.as_deref())
    {
        return Read::Other;
    }
    let at = Reference { seq: head.seq.unwrap_or(place), request_id: head.request_id.map(Cow::into_owned) };
    let Ok(body) = serde_json::from_slice::<Body<'_>>(line) else { return Read::Unfit(Unfit::Unreadable, at) };
    match decision(body, allowed, &at) {
        Ok(decision) => Read::Decision(Box::new(decision)),
        Err(unfit) => Read::Unfit(unfit, at),
    }
}

fn decision(body: Body<'_>, allowed: bool, at: &Reference) -> Result<Decision, Unfit> {
    let (input, policies) = match (body.input, body.policies) {
        (Some(_), policies) if policies.is_empty() => return Err(Unfit::Provider),
        (None, policies) if policies.is_empty() && !allowed => return Err(Unfit::NotAsked),
        (None, _) => return Err(Unfit::NoInput),
        (Some(input), policies) => (input, policies),
    };
    let ttl = i64::try_from(input.ttl_seconds).ok().and_then(|seconds| Ttl::from_seconds(seconds).ok());
    let narrowed_to = body.narrowed_to.map(RoleName::new).transpose().map_err(|_| Unfit::Unreadable)?;
    let answers: Option<Vec<Answer>> =
        policies.into_iter().map(|record| record.recorded().map(|verdict| Answer { record, verdict })).collect();
    let (Some(ttl), Some(answers)) = (ttl, answers) else { return Err(Unfit::Unreadable) };
    let mut decision = Decision {
        at: at.clone(),
        outcome: Outcome::Deny { policy: String::new(), reason: String::new() },
        input,
        ttl,
        narrowed_to,
        narrowed_by: body.narrowed_by,
        answers,
    };
    let last = decision.last_input();
    decision.outcome = decision.outcome_of(&last, add_up(&last, ttl, &decision.answers));
    let same = match &decision.outcome {
        Outcome::Allow { .. } => allowed,
        // A renewal that would narrow the role names no policy.
        Outcome::Deny { policy, reason } => {
            !allowed
                && body.error.as_deref() == Some(reason)
                && body.policy.as_deref().is_none_or(|recorded| recorded == policy)
        }
    };
    if same { Ok(decision) } else { Err(Unfit::Contradictory) }
}

impl Decision {
    /// The input of the last round.
    #[must_use]
    pub fn last_input(&self) -> PolicyRequest {
        self.input_with(self.narrowed_to.as_ref().map_or(self.input.role.as_str(), RoleName::as_str))
    }

    /// The input with another role.
    #[must_use]
    pub fn input_with(&self, role: &str) -> PolicyRequest {
        PolicyRequest { role: role.to_owned(), ..self.input.clone() }
    }

    /// What comes of a round that is the last.
    #[must_use]
    pub fn outcome_of(&self, round: &PolicyRequest, verdict: ChainVerdict) -> Outcome {
        let of_chain = |reason: String| Outcome::Deny { policy: CHAIN.to_owned(), reason };
        match verdict {
            ChainVerdict::Deny { policy, reason } => Outcome::Deny { policy, reason },
            ChainVerdict::Narrow(role) => of_chain(not_grantable(&role)),
            ChainVerdict::Allow { ttl, .. } if self.operation_keeps_role() && round.role != self.input.role => {
                match RoleName::new(round.role.as_str()) {
                    Ok(role) => of_chain(only_narrower(&role)),
                    Err(_) => Outcome::Allow { role: round.role.clone(), ttl },
                }
            }
            ChainVerdict::Allow { ttl, .. } => Outcome::Allow { role: round.role.clone(), ttl },
        }
    }

    /// A lease keeps its role for as long as it lives.
    fn operation_keeps_role(&self) -> bool {
        self.input.operation == Operation::Renew
    }
}

/// The roles that targets have now, by the target's name; a target that is not there may have any.
pub type Roles = BTreeMap<String, BTreeSet<RoleName>>;
