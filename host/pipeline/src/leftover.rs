//! Accounts that only a person can remove, since things depend on them: how many each owner has.
//!
//! Each of them costs an attempt now and then, and somebody's time. An owner that leaves one behind with every
//! lease gets no new account in that target once it has as many as the configuration allows. The count is kept in memory; at a
//! start it is made from the leases that wait.

use std::collections::{HashMap, HashSet};

use jit_core::id::LeaseId;
use jit_core::lease::{Lease, LeaseState};
use jit_core::name::{Principal, TargetName};
use parking_lot::Mutex;

use crate::refusal::Refused;
use jit_ledger::{LeaseFilter, Store, StoreError};

/// Leases read at once at a start, and how often.
const PAGE: usize = 1_000;
const PAGES: usize = 100;

/// Accounts of each owner and target that things depend on.
#[derive(Debug)]
pub struct Leftovers {
    most: usize,
    held: Mutex<HashMap<(Principal, TargetName), HashSet<LeaseId>>>,
}

impl Leftovers {
    /// With the number of such accounts from which on an owner gets no new one in the same target.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, held: Mutex::default() }
    }

    /// Reads from the store which removals wait for a person.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn recall(&self, store: &dyn Store) -> Result<(), StoreError> {
        // A creation in doubt is removed as well, and things may depend on what it made.
        for state in [LeaseState::Revoking, LeaseState::Doubtful] {
            let mut before = None;
            for _ in 0..PAGES {
                let filter = LeaseFilter { state: Some(state), before, limit: PAGE, ..LeaseFilter::default() };
                let page = store.leases(&filter).await?;
                let is_held = |lease: &&Lease| lease.removal.as_ref().is_some_and(|removal| removal.held);
                page.iter().filter(is_held).for_each(|lease| self.put(lease));
                match page.last() {
                    Some(last) if page.len() >= PAGE => before = Some(last.id.clone()),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// An attempt found that things depend on the account.
    pub fn put(&self, lease: &Lease) {
        let mut held = self.held.lock();
        held.entry(key(lease)).or_default().insert(lease.id.clone());
    }

    /// The account is gone.
    pub fn take(&self, lease: &Lease) {
        let mut held = self.held.lock();
        let key = key(lease);
        if let Some(leases) = held.get_mut(&key) {
            leases.remove(&lease.id);
            if leases.is_empty() {
                held.remove(&key);
            }
        }
    }

    /// That the owner may have a new account in the target.
    ///
    /// # Errors
    /// [`Refused::Blocked`] when it left too many there.
    pub fn allow_one_more(&self, owner: &Principal, target: &TargetName) -> Result<(), Refused> {
        let held = self.held.lock();
        // Nearly always there are none, and nothing is copied.
        let too_many = !held.is_empty()
            && held.get(&(owner.clone(), target.clone())).is_some_and(|leases| leases.len() >= self.most);
        if too_many { Err(Refused::Blocked { target: target.to_string(), most: self.most }) } else { Ok(()) }
    }
}

fn key(lease: &Lease) -> (Principal, TargetName) {
    (lease.principal.clone(), lease.target.clone())
}

#[cfg(test)]
mod tests {
    use jit_core::lease::Cause;

    use super::*;
    use jit_ledger::{Change, LeaseWrite};
    use jit_ledger_contract::{active, lease_at, time};
    use jit_ledger_sqlite::{SqliteOptions, SqliteStore};
    use jit_tlog::checkpoint::{LogKey, Origin};

    async fn store(folder: &tempfile::TempDir) -> SqliteStore {
        let path = folder.path().join("broker.db");
        let (signer, origin) = (LogKey::from_seed(&[7; 32]), Origin::new("test").unwrap());
        SqliteStore::open(SqliteOptions { path, signer, origin }).await.unwrap()
    }

    /// A removal that waits for a person is remembered over a restart, whatever began it.
    #[tokio::test]
    async fn a_start_recalls_every_removal_that_waits_for_a_person() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let now = time(10);
        let held = |lease: &Lease| lease.removal_held("a view depends on it".into(), now).unwrap();
        let revoking = active(&lease_at(1)).begin_revocation(Cause::Requested, now).unwrap();
        let doubtful = lease_at(2).doubt(Cause::Doubtful, now).unwrap();
        let merely_failed = lease_at(3).doubt(Cause::Doubtful, now).unwrap();
        let merely_failed = merely_failed.removal_failed("away".into(), now).unwrap();
        let leases = [held(&revoking), held(&doubtful), merely_failed];
        let inserts = leases.iter().cloned().map(LeaseWrite::Insert).collect();
        store.commit(Change { leases: inserts, ..Change::default() }).await.unwrap();

        let leftovers = Leftovers::new(2);
        leftovers.recall(&store).await.unwrap();
        let [first, ..] = &leases;
        let refused = leftovers.allow_one_more(&first.principal, &first.target);
        assert!(matches!(refused, Err(Refused::Blocked { most: 2, .. })), "both count");
        leftovers.take(&leases[1]);
        assert!(leftovers.allow_one_more(&first.principal, &first.target).is_ok(), "and nothing else");
        store.close().await;
    }
}
