//! One PostgreSQL server of its own, on loopback, for as long as the value lives.

mod standby;

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::servers::{
    daemon::{STOP_DEADLINE, Watchdog, signal, wait},
    place::{check_enterable, free_port, is_root, random_password},
};

/// The user that servers run as when we are root, which PostgreSQL refuses: `nobody`.
const UNPRIVILEGED: u32 = 65534;
/// How long making a database cluster may take.
const INITDB_DEADLINE: Duration = Duration::from_secs(120);
/// How long a start may take; after a kill it includes recovery.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long one probe may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(25);
/// How much of the log is shown when something fails, in bytes.
const LOG_TAIL: usize = 4000;

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct PostgresSettings {
    /// Lines of postgresql.conf beyond the usual (`("max_connections", "300")`).
    pub parameters: Vec<(String, String)>,
    /// Where data and log are kept, and left when the server stops. A temporary folder, removed
    /// with the server, when none.
    pub folder: Option<PathBuf>,
    /// Start it in a process group of its own: Ctrl-C then reaches only whoever started it, who
    /// stops it.
    pub own_group: bool,
    /// Lines of pg_hba.conf before the usual one, which asks everybody for a password.
    pub hba: Vec<String>,
    /// Variables for the server, which else has none of ours: `LDAPTLS_CACERT`.
    pub environment: Vec<(String, String)>,
}

/// A running server. Dropping it stops it.
pub struct PostgresServer {
    bin: PathBuf,
    place: Place,
    port: u16,
    password: String,
    process: Option<Child>,
    watchdog: Option<Watchdog>,
    own_group: bool,
    environment: Vec<(String, String)>,
    _temporary: Option<TempDir>,
}

impl fmt::Debug for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer")
            .field("bin", &self.bin)
            .field("folder", &self.place.folder)
            .field("port", &self.port)
            .field("running", &self.process.is_some())
            .finish_non_exhaustive()
    }
}

impl PostgresServer {
    /// Makes a cluster with the programs in `bin` and starts it on a free port of loopback.
    /// The superuser is `postgres`; every connection needs a password (SCRAM).
    ///
    /// # Errors
    /// When a program fails or does not answer in time; the end of the log is in the error.
    pub fn start(bin: &Path, settings: &PostgresSettings) -> Result<Self> {
        let (folder, temporary) = match &settings.folder {
            Some(folder) => (folder.clone(), None),
            None => {
                let temporary = tempfile::Builder::new()
                    .prefix("jit-postgres-")
                    .permissions(fs::Permissions::from_mode(0o755))
                    .tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let place = Place::new(folder)?;
        let mut server = Self {
            bin: bin.to_owned(),
            port: free_port()?,
            password: random_password()?,
            place,
            process: None,
            watchdog: None,
            own_group: settings.own_group,
            environment: settings.environment.clone(),
            _temporary: temporary,
        };
        server.initdb()?;
        server.configure(settings)?;
        server.start_again()?;
        Ok(server)
    }

    /// The port, on 127.0.0.1. It stays the same over a restart.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The password of the superuser `postgres`.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// A URL for the superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The server's log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.place.log()
    }

    /// The postmaster's process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Starts the stopped server again, on the same port. Nothing happens if it runs.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub fn start_again(&mut self) -> Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let log = self.place.open_log()?;
        let mut command = self.place.command(&self.bin.join("postgres"));
        command.arg("-D").arg(self.place.data()).stdout(log.try_clone()?).stderr(log);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if self.own_group {
            command.process_group(0);
        }
        let process = command.spawn().context("cannot start postgres")?;
        let pid = process.id();
        self.process = Some(process);
        // "Fast" shutdown; a folder that was asked for stays.
        let folder = self._temporary.as_ref().map(|_| self.place.folder.as_path());
        self.watchdog = Some(Watchdog::start(pid, "INT", folder)?);
        let ready = self.wait_ready();
        if ready.is_err() {
            self.kill();
        }
        ready.map_err(|error| error.context(self.place.log_tail()))
    }

    /// Stops the server: it ends all sessions and shuts down cleanly; killed if it does not end
    /// in time. Nothing happens if it is stopped.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let watchdog = self.watchdog.take();
        // SIGINT is PostgreSQL's "fast" shutdown (manual, "Shutting Down the Server").
        let asked = signal(&process, "INT");
        let stopped = asked.and_then(|()| wait(&mut process, STOP_DEADLINE));
        let in_time = matches!(stopped, Ok(Some(_)));
        if !in_time {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(watchdog) = watchdog {
            watchdog.dismiss();
        }
        if !in_time {
            bail!("postgres had to be killed\n{}", self.place.log_tail());
        }
        Ok(())
    }

