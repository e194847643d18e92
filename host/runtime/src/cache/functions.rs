//! The compiled functions of a component, kept so that another component with the same code is not compiled again.
//!
//! A snapshot has the code of the component that it was taken of, and other data. Compiling an interpreter takes many
//! seconds; taking its functions from here takes a fraction of that. Cranelift looks a function up by a digest of all that
//! its code depends on, so functions of another component would be no fault but waste.
//!
//! The functions of one component are one file of the compile cache, and trusted as the others are: it belongs to our user
//! alone and ends in a digest. An entry is 32 bytes of key, four bytes of length (little endian), and as many bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest;
use parking_lot::Mutex;
use wasmtime::CacheStore;

use super::{CompileCache, DIGEST, MAX_FILE, digest_of_name};

/// Bytes of a key.
const KEY: usize = 32;
/// Bytes before an entry's own.
const HEADER: usize = KEY + 4;

/// Writes down what is compiled.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// The name that the file is to have.
    name: String,
    /// The name that it has until it is whole.
    beside: String,
    /// `None` once it did not work: then nothing is kept.
    file: Mutex<Option<Writing>>,
}

struct Writing {
    file: BufWriter<cap_std::fs::File>,
    digest: digest::Context,
    written: u64,
}

impl std::fmt::Debug for Writing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writing").field("written", &self.written).finish_non_exhaustive()
    }
}

impl Writing {
    fn add(&mut self, key: &[u8], value: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(value.len()).map_err(std::io::Error::other)?;
        self.written += (HEADER + value.len()) as u64;
        if key.len() != KEY || self.written + DIGEST as u64 > MAX_FILE {
            return Err(std::io::Error::other("it does not fit"));
        }
        for part in [key, &length.to_le_bytes(), value] {
            self.digest.update(part);
            self.file.write_all(part)?;
        }
        Ok(())
    }
}

impl Recorder {
    /// Nothing is kept: the component does not compile.
    pub(crate) fn give_up(&self) {
        *self.file.lock() = None;
    }
}

impl CacheStore for Recorder {
    fn get(&self, _: &[u8]) -> Option<Cow<'_, [u8]>> {
        None
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> bool {
        let mut file = self.file.lock();
        let added = file.as_mut().is_some_and(|writing| writing.add(key, &value).is_ok());
        if !added {
            *file = None;
        }
        added
    }
}

/// Gives what was written down.
#[derive(Debug)]
pub(crate) struct Recorded {
    file: std::fs::File,
    /// Where the bytes of each entry begin, and how many they are.
    entries: HashMap<[u8; KEY], (u64, u32)>,
    /// How many were asked for and there.
    given: AtomicU64,
}

impl Recorded {
    /// How many functions were taken from here.
    pub(crate) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }
}

impl CacheStore for Recorded {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let (at, length) = *self.entries.get(<&[u8; KEY]>::try_from(key).ok()?)?;
        let mut value = vec![0; length as usize];
        self.file.read_exact_at(&mut value, at).ok()?;
        self.given.fetch_add(1, Ordering::Relaxed);
        Some(Cow::Owned(value))
    }

    fn insert(&self, _: &[u8], _: Vec<u8>) -> bool {
        false
    }
}

impl CompileCache {
    /// Takes down the functions of a component. `None` where nothing can be kept.
    pub(crate) fn recorder(&self, sha256: &str) -> Option<Recorder> {
        let name = self.functions_of(sha256);
        let beside = Self::beside(&name);
        let file = BufWriter::new(self.create(&beside).ok()?);
        let writing = Writing { file, digest: digest_of_name(&name), written: 0 };
        Some(Recorder { name, beside, file: Mutex::new(Some(writing)) })
    }

    /// Keeps what was taken down.
    pub(crate) fn keep(&self, recorder: &Recorder) {
        let kept = recorder.file.lock().take().map(|writing| {
            let Writing { mut file, digest, .. } = writing;
            file.write_all(digest.finish().as_ref())?;
            file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            self.dir.rename(&recorder.beside, &self.dir, &recorder.name)
        });
        match kept {
            Some(Ok(())) => self.make_room(),
            _ => drop(self.dir.remove_file(&recorder.beside)),
        }
    }

