//! What has to be swept now and then: secrets kept for retries, replies nobody fetched, leases long
//! over, and the gauges.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use jit_api::admin::ClockConfirmed;
use jit_core::event::{AuditEvent, ClockJump, Event, Jump};
use jit_core::lease::LeaseState;
use jit_core::operator::Operator;
use jit_core::ttl::Ttl;

use super::driver::{Next, Pass, Task};
use crate::clock::{LeaseClock, Look};
use crate::ledger::Ledger;
use crate::limits::RateLimits;
use crate::replay::Handovers;
use crate::target::Serving;
use crate::undo::{UndoFlow, give_up_abandoned};
use crate::work::Wake;
use arc_swap::ArcSwap;
use jit_ledger::{Change, LeaseFilter, StoreError};

/// How often.
const EVERY: Duration = Duration::from_secs(5);
/// Counts are kept at least so long: a window that a reload makes longer is not empty then.
const KEEP_USAGE: Duration = Duration::from_secs(86_400);
/// Leases forgotten in one go.
const FORGET_AT_ONCE: usize = 1_000;

/// What it takes to sweep.
pub struct HousekeepingFlow {
    pub(crate) ledger: Ledger,
    pub(crate) clock: Arc<LeaseClock>,
    /// Which windows are counted, and which targets have gauges.
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    /// Secrets kept for retries.
    pub(crate) handovers: Arc<Handovers>,
    /// Rates of workloads that are quiet.
    pub(crate) limits: Arc<RateLimits>,
    /// Replies that nobody fetched.
    pub(crate) undo: Arc<UndoFlow>,
    /// After a jump of the clock other leases may be due.
    pub(crate) wake: Arc<Wake>,
}

/// The task.
pub struct Housekeeping {
    flow: Arc<HousekeepingFlow>,
    keep_revoked: Ttl,
    gauges: Gauges,
}

impl Housekeeping {
    /// Leases are forgotten `keep_revoked` after their end.
    #[must_use]
    pub fn new(flow: Arc<HousekeepingFlow>, keep_revoked: Ttl) -> Self {
        Self { flow, keep_revoked, gauges: Gauges::default() }
    }

    /// Forgets leases long over.
    async fn forget_leases(&self) -> Result<u64, StoreError> {
        let before = self.flow.clock.now() - self.keep_revoked.duration();
        self.flow.ledger.store().forget_revoked(before, FORGET_AT_ONCE).await
    }
}

#[async_trait]
impl Task for Housekeeping {
    fn name(&self) -> &str {
        "housekeeping"
    }

    async fn pass(&mut self) -> Pass {
        let flow = &*self.flow;
        let mut failed = Vec::new();
        let mut note = |what: &'static str, result: Result<(), StoreError>| {
            if let Err(error) = result {
                tracing::warn!(%error, "{what}; it is tried again");
                failed.push(what);
            }
        };
        note("a jump of the clock could not be recorded", look_at_clock(flow).await);
        flow.ledger.look_at_disk().await;
        flow.handovers.sweep();
        flow.limits.sweep();
        flow.ledger.denials().sweep();
        note("the number of denials could not be recorded", record_denials(&flow.ledger).await);
        let abandoned = give_up_abandoned(&flow.undo, false).await as u64;
        let mut forgotten = 0;
        let leases = self.forget_leases().await.map(|count| forgotten = count);
        note("old leases could not be forgotten", leases);
        note("old counts could not be forgotten", forget_usage(flow).await);
        note("the leases could not be counted", self.gauges.refresh(flow).await);
        if failed.is_empty() {
            Pass::done([("forgotten", forgotten), ("abandoned", abandoned)], Next::Every(EVERY))
        } else {
            Pass::failed_until(failed.join("; "), Next::Every(EVERY))
        }
    }
}

/// Puts on record how many denials were only counted.
async fn record_denials(ledger: &Ledger) -> Result<(), StoreError> {
    let events = ledger.denials().take();
    if events.is_empty() {
        return Ok(());
    }
    let recorded = ledger.commit(Change::events(events.clone())).await;
    if recorded.is_err() {
        ledger.denials().put_back(events);
    }
    recorded
}

