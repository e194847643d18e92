//! What stands behind the target `inventory_db`. The story is the same on each; here is what is not:
//! the servers, the configuration's sections for them, how an account logs in, what can be seen of it
//! there, and what ends with it.

mod ldap;
mod mysql;
mod postgres;
mod vault;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jit_tests::Reply;
use serde::{Deserialize, Serialize};
use xtask::demo::Backend as Kind;
use xtask::steps::Steps;

use crate::screen::Screen;

pub(crate) use ldap::Ldap;
pub(crate) use mysql::Mysql;
pub(crate) use postgres::Postgres;
pub(crate) use vault::Vault;

/// A kind of backend, running.
pub(crate) trait Backend: Sized {
    /// What an application keeps open with its account.
    type Session;
    /// What the screen says of it.
    const TEXTS: Texts;
    /// Which it is; its driver has the same name.
    const KIND: Kind;

    /// Starts the servers and sets them up as the driver's page says. What the broker needs of them
    /// is put into the demo's folder: its credential, and the authority where there is TLS.
    async fn start(folder: &Path, steps: &Steps) -> Result<Self>;
    /// What was started, in a line.
    fn started(&self) -> String;
    /// The sections of the configuration.
    fn sections(&self) -> Sections;
    /// The servers' processes, in the order in which they are to be stopped.
    fn processes(&self) -> Vec<Process>;
    /// A command that uses the credential of a reply, which `field NAME` takes from `$REPLY`.
    fn to_try(&self) -> String;
    /// Stops the servers.
    fn stop(&mut self) -> Result<()>;
    /// Leaves them running when this value goes.
    fn detach(self);

    /// The accounts that the broker made, as an administrator sees them in the backend.
    async fn accounts(&self) -> Result<Vec<String>>;
    /// Logs in, does what the role allows and what it does not, and shows what the backend knows.
    async fn use_account(&self, issued: &Reply, screen: &Screen) -> Result<Self::Session>;
    /// Shows that no login, no session and no account is left.
    async fn gone(&self, issued: &Reply, session: Self::Session, screen: &Screen) -> Result<()>;
}

/// What is said on the screen.
pub(crate) struct Texts {
    /// The servers' names, to be followed by "and the broker".
    pub(crate) servers: &'static str,
    /// What has the accounts, as a sentence begins.
    pub(crate) holder: &'static str,
    /// What the driver does for an account.
    pub(crate) makes: &'static str,
    /// Why working with the account is nothing special.
    pub(crate) ordinary: &'static str,
    /// Who ends the account.
    pub(crate) ends: &'static str,
    /// What the workload got.
    pub(crate) got: &'static str,
    /// What ended with the lease.
    pub(crate) ended: &'static str,
}

/// The configuration's sections that differ, without their headings.
pub(crate) struct Sections {
    /// Below `[connections.inventory]`.
    pub(crate) connection: String,
    /// What follows the target's own keys: its tables.
    pub(crate) target: String,
}

/// A server's process, for whoever stops it later.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Process {
    /// The server's name.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: String,
    /// Its id.
    pub(crate) pid: u32,
    /// The signal that ends it in order.
    pub(crate) signal: String,
    /// Its files, below a temporary folder; also in its command line.
    pub(crate) folder: PathBuf,
}

impl Process {
    fn of(name: &str, address: &str, pid: Option<u32>, signal: &str, folder: &Path) -> Option<Self> {
        let (name, address, signal) = (name.to_owned(), address.to_owned(), signal.to_owned());
        Some(Self { name, address, pid: pid?, signal, folder: folder.to_owned() })
    }
}

/// Writes the broker's credential where the configuration looks for it.
fn write_credential(folder: &Path, secret: &str) -> Result<()> {
    let path = folder.join("secrets/inventory");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(secret.as_bytes())?)
}

/// Copies the authority of the server's certificate beside the configuration.
fn copy_authority(folder: &Path, authority: &Path) -> Result<PathBuf> {
    let copy = folder.join("ca.pem");
    fs::copy(authority, &copy).with_context(|| format!("cannot copy {}", authority.display()))?;
    Ok(copy)
}

/// The first characters of a password.
pub(crate) fn masked(password: &str) -> String {
    /// How many.
    const SHOWN: usize = 3;
    format!("{}…", password.get(..SHOWN).unwrap_or(""))
}

/// A path as it is typed: relative where it is below the current folder.
pub(crate) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// A time's digits, to compare spellings of it: `20261122093000`.
fn digits(time: &str) -> String {
    time.chars().filter(char::is_ascii_digit).take(14).collect()
}
