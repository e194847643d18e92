//! What all decisions come to: counts, and flips grouped so that a person can read them.
//!
//! Groups are bounded: reasons may hold numbers and times, and a log has no end. Digits do not tell
//! groups apart, and beyond a bound decisions are only counted.

use std::collections::BTreeMap;

use serde::Serialize;

use super::comparison::Effect;
use super::record::{Reference, Unfit};

/// Groups that are kept apart.
const MOST_GROUPS: usize = 10_000;
/// Examples of a group.
const MOST_EXAMPLES: usize = 3;
/// The longest text of a group, in bytes: a record of a hostile file may have any.
const MOST_TEXT: usize = 400;

/// What is grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A yes would be a no.
    AllowToDeny,
    /// A no would be a yes.
    DenyToAllow,
    /// A yes with another role or length.
    Changed,
    /// The candidate does not answer.
    CandidateFailed,
    /// The same bytes answer otherwise than is recorded.
    NotReproduced,
}

impl Kind {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowToDeny => "allow → deny",
            Self::DenyToAllow => "deny → allow",
            Self::Changed => "changed",
            Self::CandidateFailed => "candidate failed",
            Self::NotReproduced => "NOT REPRODUCED",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: Kind,
    workload: String,
    target: String,
    policy: String,
    /// Without its digits.
    reason: String,
}

/// Decisions that are alike.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// What would happen to them.
    pub kind: Kind,
    /// Whose.
    pub workload: String,
    /// Of which target.
    pub target: String,
    /// Whose doing it is: who would deny, who denied, or the candidate.
    pub policy: String,
    /// Why; `#` where the numbers in it differ.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<Reference>,
}

/// Decisions that cannot be replayed, by the reason.
#[derive(Debug, Clone, Serialize)]
pub struct UnfitGroup {
    /// Why.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<Reference>,
}

/// How many of what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Decisions in the log, within the filters.
    pub decisions: u64,
    /// Of those: whose chain the candidate is in, and which could be replayed.
    pub replayed: u64,
    /// Replayed, and nothing would be different.
    pub unchanged: u64,
    /// Replayed, and a yes would be a no.
    pub allow_to_deny: u64,
    /// Replayed, and a no would be a yes.
    pub deny_to_allow: u64,
    /// Replayed, and a yes would be of another role or length.
    pub changed: u64,
    /// Replayed, and the candidate did not answer, which denies.
    pub candidate_failed: u64,
    /// Of chains without the policy that the candidate replaces.
    pub not_concerned: u64,
    /// Not to be replayed, for the reasons given.
    pub not_replayable: u64,
    /// Recorded answers of the same bytes as a policy here.
    pub same_bytes: u64,
    /// Of those, answered otherwise.
    pub not_reproduced: u64,
    /// Recorded answers of other bytes, which cannot be held against anything.
    pub other_bytes: u64,
}

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How many of what.
    pub totals: Totals,
    groups: BTreeMap<Key, Group>,
    unfit: BTreeMap<Unfit, (u64, Vec<Reference>)>,
    /// Decisions beyond the bound of groups.
    ungrouped: u64,
}

impl Tally {
    /// A decision that cannot be replayed.
    pub fn unfit(&mut self, unfit: Unfit, at: Reference) {
        self.totals.decisions += 1;
        self.totals.not_replayable += 1;
        let (count, examples) = self.unfit.entry(unfit).or_default();
        *count += 1;
        keep(examples, at);
    }

