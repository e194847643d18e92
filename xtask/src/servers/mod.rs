//! Real servers for the tests, the demo and the bench, none of which needs Docker, root or an
//! installation: their binaries come out of package registries into the cache.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jit_plugin_build::process::Run;

pub mod certificates;
mod daemon;
pub mod debian;
pub mod mariadb;
pub mod mysql;
pub mod openbao;
mod place;
pub mod postgres;
pub mod samba;
pub mod slapd;
mod surroundings;

pub use surroundings::{Kind, Surroundings};

/// How long a package may take to download.
pub(crate) const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(900);
/// How long one of these programs may take to tell its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(30);
/// How long another process may take to prepare the same server.
pub(crate) const INSTALL_DEADLINE: Duration = Duration::from_secs(1200);

/// Runs a program for its version line; shows that it works on this machine.
pub(crate) fn version_of(program: &Path, argument: &str) -> Result<String> {
    let said = Run::new(program.display().to_string(), VERSION_DEADLINE).output(Command::new(program).arg(argument))?;
    said.stdout.lines().next().map(str::to_owned).with_context(|| format!("{} says nothing", program.display()))
}

/// The first of these programs that can be started.
pub(crate) fn first_working(programs: &[&str], argument: &str) -> Option<PathBuf> {
    programs.iter().map(PathBuf::from).find(|program| version_of(program, argument).is_ok())
}

/// The one entry of a folder with this ending.
fn only_file(folder: &Path, ending: &str) -> Result<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(file),
        _ => bail!("{} does not hold one file *{ending}", folder.display()),
    }
}
