//! Debian's packages without installing them: what is on offer, what a package needs, download and unpack. Needs no
//! root; apt verifies what it downloads against the archive's signatures.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use jit_plugin_build::{Error, Progress, cache::create_folder, process::Run};

/// How long apt may take to answer from its lists.
pub(crate) const ASK_DEADLINE: Duration = Duration::from_secs(120);
/// How long fetching the lists may take.
const UPDATE_DEADLINE: Duration = Duration::from_secs(300);
/// How long a download may take, however slow the line.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(900);
/// How long nothing may arrive.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long unpacking one package may take.
const UNPACK_DEADLINE: Duration = Duration::from_secs(300);

/// A package of a certain version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Bytes to download.
    pub(crate) size: u64,
}

/// Access to apt, with the machine's configuration or with another one.
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// With the sources and the lists that the machine has, however old.
    pub(crate) fn of_the_machine() -> Self {
        // The sandbox user cannot enter a user's cache.
        Self { options: vec!["-oAPT::Sandbox::User=".to_owned(), "-oAcquire::Languages=none".to_owned()] }
    }

    /// With further options, as `-oName=value`.
    pub(crate) fn with(mut self, options: impl IntoIterator<Item = String>) -> Self {
        self.options.extend(options);
        self
    }

    /// With the machine's own sources, and fresh lists of them in `folder`.
    pub(crate) fn with_private_lists(folder: &Path, progress: &dyn Progress) -> Result<Self> {
        let (lists, archives) = (folder.join("lists"), folder.join("cache"));
        create_folder(&lists.join("partial"))?;
        create_folder(&archives.join("archives/partial"))?;
        let apt = Self::of_the_machine()
            .with([format!("-oDir::State::Lists={}", lists.display()), format!("-oDir::Cache={}", archives.display())]);
        apt.update(progress)?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive").args(&self.options);
        command
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let finished = Run::new(format!("`{program} {}`", arguments.join(" ")), ASK_DEADLINE)
            .output(self.command(program).args(arguments))?;
        Ok(finished.stdout)
    }

    /// Fetches the lists of its sources.
    pub(crate) fn update(&self, progress: &dyn Progress) -> Result<()> {
        let updated = Run::new("`apt-get update`", UPDATE_DEADLINE)
            .on_line(&|line| progress.detail(line))
            .output(self.command("apt-get").arg("update"));
        match updated {
            // One unreachable source of several, or a hook of the machine that only root may run, is no reason to
            // stop: what is missing shows in the next step.
            Ok(_) | Err(Error::Failed { .. }) => Ok(()),
            Err(error) => Err(error).context("Debian's packages need apt-get and dpkg"),
        }
    }

    /// The version that apt would install, if the package is known.
    pub(crate) fn candidate(&self, name: &str) -> Result<Option<String>> {
        Ok(parse_candidate(&self.ask("apt-cache", &["policy", name])?))
    }

    /// What has to be downloaded for `names` to work: they themselves, even where they are installed, and what they
    /// need that is not installed. More than `most` packages mean that something is amiss.
    pub(crate) fn needed(&self, names: &[&str], most: usize) -> Result<Vec<Package>> {
        let mut arguments = vec!["install", "--print-uris", "--reinstall", "-y", "--no-install-recommends"];
        arguments.extend(names);
        let packages = parse_uris(&self.ask("apt-get", &arguments)?);
        if packages.is_empty() || packages.len() > most {
            bail!("apt wants {} packages for {}", packages.len(), names.join(" "));
        }
        Ok(packages)
    }

    /// Downloads `names` and what they need into `folder`, and returns the files. apt checks each against the signed
    /// lists.
    pub(crate) fn download(&self, names: &[&str], folder: &Path) -> Result<Vec<PathBuf>> {
        create_folder(&folder.join("partial"))?;
        let received = || bytes_in(folder) + bytes_in(&folder.join("partial"));
        let mut command = self.command("apt-get");
        command
            // The lock of the machine's own downloads is not needed for another folder.
            .args([format!("-oDir::Cache::Archives={}", folder.display()), "-oDebug::NoLocking=1".to_owned()])
            .args(["-oAcquire::Retries=3", "install", "--download-only", "--reinstall", "-y"])
            .arg("--no-install-recommends")
            .args(names);
        Run::new("`apt-get install --download-only`", DOWNLOAD_DEADLINE)
            .give_up_when_stalled(PATIENCE, &received)
            .output(&mut command)?;
        let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut files: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        files.sort();
        Ok(files)
    }
}

/// Unpacks a package below `root` without running its scripts.
pub(crate) fn unpack(package: &Path, root: &Path) -> Result<()> {
    Run::new("`dpkg -x`", UNPACK_DEADLINE).output(Command::new("dpkg").arg("-x").arg(package).arg(root))?;
    Ok(())
}

/// How many megabytes packages have together.
pub(crate) fn megabytes(packages: &[Package]) -> u64 {
    packages.iter().map(|package| package.size).sum::<u64>().div_ceil(1_000_000)
}

fn bytes_in(folder: &Path) -> u64 {
    fs::read_dir(folder).map_or(0, |entries| {
        entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    })
}

fn parse_candidate(policy: &str) -> Option<String> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))
        .map(str::trim)
        .filter(|version| *version != "(none)")
        .map(str::to_owned)
}

/// Reads the lines `'uri' name_version_architecture.deb size [hash]`.
fn parse_uris(output: &str) -> Vec<Package> {
    output
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.strip_prefix('\'')?.split_once("' ")?;
            let mut fields = rest.split(' ');
            let (name, _) = fields.next()?.split_once('_')?;
            Some(Package { name: name.to_owned(), size: fields.next()?.parse().ok()? })
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n";
        assert_eq!(parse_candidate(policy).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(parse_candidate("x:\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn needed_packages_are_read() {
        let output = "Reading package lists...\nNeed to get 29 MB of archives.\n\
            'http://mirror/libllvm22_22.1.8-1%7edeb12u1_amd64.deb' libllvm22_1%3a22.1.8-1~deb12u1_amd64.deb 29378692 \n\
            'http://mirror/rust-web-src_1.96.0_all.deb' rust-web-src_1.96.0_all.deb 45012756 SHA256:ab\n";
        let packages = parse_uris(output);
        assert_eq!(packages.len(), 2);
        assert_eq!(packages[0].name, "libllvm22");
        assert_eq!(packages[1].size, 45_012_756);
        assert_eq!(megabytes(&packages), 75);
        assert!(parse_uris("E: Unable to locate package mysql").is_empty());
    }
}
