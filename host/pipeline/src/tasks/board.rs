//! What every background task does now and did last: for `jit-broker status`, for metrics, and for the decision
//! whether anything new may be handed out.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use jit_api::status::{TaskResult, TaskRow, TaskState};
use parking_lot::{Mutex, MutexGuard};

use super::driver::Counts;
use crate::ports::Clock;

/// So many passes in a row that panicked, and a task counts as down: one may be an accident of a moment.
const MAX_PANICS: u32 = 3;
/// The most pieces of work beside a task that are named after a panic.
const MAX_NAMED: usize = 20;

/// The state of all background tasks.
#[derive(Debug)]
pub struct Board {
    clock: Arc<dyn Clock>,
    began: Timestamp,
    tasks: Mutex<BTreeMap<String, State>>,
}

/// One task.
#[derive(Debug, Default)]
struct State {
    /// After how long a pass counts as stuck.
    deadline: Duration,
    running: Option<Timestamp>,
    stuck: bool,
    ended: bool,
    last: Option<Last>,
    last_success: Option<Timestamp>,
    next_run: Option<Timestamp>,
    runs: BTreeMap<TaskResult, u64>,
    failures: u32,
    panics: u32,
    /// Work beside the passes, by the order in which it began.
    beside: BTreeMap<u64, Timestamp>,
    begun: u64,
    beside_panicked: Vec<String>,
}

/// How the last pass ended.
#[derive(Debug)]
struct Last {
    result: TaskResult,
    ended: Timestamp,
    took: Duration,
    did: Counts,
    error: Option<String>,
}

impl State {
    /// Why the task does not do its work, where it does not.
    fn down(&self) -> Option<String> {
        if self.ended {
            return Some("it has ended".to_owned());
        }
        if self.stuck {
            return Some(format!("a pass has been at work for longer than {:?}", self.deadline));
        }
        (self.panics >= MAX_PANICS).then(|| format!("its last {} passes panicked", self.panics))
    }
}

impl Board {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { began: clock.wall(), clock, tasks: Mutex::default() }
    }

    /// Since when the broker is there.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.began
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.tasks.lock()
    }

    /// Changes a task's state, and makes one where there is none.
    fn change<T>(&self, task: &str, change: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let now = self.clock.wall();
        change(self.tasks().entry(task.to_owned()).or_default(), now)
    }

    /// A task is there. When the value is dropped in a panic, the task counts as ended; dropped otherwise, it is gone.
    pub(super) fn enter(self: &Arc<Self>, task: &str, deadline: Duration) -> Entry {
        self.change(task, |state, _| (state.deadline, state.ended) = (deadline, false));
        // From the beginning, so that a rule over it finds the task.
        metrics::gauge!("jit_task_stuck", "task" => task.to_owned()).set(0.0);
        for result in [TaskResult::Ok, TaskResult::Failed, TaskResult::Panicked] {
            metrics::counter!("jit_task_runs_total", "task" => task.to_owned(), "result" => result.as_str())
                .increment(0);
        }
        Entry { board: Arc::clone(self), task: task.to_owned() }
    }

    /// Why a task does not do its work: it has ended, is stuck, or panics each time. None where it does, or is not
    /// there yet. A pass that fails is no reason: it is tried again, and what it lacks (the store) is told elsewhere.
    #[must_use]
    pub fn down(&self, task: &str) -> Option<String> {
        self.tasks().get(task).and_then(State::down)
    }

    /// Does work that a pass began and that goes on beside it. A panic is caught, logged and counted, since nobody
    /// looks at the end of such work; then there is no value.
    pub async fn beside<T>(&self, task: &'static str, what: &str, work: impl Future<Output = T>) -> Option<T> {
        let _at_work = Beside::begin(self, task);
        // The work's state is in the store, behind locks that outlive a panic, or dropped with it.
        let ended = AssertUnwindSafe(work).catch_unwind().await;
        if let Ok(value) = ended {
            self.change(task, |state, _| state.beside_panicked.retain(|panicked| panicked != what));
            return Some(value);
        }
        tracing::error!(task, what, "work of a background task panicked; it is tried again");
        metrics::counter!("jit_task_side_panics_total", "task" => task).increment(1);
        self.change(task, |state, _| {
            if state.beside_panicked.len() < MAX_NAMED && !state.beside_panicked.iter().any(|known| known == what) {
                state.beside_panicked.push(what.to_owned());
            }
        });
        None
    }

    /// Every task, by name.
    #[must_use]
    pub fn rows(&self) -> Vec<TaskRow> {
        self.tasks().iter().map(|(name, state)| row(name, state)).collect()
    }
}

