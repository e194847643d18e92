//! That a lease ends: the record after which its account is removed, whatever happens. [`crate::removal`] does the
//! rest.

use std::sync::Arc;

use jit_core::event::{AuditEvent, Doubtful, Event, Failed, LeaseRest, Plain};
use jit_core::id::LeaseId;
use jit_core::lease::{Cause, EndedBy, Lease, LeaseState, StepError};
use jit_ledger::{Change, StoreError};

use crate::clock::LeaseClock;
use crate::ledger::Ledger;
use crate::replay::Handovers;
use crate::work::Wake;

/// What it takes to end a lease.
#[derive(Clone)]
pub struct EndFlow {
    pub(crate) ledger: Ledger,
    pub(crate) clock: Arc<LeaseClock>,
    /// The secret of a lease that ends is forgotten.
    pub(crate) handovers: Arc<Handovers>,
}

/// Records that an active lease's account is to go. From here on it will, whatever happens.
///
/// # Errors
/// [`StoreError::Stale`] when somebody else stepped the lease on first. [`StoreError::Failed`] may also mean that it is
/// recorded. A caller other than the removal task wakes that task then.
pub async fn begin(flow: &EndFlow, lease: &Lease, cause: Cause, events: Vec<AuditEvent>) -> Result<Lease, StoreError> {
    record(flow, lease, lease.begin_revocation(cause, flow.clock.now()), events).await
}

/// As [`begin`], for somebody who asked.
///
/// # Errors
/// As [`begin`].
pub async fn begin_by(
    flow: &EndFlow,
    lease: &Lease,
    by: EndedBy,
    events: Vec<AuditEvent>,
) -> Result<Lease, StoreError> {
    record(flow, lease, lease.begin_revocation_by(by, flow.clock.now()), events).await
}

async fn record(
    flow: &EndFlow,
    lease: &Lease,
    revoking: Result<Lease, StepError>,
    events: Vec<AuditEvent>,
) -> Result<Lease, StoreError> {
    let revoking = revoking.map_err(|_| StoreError::Stale(lease.id.clone()))?;
    let change = Change::step(revoking.clone()).with_events(events);
    jit_failpoint::step("revoke.begin", StoreError::at_failpoint, flow.ledger.commit(change)).await?;
    flow.handovers.forget(&lease.id);
    Ok(revoking)
}

/// Marks a lease for removal, whatever its state.
///
/// # Errors
/// When the store fails or somebody else is faster; call it again.
pub async fn close(flow: &EndFlow, id: &LeaseId, cause: Cause) -> Result<(), StoreError> {
    match flow.ledger.store().lease(id).await? {
        Some(stored) => close_stored(flow, &stored, cause).await,
        None => Ok(()),
    }
}

/// As [`close`], of a lease as the store has it.
pub(crate) async fn close_stored(flow: &EndFlow, lease: &Lease, cause: Cause) -> Result<(), StoreError> {
    let now = flow.clock.now();
    let (step, event) = match lease.state {
        LeaseState::Pending => (lease.doubt(cause, now), doubtful_for(cause, lease)),
        LeaseState::Active => {
            let failed = Failed { decision: None, cause: Some(cause) };
            (lease.begin_revocation(cause, now), Event::IssueFailed(failed))
        }
        LeaseState::Revoking | LeaseState::Doubtful | LeaseState::Revoked => return Ok(()),
    };
    let Ok(next) = step else { return Ok(()) };
    let event = AuditEvent::of_lease(event, now, &next);
    flow.handovers.forget(&lease.id);
    flow.ledger.commit(Change::step(next).with(event)).await
}

/// That a lease is in doubt, for that reason.
pub(crate) fn doubtful_for(cause: Cause, lease: &Lease) -> Event {
    Event::LeaseDoubtful(Doubtful { cause: Some(cause), lease: LeaseRest::of(lease) })
}

/// An active lease without an account is closed.
///
/// # Errors
/// When the store fails.
pub async fn drift(flow: &EndFlow, wake: &Wake, lease: &Lease) -> Result<(), StoreError> {
    let event = AuditEvent::of_lease(Event::Drift(Plain {}), flow.clock.now(), lease)
        .with_error("the account of an active lease is missing in the target");
    match begin(flow, lease, Cause::Drift, vec![event]).await {
        Ok(_) | Err(StoreError::Stale(_)) => Ok(()),
        Err(error) => {
            // It may be recorded nevertheless.
            wake.removal.notify_one();
            Err(error)
        }
    }
}
