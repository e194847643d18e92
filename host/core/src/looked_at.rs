//! What a policy looked at while it decided. The host notes every read, so that a decision says by itself what
//! it depended on: two requests that agree in all of it get the same decision from the same policy
//! (PURE-POLICY).
//!
//! Bounded whatever a guest reads: of each list the host notes up to [`MAX_NAMES`] names of up to [`MAX_NAME`]
//! bytes of printable ASCII. Beyond that it notes the whole list, which says more than was read and never less.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::PolicyRequest;

/// The most names of one list that are noted one by one.
pub const MAX_NAMES: usize = 32;
/// The longest name that is noted, in bytes.
pub const MAX_NAME: usize = 256;

/// A field with one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// What is to be done.
    Operation,
    /// When.
    Time,
    /// Who asks.
    Workload,
    /// Who vouches for it.
    Issuer,
    /// Of which target.
    Target,
    /// Which role.
    Role,
    /// For how long.
    Ttl,
    /// The caller's reason.
    Reason,
    /// The caller's ticket.
    Ticket,
    /// Where the caller connects from.
    CallerAddress,
}

impl Field {
    /// Its name in the recorded input.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Time => "time",
            Self::Workload => "workload",
            Self::Issuer => "issuer",
            Self::Target => "target",
            Self::Role => "role",
            Self::Ttl => "ttl_seconds",
            Self::Reason => "reason",
            Self::Ticket => "ticket",
            Self::CallerAddress => "caller_address",
        }
    }

    fn agrees(self, one: &PolicyRequest, other: &PolicyRequest) -> bool {
        match self {
            Self::Operation => one.operation == other.operation,
            Self::Time => one.time == other.time,
            Self::Workload => one.workload == other.workload,
            Self::Issuer => one.issuer == other.issuer,
            Self::Target => one.target == other.target,
            Self::Role => one.role == other.role,
            Self::Ttl => one.ttl_seconds == other.ttl_seconds,
            Self::Reason => one.reason == other.reason,
            Self::Ticket => one.ticket == other.ticket,
            Self::CallerAddress => one.caller_address == other.caller_address,
        }
    }
}

/// A field with names and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// Attributes of the identity.
    Attributes,
    /// What the caller attached.
    Metadata,
    /// Counts and facts of context providers.
    Facts,
    /// What the operation is about.
    Resource,
}

impl List {
    /// The list in a request.
    #[must_use]
    pub fn of(self, request: &PolicyRequest) -> &BTreeMap<String, String> {
        match self {
            Self::Attributes => &request.attributes,
            Self::Metadata => &request.metadata,
            Self::Facts => &request.facts,
            Self::Resource => &request.resource,
        }
    }

    /// The word for the whole list: its name in the recorded input.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attributes => "attributes",
            Self::Metadata => "metadata",
            Self::Facts => "facts",
            Self::Resource => "resource",
        }
    }

    /// The word before one of its names.
    fn one(self) -> &'static str {
        match self {
            Self::Attributes => "attribute",
            Self::Facts => "fact",
            Self::Metadata | Self::Resource => self.as_str(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    Some(BTreeSet<String>),
    All,
}

/// What one decision looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LookedAt {
    fields: BTreeSet<Field>,
    lists: BTreeMap<List, Names>,
}

impl LookedAt {
    /// Notes that a field was read.
    pub fn note(&mut self, field: Field) {
        self.fields.insert(field);
    }

    /// Notes that one name of a list was read, whether or not the request has it.
    pub fn note_name(&mut self, list: List, name: &str) {
        let entry = self.lists.entry(list).or_insert_with(|| Names::Some(BTreeSet::new()));
        let Names::Some(names) = entry else { return };
        if names.contains(name) {
            return;
        }
        // Records and terminals show the name, so nothing in it may be able to deceive them.
        let plain = name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let fit = plain && (1..=MAX_NAME).contains(&name.len());
        if fit && names.len() < MAX_NAMES {
            names.insert(name.to_owned());
        } else {
            *entry = Names::All;
        }
    }

    /// Notes that a whole list was read.
    pub fn note_all(&mut self, list: List) {
        self.lists.insert(list, Names::All);
    }

    /// As records and people read it: the fields in the contract's order, then each list with its names in
    /// alphabetical order (`["role", "attribute env", "facts"]`).
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.fields.iter().map(|field| field.as_str().to_owned()).collect();
        for (list, names) in &self.lists {
            match names {
                Names::All => words.push(list.as_str().to_owned()),
                Names::Some(names) => words.extend(names.iter().map(|name| format!("{} {name}", list.one()))),
            }
        }
        words
    }

    /// Whether two requests have the same values in everything that was looked at. Then the decision is the same.
    #[must_use]
    pub fn agree(&self, one: &PolicyRequest, other: &PolicyRequest) -> bool {
        self.fields.iter().all(|field| field.agrees(one, other))
            && self.lists.iter().all(|(list, names)| match names {
                Names::All => list.of(one) == list.of(other),
                Names::Some(names) => names.iter().all(|name| list.of(one).get(name) == list.of(other).get(name)),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::request;

    #[test]
    fn words_are_in_one_order_whatever_was_read_first() {
        let mut looked_at = LookedAt::default();
        assert_eq!(looked_at.words(), Vec::<String>::new());
        looked_at.note_name(List::Facts, "usage.workload.leases");
        looked_at.note_name(List::Attributes, "team");
        looked_at.note_name(List::Attributes, "env");
        looked_at.note_name(List::Attributes, "team");
        looked_at.note(Field::Role);
        looked_at.note(Field::Operation);
        looked_at.note_all(List::Resource);
        let words = ["operation", "role", "attribute env", "attribute team", "fact usage.workload.leases", "resource"];
        assert_eq!(looked_at.words(), words);
    }

    #[test]
    fn what_cannot_be_noted_by_name_is_noted_as_the_whole_list() {
        for name in ["x".repeat(MAX_NAME + 1), String::new(), "a\nb".into(), "a\u{202e}b".into(), "x".repeat(1 << 20)] {
            let mut looked_at = LookedAt::default();
            looked_at.note_name(List::Metadata, "build");
            looked_at.note_name(List::Metadata, &name);
            looked_at.note_name(List::Metadata, "build");
            assert_eq!(looked_at.words(), ["metadata"]);
        }
        let mut many = LookedAt::default();
        for number in 0..MAX_NAMES {
            many.note_name(List::Attributes, &format!("a{number}"));
        }
        assert_eq!(many.words().len(), MAX_NAMES);
        many.note_name(List::Attributes, "a0");
        assert_eq!(many.words().len(), MAX_NAMES, "a name that is noted already takes no room");
        many.note_name(List::Attributes, "one more");
        assert_eq!(many.words(), ["attributes"]);
    }

    #[test]
    fn requests_agree_in_what_was_looked_at_and_may_differ_elsewhere() {
        let mut looked_at = LookedAt::default();
        looked_at.note(Field::Role);
        looked_at.note_name(List::Attributes, "env");
        let one = PolicyRequest { attributes: [("env".to_owned(), "prod".to_owned())].into(), ..request() };
        let mut other = PolicyRequest { workload: "other".into(), time: 1, ..one.clone() };
        other.attributes.insert("team".into(), "x".into());
        assert!(looked_at.agree(&one, &other));
        assert!(!looked_at.agree(&one, &PolicyRequest { role: "owner".into(), ..one.clone() }));
        assert!(!looked_at.agree(&one, &PolicyRequest { attributes: BTreeMap::new(), ..one.clone() }));
        looked_at.note_all(List::Attributes);
        assert!(!looked_at.agree(&one, &other));
    }
}
