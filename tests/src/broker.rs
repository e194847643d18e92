//! A broker process: `jit-broker dev` with a configuration, watched from outside.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long a start may take.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// A running broker. Dropped, it is killed.
pub struct BrokerProcess {
    child: Child,
    /// Where it serves.
    pub broker: String,
    /// Where its embedded issuer is.
    pub issuer: String,
    log: PathBuf,
}

impl BrokerProcess {
    /// Starts a binary in dev mode and waits until it serves. Its log goes to `log`, appended.
    ///
    /// # Errors
    /// When it does not come up; with the end of its log.
    pub fn start(binary: &Path, config: &Path, issuer: &str, env: &[(&str, &str)], log: &Path) -> Result<Self> {
        Self::start_by(Command::new(binary), config, issuer, env, log)
    }

    /// The same through a command that becomes the broker: the arguments are put behind its own.
    ///
    /// # Errors
    /// When it does not come up; with the end of its log.
    pub fn start_by(
        mut command: Command,
        config: &Path,
        issuer: &str,
        env: &[(&str, &str)],
        log: &Path,
    ) -> Result<Self> {
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let shown = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .args(["dev", "--config"])
            .arg(config)
            .args(["--issuer", issuer])
            // All workloads of a test are in one namespace.
            .args(["--workload", "{kubernetes.io.serviceaccount.name}"])
            .env_remove("JIT_FAILPOINTS")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {shown}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (send, lines) = std::sync::mpsc::channel();
        // Reads to the end, so that the process never waits for us.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let (mut broker, mut issuer) = (None, None);
        let begun = Instant::now();
        while broker.is_none() || issuer.is_none() {
            match lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => match line.split_once(' ') {
                    Some(("broker", address)) => broker = Some(address.trim().to_owned()),
                    Some(("issuer", address)) => issuer = Some(address.trim().to_owned()),
                    _ => {}
                },
                Err(_) => {
                    let ended = child.try_wait()?;
                    if ended.is_some() || begun.elapsed() > START_DEADLINE {
                        let _ = child.kill();
                        bail!("the broker did not come up ({ended:?}):\n{}", tail(log));
                    }
                }
            }
        }
        let (Some(broker), Some(issuer)) = (broker, issuer) else { bail!("no address") };
        Ok(Self { child, broker, issuer, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    ///
    /// # Errors
    /// When it is not there.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end within a minute.
    pub fn stop(&mut self) -> Result<std::process::ExitStatus> {
        Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        self.wait_for_end(Duration::from_secs(60))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait_for_end(&mut self, patience: Duration) -> Result<std::process::ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > patience {
                bail!("the broker did not end within {patience:?}:\n{}", tail(&self.log));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Everything it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the broker's log ends with:\n{}", tail(&self.log));
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
