//! The leases that a log comes to: each record of one is a step of it. For a store that was lost, whose log is still
//! there as an export.
//!
//! What the log does not have is named and left out. Accounts that it does not know are found by the comparison with
//! the targets, as after a restored backup: the store counts as set back (BRAKE).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use jit_core::account::{AccountName, Mark};
use jit_core::event::LeaseRest;
use jit_core::id::{LeaseId, RequestId};
use jit_core::lease::{Cause, EndedBy, Lease, LeaseState, StepError};
use jit_core::name::{Principal, RoleName, TargetName};
use jit_core::operator::Operator;
use jit_core::rotation::Generation;
use serde::Deserialize;

use crate::birth::{Birth, Marking};

/// The most leases that are named because they could not be made again; the rest is counted.
const MOST_NAMED: usize = 100;

/// A record, as far as it is about a lease or the broker.
#[derive(Deserialize)]
struct Record {
    timestamp: Timestamp,
    event: String,
    request_id: Option<RequestId>,
    lease_id: Option<LeaseId>,
    workload: Option<String>,
    identity_issuer: Option<String>,
    #[serde(default)]
    identity_subject: String,
    target_db: Option<TargetName>,
    role: Option<RoleName>,
    ephemeral_id: Option<String>,
    expires_at: Option<Timestamp>,
    reason: Option<String>,
    ticket: Option<String>,
    driver_sha256: Option<String>,
    error: Option<String>,
    operator_uid: Option<u32>,
    cause: Option<Cause>,
    input: Option<Input>,
    generation: Option<Generation>,
    lease: Option<LeaseRest>,
    account_mark: Option<String>,
}

/// What policies were asked, as far as the lease has it.
#[derive(Default, Deserialize)]
struct Input {
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Why the leases cannot be had from the log.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// A record cannot be read.
    #[error("record {seq} cannot be read: is it of a newer release?")]
    Record {
        /// Its number.
        seq: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// No start is on record that says what the accounts are marked with.
    #[error(
        "no record of a start has the mark of this broker's accounts, sealed under this signing key: without it the \
         broker would take none of its accounts for its own. Only a backup of the store has it then"
    )]
    NoMark,
}

/// What a log comes to.
#[derive(Debug)]
pub struct Rebuilt {
    /// The leases, those that ended lately among them.
    pub leases: Vec<Lease>,
    /// Verifiers of callers: the lease, the digest, and when it was used.
    pub verifiers: Vec<(LeaseId, String, Timestamp)>,
    /// What the broker keeps of itself: the mark on its accounts, and that its store was set back.
    pub birth: Birth,
    /// The time of the last record.
    pub until: Option<Timestamp>,
    /// Leases that could not be made again, in words.
    pub left_out: Vec<String>,
    /// How many more of these there are.
    pub more_left_out: u64,
    /// Rotating accounts of the log: the passwords that the broker gave them were in the store alone.
    pub rotating: BTreeSet<String>,
}

/// The leases so far.
pub struct Replaying {
    marking: Marking,
    /// Leases that ended before this are not kept.
    since: Timestamp,
    /// Verifiers that were used before this are not kept.
    verifiers_since: Timestamp,
    live: HashMap<LeaseId, Lease>,
    ended: Vec<Lease>,
    verifiers: Vec<(LeaseId, String, Timestamp)>,
    mark: Option<Mark>,
    first: Option<Timestamp>,
    until: Option<Timestamp>,
    left_out: Vec<String>,
    more_left_out: u64,
    rotating: BTreeSet<String>,
    seq: u64,
}

impl Replaying {
    /// Before the first record. Leases that ended before `since` are not kept, nor verifiers used before
    /// `verifiers_since`.
    #[must_use]
    pub fn new(marking: Marking, since: Timestamp, verifiers_since: Timestamp) -> Self {
        Self {
            marking,
            since,
            verifiers_since,
            live: HashMap::new(),
            ended: Vec::new(),
            verifiers: Vec::new(),
            mark: None,
            first: None,
            until: None,
            left_out: Vec::new(),
            more_left_out: 0,
            rotating: BTreeSet::new(),
            seq: 0,
        }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`RebuildError::Record`].
    pub fn record(&mut self, json: &[u8]) -> Result<(), RebuildError> {
        let seq = self.seq;
        let record: Record = serde_json::from_slice(json).map_err(|source| RebuildError::Record { seq, source })?;
        self.seq += 1;
        self.first.get_or_insert(record.timestamp);
        self.until = Some(record.timestamp);
        if let Some(mark) = record.account_mark.as_deref().and_then(|sealed| self.marking.unseal(sealed)) {
            self.mark = Some(mark);
        }
        if matches!(record.event.as_str(), "account.rotated" | "account.tampered") {
            self.rotating.extend(record.ephemeral_id.clone());
        }
        let Some(id) = record.lease_id.clone() else { return Ok(()) };
        match record.event.as_str() {
            "issue.granted" | "lease.doubtful" => self.begins(seq, id, record),
            "lease.revoked" | "lease.expired" | "reconcile.ghost_removed" => self.ends(&id, &record),
            _ => {
                if let Some(lease) = self.live.get_mut(&id) {
                    // A step that the lease's state does not allow changed nothing then either.
                    if let Ok(Some(next)) = stepped(lease, &record) {
                        *lease = next;
                    }
                }
            }
        }
        Ok(())
    }

