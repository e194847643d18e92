//! NO-GHOST: the one way in which accounts go. Expiry, revocation on request, doubtful creations,
//! crashes, abandoned replies and ghosts all end in [`attempt`]; it is idempotent and never gives up.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use jiff::Timestamp;
use jit_core::driver::Feature;
use jit_core::event::{Attempted, AuditEvent, Ended, Event};
use jit_core::id::LeaseId;
use jit_core::lease::{Cause, Lease, LeaseState};
use jit_core::outcome::{Outcome, Refusal};

use crate::birth::Birth;
use crate::end::EndFlow;
use crate::leftover::Leftovers;
use crate::places::{Misplaced, NotTold, Places};
use crate::target::{Serving, account_view};
use crate::tasks::reconcile::Listings;
use crate::tasks::removal::NAME;
use crate::trace;
use crate::work::Wake;
use jit_ledger::{Change, StoreError};

/// What it takes to remove an account.
pub struct RemovalFlow {
    pub(crate) end: EndFlow,
    /// Which driver and connection made the account.
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    /// Whether what answers is where the account is.
    pub(crate) places: Arc<Places>,
    /// The mark of accounts that this broker made: no other is removed.
    pub(crate) birth: Arc<Birth>,
    /// Accounts that only a person can remove.
    pub(crate) leftovers: Arc<Leftovers>,
    /// When each backend was listed last.
    pub(crate) listings: Arc<Listings>,
    /// A lease whose account nobody can name waits for a listing.
    pub(crate) wake: Arc<Wake>,
    at_work: InProgress,
    unrecorded: Unrecorded,
}

impl RemovalFlow {
    pub(crate) fn new(
        end: EndFlow,
        serving: Arc<ArcSwap<Serving>>,
        places: Arc<Places>,
        birth: Arc<Birth>,
        leftovers: Arc<Leftovers>,
        listings: Arc<Listings>,
        wake: Arc<Wake>,
    ) -> Self {
        let (at_work, unrecorded) = (InProgress::default(), Unrecorded::default());
        Self { end, serving, places, birth, leftovers, listings, wake, at_work, unrecorded }
    }
}

/// What became of one attempt.
#[derive(Debug)]
pub enum Attempt {
    /// The account is gone and that is on record.
    Removed(Lease),
    /// It may still be there; the next attempt is scheduled.
    Failed {
        /// The lease with its next attempt.
        lease: Lease,
        /// The backend could not be reached: its other removals would fail alike.
        unreachable: bool,
    },
    /// Another task is at it.
    InProgress,
}

/// Leases whose account is being removed right now in this process.
#[derive(Default)]
pub struct InProgress(Mutex<HashSet<LeaseId>>);

struct Mine<'a>(&'a InProgress, LeaseId);

impl InProgress {
    fn begin(&self, lease: &LeaseId) -> Option<Mine<'_>> {
        let mut at_work = self.0.lock();
        at_work.insert(lease.clone()).then(|| Mine(self, lease.clone()))
    }
}

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        self.0.0.lock().remove(&self.1);
    }
}

/// Expired accounts that a driver was asked to remove while the store could not be written.
#[derive(Default)]
pub struct Unrecorded(Mutex<HashMap<LeaseId, Tried>>);

/// What came of it so far.
struct Tried {
    attempts: u32,
    last: Instant,
    gone_at: Option<Timestamp>,
}

/// The most that are remembered; those beyond it are asked for again at each sweep.
const MOST_UNRECORDED: usize = 100_000;

impl Unrecorded {
    fn is_due(&self, lease: &LeaseId) -> bool {
        let tried = self.0.lock();
        tried.get(lease).is_none_or(|tried| {
            tried.gone_at.is_none() && tried.last.elapsed() >= jit_core::lease::Removal::backoff(tried.attempts)
        })
    }

    fn put(&self, lease: &LeaseId, gone_at: Option<Timestamp>) {
        let mut all = self.0.lock();
        if all.len() < MOST_UNRECORDED || all.contains_key(lease) {
            let tried = all.entry(lease.clone()).or_insert(Tried { attempts: 0, last: Instant::now(), gone_at: None });
            *tried = Tried { attempts: tried.attempts.saturating_add(1), last: Instant::now(), gone_at };
        }
        metrics::gauge!("jit_removals_unrecorded")
            .set(all.values().filter(|tried| tried.gone_at.is_some()).count() as f64);
    }

