//! Giving access back: one lease, or many in one request. It is never refused for its rate, since what is
//! refused lives on; beyond a rate of its own it is put on record at once and done by the removal task. How leases end
//! is for [`jit_pipeline::revoke`] to say.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jit_api::{GiveBackRequest, GivenBackLease, GivenBackReply, LeaseView, Problem};
use jit_core::lease::{Lease, LeaseState};

use super::App;
use crate::extract::{Id, Json, Returning};
use crate::leases::{parse_id, view};
use crate::problem::HttpRefused;
use jit_pipeline::request::GivenBack;
use jit_pipeline::revoke::{give_back, revoke_own};
use jit_pipeline::rotation::RotationFlow;

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
    let (broker, caller) = (&app.broker, &returning.caller);
    let revoked = async { revoke_own(&broker.revoke, caller, &parse_id(&lease)?, returning.at_once).await };
    match revoked.await {
        Ok(lease) => revoked_reply(&broker.rotation, &lease).await,
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
    let given_back =
        async { give_back(&app.broker.revoke, &returning.caller, GivenBack::check(body)?, returning.at_once).await };
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

/// 200 when the account is gone, 202 when its removal goes on.
pub async fn revoked_reply(flow: &RotationFlow, lease: &Lease) -> Response {
    let status = if lease.state == LeaseState::Revoked { StatusCode::OK } else { StatusCode::ACCEPTED };
    (status, axum::Json(view(flow, lease).await)).into_response()
}
