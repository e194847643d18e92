//! What is said to a policy, what it answers, and how the answers of a chain add up.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jit_api::CredentialType;
use jit_contract::VerifierKind;
use serde::{Deserialize, Serialize};

use crate::name::RoleName;
use crate::ttl::Ttl;

pub use crate::operation::Operation;

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
    /// The caller's IP address as the listener sees it. Absent where there is no connection, and in records of
    /// earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_address: Option<IpAddr>,
    /// What the operation is about: the type of the credential, and the lease of a renewal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resource: BTreeMap<String, String>,
}

/// The property of a renewal's resource that holds the lease's id.
pub const LEASE: &str = "lease";
/// The property that holds the type of the credential: `password`, or `verifier` where the caller makes the password.
pub const CREDENTIAL: &str = "credential";
/// The property that holds the kind of a verifier (`scram_sha_256`).
pub const VERIFIER: &str = "verifier";

/// What an operation is about, as far as the credential goes: a password of the broker's, or a caller's verifier.
#[must_use]
pub fn about_credential(verifier: Option<VerifierKind>) -> BTreeMap<String, String> {
    let kind = if verifier.is_some() { CredentialType::Verifier } else { CredentialType::Password };
    let mut resource = BTreeMap::from([(CREDENTIAL.to_owned(), kind.to_string())]);
    resource.extend(verifier.map(|kind| (VERIFIER.to_owned(), kind.to_string())));
    resource
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

    /// The contract's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reason => "reason",
            Self::Ticket => "ticket",
            Self::Approval => "approval",
        }
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

/// How the host came to a policy's answer. The answer is the same each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecidedBy {
    /// It was remembered: an earlier request agreed in all that the policy read. No instance ran.
    Memory,
    /// A fresh copy of the prepared instance decided.
    Copy,
    /// An instance that was prepared for this decision.
    Instance,
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
    /// What a yes came with.
    #[serde(flatten)]
    pub obligations: Obligations,
    /// What of the input it looked at, as [`crate::looked_at::LookedAt::words`] lists it. Empty in records of
    /// earlier releases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looked_at: Vec<String>,
    /// It did not answer: it trapped, ran out of time, or said what cannot be used. That denies, and
    /// need not happen again with the same input.
    #[serde(default, skip_serializing_if = "is_false")]
    pub failed: bool,
    /// Where it is being rolled out: whether it has reached this workload. One that it has not
    /// reached has `mode` shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_out: Option<bool>,
    /// The digest of the component that decided, in hexadecimal.
    pub plugin_sha256: String,
    /// The digest of its configuration (JSON as the broker passes it), in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config_sha256: String,
    /// How long it took, in microseconds, its fresh instance included.
    pub micros: u64,
}

impl PolicyRecord {
    /// The verdict that was recorded, so that it adds up with others as it did then; `None` when the
    /// record holds what no policy can say.
    #[must_use]
    pub fn recorded(&self) -> Option<Verdict> {
        if self.verdict == "deny" {
            return Some(Verdict::Deny(self.reason.clone()));
        }
        if self.verdict != "allow" {
            return None;
        }
        let Obligations { max_ttl_seconds, role, requires, labels } = &self.obligations;
        let max_ttl = match max_ttl_seconds {
            Some(seconds) => Some(i64::try_from(*seconds).ok().and_then(|seconds| Ttl::from_seconds(seconds).ok())?),
            None => None,
        };
        let role = match role {
            Some(role) => Some(RoleName::new(role.as_str()).ok()?),
            None => None,
        };
        let (reason, requires, labels) = (self.reason.clone(), requires.clone(), labels.clone());
        Some(Verdict::Allow(Allowance { reason, max_ttl, role, requires, labels }))
    }

    /// Whether that is what the policy was recorded to have said.
    #[must_use]
    pub fn says(&self, told: &Told) -> bool {
        self.verdict == told.verdict && self.reason == told.reason && self.obligations == told.obligations
    }
}

impl PolicyRecord {
    /// Of a policy of that name, before anything is known of its answer.
    #[must_use]
    pub fn unanswered(name: &str, mode: Mode) -> Self {
        Self {
            name: name.to_owned(),
            mode,
            verdict: String::new(),
            reason: String::new(),
            obligations: Obligations::default(),
            looked_at: Vec::new(),
            failed: false,
            rolled_out: None,
            plugin_sha256: String::new(),
            config_sha256: String::new(),
            micros: 0,
        }
    }
}

