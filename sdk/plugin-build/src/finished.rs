//! Components that were finished before, kept per user between clones: what takes minutes to compile is
//! compiled once for each state of its sources.
//!
//! A component is found by a digest of everything that determines it: its own sources and lock file,
//! those of what it depends on by path, the contract, the compiler and its settings. Dependencies of
//! registries are pinned by the lock file. Documents do not count.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest, Sha256};

use crate::{
    Error,
    build::{digest, write_atomically},
    check,
    check::WIT,
    toolchain::GuestToolchain,
    workspace::Workspace,
};

/// Counted up when the way from sources to component changes otherwise than by what is hashed.
const FORMAT: u32 = 1;

/// How many states of one plugin are kept.
const KEPT: usize = 4;

/// The most bytes of sources that are read, and the most files.
const MAX_BYTES: u64 = 64 << 20;
const MAX_FILES: usize = 5_000;

/// The place of one plugin in one state.
#[derive(Debug)]
pub(crate) struct Shelf {
    folder: PathBuf,
    file: PathBuf,
}

impl Shelf {
    /// Where the component of a package is kept, as its sources are now.
    ///
    /// # Errors
    /// [`Error::Io`] when sources cannot be read; [`Error::Package`] when they are too many.
    pub(crate) fn of(
        cache: &Path,
        workspace: &Workspace,
        name: &str,
        toolchain: &GuestToolchain,
        settings: &[&str],
    ) -> Result<Self, Error> {
        Ok(Self::at(cache, name, &key(workspace, name, toolchain, settings)?))
    }

    /// The same where the digest is known already.
    pub(crate) fn at(cache: &Path, name: &str, key: &str) -> Self {
        let folder = cache.join("components").join(name);
        Self { file: folder.join(format!("{key}.wasm")), folder }
    }

    /// The component, if it is there and a broker would load it.
    pub(crate) fn component(&self) -> Option<Vec<u8>> {
        let component = fs::read(&self.file).ok()?;
        if !check(&component).problems.is_empty() {
            return None;
        }
        // Its time says that it is still in use. When it cannot be set, it is only removed earlier.
        let _ = fs::File::open(&self.file).and_then(|file| file.set_modified(SystemTime::now()));
        Some(component)
    }

    /// Keeps a component, and removes the oldest.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(crate) fn keep(&self, component: &[u8]) -> Result<(), Error> {
        crate::cache::create_folder(&self.folder)?;
        write_atomically(&self.file, component)?;
        crate::cache::keep_newest(&self.folder, KEPT);
        Ok(())
    }
}

/// A digest of everything that determines a component.
fn key(workspace: &Workspace, name: &str, toolchain: &GuestToolchain, settings: &[&str]) -> Result<String, Error> {
    let mut hash = Hash::default();
    hash.part(&format!("{FORMAT} {} {}", env!("CARGO_PKG_VERSION"), crate::host_contract()), b"");
    hash.part("toolchain", toolchain.identity()?.as_bytes());
    hash.part("settings", settings.join(" ").as_bytes());
    for (file, text) in WIT {
        hash.part(file, text.as_bytes());
    }
    for source in workspace.sources_of(name)? {
        hash.part("package", source.manifest.as_bytes());
        hash.folder(&source.folder, &source.folder, name)?;
    }
    // It may lie above the package.
    if let Ok(lock) = fs::read(workspace.root.join("Cargo.lock")) {
        hash.part("lock", &lock);
    }
    Ok(digest(&hash.text))
}

/// Names and digests, one a line: parts cannot run into each other.
#[derive(Default)]
struct Hash {
    text: Vec<u8>,
    bytes: u64,
    files: usize,
}

impl Hash {
    fn part(&mut self, name: &str, bytes: &[u8]) {
        let name = hex::encode(Sha256::digest(name));
        self.text.extend_from_slice(format!("{name} {}\n", digest(bytes)).as_bytes());
    }

