//! Compiled plugins, kept between starts and shared by all commands of one user.
//!
//! wasmtime trusts compiled code as it trusts itself: code that somebody else wrote would run
//! outside of the sandbox. So what is read here is only what this broker's user wrote:
//!
//! * the folder must be a directory of our own user that nobody else may enter (0700), and so must
//!   be each file; checked at every access through a handle of the folder, not through its path;
//! * each file ends in a SHA-256 over its name and content, so that a damaged or misplaced file is
//!   compiled again. It is no defence against the broker's own user, who could replace the broker.
//!
//! The name of a file is the digest of the component and of everything in the engine that the code
//! depends on (`precompile_compatibility_hash`: wasmtime's version, the processor, the settings).
//! The limits of calls are not among these, so every configuration shares one file.
//!
//! The folder is bounded: whoever adds a file removes those that were used longest ago.

use std::hash::{Hash as _, Hasher};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, MetadataExt as _, OpenOptions, OpenOptionsExt as _, PermissionsExt as _};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Largest file that is read back, in bytes: a component of the largest size that is loaded,
/// compiled.
const MAX_FILE: u64 = 512 << 20;

/// A compilation that takes longer than this is worth a word: plugins with an interpreter take many seconds.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// What the folder may hold. A component with an interpreter in it has some 50 MB, others some 1 MB.
const MOST: Room = Room { bytes: 1 << 30, files: 512 };

/// Bytes of the digest at the end of a file.
const DIGEST: usize = 32;

