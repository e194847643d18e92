//! What the store holds, and how a change is made: all of it, or nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::event::AuditEvent;
use jit_core::id::LeaseId;
use jit_core::lease::{Lease, LeaseState};
use jit_ledger::{
    Change, Counts, Frontier, LeaseWrite, MAX_DOCUMENT, MAX_SEALED_NAME, MAX_SEALED_VALUE, Maker, SealedWrite,
    StoreError, StoredRecord, VERIFIER_MEMORY,
};
use jit_tlog::checkpoint::{Checkpoint, LogKey, Origin};
use jit_tlog::merkle::{CompactRange, Hash};

use crate::usage::UsageTable;

/// A checkpoint is kept in the history at most once in this time, by the time of the events.
const HISTORY_INTERVAL: Duration = Duration::from_secs(60);

/// The name of a log in memory.
#[allow(clippy::expect_used, reason = "a constant that the first test reads")]
pub(crate) fn origin() -> Origin {
    Origin::new("jit-broker/memory").expect("a name without spaces")
}

/// The content.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    /// Idempotency-Key digest to the lease that holds it.
    pub(crate) holders: HashMap<String, LeaseId>,
    /// Digest of a verifier to the lease that used it, and when.
    verifiers: HashMap<String, (LeaseId, Timestamp)>,
    pub(crate) sealed: BTreeMap<(String, String), Vec<u8>>,
    pub(crate) usage: UsageTable,
    pub(crate) records: BTreeMap<u64, StoredRecord>,
    pub(crate) note: Option<String>,
    /// Size to when it was taken, and the signed note.
    pub(crate) history: BTreeMap<u64, (Timestamp, String)>,
    pub(crate) frontier: CompactRange,
    range: CompactRange,
    /// The time of the newest event.
    newest: Timestamp,
}

/// The leases of a change, checked, and who holds which key after it.
struct Admitted {
    leases: BTreeMap<LeaseId, Lease>,
    holders: HashMap<String, Option<LeaseId>>,
    verifiers: HashMap<String, (LeaseId, Timestamp)>,
}

impl State {
    pub(crate) fn log_size(&self) -> u64 {
        self.range.size()
    }

    /// Makes the change, or says why nothing of it was made.
    pub(crate) fn apply(&mut self, change: &Change, key: &LogKey, origin: &Origin) -> Result<(), StoreError> {
        let records = change.events.iter().map(document).collect::<Result<Vec<_>, _>>()?;
        change.sealed.iter().try_for_each(fits)?;
        let admitted = self.admit(&change.leases)?;

        self.leases.extend(admitted.leases);
        self.verifiers.extend(admitted.verifiers);
        for (digest, holder) in admitted.holders {
            match holder {
                Some(holder) => drop(self.holders.insert(digest, holder)),
                None => drop(self.holders.remove(&digest)),
            }
        }
        for SealedWrite { purpose, name, value } in &change.sealed {
            let place = ((*purpose).to_owned(), name.clone());
            match value {
                Some(value) => drop(self.sealed.insert(place, value.clone())),
                None => drop(self.sealed.remove(&place)),
            }
        }
        for settled in &change.settled {
            self.usage.settle(settled);
        }
        for (event, record) in change.events.iter().zip(records) {
            let seq = self.range.size();
            let json = format!("{{\"seq\":{seq},{record}");
            self.range.push(Hash::of_leaf(json.as_bytes()));
            self.records.insert(seq, StoredRecord { seq, json });
            self.newest = self.newest.max(event.timestamp);
        }
        if !change.events.is_empty() {
            let (size, root) = (self.range.size(), self.range.root());
            let note = key.sign(&Checkpoint { origin: origin.clone(), size, root });
            let last = self.history.last_key_value().map(|(_, (taken_at, _))| *taken_at);
            if last.is_none_or(|last| self.newest.duration_since(last).unsigned_abs() >= HISTORY_INTERVAL) {
                self.history.insert(size, (self.newest, note.clone()));
            }
            self.note = Some(note);
        }
        if let Some(Frontier(range)) = &change.archived
            && range.size() > self.frontier.size()
            && range.size() <= self.range.size()
        {
            self.frontier = range.clone();
            self.records = self.records.split_off(&range.size());
            self.history = self.history.split_off(&range.size());
        }
        Ok(())
    }

