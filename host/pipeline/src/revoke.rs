//! Ending leases on request: one, several, or all of a workload's. From the moment that its end is recorded a lease
//! ends, whatever happens; who asks may wait for the first attempt to remove its account.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jit_api::{GivenBackLease, GivenBackReply};
use jit_core::id::LeaseId;
use jit_core::lease::{EndedBy, Lease, LeaseState};
use jit_identity::Verified;
use jit_ledger::{LeaseFilter, Store, StoreError};

use crate::end::begin_by;
use crate::ledger::Ledger;
use crate::refusal::Refused;
use crate::removal::{Attempt, RemovalFlow, attempt};
use crate::renew::own_lease;
use crate::request::GivenBack;
use crate::trace::carried;
use crate::work::{Wake, Work};

/// What it takes to end leases on request.
pub struct RevokeFlow {
    /// Whose lease it is, and how it stands.
    pub(crate) ledger: Ledger,
    pub(crate) removal: Arc<RemovalFlow>,
    /// What is not removed at once is left to the removal's task.
    pub(crate) wake: Arc<Wake>,
    /// A revocation continues after its caller has disconnected.
    pub(crate) work: Work,
}

/// The most leases that one request with `all` gives back; `more` says that there are others.
const MOST_AT_ONCE: usize = 10_000;
/// Leases of a page, while all are looked for.
const PAGE: usize = 500;
/// Leases whose end is put on record at the same time: the store makes them durable in one step.
pub(crate) const RECORDING: usize = 64;
/// Removals of one request at the same time.
const REMOVING: usize = 8;
/// How long a request with many waits for the removals to end. They go on without it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Revokes a lease, as one of the broker's tasks: a caller that goes away does not cut it off. Returns the lease as it
/// stands then: `Revoked` when its account is gone. Waits for the first attempt if `at_once`.
///
/// # Errors
/// When it could not be recorded: the lease is as it was.
pub async fn revoke(flow: &Arc<RevokeFlow>, lease: Lease, by: EndedBy, at_once: bool) -> Result<Lease, Refused> {
    let owned = Arc::clone(flow);
    let revoking = flow.work.spawn(carried(async move {
        let lease = end(&owned, lease, by, at_once).await;
        if !at_once {
            owned.wake.removal.notify_one();
        }
        lease
    }));
    revoking.await.unwrap_or(Err(Refused::Overloaded))
}

/// Revokes a lease of the caller's own; as [`revoke`].
///
/// # Errors
/// [`Refused::UnknownLease`] for another identity's, or as [`revoke`].
pub async fn revoke_own(
    flow: &Arc<RevokeFlow>,
    caller: &Verified,
    id: &LeaseId,
    at_once: bool,
) -> Result<Lease, Refused> {
    revoke(flow, own_lease(flow.ledger.store(), caller, id).await?, EndedBy::Workload, at_once).await
}

/// Revokes several of the caller's leases, or all of them, as one of the broker's tasks.
///
/// # Errors
/// When the end of one of them could not be recorded: the others may have ended.
pub async fn give_back(
    flow: &Arc<RevokeFlow>,
    caller: &Arc<Verified>,
    asked: GivenBack,
    at_once: bool,
) -> Result<GivenBackReply, Refused> {
    let (owned, caller) = (Arc::clone(flow), Arc::clone(caller));
    // On its own: a caller that goes away does not keep half of its leases.
    let work = flow.work.spawn(carried(async move { end_many(&owned, &caller, asked, at_once).await }));
    work.await.unwrap_or(Err(Refused::Overloaded))
}

/// One of the leases that were named.
enum Named {
    /// The caller's.
    Own(Box<Lease>),
    /// Another identity's, or none.
    Unknown(String),
}

async fn end_many(
    flow: &Arc<RevokeFlow>,
    caller: &Verified,
    asked: GivenBack,
    at_once: bool,
) -> Result<GivenBackReply, Refused> {
    let (named, more) = match asked {
        GivenBack::Named(ids) => (named(flow.ledger.store(), caller, ids).await?, false),
        GivenBack::All => {
            let (leases, more) = all(flow.ledger.store(), caller).await?;
            (leases.into_iter().map(Box::new).map(Named::Own).collect(), more)
        }
    };
    // All are on record before the first is worked at: from here on they end, whatever happens.
    let recorded: Vec<Named> = stream::iter(named)
        .map(async |named| match named {
            Named::Own(lease) => end(flow, *lease, EndedBy::Workload, false).await.map(Box::new).map(Named::Own),
            unknown => Ok(unknown),
        })
        .buffered(RECORDING)
        .try_collect()
        .await?;
    if at_once {
        attempt_all(flow, &recorded).await;
    }
    flow.wake.removal.notify_one();
    let leases = stream::iter(recorded).map(async |named| match named {
        Named::Own(lease) => {
            let stored = flow.ledger.store().lease(&lease.id).await?;
            let state = stored.map_or(LeaseState::Revoked, |stored| stored.state);
            Ok::<_, Refused>(GivenBackLease { lease_id: lease.id.to_string(), state: Some(state), code: None })
        }
        Named::Unknown(id) => {
            Ok(GivenBackLease { lease_id: id, state: None, code: Some(Refused::UnknownLease.code().into()) })
        }
    });
    Ok(GivenBackReply { leases: leases.buffered(RECORDING).try_collect().await?, more })
}

