//! `POST /issue`, top to bottom. Each step takes a value that only the step before can make:
//!
//! ```text
//! Verified + CheckedRequest ─ resolve ▶ Asked ─ decide ▶ Permit ─ intend ▶ Intended
//!                             ─ create ▶ Created ─ settle ▶ Disclosure
//! ```
//! - `intend` makes the lease durable before any call (INTENT-FIRST);
//! - `create` turns the driver's answer into one of THREE-OUTCOMES;
//! - `settle` makes the active lease and its audit record durable in one transaction, and only
//!   then is there a [`Disclosure`] (AUDITED-OR-NOTHING).
//!
//! Wherever a step is lost, what is left is a lease that the removal knows ([`crate::removal`]).

use std::sync::Arc;

use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::driver::Issued;
use jit_core::driver::Lane;
use jit_core::event::{AuditEvent, Denied, DeniedBy, Doubtful, Event, Failed, Granted, LeaseRest};
use jit_core::id::{LeaseId, RequestId};
use jit_core::lease::{CallersVerifier, Cause, Idempotency, Lease, LeaseState};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::policy::{Operation, about_credential};
use jit_core::secret::AccountSecret;
use jit_identity::Verified;
use jit_password::{Verifier, WeakVerifier};

use crate::birth::Birth;
use crate::clock::LeaseClock;
use crate::gate::Gate;
use crate::ledger::Ledger;
use crate::leftover::Leftovers;
use crate::permit::{Asked, Counting, DecideFlow, Permit, decide, request_event};
use crate::places::Places;
use crate::ready::Ready;
use crate::refusal::Refused;
use crate::replay::{self, Handover, Handovers, ReplayFlow, Turns};
use crate::request::{CheckedRequest, IdempotencyKey};
use crate::rotation::issue::{HandOutFlow, hand_out};
use crate::target::{Endpoint, Target, account_view};
use crate::undo::{UndoFlow, Unsettled, abandon};
use crate::verifying::{Verifying, earlier_attempt};
use crate::work::Wake;
use jit_ledger::{Change, StoreError};

/// What it takes to issue.
pub struct IssueFlow {
    pub(crate) gate: Gate,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Arc<LeaseClock>,
    /// Targets and policies.
    pub(crate) decide: DecideFlow,
    /// Room for the costly check of a caller's verifier.
    pub(crate) verifying: Verifying,
    /// Passwords that are made ahead.
    pub(crate) ready: Arc<Ready>,
    /// Requests with the same Idempotency-Key.
    pub(crate) turns: Turns,
    /// The answer that such a key already has.
    pub(crate) replay: ReplayFlow,
    /// Roles that hand out a standing account's password.
    pub(crate) hand_out: Arc<HandOutFlow>,
    /// Who leaves too many accounts behind gets no more.
    pub(crate) leftovers: Arc<Leftovers>,
    /// Where the account will be.
    pub(crate) places: Arc<Places>,
    /// The mark on the account's name.
    pub(crate) birth: Arc<Birth>,
    /// Secrets that a retry may still get.
    pub(crate) handovers: Arc<Handovers>,
    /// The removal must not oversleep the lease's end.
    pub(crate) wake: Arc<Wake>,
    /// What takes back an issue that did not come to its end.
    pub(crate) undo: Arc<UndoFlow>,
}

/// A secret that may leave the broker: its lease is active and its audit record durable. Only
/// `settle` and [`replay`] make one.
pub struct Disclosure {
    /// The lease.
    pub lease: Lease,
    /// What goes out once, with the reply.
    pub handover: Handover,
    /// Where to connect.
    pub endpoint: Option<Endpoint>,
    /// Of a rotating account: until when the password before this one works, if it does.
    pub previous_valid_until: Option<Timestamp>,
}

