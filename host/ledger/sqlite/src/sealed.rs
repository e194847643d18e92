//! The sealed table: values that the store keeps and cannot read (the pipeline seals them).

use std::collections::BTreeMap;

use sqlx::sqlite::SqlitePool;

use jit_ledger::columns;
use jit_ledger::{MAX_SEALED_LISTED, SealedWrite, StoreError};

/// One write, ready for the writer.
#[derive(Debug)]
pub(super) struct SealedRow {
    purpose: &'static str,
    name: String,
    /// In hexadecimal; none removes it.
    value: Option<String>,
}

impl SealedRow {
    pub(super) fn new(write: &SealedWrite) -> Result<Self, StoreError> {
        let SealedWrite { purpose, name, value } = write;
        columns::sealed_fits(write)?;
        Ok(Self { purpose, name: name.clone(), value: value.as_ref().map(hex::encode) })
    }

    /// About how many bytes it adds to a transaction.
    pub(super) fn weight(&self) -> usize {
        self.name.len() + self.value.as_ref().map_or(0, String::len)
    }
}

/// What a group writes: of several writes to one name, the last.
#[derive(Default)]
pub(super) struct SealedGroup<'g>(BTreeMap<(&'static str, &'g str), Option<&'g str>>);

impl<'g> SealedGroup<'g> {
    pub(super) fn add(&mut self, rows: &'g [SealedRow]) {
        self.0.extend(rows.iter().map(|row| ((row.purpose, row.name.as_str()), row.value.as_deref())));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `[[purpose, name, value or null], …]`.
    pub(super) fn array(&self) -> String {
        let rows = self.0.iter().map(|((purpose, name), value)| serde_json::json!([purpose, name, value]));
        serde_json::Value::from_iter(rows).to_string()
    }
}

pub(super) async fn one(readers: &SqlitePool, purpose: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let query = sqlx::query_scalar("SELECT value FROM sealed WHERE purpose = ? AND name = ?");
    query.bind(purpose).bind(name).fetch_optional(readers).await.map_err(StoreError::failed)
}

pub(super) async fn all(readers: &SqlitePool, purpose: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let query = sqlx::query_as("SELECT name, value FROM sealed WHERE purpose = ? ORDER BY name LIMIT ?");
    let most = i64::try_from(MAX_SEALED_LISTED).unwrap_or(i64::MAX);
    query.bind(purpose).bind(most).fetch_all(readers).await.map_err(StoreError::failed)
}
