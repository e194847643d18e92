//! The file with the key that signs the audit log's checkpoints.
//!
//! Trusted with: who reads it can sign another history of the log. So it is refused when anybody
//! but its owner may, rather than used with a warning that nobody reads.

use std::io;
use std::path::{Path, PathBuf};

use jit_files::private::{self, KeyFileError, KeyKind};
use jit_tlog::checkpoint::{LogKey, NoteError};
use secrecy::{ExposeSecret as _, SecretString};

/// The key that signs the audit log.
const SIGNING: KeyKind = KeyKind { name: "signing key", made_by: "audit key" };

/// Why the signing key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// Its file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// It is not a key.
    #[error("the signing key {}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: NoteError,
    },
}

/// Reads the key.
///
/// # Errors
/// [`SigningKeyError`].
pub fn load(path: &Path) -> Result<LogKey, SigningKeyError> {
    let text = read(path)?;
    LogKey::from_text(text.expose_secret()).map_err(|source| SigningKeyError::Content { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<SecretString, KeyFileError> {
    private::read(path, SIGNING)
}

/// Makes a key and its file (0600), and its folder where there is none. It never replaces one.
///
/// # Errors
/// [`SigningKeyError::File`], also when there is one already.
pub fn generate(path: &Path) -> Result<LogKey, SigningKeyError> {
    let key = LogKey::generate();
    private::write_key(path, SIGNING, &key.to_text())?;
    Ok(key)
}

/// Reads the key, or makes it where there is none yet.
///
/// # Errors
/// [`SigningKeyError`].
pub fn load_or_generate(path: &Path) -> Result<LogKey, SigningKeyError> {
    match load(path) {
        Err(SigningKeyError::File(missing)) if missing.is(io::ErrorKind::NotFound) => match generate(path) {
            // Another process was faster: its key is the key.
            Err(SigningKeyError::File(there)) if there.is(io::ErrorKind::AlreadyExists) => load(path),
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
        assert!(matches!(load(&path), Err(SigningKeyError::File(KeyFileError::Missing { .. }))));
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
            assert!(matches!(error, SigningKeyError::File(KeyFileError::Exposed { .. })));
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
            assert!(matches!(error, SigningKeyError::Content { .. }), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        assert!(matches!(load(folder.path()), Err(SigningKeyError::File(KeyFileError::File { .. }))));
    }
}
