//! The caller's own leases.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use jit_api::{LeasePage, LeaseView, Problem, RenewRequest};
use jit_core::id::LeaseId;
use jit_core::lease::{Lease, LeaseState};
use jit_core::name::TargetName;
use serde::Deserialize;

use super::App;
use crate::extract::{Caller, CallerAddress, Id, Json};
use crate::problem::HttpRefused;
use crate::views::lease_view;
use jit_ledger::{LeaseFilter, Store};
use jit_pipeline::refusal::Refused;
use jit_pipeline::renew::{own_lease, renew};
use jit_pipeline::rotation::RotationFlow;
use jit_pipeline::rotation::issue::usable_until;
use jit_pipeline::trace::carried;
use tracing::Span;

pub(super) fn parse_id(text: &str) -> Result<LeaseId, Refused> {
    // A malformed id names no lease.
    let id = text.parse().map_err(|_| Refused::UnknownLease)?;
    Span::current().record("lease", tracing::field::display(&id));
    Ok(id)
}

/// One lease, without its secret.
#[utoipa::path(
    get, path = "/v1/leases/{id}", tag = "leases", params(("id" = String, Path, description = "The lease")),
    security(("workload_token" = [])),
    responses(
        (status = 200, body = LeaseView, description = "The lease"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "unknown-lease"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate-limited"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "audit-unavailable"),
    )
)]
pub async fn get_lease(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Caller(caller): Caller,
    Path(lease): Path<String>,
) -> Response {
    let found = async { own_lease(app.broker.ledger.store(), &caller, &parse_id(&lease)?).await };
    match found.await {
        Ok(lease) => axum::Json(view(&app.broker.rotation, &lease).await).into_response(),
        Err(refused) => HttpRefused::from(refused).reply(&id),
    }
}

/// The lease, with what only its account's rotation knows.
pub(super) async fn view(flow: &RotationFlow, lease: &Lease) -> LeaseView {
    let usable_until = usable_until(flow, lease).await.unwrap_or_else(|error| {
        tracing::warn!(%error, lease = %lease.id, "the store failed; the lease is shown without the time at which its password ends");
        None
    });
    LeaseView { usable_until, ..lease_view(lease) }
}

/// Filters of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Only leases of this target.
    pub target: Option<String>,
    /// Only leases in this state.
    pub state: Option<String>,
    /// Maximum number of leases, 1 to 500; 100 by default.
    pub limit: Option<usize>,
    /// Where the last page ended: its `next_cursor`.
    pub cursor: Option<String>,
}

impl ListQuery {
    /// As a filter of the store.
    ///
    /// # Errors
    /// [`Refused::InvalidRequest`] naming the parameter.
    pub fn filter(&self) -> Result<LeaseFilter, Refused> {
        let target = self.target.clone().map(TargetName::new).transpose();
        let target = target.map_err(|error| Refused::field("target", format!("target {error}")))?;
        let state = match &self.state {
            None => None,
            Some(word) => Some(LeaseState::from_word(word).ok_or_else(|| {
                Refused::field("state", "state must be pending, active, revoking, revoked or doubtful")
            })?),
        };
        let limit = self.limit.unwrap_or(100);
        if !(1..=500).contains(&limit) {
            return Err(Refused::field("limit", "limit must be 1 to 500"));
        }
        let before = self.cursor.as_deref().map(str::parse).transpose();
        let before = before.map_err(|_| Refused::field("cursor", "cursor must be a next_cursor of an earlier page"))?;
        Ok(LeaseFilter { target, state, before, limit, ..LeaseFilter::default() })
    }
}

/// A page of leases for that filter.
///
/// # Errors
/// When the store fails.
pub async fn page(store: &dyn Store, filter: &LeaseFilter) -> Result<LeasePage, Refused> {
    let leases = store.leases(filter).await?;
    let next_cursor = leases.last().filter(|_| leases.len() == filter.limit).map(|lease| lease.id.to_string());
    Ok(LeasePage { leases: leases.iter().map(lease_view).collect(), next_cursor })
}

/// The caller's leases, newest first.
#[utoipa::path(
    get, path = "/v1/leases", tag = "leases", params(ListQuery), security(("workload_token" = [])),
    responses(
        (status = 200, body = LeasePage, description = "A page"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate-limited"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "audit-unavailable"),
    )
)]
pub async fn list_leases(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Caller(caller): Caller,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let listed = async {
        let Query(query) = query.map_err(|error| Refused::InvalidRequest { field: None, detail: error.body_text() })?;
        let filter = LeaseFilter { principal: Some(caller.principal.clone()), ..query.filter()? };
        page(app.broker.ledger.store(), &filter).await
    };
    match listed.await {
        Ok(page) => axum::Json(page).into_response(),
        Err(refused) => HttpRefused::from(refused).reply(&id),
    }
}

/// Renew a lease: the same account, a later expiry.
#[utoipa::path(
    post, path = "/v1/leases/{id}/renew", tag = "leases", request_body = RenewRequest,
    params(("id" = String, Path, description = "The lease")), security(("workload_token" = [])),
    responses(
        (status = 200, body = LeaseView, description = "The lease with its new term"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "policy-denied"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "unknown-lease"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "lease-not-active: it is over, or its target was moved to another backend; ask for a new lease"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "payload-too-large"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "unsupported-media-type"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate-limited"),
        (status = 502, body = Problem, content_type = "application/problem+json", description = "target-refused"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "target-unavailable, wrong-place, audit-unavailable, removal-down, overloaded"),
    )
)]
pub async fn renew_lease(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Caller(caller): Caller,
    CallerAddress(from): CallerAddress,
    Path(lease): Path<String>,
    Json(ask): Json<RenewRequest>,
) -> Response {
    // On its own, so that a caller that goes away does not cut it off between backend and record.
    let flow = Arc::clone(&app.broker.renew);
    let request_id = id.clone();
    let renewed = app
        .broker
        .work
        .spawn(carried(async move { renew(&flow, caller, &parse_id(&lease)?, ask, from, request_id).await }));
    match renewed.await.unwrap_or(Err(Refused::Overloaded)) {
        Ok(lease) => axum::Json(lease_view(&lease)).into_response(),
        Err(refused) => HttpRefused::from(refused).reply(&id),
    }
}
