//! Where a secret comes from. The configuration never holds one.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use secrecy::zeroize::{Zeroize as _, Zeroizing};

/// The largest secret, in bytes: a private key with its chain fits, a mistaken file does not.
pub const MAX_SECRET: usize = 64 * 1024;

/// A reference to a secret: `{ file = "…" }` or `{ env = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In a file; one line break at its end is not part of it. The path is already relative to
    /// the configuration's folder.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

/// Why a secret cannot be had. Names the place, never the content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("the secret's file {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A directory, a pipe or a device: reading it could wait for ever.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Nothing is set under that name.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// More than [`MAX_SECRET`].
    #[error("{0} has more than {MAX_SECRET} bytes: that is not a secret")]
    TooLarge(String),
    /// Nothing in it.
    #[error("{0} is empty")]
    Empty(String),
    /// Secrets are texts.
    #[error("{0} is not UTF-8 text")]
    NotText(String),
}

impl SecretRef {
    /// Reads the secret. Waits for the disk: call it where a thread may wait.
    ///
    /// # Errors
    /// [`SecretError`], without any of the content.
    pub fn resolve(&self) -> Result<SecretString, SecretError> {
        let bytes = match self {
            Self::File(path) => read_capped(path)?,
            Self::Env(name) => {
                let value = std::env::var_os(name).ok_or_else(|| SecretError::NotSet(name.clone()))?;
                Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value))
            }
        };
        if bytes.len() > MAX_SECRET {
            return Err(SecretError::TooLarge(self.to_string()));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText(self.to_string()))?;
        let text = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text);
        if text.is_empty() {
            return Err(SecretError::Empty(self.to_string()));
        }
        Ok(SecretString::from(text))
    }
}

/// Into one buffer that never moves, so that no copy stays behind in freed memory.
fn read_capped(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    // Asked before opening: opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretError::NotAFile(path.to_owned()));
    }
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut buffer = Zeroizing::new(vec![0_u8; MAX_SECRET + 1]);
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    buffer[length..].zeroize();
    buffer.truncate(length);
    Ok(buffer)
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the secret's file {}", path.display()),
            Self::Env(name) => write!(f, "the environment variable {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that does not get what it expects has failed")]

    use secrecy::ExposeSecret as _;

    use super::*;

    fn of(content: &[u8]) -> Result<SecretString, SecretError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, content).unwrap();
        SecretRef::File(path).resolve()
    }

    #[test]
    fn one_line_break_at_the_end_is_not_part_of_it() {
        for (content, secret) in
            [("hunter2", "hunter2"), ("hunter2\n", "hunter2"), ("hunter2\r\n", "hunter2"), (" a\n\n", " a\n")]
        {
            assert_eq!(of(content.as_bytes()).unwrap().expose_secret(), secret, "{content:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused() {
        assert!(matches!(of(b""), Err(SecretError::Empty(_))));
        assert!(matches!(of(b"\n"), Err(SecretError::Empty(_))));
        assert!(matches!(of(b"a\xff"), Err(SecretError::NotText(_))));
        assert_eq!(of(&vec![b'a'; MAX_SECRET]).unwrap().expose_secret().len(), MAX_SECRET);
        assert!(matches!(of(&vec![b'a'; MAX_SECRET + 1]), Err(SecretError::TooLarge(_))));
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(SecretRef::File(folder.path().to_owned()).resolve(), Err(SecretError::NotAFile(_))));
        let absent = SecretRef::File(folder.path().join("absent")).resolve();
        assert!(matches!(absent, Err(SecretError::Read { .. })));
        let unset = SecretRef::Env("JIT_TEST_THIS_IS_NOT_SET".to_owned()).resolve();
        assert!(matches!(unset, Err(SecretError::NotSet(_))));
    }

    #[test]
    fn the_environment_is_read() {
        // Cargo sets this one for every test.
        let name = SecretRef::Env("CARGO_MANIFEST_DIR".to_owned()).resolve().unwrap();
        assert_eq!(name.expose_secret(), env!("CARGO_MANIFEST_DIR"));
    }
}
