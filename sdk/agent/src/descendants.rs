//! What the command of `exec` starts and leaves behind.
//!
//! A process whose parent ends gets another parent: process 1, or the nearest ancestor that has asked for it. The
//! agent is the one or asks to be the other. So it waits for whatever ends, or the dead would fill the table of
//! processes; and it ends what goes on after the command, since the credential is given back then.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jit_client::children::waited_for;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, pidfd_send_signal, set_child_subreaper,
    waitpid,
};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::Instant;

use crate::error::AgentError;

/// Between two looks at what has not ended yet, doubled, at most the second.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// How long a killed process may take to be gone: one in the middle of a disk's answer is not gone at once.
const GONE: Duration = Duration::from_secs(5);

/// A line of the table of processes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    /// It has ended, and nobody has waited for it yet.
    ended: bool,
    /// When it started, in ticks since the machine did: with the number, this names one process for good.
    started: u64,
}

/// Waits for whatever ends, from now on.
pub(crate) struct Reaper(unix::Signal);

impl Reaper {
    /// From here on no end is missed.
    pub(crate) fn listen() -> Result<Self, AgentError> {
        unix::signal(SignalKind::child()).map(Self).map_err(|error| AgentError::Config(format!("no signals: {error}")))
    }

    /// Asks for the orphans among the descendants, as process 1 gets them anyway.
    pub(crate) fn adopt_orphans(&self) {
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            tracing::warn!(%error, "what the command leaves behind does not come to the agent");
        }
        if table().is_empty() {
            tracing::warn!(
                "/proc is not there, or not of this PID namespace: what the command leaves behind is not seen"
            );
        }
    }

    /// Never ends.
    pub(crate) async fn run(mut self) {
        loop {
            reap();
            if self.0.recv().await.is_none() {
                return std::future::pending().await;
            }
        }
    }
}

/// Waits for all children that have ended, but for those that somebody else waits for.
fn reap() {
    let ours = own();
    for process in table().iter().filter(|process| process.ended && process.parent == ours) {
        if !is_waited_for(process.pid)
            && let Some(pid) = Pid::from_raw(process.pid)
        {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Ends all descendants: SIGTERM, and SIGKILL to what is left at the deadline. Waits until they are gone.
pub(crate) async fn end(deadline: Instant) {
    let (mut told, mut said) = (BTreeSet::new(), false);
    let mut wait = LOOK_AGAIN.0;
    loop {
        reap();
        let left = living(&table(), own());
        if left.is_empty() {
            return;
        }
        let now = Instant::now();
        if now >= deadline + GONE {
            tracing::error!("{} processes that the command left do not end, although they were killed", left.len());
            return;
        }
        if !said {
            said = true;
            tracing::info!("the command has left {} processes; they end with it", left.len());
        }
        for process in &left {
            if now >= deadline {
                send(process, Signal::KILL);
            } else if told.insert((process.pid, process.started)) {
                send(process, Signal::TERM);
            }
        }
        tokio::time::sleep(wait.min(deadline.saturating_duration_since(now).max(LOOK_AGAIN.0))).await;
        wait = (wait * 2).min(LOOK_AGAIN.1);
    }
}

/// Sends a signal to a process that was seen, and to no other that has got its number since.
fn send(process: &Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    let sent = match pidfd_open(pid, PidfdFlags::empty()) {
        // Opened before it is looked at again: what is signalled is what was looked at.
        Ok(handle) if one(process.pid).is_some_and(|now| now.started == process.started) => {
            pidfd_send_signal(handle, signal)
        }
        // A child's number is its own until it was waited for.
        Err(Errno::NOSYS) if process.parent == own() => kill_process(pid, signal),
        _ => return,
    };
    match sent {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => tracing::warn!(%error, pid = process.pid, "a process that the command left cannot be ended"),
    }
}

fn own() -> i32 {
    getpid().as_raw_nonzero().get()
}

fn is_waited_for(pid: i32) -> bool {
    u32::try_from(pid).is_ok_and(|pid| waited_for().contains(&pid))
}

/// All processes that can be seen; none where `/proc` is not there, or is that of another namespace, whose numbers
/// are other processes.
fn table() -> Vec<Process> {
    if std::fs::read_link("/proc/self").is_ok_and(|this| this == Path::new(&own().to_string())) {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| one(entry.file_name().to_str()?.parse().ok()?)).collect()
    } else {
        Vec::new()
    }
}

fn one(pid: i32) -> Option<Process> {
    parsed(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `PID (NAME) STATE PARENT …`: a name may hold anything, blanks and brackets too.
fn parsed(pid: i32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
    // Field 22; the name's bracket ends field 2, and 3 and 4 are read.
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, ended: matches!(state, "Z" | "X"), started })
}

/// The descendants of a process that have not ended, without those that somebody else waits for.
fn living(table: &[Process], of: i32) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        for process in table.iter().filter(|process| process.parent == parent && process.pid != parent) {
            if !is_waited_for(process.pid) && !found.contains(process) {
                parents.push(process.pid);
                found.push(process.clone());
            }
        }
    }
    found.retain(|process| !process.ended);
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whatever_a_process_is_called() {
        let line = "17 (a) Z 1 (b) S 4 17 17 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        assert_eq!(parsed(17, line), Some(Process { pid: 17, parent: 4, ended: false, started: 98_765 }));
        assert_eq!(parsed(17, "17 (a) Z"), None);
        let this = one(own()).unwrap();
        assert!(!this.ended && this.started > 0 && table().contains(&this));
    }

    #[test]
    fn descendants_are_found_below_what_lives_and_what_has_ended() {
        let process = |pid, parent, ended| Process { pid, parent, ended, started: 1 };
        let table = [
            process(1, 0, false),
            process(5, 1, true),
            process(6, 5, false),
            process(7, 2, false),
            process(2, 1, false),
        ];
        let mut found: Vec<i32> = living(&table, 1).iter().map(|process| process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [2, 6, 7]);
        assert_eq!(living(&table, 7), []);
    }

    #[test]
    fn a_number_that_is_another_process_by_now_is_not_signalled() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let seen = one(i32::try_from(child.id()).unwrap()).unwrap();
        send(&Process { started: seen.started + 1, ..seen.clone() }, Signal::KILL);
        assert!(child.try_wait().unwrap().is_none());
        send(&seen, Signal::KILL);
        assert!(!child.wait().unwrap().success());
    }
}
