//! Builds the plugins of this source tree and the hostile guests of its tests.

use std::{fs, path::Path, path::PathBuf};

use anyhow::{Context, Result};
use jit_plugin_build::{
    BuildOptions, BuiltPlugin, Language, Workspace, build_plugin, build_plugins, cache, prepare_language,
    toolchain::{GuestToolchain, ToolchainOptions},
};

use crate::{guest_compiler, steps::Steps};

/// Folders whose packages are guests.
const GUEST_FOLDERS: [&str; 4] = ["plugins", "sdk/plugin/template", "sdk/examples", FIXTURES];
/// Those that only the tests load.
const FIXTURES: &str = "tests/guests";

/// The root of the source tree.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where built plugins lie.
#[must_use]
pub fn folder() -> PathBuf {
    root().join("target/plugins")
}

/// Finds or prepares the compiler for guests.
///
/// # Errors
/// When no way leads to one; the error tells each way that was tried.
pub fn toolchain(steps: &Steps) -> Result<GuestToolchain> {
    guest_compiler::get(&ToolchainOptions::new(root()), steps)
}

/// Fetches what makes components of Python and JavaScript, into the cache.
///
/// # Errors
/// When `python3` or `node` is missing, or what is fetched does not come.
pub fn languages(steps: &Steps) -> Result<()> {
    for language in [Language::Python, Language::JavaScript] {
        prepare_language(language, steps)?;
        steps.done(&format!("what makes components of {language} is in the cache"));
    }
    Ok(())
}

/// Builds the named packages, or all guests when none is named, into [`folder`].
///
/// # Errors
/// When one does not compile, or a broker would refuse it.
pub fn build(packages: &[String], steps: &Steps) -> Result<Vec<BuiltPlugin>> {
    let root = root();
    let options = BuildOptions { out_dir: Some(folder()), toolchain: Some(toolchain(steps)?), finished: None };
    let guests: Vec<Guest> =
        guests(&root)?.into_iter().filter(|guest| packages.is_empty() || packages.contains(&guest.name)).collect();
    if let Some(unknown) = packages.iter().find(|name| !guests.iter().any(|guest| guest.name == **name)) {
        anyhow::bail!(
            "no guest `{unknown}`: it needs a folder in {} with `crate-type = [\"cdylib\", …]`",
            GUEST_FOLDERS.join(", ")
        );
    }
    let (members, strangers): (Vec<_>, Vec<_>) = guests.into_iter().partition(|guest| guest.is_member);
    let names: Vec<&str> = members.iter().map(|guest| guest.name.as_str()).collect();
    let mut built = build_plugins(&root, &names, &options, steps)?;
    // Those have a workspace of their own because they take long.
    let options = BuildOptions { finished: Some(cache::folder()?), ..options };
    for guest in strangers {
        built.push(build_plugin(&guest.folder, &options, steps)?);
    }
    Ok(built)
}

/// The packages of the guests that only the tests load, by name.
///
/// # Errors
/// When the workspace cannot be read.
pub fn fixtures() -> Result<Vec<String>> {
    let root = root();
    let folder = root.join(FIXTURES);
    Ok(guests(&root)?.into_iter().filter(|guest| guest.folder.starts_with(&folder)).map(|guest| guest.name).collect())
}

/// A package that is compiled for the sandbox.
#[derive(Debug)]
struct Guest {
    name: String,
    folder: PathBuf,
    /// Of this workspace, and not of one of its own.
    is_member: bool,
}

/// All packages in the guest folders that have a library of type `cdylib`, by name.
fn guests(root: &Path) -> Result<Vec<Guest>> {
    let workspace = Workspace::read(root)?;
    let mut guests = Vec::new();
    for folder in guest_folders(root)? {
        let manifest = folder.join("Cargo.toml");
        let member = workspace.package_at(&manifest);
        let own = match member {
            Some(_) => None,
            None => Some(Workspace::read(&folder)?),
        };
        let package = member.or_else(|| own.as_ref()?.package_at(&manifest));
        if let Some(package) = package.filter(|package| package.is_guest()) {
            guests.push(Guest { name: package.name.clone(), is_member: member.is_some(), folder });
        }
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(guests)
}

fn guest_folders(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for parent in GUEST_FOLDERS {
        let parent = root.join(parent);
        if !parent.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&parent).with_context(|| format!("cannot read {}", parent.display()))? {
            let folder = entry?.path();
            if folder.join("Cargo.toml").is_file() {
                found.push(folder);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_plugins_of_this_tree_are_found() {
        let guests = guests(&root()).unwrap();
        let names: Vec<_> = guests.iter().map(|guest| guest.name.as_str()).collect();
        assert!(names.contains(&"policy-allow-list"), "{names:?}");
        assert!(names.contains(&"driver-postgres"), "{names:?}");
        let cedar = guests.iter().find(|guest| guest.name == "policy-cedar");
        assert!(cedar.is_some_and(|guest| !guest.is_member), "it has a workspace of its own");
        assert!(names.is_sorted());
    }
}
