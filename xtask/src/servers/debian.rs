//! Programs of Debian that are not installed: a package and everything that it needs, down to the C
//! library, unpacked below the cache and run through that tree's own loader.
//!
//! So it does not matter which distribution this is, which versions it has, or who runs this: `apt`
//! with a configuration of its own downloads and verifies, `dpkg -x` unpacks, and no package's script
//! is run.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use jit_plugin_build::{Progress, cache, process::Run};

use super::{DOWNLOAD_DEADLINE, INSTALL_DEADLINE};
use crate::{
    apt::{ASK_DEADLINE, Apt, megabytes, unpack},
    steps::Steps,
};

/// The most packages that a program may need; more means that something is amiss.
const MAX_PACKAGES: usize = 250;
/// How deep the C library's loader is looked for.
const MAX_DEPTH: usize = 3;
/// How deep the folders of a package may go.
const MAX_FOLDERS: usize = 30;
/// What apt verifies Debian's archive with, where the machine is a Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Names a mirror of Debian, for a machine whose apt is not set to one.
const MIRROR_VARIABLE: &str = "JIT_DEBIAN_MIRROR";

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Debian 12, with its security fixes.
    Bookworm,
    /// Debian unstable. What is in it changes from day to day.
    Sid,
}

impl Release {
    /// The lines of a `sources.list`.
    fn sources(self, mirrors: &Mirrors, keyring: &Path) -> String {
        let line = |mirror: &str, suite: &str| format!("deb [signed-by={}] {mirror} {suite} main\n", keyring.display());
        let Mirrors { archive, security } = mirrors;
        match self {
            Self::Bookworm => {
                line(archive, "bookworm") + &line(archive, "bookworm-updates") + &line(security, "bookworm-security")
            }
            Self::Sid => line(archive, "sid"),
        }
    }

    const fn suite(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Sid => "sid",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "Debian 12",
            Self::Sid => "Debian unstable",
        }
    }
}

/// Where packages come from: the servers that this machine's own apt is set to.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    archive: String,
    security: String,
}

impl Mirrors {
    fn of_the_machine() -> Result<Self> {
        if let Some(archive) = std::env::var(MIRROR_VARIABLE).ok().filter(|value| !value.is_empty()) {
            return Ok(Self::beside(archive.trim_end_matches('/')));
        }
        let said = Run::new("`apt-get update --print-uris`", ASK_DEADLINE)
            .output(Command::new("apt-get").args(["update", "--print-uris"]).env("LC_ALL", "C"))
            .context("Debian's packages need apt-get and dpkg")?;
        Self::parse(&said.stdout).with_context(|| {
            format!("apt is not set to any mirror of Debian here; name one, ending in /debian, in {MIRROR_VARIABLE}")
        })
    }

    fn beside(archive: &str) -> Self {
        Self { archive: archive.to_owned(), security: format!("{archive}-security") }
    }

    /// Reads the lines `'http://…/debian/dists/bookworm/InRelease' …`.
    fn parse(output: &str) -> Option<Self> {
        let bases = || {
            output
                .lines()
                .filter_map(|line| line.strip_prefix('\'')?.split_once('\'')?.0.split_once("/dists/"))
                .map(|(base, _)| base)
        };
        let found = Self::beside(bases().find(|base| base.ends_with("/debian"))?);
        let security = bases().find(|base| base.ends_with("/debian-security"));
        Some(Self { security: security.map_or(found.security, str::to_owned), ..found })
    }
}

/// Unpacked packages.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
    loader: PathBuf,
    libraries: Vec<PathBuf>,
}

impl Tree {
    /// The packages and what they need, from the cache or else downloaded into it, as `name`.
    /// `seen_to_work` is asked once, before the tree counts as installed.
    ///
    /// # Errors
    /// When there is no apt, when Debian cannot be reached, or when what came does not work here.
    pub fn get(
        name: &str,
        release: Release,
        packages: &[&str],
        steps: &Steps,
        seen_to_work: impl Fn(&Self) -> Result<()>,
    ) -> Result<Self> {
        let place = cache::install(&cache::folder()?, name, INSTALL_DEADLINE, |work| -> Result<()> {
            fetch(work, release, packages, steps)?;
            seen_to_work(&Self::open(work)?)
        })
        .with_context(|| format!("{} of {} is not available", packages[0], release.name()))?;
        Self::open(&place)
    }

    fn open(root: &Path) -> Result<Self> {
        let loader = ["usr/lib", "lib"]
            .iter()
            .find_map(|folder| find_loader(&root.join(folder), MAX_DEPTH))
            .with_context(|| format!("{} holds no C library; remove it and try again", root.display()))?;
        let multiarch = loader.parent().and_then(Path::file_name).context("a loader without a folder")?.to_owned();
        let libraries = ["lib", "usr/lib"]
            .iter()
            .map(|folder| root.join(folder).join(&multiarch))
            .filter(|folder| folder.is_dir())
            .collect();
        Ok(Self { root: root.to_owned(), loader, libraries })
    }