    /// Since when the account has been gone, if it went unrecorded. From here on the store knows.
    fn take(&self, lease: &LeaseId) -> Option<Timestamp> {
        let mut all = self.0.lock();
        if all.is_empty() {
            return None;
        }
        let tried = all.remove(lease);
        metrics::gauge!("jit_removals_unrecorded")
            .set(all.values().filter(|tried| tried.gone_at.is_some()).count() as f64);
        tried.and_then(|tried| tried.gone_at)
    }
}

/// The store cannot be written, and a lease's time is over. Its end is durable already: the expiry stands in
/// the store, and is past. So the driver is asked all the same, and the removal goes on record when the store
/// is back: then the driver finds nothing, which is success.
pub async fn expire_unrecorded(flow: &RemovalFlow, lease: &Lease) {
    let now = flow.end.clock.now();
    if lease.expires_at > now || lease.rotating.is_some() || !flow.unrecorded.is_due(&lease.id) {
        return;
    }
    let Some(_mine) = flow.at_work.begin(&lease.id) else { return };
    // In memory only: what the driver is asked depends on the step that could not be recorded.
    let Ok(revoking) = lease.begin_revocation(Cause::Expired, now) else { return };
    flow.end.handovers.forget(&lease.id);
    match driver_says(flow, &revoking).await {
        Ok(_) => {
            flow.unrecorded.put(&lease.id, Some(flow.end.clock.now()));
            tracing::warn!(lease = %lease.id, account = lease.login(), target = %lease.target, "the store cannot be written; an expired account was removed, and the removal will be recorded later");
        }
        Err(NotRemoved { reason, .. }) => {
            flow.unrecorded.put(&lease.id, None);
            tracing::warn!(lease = %lease.id, target = %lease.target, reason, "the store cannot be written, and an expired account could not be removed; it will be tried again");
        }
    }
}

/// Tries once to remove the account of a lease that is revoking or doubtful.
///
/// # Errors
/// When the store fails; the account may be gone, and the next attempt finds it so.
pub async fn attempt(flow: &RemovalFlow, lease: &Lease) -> Result<Attempt, StoreError> {
    let Some(_mine) = flow.at_work.begin(&lease.id) else { return Ok(Attempt::InProgress) };
    let now = flow.end.clock.now();
    let outcome = match trace::for_lease(&lease.id, driver_says(flow, lease)).await {
        Ok(answer) => settled(flow, lease, answer, now),
        Err(failed) => Settled::Failed(failed),
    };
    match outcome {
        Settled::Removed(unseen) => {
            let removed = lease.removed().map_err(|_| StoreError::Stale(lease.id.clone()))?;
            let event = removed_event(&removed, now, unseen, flow.unrecorded.take(&lease.id));
            let change = Change::step(removed.clone()).with(event);
            jit_failpoint::step("revoke.record", StoreError::at_failpoint, flow.end.ledger.commit(change)).await?;
            flow.leftovers.take(lease);
            if lease.standing {
                tracing::info!(request_id = %lease.request_id, workload = %lease.principal.workload, lease = %lease.id, account = lease.login(), target = %lease.target, "a lease over a standing account has ended");
            } else {
                metrics::counter!("jit_accounts_removed_total", "target" => lease.target.to_string()).increment(1);
                tracing::info!(request_id = %lease.request_id, workload = %lease.principal.workload, lease = %lease.id, account = lease.login(), target = %lease.target, "account removed");
            }
            Ok(Attempt::Removed(removed))
        }
        Settled::Waits(reason, then) => {
            let waits = lease.removal_waits(reason, now, then).map_err(|_| StoreError::Stale(lease.id.clone()))?;
            flow.end.ledger.commit(Change::step(waits.clone())).await?;
            Ok(Attempt::Failed { lease: waits, unreachable: false })
        }
        Settled::Failed(NotRemoved { reason, why }) => {
            if why == Why::Held {
                flow.leftovers.put(lease);
            }
            let step = if why == Why::Held { Lease::removal_held } else { Lease::removal_failed };
            let failed = step(lease, reason.clone(), now).map_err(|_| StoreError::Stale(lease.id.clone()))?;
            let attempts = failed.removal.as_ref().map_or(1, |removal| removal.attempts);
            metrics::counter!("jit_revoke_failed_total", "target" => lease.target.to_string()).increment(1);
            let event = if why == Why::Elsewhere {
                metrics::counter!("jit_removals_wrong_place_total", "target" => lease.target.to_string()).increment(1);
                tracing::error!(lease = %lease.id, target = %lease.target, account = lease.login(), attempts, reason, "an account was not removed, because another server answers than the one that has it; see \"Wrong place\" in docs/trouble.md");
                Event::WrongPlace(Attempted { attempts })
            } else {
                // As on record: an outage does not fill the log either.
                if attempts.is_power_of_two() {
                    tracing::warn!(request_id = %lease.request_id, lease = %lease.id, target = %lease.target, attempts, reason, "an account could not be removed; it will be tried again");
                }
                Event::RevokeFailed(Attempted { attempts })
            };
            // Each doubling is on record: an outage of days does not fill the log. So is the first time that
            // the account is known to be in another place.
            let first = why == Why::Elsewhere && !said_before(lease, &reason);
            let on_record = attempts.is_power_of_two() || first;
            let event = AuditEvent::of_lease(event, now, &failed).with_error(reason);
            let events = if on_record { vec![event] } else { Vec::new() };
            let unreachable = why == Why::Away;
            flow.end.ledger.commit(Change::step(failed.clone()).with_events(events)).await?;
            if why == Why::Lacking && flow.end.ledger.store().hand_over(&failed.id).await? {
                tracing::info!(lease = %lease.id, target = %lease.target, "another broker of the store has this lease now: its configuration may have the driver");
            }
            Ok(Attempt::Failed { lease: failed, unreachable })
        }
    }
}

