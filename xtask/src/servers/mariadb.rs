//! MariaDB: it speaks MySQL's protocol and is another server; Debian 12 has 10.11.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use jit_plugin_build::process::Run;

use super::{
    VERSION_DEADLINE,
    certificates::{Certificates, NAMES},
    daemon::Daemon,
    debian::{Release, Tree},
    mysql::{folder_options, greets, listen_options, parse_version},
    place::{Place, RunAs, free_port, random_password},
};
use crate::steps::Steps;

/// How long making a data folder may take.
const BOOTSTRAP_DEADLINE: Duration = Duration::from_secs(180);
/// How long a start may take.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// What `mariadb-install-db` feeds to the server, in its order, without the help texts.
const SYSTEM_TABLES: [&str; 5] = [
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mysql_sys_schema.sql",
];

/// `mariadbd` with everything that it needs.
#[derive(Debug, Clone)]
pub struct MariadbBinaries {
    tree: Tree,
    version: String,
}

impl MariadbBinaries {
    /// As `mariadbd --version` says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// The binaries: from the cache, else from Debian 12.
///
/// # Errors
/// When they cannot be had on this machine, with the reason.
pub fn binaries(steps: &Steps) -> Result<MariadbBinaries> {
    let tree =
        Tree::get("mariadb", Release::Bookworm, &["mariadb-server-core"], steps, |tree| version(tree).map(drop))?;
    let version = version(&tree)?;
    Ok(MariadbBinaries { tree, version })
}

fn version(tree: &Tree) -> Result<String> {
    let mut command = tree.command("/usr/sbin/mariadbd");
    let said =
        Run::new("`mariadbd --version`", VERSION_DEADLINE).output(command.args(["--no-defaults", "--version"]))?;
    parse_version("MariaDB", &said.stdout).context("cannot read what `mariadbd --version` says")
}

/// A running server on a free port of loopback, with TLS. Dropping it stops it.
pub struct MariadbServer {
    daemon: Daemon,
    certificates: Certificates,
    port: u16,
    password: String,
    place: Place,
}

impl MariadbServer {
    /// Makes a data folder and starts the server. The superuser is `root`, who comes from 127.0.0.1
    /// and has a random password.
    ///
    /// # Errors
    /// When `mariadbd` fails or is not ready in time; the end of the log is in the error.
    pub fn start(binaries: &MariadbBinaries) -> Result<Self> {
        let place = Place::new("mariadb", RunAs::Unprivileged)?;
        let certificates = Certificates::make(&place, &NAMES)?;
        let (port, password) = (free_port()?, random_password()?);
        place.make_folder("data")?;

        let mut command = mariadbd(binaries, &place);
        command.arg("--bootstrap");
        let orders = bootstrap(&binaries.tree.path("/usr/share/mysql"), &password)?;
        place.run("`mariadbd --bootstrap`", &mut command, orders.as_bytes(), BOOTSTRAP_DEADLINE)?;

        let mut command = mariadbd(binaries, &place);
        command
            .args(["--bind-address=127.0.0.1", &format!("--port={port}"), "--skip-name-resolve"])
            // Test servers forget on power loss, and hold many worlds.
            .args(["--innodb-flush-log-at-trx-commit=0", "--max-connections=400", "--innodb-buffer-pool-size=64M"])
            // As docs/drivers/mysql.md asks: sessions are found by who logged in.
            .args(["--performance-schema=ON"]);
        listen_options(&mut command, &place, &certificates);
        let mut daemon = Daemon::start("mariadbd", &mut command, &place)?;
        daemon.wait_ready(START_DEADLINE, &place, || greets(port))?;
        Ok(Self { daemon, certificates, port, password, place })
    }

    /// The port, on 127.0.0.1.
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

    /// Looks whether it still runs.
    ///
    /// # Errors
    /// When it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.daemon.check(&self.place)
    }
}

fn mariadbd(binaries: &MariadbBinaries, place: &Place) -> Command {
    let mut command = binaries.tree.command("/usr/sbin/mariadbd");
    command.args(["--no-defaults", "--innodb-log-file-size=8M"]);
    folder_options(&mut command, &binaries.tree, place);
    command
}

/// The statements that make the system tables and leave one account of ours. Each ends with its line:
/// that is how a server without clients reads.
fn bootstrap(scripts: &Path, password: &str) -> Result<String> {
    let mut text = String::from("CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n");
    for script in SYSTEM_TABLES {
        let path = scripts.join(script);
        text += &fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.push('\n');
    }
    // Everybody who could log in without a password, and root from elsewhere.
    text += "DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> '127.0.0.1');\n";
    text += "DELETE FROM mysql.proxies_priv;\nFLUSH PRIVILEGES;\n";
    text += &format!("ALTER USER root@'127.0.0.1' IDENTIFIED BY '{password}';\n");
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_server_starts_and_leaves_nothing() {
        let server = MariadbServer::start(&binaries(&Steps::new()).unwrap()).unwrap();
        assert!(greets(server.port()));
        let folder = server.place.folder().to_owned();
        let port = server.port();
        drop(server);
        assert!(!folder.exists() && !greets(port));
    }
}
