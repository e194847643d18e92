//! One call of a plugin: what it has used so far, and what it is allowed.
//!
//! A [`Call`] is the data of a wasmtime store. It is made for one call and dropped with it, so
//! nothing of one request can be seen by another.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline};

use crate::backend::Session;
use crate::engine::EPOCH_TICK;
use crate::fault::FaultKind;
use crate::limits::Limits;
use crate::meter::{Meter, millis};
use crate::request::Asked;
use crate::view::{HasView, View};

/// The state of one call.
pub(crate) struct Call {
    pub(crate) meter: Meter,
    memory: usize,
    tables: usize,
    /// Secrets that the guest holds handles of.
    pub(crate) table: ResourceTable,
    /// The request that a policy or a context provider is asked about, if the call has one.
    pub(crate) asked: Option<Asked>,
    /// The call's use of the target's backend, if it has one.
    pub(crate) session: Option<Box<dyn Session>>,
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
        let meter = Meter::new(plugin, limits);
        Self { meter, memory: 0, tables: 0, table, session: None, asked: None }
    }

    /// A store for this call, with its limits in force.
    pub(crate) fn into_store(self, engine: &wasmtime::Engine, pace: Pace) -> Store<Call> {
        let limit = match pace {
            Pace::Blocking | Pace::Gathering => self.meter.limits.policy_time,
            Pace::Yielding => self.meter.limits.driver_time,
        };
        let host_bytes = self.meter.limits.host_bytes;
        self.meter.track.begin();
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
            let Some(left) = limit.checked_sub(call.meter.track.used()).filter(|left| !left.is_zero()) else {
                call.meter.breach(FaultKind::Deadline { limit_ms: millis(limit) });
                return Ok(UpdateDeadline::Interrupt);
            };
            Ok(match pace {
                Pace::Blocking => UpdateDeadline::Continue(ticks(left)),
                Pace::Yielding | Pace::Gathering => UpdateDeadline::Yield(1),
            })
        });
        store
    }

    /// Turns the error of a call into what the plugin did.
    pub(crate) fn fault(&mut self, error: &wasmtime::Error) -> FaultKind {
        if let Some(kind) = self.meter.take_breach() {
            return kind;
        }
        classify(error, &self.meter.limits)
    }
}

impl HasView for Call {
    fn view(&mut self) -> View<'_> {
        View { meter: &mut self.meter, table: &mut self.table, session: self.session.as_deref_mut() }
    }
}

/// Drives a call that waits for no server on this thread. Nothing in it waits for anything but its own
/// next tick, so no executor is needed, and loading works inside and outside of one.
pub(crate) fn drive<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
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

/// Cumulative: `StoreLimits` of wasmtime bounds each memory alone, and a component may have many.
impl ResourceLimiter for Call {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_sub(current).saturating_add(desired);
        if total > self.meter.limits.memory_bytes {
            let limit = self.meter.limits.memory_bytes;
            self.meter.breach(FaultKind::Memory { limit });
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.tables.saturating_sub(current).saturating_add(desired);
        if total > self.meter.limits.table_elements {
            let limit = self.meter.limits.table_elements;
            self.meter.breach(FaultKind::Table { limit });
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
