//! `cargo xtask test`: prepares what the suite needs and runs all of it.

use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};

use crate::{plugins, servers::postgres, steps::Steps};

/// Prepares the toolchain, the plugins and the servers, then runs every test of the workspace.
/// `arguments` go to `cargo test`.
///
/// # Errors
/// When something cannot be prepared, or a test fails.
pub fn run(majors: &[u32], arguments: &[String], steps: &Steps) -> Result<()> {
    for major in majors {
        let binaries = postgres::binaries(*major, steps)?;
        steps.done(binaries.version());
    }
    let built = plugins::build(&[], steps)?;
    steps.done(&format!("{} plugins", built.len()));
    steps.finish();
    let status = cargo_test(arguments)?;
    if !status.success() {
        bail!("tests failed ({status})");
    }
    Ok(())
}

/// Runs in the foreground; how long a test may take is bounded within the tests.
fn cargo_test(arguments: &[String]) -> Result<ExitStatus> {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--workspace"])
        .args(arguments)
        .current_dir(plugins::root())
        .status()
        .context("cannot start cargo")
}
