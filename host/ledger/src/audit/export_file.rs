//! The file of an export: where it goes on, how lines are added, and its checkpoint.
//!
//! The file is its own cursor: the last complete line says which record was the last. A torn line
//! (the process was killed while it wrote) is cut off when the file is opened.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jit_tlog::checkpoint::{Checkpoint, MAX_NOTE};

/// The longest line, in bytes: the longest record that the store takes, and then some.
pub const MAX_LINE: usize = 2 * 1024 * 1024;
/// What every line of an export begins with.
const BEGINNING: &[u8] = b"{\"seq\":";

/// Where the checkpoint of an export stands: `<path>.checkpoint`.
#[must_use]
pub fn checkpoint_path(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".checkpoint");
    PathBuf::from(beside)
}

/// An export's file, open for more lines.
#[derive(Debug)]
pub(super) struct ExportFile {
    path: PathBuf,
    file: File,
}

/// Where an export goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The number of the next record.
    pub(super) next: u64,
    /// The last line, to compare with the store's record.
    pub(super) last: Option<String>,
}

fn not_ours() -> io::Error {
    io::Error::other("the file is not an export of an audit log: move it away")
}

impl ExportFile {
    /// Opens the file, or makes it (0600), and finds where it goes on. An empty one goes on where
    /// its checkpoint ends, if it has one: the earlier lines were moved away.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Cursor)> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("the export's path is not a regular file"));
        }
        let (kept, last) = last_line(&mut file, metadata.len())?;
        if kept < metadata.len() {
            tracing::warn!(path = %path.display(), bytes = metadata.len() - kept, "a torn line of the audit export is cut off");
            file.set_len(kept)?;
            file.sync_all()?;
        }
        let cursor = match last {
            Some(line) => {
                let seq = serde_json::from_str::<serde_json::Value>(&line)
                    .ok()
                    .and_then(|record| record.get("seq")?.as_u64());
                Cursor { next: seq.ok_or_else(not_ours)?.saturating_add(1), last: Some(line) }
            }
            None => Cursor { next: checkpoint_size(path)?, last: None },
        };
        Ok((Self { path: path.to_owned(), file }, cursor))
    }

    /// Whether the path still leads to this file. It does not when somebody moved it away.
    pub(super) fn is_in_place(&self) -> bool {
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(here)) => identity(there) == identity(here),
            _ => false,
        }
    }

    /// Adds lines and has them on the disk when it returns.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)?;
        self.file.sync_data()
    }

    /// Replaces the checkpoint beside the file, whole or not at all.
    pub(super) fn put_checkpoint(&self, note: &str) -> io::Result<()> {
        let path = checkpoint_path(&self.path);
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(note.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

/// The size of the checkpoint beside the file; 0 where there is none. It only says where to go on;
/// whether it is signed is for those who verify.
fn checkpoint_size(path: &Path) -> io::Result<u64> {
    let file = match File::open(checkpoint_path(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let mut note = String::new();
    file.take(MAX_NOTE as u64 + 1).read_to_string(&mut note)?;
    Checkpoint::read_unverified(&note).map(|checkpoint| checkpoint.size).map_err(io::Error::other)
}

/// How many records an export has seen of its log, by its last line and its checkpoint: 0 where there is neither.
/// Changes nothing.
///
/// # Errors
/// When a file cannot be read, or is not an export.
pub fn reaches(path: &Path) -> io::Result<u64> {
    let checkpoint = checkpoint_size(path)?;
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(checkpoint),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(checkpoint);
    }
    let (_, last) = last_line(&mut file, metadata.len())?;
    let last = last.and_then(|line| serde_json::from_str::<serde_json::Value>(&line).ok()?.get("seq")?.as_u64());
    Ok(checkpoint.max(last.map_or(0, |seq| seq.saturating_add(1))))
}

/// How many bytes of the file are complete lines, and the last of these. Reads backwards, at most
/// two lines' worth.
fn last_line(file: &mut File, length: u64) -> io::Result<(u64, Option<String>)> {
    let window = length.min(2 * MAX_LINE as u64);
    file.seek(SeekFrom::Start(length - window))?;
    let mut tail = Vec::new();
    file.take(window).read_to_end(&mut tail)?;
    let start = length - window;
    let Some(newline) = tail.iter().rposition(|byte| *byte == b'\n') else {
        // No complete line: a torn first one, or something else's file.
        let ours = start == 0 && tail.iter().zip(BEGINNING).all(|(a, b)| a == b);
        return if ours { Ok((0, None)) } else { Err(not_ours()) };
    };
    let torn = &tail[newline + 1..];
    let begin = tail[..newline].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = &tail[begin..newline];
    let whole = begin > 0 || start == 0;
    if !whole || !line.starts_with(BEGINNING) || !torn.iter().zip(BEGINNING).all(|(a, b)| a == b) {
        return Err(not_ours());
    }
    let line = String::from_utf8(line.to_vec()).map_err(|_| not_ours())?;
    Ok((start + newline as u64 + 1, Some(line)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn opened(content: &[u8]) -> io::Result<(Cursor, Vec<u8>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        std::fs::write(&path, content).unwrap();
        let result = ExportFile::open(&path).map(|(_, cursor)| cursor);
        let left = std::fs::read(&path).unwrap();
        if result.is_err() {
            assert_eq!(left, content, "what is not ours is left as it is");
        }
        result.map(|cursor| (cursor, left))
    }

    #[test]
    fn goes_on_after_the_last_complete_line() {
        let (first, second) = ("{\"seq\":7,\"a\":\"é\"}", "{\"seq\":8,\"b\":1}");
        let whole = format!("{first}\n{second}\n");
        for cut in 0..=whole.len() {
            let (cursor, left) = opened(&whole.as_bytes()[..cut]).unwrap();
            let expected = match cut {
                _ if cut <= first.len() => (Cursor { next: 0, last: None }, 0),
                _ if cut < whole.len() => (Cursor { next: 8, last: Some(first.into()) }, first.len() + 1),
                _ => (Cursor { next: 9, last: Some(second.into()) }, whole.len()),
            };
            assert_eq!((cursor, left.len()), expected, "cut at {cut}");
        }
    }

    #[test]
    fn leaves_other_files_alone() {
        let long = "x".repeat(2 * MAX_LINE + 10);
        for content in ["something else", "a\nb\n", "{\"seq\":1}\nx", "{\"seq\":\"1\"}\n", "\n", "{\"seq\":1\n", &long]
        {
            assert!(opened(content.as_bytes()).is_err(), "{:.20}", content);
        }
    }
}
