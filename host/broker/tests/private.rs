//! What nobody may see of the broker's memory, and what it still sees itself. A file of its own, and one test: both are
//! the process's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

/// `nobody`, on every Linux.
const NOBODY: u32 = 65_534;

#[test]
fn memory_is_not_dumped_and_a_user_who_is_not_root_still_sees_which_pages_were_written() {
    jit_broker::memory::keep_private();
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    let core = getrlimit(Resource::Core);
    assert_eq!((core.current, core.maximum), (Some(0), Some(0)));

    // Of this thread alone, which then is like a broker that another user runs.
    let seen = std::thread::spawn(|| {
        #[allow(
            unsafe_code,
            reason = "the system call changes this thread alone; the C library's function changes all"
        )]
        // SAFETY: setresuid(2) takes three numbers and reads no memory of ours.
        let _refused_unless_root = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        if rustix::process::geteuid().is_root() {
            return None;
        }
        assert!(std::fs::File::open("/proc/self/pagemap").is_err(), "this system forbids nothing: nothing is shown");
        Some(jit_runtime::open_page_map())
    });
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let numbers: Vec<u32> = release.split(['.', '-']).map_while(|number| number.parse().ok()).collect();
    match seen.join().unwrap() {
        Some(seen) => assert_eq!(seen, numbers >= vec![6, 7], "on Linux {release}"),
        None => eprintln!("left out: this process stays root"),
    }
}