fn row(name: &str, state: &State) -> TaskRow {
    let doing = match state.running {
        _ if state.ended => TaskState::Ended,
        Some(_) if state.stuck => TaskState::Stuck,
        Some(_) => TaskState::Running,
        None => TaskState::Waiting,
    };
    let last = state.last.as_ref();
    let did = last.map(|last| last.did.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect());
    TaskRow {
        name: name.to_owned(),
        state: doing,
        running_since: state.running,
        last_result: last.map(|last| last.result),
        last_ended: last.map(|last| last.ended),
        last_took_ms: last.map(|last| u64::try_from(last.took.as_millis()).unwrap_or(u64::MAX)),
        did: did.unwrap_or_default(),
        error: last.and_then(|last| last.error.clone()),
        last_success: state.last_success,
        next_run: state.next_run,
        runs: state.runs.clone(),
        failures_in_a_row: state.failures,
        beside: state.beside.len() as u64,
        beside_since: state.beside.values().next().copied(),
        beside_panicked: state.beside_panicked.clone(),
    }
}

/// A task's place on the board, held by what runs it.
pub(super) struct Entry {
    board: Arc<Board>,
    task: String,
}

impl Entry {
    pub(super) fn begin(&self) {
        self.board.change(&self.task, |state, now| (state.running, state.next_run) = (Some(now), None));
        metrics::gauge!("jit_task_running", "task" => self.task.clone()).set(1.0);
    }

    /// The pass is at work for longer than its deadline.
    pub(super) fn is_stuck(&self) {
        self.board.change(&self.task, |state, _| state.stuck = true);
        metrics::gauge!("jit_task_stuck", "task" => self.task.clone()).set(1.0);
    }

    /// The pass has ended. Returns how many in a row did not succeed.
    pub(super) fn end(&self, result: TaskResult, took: Duration, did: Counts, error: Option<String>) -> u32 {
        let task = || self.task.clone();
        metrics::counter!("jit_task_runs_total", "task" => task(), "result" => result.as_str()).increment(1);
        metrics::gauge!("jit_task_running", "task" => task()).set(0.0);
        metrics::gauge!("jit_task_stuck", "task" => task()).set(0.0);
        self.board.change(&self.task, |state, now| {
            (state.running, state.stuck) = (None, false);
            *state.runs.entry(result).or_default() += 1;
            state.failures = if result == TaskResult::Ok { 0 } else { state.failures.saturating_add(1) };
            state.panics = if result == TaskResult::Panicked { state.panics.saturating_add(1) } else { 0 };
            state.last = Some(Last { result, ended: now, took, did, error });
            if result == TaskResult::Ok {
                state.last_success = Some(now);
                metrics::gauge!("jit_task_last_success_seconds", "task" => task()).set(now.as_second() as f64);
            }
            state.failures
        })
    }

    /// The next pass begins after `wait` at the latest; none where it only waits to be woken.
    pub(super) fn waits(&self, wait: Option<Duration>) {
        self.board.change(&self.task, |state, now| {
            state.next_run = wait.and_then(|wait| now.checked_add(wait).ok());
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.board.change(&self.task, |state, _| state.ended = true);
        } else {
            self.board.tasks().remove(&self.task);
        }
    }
}

/// Work beside a task, while it goes on.
struct Beside<'b> {
    board: &'b Board,
    task: &'static str,
    number: u64,
}

impl<'b> Beside<'b> {
    fn begin(board: &'b Board, task: &'static str) -> Self {
        let number = board.change(task, |state, now| {
            state.begun += 1;
            state.beside.insert(state.begun, now);
            state.begun
        });
        Self { board, task, number }
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        self.board.change(self.task, |state, _| state.beside.remove(&self.number));
    }
}
