//! A server's process: started, waited for, ended, whatever becomes of whoever started it.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use super::place::Place;

/// How long a shutdown may take before the server is killed.
pub(super) const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How often something is looked at.
const POLL: Duration = Duration::from_millis(25);

/// Ends a server, and removes its folder if one is named, when its input ends without a line: as it
/// does when the process that started the server dies, however it dies.
const WATCHDOG: &str = r#"
read -r _ && exit 0
kill -"$1" "$2" 2>/dev/null
tries=0
while kill -0 "$2" 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -KILL "$2" 2>/dev/null
[ -z "$3" ] || rm -rf -- "$3"
"#;

/// Ends a server when the process that started it dies.
pub(super) struct Watchdog {
    shell: Child,
    input: Option<ChildStdin>,
}

impl Watchdog {
    /// Watches over a process, to be ended with that signal; the folder goes with it.
    pub(super) fn start(pid: u32, signal: &str, folder: Option<&Path>) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", WATCHDOG, "sh", signal, &pid.to_string()])
            .arg(folder.unwrap_or_else(|| Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start a shell")?;
        let input = shell.stdin.take();
        Ok(Self { shell, input })
    }

    /// The server has ended, or is to stay.
    pub(super) fn dismiss(mut self) {
        if let Some(mut input) = self.input.take() {
            // If it is gone, there is nobody to dismiss.
            let _ = input.write_all(b"done\n");
        }
        let _ = self.shell.wait();
    }
}

/// A running server process. Dropped, it is stopped.
pub(super) struct Daemon {
    what: &'static str,
    process: Option<Child>,
    watchdog: Option<Watchdog>,
}

impl Daemon {
    /// Starts it in a process group of its own: Ctrl-C reaches whoever started it, and the watchdog
    /// then ends it.
    pub(super) fn start(what: &'static str, command: &mut Command, place: &Place) -> Result<Self> {
        place.prepare(command)?;
        Self::start_prepared(what, command, place)
    }

    /// As [`Self::start`], with a command that [`Place::prepare`] was applied to and whose environment
    /// was then added to.
    pub(super) fn start_prepared(what: &'static str, command: &mut Command, place: &Place) -> Result<Self> {
        let process = command.process_group(0).spawn().with_context(|| format!("cannot start {what}"))?;
        let pid = process.id();
        let mut daemon = Self { what, process: Some(process), watchdog: None };
        daemon.watchdog = Some(Watchdog::start(pid, "TERM", Some(place.folder()))?);
        Ok(daemon)
    }

    /// Waits until `ready` says so; asks often.
    pub(super) fn wait_ready(&mut self, deadline: Duration, place: &Place, ready: impl Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < deadline {
            if let Some(status) = self.ended()? {
                bail!("{} ended at its start ({status})\n{}", self.what, place.log_tail());
            }
            if ready() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("{} is not ready after {deadline:?}\n{}", self.what, place.log_tail())
    }

    /// Whether it still runs; an error when it has ended by itself.
    pub(super) fn check(&mut self, place: &Place) -> Result<()> {
        match self.ended()? {
            Some(status) => bail!("{} has ended ({status})\n{}", self.what, place.log_tail()),
            None => Ok(()),
        }
    }

    /// How it ended, if it did by itself.
    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.process {
            Some(process) => Ok(process.try_wait()?),
            None => bail!("{} does not run", self.what),
        }
    }

    /// Its process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Leaves it running when this value goes: its watchdog is dismissed. Gives its process id.
    pub(super) fn detach(mut self) -> Option<u32> {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss();
        }
        self.process.take().map(|process| process.id())
    }

    /// Asks it to end, with a signal (`TERM`); kills it if it does not in time.
    pub(super) fn stop(&mut self, name: &str) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let stopped = signal(&process, name).and_then(|()| wait(&mut process, STOP_DEADLINE));
        let in_time = matches!(stopped, Ok(Some(_)));
        if !in_time {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss();
        }
        if in_time { Ok(()) } else { Err(anyhow!("{} had to be killed", self.what)) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A failure here has nowhere to go; the server is killed in that case.
        let _ = self.stop("TERM");
    }
}

/// Sends a signal; std has none but KILL, and every shell has `kill`.
pub(super) fn signal(process: &Child, name: &str) -> Result<()> {
    let status = Command::new("sh")
        .args(["-c", "kill -\"$1\" \"$2\"", "sh", name])
        .arg(process.id().to_string())
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(anyhow!("process {} is gone", process.id())) }
}

/// Waits for a process to end; none when it still runs at the deadline.
pub(super) fn wait(process: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    #[test]
    fn a_watchdog_whose_starter_is_gone_ends_the_server_and_removes_its_folder() {
        let mut server = sleeper();
        let folder = tempfile::tempdir().unwrap();
        let mut watchdog = Watchdog::start(server.id(), "TERM", Some(folder.path())).unwrap();
        // What the end of this process would do.
        drop(watchdog.input.take());
        assert!(wait(&mut server, STOP_DEADLINE).unwrap().is_some());
        assert!(wait(&mut watchdog.shell, STOP_DEADLINE).unwrap().is_some());
        assert!(!folder.path().exists());
    }

    #[test]
    fn a_dismissed_watchdog_does_nothing() {
        let mut server = sleeper();
        let folder = tempfile::tempdir().unwrap();
        Watchdog::start(server.id(), "TERM", Some(folder.path())).unwrap().dismiss();
        assert!(server.try_wait().unwrap().is_none());
        assert!(folder.path().exists());
        server.kill().unwrap();
        server.wait().unwrap();
    }

    #[test]
    fn a_detached_server_and_its_folder_stay() {
        let mut place = Place::new("test", crate::servers::place::RunAs::Unprivileged).unwrap();
        let daemon = Daemon::start("it", Command::new("sleep").arg("600"), &place).unwrap();
        place.keep();
        let folder = place.folder().to_owned();
        let pid = daemon.detach().unwrap();
        drop(place);
        // Of a process that has ended, and that nobody waited for, this is empty.
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(line.starts_with("sleep") && folder.exists());
        assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_server_that_ends_at_its_start_says_why() {
        let place = Place::new("test", crate::servers::place::RunAs::Unprivileged).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such option; exit 3"]);
        let mut daemon = Daemon::start("it", &mut command, &place).unwrap();
        let error = daemon.wait_ready(STOP_DEADLINE, &place, || false).unwrap_err().to_string();
        assert!(error.contains("it ended at its start") && error.contains("no such option"), "{error}");
    }
}
