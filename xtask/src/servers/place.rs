//! A server's folder, the user that it runs as, and its end.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;

/// The user that servers run as when we are root: `nobody`.
const UNPRIVILEGED: u32 = 65534;
/// How long a shutdown may take before the server is killed.
pub(super) const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How often something is looked at.
pub(super) const POLL: Duration = Duration::from_millis(25);
/// How much of the log is shown when something fails, in bytes.
const LOG_TAIL: u64 = 4000;

/// Ends a server and removes its folder when its input ends without a line, as it does when the
/// process that started the server dies, however it dies.
const WATCHDOG: &str = r#"
read -r _ && exit 0
kill -TERM "$1" 2>/dev/null
tries=0
while kill -0 "$1" 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -KILL "$1" 2>/dev/null
rm -rf -- "$2"
"#;

/// Whom a server runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunAs {
    /// `nobody` when we are root, otherwise ourselves.
    Unprivileged,
    /// Ourselves, even as root: for ports below 1024.
    Ourselves,
}

/// A server's files, in a temporary folder that goes with the value.
pub(super) struct Place {
    folder: PathBuf,
    /// Another user than ours, when we are root.
    user: Option<u32>,
    _temporary: TempDir,
}

impl Place {
    /// A new folder `jit-<name>-…`.
    pub(super) fn new(name: &str, run_as: RunAs) -> Result<Self> {
        let temporary = tempfile::Builder::new()
            .prefix(&format!("jit-{name}-"))
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()?;
        let folder = fs::canonicalize(temporary.path())?;
        let user = (run_as == RunAs::Unprivileged && is_root()?).then_some(UNPRIVILEGED);
        let place = Self { folder, user, _temporary: temporary };
        if user.is_some() {
            check_enterable(&place.folder)?;
        }
        chown(&place.folder, user, user)?;
        Ok(place)
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a folder in it that only the server's user may enter.
    pub(super) fn make_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        // An authority's certificate lies in one, for whoever tests as another user.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        chown(&folder, self.user, self.user)?;
        Ok(folder)
    }

    /// Writes a file that the server's user alone may read.
    pub(super) fn write_secret(&self, path: &Path, secret: &str) -> Result<()> {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
        file.write_all(secret.as_bytes())?;
        chown(path, self.user, self.user)?;
        Ok(())
    }

    /// Where its programs write what they say.
    pub(super) fn log_path(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// Makes a command run there as the server's user, with nothing of our environment, its output in
    /// the log.
    pub(super) fn prepare(&self, command: &mut Command) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("HOME", &self.folder)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        Ok(())
    }

    /// Runs a program of the server to its end; its input, if any, must not exceed what a pipe is fed
    /// with in time.
    pub(super) fn run(&self, what: &str, command: &mut Command, input: &[u8], deadline: Duration) -> Result<()> {
        self.prepare(command)?;
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {what}"))?;
        // From a thread: the program may not read on, and the deadline below then ends it and this.
        let feeder = child.stdin.take().map(|mut stdin| {
            let input = input.to_vec();
            // Who does not read to the end says why in the log.
            thread::spawn(move || drop(stdin.write_all(&input)))
        });
        let status = wait(&mut child, deadline)?;
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(feeder) = feeder {
            let _ = feeder.join();
        }
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{what} failed ({status})\n{}", self.log_tail()),
            None => bail!("{what} takes longer than {deadline:?}\n{}", self.log_tail()),
        }
    }

    /// The end of the log, for an error's text.
    pub(super) fn log_tail(&self) -> String {
        use std::io::Seek as _;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.log_path())?;
            let length = file.metadata()?.len();
            file.seek(std::io::SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }
}

/// A running server process. Dropped, it is stopped.
pub(super) struct Daemon {
    what: &'static str,
    process: Option<Child>,
    watchdog: Option<(Child, Option<ChildStdin>)>,
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
        let mut daemon = Self { what, process: None, watchdog: None };
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh", &process.id().to_string()])
            .arg(place.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start a shell")?;
        daemon.process = Some(process);
        let input = watchdog.stdin.take();
        daemon.watchdog = Some((watchdog, input));
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

    /// How it ended, if it did by itself.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.process {
            Some(process) => Ok(process.try_wait()?),
            None => bail!("{} does not run", self.what),
        }
    }

    /// Its process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
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
        self.dismiss_watchdog();
        if in_time { Ok(()) } else { Err(anyhow!("{} had to be killed", self.what)) }
    }

    fn dismiss_watchdog(&mut self) {
        if let Some((mut watchdog, mut input)) = self.watchdog.take() {
            if let Some(input) = &mut input {
                // If it is gone, there is nobody to dismiss.
                let _ = input.write_all(b"done\n");
            }
            drop(input);
            let _ = watchdog.wait();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A failure here has nowhere to go; the server is killed in that case.
        let _ = self.stop("TERM");
    }
}

/// Whether we are root.
pub(super) fn is_root() -> Result<bool> {
    // The owner of /proc/self is the effective user; std has no getuid.
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// The server runs as `nobody`, who must reach the files.
pub(super) fn check_enterable(folder: &Path) -> Result<()> {
    for parent in folder.ancestors().skip(1) {
        if fs::metadata(parent)?.mode() & 0o001 == 0 {
            bail!(
                "as root, servers run as another user, who cannot enter {}: set TMPDIR to a folder that \
                 everybody may enter",
                parent.display()
            );
        }
    }
    Ok(())
}

/// A port of loopback that nobody has at the moment.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// 128 bits in hexadecimal digits.
pub(super) fn random_password() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
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
