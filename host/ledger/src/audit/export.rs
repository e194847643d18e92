//! The export of the audit log as JSON lines, for a SIEM's collector: a follower that reads the
//! store and adds to a file, byte for byte the records that were hashed.
//!
//! It never holds up the store: it reads like any other reader, and a file that fails or hangs is
//! tried again while the log goes on. Each record is written once, also over kill -9: the file's
//! last line is the cursor. To rotate, move the file away: lines go on in a new one, where the old
//! one ended. Beside the file, `<path>.checkpoint` is the newest signed checkpoint that the lines
//! reach, so that `jit-broker audit verify` needs nothing else.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jit_tlog::checkpoint::{Checkpoint, NoteError};

use super::export_file::{Cursor, ExportFile};
use crate::{Store, StoreError};

/// What is exported where.
#[derive(Debug, Clone)]
pub struct JsonlOptions {
    /// The file; its folder exists. Made with mode 0600.
    pub path: PathBuf,
    /// Records that are read and written at once, `1..=1000`.
    pub batch: usize,
    /// A round is made at least so often, also when nothing woke it.
    pub interval: Duration,
}

impl JsonlOptions {
    /// The usual: 500 records at once, a round each 5 s.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), batch: 500, interval: Duration::from_secs(5) }
    }
}

/// Why a round failed. The next one begins anew from the file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file system said no.
    #[error("the export's file")]
    File(#[from] io::Error),
    /// The store said no.
    #[error("the store")]
    Store(#[from] StoreError),
    /// The store's checkpoint is none.
    #[error("the store's checkpoint")]
    Checkpoint(#[from] NoteError),
    /// The file's last line is not what the store has there: the file is of another log, or the
    /// store was set back.
    #[error(
        "the export ends with a record {0} that the store does not have: the file belongs to another log, or one of the two was changed or rolled back; move the file away"
    )]
    OtherLog(u64),
    /// The store has a gap.
    #[error("the store has no record {0}: run `jit-broker audit verify`")]
    Gap(u64),
}

/// The follower: its file, once opened, and where it goes on.
#[derive(Debug)]
pub struct JsonlExport {
    options: JsonlOptions,
    file: Option<ExportFile>,
    next: u64,
    /// The size of the checkpoint that was written last.
    checkpoint: Option<u64>,
}

impl JsonlExport {
    /// A follower that has not begun.
    #[must_use]
    pub fn new(options: JsonlOptions) -> Self {
        Self { options, file: None, next: 0, checkpoint: None }
    }

    /// The number of the record that comes next; 0 before the first round.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Brings the file up to the store's newest checkpoint, and the checkpoint beside it. It has to
    /// be awaited to its end: where it is dropped, a thread may still write to the file.
    ///
    /// # Errors
    /// [`ExportError`]; the next round then begins from what is in the file.
    pub async fn round(&mut self, store: &dyn Store) -> Result<(), ExportError> {
        // Taken out: a round that fails leaves none, and the next one opens the file and finds its end.
        let mut file = match self.file.take() {
            Some(file) if file.is_in_place() => file,
            moved => self.open(store, moved.is_some()).await?,
        };
        let Some(note) = store.checkpoint().await? else {
            self.file = Some(file);
            return Ok(());
        };
        let size = Checkpoint::read_unverified(&note)?.size;
        if self.next > size {
            return Err(ExportError::OtherLog(self.next - 1));
        }
        while self.next < size {
            let wanted =
                usize::try_from(size - self.next).unwrap_or(usize::MAX).min(self.options.batch.clamp(1, 1_000));
            let records = store.records(self.next, wanted).await?;
            let mut lines = String::new();
            let first = self.next;
            for (record, seq) in records.iter().zip(first..) {
                if record.seq != seq {
                    return Err(ExportError::Gap(seq));
                }
                lines.push_str(&record.json);
                lines.push('\n');
            }
            if records.is_empty() {
                return Err(ExportError::Gap(first));
            }
            file = blocking(move || file.append(lines.as_bytes()).map(|()| file)).await?;
            self.next = first + records.len() as u64;
        }
        if self.checkpoint != Some(size) {
            file = blocking(move || file.put_checkpoint(&note).map(|()| file)).await?;
            self.checkpoint = Some(size);
        }
        self.file = Some(file);
        Ok(())
    }

    /// Opens the file and checks that it is an export of this log.
    async fn open(&mut self, store: &dyn Store, moved_away: bool) -> Result<ExportFile, ExportError> {
        let path = self.options.path.clone();
        let (file, cursor) = blocking(move || ExportFile::open(&path)).await?;
        self.checkpoint = None;
        match cursor {
            Cursor { next, last: Some(line) } => {
                let seq = next - 1;
                let there = store.records(seq, 1).await?;
                if there.first().is_none_or(|record| record.seq != seq || record.json != line) {
                    return Err(ExportError::OtherLog(seq));
                }
                self.next = next;
            }
            // A new file in the place of one that was moved away goes on where that one ended.
            Cursor { .. } if moved_away => {}
            // What was archived before this export began is in the archive.
            Cursor { next, last: None } => self.next = next.max(store.frontier().await?.size()),
        }
        Ok(file)
    }
}

/// Work on a file, on a thread that may hang with it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
