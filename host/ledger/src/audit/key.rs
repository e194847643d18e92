//! The file with the key that signs the audit log's checkpoints.
//!
//! Trusted with: who reads it can sign another history of the log. So it is refused when anybody
//! but its owner may, rather than used with a warning that nobody reads.

use std::io;
use std::path::{Path, PathBuf};

use jit_files::private::{self, Unread};
use jit_tlog::checkpoint::{LogKey, NoteError};
use secrecy::{ExposeSecret as _, SecretString};

/// Why the signing key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is none.
    #[error("there is no signing key at {}", .0.display())]
    Missing(PathBuf),
    /// The file system said no.
    #[error("the signing key {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "the signing key {} may be read or written by others (mode {mode:04o}): \
         use `chmod 600`, and a new key if others had access", path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not a key.
    #[error("the signing key {}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: NoteError,
    },
}

fn unread(path: &Path) -> impl FnOnce(Unread) -> KeyFileError {
    let path = path.to_owned();
    move |why| match why {
        Unread::Io(source) if source.kind() == io::ErrorKind::NotFound => KeyFileError::Missing(path),
        Unread::Io(source) => KeyFileError::File { path, source },
        Unread::Exposed(mode) => KeyFileError::Exposed { path, mode },
    }
}

/// Reads the key.
///
/// # Errors
/// [`KeyFileError`]: missing, readable by others, or not a key.
pub fn load(path: &Path) -> Result<LogKey, KeyFileError> {
    let text = read(path)?;
    LogKey::from_text(text.expose_secret()).map_err(|source| KeyFileError::Content { path: path.to_owned(), source })
}

/// Reads the file of a signing key, whatever it signs.
///
/// # Errors
/// [`KeyFileError`]: missing, or readable by others.
pub fn read(path: &Path) -> Result<SecretString, KeyFileError> {
    private::read(path).map_err(unread(path))
}

/// Makes a key and its file (0600), and its folder where there is none. It never replaces one.
///
/// # Errors
/// [`KeyFileError::File`], also when there is one already.
pub fn generate(path: &Path) -> Result<LogKey, KeyFileError> {
    let key = LogKey::generate();
    write(path, &key.to_text())?;
    Ok(key)
}

/// Writes the file of a new signing key (0600), and its folder where there is none. It never replaces one.
///
/// # Errors
/// [`KeyFileError::File`], also when there is one already.
pub fn write(path: &Path, text: &str) -> Result<(), KeyFileError> {
    private::write_new(path, text).map_err(|source| KeyFileError::File { path: path.to_owned(), source })
}

/// Reads the key, or makes it where there is none yet.
///
/// # Errors
/// [`KeyFileError`].
pub fn load_or_generate(path: &Path) -> Result<LogKey, KeyFileError> {
    match load(path) {
        Err(KeyFileError::Missing(_)) => match generate(path) {
            // Another process was faster: its key is the key.
            Err(KeyFileError::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => load(path),
            made => made,
        },
        loaded => loaded,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use jit_tlog::checkpoint::Origin;

    #[test]
    fn is_made_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        assert!(matches!(load(&path), Err(KeyFileError::Missing(_))));
        let origin = Origin::new("jit-broker/test").unwrap();
        let made = load_or_generate(&path).unwrap().verifier(&origin);
        assert_eq!(load_or_generate(&path).unwrap().verifier(&origin), made);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(generate(&path).is_err(), "it is not replaced");
        assert_eq!(load(&path).unwrap().verifier(&origin), made);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn is_refused_when_others_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        generate(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Exposed { .. }));
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        load(&path).unwrap();
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        for content in ["", "hunter2hunter2", &"x".repeat(10_000)] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Content { .. }), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        assert!(matches!(load(folder.path()), Err(KeyFileError::File { .. })));
    }
}
