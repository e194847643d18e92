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

/// Why the file of a private key is not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// As the system says, or that it is no regular file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Others than its owner may read or write it: its permissions.
    #[error("others may read or write it (mode {0:04o})")]
    Exposed(u32),
}

/// Reads at most the first 4 KiB of a file that only its owner may read or write.
///
/// # Errors
/// [`Unread`]. What is no text is [`io::ErrorKind::InvalidData`].
pub fn read(path: &Path) -> Result<SecretString, Unread> {
    let file = open_regular(path)?;
    // Of the open file, not of the path: nobody can swap it in between.
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Unread::Exposed(mode));
    }
    // Its final size at once, so that no copy stays behind in memory when it grows.
    let mut text = Zeroizing::new(String::with_capacity(MOST as usize));
    file.take(MOST).read_to_string(&mut text)?;
    Ok(SecretString::from(text.as_str()))
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

    #[test]
    fn a_missing_folder_is_made_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/keys/audit.key");
        write_new(&path, "secret").unwrap();
        for made in ["data", "data/keys"] {
            let mode = std::fs::metadata(folder.path().join(made)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{made}: {mode:o}");
        }
        assert_eq!(read(&path).unwrap().expose_secret(), "secret");
        assert_eq!(write_new(&path, "other").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
