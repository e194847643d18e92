//! What one call has used so far, and what it may have done to the backend.
//!
//! Capabilities know this and not the call. They count what crosses between guest and host, and they
//! note whether the backend may have been changed: from that the host decides between refused and
//! unknown (THREE-OUTCOMES).

use jit_core::trace::OnBehalf;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::fault::FaultKind;
use crate::limits::Limits;

/// Counts one call against its limits.
pub(crate) struct Meter {
    /// The plugin's name, for its log lines and for what it keeps.
    pub(crate) plugin: Arc<str>,
    pub(crate) limits: Limits,
    /// For whom the call is made.
    pub(crate) on_behalf: OnBehalf,
    /// Shared with the future that drives the call, so that it can be read after the store is gone.
    pub(crate) track: Arc<Track>,
    /// The first limit that was broken. It says more than the trap that follows from it.
    breach: Option<FaultKind>,
    host_calls: u32,
    host_bytes: usize,
    log_lines: u32,
    muted: bool,
}

impl Meter {
    /// Of a call that begins.
    pub(crate) fn new(plugin: Arc<str>, limits: Limits) -> Self {
        let track = Arc::new(Track::default());
        Self {
            plugin,
            limits,
            on_behalf: OnBehalf::default(),
            track,
            breach: None,
            host_calls: 0,
            host_bytes: 0,
            log_lines: 0,
            muted: false,
        }
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

    /// The first limit that was broken, once.
    pub(crate) fn take_breach(&mut self) -> Option<FaultKind> {
        self.breach.take()
    }

    /// Whether the plugin wrote to the log.
    pub(crate) fn has_logged(&self) -> bool {
        self.log_lines > 0
    }

    /// Keeps lines out of the log from now on: an instance is prepared again, and said the same before.
    pub(crate) fn mute(&mut self) {
        self.muted = true;
    }

    /// The instance is prepared. What comes now has the limits of a call to itself, as it has on a copy.
    pub(crate) fn begin_call(&mut self) {
        (self.muted, self.log_lines, self.host_calls, self.host_bytes) = (false, 0, 0, 0);
        self.track.begin_call();
    }

    /// Whether lines stay out of the log.
    pub(crate) fn is_muted(&self) -> bool {
        self.muted
    }

    /// Whether it called the host for more than a line in the log.
    pub(crate) fn has_asked(&self) -> bool {
        self.host_calls > self.log_lines
    }

    /// Counts a line of the log. Returns its number, from 1.
    pub(crate) fn count_log_line(&mut self) -> u32 {
        self.log_lines = self.log_lines.saturating_add(1);
        self.log_lines
    }
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
    /// Why the caller's verifier could not be placed.
    unfit: OnceLock<String>,
}

impl Track {
    /// Notes why the caller's verifier could not be placed, in words fit for the caller. The first reason stays.
    pub(crate) fn set_unfit(&self, reason: String) {
        let _first_stays = self.unfit.set(reason);
    }

    /// Why the caller's verifier could not be placed, if it could not.
    pub(crate) fn unfit(&self) -> Option<&str> {
        self.unfit.get().map(String::as_str)
    }

    /// Guest time so far, as seen by the thread that runs the guest now.
    pub(crate) fn used(&self) -> Duration {
        let began = self.poll_began.load(Ordering::Relaxed);
        let all = self.spent.load(Ordering::Relaxed) + thread_time().saturating_sub(began);
        Duration::from_nanos(all.saturating_sub(self.host.load(Ordering::Relaxed)))
    }

    /// Notes that the guest runs from now on.
    pub(crate) fn begin(&self) {
        self.poll_began.store(thread_time(), Ordering::Relaxed);
    }

    /// Notes that the guest's time counts from now on.
    fn begin_call(&self) {
        self.spent.store(0, Ordering::Relaxed);
        self.host.store(0, Ordering::Relaxed);
        self.begin();
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

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