    /// Checks each lease's version and key, in the order of the change.
    fn admit(&self, writes: &[LeaseWrite]) -> Result<Admitted, StoreError> {
        let mut admitted = Admitted { leases: BTreeMap::new(), holders: HashMap::new(), verifiers: HashMap::new() };
        for write in writes {
            let (lease, over) = match write {
                LeaseWrite::Insert(lease) => (lease, None),
                LeaseWrite::Update(lease) => {
                    (lease, Some(lease.version.checked_sub(1).ok_or_else(|| StoreError::Stale(lease.id.clone()))?))
                }
            };
            if to_json("a lease", lease)?.len() > MAX_DOCUMENT {
                return Err(StoreError::failed("a lease: it is too large"));
            }
            let standing = admitted.leases.get(&lease.id).or_else(|| self.leases.get(&lease.id));
            if standing.map(|lease| lease.version) != over {
                return Err(StoreError::Stale(lease.id.clone()));
            }
            if let Some(verifier) = lease.verifier.as_ref().filter(|_| over.is_none()) {
                let used = admitted.verifiers.get(&verifier.digest).or_else(|| self.verifiers.get(&verifier.digest));
                if let Some((used, _)) = used.filter(|(used, _)| verifier.takes_over.as_ref() != Some(used)) {
                    return Err(StoreError::VerifierUsed(used.clone()));
                }
            }
            let holder = |digest: &str| match admitted.holders.get(digest) {
                Some(holder) => holder.clone(),
                None => self.holders.get(digest).cloned(),
            };
            let held = standing.and_then(|lease| lease.idempotency.as_ref()).map(|held| held.key.clone());
            let held = held.filter(|digest| holder(digest).as_ref() == Some(&lease.id));
            let wanted = lease.idempotency.as_ref().filter(|_| lease.holds_key()).map(|wanted| wanted.key.clone());
            let other = wanted.as_deref().and_then(holder).filter(|holder| *holder != lease.id);
            let taken = match (other, over) {
                (None, _) => wanted,
                (Some(holder), None) => return Err(StoreError::KeyTaken(holder)),
                // It let go of the key, and somebody else has it now.
                (Some(_), Some(_)) => None,
            };
            if held != taken {
                admitted.holders.extend(held.map(|digest| (digest, None)));
                admitted.holders.extend(taken.map(|digest| (digest, Some(lease.id.clone()))));
            }
            if let Some(verifier) = lease.verifier.as_ref().filter(|_| over.is_none()) {
                admitted.verifiers.insert(verifier.digest.clone(), (lease.id.clone(), lease.issued_at));
            }
            admitted.leases.insert(lease.id.clone(), lease.clone());
        }
        Ok(admitted)
    }

    /// The newest checkpoint goes into the history, as a store that is closed in order keeps it.
    pub(crate) fn keep_last_checkpoint(&mut self) {
        if let Some(note) = self.note.clone() {
            self.history.entry(self.range.size()).or_insert((self.newest, note));
        }
    }

    pub(crate) fn due(&self, now: Timestamp, per_target: usize) -> Vec<Lease> {
        let mut due: Vec<(Timestamp, &Lease)> = self
            .leases
            .values()
            .filter_map(|lease| Some((lease.due_at()?, lease)))
            .filter(|(at, _)| *at <= now)
            .collect();
        due.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
        let mut taken: HashMap<(&str, bool), usize> = HashMap::new();
        let within = due.into_iter().filter(|(_, lease)| {
            let tried = lease.removal.as_ref().is_some_and(|removal| removal.attempts > 0);
            let place = taken.entry((lease.target.as_str(), tried)).or_default();
            *place += 1;
            *place <= per_target
        });
        within.map(|(_, lease)| lease.clone()).collect()
    }

