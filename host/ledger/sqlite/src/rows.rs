//! Leases and events as the writer's statements take them.
//!
//! The writer is one task, so what can be done beside it is done here, in the caller's: turning
//! leases and events into JSON, with its quotes escaped for the one array that a whole group of
//! changes is written from.

use jit_core::event::AuditEvent;

use jit_tlog::merkle::Hash;

use super::sealed::SealedRow;
use jit_ledger::columns::{self, column, nanos};
use jit_ledger::ground::{Row, Step, VerifierWrite, Write};
use jit_ledger::{Change, LeaseWrite, StoreError};

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
    pub(super) step: Step,
    /// All columns but the last (`idem_key`) as the beginning of a JSON array.
    columns: String,
}

impl Row for LeaseRow {
    fn step(&self) -> &Step {
        &self.step
    }
}

/// One event, which gets its number later.
#[derive(Debug)]
pub(super) struct EventRow {
    /// The record from its first comma on: `,"timestamp":…}`.
    plain: String,
    /// The same, escaped to stand within a JSON string.
    escaped: String,
}

impl Prepared {
    pub(super) fn new(change: &Change) -> Result<Self, StoreError> {
        Ok(Self {
            leases: change.leases.iter().map(LeaseRow::new).collect::<Result<_, _>>()?,
            events: change.events.iter().map(EventRow::new).collect::<Result<_, _>>()?,
            sealed: change.sealed.iter().map(SealedRow::new).collect::<Result<_, _>>()?,
            settled: columns::settled(change),
            archived: columns::archived(change),
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
    pub(super) fn new(write: &LeaseWrite) -> Result<Self, StoreError> {
        let (lease, step, document) = columns::lease(write)?;
        let mut columns = serde_json::to_string(&(
            lease.id.as_str(),
            step.version,
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
        .map_err(StoreError::failed)?;
        columns.pop();
        Ok(Self { step, columns })
    }

    /// Adds the row to the group's array. Whether the lease holds its key is the writer's to say.
    fn append_to(&self, array: &mut String, holds_key: bool) {
        separate(array);
        array.push_str(&self.columns);
        array.push(',');
        match self.step.key.as_ref().filter(|_| holds_key) {
            Some(key) => append_quoted(array, key),
            None => array.push_str("null"),
        }
        array.push(']');
    }
}

impl EventRow {
    fn new(event: &AuditEvent) -> Result<Self, StoreError> {
        let plain = columns::record(event)?;
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

/// The leases to write, as a JSON array; empty when there is nothing to write.
pub(super) fn lease_array(writes: &[Write<'_, LeaseRow>]) -> String {
    let mut array = String::new();
    for write in writes {
        write.row.append_to(&mut array, write.holds_key);
    }
    if !array.is_empty() {
        array.push(']');
    }
    array
}

/// The verifiers to write, as a JSON array of digest, lease and time; empty when none is to be written.
pub(super) fn verifier_array(writes: &[VerifierWrite<'_>]) -> String {
    let rows: Vec<_> = writes.iter().map(|write| (write.digest, write.lease, write.used_at)).collect();
    if rows.is_empty() { String::new() } else { serde_json::json!(rows).to_string() }
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
