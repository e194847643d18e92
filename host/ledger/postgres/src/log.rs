//! The audit log's head: one row that all brokers move in turn. A transaction that adds records locks it,
//! checks that a broker signed its tree, and signs the tree with the new records. Somebody else may have changed the
//! head: without a good signature nothing is written.

use jiff::Timestamp;
use jit_ledger::columns::{nanos, nodes_of, range_of};
use jit_tlog::checkpoint::{Checkpoint, LogKey, NoteError, Origin, VerifierKey};
use jit_tlog::merkle::{CompactRange, Hash};
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

/// The least time between two checkpoints that the history keeps, in nanoseconds.
const HISTORY_INTERVAL: i64 = 60 * 1_000_000_000;

/// Why the audit log cannot be continued.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The last checkpoint is not by this key, or was altered.
    #[error(
        "the audit log's last checkpoint does not verify with the configured signing key: \
         is it the key that the log was begun with? All brokers of a store have the same one. \
         `jit-broker audit verify` says more"
    )]
    Checkpoint(#[from] NoteError),
    /// The records and the last checkpoint do not belong together.
    #[error("the audit log was changed from outside ({0}): run `jit-broker audit verify`")]
    Changed(&'static str),
    /// Records that were committed are gone.
    #[error(
        "the store was set back: its audit log has {found} records, and had {had}. A failover lost what its replica \
         did not have, or a backup was put back. Start the broker again: it then continues from this state"
    )]
    SetBack {
        /// How many there are.
        found: u64,
        /// How many there were.
        had: u64,
    },
}

/// The head, as a transaction that holds its lock reads it.
pub(crate) const HEAD: &str =
    "SELECT size, note, nodes, kept_size, kept_at FROM jit_broker.head WHERE one = 1 FOR UPDATE";

/// The log's head.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The tree over all records.
    pub(crate) range: CompactRange,
    kept_size: i64,
    /// In nanoseconds.
    kept_at: i64,
}

/// What is written of the log in one transaction.
pub(crate) struct Signed {
    pub(crate) size: i64,
    pub(crate) note: String,
    pub(crate) nodes: Vec<u8>,
    pub(crate) kept_size: i64,
    pub(crate) kept_at: i64,
    /// Whether the history gets this checkpoint too.
    pub(crate) keep: bool,
}

/// What this broker knows of the log: the last head that it checked.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) size: u64,
    root: Hash,
}

impl Head {
    /// Checks a row of [`HEAD`]. A head that this broker has seen before needs no signature checked again.
    pub(crate) fn of(row: &PgRow, verifier: &VerifierKey, seen: Option<&Seen>) -> Result<Self, HeadError> {
        let (size, note, nodes): (i64, Option<String>, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (kept_size, kept_at) = (row.try_get(3)?, row.try_get(4)?);
        let range = range_of(size, &nodes).ok_or(LogError::Changed("its remembered tree is unreadable"))?;
        if let Some(seen) = seen.filter(|seen| range.size() < seen.size) {
            return Err(LogError::SetBack { found: range.size(), had: seen.size }.into());
        }
        let known = seen.filter(|seen| seen.size == range.size());
        match (known, note) {
            (Some(seen), _) if range.size() > 0 && seen.root == range.root() => {}
            (None | Some(_), None) if size == 0 => {}
            (_, None) => return Err(LogError::Changed("its checkpoint is missing").into()),
            (_, Some(note)) => {
                let signed = verifier.open(&note).map_err(LogError::from)?;
                if signed.size != range.size() || signed.root != range.root() {
                    return Err(LogError::Changed("its remembered tree is not the signed one").into());
                }
                if known.is_some() {
                    return Err(LogError::Changed("it has two histories").into());
                }
            }
        }
        Ok(Self { range, kept_size, kept_at })
    }

    pub(crate) fn seen(&self) -> Seen {
        Seen { size: self.range.size(), root: self.range.root() }
    }

    /// Signs the log as it stands here.
    pub(crate) fn sign(&self, key: &LogKey, origin: &Origin, now: Timestamp) -> Signed {
        let (size, root) = (self.range.size(), self.range.root());
        let note = key.sign(&Checkpoint { origin: origin.clone(), size, root });
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let now = nanos(now);
        let keep = now.saturating_sub(self.kept_at) >= HISTORY_INTERVAL;
        let (kept_size, kept_at) = if keep { (size, now) } else { (self.kept_size, self.kept_at) };
        Signed { size, note, nodes: nodes_of(&self.range), kept_size, kept_at, keep }
    }
}

/// Why the head cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Reads the head back and checks, without reading the records, that the last signed checkpoint is over exactly the
/// tree that is remembered and as many records as there are.
pub(crate) async fn load(connection: &mut PgConnection, verifier: &VerifierKey) -> Result<Head, HeadError> {
    let statement = "SELECT size, note, nodes, kept_size, kept_at,
            greatest((SELECT max(seq) + 1 FROM jit_broker.audit), (SELECT size FROM jit_broker.archived), 0)
        FROM jit_broker.head WHERE one = 1";
    let row = sqlx::query(statement).fetch_optional(connection).await?;
    let row = row.ok_or(LogError::Changed("its head is missing"))?;
    let head = Head::of(&row, verifier, None)?;
    let records: i64 = row.try_get(5)?;
    if i64::try_from(head.range.size()) != Ok(records) {
        return Err(LogError::Changed("it has more or fewer records than its checkpoint says").into());
    }
    Ok(head)
}

/// The tree over the records that were archived, of a row with its size and nodes.
pub(crate) fn frontier(row: Option<&PgRow>) -> Result<CompactRange, HeadError> {
    let Some(row) = row else { return Ok(CompactRange::new()) };
    let (size, nodes): (i64, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
    let range = range_of(size, &nodes);
    Ok(range.ok_or(LogError::Changed("the tree over its archived records is unreadable"))?)
}

/// What [`frontier`] reads.
pub(crate) const FRONTIER: &str = "SELECT size, nodes FROM jit_broker.archived";
