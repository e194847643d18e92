//! The Merkle tree over the audit log (RFC 6962, RFC 9162 §2.1).
//!
//! A leaf is SHA-256(0x00 ‖ record), a node SHA-256(0x01 ‖ left ‖ right): the two prefixes keep a
//! node from being passed off as a record. [`CompactRange`] is what a log that only grows has to
//! remember: the roots of its perfect subtrees, at most 64 of them.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest of the tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Its length in bytes.
    pub const BYTES: usize = 32;

    /// The root of a tree without leaves: SHA-256 of nothing.
    #[must_use]
    pub fn of_empty_tree() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// The leaf of one record.
    #[must_use]
    pub fn of_leaf(record: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(record).finalize().into())
    }

    /// The node over two subtrees.
    #[must_use]
    pub fn of_node(left: Self, right: Self) -> Self {
        Self(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
    }

    /// The digest's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From exactly [`Hash::BYTES`] bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The state of a growing tree: the roots of its perfect subtrees, the largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactRange {
    size: u64,
    nodes: Vec<Hash>,
}

/// The number of subtrees does not fit the size: one per bit set in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tree of {size} leaves has {} perfect subtrees, not {nodes}", size.count_ones())]
pub struct RangeError {
    /// The size that was given.
    pub size: u64,
    /// How many subtrees were given.
    pub nodes: usize,
}

impl CompactRange {
    /// A tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From what [`CompactRange::size`] and [`CompactRange::nodes`] gave. That the nodes are right
    /// shows only when their root is compared with a signed one.
    ///
    /// # Errors
    /// When the number of nodes does not fit the size.
    pub fn from_parts(size: u64, nodes: Vec<Hash>) -> Result<Self, RangeError> {
        if u64::from(size.count_ones()) == nodes.len() as u64 {
            Ok(Self { size, nodes })
        } else {
            Err(RangeError { size, nodes: nodes.len() })
        }
    }

    /// How many leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect subtrees, the largest first.
    #[must_use]
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// Adds a leaf at the end: O(log n) at worst, two hashes on average.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        // Each low bit set in the size is a subtree as large as what was just made: join them.
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.nodes.pop() else { break };
            node = Hash::of_node(left, node);
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// The root as of now.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev().copied();
        let Some(last) = nodes.next() else { return Hash::of_empty_tree() };
        nodes.fold(last, |right, left| Hash::of_node(left, right))
    }
}

impl Extend<Hash> for CompactRange {
    fn extend<I: IntoIterator<Item = Hash>>(&mut self, leaves: I) {
        leaves.into_iter().for_each(|leaf| self.push(leaf));
    }
}

/// The root over these leaves.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    let mut range = CompactRange::new();
    range.extend(leaves.iter().copied());
    range.root()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// RFC 6962 §2.1, word by word.
    fn naive(records: &[Vec<u8>]) -> Hash {
        match records {
            [] => Hash::of_empty_tree(),
            [one] => Hash::of_leaf(one),
            more => {
                let mut k = 1;
                while k * 2 < more.len() {
                    k *= 2;
                }
                Hash::of_node(naive(&more[..k]), naive(&more[k..]))
            }
        }
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|n| Hash::of_leaf(&n.to_be_bytes())).collect()
    }

    /// The test tree of the Certificate Transparency project.
    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let records: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut range = CompactRange::new();
        for (size, expected) in roots.iter().enumerate() {
            assert_eq!(range.root().to_string(), *expected, "{size} leaves");
            if let Some(record) = records.get(size) {
                range.push(Hash::of_leaf(record));
            }
        }
    }

    #[test]
    fn a_range_has_one_node_for_each_bit_of_its_size() {
        let all = leaves(5);
        assert_eq!(CompactRange::from_parts(5, vec![all[0]]), Err(RangeError { size: 5, nodes: 1 }));
        assert!(CompactRange::from_parts(5, vec![all[0], all[1]]).is_ok());
    }

    proptest! {
        #[test]
        fn grows_to_the_same_root_as_the_definition(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..120)) {
            let mut range = CompactRange::new();
            for (size, record) in records.iter().enumerate() {
                prop_assert_eq!(range.root(), naive(&records[..size]));
                range.push(Hash::of_leaf(record));
                // What is stored and loaded again grows on the same.
                range = CompactRange::from_parts(range.size(), range.nodes().to_vec()).unwrap();
            }
            prop_assert_eq!(range.root(), naive(&records));
        }
    }
}