/// Why the cache folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be made or opened.
    #[error("the compile cache {path} cannot be opened")]
    Open {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others could put code into it.
    #[error("the compile cache {path} is not safe: {reason}. Remove it or choose another folder")]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Hears of compilations: of what is loaded from the cache it hears nothing.
pub trait CompileWatch: std::fmt::Debug + Send + Sync {
    /// Compiling this component has taken a second and is not done.
    fn is_slow(&self, component: &Path);

    /// This component was compiled, successfully or not.
    fn compiled(&self, component: &Path, took: Duration);
}

/// Writes to the log: at `info` when a compilation is slow, at `debug` after each.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogCompilations;

impl CompileWatch for LogCompilations {
    fn is_slow(&self, component: &Path) {
        tracing::info!(component = %component.display(), "compiling a plugin: the first time; it is kept for the next");
    }

    fn compiled(&self, component: &Path, took: Duration) {
        tracing::debug!(component = %component.display(), seconds = took.as_secs_f64(), "compiled a plugin");
    }
}

/// How much the folder may hold.
#[derive(Debug, Clone, Copy)]
struct Room {
    bytes: u64,
    files: usize,
}

/// The folder of compiled plugins.
#[derive(Debug)]
pub(crate) struct CompileCache {
    dir: Dir,
    /// Hexadecimal digest of what compiled code depends on beside the component.
    engine: String,
    most: Room,
    watch: Arc<dyn CompileWatch>,
}

impl CompileCache {
    /// Opens the folder, and makes it when it is missing.
    pub(crate) fn open(path: &Path, engine: &Engine, watch: Arc<dyn CompileWatch>) -> Result<Self, CacheError> {
        let open = |source| CacheError::Open { path: path.to_owned(), source };
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        builder.create(path).map_err(open)?;
        let dir = Dir::open_ambient_dir(path, ambient_authority()).map_err(open)?;
        let cache = Self { dir, engine: engine_digest(engine), most: MOST, watch };
        match cache.folder_is_ours() {
            Ok(None) => Ok(cache),
            Ok(Some(reason)) => Err(CacheError::Unsafe { path: path.to_owned(), reason }),
            Err(source) => Err(open(source)),
        }
    }

    /// The component of that digest: from the folder when it is there and whole, else compiled and
    /// put there. A folder that fails later costs time, never a load. `path` is what is told of.
    pub(crate) fn component(
        &self,
        engine: &Engine,
        path: &Path,
        sha256: &str,
        bytes: &[u8],
    ) -> wasmtime::Result<Component> {
        let name = format!("{sha256}-{}.cwasm", self.engine);
        if let Some(code) = self.read(&name) {
            match deserialize(engine, &code) {
                Ok(component) => return Ok(component),
                Err(error) => {
                    tracing::warn!(%error, name, "a compiled plugin does not load; recompiling it")
                }
            }
        }
        let code = self.compile(engine, path, bytes)?;
        match self.write(&name, &code) {
            Ok(()) => self.make_room(),
            Err(error) => {
                tracing::warn!(%error, name, "a compiled plugin cannot be kept; the next start compiles it again");
            }
        }
        deserialize(engine, &code)
    }

    /// Compiles, and tells the watch when that takes a while.
    fn compile(&self, engine: &Engine, path: &Path, bytes: &[u8]) -> wasmtime::Result<Vec<u8>> {
        let began = Instant::now();
        let (done, ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            // Without a thread nobody hears that it is slow. It compiles nonetheless.
            let waiting = std::thread::Builder::new().name("compile-watch".to_owned());
            let _ = waiting.spawn_scoped(scope, move || {
                if ended.recv_timeout(WORTH_TELLING) == Err(mpsc::RecvTimeoutError::Timeout) {
                    self.watch.is_slow(path);
                }
            });
            let code = engine.precompile_component(bytes);
            drop(done);
            code
        })
        .inspect(|_| self.watch.compiled(path, began.elapsed()))
        .inspect_err(|_| self.watch.compiled(path, began.elapsed()))
    }

    /// Removes what was used longest ago, and what an interrupted run left, until the rest fits.
    fn make_room(&self) {
        let Ok(entries) = self.dir.entries() else { return };
        let mut files: Vec<(SystemTime, u64, std::ffi::OsString)> = entries
            .flatten()
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(cap_std::fs::Metadata::is_file)?;
                Some((metadata.modified().ok()?.into_std(), metadata.len(), entry.file_name()))
            })
            .collect();
        files.sort_unstable_by(|one, other| other.cmp(one));
        let mut bytes = 0_u64;
        for (place, (_, size, name)) in files.iter().enumerate() {
            bytes = bytes.saturating_add(*size);
            // The first is the one that was just written.
            if place > 0 && (bytes > self.most.bytes || place >= self.most.files) {
                // What cannot be removed only takes room.
                let _ = self.dir.remove_file(name);
            }
        }
    }

    /// The content of a file, if it can be trusted.
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        match self.read_checked(name) {
            Ok(code) => Some(code),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, name, "a compiled plugin is not used; recompiling it");
                None
            }
        }
    }

    fn read_checked(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let refuse = |reason: &str| std::io::Error::new(std::io::ErrorKind::PermissionDenied, reason.to_owned());
        if let Some(reason) = self.folder_is_ours()? {
            return Err(refuse(&reason));
        }
        let mut file = self.dir.open(name)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(refuse("it is not a file"));
        }
        if let Some(reason) = not_ours(metadata.uid(), metadata.mode()) {
            return Err(refuse(&reason));
        }
        if metadata.len() > MAX_FILE {
            return Err(refuse("it is too large"));
        }
        let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        std::io::Read::take(&mut file, MAX_FILE).read_to_end(&mut content)?;
        let Some(end) = content.len().checked_sub(DIGEST) else {
            return Err(refuse("it is cut short"));
        };
        if content[end..] != *file_digest(name, &content[..end]).as_ref() {
            return Err(refuse("its digest does not fit: it is damaged"));
        }
        content.truncate(end);
        // In use, so that others go first. Where the time cannot be set, it only goes too early.
        let _ = file.into_std().set_modified(SystemTime::now());
        Ok(content)
    }

    /// Writes beside and renames, so that a reader sees a whole file or none.
    fn write(&self, name: &str, code: &[u8]) -> std::io::Result<()> {
        if let Some(reason) = self.folder_is_ours()? {
            return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, reason));
        }
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let beside = format!("{name}.{}-{}.new", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        // From a run with the same process id that did not finish.
        let _ = self.dir.remove_file(&beside);
        let mut file = self.dir.open_with(&beside, OpenOptions::new().write(true).create_new(true).mode(0o600))?;
        let written = file
            .write_all(code)
            .and_then(|()| file.write_all(file_digest(name, code).as_ref()))
            .and_then(|()| file.sync_all())
            .and_then(|()| self.dir.rename(&beside, &self.dir, name));
        if written.is_err() {
            let _ = self.dir.remove_file(&beside);
        }
        written
    }

    /// What is wrong with the folder, if something is.
    fn folder_is_ours(&self) -> std::io::Result<Option<String>> {
        let metadata = self.dir.dir_metadata()?;
        Ok(not_ours(metadata.uid(), metadata.permissions().mode()))
    }
}

