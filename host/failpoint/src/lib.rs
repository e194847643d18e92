//! Named failpoints, for the fault suite.
//!
//! A step of the pipeline that can be lost runs as [`step`]. In a release nothing is there: the
//! step is awaited and that is all. With the `failpoints` feature, `JIT_FAILPOINTS` arms points:
//!
//! ```text
//! JIT_FAILPOINTS="issue.create=lost; store.commit=crash-after#3"
//! ```
//! | action | what happens |
//! |---|---|
//! | `fail` | the step is not done, and fails |
//! | `lost` | the step is done, and fails all the same |
//! | `crash-before` | the process kills itself (SIGKILL) in place of the step |
//! | `crash-after` | the process kills itself once the step is done |
//! | `stall` | the step takes a second longer |
//! | `panic` | the code panics in place of the step |
//!
//! `#3` arms the third time the point is passed and only that; without it, every time.

/// Every point, in the order of the pipeline. The suite goes through this list: a point that is
/// not here cannot be armed, one that is here and never reached fails the suite.
pub const POINTS: &[&str] = &[
    "issue.intend",
    "issue.create",
    "issue.settle",
    "issue.disclose",
    "replay.rotate",
    "replay.record",
    "renew.driver",
    "renew.record",
    "revoke.begin",
    "revoke.driver",
    "revoke.record",
    "removal.pass",
    "rotation.begin",
    "rotation.stage",
    "rotation.commit",
    "rotation.record",
    "rotation.discard",
    "rotation.close",
    "rotation.grant",
    "rotation.regrant",
    "store.commit",
];

/// Whether this build has failpoints. `--version` and the log say so.
pub const COMPILED_IN: bool = cfg!(feature = "failpoints");

/// Runs a step through its failpoint. `error` makes the error of a step that is said to have failed.
pub async fn step<T, E>(
    name: &'static str,
    error: impl FnOnce() -> E,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    debug_assert!(POINTS.contains(&name), "the failpoint {name} is not listed");
    #[cfg(feature = "failpoints")]
    {
        use armed::Action;
        match armed::action(name) {
            None => work.await,
            Some(Action::Fail) => Err(error()),
            Some(Action::Lost) => work.await.and_then(|_| Err(error())),
            Some(Action::CrashBefore) => armed::crash(name),
            Some(Action::CrashAfter) => {
                let _ = work.await;
                armed::crash(name)
            }
            Some(Action::Stall) => {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                work.await
            }
            Some(Action::Panic) => panic!("failpoint {name}"),
        }
    }
    #[cfg(not(feature = "failpoints"))]
    {
        drop(error);
        work.await
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::HashMap;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Clone, Copy)]
    pub(super) enum Action {
        Fail,
        Lost,
        CrashBefore,
        CrashAfter,
        Stall,
        Panic,
    }

    struct Point {
        action: Action,
        /// The one pass that counts; none: all.
        only: Option<u64>,
        passes: AtomicU64,
    }

    static POINTS: LazyLock<HashMap<String, Point>> =
        LazyLock::new(|| parse(&std::env::var("JIT_FAILPOINTS").unwrap_or_default()));

    /// Unknown points and actions stop the process: a fault test that arms nothing tests nothing.
    fn parse(text: &str) -> HashMap<String, Point> {
        let mut points = HashMap::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, rest) = part.split_once('=').unwrap_or((part, ""));
            let (word, only) = match rest.split_once('#') {
                Some((word, count)) => (word, count.parse().ok()),
                None => (rest, None),
            };
            let action = match word {
                "fail" => Action::Fail,
                "lost" => Action::Lost,
                "crash-before" => Action::CrashBefore,
                "crash-after" => Action::CrashAfter,
                "stall" => Action::Stall,
                "panic" => Action::Panic,
                _ => panic!("JIT_FAILPOINTS: no action in {part:?}"),
            };
            assert!(super::POINTS.contains(&name), "JIT_FAILPOINTS: no failpoint {name:?}");
            points.insert(name.to_owned(), Point { action, only, passes: AtomicU64::new(0) });
        }
        points
    }

    pub(super) fn action(name: &str) -> Option<Action> {
        let point = POINTS.get(name)?;
        let pass = point.passes.fetch_add(1, Ordering::SeqCst) + 1;
        let counts = point.only.is_none_or(|only| only == pass);
        if counts {
            tracing::warn!(failpoint = name, pass, "failpoint reached");
        }
        counts.then_some(point.action)
    }

    /// SIGKILL to ourselves: nothing is flushed, no destructor runs, as with `kill -9`.
    pub(super) fn crash(name: &str) -> ! {
        tracing::warn!(failpoint = name, "killing this process");
        let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_an_armed_point_a_step_is_just_done() {
        let done: Result<u8, ()> = step("issue.create", || (), async { Ok(7) }).await;
        assert_eq!(done, Ok(7));
    }
}
