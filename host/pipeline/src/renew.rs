//! `POST /v1/leases/{id}/renew`: the same account, a later expiry, never past `max_expires_at`.
//!
//! ```text
//! Verified + id ─ own ▶ Renewable ─ judge ▶ Judged ─ extend ▶ Extended ─ record ▶ Lease
//! ```
//!
//! The policies are asked again: what they would no longer grant is not prolonged. The backend's
//! own expiry moves first, then the lease's: lost in between, the account still goes at the
//! lease's old time.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use jit_api::{IssueRequest, RenewRequest};
use jit_core::driver::Lane;
use jit_core::event::{AuditEvent, Basis, Denied, Event};
use jit_core::id::{LeaseId, RequestId};
use jit_core::lease::{Lease, LeaseState};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::policy::{LEASE, Operation, about_credential};
use jit_core::ttl::Ttl;
use jit_identity::Verified;

use crate::chain;
use crate::clock::LeaseClock;
use crate::end::{EndFlow, drift};
use crate::gate::Gate;
use crate::issue::resolve;
use crate::ledger::Ledger;
use crate::permit::{Asked, Counting, DecideFlow, Permit, decide};
use crate::places::{Misplaced, NotTold, Places};
use crate::refusal::Refused;
use crate::request::CheckedRequest;
use crate::target::{Target, account_view};
use crate::work::Wake;
use jit_ledger::{Change, Store, StoreError};

/// What it takes to renew.
pub struct RenewFlow {
    pub(crate) gate: Gate,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Arc<LeaseClock>,
    /// Targets and policies.
    pub(crate) decide: DecideFlow,
    /// Whether the account is where its target is now.
    pub(crate) places: Arc<Places>,
    /// A lease whose account is missing is closed.
    pub(crate) end: EndFlow,
    /// Then the removal is woken.
    pub(crate) wake: Arc<Wake>,
}

/// Renews a lease of the caller's own.
///
/// # Errors
/// [`Refused`]; the expiry then stands where it stood.
pub async fn renew(
    flow: &RenewFlow,
    caller: Arc<Verified>,
    id: &LeaseId,
    ask: RenewRequest,
    caller_address: Option<IpAddr>,
    request_id: RequestId,
) -> Result<Lease, Refused> {
    flow.gate.may_hand_out()?;
    // Before anything is looked up: a request that cannot be right is wrong whatever the lease is.
    if let Some(ttl) = &ask.ttl {
        ttl.read().map_err(|error| Refused::field("ttl", format!("ttl {error}")))?;
    }
    let lease = own(flow, &caller, id).await?;
    let judged = judge(&flow.decide, lease, caller, ask, caller_address, request_id).await?;
    let extended = extend(flow, judged).await?;
    record(flow, extended).await
}

/// A lease of the caller's own that may still get a later expiry.
struct Renewable(Lease);

async fn own(flow: &RenewFlow, caller: &Verified, id: &LeaseId) -> Result<Renewable, Refused> {
    let lease = own_lease(flow.ledger.store(), caller, id).await?;
    if lease.state != LeaseState::Active || lease.expires_at <= flow.clock.now() {
        return Err(Refused::LeaseNotActive { id: lease.id, state: lease.state });
    }
    if !lease.renewable {
        let reason = "leases of this role are not renewed; ask for a new one";
        return Err(Refused::LeaseNotRenewable { id: lease.id, reason });
    }
    Ok(Renewable(lease))
}

/// A lease whose next term the policies granted.
struct Judged {
    /// As it stands.
    lease: Lease,
    /// With its next term.
    next: Lease,
    permit: Permit,
}

