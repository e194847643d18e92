//! Deciding: the policy chain of a target is asked, and a yes is a value. [`Permit`] has no other
//! constructor than [`decide`]: whoever holds one has passed every policy in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use jit_core::event::{AuditEvent, Basis, Decided as Recorded, Denied, DeniedBy, Event, Narrowed, ShadowDiff};
use jit_core::id::RequestId;
use jit_core::lease::Lease;
use jit_core::name::RoleName;
use jit_core::policy::{ContextRecord, Operation, PolicyRecord, PolicyRequest};
use jit_core::ttl::Ttl;
use jit_identity::Verified;

use crate::chain::{self, Final};
use crate::clock::LeaseClock;
use crate::facts;
use crate::ledger::Ledger;
use crate::refusal::Refused;
use crate::request::CheckedRequest;
use crate::target::{Serving, Target};
use jit_ledger::{Counted, Settled, Store};

/// How long a decision waits for room.
const ROOM_DEADLINE: Duration = Duration::from_secs(5);

/// What it takes to decide, and to put a no on record.
#[derive(Clone)]
pub struct DecideFlow {
    pub(crate) ledger: Ledger,
    /// Which targets there are, each with its policies.
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    pub(crate) clock: Arc<LeaseClock>,
}

impl DecideFlow {
    /// Decides without effect: nothing is counted and nothing recorded.
    ///
    /// # Errors
    /// As [`decide`].
    pub async fn peek(&self, asked: Asked) -> Decided {
        decide(self.ledger.store(), asked, Counting::Peek).await
    }
}

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
    /// What the operation is about: the lease of a renewal.
    pub resource: BTreeMap<String, String>,
}

impl Asked {
    /// What the policies are told, but for the facts.
    fn input(&self) -> PolicyRequest {
        PolicyRequest {
            operation: self.operation.clone(),
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
            caller_address: self.request.caller_address,
            resource: self.resource.clone(),
        }
    }
}

/// What a chain said, with all that the audit record needs.
pub struct Decision {
    /// Who asked what.
    pub asked: Asked,
    /// The input as the policies saw it, for replay; in the last round with the role `narrowed_to`.
    pub input: PolicyRequest,
    /// Each policy's part, of the last round.
    pub policies: Vec<PolicyRecord>,
    /// Each context provider's part.
    pub contexts: Vec<ContextRecord>,
    /// Labels that policies gave.
    pub labels: BTreeMap<String, String>,
    /// The role of the last round, where a policy named a narrower one.
    pub narrowed_to: Option<RoleName>,
    /// Who named it, and who named those before it.
    pub narrowed_by: Vec<String>,
    /// Policies in shadow mode that would have decided otherwise: name and reason.
    pub shadow_diffs: Vec<(String, String)>,
    /// Whether the request was counted, and waits to be settled.
    held: bool,
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
    pub fn event(&self, event: Event) -> AuditEvent {
        let Asked { caller, request, request_id, at, .. } = &self.asked;
        AuditEvent {
            role: Some(self.asked.role.to_string()),
            policies: self.policies.clone(),
            ..request_event(event, *at, caller, request, request_id)
        }
    }

    /// An audit event of this decision about a lease.
    #[must_use]
    pub fn event_of_lease(&self, event: Event, at: Timestamp, lease: &Lease) -> AuditEvent {
        AuditEvent { policies: self.policies.clone(), ..AuditEvent::of_lease(event, at, lease) }
    }

    /// From what the decision can be replayed, for its events.
    #[must_use]
    pub fn recorded(&self) -> Recorded {
        let narrowed_to = self.narrowed_to.as_ref().map(ToString::to_string);
        Recorded {
            input: Box::new(self.input.clone()),
            labels: self.labels.clone(),
            contexts: self.contexts.clone(),
            narrowed: narrowed_to.map(|narrowed_to| Narrowed { narrowed_to, narrowed_by: self.narrowed_by.clone() }),
        }
    }

    /// That what was decided on is denied, by a policy or by the chain as a whole.
    #[must_use]
    pub fn denied_by(&self, policy: String) -> Denied {
        Denied { by: Some(DeniedBy::Policy(policy)), basis: Some(Basis::Decision(self.recorded())) }
    }

    /// What the change that makes its lease, or says that there will be none, settles
    /// ([`jit_ledger::Change::settled`]).
    #[must_use]
    pub fn settles(&self, granted: bool) -> Vec<Settled> {
        let settled = || Settled { request_id: self.asked.request_id.clone(), granted };
        self.held.then(settled).into_iter().collect()
    }

    /// One event for each policy in shadow mode that would have decided otherwise.
    pub fn shadow_events(&self) -> impl Iterator<Item = AuditEvent> + '_ {
        self.shadow_diffs.iter().map(|(policy, reason)| {
            metrics::counter!("jit_policy_shadow_diff_total", "policy" => policy.clone()).increment(1);
            let diff = ShadowDiff { basis: Basis::Decision(self.recorded()), policy: policy.clone() };
            self.event(Event::ShadowDiff(diff)).with_error(reason.clone())
        })
    }
}

