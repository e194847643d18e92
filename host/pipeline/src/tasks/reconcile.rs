//! Compares both ways what the store says with what the targets have.
//!
//! - An account with our name and without a lease is a ghost. It becomes a doubtful lease, so that
//!   its removal is one like any other: durable, never given up, on record.
//! - An active lease whose account is missing is drift; it is closed.
//!
//! Neither in numbers, and no account that a young or set-back store does not know: that is for an operator
//! to decide (`brake`).
//!
//! Accounts are listed before the store is asked. Since a lease is durable before its account can
//! exist (INTENT-FIRST), an account that is being made meanwhile is never taken for a ghost. Where
//! the backend names its accounts itself, `external` compares by its handles.

mod brake;
mod external;

pub use brake::Brake;
pub use external::Listings;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::driver::{Next, Pace, Pass as TaskPass, Task};
use crate::ports::Scope;
use async_trait::async_trait;
use jiff::Timestamp;
use jit_api::admin::{ReconcileReport, TargetReport};
use jit_core::account::AccountName;
use jit_core::driver::Lane;
use jit_core::driver::{AccountState, Feature};
use jit_core::id::{LeaseId, RequestId};
use jit_core::lease::{Cause, DriverRef, Lease, LeaseState};
use jit_core::name::{Principal, RoleName};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::place::Place;

use crate::birth::Birth;
use crate::clock::LeaseClock;
use crate::end::{EndFlow, drift};
use crate::ledger::Ledger;
use crate::places::{Places, Question};
use crate::target::{Serving, Target};
use crate::work::Wake;
use arc_swap::ArcSwap;
use jit_ledger::{Change, LeaseFilter, StoreError, alone};

/// Pages of accounts read from one target at most.
const MOST_PAGES: usize = 1_000;

/// When to look again after a start that found unsettled leases. A statement of the process before
/// may outlive it, and make an account after its lease was closed: a server that is told of the
/// broken connection ends it within seconds, one that is not, with its statement timeout.
const AFTER_RECOVERY: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(45)];

/// When to look again after a target could not be compared.
const FAILED_AGAIN: Duration = Duration::from_secs(600);

/// What it takes to compare store and targets.
pub struct ReconcileFlow {
    pub(crate) ledger: Ledger,
    pub(crate) clock: Arc<LeaseClock>,
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    /// Which server was compared.
    pub(crate) places: Arc<Places>,
    /// Which accounts are this broker's, and how old its store is.
    pub(crate) birth: Arc<Birth>,
    /// What keeps accounts from being removed in numbers.
    pub(crate) brake: Brake,
    /// What the passes saw of accounts that the backend names.
    pub(crate) listings: Arc<Listings>,
    /// A lease without an account is closed.
    pub(crate) end: EndFlow,
    /// What has to go is left to the removal's task.
    pub(crate) wake: Arc<Wake>,
}

impl ReconcileFlow {
    /// How many accounts and leases are held for an operator to decide, as the last pass over each target found.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.brake.held()
    }
}

/// What a pass does with what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Says it.
    Look,
    /// Removes what is certain, and holds what is for an operator to decide.
    Mend,
    /// Removes that too: an operator has seen it.
    Confirmed,
}

/// The task: it runs every `interval` and on demand; soon again when the start had to recover leases.
pub struct Reconciliation {
    flow: Arc<ReconcileFlow>,
    interval: Duration,
    soon: Vec<Duration>,
}

impl Reconciliation {
    /// `recovered` says that the start had to recover leases.
    #[must_use]
    pub fn new(flow: Arc<ReconcileFlow>, interval: Duration, recovered: bool) -> Self {
        let soon = if recovered { AFTER_RECOVERY.iter().rev().copied().collect() } else { Vec::new() };
        Self { flow, interval, soon }
    }
}

#[async_trait]
impl Task for Reconciliation {
    fn name(&self) -> &str {
        "reconcile"
    }

    fn pace(&self) -> Pace {
        // A target may have a hundred thousand accounts, and each page of them takes its time.
        Pace { deadline: Duration::from_secs(1_800), ..Pace::default() }
    }