/// Issues a credential, or says why not.
///
/// # Errors
/// [`Refused`]; whatever it is, no account is left that the broker does not know it must remove.
pub async fn issue(
    flow: &IssueFlow,
    caller: Arc<Verified>,
    request: CheckedRequest,
    key: Option<IdempotencyKey>,
    request_id: RequestId,
) -> Result<Disclosure, Refused> {
    flow.gate.may_hand_out()?;
    let _busy = flow.ready.busy();
    let idempotency = key.map(|key| Idempotency { key: key.digest(&caller.principal), body: request.digest.clone() });
    let _turn = match &idempotency {
        Some(idempotency) => Some(flow.turns.take(&idempotency.key).await?),
        None => None,
    };
    if let Some(idempotency) = &idempotency
        && let Some(same_answer) =
            replay::same_answer(&flow.replay, &caller, &request, idempotency, &request_id).await?
    {
        return Ok(same_answer);
    }
    let asked = offered(&flow.decide, &caller, &request, &request_id).await?;
    // A retry of a lease that there is makes no new account, and came back above.
    if let Err(blocked) = flow.leftovers.allow_one_more(&caller.principal, &asked.target.name) {
        return Err(not_offered(&flow.decide, &caller, &request, &request_id, blocked).await);
    }
    if let Some(verifier) = asked.request.verifier.as_ref().filter(|verifier| asked.target.may_be_empty(verifier)) {
        flow.verifying.check_not_empty(verifier).await?;
    }
    let permit = permitted(&flow.decide, asked, Counting::Count).await?;
    // A policy may have named another role.
    permit.decision.asked.target.takes(&permit.role, permit.decision.asked.request.verifier.as_ref())?;
    let granted = permit.decision.asked.target.roles.get(&permit.role);
    if let Some(rotating) = granted.and_then(|role| role.rotating.clone()) {
        return hand_out(&flow.hand_out, permit, &rotating, idempotency).await;
    }
    let intended = intend(flow, permit, idempotency).await?;
    let created = create(flow, intended).await?;
    settle(flow, created).await
}

/// What is asked for is offered; a request for what is not is on record before the caller hears it.
pub(crate) async fn offered(
    flow: &DecideFlow,
    caller: &Arc<Verified>,
    request: &CheckedRequest,
    request_id: &RequestId,
) -> Result<Asked, Refused> {
    match resolve(flow, Arc::clone(caller), request.clone(), request_id.clone(), Operation::Issue) {
        Ok(asked) => Ok(asked),
        Err(refused) => Err(not_offered(flow, caller, request, request_id, refused).await),
    }
}

/// The target exists, offers the role, and caps the length.
///
/// # Errors
/// [`Refused::UnknownTarget`], [`Refused::RoleNotAllowed`], or a missing role.
pub fn resolve(
    flow: &DecideFlow,
    caller: Arc<Verified>,
    request: CheckedRequest,
    request_id: RequestId,
    operation: Operation,
) -> Result<Asked, Refused> {
    let (target, role, ttl) = flow.serving.load().find(&request)?;
    let resource = about_credential(request.verifier.as_ref().map(Verifier::kind));
    let at = flow.clock.now();
    Ok(Asked { caller, target, role, ttl, request, request_id, at, operation, resource })
}

/// A verified workload asked for what is not offered: on record, as a policy's no would be.
async fn not_offered(
    flow: &DecideFlow,
    caller: &Verified,
    request: &CheckedRequest,
    request_id: &RequestId,
    refused: Refused,
) -> Refused {
    let on_record = matches!(
        refused,
        Refused::RoleNotAllowed { .. }
            | Refused::UnknownTarget(_)
            | Refused::Blocked { .. }
            | Refused::NotOffered { .. }
    );
    if !on_record {
        return refused;
    }
    let role = request.role.as_ref().map(ToString::to_string);
    let denied = Denied { by: Some(DeniedBy::Code(refused.code())), ..Denied::default() };
    let event = request_event(Event::IssueDenied(denied), flow.clock.wall(), caller, request, request_id);
    let event = AuditEvent { role, ..event }.with_error(refused.to_string());
    match flow.ledger.deny(&caller.principal, vec![event], Vec::new()).await {
        Ok(()) => refused,
        Err(error) => error.into(),
    }
}

