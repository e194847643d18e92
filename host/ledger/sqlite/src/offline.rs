//! Reading the audit log in the store's file, beside a running broker or without one.

use std::fs::File;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jit_ledger::audit::sources::{Found as FoundRecord, Kept, LogReader, LogSource, PAGE, ReadError, Tail};
use jit_ledger::columns::records;
use jit_tlog::merkle::CompactRange;
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions as _, Row as _};

use crate::log::{self, LogError};
use crate::schema::{self, SchemaError};

/// Why the file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// Not a store, or one of a newer release.
    #[error("the store")]
    Schema(#[from] SchemaError),
    /// The write-ahead log has records that cannot be read here.
    #[error(
        "the write-ahead log of {} cannot be read here: copy the file together with its -wal to a folder \
         that can be written to", .0.display()
    )]
    WriteAheadLog(PathBuf),
    /// What the store says of its archive is unreadable.
    #[error("the store")]
    Log(#[from] LogError),
    /// The database said no.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl From<OfflineError> for ReadError {
    fn from(error: OfflineError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// The audit log in a store's file. The file is only read, and the broker may be running.
#[derive(Debug, Clone)]
pub struct SqliteLog {
    path: PathBuf,
}

impl SqliteLog {
    /// The log in that file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

/// What a store's file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The version of its tables; 0 where it has none yet.
    pub version: i64,
    /// The version that this release writes: an older file is brought up to it when it is opened for serving.
    pub latest: i64,
    /// How many records its log has.
    pub records: u64,
}

/// Looks at a store's file and changes nothing; the broker may be running.
///
/// # Errors
/// When it cannot be read, or is not a store of this release or an older one.
pub async fn look(path: &Path) -> Result<Found, ReadError> {
    let mut connection = open_database(path).await?;
    let version = schema::check(&mut connection).await.map_err(OfflineError::from)?;
    let mut reader = SqliteReader { connection, after: i64::MIN };
    let records = if version == 0 { 0 } else { reader.tail().await?.records };
    Ok(Found { version, latest: schema::VERSION, records })
}

#[async_trait]
impl LogSource for SqliteLog {
    async fn open(&self) -> Result<Box<dyn LogReader>, ReadError> {
        Ok(Box::new(SqliteReader { connection: open_database(&self.path).await?, after: i64::MIN }))
    }
}

struct SqliteReader {
    connection: SqliteConnection,
    after: i64,
}

impl SqliteReader {
    async fn archived(&mut self) -> Result<CompactRange, OfflineError> {
        let statement = "SELECT count(*) FROM sqlite_schema WHERE name = 'archived'";
        let known: i64 = sqlx::query_scalar(statement).fetch_one(&mut self.connection).await?;
        // An earlier release had no archives.
        if known == 0 { Ok(CompactRange::new()) } else { Ok(log::frontier(&mut self.connection).await?) }
    }

    async fn end(&mut self) -> Result<Tail, OfflineError> {
        // One statement sees one state, also while the broker writes.
        let statement = "SELECT (SELECT CAST(note AS BLOB) FROM checkpoint), (SELECT max(seq) FROM audit)";
        let row = sqlx::query(statement).fetch_one(&mut self.connection).await?;
        let note: Option<Vec<u8>> = row.try_get(0)?;
        let last: Option<i64> = row.try_get(1)?;
        let records = records(last, self.archived().await?.size());
        Ok(Tail { note: note.map(|note| String::from_utf8_lossy(&note).into_owned()), records })
    }

    async fn kept(&mut self, after: i64) -> Result<Vec<Kept>, OfflineError> {
        let statement =
            "SELECT size, CAST(note AS BLOB) FROM checkpoint_history WHERE size > ? ORDER BY size LIMIT 1000";
        let rows = sqlx::query(statement).bind(after).fetch_all(&mut self.connection).await?;
        let kept = |row: sqlx::sqlite::SqliteRow| {
            Ok((row.try_get(0)?, String::from_utf8_lossy(&row.try_get::<Vec<u8>, _>(1)?).into_owned()))
        };
        rows.into_iter().map(kept).collect()
    }

    async fn records(&mut self, most: u64) -> Result<Vec<FoundRecord>, OfflineError> {
        // As bytes: what was tampered with need not be text.
        let statement = "SELECT seq, CAST(record AS BLOB), leaf FROM audit WHERE seq > ? ORDER BY seq LIMIT ?";
        let limit = i64::try_from(most.min(PAGE)).unwrap_or(1);
        let rows = sqlx::query(statement).bind(self.after).bind(limit).fetch_all(&mut self.connection).await?;
        let mut page = Vec::with_capacity(rows.len());
        for row in rows {
            let seq: i64 = row.try_get(0)?;
            self.after = seq;
            page.push(FoundRecord { row: Some(seq), record: row.try_get(1)?, leaf: Some(row.try_get(2)?) });
        }
        Ok(page)
    }
}

#[async_trait]
impl LogReader for SqliteReader {
    async fn frontier(&mut self) -> Result<CompactRange, ReadError> {
        Ok(self.archived().await?)
    }

    async fn tail(&mut self) -> Result<Tail, ReadError> {
        Ok(self.end().await?)
    }

    async fn history(&mut self, after: i64) -> Result<Vec<Kept>, ReadError> {
        Ok(self.kept(after).await?)
    }

    async fn page(&mut self, most: u64) -> Result<Vec<FoundRecord>, ReadError> {
        Ok(self.records(most).await?)
    }
}

/// Opens the database without changing it: with its write-ahead log where there is one, as
/// immutable where there is none and the folder cannot be written to (an archive, a CD).
async fn open_database(path: &Path) -> Result<SqliteConnection, ReadError> {
    File::open(path).map_err(|source| ReadError::File { path: path.to_owned(), source })?;
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
        SchemaError::Database(error) => {
            let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
            code.is_some_and(|code| matches!(code & 0xff, 8 | 14))
        }
        _ => false,
    };
    match (cannot_open, pending) {
        (false, _) => Err(OfflineError::from(error).into()),
        (true, true) => Err(OfflineError::WriteAheadLog(path.to_owned()).into()),
        (true, false) => {
            let immutable = async {
                let mut connection = options.immutable(true).connect().await?;
                schema::check(&mut connection).await?;
                Ok::<_, OfflineError>(connection)
            };
            Ok(immutable.await?)
        }
    }
}