/// What a policy's yes comes with, as records have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obligations {
    /// The lease lives at most so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ttl_seconds: Option<u64>,
    /// This role instead of the one asked for. Not called `role`: that is the record's own.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "narrower_role")]
    pub role: Option<String>,
    /// What the request must have: `reason`, `ticket`, `approval`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// Labels for the audit record.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl From<&Allowance> for Obligations {
    fn from(allowance: &Allowance) -> Self {
        Self {
            max_ttl_seconds: allowance.max_ttl.map(|ttl| u64::from(ttl.seconds())),
            role: allowance.role.as_ref().map(ToString::to_string),
            requires: allowance.requires.clone(),
            labels: allowance.labels.clone(),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A verdict as records have it: a function of the verdict and the request alone, so that a decision
/// can be replayed and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// The reason; for a yes whose requirement is not met, what is missing.
    pub reason: String,
    /// What a yes came with.
    pub obligations: Obligations,
}

impl Verdict {
    /// How it is recorded. A yes that asks for what the request does not have counts, and reads, as a no.
    #[must_use]
    pub fn told(&self, request: &PolicyRequest) -> Told {
        match self {
            Self::Deny(reason) => Told { verdict: "deny", reason: reason.clone(), obligations: Obligations::default() },
            Self::Allow(allowance) => {
                let (verdict, reason) = match allowance.missing(request) {
                    Some(missing) => ("deny", missing.to_owned()),
                    None => ("allow", allowance.reason.clone()),
                };
                Told { verdict, reason, obligations: Obligations::from(allowance) }
            }
        }
    }
}

/// Where the facts of a context provider came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContextOutcome {
    /// It was asked.
    Asked,
    /// It was asked a short while ago.
    Cached,
    /// It failed; the configuration says whether that denies.
    Failed,
}

impl ContextOutcome {
    /// The record's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Cached => "cached",
            Self::Failed => "failed",
        }
    }
}

/// A context provider's part in a decision, as records show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextRecord {
    /// Its name in the configuration.
    pub name: String,
    /// Where its facts came from.
    pub outcome: ContextOutcome,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// It failed and the configuration lets policies decide without its facts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub failed_open: bool,
    /// The digest of the component, in hexadecimal.
    pub plugin_sha256: String,
    /// How long it took, in microseconds.
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

/// What a provider's failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The request is denied (CLOSED).
    #[default]
    Deny,
    /// The policies decide without its facts, and the record says so.
    Allow,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn request() -> PolicyRequest {
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
            caller_address: None,
            resource: BTreeMap::new(),
        }
    }

    fn answer(name: &str, mode: Mode, verdict: Verdict) -> Answer {
        Answer { record: PolicyRecord::unanswered(name, mode), verdict }
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

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let told = allow(|a| {
            a.max_ttl = Ttl::from_seconds(600).ok();
            a.role = RoleName::new("app_read_only").ok();
            a.requires = vec![Requirement::Ticket, Requirement::Approval];
            a.labels = BTreeMap::from([("rule".into(), "readers".into())]);
        })
        .told(&request());
        assert_eq!((told.verdict, told.reason.as_str()), ("deny", "a ticket is required: send \"ticket\""));
        let record = PolicyRecord {
            obligations: told.obligations.clone(),
            rolled_out: Some(true),
            ..answer("a", Mode::Shadow, allow(|_| ())).record
        };
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["narrower_role"], "app_read_only");
        assert_eq!(json["requires"], serde_json::json!(["ticket", "approval"]));
        assert_eq!(serde_json::from_value::<PolicyRecord>(json).unwrap(), record);
        assert_eq!(record.recorded(), None, "no verdict stands in it");
        let denied = PolicyRecord { verdict: told.verdict.into(), reason: told.reason.clone(), ..record.clone() };
        assert_eq!(denied.recorded(), Some(Verdict::Deny(told.reason)), "it counted as a no");
        let given = allow(|a| a.max_ttl = Ttl::from_seconds(600).ok());
        let as_told = given.told(&request());
        let allowed = PolicyRecord {
            verdict: "allow".into(),
            reason: String::new(),
            obligations: as_told.obligations.clone(),
            ..record.clone()
        };
        assert_eq!(allowed.recorded(), Some(given));
        assert!(allowed.says(&as_told) && !denied.says(&as_told));
        // As an older release wrote it.
        let old =
            serde_json::json!({"name": "a", "mode": "enforce", "verdict": "allow", "plugin_sha256": "00", "micros": 7});
        let old: PolicyRecord = serde_json::from_value(old).unwrap();
        assert_eq!((old.obligations, old.looked_at), (Obligations::default(), Vec::new()));
    }

    #[test]
    fn an_input_of_an_earlier_release_is_read_and_written_as_it_was() {
        let old = serde_json::json!({
            "operation": "renew", "time": 1, "workload": "w", "issuer": "i", "attributes": {}, "target": "t",
            "role": "r", "ttl_seconds": 60, "reason": null, "ticket": null, "metadata": {}, "facts": {},
        });
        let input: PolicyRequest = serde_json::from_value(old.clone()).unwrap();
        assert_eq!((input.caller_address, input.resource.len()), (None, 0));
        assert_eq!(serde_json::to_value(&input).unwrap(), old);
        let whole = PolicyRequest {
            caller_address: Some("192.0.2.7".parse().unwrap()),
            resource: BTreeMap::from([(LEASE.to_owned(), "lease_01".to_owned())]),
            ..input
        };
        let json = serde_json::to_value(&whole).unwrap();
        assert_eq!((&json["caller_address"], &json["resource"]["lease"]), (&"192.0.2.7".into(), &"lease_01".into()));
        assert_eq!(serde_json::from_value::<PolicyRequest>(json).unwrap(), whole);
    }
}
