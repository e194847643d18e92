//! Explaining a decision to an operator: any workload, any moment, with facts of their choice, and
//! without any effect. What applications get of their own decisions is `POST /v1/simulate`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::ports::{Clock as _, SystemClock};
use jiff::Timestamp;
use jit_api::{CredentialType, IssueRequest};
use jit_core::id::RequestId;
use jit_core::lease::VerifierKind;
use jit_core::name::{Principal, RoleName};
use jit_core::policy::{ContextRecord, LEASE, Operation, PolicyRecord, PolicyRequest, about_credential};
use jit_core::ttl::Ttl;
use serde::{Deserialize, Serialize};

use crate::chain::{self, Final};
use crate::facts;
use crate::refusal::Refused;
use crate::request::CheckedRequest;
use crate::target::{Serving, Target};
use jit_core::spelling;
use jit_identity::KnownIssuer;
use jit_ledger::Store;
use jit_password::Verifier;

/// The most attributes or facts of a question.
const MOST_PAIRS: usize = 64;
/// The longest name or value among them, in bytes; also of workload and issuer.
const MOST_TEXT: usize = 1_024;

/// What is to be explained.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// A new lease, or a renewal.
    #[serde(default = "issue")]
    pub operation: Operation,
    /// Who asks: the workload's name.
    pub workload: String,
    /// The issuer's configured name. Empty takes the one that there is, and is refused where there are
    /// several.
    #[serde(default)]
    pub issuer: String,
    /// The token's `sub`: whose requests and leases are counted. Empty counts all of that name.
    #[serde(default)]
    pub subject: String,
    /// Attributes of the identity.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Which target, role, and so on: as the body of `/issue`.
    pub request: IssueRequest,
    /// At which moment; none is now.
    #[serde(default)]
    pub time: Option<Timestamp>,
    /// The caller's IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_address: Option<IpAddr>,
    /// The type of credential: `password`, `verifier` for the kind of verifier that the target prefers, or a kind. None
    /// is a password. What a request of `/issue` brings, only the caller can make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// What the operation is about: `lease` of a renewal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resource: BTreeMap<String, String>,
    /// Facts in place of those of providers and counts: a provider that is named here is not asked,
    /// and with any `usage.…` nothing is counted.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

fn issue() -> Operation {
    Operation::Issue
}

/// How the decision came about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    /// `allow` or `deny`.
    pub decision: String,
    /// Who said no: a policy, a context provider, or `chain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The role that would hold; of a no, the one of the last round.
    pub role: String,
    /// The length that would hold, in seconds; of a no, the one asked for within the target's cap.
    pub ttl_seconds: u32,
    /// What the policies were told.
    pub input: PolicyRequest,
    /// The role of the last round, where a policy named a narrower one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrowed_to: Option<String>,
    /// Each context provider's part.
    pub contexts: Vec<ContextRecord>,
    /// Each policy's part, in the order of the chain.
    pub policies: Vec<PolicyRecord>,
    /// What a real request would have and the question has not, so that it may be decided otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// Labels for the audit record.
    pub labels: BTreeMap<String, String>,
    /// Policies without effect that would have decided otherwise: name, and how.
    pub shadow_diffs: Vec<(String, String)>,
}

impl Question {
    fn check(&self) -> Result<(), Refused> {
        let fits = |text: &str| text.len() <= MOST_TEXT && !text.chars().any(char::is_control);
        if self.workload.is_empty() || ![&self.workload, &self.issuer, &self.subject].into_iter().all(|text| fits(text))
        {
            return Err(Refused::field("workload", "workload, issuer and subject are texts of at most 1 KiB"));
        }
        for (field, pairs) in [("attributes", &self.attributes), ("facts", &self.facts), ("resource", &self.resource)] {
            if pairs.len() > MOST_PAIRS || !pairs.iter().all(|(name, value)| fits(name) && fits(value)) {
                return Err(Refused::field(field, format!("{field} are at most {MOST_PAIRS}, each of at most 1 KiB")));
            }
        }
        Ok(())
    }

