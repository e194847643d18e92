//! Deciding: the policy chain of a target is asked, and a yes is a value. [`Permit`] has no other
//! constructor than [`decide`]: whoever holds one has passed every policy in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jit_core::event::{AuditEvent, EventKind};
use jit_core::id::RequestId;
use jit_core::name::RoleName;
use jit_core::policy::{Answer, ChainVerdict, Mode, Operation, PolicyRecord, PolicyRequest, Verdict, add_up};
use jit_core::ttl::Ttl;
use jit_runtime::FaultKind;

use crate::identity::Verified;
use crate::refusal::Refused;
use crate::request::CheckedRequest;
use crate::target::{ChainLink, Target};

/// How long a decision waits for room.
const ROOM_DEADLINE: Duration = Duration::from_secs(5);
/// How often a chain is asked again because a policy named a narrower role.
const MOST_NARROWINGS: usize = 4;

/// What is asked of a target by whom: the target exists and offers the role.
pub struct Asked {
    /// Who asks.
    pub caller: Arc<Verified>,
    /// Of which target.
    pub target: Arc<Target>,
    /// Which role.
    pub role: RoleName,
    /// For how long, already within the target's cap.
    pub ttl: Ttl,
    /// The request.
    pub request: CheckedRequest,
    /// The request's id.
    pub request_id: RequestId,
    /// When.
    pub at: Timestamp,
    /// Issue or renew.
    pub operation: Operation,
}

impl Asked {
    /// What the policies are told.
    fn input(&self) -> PolicyRequest {
        PolicyRequest {
            operation: self.operation,
            time: u64::try_from(self.at.as_second()).unwrap_or(0),
            workload: self.caller.principal.workload.clone(),
            issuer: self.caller.principal.issuer.clone(),
            attributes: self.caller.attributes.clone(),
            target: self.target.name.to_string(),
            role: self.role.to_string(),
            ttl_seconds: u64::from(self.ttl.seconds()),
            reason: self.request.reason.clone(),
            ticket: self.request.ticket.clone(),
            metadata: self.request.metadata.clone(),
            facts: BTreeMap::new(),
        }
    }
}

/// What a chain said, with all that the audit record needs.
pub struct Decision {
    /// Who asked what.
    pub asked: Asked,
    /// The input as the policies saw it first, for replay.
    pub input: PolicyRequest,
    /// Each policy's part, of the last round.
    pub policies: Vec<PolicyRecord>,
    /// Labels that policies gave.
    pub labels: BTreeMap<String, String>,
    /// Policies in shadow mode that would have decided otherwise: name and reason.
    pub shadow_diffs: Vec<(String, String)>,
}

/// A yes.
pub struct Permit {
    /// What was decided on.
    pub decision: Decision,
    /// The role that holds.
    pub role: RoleName,
    /// The length that holds.
    pub ttl: Ttl,
    /// Not public: what makes this type unforgeable outside of this module.
    _proof: Proof,
}

/// That a chain was asked and said yes.
struct Proof;

/// A no.
pub struct Denial {
    /// What was decided on.
    pub decision: Decision,
    /// Who said no.
    pub policy: String,
    /// Why.
    pub reason: String,
}

impl Decision {
    /// An audit event of this decision, without a lease.
    #[must_use]
    pub fn event(&self, kind: EventKind) -> AuditEvent {
        let Asked { caller, request, request_id, at, .. } = &self.asked;
        let event = request_event(kind, *at, caller, request, request_id);
        self.complete(AuditEvent { role: Some(self.asked.role.to_string()), ..event })
    }

    /// The event with the decision's own part: each policy's verdict, and the input from which the
    /// decision can be replayed.
    #[must_use]
    pub fn complete(&self, mut event: AuditEvent) -> AuditEvent {
        event.policies.clone_from(&self.policies);
        event = event.with("input", serde_json::to_value(&self.input).unwrap_or_default());
        if !self.labels.is_empty() {
            event = event.with("labels", serde_json::to_value(&self.labels).unwrap_or_default());
        }
        event
    }

    /// One event for each policy in shadow mode that would have decided otherwise.
    pub fn shadow_events(&self) -> impl Iterator<Item = AuditEvent> + '_ {
        self.shadow_diffs.iter().map(|(policy, reason)| {
            metrics::counter!("jit_policy_shadow_diff_total", "policy" => policy.clone()).increment(1);
            let event = self.event(EventKind::ShadowDiff).with("policy", policy.clone());
            event.with_error(reason.clone())
        })
    }
}

