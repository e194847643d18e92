//! A store in memory: the whole contract of jit-ledger, and nothing that waits.
//!
//! In scope: versions, Idempotency-Keys, usage counts, sealed values, numbered records with their Merkle tree and
//! signed checkpoints, as [`jit_ledger_contract`] asks of every store; and a plan of faults ([`Faults`]), so that a
//! test can lose any commit in any of the ways in which a commit is lost.
//! Out of scope: durability. It does no I/O, spawns nothing and reads no clock: what it needs to know of the time
//! is in the changes themselves, so it runs on tokio's paused time.
//!
//! Only tests depend on this crate.
//!
//! [`jit_ledger_contract`]: https://github.com/jit-broker/jit-broker/tree/main/host/ledger/contract

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod faults;
mod state;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::id::LeaseId;
use jit_core::lease::{Lease, LeaseState};
use jit_core::usage::Usage;
use jit_ledger::{Change, Counted, Counts, LeaseFilter, Maker, Store, StoreError, StoredRecord};
use jit_tlog::checkpoint::{LogKey, Origin, VerifierKey};
use jit_tlog::merkle::CompactRange;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use faults::{Fault, Faults};
use state::State;

/// After this time a commit that is [`Fault::Stalled`] fails, as that of a store that does not answer.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// The most rows of one answer.
const MAX_ROWS: usize = 1_000;

/// What all handles of one store share.
struct Shared {
    state: Mutex<State>,
    faults: Mutex<Faults>,
    key: LogKey,
    origin: Origin,
    size: watch::Sender<u64>,
}

/// A handle of a store in memory. Its content lives as long as a handle of it does.
pub struct MemoryLedger {
    shared: Arc<Shared>,
    closed: AtomicBool,
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLedger {
    /// An empty store in which nothing fails.
    #[must_use]
    pub fn new() -> Self {
        Self::with_faults(Faults::none())
    }

    /// An empty store whose commits fail as planned.
    #[must_use]
    pub fn with_faults(faults: Faults) -> Self {
        let shared = Shared {
            state: Mutex::new(State::default()),
            faults: Mutex::new(faults),
            key: LogKey::from_seed(&[7; 32]),
            origin: state::origin(),
            size: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared), closed: AtomicBool::new(false) }
    }

    /// Another handle of the same content: what a broker finds that starts again. Faults that have not happened
    /// yet are still planned.
    #[must_use]
    pub fn reopened(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), closed: AtomicBool::new(false) }
    }

    /// Replaces the plan of faults; commits are counted from one again.
    pub fn plan(&self, faults: Faults) {
        *self.shared.faults.lock() = faults;
    }

    /// How many commits were asked for since the plan was made, whether or not they failed.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.faults.lock().commits()
    }

    /// Checks the log's checkpoints.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        self.shared.key.verifier(&self.shared.origin)
    }

    /// Reads the state, unless this handle was closed.
    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, StoreError> {
        self.write(|state| read(state))
    }

    fn write<T>(&self, write: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(StoreError::failed("it is closed"));
        }
        Ok(write(&mut self.shared.state.lock()))
    }

    fn apply(&self, change: &Change) -> Result<(), StoreError> {
        let Shared { key, origin, size, .. } = &*self.shared;
        let (applied, records) = self.write(|state| (state.apply(change, key, origin), state.log_size()))?;
        size.send_if_modified(|size| std::mem::replace(size, records) != records);
        applied
    }
}

fn most(limit: usize) -> usize {
    limit.clamp(1, MAX_ROWS)
}

#[async_trait]
impl Store for MemoryLedger {
    async fn commit(&self, change: Change) -> Result<(), StoreError> {
        if change.is_empty() {
            return Ok(());
        }
        let planned = self.shared.faults.lock().next(&change);
        match planned {
            None => self.apply(&change),
            Some(Fault::Failed) => Err(StoreError::failed("the commit failed, as planned")),
            Some(Fault::FailedButPersisted) => {
                self.apply(&change)?;
                Err(StoreError::failed("the commit's answer was lost, as planned"))
            }
            Some(Fault::Stalled) => {
                tokio::time::sleep(DEADLINE).await;
                Err(StoreError::failed(format!("no answer within {} s", DEADLINE.as_secs())))
            }
        }
    }

    async fn lease(&self, id: &LeaseId) -> Result<Option<Lease>, StoreError> {
        self.read(|state| state.leases.get(id).cloned())
    }

    async fn lease_by_key(&self, key: &str) -> Result<Option<Lease>, StoreError> {
        self.read(|state| state.leases.get(state.holders.get(key)?).cloned())
    }

