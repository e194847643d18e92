//! Samba as an Active Directory domain controller: a real one to everybody who speaks LDAP to it. From
//! Debian 12.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jit_plugin_build::process::Run;

use super::{
    VERSION_DEADLINE,
    certificates::Certificates,
    daemon::Daemon,
    debian::{Release, Tree},
    place::{Place, RunAs, random_bytes, random_password},
};
use crate::{plugins, steps::Steps};

/// How long making a domain may take.
const PROVISION_DEADLINE: Duration = Duration::from_secs(300);
/// How long the driver's set-up may take.
const SET_UP_DEADLINE: Duration = Duration::from_secs(180);
/// How long a start may take.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// How long one probe may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// The ports that a domain controller has, LDAP's and the global catalogue's. They cannot be chosen.
const PORTS: [u16; 4] = [389, 636, 3268, 3269];
/// How many addresses of loopback are tried.
const ADDRESSES: usize = 20;
/// The domain.
const DOMAIN: &str = "DC=corp,DC=test";
/// The domain's administrator.
const ADMIN: &str = "CN=Administrator,CN=Users,DC=corp,DC=test";
/// The account that the broker binds as.
const BROKER: &str = "CN=jit-broker,OU=Services,DC=corp,DC=test";
/// Where the driver's set-up lies in this repository.
const SET_UP: &str = "plugins/driver-ldap/setup/active-directory.sh";
/// The groups that the broker may grant.
const ROLES: [&str; 2] = ["app_read_only", "app_read_write"];

/// Runs `samba-tool` with its arguments, but for one thing that only root may do: it gives the files of
/// the domain's shares their owners. There are no shares here.
const PROVISION: &str = "\
import runpy, sys, samba.provision
samba.provision.setsysvolacl = lambda *arguments, **options: None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name='__main__')
";

/// `samba`, `samba-tool` and a Python for it, with everything that they need.
#[derive(Debug, Clone)]
pub struct SambaBinaries {
    tree: Tree,
    version: String,
}

impl SambaBinaries {
    /// As `samba --version` says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// The binaries: from the cache, else from Debian 12.
///
/// # Errors
/// When they cannot be had on this machine, with the reason.
pub fn binaries(steps: &Steps) -> Result<SambaBinaries> {
    let packages = ["samba", "samba-ad-dc", "samba-ad-provision", "samba-dsdb-modules", "python3-samba", "ldb-tools"];
    let tree = Tree::get("samba-ad", Release::Bookworm, &packages, steps, |tree| {
        make_relocatable(tree)?;
        version(tree).map(drop)
    })?;
    let version = version(&tree)?;
    Ok(SambaBinaries { tree, version })
}

fn version(tree: &Tree) -> Result<String> {
    let mut command = command(tree, "/usr/sbin/samba")?;
    let said = Run::new("`samba --version`", VERSION_DEADLINE).output(command.arg("--version"))?;
    parse_version(&said.stdout).context("cannot read what `samba --version` says")
}

/// Reads `Version 4.17.12-Debian`.
fn parse_version(said: &str) -> Option<String> {
    Some(format!("Samba {}", said.lines().next()?.strip_prefix("Version ")?.trim()))
}

/// One of Samba's programs; their libraries lie in a folder of their own.
fn command(tree: &Tree, program: &str) -> Result<Command> {
    Ok(tree.command_with(program, &[tree.library_folder()?.join("samba")]))
}

/// Where Samba finds its modules, and the templates of a new domain, is compiled into one library.
/// There the paths are made relative, to two links in the folder that the server runs in.
fn make_relocatable(tree: &Tree) -> Result<()> {
    let libraries = tree.library_folder()?;
    let multiarch = libraries.file_name().context("no folder of libraries")?.to_string_lossy().into_owned();
    let library = fs::canonicalize(libraries.join("libsamba-util.so.0"))?;
    let mut bytes = fs::read(&library)?;
    for (compiled, link) in
        [(format!("/usr/lib/{multiarch}/samba"), "modules"), ("/usr/share/samba/setup".into(), "setup")]
    {
        if replace_path(&mut bytes, compiled.as_bytes(), link.as_bytes()) == 0 {
            bail!("{} does not name {compiled}", library.display());
        }
    }
    Ok(fs::write(&library, bytes)?)
}

/// Puts a shorter path in the place of a whole compiled-in one; tells how often.
fn replace_path(bytes: &mut [u8], from: &[u8], to: &[u8]) -> usize {
    let from: Vec<u8> = from.iter().copied().chain([0]).collect();
    let mut count = 0;
    let mut place = 0;
    while to.len() < from.len() && place + from.len() <= bytes.len() {
        let whole = place == 0 || bytes[place - 1] == 0;
        if whole && bytes[place..].starts_with(&from) {
            bytes[place..place + from.len()].fill(0);
            bytes[place..place + to.len()].copy_from_slice(to);
            count += 1;
        }
        place += 1;
    }
    count
}

/// A running domain controller of the domain `corp.test`, with LDAP only. Dropping it stops it.
///
/// Its ports are those of every domain controller, so it has an address of loopback of its own, and
/// its start needs the right to ports below 1024. It has `OU=JIT` for temporary accounts, the groups
/// `app_read_only` and `app_read_write` in `OU=Groups`, and the broker's account, which may do what
/// the driver's set-up says and nothing else.
pub struct SambaServer {
    daemon: Option<Daemon>,
    binaries: SambaBinaries,
    certificates: Certificates,
    address: Ipv4Addr,
    admin_password: String,
    broker_password: String,
    place: Place,
}

impl SambaServer {
    /// Makes a domain, sets it up for the broker, and starts its controller.
    ///
    /// # Errors
    /// When the ports may not be used, or when a program fails or is not ready in time; the end of the
    /// log is in the error.
    pub fn start(binaries: &SambaBinaries) -> Result<Self> {
        let address = free_address()?;
        let place = Place::new("samba", RunAs::Ourselves)?;
        let names = ["localhost", "dc1.corp.test", &address.to_string()];
        let mut server = Self {
            daemon: None,
            binaries: binaries.clone(),
            certificates: Certificates::make(&place, &names)?,
            address,
            // Three kinds of characters: what a domain demands.
            admin_password: format!("Jit.{}", random_password()?),
            broker_password: format!("Jit.{}", random_password()?),
            place,
        };
        server.provision()?;
        server.set_up()?;
        server.start_again()?;
        Ok(server)
    }