    fn begins(&mut self, seq: u64, id: LeaseId, record: Record) {
        if self.live.contains_key(&id) {
            return;
        }
        let doubt =
            (record.event == "lease.doubtful").then(|| (record.cause.unwrap_or(Cause::Doubtful), record.timestamp));
        let named = format!(
            "{id}: the account {} in {}, until {} (record {seq})",
            record.ephemeral_id.as_deref().unwrap_or("?"),
            record.target_db.as_ref().map_or("?", TargetName::as_str),
            record.expires_at.map_or_else(|| "?".to_owned(), |at| at.to_string()),
        );
        let made = pending(id, record).and_then(|pending| match doubt {
            None => pending.settle(pending.external_id.clone(), pending.expires_at).ok(),
            Some((cause, since)) => pending.doubt(cause, since).ok(),
        });
        let Some(lease) = made else {
            if self.left_out.len() < MOST_NAMED {
                self.left_out.push(named)
            } else {
                self.more_left_out += 1
            }
            return;
        };
        if let Some(verifier) = lease.verifier.as_ref().filter(|_| lease.issued_at >= self.verifiers_since) {
            self.verifiers.push((lease.id.clone(), verifier.digest.clone(), lease.issued_at));
        }
        self.live.insert(lease.id.clone(), lease);
    }

    fn ends(&mut self, id: &LeaseId, record: &Record) {
        let Some(lease) = self.live.remove(id) else { return };
        if record.timestamp < self.since {
            return;
        }
        let ending = match lease.state {
            LeaseState::Active => lease.begin_revocation(record.cause.unwrap_or(Cause::Requested), record.timestamp),
            _ => Ok(lease),
        };
        self.ended.extend(ending.and_then(|ending| ending.removed()));
    }

    /// After the last record.
    ///
    /// # Errors
    /// [`RebuildError::NoMark`].
    pub fn end(self, now: Timestamp) -> Result<Rebuilt, RebuildError> {
        let mark = self.mark.ok_or(RebuildError::NoMark)?;
        let birth = Birth { mark, since: self.first.unwrap_or(now), set_back: Some(now) };
        let mut leases: Vec<Lease> = self.live.into_values().chain(self.ended).collect();
        leases.sort_by(|one, other| other.issued_at.cmp(&one.issued_at).then_with(|| other.id.cmp(&one.id)));
        // A key that one lease let go of and another took: the newest that holds it keeps it.
        let mut held = HashSet::new();
        for lease in &mut leases {
            let key = lease.idempotency.as_ref().map(|idempotency| idempotency.key.clone());
            if lease.holds_key() && key.is_some_and(|key| !held.insert(key)) {
                lease.idempotency = None;
            }
        }
        leases.reverse();
        let (left_out, more_left_out) = (self.left_out, self.more_left_out);
        let (verifiers, until, rotating) = (self.verifiers, self.until, self.rotating);
        Ok(Rebuilt { leases, verifiers, birth, until, left_out, more_left_out, rotating })
    }
}

/// The lease as it was before its account was there; none where the record lacks something of it.
fn pending(id: LeaseId, record: Record) -> Option<Lease> {
    let rest = record.lease?;
    let login = record.ephemeral_id?;
    let (account, username) = match rest.account.clone() {
        Some(account) => (account, Some(login)),
        None => (AccountName::from_backend(login), None),
    };
    let input = record.input.unwrap_or_default();
    let expires_at = record.expires_at?;
    Some(Lease {
        id,
        version: 0,
        state: LeaseState::Pending,
        principal: Principal {
            issuer: record.identity_issuer?,
            workload: record.workload?,
            subject: record.identity_subject,
        },
        attributes: input.attributes,
        target: record.target_db?,
        role: record.role?,
        account,
        username,
        external_id: rest.external_id.clone(),
        standing: rest.standing,
        driver: rest.driver_ref(record.driver_sha256?),
        request_id: record.request_id?,
        issued_at: rest.issued_at,
        term_start: rest.issued_at,
        expires_at,
        max_expires_at: rest.max_expires_at,
        renewable: rest.renewable,
        reason: record.reason,
        ticket: record.ticket,
        metadata: input.metadata,
        idempotency: rest.idempotency,
        verifier: rest.verifier,
        removal: None,
        rotating: record.generation,
    })
}

/// The lease after that record; none where the record changes nothing of it.
fn stepped(lease: &Lease, record: &Record) -> Result<Option<Lease>, StepError> {
    let at = record.timestamp;
    let ending = |cause| match lease.state {
        LeaseState::Active => lease.begin_revocation(cause, at),
        _ => Ok(lease.clone()),
    };
    Ok(Some(match (record.event.as_str(), record.cause) {
        ("lease.renewed", _) => {
            let until = record.expires_at.unwrap_or(lease.expires_at);
            // What no renewal passes may have been later then, by a clock that was set.
            Lease { max_expires_at: lease.max_expires_at.max(until), ..lease.clone() }.renew(at, until)?
        }
        ("issue.failed", Some(cause)) => ending(cause)?,
        ("admin.revoke", _) => {
            let operator = Operator { uid: record.operator_uid.unwrap_or_default(), pid: None };
            lease.begin_revocation_by(EndedBy::Operator(operator), at)?
        }
        ("reconcile.drift", _) => ending(Cause::Drift)?,
        ("revoke.failed" | "removal.wrong_place", _) => {
            let cause = if at >= lease.expires_at { Cause::Expired } else { Cause::Requested };
            ending(cause)?.removal_failed(record.error.clone().unwrap_or_default(), at)?
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
