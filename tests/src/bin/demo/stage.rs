//! What the story is played on: a PostgreSQL server and a broker, and how both end.
//!
//! Three ways lead to their end: the demo stops them; a watchdog does when the demo dies, however it
//! does; and the next demo finds what is left in `demo.json`, where a demo that was kept is too.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jit_tests::Database;
use serde::{Deserialize, Serialize};
use xtask::servers::postgres::{PostgresServer, PostgresSettings};

use crate::config;

/// How long the broker may take to start.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a process may take to end after it was asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// How much of the broker's log an error shows, in lines.
const LOG_TAIL: usize = 30;

/// Ends what it was told of when its input ends without `done`, as it does when the demo dies.
const WATCHDOG: &str = r#"
stop=""
while read -r signal pid; do
    [ "$signal" = done ] && exit 0
    stop="$stop kill -$signal $pid;"
done
eval "$stop"
"#;

/// What has to be at hand before the stage is built.
pub(crate) struct Props {
    /// The folder of everything that the demo writes, but for the database's files.
    pub(crate) folder: PathBuf,
    /// The folder of PostgreSQL's programs.
    pub(crate) postgres: PathBuf,
    /// The broker's binary.
    pub(crate) broker: PathBuf,
    /// The folder of the built plugins.
    pub(crate) plugins: PathBuf,
}

/// What a later demo has to know of this one.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    demo: u32,
    postgres: Option<u32>,
    postgres_folder: Option<PathBuf>,
    broker: Option<u32>,
}

/// A running server and broker.
pub(crate) struct Stage {
    folder: PathBuf,
    remembered: Remembered,
    watchdog: Watchdog,
    postgres: Option<PostgresServer>,
    broker: Option<Child>,
    /// The server's port.
    pub(crate) port: u16,
    /// The database and its roles.
    pub(crate) database: Option<Database>,
    /// Where the broker serves.
    pub(crate) broker_url: String,
    /// Where its embedded issuer is.
    pub(crate) issuer_url: String,
}

impl Stage {
    /// Clears the folder and starts the server.
    pub(crate) fn build(props: &Props) -> Result<Self> {
        stop_earlier(&props.folder)?;
        lay_out(props)?;
        let mut stage = Self {
            folder: props.folder.clone(),
            remembered: Remembered { demo: std::process::id(), postgres: None, postgres_folder: None, broker: None },
            watchdog: Watchdog::start()?,
            postgres: None,
            broker: None,
            port: 0,
            database: None,
            broker_url: String::new(),
            issuer_url: String::new(),
        };
        stage.remember()?;
        let settings = PostgresSettings { own_group: true, ..PostgresSettings::default() };
        let postgres = PostgresServer::start(&props.postgres, &settings)?;
        stage.port = postgres.port();
        stage.remembered.postgres = postgres.pid();
        stage.remembered.postgres_folder = postgres.log_path().parent().map(Path::to_owned);
        if let Some(pid) = postgres.pid() {
            stage.watchdog.watch("INT", pid)?;
        }
        stage.postgres = Some(postgres);
        stage.remember()?;
        Ok(stage)
    }

    /// Makes the database and the broker's role in it.
    pub(crate) async fn create_database(&mut self) -> Result<()> {
        let server = self.postgres.as_ref().context("no server")?;
        let database = Database::create_named(&server.url("postgres"), "").await?;
        write_secret(&self.folder.join("secrets/inventory"), &database.password)?;
        fs::write(self.config(), config::text(&database))?;
        self.database = Some(database);
        Ok(())
    }

    /// Starts the broker and waits until it serves.
    pub(crate) fn start_broker(&mut self) -> Result<()> {
        let (out, log) = (self.folder.join("broker.out"), self.log());
        // In a group of its own: Ctrl-C is for the demo, which then stops it in order.
        let broker = Command::new(self.binary())
            .args(["dev", "--issuer", "127.0.0.1:0", "--config"])
            .arg(self.config())
            .env("NO_COLOR", "1")
            .env_remove("JIT_FAILPOINTS")
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out)?)
            .stderr(fs::File::create(&log)?)
            .process_group(0)
            .spawn()
            .context("cannot start the broker")?;
        self.watchdog.watch("TERM", broker.id())?;
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

    /// The process ids of broker and server.
    pub(crate) fn pids(&self) -> (Option<u32>, Option<u32>) {
        (self.remembered.broker, self.remembered.postgres)
    }

    /// Runs a command of the broker's binary.
    pub(crate) fn run(&self, args: &[&str], config: &Path) -> Result<Output> {
        let mut command = Command::new(self.binary());
        command.args(args).arg("--config").arg(config).env("NO_COLOR", "1").env_remove("JIT_FAILPOINTS");
        command.stdin(Stdio::null()).output().context("cannot run the broker's command")
    }

    /// Ends the broker, then the server.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.stop_all()
    }

    fn stop_all(&mut self) -> Result<()> {
        let broker = self.broker.take().map_or(Ok(()), end_broker);
        let postgres = self.postgres.take().map_or(Ok(()), |mut server| server.stop());
        self.watchdog.dismiss();
        let _ = fs::remove_file(self.folder.join(STATE));
        broker.and(postgres)
    }

    /// Leaves both running.
    pub(crate) fn keep(mut self) -> Result<()> {
        self.watchdog.dismiss();
        self.broker = None;
        if let Some(server) = self.postgres.take() {
            server.detach();
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

impl Drop for Stage {
    fn drop(&mut self) {
        if self.broker.is_some() || self.postgres.is_some() {
            // Already failing: what could not be stopped is in demo.json for the next demo.
            let _ = self.stop_all();
        }
    }
}

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

    fn watch(&mut self, signal: &str, pid: u32) -> Result<()> {
        let input = self.input.as_mut().context("the watchdog is gone")?;
        Ok(writeln!(input, "{signal} {pid}")?)
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
    if let Some(pid) = earlier.broker {
        stopped |= end_foreign(pid, &folder.join("broker.toml").display().to_string(), "TERM")?;
    }
    if let (Some(pid), Some(data)) = (earlier.postgres, &earlier.postgres_folder) {
        let stayed = end_foreign(pid, &data.display().to_string(), "INT")?;
        stopped |= stayed;
        // Only what has our prefix: the file could have been edited.
        let ours = data.file_name().is_some_and(|name| name.to_string_lossy().starts_with("jit-postgres-"));
        if ours && data.is_dir() {
            fs::remove_dir_all(data).with_context(|| format!("cannot remove {}", data.display()))?;
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
fn lay_out(props: &Props) -> Result<()> {
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
    for plugin in ["driver-postgres.wasm", "policy-allow-list.wasm"] {
        copy(&props.plugins.join(plugin), folder.join("plugins").join(plugin))?;
    }
    Ok(())
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(secret.as_bytes())?)
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
}
