//! For operators: health, metrics, the API's description.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::App;

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "operators", responses((status = 200, description = "It runs", body = String)))]
pub async fn livez() -> &'static str {
    "ok\n"
}

/// The broker can serve: its store answers. A target that is away does not change that.
#[utoipa::path(
    get, path = "/readyz", tag = "operators",
    responses(
        (status = 200, description = "It serves", body = String, content_type = "application/json"),
        (status = 503, description = "The store does not answer, or the broker is stopping", body = String, content_type = "application/json"),
    )
)]
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    let store = tokio::time::timeout(Duration::from_secs(2), app.broker.store.next_due()).await;
    let (status, text) = match store {
        _ if app.broker.stopping.is_cancelled() => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        Ok(Ok(_)) => (StatusCode::OK, "ready\n"),
        Ok(Err(_)) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n"),
    };
    // Not a problem document: a probe reads the status alone.
    (status, [(header::CONTENT_TYPE, "application/json")], format!("\"{}\"\n", text.trim())).into_response()
}

/// Metrics for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operators",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"))
)]
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    ([(header::CONTENT_TYPE, kind)], app.metrics.render()).into_response()
}

/// The API's description.
pub async fn openapi(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi.clone()).into_response()
}
