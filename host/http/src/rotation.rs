//! Rotating accounts, on the admin socket.

use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;

use crate::admin::reply;
use crate::server::Peer;
use jit_pipeline::rotation::operate::{self, OperateFlow};

/// The routes.
pub fn router(flow: OperateFlow) -> Router {
    Router::new()
        .route("/admin/rotations", get(list))
        .route("/admin/rotations/{target}/{role}/now", post(now))
        .with_state(flow)
}

async fn list(State(flow): State<OperateFlow>) -> Response {
    reply(operate::list(&flow).await.map_err(Into::into))
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
    State(flow): State<OperateFlow>,
    ConnectInfo(Peer(operator)): ConnectInfo<Peer>,
    Path((target, role)): Path<(String, String)>,
    Query(how): Query<How>,
) -> Response {
    reply(operate::rotate_now(&flow, &target, &role, how.at_once, operator).await)
}
