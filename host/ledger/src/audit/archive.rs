//! Closing the log into segments: the oldest records leave the store for files, and the store keeps the tree's
//! frontier, so that it stays bounded and the log stays one log.
//!
//! A segment is two files: `00000000000000000000-00000000000000010000.jsonl` has the records byte for byte as
//! they were hashed, `….jsonl.checkpoint` the signed checkpoint over all records up to its end. It is on the
//! disk before the store lets go of a record, and only if its records are exactly those that were signed. A
//! crash in between leaves a segment whose records the store has too; the next run writes it again.
//!
//! `audit verify` joins the segments and the store ([`super::verify`]).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use jit_core::event::{Archived, AuditEvent, Event};
use jit_tlog::checkpoint::{Checkpoint, NoteError};
use jit_tlog::merkle::{CompactRange, Hash};
use serde::{Deserialize, Serialize};

use super::export_file::checkpoint_path;
use crate::{Change, Frontier, Store, StoreError};

/// A segment has about so many records: the end is at a signed checkpoint, and those are a minute apart.
const SEGMENT: u64 = 10_000;
/// The most segments of one run.
const MOST_SEGMENTS: usize = 1_000;
/// Records read at once.
const PAGE: usize = 500;

/// How far an export is: what it has not written yet is not archived.
#[derive(Debug, Default)]
pub struct Exported(AtomicU64);

impl Exported {
    /// An export that writes this record next.
    #[must_use]
    pub fn at(next: u64) -> Self {
        Self(AtomicU64::new(next))
    }

    /// The next record that it will write.
    pub fn set(&self, next: u64) {
        self.0.store(next, Ordering::Release);
    }

    /// The next record that it will write.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Why records stay in the store.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system said no.
    #[error("the archive {}", path.display())]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The store said no.
    #[error("the store")]
    Store(#[from] StoreError),
    /// A checkpoint of the history cannot be read.
    #[error("a checkpoint of the store")]
    Checkpoint(#[from] NoteError),
    /// The records are not those that were signed.
    #[error("the records up to {0} are not what was signed; nothing was removed: run `jit-broker audit verify`")]
    NotSigned(u64),
}

/// A segment that was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its file.
    pub path: PathBuf,
    /// Its first record.
    pub from: u64,
    /// The record after its last.
    pub to: u64,
    /// The root over all records before `to`, in hexadecimal.
    pub root: String,
}

/// Closes all that is older than `keep` into segments of that folder, but nothing that an export still needs.
/// Each segment is on record in the change that takes it out of the store.
///
/// # Errors
/// [`ArchiveError`]; segments that were closed before stay closed.
pub async fn archive<'e>(
    store: &dyn Store,
    folder: &Path,
    keep: Duration,
    exports: impl IntoIterator<Item = &'e Exported>,
    now: Timestamp,
) -> Result<Vec<Segment>, ArchiveError> {
    // An export checks the last record that it wrote against the store.
    let exported = exports.into_iter().map(Exported::next).min().map_or(u64::MAX, |next| next.saturating_sub(1));
    let before = now.checked_sub(keep).unwrap_or(Timestamp::MIN);
    let mut segments = Vec::new();
    while segments.len() < MOST_SEGMENTS {
        let frontier = store.frontier().await?;
        let ends = store.kept_checkpoints(frontier.size(), before).await?;
        let mut ends = ends.into_iter().filter(|(size, _)| *size <= exported);
        let Some(first) = ends.next() else { break };
        let wanted = frontier.size().saturating_add(SEGMENT);
        let (size, note) = ends.take_while(|(size, _)| *size <= wanted).last().unwrap_or(first);
        segments.push(close(store, folder, frontier, size, &note).await?);
    }
    Ok(segments)
}

async fn close(
    store: &dyn Store,
    folder: &Path,
    frontier: CompactRange,
    to: u64,
    note: &str,
) -> Result<Segment, ArchiveError> {
    let from = frontier.size();
    // The signature is checked where the store is opened and by `audit verify`; here the root is what counts.
    let signed = Checkpoint::read_unverified(note)?;
    let path = folder.join(format!("{from:020}-{to:020}.jsonl"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ArchiveError::File { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
    let draft = path.with_extension("draft");
    let open = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft);
    let mut file = BufWriter::new(open.map_err(failed(&draft))?);
    let mut range = frontier;
    while range.size() < to {
        let wanted = usize::try_from(to - range.size()).unwrap_or(PAGE).min(PAGE);
        let records = store.records(range.size(), wanted).await?;
        if records.is_empty() {
            return Err(ArchiveError::NotSigned(to));
        }
        let mut lines = String::new();
        for record in records {
            if record.seq != range.size() {
                return Err(ArchiveError::NotSigned(to));
            }
            range.push(Hash::of_leaf(record.json.as_bytes()));
            lines.push_str(&record.json);
            lines.push('\n');
        }
        file.write_all(lines.as_bytes()).map_err(failed(&draft))?;
    }
    if signed.size != to || range.root() != signed.root {
        return Err(ArchiveError::NotSigned(to));
    }
    let file = file.into_inner().map_err(|error| failed(&draft)(error.into_error()))?;
    file.sync_all().map_err(failed(&draft))?;
    put(&checkpoint_path(&path), note.as_bytes()).map_err(failed(&checkpoint_path(&path)))?;
    std::fs::rename(&draft, &path).map_err(failed(&path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
    let segment = Segment { path, from, to, root: range.root().to_string() };
    let archived = Archived { from, to, root: segment.root.clone(), file: segment.path.display().to_string() };
    let event = AuditEvent::new(Event::LogArchived(archived), Timestamp::now());
    store.commit(Change { archived: Some(Frontier(range)), ..Change::record(event) }).await?;
    tracing::info!(from, to, file = %segment.path.display(), "audit records were archived");
    Ok(segment)
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A file of a segment, by its name.
#[derive(Debug, Clone)]
pub struct Named {
    /// The file.
    pub path: PathBuf,
    /// Its first record.
    pub from: u64,
    /// The record after its last.
    pub to: u64,
}

/// The segments of a folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn segments(folder: &Path) -> io::Result<Vec<Named>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some((from, to)) = name.strip_suffix(".jsonl").and_then(|name| name.split_once('-')) else { continue };
        if let (Ok(from), Ok(to)) = (from.parse(), to.parse()) {
            found.push(Named { path, from, to });
        }
    }
    Ok(found)
}
