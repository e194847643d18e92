//! Rotating accounts, on the admin socket.

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;

use crate::admin::reply;
use crate::server::Peer;
use jit_pipeline::broker::Broker;
use jit_pipeline::rotation::operate;

/// The routes.
pub fn router(broker: Arc<Broker>) -> Router {
    Router::new()
        .route("/admin/rotations", get(list))
        .route("/admin/rotations/{target}/{role}/now", post(now))
        .with_state(broker)
}

async fn list(State(broker): State<Arc<Broker>>) -> Response {
    reply(operate::list(&broker).await.map_err(Into::into))
}

/// How a rotation is to be made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct How {
    /// Without an overlap.
    #[serde(default)]
    at_once: bool,
}

async fn now(
    State(broker): State<Arc<Broker>>,
    ConnectInfo(Peer(operator)): ConnectInfo<Peer>,
    Path((target, role)): Path<(String, String)>,
    Query(how): Query<How>,
) -> Response {
    reply(operate::rotate_now(&broker, &target, &role, how.at_once, operator).await)
}
