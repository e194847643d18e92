//! Builds programs of this workspace in the foreground, where cargo shows how far it is.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::plugins;

/// What `cargo build --message-format=json` says of a program that it built.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds the named programs of the named packages in one go and tells where they are, in the
/// order of `programs`.
///
/// # Errors
/// When one does not build; cargo has said why.
pub fn build<const N: usize>(packages: &[&str], programs: [&str; N], options: &[&str]) -> Result<[PathBuf; N]> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(plugins::root()).args(["build", "--message-format=json-render-diagnostics"]);
    if options.contains(&"--profile") {
        // What is measured is what is shipped: with its own features.
        for package in packages {
            command.args(["--package", package]);
        }
    } else {
        // The features of the whole workspace, as the tests have them: dependencies are compiled once.
        command.arg("--workspace");
    }
    for program in programs {
        command.args(["--bin", program]);
    }
    let mut cargo =
        command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut found: [Option<PathBuf>; N] = [const { None }; N];
    let stdout = cargo.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(stdout).lines() {
        let Ok(Message { executable: Some(path), target: Some(target) }) = serde_json::from_str(&line?) else {
            continue;
        };
        if let Some(place) = programs.iter().position(|program| *program == target.name) {
            found[place] = Some(path);
        }
    }
    let status = cargo.wait()?;
    if !status.success() {
        bail!("{} does not build", programs.join(" or "));
    }
    let mut paths = Vec::new();
    for (program, path) in programs.iter().zip(found) {
        paths.push(path.with_context(|| format!("cargo did not say where {program} is"))?);
    }
    paths.try_into().map_err(|_| anyhow::anyhow!("cargo built something else"))
}
