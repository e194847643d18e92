//! Where verification reads from: the database, or an export and its checkpoint. Both only read,
//! page by page, and both may be written to meanwhile: the log only grows.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use jit_tlog::checkpoint::MAX_NOTE;
use jit_tlog::merkle::CompactRange;
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions as _, Row as _};

use super::export_file::{MAX_LINE, checkpoint_path};
use super::scan::Found;
use super::verify::{Source, VerifyError};
use crate::store::{log, schema};

/// Records of one page.
const PAGE: u64 = 1_000;

/// A checkpoint of the history: the size it is filed under, and the signed note.
pub(super) type Kept = (i64, String);

/// The end of the log, seen at one moment.
pub(crate) struct Tail {
    /// The newest checkpoint.
    pub(super) note: Option<String>,
    /// How many records there are, as far as that can be told without reading them.
    pub(crate) records: u64,
}

/// An open source.
pub(crate) enum Reader {
    Database { connection: SqliteConnection, after: i64 },
    Export { records: PathBuf, checkpoint: PathBuf, lines: Lines, read: u64 },
}

impl Reader {
    pub(crate) async fn open(source: &Source) -> Result<Self, VerifyError> {
        match source {
            Source::Database(path) => Ok(Self::Database { connection: open_database(path).await?, after: i64::MIN }),
            Source::Export { records, checkpoint } => {
                let checkpoint = checkpoint.clone().unwrap_or_else(|| checkpoint_path(records));
                let lines = Lines::open(records)?;
                Ok(Self::Export { records: records.clone(), checkpoint, lines, read: 0 })
            }
        }
    }

    /// The tree over the records that are in an archive; without any, one without leaves.
    pub(super) async fn frontier(&mut self) -> Result<CompactRange, VerifyError> {
        let Self::Database { connection, .. } = self else { return Ok(CompactRange::new()) };
        let statement = "SELECT count(*) FROM sqlite_schema WHERE name = 'archived'";
        let known: i64 = sqlx::query_scalar(statement).fetch_one(&mut *connection).await?;
        // An earlier release had no archives.
        if known == 0 { Ok(CompactRange::new()) } else { Ok(log::frontier(connection).await?) }
    }

    /// The newest checkpoint and the number of records.
    pub(crate) async fn tail(&mut self) -> Result<Tail, VerifyError> {
        match self {
            Self::Database { connection, .. } => {
                // One statement sees one state, also while the broker writes.
                let statement = "SELECT (SELECT CAST(note AS BLOB) FROM checkpoint), (SELECT max(seq) FROM audit)";
                let row = sqlx::query(statement).fetch_one(connection).await?;
                let note: Option<Vec<u8>> = row.try_get(0)?;
                let last: Option<i64> = row.try_get(1)?;
                let records = last.map_or(0, |last| u64::try_from(last).map_or(0, |last| last.saturating_add(1)));
                let records = records.max(self.frontier().await?.size());
                Ok(Tail { note: note.map(|note| String::from_utf8_lossy(&note).into_owned()), records })
            }
            Self::Export { checkpoint, lines, read, .. } => {
                let note = read_note(checkpoint)?;
                let more = lines.peek()?;
                Ok(Tail { note, records: *read + u64::from(more) })
            }
        }
    }

    /// Checkpoints of the history with a larger size than `after`, the smallest first.
    pub(super) async fn history(&mut self, after: i64) -> Result<Vec<Kept>, VerifyError> {
        let Self::Database { connection, .. } = self else { return Ok(Vec::new()) };
        let statement =
            "SELECT size, CAST(note AS BLOB) FROM checkpoint_history WHERE size > ? ORDER BY size LIMIT 1000";
        let rows = sqlx::query(statement).bind(after).fetch_all(connection).await?;
        let kept = |row: sqlx::sqlite::SqliteRow| {
            Ok((row.try_get(0)?, String::from_utf8_lossy(&row.try_get::<Vec<u8>, _>(1)?).into_owned()))
        };
        rows.into_iter().map(kept).collect()
    }

