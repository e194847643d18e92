//! RFC 9457 problems: the one table from the pipeline's refusals to HTTP.

use crate::trace::Told;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jit_api::{Problem, ProblemCode};
use jit_core::id::RequestId;

use crate::told;
use jit_pipeline::refusal::Refused;

/// What can be wrong before the pipeline is reached.
#[derive(Debug, Clone)]
pub enum HttpRefused {
    /// The pipeline refused.
    Pipeline(Refused),
    /// More bytes than a request has.
    PayloadTooLarge,
    /// Not `application/json`.
    UnsupportedMediaType,
    /// No `Authorization` header.
    NoToken,
    /// No such path.
    NoSuchPath,
    /// The path has other methods.
    MethodNotAllowed,
}

impl From<Refused> for HttpRefused {
    fn from(refused: Refused) -> Self {
        Self::Pipeline(refused)
    }
}

/// Status, code, title, and seconds after which a retry makes sense.
fn row(refused: &HttpRefused) -> (StatusCode, ProblemCode, &'static str, Option<u64>) {
    use HttpRefused as H;
    match refused {
        H::PayloadTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, ProblemCode::PayloadTooLarge, "Payload too large", None),
        H::UnsupportedMediaType => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, ProblemCode::UnsupportedMediaType, "Unsupported media type", None)
        }
        H::NoToken => (StatusCode::UNAUTHORIZED, ProblemCode::Unauthenticated, "Unauthenticated", None),
        H::NoSuchPath => (StatusCode::NOT_FOUND, ProblemCode::NotFound, "Not found", None),
        H::MethodNotAllowed => {
            (StatusCode::METHOD_NOT_ALLOWED, ProblemCode::MethodNotAllowed, "Method not allowed", None)
        }
        H::Pipeline(refused) => {
            let (status, title, retry) = match refused {
                Refused::InvalidRequest { .. } => (StatusCode::BAD_REQUEST, "Invalid request", None),
                Refused::WeakVerifier(_) => (StatusCode::BAD_REQUEST, "Weak verifier", None),
                Refused::NotOffered { .. } => (StatusCode::BAD_REQUEST, "Not offered", None),
                Refused::Unauthenticated => (StatusCode::UNAUTHORIZED, "Unauthenticated", None),
                Refused::PolicyDenied { .. } => (StatusCode::FORBIDDEN, "Denied by policy", None),
                Refused::Blocked { .. } => (StatusCode::FORBIDDEN, "Blocked", None),
                Refused::RoleNotAllowed { .. } => (StatusCode::FORBIDDEN, "Role not allowed", None),
                Refused::UnknownTarget(_) => (StatusCode::NOT_FOUND, "Unknown target", None),
                Refused::UnknownLease => (StatusCode::NOT_FOUND, "Unknown lease", None),
                Refused::IdempotencyConflict(_) => (StatusCode::CONFLICT, "Idempotency conflict", None),
                Refused::LeaseNotActive { .. } => (StatusCode::CONFLICT, "Lease not active", None),
                Refused::LeaseNotRenewable { .. } => (StatusCode::CONFLICT, "Lease cannot be renewed", None),
                Refused::NotAgain { .. } => (StatusCode::CONFLICT, "Lease cannot be handed out again", None),
                Refused::RateLimited { retry_after } => {
                    (StatusCode::TOO_MANY_REQUESTS, "Rate limited", Some(retry_after.as_secs() + 1))
                }
                Refused::TargetRefused(_) => (StatusCode::BAD_GATEWAY, "Target refused", None),
                Refused::WrongPlace { .. } => (StatusCode::SERVICE_UNAVAILABLE, "Wrong place", Some(30)),
                Refused::TargetUnavailable(_) | Refused::TargetAway(_) => {
                    (StatusCode::SERVICE_UNAVAILABLE, "Target unavailable", Some(2))
                }
                Refused::AuditUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "Audit log unavailable", Some(5)),
                Refused::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, "Audit log nearly full", Some(60)),
                Refused::RemovalDown => (StatusCode::SERVICE_UNAVAILABLE, "Removal down", Some(60)),
                Refused::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded", Some(1)),
                Refused::TargetTimeout(_) => (StatusCode::GATEWAY_TIMEOUT, "Target timeout", None),
            };
            (status, refused.code(), title, retry)
        }
    }
}

impl HttpRefused {
    /// The reply's code, also for metrics.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        row(self).1
    }

    /// The reply to a caller, who is not told of the backend's insides. What it said is in the log, under
    /// the request's id.
    #[must_use]
    pub fn reply(self, request_id: &RequestId) -> Response {
        let detail = match &self {
            Self::Pipeline(Refused::TargetRefused(words)) => {
                Some(Refused::TargetRefused(told::without_places(words)).to_string())
            }
            Self::Pipeline(Refused::TargetAway(_)) => {
                Some("the target cannot be reached; the operators find the reason under this request_id".to_owned())
            }
            _ => None,
        };
        self.reply_with(request_id, detail)
    }

    /// The reply to an operator, who is told everything but secrets.
    #[must_use]
    pub fn reply_in_full(self, request_id: &RequestId) -> Response {
        self.reply_with(request_id, None)
    }

    fn reply_with(self, request_id: &RequestId, detail: Option<String>) -> Response {
        let (status, code, title, retry) = row(&self);
        let detail = detail.unwrap_or_else(|| match &self {
            Self::Pipeline(refused) => refused.to_string(),
            Self::PayloadTooLarge => format!("a request has at most {} bytes", super::MOST_BODY),
            Self::UnsupportedMediaType => "send the body as application/json".to_owned(),
            Self::NoToken => "the request has no workload token: send `Authorization: Bearer TOKEN`".to_owned(),
            Self::NoSuchPath => "see GET /openapi.json for the paths".to_owned(),
            Self::MethodNotAllowed => "see GET /openapi.json for the methods of this path".to_owned(),
        });
        let mut problem = Problem {
            kind: code.urn(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            code: code.into(),
            request_id: request_id.to_string(),
            policy: None,
            retry_after_seconds: retry,
            field: None,
            lease_id: None,
        };
        match &self {
            Self::Pipeline(Refused::InvalidRequest { field, .. }) => problem.field = field.map(str::to_owned),
            Self::Pipeline(Refused::WeakVerifier(_) | Refused::NotOffered { .. }) => {
                problem.field = Some("credential".to_owned());
            }
            Self::Pipeline(Refused::PolicyDenied { policy, .. }) => problem.policy = Some(policy.clone()),
            Self::Pipeline(
                Refused::IdempotencyConflict(id)
                | Refused::TargetTimeout(id)
                | Refused::LeaseNotActive { id, .. }
                | Refused::LeaseNotRenewable { id, .. }
                | Refused::NotAgain { id, .. },
            ) => problem.lease_id = Some(id.to_string()),
            _ => {}
        }
        let mut reply = (status, axum::Json(&problem)).into_response();
        let field = match &self {
            Self::Pipeline(Refused::InvalidRequest { field, .. }) => *field,
            Self::Pipeline(Refused::WeakVerifier(_) | Refused::NotOffered { .. }) => Some("credential"),
            _ => None,
        };
        let reason = match &self {
            Self::Pipeline(Refused::TargetRefused(words) | Refused::TargetAway(words)) => Some(words.clone()),
            _ => None,
        };
        reply.extensions_mut().insert(Told { code, policy: problem.policy, field, reason });
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        reply
    }
}

#[cfg(test)]
#[path = "problem_tests.rs"]
mod tests;