    /// Ends the server at once, as a crash of the machine would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // SIGQUIT ends the backends too, without a checkpoint; SIGKILL would leave them.
            let _ = signal(&process, "QUIT");
            if !matches!(wait(&mut process, STOP_DEADLINE), Ok(Some(_))) {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss();
        }
    }

    /// kill -9 of the postmaster. Its backends notice by themselves, and hold the server's memory until then:
    /// [`Self::start_again`] may fail for a moment.
    pub fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss();
        }
    }

    /// Looks whether it still runs; one that was stopped is in order.
    ///
    /// # Errors
    /// When it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        match self.process.as_mut().map_or(Ok(None), Child::try_wait)? {
            Some(status) => bail!("postgres has ended ({status})\n{}", self.place.log_tail()),
            None => Ok(()),
        }
    }

    /// Stops and starts again, on the same port.
    ///
    /// # Errors
    /// Those of [`Self::stop`] and [`Self::start_again`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Leaves the server running when this value goes; the caller stops it by its [`Self::pid`].
    pub fn detach(mut self) -> Option<u32> {
        let pid = self.pid();
        self.process = None;
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss();
        }
        if let Some(temporary) = self._temporary.take() {
            let _ = temporary.keep();
        }
        pid
    }

    fn initdb(&self) -> Result<()> {
        if self.place.data().join("PG_VERSION").exists() {
            bail!("{} holds a cluster already, whose password is not known", self.place.data().display());
        }
        let password_file = self.place.folder.join("password");
        self.place.write_secret(&password_file, &self.password)?;
        let log = self.place.open_log()?;
        let mut child = self
            .place
            .command(&self.bin.join("initdb"))
            .args(["--username=postgres", "--auth=scram-sha-256"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
            .arg(format!("--pwfile={}", password_file.display()))
            .arg("--pgdata")
            .arg(self.place.data())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start initdb")?;
        let status = wait(&mut child, INITDB_DEADLINE);
        fs::remove_file(&password_file)?;
        match status? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("initdb failed ({status})\n{}", self.place.log_tail()),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("initdb takes too long\n{}", self.place.log_tail())
            }
        }
    }

    fn configure(&self, settings: &PostgresSettings) -> Result<()> {
        let mut lines = format!(
            "\n# of this server\nlisten_addresses = '127.0.0.1'\nport = {}\n\
             unix_socket_directories = '{}'\npassword_encryption = 'scram-sha-256'\n\
             log_min_messages = 'warning'\n",
            self.port,
            self.place.sockets().display()
        );
        for (name, value) in &settings.parameters {
            lines.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        let path = self.place.data().join("postgresql.conf");
        OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(lines.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        if !settings.hba.is_empty() {
            let path = self.place.data().join("pg_hba.conf");
            let usual = fs::read_to_string(&path)?;
            // The first line that fits counts.
            fs::write(&path, format!("{}\n{usual}", settings.hba.join("\n")))?;
        }
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        while start.elapsed() < START_DEADLINE {
            if let Some(process) = &mut self.process
                && let Some(status) = process.try_wait()?
            {
                self.process = None;
                bail!("postgres ended at its start ({status})");
            }
            if accepts_logins(address) {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("postgres is not ready after {START_DEADLINE:?}")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // A failure here has nowhere to go; the server is killed in that case.
        let _ = self.stop();
    }
}

/// Whether the server asks for a password: while it starts up or shuts down it answers with an
/// error instead. This is what `pg_isready` does, which the npm packages do not have.
fn accepts_logins(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect_timeout(&address, PROBE_DEADLINE)?;
        stream.set_read_timeout(Some(PROBE_DEADLINE))?;
        stream.set_write_timeout(Some(PROBE_DEADLINE))?;
        // StartupMessage, protocol 3.0 (manual, "Message Formats").
        let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        stream.write_all(&[&length.to_be_bytes()[..], body].concat())?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        Ok(kind[0])
    };
    matches!(ask(), Ok(b'R'))
}

/// The server's files, and the user that it runs as.
struct Place {
    folder: PathBuf,
    /// Another user than ours, when we are root.
    user: Option<u32>,
}

impl Place {
    fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let folder = fs::canonicalize(folder)?;
        let user = is_root()?.then_some(UNPRIVILEGED);
        let place = Self { folder, user };
        if user.is_some() {
            check_enterable(&place.folder)?;
        }
        for folder in [place.folder.clone(), place.data(), place.sockets()] {
            fs::create_dir_all(&folder)?;
            chown(&folder, user, user)?;
        }
        fs::set_permissions(place.data(), fs::Permissions::from_mode(0o700))?;
        Ok(place)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn sockets(&self) -> PathBuf {
        self.folder.join("s")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    fn open_log(&self) -> Result<File> {
        let path = self.log();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The end of the log, for an error's text.
    fn log_tail(&self) -> String {
        let bytes = fs::read(self.log()).unwrap_or_default();
        let tail = &bytes[bytes.len().saturating_sub(LOG_TAIL)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    /// A program with nothing of our environment that could redirect it (`PGPORT`, `PGDATA`).
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    fn write_secret(&self, path: &Path, secret: &str) -> Result<()> {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
        file.write_all(secret.as_bytes())?;
        chown(path, self.user, self.user)?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{servers::postgres::binaries, steps::Steps};

    #[test]
    fn a_server_starts_stops_and_comes_back_on_its_port() {
        let binaries = binaries(17, &Steps::new()).unwrap();
        let settings = PostgresSettings {
            parameters: vec![("max_connections".into(), "7".into())],
            own_group: true,
            ..PostgresSettings::default()
        };
        let mut server = PostgresServer::start(binaries.bin(), &settings).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
        assert!(accepts_logins(address));
        assert!(!format!("{server:?}").contains(server.password()));
        server.stop().unwrap();
        assert!(!accepts_logins(address));
        server.stop().unwrap();
        server.start_again().unwrap();
        assert!(accepts_logins(address));
        server.kill();
        assert!(!accepts_logins(address));
        server.start_again().unwrap();
        server.restart().unwrap();
        let conf = fs::read_to_string(server.place.data().join("postgresql.conf")).unwrap();
        assert!(conf.contains("max_connections = '7'"));
        let folder = server.place.folder.clone();
        let pid = server.pid().unwrap();
        drop(server);
        assert!(!folder.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_failed_start_shows_the_log() {
        let binaries = binaries(15, &Steps::new()).unwrap();
        let settings = PostgresSettings {
            parameters: vec![("no_such_parameter".into(), "1".into())],
            ..PostgresSettings::default()
        };
        let error = PostgresServer::start(binaries.bin(), &settings).unwrap_err();
        assert!(format!("{error:#}").contains("no_such_parameter"), "{error:#}");
    }
}
