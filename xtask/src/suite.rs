//! `cargo xtask test`: prepares what the suite needs and runs all of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use jit_plugin_build::Progress as _;

use crate::ingredients::{self, Ingredients};
use crate::servers::{Kind, Surroundings, samba};
use crate::timing::Timing;
use crate::{plugins, steps::Steps};

/// What is run again on each further PostgreSQL: what speaks to it.
const AGAIN_ON_EACH_SERVER: &[&str] = &["story::", "removal::", "conformance::the_postgres", "--skip", "policy_story"];
/// The suite's modules that need PostgreSQL and nothing else. Who asks for these only does not wait for
/// the other servers; a module that is not listed gets them all.
const POSTGRES_ALONE: &[&str] = &[
    "agent",
    "agent_faults",
    "agent_process",
    "api",
    "away",
    "cli",
    "client",
    "client_faults",
    "concurrency",
    "connections",
    "contexts",
    "decisions",
    "deploy",
    "examples",
    "faults",
    "give_back",
    "hostile",
    "idempotency",
    "languages",
    "leases",
    "operators",
    "outage",
    "places",
    "policies",
    "policy_replay",
    "policy_story",
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
    /// `jit-agent`.
    pub agent: PathBuf,
    /// The Rust example.
    pub example: PathBuf,
}

/// The modules that build plugins in other languages than Rust.
const IN_OTHER_LANGUAGES: [&str; 2] = ["languages", "policy_story"];

/// Prepares the toolchain, the plugins, the servers and the binaries, then runs every test of the
/// workspace with the last of the PostgreSQL versions, and those that speak to it with each other one.
/// `arguments` go to the tests; with any, only the end to end suite is run.
///
/// # Errors
/// When something cannot be prepared, or a test fails.
pub fn run(majors: &[u32], kinds: &[Kind], arguments: &[String], steps: &Steps) -> Result<()> {
    let main = majors.last().copied().context("no PostgreSQL to test with")?;
    let mut kinds = needed(kinds, arguments);
    let left_out = leave_out_what_needs_root(&mut kinds);
    let with_ingredients = asks_for_any(&ingredients::MODULES, arguments);
    // The servers, and what the examples run on, come while the compiler works.
    let (servers, ingredients, binaries) = thread::scope(|scope| {
        let servers = scope.spawn(|| {
            if asks_for_any(&IN_OTHER_LANGUAGES, arguments) {
                plugins::languages(steps)?;
            }
            Surroundings::start(&kinds, main, steps)
        });
        let ingredients = scope.spawn(|| with_ingredients.then(|| Ingredients::get(steps)));
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
    let skipped: &[&str] = if left_out.is_some() { &SKIP_ACTIVE_DIRECTORY } else { &[] };
    if arguments.is_empty() {
        cargo_test(&["--workspace", "--no-fail-fast"], skipped, &binaries, &environment)?;
    } else {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(skipped.iter().copied()).collect();
        cargo_test(&["--workspace", "--test", "suite"], &arguments, &binaries, &environment)?;
    }
    drop(servers);
    for major in majors.iter().filter(|major| **major != main && arguments.is_empty()) {
        let server = Surroundings::start(&[Kind::Postgres], *major, steps)?;
        let again = ["--workspace", "--test", "suite"];
        cargo_test(&again, AGAIN_ON_EACH_SERVER, &binaries, &server.environment())?;
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

/// Whether tests of any of these modules may be among those that are asked for.
fn asks_for_any(modules: &[&str], arguments: &[String]) -> bool {
    let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    filters.peek().is_none()
        || filters.any(|filter| filter.split_once("::").is_none_or(|(module, _)| modules.contains(&module)))
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

fn put_aside(program: &Path, to: &Path) -> Result<()> {
    // Beside it and renamed: a running one keeps its file.
    let beside = to.with_extension("new");
    std::fs::copy(program, &beside)?;
    std::fs::rename(&beside, to)?;
    Ok(())
}

/// Runs in the foreground; how long a test may take is bounded within the tests.
fn cargo_test(
    which: &[&str],
    arguments: &[&str],
    binaries: &Binaries,
    environment: &[(&'static str, String)],
) -> Result<()> {
    let mut timing = Timing::new(arguments);
    let mut child = cargo()
        .arg("test")
        .args(which)
        .arg("--")
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env("JIT_TEST_BROKER", &binaries.broker)
        .env("JIT_TEST_BROKER_FAILPOINTS", &binaries.failpoints)
        .env("JIT_TEST_AGENT", &binaries.agent)
        .env("JIT_TEST_EXAMPLE_RUST", &binaries.example)
        .env("JIT_TEST_PLUGINS", plugins::folder())
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
    fn what_only_some_tests_need_is_prepared_for_those() {
        let asked = |arguments: &[&str]| {
            asks_for_any(&["languages"], &arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
        };
        assert!(asked(&[]) && asked(&["--nocapture"]) && asked(&["languages::"]) && asked(&["story::", "lang"]));
        assert!(!asked(&["removal::", "--nocapture"]));
    }

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

    #[test]
    fn other_languages_are_fetched_for_the_tests_that_need_them() {
        let asked = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            asks_for_any(&ingredients::MODULES, &arguments)
        };
        assert!(asked(&[]) && asked(&["--nocapture"]) && asked(&["removal::", "examples::"]) && asked(&["each"]));
        assert!(!asked(&["removal::", "story::an_account", "--nocapture"]));
    }
}
