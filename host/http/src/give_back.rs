//! Giving access back: one lease, or many in one request. It is never refused for its rate, since what is
//! refused lives on; beyond a rate of its own it is put on record at once and done by the removal task.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jit_api::{GiveBackRequest, GivenBackLease, GivenBackReply, LeaseView, Problem};
use jit_core::id::LeaseId;
use jit_core::lease::{Cause, Lease, LeaseState};
use jit_identity::Verified;

use super::App;
use crate::extract::{Id, Json, Returning};
use crate::leases::{parse_id, view};
use crate::problem::HttpRefused;
use jit_ledger::{LeaseFilter, StoreError};
use jit_pipeline::broker::Broker;
use jit_pipeline::refusal::Refused;
use jit_pipeline::removal::{self, Attempt};
use jit_pipeline::renew::own_lease;
use jit_pipeline::request::GivenBack;
use jit_pipeline::trace::carried;

/// The most leases that one request with `all` gives back; `more` says that there are others.
const MOST_AT_ONCE: usize = 10_000;
/// Leases of a page, while all are looked for.
const PAGE: usize = 500;
/// Leases whose end is put on record at the same time: the store makes them durable in one step.
const RECORDING: usize = 64;
/// Removals of one request at the same time.
const REMOVING: usize = 8;
/// How long a request with many waits for the removals to end. They go on all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// Revoke a lease. Repeatable, and never refused for its rate.
#[utoipa::path(
    post, path = "/v1/leases/{id}/revoke", tag = "leases",
    params(("id" = String, Path, description = "The lease")), security(("workload_token" = [])),
    responses(
        (status = 200, body = LeaseView, description = "The account is gone; or, with `revocable: false`, the lease is over and its account stands"),
        (status = 202, body = LeaseView, description = "The account is still being removed"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "unknown-lease"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "audit-unavailable, overloaded"),
    )
)]
pub async fn revoke_lease(
    State(app): State<Arc<App>>,
    Id(id): Id,
    returning: Returning,
    Path(lease): Path<String>,
) -> Response {
    let caller = returning.caller;
    let found = async { own_lease(&app.broker, &caller, &parse_id(&lease)?).await };
    match found.await {
        Ok(lease) => revoked(&app.broker, lease, Cause::Requested, returning.at_once)
            .await
            .unwrap_or_else(|refused| HttpRefused::from(refused).reply(&id)),
        Err(refused) => HttpRefused::from(refused).reply(&id),
    }
}

/// Revoke several leases, or all of the caller's. Repeatable, and never refused for its rate.
#[utoipa::path(
    post, path = "/v1/leases/revoke", tag = "leases", request_body = GiveBackRequest,
    security(("workload_token" = [])),
    responses(
        (status = 200, body = GivenBackReply, description = "Every account is gone"),
        (status = 202, body = GivenBackReply, description = "Some accounts are still being removed; the broker continues by itself"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "payload-too-large"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "unsupported-media-type"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "audit-unavailable, overloaded"),
    )
)]
pub async fn revoke_leases(
    State(app): State<Arc<App>>,
    Id(id): Id,
    returning: Returning,
    Json(body): Json<GiveBackRequest>,
) -> Response {
    let given_back = async {
        let asked = GivenBack::check(body)?;
        let (broker, caller, at_once) = (Arc::clone(&app.broker), Arc::clone(&returning.caller), returning.at_once);
        // On its own: a caller that goes away does not keep half of its leases.
        let work = app.broker.tasks.spawn(carried(async move { give_back(&broker, &caller, asked, at_once).await }));
        work.await.unwrap_or(Err(Refused::Overloaded))
    };
    match given_back.await {
        Ok(reply) => {
            let over = |lease: &GivenBackLease| lease.state.is_none_or(|state| state == LeaseState::Revoked);
            let done = !reply.more && reply.leases.iter().all(over);
            let status = if done { StatusCode::OK } else { StatusCode::ACCEPTED };
            (status, axum::Json(reply)).into_response()
        }
        Err(refused) => HttpRefused::from(refused).reply(&id),
    }
}

/// One of the leases that were named.
enum Named {
    /// The caller's.
    Own(Box<Lease>),
    /// Another identity's, or none.
    Unknown(String),
}

async fn give_back(
    broker: &Arc<Broker>,
    caller: &Verified,
    asked: GivenBack,
    at_once: bool,
) -> Result<GivenBackReply, Refused> {
    let (named, more) = match asked {
        GivenBack::Named(ids) => (named(broker, caller, ids).await?, false),
        GivenBack::All => {
            let (leases, more) = all(broker, caller).await?;
            (leases.into_iter().map(Box::new).map(Named::Own).collect(), more)
        }
    };
    // All are on record before the first is worked at: from here on they end, whatever happens.
    let recorded: Vec<Named> = stream::iter(named)
        .map(async |named| match named {
            Named::Own(lease) => revoke(broker, *lease, Cause::Requested, false).await.map(Box::new).map(Named::Own),
            unknown => Ok(unknown),
        })
        .buffered(RECORDING)
        .try_collect()
        .await?;
    if at_once {
        attempt_all(broker, &recorded).await;
    }
    broker.wake.removal.notify_one();
    let leases = stream::iter(recorded).map(async |named| match named {
        Named::Own(lease) => {
            let stored = broker.store.lease(&lease.id).await?;
            let state = stored.map_or(LeaseState::Revoked, |stored| stored.state);
            Ok::<_, Refused>(GivenBackLease { lease_id: lease.id.to_string(), state: Some(state), code: None })
        }
        Named::Unknown(id) => {
            Ok(GivenBackLease { lease_id: id, state: None, code: Some(Refused::UnknownLease.code().into()) })
        }
    });
    Ok(GivenBackReply { leases: leases.buffered(RECORDING).try_collect().await?, more })
}