/// The policies say yes; a no is on record before the caller hears it.
pub(crate) async fn permitted(flow: &DecideFlow, asked: Asked, counting: Counting) -> Result<Permit, Refused> {
    match decide(flow.ledger.store(), asked, counting).await? {
        Ok(permit) => Ok(permit),
        Err(denial) => {
            let event = denial.decision.event(Event::IssueDenied(denial.recorded()));
            let event = event.with_error(denial.reason.clone());
            let events = std::iter::once(event).chain(denial.decision.shadow_events()).collect();
            let owner = &denial.decision.asked.caller.principal;
            flow.ledger.deny(owner, events, denial.decision.settles(false)).await?;
            Err(denial.refused())
        }
    }
}

/// A lease whose intent is durable.
struct Intended {
    lease: Lease,
    permit: Permit,
    unsettled: Unsettled,
}

/// A pending lease of what was permitted, with that account.
pub(crate) fn draft(permit: &Permit, account: AccountName, idempotency: Option<Idempotency>) -> Lease {
    let asked = &permit.decision.asked;
    let target = &asked.target;
    // Whole seconds, as the targets' own expiries are: lease and backstop end together.
    let issued_at = Timestamp::from_second(asked.at.as_second()).unwrap_or(asked.at);
    Lease {
        id: LeaseId::generate(asked.at),
        version: 0,
        state: LeaseState::Pending,
        principal: asked.caller.principal.clone(),
        attributes: asked.caller.attributes.clone(),
        target: target.name.clone(),
        role: permit.role.clone(),
        account,
        username: None,
        external_id: None,
        standing: target.standing(),
        driver: target.driver_ref(),
        request_id: asked.request_id.clone(),
        issued_at,
        term_start: issued_at,
        expires_at: issued_at + permit.ttl.duration(),
        max_expires_at: issued_at + target.max_ttl.duration(),
        renewable: target.renewable(),
        reason: asked.request.reason.clone(),
        ticket: asked.request.ticket.clone(),
        metadata: asked.request.metadata.clone(),
        idempotency,
        removal: None,
        verifier: asked.request.verifier.as_ref().map(|verifier| CallersVerifier {
            kind: verifier.kind(),
            digest: verifier.digest(),
            takes_over: None,
        }),
        rotating: None,
    }
}

async fn intend(flow: &IssueFlow, permit: Permit, idempotency: Option<Idempotency>) -> Result<Intended, Refused> {
    let asked = &permit.decision.asked;
    let max_name = asked.target.driver.description().max_name_length;
    let account = asked.target.prefix.generate(&flow.birth.mark, &asked.caller.principal.workload, max_name);
    let mut lease = draft(&permit, account, idempotency);
    lease.driver.place = Some(flow.places.lately(&permit.decision.asked.target).await);
    let unsettled = Unsettled::new(&flow.undo, lease.clone());
    let settled = permit.decision.settles(true);
    let change = Change::insert(lease.clone()).settling(settled.clone());
    let mut intended = jit_failpoint::step("issue.intend", StoreError::at_failpoint, flow.ledger.commit(change)).await;
    if let Err(StoreError::VerifierUsed(before)) = &intended
        && let Some(same_request) = earlier_attempt(flow.ledger.store(), &lease, before).await?
    {
        lease.verifier = lease.verifier.map(|used| CallersVerifier { takes_over: Some(same_request), ..used });
        intended = flow.ledger.commit(Change::insert(lease.clone()).settling(settled)).await;
    }
    match intended {
        Ok(()) => Ok(Intended { lease, permit, unsettled }),
        Err(StoreError::VerifierUsed(_)) => {
            unsettled.settled();
            Err(WeakVerifier::Used.into())
        }
        Err(StoreError::KeyTaken(id)) => {
            unsettled.settled();
            Err(taken(flow, &lease, id).await?)
        }
        Err(error) => {
            // It may have become durable all the same: then there is a pending lease to close.
            unsettled.undo(Cause::NotAudited);
            Err(error.into())
        }
    }
}

/// Another broker took the key between the look at it and this request's intent: the same request is at work there, or
/// another one is.
async fn taken(flow: &IssueFlow, lease: &Lease, by: LeaseId) -> Result<Refused, Refused> {
    let holder = flow.ledger.store().lease(&by).await?;
    let same = holder
        .zip(lease.idempotency.as_ref())
        .is_some_and(|(holder, key)| replay::is_same_request(&holder, key) && holder.principal.owns(&lease.principal));
    Ok(if same { Refused::Overloaded } else { Refused::IdempotencyConflict(by) })
}

