//! Which changes of a group may be made: the optimistic check of each lease's version and of the
//! Idempotency-Keys, in the order in which the changes came.
//!
//! The writer is the only one that writes (the file is locked), so what it read before the
//! transaction still holds in it. The versions are read anew for each group, by one statement: a
//! cache would save about 20 µs of a group that waits for the disk ten times as long, and could be
//! wrong after a failed commit.

use std::collections::HashMap;

use jit_core::id::LeaseId;

use super::rows::LeaseRow;
use jit_ledger::StoreError;

/// How a lease stands: in the file, or after the changes of this group that were admitted.
#[derive(Clone)]
struct Standing<'g> {
    version: i64,
    key: Option<String>,
    /// What is to be written of it: the last admitted step only.
    write: Option<&'g LeaseRow>,
}

/// The leases that a group of changes is about.
#[derive(Default)]
pub(super) struct Ground<'g> {
    leases: HashMap<String, Standing<'g>>,
    /// Idempotency-Key digest to the id of the lease that holds it.
    holders: HashMap<String, String>,
    /// Digest of a verifier to who used it.
    verifiers: HashMap<String, Used>,
}

/// Who used a verifier.
#[derive(Clone)]
struct Used {
    lease: String,
    /// When, where that is to be written.
    write: Option<i64>,
}

/// What to restore when a later lease of the same change is refused.
enum Undo<'g> {
    Lease(String, Option<Standing<'g>>),
    Holder(String, Option<String>),
    Verifier(String, Option<Used>),
}

impl<'g> Ground<'g> {
    /// A lease as it stands in the file.
    pub(super) fn found(&mut self, id: String, version: i64, key: Option<String>) {
        if let Some(key) = &key {
            self.holders.insert(key.clone(), id.clone());
        }
        self.leases.insert(id, Standing { version, key, write: None });
    }

    /// A verifier that the file knows, and the lease that used it.
    pub(super) fn found_verifier(&mut self, digest: String, lease: String) {
        self.verifiers.insert(digest, Used { lease, write: None });
    }

    /// Takes all leases of one change, or none.
    pub(super) fn admit(&mut self, rows: &'g [LeaseRow]) -> Result<(), StoreError> {
        let mut undo = Vec::new();
        for row in rows {
            if let Err(error) = self.admit_one(row, &mut undo) {
                while let Some(step) = undo.pop() {
                    self.restore(step);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn admit_one(&mut self, row: &'g LeaseRow, undo: &mut Vec<Undo<'g>>) -> Result<(), StoreError> {
        let id = row.id.as_str();
        let standing = self.leases.get(id);
        if standing.map(|lease| lease.version) != row.over {
            return Err(StoreError::Stale(row.id.clone()));
        }
        if let Some(verifier) = &row.verifier {
            let used = self.verifiers.get(&verifier.digest).map(|used| used.lease.as_str());
            if let Some(used) = used.filter(|used| verifier.takes_over.as_deref() != Some(used)) {
                return Err(StoreError::VerifierUsed(used.parse().map_err(|_| unreadable(used))?));
            }
        }
        let other = row.key.as_ref().and_then(|key| self.holders.get(key)).filter(|holder| *holder != id);
        let key = match (other, row.over) {
            (None, _) => row.key.clone(),
            (Some(holder), None) => {
                let holder: LeaseId = holder.parse().map_err(|_| unreadable(holder))?;
                return Err(StoreError::KeyTaken(holder));
            }
            // It let go of the key and somebody else has it now. A step on the way to an account's
            // removal never fails for that.
            (Some(_), Some(_)) => None,
        };
        let had = standing.and_then(|lease| lease.key.clone());
        if had != key {
            if let Some(released) = had {
                undo.push(Undo::Holder(released.clone(), self.holders.remove(&released)));
            }
            if let Some(held) = key.clone() {
                undo.push(Undo::Holder(held.clone(), self.holders.insert(held, id.to_owned())));
            }
        }
        if let Some(verifier) = &row.verifier {
            let used = Used { lease: id.to_owned(), write: Some(verifier.used_at) };
            undo.push(Undo::Verifier(verifier.digest.clone(), self.verifiers.insert(verifier.digest.clone(), used)));
        }
        let now = Standing { version: row.version, key, write: Some(row) };
        undo.push(Undo::Lease(id.to_owned(), self.leases.insert(id.to_owned(), now)));
        Ok(())
    }

    fn restore(&mut self, step: Undo<'g>) {
        match step {
            Undo::Lease(id, Some(lease)) => drop(self.leases.insert(id, lease)),
            Undo::Lease(id, None) => drop(self.leases.remove(&id)),
            Undo::Holder(key, Some(id)) => drop(self.holders.insert(key, id)),
            Undo::Holder(key, None) => drop(self.holders.remove(&key)),
            Undo::Verifier(digest, Some(used)) => drop(self.verifiers.insert(digest, used)),
            Undo::Verifier(digest, None) => drop(self.verifiers.remove(&digest)),
        }
    }

    /// The verifiers to write, as a JSON array of digest, lease and time. An empty text when none is to be written.
    pub(super) fn verifiers(&self) -> String {
        let writes = self.verifiers.iter().filter_map(|(digest, used)| Some((digest, &used.lease, used.write?)));
        let rows: Vec<_> = writes.collect();
        if rows.is_empty() { String::new() } else { serde_json::json!(rows).to_string() }
    }

    /// The rows to write, as a JSON array; empty when there is nothing to write. Leases without a
    /// key come first: one that lets go of a key before the one that takes it.
    pub(super) fn array(&self) -> String {
        let mut writes: Vec<(bool, &LeaseRow)> =
            self.leases.values().filter_map(|lease| Some((lease.key.is_some(), lease.write?))).collect();
        writes.sort_by(|(a, left), (b, right)| a.cmp(b).then_with(|| left.id.cmp(&right.id)));
        let mut array = String::new();
        for (holds_key, row) in &writes {
            row.append_to(&mut array, *holds_key);
        }
        if !array.is_empty() {
            array.push(']');
        }
        array
    }
}

fn unreadable(id: &str) -> StoreError {
    StoreError::Failed(format!("the store has a lease with the unreadable id {id:?}"))
}
