//! The engine: one for the process.
//!
//! Configured for a fresh instance per call: slots for instances are allocated once and reused
//! (pooling allocator), a thread moves the epoch on so that guests can be stopped, and the Wasm
//! proposals that no plugin needs are off.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::{CacheStore, Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::cache::{CacheError, CompileCache, CompileWatch};
use crate::fault::FaultKind;
use crate::limits::Limits;
use crate::snapshot::{Snapshots, Worker};
use jit_core::driver::Lane;

/// How often guests are looked at: guest time is exact to one tick.
pub const EPOCH_TICK: Duration = Duration::from_millis(5);

/// Driver calls that may run for removals when live calls hold every other slot.
const REMOVAL_CALLS: u32 = 8;

/// Policy calls at once. They run on the caller's thread for microseconds.
const POLICY_CALLS: u32 = 64;

/// Context calls at once. They may wait for a server; further ones wait within their own deadline.
const CONTEXT_CALLS: u32 = 32;

/// Core instances of one component (a component is linked of several; one with CPython in it of forty).
pub(crate) const CORE_INSTANCES: u32 = 64;
/// Linear memories of one component.
pub(crate) const MEMORIES: u32 = 2;
/// Tables of one component.
pub(crate) const TABLES: u32 = 4;

/// How the runtime is set up.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// Where compiled plugins are kept. Made with mode 0700 when missing; refused when it belongs
    /// to another user or others may enter it.
    pub cache_dir: PathBuf,
    /// The limits of each call.
    pub limits: Limits,
    /// Driver calls at once. Further ones wait within their own deadline.
    pub max_concurrent_calls: usize,
    /// Whether policies remember what they decided ([`crate::ConfiguredPolicy`]). Answers are the same without.
    pub remember: bool,
    /// When snapshots of prepared policies and context providers are taken. Answers are the same without.
    pub snapshots: Snapshots,
    /// Who hears of compilations.
    pub watch: Arc<dyn CompileWatch>,
}

/// Why the runtime cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// An option is out of range.
    #[error("{0}")]
    Options(String),
    /// The engine does not start on this machine.
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(String),
    /// The thread that stops guests does not start.
    #[error("the epoch thread does not start")]
    Thread(#[source] std::io::Error),
    /// The compile cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What loaded plugins share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    pub(crate) cache: CompileCache,
    pub(crate) remember: bool,
    pub(crate) snapshots: Snapshots,
    calls: u32,
    /// Takes snapshots in the background.
    pub(crate) worker: Worker,
    live: Semaphore,
    removal: Semaphore,
    policy: Semaphore,
    context: Semaphore,
    /// Held while a plugin that is being loaded runs.
    pub(crate) trial: Mutex<()>,
    left_behind: AtomicU64,
}

impl Core {
    /// Starts the engine and its ticker thread and opens the compile cache.
    ///
    /// # Errors
    /// As [`crate::Runtime::new`].
    pub(crate) fn new(options: RuntimeOptions) -> Result<Self, RuntimeError> {
        let calls = u32::try_from(options.max_concurrent_calls)
            .ok()
            .filter(|calls| (1..=1_024).contains(calls))
            .ok_or_else(|| RuntimeError::Options("max_concurrent_calls must be 1 to 1024".to_owned()))?;
        let engine =
            Engine::new(&config(&options.limits, calls)).map_err(|e| RuntimeError::Engine(format!("{e:#}")))?;
        start_ticker(&engine).map_err(RuntimeError::Thread)?;
        let cache = CompileCache::open(&options.cache_dir, &engine, options.watch)?;
        Ok(Self {
            engine,
            limits: options.limits,
            cache,
            remember: options.remember,
            snapshots: options.snapshots,
            calls,
            worker: Worker::default(),
            live: Semaphore::new(options.max_concurrent_calls),
            removal: Semaphore::new(REMOVAL_CALLS as usize),
            policy: Semaphore::new(POLICY_CALLS as usize),
            context: Semaphore::new(CONTEXT_CALLS as usize),
            trial: Mutex::new(()),
            left_behind: AtomicU64::new(0),
        })
    }

    /// Compiles a component with functions from there, and writes down there what was compiled.
    ///
    /// # Errors
    /// As [`Engine::precompile_component`].
    pub(crate) fn precompile_with(&self, store: Arc<dyn CacheStore>, bytes: &[u8]) -> wasmtime::Result<Vec<u8>> {
        self.compiler(store)?.precompile_component(bytes)
    }

    /// An engine that only compiles.
    fn compiler(&self, store: Arc<dyn CacheStore>) -> wasmtime::Result<Engine> {
        let mut config = config(&self.limits, self.calls);
        // Nothing runs in this engine: it needs no pool.
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        config.enable_incremental_compilation(store)?;
        Engine::new(&config)
    }

