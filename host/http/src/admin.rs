//! Administration, on the Unix socket: who can open it is an operator. The `jit-broker` commands
//! are its clients.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use jit_api::admin::{AdminLeases, PluginRow, ReloadReport, RevokeMany};
use jit_api::status::ConfigStatus;
use jit_core::causes::with_causes;
use jit_core::event::{ArchiveAsked, AuditEvent, Event, Plain, ReconcileAsked};
use jit_core::id::LeaseId;
use jit_core::lease::{EndedBy, Lease};
use jit_core::ttl::Ttl;
use serde::{Deserialize, Serialize};

use crate::give_back::revoked_reply;
use crate::leases::ListQuery;
use crate::problem::HttpRefused;
use crate::server::Peer;
use crate::trace;
use crate::views::admin_lease;
use jit_core::operator::Operator;
use jit_ledger::{Change, LeaseFilter, Store};
use jit_pipeline::broker::Broker;
use jit_pipeline::refusal::Refused;
use jit_pipeline::revoke;
use jit_pipeline::revoke_many;
use jit_pipeline::rotation::operate;
use jit_pipeline::simulate::{Question, explain};
use jit_pipeline::tasks::reconcile::Pass;
use jit_pipeline::tasks::{self, housekeeping, reconcile};

/// Which leases an operator wants: what [`ListQuery`] selects, and more. Its fields stand here again, since two readers
/// of one query would each refuse what only the other knows.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperatorQuery {
    target: Option<String>,
    state: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
    /// Only those that have ended, or only those that have not; by default both.
    ended: Option<bool>,
    /// Only of this workload, whatever its issuer.
    workload: Option<String>,
}

/// Parameters of a revocation.
#[derive(Debug, Default, Deserialize)]
struct RevokeQuery {
    /// Of a rotating account: change its password now, if the lease's is still current.
    #[serde(default)]
    rotate: bool,
}

/// Parameters of a reconciliation.
#[derive(Debug, Default, Deserialize)]
struct ReconcileQuery {
    #[serde(default)]
    dry_run: bool,
    /// What was held goes too: an operator has seen it.
    #[serde(default)]
    confirm: bool,
    /// In this target only.
    target: Option<String>,
}

/// Parameters of a reload.
#[derive(Debug, Default, Deserialize)]
struct ReloadQuery {
    /// Also where accounts could then not be removed.
    #[serde(default)]
    force: bool,
}

/// Parameters of an archiving.
#[derive(Debug, Default, Deserialize)]
struct ArchiveQuery {
    /// How long a record stays; by default as configured.
    keep: Option<Ttl>,
}

/// The plugins and the configuration that serve, as administration sees them.
#[async_trait]
pub trait Administered: Send + Sync {
    /// The plugins that are loaded.
    fn plugins(&self) -> Vec<PluginRow>;

    /// Which configuration serves, and why another one does not.
    fn config(&self) -> ConfigStatus;

    /// The metrics, as Prometheus reads them.
    fn metrics(&self) -> String;

    /// The word for the kind of store.
    fn store_kind(&self) -> &'static str;

    /// Reads the configuration again and serves it; also where accounts could then not be removed, with `force`.
    ///
    /// # Errors
    /// With what is wrong, for the operator to read. The old configuration serves on.
    async fn reload(&self, operator: Operator, force: bool) -> Result<ReloadReport, String>;
}

/// The administration's routes.
pub fn router(broker: Arc<Broker>, administered: Arc<dyn Administered>) -> Router {
    let of_status = crate::status::router(Arc::clone(&broker), Arc::clone(&administered));
    let of_configuration = Router::new()
        .route("/admin/plugins", get(plugins))
        .route("/admin/reload", post(reload))
        .with_state(administered);
    Router::new()
        .route("/admin/leases", get(list))
        .route("/admin/leases/revoke", post(revoke_many))
        .route("/admin/leases/{id}", get(show))
        .route("/admin/leases/{id}/revoke", post(revoke))
        .route("/admin/reconcile", post(reconcile_now))
        .route("/admin/clock/confirm", post(confirm_clock))
        .route("/admin/simulate", post(simulate))
        .route("/admin/archive", post(archive))
        .with_state(Arc::clone(&broker))
        .merge(crate::rotation::router(broker.operate.clone()))
        .merge(of_configuration)
        .merge(of_status)
        .layer(middleware::from_fn(trace::around))
}

/// A body, or the refusal as a problem.
pub(super) fn reply<T: Serialize>(result: Result<T, Refused>) -> Response {
    match result {
        Ok(body) => axum::Json(body).into_response(),
        Err(refused) => HttpRefused::from(refused).reply_in_full(&trace::request_id()),
    }
}

async fn list(State(broker): State<Arc<Broker>>, Query(query): Query<OperatorQuery>) -> Response {
    let listed = async {
        let OperatorQuery { target, state, limit, cursor, ended, workload } = query;
        let filter = ListQuery { target, state, limit, cursor }.filter()?;
        let filter = LeaseFilter { ended, workload, ..filter };
        let leases = broker.store.leases(&filter).await?;
        let next_cursor = leases.last().filter(|_| leases.len() == filter.limit).map(|lease| lease.id.to_string());
        Ok(AdminLeases { leases: leases.into_iter().map(admin_lease).collect(), next_cursor })
    };
    reply(listed.await)
}

