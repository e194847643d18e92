//! What is in files, so that a change of it can be told from a touch.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use jit_files::open_regular;
use jit_runtime::load::MAX_COMPONENT;
use sha2::{Digest as _, Sha256};

/// The contents of some files at one moment, as digests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents(BTreeMap<PathBuf, Content>);

#[derive(Clone, PartialEq, Eq)]
enum Content {
    /// Of as many bytes as a plugin may have, and one.
    Digest([u8; 32]),
    Unreadable(ErrorKind),
}

impl std::fmt::Debug for Content {
    /// Without the digest: passwords are among the files, and a short one could be found by it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digest(_) => f.write_str("Digest"),
            Self::Unreadable(kind) => write!(f, "Unreadable({kind:?})"),
        }
    }
}

impl Contents {
    /// Looks into these files.
    pub async fn of(files: BTreeSet<PathBuf>) -> Self {
        let read = move || Self(files.into_iter().map(|file| (file.clone(), read(&file))).collect());
        // Cannot fail but by a panic or at the end of the process: then nothing is known of them.
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// The SHA-256 of one of them in hexadecimal; none where it could not be read. Not for files with a password.
    #[must_use]
    pub fn sha256(&self, file: &Path) -> Option<String> {
        match self.0.get(file)? {
            Content::Digest(digest) => Some(hex::encode(digest)),
            Content::Unreadable(_) => None,
        }
    }

    /// Of which files.
    #[must_use]
    pub fn files(&self) -> BTreeSet<PathBuf> {
        self.0.keys().cloned().collect()
    }

    /// Looks into those of these files that it does not know yet, and forgets all others.
    pub async fn follow(&mut self, files: BTreeSet<PathBuf>) {
        self.0.retain(|file, _| files.contains(file));
        let new: BTreeSet<PathBuf> = files.into_iter().filter(|file| !self.0.contains_key(file)).collect();
        if !new.is_empty() {
            self.0.extend(Self::of(new).await.0);
        }
    }
}

fn read(path: &Path) -> Content {
    let digest = || {
        let mut file = open_regular(path)?.take(MAX_COMPONENT + 1);
        let (mut digest, mut buffer) = (Sha256::new(), vec![0_u8; 64 * 1024]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Content::Digest(digest.finalize().into())),
                Ok(count) => digest.update(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    digest().unwrap_or_else(|error: std::io::Error| Content::Unreadable(error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_touch_is_no_change_and_a_byte_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        std::fs::write(&one, "1").unwrap();
        let look = || Contents::of([one.clone(), two.clone()].into());
        let before = look().await;
        std::fs::write(&one, "1").unwrap();
        assert_eq!(look().await, before);
        std::fs::write(&two, "").unwrap();
        let there = look().await;
        assert_ne!(there, before, "a missing file is not an empty one");
        std::fs::write(&one, "2").unwrap();
        assert_ne!(look().await, there);

        // What is known is not looked at again, so that a change is found by the next look.
        let mut kept = Contents::of([one.clone()].into()).await;
        let known = kept.clone();
        std::fs::write(&one, "3").unwrap();
        kept.follow([one.clone(), two.clone()].into()).await;
        assert_ne!(kept, look().await);
        kept.follow([one.clone()].into()).await;
        assert_eq!(kept, known);
    }
}
