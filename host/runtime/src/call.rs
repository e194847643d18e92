//! One call of a plugin: what it has used so far, and what it is allowed.
//!
//! A [`Call`] is the data of a wasmtime store. It is made for one call and dropped with it, so
//! nothing of one request can be seen by another.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline};

use crate::capability::http::HttpSession;
use crate::capability::ldap::LdapSession;
use crate::capability::session::kept::Turn;
use crate::capability::sql::SqlSession;
use crate::engine::EPOCH_TICK;
use crate::fault::FaultKind;
use crate::limits::Limits;

/// The state of one call.
pub(crate) struct Call {
    /// The plugin's name, for its log lines.
    pub(crate) plugin: Arc<str>,
    pub(crate) limits: Limits,
    /// Shared with the future that drives the call, so that it can be read after the store is gone.
    pub(crate) track: Arc<Track>,
    /// The first limit that was broken. It says more than the trap that follows from it.
    breach: Option<FaultKind>,
    memory: usize,
    tables: usize,
    host_calls: u32,
    host_bytes: usize,
    pub(crate) log_lines: u32,
    /// Secrets that the guest holds handles of.
    pub(crate) table: ResourceTable,
    /// The target's SQL connection, if the call has one.
    pub(crate) sql: Option<SqlSession>,
    /// The target's HTTP connection, if the call has one.
    pub(crate) http: Option<HttpSession>,
    /// The target's directory, if the call has one.
    pub(crate) ldap: Option<LdapSession>,
    /// This call's turn to make a secret that is to be kept; it ends with the call.
    pub(crate) turn: Option<Turn>,
}

/// What outlives the store of a call.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// Guest time used up in polls that are over, in nanoseconds.
    spent: AtomicU64,
    /// The thread's CPU time when the poll that is under way began, in nanoseconds.
    poll_began: AtomicU64,
    /// Of all that, what the host's own functions used, in nanoseconds.
    host: AtomicU64,
    /// Something was sent to the backend that may have changed it, and the backend has not said
    /// that it did not.
    effect_possible: AtomicBool,
    /// The last request that may have changed the backend has no answer that says what became of it.
    in_doubt: AtomicBool,
    /// The backend answered the last that was sent to it: it is there.
    answered: AtomicBool,
}

impl Track {
    /// Guest time so far, as seen by the thread that runs the guest now.
    fn used(&self) -> Duration {
        let began = self.poll_began.load(Ordering::Relaxed);
        let all = self.spent.load(Ordering::Relaxed) + thread_time().saturating_sub(began);
        Duration::from_nanos(all.saturating_sub(self.host.load(Ordering::Relaxed)))
    }

    fn begin(&self) {
        self.poll_began.store(thread_time(), Ordering::Relaxed);
    }

    fn end(&self) {
        let began = self.poll_began.load(Ordering::Relaxed);
        self.spent.fetch_add(thread_time().saturating_sub(began), Ordering::Relaxed);
    }

    /// Whether the backend may have been changed by this call.
    pub(crate) fn effect_possible(&self) -> bool {
        self.effect_possible.load(Ordering::SeqCst)
    }

    /// Says whether it may; gives what was known before, to go back to when the backend refuses.
    pub(crate) fn set_effect_possible(&self, possible: bool) -> bool {
        self.effect_possible.swap(possible, Ordering::SeqCst)
    }

    /// Whether it is open what became of the last request that may have changed the backend.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::SeqCst)
    }

    /// Says whether it is open.
    pub(crate) fn set_in_doubt(&self, in_doubt: bool) {
        self.in_doubt.store(in_doubt, Ordering::SeqCst);
    }

    /// Whether the backend is there, as far as this call has seen.
    pub(crate) fn answered(&self) -> bool {
        self.answered.load(Ordering::SeqCst)
    }

    /// Notes that the backend answered, or that it could not be reached.
    pub(crate) fn set_answered(&self, answered: bool) {
        self.answered.store(answered, Ordering::SeqCst);
    }

    /// Drives a call and counts the CPU time of its polls, but not the time it waits. A future
    /// moves between threads, so the counting is by poll.
    pub(crate) async fn metered<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            self.begin();
            let poll = future.as_mut().poll(context);
            self.end();
            poll
        })
        .await
    }

    /// Drives a host function within a call: what it uses is not the guest's time.
    pub(crate) async fn unmetered<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let began = thread_time();
            let poll = future.as_mut().poll(context);
            self.host.fetch_add(thread_time().saturating_sub(began), Ordering::Relaxed);
            poll
        })
        .await
    }
}

/// The CPU time of this thread, in nanoseconds.
fn thread_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// How a call of a kind of plugin is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// On the caller's thread without a fiber: policies, which wait for nothing.
    Blocking,
    /// On a fiber that gives way every tick: drivers.
    Yielding,
    /// On a fiber, with the guest time of a policy: context providers.
    Gathering,
}

