//! Where recorded decisions come from: the store, beside a running broker or without one, or an
//! exported file. Both are only read, and a batch at a time.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use jit_files::open_regular;

use jit_ledger::audit::export_file::MAX_LINE;
use jit_ledger::audit::sources::{LogReader, LogSource, ReadError};

/// Records of one batch.
const BATCH: u64 = 128;
/// Bytes after which a batch of an exported file ends.
const BATCH_BYTES: u64 = 256 * 1024;

/// What to read.
#[derive(Debug, Clone)]
pub enum Source {
    /// The store.
    Store {
        /// Its log.
        log: Arc<dyn LogSource>,
        /// Where it is, for messages.
        place: String,
    },
    /// An exported file, JSON lines.
    Export(PathBuf),
}

/// A line of the log as it was found.
#[derive(Debug)]
pub struct Line {
    /// Its number in the store; of a file, the line's, from one.
    pub place: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An open source.
pub struct Lines {
    origin: Origin,
    /// How far it has been read, of [`Lines::total`].
    pub position: u64,
    /// Records of a store, bytes of a file, when it was opened. What is written later is not read.
    pub total: u64,
}

enum Origin {
    /// With what drives it: the store's reader waits for a thread of its own.
    Store(Box<dyn LogReader>, tokio::runtime::Runtime),
    File {
        path: PathBuf,
        file: BufReader<File>,
        line: u64,
    },
}

impl Lines {
    /// Opens a source.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub fn open(source: &Source) -> anyhow::Result<Self> {
        match source {
            Source::Store { log, place } => {
                let driver = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let opened = driver.block_on(async {
                    let mut reader = log.open().await?;
                    let total = reader.tail().await?.records;
                    Ok::<_, ReadError>((reader, total))
                });
                let (reader, total) = opened.with_context(|| format!("cannot read the store {place}"))?;
                Ok(Self { origin: Origin::Store(reader, driver), position: 0, total })
            }
            Source::Export(path) => {
                let (file, total) = open_file(path).with_context(|| format!("cannot read {}", path.display()))?;
                Ok(Self { origin: Origin::File { path: path.clone(), file, line: 0 }, position: 0, total })
            }
        }
    }

    /// The next lines; none at the end.
    ///
    /// # Errors
    /// When the source cannot be read, or has a line that no log has.
    pub fn batch(&mut self) -> anyhow::Result<Vec<Line>> {
        let left = self.total.saturating_sub(self.position);
        if left == 0 {
            return Ok(Vec::new());
        }
        match &mut self.origin {
            Origin::Store(reader, driver) => {
                let page = driver.block_on(reader.page(BATCH.min(left))).context("cannot read the store")?;
                let lines: Vec<Line> =
                    page.into_iter().map(|found| Line { place: found.number(), bytes: found.record }).collect();
                self.position += lines.len() as u64;
                Ok(lines)
            }
            Origin::File { path, file, line } => {
                let (lines, bytes) = file_batch(file, line, left)
                    .with_context(|| format!("cannot read {} at line {}", path.display(), *line))?;
                self.position += bytes;
                Ok(lines)
            }
        }
    }
}

fn open_file(path: &Path) -> io::Result<(BufReader<File>, u64)> {
    let file = open_regular(path)?;
    let total = file.metadata()?.len();
    Ok((BufReader::with_capacity(256 * 1024, file), total))
}

/// Some lines and how many bytes they were. Also the last one counts, whether or not it has its line
/// break: what a program wrote need not end in one.
fn file_batch(file: &mut BufReader<File>, line: &mut u64, left: u64) -> io::Result<(Vec<Line>, u64)> {
    let (mut lines, mut read) = (Vec::new(), 0);
    // No lines at all would mean the end, so at least one that is not empty.
    while read < left && (lines.is_empty() || ((lines.len() as u64) < BATCH && read < BATCH_BYTES)) {
        let mut bytes = Vec::new();
        *line += 1;
        let length = file.by_ref().take((MAX_LINE as u64).min(left - read)).read_until(b'\n', &mut bytes)?;
        if length == 0 {
            // It was cut while it was read.
            return Ok((lines, left));
        }
        read += length as u64;
        if bytes.pop_if(|last| *last == b'\n').is_none() && length >= MAX_LINE {
            return Err(io::Error::other("the line is too long for an audit record"));
        }
        if !bytes.iter().all(u8::is_ascii_whitespace) {
            lines.push(Line { place: *line, bytes });
        }
    }
    Ok((lines, read))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn all(content: &[u8]) -> anyhow::Result<Vec<(u64, String)>> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(content)?;
        let mut lines = Lines::open(&Source::Export(file.path().to_owned()))?;
        let mut found = Vec::new();
        loop {
            let batch = lines.batch()?;
            if batch.is_empty() {
                assert_eq!(lines.position, lines.total);
                return Ok(found);
            }
            found.extend(batch.into_iter().map(|line| (line.place, String::from_utf8_lossy(&line.bytes).into_owned())));
        }
    }

    #[test]
    fn a_file_is_read_to_its_last_line() {
        assert_eq!(all(b"").unwrap(), []);
        assert_eq!(all(b"\n\n  \n").unwrap(), []);
        assert_eq!(all(b"a\n\nb").unwrap(), [(1, "a".to_owned()), (3, "b".to_owned())]);
        let many: Vec<u8> = (0..1_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        assert_eq!(all(&many).unwrap().len(), 1_000);
        assert_eq!(all(&vec![b'\n'; 5_000]).unwrap(), []);
    }

    #[test]
    fn a_line_that_no_log_has_ends_it() {
        let mut content = b"a\n".to_vec();
        content.extend(vec![b'x'; MAX_LINE + 1]);
        let error = format!("{:#}", all(&content).unwrap_err());
        assert!(error.contains("line 2") && error.contains("too long"), "{error}");
        assert!(Lines::open(&Source::Export("/dev/zero".into())).is_err());
    }
}