    pub(crate) fn accounts(&self, names: &[String], counts: impl Fn(&Lease) -> bool) -> Vec<AccountName> {
        let there: BTreeSet<&str> =
            self.leases.values().filter(|lease| counts(lease)).map(|lease| lease.account.as_str()).collect();
        let named = names.iter().filter(|name| there.contains(name.as_str()));
        named.map(|name| AccountName::from_backend(name.as_str())).collect()
    }

    pub(crate) fn external_ids(&self, ids: &[String], counts: impl Fn(&Lease) -> bool) -> Vec<String> {
        let there: BTreeSet<&str> = self
            .leases
            .values()
            .filter(|lease| counts(lease))
            .filter_map(|lease| lease.external_id.as_deref())
            .collect();
        ids.iter().filter(|id| there.contains(id.as_str())).cloned().collect()
    }

    pub(crate) fn makers(&self, limit: usize) -> Vec<Maker> {
        let live = |lease: &&Lease| lease.state != LeaseState::Revoked && lease.rotating.is_none();
        let mut makers: BTreeMap<(String, String), Maker> = BTreeMap::new();
        for lease in self.leases.values().filter(live) {
            let named = (lease.target.to_string(), serde_json::json!(lease.driver).to_string());
            let maker = makers.entry(named).or_insert_with(|| Maker {
                target: lease.target.clone(),
                driver: lease.driver.clone(),
                leases: 0,
                last_expiry: lease.expires_at,
            });
            maker.leases += 1;
            maker.last_expiry = maker.last_expiry.max(lease.expires_at);
        }
        makers.into_values().take(limit).collect()
    }

    pub(crate) fn counts(&self, now: Timestamp) -> Counts {
        let mut counts = Counts::default();
        for lease in self.leases.values().filter(|lease| lease.state != LeaseState::Revoked) {
            let target = lease.target.to_string();
            if let Some(since) = lease.owed_since().filter(|since| *since <= now) {
                let overdue = counts.overdue.entry(target.clone()).or_insert((0, since));
                *overdue = (overdue.0 + 1, overdue.1.min(since));
            }
            *counts.live.entry((target, lease.state)).or_default() += 1;
        }
        counts
    }

    pub(crate) fn forget_revoked(&mut self, before: Timestamp, limit: usize) -> u64 {
        let over = self.leases.values().filter_map(|lease| Some((lease.ended_at()?, lease.id.clone())));
        let mut over: Vec<_> = over.filter(|(ended_at, _)| *ended_at < before).collect();
        over.sort();
        over.truncate(limit);
        for (_, id) in &over {
            self.leases.remove(id);
            self.holders.retain(|_, holder| holder != id);
        }
        self.verifiers.retain(|_, (_, used_at)| *used_at >= before - VERIFIER_MEMORY);
        over.len() as u64
    }
}

fn to_json(what: &str, value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::failed(format!("{what} as JSON: {error}")))
}

/// A record without its number and the brace before it.
fn document(event: &AuditEvent) -> Result<String, StoreError> {
    let json = to_json("an event", event)?;
    if json.len() > MAX_DOCUMENT {
        return Err(StoreError::failed("an event: it is too large"));
    }
    Ok(json[1..].to_owned())
}

fn fits(write: &SealedWrite) -> Result<(), StoreError> {
    let named = (1..=MAX_SEALED_NAME).contains(&write.name.len()) && !write.name.contains('\0');
    if !named || write.value.as_ref().is_some_and(|value| value.len() > MAX_SEALED_VALUE) {
        return Err(StoreError::failed("a sealed value or its name is too large"));
    }
    Ok(())
}
