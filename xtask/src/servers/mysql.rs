//! MySQL, the real one: Debian unstable has its current version.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use jit_plugin_build::process::Run;

use super::{
    VERSION_DEADLINE,
    certificates::{Certificates, NAMES},
    daemon::Daemon,
    debian::{Release, Tree},
    place::{Place, RunAs, free_port, random_password},
};
use crate::steps::Steps;

/// How long making a data folder may take.
const INITIALIZE_DEADLINE: Duration = Duration::from_secs(180);
/// How long a start may take; after a kill it includes recovery.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// How long one probe may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// `mysqld` with everything that it needs.
#[derive(Debug, Clone)]
pub struct MysqlBinaries {
    tree: Tree,
    version: String,
}

impl MysqlBinaries {
    /// As `mysqld --version` says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// The binaries: from the cache, else from Debian unstable.
///
/// # Errors
/// When they cannot be had on this machine, with the reason.
pub fn binaries(steps: &Steps) -> Result<MysqlBinaries> {
    let tree = Tree::get("mysql", Release::Sid, &["mysql-server-core"], steps, |tree| version(tree).map(drop))?;
    let version = version(&tree)?;
    Ok(MysqlBinaries { tree, version })
}

fn version(tree: &Tree) -> Result<String> {
    let mut command = tree.command("/usr/sbin/mysqld");
    let said = Run::new("`mysqld --version`", VERSION_DEADLINE).output(command.args(["--no-defaults", "--version"]))?;
    parse_version("MySQL", &said.stdout).context("cannot read what `mysqld --version` says")
}

/// Reads `/path/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))`.
pub(super) fn parse_version(name: &str, said: &str) -> Option<String> {
    let (_, rest) = said.lines().next()?.split_once(" Ver ")?;
    Some(format!("{name} {}", rest.split_whitespace().next()?))
}

/// A running server on a free port of loopback, with TLS. Dropping it stops it.
pub struct MysqlServer {
    daemon: Option<Daemon>,
    binaries: MysqlBinaries,
    certificates: Certificates,
    port: u16,
    password: String,
    place: Place,
}

impl MysqlServer {
    /// Makes a data folder and starts the server. The superuser is `root`, who comes from 127.0.0.1
    /// and has a random password.
    ///
    /// # Errors
    /// When `mysqld` fails or is not ready in time; the end of the log is in the error.
    pub fn start(binaries: &MysqlBinaries) -> Result<Self> {
        let place = Place::new("mysql", RunAs::Unprivileged)?;
        let mut server = Self {
            daemon: None,
            binaries: binaries.clone(),
            certificates: Certificates::make(&place, &NAMES)?,
            port: free_port()?,
            password: random_password()?,
            place,
        };
        server.initialize()?;
        server.start_again()?;
        Ok(server)
    }

    /// The port, on 127.0.0.1. It stays the same over a restart.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A URL for the superuser, without TLS parameters.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mysql://root:{}@127.0.0.1:{}/mysql", self.password, self.port)
    }

