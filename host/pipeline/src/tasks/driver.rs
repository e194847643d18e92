//! Runs the background tasks: one pass after another, each when its time has come or something woke it.
//!
//! A task says what one pass does and when the next is due; this module waits, and keeps the task's state on the
//! [`Board`]. The rules, for every task:
//!
//! - A wake that comes during a pass makes one more pass, however many there were.
//! - A pass that fails is tried again after a backoff that doubles. A wake cuts the backoff short, since it may come
//!   with what mends the fault, but never below [`MIN_BACKOFF`]: many wakes do not become many failing passes.
//! - A pass that panics is logged at error and counted, and then treated like one that failed. The task goes on with
//!   the state that it had. The panic is caught by `catch_unwind` and not by a spawned task's handle: the pass stays
//!   part of its loop, so it keeps the task's state, and ends when the loop is aborted.
//! - A pass that takes longer than the task's deadline is shown as stuck. It is not ended: it may be in the middle
//!   of something that must not be done twice.
//! - When the broker stops, the pass that is at work is finished, and then [`Task::last`] is called.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use jit_api::status::TaskResult;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::board::{Board, Entry};

/// The shortest time between a failed pass and the next one.
pub const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// The most that chance adds to a period, as a share of it: several brokers do not do the same at the same moment.
const JITTER: f64 = 0.1;

/// What a pass did: a word and a number each, such as `("removed", 3)`.
pub type Counts = Vec<(&'static str, u64)>;

/// When the next pass begins, unless something wakes the task before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// After exactly that time.
    In(Duration),
    /// After that time and up to a tenth more, by chance.
    Every(Duration),
    /// Only when something wakes it.
    WhenWoken,
}

impl Next {
    /// How long to wait; none: until woken. `chance` is in `0..1`.
    fn wait(self, chance: f64) -> Option<Duration> {
        match self {
            Self::In(wait) => Some(wait),
            Self::Every(period) => Some(period + period.mul_f64(JITTER * chance.clamp(0.0, 1.0))),
            Self::WhenWoken => None,
        }
    }
}

/// How a pass ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// What it did, or why it failed, in words without a secret.
    outcome: Result<Counts, String>,
    /// When the next begins; none after a failure: after a backoff.
    next: Option<Next>,
}

impl Pass {
    /// It did what it is for.
    pub fn done(did: impl Into<Counts>, next: Next) -> Self {
        Self { outcome: Ok(did.into()), next: Some(next) }
    }

    /// It failed. `why` has no secret; it is shown to operators. The next pass begins after a backoff.
    pub fn failed(why: impl Into<String>) -> Self {
        Self { outcome: Err(why.into()), next: None }
    }

    /// It failed in part, and the task knows better than a backoff when another pass makes sense.
    pub fn failed_until(why: impl Into<String>, next: Next) -> Self {
        Self { outcome: Err(why.into()), next: Some(next) }
    }
}

/// The times of a task.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// After how long a pass counts as stuck.
    pub deadline: Duration,
    /// The wait after the first failure in a row; each further one doubles it.
    pub first_backoff: Duration,
    /// The longest wait after a failure.
    pub last_backoff: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(120), first_backoff: MIN_BACKOFF, last_backoff: Duration::from_secs(30) }
    }
}

impl Pace {
    /// How long to wait after so many failures in a row, at least one.
    fn backoff(&self, failures: u32) -> Duration {
        let doubled = self.first_backoff.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.last_backoff).max(MIN_BACKOFF)
    }
}

/// Work that the broker does beside the requests, again and again.
#[async_trait]
pub trait Task: Send + 'static {
    /// Its name, in metrics, in the log and on the board.
    fn name(&self) -> &str;

    /// Its times.
    fn pace(&self) -> Pace {
        Pace::default()
    }

    /// Does what is due.
    async fn pass(&mut self) -> Pass;

    /// Returns when a pass is wanted before its time. It is dropped and called again at will, so no wake may be lost
    /// by that; and a wake that came while it was not called has to be found by the next call.
    async fn woken(&mut self) {
        std::future::pending().await
    }

    /// What is left to do when the broker stops, after the last pass.
    async fn last(&mut self) {}
}

