//! `GET /v1/targets/{name}`: what a caller may ask of a target. `GET /v1/targets`: the same of all targets, without
//! those of which it may ask nothing.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use jit_api::{CredentialType, IssueRequest, OfferedCredential, Problem, TargetPage, TargetView};
use jit_core::name::{RoleName, TargetName};
use jit_core::policy::{Operation, about_credential};
use jit_core::secret::most_iterations;
use jit_identity::Verified;
use jit_pipeline::issue::resolve;
use jit_pipeline::permit::{Asked, Denial};
use jit_pipeline::refusal::Refused;
use jit_pipeline::request::CheckedRequest;
use jit_pipeline::target::{OfferedVerifier, Serving};
use serde::Deserialize;

use super::App;
use crate::extract::{Caller, CallerAddress, Id};
use crate::problem::HttpRefused;
use jit_core::id::RequestId;

/// What the request would say. Policies are asked with it, so say what you will say in the request.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TargetQuery {
    /// The role; by default the target's default role.
    pub role: Option<String>,
    /// The length of the lease, such as "30m".
    pub ttl: Option<String>,
    /// The reason.
    pub reason: Option<String>,
    /// The ticket.
    pub ticket: Option<String>,
}

/// What the caller may ask a target for.
///
/// Asks the policies about each type of credential. If they allow none, the answer is that of `POST /issue`.
#[utoipa::path(
    get, path = "/v1/targets/{name}", tag = "issue",
    params(("name" = String, Path, description = "The target"), TargetQuery),
    security(("workload_token" = [])),
    responses(
        (status = 200, body = TargetView, description = "What the caller may ask for"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "policy-denied, role-not-allowed"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "unknown-target"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate-limited"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "overloaded"),
    )
)]
pub async fn get_target(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Caller(caller): Caller,
    CallerAddress(from): CallerAddress,
    Path(name): Path<String>,
    Query(query): Query<TargetQuery>,
) -> Response {
    let asking = async {
        let TargetQuery { role, ttl, reason, ticket } = query;
        let request = IssueRequest { role, ttl: ttl.map(Into::into), reason, ticket, ..IssueRequest::new(name) };
        let request = CheckedRequest::check(request)?.from_address(from);
        offered(&app, caller, request, id.clone()).await
    };
    match asking.await {
        Ok(view) => axum::Json(view).into_response(),
        Err(refused) => HttpRefused::from(refused).reply(&id),
    }
}

/// The most lists at once: each asks the policies about every target. Others wait.
pub const MOST_LISTINGS: usize = 4;
/// How long a list waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Entries of a page, unless the request says.
const USUAL_PAGE: usize = 50;
/// The most entries of a page.
const LONGEST_PAGE: usize = 100;

/// What the requests would say, and which part of the list is wanted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TargetsQuery {
    /// Only this role.
    pub role: Option<String>,
    /// The length of the lease, such as "30m".
    pub ttl: Option<String>,
    /// The reason.
    pub reason: Option<String>,
    /// The ticket.
    pub ticket: Option<String>,
    /// Maximum number of entries, 1 to 100; 50 by default.
    pub limit: Option<usize>,
    /// Where the last page ended: its `next_cursor`.
    pub cursor: Option<String>,
}

/// What the caller may ask for: an entry for each target and role of which it may have a credential.
///
/// Asks the policies as `GET /v1/targets/{name}` does. What they do not allow is not in the list.
#[utoipa::path(
    get, path = "/v1/targets", tag = "issue", params(TargetsQuery), security(("workload_token" = [])),
    responses(
        (status = 200, body = TargetPage, description = "A page"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate-limited"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "overloaded"),
    )
)]
pub async fn list_targets(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Caller(caller): Caller,
    CallerAddress(from): CallerAddress,
    query: Result<Query<TargetsQuery>, QueryRejection>,
) -> Response {
    let listing = async {
        let Query(query) = query.map_err(|error| Refused::InvalidRequest { field: None, detail: error.body_text() })?;
        let limit = query.limit.unwrap_or(USUAL_PAGE);
        if !(1..=LONGEST_PAGE).contains(&limit) {
            return Err(Refused::field("limit", format!("limit must be 1 to {LONGEST_PAGE}")));
        }
        let after = query.cursor.as_deref().map(place).transpose()?;
        let role = query.role.clone().map(RoleName::new).transpose();
        let role = role.map_err(|error| Refused::field("role", format!("role {error}")))?;
        let turn = tokio::time::timeout(PATIENCE, app.listings.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Refused::Overloaded) };
        let mut targets: Vec<TargetView> = Vec::new();
        for (target, of_target) in after_place(&app.broker.serving.load_full(), after.as_ref()) {
            if targets.len() == limit {
                break;
            }
            if role.as_ref().is_some_and(|role| *role != of_target) {
                continue;
            }
            let request = IssueRequest {
                role: Some(of_target.to_string()),
                ttl: query.ttl.clone().map(Into::into),
                reason: query.reason.clone(),
                ticket: query.ticket.clone(),
                ..IssueRequest::new(target.as_str())
            };
            let request = CheckedRequest::check(request)?.from_address(from);
            match offered(&app, Arc::clone(&caller), request, id.clone()).await {
                Ok(view) => targets.push(view),
                Err(refused) if is_a_no(&refused) => {}
                Err(refused) => return Err(refused),
            }
        }
        // The place of an entry that the caller has seen: a target that it may not see is named nowhere.
        let last = targets.last().filter(|_| targets.len() == limit);
        let next_cursor = last.map(|view| format!("{}/{}", view.target, view.role));
        Ok(TargetPage { targets, next_cursor })
    };
    match listing.await {
        Ok(page) => axum::Json(page).into_response(),
        Err(refused) => HttpRefused::from(refused).reply(&id),
    }
}

