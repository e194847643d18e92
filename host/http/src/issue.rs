//! `POST /issue` and `POST /v1/simulate`.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jit_api::{IssueReply, IssueRequest, Problem};
use jit_core::policy::Operation;
use tokio::sync::oneshot;
use tracing::Span;

use super::App;
use crate::delivery::{Delivery, Undelivered};
use crate::extract::{Caller, CallerAddress, Id, Json, idempotency_key};
use crate::problem::HttpRefused;
use crate::views::{self, Effective, SimulateReply};
use jit_pipeline::issue::{issue, resolve};
use jit_pipeline::refusal::Refused;
use jit_pipeline::request::CheckedRequest;
use jit_pipeline::trace::carried;

/// Issue a credential.
///
/// The credential exists only for its lease. With an Idempotency-Key, a retry gets the same lease.
#[utoipa::path(
    post, path = "/v1/issue", tag = "issue", request_body = IssueRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters")),
    security(("workload_token" = [])),
    responses(
        (status = 201, description = "The credential, once", body = IssueReply,
         headers(("Location" = String, description = "The lease"))),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid-request, verifier-weak, not-offered"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "policy-denied, role-not-allowed, blocked"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "unknown-target"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "idempotency-conflict, lease-not-active"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "payload-too-large"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "unsupported-media-type"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate-limited"),
        (status = 502, body = Problem, content_type = "application/problem+json", description = "target-refused"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "target-unavailable, audit-unavailable, removal-down, overloaded"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "target-timeout"),
    )
)]
pub async fn post_issue(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Caller(caller): Caller,
    CallerAddress(from): CallerAddress,
    headers: HeaderMap,
    Json(body): Json<IssueRequest>,
) -> Response {
    let started = Instant::now();
    let target = if app.broker.serving.load().targets.contains_key(body.target.as_str()) {
        body.target.clone()
    } else {
        // A stranger's words must not become series.
        "unknown".to_owned()
    };
    let result = async {
        let key = idempotency_key(&headers)?;
        let request = CheckedRequest::check(body)?.from_address(from);
        let span = Span::current();
        span.record("target", tracing::field::display(&request.target));
        if let Some(role) = &request.role {
            span.record("role", tracing::field::display(role));
        }
        // The pipeline runs on its own: a caller that goes away does not cut it off in the middle.
        // What it made then is undelivered, and goes.
        let (reply, answer) = oneshot::channel();
        let (flow, undo) = (Arc::clone(&app.broker.issue), Arc::clone(&app.broker.undo));
        let request_id = id.clone();
        app.broker.work.spawn(carried(async move {
            let issued = issue(&flow, caller, request, key, request_id).await;
            let _gone = reply.send(issued.map(|disclosure| Undelivered::new(&undo, disclosure)));
        }));
        answer.await.map_err(|_| Refused::Overloaded)?
    }
    .await;
    let outcome = result.as_ref().map_or_else(|refused| refused.code().as_str(), |_| "granted");
    metrics::counter!("jit_issue_total", "target" => target.clone(), "outcome" => outcome).increment(1);
    metrics::histogram!("jit_issue_seconds", "target" => target).record(started.elapsed());
    match result {
        Ok(undelivered) => {
            let lease = &undelivered.disclosure().lease;
            Span::current().record("lease", tracing::field::display(&lease.id));
            tracing::info!(role = %lease.role, account = lease.login(), expires_at = %lease.expires_at, "granted");
            disclose(undelivered)
        }
        Err(refused) => HttpRefused::from(refused).reply(&id),
    }
}

fn disclose(undelivered: Undelivered) -> Response {
    let disclosure = undelivered.disclosure();
    let location = format!("/v1/leases/{}", disclosure.lease.id);
    #[allow(clippy::expect_used, reason = "the reply is texts, numbers and a map whose keys are texts")]
    let json = serde_json::to_vec(&views::issue_reply(disclosure)).expect("a reply is JSON");
    let mut reply = (StatusCode::CREATED, Body::new(Delivery::new(json, undelivered))).into_response();
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    reply
}

/// What `/issue` would decide, without any effect.
#[utoipa::path(
    post, path = "/v1/simulate", tag = "issue", request_body = IssueRequest,
    security(("workload_token" = [])),
    responses(
        (status = 200, description = "The decision, policy by policy", body = SimulateReply),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid-request, verifier-weak, not-offered"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "role-not-allowed"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "unknown-target"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "payload-too-large"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "unsupported-media-type"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate-limited"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "overloaded"),
    )
)]
pub async fn post_simulate(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Caller(caller): Caller,
    CallerAddress(from): CallerAddress,
    Json(body): Json<IssueRequest>,
) -> Response {
    let simulated = async {
        let request = CheckedRequest::check(body)?.from_address(from);
        let asked = resolve(&app.broker.decide, caller, request, id.clone(), Operation::Issue)?;
        Ok(match app.broker.decide.peek(asked).await? {
            Ok(permit) => SimulateReply {
                decision: "allow",
                policies: permit.decision.policies,
                effective: Effective { role: permit.role.to_string(), ttl_seconds: permit.ttl.seconds() },
                policy: None,
                reason: None,
            },
            Err(denial) => SimulateReply {
                decision: "deny",
                effective: Effective {
                    role: denial.decision.asked.role.to_string(),
                    ttl_seconds: denial.decision.asked.ttl.seconds(),
                },
                policies: denial.decision.policies,
                policy: Some(denial.policy),
                reason: Some(denial.reason),
            },
        })
    };
    match simulated.await {
        Ok(reply) => axum::Json(reply).into_response(),
        Err(refused) => HttpRefused::from(Refused::clone(&refused)).reply(&id),
    }
}