/// A lease whose account exists, with its secret.
struct Created {
    lease: Lease,
    permit: Permit,
    unsettled: Unsettled,
    issued: Issued,
    secret: AccountSecret,
}

async fn create(flow: &IssueFlow, intended: Intended) -> Result<Created, Refused> {
    let Intended { lease, permit, unsettled } = intended;
    let target = Arc::clone(&permit.decision.asked.target);
    if !flow.ledger.store().holds() {
        // Another broker may have taken the lease for one whose issue was cut off, and closed it (FENCED).
        unsettled.undo(Cause::Doubtful);
        return Err(Refused::Overloaded);
    }
    let secret = match permit.decision.asked.request.verifier.clone() {
        Some(verifier) => AccountSecret::Verifier(verifier),
        None => AccountSecret::from(flow.ready.take(target.roles.get(&lease.role).and_then(|role| role.form.last()))),
    };
    let called = call_driver(&target, flow.clock.wall(), &lease, &secret).await;
    if let (AccountSecret::Password(password), Some(role)) = (&secret, target.roles.get(&lease.role)) {
        role.form.note(flow.ready.placed(password));
    }
    let outcome = match called {
        // Nobody else makes such a name: it is our own call whose answer got lost on the way.
        Outcome::Refused(Refusal::Conflict(text)) => Outcome::Unknown(format!("the name exists: {text}")),
        outcome => outcome,
    };
    match outcome {
        Outcome::Done(issued) => Ok(Created { lease, permit, unsettled, issued, secret }),
        Outcome::Refused(refusal) => Err(refused(flow, &lease, unsettled, &permit, refusal).await),
        Outcome::Unknown(reason) => Err(doubtful(flow, &lease, unsettled, &permit, reason).await),
    }
}

/// The one call that makes an account, through the role's slots and with a deadline.
async fn call_driver(target: &Target, now: Timestamp, lease: &Lease, secret: &AccountSecret) -> Outcome<Issued> {
    let Some(role) = target.roles.get(&lease.role) else {
        return Outcome::Refused(Refusal::Configuration(format!("role {} is gone", lease.role)));
    };
    let Ok(Ok(_slot)) = tokio::time::timeout(target.timeout, role.slots.acquire()).await else {
        let reason = format!("all slots of role {} are busy", lease.role);
        return Outcome::Refused(Refusal::Unavailable { reason, answered: false, after_ms: None });
    };
    let account = account_view(lease, now);
    let scope = target.scope(Lane::Live);
    let call = async {
        match target.driver.create(&scope, &target.view, &role.view, &account, secret).await {
            Outcome::Unknown(reason) => Err(reason),
            known => Ok(known),
        }
    };
    jit_failpoint::step("issue.create", || "failpoint".to_owned(), call).await.unwrap_or_else(Outcome::Unknown)
}

/// What callers are told where the backend answered; its own words are for operators.
const NOT_NOW: &str = "it answers and cannot do this now; the operators find the reason under this request_id";

/// The backend said no: the lease is closed and the failure on record.
async fn refused(flow: &IssueFlow, lease: &Lease, unsettled: Unsettled, permit: &Permit, refusal: Refusal) -> Refused {
    let now = flow.clock.wall();
    let reason = refusal.reason();
    // The words of the other refusals come back with the reply, whose line in the log has them.
    if matches!(refusal, Refusal::Unavailable { answered: true, .. }) {
        tracing::warn!(lease = %lease.id, target = %lease.target, reason, "the target answers and cannot create an account now");
    }
    let event = failed(permit, now, lease).with_error(reason.clone());
    if let Ok(closed) = lease.refuse(now, reason) {
        let change = Change::step(closed).with(event);
        if let Err(error) = flow.ledger.commit(change).await {
            unsettled.undo(Cause::Doubtful);
            return error.into();
        }
    }
    unsettled.settled();
    match refusal {
        // Nobody says of a backend that answered that it cannot be reached.
        Refusal::Unavailable { answered: true, .. } => Refused::TargetUnavailable(NOT_NOW.to_owned()),
        Refusal::Unavailable { reason, .. } => Refused::TargetAway(reason),
        Refusal::Verifier(reason) => Refused::NotOffered { target: lease.target.to_string(), reason },
        other => Refused::TargetRefused(other.reason()),
    }
}

