//! Moving a whole store into another one: what the source hands over, as of one moment, and what the destination says
//! of it.
//!
//! A source implements [`Snapshot`] over its own tables. The destination reads it page by page. Neither knows the
//! other's columns.

use async_trait::async_trait;
use jit_core::lease::Lease;
use jit_core::name::Principal;
use jit_tlog::merkle::CompactRange;

use crate::{StoreError, StoredRecord};

/// Rows of one page, at most.
pub const PAGE: usize = 500;

/// The log's end, and where the store's records begin.
#[derive(Debug, Clone)]
pub struct Head {
    /// How many records there are, those in an archive included.
    pub size: u64,
    /// The signed checkpoint over them; none where there are none.
    pub note: Option<String>,
    /// The tree over the records that are in an archive.
    pub frontier: CompactRange,
}

/// A lease.
#[derive(Debug, Clone)]
pub struct LeaseRow {
    /// The lease.
    pub lease: Lease,
    /// Whether the store has it as the holder of its Idempotency-Key.
    pub holds_key: bool,
}

/// A checkpoint of the history.
#[derive(Debug, Clone)]
pub struct KeptCheckpoint {
    /// Over how many records.
    pub size: i64,
    /// When it was taken, in nanoseconds since the Unix epoch.
    pub taken_at: i64,
    /// The signed note.
    pub note: String,
}

/// A verifier that a lease used.
#[derive(Debug, Clone)]
pub struct VerifierRow {
    /// Its digest.
    pub digest: Vec<u8>,
    /// The lease.
    pub lease: String,
    /// When, in nanoseconds since the Unix epoch.
    pub used_at: i64,
}

/// A sealed value.
#[derive(Debug, Clone)]
pub struct SealedRow {
    /// What for.
    pub purpose: String,
    /// Under which name.
    pub name: String,
    /// The value.
    pub value: Vec<u8>,
}

/// Requests of one second that were counted.
#[derive(Debug, Clone)]
pub struct UsageRow {
    /// Whose.
    pub principal: Principal,
    /// Of which target.
    pub target: String,
    /// The second, since the Unix epoch.
    pub at: i64,
    /// How many.
    pub requests: i64,
    /// How many of them got what they asked for.
    pub granted: i64,
}

/// A request that was counted and is not decided yet.
#[derive(Debug, Clone)]
pub struct HoldRow {
    /// Which.
    pub request_id: String,
    /// Until when it is held, in seconds since the Unix epoch.
    pub until: i64,
    /// Whose.
    pub principal: Principal,
    /// Of which target.
    pub target: String,
    /// When it was counted, in seconds since the Unix epoch.
    pub at: i64,
    /// Whether it may become a lease.
    pub lease: bool,
}

/// A store as of one moment. A page is at most [`PAGE`] rows, and empty at the end.
#[async_trait]
pub trait Snapshot: Send {
    /// The log's end.
    async fn head(&mut self) -> Result<Head, StoreError>;
    /// Records from that number on.
    async fn records(&mut self, from: u64) -> Result<Vec<StoredRecord>, StoreError>;
    /// Checkpoints of the history over more records than `after`, the smallest first.
    async fn history(&mut self, after: i64) -> Result<Vec<KeptCheckpoint>, StoreError>;
    /// Leases by their ids, after that one.
    async fn leases(&mut self, after: &str) -> Result<Vec<LeaseRow>, StoreError>;
    /// Verifiers by their digests, after that one.
    async fn verifiers(&mut self, after: &[u8]) -> Result<Vec<VerifierRow>, StoreError>;
    /// Sealed values by purpose and name, after these.
    async fn sealed(&mut self, after: (&str, &str)) -> Result<Vec<SealedRow>, StoreError>;
    /// Counted requests, in an order of the store's own, after that one.
    async fn usage(&mut self, after: Option<&UsageRow>) -> Result<Vec<UsageRow>, StoreError>;
    /// Requests that are held, by their ids, after that one.
    async fn holds(&mut self, after: &str) -> Result<Vec<HoldRow>, StoreError>;
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Records that the destination has now.
    pub records: u64,
    /// How many of them are new to it.
    pub new_records: u64,
    /// Leases that the source has.
    pub leases: u64,
    /// How many of them are new to the destination, or were stepped on.
    pub new_leases: u64,
}
