//! Decisions that a policy has made already.
//!
//! A policy is a pure function of its configuration and of what it reads of the request (PURE-POLICY), and it reads by
//! calls to the host. So what it reads first is always the same; what it reads second depends on the first value alone;
//! and so on. The decisions of one policy with one configuration are a tree: at each branch stands what is read there,
//! each edge is a value, each leaf is an answer. A request that walks to a leaf has its answer without an instance,
//! whatever the policy's language.
//!
//! Not remembered: an answer that depends on the time, a failure, an answer that wrote to the log (the line would be
//! missing the next time), and one that read more than [`MAX_READS`] things.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use jit_core::looked_at::{Field, List, MAX_NAME};
use jit_core::policy::PolicyRequest;
use parking_lot::RwLock;

use crate::policy::PolicyAnswer;

/// The most different reads of a decision that is remembered; the depth of the tree.
const MAX_READS: usize = 64;
/// The most bytes of values and names in one tree. A caller chooses some of the values, so a tree that is full is
/// emptied: whoever fills it costs others speed and nothing else.
const MAX_BYTES: usize = 1 << 20;
/// Bytes that each node counts beside its texts.
const NODE: usize = 200;

/// One thing that a policy can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// A field with one value.
    Field(Field),
    /// One name of a list, whether or not the request has it.
    Name(List, Box<str>),
    /// A whole list.
    All(List),
}

/// What a request has there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Value<'a> {
    Text(Option<Cow<'a, str>>),
    Number(u64),
    Address(Option<IpAddr>),
    Pairs(Cow<'a, BTreeMap<String, String>>),
}

impl Read {
    fn value<'a>(&self, request: &'a PolicyRequest) -> Value<'a> {
        let text = |text: &'a str| Value::Text(Some(Cow::Borrowed(text)));
        let maybe = |text: Option<&'a String>| Value::Text(text.map(|text| Cow::Borrowed(text.as_str())));
        match self {
            Self::Field(Field::Operation) => text(request.operation.as_str()),
            Self::Field(Field::Time) => Value::Number(request.time),
            Self::Field(Field::Workload) => text(&request.workload),
            Self::Field(Field::Issuer) => text(&request.issuer),
            Self::Field(Field::Target) => text(&request.target),
            Self::Field(Field::Role) => text(&request.role),
            Self::Field(Field::Ttl) => Value::Number(request.ttl_seconds),
            Self::Field(Field::Reason) => maybe(request.reason.as_ref()),
            Self::Field(Field::Ticket) => maybe(request.ticket.as_ref()),
            Self::Field(Field::CallerAddress) => Value::Address(request.caller_address),
            Self::Name(list, name) => maybe(list.of(request).get(&**name)),
            Self::All(list) => Value::Pairs(Cow::Borrowed(list.of(request))),
        }
    }
}

impl Value<'_> {
    fn into_owned(self) -> Value<'static> {
        match self {
            Self::Text(text) => Value::Text(text.map(|text| Cow::Owned(text.into_owned()))),
            Self::Number(number) => Value::Number(number),
            Self::Address(address) => Value::Address(address),
            Self::Pairs(pairs) => Value::Pairs(Cow::Owned(pairs.into_owned())),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.as_ref().map_or(0, |text| text.len()),
            Self::Number(_) | Self::Address(_) => 0,
            Self::Pairs(pairs) => pairs.iter().map(|(name, value)| name.len() + value.len() + NODE).sum(),
        }
    }
}

/// What one decision read, each thing once, in the order of its first reading.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    order: Vec<Read>,
    /// It read the time, or more than is remembered.
    too_much: bool,
}

impl Reads {
    pub(crate) fn field(&mut self, field: Field) {
        self.too_much |= field == Field::Time;
        self.note(|read| matches!(read, Read::Field(other) if *other == field), || Read::Field(field));
    }

    pub(crate) fn name(&mut self, list: List, name: &str) {
        self.too_much |= name.len() > MAX_NAME;
        let is_it = |read: &Read| matches!(read, Read::Name(other, its) if *other == list && **its == *name);
        self.note(is_it, || Read::Name(list, name.into()));
    }