    /// All sources below a folder: neither what was built, nor documents, nor what is hidden.
    fn folder(&mut self, root: &Path, folder: &Path, package: &str) -> Result<(), Error> {
        let mut entries: Vec<PathBuf> = fs::read_dir(folder)
            .map_err(Error::io("read", folder))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(Error::io("read", folder))?;
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let metadata = fs::symlink_metadata(&path).map_err(Error::io("read", &path))?;
            if name.starts_with('.') || name == "target" || name.ends_with(".md") {
                continue;
            }
            if metadata.is_dir() {
                self.folder(root, &path, package)?;
                continue;
            }
            self.files += 1;
            self.bytes += metadata.len();
            if self.files > MAX_FILES || self.bytes > MAX_BYTES {
                let reason = format!("its sources are more than {MAX_FILES} files or {MAX_BYTES} bytes");
                return Err(Error::Package { package: package.to_owned(), reason });
            }
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            self.part(&path.strip_prefix(root).unwrap_or(&path).to_string_lossy(), &bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        contract::tests::{component, policy_module},
        toolchain::{RustVersion, Way},
    };

    fn toolchain() -> GuestToolchain {
        let version = RustVersion { major: 1, minor: 95 };
        GuestToolchain { way: Way::Rustup, version, rustc: None, linker: None }
    }

    /// A plugin in a workspace of its own, with a dependency beside it.
    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "rule/Cargo.toml",
            "[package]\nname = \"rule\"\nedition = \"2024\"\n[workspace]\n[lib]\ncrate-type = [\"cdylib\"]\n\
             [dependencies]\nbeside = { path = \"../beside\" }\n",
        );
        write("rule/src/lib.rs", "");
        write("rule/Cargo.lock", "version = 4\n");
        write("beside/Cargo.toml", "[package]\nname = \"beside\"\nversion.workspace = true\nedition = \"2024\"\n");
        write("beside/src/lib.rs", "");
        write("Cargo.toml", &workspace("1.0.0"));
        tree
    }

    /// Of the dependency, which inherits its version.
    fn workspace(version: &str) -> String {
        format!(
            "[workspace]\nmembers = [\"beside\"]\nexclude = [\"rule\"]\n[workspace.package]\nversion = \"{version}\"\n"
        )
    }

    fn key_of(tree: &Path, settings: &[&str]) -> String {
        let workspace = Workspace::read(&tree.join("rule")).unwrap();
        key(&workspace, "rule", &toolchain(), settings).unwrap()
    }

    #[test]
    fn whatever_determines_a_component_changes_its_key_and_nothing_else_does() {
        let tree = tree();
        let path = |file: &str| tree.path().join(file);
        let first = key_of(tree.path(), &["lto=true"]);
        assert_ne!(first, key_of(tree.path(), &["lto=false"]));
        // The same sources elsewhere are the same.
        let elsewhere = self::tree();
        assert_eq!(first, key_of(elsewhere.path(), &["lto=true"]));
        for file in ["rule/README.md", "rule/target/plugins/rule.wasm", "rule/.hidden", "beside/target/x"] {
            fs::create_dir_all(path(file).parent().unwrap()).unwrap();
            fs::write(path(file), "x").unwrap();
            assert_eq!(first, key_of(tree.path(), &["lto=true"]), "{file}");
        }
        fs::write(path("Cargo.toml"), format!("# What nobody inherits.\n{}", workspace("1.0.0"))).unwrap();
        assert_eq!(first, key_of(tree.path(), &["lto=true"]));
        let mut before = first;
        for file in ["rule/src/lib.rs", "rule/Cargo.lock", "rule/src/more.rs", "beside/src/lib.rs", "Cargo.toml"] {
            let changed = if file == "Cargo.toml" { workspace("1.0.1") } else { "// changed\n".to_owned() };
            fs::write(path(file), changed).unwrap();
            let after = key_of(tree.path(), &["lto=true"]);
            assert_ne!(before, after, "{file}");
            before = after;
        }
    }

    #[test]
    fn what_is_kept_is_found_until_it_is_old_or_spoilt() {
        let folder = tempfile::tempdir().unwrap();
        let good = component(&policy_module());
        let shelf = |number: usize| Shelf::at(folder.path(), "rule", &number.to_string());
        assert!(shelf(0).component().is_none());
        for number in 0..KEPT + 1 {
            shelf(number).keep(&good).unwrap();
            let age = std::time::Duration::from_secs(60 * (KEPT - number) as u64);
            fs::File::open(&shelf(number).file).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        assert!(shelf(0).component().is_none());
        assert_eq!(shelf(1).component(), Some(good));
        fs::write(&shelf(1).file, b"spoilt").unwrap();
        assert!(shelf(1).component().is_none());
    }
}