    /// What the candidate would have done to a decision. `candidate` is its name.
    pub fn effect(&mut self, effect: Effect, at: &Reference, workload: &str, target: &str, candidate: &str) {
        let totals = &mut self.totals;
        totals.decisions += 1;
        if effect == Effect::NotConcerned {
            totals.not_concerned += 1;
            return;
        }
        totals.replayed += 1;
        let (count, kind, policy, reason) = match effect {
            Effect::NotConcerned | Effect::Unchanged => {
                totals.unchanged += 1;
                return;
            }
            Effect::AllowToDeny { policy, reason } => (&mut totals.allow_to_deny, Kind::AllowToDeny, policy, reason),
            Effect::DenyToAllow { policy, reason } => (&mut totals.deny_to_allow, Kind::DenyToAllow, policy, reason),
            Effect::Changed(what) => (&mut totals.changed, Kind::Changed, candidate.to_owned(), what),
            Effect::Failed(why) => (&mut totals.candidate_failed, Kind::CandidateFailed, candidate.to_owned(), why),
        };
        *count += 1;
        self.group(kind, [workload, target, &policy, &reason], at);
    }

    /// An answer that is not the recorded one, though the bytes are the same.
    pub fn not_reproduced(&mut self, at: &Reference, workload: &str, target: &str, policy: &str, difference: &str) {
        self.totals.not_reproduced += 1;
        self.group(Kind::NotReproduced, [workload, target, policy, difference], at);
    }

    fn group(&mut self, kind: Kind, texts: [&str; 4], at: &Reference) {
        let [workload, target, policy, reason] = texts.map(|text| jit_runtime::text::escape(text, MOST_TEXT));
        let key = Key { kind, workload, target, policy, reason: without_digits(&reason) };
        let group = Group {
            kind,
            workload: key.workload.clone(),
            target: key.target.clone(),
            policy: key.policy.clone(),
            reason,
            count: 1,
            examples: vec![escaped(at)],
        };
        self.add(key, group);
    }

    fn add(&mut self, key: Key, group: Group) {
        if let Some(known) = self.groups.get_mut(&key) {
            if known.reason != group.reason {
                known.reason.clone_from(&key.reason);
            }
            known.count += group.count;
            group.examples.into_iter().for_each(|at| keep(&mut known.examples, at));
        } else if self.groups.len() < MOST_GROUPS {
            self.groups.insert(key, group);
        } else {
            self.ungrouped += group.count;
        }
    }

    /// Adds what another saw.
    pub fn merge(&mut self, other: Self) {
        let (mine, theirs) = (&mut self.totals, other.totals);
        for (mine, theirs) in [
            (&mut mine.decisions, theirs.decisions),
            (&mut mine.replayed, theirs.replayed),
            (&mut mine.unchanged, theirs.unchanged),
            (&mut mine.allow_to_deny, theirs.allow_to_deny),
            (&mut mine.deny_to_allow, theirs.deny_to_allow),
            (&mut mine.changed, theirs.changed),
            (&mut mine.candidate_failed, theirs.candidate_failed),
            (&mut mine.not_concerned, theirs.not_concerned),
            (&mut mine.not_replayable, theirs.not_replayable),
            (&mut mine.same_bytes, theirs.same_bytes),
            (&mut mine.not_reproduced, theirs.not_reproduced),
            (&mut mine.other_bytes, theirs.other_bytes),
        ] {
            *mine += theirs;
        }
        self.ungrouped += other.ungrouped;
        for (key, group) in other.groups {
            self.add(key, group);
        }
        for (unfit, (count, examples)) in other.unfit {
            let mine = self.unfit.entry(unfit).or_default();
            mine.0 += count;
            examples.into_iter().for_each(|at| keep(&mut mine.1, at));
        }
    }

    /// For people and programs: groups with the most decisions first, at most `limit` of them.
    #[must_use]
    pub fn report(self, limit: usize) -> Report {
        let mut groups: Vec<Group> = self.groups.into_values().collect();
        // Within the same count as they were sorted: by kind, workload, target.
        groups.sort_by_key(|group| std::cmp::Reverse((group.kind == Kind::NotReproduced, group.count)));
        let left_out = groups.split_off(limit.min(groups.len()));
        Report {
            totals: self.totals,
            groups,
            left_out_groups: left_out.len() as u64,
            left_out_decisions: left_out.iter().map(|group| group.count).sum::<u64>() + self.ungrouped,
            not_replayable: self
                .unfit
                .into_iter()
                .map(|(unfit, (count, examples))| UnfitGroup { reason: unfit.as_str(), count, examples })
                .collect(),
        }
    }
}