/// That a permitted issuance failed in the backend.
fn failed(permit: &Permit, at: Timestamp, lease: &Lease) -> AuditEvent {
    let failed = Failed { decision: Some(permit.decision.recorded()), cause: None };
    permit.decision.event_of_lease(Event::IssueFailed(failed), at, lease)
}

/// Nobody knows whether the account exists: the lease is doubtful and its removal begins.
async fn doubtful(flow: &IssueFlow, lease: &Lease, unsettled: Unsettled, permit: &Permit, reason: String) -> Refused {
    let now = flow.clock.wall();
    tracing::warn!(lease = %lease.id, target = %lease.target, reason, "the outcome of a creation is unknown");
    let doubt = Event::LeaseDoubtful(Doubtful { cause: None, lease: LeaseRest::of(lease) });
    let doubt = AuditEvent::of_lease(doubt, now, lease).with_error(reason.clone());
    if let Ok(doubted) = lease.doubt(Cause::Doubtful, now) {
        let failed = failed(permit, now, lease).with_error(reason);
        let change = Change::step(doubted).with(failed).with(doubt);
        if let Err(error) = flow.ledger.commit(change).await {
            unsettled.undo(Cause::Doubtful);
            return error.into();
        }
        flow.wake.removal.notify_one();
    }
    unsettled.settled();
    Refused::TargetTimeout(lease.id.clone())
}

/// Active lease and audit record become durable together; only then may the secret leave.
async fn settle(flow: &IssueFlow, created: Created) -> Result<Disclosure, Refused> {
    let Created { lease, permit, mut unsettled, issued, secret } = created;
    let capped = issued.expires_at.and_then(|at| Timestamp::from_second(i64::try_from(at).ok()?).ok());
    // From here on also an undoing knows what the backend calls the account.
    let lease = lease.with_account(issued.username, issued.external_id);
    unsettled.known_as(&lease);
    let settled = lease.settle(lease.external_id.clone(), capped.unwrap_or(lease.expires_at));
    let Ok(active) = settled else {
        unsettled.undo(Cause::NotAudited);
        return Err(Refused::AuditUnavailable);
    };
    let verifier = active.verifier.as_ref().map(|verifier| verifier.kind);
    let decision = permit.decision.recorded();
    let granted = Granted { decision, generation: None, verifier, lease: LeaseRest::of(&active) };
    let granted = permit.decision.event_of_lease(Event::IssueGranted(granted), flow.clock.wall(), &active);
    let events = std::iter::once(granted).chain(permit.decision.shadow_events());
    let change = Change::step(active.clone()).with_events(events);
    if let Err(error) = jit_failpoint::step("issue.settle", StoreError::at_failpoint, flow.ledger.commit(change)).await
    {
        unsettled.undo(Cause::NotAudited);
        return Err(error.into());
    }
    unsettled.settled();
    flow.wake.expiry_at(active.expires_at);
    let handover = Handover {
        username: active.login().to_owned(),
        secret: match secret {
            AccountSecret::Password(password) => Some(issued.secret.unwrap_or_else(|| password.text().clone())),
            AccountSecret::Verifier(_) => None,
        },
        properties: issued.properties,
    };
    if active.idempotency.is_some() {
        flow.handovers.keep(&active.id, handover.clone());
    }
    let ready =
        jit_failpoint::step("issue.disclose", StoreError::at_failpoint, async { Ok::<_, StoreError>(()) }).await;
    if let Err(error) = ready {
        abandon(&flow.undo, &active).await;
        return Err(error.into());
    }
    let endpoint = permit.decision.asked.target.endpoint.clone();
    Ok(Disclosure { lease: active, handover, endpoint, previous_valid_until: None })
}