/// The target still is the one that made the account, and the policies grant the lease's own role again. A no is on
/// record before the caller hears it.
async fn judge(
    flow: &DecideFlow,
    Renewable(lease): Renewable,
    caller: Arc<Verified>,
    ask: RenewRequest,
    caller_address: Option<IpAddr>,
    request_id: RequestId,
) -> Result<Judged, Refused> {
    let request = IssueRequest {
        target: lease.target.to_string(),
        role: Some(lease.role.to_string()),
        ttl: ask.ttl,
        reason: lease.reason.clone(),
        ticket: lease.ticket.clone(),
        metadata: lease.metadata.clone(),
        // The account has its secret; the policies hear below which type that is.
        credential: None,
    };
    let request = CheckedRequest::check(request)?.from_address(caller_address);
    let mut asked = resolve(flow, caller, request, request_id.clone(), Operation::Renew)?;
    asked.resource = about_credential(lease.verifier.as_ref().map(|verifier| verifier.kind));
    asked.resource.insert(LEASE.to_owned(), lease.id.to_string());
    let at = asked.at;
    if !asked.target.driver_ref().same_maker(&lease.driver) {
        // The old driver removes the account when its time is over; the new one knows nothing of it.
        let reason = "the target was moved to another backend since; ask for a new lease, this one ends at its time";
        let mut event = AuditEvent::of_lease(Event::RenewDenied(Denied::default()), at, &lease).with_error(reason);
        event.request_id = Some(request_id.to_string());
        flow.ledger.deny(&lease.principal, vec![event], Vec::new()).await?;
        return Err(Refused::LeaseNotRenewable { id: lease.id, reason });
    }
    let permit = match decide(flow.ledger.store(), asked, Counting::Count).await? {
        Ok(permit) if permit.role == lease.role => permit,
        Ok(permit) => {
            let reason = chain::only_narrower(&permit.role);
            let denied = Denied { by: None, basis: Some(Basis::Decision(permit.decision.recorded())) };
            let event = permit.decision.event(Event::RenewDenied(denied)).with_error(reason.clone());
            let settled = permit.decision.settles(false);
            flow.ledger.deny(&lease.principal, vec![about(event, &lease)], settled).await?;
            return Err(Refused::PolicyDenied { policy: chain::CHAIN.to_owned(), reason });
        }
        Err(denial) => {
            let event = denial.decision.event(Event::RenewDenied(denial.recorded()));
            let event = event.with_error(denial.reason.clone());
            let settled = denial.decision.settles(false);
            flow.ledger.deny(&lease.principal, vec![about(event, &lease)], settled).await?;
            return Err(denial.refused());
        }
    };
    let next = later(&lease, at, permit.ttl)?;
    Ok(Judged { lease, next, permit })
}

/// A lease whose account the backend keeps until its next term's end.
struct Extended {
    next: Lease,
    permit: Permit,
}

/// The backend's own expiry moves, in the place where the account is.
async fn extend(flow: &RenewFlow, judged: Judged) -> Result<Extended, Refused> {
    let Judged { lease, next, permit } = judged;
    let Asked { target, request_id, .. } = &permit.decision.asked;
    let Some(role) = target.roles.get(&lease.role) else {
        return Err(Refused::RoleNotAllowed { target: target.name.to_string(), role: lease.role.to_string() });
    };
    in_place(flow, &lease, target, request_id).await?;
    let account = account_view(&next, flow.clock.wall());
    let scope = target.scope(Lane::Live);
    let call = async {
        match target.driver.renew(&scope, &target.view, &role.view, &account).await {
            Outcome::Done(expires_at) => Ok(expires_at),
            Outcome::Refused(Refusal::NotFound) => Err(NotRenewed::Gone),
            Outcome::Refused(Refusal::Unavailable { reason, .. }) | Outcome::Unknown(reason) => {
                Err(NotRenewed::Refused(Refused::TargetAway(reason)))
            }
            Outcome::Refused(refusal) => Err(NotRenewed::Refused(Refused::TargetRefused(refusal.reason()))),
        }
    };
    let called = jit_failpoint::step("renew.driver", NotRenewed::at_failpoint, call).await;
    let backstop = match called {
        Ok(backstop) => backstop,
        Err(not_renewed) => return Err(because(flow, &lease, not_renewed).await?),
    };
    let next = match i64::try_from(backstop).ok().and_then(|at| Timestamp::from_second(at).ok()) {
        // A backend that gives less than was asked has the last word.
        Some(at) if at < next.expires_at => Lease { expires_at: at.max(lease.expires_at), ..next },
        _ => next,
    };
    Ok(Extended { next, permit })
}