    async fn pass(&mut self) -> TaskPass {
        let report = reconcile(&self.flow, Pass::Mend, None).await;
        let mut failed = Vec::new();
        let (mut accounts, mut ghosts, mut missing) = (0, 0, 0);
        for target in &report.targets {
            if let Some(error) = &target.error {
                tracing::warn!(target = target.target, error, "a target could not be reconciled");
                failed.push(target.target.as_str());
            } else if !target.ghosts.is_empty() || !target.missing.is_empty() {
                tracing::warn!(target = target.target, ghosts = ?target.ghosts, missing = ?target.missing, "reconciled");
            }
            accounts += target.accounts as u64;
            ghosts += target.ghosts.len() as u64;
            missing += target.missing.len() as u64;
        }
        let failed_again = (!failed.is_empty()).then_some(FAILED_AGAIN);
        let sooner =
            again(&self.flow.serving.load(), &report).into_iter().chain(self.soon.pop()).chain(failed_again).min();
        let next = match sooner.filter(|sooner| *sooner < self.interval) {
            Some(sooner) => Next::In(sooner),
            None => Next::Every(self.interval),
        };
        if failed.is_empty() {
            let targets = report.targets.len() as u64;
            TaskPass::done(
                [("targets", targets), ("accounts", accounts), ("ghosts", ghosts), ("missing", missing)],
                next,
            )
        } else {
            TaskPass::failed_until(format!("could not be reconciled: {}", failed.join(", ")), next)
        }
    }

    async fn woken(&mut self) {
        self.flow.wake.reconcile.notified().await;
    }
}

/// When a suspect can be told from a ghost.
fn again(serving: &Serving, report: &ReconcileReport) -> Option<Duration> {
    let suspicious = report.targets.iter().filter(|found| found.suspects > 0);
    let graces = suspicious.filter_map(|found| Some(serving.targets.get(found.target.as_str())?.grace()));
    graces.min().map(|grace| grace + Duration::from_millis(100))
}

