//! Which changes of a group may be made: the optimistic check of each lease's version and of the
//! Idempotency-Keys, in the order in which the changes came.
//!
//! A store tells how the leases of the group stand, in the transaction or where nobody else writes, asks for each
//! change whether it may be made, and writes what is then to be written.

use std::collections::HashMap;

use jit_core::id::LeaseId;

use crate::StoreError;

/// What the check asks of a lease's row, new or stepped on.
#[derive(Debug)]
pub struct Step {
    /// The lease.
    pub id: LeaseId,
    /// The version that must be there now; `None` for a new lease.
    pub over: Option<i64>,
    /// The version that it then has.
    pub version: i64,
    /// The digest of the Idempotency-Key that it holds.
    pub key: Option<String>,
    /// The verifier that a new lease uses.
    pub verifier: Option<UsedVerifier>,
}

/// A verifier of a caller.
#[derive(Debug)]
pub struct UsedVerifier {
    /// Its digest, in hexadecimal.
    pub digest: String,
    /// The lease from which this one takes it over.
    pub takes_over: Option<String>,
    /// When it was used, in nanoseconds since the Unix epoch.
    pub used_at: i64,
}

/// A store's row of one lease.
pub trait Row {
    /// What is checked of it.
    fn step(&self) -> &Step;
}

/// A lease that is to be written.
#[derive(Debug)]
pub struct Write<'g, R> {
    /// Its last admitted step.
    pub row: &'g R,
    /// Whether it holds its key.
    pub holds_key: bool,
    /// Whether the store has no such lease yet.
    pub new: bool,
}

/// A verifier that is to be written.
#[derive(Debug)]
pub struct VerifierWrite<'g> {
    /// Its digest, in hexadecimal.
    pub digest: &'g str,
    /// The lease that used it.
    pub lease: &'g str,
    /// When, in nanoseconds since the Unix epoch.
    pub used_at: i64,
    /// Whether the store does not know it yet.
    pub new: bool,
}

/// How a lease stands: in the file, or after the changes of this group that were admitted.
struct Standing<'g, R> {
    version: i64,
    key: Option<String>,
    /// What is to be written of it: the last admitted step only.
    write: Option<&'g R>,
    new: bool,
}

/// The leases that a group of changes is about.
pub struct Ground<'g, R> {
    leases: HashMap<String, Standing<'g, R>>,
    /// Idempotency-Key digest to the id of the lease that holds it.
    holders: HashMap<String, String>,
    /// Digest of a verifier to who used it.
    verifiers: HashMap<String, Used>,
}

/// Who used a verifier.
struct Used {
    lease: String,
    /// When, where that is to be written.
    write: Option<i64>,
    new: bool,
}

/// What to restore when a later lease of the same change is refused.
enum Undo<'g, R> {
    Lease(String, Option<Standing<'g, R>>),
    Holder(String, Option<String>),
    Verifier(String, Option<Used>),
}

impl<R> Default for Ground<'_, R> {
    fn default() -> Self {
        Self { leases: HashMap::new(), holders: HashMap::new(), verifiers: HashMap::new() }
    }
}

impl<'g, R: Row> Ground<'g, R> {
    /// A lease as it stands in the store.
    pub fn found(&mut self, id: String, version: i64, key: Option<String>) {
        if let Some(key) = &key {
            self.holders.insert(key.clone(), id.clone());
        }
        self.leases.insert(id, Standing { version, key, write: None, new: false });
    }

    /// A verifier that the store knows, and the lease that used it.
    pub fn found_verifier(&mut self, digest: String, lease: String) {
        self.verifiers.insert(digest, Used { lease, write: None, new: false });
    }

    /// Takes all leases of one change, or none.
    ///
    /// # Errors
    /// Why nothing of the change may be made.
    pub fn admit(&mut self, rows: &'g [R]) -> Result<(), StoreError> {
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

    fn admit_one(&mut self, row: &'g R, undo: &mut Vec<Undo<'g, R>>) -> Result<(), StoreError> {
        let Step { id: lease, over, version, key: wanted, verifier } = row.step();
        let id = lease.as_str();
        let standing = self.leases.get(id);
        if standing.map(|lease| lease.version) != *over {
            return Err(StoreError::Stale(lease.clone()));
        }
        let new = standing.is_none_or(|lease| lease.new);
        if let Some(verifier) = verifier {
            let used = self.verifiers.get(&verifier.digest).map(|used| used.lease.as_str());
            if let Some(used) = used.filter(|used| verifier.takes_over.as_deref() != Some(used)) {
                return Err(StoreError::VerifierUsed(used.parse().map_err(|_| unreadable(used))?));
            }
        }
        let other = wanted.as_ref().and_then(|key| self.holders.get(key)).filter(|holder| *holder != id);
        let key = match (other, over) {
            (None, _) => wanted.clone(),
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
        if let Some(UsedVerifier { digest, used_at, .. }) = verifier {
            let new = self.verifiers.get(digest).is_none_or(|used| used.new);
            let used = Used { lease: id.to_owned(), write: Some(*used_at), new };
            undo.push(Undo::Verifier(digest.clone(), self.verifiers.insert(digest.clone(), used)));
        }
        let now = Standing { version: *version, key, write: Some(row), new };
        undo.push(Undo::Lease(id.to_owned(), self.leases.insert(id.to_owned(), now)));
        Ok(())
    }

    fn restore(&mut self, step: Undo<'g, R>) {
        match step {
            Undo::Lease(id, Some(lease)) => drop(self.leases.insert(id, lease)),
            Undo::Lease(id, None) => drop(self.leases.remove(&id)),
            Undo::Holder(key, Some(id)) => drop(self.holders.insert(key, id)),
            Undo::Holder(key, None) => drop(self.holders.remove(&key)),
            Undo::Verifier(digest, Some(used)) => drop(self.verifiers.insert(digest, used)),
            Undo::Verifier(digest, None) => drop(self.verifiers.remove(&digest)),
        }
    }

    /// The verifiers to write, by their digests.
    #[must_use]
    pub fn verifiers(&self) -> Vec<VerifierWrite<'_>> {
        let mut writes: Vec<VerifierWrite<'_>> = self
            .verifiers
            .iter()
            .filter_map(|(digest, Used { lease, write, new })| {
                Some(VerifierWrite { digest, lease, used_at: (*write)?, new: *new })
            })
            .collect();
        writes.sort_by(|a, b| a.digest.cmp(b.digest));
        writes
    }

    /// The leases to write. Those without a key come first: one that lets go of a key before the one that takes it.
    #[must_use]
    pub fn writes(&self) -> Vec<Write<'g, R>> {
        let mut writes: Vec<Write<'g, R>> = self
            .leases
            .values()
            .filter_map(|lease| Some(Write { row: lease.write?, holds_key: lease.key.is_some(), new: lease.new }))
            .collect();
        let place = |write: &Write<'g, R>| (write.holds_key, &write.row.step().id);
        writes.sort_by(|a, b| place(a).cmp(&place(b)));
        writes
    }
}

fn unreadable(id: &str) -> StoreError {
    StoreError::Failed(format!("the store has a lease with the unreadable id {id:?}"))
}