/// The target and role at which a page ended.
fn place(cursor: &str) -> Result<(TargetName, RoleName), Refused> {
    let parts = cursor.split_once('/').and_then(|(target, role)| {
        Some((TargetName::new(target.to_owned()).ok()?, RoleName::new(role.to_owned()).ok()?))
    });
    parts.ok_or_else(|| Refused::field("cursor", "cursor must be a next_cursor of an earlier page"))
}

/// Every target with each of its roles, in order, after that place.
fn after_place(serving: &Serving, after: Option<&(TargetName, RoleName)>) -> Vec<(TargetName, RoleName)> {
    let first = after.map_or(Bound::Unbounded, |(target, _)| Bound::Included(target));
    let targets = serving.targets.range::<TargetName, _>((first, Bound::Unbounded));
    let all = targets.flat_map(|(name, target)| target.roles.keys().map(|role| (name.clone(), role.clone())));
    all.filter(|place| after.is_none_or(|after| place > after)).collect()
}

/// Whether the caller cannot have it; else nobody knows now.
fn is_a_no(refused: &Refused) -> bool {
    matches!(
        refused,
        Refused::PolicyDenied { .. }
            | Refused::RoleNotAllowed { .. }
            | Refused::UnknownTarget(_)
            | Refused::NotOffered { .. }
    )
}

/// Asks the policies once for each type of credential.
async fn offered(
    app: &App,
    caller: Arc<Verified>,
    request: CheckedRequest,
    id: RequestId,
) -> Result<TargetView, Refused> {
    let resolve = || resolve(&app.broker.decide, Arc::clone(&caller), request.clone(), id.clone(), Operation::Issue);
    let Asked { target, role, .. } = resolve()?;
    let kinds = target.verifiers(&role).iter().map(Some).chain([None]);
    let mut credentials = Vec::new();
    let mut denied = None;
    for kind in kinds {
        let asked = Asked { resource: about_credential(kind.map(|offered| offered.kind)), ..resolve()? };
        match app.broker.decide.peek(asked).await? {
            Ok(permit) if kind.is_none() || !target.verifiers(&permit.role).is_empty() => {
                credentials.push(credential(kind));
            }
            // A policy names a role that takes no verifier.
            Ok(_) => {}
            Err(denial) => denied = Some(denial),
        }
    }
    match denied {
        Some(denial) if credentials.is_empty() => Err(Denial::refused(&denial)),
        _ => Ok(TargetView {
            target: target.name.to_string(),
            role: role.to_string(),
            credentials,
            default_ttl_seconds: target.default_ttl.seconds(),
            max_ttl_seconds: target.max_ttl.seconds(),
        }),
    }
}

fn credential(offered: Option<&OfferedVerifier>) -> OfferedCredential {
    let Some(OfferedVerifier { kind, least_iterations, .. }) = offered else {
        let kind = CredentialType::Password.to_string();
        return OfferedCredential { kind, verifier: None, least_iterations: None, most_iterations: None };
    };
    let has_iterations = most_iterations(*kind) > 0;
    OfferedCredential {
        kind: CredentialType::Verifier.to_string(),
        verifier: Some(kind.to_string()),
        least_iterations: has_iterations.then_some(*least_iterations),
        most_iterations: has_iterations.then(|| most_iterations(*kind)),
    }
}
