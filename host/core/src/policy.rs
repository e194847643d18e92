//! What is said to a policy, what it answers, and how the answers of a chain add up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::RoleName;
use crate::ttl::Ttl;

/// What a policy is asked. All of it stands in the audit record, so that the decision can be
/// replayed (PURE-POLICY).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRequest {
    /// What is to be done.
    pub operation: Operation,
    /// Seconds since the Unix epoch.
    pub time: u64,
    /// The verified workload.
    pub workload: String,
    /// The issuer's configured name.
    pub issuer: String,
    /// Attributes of the identity.
    pub attributes: BTreeMap<String, String>,
    /// The target's name.
    pub target: String,
    /// The role asked for.
    pub role: String,
    /// The length asked for, after the target's own cap.
    pub ttl_seconds: u64,
    /// The caller's reason.
    pub reason: Option<String>,
    /// The caller's ticket.
    pub ticket: Option<String>,
    /// What the caller attached.
    pub metadata: BTreeMap<String, String>,
    /// Usage counts and facts, by name.
    pub facts: BTreeMap<String, String>,
}

/// What is to be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// A new lease.
    Issue,
    /// A later expiry.
    Renew,
}

impl Operation {
    /// The contract's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::Renew => "renew",
        }
    }
}

/// A policy's yes, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Why; may be empty.
    pub reason: String,
    /// The lease lives at most so long.
    pub max_ttl: Option<Ttl>,
    /// This role instead of the one asked for.
    pub role: Option<RoleName>,
    /// What the request must have.
    pub requires: Vec<Requirement>,
    /// Labels for the audit record.
    pub labels: BTreeMap<String, String>,
}

impl Allowance {
    /// What the request does not have, if something is missing: then this yes is a no.
    #[must_use]
    pub fn missing(&self, request: &PolicyRequest) -> Option<&'static str> {
        self.requires.iter().find_map(|need| need.missing(request))
    }
}

/// Something that a request must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// A reason.
    Reason,
    /// A ticket.
    Ticket,
    /// A person's approval. There are none yet, so this denies with a clear reason.
    Approval,
}

impl Requirement {
    /// From the contract's word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "reason" => Self::Reason,
            "ticket" => Self::Ticket,
            "approval" => Self::Approval,
            _ => return None,
        })
    }

    /// What is missing from the request, if something is.
    fn missing(self, request: &PolicyRequest) -> Option<&'static str> {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.trim().is_empty());
        match self {
            Self::Reason if !given(&request.reason) => Some("a reason is required: send \"reason\""),
            Self::Ticket if !given(&request.ticket) => Some("a ticket is required: send \"ticket\""),
            Self::Approval => Some("an approval is required, and this broker has no approvals yet"),
            Self::Reason | Self::Ticket => None,
        }
    }
}

/// A policy's answer, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, with conditions.
    Allow(Allowance),
    /// No, and why.
    Deny(String),
}

/// How much a policy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Its verdict holds.
    #[default]
    Enforce,
    /// Its verdict is recorded and has no effect.
    Shadow,
    /// It is not asked.
    Off,
}

impl Mode {
    /// The configuration's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

/// One policy's part in a decision, as audit records and `/v1/simulate` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// The policy's name in the configuration.
    pub name: String,
    /// Whether it counted.
    pub mode: Mode,
    /// `allow` or `deny`.
    pub verdict: String,
    /// Its reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The digest of the component that decided, in hexadecimal.
    pub plugin_sha256: String,
    /// How long it took, in microseconds, its fresh instance included.
    pub micros: u64,
}

/// One policy's answer in a chain.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What is recorded.
    pub record: PolicyRecord,
    /// What it said.
    pub verdict: Verdict,
}

/// What a whole chain says about one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainVerdict {
    /// All that count say yes.
    Allow {
        /// The smallest cap that any of them named, or the length asked for.
        ttl: Ttl,
        /// All labels.
        labels: BTreeMap<String, String>,
    },
    /// One wants another role; the chain has to be asked again with it.
    Narrow(RoleName),
    /// The first that says no.
    Deny {
        /// Its name.
        policy: String,
        /// Its reason.
        reason: String,
    },
}

