//! `cargo xtask test`: prepares what the suite needs and runs all of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use jit_plugin_build::Progress as _;
use serde::Deserialize;

use crate::ingredients::Ingredients;
use crate::needs::{Modules, Needs};
use crate::servers::{Kind, Surroundings, samba};
use crate::timing::Timing;
use crate::{plugins, steps::Steps};

/// What is run again on each further PostgreSQL: what speaks to it.
const AGAIN_ON_EACH_SERVER: &[&str] = &["story::", "removal::", "conformance::the_postgres", "--skip", "policy_story"];
/// The binaries under test.
pub struct Binaries {
    /// As it is released, but for the profile.
    pub broker: PathBuf,
    /// With the failpoints of the fault suite.
    pub failpoints: PathBuf,
    /// `jit-agent`.
    pub agent: PathBuf,
    /// The Rust example.
    pub example: PathBuf,
}

/// Prepares the toolchain, the plugins, the servers and the binaries, then runs every test of the
/// workspace with the last of the PostgreSQL versions, and those that speak to it with each other one.
/// `arguments` go to the tests; with any, only the end to end suite is run.
///
/// # Errors
/// When something cannot be prepared, or a test fails.
pub fn run(majors: &[u32], kinds: &[Kind], arguments: &[String], steps: &Steps) -> Result<()> {
    let main = majors.last().copied().context("no PostgreSQL to test with")?;
    let needs = Modules::of_the_suite()?.of_filters(arguments);
    let mut kinds = needed(kinds, &needs);
    let left_out = leave_out_what_needs_root(&mut kinds);
    // The servers, and what the examples run on, come while the compiler works.
    let (servers, ingredients, binaries) = thread::scope(|scope| {
        let servers = scope.spawn(|| {
            if needs.languages {
                plugins::languages(steps)?;
            }
            Surroundings::start(&kinds, main, steps)
        });
        let ingredients = scope.spawn(|| needs.ingredients.then(|| Ingredients::get(steps)));
        let binaries = plugins::build(&[], steps).and_then(|built| {
            steps.done(&format!("{} plugins", built.len()));
            binaries(steps)
        });
        let servers = servers.join().unwrap_or_else(|_| Err(anyhow!("starting the servers panicked")));
        let ingredients = ingredients.join().map_err(|_| anyhow!("fetching for the examples panicked"));
        (servers, ingredients, binaries)
    });
    let (servers, ingredients, binaries) = (servers?, ingredients?, binaries?);
    let mut not_run: Vec<String> = ingredients.iter().flat_map(Ingredients::not_run).collect();
    not_run.extend(left_out.iter().map(|why| format!("NOT run: the tests against Active Directory. {why}")));
    not_run.iter().for_each(|line| steps.step(line));
    let mut environment = servers.environment();
    environment.extend(ingredients.iter().flat_map(Ingredients::environment));
    let environment = environment_of(&binaries, &environment);
    // From here on the tests speak.
    steps.finish();
    let skipped: &[&str] = if left_out.is_some() { &SKIP_ACTIVE_DIRECTORY } else { &[] };
    if arguments.is_empty() {
        cargo_test(&["--workspace", "--no-fail-fast"], skipped, &environment)?;
    } else {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(skipped.iter().copied()).collect();
        cargo_test(&["--workspace", "--test", "suite"], &arguments, &environment)?;
    }
    drop(servers);
    for major in majors.iter().filter(|major| **major != main && arguments.is_empty()) {
        let server = Surroundings::start(&[Kind::Postgres], *major, steps)?;
        let again = ["--workspace", "--test", "suite"];
        cargo_test(&again, AGAIN_ON_EACH_SERVER, &environment_of(&binaries, &server.environment()))?;
    }
    steps.finish();
    // Again, at the end: nobody reads what was said half an hour ago.
    not_run.iter().for_each(|line| eprintln!("{line}"));
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

/// Of the servers that may be started, those that the tests need. Every world has its own database, so
/// PostgreSQL is always among them.
fn needed(kinds: &[Kind], needs: &Needs) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| needs.servers.contains(kind)).collect();
    kinds.push(Kind::Postgres);
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// Builds the broker twice, the agent and the Rust example, and puts them aside, where a later build does
/// not replace them.
///
/// # Errors
/// When it does not build.
pub fn binaries(steps: &Steps) -> Result<Binaries> {
    let folder = plugins::root().join("target/suite");
    std::fs::create_dir_all(&folder)?;
    let failpoints = folder.join("jit-broker-failpoints");
    let [program] = crate::binaries::build(&["jit-broker"], ["jit-broker"], &["--features", "jit-broker/failpoints"])?;
    put_aside(&program, &failpoints)?;
    // Together: what they depend on is compiled once.
    let packages = ["jit-broker", "jit-agent", "example-rust-sqlx"];
    let programs = crate::binaries::build(&packages, packages, &[])?;
    let [broker, agent, example] = packages.map(|name| folder.join(name));
    for (program, to) in programs.iter().zip([&broker, &agent, &example]) {
        put_aside(program, to)?;
    }
    steps.done("the broker, the broker with failpoints, the agent, and an example");
    Ok(Binaries { broker, failpoints, agent, example })
}

