//! `cargo xtask check`: everything that a change must pass and that needs no test to run.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use jit_plugin_build::{Progress as _, process::Run};

use crate::{
    book, plugins,
    prose::{self, LongLine},
    steps::Steps,
    tools::{Tool, Tools},
};

/// The Rust whose lints this tree is held against; `rust-version` in Cargo.toml says the same.
const LINTED_WITH: &str = "1.95.";
/// How long git may take to fetch the advisories.
const ADVISORIES_DEADLINE: Duration = Duration::from_secs(180);
/// Workspaces with a lock file of their own, whose dependencies are shipped too.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "plugins/policy-cedar/Cargo.toml"];

/// What the checks found.
#[derive(Default)]
struct Findings {
    /// Names of the checks that failed.
    failed: Vec<&'static str>,
    /// What this machine could not check, one line each, with the reason.
    not_checked: Vec<String>,
}

impl Findings {
    /// Runs one check in the foreground and keeps whether it passed.
    fn check(&mut self, name: &'static str, steps: &Steps, check: impl FnOnce() -> Result<()>) {
        steps.step(name);
        let began = Instant::now();
        match check() {
            Ok(()) => steps.done(&format!("{name} ({} s)", began.elapsed().as_secs())),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                self.failed.push(name);
            }
        }
    }
}

/// Runs all checks, also after one has failed, so that one run shows everything.
///
/// # Errors
/// When a check fails, or cargo-deny cannot be had.
pub fn run(steps: &Steps) -> Result<()> {
    let mut findings = Findings::default();
    note_the_compiler(&mut findings)?;
    findings.check("cargo fmt", steps, || cargo(&["fmt", "--all", "--check"], &[]));
    findings.check("cargo clippy", steps, || {
        cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])
    });
    findings.check("cargo doc", steps, document);
    match Tools::get(steps) {
        Ok(tools) => {
            findings.check("cargo deny", steps, || deny(&tools));
            advisories(&tools, &mut findings, steps);
            findings.check("typos", steps, || foreground(&mut Command::new(tools.path(Tool::Typos))));
            findings.check("the book", steps, || book::build(&tools, steps).map(drop));
        }
        // Spelling can wait; what may come into the tree cannot.
        Err(error) => {
            eprintln!("cargo deny: {error:#}");
            findings.failed.push("cargo deny");
            findings.not_checked.push(format!("spelling, and the book. {error:#}"));
        }
    }
    findings.check("line length of the documentation", steps, line_length);
    findings.check("links of the documentation", steps, links);
    steps.finish();
    for line in &findings.not_checked {
        eprintln!("NOT checked: {line}");
    }
    if !findings.failed.is_empty() {
        bail!("failed: {}", findings.failed.join(", "));
    }
    Ok(())
}

/// Another compiler has other lints: what passes here may fail elsewhere.
fn note_the_compiler(findings: &mut Findings) -> Result<()> {
    let rustc = crate::servers::version_of(Path::new("rustc"), "--version")?;
    if !rustc.contains(&format!(" {LINTED_WITH}")) {
        findings.not_checked.push(format!("the lints of Rust {LINTED_WITH}x: these are those of {rustc}"));
    }
    Ok(())
}

/// The documentation of the libraries, without a broken link. Private items too: those who read it work on them.
fn document() -> Result<()> {
    let mut arguments = vec!["doc", "--workspace", "--lib", "--no-deps", "--document-private-items", "--locked"];
    // Guests of the tests: nobody reads about them here, and some have the same name.
    let guests = plugins::fixtures()?;
    for guest in &guests {
        arguments.extend(["--exclude", guest]);
    }
    cargo(&arguments, &[("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")])
}

/// Licences, bans and sources: offline but for what cargo has not downloaded yet.
fn deny(tools: &Tools) -> Result<()> {
    for manifest in MANIFESTS {
        let mut deny = cargo_deny(tools, manifest);
        // A licence that only one of the workspaces has is not unused.
        deny.args(["check", "--hide-inclusion-graph", "--allow", "license-not-encountered"]);
        deny.args(["--allow", "license-exception-not-encountered", "licenses", "bans", "sources"]);
        foreground(&mut deny).with_context(|| format!("the dependencies of {manifest}"))?;
    }
    Ok(())
}

/// Known vulnerabilities, where the database of them can be fetched.
fn advisories(tools: &Tools, findings: &mut Findings, steps: &Steps) {
    let mut fetch = cargo_deny(tools, MANIFESTS[0]);
    fetch.args(["fetch", "db"]);
    if let Err(error) = Run::new("`cargo deny fetch db`", ADVISORIES_DEADLINE).output(&mut fetch) {
        let why = error.to_string();
        let why = why.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given").trim();
        findings.not_checked.push(format!("known vulnerabilities (the RustSec database cannot be fetched: {why})"));
        return;
    }
    findings.check("known vulnerabilities", steps, || {
        for manifest in MANIFESTS {
            let mut deny = cargo_deny(tools, manifest);
            deny.args(["--offline", "check", "--hide-inclusion-graph", "advisories"]);
            foreground(&mut deny).with_context(|| format!("the dependencies of {manifest}"))?;
        }
        Ok(())
    });
}

fn cargo_deny(tools: &Tools, manifest: &str) -> Command {
    let mut deny = Command::new(tools.path(Tool::Deny));
    deny.current_dir(plugins::root()).args(["--locked", "--config", "deny.toml", "--manifest-path", manifest]);
    deny
}

/// No line of prose is longer than a screen is wide.
fn line_length() -> Result<()> {
    let root = plugins::root();
    let mut found = 0;
    for page in prose::pages(&root)? {
        let text = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        for LongLine { number, length } in prose::long_lines(&text) {
            let shown = page.strip_prefix(&root).unwrap_or(&page);
            eprintln!("{}:{number}: {length} characters, the limit is {}", shown.display(), prose::MAX_LINE);
            found += 1;
        }
    }
    if found > 0 {
        bail!("{found} lines are too long");
    }
    Ok(())
}

/// No page links to what is not there.
fn links() -> Result<()> {
    let root = plugins::root();
    let found = book::links::broken(&root, &prose::all_pages(&root)?)?;
    for line in &found {
        eprintln!("{line}");
    }
    if !found.is_empty() {
        bail!("{} links lead nowhere", found.len());
    }
    Ok(())
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    foreground(cargo.args(arguments).envs(environment.iter().copied()))
}

/// Runs a program in the root of the tree; it shows itself what it does.
fn foreground(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .current_dir(plugins::root())
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status})");
    }
    Ok(())
}