    async fn leases(&self, filter: &LeaseFilter) -> Result<Vec<Lease>, StoreError> {
        self.read(|state| {
            let newest_first = state.leases.values().rev();
            let wanted = newest_first.filter(|lease| {
                filter.principal.as_ref().is_none_or(|principal| principal.owns(&lease.principal))
                    && filter.target.as_ref().is_none_or(|target| *target == lease.target)
                    && filter.state.is_none_or(|state| state == lease.state)
                    && filter.ended.is_none_or(|ended| ended == (lease.state == LeaseState::Revoked))
                    && filter.workload.as_ref().is_none_or(|workload| *workload == lease.principal.workload)
                    && filter.before.as_ref().is_none_or(|before| lease.id < *before)
            });
            wanted.take(most(filter.limit)).cloned().collect()
        })
    }

    async fn due(&self, now: Timestamp, per_target: usize) -> Result<Vec<Lease>, StoreError> {
        self.read(|state| state.due(now, most(per_target)))
    }

    async fn pending(&self, before: Timestamp, limit: usize) -> Result<Vec<Lease>, StoreError> {
        self.read(|state| {
            let undecided = |lease: &&Lease| lease.state == LeaseState::Pending && lease.issued_at < before;
            let mut found: Vec<Lease> = state.leases.values().filter(undecided).cloned().collect();
            found.sort_by(|a, b| (a.issued_at, &a.id).cmp(&(b.issued_at, &b.id)));
            found.truncate(most(limit));
            found
        })
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(|state| state.leases.values().filter_map(Lease::due_at).min())
    }

    async fn known_accounts(&self, names: &[String]) -> Result<Vec<AccountName>, StoreError> {
        self.read(|state| state.accounts(names, |lease| lease.state != LeaseState::Revoked))
    }

    async fn ended_accounts(&self, names: &[String]) -> Result<Vec<AccountName>, StoreError> {
        self.read(|state| state.accounts(names, |lease| lease.state == LeaseState::Revoked))
    }

    async fn ended_external_ids(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        self.read(|state| state.external_ids(ids, |lease| lease.state == LeaseState::Revoked))
    }

    async fn known_external_ids(&self, ids: &[String]) -> Result<Vec<String>, StoreError> {
        self.read(|state| state.external_ids(ids, |lease| lease.state != LeaseState::Revoked))
    }

    async fn makers(&self) -> Result<Vec<Maker>, StoreError> {
        self.read(|state| state.makers(MAX_ROWS))
    }

    async fn counts(&self, now: Timestamp) -> Result<Counts, StoreError> {
        self.read(|state| state.counts(now))
    }

    async fn forget_revoked(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.write(|state| state.forget_revoked(before, most(limit)))
    }

    async fn count(&self, request: &Counted) -> Result<Usage, StoreError> {
        self.write(|state| {
            state.usage.count(request);
            state.usage.numbers(request, state.leases.values())
        })
    }

    async fn usage(&self, request: &Counted) -> Result<Usage, StoreError> {
        self.read(|state| state.usage.peek(request, state.leases.values()))
    }

    async fn forget_usage(&self, before: Timestamp) -> Result<(), StoreError> {
        self.write(|state| state.usage.forget(before))
    }

    async fn sealed(&self, purpose: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|state| state.sealed.get(&(purpose.to_owned(), name.to_owned())).cloned())
    }

    async fn sealed_of(&self, purpose: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read(|state| {
            let of_purpose = state.sealed.iter().filter(|((of, _), _)| of == purpose);
            let values = of_purpose.map(|((_, name), value)| (name.clone(), value.clone()));
            values.take(jit_ledger::MAX_SEALED_LISTED).collect()
        })
    }

    async fn frontier(&self) -> Result<CompactRange, StoreError> {
        self.read(|state| state.frontier.clone())
    }

    async fn kept_checkpoints(&self, after: u64, before: Timestamp) -> Result<Vec<(u64, String)>, StoreError> {
        self.read(|state| {
            let later = state.history.range(after.saturating_add(1)..);
            let kept = later.filter(|(_, (taken_at, _))| *taken_at < before);
            kept.take(MAX_ROWS).map(|(size, (_, note))| (*size, note.clone())).collect()
        })
    }

    async fn records(&self, from_seq: u64, limit: usize) -> Result<Vec<StoredRecord>, StoreError> {
        self.read(|state| {
            state.records.range(from_seq..).map(|(_, record)| record).take(most(limit)).cloned().collect()
        })
    }

    async fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        self.read(|state| state.note.clone())
    }

    fn log_size(&self) -> watch::Receiver<u64> {
        self.shared.size.subscribe()
    }

    async fn close(&self) {
        if !self.closed.swap(true, Ordering::SeqCst) {
            self.shared.state.lock().keep_last_checkpoint();
        }
    }
}

#[cfg(test)]
mod tests;