/// An audit event about a request of a verified caller.
#[must_use]
pub fn request_event(
    event: Event,
    at: Timestamp,
    caller: &Verified,
    request: &CheckedRequest,
    request_id: &RequestId,
) -> AuditEvent {
    AuditEvent {
        request_id: Some(request_id.to_string()),
        workload: Some(caller.principal.workload.clone()),
        identity_issuer: Some(caller.principal.issuer.clone()),
        identity_subject: Some(caller.principal.subject.clone()),
        k8s_namespace: caller.attributes.get("k8s_namespace").cloned(),
        k8s_pod: caller.attributes.get("k8s_pod").cloned(),
        target_db: Some(request.target.to_string()),
        reason: request.reason.clone(),
        ticket: request.ticket.clone(),
        ..AuditEvent::new(event, at)
    }
}

impl Denial {
    /// What its event says.
    #[must_use]
    pub fn recorded(&self) -> Denied {
        self.decision.denied_by(self.policy.clone())
    }

    /// The refusal for the caller.
    #[must_use]
    pub fn refused(&self) -> Refused {
        Refused::PolicyDenied { policy: self.policy.clone(), reason: self.reason.clone() }
    }
}

/// Whether a decision counts as a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// It does: something follows from it.
    Count,
    /// It does not: nobody gets anything.
    Peek,
    /// It did already: the numbers have it.
    Again,
}

/// A yes, a no, or why neither could be found out.
pub type Decided = Result<Result<Permit, Box<Denial>>, Refused>;

/// Gathers the facts, counts the request in `store`, and asks the chain. Policies are guests that may burn their
/// whole time limit, so they run on the blocking pool and never hold up the tasks that serve others.
///
/// # Errors
/// [`Refused::Overloaded`] when there is no room or the broker is stopping,
/// [`Refused::AuditUnavailable`] when what policies want counted cannot be.
pub async fn decide(store: &dyn Store, asked: Asked, counting: Counting) -> Decided {
    let mut input = asked.input();
    let gathered = facts::gather(asked.target.contexts.iter(), &input).await;
    let held = count(store, &asked, counting, &mut input).await?;
    input.facts.extend(gathered.facts);
    let decision = Decision {
        asked,
        input,
        policies: Vec::new(),
        contexts: gathered.records,
        labels: BTreeMap::new(),
        narrowed_to: None,
        narrowed_by: Vec::new(),
        shadow_diffs: Vec::new(),
        held,
    };
    if let Some(provider) = gathered.failed {
        let reason = facts::failed(&provider);
        return Ok(Err(Box::new(Denial { decision, policy: provider, reason })));
    }
    // Only now: who waits for a provider's server takes no room from others.
    let room = Arc::clone(&decision.asked.target.deciding);
    let Ok(Ok(_room)) = tokio::time::timeout(ROOM_DEADLINE, room.acquire()).await else {
        return Err(Refused::Overloaded);
    };
    let decided = tokio::task::spawn_blocking(move || ask_chain(decision)).await;
    decided.unwrap_or_else(|error| {
        tracing::error!(%error, "deciding was cut off");
        Err(Refused::Overloaded)
    })
}

/// Where a policy of the target wants it, counts the request and adds the numbers to the input. Returns
/// whether it waits to be settled from now on.
async fn count(
    store: &dyn Store,
    asked: &Asked,
    counting: Counting,
    input: &mut PolicyRequest,
) -> Result<bool, Refused> {
    let principal = asked.caller.principal.clone();
    let counted = asked.target.counted(asked.request_id.clone(), principal, asked.at, &asked.operation);
    let Some(counted) = counted else { return Ok(false) };
    let usage = match counting {
        Counting::Count => store.count(&counted).await?,
        Counting::Peek => store.usage(&counted).await?,
        Counting::Again => store.usage(&Counted { again: true, ..counted }).await?,
    };
    input.facts.extend(usage.facts());
    Ok(counting == Counting::Count)
}

fn ask_chain(mut decision: Decision) -> Decided {
    let asked = &decision.asked;
    let said = chain::ask(&asked.target, asked.role.clone(), asked.ttl, &decision.input)?;
    decision.narrowed_to = (said.role != asked.role).then(|| said.role.clone());
    decision.narrowed_by = said.narrowed_by;
    decision.policies = said.policies;
    decision.shadow_diffs = said.shadow_diffs;
    Ok(match said.verdict {
        Final::Allow { ttl, labels } => {
            decision.labels = labels;
            Ok(Permit { decision, role: said.role, ttl, _proof: Proof })
        }
        Final::Deny { policy, reason } => Err(Box::new(Denial { decision, policy, reason })),
    })
}

#[cfg(test)]
#[path = "permit_tests.rs"]
mod tests;
