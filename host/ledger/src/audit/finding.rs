//! What can be wrong with a log.

use std::fmt;

use jit_tlog::checkpoint::NoteError;

/// Which checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The newest one.
    Latest,
    /// One of the history, filed under that size.
    History(i64),
    /// The one that was kept elsewhere.
    Kept,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the newest checkpoint"),
            Self::History(size) => write!(f, "the earlier checkpoint at {size} records"),
            Self::Kept => f.write_str("the checkpoint that was kept elsewhere"),
        }
    }
}

/// Something wrong with the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The record is not the one that its leaf was made of.
    #[error("record {seq} was altered")]
    Altered {
        /// Its number.
        seq: u64,
    },
    /// The record is not there, and later ones are.
    #[error("record {seq} is missing")]
    Missing {
        /// Its number.
        seq: u64,
    },
    /// A record that no checkpoint is about.
    #[error(
        "record {seq} was inserted: no checkpoint covers it (an interrupted export looks the same until it continues)"
    )]
    Inserted {
        /// The first such record's number.
        seq: u64,
    },
    /// Another record stands in its place.
    #[error("record {found} is where record {seq} should be: the records were reordered or renumbered")]
    Reordered {
        /// The place.
        seq: u64,
        /// The number of the record there.
        found: u64,
    },
    /// The records at the end are not there.
    #[error("the log was truncated: {found} records are left of at least {expected}")]
    Truncated {
        /// How many there are.
        found: u64,
        /// How many a checkpoint is about.
        expected: u64,
    },
    /// Each record fits its leaf, but together they are not what was signed.
    #[error("at least one of the records {after} to {} is not what was signed: it was altered, inserted, or removed together with its leaf", before.saturating_sub(1))]
    Rewritten {
        /// Up to here the log is what was signed.
        after: u64,
        /// The size at which it no longer is.
        before: u64,
    },
    /// Two checkpoints of the same size, both signed with the key, are about different records.
    #[error(
        "two signed checkpoints disagree about the first {size} records: the log was rolled back and extended differently, or rewritten with the signing key"
    )]
    Forked {
        /// The size.
        size: u64,
    },
    /// A checkpoint cannot be trusted.
    #[error("{which} is not valid: {error}")]
    Signature {
        /// Which.
        which: Which,
        /// Why.
        error: NoteError,
    },
    /// The checkpoint is about records that were not read.
    #[error(
        "the checkpoint that was kept elsewhere covers {size} records, and those are archived: name their folder with --archive"
    )]
    NeedsArchive {
        /// How many.
        size: u64,
    },
    /// The segments are not what the store says was archived.
    #[error("the archived records before {size} are not those that left the store")]
    OtherArchive {
        /// How many were archived.
        size: u64,
    },
    /// There are records, or an earlier checkpoint, and no newest one.
    #[error("the newest checkpoint is missing")]
    Unsigned,
}
