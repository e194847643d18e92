//! A whole log read from its export, in one or several files, and verified on the way: each record has its number, and
//! the tree over the records is the signed one wherever there is a checkpoint.
//!
//! There may be several files. When somebody moves the exported file away, the export continues in a new one. Archived
//! segments are files of the same form.

use std::path::PathBuf;

use jit_tlog::checkpoint::{NoteError, VerifierKey};

use super::export_file::checkpoint_path;
use super::finding::Finding;
use super::scan::Scan;
use super::sources::{Found, Lines, PAGE, ReadError, read_note};

/// The most files.
pub const MAX_FILES: usize = 10_000;

/// Why the exported log cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ExportedError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No file, or too many.
    #[error("name 1 to {MAX_FILES} files")]
    Files,
    /// The first file does not begin with the first record.
    #[error(
        "{} begins with record {seq}: name the earlier files before it, oldest first (those that were moved away, or \
         archived segments)", file.display()
    )]
    Begins {
        /// The file.
        file: PathBuf,
        /// The number of its first record.
        seq: u64,
    },
    /// A record is not what was signed, or not in its place.
    #[error("{}: {finding}", file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        finding: Finding,
    },
    /// A file that another one follows ends in the middle of a record.
    #[error("{} ends in the middle of a record, and is not the last file", .0.display())]
    Torn(PathBuf),
    /// A checkpoint beside a file is not this log's.
    #[error("the checkpoint of {}", file.display())]
    Checkpoint {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: NoteError,
    },
    /// The records end before a signed checkpoint does.
    #[error("the files have {found} records, and the signed checkpoint is over {expected}: records are missing")]
    Short {
        /// How many there are.
        found: u64,
        /// How many there were.
        expected: u64,
    },
}

/// An exported log that is being read.
pub struct ExportedLog {
    files: Vec<PathBuf>,
    /// The file that is read, and its lines.
    at: usize,
    lines: Lines,
    scan: Scan,
    signed: u64,
    torn: u64,
}

impl ExportedLog {
    /// Opens the files, oldest first, and takes the checkpoints beside them.
    ///
    /// # Errors
    /// When a file cannot be read, or a checkpoint is not by that key.
    pub fn open(files: Vec<PathBuf>, verifier: &VerifierKey) -> Result<Self, ExportedError> {
        let first = files.first().filter(|_| files.len() <= MAX_FILES).ok_or(ExportedError::Files)?;
        let lines = Lines::open(first)?;
        let (mut scan, mut signed) = (Scan::default(), 0);
        for file in &files {
            let Some(note) = read_note(&checkpoint_path(file))? else { continue };
            let of = |source| ExportedError::Checkpoint { file: file.clone(), source };
            let checkpoint = verifier.open(&note).map_err(of)?;
            let wrong = |finding| ExportedError::Wrong { file: file.clone(), finding };
            scan.expect(checkpoint.size, checkpoint.root).map_err(wrong)?;
            signed = checkpoint.size.max(signed);
        }
        Ok(Self { files, at: 0, lines, scan, signed, torn: 0 })
    }

    /// The size of the newest signed checkpoint. It is 0 if there is no checkpoint.
    #[must_use]
    pub fn signed(&self) -> u64 {
        self.signed
    }