    /// A file of the tree, by the path that it would have if it were installed.
    #[must_use]
    pub fn path(&self, installed: &str) -> PathBuf {
        self.root.join(installed.trim_start_matches('/'))
    }

    /// The tree's folder of shared libraries for this kind of machine (`/usr/lib/x86_64-linux-gnu`).
    ///
    /// # Errors
    /// When there is none.
    pub fn library_folder(&self) -> Result<&Path> {
        self.libraries.last().map(PathBuf::as_path).context("no folder of libraries")
    }

    /// A command for one of its programs, with more folders of libraries than the usual ones.
    #[must_use]
    pub fn command_with(&self, program: &str, more_libraries: &[PathBuf]) -> Command {
        let mut command = Command::new(&self.loader);
        let folders: Vec<&OsStr> = self.libraries.iter().chain(more_libraries).map(|path| path.as_os_str()).collect();
        command.arg("--library-path").arg(folders.join(OsStr::new(":"))).arg(self.path(program));
        command
    }

    /// A shell script that runs a command, followed by the arguments that the script gets.
    ///
    /// # Errors
    /// When a path is not text.
    pub fn script(command: &Command) -> Result<String> {
        let quote = |text: &OsStr| -> Result<String> {
            let text = text.to_str().context("a path that is not UTF-8")?;
            Ok(format!("'{}'", text.replace('\'', r"'\''")))
        };
        let words: Vec<String> =
            std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect::<Result<_>>()?;
        Ok(format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")))
    }

    /// A command for one of its programs.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.command_with(program, &[])
    }
}

/// The packages and what they need, unpacked as `name` in the cache and not run from there: jars, and
/// programs that the machine's own loader starts. Absolute links within the packages are made relative.
///
/// # Errors
/// When there is no apt, or Debian cannot be reached.
pub fn files(name: &str, release: Release, packages: &[&str], steps: &Steps) -> Result<PathBuf> {
    cache::install(&cache::folder()?, name, INSTALL_DEADLINE, |work| -> Result<()> {
        fetch(work, release, packages, steps)?;
        relink(work, work, MAX_FOLDERS)
    })
    .with_context(|| format!("{} of {} is not available", packages[0], release.name()))
}

/// Makes links to absolute paths that are in the tree lead there, whatever the tree is renamed to.
fn relink(root: &Path, folder: &Path, depth: usize) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && depth > 0 {
            relink(root, &path, depth - 1)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path)?;
            let Ok(inside) = target.strip_prefix("/") else { continue };
            if root.join(inside).symlink_metadata().is_ok() {
                let above = path.strip_prefix(root)?.components().count() - 1;
                fs::remove_file(&path)?;
                std::os::unix::fs::symlink(Path::new(&"../".repeat(above)).join(inside), &path)?;
            }
        }
    }
    Ok(())
}

/// The loader: it must be called by its real name, the usual link to it is an absolute one.
fn find_loader(folder: &Path, depth: usize) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let kind = entry.file_type().ok()?;
        if kind.is_file() && name.to_string_lossy().starts_with("ld-linux-") {
            return Some(path);
        }
        if kind.is_dir() && depth > 0 && name.to_string_lossy().ends_with("-linux-gnu") {
            let found = find_loader(&path, depth - 1);
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

fn fetch(work: &Path, release: Release, packages: &[&str], steps: &Steps) -> Result<()> {
    let temporary = tempfile::Builder::new().prefix("jit-apt-").tempdir()?;
    // The lists stay for the next package, whose turn comes when this one is installed.
    let lists = cache::folder()?.join("apt").join(release.suite());
    let apt = apt_of(release, temporary.path(), &lists)?;
    steps.step(&format!("fetching the package lists of {}", release.name()));
    apt.update(steps)?;
    let needed = apt.needed(packages, MAX_PACKAGES)?;
    steps.step(&format!(
        "downloading {} of {}: {} packages, {} MB",
        packages[0],
        release.name(),
        needed.len(),
        megabytes(&needed)
    ));
    for archive in apt.download(packages, &temporary.path().join("cache/archives"))? {
        unpack(&archive, work)?;
    }
    // Manuals and translations: nothing reads them.
    for folder in ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/i18n"] {
        let folder = work.join(folder);
        if folder.is_dir() {
            fs::remove_dir_all(&folder)?;
        }
    }
    Ok(())
}