/// Copies a program to where a later build does not replace it while it runs.
pub(crate) fn put_aside(program: &Path, to: &Path) -> Result<()> {
    // Beside it and renamed: a running one keeps its file.
    let beside = to.with_extension("new");
    std::fs::copy(program, &beside)?;
    std::fs::rename(&beside, to)?;
    Ok(())
}

/// Tests that start or ask a server, by the name of their binary: [`fast`] leaves them out.
const WITH_SERVERS: [&str; 5] = ["suite", "sql", "mysql", "ldap", "postgres_store"];
/// xtask's own tests of the servers that it starts, and a test that asks PostgreSQL's client: [`fast`] leaves them out.
const ASK_SERVERS: [&str; 4] = ["--skip", "servers::", "--skip", "format::judges::libpq"];

/// Runs what needs no server: the unit tests of the workspace, and the other tests of the crates. Builds the plugins
/// and the tests, nothing else.
///
/// # Errors
/// When something does not build, or a test fails.
pub fn fast(arguments: &[String], steps: &Steps) -> Result<()> {
    let built = plugins::build(&[], steps)?;
    steps.done(&format!("{} plugins", built.len()));
    steps.finish();
    let tests = test_binaries()?;
    let mut which = vec!["--workspace", "--no-fail-fast", "--lib", "--bins"];
    for test in tests.iter().filter(|test| !WITH_SERVERS.contains(&test.as_str())) {
        which.extend(["--test", test]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(ASK_SERVERS).collect();
    cargo_test(&which, &arguments, &[("JIT_TEST_PLUGINS", plugins::folder().into())])?;
    eprintln!(
        "NOT run: what needs servers, and the examples of the documentation. `cargo xtask test` runs everything."
    );
    Ok(())
}

/// The names of the workspace's test binaries, from `cargo metadata`.
fn test_binaries() -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        targets: Vec<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("`cargo metadata` is not as expected")?;
    let targets = metadata.packages.into_iter().flat_map(|package| package.targets);
    let mut names: Vec<String> =
        targets.filter(|target| target.kind.iter().any(|kind| kind == "test")).map(|target| target.name).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// What tests of the suite are told: where the binaries and the plugins are.
fn environment_of(binaries: &Binaries, servers: &[(&'static str, String)]) -> Vec<(&'static str, OsString)> {
    let mut environment: Vec<(&'static str, OsString)> =
        servers.iter().map(|(name, value)| (*name, value.into())).collect();
    environment.extend([
        ("JIT_TEST_BROKER", binaries.broker.clone().into()),
        ("JIT_TEST_BROKER_FAILPOINTS", binaries.failpoints.clone().into()),
        ("JIT_TEST_AGENT", binaries.agent.clone().into()),
        ("JIT_TEST_EXAMPLE_RUST", binaries.example.clone().into()),
        ("JIT_TEST_PLUGINS", plugins::folder().into()),
    ]);
    environment
}

/// Runs in the foreground; how long a test may take is bounded within the tests.
fn cargo_test(which: &[&str], arguments: &[&str], environment: &[(&'static str, OsString)]) -> Result<()> {
    let mut timing = Timing::new(arguments);
    let mut child = cargo()
        .arg("test")
        .args(which)
        .arg("--")
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let followed = child.stdout.take().map_or(Ok(()), |stdout| timing.follow(stdout));
    let status = child.wait().context("cannot wait for cargo")?;
    timing.tell();
    followed.context("cannot read what the tests print")?;
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
    fn only_servers_that_are_needed_and_may_be_started_are_started() {
        let may = [Kind::Mysql, Kind::Ldap];
        assert_eq!(needed(&may, &Needs::default()), [Kind::Postgres]);
        assert_eq!(needed(&may, &Needs::everything()), [Kind::Postgres, Kind::Mysql, Kind::Ldap]);
        let mysql = Needs { servers: vec![Kind::Mysql, Kind::Openbao], ..Needs::default() };
        assert_eq!(needed(&may, &mysql), [Kind::Postgres, Kind::Mysql]);
    }
}
