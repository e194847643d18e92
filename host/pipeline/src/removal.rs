//! NO-GHOST: the one way in which accounts go. Expiry, revocation on request, doubtful creations,
//! crashes, abandoned replies and ghosts all end in [`attempt`]; it is idempotent and never gives up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use jiff::Timestamp;
use jit_core::driver::Feature;
use jit_core::event::{Attempted, AuditEvent, Doubtful, Ended, Event, Failed};
use jit_core::id::LeaseId;
use jit_core::lease::{Cause, Lease, LeaseState};
use jit_core::outcome::{Outcome, Refusal};

use crate::broker::Broker;
use crate::places::{Misplaced, NotTold};
use crate::target::account_view;
use crate::trace::{self, carried};
use jit_ledger::{Change, LeaseWrite, StoreError};

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

/// Records that an active lease's account is to go. From here on it will, whatever happens.
///
/// # Errors
/// [`StoreError::Stale`] when somebody else stepped the lease on first. [`StoreError::Failed`] may also mean that it is
/// recorded: whoever is not the removal task wakes that.
pub async fn begin(broker: &Broker, lease: &Lease, cause: Cause, events: Vec<AuditEvent>) -> Result<Lease, StoreError> {
    let revoking =
        lease.begin_revocation(cause, broker.clock.now()).map_err(|_| StoreError::Stale(lease.id.clone()))?;
    let change = Change::step(revoking.clone()).with_events(events);
    jit_failpoint::step("revoke.begin", StoreError::at_failpoint, broker.commit(change)).await?;
    broker.handovers.forget(&lease.id);
    Ok(revoking)
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
pub async fn expire_unrecorded(broker: &Broker, lease: &Lease) {
    let now = broker.clock.now();
    if lease.expires_at > now || lease.rotating.is_some() || !broker.unrecorded.is_due(&lease.id) {
        return;
    }
    let Some(_mine) = broker.removing.begin(&lease.id) else { return };
    // In memory only: what the driver is asked depends on the step that could not be recorded.
    let Ok(revoking) = lease.begin_revocation(Cause::Expired, now) else { return };
    broker.handovers.forget(&lease.id);
    match call_driver(broker, &revoking).await {
        Ok(_) => {
            broker.unrecorded.put(&lease.id, Some(broker.clock.now()));
            tracing::warn!(lease = %lease.id, account = lease.login(), target = %lease.target, "the store cannot be written; an expired account was removed, and the removal will be recorded later");
        }
        Err(NotRemoved { reason, .. }) => {
            broker.unrecorded.put(&lease.id, None);
            tracing::warn!(lease = %lease.id, target = %lease.target, reason, "the store cannot be written, and an expired account could not be removed; it will be tried again");
        }
    }
}

/// Tries once to remove the account of a lease that is revoking or doubtful.
///
/// # Errors
/// When the store fails; the account may be gone, and the next attempt finds it so.
pub async fn attempt(broker: &Broker, lease: &Lease) -> Result<Attempt, StoreError> {
    let Some(_mine) = broker.removing.begin(&lease.id) else { return Ok(Attempt::InProgress) };
    let now = broker.clock.now();
    let outcome = match trace::for_lease(&lease.id, call_driver(broker, lease)).await {
        Ok(answer) => settled(broker, lease, answer, now),
        Err(failed) => Settled::Failed(failed),
    };
    match outcome {
        Settled::Removed(unseen) => {
            let removed = lease.removed().map_err(|_| StoreError::Stale(lease.id.clone()))?;
            let event = removed_event(&removed, now, unseen, broker.unrecorded.take(&lease.id));
            let change = Change::step(removed.clone()).with(event);
            jit_failpoint::step("revoke.record", StoreError::at_failpoint, broker.commit(change)).await?;
            broker.leftovers.take(lease);
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
            broker.commit(Change::step(waits.clone())).await?;
            Ok(Attempt::Failed { lease: waits, unreachable: false })
        }
        Settled::Failed(NotRemoved { reason, why }) => {
            if why == Why::Held {
                broker.leftovers.put(lease);
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
                tracing::warn!(lease = %lease.id, target = %lease.target, attempts, reason, "an account could not be removed; it will be tried again");
                Event::RevokeFailed(Attempted { attempts })
            };
            // Each doubling is on record: an outage of days does not fill the log. So is the first time that
            // the account is known to be in another place.
            let first = why == Why::Elsewhere && !said_before(lease, &reason);
            let on_record = attempts.is_power_of_two() || first;
            let event = AuditEvent::of_lease(event, now, &failed).with_error(reason);
            let events = if on_record { vec![event] } else { Vec::new() };
            let unreachable = why == Why::Away;
            broker.commit(Change::step(failed.clone()).with_events(events)).await?;
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
fn settled(broker: &Broker, lease: &Lease, answer: Answer, now: Timestamp) -> Settled {
    let Answer::NoHandle { lists, expires } = answer else { return Settled::Removed(None) };
    let serving = broker.serving.load();
    let target = serving.targets.get(&lease.target);
    let target = target.filter(|target| target.driver_ref().same_maker(&lease.driver));
    let since = lease.removal.as_ref().map_or(lease.issued_at, |removal| removal.since);
    let target = target.filter(|_| lists);
    let from = target.map(|target| (target, since + target.grace()));
    if from.is_some_and(|(target, from)| broker.listings.since(target, from)) {
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
    broker.wake.reconcile.notify_one();
    Settled::Waits(reason, now + LISTING_WAIT)
}

/// Why a lease is closed whose account nobody could name.
const LISTED: &str = "the backend was listed after the creation could have ended; an account without a lease there is removed as a ghost";
const EXPIRED: &str = "the backend could not be listed; the account has expired there by itself";

/// How long a listing may take until it is looked for again.
const LISTING_WAIT: Duration = Duration::from_secs(2);
/// What two clocks may differ.
const EXPIRY_SLACK: Duration = Duration::from_secs(5);

/// The driver's revoke, in the place where the account is; an account that is not there is gone.
async fn call_driver(broker: &Broker, lease: &Lease) -> Result<Answer, NotRemoved> {
    if lease.rotating.is_some() {
        // The account stands, whatever the configuration says now; its password ends by rotation.
        return Ok(Answer::Gone);
    }
    let remover = broker.serving.load().remover(&lease.target, &lease.driver).map_err(NotRemoved::failed)?;
    let description = remover.driver.description();
    let external = description.has(Feature::ExternalAccounts);
    // A lease that was active had an account whose driver needs no handle.
    let no_handle = external && lease.external_id.is_none() && lease.state != LeaseState::Revoking;
    let answer = if no_handle && !lease.standing {
        Answer::NoHandle { lists: description.has(Feature::ListAccounts), expires: description.has(Feature::Backstop) }
    } else {
        Answer::Gone
    };
    if !external && !lease.account.is_made_by(&broker.birth.mark) {
        let reason = format!("{} is no account name that this broker makes; was the store changed?", lease.account);
        return Err(NotRemoved::failed(reason));
    }
    if lease.driver.place.is_none() {
        tracing::warn!(lease = %lease.id, target = %lease.target, "the lease of an earlier release does not say where its account is: it is removed where the target is now");
    }
    let account = account_view(lease, broker.clock.wall());
    let call = async {
        broker.places.check_removal(&lease.driver, &remover).await?;
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

/// A step after the intent was lost in the store: whatever of it became durable, the account goes
/// and the lease is closed. Nothing was handed out. Runs on its own until it is done; a crash in
/// the middle leaves a pending lease for recovery.
pub fn undo(broker: &Broker, lease: Lease, cause: Cause) {
    let Some(broker) = broker.handle() else { return };
    broker.clone().tasks.spawn(carried(async move {
        if let Err(NotRemoved { reason, .. }) = call_driver(&broker, &lease).await {
            tracing::warn!(lease = %lease.id, reason, "undoing an issue: the account could not be removed at once");
        }
        let mut wait = Duration::from_millis(100);
        loop {
            match close_for_good(&broker, &lease, cause).await {
                Ok(()) => break,
                Err(error) => tracing::warn!(lease = %lease.id, %error, "undoing an issue: the store failed"),
            }
            tokio::select! {
                () = broker.stopping.cancelled() => break,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(5)),
            }
        }
        broker.wake.removal.notify_one();
    }));
}

/// Closes a lease whose last write may still be under way. Where the store does not know the lease
/// yet, it gets to know it as doubtful: the intent, should it come later, finds its id taken.
async fn close_for_good(broker: &Broker, lease: &Lease, cause: Cause) -> Result<(), StoreError> {
    if let Some(stored) = broker.store.lease(&lease.id).await? {
        // What is known of the account here may not have become durable.
        let stored = stored.with_account(lease.username.clone(), lease.external_id.clone());
        return close_stored(broker, &stored, cause).await;
    }
    let now = broker.clock.now();
    let Ok(doubtful) = lease.doubt(cause, now) else { return Ok(()) };
    let event = AuditEvent::of_lease(doubtful_for(cause), now, &doubtful);
    broker.commit(Change::insert(doubtful).with(event)).await
}

fn doubtful_for(cause: Cause) -> Event {
    Event::LeaseDoubtful(Doubtful { cause: Some(cause) })
}

/// Marks a lease for removal from wherever it stands.
///
/// # Errors
/// When the store fails or somebody else is faster; call it again.
pub async fn close(broker: &Broker, id: &LeaseId, cause: Cause) -> Result<(), StoreError> {
    match broker.store.lease(id).await? {
        Some(stored) => close_stored(broker, &stored, cause).await,
        None => Ok(()),
    }
}

/// As [`close`], of a lease as the store has it.
async fn close_stored(broker: &Broker, lease: &Lease, cause: Cause) -> Result<(), StoreError> {
    let now = broker.clock.now();
    let (step, event) = match lease.state {
        LeaseState::Pending => (lease.doubt(cause, now), doubtful_for(cause)),
        LeaseState::Active => {
            let failed = Failed { decision: None, cause: Some(cause) };
            (lease.begin_revocation(cause, now), Event::IssueFailed(failed))
        }
        LeaseState::Revoking | LeaseState::Doubtful | LeaseState::Revoked => return Ok(()),
    };
    let Ok(next) = step else { return Ok(()) };
    let event = AuditEvent::of_lease(event, now, &next);
    broker.handovers.forget(&lease.id);
    broker.commit(Change::step(next).with(event)).await
}

/// The caller went away before it had its reply. With an Idempotency-Key it may come back for it;
/// without one nobody can ever use the account, so it goes at once.
pub async fn abandon(broker: &Broker, lease: &Lease) {
    if lease.idempotency.is_some() && !broker.stopping.is_cancelled() {
        broker.abandoned.put(&lease.id);
        return;
    }
    tracing::info!(lease = %lease.id, "the caller went away before the reply; the account is removed");
    match begin(broker, lease, Cause::Abandoned, Vec::new()).await {
        Ok(_) => broker.wake.removal.notify_one(),
        // A renewal or revocation was faster, or the store failed: then its state is not known here.
        Err(_) => undo(broker, lease.clone(), Cause::Abandoned),
    }
}

/// What a crash left behind: leases that were intended and never settled. Their accounts may
/// exist, their secrets reached nobody. Called before the broker serves.
///
/// # Errors
/// When the store fails.
pub async fn recover(broker: &Arc<Broker>) -> Result<usize, StoreError> {
    let now = broker.clock.now();
    let mut found = 0;
    loop {
        let pending = broker.store.pending(now, 500).await?;
        if pending.is_empty() {
            return Ok(found);
        }
        found += pending.len();
        let mut change = Change::default();
        for lease in pending {
            if let Ok(doubted) = lease.doubt(Cause::Doubtful, now) {
                let event = AuditEvent::of_lease(Event::LeaseDoubtful(Doubtful::default()), now, &doubted);
                change.events.push(event.with_error("the broker stopped in the middle of the issue"));
                change.leases.push(LeaseWrite::Update(doubted));
            }
        }
        broker.commit(change).await?;
    }
}
