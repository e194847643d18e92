//! Leases and events as the writer's statements take them.
//!
//! The writer is one task, so what can be done beside it is done here, in the caller's: turning
//! leases and events into JSON, with its quotes escaped for the one array that a whole group of
//! changes is written from.

use std::borrow::Cow;

use jiff::Timestamp;
use jit_core::event::AuditEvent;
use jit_core::id::LeaseId;

use jit_tlog::merkle::Hash;

use super::sealed::SealedRow;
use jit_ledger::{Change, Frontier, LeaseWrite, MAX_DOCUMENT, StoreError};

/// A change, ready for the writer.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) leases: Vec<LeaseRow>,
    pub(super) events: Vec<EventRow>,
    pub(super) sealed: Vec<SealedRow>,
    /// Requests whose holds end, and whether they were granted.
    pub(super) settled: Vec<(String, bool)>,
    /// Records before this leave the store: size and nodes of the tree over them.
    pub(super) archived: Option<(i64, Vec<u8>)>,
}

/// One lease, new or stepped on.
#[derive(Debug)]
pub(super) struct LeaseRow {
    pub(super) id: LeaseId,
    /// The version that must be there now; `None` for a new lease.
    pub(super) over: Option<i64>,
    pub(super) version: i64,
    /// The digest of the Idempotency-Key that it holds.
    pub(super) key: Option<String>,
    /// The verifier that a new lease uses.
    pub(super) verifier: Option<VerifierRow>,
    /// All columns but the last (`idem_key`) as the beginning of a JSON array.
    columns: String,
}

/// A verifier of a caller.
#[derive(Debug)]
pub(super) struct VerifierRow {
    /// Its digest, in hexadecimal.
    pub(super) digest: String,
    /// The lease from which this one takes it over.
    pub(super) takes_over: Option<String>,
    pub(super) used_at: i64,
}

/// One event, which gets its number later.
#[derive(Debug)]
pub(super) struct EventRow {
    /// The record from its first comma on: `,"timestamp":…}`.
    plain: String,
    /// The same, escaped to stand within a JSON string.
    escaped: String,
}

/// A time as the store's columns have it. Beyond the year 2262 it is cut, which is no expiry that
/// the broker gives.
pub(super) fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time < Timestamp::UNIX_EPOCH { i64::MIN } else { i64::MAX })
}

/// A text as the searched columns have it. SQLite ends a text at NUL in some places and not in
/// others; a column is only for finding, the document has the text as it is.
pub(super) fn column(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

fn failed(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("{what}: {error}"))
}

fn version(of: u64) -> Result<i64, StoreError> {
    i64::try_from(of).map_err(|e| failed("a lease's version", e))
}

impl Prepared {
    pub(super) fn new(change: &Change) -> Result<Self, StoreError> {
        Ok(Self {
            leases: change.leases.iter().map(LeaseRow::new).collect::<Result<_, _>>()?,
            events: change.events.iter().map(EventRow::new).collect::<Result<_, _>>()?,
            sealed: change.sealed.iter().map(SealedRow::new).collect::<Result<_, _>>()?,
            settled: change.settled.iter().map(|one| (one.request_id.to_string(), one.granted)).collect(),
            archived: change
                .archived
                .as_ref()
                .map(|Frontier(range)| (i64::try_from(range.size()).unwrap_or(i64::MAX), super::log::nodes_of(range))),
        })
    }

    /// About how many bytes it adds to a transaction.
    pub(super) fn weight(&self) -> usize {
        let leases: usize = self.leases.iter().map(|lease| lease.columns.len()).sum();
        let events: usize = self.events.iter().map(|event| event.escaped.len()).sum();
        let sealed: usize = self.sealed.iter().map(SealedRow::weight).sum();
        leases + events + sealed
    }
}

impl LeaseRow {
    fn new(write: &LeaseWrite) -> Result<Self, StoreError> {
        let (lease, over) = match write {
            LeaseWrite::Insert(lease) => (lease, None),
            LeaseWrite::Update(lease) => {
                let over = lease.version.checked_sub(1).ok_or_else(|| StoreError::Stale(lease.id.clone()))?;
                (lease, Some(version(over)?))
            }
        };
        let document = serde_json::to_string(lease).map_err(|e| failed("a lease as JSON", e))?;
        if document.len() > MAX_DOCUMENT {
            return Err(failed("a lease", "it is too large"));
        }
        let version = version(lease.version)?;
        let mut columns = serde_json::to_string(&(
            lease.id.as_str(),
            version,
            lease.state.as_str(),
            column(&lease.principal.issuer),
            column(&lease.principal.workload),
            column(&lease.principal.subject),
            lease.target.as_str(),
            column(lease.account.as_str()),
            nanos(lease.issued_at),
            lease.due_at().map(nanos),
            lease.owed_since().map(nanos),
            lease.ended_at().map(nanos),
            document,
        ))
        .map_err(|e| failed("a lease as JSON", e))?;
        columns.pop();
        let key = lease.idempotency.as_ref().filter(|_| lease.holds_key()).map(|held| column(&held.key).into_owned());
        let verifier = lease.verifier.as_ref().filter(|_| over.is_none()).map(|used| VerifierRow {
            digest: used.digest.clone(),
            takes_over: used.takes_over.as_ref().map(ToString::to_string),
            used_at: nanos(lease.issued_at),
        });
        Ok(Self { id: lease.id.clone(), over, version, key, verifier, columns })
    }

    /// Adds the row to the group's array. Whether the lease holds its key is the writer's to say.
    pub(super) fn append_to(&self, array: &mut String, holds_key: bool) {
        separate(array);
        array.push_str(&self.columns);
        array.push(',');
        match self.key.as_ref().filter(|_| holds_key) {
            Some(key) => append_quoted(array, key),
            None => array.push_str("null"),
        }
        array.push(']');
    }
}

impl EventRow {
    fn new(event: &AuditEvent) -> Result<Self, StoreError> {
        let json = serde_json::to_string(event).map_err(|e| failed("an event as JSON", e))?;
        if json.len() > MAX_DOCUMENT {
            return Err(failed("an event", "it is too large"));
        }
        // `{` becomes the comma after the number; an event is never empty.
        let plain = format!(",{}", &json[1..]);
        let mut escaped = String::with_capacity(plain.len() + plain.len() / 4);
        append_quoted(&mut escaped, &plain);
        escaped.remove(0);
        escaped.pop();
        Ok(Self { plain, escaped })
    }

    /// Gives the record its number, adds it to the group's array, and gives its leaf.
    pub(super) fn append_to(&self, array: &mut String, seq: u64) -> Hash {
        let leaf = Hash::of_leaf(format!("{{\"seq\":{seq}{}", self.plain).as_bytes());
        separate(array);
        array.push_str(&format!("[{seq},\"{{\\\"seq\\\":{seq}{}\",\"{leaf}\"]", self.escaped));
        leaf
    }
}

/// The array opens with its first element.
fn separate(array: &mut String) {
    array.push(if array.is_empty() { '[' } else { ',' });
}

/// Adds a JSON string with its quotes.
fn append_quoted(to: &mut String, text: &str) {
    // Display of a JSON value cannot fail and writes what `to_string` would.
    to.push_str(&serde_json::Value::from(text).to_string());
}
