//! A server's folder, and the user that it runs as.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::daemon::wait;

/// The user that servers run as when we are root: `nobody`.
const UNPRIVILEGED: u32 = 65534;
/// How much of the log is shown when something fails, in bytes.
const LOG_TAIL: u64 = 4000;

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

    /// Leaves the folder when this value goes; whoever asks for that removes it.
    pub(super) fn keep(&mut self) {
        self._temporary.disable_cleanup(true);
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
        self.run_prepared(what, command, input, deadline)
    }

    /// As [`Self::run`], with a command that [`Self::prepare`] was applied to and whose environment was
    /// then added to.
    pub(super) fn run_prepared(
        &self,
        what: &str,
        command: &mut Command,
        input: &[u8],
        deadline: Duration,
    ) -> Result<()> {
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
    Ok(random_bytes::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Bytes of the system's generator.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
