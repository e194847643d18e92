//! The HTTP API and administration: listeners, routes, and the layers around them. It maps requests to the pipeline
//! and the pipeline's answers to replies; it decides nothing.
//!
//! In scope: connections and their bounds, the evidence of who is asking, problem+json, the OpenAPI document, the admin
//! socket. Out of scope: what is done with a request ([`jit_pipeline`]), who somebody is ([`jit_identity`]), the
//! configuration, plugins, the store.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod admin;
pub mod connection;
pub mod delivery;
pub mod extract;
pub mod give_back;
pub mod issue;
pub mod leases;
pub mod operator;
pub mod pace;
pub mod places;
pub mod problem;
pub mod rotation;
pub mod server;
pub mod status;
pub mod targets;
pub mod told;
pub mod trace;
pub mod views;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use jit_core::id::RequestId;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use jit_pipeline::broker::Broker;
use jit_pipeline::refusal::Refused;
use problem::HttpRefused;

/// The most bytes of a request's body.
pub const MOST_BODY: usize = 64 * 1024;

/// The most requests that give access back at once. The store and the targets set the pace; others wait.
pub const MOST_RETURNING: usize = 256;

/// What the handlers work with.
pub struct App {
    /// The pipeline's state.
    pub broker: Arc<Broker>,
    /// The metrics as Prometheus reads them.
    pub metrics: PrometheusHandle,
    /// The OpenAPI document.
    pub openapi: Bytes,
    /// Requests of verified callers that may be at work at once.
    pub in_flight: Arc<Semaphore>,
    /// Requests at work at once that give access back; more wait for their turn.
    pub returning: Arc<Semaphore>,
    /// Lists of targets at once.
    pub listings: Semaphore,
    /// Requests for metrics and the API's description at once.
    pub operators: Semaphore,
    /// Whether the store answered, not long ago.
    pub readiness: operator::Readiness,
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

/// What callers ask, with its documentation.
fn asked_by_callers() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(issue::post_issue))
        .routes(routes!(issue::post_simulate))
        .routes(routes!(targets::list_targets))
        .routes(routes!(targets::get_target))
        .routes(routes!(leases::list_leases))
        .routes(routes!(leases::get_lease))
        .routes(routes!(leases::renew_lease))
        .routes(routes!(give_back::revoke_lease))
        .routes(routes!(give_back::revoke_leases))
}

/// What probes ask: on every listener, since they ask whether that one answers.
fn asked_by_probes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(operator::livez)).routes(routes!(operator::readyz))
}

/// What operators ask: it names targets, policies and issuers.
fn asked_by_operators() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(operator::metrics))
}

/// The routes with their documentation.
fn documented() -> OpenApiRouter<Arc<App>> {
    asked_by_callers().merge(asked_by_probes()).merge(asked_by_operators())
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
    document.to_pretty_json().expect("the description is made of strings, numbers and maps with string keys")
}

/// The API with its layers; with what operators ask, unless they have a listener of their own.
pub fn router(app: Arc<App>, with_operators: bool) -> Router {
    let mut routes = asked_by_callers().merge(asked_by_probes());
    if with_operators {
        routes = routes.merge(asked_by_operators()).route("/openapi.json", get(operator::openapi));
    }
    layered(routes.route("/issue", post(issue::post_issue)), app)
}

/// What the operators' own listener answers.
pub fn operators_router(app: Arc<App>) -> Router {
    let routes = asked_by_probes().merge(asked_by_operators());
    layered(routes.route("/openapi.json", get(operator::openapi)), app)
}

fn layered(routes: OpenApiRouter<Arc<App>>, app: Arc<App>) -> Router {
    let (routes, _) = routes.split_for_parts();
    routes
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Around every request: its id, the time that it has, and problem+json for whatever the framework itself
/// refuses. Holds what room the request takes once its caller is known.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    trace::traced(request, |mut request, id| async move {
        let slot = extract::Slot::default();
        request.extensions_mut().insert(slot.clone());
        match tokio::time::timeout(app.request_timeout, next.run(request)).await {
            Ok(reply) => as_problem(reply, &id),
            // The pipeline's own deadlines are shorter: this is a caller that does not finish its
            // body, or a broker that has too much to do.
            Err(_) => HttpRefused::from(Refused::Overloaded).reply(&id),
        }
    })
    .await
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
            "/v1/targets",
            "/v1/targets/{name}",
            "/v1/leases",
            "/v1/leases/{id}",
            "/v1/leases/{id}/renew",
            "/v1/leases/{id}/revoke",
            "/v1/leases/revoke",
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
