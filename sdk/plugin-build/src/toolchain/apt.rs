//! Debian's packages without installing them: what is on offer, what a package needs, download
//! and unpack. Needs no root; apt verifies what it downloads against the archive's signatures.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{Error, Progress, cache::create_folder, process::Run};

/// How long apt may take to answer from its lists.
const ASK_DEADLINE: Duration = Duration::from_secs(120);
/// How long fetching the lists may take.
const UPDATE_DEADLINE: Duration = Duration::from_secs(300);
/// How long one package may take to download, however slow the line.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(900);
/// How long nothing may arrive.
const DOWNLOAD_PATIENCE: Duration = Duration::from_secs(60);
/// How long unpacking one package may take.
const UNPACK_DEADLINE: Duration = Duration::from_secs(300);
/// The most packages that a download may consist of; more means that something is amiss.
const MAX_PACKAGES: usize = 60;

/// A package of a certain version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// Bytes to download.
    pub(super) size: u64,
}

/// Access to apt, with the machine's lists or with private ones.
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// With the lists that the machine has, however old.
    pub(super) fn of_the_machine() -> Self {
        Self {
            // The sandbox user cannot enter a user's cache.
            options: vec!["-oAPT::Sandbox::User=".to_owned()],
        }
    }

    /// With fresh lists of the machine's own sources, fetched into `folder`.
    pub(super) fn with_private_lists(folder: &Path, progress: &dyn Progress) -> Result<Self, Error> {
        let lists = folder.join("lists");
        let archives = folder.join("cache");
        create_folder(&lists.join("partial"))?;
        create_folder(&archives.join("archives/partial"))?;
        let mut apt = Self::of_the_machine();
        apt.options.extend([
            format!("-oDir::State::Lists={}", lists.display()),
            format!("-oDir::Cache={}", archives.display()),
            "-oAcquire::Languages=none".to_owned(),
        ]);
        progress.step("fetching Debian's package lists");
        // One unreachable source of several, or a hook of the machine that only root may run, is
        // no reason to stop: what is missing shows later.
        let updated = Run::new("`apt-get update`", UPDATE_DEADLINE)
            .on_line(&|line| progress.detail(line))
            .output(apt.command("apt-get").arg("update"));
        match updated {
            Ok(_) | Err(Error::Failed { .. }) => Ok(apt),
            Err(error) => Err(error),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").args(&self.options);
        command
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        Run::new(format!("`{program} {}`", arguments.join(" ")), ASK_DEADLINE)
            .output(self.command(program).args(arguments))
            .map(|finished| finished.stdout)
    }

    /// The version that apt would install, if the package is known.
    pub(super) fn candidate(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(parse_candidate(&self.ask("apt-cache", &["policy", name])?))
    }

    /// What has to be downloaded for `names` to work on this machine: they themselves and what
    /// they need that is not installed.
    pub(super) fn needed(&self, names: &[String]) -> Result<Vec<Package>, Error> {
        let mut arguments = vec!["install", "--print-uris", "--reinstall", "-y", "--no-install-recommends"];
        arguments.extend(names.iter().map(String::as_str));
        let packages = parse_uris(&self.ask("apt-get", &arguments)?);
        if packages.is_empty() || packages.len() > MAX_PACKAGES {
            return Err(Error::Answer {
                what: "apt-get".to_owned(),
                detail: format!("{} packages for {}", packages.len(), names.join(" ")),
            });
        }
        Ok(packages)
    }

    /// Downloads packages into `folder` and gives the files.
    pub(super) fn download(
        &self,
        packages: &[Package],
        folder: &Path,
        progress: &dyn Progress,
    ) -> Result<Vec<PathBuf>, Error> {
        create_folder(folder)?;
        for package in packages {
            progress.step(&format!(
                "downloading {} {} ({} MB)",
                package.name,
                package.version,
                package.size.div_ceil(1_000_000)
            ));
            let received = || bytes_below(folder);
            Run::new(format!("`apt-get download {}`", package.name), DOWNLOAD_DEADLINE)
                .give_up_when_stalled(DOWNLOAD_PATIENCE, &received)
                .output(
                    self.command("apt-get")
                        .arg("download")
                        .arg(format!("{}={}", package.name, package.version))
                        .current_dir(folder),
                )?;
        }
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .map_err(Error::io("read", folder))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        files.sort();
        Ok(files)
    }
}

/// Unpacks a package below `root` without running its scripts.
pub(super) fn unpack(package: &Path, root: &Path) -> Result<(), Error> {
    Run::new("`dpkg -x`", UNPACK_DEADLINE).output(Command::new("dpkg").arg("-x").arg(package).arg(root)).map(|_| ())
}

fn bytes_below(folder: &Path) -> u64 {
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
            let mut file = fields.next()?.split('_');
            Some(Package {
                name: file.next()?.to_owned(),
                version: file.next()?.replace("%3a", ":"),
                size: fields.next()?.parse().ok()?,
            })
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
        assert_eq!(packages[0].version, "1:22.1.8-1~deb12u1");
        assert_eq!(packages[1].size, 45_012_756);
    }
}