    pub(crate) fn all(&mut self, list: List) {
        self.note(|read| matches!(read, Read::All(other) if *other == list), || Read::All(list));
    }

    fn note(&mut self, is_it: impl Fn(&Read) -> bool, read: impl FnOnce() -> Read) {
        if self.too_much || self.order.iter().any(is_it) {
            return;
        }
        self.too_much = self.order.len() == MAX_READS;
        if !self.too_much {
            self.order.push(read());
        }
    }
}

/// A place in the tree.
#[derive(Debug)]
enum Node {
    /// This is read, and the decision goes on with what the request has there.
    Branch { read: Read, next: HashMap<Value<'static>, Node> },
    /// Everything has been read.
    Leaf(PolicyAnswer),
}

/// The remembered decisions of one policy with one configuration.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    tree: RwLock<Tree>,
}

#[derive(Debug, Default)]
struct Tree {
    root: Option<Node>,
    bytes: usize,
}

impl Memory {
    /// The answer, if a request that agrees in all that was read had one.
    pub(crate) fn recall(&self, request: &PolicyRequest) -> Option<PolicyAnswer> {
        let tree = self.tree.read();
        let mut node = tree.root.as_ref()?;
        loop {
            match node {
                Node::Leaf(answer) => return Some(answer.clone()),
                Node::Branch { read, next } => node = next.get(&read.value(request))?,
            }
        }
    }

    /// Takes a decision in, unless it is of a kind that is not remembered.
    pub(crate) fn learn(&self, reads: Reads, request: &PolicyRequest, answer: &PolicyAnswer) {
        if reads.too_much || answer.verdict.is_err() {
            return;
        }
        let mut tree = self.tree.write();
        let size = size(&reads, request, answer);
        if size > MAX_BYTES / 8 {
            return;
        }
        if tree.bytes + size > MAX_BYTES {
            *tree = Tree::default();
        }
        tree.bytes += size;
        if !insert(&mut tree.root, reads.order, request, answer) {
            // The same values, and something else was read: the policy is not what the tree takes it for. None of the
            // tree can be believed.
            *tree = Tree::default();
        }
    }
}

/// What a decision adds to a tree, at most.
fn size(reads: &Reads, request: &PolicyRequest, answer: &PolicyAnswer) -> usize {
    // Each is in the tree and in what the answer looked at.
    let of_read = |read: &Read| match read {
        Read::Name(_, name) => 2 * (name.len() + NODE),
        Read::Field(_) | Read::All(_) => 2 * NODE,
    };
    let reads: usize = reads.order.iter().map(|read| of_read(read) + read.value(request).bytes()).sum();
    let verdict = answer.verdict.as_ref().map_or(0, |verdict| match verdict {
        jit_core::policy::Verdict::Deny(reason) => reason.len(),
        jit_core::policy::Verdict::Allow(allowance) => {
            let labels: usize = allowance.labels.iter().map(|(name, value)| name.len() + value.len() + NODE).sum();
            allowance.reason.len() + labels + NODE
        }
    });
    reads + verdict + NODE
}

/// Whether the decision fits into the tree.
fn insert(root: &mut Option<Node>, reads: Vec<Read>, request: &PolicyRequest, answer: &PolicyAnswer) -> bool {
    let mut reads = reads.into_iter();
    let Some(first) = reads.next() else {
        return match root {
            None => {
                *root = Some(Node::Leaf(answer.clone()));
                true
            }
            Some(Node::Leaf(_)) => true,
            Some(Node::Branch { .. }) => false,
        };
    };
    let mut node = root.get_or_insert_with(|| Node::Branch { read: first.clone(), next: HashMap::new() });
    let mut reading = first;
    loop {
        let Node::Branch { read, next } = node else { return false };
        if *read != reading {
            return false;
        }
        let value = read.value(request).into_owned();
        let Some(following) = reads.next() else {
            return matches!(next.entry(value).or_insert_with(|| Node::Leaf(answer.clone())), Node::Leaf(_));
        };
        node = next.entry(value).or_insert_with(|| Node::Branch { read: following.clone(), next: HashMap::new() });
        reading = following;
    }
}

#[cfg(test)]
mod tests;
