//! The conformance kit as its users run it: a fixture in a folder of its own, and the command.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::surroundings;

pub mod conjur;
pub mod directory;
pub mod mysql;
pub mod people;
pub mod postgres;
pub mod queues;
pub mod userpass;
pub mod vault;

/// The cases that a driver leaves out which places no verifier of a caller's.
pub const VERIFIERS: [&str; 2] = ["verifiers::the_callers_password_logs_in", "verifiers::another_kind_is_refused"];

/// A fixture, its folder and what stands behind it.
pub struct KitFixture {
    folder: TempDir,
}

/// What the kit reported.
#[derive(Debug)]
pub struct KitReport {
    /// The report.
    pub json: Value,
    /// The command's exit code.
    pub code: Option<i32>,
    /// What it told meanwhile.
    pub told: String,
}

impl KitFixture {
    /// An empty folder.
    ///
    /// # Errors
    /// When there is no room.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()? })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a secret as an operator would: readable by its owner only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn secret(&self, name: &str, value: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join(name);
        std::fs::write(&path, value)?;
        Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?)
    }

    /// Writes the fixture.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(self.path(), text)?)
    }

    /// Where the fixture is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("fixture.toml")
    }

    /// Runs the kit on a component of the built plugins.
    ///
    /// # Errors
    /// When there is no report.
    pub fn run(&self, driver: &str, only: &[&str]) -> Result<KitReport> {
        self.run_component(&Path::new(&surroundings("JIT_TEST_PLUGINS")).join(format!("{driver}.wasm")), only)
    }

    /// Runs the kit on any component.
    ///
    /// # Errors
    /// When there is no report.
    pub fn run_component(&self, component: &Path, only: &[&str]) -> Result<KitReport> {
        let mut arguments: Vec<&str> = vec!["--format", "json"];
        for part in only {
            arguments.extend(["--only", part]);
        }
        let output = self.command(component, &arguments)?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let json = serde_json::from_slice(&output.stdout).with_context(|| format!("no report: {told}"))?;
        Ok(KitReport { json, code: output.status.code(), told })
    }

    /// The command with other arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn command(&self, component: &Path, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(surroundings("JIT_TEST_BROKER"));
        command.args(["plugin", "test", "--driver"]).arg(component).arg("--fixture").arg(self.path()).args(arguments);
        command.output().context("the broker's binary cannot be started")
    }
}

impl KitReport {
    /// The names of the cases that ended so (`passed`, `failed`, `skipped`, `not-applicable`).
    #[must_use]
    pub fn cases(&self, verdict: &str) -> Vec<&str> {
        let cases = self.json["cases"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ended_so = cases.iter().filter(|case| case["verdict"] == verdict);
        ended_so.filter_map(|case| case["name"].as_str()).collect()
    }

    /// Why a case ended as it did.
    #[must_use]
    pub fn detail(&self, name: &str) -> &str {
        let cases = self.json["cases"].as_array().map(Vec::as_slice).unwrap_or_default();
        let case = cases.iter().find(|case| case["name"] == name);
        case.and_then(|case| case["detail"].as_str()).unwrap_or_default()
    }

    /// The names of the cases that did not pass and did not fail: they do not apply, or were skipped.
    #[must_use]
    pub fn left_out(&self) -> Vec<&str> {
        let cases = self.json["cases"].as_array().map(Vec::as_slice).unwrap_or_default();
        let left_out = cases.iter().filter(|case| case["verdict"] == "not-applicable" || case["verdict"] == "skipped");
        left_out.filter_map(|case| case["name"].as_str()).collect()
    }

    /// Nothing failed, and exactly these cases did not apply or were skipped.
    ///
    /// # Errors
    /// With the whole report.
    pub fn must_pass_without(&self, left_out: &[&str]) -> Result<()> {
        if self.code == Some(0) && self.cases("failed").is_empty() && self.left_out() == left_out {
            return Ok(());
        }
        bail!("exit code {:?}\n{}\n{:#}", self.code, self.told, self.json)
    }
}