    /// Takes the issuer that is meant, and gives what the question lacks beside its tokens.
    fn settle_issuer(&mut self, issuers: &[KnownIssuer]) -> Result<Vec<String>, Refused> {
        let names = || issuers.iter().map(|issuer| issuer.name.as_str());
        let issuer = match (self.issuer.as_str(), issuers) {
            // A configuration without any: there is nobody to be confused with.
            (_, []) => return Ok(Vec::new()),
            ("", [only]) => only,
            ("", _) => {
                let all: Vec<&str> = names().collect();
                let detail = format!("there are several issuers; say which one vouches (--issuer): {}", all.join(", "));
                return Err(Refused::field("issuer", detail));
            }
            (name, _) => issuers.iter().find(|issuer| issuer.name == name).ok_or_else(|| {
                let near = spelling::nearest(name, names());
                let near = near.map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
                Refused::field("issuer", format!("there is no such issuer{near}"))
            })?,
        };
        self.issuer = issuer.name.clone();
        let missing = issuer.attributes.iter().filter(|name| !self.attributes.contains_key(*name));
        Ok(missing.map(|name| format!("attribute {name} (--attribute {name}=…)")).collect())
    }

    /// Whether facts of that provider are given.
    fn gives(&self, provider: &str) -> bool {
        self.facts.keys().any(|name| name.split_once('.').is_some_and(|(of, _)| of == provider))
    }
}

/// Decides as a request would be decided. Without a store nothing is counted: policies that want
/// numbers need them among the question's facts.
///
/// # Errors
/// [`Refused`] when the target or role is not there, or the question has a mistake.
pub async fn explain(
    serving: &Serving,
    store: Option<&dyn Store>,
    issuers: &[KnownIssuer],
    mut question: Question,
) -> Result<Explanation, Refused> {
    question.check()?;
    let mut lacks = question.settle_issuer(issuers)?;
    let request = CheckedRequest::check(question.request.clone())?;
    let (target, role, ttl) = serving.find(&request)?;
    let verifier = request.verifier.as_ref().map(Verifier::kind);
    let verifier = match question.credential.as_deref() {
        Some(word) => verifier_of(word, &target, &role)?,
        None => verifier,
    };
    let at = question.time.unwrap_or_else(|| SystemClock.wall());
    let mut input = PolicyRequest {
        operation: question.operation.clone(),
        time: u64::try_from(at.as_second()).unwrap_or(0),
        workload: question.workload.clone(),
        issuer: question.issuer.clone(),
        attributes: question.attributes.clone(),
        target: target.name.to_string(),
        role: role.to_string(),
        ttl_seconds: u64::from(ttl.seconds()),
        reason: request.reason,
        ticket: request.ticket,
        metadata: request.metadata,
        facts: BTreeMap::new(),
        caller_address: question.caller_address,
        resource: about_credential(verifier),
    };
    input.resource.extend(question.resource.clone());
    let asked = target.contexts.iter().filter(|link| !question.gives(&link.name));
    let gathered = facts::gather(asked, &input).await;
    if let (Some(store), false) = (store, question.gives("usage")) {
        let principal = Principal {
            issuer: question.issuer.clone(),
            workload: question.workload.clone(),
            subject: question.subject.clone(),
        };
        if let Some(counted) = target.counted(RequestId::generate(at), principal, at, &question.operation) {
            input.facts.extend(store.usage(&counted).await?.facts());
        }
    }
    if store.is_some() && target.usage_windows.is_some() && question.subject.is_empty() && !question.gives("usage") {
        lacks.push("the token's subject (--subject …): the counts are of all of that workload's name".to_owned());
    }
    if store.is_none() && target.usage_windows.is_some() && !question.gives("usage") {
        lacks.push("counts of requests and leases (--fact usage.…=…): no broker was asked".to_owned());
    }
    input.facts.extend(gathered.facts);
    input.facts.extend(question.facts);
    let mut explanation = Explanation {
        decision: "deny".to_owned(),
        policy: None,
        reason: None,
        role: role.to_string(),
        ttl_seconds: ttl.seconds(),
        input,
        narrowed_to: None,
        contexts: gathered.records,
        policies: Vec::new(),
        lacks,
        labels: BTreeMap::new(),
        shadow_diffs: Vec::new(),
    };
    if let Some(provider) = gathered.failed {
        explanation.reason = Some(facts::failed(&provider));
        explanation.policy = Some(provider);
        return Ok(explanation);
    }
    let explained = tokio::task::spawn_blocking(move || ask(&target, role, ttl, verifier, explanation)).await;
    explained.unwrap_or(Err(Refused::Overloaded))
}

