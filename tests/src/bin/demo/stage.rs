//! What the story is played on: a backend's servers and a broker, and how all of them end.
//!
//! Three ways lead to their end: the demo stops them; watchdogs do when the demo dies, however it
//! does (each server has its own, the broker's is here); and the next demo finds what is left in
//! `demo.json`, where a demo that was kept is too.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use xtask::steps::Steps;

use crate::backend::{Backend, Process};
use crate::config::{self, Terms};

/// How long the broker may take to start.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a process may take to end after it was asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// How much of the broker's log an error shows, in lines.
const LOG_TAIL: usize = 30;

/// Ends the brokers that it was given when its input ends without `done`, as it does when the demo dies.
const WATCHDOG: &str = r#"
pids=
while read -r line; do
    case $line in
        done) exit 0 ;;
        gone*) pids=$(printf '%s\n' $pids | grep -vxF "${line#gone }") ;;
        *) pids="$pids $line" ;;
    esac
done
[ -z "$pids" ] || kill -TERM $pids
"#;

/// What has to be at hand before the stage is built.
pub(crate) struct Props {
    /// The folder of everything that the demo writes, but for the servers' files.
    pub(crate) folder: PathBuf,
    /// The broker's binary.
    pub(crate) broker: PathBuf,
    /// The folder of the built plugins.
    pub(crate) plugins: PathBuf,
    /// How long leases are.
    pub(crate) terms: Terms,
}

/// What a later demo has to know of this one.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    demo: u32,
    broker: Option<u32>,
    /// `jit-agent`, and its program's path.
    #[serde(default)]
    agent: Option<(u32, PathBuf)>,
    servers: Vec<Process>,
}

/// Running servers and a broker.
pub(crate) struct Stage<B: Backend> {
    folder: PathBuf,
    remembered: Remembered,
    watchdog: Watchdog,
    backend: Option<B>,
    broker: Option<Child>,
    /// Where the broker serves.
    pub(crate) broker_url: String,
    /// Where its embedded issuer is.
    pub(crate) issuer_url: String,
}

impl<B: Backend> Stage<B> {
    /// Clears the folder, starts the servers and sets them up for the broker.
    pub(crate) async fn build(props: &Props, steps: &Steps) -> Result<Self> {
        stop_earlier(&props.folder)?;
        lay_out(props, &B::KIND.driver())?;
        let mut stage = Self {
            folder: props.folder.clone(),
            remembered: Remembered { demo: std::process::id(), broker: None, agent: None, servers: Vec::new() },
            watchdog: Watchdog::start()?,
            backend: None,
            broker: None,
            broker_url: String::new(),
            issuer_url: String::new(),
        };
        // Now, so that no other demo takes the folder.
        stage.remember()?;
        let backend = B::start(&stage.folder, steps).await?;
        stage.remembered.servers = backend.processes();
        fs::write(stage.config(), config::text(&backend, props.terms))?;
        stage.backend = Some(backend);
        stage.remember()?;
        Ok(stage)
    }

    /// What stands behind the target.
    pub(crate) fn backend(&self) -> Result<&B> {
        self.backend.as_ref().context("the servers are stopped")
    }

