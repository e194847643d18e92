//! The store's files: made for their owner alone, and locked against a second broker, by whatever name it
//! comes.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::store::OpenError;

/// What keeps a second broker out, for as long as it is held.
#[derive(Debug)]
pub(super) struct Lock {
    /// The file beside the store: also of a store that another release has open.
    _beside: File,
    /// The store's file itself, by whatever path it is reached. To be closed only after SQLite has closed it:
    /// closing any handle of a file ends the locks that SQLite has on it in this process.
    _itself: File,
}

/// Files that are ready to be opened.
pub(super) struct Prepared {
    /// The file's own path, without symbolic links: what SQLite keeps beside it has one place.
    pub(super) path: PathBuf,
    pub(super) lock: Lock,
}

/// Makes the folder (0700) and the file (0600), and takes the locks.
pub(super) fn prepare(path: &Path) -> Result<Prepared, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::File { path, source }
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
    }
    let open = |path: &Path| OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    // SQLite gives its side files (-wal, -shm) the permissions of this one.
    let itself = open(path).map_err(failed(path))?;
    let path = &path.canonicalize().map_err(failed(path))?;
    let locked = |file: &File, of: &Path| match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.clone())),
        Err(TryLockError::Error(source)) => Err(failed(of)(source)),
    };
    let mut beside_path = path.as_os_str().to_owned();
    beside_path.push(".lock");
    let beside_path = PathBuf::from(beside_path);
    let beside = open(&beside_path).map_err(failed(&beside_path))?;
    locked(&beside, &beside_path)?;
    // Not the same kind of lock as SQLite's own, so neither is in the other's way.
    locked(&itself, path)?;
    let found = itself.metadata().map_err(failed(path))?;
    if found.nlink() > 1 {
        return Err(OpenError::OtherNames { path: path.clone(), names: found.nlink() });
    }
    if found.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the store was readable by others: now only by its owner");
        itself.set_permissions(Permissions::from_mode(0o600)).map_err(failed(path))?;
    }
    Ok(Prepared { path: path.clone(), lock: Lock { _beside: beside, _itself: itself } })
}

/// After a crash the write-ahead log beside the file has what the file lacks, and the store is both together. A
/// file that was put back from a backup beside such a log is not what the backup was: said, since nobody can tell
/// the two apart.
pub(super) fn tell_of_left_over_log(path: &Path, alone: Option<u64>, now: u64) {
    if let Some(alone) = alone.filter(|alone| *alone != now) {
        tracing::warn!(
            path = %path.display(),
            "the store was not closed in order: the file has {alone} audit records, and with the write-ahead log \
             beside it {now}, which is served. If the file was put back from a backup, this is not the backup's \
             state: stop the broker, remove the -wal and -shm files, and put the backup back again"
        );
    }
}
