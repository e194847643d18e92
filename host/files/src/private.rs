//! Files of private keys: for their owner alone, and never replaced.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use crate::open_regular;

/// The longest file of a key that is read, in bytes.
const MOST: u64 = 4 * 1024;

/// Which key a file is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyKind {
    /// In words: `signing key`.
    pub name: &'static str,
    /// The command of `jit-broker` that makes one: `audit key`.
    pub made_by: &'static str,
}

/// Why the file of a private key cannot be used. No message has anything of its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file does not exist.
    #[error(
        "there is no {} at {}; `jit-broker {} {}` makes one", kind.name, path.display(), kind.made_by, path.display()
    )]
    Missing {
        /// Which key.
        kind: KeyKind,
        /// Which file.
        path: PathBuf,
    },
    /// The file system said no, or it is no regular file. What is no text is [`io::ErrorKind::InvalidData`].
    #[error("the {} {}", kind.name, path.display())]
    File {
        /// Which key.
        kind: KeyKind,
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error(
        "the {} {} may be read or written by others (mode {mode:04o}): \
         use `chmod 600`, and a new key if others had access", kind.name, path.display()
    )]
    Exposed {
        /// Which key.
        kind: KeyKind,
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl KeyFileError {
    /// Whether there is no file, or there was one already.
    #[must_use]
    pub fn is(&self, what: io::ErrorKind) -> bool {
        match self {
            Self::Missing { .. } => what == io::ErrorKind::NotFound,
            Self::File { source, .. } => what == source.kind(),
            Self::Exposed { .. } => false,
        }
    }
}

/// Reads at most the first 4 KiB of a file that only its owner may read or write.
///
/// # Errors
/// [`KeyFileError`].
pub fn read(path: &Path, kind: KeyKind) -> Result<SecretString, KeyFileError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing { kind, path: path.to_owned() },
        _ => KeyFileError::File { kind, path: path.to_owned(), source },
    };
    let file = open_regular(path).map_err(failed)?;
    // Of the open file, not of the path: nobody can swap it in between.
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { kind, path: path.to_owned(), mode });
    }
    // Its final size at once, so that no copy stays behind in memory when it grows.
    let mut text = Zeroizing::new(String::with_capacity(MOST as usize));
    file.take(MOST).read_to_string(&mut text).map_err(failed)?;
    Ok(SecretString::from(text.as_str()))
}

/// Writes the file of a new key, as [`write_new`].
///
/// # Errors
/// [`KeyFileError::File`], with [`io::ErrorKind::AlreadyExists`] when there is one.
pub fn write_key(path: &Path, kind: KeyKind, text: &str) -> Result<(), KeyFileError> {
    write_new(path, text).map_err(|source| KeyFileError::File { kind, path: path.to_owned(), source })
}

/// Writes a new file for its owner alone (0600). A folder that is missing is made, for its owner alone (0700). The file
/// is whole or not there, also after a power cut. One that is there is never replaced.
///
/// # Errors
/// As the system says; [`io::ErrorKind::AlreadyExists`] when there is one.
pub fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Linked, not renamed: fails where a key is, and a half-written one is never seen.
        std::fs::hard_link(&beside, path)?;
        File::open(folder)?.sync_all()
    };
    let written = write();
    let _left_behind = std::fs::remove_file(&beside);
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use secrecy::ExposeSecret as _;

    use super::*;

    const KIND: KeyKind = KeyKind { name: "signing key", made_by: "audit key" };

    #[test]
    fn a_missing_folder_is_made_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/keys/audit.key");
        write_key(&path, KIND, "secret").unwrap();
        for made in ["data", "data/keys"] {
            let mode = std::fs::metadata(folder.path().join(made)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{made}: {mode:o}");
        }
        assert_eq!(read(&path, KIND).unwrap().expose_secret(), "secret");
        assert!(write_key(&path, KIND, "other").unwrap_err().is(io::ErrorKind::AlreadyExists));
    }

    #[test]
    fn what_cannot_be_used_says_which_key_it_is_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        let missing = read(&path, KIND).unwrap_err();
        assert!(missing.is(io::ErrorKind::NotFound));
        let says = missing.to_string();
        assert!(says.starts_with("there is no signing key at ") && says.contains("`jit-broker audit key /"), "{says}");
        write_key(&path, KIND, "secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let exposed = read(&path, KIND).unwrap_err().to_string();
        assert!(exposed.contains("(mode 0640)") && exposed.contains("chmod 600"), "{exposed}");
        let folder = read(folder.path(), KIND).unwrap_err();
        assert!(matches!(&folder, KeyFileError::File { .. }), "{folder:?}");
    }
}
