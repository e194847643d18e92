//! Removes the accounts whose time has come: expired leases, and every removal that has not
//! succeeded yet (NO-GHOST).
//!
//! Targets do not wait for each other. A target that cannot be reached gets one probe every
//! `PROBE_EVERY`, however long its backlog is; with the first success the whole backlog is due
//! at once, so that accounts go within seconds of its return.
//!
//! Within a target, removals that failed before have a queue of their own, one at a time: what
//! cannot go (a lock, a session that does not end) may take its whole deadline each time, and holds
//! up nobody else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use jit_core::id::LeaseId;
use jit_core::lease::{Cause, Lease, LeaseState, Removal as Backoff};
use jit_core::name::TargetName;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::board::Board;
use super::driver::{Next, Pace, Pass, Task};
use crate::end::begin;
use crate::removal::{Attempt, RemovalFlow, attempt, expire_unrecorded};
use crate::work::Work;
use jit_ledger::{LeaseFilter, Store, StoreError};

/// The task's name.
pub const NAME: &str = "removal";
/// After how long a sweep counts as stuck: it reads the store, writes some rows and waits for no target.
const DEADLINE: Duration = Duration::from_secs(120);
/// The longest wait after a sweep that failed: once the store is back, nothing waits for longer.
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// How often a target that is away is tried.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// The longest sleep; a safeguard, the task is woken before.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// The longest sleep where other brokers serve from the store: one of them may have handed a lease over.
const LONGEST_AMONG_OTHERS: Duration = Duration::from_secs(5);
/// The most leases that are left alone after a panic; those beyond it are tried at each sweep.
const MAX_PANICKED: usize = 10_000;
/// Leases of one target taken up at once.
const PER_TARGET: usize = 128;
/// Removals of one target at once that are tried for the first time.
const CONCURRENT: usize = 4;

/// The work on a target: one task of each kind at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Queue {
    /// Whether the target is back.
    Probe,
    /// Removals never tried.
    First,
    /// Removals that failed before.
    Again,
}

impl Queue {
    fn of(lease: &Lease) -> Self {
        if lease.removal.as_ref().is_some_and(|removal| removal.attempts > 0) { Self::Again } else { Self::First }
    }
}

/// What the task knows between two sweeps; losing it costs a probe.
#[derive(Default)]
struct Memory {
    /// What is at work now.
    busy: Mutex<HashSet<(TargetName, Queue)>>,
    /// Targets that are away, and when they were tried last.
    away: Mutex<HashMap<TargetName, Instant>>,
    /// Leases over which the code panicked outside of the driver's call, which is caught there: how often in a row,
    /// and when last.
    panicked: Mutex<HashMap<LeaseId, (u32, Instant)>>,
    /// Something is due that could not be taken a step further: another task has it, or the store failed.
    held_up: AtomicBool,
}

/// What one attempt came to, for its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tried {
    /// The lease is one step further, or somebody else took it there.
    Stepped,
    /// Its target is out of reach.
    Unreachable,
    /// Another task is at it.
    InProgress,
    /// The code panicked, now or a short while ago.
    Panicked,
}

impl Memory {
    fn away_since_probe(&self, target: &TargetName) -> Option<Instant> {
        self.away.lock().get(target).copied()
    }

    fn is_away(&self, target: &TargetName) {
        self.away.lock().insert(target.clone(), Instant::now());
    }

    fn is_back(&self, target: &TargetName) {
        self.away.lock().remove(target);
    }

    fn to_probe(&self) -> Vec<TargetName> {
        let away = self.away.lock();
        away.iter().filter(|(_, tried)| tried.elapsed() >= PROBE_EVERY).map(|(target, _)| target.clone()).collect()
    }

    fn any_away(&self) -> bool {
        !self.away.lock().is_empty()
    }

    /// Whether a lease is left alone for a while, since the code panicked over it.
    fn rests(&self, lease: &LeaseId) -> bool {
        let panicked = self.panicked.lock();
        panicked.get(lease).is_some_and(|(times, last)| last.elapsed() < Backoff::backoff(*times))
    }

