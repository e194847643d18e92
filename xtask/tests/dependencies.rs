//! What may depend on what. ARCHITECTURE.md describes the order of the crates; this test holds it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde::Deserialize;

/// Each crate of this project, with the crates of this project that it may depend on. Lower crates come first: a crate
/// may only name crates above its own line. Development dependencies are free, but for [`FOR_TESTS`].
const ALLOWED: [(&str, &[&str]); 26] = [
    ("jit-contract", &[]),
    ("jit-files", &[]),
    ("jit-failpoint", &[]),
    ("jit-tlog", &[]),
    ("jit-password", &["jit-contract"]),
    ("jit-api", &["jit-contract"]),
    ("jit-core", &["jit-contract", "jit-password", "jit-api"]),
    ("jit-identity", &["jit-core", "jit-files"]),
    ("jit-ledger", &["jit-core", "jit-tlog", "jit-files"]),
    ("jit-ledger-contract", &["jit-core", "jit-tlog", "jit-ledger"]),
    ("jit-ledger-memory", &["jit-core", "jit-tlog", "jit-ledger"]),
    ("jit-ledger-sqlite", &["jit-core", "jit-tlog", "jit-ledger", "jit-failpoint"]),
    ("jit-ledger-postgres", &["jit-core", "jit-tlog", "jit-ledger", "jit-failpoint"]),
    (
        "jit-pipeline",
        &["jit-api", "jit-password", "jit-core", "jit-identity", "jit-ledger", "jit-tlog", "jit-failpoint"],
    ),
    ("jit-config", &["jit-contract", "jit-core", "jit-identity", "jit-tlog", "jit-files"]),
    ("jit-runtime", &["jit-contract", "jit-password", "jit-core", "jit-tlog", "jit-files"]),
    ("jit-plugin", &["jit-contract"]),
    ("jit-plugin-build", &["jit-contract"]),
    ("jit-client", &["jit-api", "jit-contract", "jit-password"]),
    ("jit-agent", &["jit-client", "jit-api", "jit-contract"]),
    ("jit-http", &["jit-api", "jit-core", "jit-identity", "jit-ledger", "jit-pipeline"]),
    (
        "jit-assembly",
        &[
            "jit-api",
            "jit-config",
            "jit-core",
            "jit-files",
            "jit-identity",
            "jit-ledger",
            "jit-ledger-postgres",
            "jit-ledger-sqlite",
            "jit-pipeline",
            "jit-plugin-build",
            "jit-runtime",
            "jit-tlog",
        ],
    ),
    (
        "jit-kit",
        &[
            "jit-assembly",
            "jit-config",
            "jit-core",
            "jit-files",
            "jit-identity",
            "jit-ledger",
            "jit-pipeline",
            "jit-plugin-build",
            "jit-runtime",
        ],
    ),
    (
        "jit-broker",
        &[
            "jit-api",
            "jit-assembly",
            "jit-config",
            "jit-core",
            "jit-failpoint",
            "jit-files",
            "jit-http",
            "jit-identity",
            "jit-kit",
            "jit-ledger",
            "jit-pipeline",
            "jit-plugin-build",
            "jit-runtime",
            "jit-tlog",
        ],
    ),
    ("xtask", &["jit-plugin-build"]),
    ("xtask-launch", &[]),
];

/// Crates that only tests may depend on.
const FOR_TESTS: [&str; 2] = ["jit-ledger-contract", "jit-ledger-memory"];

/// Crates whose whole purpose is to look at others.
const LOOKERS: [&str; 3] = ["jit-fuzz", "jit-tests", "example-rust-sqlx"];

/// What a crate must never have, from anywhere: each says what its crate knows nothing of.
const FORBIDDEN: [(&str, &[&str]); 8] = [
    ("jit-core", &["tokio", "wasmtime", "axum", "reqwest", "sqlx"]),
    ("jit-tlog", &["tokio", "wasmtime", "axum", "reqwest", "sqlx"]),
    ("jit-identity", &["wasmtime", "sqlx"]),
    ("jit-pipeline", &["wasmtime", "axum", "reqwest", "sqlx", "toml", "clap"]),
    ("jit-config", &["wasmtime", "axum", "sqlx", "tokio"]),
    ("jit-http", &["wasmtime", "reqwest", "sqlx", "toml", "clap"]),
    ("jit-assembly", &["wasmtime", "axum", "hyper", "sqlx", "clap"]),
    ("jit-kit", &["wasmtime", "clap"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// None for a dependency of the crate itself.
    kind: Option<String>,
    /// Only crates of this tree have one.
    path: Option<String>,
}

fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let said = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice::<Metadata>(&said.stdout).unwrap().packages
}

/// Plugins, guests and templates depend on the SDK alone; that is checked apart.
fn is_guest(package: &Package) -> bool {
    ["/plugins/", "/guests/", "/template/", "/examples/driver-"].iter().any(|part| package.manifest_path.contains(part))
}

#[test]
fn each_crate_depends_on_lower_ones_that_it_may_know_and_on_no_others() {
    let order: BTreeMap<&str, usize> = ALLOWED.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    let mut wrong = Vec::new();
    for package in packages().iter().filter(|package| !is_guest(package)) {
        let name = package.name.as_str();
        if LOOKERS.contains(&name) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("{name} is not in the table: say what it may depend on"));
            continue;
        };
        for needed in package.dependencies.iter().filter(|one| one.path.is_some() && one.kind.is_none()) {
            if !allowed.contains(&needed.name.as_str()) {
                wrong.push(format!("{name} must not depend on {}", needed.name));
            } else if order[needed.name.as_str()] >= order[name] {
                wrong.push(format!("{name} stands below {}", needed.name));
            } else if FOR_TESTS.contains(&needed.name.as_str()) {
                wrong.push(format!("{name}: only tests may depend on {}", needed.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_crate_has_what_it_must_not_know() {
    let packages = packages();
    let mut wrong = Vec::new();
    for (name, forbidden) in FORBIDDEN {
        let package = packages.iter().find(|package| package.name == name).unwrap();
        let own = package.dependencies.iter().filter(|one| one.kind.is_none());
        wrong.extend(
            own.filter(|one| forbidden.contains(&one.name.as_str())).map(|one| format!("{name}: {}", one.name)),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn guests_and_the_sdk_know_nothing_of_the_host() {
    let packages = packages();
    let host: BTreeSet<&str> = packages
        .iter()
        .filter(|package| package.manifest_path.contains("/host/"))
        .map(|package| package.name.as_str())
        .collect();
    assert!(host.contains("jit-core") && host.contains("jit-broker"), "{host:?}");
    for package in packages.iter().filter(|one| is_guest(one) || one.manifest_path.contains("/sdk/")) {
        for needed in package.dependencies.iter().filter(|one| one.path.is_some()) {
            assert!(!host.contains(needed.name.as_str()), "{} depends on {}", package.name, needed.name);
        }
    }
}
