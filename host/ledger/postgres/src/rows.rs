//! Leases and events as the writer's statements take them: one array for each column, so that a group of changes is
//! one statement. What can be done beside the writer is done here, in the caller's task.

use jit_core::lease::Lease;
use jit_core::name::Principal;
use jit_ledger::columns::{self, column, nanos};
use jit_ledger::ground::{Row, Step};
use jit_ledger::{Change, LeaseWrite, SealedWrite, StoreError};
use jit_tlog::merkle::Hash;
use sha2::{Digest as _, Sha256};

/// A change, ready for the writer.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) leases: Vec<LeaseRow>,
    pub(crate) events: Vec<EventRow>,
    pub(crate) sealed: Vec<SealedRow>,
    /// Requests whose holds end, and whether they were granted.
    pub(crate) settled: Vec<(String, bool)>,
    /// Records before this leave the store: size and nodes of the tree over them.
    pub(crate) archived: Option<(i64, Vec<u8>)>,
}

impl Prepared {
    pub(crate) fn new(change: &Change) -> Result<Self, StoreError> {
        Ok(Self {
            leases: change.leases.iter().map(LeaseRow::new).collect::<Result<_, _>>()?,
            events: change.events.iter().map(|event| columns::record(event).map(EventRow)).collect::<Result<_, _>>()?,
            sealed: change.sealed.iter().map(SealedRow::new).collect::<Result<_, _>>()?,
            settled: columns::settled(change),
            archived: columns::archived(change),
        })
    }

    /// About how many bytes it adds to a transaction.
    pub(crate) fn weight(&self) -> usize {
        let leases: usize = self.leases.iter().map(|lease| lease.document.len() + 512).sum();
        let events: usize = self.events.iter().map(|event| event.0.len()).sum();
        let sealed = self.sealed.iter().map(|row| row.name.len() + row.value.as_ref().map_or(0, Vec::len));
        leases + events + sealed.sum::<usize>()
    }
}

/// One lease, new or stepped on.
#[derive(Debug)]
pub(crate) struct LeaseRow {
    pub(crate) step: Step,
    state: &'static str,
    owner: Vec<u8>,
    subject: Vec<u8>,
    workload: String,
    target: String,
    account: String,
    issued_at: i64,
    expires_at: i64,
    due_at: Option<i64>,
    owed_since: Option<i64>,
    ended_at: Option<i64>,
    tried: bool,
    maker: Option<String>,
    external_id: Option<String>,
    document: String,
}

impl Row for LeaseRow {
    fn step(&self) -> &Step {
        &self.step
    }
}

impl LeaseRow {
    pub(crate) fn new(write: &LeaseWrite) -> Result<Self, StoreError> {
        let (lease, step, document) = columns::lease(write)?;
        let Lease { principal, driver, removal, .. } = lease;
        // The end of a lease over a rotating account asks nothing of its driver.
        let maker = lease.rotating.is_none().then(|| serde_json::to_string(driver)).transpose();
        Ok(Self {
            step,
            state: lease.state.as_str(),
            owner: owner(principal),
            subject: subject(principal),
            workload: column(&principal.workload).into_owned(),
            target: lease.target.to_string(),
            account: column(lease.account.as_str()).into_owned(),
            issued_at: nanos(lease.issued_at),
            expires_at: nanos(lease.expires_at),
            due_at: lease.due_at().map(nanos),
            owed_since: lease.owed_since().map(nanos),
            ended_at: lease.ended_at().map(nanos),
            tried: removal.as_ref().is_some_and(|removal| removal.attempts > 0),
            maker: maker.map_err(StoreError::failed)?,
            external_id: lease.external_id.as_deref().map(|id| column(id).into_owned()),
            document,
        })
    }
}

/// Who has a lease or a count, without the subject. A digest: names may be longer than an index takes, and none of
/// their characters has a meaning in it.
pub(crate) fn owner(principal: &Principal) -> Vec<u8> {
    let mut digest = Sha256::new();
    digest.update((principal.issuer.len() as u64).to_be_bytes());
    digest.update(&principal.issuer);
    digest.update(&principal.workload);
    digest.finalize()[..16].to_vec()
}

