//! Verification of the audit log without the broker: every record, every leaf, every root, every
//! signature is computed again.
//!
//! What it can show: that the records are exactly those that the signed checkpoints are about.
//! What it cannot: that the log was not cut back together with its checkpoints, or written anew by
//! somebody with the key. That takes a checkpoint kept elsewhere ([`Options::kept`]).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use jit_tlog::checkpoint::{Checkpoint, NoteError, VerifierKey};
use jit_tlog::merkle::{CompactRange, Hash};

use super::archive;
use super::export_file::checkpoint_path;
use super::scan::{Found, Scan};
use super::sources::{Lines, Reader, read_note};
use crate::store::log::LogError;
use crate::store::schema::SchemaError;

/// What is verified.
#[derive(Debug, Clone)]
pub enum Source {
    /// The store's database file. It is only read, and the broker may be running.
    Database(PathBuf),
    /// An export as JSON lines.
    Export {
        /// The lines.
        records: PathBuf,
        /// The checkpoint; none: `<records>.checkpoint`, as the export writes it.
        checkpoint: Option<PathBuf>,
    },
}

/// What is verified against what.
#[derive(Debug, Clone)]
pub struct Options {
    /// The log.
    pub source: Source,
    /// The key that is trusted.
    pub verifier: VerifierKey,
    /// The signed note of a checkpoint that was kept elsewhere.
    pub kept: Option<String>,
    /// The folder of the archived segments; none leaves them unread, and begins where the store does.
    pub archive: Option<PathBuf>,
}

/// How far verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Records checked.
    pub done: u64,
    /// Records that the checkpoint speaks of; 0 when that is not known.
    pub total: u64,
}

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
        "record {seq} was inserted: no checkpoint is about it (an export that was interrupted looks the same until it goes on)"
    )]
    Inserted {
        /// The first such record's number.
        seq: u64,
    },
    /// Another record stands in its place.
    #[error("in the place of record {seq} stands record {found}: the records were reordered or renumbered")]
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
    #[error("among the records {after} to {} at least one is not what was signed: altered, inserted or removed together with its leaf", before.saturating_sub(1))]
    Rewritten {
        /// Up to here the log is what was signed.
        after: u64,
        /// The size at which it no longer is.
        before: u64,
    },
    /// Two checkpoints of the same size, both signed with the key, are about different records.
    #[error(
        "two signed checkpoints disagree about the first {size} records: the log was set back and gone on with otherwise, or written anew with the key"
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
        "the checkpoint that was kept elsewhere is about {size} records, and those are archived: --archive names the folder"
    )]
    NeedsArchive {
        /// How many.
        size: u64,
    },
    /// The segments are not what the store says was archived.
    #[error("the archived records before {size} are not those that the store let go of")]
    OtherArchive {
        /// How many were archived.
        size: u64,
    },
    /// There are records, or an earlier checkpoint, and no newest one.
    #[error("the newest checkpoint is missing")]
    Unsigned,
}