    /// The functions of a component, if they were taken down and are whole.
    pub(crate) fn recorded(&self, sha256: &str) -> Option<Recorded> {
        let file = self.open_checked(&self.functions_of(sha256))?;
        let end = file.metadata().ok()?.len().checked_sub(DIGEST as u64)?;
        let (mut entries, mut at, mut header) = (HashMap::new(), 0, [0; HEADER]);
        while at < end {
            file.read_exact_at(&mut header, at).ok()?;
            let (key, length) = header.split_at(KEY);
            let length = u32::from_le_bytes(length.try_into().ok()?);
            at += HEADER as u64;
            entries.insert(key.try_into().ok()?, (at, length));
            at += u64::from(length);
        }
        Some(Recorded { file, entries, given: AtomicU64::new(0) })
    }

    fn functions_of(&self, sha256: &str) -> String {
        format!("{sha256}-{}.functions", self.engine)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use wasmtime::Engine;

    use super::*;
    use crate::cache::LogCompilations;

    fn open(folder: &std::path::Path, engine: &Engine) -> CompileCache {
        CompileCache::open(&folder.join("cache"), engine, Arc::new(LogCompilations)).unwrap()
    }

    fn files(folder: &std::path::Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder.join("cache")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_was_taken_down_is_given_again_while_it_is_whole() {
        let (folder, engine) = (tempfile::tempdir().unwrap(), Engine::default());
        let cache = open(folder.path(), &engine);
        let recorder = cache.recorder("00").unwrap();
        assert!(recorder.insert(&[1; KEY], b"one".to_vec()) && recorder.insert(&[2; KEY], Vec::new()));
        assert!(cache.recorded("00").is_none(), "it is not whole yet");
        cache.keep(&recorder);

        let recorded = cache.recorded("00").unwrap();
        assert_eq!(recorded.get(&[1; KEY]).as_deref(), Some(&b"one"[..]));
        assert_eq!(recorded.get(&[2; KEY]).as_deref(), Some(&b""[..]));
        assert_eq!((recorded.get(&[3; KEY]), recorded.get(b"short")), (None, None));
        assert_eq!(recorded.given(), 2);
        assert!(cache.recorded("11").is_none(), "of another component");

        let path = folder.path().join("cache").join(&files(folder.path())[0]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEADER] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(cache.recorded("00").is_none(), "damaged");
    }

    #[test]
    fn what_does_not_fit_or_was_given_up_leaves_nothing() {
        let (folder, engine) = (tempfile::tempdir().unwrap(), Engine::default());
        let cache = open(folder.path(), &engine);
        let recorder = cache.recorder("00").unwrap();
        assert!(!recorder.insert(b"short", Vec::new()));
        assert!(!recorder.insert(&[1; KEY], Vec::new()), "nothing after that");
        cache.keep(&recorder);
        let recorder = cache.recorder("00").unwrap();
        assert!(recorder.insert(&[1; KEY], Vec::new()));
        recorder.give_up();
        cache.keep(&recorder);
        assert!(cache.recorded("00").is_none());
        assert_eq!(files(folder.path()), Vec::<String>::new());
    }

    /// As a snapshot and its component: the same code, other data.
    #[test]
    fn the_code_of_another_component_is_not_compiled_again() {
        let component = |data: &str| {
            let text = format!(
                "(component (core module $m (memory 1) (data (i32.const 8) \"{data}\")
                   (func (export \"f\") (param i32) (result i32) (i32.load (local.get 0))))
                 (core instance $i (instantiate $m))
                 (func (export \"f\") (param \"at\" u32) (result u32) (canon lift (core func $i \"f\"))))"
            );
            wat::parse_str(text).unwrap()
        };
        let compiled_by = |store: Arc<dyn CacheStore>, bytes: &[u8]| {
            let mut config = wasmtime::Config::new();
            config.enable_incremental_compilation(store).unwrap();
            Engine::new(&config).unwrap().precompile_component(bytes).unwrap()
        };
        let (folder, engine) = (tempfile::tempdir().unwrap(), Engine::default());
        let cache = open(folder.path(), &engine);
        let recorder = Arc::new(cache.recorder("00").unwrap());
        compiled_by(Arc::clone(&recorder) as _, &component("before"));
        cache.keep(&recorder);

        let recorded = Arc::new(cache.recorded("00").unwrap());
        let code = compiled_by(Arc::clone(&recorded) as _, &component("after"));
        assert!(recorded.given() > 0);
        assert_eq!(code, engine.precompile_component(&component("after")).unwrap(), "it is the same code");
    }
}
