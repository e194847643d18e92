//! `cargo xtask dist`: one folder and one archive that run without the source tree: programs, plugins, an example
//! configuration, what sets servers up, and a list of what is in them.
//!
//! ```text
//! jit-broker-VERSION-MACHINE/
//!   bin/           jit-broker, jit-agent
//!   plugins/       the drivers, policies and context providers
//!   broker.toml    every section and key, with paths into plugins/
//!   setup/         SQL and files of the drivers' pages, a folder for each driver
//!   deploy/        systemd units, Kubernetes manifests
//!   README.md      where to begin
//!   sbom.cdx.json  every library in it (CycloneDX 1.5)
//!   SHA256SUMS     the digest of each file above
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use jit_plugin_build::Progress as _;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{binaries, plugins, steps::Steps};

/// What is written into the folder, for the person who unpacks it.
const README: &str = include_str!("dist_readme.md");
/// The packages whose programs are shipped.
const PROGRAMS: [&str; 2] = ["jit-broker", "jit-agent"];
/// The folder whose packages are the shipped plugins.
const PLUGINS: &str = "plugins";

/// Where it goes, and how it is built.
#[derive(clap::Args)]
pub struct DistArgs {
    /// The folder that gets the folder and the archive.
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
    /// Build without optimisation: quicker, for trying the layout.
    #[arg(long)]
    debug: bool,
}

/// What was made.
#[derive(Debug)]
pub struct Dist {
    /// The folder.
    pub folder: PathBuf,
    /// The archive of it, compressed.
    pub archive: PathBuf,
}

/// Builds everything and puts it together.
///
/// # Errors
/// When something does not build or cannot be written.
pub fn run(args: &DistArgs, steps: &Steps) -> Result<Dist> {
    let shipped = shipped_plugins()?;
    let built = plugins::build(&shipped, steps)?;
    steps.done(&format!("{} plugins", built.len()));
    steps.step("building the programs");
    steps.finish();
    let options: &[&str] = if args.debug { &[] } else { &["--profile", "release"] };
    let programs = binaries::build(&PROGRAMS, PROGRAMS, options)?;
    let files: Vec<PathBuf> = built.into_iter().map(|plugin| plugin.wasm_path).collect();
    assemble(&programs, &files, &args.out)
}

/// The packages of the plugins that are shipped, by name.
///
/// # Errors
/// When the folder cannot be read.
pub fn shipped_plugins() -> Result<Vec<String>> {
    let folder = plugins::root().join(PLUGINS);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Puts built programs and plugins together, with everything of the source tree that belongs to them.
///
/// # Errors
/// When something is missing or cannot be written.
pub fn assemble(programs: &[PathBuf], plugins: &[PathBuf], out: &Path) -> Result<Dist> {
    let root = plugins::root();
    let name = format!("jit-broker-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let folder = out.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    for program in programs {
        copy(program, &folder.join("bin").join(file_name(program)?))?;
    }
    for plugin in plugins {
        copy(plugin, &folder.join("plugins").join(file_name(plugin)?))?;
    }
    copy(&root.join("host/config/src/example.toml"), &folder.join("broker.toml"))?;
    for driver in shipped_plugins()? {
        for setup in set_up(&root.join(PLUGINS).join(&driver))? {
            copy_all(&setup, &folder.join("setup").join(&driver).join(file_name(&setup)?))?;
        }
    }
    for kind in ["systemd", "kubernetes"] {
        copy_all(&root.join("deploy").join(kind), &folder.join("deploy").join(kind))?;
    }
    copy(&root.join("LICENSE"), &folder.join("LICENSE"))?;
    fs::write(folder.join("README.md"), README)?;
    let bill = serde_json::to_string_pretty(&bill_of_materials()?)?;
    fs::write(folder.join("sbom.cdx.json"), bill + "\n")?;
    fs::write(folder.join("SHA256SUMS"), digests(&folder)?)?;
    let archive = out.join(format!("{name}.tar.gz"));
    pack(out, &name, &archive)?;
    Ok(Dist { folder, archive })
}

fn file_name(path: &Path) -> Result<&std::ffi::OsStr> {
    path.file_name().with_context(|| format!("{} has no name", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// A file, or a folder with all below it.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return copy(from, to);
    }
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        copy_all(&path, &to.join(file_name(&path)?))?;
    }
    Ok(())
}

/// What a driver's page has run on a server: `setup.sql`, or a folder `setup`.
fn set_up(driver: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(driver).with_context(|| format!("cannot read {}", driver.display()))? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "setup") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The digest of each file, in the form that `sha256sum --check` reads.
fn digests(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    list(folder, &mut files)?;
    files.sort();
    let mut text = String::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(folder)?.display();
        text.push_str(&format!("{}  {name}\n", hex::encode(Sha256::digest(&bytes))));
    }
    Ok(text)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Packs the folder. The same files make the same archive: without times, owners and the order of the disk.
fn pack(out: &Path, name: &str, archive: &Path) -> Result<()> {
    let status = Command::new("tar")
        .current_dir(out)
        .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+rw,go=rX"])
        .args(["--use-compress-program=gzip -n", "-cf"])
        .arg(std::path::absolute(archive)?)
        .arg(name)
        .status()
        .context("tar (GNU) could not be started")?;
    if !status.success() {
        bail!("tar failed ({status})");
    }
    Ok(())
}

/// What `cargo metadata` says.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// Every package that the programs and plugins are made of, with its licence and where it came from.
fn bill_of_materials() -> Result<Value> {
    let root = plugins::root();
    let mut components = BTreeMap::new();
    // A plugin may have a workspace of its own.
    let mut manifests = vec![root.join("Cargo.toml")];
    for plugin in shipped_plugins()? {
        let manifest = root.join(PLUGINS).join(&plugin).join("Cargo.toml");
        if fs::read_to_string(&manifest)?.contains("[workspace]") {
            manifests.push(manifest);
        }
    }
    for manifest in manifests {
        let metadata = metadata(&manifest)?;
        for package in shipped(&metadata)? {
            let from_registry = package.source.as_deref().is_some_and(|source| source.starts_with("registry+"));
            let purl = format!("pkg:cargo/{}@{}", package.name, package.version);
            let mut component = json!({
                "type": "library",
                "bom-ref": purl,
                "name": package.name,
                "version": package.version,
                "licenses": [{ "expression": package.license.as_deref().unwrap_or("NOASSERTION") }],
            });
            if from_registry {
                component["purl"] = json!(purl);
            }
            components.insert(purl, component);
        }
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "application", "name": "jit-broker", "version": env!("CARGO_PKG_VERSION") } },
        "components": components.into_values().collect::<Vec<_>>(),
    }))
}

