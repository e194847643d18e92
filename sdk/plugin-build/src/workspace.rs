//! What `cargo metadata` tells about a workspace, as far as building plugins needs it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::Deserialize;

use crate::{Error, process::Run};

/// How long cargo may take to describe a workspace; it may have to fetch the index.
const DEADLINE: Duration = Duration::from_secs(300);

/// A cargo workspace; a package outside of any is one of its own.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    /// Its members.
    pub packages: Vec<Package>,
    /// The folder of its manifest.
    #[serde(rename = "workspace_root")]
    pub root: PathBuf,
}

/// A member of a workspace.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// How cargo names it in its messages.
    pub(crate) id: String,
    /// Its Cargo.toml.
    pub manifest_path: PathBuf,
    targets: Vec<Target>,
    #[serde(default)]
    version: String,
    #[serde(default)]
    edition: String,
    #[serde(default)]
    features: serde_json::Value,
    #[serde(default)]
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    /// The folder, where it is one of this machine and not of a registry.
    path: Option<PathBuf>,
    /// Name, version, features and the rest.
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

/// A package of this machine that a guest is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Where its manifest lies.
    pub(crate) folder: PathBuf,
    /// What its manifest comes to, with what it inherits from its workspace.
    pub(crate) manifest: String,
}

#[derive(Debug, Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

impl Package {
    fn source(&self) -> Source {
        let folder = self.manifest_path.parent().unwrap_or(Path::new("/")).to_owned();
        let own = format!("{} {} {} {}", self.name, self.version, self.edition, self.features);
        let dependencies = self.dependencies.iter().map(|one| serde_json::Value::Object(one.rest.clone()).to_string());
        Source { folder, manifest: std::iter::once(own).chain(dependencies).collect::<Vec<_>>().join("\n") }
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.dependencies.iter().filter_map(|one| one.path.clone())
    }

    /// Whether it has a library that is linked by itself (`cdylib`), as every guest has.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        self.targets.iter().any(|target| target.crate_types.iter().any(|kind| kind == "cdylib"))
    }
}

impl Workspace {
    /// Asks cargo about the workspace that `folder` belongs to.
    ///
    /// # Errors
    /// When cargo refuses the manifest, or does not answer in time.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let output = Run::new("`cargo metadata`", DEADLINE)
            .output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(folder))?;
        serde_json::from_str(&output.stdout)
            .map_err(|error| Error::Answer { what: "`cargo metadata`".to_owned(), detail: error.to_string() })
    }

    /// The member whose manifest this is.
    #[must_use]
    pub fn package_at(&self, manifest: &Path) -> Option<&Package> {
        self.packages.iter().find(|package| package.manifest_path == manifest)
    }

    /// A guest and all that it depends on by path, itself first.
    ///
    /// # Errors
    /// When cargo refuses one of their manifests.
    pub(crate) fn sources_of(&self, name: &str) -> Result<Vec<Source>, Error> {
        let package = self.guest(name)?;
        let mut found = vec![package.source()];
        let mut next: Vec<PathBuf> = package.paths().collect();
        while let Some(path) = next.pop() {
            if found.iter().any(|source| source.folder == path) {
                continue;
            }
            let workspace = Self::read(&path)?;
            let package = workspace.package_at(&path.join("Cargo.toml")).ok_or_else(|| Error::Package {
                package: path.display().to_string(),
                reason: format!("`{name}` depends on it, and its Cargo.toml holds no package"),
            })?;
            next.extend(package.paths());
            found.push(package.source());
        }
        Ok(found)
    }

    /// The guest of this name.
    pub(crate) fn guest(&self, name: &str) -> Result<&Package, Error> {
        let refuse = |reason: &str| Error::Package { package: name.to_owned(), reason: reason.to_owned() };
        let package = self
            .packages
            .iter()
            .find(|package| package.name == name)
            .ok_or_else(|| refuse("it is not in this workspace"))?;
        if !package.is_guest() {
            return Err(refuse("its Cargo.toml lacks `[lib] crate-type = [\"cdylib\", \"rlib\"]`"));
        }
        Ok(package)
    }
}

/// The cargo of the active toolchain, without what an outer cargo or clippy set for itself.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for variable in [
        "RUSTC",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET_DIR",
        "CARGO_MANIFEST_DIR",
        "LD_LIBRARY_PATH",
    ] {
        cargo.env_remove(variable);
    }
    cargo
}

/// A compiler flag that keeps the place of dependencies' sources on this machine out of what is
/// built.
#[must_use]
pub fn registry_remap_flag() -> Option<String> {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))?;
    Some(format!("--remap-path-prefix={}=/registry", cargo_home.join("registry/src").display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn workspace(crate_type: &str) -> Workspace {
        serde_json::from_value(serde_json::json!({
            "workspace_root": "/w",
            "packages": [{
                "name": "policy-x", "id": "path+file:///w/x#policy-x@0.1.0",
                "manifest_path": "/w/x/Cargo.toml",
                "targets": [{"crate_types": [crate_type]}],
            }],
        }))
        .unwrap()
    }

    #[test]
    fn only_cdylibs_are_guests() {
        assert!(workspace("cdylib").guest("policy-x").is_ok());
        let error = workspace("lib").guest("policy-x").unwrap_err();
        assert!(error.to_string().contains("crate-type"), "{error}");
        assert!(workspace("cdylib").guest("policy-y").is_err());
    }

    #[test]
    fn cargo_describes_this_workspace() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = Workspace::read(here).unwrap();
        let package = workspace.package_at(&here.join("Cargo.toml")).unwrap();
        assert_eq!(package.name, env!("CARGO_PKG_NAME"));
        assert!(!package.is_guest());
    }
}