async fn named(broker: &Broker, caller: &Verified, ids: Vec<String>) -> Result<Vec<Named>, Refused> {
    let found = stream::iter(ids).map(async |id| {
        let own = async { own_lease(broker, caller, &parse_id(&id)?).await };
        match own.await {
            Ok(lease) => Ok(Named::Own(Box::new(lease))),
            Err(Refused::UnknownLease) => Ok(Named::Unknown(id)),
            Err(refused) => Err(refused),
        }
    });
    found.buffered(RECORDING).try_collect().await
}

/// The caller's leases that are not over, and whether there are more than [`MOST_AT_ONCE`].
async fn all(broker: &Broker, caller: &Verified) -> Result<(Vec<Lease>, bool), Refused> {
    let mut found = Vec::new();
    for state in [LeaseState::Active, LeaseState::Revoking, LeaseState::Doubtful] {
        let mut before: Option<LeaseId> = None;
        loop {
            if found.len() >= MOST_AT_ONCE {
                return Ok((found, true));
            }
            let filter = LeaseFilter {
                principal: Some(caller.principal.clone()),
                target: None,
                state: Some(state),
                before,
                limit: PAGE,
            };
            let page = broker.store.leases(&filter).await?;
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
async fn attempt_all(broker: &Arc<Broker>, recorded: &[Named]) {
    let own = recorded.iter().filter_map(|named| match named {
        Named::Own(lease) if lease.state != LeaseState::Revoked => Some(Lease::clone(lease)),
        _ => None,
    });
    let (leases, owner) = (own.collect::<Vec<_>>(), Arc::clone(broker));
    let work = broker.tasks.spawn(carried(async move {
        // At a stop none is begun any more, and what is under way is not cut off.
        let attempts = stream::iter(leases).take_until(owner.stopping.cancelled()).map(|lease| {
            let broker = Arc::clone(&owner);
            async move { drop(revoke(&broker, lease, Cause::Requested, true).await) }
        });
        attempts.buffer_unordered(REMOVING).collect::<()>().await;
    }));
    let _goes_on = tokio::time::timeout(PATIENCE, work).await;
}

/// Revokes a lease: 200 when the account is gone, 202 when its removal goes on. Waits for the first attempt
/// if `at_once`.
///
/// # Errors
/// When it could not be recorded: the lease is as it was.
pub async fn revoked(broker: &Arc<Broker>, lease: Lease, cause: Cause, at_once: bool) -> Result<Response, Refused> {
    let owned = Arc::clone(broker);
    let revoking = broker.tasks.spawn(carried(async move {
        let lease = revoke(&owned, lease, cause, at_once).await;
        if !at_once {
            owned.wake.removal.notify_one();
        }
        lease
    }));
    let lease = revoking.await.unwrap_or(Err(Refused::Overloaded))?;
    let status = if lease.state == LeaseState::Revoked { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, axum::Json(view(broker, &lease).await)).into_response())
}

/// Puts a lease's end on record and, if `attempt`, tries once to remove its account.
async fn revoke(broker: &Broker, mut lease: Lease, cause: Cause, attempt: bool) -> Result<Lease, Refused> {
    // Somebody else's step in between is read again; a few times is more than enough.
    for _ in 0..4 {
        match lease.state {
            LeaseState::Revoked | LeaseState::Pending => return Ok(lease),
            LeaseState::Active => match removal::begin(broker, &lease, cause, Vec::new()).await {
                Ok(revoking) => {
                    lease = revoking;
                    continue;
                }
                Err(StoreError::Stale(_)) => {}
                Err(error) => {
                    // It may be recorded nevertheless: then the removal must not sleep over it.
                    broker.wake.removal.notify_one();
                    return Err(error.into());
                }
            },
            LeaseState::Revoking | LeaseState::Doubtful if !attempt => return Ok(lease),
            LeaseState::Revoking | LeaseState::Doubtful => {
                // What only a person can mend is tried at once when a person asks.
                let due = lease.removal.as_ref().is_none_or(|removal| removal.attempts == 0 || removal.held);
                if !due {
                    broker.wake.removal.notify_one();
                    return Ok(lease);
                }
                match removal::attempt(broker, &lease).await {
                    Ok(Attempt::Removed(removed)) => return Ok(removed),
                    Ok(Attempt::Failed { lease, .. }) => {
                        broker.wake.removal.notify_one();
                        return Ok(lease);
                    }
                    Ok(Attempt::InProgress) => return Ok(lease),
                    Err(StoreError::Stale(_)) => {}
                    // The removal is on record and goes on by itself.
                    Err(error) => {
                        tracing::warn!(%error, lease = %lease.id, "the store failed in the middle of a removal");
                        broker.wake.removal.notify_one();
                        return Ok(lease);
                    }
                }
            }
        }
        lease = broker.store.lease(&lease.id).await?.ok_or(Refused::UnknownLease)?;
    }
    Ok(lease)
}
