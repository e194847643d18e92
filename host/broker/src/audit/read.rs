//! Reading records from the store's file, beside a running broker or without one.

use std::path::Path;

use sqlx::{Connection as _, SqliteConnection};

use crate::store::StoredRecord;
use crate::store::schema;

/// The records of a database file, in order, a page at a time.
pub struct Records {
    connection: SqliteConnection,
    next: u64,
}

impl Records {
    /// Opens the file for reading only, from record `from` on.
    ///
    /// # Errors
    /// When the file is not a store of this version.
    pub async fn open(path: &Path, from: u64) -> anyhow::Result<Self> {
        let mut connection = SqliteConnection::connect_with(&schema::reading(path)).await?;
        schema::check(&mut connection).await?;
        Ok(Self { connection, next: from })
    }

    /// How many records there are.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn count(&mut self) -> anyhow::Result<u64> {
        let last: Option<i64> =
            sqlx::query_scalar("SELECT max(seq) FROM audit").fetch_one(&mut self.connection).await?;
        Ok(last.map_or(0, |last| u64::try_from(last).unwrap_or(0) + 1))
    }

    /// The newest signed checkpoint.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn checkpoint(&mut self) -> anyhow::Result<Option<String>> {
        Ok(sqlx::query_scalar("SELECT note FROM checkpoint").fetch_optional(&mut self.connection).await?)
    }

    /// The next page; empty at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn page(&mut self) -> anyhow::Result<Vec<StoredRecord>> {
        let from = i64::try_from(self.next).unwrap_or(i64::MAX);
        let rows: Vec<(i64, String)> =
            sqlx::query_as("SELECT seq, record FROM audit WHERE seq >= ? ORDER BY seq LIMIT 500")
                .bind(from)
                .fetch_all(&mut self.connection)
                .await?;
        let page: Vec<StoredRecord> =
            rows.into_iter().map(|(seq, json)| StoredRecord { seq: u64::try_from(seq).unwrap_or(0), json }).collect();
        if let Some(last) = page.last() {
            self.next = last.seq + 1;
        }
        Ok(page)
    }
}
