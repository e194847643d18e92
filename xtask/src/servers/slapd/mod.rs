//! OpenLDAP's slapd, of Debian 12, set up with the files that the LDAP driver ships for it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
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
use crate::{plugins, steps::Steps};

/// How long one of the programs that set it up may take.
const SET_UP_DEADLINE: Duration = Duration::from_secs(60);
/// How long a start may take.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long one probe may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// The database's administrator.
const ADMIN: &str = "cn=admin,dc=example,dc=test";
/// The configuration's administrator, who has the same password.
const CONFIG_ADMIN: &str = "cn=admin,cn=config";
/// The account that the broker binds as.
const BROKER: &str = "cn=jit-broker,ou=services,dc=example,dc=test";
/// Where the driver's set-up lies in this repository.
const SET_UP: &str = "plugins/driver-ldap/setup";

/// `slapd` and OpenLDAP's clients, with everything that they need.
#[derive(Debug, Clone)]
pub struct SlapdBinaries {
    tree: Tree,
    version: String,
}

impl SlapdBinaries {
    /// As `slapd -VV` says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// The binaries: from the cache, else from Debian 12.
///
/// # Errors
/// When they cannot be had on this machine, with the reason.
pub fn binaries(steps: &Steps) -> Result<SlapdBinaries> {
    let packages = ["slapd", "ldap-utils"];
    let tree = Tree::get("openldap", Release::Bookworm, &packages, steps, |tree| version(tree).map(drop))?;
    let version = version(&tree)?;
    Ok(SlapdBinaries { tree, version })
}

fn version(tree: &Tree) -> Result<String> {
    // It says its version on standard error.
    let said = std::cell::RefCell::new(String::new());
    let line = |line: &str| {
        if said.borrow().is_empty() {
            *said.borrow_mut() = parse_version(line).unwrap_or_default();
        }
    };
    Run::new("`slapd -VV`", VERSION_DEADLINE).on_line(&line).output(tree.command("/usr/sbin/slapd").arg("-VV"))?;
    Some(said.into_inner()).filter(|version| !version.is_empty()).context("cannot read what `slapd -VV` says")
}

/// Reads `@(#) $OpenLDAP: slapd 2.5.13+dfsg-5 (Feb  8 2023 01:56:12) $`.
fn parse_version(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("$OpenLDAP: slapd ")?;
    Some(format!("OpenLDAP {}", rest.split_whitespace().next()?))
}

/// A running server on free ports of loopback. Dropping it stops it.
///
/// It has `dc=example,dc=test` with `ou=jit` for temporary accounts, the groups `app_read_only` and
/// `app_read_write` in `ou=groups`, `ou=app` which these groups may read or write, and the broker's
/// account, which may do what the driver's set-up says and nothing else.
pub struct SlapdServer {
    daemon: Option<Daemon>,
    binaries: SlapdBinaries,
    certificates: Certificates,
    ldap: u16,
    ldaps: u16,
    admin_password: String,
    broker_password: String,
    place: Place,
}

impl SlapdServer {
    /// Makes a directory, starts the server, and sets it up for the broker.
    ///
    /// # Errors
    /// When a program fails or is not ready in time; the end of the log is in the error.
    pub fn start(binaries: &SlapdBinaries) -> Result<Self> {
        let place = Place::new("slapd", RunAs::Unprivileged)?;
        let mut server = Self {
            daemon: None,
            binaries: binaries.clone(),
            certificates: Certificates::make(&place, &NAMES)?,
            ldap: free_port()?,
            ldaps: free_port()?,
            admin_password: random_password()?,
            broker_password: random_password()?,
            place,
        };
        server.configure()?;
        server.start_again()?;
        server.set_up()?;
        Ok(server)
    }