/// What verification found.
#[derive(Debug, Clone)]
pub struct Report {
    /// How many records are in order, from the first on.
    pub records: u64,
    /// The root over them.
    pub root: Hash,
    /// The newest checkpoint, if its signature is valid.
    pub checkpoint: Option<Checkpoint>,
    /// How many of them are archived and were not read: that they are as signed rests on the tree over them.
    pub unread: u64,
    /// How many checkpoints agreed with the records.
    pub checkpoints: u64,
    /// What is wrong: checkpoints first, then the first thing that is wrong with the records.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file system said no.
    #[error("the file {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Not a store, or one of a newer release.
    #[error("the store")]
    Schema(#[from] SchemaError),
    /// The write-ahead log has records that cannot be read here.
    #[error(
        "the write-ahead log of {} cannot be read here: copy the file together with its -wal to a folder \
         that can be written to", .0.display()
    )]
    WriteAheadLog(PathBuf),
    /// What the store says of its archive is unreadable.
    #[error("the store")]
    Log(#[from] LogError),
    /// The database said no.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// How often verification begins again because a running broker archived what was being read.
const AGAIN: usize = 3;

/// Verifies the whole log. `progress` is called now and then. Reading blocks the thread: this is
/// for a command, not for the serving broker.
///
/// # Errors
/// [`VerifyError`] when the log could not be read; what is wrong with it is in the [`Report`].
pub async fn verify(options: &Options, mut progress: impl FnMut(Progress)) -> Result<Report, VerifyError> {
    let mut tries = 0;
    loop {
        let mut reader = Reader::open(&options.source).await?;
        let frontier = reader.frontier().await?;
        let archived = frontier.size();
        let report = verify_from(options, &mut reader, frontier, &mut progress).await?;
        tries += 1;
        if report.is_intact() || tries == AGAIN || reader.frontier().await?.size() == archived {
            return Ok(report);
        }
    }
}

async fn verify_from(
    options: &Options,
    reader: &mut Reader,
    frontier: CompactRange,
    mut progress: impl FnMut(Progress),
) -> Result<Report, VerifyError> {
    let mut findings = Vec::new();
    let mut unread = 0;
    let mut scan = match &options.archive {
        Some(folder) => {
            let mut scan = Scan::default();
            findings.extend(read_archive(options, folder, &frontier, &mut scan)?);
            if !findings.is_empty() {
                let (records, root) = (scan.size(), scan.root());
                return Ok(Report { records, root, checkpoint: None, unread, checkpoints: scan.checked(), findings });
            }
            scan
        }
        None => {
            unread = frontier.size();
            Scan::after(frontier)
        }
    };
    let mut tail = reader.tail().await?;
    let mut latest = open_latest(options, &tail.note, &mut findings);
    expect(&mut scan, latest.as_ref(), &mut findings);
    read_history(reader, options, &mut scan, &mut findings).await?;
    if let Some(note) = &options.kept {
        match options.verifier.open(note) {
            Ok(checkpoint) if checkpoint.size < scan.size() => {
                let size = checkpoint.size;
                // With the archive it was checked on the way.
                if unread > 0 {
                    findings.push(Finding::NeedsArchive { size });
                }
            }
            Ok(checkpoint) => expect(&mut scan, Some(&checkpoint), &mut findings),
            Err(error) => findings.push(Finding::Signature { which: Which::Kept, error }),
        }
    }
    if latest.is_none() && tail.note.is_none() && (tail.records > 0 || scan.promised() > 0) {
        findings.push(Finding::Unsigned);
    }

    // Twice at most: a running broker has added records and a newer checkpoint meanwhile.
    for round in 0..2 {
        let until = latest.as_ref().map_or(u64::MAX, |checkpoint| checkpoint.size);
        let total = latest.as_ref().map_or(0, |checkpoint| checkpoint.size);
        if let Some(finding) = read_records(reader, &mut scan, until, |done| progress(Progress { done, total })).await?
        {
            findings.push(finding);
            break;
        }
        if scan.size() < scan.promised() {
            findings.push(Finding::Truncated { found: scan.size(), expected: scan.promised() });
            break;
        }
        let Some(size) = latest.as_ref().map(|checkpoint| checkpoint.size) else { break };
        let before = std::mem::replace(&mut tail, reader.tail().await?);
        if tail.note != before.note && round == 0 {
            latest = open_latest(options, &tail.note, &mut findings);
            expect(&mut scan, latest.as_ref(), &mut findings);
            continue;
        }
        if tail.note == before.note && tail.records > size {
            findings.push(Finding::Inserted { seq: size });
        }
        break;
    }
    let (records, root) = (scan.size(), scan.root());
    Ok(Report { records, root, checkpoint: latest, unread, checkpoints: scan.checked(), findings })
}

/// Reads the archived records, segment by segment, and each one's checkpoint; returns the first thing that is
/// wrong. They have to come to the tree that the store goes on from.
fn read_archive(
    options: &Options,
    folder: &Path,
    frontier: &CompactRange,
    scan: &mut Scan,
) -> Result<Option<Finding>, VerifyError> {
    let failed = |source| VerifyError::File { path: folder.to_owned(), source };
    let segments = archive::segments(folder).map_err(failed)?;
    // Before any record: a kept checkpoint within the archive is checked on the way.
    if let Some(Ok(kept)) = options.kept.as_ref().map(|note| options.verifier.open(note))
        && let Err(finding) = scan.expect(kept.size, kept.root)
    {
        return Ok(Some(finding));
    }
    while scan.size() < frontier.size() {
        let from = scan.size();
        // What a crash left is there again, perhaps with another end.
        let next = segments.iter().filter(|segment| segment.from == from && segment.to <= frontier.size());
        let Some(segment) = next.max_by_key(|segment| segment.to) else {
            return Ok(Some(Finding::Missing { seq: from }));
        };
        let mut lines = Lines::open(&segment.path)?;
        while scan.size() < segment.to {
            let Some(record) = lines.next()? else {
                return Ok(Some(Finding::Truncated { found: scan.size(), expected: segment.to }));
            };
            if let Err(finding) = scan.record(&Found { row: None, record, leaf: None }) {
                return Ok(Some(finding));
            }
        }
        let Some(note) = read_note(&checkpoint_path(&segment.path))? else { continue };
        let agrees = match options.verifier.open(&note) {
            Ok(checkpoint) if checkpoint.size == scan.size() => scan.expect(checkpoint.size, checkpoint.root),
            Ok(_) => Err(Finding::OtherArchive { size: scan.size() }),
            Err(error) => {
                let size = i64::try_from(scan.size()).unwrap_or(i64::MAX);
                Err(Finding::Signature { which: Which::History(size), error })
            }
        };
        if let Err(finding) = agrees {
            return Ok(Some(finding));
        }
    }
    Ok((!scan.is_at(frontier)).then(|| Finding::OtherArchive { size: frontier.size() }))
}

fn open_latest(options: &Options, note: &Option<String>, findings: &mut Vec<Finding>) -> Option<Checkpoint> {
    match options.verifier.open(note.as_ref()?) {
        Ok(checkpoint) => Some(checkpoint),
        Err(error) => {
            findings.push(Finding::Signature { which: Which::Latest, error });
            None
        }
    }
}

fn expect(scan: &mut Scan, checkpoint: Option<&Checkpoint>, findings: &mut Vec<Finding>) {
    let Some(checkpoint) = checkpoint else { return };
    findings.extend(scan.expect(checkpoint.size, checkpoint.root).err());
}

/// Takes the history's checkpoints as marks. The first that is not valid is reported: one is
/// enough, and there may be a great many.
async fn read_history(
    reader: &mut Reader,
    options: &Options,
    scan: &mut Scan,
    findings: &mut Vec<Finding>,
) -> Result<(), VerifyError> {
    let mut after = i64::MIN;
    let mut sound = true;
    loop {
        let page = reader.history(after).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = *last;
        for (size, note) in &page {
            let opened = options.verifier.open(note).and_then(|checkpoint| {
                let filed = i64::try_from(checkpoint.size) == Ok(*size);
                filed.then_some(checkpoint).ok_or(NoteError::Checkpoint("it is filed under another size"))
            });
            match opened {
                Ok(checkpoint) => expect(scan, Some(&checkpoint), findings),
                Err(error) if sound => {
                    sound = false;
                    findings.push(Finding::Signature { which: Which::History(*size), error });
                }
                Err(_) => {}
            }
        }
    }
}

/// Reads records up to that size, or to the end; gives the first thing that is wrong.
async fn read_records(
    reader: &mut Reader,
    scan: &mut Scan,
    until: u64,
    mut progress: impl FnMut(u64),
) -> Result<Option<Finding>, VerifyError> {
    while scan.size() < until {
        let page = reader.page(until - scan.size()).await?;
        if page.is_empty() {
            break;
        }
        for found in &page {
            match scan.record(found) {
                Ok(()) => {}
                Err(Finding::Reordered { seq, found: says }) if found.row.is_none() => {
                    return Ok(Some(match says {
                        // An export has no places of its own: was the record moved, removed, repeated?
                        _ if says < seq => Finding::Inserted { seq: says },
                        _ if reader.has_elsewhere(seq)? => Finding::Reordered { seq, found: says },
                        _ => Finding::Missing { seq },
                    }));
                }
                Err(finding) => return Ok(Some(finding)),
            }
        }
        progress(scan.size());
    }
    Ok(None)
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
