//! The agent's process, watched from outside.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::surroundings;

/// How long anything of the agent may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// How agents of a test are started: which broker, which token.
#[derive(Clone)]
pub struct Agents {
    /// The broker's URL.
    pub broker: String,
    /// The token file.
    pub token: PathBuf,
}

/// A running agent. Dropped, it is killed.
pub struct AgentProcess {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Agents {
    /// The command for these arguments, with nothing but what a pod's specification would give it.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.become_by(Command::new(surroundings("JIT_TEST_AGENT")), arguments)
    }

    /// The same by a command that becomes the agent: the arguments are put behind its own.
    #[must_use]
    pub fn become_by(&self, mut command: Command, arguments: &[&str]) -> Command {
        command
            .args(arguments)
            .env("JIT_BROKER_URL", &self.broker)
            .env("JIT_TOKEN_FILE", &self.token)
            .env("NO_COLOR", "1")
            // What is asked of it is to be seen, however slow the machine is.
            .env("JIT_EXIT_GRACE", "30s")
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap_or_else(|error| panic!("cannot run the agent: {error}"))
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> AgentProcess {
        AgentProcess::start(self.command(arguments)).unwrap_or_else(|error| panic!("{error:#}"))
    }
}

impl AgentProcess {
    /// Starts a command.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start the agent")?;
        let stderr = child.stderr.take().context("no stderr")?;
        let log: Arc<Mutex<String>> = Arc::default();
        let into = Arc::clone(&log);
        // Reads to the end, so that the process never waits for us.
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = into.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        Ok(Self { child, log, reader: Some(reader) })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a signal by its name, such as `TERM`.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "no signal {name}");
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it does not end within two minutes.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_end()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it does not come within two minutes.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        self.try_wait_for_end().unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn try_wait_for_end(&mut self) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                // So that the log is whole.
                if let Some(reader) = self.reader.take() {
                    let _ = reader.join();
                }
                return Ok(status);
            }
            if begun.elapsed() > DEADLINE {
                bail!("the agent did not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the agent's log:\n{}", self.log());
        }
    }
}

/// `NAME=value` lines without quotes, as the agent writes them for the accounts of a world.
#[must_use]
pub fn variable(path: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

/// Names of the files in a folder, in order.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> =
        entries.flatten().map(|entry| OsStr::to_string_lossy(&entry.file_name()).into_owned()).collect();
    names.sort();
    names
}
