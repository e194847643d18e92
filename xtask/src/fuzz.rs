//! `cargo xtask fuzz`: builds the fuzz targets and runs them.

use std::{ffi::OsString, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{binaries, plugins};

/// Builds `jit-fuzz` with the features of the whole workspace, as the tests have them, and runs it with these
/// arguments.
///
/// # Errors
/// When it does not build, or a property does not hold.
pub fn run(arguments: &[OsString]) -> Result<()> {
    let [program] = binaries::build(&["jit-fuzz"], ["jit-fuzz"], &[])?;
    let status =
        Command::new(program).args(arguments).current_dir(plugins::root()).status().context("cannot start jit-fuzz")?;
    if !status.success() {
        bail!("fuzzing failed ({status})");
    }
    Ok(())
}