    /// The next records, at most `most`; none at the end.
    pub(crate) async fn page(&mut self, most: u64) -> Result<Vec<Found>, VerifyError> {
        let most = most.min(PAGE);
        match self {
            Self::Database { connection, after } => {
                // As bytes: what was tampered with need not be text.
                let statement = "SELECT seq, CAST(record AS BLOB), leaf FROM audit WHERE seq > ? ORDER BY seq LIMIT ?";
                let limit = i64::try_from(most).unwrap_or(1);
                let rows = sqlx::query(statement).bind(*after).bind(limit).fetch_all(connection).await?;
                let mut page = Vec::with_capacity(rows.len());
                for row in rows {
                    let seq: i64 = row.try_get(0)?;
                    *after = seq;
                    page.push(Found { row: Some(seq), record: row.try_get(1)?, leaf: Some(row.try_get(2)?) });
                }
                Ok(page)
            }
            Self::Export { lines, read, .. } => {
                let mut page = Vec::new();
                while (page.len() as u64) < most {
                    let Some(record) = lines.next()? else { break };
                    page.push(Found { row: None, record, leaf: None });
                }
                *read += page.len() as u64;
                Ok(page)
            }
        }
    }

    /// Whether an export has a record with that number anywhere: then it was moved, not removed.
    pub(super) fn has_elsewhere(&self, seq: u64) -> Result<bool, VerifyError> {
        let Self::Export { records, .. } = self else { return Ok(false) };
        let mut lines = Lines::open(records)?;
        while let Some(record) = lines.next()? {
            if (Found { row: None, record, leaf: None }).says() == Some(seq) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Opens the database without changing it: with its write-ahead log where there is one, as
/// immutable where there is none and the folder cannot be written to (an archive, a CD).
async fn open_database(path: &Path) -> Result<SqliteConnection, VerifyError> {
    File::open(path).map_err(|source| VerifyError::File { path: path.to_owned(), source })?;
    let options = schema::reading(path);
    let opened = async {
        let mut connection = options.clone().connect().await?;
        schema::check(&mut connection).await.map(|_| connection)
    };
    let error = match opened.await {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    let mut side = path.as_os_str().to_owned();
    side.push("-wal");
    let pending = std::fs::metadata(PathBuf::from(side)).is_ok_and(|side| side.len() > 0);
    // SQLITE_READONLY (8) and SQLITE_CANTOPEN (14), in whatever variant.
    let cannot_open = match &error {
        schema::SchemaError::Database(error) => {
            let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
            code.is_some_and(|code| matches!(code & 0xff, 8 | 14))
        }
        _ => false,
    };
    match (cannot_open, pending) {
        (false, _) => Err(error.into()),
        (true, true) => Err(VerifyError::WriteAheadLog(path.to_owned())),
        (true, false) => {
            let mut connection = options.immutable(true).connect().await?;
            schema::check(&mut connection).await?;
            Ok(connection)
        }
    }
}

pub(super) fn read_note(path: &Path) -> Result<Option<String>, VerifyError> {
    let failed = |source| VerifyError::File { path: path.to_owned(), source };
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
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    waiting: VecDeque<Vec<u8>>,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, VerifyError> {
        let file = File::open(path).map_err(|source| VerifyError::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), reader: BufReader::with_capacity(256 * 1024, file), waiting: VecDeque::new() })
    }

    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, VerifyError> {
        if let Some(line) = self.waiting.pop_front() {
            return Ok(Some(line));
        }
        let failed = |source| VerifyError::File { path: self.path.clone(), source };
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

    fn peek(&mut self) -> Result<bool, VerifyError> {
        if self.waiting.is_empty()
            && let Some(line) = self.next()?
        {
            self.waiting.push_back(line);
        }
        Ok(!self.waiting.is_empty())
    }
}
