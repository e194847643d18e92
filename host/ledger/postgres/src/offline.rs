//! Reading the audit log in the database, beside running brokers or without one. A standby serves for that too.

use async_trait::async_trait;
use jit_ledger::audit::sources::{Found as FoundRecord, Kept, LogReader, LogSource, PAGE, ReadError, Tail};
use jit_ledger::columns::records;
use jit_tlog::merkle::CompactRange;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Executor as _, Row as _};

use crate::log::{self, FRONTIER, HeadError, LogError};
use crate::schema::{self, SchemaError, VERSION};
use crate::servers::{ConnectError, Place, Purpose, Servers};

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// No server can be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Not a store, or one of a newer release.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// There is nothing yet.
    #[error("the database has no store in it yet: `serve` makes it")]
    Empty,
    /// What the store says of its archive is unreadable.
    #[error(transparent)]
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

impl From<HeadError> for OfflineError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Log(error) => Self::Log(error),
            HeadError::Database(error) => Self::Database(error),
        }
    }
}

/// The audit log in a database. It is only read, and brokers may be running.
#[derive(Debug, Clone)]
pub struct PgLog {
    place: Place,
}

impl PgLog {
    /// The log in that database.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self { place }
    }
}

/// What a database says of the store in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The version of its tables; none where there are none yet.
    pub version: Option<String>,
    /// The version that this release writes: older tables are brought up to it when the store is opened for serving.
    pub latest: String,
    /// How many records its log has.
    pub records: u64,
}

/// Looks at a store and changes nothing; brokers may be running.
///
/// # Errors
/// When it cannot be read, or is not a store of this release or an older one.
pub async fn look(place: Place) -> Result<Found, OfflineError> {
    let mut connection = Servers::new(place)?.connect(Purpose::Read).await?;
    let version = schema::check(&mut connection).await?;
    let records = match version {
        None => 0,
        Some(_) => PgReader { connection, after: i64::MIN }.end().await?.records,
    };
    Ok(Found { version: version.map(|version| version.to_string()), latest: VERSION.to_string(), records })
}

#[async_trait]
impl LogSource for PgLog {
    async fn open(&self) -> Result<Box<dyn LogReader>, ReadError> {
        let opened = async {
            let mut connection = Servers::new(self.place.clone())?.connect(Purpose::Read).await?;
            schema::check(&mut connection).await?.ok_or(OfflineError::Empty)?;
            // One state for all that is read, also while brokers write. The reader may take its time between two
            // pages.
            let begin =
                "SET idle_in_transaction_session_timeout = '10min'; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
            connection.execute(sqlx::raw_sql(begin)).await?;
            Ok::<_, OfflineError>(connection)
        };
        Ok(Box::new(PgReader { connection: opened.await?, after: i64::MIN }))
    }
}

struct PgReader {
    connection: PgConnection,
    after: i64,
}

impl PgReader {
    async fn archived(&mut self) -> Result<CompactRange, OfflineError> {
        let row = sqlx::query(FRONTIER).fetch_optional(&mut self.connection).await?;
        Ok(log::frontier(row.as_ref())?)
    }

    async fn end(&mut self) -> Result<Tail, OfflineError> {
        let statement = "SELECT (SELECT note FROM jit_broker.head), (SELECT max(seq) FROM jit_broker.audit)";
        let row = sqlx::query(statement).fetch_one(&mut self.connection).await?;
        let last: Option<i64> = row.try_get(1)?;
        let records = records(last, self.archived().await?.size());
        Ok(Tail { note: row.try_get(0)?, records })
    }

    async fn kept(&mut self, after: i64) -> Result<Vec<Kept>, OfflineError> {
        let statement = "SELECT size, note FROM jit_broker.checkpoint_history WHERE size > $1 ORDER BY size LIMIT 1000";
        let rows = sqlx::query(statement).bind(after).fetch_all(&mut self.connection).await?;
        let kept = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(kept).collect()
    }

    async fn records(&mut self, most: u64) -> Result<Vec<FoundRecord>, OfflineError> {
        let statement = "SELECT seq, record, leaf FROM jit_broker.audit WHERE seq > $1 ORDER BY seq LIMIT $2";
        let limit = i64::try_from(most.min(PAGE)).unwrap_or(1);
        let rows = sqlx::query(statement).bind(self.after).bind(limit).fetch_all(&mut self.connection).await?;
        let mut page = Vec::with_capacity(rows.len());
        for row in rows {
            let seq: i64 = row.try_get(0)?;
            self.after = seq;
            let record: String = row.try_get(1)?;
            page.push(FoundRecord { row: Some(seq), record: record.into_bytes(), leaf: Some(row.try_get(2)?) });
        }
        Ok(page)
    }
}

#[async_trait]
impl LogReader for PgReader {
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
