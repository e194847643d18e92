//! Compares both ways what the store says with what the targets have.
//!
//! - An account with our name and without a lease is a ghost. It becomes a doubtful lease, so that
//!   its removal is one like any other: durable, never given up, on record.
//! - An active lease whose account is missing is drift; it is closed.
//!
//! Accounts are listed before the store is asked. Since a lease is durable before its account can
//! exist (INTENT-FIRST), an account that is being made meanwhile is never taken for a ghost. Where
//! the backend names its accounts itself, [`external`] compares by its handles.

mod external;

pub use external::Listings;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::driver::Feature;
use jit_core::event::{AuditEvent, EventKind};
use jit_core::id::{LeaseId, RequestId};
use jit_core::lease::{Cause, Lease, LeaseState};
use jit_core::name::{Principal, RoleName};
use jit_core::outcome::{Outcome, Refusal};
use jit_runtime::{DriverScope, Lane};
use serde::{Deserialize, Serialize};

use crate::broker::Broker;
use crate::removal;
use crate::store::{Change, LeaseFilter, LeaseWrite, StoreError};
use crate::target::Target;

/// Pages of accounts read from one target at most.
const MOST_PAGES: usize = 1_000;

/// What one pass found.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Nothing was changed.
    pub dry_run: bool,
    /// By target.
    pub targets: Vec<TargetReport>,
}

/// What one pass found in one target.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct TargetReport {
    /// The target.
    pub target: String,
    /// Accounts of ours that were there.
    pub accounts: usize,
    /// Those without a lease.
    pub ghosts: Vec<String>,
    /// Those that may be without a lease: the next pass tells.
    #[serde(default)]
    pub suspects: usize,
    /// Active leases whose account is missing.
    pub missing: Vec<String>,
    /// Why the target could not be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// When to look again after a start that found unsettled leases. A statement of the process before
/// may outlive it, and make an account after its lease was closed: a server that is told of the
/// broken connection ends it within seconds, one that is not, with its statement timeout.
const AFTER_RECOVERY: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(45)];

