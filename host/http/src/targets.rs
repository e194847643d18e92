//! `GET /v1/targets/{name}`: what a caller may ask of a target.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use jit_api::{CredentialType, IssueRequest, OfferedCredential, Problem, TargetView};
use jit_core::policy::{Operation, about_credential};
use jit_core::secret::most_iterations;
use jit_identity::Verified;
use jit_pipeline::issue::resolve;
use jit_pipeline::permit::{Asked, Denial};
use jit_pipeline::refusal::Refused;
use jit_pipeline::request::CheckedRequest;
use jit_pipeline::target::OfferedVerifier;
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