/// What is printed.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How many of what.
    pub totals: Totals,
    /// What would be different, most first.
    pub groups: Vec<Group>,
    /// Groups that are not among them.
    pub left_out_groups: u64,
    /// Their decisions.
    pub left_out_decisions: u64,
    /// What could not be replayed.
    pub not_replayable: Vec<UnfitGroup>,
}

impl Report {
    /// Whether the candidate would change who gets something.
    #[must_use]
    pub fn flips(&self) -> bool {
        let Totals { allow_to_deny, deny_to_allow, candidate_failed, .. } = self.totals;
        allow_to_deny + deny_to_allow + candidate_failed > 0
    }
}

/// Keeps the first ones of the log.
fn keep(examples: &mut Vec<Reference>, at: Reference) {
    let place = examples.partition_point(|known| *known <= at);
    if place < MOST_EXAMPLES {
        examples.insert(place, at);
        examples.truncate(MOST_EXAMPLES);
    }
}

fn escaped(at: &Reference) -> Reference {
    let request_id = at.request_id.as_ref().map(|id| jit_runtime::text::escape(id, MOST_TEXT));
    Reference { seq: at.seq, request_id }
}

/// Each run of digits as one `#`.
fn without_digits(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Reference {
        Reference { seq, request_id: Some(format!("req_{seq}")) }
    }

    fn denied(tally: &mut Tally, seq: u64, workload: &str, reason: &str) {
        let effect = Effect::AllowToDeny { policy: "hours".into(), reason: reason.into() };
        tally.effect(effect, &at(seq), workload, "inventory_db", "hours");
    }

    #[test]
    fn flips_are_grouped_most_first_whoever_saw_them() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        denied(&mut one, 9, "a", "it is 22:31");
        denied(&mut one, 4, "b", "it is 22:31");
        denied(&mut other, 2, "a", "it is 03:05");
        for seq in [7, 3, 5] {
            denied(&mut other, seq, "a", "it is 03:05");
        }
        other.effect(Effect::Unchanged, &at(1), "c", "t", "hours");
        other.effect(Effect::NotConcerned, &at(1), "c", "t", "hours");
        other.unfit(Unfit::NoInput, at(8));
        one.merge(other);
        let report = one.report(1);
        assert_eq!(
            report.totals,
            Totals {
                decisions: 9,
                replayed: 7,
                unchanged: 1,
                allow_to_deny: 6,
                not_concerned: 1,
                not_replayable: 1,
                ..Totals::default()
            }
        );
        let group = &report.groups[0];
        assert_eq!((group.workload.as_str(), group.count, group.reason.as_str()), ("a", 5, "it is #:#"));
        assert_eq!(group.examples.iter().map(|at| at.seq).collect::<Vec<_>>(), [2, 3, 5]);
        assert_eq!((report.left_out_groups, report.left_out_decisions), (1, 1));
        assert!(report.flips() && report.not_replayable[0].count == 1);
    }

    #[test]
    fn a_single_reason_is_shown_as_it_is_and_made_safe() {
        let mut tally = Tally::default();
        denied(&mut tally, 1, "a\u{1b}[31m", "it is 22:31");
        let report = tally.report(20);
        assert_eq!(report.groups[0].reason, "it is 22:31");
        assert!(!report.groups[0].workload.contains('\u{1b}'));
    }

    #[test]
    fn groups_are_bounded() {
        let mut tally = Tally::default();
        for number in 0..MOST_GROUPS + 50 {
            let name: String = format!("{number:x}").replace(|c: char| c.is_ascii_digit(), "z");
            denied(&mut tally, number as u64, &format!("{name}-{number}"), "no");
        }
        assert_eq!(tally.groups.len(), MOST_GROUPS);
        let report = tally.report(20);
        assert_eq!(report.left_out_decisions, (MOST_GROUPS + 50 - 20) as u64);
    }
}
