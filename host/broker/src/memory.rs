//! How the process asks the system for memory, and who may look into it.

use std::thread::available_parallelism;

/// Fewest pools: a thread that allocates while another one does finds one that is free.
const FEWEST: usize = 2;

/// The most pools that the C library makes from here on. Call it before the first thread starts.
///
/// glibc makes a pool ("arena") for each thread that finds the others busy, up to eight for each processor, and a pool
/// keeps the pages that it once used. A broker has threads for SQLite, for compiling and for names, which work seldom:
/// each of their pools held pages for nothing. One pool for each processor lets all that can run at once allocate at
/// once. Another C library, such as musl's, has no such pools, and nothing is done.
pub fn bound_pools() -> usize {
    let most = available_parallelism().map_or(FEWEST, usize::from).max(FEWEST);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code, reason = "std has no name for it; held by tests/memory.rs")]
    // SAFETY: mallopt(3) takes two numbers and reads no memory of ours. The manual allows it at any time in a process
    // with one thread, and main calls it first.
    let _accepted = unsafe { libc::mallopt(libc::M_ARENA_MAX, i32::try_from(most).unwrap_or(i32::MAX)) };
    most
}

/// No other process of the user may look into this one from here on, and no crash writes its memory to a disk: it holds
/// passwords. A system that refuses is reported, and does not stop the command. Call it first.
pub fn keep_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // Its own page map it must open before: afterwards the file belongs to root.
    let _seen = jit_runtime::open_page_map();
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    let dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = dumpable.and_then(|()| setrlimit(Resource::Core, no_core)) {
        eprintln!("jit-broker: a crash could write this process's memory to a disk: {error}");
    }
}
