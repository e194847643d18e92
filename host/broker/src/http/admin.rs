//! Administration, on the Unix socket: who can open it is an operator. The `jit-broker` commands
//! are its clients.

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use jit_core::event::{AuditEvent, EventKind};
use jit_core::id::{LeaseId, RequestId};
use jit_core::lease::{Cause, Lease, LeaseState};
use jit_core::ttl::Ttl;
use jit_runtime::Plugin;
use serde::{Deserialize, Serialize};

use super::give_back::revoked;
use super::leases::ListQuery;
use super::problem::HttpRefused;
use super::server::Operator;
use crate::broker::Broker;
use crate::compose::with_causes;
use crate::refusal::Refused;
use crate::reload::{Reloader, Trigger};
use crate::rotation::operate;
use crate::simulate::{Question, explain};
use crate::tasks::reconcile::Pass;
use crate::tasks::{self, housekeeping, reconcile};
use jit_config::ConfigErrors;
use jit_ledger::Change;

/// A lease as operators see it: with whose it is and how its removal goes.
#[derive(Debug, Serialize, Deserialize)]
pub struct AdminLease {
    /// The lease.
    pub lease_id: String,
    /// Where it stands.
    pub state: LeaseState,
    /// The workload.
    pub workload: String,
    /// The issuer's configured name.
    pub issuer: String,
    /// The token's `sub`; empty in a lease of an earlier release.
    #[serde(default)]
    pub subject: String,
    /// The target.
    pub target: String,
    /// The role.
    pub role: String,
    /// The account's name, as the target knows it.
    pub account: String,
    /// Whether its end takes back what was handed out.
    #[serde(default = "yes")]
    pub revocable: bool,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Failed attempts to remove the account.
    pub attempts: u32,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Why it was asked for.
    pub reason: Option<String>,
    /// The ticket given.
    pub ticket: Option<String>,
    /// The plugin that made the account.
    pub driver: String,
    /// Its digest then.
    pub driver_sha256: String,
}

/// Of a broker that does not say.
fn yes() -> bool {
    true
}

impl From<Lease> for AdminLease {
    fn from(lease: Lease) -> Self {
        let account = lease.login().to_owned();
        let (attempts, last_error) = lease.removal.map_or((0, None), |removal| (removal.attempts, removal.last_error));
        Self {
            lease_id: lease.id.to_string(),
            state: lease.state,
            workload: lease.principal.workload,
            issuer: lease.principal.issuer,
            subject: lease.principal.subject,
            target: lease.target.to_string(),
            role: lease.role.to_string(),
            account,
            revocable: !lease.standing,
            issued_at: lease.issued_at,
            expires_at: lease.expires_at,
            attempts,
            last_error,
            reason: lease.reason,
            ticket: lease.ticket,
            driver: lease.driver.plugin,
            driver_sha256: lease.driver.sha256,
        }
    }
}

/// A page of leases.
#[derive(Debug, Serialize, Deserialize)]
pub struct AdminLeases {
    /// Newest first.
    pub leases: Vec<AdminLease>,
    /// For the next page.
    pub next_cursor: Option<String>,
}

/// A loaded plugin.
#[derive(Debug, Serialize, Deserialize)]
pub struct PluginRow {
    /// Its name in the configuration.
    pub name: String,
    /// `policy`, `context` or `driver`.
    pub kind: String,
    /// The contract version it was built for.
    pub contract: String,
    /// What is linked to it.
    pub grants: Vec<String>,
    /// The digest of its component.
    pub sha256: String,
    /// Where it was read from.
    pub path: String,
    /// The names and ids of the trusted keys that vouch for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
    /// Every SQL statement it can ever run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<String>,
}

