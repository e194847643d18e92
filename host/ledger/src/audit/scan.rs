//! What verification does with each record, wherever it was read from.

use std::collections::BTreeMap;

use jit_tlog::merkle::{CompactRange, Hash};

use super::finding::Finding;
use super::sources::Found;

/// The tree over the records so far, and what signed checkpoints say that it must be.
#[derive(Default)]
pub(super) struct Scan {
    range: CompactRange,
    marks: BTreeMap<u64, Hash>,
    /// The size of the last checkpoint that agreed.
    agreed: u64,
    checked: u64,
}

impl Scan {
    /// Goes on after records that were not read.
    pub(super) fn after(range: CompactRange) -> Self {
        Self { range, ..Self::default() }
    }

    /// Whether the tree is that one.
    pub(super) fn is_at(&self, other: &CompactRange) -> bool {
        self.range.size() == other.size() && self.range.nodes() == other.nodes()
    }

    /// What the tree must be at that size. Two signed checkpoints that differ at one size are two
    /// histories; the one that came first here is then the one that counts.
    pub(super) fn expect(&mut self, size: u64, root: Hash) -> Result<(), Finding> {
        if size == self.range.size() {
            return self.agree(root);
        }
        if *self.marks.entry(size).or_insert(root) == root { Ok(()) } else { Err(Finding::Forked { size }) }
    }

    fn agree(&mut self, root: Hash) -> Result<(), Finding> {
        let size = self.range.size();
        if self.range.root() != root {
            return Err(Finding::Rewritten { after: self.agreed, before: size });
        }
        self.agreed = size;
        self.checked += 1;
        Ok(())
    }

    /// How many records so far.
    pub(super) fn size(&self) -> u64 {
        self.range.size()
    }

    /// How many checkpoints agreed with the records.
    pub(super) fn checked(&self) -> u64 {
        self.checked
    }

    /// The root over the records so far.
    pub(super) fn root(&self) -> Hash {
        self.range.root()
    }

    /// The largest size that a checkpoint speaks of.
    pub(super) fn promised(&self) -> u64 {
        self.marks.keys().next_back().copied().unwrap_or(0).max(self.agreed)
    }

    /// Takes the next record.
    pub(super) fn record(&mut self, found: &Found) -> Result<(), Finding> {
        let seq = self.range.size();
        if let Some(row) = found.row {
            match u64::try_from(row) {
                Ok(row) if row == seq => {}
                Ok(row) if row > seq => return Err(Finding::Missing { seq }),
                _ => return Err(Finding::Inserted { seq: row.unsigned_abs() }),
            }
        }
        match found.says() {
            Some(says) if says == seq => {}
            Some(says) => return Err(Finding::Reordered { seq, found: says }),
            None => return Err(Finding::Altered { seq }),
        }
        let leaf = Hash::of_leaf(&found.record);
        if found.leaf.as_ref().is_some_and(|stored| stored != leaf.as_bytes()) {
            return Err(Finding::Altered { seq });
        }
        self.range.push(leaf);
        match self.marks.remove(&self.range.size()) {
            Some(root) => self.agree(root),
            None => Ok(()),
        }
    }
}
