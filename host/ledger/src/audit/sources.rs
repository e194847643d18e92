//! Where a log is read from without the broker: a trait that each store implements for its own files, and an
//! export with its checkpoint. A source is only read, page by page, and may be written to meanwhile: the log
//! only grows.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jit_tlog::checkpoint::MAX_NOTE;
use jit_tlog::merkle::CompactRange;
use serde::Deserialize;

use super::export_file::{MAX_LINE, checkpoint_path};

/// Records of one page, at most.
pub const PAGE: u64 = 1_000;

/// A checkpoint of the history: the size it is filed under, and the signed note.
pub type Kept = (i64, String);

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system said no.
    #[error("the file {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The store's files cannot be read; the store's crate says why.
    #[error(transparent)]
    Store(Box<dyn std::error::Error + Send + Sync>),
}

/// A record as it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its number in the database; an exported line has none but its own.
    pub row: Option<i64>,
    /// The record's bytes.
    pub record: Vec<u8>,
    /// The leaf that the database has beside it.
    pub leaf: Option<Vec<u8>>,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl Found {
    /// Its number in the database, as far as it is one.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.row.and_then(|row| u64::try_from(row).ok()).unwrap_or(0)
    }

    /// The number that the record gives itself, if it is a record.
    pub(super) fn says(&self) -> Option<u64> {
        serde_json::from_slice::<Numbered>(&self.record).ok().map(|numbered| numbered.seq)
    }
}

/// The end of the log, seen at one moment.
#[derive(Debug, Clone)]
pub struct Tail {
    /// The newest checkpoint.
    pub note: Option<String>,
    /// How many records there are, as far as that can be told without reading them.
    pub records: u64,
}

/// A log that can be read without the broker.
#[async_trait]
pub trait LogSource: std::fmt::Debug + Send + Sync {
    /// Opens it at its first record.
    async fn open(&self) -> Result<Box<dyn LogReader>, ReadError>;
}

/// An open log.
#[async_trait]
pub trait LogReader: Send {
    /// The tree over the records that are in an archive; without any, one without leaves.
    async fn frontier(&mut self) -> Result<CompactRange, ReadError>;

    /// The newest checkpoint and the number of records.
    async fn tail(&mut self) -> Result<Tail, ReadError>;

    /// Checkpoints of the history with a larger size than `after`, the smallest first; empty at the end.
    async fn history(&mut self, after: i64) -> Result<Vec<Kept>, ReadError>;

    /// The next records, at most `most` and at most [`PAGE`]; empty at the end.
    async fn page(&mut self, most: u64) -> Result<Vec<Found>, ReadError>;

    /// Whether a log without numbered places has a record with that number anywhere: then it was moved, not
    /// removed. Where each place has its number, a record stands in its place or nowhere.
    fn has_elsewhere(&self, _seq: u64) -> Result<bool, ReadError> {
        Ok(false)
    }
}

/// An export as JSON lines, with its checkpoint beside it.
#[derive(Debug, Clone)]
pub struct ExportSource {
    /// The lines.
    pub records: PathBuf,
    /// The checkpoint; `None` means `<records>.checkpoint`, where the export writes it.
    pub checkpoint: Option<PathBuf>,
}

#[async_trait]
impl LogSource for ExportSource {
    async fn open(&self) -> Result<Box<dyn LogReader>, ReadError> {
        let checkpoint = self.checkpoint.clone().unwrap_or_else(|| checkpoint_path(&self.records));
        let lines = Lines::open(&self.records)?;
        Ok(Box::new(ExportReader { records: self.records.clone(), checkpoint, lines, read: 0 }))
    }
}

struct ExportReader {
    records: PathBuf,
    checkpoint: PathBuf,
    lines: Lines,
    read: u64,
}

#[async_trait]
impl LogReader for ExportReader {
    async fn frontier(&mut self) -> Result<CompactRange, ReadError> {
        Ok(CompactRange::new())
    }

    async fn tail(&mut self) -> Result<Tail, ReadError> {
        let note = read_note(&self.checkpoint)?;
        let more = self.lines.peek()?;
        Ok(Tail { note, records: self.read + u64::from(more) })
    }

    async fn history(&mut self, _after: i64) -> Result<Vec<Kept>, ReadError> {
        Ok(Vec::new())
    }

    async fn page(&mut self, most: u64) -> Result<Vec<Found>, ReadError> {
        let mut page = Vec::new();
        while (page.len() as u64) < most.min(PAGE) {
            let Some(record) = self.lines.next()? else { break };
            page.push(Found { row: None, record, leaf: None });
        }
        self.read += page.len() as u64;
        Ok(page)
    }

    fn has_elsewhere(&self, seq: u64) -> Result<bool, ReadError> {
        let mut lines = Lines::open(&self.records)?;
        while let Some(record) = lines.next()? {
            if (Found { row: None, record, leaf: None }).says() == Some(seq) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

pub(super) fn read_note(path: &Path) -> Result<Option<String>, ReadError> {
    let failed = |source| ReadError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut note = Vec::new();
    // One byte more than is allowed, so that a longer file is refused and not cut.
    file.take(MAX_NOTE as u64 + 1).read_to_end(&mut note).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&note).into_owned()))
}

/// The complete lines of an export. A last line without its newline is one that is being written.
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    waiting: VecDeque<Vec<u8>>,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|source| ReadError::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), reader: BufReader::with_capacity(256 * 1024, file), waiting: VecDeque::new() })
    }

    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        if let Some(line) = self.waiting.pop_front() {
            return Ok(Some(line));
        }
        let failed = |source| ReadError::File { path: self.path.clone(), source };
        let mut line = Vec::new();
        (&mut self.reader).take(MAX_LINE as u64).read_until(b'\n', &mut line).map_err(failed)?;
        if line.pop_if(|last| *last == b'\n').is_some() {
            return Ok(Some(line));
        }
        if line.len() >= MAX_LINE {
            return Err(failed(io::Error::other("a line is too long for an audit record")));
        }
        // Read it again from its beginning when it is complete.
        let back = i64::try_from(line.len()).unwrap_or(0);
        self.reader.seek_relative(-back).map_err(failed)?;
        Ok(None)
    }

    /// How many bytes follow the last complete line.
    pub(super) fn torn(&mut self) -> Result<u64, ReadError> {
        let failed = |source| ReadError::File { path: self.path.clone(), source };
        let at = self.reader.stream_position().map_err(failed)?;
        Ok(self.reader.get_ref().metadata().map_err(failed)?.len().saturating_sub(at))
    }

    fn peek(&mut self) -> Result<bool, ReadError> {
        if self.waiting.is_empty()
            && let Some(line) = self.next()?
        {
            self.waiting.push_back(line);
        }
        Ok(!self.waiting.is_empty())
    }
}
