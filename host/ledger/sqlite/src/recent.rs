//! What the writer wrote last.
//!
//! The writer is the only one that writes (the file is locked), so what it wrote itself need not be read: an issue is
//! two steps of one lease, and the second follows the first within milliseconds. Reading costs a hop to SQLite's thread
//! and back. After a failure nothing is remembered.

use std::collections::{HashMap, HashSet};

use jit_ledger::ground::{Ground, Row as _, Write};

use super::rows::{LeaseRow, Prepared};

/// Leases that the writer wrote last, as they stand in the file.
#[derive(Debug, Default)]
pub(super) struct Recent {
    young: HashMap<String, (i64, Option<String>)>,
    old: HashMap<String, (i64, Option<String>)>,
}

impl Recent {
    /// The most leases of each of the two halves.
    const HALF: usize = 1_024;

    /// How the leases of a group stand, where that is known well enough: every lease that steps on was written lately
    /// and takes no key. A lease that is new is taken as such, and its key as free: the file refuses both where
    /// they are not. A verifier is looked up in any case, since another lease may hand it on.
    pub(super) fn ground<'g>(&self, group: &'g [Prepared]) -> Option<Ground<'g, LeaseRow>> {
        let mut ground = Ground::default();
        let mut new = HashSet::new();
        for row in group.iter().flat_map(|change| &change.leases) {
            let row = row.step();
            let id = row.id.as_str();
            if row.verifier.is_some() || new.contains(id) {
                return None;
            }
            match (self.young.get(id).or_else(|| self.old.get(id)), row.over) {
                (Some((_, None)), Some(_)) if row.key.is_some() => return None,
                (Some((version, key)), _) => ground.found(id.to_owned(), *version, key.clone()),
                (None, None) => drop(new.insert(id)),
                (None, Some(_)) => return None,
            }
        }
        Some(ground)
    }

    /// Remembers what was written.
    pub(super) fn keep(&mut self, writes: &[Write<'_, LeaseRow>]) {
        for Write { row, holds_key, .. } in writes {
            let step = row.step();
            self.old.remove(step.id.as_str());
            let key = step.key.clone().filter(|_| *holds_key);
            self.young.insert(step.id.as_str().to_owned(), (step.version, key));
        }
        if self.young.len() >= Self::HALF {
            self.old = std::mem::take(&mut self.young);
        }
    }
}
