//! The file with the key that signs the audit log's checkpoints.
//!
//! Trusted with: who reads it can sign another history of the log. So it is refused when anybody
//! but its owner may, rather than used with a warning that nobody reads.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jit_files::open_regular;
use jit_tlog::checkpoint::{LogKey, NoteError};
use secrecy::{ExposeSecret as _, SecretString};

/// The longest key file, in bytes.
const MAX_FILE: u64 = 4 * 1024;

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

fn failed(path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing(path),
        _ => KeyFileError::File { path, source },
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
    let file = open_regular(path).map_err(failed(path))?;
    let metadata = file.metadata().map_err(failed(path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    // Its final size at once, so that no copy stays behind in memory when it grows.
    let mut text = String::with_capacity(MAX_FILE as usize);
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed(path))?;
    Ok(SecretString::from(text))
}

/// Makes a key and its file (0600), whose folder exists. It never replaces one.
///
/// # Errors
/// [`KeyFileError::File`], also when there is one already.
pub fn generate(path: &Path) -> Result<LogKey, KeyFileError> {
    let key = LogKey::generate();
    write(path, &key.to_text())?;
    Ok(key)
}

/// Writes the file of a new signing key (0600), whose folder exists. It never replaces one.
///
/// # Errors
/// [`KeyFileError::File`], also when there is one already.
pub fn write(path: &Path, text: &str) -> Result<(), KeyFileError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Linked, not renamed: fails where a key is, and a half-written one is never seen.
        std::fs::hard_link(&beside, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    let written = write();
    let _left_behind = std::fs::remove_file(&beside);
    written.map_err(|source| KeyFileError::File { path: path.to_owned(), source })
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