impl Call {
    pub(crate) fn new(plugin: Arc<str>, limits: Limits) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.resources);
        Self {
            plugin,
            limits,
            track: Arc::new(Track::default()),
            breach: None,
            memory: 0,
            tables: 0,
            host_calls: 0,
            host_bytes: 0,
            log_lines: 0,
            table,
            sql: None,
            http: None,
            ldap: None,
            turn: None,
        }
    }

    /// A store for this call, with its limits in force.
    pub(crate) fn into_store(self, engine: &wasmtime::Engine, pace: Pace) -> Store<Call> {
        let limit = match pace {
            Pace::Blocking | Pace::Gathering => self.limits.policy_time,
            Pace::Yielding => self.limits.driver_time,
        };
        let host_bytes = self.limits.host_bytes;
        self.track.begin();
        let mut store = Store::new(engine, self);
        store.limiter(|call| call);
        store.set_hostcall_fuel(host_bytes);
        let first = match pace {
            Pace::Blocking => ticks(limit),
            Pace::Yielding | Pace::Gathering => 1,
        };
        store.set_epoch_deadline(first);
        store.epoch_deadline_callback(move |mut context| {
            let call = context.data_mut();
            let Some(left) = limit.checked_sub(call.track.used()).filter(|left| !left.is_zero()) else {
                call.breach(FaultKind::Deadline { limit_ms: millis(limit) });
                return Ok(UpdateDeadline::Interrupt);
            };
            Ok(match pace {
                Pace::Blocking => UpdateDeadline::Continue(ticks(left)),
                Pace::Yielding | Pace::Gathering => UpdateDeadline::Yield(1),
            })
        });
        store
    }

    /// Notes a broken limit; the first one counts.
    pub(crate) fn breach(&mut self, kind: FaultKind) {
        self.breach.get_or_insert(kind);
    }

    /// Counts a call to the host and the bytes that it brings.
    ///
    /// # Errors
    /// When a limit is reached: the guest traps.
    pub(crate) fn enter_host(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.host_calls += 1;
        if self.host_calls > self.limits.host_calls {
            let limit = self.limits.host_calls;
            return Err(self.stop(FaultKind::HostCalls { limit }));
        }
        self.count_bytes(bytes)
    }

    /// Counts bytes that go to the guest or come from it.
    ///
    /// # Errors
    /// When the limit is reached: the guest traps.
    pub(crate) fn count_bytes(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.host_bytes = self.host_bytes.saturating_add(bytes);
        if self.host_bytes > self.limits.host_bytes {
            let limit = self.limits.host_bytes;
            return Err(self.stop(FaultKind::HostBytes { limit }));
        }
        Ok(())
    }

    /// How many more bytes may cross between guest and host.
    pub(crate) fn bytes_left(&self) -> usize {
        self.limits.host_bytes.saturating_sub(self.host_bytes)
    }

    fn stop(&mut self, kind: FaultKind) -> wasmtime::Error {
        let message = kind.to_string();
        self.breach(kind);
        wasmtime::Error::msg(message)
    }

    /// Turns the error of a call into what the plugin did.
    pub(crate) fn fault(&mut self, error: &wasmtime::Error) -> FaultKind {
        if let Some(kind) = self.breach.take() {
            return kind;
        }
        classify(error, &self.limits)
    }
}

/// What an error of wasmtime means when no limit of ours was noted.
pub(crate) fn classify(error: &wasmtime::Error, limits: &Limits) -> FaultKind {
    if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
        return FaultKind::Overloaded;
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return FaultKind::Trap { message: trap.to_string() };
    }
    let cause = error.root_cause().to_string();
    // The type of this error is private to wasmtime (func/options.rs).
    if cause.starts_with("too much data is being copied") {
        return FaultKind::HostBytes { limit: limits.host_bytes };
    }
    FaultKind::Trap { message: crate::text::escape(&cause, limits.reason_bytes) }
}

/// Whole ticks that cover a duration.
fn ticks(duration: Duration) -> u64 {
    let tick = EPOCH_TICK.as_micros();
    u64::try_from(duration.as_micros().div_ceil(tick)).unwrap_or(u64::MAX / 2).max(1)
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Cumulative: `StoreLimits` of wasmtime bounds each memory alone, and a component may have many.
impl ResourceLimiter for Call {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_sub(current).saturating_add(desired);
        if total > self.limits.memory_bytes {
            let limit = self.limits.memory_bytes;
            self.breach(FaultKind::Memory { limit });
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.tables.saturating_sub(current).saturating_add(desired);
        if total > self.limits.table_elements {
            let limit = self.limits.table_elements;
            self.breach(FaultKind::Table { limit });
            return Ok(false);
        }
        self.tables = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        usize::try_from(crate::engine::CORE_INSTANCES).unwrap_or(usize::MAX)
    }

    fn tables(&self) -> usize {
        usize::try_from(crate::engine::TABLES).unwrap_or(usize::MAX)
    }

    fn memories(&self) -> usize {
        usize::try_from(crate::engine::MEMORIES).unwrap_or(usize::MAX)
    }
}