/// What a policy looked at that only a real request has.
fn unknown_to(policies: &[PolicyRecord], input: &PolicyRequest) -> Vec<String> {
    let looked_at = |wanted: &[&str]| {
        policies.iter().flat_map(|policy| &policy.looked_at).any(|word| wanted.contains(&word.as_str()))
    };
    let mut lacks = Vec::new();
    if input.caller_address.is_none() && looked_at(&["caller_address"]) {
        lacks.push("the caller's address (--caller-address …)".to_owned());
    }
    let renews = input.operation == Operation::Renew && !input.resource.contains_key(LEASE);
    if renews && looked_at(&["resource", "resource lease"]) {
        lacks.push("the lease's id (--resource lease=…)".to_owned());
    }
    lacks
}

/// The kind of verifier that the word means; none of a password.
///
/// # Errors
/// [`Refused::NotOffered`] where the role takes no such credential, as `/issue` would say.
fn verifier_of(word: &str, target: &Target, role: &RoleName) -> Result<Option<VerifierKind>, Refused> {
    let kind = match CredentialType::from_word(word) {
        Some(CredentialType::Password) => return Ok(None),
        Some(CredentialType::Verifier) => None,
        None => Some(VerifierKind::from_word(word).ok_or_else(|| {
            let kinds = VerifierKind::ALL.map(VerifierKind::as_str).join(", ");
            Refused::field("credential", format!("credential is password, verifier, or one of {kinds}"))
        })?),
    };
    let offered = target.verifiers(role).iter().map(|offered| offered.kind);
    match offered.clone().find(|offered| kind.is_none_or(|kind| kind == *offered)) {
        Some(kind) => Ok(Some(kind)),
        None => Err(not_offered(target, role)),
    }
}

fn not_offered(target: &Target, role: &RoleName) -> Refused {
    let offers = target.offers(role);
    Refused::NotOffered { target: target.name.to_string(), reason: format!("role {role} offers {offers}") }
}

fn ask(
    target: &Target,
    role: RoleName,
    ttl: Ttl,
    verifier: Option<VerifierKind>,
    mut explanation: Explanation,
) -> Result<Explanation, Refused> {
    let said = chain::ask(target, role.clone(), ttl, &explanation.input)?;
    explanation.narrowed_to = (said.role != role).then(|| said.role.to_string());
    explanation.role = said.role.to_string();
    explanation.lacks.extend(unknown_to(&said.policies, &explanation.input));
    explanation.policies = said.policies;
    explanation.shadow_diffs = said.shadow_diffs;
    // A policy may have named another role.
    if verifier.is_some_and(|kind| target.verifiers(&said.role).iter().all(|offered| offered.kind != kind)) {
        explanation.reason = Some(not_offered(target, &said.role).to_string());
        return Ok(explanation);
    }
    match said.verdict {
        Final::Allow { ttl, labels } => {
            explanation.decision = "allow".to_owned();
            explanation.ttl_seconds = ttl.seconds();
            explanation.labels = labels;
        }
        Final::Deny { policy, reason } => {
            explanation.policy = Some(policy);
            explanation.reason = Some(reason);
        }
    }
    Ok(explanation)
}

#[cfg(test)]
#[path = "simulate_tests.rs"]
mod tests;