    /// `ldaps://`; the certificate names the address. On `ldap://` it takes no password without StartTLS.
    #[must_use]
    pub fn ldaps_url(&self) -> String {
        format!("ldaps://{}", self.address)
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

    /// Starts the stopped server again, on the same address. Nothing happens if it runs.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub fn start_again(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        let mut command = command(&self.binaries.tree, "/usr/sbin/samba")?;
        command.arg("--configfile").arg(self.configuration());
        // In the foreground, and one process.
        command.args(["--foreground", "--no-process-group", "--model=single", "--debug-stdout"]);
        self.place.prepare(&mut command)?;
        self.surround(&mut command)?;
        let mut daemon = Daemon::start_prepared("samba", &mut command, &self.place)?;
        let address = self.address;
        daemon.wait_ready(START_DEADLINE, &self.place, || PORTS.into_iter().all(|port| accepts(address, port)))?;
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
        self.place.folder().join("smb.conf")
    }

    /// Makes the domain, and the configuration to serve it.
    fn provision(&self) -> Result<()> {
        let (tree, folder) = (&self.binaries.tree, self.place.folder());
        symlink(tree.library_folder()?.join("samba"), folder.join("modules"))?;
        symlink(tree.path("/usr/share/samba/setup"), folder.join("setup"))?;
        self.write_starters()?;
        let mut provision = self.python()?;
        provision.args(["-c", PROVISION]).arg(self.samba_tool());
        provision.args(["domain", "provision", "--realm=CORP.TEST", "--domain=CORP", "--host-name=dc1"]);
        provision.args(["--server-role=dc", "--dns-backend=NONE", "--use-rfc2307"]);
        provision.arg(format!("--adminpass={}", self.admin_password));
        provision.arg("--targetdir").arg(folder.join("dc"));
        self.run("`samba-tool domain provision`", provision, PROVISION_DEADLINE)?;
        let text = |path: &Path| path.display().to_string();
        let configuration = include_str!("smb.conf")
            .replace("{folder}", &text(folder))
            .replace("{address}", &self.address.to_string())
            .replace("{authority}", &text(&self.certificates.authority))
            .replace("{certificate}", &text(&self.certificates.certificate))
            .replace("{key}", &text(&self.certificates.key));
        Ok(fs::write(self.configuration(), configuration)?)
    }

