//! Which commits fail, and how.

use jit_ledger::Change;

/// How a commit is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing of the change is made, and the caller learns that the store failed.
    Failed,
    /// The change is made, and the caller learns that the store failed.
    FailedButPersisted,
    /// Nothing of the change is made, and the caller waits for [`crate::DEADLINE`] before it learns that the
    /// store failed.
    Stalled,
}

type Matches = Box<dyn Fn(&Change) -> bool + Send + Sync>;

enum Which {
    Nth(u64),
    First(Matches),
    Every(Matches),
}

/// A plan: of each rule the first that fits counts.
#[derive(Default)]
pub struct Faults {
    rules: Vec<(Which, Fault)>,
    commits: u64,
}

impl Faults {
    /// Nothing fails.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The `nth` commit, from one. Changes that are empty are not counted.
    #[must_use]
    pub fn at(mut self, nth: u64, fault: Fault) -> Self {
        self.rules.push((Which::Nth(nth), fault));
        self
    }

    /// The first commit that matches, and no later one.
    #[must_use]
    pub fn first(mut self, matches: impl Fn(&Change) -> bool + Send + Sync + 'static, fault: Fault) -> Self {
        self.rules.push((Which::First(Box::new(matches)), fault));
        self
    }

    /// Every commit that matches.
    #[must_use]
    pub fn every(mut self, matches: impl Fn(&Change) -> bool + Send + Sync + 'static, fault: Fault) -> Self {
        self.rules.push((Which::Every(Box::new(matches)), fault));
        self
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// Counts a commit and says what happens to it.
    pub(crate) fn next(&mut self, change: &Change) -> Option<Fault> {
        self.commits += 1;
        let commit = self.commits;
        let fits = |(which, _): &(Which, Fault)| match which {
            Which::Nth(nth) => *nth == commit,
            Which::First(matches) | Which::Every(matches) => matches(change),
        };
        let at = self.rules.iter().position(fits)?;
        let fault = self.rules[at].1;
        if !matches!(self.rules[at].0, Which::Every(_)) {
            self.rules.remove(at);
        }
        Some(fault)
    }
}