/// What is wrong with that owner and mode, if something is.
fn not_ours(owner: u32, mode: u32) -> Option<String> {
    let us = rustix::process::geteuid().as_raw();
    if owner != us {
        return Some(format!("it belongs to user {owner}, not to {us}"));
    }
    let others = mode & 0o077;
    (others != 0).then(|| format!("others have access (mode {:03o})", mode & 0o777))
}

/// Over the name too: a whole file under another name is another plugin's code.
fn file_digest(name: &str, code: &[u8]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(name.as_bytes());
    context.update(&[0]);
    context.update(code);
    context.finish()
}

/// Loads compiled code.
#[allow(
    unsafe_code,
    reason = "the code was made by this engine, or read back by `read_checked`; the tests of this module tamper with it"
)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the contract is that the bytes come from `precompile_component` of a compatible
    // engine. They do: either directly, or from a file that only our own user can have written,
    // under a name that stands for this engine's settings, with a digest that shows it is whole.
    unsafe { Component::deserialize(engine, code) }
}

/// What compiled code depends on, as 32 hexadecimal characters.
fn engine_digest(engine: &Engine) -> String {
    struct Sha(digest::Context);
    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            // Unused: the whole digest is taken instead.
            0
        }
    }
    let mut sha = Sha(digest::Context::new(&digest::SHA256));
    engine.precompile_compatibility_hash().hash(&mut sha);
    hex::encode(&sha.0.finish().as_ref()[..16])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The smallest component: a header without sections.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn cache(path: &Path) -> (Engine, Result<CompileCache, CacheError>) {
        let engine = Engine::default();
        let cache = CompileCache::open(path, &engine, Arc::new(LogCompilations));
        (engine, cache)
    }

    fn component(cache: &CompileCache, engine: &Engine, sha256: &str, bytes: &[u8]) -> wasmtime::Result<Component> {
        cache.component(engine, Path::new("plugin.wasm"), sha256, bytes)
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn only_file(path: &Path) -> PathBuf {
        let files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    #[test]
    fn a_folder_is_made_for_us_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        cache(&path).1.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        for open in [0o750, 0o702, 0o777] {
            mode(temp.path(), open);
            let error = cache(temp.path()).1.unwrap_err();
            assert!(matches!(error, CacheError::Unsafe { .. }), "{error}");
        }
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let us = rustix::process::geteuid().as_raw();
        assert!(not_ours(us, 0o40_700).is_none());
        assert!(not_ours(us + 1, 0o40_700).unwrap().contains("belongs to user"));
    }

    #[test]
    fn a_component_is_kept_and_read_back() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("cache");
        let (engine, cache) = cache(&path);
        let cache = cache.unwrap();
        component(&cache, &engine, "00", EMPTY).unwrap();
        let file = only_file(&path);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(cache.read(name).is_some());
        // Read back, not compiled: these bytes are no component.
        component(&cache, &engine, "00", b"nothing").unwrap();
    }

    #[test]
    fn a_file_that_was_touched_is_not_used() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("cache");
        let (engine, cache) = cache(&path);
        let cache = cache.unwrap();
        component(&cache, &engine, "00", EMPTY).unwrap();
        let file = only_file(&path);
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let whole = std::fs::read(&file).unwrap();

        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut touched = whole.clone();
            touched[at] ^= 1;
            std::fs::write(&file, &touched).unwrap();
            assert!(cache.read(&name).is_none(), "byte {at}");
        }
        for length in [0, 10, whole.len() - 1] {
            std::fs::write(&file, &whole[..length]).unwrap();
            assert!(cache.read(&name).is_none(), "{length} bytes");
        }
        // Another plugin's code under this name.
        std::fs::write(&file, &whole).unwrap();
        std::fs::rename(&file, path.join(name.replacen("00", "11", 1))).unwrap();
        assert!(cache.read(&name.replacen("00", "11", 1)).is_none());

        // It is compiled again, and the file is good again.
        std::fs::remove_file(path.join(name.replacen("00", "11", 1))).unwrap();
        std::fs::write(&file, b"damaged").unwrap();
        component(&cache, &engine, "00", EMPTY).unwrap();
        assert!(cache.read(&name).is_some());
    }

    #[test]
    fn a_file_or_folder_that_others_can_write_is_not_used() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("cache");
        let (engine, cache) = cache(&path);
        let cache = cache.unwrap();
        component(&cache, &engine, "00", EMPTY).unwrap();
        let file = only_file(&path);
        let name = file.file_name().unwrap().to_str().unwrap();
        mode(&file, 0o620);
        assert!(cache.read(name).is_none());
        mode(&file, 0o600);
        assert!(cache.read(name).is_some());
        mode(&path, 0o770);
        assert!(cache.read(name).is_none(), "the folder was opened up after the start");
        assert!(cache.write(name, b"x").is_err());
    }

    #[test]
    fn a_link_out_of_the_folder_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("cache");
        let (engine, cache) = cache(&path);
        let cache = cache.unwrap();
        component(&cache, &engine, "00", EMPTY).unwrap();
        let file = only_file(&path);
        let name = file.file_name().unwrap().to_str().unwrap();
        let outside = temp.path().join("outside");
        std::fs::rename(&file, &outside).unwrap();
        std::os::unix::fs::symlink(&outside, &file).unwrap();
        assert!(cache.read(name).is_none());
    }

    /// Remembers what was compiled.
    #[derive(Debug, Default)]
    struct Seen(parking_lot::Mutex<Vec<PathBuf>>);

    impl CompileWatch for Seen {
        fn is_slow(&self, _component: &Path) {}

        fn compiled(&self, component: &Path, _took: Duration) {
            self.0.lock().push(component.to_owned());
        }
    }

    #[test]
    fn the_watch_hears_of_what_is_compiled_and_not_of_what_is_read_back() {
        let temp = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let seen = Arc::new(Seen::default());
        for _ in 0..3 {
            let cache = CompileCache::open(&temp.path().join("cache"), &engine, Arc::clone(&seen) as _).unwrap();
            component(&cache, &engine, "00", EMPTY).unwrap();
        }
        assert_eq!(*seen.0.lock(), [PathBuf::from("plugin.wasm")]);
        let cache = CompileCache::open(&temp.path().join("cache"), &engine, Arc::clone(&seen) as _).unwrap();
        component(&cache, &engine, "11", b"nothing").unwrap_err();
        assert_eq!(seen.0.lock().len(), 2, "a failure is told of too");
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("cache");
        let (engine, cache) = cache(&path);
        let mut cache = cache.unwrap();
        cache.most = Room { bytes: u64::MAX, files: 3 };
        let name = |sha256: &str| format!("{sha256}-{}.cwasm", cache.engine);
        let age = |sha256: &str, seconds: u64| {
            let file = std::fs::File::options().write(true).open(path.join(name(sha256))).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        for (sha256, seconds) in [("00", 400), ("11", 300), ("22", 200)] {
            component(&cache, &engine, sha256, EMPTY).unwrap();
            age(sha256, seconds);
        }
        // The oldest is used now, so the second oldest is the one that goes.
        component(&cache, &engine, "00", EMPTY).unwrap();
        component(&cache, &engine, "33", EMPTY).unwrap();
        let there = |sha256: &str| path.join(name(sha256)).exists();
        assert_eq!(["00", "11", "22", "33"].map(there), [true, false, true, true]);

        age("22", 100);
        let one = std::fs::metadata(path.join(name("00"))).unwrap().len();
        cache.most = Room { bytes: one * 2, files: usize::MAX };
        component(&cache, &engine, "44", EMPTY).unwrap();
        let name = |sha256: &str| format!("{sha256}-{}.cwasm", cache.engine);
        assert!(path.join(name("44")).exists() && !path.join(name("22")).exists());
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2);
    }
}
