//! A copy of the store's file while a broker serves from it.
//!
//! SQLite makes it: `VACUUM INTO` writes what one read transaction sees. The broker keeps writing beside it. The copy
//! stands alone, without a write-ahead log. It gets its name only after its log was read and found as signed, so that a
//! file of that name is never half a backup.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jit_ledger::audit::sources::ReadError;
use jit_ledger::audit::verify::{Options, Progress, Report, verify};
use jit_tlog::checkpoint::VerifierKey;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::log::{LogError, LogState};
use crate::offline::SqliteLog;
use crate::schema::{self, SchemaError};

/// What SQLite may leave beside a copy that was not finished.
const SIDES: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is a file of that name.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// Another backup to that name is at work.
    #[error("another backup to {} is at work", .0.display())]
    AtWork(PathBuf),
    /// The file system said no.
    #[error("the file {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Not a store, or one of a newer release.
    #[error("the store")]
    Schema(#[from] SchemaError),
    /// The store has no tables yet.
    #[error("the store is empty: nothing was written to it yet")]
    Empty,
    /// The database said no.
    #[error("the copy could not be written")]
    Database(#[from] sqlx::Error),
    /// The copy is damaged.
    #[error("the copy is damaged: {0}")]
    Damaged(String),
    /// The log in the copy cannot be continued.
    #[error("the copy cannot be served from")]
    Log(#[from] LogError),
    /// The log in the copy cannot be read.
    #[error("the copy cannot be read")]
    Read(#[from] ReadError),
    /// The log in the copy is not what was signed.
    #[error("the audit log in the copy is not what was signed: {0}")]
    NotAsSigned(String),
}

/// A copy that was written and has no name of its own yet. Dropping it removes it.
#[derive(Debug)]
pub struct Backup {
    to: PathBuf,
    partial: PathBuf,
    replace: bool,
    /// Held against another backup to the same name. Closed after SQLite has closed the file.
    file: File,
    kept: bool,
}

impl Backup {
    /// Copies the store. The copy is at `<to>.partial` until [`Self::keep`]. Takes as long as writing the whole file.
    ///
    /// # Errors
    /// [`BackupError::Exists`] where there is a file `to` and it is not to be replaced, and others.
    pub async fn copy(from: &Path, to: &Path, replace: bool) -> Result<Self, BackupError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| BackupError::File { path, source }
        };
        if !replace && to.symlink_metadata().is_ok() {
            return Err(BackupError::Exists(to.to_owned()));
        }
        File::open(from).map_err(failed(from))?;
        let mut source = schema::copying(from).connect().await.map_err(SchemaError::from)?;
        if schema::check(&mut source).await? == 0 {
            return Err(BackupError::Empty);
        }
        let partial = beside(to, ".partial");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&partial).map_err(failed(&partial))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::AtWork(to.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(&partial)(source)),
        }
        let backup = Self { to: to.to_owned(), partial, replace, file, kept: false };
        // What an earlier one left that was killed.
        backup.file.set_len(0).map_err(failed(&backup.partial))?;
        backup.file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed(&backup.partial))?;
        for side in SIDES {
            match std::fs::remove_file(beside(&backup.partial, side)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&backup.partial)(error)),
                _ => {}
            }
        }
        let Some(name) = backup.partial.to_str() else {
            return Err(failed(&backup.partial)(io::Error::other("SQLite takes only names in UTF-8")));
        };
        sqlx::query("VACUUM INTO ?").bind(name).execute(&mut source).await?;
        source.close().await?;
        Ok(backup)
    }

    /// Opens the copy as serving would, and reads its whole log: each record, and the tree over them against the signed
    /// checkpoints. Archived records are not in it.
    ///
    /// # Errors
    /// When the copy is not a store that the broker would serve from.
    pub async fn check(&self, verifier: &VerifierKey, progress: impl FnMut(Progress)) -> Result<Report, BackupError> {
        let mut copy = schema::reading(&self.partial).connect().await.map_err(SchemaError::from)?;
        let said: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut copy).await?;
        if said != "ok" {
            return Err(BackupError::Damaged(said));
        }
        // An older release's tables are brought up when it is served from, and its log is checked then.
        if schema::check(&mut copy).await? == schema::VERSION {
            LogState::load(&mut copy, verifier).await?;
        }
        copy.close().await?;
        let options = Options { verifier: verifier.clone(), kept: None, archive: None };
        let report = verify(&SqliteLog::new(&self.partial), &options, progress).await?;
        match report.findings.first() {
            None => Ok(report),
            Some(finding) => Err(BackupError::NotAsSigned(finding.to_string())),
        }
    }

    /// Gives the copy its name, once it is on the disk. Returns its size in bytes.
    ///
    /// # Errors
    /// When there is a file of that name by now, or the file system says no.
    pub fn keep(mut self) -> Result<u64, BackupError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| BackupError::File { path, source }
        };
        self.file.sync_all().map_err(failed(&self.partial))?;
        let size = self.file.metadata().map_err(failed(&self.partial))?.len();
        if !self.replace {
            // Reserved: nobody else makes a file of that name between this and the next step.
            let reserved = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.to);
            reserved.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => BackupError::Exists(self.to.clone()),
                _ => failed(&self.to)(error),
            })?;
        }
        std::fs::rename(&self.partial, &self.to).map_err(failed(&self.to))?;
        self.kept = true;
        let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
        Ok(size)
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        if !self.kept {
            let _gone = std::fs::remove_file(&self.partial);
            for side in SIDES {
                let _gone = std::fs::remove_file(beside(&self.partial, side));
            }
        }
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{File as StoreFile, tamper};
    use crate::{SqliteOptions, SqliteStore};
    use jit_ledger::Store as _;
    use jit_ledger_contract::{Harness as _, active, check_log, insert, lease_at, settled};

    fn nothing_else_is_in(folder: &Path, files: &[&str]) {
        let mut found: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, files);
    }

    async fn backed_up(file: &StoreFile, to: &Path, replace: bool) -> Result<(Report, u64), BackupError> {
        let backup = Backup::copy(&file.path(), to, replace).await?;
        let report = backup.check(&file.verifier(), |_| ()).await?;
        Ok((report, backup.keep()?))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_store_that_is_written_to_is_copied_whole() {
        let (file, folder) = (StoreFile::new(), tempfile::tempdir().unwrap());
        let store = file.open().await;
        let to = folder.path().join("copy.db");
        let writing = {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move {
                for second in 0..200 {
                    let lease = lease_at(second);
                    store.commit(insert(&lease)).await.unwrap();
                    store.commit(settled(&active(&lease))).await.unwrap();
                }
            })
        };
        while *store.log_size().borrow() < 20 {
            tokio::task::yield_now().await;
        }
        let (report, size) = backed_up(&file, &to, false).await.unwrap();
        writing.await.unwrap();
        assert!(report.records >= 20, "{report:?}");
        let found = std::fs::metadata(&to).unwrap();
        assert_eq!((found.len(), found.permissions().mode() & 0o777), (size, 0o600));
        nothing_else_is_in(folder.path(), &["copy.db"]);
        // A later one takes its place only where that is asked for.
        assert!(matches!(backed_up(&file, &to, false).await, Err(BackupError::Exists(_))));
        assert_eq!(backed_up(&file, &to, true).await.unwrap().0.records, 200);
        file.close(store).await;

        let SqliteOptions { signer, origin, .. } = file.options();
        let restored = SqliteStore::open(SqliteOptions { path: to, signer, origin }).await.unwrap();
        assert_eq!(check_log(&restored, &file.verifier()).await, 200);
        assert_eq!(restored.makers().await.unwrap()[0].leases, 200);
        restored.close().await;
    }

    #[tokio::test]
    async fn what_would_not_serve_is_no_backup() {
        let (file, folder) = (StoreFile::new(), tempfile::tempdir().unwrap());
        let to = folder.path().join("copy.db");
        assert!(matches!(backed_up(&file, &to, false).await, Err(BackupError::File { .. })), "there is no store");
        let store = file.open().await;
        for second in 0..3 {
            let lease = lease_at(second);
            store.commit(insert(&lease)).await.unwrap();
            store.commit(settled(&active(&lease))).await.unwrap();
        }
        file.close(store).await;
        let other = StoreFile::new();
        let copied = Backup::copy(&file.path(), &to, false).await.unwrap();
        assert!(matches!(Backup::copy(&file.path(), &to, false).await, Err(BackupError::AtWork(_))));
        assert!(matches!(copied.check(&other.verifier(), |_| ()).await, Err(BackupError::Log(_))), "another key");
        drop(copied);
        let change = "DROP TRIGGER audit_changes_nothing; UPDATE audit SET record = replace(record, 'shop', 'shoq') \
                      WHERE seq = 1";
        tamper(&file.path(), change).await;
        let refused = backed_up(&file, &to, false).await.unwrap_err();
        assert!(matches!(&refused, BackupError::NotAsSigned(what) if what.contains("record 1")), "{refused:?}");
        nothing_else_is_in(folder.path(), &[]);
    }
}
