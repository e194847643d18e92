//! `cargo xtask test`: prepares what the suite needs and runs all of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::servers::postgres::{self, PostgresServer, PostgresSettings};
use crate::{plugins, steps::Steps};

/// What is run again on each further PostgreSQL: what speaks to it.
const AGAIN_ON_EACH_SERVER: &[&str] = &["story::", "removal::"];

/// The binaries under test.
pub struct Binaries {
    /// As it is released, but for the profile.
    pub broker: PathBuf,
    /// With the failpoints of the fault suite.
    pub failpoints: PathBuf,
}

/// Prepares the toolchain, the plugins, the servers and both binaries, then runs every test of the
/// workspace on the newest of the servers, and those that speak to it on each other one.
/// `arguments` go to the tests; with any, only the end to end suite is run.
///
/// # Errors
/// When something cannot be prepared, or a test fails.
pub fn run(majors: &[u32], arguments: &[String], steps: &Steps) -> Result<()> {
    let built = plugins::build(&[], steps)?;
    steps.done(&format!("{} plugins", built.len()));
    let binaries = binaries(steps)?;
    let newest = majors.iter().max().copied().context("no PostgreSQL to test with")?;
    let server = server(newest, steps)?;
    if arguments.is_empty() {
        cargo_test(&["--workspace", "--no-fail-fast"], &[], &binaries, &server)?;
    } else {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        cargo_test(&["--package", "jit-tests", "--test", "suite"], &arguments, &binaries, &server)?;
    }
    drop(server);
    for major in majors.iter().filter(|major| **major != newest && arguments.is_empty()) {
        let server = self::server(*major, steps)?;
        cargo_test(&["--package", "jit-tests", "--test", "suite"], AGAIN_ON_EACH_SERVER, &binaries, &server)?;
    }
    steps.finish();
    Ok(())
}

/// Builds the broker twice and puts both aside, where a later build does not replace them.
///
/// # Errors
/// When it does not build.
pub fn binaries(steps: &Steps) -> Result<Binaries> {
    let folder = plugins::root().join("target/suite");
    std::fs::create_dir_all(&folder)?;
    let failpoints = built(&folder.join("jit-broker-failpoints"), &["--features", "failpoints"])?;
    let broker = built(&folder.join("jit-broker"), &[])?;
    steps.done("the broker, and the broker with failpoints");
    Ok(Binaries { broker, failpoints })
}

fn built(to: &Path, features: &[&str]) -> Result<PathBuf> {
    let [program] = crate::binaries::build(&["jit-broker"], ["jit-broker"], features)?;
    // Beside it and renamed: a running one keeps its file.
    let beside = to.with_extension("new");
    std::fs::copy(program, &beside)?;
    std::fs::rename(&beside, to)?;
    Ok(to.to_owned())
}

/// A server for tests: it forgets on power loss, which no test is about, and holds many worlds.
fn server(major: u32, steps: &Steps) -> Result<PostgresServer> {
    let binaries = postgres::binaries(major, steps)?;
    let parameters = [("fsync", "off"), ("full_page_writes", "off"), ("max_connections", "400")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server =
        PostgresServer::start(binaries.bin(), &PostgresSettings { parameters, ..PostgresSettings::default() })?;
    steps.done(&format!("{} on port {}", binaries.version(), server.port()));
    Ok(server)
}

/// Runs in the foreground; how long a test may take is bounded within the tests.
fn cargo_test(which: &[&str], arguments: &[&str], binaries: &Binaries, server: &PostgresServer) -> Result<()> {
    let status = cargo()
        .arg("test")
        .args(which)
        .arg("--")
        .args(arguments)
        .env("JIT_TEST_POSTGRES", server.url("postgres"))
        .env("JIT_TEST_POSTGRES_URL", server.url("postgres"))
        .env("JIT_TEST_BROKER", &binaries.broker)
        .env("JIT_TEST_BROKER_FAILPOINTS", &binaries.failpoints)
        .env("JIT_TEST_PLUGINS", plugins::folder())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("tests failed ({status})");
    }
    Ok(())
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(plugins::root());
    cargo
}
