//! Processes that somebody here waits for.
//!
//! A program that runs as process 1, or as its descendants' reaper, waits for whatever ends. What is named here it
//! leaves alone: whoever started it wants to know how it ended.

use std::sync::{Mutex, PoisonError};

static WAITED_FOR: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// A process that somebody waits for, as long as this value lives.
#[derive(Debug)]
pub struct Waited(Option<u32>);

impl Waited {
    /// A process, right after it was started: nothing may reap in between. None is one that has ended already.
    #[must_use]
    pub fn of(pid: Option<u32>) -> Self {
        all().extend(pid);
        Self(pid)
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        let mut all = all();
        if let Some(index) = self.0.and_then(|pid| all.iter().position(|other| *other == pid)) {
            all.swap_remove(index);
        }
    }
}

/// The processes that somebody waits for now.
#[must_use]
pub fn waited_for() -> Vec<u32> {
    all().clone()
}

fn all() -> std::sync::MutexGuard<'static, Vec<u32>> {
    WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_as_long_as_somebody_waits_for_it() {
        // No process has such numbers: the system's highest is 2^22.
        let (first, second) = (Waited::of(Some(4_000_000_001)), Waited::of(Some(4_000_000_002)));
        drop(Waited::of(None));
        assert!(waited_for().contains(&4_000_000_001) && waited_for().contains(&4_000_000_002));
        drop(first);
        assert!(!waited_for().contains(&4_000_000_001) && waited_for().contains(&4_000_000_002));
        drop(second);
        assert!(!waited_for().contains(&4_000_000_002));
    }
}
