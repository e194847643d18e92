//! The bound on the C library's pools. A file of its own, and one test: the pools are the process's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::sync::Barrier;
use std::thread;

/// More than the eight for each processor that glibc would make on a machine of the suite.
const THREADS: usize = 64;
/// Where a pool of glibc begins, in 64-bit processes: HEAP_MAX_SIZE of malloc/arena.c.
const ALIGNED: usize = 64 * 1024 * 1024;

#[test]
fn many_threads_share_few_pools() {
    let most = jit_broker::memory::bound_pools();
    let all_hold_some = Barrier::new(THREADS);
    let counted = thread::scope(|scope| {
        let hold = || {
            let memory = vec![1_u8; 1000];
            all_hold_some.wait();
            let counted = pools();
            all_hold_some.wait();
            assert_eq!(memory[999], 1);
            counted
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(hold)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    });
    // The first pool is the heap of the process, which does not begin at a multiple.
    assert!(counted < most, "{counted} pools beside the heap, and {most} are allowed with it");
    assert!(counted > 0, "no pool is seen: /proc/self/maps does not look as this test expects");
}

/// Anonymous writable mappings that begin where only a pool begins.
fn pools() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_pool = |line: &&str| {
        let mut fields = line.split_whitespace();
        let start = fields.next().and_then(|range| range.split('-').next()).unwrap();
        let writable = fields.next() == Some("rw-p");
        writable && fields.nth(3).is_none() && usize::from_str_radix(start, 16).unwrap().is_multiple_of(ALIGNED)
    };
    maps.lines().filter(is_pool).count()
}