/// The subject's digest. It is empty if there is no subject.
pub(crate) fn subject(principal: &Principal) -> Vec<u8> {
    if principal.subject.is_empty() { Vec::new() } else { Sha256::digest(&principal.subject)[..16].to_vec() }
}

/// The leases that a group writes, by columns.
#[derive(Debug, Default)]
pub(crate) struct LeaseColumns {
    pub(crate) new: Vec<bool>,
    pub(crate) id: Vec<String>,
    pub(crate) version: Vec<i64>,
    pub(crate) state: Vec<&'static str>,
    pub(crate) owner: Vec<Vec<u8>>,
    pub(crate) subject: Vec<Vec<u8>>,
    pub(crate) workload: Vec<String>,
    pub(crate) target: Vec<String>,
    pub(crate) account: Vec<String>,
    pub(crate) issued_at: Vec<i64>,
    pub(crate) expires_at: Vec<i64>,
    pub(crate) due_at: Vec<Option<i64>>,
    pub(crate) owed_since: Vec<Option<i64>>,
    pub(crate) ended_at: Vec<Option<i64>>,
    pub(crate) tried: Vec<bool>,
    pub(crate) maker: Vec<Option<String>>,
    pub(crate) external_id: Vec<Option<String>>,
    pub(crate) document: Vec<String>,
    pub(crate) key: Vec<Option<String>>,
}

impl LeaseColumns {
    pub(crate) fn push(&mut self, row: &LeaseRow, holds_key: bool, new: bool) {
        self.new.push(new);
        self.id.push(row.step.id.to_string());
        self.version.push(row.step.version);
        self.state.push(row.state);
        self.owner.push(row.owner.clone());
        self.subject.push(row.subject.clone());
        self.workload.push(row.workload.clone());
        self.target.push(row.target.clone());
        self.account.push(row.account.clone());
        self.issued_at.push(row.issued_at);
        self.expires_at.push(row.expires_at);
        self.due_at.push(row.due_at);
        self.owed_since.push(row.owed_since);
        self.ended_at.push(row.ended_at);
        self.tried.push(row.tried);
        self.maker.push(row.maker.clone());
        self.external_id.push(row.external_id.clone());
        self.document.push(row.document.clone());
        self.key.push(row.step.key.clone().filter(|_| holds_key));
    }
}

/// One event, which gets its number later.
#[derive(Debug)]
pub(crate) struct EventRow(String);

impl EventRow {
    /// The record with its number, and its leaf.
    pub(crate) fn numbered(&self, seq: u64) -> (String, Hash) {
        let record = format!("{{\"seq\":{seq}{}", self.0);
        let leaf = Hash::of_leaf(record.as_bytes());
        (record, leaf)
    }
}

/// One write of a sealed value.
#[derive(Debug)]
pub(crate) struct SealedRow {
    pub(crate) purpose: &'static str,
    pub(crate) name: String,
    /// None removes it.
    pub(crate) value: Option<Vec<u8>>,
}

impl SealedRow {
    fn new(write: &SealedWrite) -> Result<Self, StoreError> {
        columns::sealed_fits(write)?;
        let SealedWrite { purpose, name, value } = write;
        Ok(Self { purpose, name: name.clone(), value: value.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_run_into_each_other() {
        let of = |issuer: &str, workload: &str| {
            owner(&Principal { issuer: issuer.into(), workload: workload.into(), subject: String::new() })
        };
        assert_ne!(of("a", "bc"), of("ab", "c"));
        assert_ne!(of("", "abc"), of("abc", ""));
        assert_eq!(of("a", "b"), of("a", "b"));
        assert!(subject(&Principal { issuer: "a".into(), workload: "b".into(), subject: String::new() }).is_empty());
    }
}