async fn named(store: &dyn Store, caller: &Verified, ids: Vec<String>) -> Result<Vec<Named>, Refused> {
    let found = stream::iter(ids).map(async |id| {
        let own = async { own_lease(store, caller, &id.parse().map_err(|_| Refused::UnknownLease)?).await };
        match own.await {
            Ok(lease) => Ok(Named::Own(Box::new(lease))),
            Err(Refused::UnknownLease) => Ok(Named::Unknown(id)),
            Err(refused) => Err(refused),
        }
    });
    found.buffered(RECORDING).try_collect().await
}

/// The caller's leases that are not over, and whether there are more than [`MOST_AT_ONCE`].
async fn all(store: &dyn Store, caller: &Verified) -> Result<(Vec<Lease>, bool), Refused> {
    let mut found = Vec::new();
    for state in [LeaseState::Active, LeaseState::Revoking, LeaseState::Doubtful] {
        let mut before: Option<LeaseId> = None;
        loop {
            if found.len() >= MOST_AT_ONCE {
                return Ok((found, true));
            }
            let filter = LeaseFilter {
                principal: Some(caller.principal.clone()),
                state: Some(state),
                before,
                limit: PAGE,
                ..LeaseFilter::default()
            };
            let page = store.leases(&filter).await?;
            before = page.last().map(|lease| lease.id.clone());
            let last = page.len() < PAGE;
            found.extend(page);
            if last {
                break;
            }
        }
    }
    Ok((found, false))
}

/// Tries each once, for as long as there is patience; what is under way then goes on.
async fn attempt_all(flow: &Arc<RevokeFlow>, recorded: &[Named]) {
    let own = recorded.iter().filter_map(|named| match named {
        Named::Own(lease) if lease.state != LeaseState::Revoked => Some(Lease::clone(lease)),
        _ => None,
    });
    let (leases, owner) = (own.collect::<Vec<_>>(), Arc::clone(flow));
    let work = flow.work.spawn(carried(async move {
        // At a stop none is begun any more, and what is under way is not cut off.
        let attempts = stream::iter(leases).take_until(owner.work.stopping.cancelled()).map(|lease| {
            let flow = Arc::clone(&owner);
            async move { drop(end(&flow, lease, EndedBy::Workload, true).await) }
        });
        attempts.buffer_unordered(REMOVING).collect::<()>().await;
    }));
    let _goes_on = tokio::time::timeout(PATIENCE, work).await;
}

/// Puts a lease's end on record and, if `at_once`, tries once to remove its account.
async fn end(flow: &RevokeFlow, mut lease: Lease, by: EndedBy, at_once: bool) -> Result<Lease, Refused> {
    // Somebody else's step in between is read again; a few times is more than enough.
    for _ in 0..4 {
        match lease.state {
            LeaseState::Revoked | LeaseState::Pending => return Ok(lease),
            LeaseState::Active => match begin_by(&flow.removal.end, &lease, by, Vec::new()).await {
                Ok(revoking) => {
                    lease = revoking;
                    continue;
                }
                Err(StoreError::Stale(_)) => {}
                Err(error) => {
                    // It may be recorded nevertheless: then the removal must not sleep over it.
                    flow.wake.removal.notify_one();
                    return Err(error.into());
                }
            },
            LeaseState::Revoking | LeaseState::Doubtful if !at_once => return Ok(lease),
            LeaseState::Revoking | LeaseState::Doubtful => {
                // What only a person can mend is tried at once when a person asks.
                let due = lease.removal.as_ref().is_none_or(|removal| removal.attempts == 0 || removal.held);
                if !due {
                    flow.wake.removal.notify_one();
                    return Ok(lease);
                }
                if !flow.ledger.store().owns(&lease.id).await? {
                    // Another broker is at it.
                    return Ok(lease);
                }
                match attempt(&flow.removal, &lease).await {
                    Ok(Attempt::Removed(removed)) => return Ok(removed),
                    Ok(Attempt::Failed { lease, .. }) => {
                        flow.wake.removal.notify_one();
                        return Ok(lease);
                    }
                    Ok(Attempt::InProgress) => return Ok(lease),
                    Err(StoreError::Stale(_)) => {}
                    // The removal is on record and goes on by itself.
                    Err(error) => {
                        tracing::warn!(%error, lease = %lease.id, "the store failed in the middle of a removal");
                        flow.wake.removal.notify_one();
                        return Ok(lease);
                    }
                }
            }
        }
        lease = flow.ledger.store().lease(&lease.id).await?.ok_or(Refused::UnknownLease)?;
    }
    Ok(lease)
}