    /// Starts the broker and waits until it serves.
    pub(crate) fn start_broker(&mut self) -> Result<()> {
        let (out, log) = (self.folder.join("broker.out"), self.log());
        // In a group of its own: Ctrl-C is for the demo, which then stops it in order.
        let broker = Command::new(self.binary())
            .args(["dev", "--issuer", "127.0.0.1:0", "--workload", "{kubernetes.io.serviceaccount.name}", "--config"])
            .arg(self.config())
            .env("NO_COLOR", "1")
            .env_remove("JIT_FAILPOINTS")
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out)?)
            .stderr(fs::File::create(&log)?)
            .process_group(0)
            .spawn()
            .context("cannot start the broker")?;
        self.watchdog.watch(broker.id())?;
        self.remembered.broker = Some(broker.id());
        self.remember()?;
        let broker = self.broker.insert(broker);
        let begun = Instant::now();
        loop {
            let said = fs::read_to_string(&out).unwrap_or_default();
            let address = |word: &str| {
                let line = said.lines().find(|line| line.starts_with(word))?;
                line.split_once(' ').map(|(_, address)| address.trim().to_owned())
            };
            // Whole lines only: the last may be half written.
            if said.ends_with('\n')
                && let (Some(broker_url), Some(issuer_url)) = (address("broker "), address("issuer "))
            {
                (self.broker_url, self.issuer_url) = (broker_url, issuer_url);
                return Ok(());
            }
            if let Some(status) = broker.try_wait()? {
                bail!("the broker ended at its start ({status}):\n{}", tail(&log));
            }
            if begun.elapsed() > START_DEADLINE {
                bail!("the broker does not serve after {START_DEADLINE:?}:\n{}", tail(&log));
            }
            std::thread::sleep(POLL);
        }
    }

    /// A path of the demo's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The broker's configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("broker.toml")
    }

    /// The broker's binary, under its short name.
    pub(crate) fn binary(&self) -> PathBuf {
        self.path("jit-broker")
    }

    /// The broker's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.path("broker.log")
    }

    /// The broker's process id.
    pub(crate) fn broker_pid(&self) -> Option<u32> {
        self.remembered.broker
    }

    /// The servers' processes.
    pub(crate) fn servers(&self) -> &[Process] {
        &self.remembered.servers
    }

    /// So that a later demo ends it, should this one not come to that.
    pub(crate) fn remember_agent(&mut self, pid: Option<u32>, program: &Path) -> Result<()> {
        self.remembered.agent = pid.map(|pid| (pid, program.to_owned()));
        self.remember()
    }

    /// Ends this process too, should the demo be killed.
    pub(crate) fn watch(&mut self, pid: u32) -> Result<()> {
        self.watchdog.watch(pid)
    }

    /// That process has ended: its number may become another one's.
    pub(crate) fn unwatch(&mut self, pid: u32) -> Result<()> {
        self.watchdog.unwatch(pid)
    }

    /// Runs a command of the broker's binary.
    pub(crate) fn run(&self, args: &[&str], config: &Path) -> Result<Output> {
        let mut command = Command::new(self.binary());
        command.args(args).arg("--config").arg(config).env("NO_COLOR", "1").env_remove("JIT_FAILPOINTS");
        command.stdin(Stdio::null()).output().context("cannot run the broker's command")
    }

    /// Ends the broker, then the servers.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.stop_all()
    }

    fn stop_all(&mut self) -> Result<()> {
        let broker = self.broker.take().map_or(Ok(()), end_broker);
        let servers = self.backend.take().map_or(Ok(()), |mut backend| backend.stop());
        self.watchdog.dismiss();
        let _ = fs::remove_file(self.folder.join(STATE));
        broker.and(servers)
    }

    /// Leaves all of it running.
    pub(crate) fn keep(mut self) -> Result<()> {
        self.watchdog.dismiss();
        self.broker = None;
        if let Some(backend) = self.backend.take() {
            backend.detach();
        }
        self.remembered.demo = 0;
        self.remember()
    }

    fn remember(&self) -> Result<()> {
        let beside = self.folder.join("demo.json.new");
        fs::write(&beside, serde_json::to_vec_pretty(&self.remembered)?)?;
        Ok(fs::rename(beside, self.folder.join(STATE))?)
    }
}

impl<B: Backend> Drop for Stage<B> {
    fn drop(&mut self) {
        if self.broker.is_some() || self.backend.is_some() {
            // Already failing: what could not be stopped is in demo.json for the next demo.
            let _ = self.stop_all();
        }
    }
}

/// How the names of servers' folders begin.
const SERVER_FOLDERS: [&str; 4] = ["jit-postgres-", "jit-mysql-", "jit-slapd-", "jit-openbao-"];

/// The name of the file that remembers.
const STATE: &str = "demo.json";

struct Watchdog {
    child: Child,
    input: Option<ChildStdin>,
}

impl Watchdog {
    fn start() -> Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", WATCHDOG])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start a shell")?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }

    fn watch(&mut self, pid: u32) -> Result<()> {
        let input = self.input.as_mut().context("the watchdog is gone")?;
        Ok(writeln!(input, "{pid}")?)
    }

    fn unwatch(&mut self, pid: u32) -> Result<()> {
        let input = self.input.as_mut().context("the watchdog is gone")?;
        Ok(writeln!(input, "gone {pid}")?)
    }

    fn dismiss(&mut self) {
        if let Some(mut input) = self.input.take() {
            let _ = writeln!(input, "done");
        }
        let _ = self.child.wait();
    }
}