async fn find(store: &dyn Store, id: &str) -> Result<Lease, Refused> {
    let id: LeaseId = id.parse().map_err(|_| Refused::UnknownLease)?;
    store.lease(&id).await?.ok_or(Refused::UnknownLease)
}

async fn show(State(broker): State<Arc<Broker>>, Path(id): Path<String>) -> Response {
    reply(find(&*broker.store, &id).await.map(admin_lease))
}

async fn revoke(
    State(broker): State<Arc<Broker>>,
    ConnectInfo(Peer(operator)): ConnectInfo<Peer>,
    Path(id): Path<String>,
    Query(query): Query<RevokeQuery>,
) -> Response {
    let result = async {
        let lease = find(&*broker.store, &id).await?;
        let event = AuditEvent::of_lease(Event::AdminRevoke(Plain {}), Timestamp::now(), &lease).by(operator);
        broker.ledger.commit(Change::record(event)).await?;
        if query.rotate {
            // First: when it fails, the lease still says whose password it was.
            operate::rotate_away(&broker.operate, &lease, operator).await?;
        }
        revoke::revoke(&broker.revoke, lease, EndedBy::Operator(operator), true).await
    };
    match result.await {
        Ok(lease) => revoked_reply(&broker.rotation, &lease).await,
        Err(refused) => HttpRefused::from(refused).reply_in_full(&trace::request_id()),
    }
}

/// The records of what it ends are made with each lease's end.
async fn revoke_many(
    State(broker): State<Arc<Broker>>,
    ConnectInfo(Peer(operator)): ConnectInfo<Peer>,
    axum::Json(asked): axum::Json<RevokeMany>,
) -> Response {
    reply(revoke_many::revoke_many(&broker.revoke, asked, operator).await)
}

async fn reconcile_now(
    State(broker): State<Arc<Broker>>,
    ConnectInfo(Peer(operator)): ConnectInfo<Peer>,
    Query(query): Query<ReconcileQuery>,
) -> Response {
    let result = async {
        let pass = match (query.dry_run, query.confirm) {
            (true, _) => Pass::Look,
            (false, true) => Pass::Confirmed,
            (false, false) => Pass::Mend,
        };
        if query.target.as_ref().is_some_and(|name| !broker.serving.load().targets.contains_key(name.as_str())) {
            return Err(Refused::UnknownTarget(query.target.unwrap_or_default()));
        }
        let asked = ReconcileAsked { dry_run: query.dry_run, confirm: query.confirm };
        let event = AuditEvent::new(Event::AdminReconcile(asked), Timestamp::now()).by(operator);
        broker.ledger.commit(Change::record(event)).await?;
        let report = reconcile::reconcile(&broker.reconcile, pass, query.target.as_deref()).await;
        if report.targets.iter().any(|target| target.suspects > 0) {
            // The task looks too, and again when it can tell a suspect from a ghost.
            broker.wake.reconcile.notify_one();
        }
        Ok::<_, Refused>(report)
    };
    reply(result.await)
}

async fn confirm_clock(State(broker): State<Arc<Broker>>, ConnectInfo(Peer(operator)): ConnectInfo<Peer>) -> Response {
    reply(housekeeping::confirm_clock(&broker.housekeeping, operator).await.map_err(Refused::from))
}

async fn reload(
    State(administered): State<Arc<dyn Administered>>,
    ConnectInfo(Peer(operator)): ConnectInfo<Peer>,
    Query(query): Query<ReloadQuery>,
) -> Response {
    let reloaded = administered.reload(operator, query.force).await;
    reply(reloaded.map_err(|detail| Refused::InvalidRequest { field: None, detail }))
}

async fn archive(
    State(broker): State<Arc<Broker>>,
    ConnectInfo(Peer(operator)): ConnectInfo<Peer>,
    Query(query): Query<ArchiveQuery>,
) -> Response {
    let archived = async {
        let asked = ArchiveAsked { keep: query.keep.map(|keep| keep.to_string()) };
        broker
            .ledger
            .commit(Change::record(AuditEvent::new(Event::AdminArchive(asked), Timestamp::now()).by(operator)))
            .await?;
        let detail = match tasks::archive::once(&broker.archive, query.keep).await {
            Some(Ok(segments)) => return Ok(segments),
            Some(Err(error)) => with_causes(&error),
            None => "the configuration names no archive: [audit] archive = { path = \"data/archive\" }".to_owned(),
        };
        Err(Refused::InvalidRequest { field: None, detail })
    };
    reply(archived.await)
}

async fn simulate(State(broker): State<Arc<Broker>>, axum::Json(question): axum::Json<Question>) -> Response {
    let serving = broker.serving.load_full();
    let issuers = broker.identity.load().issuers();
    reply(explain(&serving, Some(&*broker.store), &issuers, question).await)
}

async fn plugins(State(administered): State<Arc<dyn Administered>>) -> Response {
    reply(Ok(administered.plugins()))
}