/// What a driver's yes to a removal says.
enum Answer {
    /// The account is not there.
    Gone,
    /// There was no handle to ask the backend for. Whether it has such an account only a list can tell.
    NoHandle {
        /// Whether the backend lists what it has.
        lists: bool,
        /// Whether the backend expires accounts by itself.
        expires: bool,
    },
}

/// What an attempt comes to.
enum Settled {
    /// There is no account, or, with a reason, none was found.
    Removed(Option<&'static str>),
    /// Not to be said yet; asked again at that time.
    Waits(String, Timestamp),
    /// It may still be there.
    Failed(NotRemoved),
}

/// An account that may still be there.
#[derive(Debug)]
struct NotRemoved {
    reason: String,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The backend is out of reach: its other removals would fail alike.
    Away,
    /// Things depend on the account.
    Held,
    /// What answers is not where the account is (RIGHT-PLACE).
    Elsewhere,
    /// This broker has no driver or connection for it. Another broker of the store may have them.
    Lacking,
    /// Anything else.
    Failed,
}

impl NotRemoved {
    fn failed(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), why: Why::Failed }
    }
}

impl From<Misplaced> for NotRemoved {
    fn from(misplaced: Misplaced) -> Self {
        match misplaced {
            Misplaced::Elsewhere(elsewhere) => Self { reason: elsewhere.to_string(), why: Why::Elsewhere },
            Misplaced::NotTold(NotTold { reason, unreachable }) => {
                Self { reason, why: if unreachable { Why::Away } else { Why::Failed } }
            }
        }
    }
}

fn said_before(lease: &Lease, reason: &str) -> bool {
    lease.removal.as_ref().and_then(|removal| removal.last_error.as_deref()) == Some(reason)
}

/// A creation whose answer was lost, at a backend that names its accounts itself, leaves no handle:
/// the driver's yes means nothing. Such a lease stays doubtful until the backend has been listed
/// after a grace (an account without a lease is then a ghost, and removed as one) or, where that does
/// not come about, until its own expiry has passed.
fn settled(flow: &RemovalFlow, lease: &Lease, answer: Answer, now: Timestamp) -> Settled {
    let Answer::NoHandle { lists, expires } = answer else { return Settled::Removed(None) };
    let serving = flow.serving.load();
    let target = serving.targets.get(&lease.target);
    let target = target.filter(|target| target.driver_ref().same_maker(&lease.driver));
    let since = lease.removal.as_ref().map_or(lease.issued_at, |removal| removal.since);
    let target = target.filter(|_| lists);
    let from = target.map(|target| (target, since + target.grace()));
    if from.is_some_and(|(target, from)| flow.listings.since(target, from)) {
        return Settled::Removed(Some(LISTED));
    }
    let expired = lease.expires_at + EXPIRY_SLACK;
    if now >= expired && (expires || target.is_none()) {
        return Settled::Removed(Some(EXPIRED));
    }
    let Some((_, from)) = from else {
        let reason =
            "nobody knows what the backend called the account, and it cannot be listed: its own expiry is waited for";
        return Settled::Waits(reason.to_owned(), expired);
    };
    let reason = "nobody knows what the backend called the account: what it has is listed first".to_owned();
    if now < from {
        return Settled::Waits(reason, from);
    }
    flow.wake.reconcile.notify_one();
    Settled::Waits(reason, now + LISTING_WAIT)
}

/// Why a lease is closed whose account nobody could name.
const LISTED: &str = "the backend was listed after the creation could have ended; an account without a lease there is removed as a ghost";
const EXPIRED: &str = "the backend could not be listed; the account has expired there by itself";