/// Runs every `interval` and on demand, until the broker stops; soon again when the start had to
/// recover leases.
pub async fn run(broker: Arc<Broker>, interval: Duration, recovered: bool) {
    let mut soon = AFTER_RECOVERY.iter().filter(|_| recovered);
    loop {
        let report = reconcile(&broker, false).await;
        for target in &report.targets {
            if let Some(error) = &target.error {
                tracing::warn!(target = target.target, error, "a target could not be reconciled");
            } else if !target.ghosts.is_empty() || !target.missing.is_empty() {
                tracing::warn!(target = target.target, ghosts = ?target.ghosts, missing = ?target.missing, "reconciled");
            }
        }
        let sooner = again(&broker, &report).into_iter().chain(soon.next().copied());
        let sleep = sooner.fold(interval, Duration::min);
        tokio::select! {
            () = broker.stopping.cancelled() => return,
            () = broker.wake.reconcile.notified() => {}
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

/// When a suspect can be told from a ghost.
fn again(broker: &Broker, report: &Report) -> Option<Duration> {
    let suspicious = report.targets.iter().filter(|found| found.suspects > 0);
    let serving = broker.serving.load();
    let graces = suspicious.filter_map(|found| Some(serving.targets.get(found.target.as_str())?.grace()));
    graces.min().map(|grace| grace + Duration::from_millis(100))
}

/// One pass over all targets.
pub async fn reconcile(broker: &Broker, dry_run: bool) -> Report {
    let serving = broker.serving.load_full();
    let mut report = Report { dry_run, targets: Vec::new() };
    for target in serving.targets.values() {
        if !target.driver.description().has(Feature::ListAccounts) {
            continue;
        }
        let mut found = TargetReport { target: target.name.to_string(), ..TargetReport::default() };
        let compared = if target.external() {
            external::compare(broker, target, dry_run, &mut found).await
        } else {
            compare(broker, target, dry_run, &mut found).await
        };
        found.error = compared.err();
        metrics::gauge!("jit_reconcile_ghosts", "target" => found.target.clone()).set(found.ghosts.len() as f64);
        report.targets.push(found);
    }
    broker.wake.removal.notify_one();
    report
}

async fn compare(broker: &Broker, target: &Target, dry_run: bool, found: &mut TargetReport) -> Result<(), String> {
    let failed = |error: StoreError| error.to_string();
    let scope = target.scope(Lane::Removal);
    let mut accounts = list(target, &scope).await?;
    accounts.retain(|name| target.prefix.owns(name));
    found.accounts = accounts.len();
    for names in accounts.iter().cloned().collect::<Vec<_>>().chunks(500) {
        let known: HashSet<AccountName> =
            broker.store.known_accounts(names).await.map_err(failed)?.into_iter().collect();
        for name in names {
            let account = AccountName::from_backend(name.as_str());
            if known.contains(&account) || !still_there(target, &scope, name).await? {
                continue;
            }
            found.ghosts.push(name.clone());
            if !dry_run {
                haunt(broker, target, account, None).await.map_err(failed)?;
            }
        }
    }
    let mut before = None;
    loop {
        let (leases, next) = active_leases(broker, target, before).await.map_err(failed)?;
        for lease in &leases {
            if lease.rotating.is_some() {
                // Its account is not of the broker's making, and not in the list; its rotation looks after it.
                continue;
            }
            let name = lease.account.as_str();
            // Made after the listing: then it is there.
            if !accounts.contains(name) && !still_there(target, &scope, name).await? {
                missing(broker, lease, dry_run, found).await.map_err(failed)?;
            }
        }
        if next.is_none() {
            return Ok(());
        }
        before = next;
    }
}

/// A page of the active leases whose account the target's present driver made: another's is not for
/// it to judge. With where the next page begins, if there is one.
async fn active_leases(
    broker: &Broker,
    target: &Target,
    before: Option<LeaseId>,
) -> Result<(Vec<Lease>, Option<LeaseId>), StoreError> {
    const PAGE: usize = 500;
    let filter = LeaseFilter {
        target: Some(target.name.clone()),
        state: Some(LeaseState::Active),
        before,
        limit: PAGE,
        ..LeaseFilter::default()
    };
    let mut leases = broker.store.leases(&filter).await?;
    let next = leases.last().filter(|_| leases.len() == PAGE).map(|lease| lease.id.clone());
    let made_by = target.driver_ref();
    leases.retain(|lease| lease.driver.same_maker(&made_by));
    Ok((leases, next))
}

/// All accounts that the target's driver lists.
async fn list(target: &Target, scope: &DriverScope) -> Result<HashSet<String>, String> {
    let mut accounts = HashSet::new();
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let prefix = target.prefix.as_str();
        match target.driver.list_accounts(scope, &target.view, prefix, cursor.as_deref()).await {
            Outcome::Done(page) => {
                accounts.extend(page.names);
                match page.next {
                    Some(next) if Some(&next) != cursor.as_ref() => cursor = Some(next),
                    _ => return Ok(accounts),
                }
            }
            Outcome::Refused(refusal) => return Err(refusal.reason()),
            Outcome::Unknown(reason) => return Err(reason),
        }
    }
    Err(format!("more than {MOST_PAGES} pages of accounts"))
}

/// Looks again: a list is a moment old, and a removal may have ended meanwhile.
async fn still_there(target: &Target, scope: &DriverScope, name: &str) -> Result<bool, String> {
    match target.driver.inspect(scope, &target.view, name).await {
        Outcome::Done(_) => Ok(true),
        Outcome::Refused(Refusal::NotFound) => Ok(false),
        Outcome::Refused(refusal) => Err(refusal.reason()),
        Outcome::Unknown(reason) => Err(reason),
    }
}

/// A ghost gets a doubtful lease, and with it a removal that never gives up.
async fn haunt(
    broker: &Broker,
    target: &Target,
    account: AccountName,
    external_id: Option<String>,
) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let Ok(role) = RoleName::new("unknown") else { return Ok(()) };
    let pending = Lease {
        id: LeaseId::generate(now),
        version: 0,
        state: LeaseState::Pending,
        // No configured issuer can have this name: the lease belongs to no workload.
        principal: Principal { issuer: "-".to_owned(), workload: "-".to_owned(), subject: "-".to_owned() },
        attributes: std::collections::BTreeMap::new(),
        target: target.name.clone(),
        role,
        account,
        // Nothing else tells which account it is.
        username: external_id.clone(),
        external_id,
        standing: false,
        driver: target.driver_ref(),
        request_id: RequestId::generate(now),
        issued_at: now,
        term_start: now,
        expires_at: now,
        max_expires_at: now,
        renewable: false,
        reason: None,
        ticket: None,
        metadata: std::collections::BTreeMap::new(),
        idempotency: None,
        removal: None,
        rotating: None,
    };
    tracing::warn!(account = pending.login(), target = %target.name, "an account without a lease: it is removed");
    let Ok(doubtful) = pending.doubt(Cause::Ghost, now) else { return Ok(()) };
    broker.commit(Change { leases: vec![LeaseWrite::Insert(doubtful)], ..Change::default() }).await
}

/// An active lease without an account is closed.
async fn missing(broker: &Broker, lease: &Lease, dry_run: bool, found: &mut TargetReport) -> Result<(), StoreError> {
    let current = broker.store.lease(&lease.id).await?;
    let Some(current) = current.filter(|current| current.state == LeaseState::Active) else { return Ok(()) };
    found.missing.push(current.id.to_string());
    if dry_run {
        return Ok(());
    }
    let event = AuditEvent::of_lease(EventKind::Drift, Timestamp::now(), &current)
        .with_error("the account of an active lease is missing in the target");
    match removal::begin(broker, &current, Cause::Drift, vec![event]).await {
        Ok(_) | Err(StoreError::Stale(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