impl From<&Plugin> for PluginRow {
    fn from(plugin: &Plugin) -> Self {
        let statements = match plugin {
            Plugin::Driver(driver) => driver.templates().to_vec(),
            Plugin::Policy(_) | Plugin::Context(_) => Vec::new(),
        };
        Self {
            name: plugin.name().to_owned(),
            kind: plugin.kind().to_string(),
            contract: plugin.contract_version().to_owned(),
            grants: plugin.grants().iter().map(ToString::to_string).collect(),
            sha256: plugin.sha256().to_owned(),
            path: plugin.path().display().to_string(),
            signed_by: plugin.signed_by().to_vec(),
            statements,
        }
    }
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

/// The administration's routes.
pub fn router(broker: Arc<Broker>, reloader: Arc<Reloader>) -> Router {
    Router::new()
        .route("/admin/leases", get(list))
        .route("/admin/leases/{id}", get(show))
        .route("/admin/leases/{id}/revoke", post(revoke))
        .route("/admin/reconcile", post(reconcile_now))
        .route("/admin/clock/confirm", post(confirm_clock))
        .route("/admin/plugins", get(plugins))
        .route("/admin/simulate", post(simulate))
        .route("/admin/archive", post(archive))
        .with_state(Arc::clone(&broker))
        .merge(super::rotation::router(broker))
        .merge(Router::new().route("/admin/reload", post(reload)).with_state(reloader))
}

/// A body, or the refusal as a problem.
pub(super) fn reply<T: Serialize>(result: Result<T, Refused>) -> Response {
    match result {
        Ok(body) => axum::Json(body).into_response(),
        Err(refused) => HttpRefused::from(refused).reply_in_full(&RequestId::generate(Timestamp::now())),
    }
}

async fn list(State(broker): State<Arc<Broker>>, Query(query): Query<ListQuery>) -> Response {
    let listed = async {
        let filter = query.filter()?;
        let leases = broker.store.leases(&filter).await?;
        let next_cursor = leases.last().filter(|_| leases.len() == filter.limit).map(|lease| lease.id.to_string());
        Ok(AdminLeases { leases: leases.into_iter().map(AdminLease::from).collect(), next_cursor })
    };
    reply(listed.await)
}

async fn find(broker: &Broker, id: &str) -> Result<Lease, Refused> {
    let id: LeaseId = id.parse().map_err(|_| Refused::UnknownLease)?;
    broker.store.lease(&id).await?.ok_or(Refused::UnknownLease)
}

async fn show(State(broker): State<Arc<Broker>>, Path(id): Path<String>) -> Response {
    reply(find(&broker, &id).await.map(AdminLease::from))
}

async fn revoke(
    State(broker): State<Arc<Broker>>,
    ConnectInfo(operator): ConnectInfo<Operator>,
    Path(id): Path<String>,
    Query(query): Query<RevokeQuery>,
) -> Response {
    let result = async {
        let lease = find(&broker, &id).await?;
        let event = operator.sign(AuditEvent::of_lease(EventKind::AdminRevoke, Timestamp::now(), &lease));
        broker.commit(Change { events: vec![event], ..Change::default() }).await?;
        if query.rotate {
            // First: when it fails, the lease still says whose password it was.
            operate::rotate_away(&broker, &lease, operator).await?;
        }
        revoked(&broker, lease, Cause::Operator, true).await
    };
    match result.await {
        Ok(reply) => reply,
        Err(refused) => HttpRefused::from(refused).reply_in_full(&RequestId::generate(Timestamp::now())),
    }
}

async fn reconcile_now(
    State(broker): State<Arc<Broker>>,
    ConnectInfo(operator): ConnectInfo<Operator>,
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
        let event = AuditEvent::new(EventKind::AdminReconcile, Timestamp::now())
            .with("dry_run", query.dry_run)
            .with("confirm", query.confirm);
        broker.commit(Change { events: vec![operator.sign(event)], ..Change::default() }).await?;
        let report = reconcile::reconcile(&broker, pass, query.target.as_deref()).await;
        if report.targets.iter().any(|target| target.suspects > 0) {
            // The task looks too, and again when it can tell a suspect from a ghost.
            broker.wake.reconcile.notify_one();
        }
        Ok::<_, Refused>(report)
    };
    reply(result.await)
}

/// What became of a jump of the clock.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClockConfirmed {
    /// By how many seconds the wall clock had jumped; none where it had not.
    pub jumped_seconds: Option<i64>,
    /// Leases whose times were moved back with it.
    pub leases: usize,
}

async fn confirm_clock(State(broker): State<Arc<Broker>>, ConnectInfo(operator): ConnectInfo<Operator>) -> Response {
    reply(housekeeping::confirm_clock(&broker, operator).await.map_err(Refused::from))
}

async fn reload(
    State(reloader): State<Arc<Reloader>>,
    ConnectInfo(operator): ConnectInfo<Operator>,
    Query(query): Query<ReloadQuery>,
) -> Response {
    // To its end, also when the operator does not wait for it.
    let reloading = tokio::spawn(async move { reloader.reload(Trigger::Admin(operator), query.force).await });
    let reloaded = reloading.await.unwrap_or_else(|error| Err(error.into()));
    reply(reloaded.map_err(|error| {
        let detail = match error.downcast_ref::<ConfigErrors>() {
            Some(problems) => problems.render(false),
            None => format!("{error:#}"),
        };
        Refused::InvalidRequest { field: None, detail }
    }))
}

async fn archive(State(broker): State<Arc<Broker>>, Query(query): Query<ArchiveQuery>) -> Response {
    let archived = async {
        let event = AuditEvent::new(EventKind::AdminArchive, Timestamp::now());
        let event = match query.keep {
            Some(keep) => event.with("keep", keep.to_string()),
            None => event,
        };
        broker.commit(Change { events: vec![event], ..Change::default() }).await?;
        let detail = match tasks::archive::once(&broker, query.keep).await {
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

async fn plugins(State(broker): State<Arc<Broker>>) -> Response {
    let rows: Vec<PluginRow> = broker.serving.load().plugins.values().map(PluginRow::from).collect();
    reply(Ok(rows))
}
