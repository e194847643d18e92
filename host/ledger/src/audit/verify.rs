//! Verification of the audit log without the broker: every record, every leaf, every root, every
//! signature is computed again.
//!
//! What it can show: that the records are exactly those that the signed checkpoints are about.
//! What it cannot: that the log was not cut back together with its checkpoints, or written anew by
//! somebody with the key. That takes a checkpoint kept elsewhere ([`Options::kept`]).

use std::path::{Path, PathBuf};

use jit_tlog::checkpoint::{Checkpoint, NoteError, VerifierKey};
use jit_tlog::merkle::{CompactRange, Hash};

use super::archive;
use super::export_file::checkpoint_path;
use super::finding::{Finding, Which};
use super::scan::Scan;
use super::sources::{Found, Lines, LogReader, LogSource, ReadError, read_note};

/// What is verified against what.
#[derive(Debug, Clone)]
pub struct Options {
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

/// How often verification begins again because a running broker archived what was being read.
const AGAIN: usize = 3;

/// Verifies the whole log. `progress` is called now and then. Reading blocks the thread: this is
/// for a command, not for the serving broker.
///
/// # Errors
/// [`ReadError`] when the log could not be read; what is wrong with it is in the [`Report`].
pub async fn verify(
    source: &dyn LogSource,
    options: &Options,
    mut progress: impl FnMut(Progress),
) -> Result<Report, ReadError> {
    let mut tries = 0;
    loop {
        let mut reader = source.open().await?;
        let frontier = reader.frontier().await?;
        let archived = frontier.size();
        let report = verify_from(options, &mut *reader, frontier, &mut progress).await?;
        tries += 1;
        if report.is_intact() || tries == AGAIN || reader.frontier().await?.size() == archived {
            return Ok(report);
        }
    }
}

async fn verify_from(
    options: &Options,
    reader: &mut dyn LogReader,
    frontier: CompactRange,
    mut progress: impl FnMut(Progress),
) -> Result<Report, ReadError> {
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
) -> Result<Option<Finding>, ReadError> {
    let failed = |source| ReadError::File { path: folder.to_owned(), source };
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
    reader: &mut dyn LogReader,
    options: &Options,
    scan: &mut Scan,
    findings: &mut Vec<Finding>,
) -> Result<(), ReadError> {
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
    reader: &mut dyn LogReader,
    scan: &mut Scan,
    until: u64,
    mut progress: impl FnMut(u64),
) -> Result<Option<Finding>, ReadError> {
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
