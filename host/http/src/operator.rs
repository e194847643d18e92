//! For operators: health, metrics, the API's description.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use jit_api::Problem;

use super::App;
use crate::extract::Id;
use crate::problem::HttpRefused;
use jit_ledger::Store;
use jit_pipeline::refusal::Refused;
use jit_pipeline::space::Room;
use jit_pipeline::tasks::removal;

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
    let stopping = app.broker.work.stopping.is_cancelled();
    let (status, text) = match stopping {
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        // Ready all the same: leases can still be revoked, and another replica would not have more room.
        // The same of a removal task that does not work: a revocation on request still removes an account.
        false if app.readiness.of(&*app.broker.store).await => match app.broker.ledger.room() {
            _ if app.broker.board.down(removal::NAME).is_some() => {
                (StatusCode::OK, "ready to revoke only: the removal task does not work")
            }
            Room::Ample => (StatusCode::OK, "ready"),
            Room::Low => (StatusCode::OK, "ready; the disk has little room"),
            Room::Stop => (StatusCode::OK, "ready to revoke only: the disk is nearly full"),
        },
        false => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer"),
    };
    // Not a problem document: a probe reads the status alone.
    (status, [(header::CONTENT_TYPE, "application/json")], format!("\"{text}\"\n")).into_response()
}

/// How long an answer of the store holds.
const READY_FOR: Duration = Duration::from_secs(1);
/// How long it may take.
const STORE_DEADLINE: Duration = Duration::from_secs(2);

/// Whether the store answers. It is asked once a second at most, however many want to know: nobody needs a
/// token for that.
#[derive(Default)]
pub struct Readiness(tokio::sync::Mutex<Option<(Instant, bool)>>);

impl Readiness {
    async fn of(&self, store: &dyn Store) -> bool {
        let mut known = self.0.lock().await;
        if let Some((_, ready)) = known.filter(|(asked, _)| asked.elapsed() < READY_FOR) {
            return ready;
        }
        let ready = matches!(tokio::time::timeout(STORE_DEADLINE, store.next_due()).await, Ok(Ok(_)));
        *known = Some((Instant::now(), ready));
        ready
    }
}

/// Metrics for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operators",
    responses(
        (status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "overloaded"),
    )
)]
pub async fn metrics(State(app): State<Arc<App>>, Id(id): Id) -> Response {
    let Ok(_place) = app.operators.try_acquire() else { return HttpRefused::from(Refused::Overloaded).reply(&id) };
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    ([(header::CONTENT_TYPE, kind)], app.metrics.render()).into_response()
}

/// The API's description.
pub async fn openapi(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi.clone()).into_response()
}