    /// Room for a policy call, now or not at all: its caller's thread must not block.
    pub(crate) fn policy_slot(&self) -> Result<SemaphorePermit<'_>, FaultKind> {
        self.policy.try_acquire().map_err(|_| FaultKind::Overloaded)
    }

    /// Room for a context call; waits.
    pub(crate) async fn context_slot(&self) -> Result<SemaphorePermit<'_>, FaultKind> {
        // Never closed, so this cannot fail but by a defect.
        self.context.acquire().await.map_err(|_| FaultKind::Overloaded)
    }

    /// Room for a driver call; waits.
    pub(crate) async fn driver_slot(&self, lane: Lane) -> Result<SemaphorePermit<'_>, FaultKind> {
        let semaphore = match lane {
            Lane::Live => &self.live,
            // A removal takes a live slot when there is one, and has its own when there is none.
            Lane::Removal => match self.live.try_acquire() {
                Ok(permit) => return Ok(permit),
                Err(_) => &self.removal,
            },
        };
        // Never closed, so this cannot fail but by a defect.
        semaphore.acquire().await.map_err(|_| FaultKind::Overloaded)
    }

    /// How many handles were still held after calls had ended well.
    pub(crate) fn left_behind(&self) -> u64 {
        self.left_behind.load(Ordering::Relaxed)
    }

    pub(crate) fn count_left_behind(&self, handles: usize) {
        self.left_behind.fetch_add(u64::try_from(handles).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The engine's configuration for so many concurrent driver calls.
fn config(limits: &Limits, calls: u32) -> Config {
    // Four more than can run at once: loading a plugin runs a few calls of its own.
    let fibers = calls + REMOVAL_CALLS + CONTEXT_CALLS + 4;
    let slots = fibers + POLICY_CALLS;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_stacks(fibers)
        // Only counted: nothing is set aside for them.
        .total_core_instances(slots * CORE_INSTANCES)
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_memories(slots * 2)
        .max_memories_per_component(MEMORIES)
        .max_memories_per_module(MEMORIES)
        .total_tables(slots * 2)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES)
        .max_memory_size(limits.memory_bytes)
        .table_elements(limits.table_elements)
        // Kept in place for the next call, so that it costs no page faults; times the slots that
        // were in use at once, this is what bounds resident memory.
        .linear_memory_keep_resident(kept_resident())
        .table_keep_resident(8 << 10)
        .async_stack_keep_resident(32 << 10)
        // Slots bound to a plugin that is not in use now are given to another early.
        .max_unused_warm_slots(16)
        .pagemap_scan(Enabled::Auto);

    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .wasm_component_model(true)
        // No async-lifted exports and no streams: less to trust, and faster calls.
        .concurrency_support(false)
        .epoch_interruption(true)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        .wasm_stack_switching(false)
        // The same bits on every machine: a decision can be replayed elsewhere (PURE-POLICY).
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // Traps are told by name; where in the code they were is for the plugin's own tests.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false);
    config
}

/// Opens this process's own page map, which tells an engine which pages a guest wrote. Whether that can be had
/// (`PAGEMAP_SCAN`, Linux 6.7). What the first call finds holds for the process: a process that then forbids others to
/// look into it may not open the file any longer, unless it is root's.
#[must_use]
pub fn open_page_map() -> bool {
    PoolingAllocationConfig::is_pagemap_scan_available()
}

/// Bytes of a linear memory that stay with its slot between calls.
///
/// Where the kernel tells which pages were written ([`open_page_map`]), only those are put back, and an
/// interpreter that touches megabytes saves its page faults. Elsewhere all of it is put back at each call: a small
/// part then costs less than the faults would, and a large part more.
fn kept_resident() -> usize {
    if open_page_map() { 32 << 20 } else { 64 << 10 }
}

/// Moves the epoch on until the engine is gone.
fn start_ticker(engine: &Engine) -> Result<(), std::io::Error> {
    let weak = engine.weak();
    std::thread::Builder::new().name("plugin-epoch".to_owned()).spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(EPOCH_TICK);
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    use super::*;

    /// Compiled code is shared by all configurations of one user, and a bound on memory or calls compiles nothing again.
    #[test]
    fn compiled_code_does_not_depend_on_the_limits() {
        let hash = |limits: &Limits, calls| {
            let engine = Engine::new(&config(limits, calls)).unwrap();
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let usual = Limits::default();
        let other = Limits {
            memory_bytes: usual.memory_bytes / 2,
            policy_time: usual.policy_time * 3,
            driver_time: usual.driver_time * 3,
            ..usual
        };
        assert_eq!(hash(&usual, 128), hash(&other, 7));
    }

    /// What one engine compiles with kept functions, the other runs.
    #[test]
    fn compiled_code_does_not_depend_on_the_pool_or_the_store() {
        #[derive(Debug)]
        struct Nothing;
        impl CacheStore for Nothing {
            fn get(&self, _: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
                None
            }
            fn insert(&self, _: &[u8], _: Vec<u8>) -> bool {
                false
            }
        }
        let hash = |engine: &Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let folder = tempfile::tempdir().unwrap();
        let core = Core::new(RuntimeOptions {
            cache_dir: folder.path().join("cache"),
            limits: Limits::default(),
            max_concurrent_calls: 8,
            remember: false,
            snapshots: Snapshots::Off,
            watch: Arc::new(crate::cache::LogCompilations),
        })
        .unwrap();
        assert_eq!(hash(&core.engine), hash(&core.compiler(Arc::new(Nothing)).unwrap()));
    }
}