/// Ends what an earlier demo left in this folder: one that was kept, or one that was killed.
/// Tells whether there was anything.
pub(crate) fn stop_earlier(folder: &Path) -> Result<bool> {
    let state = folder.join(STATE);
    let Ok(text) = fs::read(&state) else { return Ok(false) };
    let Ok(earlier) = serde_json::from_slice::<Remembered>(&text) else { return Ok(false) };
    if earlier.demo != std::process::id() && is_running(earlier.demo, "demo") {
        bail!(
            "another demo (process {}) runs in {}; give this one a --folder of its own",
            earlier.demo,
            folder.display()
        );
    }
    let mut stopped = false;
    if let Some((pid, program)) = &earlier.agent {
        stopped |= end_foreign(*pid, &program.display().to_string(), "TERM")?;
    }
    if let Some(pid) = earlier.broker {
        stopped |= end_foreign(pid, &folder.join("broker.toml").display().to_string(), "TERM")?;
    }
    for Process { pid, signal, folder, .. } in &earlier.servers {
        // Only what is called as servers' folders are: the file could have been edited.
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let ours = SERVER_FOLDERS.iter().any(|prefix| name.starts_with(prefix));
        anyhow::ensure!(
            ours,
            "{} names {}, which is no server's folder: look and remove that file",
            state.display(),
            folder.display()
        );
        stopped |= end_foreign(*pid, &folder.display().to_string(), signal)?;
        if folder.is_dir() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    fs::remove_file(&state)?;
    Ok(stopped)
}

/// Whether that process exists and was started with that in its command line: process ids are used
/// again.
fn is_running(pid: u32, mark: &str) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    pid != 0 && String::from_utf8_lossy(&line).contains(mark)
}

fn end_foreign(pid: u32, mark: &str, signal: &str) -> Result<bool> {
    if !is_running(pid, mark) {
        return Ok(false);
    }
    send(signal, pid)?;
    let begun = Instant::now();
    while is_running(pid, mark) {
        if begun.elapsed() > STOP_DEADLINE {
            send("KILL", pid)?;
            break;
        }
        std::thread::sleep(POLL);
    }
    Ok(true)
}

fn end_broker(mut broker: Child) -> Result<()> {
    send("TERM", broker.id())?;
    let begun = Instant::now();
    while begun.elapsed() < STOP_DEADLINE {
        if let Some(status) = broker.try_wait()? {
            anyhow::ensure!(status.success(), "the broker ended with {status}");
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
    broker.kill()?;
    broker.wait()?;
    bail!("the broker had to be killed")
}

/// Sends a signal; std has none but KILL, and every shell has `kill`.
fn send(signal: &str, pid: u32) -> Result<()> {
    Command::new("sh")
        .args(["-c", "kill -\"$1\" \"$2\"", "sh", signal, &pid.to_string()])
        .stderr(Stdio::null())
        .status()?;
    Ok(())
}

/// Makes the folder anew, with the binary and the plugins under their short names.
fn lay_out(props: &Props, driver: &str) -> Result<()> {
    let folder = &props.folder;
    if folder.exists() {
        // Nothing but a demo's folder is emptied.
        let ours = folder.join(".jit-demo").exists() || fs::read_dir(folder)?.next().is_none();
        anyhow::ensure!(ours, "{} is not empty, and no demo's folder", folder.display());
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    for folder in [folder.clone(), folder.join("plugins"), folder.join("secrets")] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    }
    fs::write(folder.join(".jit-demo"), "")?;
    let copy = |from: &Path, to: PathBuf| {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display())).map(|_| ())
    };
    copy(&props.broker, folder.join("jit-broker"))?;
    for plugin in [format!("{driver}.wasm"), "policy-allow-list.wasm".to_owned()] {
        copy(&props.plugins.join(&plugin), folder.join("plugins").join(&plugin))?;
    }
    Ok(())
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
}
