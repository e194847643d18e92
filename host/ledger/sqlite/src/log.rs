//! The writer's side of the audit log: what it must remember to go on, and how it is read back.

use jiff::Timestamp;
use jit_tlog::checkpoint::{Checkpoint, LogKey, NoteError, Origin, VerifierKey};
use jit_tlog::merkle::CompactRange;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use jit_ledger::columns::{nanos, nodes_of, range_of};

/// The least time between two checkpoints that the history keeps, in nanoseconds.
const HISTORY_INTERVAL: i64 = 60 * 1_000_000_000;

/// Why the audit log cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The last checkpoint is not by this key, or was altered.
    #[error(
        "the audit log's last checkpoint does not verify with the configured signing key: \
         is it the key that the log was begun with? `jit-broker audit verify` says more"
    )]
    Checkpoint(#[from] NoteError),
    /// The records and the last checkpoint do not belong together.
    #[error("the audit log was changed from outside ({0}): run `jit-broker audit verify`")]
    Changed(&'static str),
    /// The database said no.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// The tree over the records that were archived.
pub(crate) async fn frontier(connection: &mut SqliteConnection) -> Result<CompactRange, LogError> {
    let row = sqlx::query("SELECT size, nodes FROM archived").fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(CompactRange::new()) };
    let (size, nodes): (i64, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
    range_of(size, &nodes).ok_or(LogError::Changed("the tree over its archived records is unreadable"))
}

/// The log as of the last commit.
#[derive(Debug, Clone)]
pub(super) struct LogState {
    /// The tree over all records.
    pub(super) range: CompactRange,
    /// When the last checkpoint of the history was kept, in nanoseconds since the epoch.
    history_at: i64,
    /// Its size.
    history_size: u64,
}

/// What is written of the log in one transaction.
pub(super) struct Signed {
    pub(super) size: i64,
    pub(super) note: String,
    pub(super) nodes: Vec<u8>,
    /// When the history gets this checkpoint too: now.
    pub(super) history_at: Option<i64>,
}

impl LogState {
    /// Reads it back and checks, without reading the records, that the last signed checkpoint is
    /// over exactly the tree that is remembered and as many records as there are.
    pub(super) async fn load(connection: &mut SqliteConnection, verifier: &VerifierKey) -> Result<Self, LogError> {
        let archived = i64::try_from(frontier(connection).await?.size()).unwrap_or(i64::MAX);
        let last: Option<i64> = sqlx::query_scalar("SELECT max(seq) FROM audit").fetch_one(&mut *connection).await?;
        let records = last.map_or(0, |last| last.saturating_add(1)).max(archived);
        let row = sqlx::query("SELECT size, note, nodes FROM checkpoint").fetch_optional(&mut *connection).await?;
        let range = match row {
            None if records == 0 => CompactRange::new(),
            None => return Err(LogError::Changed("its checkpoint is missing")),
            Some(row) => {
                let (size, note): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
                let nodes: Vec<u8> = row.try_get(2)?;
                let checkpoint = verifier.open(&note)?;
                if size != records || i64::try_from(checkpoint.size) != Ok(size) {
                    return Err(LogError::Changed("it has more or fewer records than its checkpoint says"));
                }
                range_of(size, &nodes)
                    .filter(|range| range.root() == checkpoint.root)
                    .ok_or(LogError::Changed("its remembered tree is not the signed one"))?
            }
        };
        let history = sqlx::query("SELECT size, taken_at FROM checkpoint_history ORDER BY size DESC LIMIT 1")
            .fetch_optional(&mut *connection)
            .await?;
        let (history_size, history_at) = match history {
            None => (0, 0),
            Some(row) => (row.try_get(0)?, row.try_get(1)?),
        };
        Ok(Self { range, history_at, history_size: u64::try_from(history_size).unwrap_or(0) })
    }

    /// Signs the log as it stands here.
    pub(super) fn sign(&mut self, key: &LogKey, origin: &Origin, now: Timestamp) -> Signed {
        let size = self.range.size();
        let note = key.sign(&Checkpoint { origin: origin.clone(), size, root: self.range.root() });
        let nodes = nodes_of(&self.range);
        let now = nanos(now);
        let due = now.saturating_sub(self.history_at) >= HISTORY_INTERVAL;
        let history_at = due.then(|| {
            self.history_at = now;
            self.history_size = size;
            now
        });
        Signed { size: i64::try_from(size).unwrap_or(i64::MAX), note, nodes, history_at }
    }

    /// Whether the history lacks the log's last checkpoint.
    pub(super) fn history_lags(&self) -> bool {
        self.history_size < self.range.size()
    }
}