    /// Notes how work on a lease ended.
    fn ended(&self, lease: &LeaseId, panicked: bool) {
        let mut all = self.panicked.lock();
        if !panicked {
            all.remove(lease);
        } else if all.len() < MAX_PANICKED || all.contains_key(lease) {
            let times = all.get(lease).map_or(0, |(times, _)| *times).saturating_add(1);
            all.insert(lease.clone(), (times, Instant::now()));
        }
    }

    fn begin(&self, target: &TargetName, queue: Queue) -> bool {
        self.busy.lock().insert((target.clone(), queue))
    }

    fn end(&self, target: &TargetName, queue: Queue) {
        self.busy.lock().remove(&(target.clone(), queue));
    }
}

/// What it takes to sweep.
pub struct SweepFlow {
    pub(crate) removal: Arc<RemovalFlow>,
    /// The removals are work beside the task.
    pub(crate) board: Arc<Board>,
    /// A stop waits for what is under way.
    pub(crate) work: Work,
}

impl SweepFlow {
    fn store(&self) -> &dyn Store {
        self.removal.end.ledger.store()
    }
}

/// The task.
pub struct Removal {
    flow: Arc<SweepFlow>,
    memory: Arc<Memory>,
}

impl Removal {
    /// That has nothing at work.
    #[must_use]
    pub fn new(flow: Arc<SweepFlow>) -> Self {
        Self { flow, memory: Arc::default() }
    }
}

#[async_trait]
impl Task for Removal {
    fn name(&self) -> &str {
        NAME
    }

    fn pace(&self) -> Pace {
        Pace { deadline: DEADLINE, last_backoff: LAST_BACKOFF, ..Pace::default() }
    }

    async fn pass(&mut self) -> Pass {
        let flow = &self.flow;
        // Until it is known how long the sleep is, every lease that comes wakes the task.
        flow.removal.wake.sleeping_until(Timestamp::MAX);
        let swept = jit_failpoint::step("removal.pass", StoreError::at_failpoint, sweep(flow, &self.memory)).await;
        match swept {
            Ok(Swept { due, sleep }) => {
                flow.removal.wake.sleeping_until(flow.removal.end.clock.now() + sleep);
                Pass::done([("due", due)], Next::In(sleep))
            }
            Err(error) => {
                tracing::error!(%error, "the store failed; due accounts are removed as far as it can be read, and recorded when it is back");
                Pass::failed(error.to_string())
            }
        }
    }

    async fn woken(&mut self) {
        self.flow.removal.wake.removal.notified().await;
    }
}

/// Takes up what is due now, as one of the broker's tasks; [`Removal`] may be at it as well.
///
/// # Errors
/// When the store fails.
pub async fn once(flow: &Arc<SweepFlow>) -> Result<(), StoreError> {
    sweep(flow, &Arc::default()).await.map(drop)
}

/// What a sweep found.
struct Swept {
    /// Leases whose removal is due, those already at work included.
    due: u64,
    /// How long to sleep.
    sleep: Duration,
}

/// Takes up what is due and says how long to sleep.
async fn sweep(flow: &Arc<SweepFlow>, memory: &Arc<Memory>) -> Result<Swept, StoreError> {
    let now = flow.removal.end.clock.now();
    let mut work: BTreeMap<TargetName, Vec<Lease>> = BTreeMap::new();
    let mut rotating = Vec::new();
    let mut due = 0;
    for lease in flow.store().due(now, PER_TARGET).await? {
        due += 1;
        if lease.rotating.is_some() {
            rotating.push(lease);
            continue;
        }
        work.entry(lease.target.clone()).or_default().push(lease);
    }
    // A store that cannot be written holds up no removal: what follows goes on, and the error is told at the end.
    let mut written = end_rotating(flow, memory, rotating).await;
    let mut waiting = false;
    for target in memory.to_probe() {
        let mut leases = match work.remove(&target) {
            Some(due) => due,
            None => backlog(flow.store(), &target, 1).await?,
        };
        // What cannot go although the target is there says little about it.
        leases.sort_by_key(|lease| lease.removal.as_ref().map_or(0, |removal| removal.attempts));
        let Some(first) = leases.first().cloned() else {
            memory.is_back(&target);
            continue;
        };
        written = written.and(mark_expired(flow, &leases[1..]).await);
        let (at, known) = (target.clone(), Arc::clone(memory));
        start(flow, memory, target, Queue::Probe, async move |flow| probe(&flow, &known, &at, &first).await);
    }
    for (target, leases) in work {
        if memory.away_since_probe(&target).is_some() {
            written = written.and(mark_expired(flow, &leases).await);
        } else {
            waiting |= !enqueue(flow, memory, &target, leases);
        }
    }
    written?;
    if memory.any_away() || waiting || memory.held_up.swap(false, Ordering::SeqCst) {
        return Ok(Swept { due, sleep: PROBE_EVERY / 2 });
    }
    let next = flow.store().next_due().await?;
    let longest = longest_sleep(flow.store());
    let until = next.map_or(longest, |at| Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO));
    Ok(Swept { due, sleep: until.clamp(Duration::from_millis(20), longest) })
}