/// Adds up the answers of the policies that count. No counting policy at all is a no: silence
/// never grants (CLOSED).
#[must_use]
pub fn add_up(request: &PolicyRequest, asked: Ttl, answers: &[Answer]) -> ChainVerdict {
    let mut ttl = asked;
    let mut labels = BTreeMap::new();
    let mut narrower = None;
    let mut counted = false;
    for answer in answers.iter().filter(|answer| answer.record.mode == Mode::Enforce) {
        counted = true;
        let deny = |reason: &str| ChainVerdict::Deny { policy: answer.record.name.clone(), reason: reason.to_owned() };
        match &answer.verdict {
            Verdict::Deny(reason) => return deny(reason),
            Verdict::Allow(allowance) => {
                if let Some(missing) = allowance.missing(request) {
                    return deny(missing);
                }
                ttl = allowance.max_ttl.map_or(ttl, |cap| cap.min(ttl));
                labels.extend(allowance.labels.clone());
                if narrower.is_none() {
                    narrower = allowance.role.clone().filter(|role| role.as_str() != request.role);
                }
            }
        }
    }
    match narrower {
        _ if !counted => {
            ChainVerdict::Deny { policy: "none".to_owned(), reason: "no policy of this target is in force".to_owned() }
        }
        Some(role) => ChainVerdict::Narrow(role),
        None => ChainVerdict::Allow { ttl, labels },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> PolicyRequest {
        PolicyRequest {
            operation: Operation::Issue,
            time: 1_800_000_000,
            workload: "payment-service".into(),
            issuer: "cluster".into(),
            attributes: BTreeMap::new(),
            target: "inventory_db".into(),
            role: "app_admin".into(),
            ttl_seconds: 3_600,
            reason: None,
            ticket: None,
            metadata: BTreeMap::new(),
            facts: BTreeMap::new(),
        }
    }

    fn answer(name: &str, mode: Mode, verdict: Verdict) -> Answer {
        let record = PolicyRecord {
            name: name.into(),
            mode,
            verdict: String::new(),
            reason: String::new(),
            plugin_sha256: String::new(),
            micros: 0,
        };
        Answer { record, verdict }
    }

    fn allow(change: impl FnOnce(&mut Allowance)) -> Verdict {
        let mut allowance = Allowance::default();
        change(&mut allowance);
        Verdict::Allow(allowance)
    }

    fn hour() -> Ttl {
        Ttl::from_seconds(3_600).unwrap()
    }

    #[test]
    fn silence_and_shadows_never_grant() {
        assert!(matches!(add_up(&request(), hour(), &[]), ChainVerdict::Deny { .. }));
        let shadow = [answer("s", Mode::Shadow, allow(|_| ()))];
        assert!(matches!(add_up(&request(), hour(), &shadow), ChainVerdict::Deny { .. }));
    }

    #[test]
    fn one_no_is_a_no_and_a_shadow_no_is_not() {
        let chain = [
            answer("a", Mode::Enforce, allow(|_| ())),
            answer("b", Mode::Shadow, Verdict::Deny("shadow".into())),
            answer("c", Mode::Enforce, Verdict::Deny("closed".into())),
        ];
        assert_eq!(
            add_up(&request(), hour(), &chain),
            ChainVerdict::Deny { policy: "c".into(), reason: "closed".into() }
        );
        assert!(matches!(add_up(&request(), hour(), &chain[..2]), ChainVerdict::Allow { .. }));
    }

    #[test]
    fn the_smallest_cap_wins_and_none_lengthens() {
        let cap = |s| allow(move |a| a.max_ttl = Ttl::from_seconds(s).ok());
        let chain = [answer("a", Mode::Enforce, cap(600)), answer("b", Mode::Enforce, cap(9_999))];
        let ChainVerdict::Allow { ttl, .. } = add_up(&request(), hour(), &chain) else { panic!() };
        assert_eq!(ttl.seconds(), 600);
    }

    #[test]
    fn a_requirement_denies_until_it_is_met() {
        let chain = [answer("a", Mode::Enforce, allow(|a| a.requires = vec![Requirement::Ticket]))];
        assert!(matches!(add_up(&request(), hour(), &chain), ChainVerdict::Deny { .. }));
        let with = PolicyRequest { ticket: Some("OPS-42".into()), ..request() };
        assert!(matches!(add_up(&with, hour(), &chain), ChainVerdict::Allow { .. }));
        let blank = PolicyRequest { ticket: Some("  ".into()), ..request() };
        assert!(matches!(add_up(&blank, hour(), &chain), ChainVerdict::Deny { .. }));
    }

    #[test]
    fn a_narrower_role_is_asked_about_again() {
        let read_only = RoleName::new("app_read_only").unwrap();
        let chain = [answer("a", Mode::Enforce, allow(|a| a.role = Some(read_only.clone())))];
        assert_eq!(add_up(&request(), hour(), &chain), ChainVerdict::Narrow(read_only));
        let same = PolicyRequest { role: "app_read_only".into(), ..request() };
        assert!(matches!(add_up(&same, hour(), &chain), ChainVerdict::Allow { .. }));
    }
}