    /// How many records were read.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.scan.size()
    }

    /// How many bytes at the end of the last file are no complete record, and are left out.
    #[must_use]
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// The next records in order, at most [`PAGE`]; none at the end. What was read is as signed once the reading has
    /// passed [`Self::signed`].
    ///
    /// # Errors
    /// [`ExportedError`]: then nothing of the log may be used.
    pub fn page(&mut self) -> Result<Vec<Vec<u8>>, ExportedError> {
        let mut page = Vec::new();
        while (page.len() as u64) < PAGE {
            let Some(record) = self.lines.next()? else {
                let torn = self.lines.torn()?;
                let Some(next) = self.files.get(self.at + 1) else {
                    self.torn = torn;
                    break;
                };
                if torn > 0 {
                    return Err(ExportedError::Torn(self.files[self.at].clone()));
                }
                self.lines = Lines::open(next)?;
                self.at += 1;
                continue;
            };
            let found = Found { row: None, record, leaf: None };
            self.scan.record(&found).map_err(|finding| {
                let file = self.files[self.at].clone();
                match finding {
                    Finding::Reordered { seq: 0, found: seq } => ExportedError::Begins { file, seq },
                    finding => ExportedError::Wrong { file, finding },
                }
            })?;
            page.push(found.record);
        }
        if page.is_empty() && self.scan.size() < self.signed {
            return Err(ExportedError::Short { found: self.scan.size(), expected: self.signed });
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jit_tlog::checkpoint::{Checkpoint, LogKey, Origin};
    use jit_tlog::merkle::{CompactRange, Hash};
    use std::path::Path;

    struct Export {
        folder: tempfile::TempDir,
        key: LogKey,
        origin: Origin,
    }

    fn line(seq: u64) -> String {
        format!("{{\"seq\":{seq},\"event\":\"x\"}}")
    }

    impl Export {
        fn new() -> Self {
            let origin = Origin::new("jit-broker/test").unwrap();
            Self { folder: tempfile::tempdir().unwrap(), key: LogKey::generate(), origin }
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        fn sign(&self, file: &Path, size: u64) {
            let mut range = CompactRange::new();
            (0..size).for_each(|seq| range.push(Hash::of_leaf(line(seq).as_bytes())));
            let checkpoint = Checkpoint { origin: self.origin.clone(), size, root: range.root() };
            std::fs::write(checkpoint_path(file), self.key.sign(&checkpoint)).unwrap();
        }

        /// How many records are read of the files, how many of them are signed, and the bytes left out.
        fn read(&self, files: &[&Path]) -> Result<(u64, u64, u64), ExportedError> {
            let files = files.iter().map(|path| path.to_path_buf()).collect();
            let mut exported = ExportedLog::open(files, &self.key.verifier(&self.origin))?;
            while !exported.page()?.is_empty() {}
            Ok((exported.read(), exported.signed(), exported.torn()))
        }
    }

    fn lines(numbers: std::ops::Range<u64>) -> String {
        numbers.map(|seq| line(seq) + "\n").collect()
    }

    #[test]
    fn files_that_follow_each_other_are_one_log() {
        let export = Export::new();
        let old = export.file("old.jsonl", &lines(0..1_500));
        let new = export.file("new.jsonl", &(lines(1_500..1_510) + "{\"seq\":15"));
        export.sign(&new, 1_508);
        assert_eq!(export.read(&[&old, &new]).unwrap(), (1_510, 1_508, 9));
        assert!(matches!(export.read(&[&new]), Err(ExportedError::Begins { seq: 1_500, .. })));
        assert!(matches!(export.read(&[&new, &old]), Err(ExportedError::Begins { .. })));
        assert!(matches!(export.read(&[]), Err(ExportedError::Files)));
        export.sign(&new, 1_600);
        let short = export.read(&[&old, &new]);
        assert!(matches!(short, Err(ExportedError::Short { found: 1_510, expected: 1_600 })), "{short:?}");
        export.sign(&new, 1_508);
        std::fs::write(&old, lines(0..1_499) + "{\"seq\":1499").unwrap();
        assert!(matches!(export.read(&[&old, &new]), Err(ExportedError::Torn(_))));
    }

    #[test]
    fn what_was_changed_is_not_taken() {
        let export = Export::new();
        let file =
            export.file("a.jsonl", &lines(0..10).replace("{\"seq\":4,\"event\":\"x\"}", "{\"seq\":4,\"event\":\"y\"}"));
        assert_eq!(export.read(&[&file]).unwrap(), (10, 0, 0), "nothing is signed");
        export.sign(&file, 4);
        assert_eq!(export.read(&[&file]).unwrap(), (10, 4, 0), "what follows the checkpoint is not");
        export.sign(&file, 8);
        assert!(matches!(export.read(&[&file]), Err(ExportedError::Wrong { .. })));
        std::fs::write(&file, lines(0..3) + &lines(5..8)).unwrap();
        assert!(matches!(
            export.read(&[&file]),
            Err(ExportedError::Wrong { finding: Finding::Reordered { seq: 3, found: 5 }, .. })
        ));
        let other = Export::new();
        other.sign(&file, 3);
        assert!(matches!(export.read(&[&file]), Err(ExportedError::Checkpoint { .. })), "of another key");
    }
}
