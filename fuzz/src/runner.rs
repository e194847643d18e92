//! Runs targets: the whole corpus first, then changed inputs until the time is over.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sha2::{Digest as _, Sha256};

use crate::{Input, Target, mutate};

/// The largest file of a corpus, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// After how many inputs the clock is read.
const STRIDE: u64 = 16;

/// What a run of a target did.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// Inputs of the corpus.
    pub corpus: usize,
    /// Changed inputs.
    pub changed: u64,
}

/// Where the inputs of a target are kept.
#[must_use]
pub fn corpus_folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Reads the corpus of a target, sorted by name.
///
/// # Errors
/// When there is none, or a file cannot be read or is too large.
pub fn corpus(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} is not there", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    if paths.is_empty() {
        bail!("{} is empty: a target needs inputs to start from", folder.display());
    }
    paths
        .iter()
        .map(|path| {
            if fs::metadata(path)?.len() > MAX_FILE {
                bail!("{} is larger than {MAX_FILE} bytes", path.display());
            }
            fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        })
        .collect()
}

/// Runs one input.
///
/// # Errors
/// What the target's panic says when a property does not hold.
pub fn run_one(target: &Target, input: &[u8]) -> Result<(), String> {
    panic::catch_unwind(AssertUnwindSafe(|| (target.run)(Input::new(input)))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// Runs the corpus, then changed inputs for `time`, the same ones for the same `seed`.
///
/// # Errors
/// When a property does not hold; the input is then in a file of `artifacts`, which the error names.
pub fn run(target: &Target, corpus: &[Vec<u8>], time: Duration, seed: u64, artifacts: &Path) -> Result<Run> {
    for input in corpus {
        check(target, input, artifacts)?;
    }
    let began = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    let mut count = 0;
    while count % STRIDE != 0 || began.elapsed() < time {
        check(target, &mutate::changed(corpus, target.tokens, &mut random), artifacts)?;
        count += 1;
    }
    Ok(Run { corpus: corpus.len(), changed: count })
}

fn check(target: &Target, input: &[u8], artifacts: &Path) -> Result<()> {
    let Err(said) = run_one(target, input) else { return Ok(()) };
    let folder = artifacts.join(target.name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(&hex::encode(Sha256::digest(input))[..16]);
    fs::write(&path, input).with_context(|| format!("cannot write {}", path.display()))?;
    bail!(
        "{}: {said}\nthe input is in {path}; run it alone with\n  cargo xtask fuzz {} --input {path}",
        target.name,
        target.name,
        path = path.display()
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Breaks on a text that no corpus has.
    const PLANTED: Target = Target {
        name: "planted",
        about: "a fault that the runner must find",
        tokens: &["--", "{}"],
        run: |input| assert!(!input.text().contains("{}--"), "planted"),
    };

    #[test]
    fn a_planted_fault_is_found_kept_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = vec![b"SELECT 1".to_vec()];
        let error = run(&PLANTED, &corpus, Duration::from_secs(60), 1, folder.path()).unwrap_err().to_string();
        assert!(error.contains("planted: planted") && error.contains("--input"), "{error}");
        let kept = fs::read_dir(folder.path().join("planted")).unwrap().next().unwrap().unwrap().path();
        assert!(run_one(&PLANTED, &fs::read(kept).unwrap()).is_err(), "the kept input shows the fault again");
    }

    #[test]
    fn a_run_without_time_runs_the_corpus_alone() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = vec![b"a".to_vec(), b"b".to_vec()];
        let run = run(&PLANTED, &corpus, Duration::ZERO, 1, folder.path()).unwrap();
        assert_eq!(run, Run { corpus: 2, changed: 0 });
    }

    #[test]
    fn a_corpus_without_inputs_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(corpus(folder.path()).is_err());
        assert!(corpus(&folder.path().join("missing")).is_err());
    }
}