/// One pass over all targets, or over one.
pub async fn reconcile(flow: &ReconcileFlow, pass: Pass, only: Option<&str>) -> ReconcileReport {
    let serving = flow.serving.load_full();
    let longest =
        serving.targets.values().map(|target| target.max_ttl).max().map_or(Duration::ZERO, |ttl| ttl.duration());
    let ground = brake::Ground { birth: &flow.birth, longest, now: flow.clock.now(), pass };
    ground.show();
    let mut report =
        ReconcileReport { dry_run: pass == Pass::Look, confirmed: pass == Pass::Confirmed, targets: Vec::new() };
    for target in serving.targets.values() {
        let wanted = only.is_none_or(|name| name == target.name.as_str());
        if !wanted || !target.driver.description().has(Feature::ListAccounts) {
            continue;
        }
        let mut found = TargetReport { target: target.name.to_string(), ..TargetReport::default() };
        let work = format!("reconcile/{}", target.name);
        let comparing = compare_where_it_is(flow, target, &ground, &mut found);
        let compared = match alone(flow.ledger.store(), &work, comparing).await {
            Ok(Some(compared)) => compared,
            Ok(None) if only.is_none() && pass == Pass::Mend => continue,
            Ok(None) => Err("another broker compares this target now; try again in a moment".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        found.error = compared.err();
        metrics::gauge!("jit_reconcile_ghosts", "target" => found.target.clone()).set(found.ghosts.len() as f64);
        report.targets.push(found);
    }
    flow.wake.removal.notify_one();
    report
}

/// Compares one target, and says on record what is held.
async fn compare_where_it_is(
    flow: &ReconcileFlow,
    target: &Target,
    ground: &brake::Ground<'_>,
    found: &mut TargetReport,
) -> Result<(), String> {
    // Asked again: leases of another place are not for this pass to judge.
    let asked = flow.places.now(Question::of(target, Lane::Removal)).await;
    let here = Here { flow, target, place: asked.map_err(|not_told| not_told.reason)? };
    if target.external() {
        external::compare(&here, ground, found).await?;
    } else {
        compare(&here, ground, found).await?;
    }
    flow.brake.tell(&flow.ledger, ground, found).await.map_err(|error| error.to_string())
}

/// One target, where it is now.
struct Here<'h> {
    flow: &'h ReconcileFlow,
    target: &'h Target,
    place: Place,
}

/// The most strangers that are named.
const MOST_STRANGERS: usize = 1_000;

async fn compare(here: &Here<'_>, ground: &brake::Ground<'_>, found: &mut TargetReport) -> Result<(), String> {
    let Here { flow, target, .. } = here;
    let failed = |error: StoreError| error.to_string();
    let scope = target.scope(Lane::Removal);
    let mut accounts = list(target, &scope).await?;
    accounts.retain(|name| {
        let ours = target.prefix.owns(&flow.birth.mark, name);
        if !ours && found.strangers.len() < MOST_STRANGERS && AccountName::from_backend(name.as_str()).has_shape() {
            found.strangers.push(name.clone());
        }
        ours
    });
    found.accounts = accounts.len();
    let mut names: Vec<String> = accounts.iter().cloned().collect();
    names.sort_unstable();
    let mut unknown = Vec::new();
    for names in names.chunks(500) {
        let known: HashSet<AccountName> =
            flow.ledger.store().known_accounts(names).await.map_err(failed)?.into_iter().collect();
        for name in names {
            if known.contains(&AccountName::from_backend(name.as_str())) {
                continue;
            }
            if let Some(state) = still_there(target, &scope, name).await? {
                let expires_at = state.expires_at.and_then(|at| Timestamp::from_second(i64::try_from(at).ok()?).ok());
                unknown.push(brake::Unknown { name: name.clone(), expires_at, ended_here: false });
            }
        }
    }
    let names: Vec<String> = unknown.iter().map(|account| account.name.clone()).collect();
    let ended: HashSet<AccountName> =
        flow.ledger.store().ended_accounts(&names).await.map_err(failed)?.into_iter().collect();
    for account in &mut unknown {
        account.ended_here = ended.contains(&AccountName::from_backend(account.name.as_str()));
    }
    let bound = flow.brake.bound(accounts.len());
    for name in ground.judge(unknown, bound, &mut found.held) {
        found.ghosts.push(name.clone());
        if ground.pass != Pass::Look {
            haunt(here, AccountName::from_backend(name), None).await.map_err(failed)?;
        }
    }
    let mut lost = Lost::default();
    let mut before = None;
    loop {
        let (leases, next) = active_leases(here, before).await.map_err(failed)?;
        for lease in leases {
            if lease.rotating.is_some() {
                // Its account is not of the broker's making, and not in the list; its rotation looks after it.
                continue;
            }
            lost.looked_at += 1;
            let name = lease.account.as_str();
            // Made after the listing: then it is there.
            if !accounts.contains(name) && still_there(target, &scope, name).await?.is_none() {
                lost.leases.push(lease);
            }
        }
        if next.is_none() {
            return lost.close(here, ground, found).await.map_err(failed);
        }
        before = next;
    }
}

/// Active leases whose account is missing.
#[derive(Default)]
struct Lost {
    looked_at: usize,
    leases: Vec<Lease>,
}

impl Lost {
    /// Closes them, unless there are so many that the list is more likely wrong.
    async fn close(
        self,
        here: &Here<'_>,
        ground: &brake::Ground<'_>,
        found: &mut TargetReport,
    ) -> Result<(), StoreError> {
        let mut missing = Vec::new();
        for lease in self.leases {
            let current = here.flow.ledger.store().lease(&lease.id).await?;
            missing.extend(current.filter(|current| current.state == LeaseState::Active));
        }
        let too_many = missing.len() > here.flow.brake.bound(self.looked_at);
        if too_many && ground.pass != Pass::Confirmed {
            found.held_leases = missing.iter().map(|lease| lease.id.to_string()).collect();
            return Ok(());
        }
        for lease in &missing {
            found.missing.push(lease.id.to_string());
            if ground.pass != Pass::Look {
                drift(&here.flow.end, &here.flow.wake, lease).await?;
            }
        }
        Ok(())
    }
}

/// A page of the active leases whose account the target's present driver made in this place: others are not
/// for it to judge. With where the next page begins, if there is one.
async fn active_leases(
    Here { flow, target, place }: &Here<'_>,
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
    let mut leases = flow.ledger.store().leases(&filter).await?;
    let next = leases.last().filter(|_| leases.len() == PAGE).map(|lease| lease.id.clone());
    let made_by = target.driver_ref();
    let here = |recorded: &Place| recorded.is_at(place, &target.site.replaces).is_ok();
    leases.retain(|lease| lease.driver.same_maker(&made_by) && lease.driver.place.as_ref().is_none_or(here));
    Ok((leases, next))
}

/// All accounts that the target's driver lists.
async fn list(target: &Target, scope: &Scope) -> Result<HashSet<String>, String> {
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
async fn still_there(target: &Target, scope: &Scope, name: &str) -> Result<Option<AccountState>, String> {
    match target.driver.inspect(scope, &target.view, name).await {
        Outcome::Done(state) => Ok(Some(state)),
        Outcome::Refused(Refusal::NotFound) => Ok(None),
        Outcome::Refused(refusal) => Err(refusal.reason()),
        Outcome::Unknown(reason) => Err(reason),
    }
}

/// A ghost gets a doubtful lease, and with it a removal that never gives up.
async fn haunt(
    Here { flow, target, place }: &Here<'_>,
    account: AccountName,
    external_id: Option<String>,
) -> Result<(), StoreError> {
    let now = flow.clock.now();
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
        driver: DriverRef { place: Some(place.clone()), ..target.driver_ref() },
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
        verifier: None,
        rotating: None,
    };
    tracing::warn!(account = pending.login(), target = %target.name, "removing an account that has no lease");
    let Ok(doubtful) = pending.doubt(Cause::Ghost, now) else { return Ok(()) };
    flow.ledger.commit(Change::insert(doubtful)).await
}