/// How long a listing may take until it is looked for again.
const LISTING_WAIT: Duration = Duration::from_secs(2);
/// What two clocks may differ.
const EXPIRY_SLACK: Duration = Duration::from_secs(5);

/// For an issue that is undone: removes the account now, before the lease is closed. Where that fails, the removal
/// tries again.
///
/// # Errors
/// Why the account may still be there, in words for operators.
pub(crate) async fn remove_at_once(flow: &RemovalFlow, lease: &Lease) -> Result<(), String> {
    driver_says(flow, lease).await.map(drop).map_err(|NotRemoved { reason, .. }| reason)
}

/// As [`call_driver`]. A panic counts as a failure: the broker records it and waits before the next attempt.
async fn driver_says(flow: &RemovalFlow, lease: &Lease) -> Result<Answer, NotRemoved> {
    // What the call holds is dropped with it, and the next attempt begins from what the store has.
    let called = AssertUnwindSafe(call_driver(flow, lease)).catch_unwind().await;
    called.unwrap_or_else(|_| {
        metrics::counter!("jit_task_side_panics_total", "task" => NAME).increment(1);
        tracing::error!(lease = %lease.id, target = %lease.target, "the code panicked as it removed an account; the process's standard error says where");
        Err(NotRemoved::failed(PANICKED))
    })
}

/// What is on record of a panic. Its own words are not repeated: they may quote what was at hand.
const PANICKED: &str = "the code panicked";

/// The driver's revoke, in the place where the account is; an account that is not there is gone.
async fn call_driver(flow: &RemovalFlow, lease: &Lease) -> Result<Answer, NotRemoved> {
    if lease.rotating.is_some() {
        // The account stands, whatever the configuration says now; its password ends by rotation.
        return Ok(Answer::Gone);
    }
    let remover = flow.serving.load().remover(&lease.target, &lease.driver);
    let remover = remover.map_err(|reason| NotRemoved { reason, why: Why::Lacking })?;
    let description = remover.driver.description();
    let external = description.has(Feature::ExternalAccounts);
    // A lease that was active had an account whose driver needs no handle.
    let no_handle = external && lease.external_id.is_none() && lease.state != LeaseState::Revoking;
    let answer = if no_handle && !lease.standing {
        Answer::NoHandle { lists: description.has(Feature::ListAccounts), expires: description.has(Feature::Backstop) }
    } else {
        Answer::Gone
    };
    if !external && !lease.account.is_made_by(&flow.birth.mark) {
        let reason = format!("{} is no account name that this broker makes; was the store changed?", lease.account);
        return Err(NotRemoved::failed(reason));
    }
    if lease.driver.place.is_none() {
        tracing::warn!(lease = %lease.id, target = %lease.target, "the lease of an earlier release does not say where its account is: it is removed where the target is now");
    }
    let account = account_view(lease, flow.end.clock.wall());
    let call = async {
        flow.places.check_removal(&lease.driver, &remover).await?;
        match remover.driver.revoke(&remover.scope, &remover.view, &account).await {
            Outcome::Done(()) | Outcome::Refused(Refusal::NotFound) => Ok(answer),
            Outcome::Refused(refusal) => {
                // A backend that answered is there: what stands in the way is this account's.
                let why = match refusal {
                    Refusal::Unavailable { answered: false, .. } => Why::Away,
                    Refusal::Dependents(_) => Why::Held,
                    _ => Why::Failed,
                };
                Err(NotRemoved { reason: refusal.reason(), why })
            }
            // One statement without an answer: a lock may hold it up. Where the server is away, the
            // next attempt finds that out.
            Outcome::Unknown(reason) => Err(NotRemoved::failed(reason)),
        }
    };
    jit_failpoint::step("revoke.driver", || NotRemoved::failed("failpoint"), call).await
}

/// That a lease is over. `unseen`: why, where nobody saw its account go; `gone_at`: since when it has been gone, if
/// that could not be recorded then.
fn removed_event(
    lease: &Lease,
    now: Timestamp,
    unseen: Option<&'static str>,
    gone_at: Option<Timestamp>,
) -> AuditEvent {
    let cause = lease.removal.as_ref().map_or(Cause::Requested, |removal| removal.cause);
    let ended = Ended { cause, account_removed: !lease.standing, account_removed_at: gone_at, closed_because: unseen };
    let event = match cause {
        Cause::Expired => Event::LeaseExpired(ended),
        Cause::Ghost => Event::GhostRemoved(ended),
        _ => Event::LeaseRevoked(ended),
    };
    AuditEvent::of_lease(event, now, lease)
}