fn longest_sleep(store: &dyn Store) -> Duration {
    let among_others = store.peers().is_some_and(|peers| peers.borrow().serving.len() > 1);
    if among_others { LONGEST_AMONG_OTHERS } else { LONGEST_SLEEP }
}

/// Ends leases over rotating accounts. Nothing is asked of their targets, and their ends say nothing
/// of whether those are there.
async fn end_rotating(flow: &SweepFlow, memory: &Memory, leases: Vec<Lease>) -> Result<(), StoreError> {
    let ends = stream::iter(leases).map(|lease| async move { guarded(flow, memory, &lease).await.map(drop) });
    // At once, so that they share commits.
    let mut ends = ends.buffer_unordered(PER_TARGET);
    let mut failure = Ok(());
    while let Some(ended) = ends.next().await {
        failure = failure.and(ended);
    }
    failure
}

/// While its target is away an expired lease is at least said to be ending.
async fn mark_expired(flow: &SweepFlow, leases: &[Lease]) -> Result<(), StoreError> {
    for lease in leases.iter().filter(|lease| lease.state == LeaseState::Active) {
        match begin(&flow.removal.end, lease, Cause::Expired, Vec::new()).await {
            Ok(_) | Err(StoreError::Stale(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// This broker's removals of a target that have begun, due or not.
async fn backlog(store: &dyn Store, target: &TargetName, limit: usize) -> Result<Vec<Lease>, StoreError> {
    let mut found = Vec::new();
    for state in [LeaseState::Revoking, LeaseState::Doubtful] {
        let filter = LeaseFilter {
            target: Some(target.clone()),
            state: Some(state),
            own: true,
            limit,
            ..LeaseFilter::default()
        };
        found.extend(store.leases(&filter).await?);
    }
    Ok(found)
}

/// A queue of a target at work. It is free again when this is dropped, by a panic too: otherwise nothing of that
/// queue would ever be removed again.
struct Busy<'m> {
    memory: &'m Memory,
    target: &'m TargetName,
    queue: Queue,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.memory.end(self.target, self.queue);
    }
}

/// Starts work as one of the broker's tasks; false when the target has that kind at work already. The work says
/// whether it took any lease a step further.
fn start<F>(
    flow: &Arc<SweepFlow>,
    memory: &Arc<Memory>,
    target: TargetName,
    queue: Queue,
    work: impl FnOnce(Arc<SweepFlow>) -> F,
) -> bool
where
    F: Future<Output = Result<bool, StoreError>> + Send + 'static,
{
    if !memory.begin(&target, queue) {
        return false;
    }
    let (flow, memory) = (Arc::clone(flow), Arc::clone(memory));
    let work = work(Arc::clone(&flow));
    flow.work.clone().spawn(async move {
        let busy = Busy { memory: &memory, target: &target, queue };
        let stepped = work.await.unwrap_or_else(|error| {
            tracing::warn!(%target, %error, "removing accounts: the store failed, or a lease was changed meanwhile");
            false
        });
        drop(busy);
        if stepped {
            flow.removal.wake.removal.notify_one();
        } else {
            // The next sweep would find the same: it waits a moment, or the two would take turns without end.
            memory.held_up.store(true, Ordering::SeqCst);
        }
    });
    true
}

/// Puts leases of one target into its queues; false when some have to wait for those at work.
fn enqueue(flow: &Arc<SweepFlow>, memory: &Arc<Memory>, target: &TargetName, leases: Vec<Lease>) -> bool {
    let (first, again): (Vec<_>, Vec<_>) = leases.into_iter().partition(|lease| Queue::of(lease) == Queue::First);
    let mut taken = true;
    for (queue, leases, concurrent) in [(Queue::First, first, CONCURRENT), (Queue::Again, again, 1)] {
        if !leases.is_empty() {
            let (at, known) = (target.clone(), Arc::clone(memory));
            taken &= start(flow, memory, target.clone(), queue, async move |flow| {
                work_off(&flow, &known, &at, leases, concurrent).await
            });
        }
    }
    taken
}

/// Tries one lease of a target that was away. When it is back, all that is owed there runs.
async fn probe(
    flow: &Arc<SweepFlow>,
    memory: &Arc<Memory>,
    target: &TargetName,
    lease: &Lease,
) -> Result<bool, StoreError> {
    match guarded(flow, memory, lease).await? {
        Tried::Unreachable => {
            memory.is_away(target);
            return Ok(true);
        }
        Tried::InProgress | Tried::Panicked => return Ok(false),
        Tried::Stepped => {}
    }
    memory.is_back(target);
    tracing::info!(%target, "the target is back; its overdue removals run now");
    let overdue = backlog(flow.store(), target, 1_000).await?;
    enqueue(flow, memory, target, overdue);
    Ok(true)
}

/// Works off a queue of one target.
async fn work_off(
    flow: &Arc<SweepFlow>,
    memory: &Memory,
    target: &TargetName,
    leases: Vec<Lease>,
    concurrent: usize,
) -> Result<bool, StoreError> {
    let attempts = stream::iter(leases).map(|lease| async move { guarded(flow, memory, &lease).await });
    let mut attempts = attempts.buffer_unordered(concurrent);
    let (mut stepped, mut failure) = (false, None);
    while let Some(attempted) = attempts.next().await {
        match attempted {
            Ok(Tried::Stepped) => stepped = true,
            Ok(Tried::InProgress | Tried::Panicked) => {}
            // Those already under way fail alike; the rest is left for the probe.
            Ok(Tried::Unreachable) => {
                memory.is_away(target);
                stepped = true;
                break;
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(stepped),
    }
}

/// One lease. A panic over it holds up no other, and the lease is tried again after a backoff.
async fn guarded(flow: &SweepFlow, memory: &Memory, lease: &Lease) -> Result<Tried, StoreError> {
    if memory.rests(&lease.id) {
        return Ok(Tried::Panicked);
    }
    let tried = flow.board.beside(NAME, lease.id.as_str(), one(&flow.removal, lease)).await;
    memory.ended(&lease.id, tried.is_none());
    tried.unwrap_or(Ok(Tried::Panicked))
}

/// One lease.
async fn one(flow: &RemovalFlow, lease: &Lease) -> Result<Tried, StoreError> {
    let begun = if lease.state == LeaseState::Active {
        match begin(&flow.end, lease, Cause::Expired, Vec::new()).await {
            Ok(lease) => lease,
            // Renewed or revoked a moment ago: the next sweep sees it as it is.
            Err(StoreError::Stale(_)) => return Ok(Tried::Stepped),
            Err(error) => {
                expire_unrecorded(flow, lease).await;
                return Err(error);
            }
        }
    } else {
        lease.clone()
    };
    match attempt(flow, &begun).await {
        Ok(Attempt::Failed { unreachable: true, .. }) => Ok(Tried::Unreachable),
        Ok(Attempt::InProgress) => Ok(Tried::InProgress),
        Ok(Attempt::Failed { .. } | Attempt::Removed(_)) | Err(StoreError::Stale(_)) => Ok(Tried::Stepped),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_over_which_the_code_panics_is_left_alone_for_longer_each_time() {
        let (memory, lease) = (Memory::default(), LeaseId::generate(Timestamp::now()));
        let mut rests = Vec::new();
        for _ in 0..12 {
            memory.ended(&lease, true);
            let began = Instant::now();
            while memory.rests(&lease) {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            rests.push(began.elapsed());
        }
        assert!(rests.is_sorted() && rests[0] >= Duration::from_millis(500) && rests[11] > rests[0] * 10, "{rests:?}");
        memory.ended(&lease, true);
        memory.ended(&lease, false);
        assert!(!memory.rests(&lease), "it went well once");
    }
}
