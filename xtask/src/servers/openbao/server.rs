//! One OpenBao server of its own, on loopback: raft storage, initialised and unsealed.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use jit_plugin_build::process::Run;
use serde::Deserialize;

use crate::servers::{
    certificates::{Certificates, NAMES},
    daemon::Daemon,
    place::{Place, RunAs, free_port},
};

/// How long a start may take, and becoming the leader after it.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long one command of its own client may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// How a server is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenBaoSettings {
    /// Without TLS: to measure it as the broker is measured.
    pub plain: bool,
    /// Each request is on record in a file, as the broker has it.
    pub audit: bool,
}

/// A running server. Dropping it stops it.
pub struct OpenBaoServer {
    binary: PathBuf,
    daemon: Daemon,
    certificates: Option<Certificates>,
    address: SocketAddr,
    root_token: String,
    unseal_key: String,
    place: Place,
}

/// What `bao operator init -format=json` says.
#[derive(Deserialize)]
struct Initialised {
    unseal_keys_b64: Vec<String>,
    root_token: String,
}

impl OpenBaoServer {
    /// Starts the server on free ports, initialises it with one key, unseals it, and waits until it
    /// answers its root token. It has no engine and no way to log in but that token.
    ///
    /// # Errors
    /// When it fails or is not ready in time; the end of the log is in the error.
    pub fn start(bao: &Path, settings: &OpenBaoSettings) -> Result<Self> {
        let place = Place::new("openbao", RunAs::Unprivileged)?;
        let certificates = if settings.plain { None } else { Some(Certificates::make(&place, &NAMES)?) };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        place.make_folder("raft")?;
        let file = place.folder().join("bao.hcl");
        let text = configuration(place.folder(), certificates.as_ref(), address, free_port()?, settings.audit);
        fs::write(&file, text)?;

        let mut command = Command::new(bao);
        command.args(["server", "-config"]).arg(&file);
        let mut daemon = Daemon::start("OpenBao", &mut command, &place)?;
        daemon.wait_ready(START_DEADLINE, &place, || std::net::TcpStream::connect(address).is_ok())?;
        let mut server = Self {
            binary: bao.to_owned(),
            daemon,
            certificates,
            address,
            root_token: String::new(),
            unseal_key: String::new(),
            place,
        };
        server.open(bao).with_context(|| server.place.log_tail())?;
        Ok(server)
    }

    /// Its program, which is its command line too.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Where it serves.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://…`, or `http://…` without TLS.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The authority that signed the server's certificate.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        self.certificates.as_ref().map(|certificates| certificates.authority.as_path())
    }

    /// The token that may do everything.
    #[must_use]
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// The one key that opens it after it was sealed.
    #[must_use]
    pub fn unseal_key(&self) -> &str {
        &self.unseal_key
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    /// Its log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.place.log_path()
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.place.folder()
    }

    /// Stops the server. Nothing happens if it is stopped.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.stop("TERM")
    }

    /// Leaves the server running, and its folder, when this value goes; the caller stops it by its
    /// process id, with TERM.
    pub fn detach(mut self) -> Option<u32> {
        self.place.keep();
        self.daemon.detach()
    }

    /// Looks whether it still runs.
    ///
    /// # Errors
    /// When it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.daemon.check(&self.place)
    }

    fn open(&mut self, bao: &Path) -> Result<()> {
        let begun = Instant::now();
        let init = ["operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json"];
        // It listens before it can be initialised.
        let said = loop {
            match self.client(bao, &init) {
                Ok(said) => break said,
                Err(_) if begun.elapsed() < START_DEADLINE => thread::sleep(POLL),
                Err(error) => return Err(error),
            }
        };
        let made: Initialised = serde_json::from_str(&said).context("cannot read what `bao operator init` says")?;
        let key = self.place.folder().join("key");
        self.unseal_key = made.unseal_keys_b64.into_iter().next().context("no unseal key")?;
        self.place.write_secret(&key, &self.unseal_key)?;
        self.client(bao, &["write", "sys/unseal", &format!("key=@{}", key.display())])?;
        fs::remove_file(&key)?;
        self.root_token = made.root_token;
        // Unsealed, it takes a moment to become the leader.
        while self.client(bao, &["secrets", "list", "-format=json"]).is_err() {
            if begun.elapsed() > START_DEADLINE {
                bail!("OpenBao does not become active");
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Runs its own client as root and gives what it says.
    fn client(&self, bao: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(bao);
        command.args(arguments).env_clear().env("BAO_ADDR", self.url()).env("HOME", self.place.folder());
        if let Some(authority) = self.authority() {
            command.env("BAO_CACERT", authority);
        }
        if !self.root_token.is_empty() {
            command.env("BAO_TOKEN", &self.root_token);
        }
        Ok(Run::new(format!("`bao {}`", arguments[0]), COMMAND_DEADLINE).output(&mut command)?.stdout)
    }
}

fn configuration(
    folder: &Path,
    certificates: Option<&Certificates>,
    address: SocketAddr,
    cluster_port: u16,
    audit: bool,
) -> String {
    let folder = folder.display();
    let (scheme, tls) = match certificates {
        Some(files) => (
            "https",
            format!(
                "tls_cert_file = \"{}\"\n  tls_key_file = \"{}\"",
                files.certificate.display(),
                files.key.display()
            ),
        ),
        None => ("http", "tls_disable = true".to_owned()),
    };
    let audit = if audit {
        format!("audit \"file\" \"to-file\" {{\n  options {{\n    file_path = \"{folder}/raft/audit.log\"\n  }}\n}}\n")
    } else {
        String::new()
    };
    format!(
        r#"ui = false
api_addr = "{scheme}://{address}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
log_level = "warn"
storage "raft" {{
  path = "{folder}/raft"
  node_id = "one"
  # Alone, it need not wait long for another leader.
  performance_multiplier = 1
}}
listener "tcp" {{
  address = "{address}"
  cluster_address = "127.0.0.1:{cluster_port}"
  {tls}
}}
{audit}"#
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{servers::openbao::binary, steps::Steps};

    #[test]
    fn a_server_is_unsealed_with_and_without_tls() {
        let bao = binary(&Steps::new()).unwrap();
        for plain in [false, true] {
            let server = OpenBaoServer::start(&bao, &OpenBaoSettings { plain, audit: true }).unwrap();
            assert_eq!(server.authority().is_none(), plain);
            let status = server.client(&bao, &["status", "-format=json"]).unwrap();
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            assert_eq!((&status["sealed"], &status["storage_type"]), (&false.into(), &"raft".into()));
            assert!(server.place.folder().join("raft/audit.log").exists());
            let folder = server.place.folder().to_owned();
            drop(server);
            assert!(!folder.exists());
        }
    }
}