fn metadata(manifest: &Path) -> Result<Metadata> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(manifest)
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("what cargo metadata says is not understood")
}

/// The packages that end up in what is shipped: without what only builds or tests it.
fn shipped(metadata: &Metadata) -> Result<Vec<&Package>> {
    let mut names: BTreeSet<String> = shipped_plugins()?.into_iter().collect();
    names.extend(PROGRAMS.map(str::to_owned));
    let of: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut open: Vec<&str> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_none() && names.contains(&package.name))
        .map(|package| package.id.as_str())
        .collect();
    let mut reached: BTreeSet<&str> = open.iter().copied().collect();
    while let Some(id) = open.pop() {
        for dependency in of.get(id).map(|node| node.deps.as_slice()).unwrap_or_default() {
            // A kind of none is an ordinary dependency.
            if dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()) && reached.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    Ok(metadata.packages.iter().filter(|package| reached.contains(package.id.as_str())).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_what_was_put_into_it_and_says_so() {
        let place = tempfile::tempdir().unwrap();
        let built = |name: &str, text: &str| {
            let path = place.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (program, plugin) = (built("jit-broker", "a program"), built("driver-x.wasm", "a plugin"));
        let out = place.path().join("out");
        let Dist { folder, archive } = assemble(&[program], &[plugin], &out).unwrap();
        let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
        let digest = hex::encode(Sha256::digest("a plugin"));
        assert!(sums.contains(&format!("{digest}  plugins/driver-x.wasm\n")), "{sums}");
        for file in ["bin/jit-broker", "broker.toml", "setup/driver-postgres/setup.sql", "deploy/systemd/broker.toml"] {
            assert!(sums.contains(&format!("  {file}\n")), "{file}: {sums}");
        }
        let bill: Value = serde_json::from_slice(&fs::read(folder.join("sbom.cdx.json")).unwrap()).unwrap();
        let names: Vec<&str> =
            bill["components"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        for name in ["jit-broker", "driver-postgres", "rustls", "wasmtime", "cedar-policy"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        for name in ["proptest", "xtask"] {
            assert!(!names.contains(&name), "{name} only builds or tests it");
        }
        // The same files are the same archive.
        let first = fs::read(&archive).unwrap();
        pack(&out, folder.file_name().unwrap().to_str().unwrap(), &archive).unwrap();
        assert_eq!(fs::read(&archive).unwrap(), first);
    }
}