    /// What an administrator does before the broker comes, with the driver's own file. On the files,
    /// before the server runs.
    fn set_up(&self) -> Result<()> {
        let options = format!(
            "--configfile={} -H {}",
            self.configuration().display(),
            self.place.folder().join("dc/private/sam.ldb").display()
        );
        let roles = "./samba-tool ou add OU=Groups $SAMBA_TOOL\n\
                     for role in $ROLES; do ./samba-tool group add $role --groupou=OU=Groups $SAMBA_TOOL; done\n\
                     exec sh -eu \"$SCRIPT\"";
        let mut script = Command::new("sh");
        script
            .args(["-euc", roles])
            .env("SCRIPT", plugins::root().join(SET_UP))
            .env("DOMAIN", DOMAIN)
            .env("ROLES", ROLES.join(" "))
            .env("PASSWORD", &self.broker_password)
            .env("SAMBA_TOOL", options);
        self.run(SET_UP, script, SET_UP_DEADLINE)
    }

    /// Scripts `samba-tool` and `ldbmodify` that run the tree's.
    fn write_starters(&self) -> Result<()> {
        let mut samba_tool = self.python()?;
        samba_tool.arg(self.samba_tool());
        let ldbmodify = command(&self.binaries.tree, "/usr/bin/ldbmodify")?;
        for (name, command) in [("samba-tool", samba_tool), ("ldbmodify", ldbmodify)] {
            let path = self.place.folder().join(name);
            fs::write(&path, Tree::script(&command)?)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    fn python(&self) -> Result<Command> {
        command(&self.binaries.tree, "/usr/bin/python3.11")
    }

    fn samba_tool(&self) -> PathBuf {
        self.binaries.tree.path("/usr/bin/samba-tool")
    }

    /// Runs a command to its end, with what Samba's programs need around them.
    fn run(&self, what: &str, mut command: Command, deadline: Duration) -> Result<()> {
        let wanted: Vec<_> =
            command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
        self.place.prepare(&mut command)?;
        self.surround(&mut command)?;
        command.envs(wanted);
        self.place.run_prepared(what, &mut command, &[], deadline)
    }

    fn surround(&self, command: &mut Command) -> Result<()> {
        let tree = &self.binaries.tree;
        command
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.place.folder().display()))
            .env("LDB_MODULES_PATH", tree.library_folder()?.join("samba/ldb"))
            .env("PYTHONHOME", tree.path("/usr"))
            .env("PYTHONPATH", tree.path("/usr/lib/python3/dist-packages"))
            // The tree may be another user's.
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(())
    }
}

/// Whether this user may open a domain controller's ports.
///
/// # Errors
/// Why not, and what to do.
pub fn may_be_started() -> Result<()> {
    free_address().map(drop)
}

/// An address of loopback on which nobody has a domain controller's ports.
///
/// # Errors
/// When this user may not use the ports.
pub(super) fn free_address() -> Result<Ipv4Addr> {
    for _ in 0..ADDRESSES {
        let [a, b, c] = random_bytes()?;
        // Neither those that people choose themselves nor a network's first and last.
        let address = Ipv4Addr::new(127, 64 | (a & 63), b, c.clamp(1, 254));
        let taken = PORTS.iter().map(|port| TcpListener::bind((address, *port)));
        match taken.collect::<std::io::Result<Vec<_>>>() {
            Ok(_) => return Ok(address),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!(
                "an Active Directory server has ports below 1024, which this user may not use; run this as root, or \
                 let everybody use them: sysctl net.ipv4.ip_unprivileged_port_start=0"
            ),
            Err(_) => {}
        }
    }
    bail!("no address of loopback has the ports {PORTS:?} free")
}

fn accepts(address: Ipv4Addr, port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((address, port)), PROBE_DEADLINE).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("Version 4.17.12-Debian\n").unwrap(), "Samba 4.17.12-Debian");
        assert_eq!(parse_version("samba: not found"), None);
    }

    #[test]
    fn only_whole_paths_are_replaced_and_the_length_stays() {
        let mut bytes = b"\0/usr/lib/x/samba\0/usr/lib/x/samba/ldb\0x/usr/lib/x/samba\0".to_vec();
        assert_eq!(replace_path(&mut bytes, b"/usr/lib/x/samba", b"modules"), 1);
        assert_eq!(bytes, b"\0modules\0\0\0\0\0\0\0\0\0\0/usr/lib/x/samba/ldb\0x/usr/lib/x/samba\0");
        assert_eq!(replace_path(&mut bytes, b"mod", b"a-longer-path"), 0);
    }

    #[test]
    fn a_server_stops_and_comes_back_on_its_address() {
        let mut server = SambaServer::start(&binaries(&Steps::new()).unwrap()).unwrap();
        let address = server.address;
        assert!(accepts(address, 636));
        server.stop().unwrap();
        assert!(!accepts(address, 636));
        server.start_again().unwrap();
        assert!(accepts(address, 636));
        let folder = server.place.folder().to_owned();
        drop(server);
        assert!(!folder.exists() && !accepts(address, 636));
    }
}
