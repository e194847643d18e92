//! How stores with columns keep what a change holds: times, texts for searching, documents, and the tree's nodes.

use std::borrow::Cow;

use jiff::Timestamp;
use jit_core::event::AuditEvent;
use jit_core::lease::{Lease, LeaseState};
use jit_tlog::merkle::{CompactRange, Hash};

use crate::ground::{Step, UsedVerifier};
use crate::{
    Change, Counts, Frontier, LeaseWrite, MAX_DOCUMENT, MAX_SEALED_NAME, MAX_SEALED_VALUE, SealedWrite, StoreError,
};

/// The most rows of one answer.
pub const MAX_ROWS: usize = 1_000;

/// A time as columns have it, in nanoseconds since the Unix epoch. Beyond the year 2262 it is cut, which is no expiry
/// that the broker gives.
#[must_use]
pub fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time < Timestamp::UNIX_EPOCH { i64::MIN } else { i64::MAX })
}

/// A column's time.
#[must_use]
pub fn moment(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::MAX)
}

/// A text as the searched columns have it. SQLite ends a text at NUL in some places and not in others, and PostgreSQL
/// takes none; a column is only for finding, the document has the text as it is.
#[must_use]
pub fn column(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// A number of rows that is asked for, within what is answered.
#[must_use]
pub fn most(limit: usize) -> i64 {
    i64::try_from(limit.clamp(1, MAX_ROWS)).unwrap_or(1)
}

fn failed(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("{what}: {error}"))
}

/// A lease to write: itself, what is checked of it, and its document.
///
/// # Errors
/// When no step gives that version, or it is too large.
pub fn lease(write: &LeaseWrite) -> Result<(&Lease, Step, String), StoreError> {
    let version = |of: u64| i64::try_from(of).map_err(|error| failed("a lease's version", error));
    let (lease, over) = match write {
        LeaseWrite::Insert(lease) => (lease, None),
        LeaseWrite::Update(lease) => {
            let over = lease.version.checked_sub(1).ok_or_else(|| StoreError::Stale(lease.id.clone()))?;
            (lease, Some(version(over)?))
        }
    };
    let document = serde_json::to_string(lease).map_err(|error| failed("a lease as JSON", error))?;
    if document.len() > MAX_DOCUMENT {
        return Err(failed("a lease", "it is too large"));
    }
    let key = lease.idempotency.as_ref().filter(|_| lease.holds_key()).map(|held| column(&held.key).into_owned());
    let verifier = lease.verifier.as_ref().filter(|_| over.is_none()).map(|used| UsedVerifier {
        digest: used.digest.clone(),
        takes_over: used.takes_over.as_ref().map(ToString::to_string),
        used_at: nanos(lease.issued_at),
    });
    Ok((lease, Step { id: lease.id.clone(), over, version: version(lease.version)?, key, verifier }, document))
}

/// A lease from its document.
///
/// # Errors
/// When it cannot be read.
pub fn decode(document: &str) -> Result<Lease, StoreError> {
    serde_json::from_str(document).map_err(|error| StoreError::Failed(format!("a lease in it is unreadable: {error}")))
}

/// How many records a log has, of which the last has this number and those before `archived` are in an archive.
#[must_use]
pub fn records(last: Option<i64>, archived: u64) -> u64 {
    last.map_or(0, |last| u64::try_from(last).map_or(0, |last| last.saturating_add(1))).max(archived)
}

/// The requests that a change settles, and whether they were granted.
#[must_use]
pub fn settled(change: &Change) -> Vec<(String, bool)> {
    change.settled.iter().map(|one| (one.request_id.to_string(), one.granted)).collect()
}

/// Where a change lets the log begin: size and nodes of the tree over what is in an archive.
#[must_use]
pub fn archived(change: &Change) -> Option<(i64, Vec<u8>)> {
    let Frontier(range) = change.archived.as_ref()?;
    Some((i64::try_from(range.size()).unwrap_or(i64::MAX), nodes_of(range)))
}

/// Adds a row of the counts by target and state: how many leases it has, how many of them are overdue, and since when
/// the oldest is. A state that this release does not know is left out.
pub fn add_counts(counts: &mut Counts, target: String, state: &str, all: i64, overdue: i64, oldest: Option<i64>) {
    let Some(state) = LeaseState::from_word(state) else { return };
    if let Some(oldest) = oldest.map(moment) {
        let entry = counts.overdue.entry(target.clone()).or_insert((0, oldest));
        *entry = (entry.0 + overdue.unsigned_abs(), entry.1.min(oldest));
    }
    counts.live.insert((target, state), all.unsigned_abs());
}

/// Leases of a list. One that cannot be read does not hide the others (NO-GHOST), but is reported.
#[must_use]
pub fn decode_all(documents: Vec<String>) -> Vec<Lease> {
    let readable = documents.iter().filter_map(|document| match decode(document) {
        Ok(lease) => Some(lease),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a lease in the store is left out");
            None
        }
    });
    readable.collect()
}

/// An audit record from its first comma on: what follows `{"seq":N`.
///
/// # Errors
/// When it is too large.
pub fn record(event: &AuditEvent) -> Result<String, StoreError> {
    let json = serde_json::to_string(event).map_err(|error| failed("an event as JSON", error))?;
    if json.len() > MAX_DOCUMENT {
        return Err(failed("an event", "it is too large"));
    }
    // `{` becomes the comma after the number; an event is never empty.
    Ok(format!(",{}", &json[1..]))
}

/// Checks the bounds of a sealed value and of its name.
///
/// # Errors
/// When one of them is not kept.
pub fn sealed_fits(SealedWrite { name, value, .. }: &SealedWrite) -> Result<(), StoreError> {
    let fits = (1..=MAX_SEALED_NAME).contains(&name.len()) && !name.contains('\0');
    if !fits || value.as_ref().is_some_and(|value| value.len() > MAX_SEALED_VALUE) {
        return Err(StoreError::Failed("a sealed value or its name is too large".to_owned()));
    }
    Ok(())
}

/// The nodes of a tree as a column has them.
#[must_use]
pub fn nodes_of(range: &CompactRange) -> Vec<u8> {
    range.nodes().iter().flat_map(|node| *node.as_bytes()).collect()
}

/// A tree from its columns; none where they are no tree.
#[must_use]
pub fn range_of(size: i64, nodes: &[u8]) -> Option<CompactRange> {
    let nodes = nodes.chunks(Hash::BYTES).map(Hash::from_slice).collect::<Option<Vec<_>>>()?;
    CompactRange::from_parts(u64::try_from(size).ok()?, nodes).ok()
}
