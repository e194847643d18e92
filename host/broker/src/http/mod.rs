//! The HTTP API: routes, and the layers around them. It maps requests to the pipeline and the
//! pipeline's answers to replies; it decides nothing.

pub mod admin;
pub mod delivery;
pub mod extract;
pub mod issue;
pub mod leases;
pub mod operator;
pub mod problem;
pub mod rotation;
pub mod server;
pub mod silence;
pub mod views;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use jiff::Timestamp;
use jit_core::id::RequestId;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::broker::Broker;
use crate::refusal::Refused;
use problem::HttpRefused;

/// The most bytes of a request's body.
pub const MOST_BODY: usize = 64 * 1024;

/// What the handlers work with.
pub struct App {
    /// The pipeline's state.
    pub broker: Arc<Broker>,
    /// The metrics as Prometheus reads them.
    pub metrics: PrometheusHandle,
    /// The OpenAPI document.
    pub openapi: String,
    /// Requests that may be at work at once.
    pub in_flight: Semaphore,
    /// How long a request may take, its body included.
    pub request_timeout: Duration,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "jit-broker",
        description = "Just-in-time credentials: an application proves its workload identity and gets an account that exists only for its lease.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(views::PolicyView)),
    modifiers(&TokenScheme)
)]
struct Document;

struct TokenScheme;

impl utoipa::Modify for TokenScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "The workload's identity token: Kubernetes service account, SPIFFE JWT-SVID, CI or cloud",
            ))
            .build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("workload_token", SecurityScheme::Http(scheme));
    }
}

/// The routes with their documentation.
fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(issue::post_issue))
        .routes(routes!(issue::post_simulate))
        .routes(routes!(leases::list_leases))
        .routes(routes!(leases::get_lease))
        .routes(routes!(leases::renew_lease))
        .routes(routes!(leases::revoke_lease))
        .routes(routes!(operator::livez))
        .routes(routes!(operator::readyz))
        .routes(routes!(operator::metrics))
}

/// The OpenAPI document, as JSON.
#[must_use]
pub fn openapi() -> String {
    let (_, mut document) = documented().split_for_parts();
    // The short path is the same operation.
    if let Some(path) = document.paths.paths.get("/v1/issue").cloned() {
        let mut short = path;
        if let Some(post) = &mut short.post {
            post.operation_id = Some("post_issue_short".to_owned());
        }
        document.paths.paths.insert("/issue".to_owned(), short);
    }
    document.to_pretty_json().unwrap_or_default()
}

/// The whole API with its layers.
pub fn router(app: Arc<App>) -> Router {
    let (routes, _) = documented().split_for_parts();
    routes
        .route("/issue", post(issue::post_issue))
        .route("/openapi.json", get(operator::openapi))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Around every request: its id, a bound on how many are at work, and problem+json for whatever
/// the framework itself refuses.
async fn around(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = RequestId::generate(Timestamp::now());
    request.extensions_mut().insert(extract::Id(id.clone()));
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // Health and metrics answer also when there is too much to do.
    let bounded = !matches!(path.as_str(), "/livez" | "/readyz" | "/metrics");
    let slot = if bounded { app.in_flight.try_acquire().ok() } else { None };
    let mut reply = if bounded && slot.is_none() {
        metrics::counter!("jit_overloaded_total").increment(1);
        HttpRefused::from(Refused::Overloaded).reply(&id)
    } else {
        match tokio::time::timeout(app.request_timeout, next.run(request)).await {
            Ok(reply) => as_problem(reply, &id),
            // The pipeline's own deadlines are shorter: this is a caller that does not finish its
            // body, or a broker that has too much to do.
            Err(_) => HttpRefused::from(Refused::Overloaded).reply(&id),
        }
    };
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        reply.headers_mut().insert("x-request-id", value);
    }
    tracing::debug!(request_id = %id, %method, path = %path.escape_debug(), status = reply.status().as_u16(), micros = started.elapsed().as_micros(), "request");
    reply
}

/// The framework's own refusals (no route, wrong method, a path that is no UTF-8) as problems.
fn as_problem(reply: Response, id: &RequestId) -> Response {
    let status = reply.status();
    if status.is_success() || status.is_redirection() || status.is_informational() {
        return reply;
    }
    let kind = reply.headers().get(header::CONTENT_TYPE);
    let told = kind.is_some_and(|kind| kind == "application/problem+json" || kind == "application/json");
    if told {
        return reply;
    }
    let refused = match status {
        StatusCode::NOT_FOUND => HttpRefused::NoSuchPath,
        StatusCode::METHOD_NOT_ALLOWED => HttpRefused::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => HttpRefused::PayloadTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => HttpRefused::UnsupportedMediaType,
        status if status.is_client_error() => {
            let detail = "the request's path, query or headers are malformed".to_owned();
            Refused::InvalidRequest { field: None, detail }.into()
        }
        _ => Refused::Overloaded.into(),
    };
    let allow = reply.headers().get(header::ALLOW).cloned();
    let mut problem = refused.reply(id);
    if let Some(allow) = allow {
        problem.headers_mut().insert(header::ALLOW, allow);
    }
    problem
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_has_every_path_and_complete_schemas() {
        let document: serde_json::Value = serde_json::from_str(&super::openapi()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        for path in [
            "/issue",
            "/v1/issue",
            "/v1/simulate",
            "/v1/leases",
            "/v1/leases/{id}",
            "/v1/leases/{id}/renew",
            "/v1/leases/{id}/revoke",
            "/livez",
            "/readyz",
            "/metrics",
        ] {
            assert!(document["paths"].get(path).is_some(), "{path}");
        }
        // Every reference leads somewhere.
        fn references<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a str>) {
            match value {
                serde_json::Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(|r| r.as_str()));
                    map.values().for_each(|value| references(value, found));
                }
                serde_json::Value::Array(list) => list.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        assert_eq!(document["paths"]["/v1/issue"]["post"]["responses"].as_object().unwrap().len(), 12);
    }
}