/// The lease's later expiry becomes durable with its record.
async fn record(flow: &RenewFlow, extended: Extended) -> Result<Lease, Refused> {
    let Extended { next, permit } = extended;
    let decision = &permit.decision;
    let renewed = Event::LeaseRenewed(decision.recorded());
    let mut event = decision.event_of_lease(renewed, decision.asked.at, &next);
    event.request_id = Some(decision.asked.request_id.to_string());
    let events = std::iter::once(event).chain(decision.shadow_events());
    let change = Change::step(next.clone()).with_events(events).settling(decision.settles(true));
    match jit_failpoint::step("renew.record", StoreError::at_failpoint, flow.ledger.commit(change)).await {
        Ok(()) => Ok(next),
        Err(StoreError::Stale(id)) => {
            let state = flow.ledger.store().lease(&id).await?.map_or(LeaseState::Revoked, |lease| lease.state);
            Err(Refused::LeaseNotActive { id, state })
        }
        Err(error) => Err(error.into()),
    }
}

/// Why the target did not renew. Another request may have ended the lease meanwhile: then that is why. Where the
/// lease is still active and its account is not there, that is drift: the lease is closed.
async fn because(flow: &RenewFlow, lease: &Lease, not_renewed: NotRenewed) -> Result<Refused, Refused> {
    let Some(current) = flow.ledger.store().lease(&lease.id).await? else { return Ok(Refused::UnknownLease) };
    if current.state != LeaseState::Active {
        return Ok(Refused::LeaseNotActive { id: current.id, state: current.state });
    }
    if let NotRenewed::Refused(refused) = not_renewed {
        return Ok(refused);
    }
    drift(&flow.end, &flow.wake, &current).await?;
    flow.wake.removal.notify_one();
    Ok(Refused::LeaseNotRenewable {
        id: current.id,
        reason: "its account is no longer in the target, and the lease is closed; ask for a new one",
    })
}

/// The backend's expiry was not moved.
enum NotRenewed {
    /// There is no such account.
    Gone,
    /// For another reason.
    Refused(Refused),
}

impl NotRenewed {
    fn at_failpoint() -> Self {
        Self::Refused(Refused::TargetUnavailable("failpoint".to_owned()))
    }
}

/// RIGHT-PLACE: another server must not be asked, and its "not found" must not end the lease.
async fn in_place(flow: &RenewFlow, lease: &Lease, target: &Target, request_id: &RequestId) -> Result<(), Refused> {
    match flow.places.check_live(&lease.driver, target).await {
        Ok(()) => Ok(()),
        Err(Misplaced::NotTold(NotTold { reason, .. })) => Err(Refused::TargetAway(reason)),
        Err(Misplaced::Elsewhere(elsewhere)) => {
            tracing::error!(lease = %lease.id, target = %lease.target, %elsewhere, "a lease was not renewed: its account is in another place");
            let mut event = AuditEvent::of_lease(Event::RenewDenied(Denied::default()), flow.clock.wall(), lease);
            event.request_id = Some(request_id.to_string());
            let event = event.with_error(elsewhere.to_string());
            flow.ledger.commit(Change::record(event)).await?;
            Err(Refused::WrongPlace { id: lease.id.clone(), target: lease.target.to_string() })
        }
    }
}

fn about(mut event: AuditEvent, lease: &Lease) -> AuditEvent {
    event.lease_id = Some(lease.id.to_string());
    event.ephemeral_id = Some(lease.login().to_owned());
    event
}

/// The lease's next term: from now, whole seconds.
fn later(lease: &Lease, at: Timestamp, ttl: Ttl) -> Result<Lease, Refused> {
    let start = Timestamp::from_second(at.as_second()).unwrap_or(at);
    lease
        .renew(start, start + ttl.duration())
        .map_err(|error| Refused::LeaseNotActive { id: lease.id.clone(), state: error.from })
}

/// A lease of the caller's own; another identity's is as if it were not there.
///
/// # Errors
/// [`Refused::UnknownLease`].
pub async fn own_lease(store: &dyn Store, caller: &Verified, id: &LeaseId) -> Result<Lease, Refused> {
    match store.lease(id).await? {
        Some(lease) if caller.principal.owns(&lease.principal) => Ok(lease),
        _ => Err(Refused::UnknownLease),
    }
}

#[cfg(test)]
#[path = "renew_tests.rs"]
mod tests;