    /// `ldap://`, where TLS begins with StartTLS: a bind without is refused.
    #[must_use]
    pub fn ldap_url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.ldap)
    }

    /// `ldaps://`.
    #[must_use]
    pub fn ldaps_url(&self) -> String {
        format!("ldaps://127.0.0.1:{}", self.ldaps)
    }

    /// The authority that signed the server's certificate.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &self.certificates.authority
    }

    /// The administrator's name and password.
    #[must_use]
    pub fn admin(&self) -> (&str, &str) {
        (ADMIN, &self.admin_password)
    }

    /// The name and password of the broker's account.
    #[must_use]
    pub fn broker(&self) -> (&str, &str) {
        (BROKER, &self.broker_password)
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

    /// Starts the stopped server again, on the same ports. Nothing happens if it runs.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub fn start_again(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        let listen = format!("{}/ {}/ {}", self.ldap_url(), self.ldaps_url(), self.socket_url());
        let mut command = self.binaries.tree.command("/usr/sbin/slapd");
        // Debug level `stats` keeps it in the foreground, each operation in its log.
        command.args(["-d", "stats", "-h", &listen, "-F"]).arg(self.configuration());
        let mut daemon = Daemon::start("slapd", &mut command, &self.place)?;
        let ports = [self.ldap, self.ldaps];
        daemon.wait_ready(START_DEADLINE, &self.place, || ports.into_iter().all(accepts))?;
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

    fn configuration(&self) -> PathBuf {
        self.place.folder().join("slapd.d")
    }

    fn socket_url(&self) -> String {
        format!("ldapi://{}", self.place.folder().join("ldapi").display().to_string().replace('/', "%2F"))
    }

    /// Writes the configuration and the first entries, before the server runs.
    fn configure(&self) -> Result<()> {
        for folder in ["data", "slapd.d"] {
            self.place.make_folder(folder)?;
        }
        let text = |path: &Path| path.display().to_string();
        let configuration = include_str!("config.ldif")
            .replace("{folder}", &text(self.place.folder()))
            .replace("{tree}", &text(&self.binaries.tree.path("")))
            .replace("{authority}", &text(&self.certificates.authority))
            .replace("{certificate}", &text(&self.certificates.certificate))
            .replace("{key}", &text(&self.certificates.key))
            .replace("{password}", &self.admin_password);
        for (database, ldif) in [("0", configuration.as_str()), ("1", include_str!("entries.ldif"))] {
            let mut command = self.binaries.tree.command("/usr/sbin/slapd");
            command.args(["-T", "add", "-n", database, "-F"]).arg(self.configuration());
            self.place.run("`slapadd`", &mut command, ldif.as_bytes(), SET_UP_DEADLINE)?;
        }
        Ok(())
    }

    /// What an administrator does before the broker comes, with the driver's own files.
    fn set_up(&self) -> Result<()> {
        let shipped = plugins::root().join(SET_UP);
        let secret = |name: &str, password: &str| -> Result<PathBuf> {
            let path = self.place.folder().join(name);
            self.place.write_secret(&path, password)?;
            Ok(path)
        };
        let admin = secret("admin-password", &self.admin_password)?;
        let broker = secret("broker-password", &self.broker_password)?;
        for (who, program, file) in
            [(CONFIG_ADMIN, "ldapmodify", "openldap-config.ldif"), (ADMIN, "ldapadd", "openldap-entries.ldif")]
        {
            let ldif = fs::read(shipped.join(file)).with_context(|| format!("cannot read {SET_UP}/{file}"))?;
            let mut command = self.client("ldapmodify", who, &admin);
            if program == "ldapadd" {
                command.arg("-a");
            }
            self.place.run(&format!("`{program}` of {file}"), &mut command, &ldif, SET_UP_DEADLINE)?;
        }
        let mut command = self.client("ldappasswd", ADMIN, &admin);
        command.arg("-T").arg(&broker).arg(BROKER);
        self.place.run("`ldappasswd`", &mut command, &[], SET_UP_DEADLINE)?;
        for file in [admin, broker] {
            fs::remove_file(file)?;
        }
        Ok(())
    }

    /// One of OpenLDAP's clients on the local socket.
    fn client(&self, program: &str, who: &str, password: &Path) -> Command {
        let mut command = self.binaries.tree.command(&format!("/usr/bin/{program}"));
        command.args(["-x", "-H", &self.socket_url(), "-D", who, "-y"]).arg(password);
        command
    }
}

fn accepts(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PROBE_DEADLINE).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let line = "@(#) $OpenLDAP: slapd 2.5.13+dfsg-5 (Feb  8 2023 01:56:12) $";
        assert_eq!(parse_version(line).unwrap(), "OpenLDAP 2.5.13+dfsg-5");
        assert_eq!(parse_version("slapd: not found"), None);
    }

    #[test]
    fn a_server_stops_and_comes_back_on_its_ports() {
        let mut server = SlapdServer::start(&binaries(&Steps::new()).unwrap()).unwrap();
        let (ldap, ldaps) = (server.ldap, server.ldaps);
        assert!(accepts(ldap) && accepts(ldaps));
        server.stop().unwrap();
        assert!(!accepts(ldap) && !accepts(ldaps));
        server.start_again().unwrap();
        assert!(accepts(ldap) && accepts(ldaps));
        let folder = server.place.folder().to_owned();
        drop(server);
        assert!(!folder.exists() && !accepts(ldap));
    }
}