/// An audit event about a request of a verified caller.
#[must_use]
pub fn request_event(
    kind: EventKind,
    at: Timestamp,
    caller: &Verified,
    request: &CheckedRequest,
    request_id: &RequestId,
) -> AuditEvent {
    AuditEvent {
        request_id: Some(request_id.to_string()),
        workload: Some(caller.principal.workload.clone()),
        identity_issuer: Some(caller.principal.issuer.clone()),
        k8s_namespace: caller.attributes.get("k8s_namespace").cloned(),
        k8s_pod: caller.attributes.get("k8s_pod").cloned(),
        target_db: Some(request.target.to_string()),
        reason: request.reason.clone(),
        ticket: request.ticket.clone(),
        ..AuditEvent::new(kind, at)
    }
}

impl Denial {
    /// The refusal for the caller.
    #[must_use]
    pub fn refused(&self) -> Refused {
        Refused::PolicyDenied { policy: self.policy.clone(), reason: self.reason.clone() }
    }
}

/// Asks the chain. Policies are guests that may burn their whole time limit, so they run on the
/// blocking pool and never hold up the tasks that serve others.
///
/// # Errors
/// [`Refused::Overloaded`] when the broker is stopping.
pub async fn decide(asked: Asked) -> Result<Result<Permit, Box<Denial>>, Refused> {
    let room = Arc::clone(&asked.target.deciding);
    let Ok(Ok(_room)) = tokio::time::timeout(ROOM_DEADLINE, room.acquire()).await else {
        return Err(Refused::Overloaded);
    };
    let decided = tokio::task::spawn_blocking(move || ask_chain(asked)).await;
    decided.unwrap_or_else(|error| {
        tracing::error!(%error, "deciding was cut off");
        Err(Refused::Overloaded)
    })
}

type Decided = Result<Result<Permit, Box<Denial>>, Refused>;

fn ask_chain(asked: Asked) -> Decided {
    let first_input = asked.input();
    let mut input = first_input.clone();
    let mut role = asked.role.clone();
    let mut narrowings = 0;
    loop {
        let answers: Vec<Answer> = asked
            .target
            .chain
            .iter()
            .filter(|link| link.mode != Mode::Off)
            .map(|link| ask(link, &input))
            .collect::<Result<_, _>>()?;
        let verdict = add_up(&input, asked.ttl, &answers);
        if let ChainVerdict::Narrow(narrower) = &verdict
            && narrowings < MOST_NARROWINGS
            && asked.target.roles.contains_key(narrower)
        {
            narrowings += 1;
            role = narrower.clone();
            input.role = narrower.to_string();
            continue;
        }
        let shadow_diffs = shadow_diffs(&input, asked.ttl, &answers, &verdict);
        let mut decision = Decision {
            asked,
            input: first_input,
            policies: answers.into_iter().map(|answer| answer.record).collect(),
            labels: BTreeMap::new(),
            shadow_diffs,
        };
        let deny = |decision, policy: String, reason: String| Ok(Err(Box::new(Denial { decision, policy, reason })));
        return match verdict {
            ChainVerdict::Allow { ttl, labels } => {
                decision.labels = labels;
                Ok(Ok(Permit { decision, role, ttl, _proof: Proof }))
            }
            ChainVerdict::Deny { policy, reason } => deny(decision, policy, reason),
            ChainVerdict::Narrow(narrower) => {
                let reason = format!("the policies want role {narrower}, which cannot be granted here");
                deny(decision, "chain".to_owned(), reason)
            }
        };
    }
}

/// Asks one policy. Whatever goes wrong in it denies, by its name (CLOSED).
fn ask(link: &ChainLink, input: &PolicyRequest) -> Result<Answer, Refused> {
    let started = Instant::now();
    let verdict = match link.plugin.decide(&link.config, input) {
        Ok(verdict) => verdict,
        // Not the policy's doing, so not its no.
        Err(fault) if matches!(fault.kind, FaultKind::Overloaded) => return Err(Refused::Overloaded),
        Err(fault) => {
            metrics::counter!("jit_plugin_faults_total", "plugin" => link.name.clone()).increment(1);
            tracing::warn!(policy = link.name, %fault, "a policy failed and denies");
            Verdict::Deny(format!("policy {} failed: {fault}", link.name))
        }
    };
    let took = started.elapsed();
    metrics::histogram!("jit_policy_seconds", "policy" => link.name.clone()).record(took);
    let (word, reason) = match &verdict {
        Verdict::Allow(allowance) => match allowance.missing(input) {
            Some(missing) => ("deny", missing.to_owned()),
            None => ("allow", allowance.reason.clone()),
        },
        Verdict::Deny(reason) => ("deny", reason.clone()),
    };
    let record = PolicyRecord {
        name: link.name.clone(),
        mode: link.mode,
        verdict: word.to_owned(),
        reason,
        plugin_sha256: link.sha256.clone(),
        micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    };
    Ok(Answer { record, verdict })
}

/// What each shadow policy would have changed, had it counted alone beside the others.
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