/// Tells of a jump of the wall clock, and of its end.
async fn look_at_clock(flow: &HousekeepingFlow) -> Result<(), StoreError> {
    let look = flow.clock.look();
    let jump = flow.clock.jump().map_or(0.0, |jump| jump.by.as_secs_f64());
    metrics::gauge!("jit_clock_jump_seconds").set(jump);
    let (by, what) = match look {
        Look::Same => return Ok(()),
        Look::Jumped(by) => {
            tracing::error!(
                seconds = by.as_secs(),
                "the wall clock has jumped: leases do not follow it; see \"Clock\" in docs/trouble.md"
            );
            (Some(by), Jump::Jumped)
        }
        Look::Back => {
            tracing::warn!("the wall clock is right again: leases follow it");
            (None, Jump::Back)
        }
        Look::Taken(by) => {
            tracing::warn!(seconds = by.as_secs(), "the wall clock's jump has lasted: leases follow the new time");
            (Some(by), Jump::Taken)
        }
    };
    let recorded = flow.ledger.commit(Change::record(clock_event(what, by, flow.clock.wall()))).await;
    flow.wake.removal.notify_one();
    recorded
}

fn clock_event(what: Jump, by: Option<SignedDuration>, at: Timestamp) -> AuditEvent {
    AuditEvent::new(Event::ClockJumped(ClockJump { what, seconds: by.map(|by| by.as_secs()) }), at)
}

/// An operator says that the wall clock is right after a jump. After one backward, the times of leases are moved
/// back with it: none gets longer.
///
/// # Errors
/// When the store fails. Leases that were moved stay so, and end the sooner.
pub async fn confirm_clock(flow: &HousekeepingFlow, operator: Operator) -> Result<ClockConfirmed, StoreError> {
    let by = flow.clock.jump().map(|jump| jump.by);
    let Some(by) = by else { return Ok(ClockConfirmed { jumped_seconds: None, leases: 0 }) };
    flow.ledger.commit(Change::record(clock_event(Jump::Confirmed, Some(by), flow.clock.wall()).by(operator))).await?;
    let moved = if by.is_negative() { move_leases(&flow.ledger, by).await? } else { 0 };
    flow.clock.confirm();
    flow.wake.removal.notify_one();
    Ok(ClockConfirmed { jumped_seconds: Some(by.as_secs()), leases: moved })
}

async fn move_leases(ledger: &Ledger, by: SignedDuration) -> Result<usize, StoreError> {
    const PAGE: usize = 500;
    let mut moved = 0;
    for state in [LeaseState::Active, LeaseState::Revoking, LeaseState::Doubtful] {
        let mut before = None;
        loop {
            let filter = LeaseFilter { state: Some(state), before, limit: PAGE, ..LeaseFilter::default() };
            let leases = ledger.store().leases(&filter).await?;
            before = leases.last().filter(|_| leases.len() == PAGE).map(|lease| lease.id.clone());
            for lease in &leases {
                let change = Change::step(lease.moved(by));
                match ledger.commit(change).await {
                    Ok(()) => moved += 1,
                    // Its next step goes by the new time.
                    Err(StoreError::Stale(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            if before.is_none() {
                break;
            }
        }
    }
    Ok(moved)
}

/// What was counted beyond every window that is configured is not asked for again.
async fn forget_usage(flow: &HousekeepingFlow) -> Result<(), StoreError> {
    let serving = flow.serving.load();
    let windows = serving.targets.values().filter_map(|target| target.usage_windows.as_ref()).flatten();
    let longest = windows.copied().max().unwrap_or(0).max(KEEP_USAGE.as_secs());
    let before = flow.clock.now() - Duration::from_secs(longest);
    flow.ledger.store().forget_usage(before).await
}

/// Remembers which series it has set, to take them back to zero.
#[derive(Default)]
struct Gauges {
    live: HashSet<(String, LeaseState)>,
    overdue: HashSet<String>,
}

impl Gauges {
    async fn refresh(&mut self, flow: &HousekeepingFlow) -> Result<(), StoreError> {
        let now = flow.clock.now();
        let counts = flow.ledger.store().counts(now).await?;
        self.live.extend(counts.live.keys().cloned());
        for (target, state) in &self.live {
            let count = counts.live.get(&(target.clone(), *state)).copied().unwrap_or(0);
            metrics::gauge!("jit_leases", "target" => target.clone(), "state" => state.as_str()).set(count as f64);
        }
        for target in flow.serving.load().targets.keys() {
            self.overdue.insert(target.to_string());
        }
        self.overdue.extend(counts.overdue.keys().cloned());
        for target in &self.overdue {
            let (count, age) = counts
                .overdue
                .get(target)
                .map_or((0, 0.0), |(count, since)| (*count, now.duration_since(*since).as_secs_f64().max(0.0)));
            metrics::gauge!("jit_revocations_overdue", "target" => target.clone()).set(count as f64);
            metrics::gauge!("jit_revocations_oldest_overdue_seconds", "target" => target.clone()).set(age);
        }
        Ok(())
    }
}