/// Every background task of a broker.
pub struct Driver {
    board: Arc<Board>,
    stopping: CancellationToken,
    loops: JoinSet<()>,
}

impl Driver {
    /// None yet; they end after `stopping`.
    #[must_use]
    pub fn new(board: Arc<Board>, stopping: CancellationToken) -> Self {
        Self { board, stopping, loops: JoinSet::new() }
    }

    /// Runs a task from now on.
    pub fn start(&mut self, task: impl Task) {
        self.loops.spawn(run(task, Arc::clone(&self.board), self.stopping.clone()));
    }

    /// Waits until every task has ended, which they do once the broker is stopping; after `patience` the rest is
    /// aborted. Returns whether that was not necessary.
    pub async fn ended(&mut self, patience: Duration) -> bool {
        let ended = async { while self.loops.join_next().await.is_some() {} };
        let in_time = timeout(patience, ended).await.is_ok();
        if !in_time {
            self.loops.abort_all();
        }
        in_time
    }
}

/// Runs one task until the broker stops.
pub async fn run(mut task: impl Task, board: Arc<Board>, stopping: CancellationToken) {
    let pace = task.pace();
    let entry = board.enter(task.name(), pace.deadline);
    while !stopping.is_cancelled() {
        let (failures, next) = one_pass(&mut task, &entry, pace).await;
        let floor = if failures == 0 { Duration::ZERO } else { MIN_BACKOFF };
        let wait = match next {
            Some(next) => next.wait(rand::random()).map(|wait| wait.max(floor)),
            None => Some(pace.backoff(failures)),
        };
        entry.waits(wait);
        tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            () = until_next(&mut task, floor, wait) => {}
        }
    }
    task.last().await;
}

/// Waits for the next pass: for `floor` in any case, and then for a wake or for the rest of `wait`.
async fn until_next(task: &mut impl Task, floor: Duration, wait: Option<Duration>) {
    if !floor.is_zero() {
        sleep(floor).await;
    }
    match wait {
        Some(wait) => {
            let _woken_or_due = timeout(wait.saturating_sub(floor), task.woken()).await;
        }
        None => task.woken().await,
    }
}

/// One pass. Returns how many in a row did not succeed, and when the task wants the next.
async fn one_pass(task: &mut impl Task, entry: &Entry, pace: Pace) -> (u32, Option<Next>) {
    let name = task.name().to_owned();
    let began = Instant::now();
    entry.begin();
    let mut pass = Box::pin(AssertUnwindSafe(task.pass()).catch_unwind());
    let ended = match timeout(pace.deadline, &mut pass).await {
        Ok(ended) => ended,
        Err(_) => {
            entry.is_stuck();
            tracing::error!(
                task = name,
                seconds = pace.deadline.as_secs(),
                "a pass of a background task is stuck; it is waited for"
            );
            let ended = pass.as_mut().await;
            tracing::warn!(task = name, seconds = began.elapsed().as_secs(), "the stuck pass has ended");
            ended
        }
    };
    let took = began.elapsed();
    match ended {
        Ok(Pass { outcome: Ok(did), next }) => (entry.end(TaskResult::Ok, took, did, None), next),
        Ok(Pass { outcome: Err(why), next }) => (entry.end(TaskResult::Failed, took, Counts::new(), Some(why)), next),
        Err(_) => {
            // The panic's own words are on the process's stderr. They are not repeated: they may quote what was at hand.
            let why = "the code panicked; the process's standard error says where".to_owned();
            let failures = entry.end(TaskResult::Panicked, took, Counts::new(), Some(why));
            tracing::error!(task = name, failures, "a background task panicked; it goes on after a backoff");
            (failures, None)
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