    /// The authority that signed the server's certificate.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &self.certificates.authority
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().and_then(Daemon::pid)
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.place.folder()
    }

    /// Leaves the server running, and its folder, when this value goes; the caller stops it by its
    /// process id, with TERM.
    pub fn detach(mut self) -> Option<u32> {
        self.place.keep();
        self.daemon.take().and_then(Daemon::detach)
    }

    /// Starts the stopped server again, on the same port. Nothing happens if it runs.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub fn start_again(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        let mut command = self.mysqld();
        command
            .args(["--bind-address=127.0.0.1", &format!("--port={}", self.port)])
            // Test servers forget on power loss, and hold many worlds.
            .args(["--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--max-connections=400"])
            .args(["--skip-name-resolve", "--innodb-buffer-pool-size=64M", "--innodb-fast-shutdown=2"]);
        listen_options(&mut command, &self.place, &self.certificates);
        let mut daemon = Daemon::start("mysqld", &mut command, &self.place)?;
        let port = self.port;
        daemon.wait_ready(START_DEADLINE, &self.place, || greets(port))?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Stops the server. Nothing happens if it is stopped.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), |mut daemon| daemon.stop("TERM"))
    }

    /// Looks whether it still runs; one that was stopped is in order.
    ///
    /// # Errors
    /// When it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.daemon.as_mut().map_or(Ok(()), |daemon| daemon.check(&self.place))
    }

    fn initialize(&self) -> Result<()> {
        let orders = self.place.folder().join("initialize.sql");
        let text = format!(
            "ALTER USER root@localhost IDENTIFIED BY '{}';\nRENAME USER root@localhost TO root@'127.0.0.1';\n",
            self.password
        );
        self.place.write_secret(&orders, &text)?;
        let mut command = self.mysqld();
        command.arg("--initialize-insecure").arg(format!("--init-file={}", orders.display()));
        self.place.run("`mysqld --initialize`", &mut command, &[], INITIALIZE_DEADLINE)?;
        std::fs::remove_file(&orders)?;
        Ok(())
    }

    fn mysqld(&self) -> Command {
        let tree = &self.binaries.tree;
        let mut command = tree.command("/usr/sbin/mysqld");
        command.args(["--no-defaults", "--mysqlx=OFF", "--secure-file-priv=NULL"]);
        folder_options(&mut command, tree, &self.place);
        command
    }
}

/// Where MySQL and MariaDB find their files: they were compiled for /usr.
pub(super) fn folder_options(command: &mut Command, tree: &Tree, place: &Place) {
    let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
    command.args([
        option("basedir", &tree.path("/usr")),
        option("datadir", &place.folder().join("data")),
        option("lc-messages-dir", &tree.path("/usr/share/mysql")),
        option("character-sets-dir", &tree.path("/usr/share/mysql/charsets")),
        option("plugin-dir", &tree.path("/usr/lib/mysql/plugin")),
    ]);
}

/// Socket, process id and TLS.
pub(super) fn listen_options(command: &mut Command, place: &Place, certificates: &Certificates) {
    let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
    command.args([
        option("socket", &place.folder().join("data/s")),
        option("pid-file", &place.folder().join("data/pid")),
        option("ssl-ca", &certificates.authority),
        option("ssl-cert", &certificates.certificate),
        option("ssl-key", &certificates.key),
    ]);
}

/// Whether a server of MySQL's protocol is ready to log somebody in: it speaks first, with protocol
/// version 10, or else with an error.
pub(super) fn greets(port: u16) -> bool {
    let ask = || -> std::io::Result<u8> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, PROBE_DEADLINE)?;
        stream.set_read_timeout(Some(PROBE_DEADLINE))?;
        let mut start = [0; 5];
        stream.read_exact(&mut start)?;
        Ok(start[4])
    };
    matches!(ask(), Ok(10))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let mysql = "/cache/usr/sbin/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))\n";
        assert_eq!(parse_version("MySQL", mysql).unwrap(), "MySQL 9.7.4-2");
        let mariadb = "/cache/usr/sbin/mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64\n";
        assert_eq!(parse_version("MariaDB", mariadb).unwrap(), "MariaDB 10.11.19-MariaDB-0+deb12u1");
        assert_eq!(parse_version("MySQL", "sh: not found"), None);
    }

    #[test]
    fn a_server_stops_and_comes_back_on_its_port() {
        let mut server = MysqlServer::start(&binaries(&Steps::new()).unwrap()).unwrap();
        assert!(greets(server.port()));
        server.stop().unwrap();
        assert!(!greets(server.port()));
        server.start_again().unwrap();
        assert!(greets(server.port()));
        let folder = server.place.folder().to_owned();
        let port = server.port();
        drop(server);
        assert!(!folder.exists() && !greets(port));
    }
}
