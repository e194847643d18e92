//! `cargo xtask test`: prepares what the suite needs and runs all of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use jit_plugin_build::Progress as _;

use crate::servers::{Kind, Surroundings, samba};
use crate::{plugins, steps::Steps};

/// What is run again on each further PostgreSQL: what speaks to it.
const AGAIN_ON_EACH_SERVER: &[&str] = &["story::", "removal::", "conformance::the_postgres"];
/// The suite's modules that need PostgreSQL and nothing else. Who asks for these only does not wait for
/// the other servers; a module that is not listed gets them all.
const POSTGRES_ALONE: &[&str] = &[
    "api",
    "away",
    "cli",
    "concurrency",
    "decisions",
    "faults",
    "hostile",
    "idempotency",
    "leases",
    "operators",
    "outage",
    "readme",
    "reload",
    "removal",
    "secrets",
    "shutdown",
    "signing",
    "story",
    "tls",
    "tokens",
];

/// The binaries under test.
pub struct Binaries {
    /// As it is released, but for the profile.
    pub broker: PathBuf,
    /// With the failpoints of the fault suite.
    pub failpoints: PathBuf,
}

/// Prepares the toolchain, the plugins, the servers and both binaries, then runs every test of the
/// workspace with the last of the PostgreSQL versions, and those that speak to it with each other one.
/// `arguments` go to the tests; with any, only the end to end suite is run.
///
/// # Errors
/// When something cannot be prepared, or a test fails.
pub fn run(majors: &[u32], kinds: &[Kind], arguments: &[String], steps: &Steps) -> Result<()> {
    let main = majors.last().copied().context("no PostgreSQL to test with")?;
    let mut kinds = needed(kinds, arguments);
    let left_out = leave_out_what_needs_root(&mut kinds);
    // The servers come while the compiler works.
    let (servers, binaries) = thread::scope(|scope| {
        let servers = scope.spawn(|| Surroundings::start(&kinds, main, steps));
        let binaries = plugins::build(&[], steps).and_then(|built| {
            steps.done(&format!("{} plugins", built.len()));
            binaries(steps)
        });
        let servers = servers.join().unwrap_or_else(|_| Err(anyhow!("starting the servers panicked")));
        (servers, binaries)
    });
    let (servers, binaries) = (servers?, binaries?);
    if let Some(why) = &left_out {
        steps.step(&format!("NOT run: the tests against Active Directory. {why}"));
    }
    let skipped: &[&str] = if left_out.is_some() { &SKIP_ACTIVE_DIRECTORY } else { &[] };
    if arguments.is_empty() {
        cargo_test(&["--workspace", "--no-fail-fast"], skipped, &binaries, &servers)?;
    } else {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(skipped.iter().copied()).collect();
        cargo_test(&["--workspace", "--test", "suite"], &arguments, &binaries, &servers)?;
    }
    drop(servers);
    for major in majors.iter().filter(|major| **major != main && arguments.is_empty()) {
        let server = Surroundings::start(&[Kind::Postgres], *major, steps)?;
        cargo_test(&["--workspace", "--test", "suite"], AGAIN_ON_EACH_SERVER, &binaries, &server)?;
    }
    steps.finish();
    if let Some(why) = left_out {
        eprintln!("NOT run: the tests against Active Directory. {why}");
    }
    Ok(())
}

/// All tests that need a domain controller, those of its own module included.
const SKIP_ACTIVE_DIRECTORY: [&str; 4] = ["--skip", "active_directory", "--skip", "samba"];

/// Takes Active Directory out where this user may not open its ports; says why.
fn leave_out_what_needs_root(kinds: &mut Vec<Kind>) -> Option<String> {
    let why = kinds.contains(&Kind::Ad).then(samba::may_be_started).and_then(Result::err)?;
    kinds.retain(|kind| *kind != Kind::Ad);
    Some(format!("{why:#}"))
}

/// Of the servers that may be started, those that the asked-for tests need.
fn needed(kinds: &[Kind], arguments: &[String]) -> Vec<Kind> {
    let alone = |filter: &String| filter.split_once("::").is_some_and(|(module, _)| POSTGRES_ALONE.contains(&module));
    let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    if filters.peek().is_some() && filters.all(alone) {
        return vec![Kind::Postgres];
    }
    let mut kinds = kinds.to_vec();
    // Every world has its own database.
    kinds.push(Kind::Postgres);
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// Builds the broker twice and puts both aside, where a later build does not replace them.
///
/// # Errors
/// When it does not build.
pub fn binaries(steps: &Steps) -> Result<Binaries> {
    let folder = plugins::root().join("target/suite");
    std::fs::create_dir_all(&folder)?;
    let failpoints = built(&folder.join("jit-broker-failpoints"), &["--features", "jit-broker/failpoints"])?;
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

/// Runs in the foreground; how long a test may take is bounded within the tests.
fn cargo_test(which: &[&str], arguments: &[&str], binaries: &Binaries, servers: &Surroundings) -> Result<()> {
    let status = cargo()
        .arg("test")
        .args(which)
        .arg("--")
        .args(arguments)
        .envs(servers.environment())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_need_postgresql_alone_do_not_wait_for_the_others() {
        let asked = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            needed(&[Kind::Mysql, Kind::Ldap], &arguments)
        };
        assert_eq!(asked(&["removal::", "story::", "--nocapture"]), [Kind::Postgres]);
        let all = [Kind::Postgres, Kind::Mysql, Kind::Ldap];
        assert_eq!(asked(&[]), all);
        assert_eq!(asked(&["--nocapture"]), all);
        assert_eq!(asked(&["removal::", "servers::"]), all);
        assert_eq!(asked(&["removal"]), all);
    }
}