/// apt with sources, lists and a status of its own in `folder`, for a machine on which nothing is installed.
fn apt_of(release: Release, folder: &Path, lists: &Path) -> Result<Apt> {
    for made in [lists.join("partial"), folder.join("cache/archives/partial")] {
        fs::create_dir_all(made)?;
    }
    fs::write(folder.join("status"), "")?;
    fs::write(folder.join("sources.list"), release.sources(&Mirrors::of_the_machine()?, &keyring(folder)?))?;
    let at = folder.display();
    Ok(Apt::of_the_machine().with([
        format!("-oDir::Etc::SourceList={at}/sources.list"),
        format!("-oDir::Etc::SourceParts={at}/no-parts"),
        format!("-oDir::State={at}"),
        format!("-oDir::State::Lists={}", lists.display()),
        format!("-oDir::State::Status={at}/status"),
        format!("-oDir::Cache={at}/cache"),
        "-oDebug::NoLocking=1".to_owned(),
        "-oAcquire::Retries=3".to_owned(),
    ]))
}

/// Debian's keys: the machine's own, else those of its package `debian-archive-keyring`, which other
/// distributions sign with their own key.
fn keyring(folder: &Path) -> Result<PathBuf> {
    if Path::new(KEYRING).is_file() {
        return Ok(KEYRING.into());
    }
    let keys = folder.join("keys");
    fs::create_dir_all(&keys)?;
    let get = || -> Result<()> {
        Run::new("`apt-get download debian-archive-keyring`", DOWNLOAD_DEADLINE).output(
            Command::new("apt-get")
                .args(["-oAPT::Sandbox::User=", "download", "debian-archive-keyring"])
                .env("LC_ALL", "C")
                .current_dir(&keys),
        )?;
        let package = super::only_file(&keys, ".deb")?;
        unpack(&package, &keys)
    };
    get().context("Debian's keys are not here; install the package debian-archive-keyring")?;
    let found = keys.join(KEYRING.trim_start_matches('/'));
    if !found.is_file() {
        bail!("debian-archive-keyring does not hold {KEYRING}");
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_runs_its_programs_through_its_own_loader() {
        let folder = tempfile::tempdir().unwrap();
        let libraries = folder.path().join("usr/lib/x86_64-linux-gnu");
        fs::create_dir_all(&libraries).unwrap();
        assert!(Tree::open(folder.path()).is_err());
        fs::write(libraries.join("ld-linux-x86-64.so.2"), "").unwrap();
        // As in the packages: absolute, and not what is to be run.
        fs::create_dir_all(folder.path().join("usr/lib64")).unwrap();
        std::os::unix::fs::symlink("/lib/ld-linux-x86-64.so.2", folder.path().join("usr/lib64/ld-linux-x86-64.so.2"))
            .unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let command = tree.command_with("/usr/sbin/slapd", &["/more".into()]);
        assert_eq!(command.get_program(), libraries.join("ld-linux-x86-64.so.2"));
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        assert_eq!(arguments[0], "--library-path");
        assert_eq!(arguments[1], format!("{}:/more", libraries.display()));
        assert_eq!(arguments[2], folder.path().join("usr/sbin/slapd").display().to_string());
        assert_eq!(tree.library_folder().unwrap(), libraries);
    }

    #[test]
    fn absolute_links_lead_into_the_tree() {
        let tree = tempfile::tempdir().unwrap();
        let home = tree.path().join("usr/lib/jvm/java-17");
        fs::create_dir_all(&home).unwrap();
        fs::create_dir_all(tree.path().join("etc/java-17/security")).unwrap();
        fs::write(tree.path().join("etc/java-17/security/java.security"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/java-17", home.join("conf")).unwrap();
        std::os::unix::fs::symlink("/etc/not-in-a-package", home.join("other")).unwrap();
        relink(tree.path(), tree.path(), MAX_FOLDERS).unwrap();
        assert_eq!(fs::read(home.join("conf/security/java.security")).unwrap(), b"x");
        assert_eq!(fs::read_link(home.join("other")).unwrap(), Path::new("/etc/not-in-a-package"));
    }

    #[test]
    fn mirrors_are_those_of_the_machine() {
        let output = "'https://other.example/apt/dists/x/InRelease' a_InRelease 0 \n\
            'http://mirror.example/debian/dists/bookworm/InRelease' b_InRelease 0 \n\
            'http://fixes.example/debian-security/dists/bookworm-security/InRelease' c_InRelease 0 \n";
        let mirrors = Mirrors::parse(output).unwrap();
        assert_eq!(mirrors.archive, "http://mirror.example/debian");
        assert_eq!(mirrors.security, "http://fixes.example/debian-security");
        let one = Mirrors::parse("'http://mirror.example/debian/dists/sid/InRelease' x 0\n").unwrap();
        assert_eq!(one.security, "http://mirror.example/debian-security");
        assert_eq!(Mirrors::parse("'http://mirror.example/ubuntu/dists/noble/InRelease' x 0\n"), None);
    }

    #[test]
    fn security_fixes_are_among_the_sources() {
        let mirrors = Mirrors::beside("http://mirror.example/debian");
        let sources = Release::Bookworm.sources(&mirrors, Path::new("/k.gpg"));
        assert!(sources.lines().count() == 3 && sources.contains("bookworm-security"));
        assert!(sources.lines().all(|line| line.starts_with("deb [signed-by=/k.gpg] ")));
    }
}
