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
//! The name of a file is the digest of the component, the digest of a configuration
//! where it is a snapshot ([`crate::snapshot`]), and the digest of everything in the engine
//! that the code depends on (`precompile_compatibility_hash`: wasmtime's version, the processor, the settings).
//! The limits of calls are not among these, so every configuration shares one file.
//!
//! The folder is bounded: whoever adds a file removes those that were used longest ago.

mod functions;

use std::fs::File;
use std::hash::{Hash as _, Hasher};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
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

/// How much of a file is read at once to check it, in bytes.
const PIECE: usize = 256 << 10;

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
        key: &str,
        bytes: &[u8],
    ) -> wasmtime::Result<Component> {
        match self.kept(engine, key) {
            Some(component) => Ok(component),
            None => self.compile_and_keep(engine, key, || self.watched(path, || engine.precompile_component(bytes))),
        }
    }

    /// The component that was kept under that key, if it is there and whole.
    pub(crate) fn kept(&self, engine: &Engine, key: &str) -> Option<Component> {
        let name = self.name(key);
        let file = self.open_checked(&name)?;
        match map(engine, &file) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(%error, name, "a compiled plugin does not load; recompiling it");
                None
            }
        }
    }

    /// Compiles and keeps the result under that key.
    pub(crate) fn compile_and_keep(
        &self,
        engine: &Engine,
        key: &str,
        compile: impl FnOnce() -> wasmtime::Result<Vec<u8>>,
    ) -> wasmtime::Result<Component> {
        let code = compile()?;
        let name = self.name(key);
        match self.write(&name, &code) {
            Ok(file) => {
                self.make_room();
                // The file rather than the bytes: what is mapped takes memory only where it is used.
                map(engine, &file).or_else(|_| deserialize(engine, &code))
            }
            Err(error) => {
                tracing::warn!(%error, name, "a compiled plugin cannot be kept; the next start compiles it again");
                deserialize(engine, &code)
            }
        }
    }

    fn name(&self, key: &str) -> String {
        format!("{key}-{}.cwasm", self.engine)
    }

    /// Compiles, and tells the watch when that takes a while.
    pub(crate) fn watched<T>(&self, path: &Path, compile: impl FnOnce() -> wasmtime::Result<T>) -> wasmtime::Result<T> {
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
            let compiled = compile();
            drop(done);
            compiled
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

    /// An open file whose content can be trusted.
    fn open_checked(&self, name: &str) -> Option<File> {
        match self.check(name) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, name, "a compiled plugin is not used; recompiling it");
                None
            }
        }
    }

    /// Opens a file and checks that it is ours and whole. What is checked and what is used is one open file:
    /// a name that means another file later changes nothing.
    fn check(&self, name: &str) -> std::io::Result<File> {
        let refuse = |reason: &str| std::io::Error::new(std::io::ErrorKind::PermissionDenied, reason.to_owned());
        if let Some(reason) = self.folder_is_ours()? {
            return Err(refuse(&reason));
        }
        let file = self.dir.open(name)?;
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
        let Some(length) = metadata.len().checked_sub(DIGEST as u64) else {
            return Err(refuse("it is cut short"));
        };
        let mut file = file.into_std();
        let mut content = digest_of_name(name);
        let mut left = length;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            file.read_exact(&mut piece[..most])?;
            content.update(&piece[..most]);
            left -= most as u64;
        }
        let mut expected = [0; DIGEST];
        file.read_exact(&mut expected)?;
        if expected != *content.finish().as_ref() {
            return Err(refuse("its digest does not fit: it is damaged"));
        }
        // In use, so that others go first. Where the time cannot be set, it only goes too early.
        let _ = file.set_modified(SystemTime::now());
        Ok(file)
    }

    /// Writes beside and renames, so that a reader sees a whole file or none. Gives the file that was written.
    fn write(&self, name: &str, code: &[u8]) -> std::io::Result<File> {
        let beside = Self::beside(name);
        let mut file = self.create(&beside)?;
        let written = file
            .write_all(code)
            .and_then(|()| file.write_all(file_digest(name, code).as_ref()))
            .and_then(|()| file.sync_all())
            .and_then(|()| self.dir.rename(&beside, &self.dir, name));
        if written.is_err() {
            let _ = self.dir.remove_file(&beside);
        }
        written.map(|()| file.into_std())
    }

    /// The name of a file until it is whole.
    fn beside(name: &str) -> String {
        static WRITES: AtomicU64 = AtomicU64::new(0);
        format!("{name}.{}-{}.new", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed))
    }

    /// A new file of ours alone.
    fn create(&self, beside: &str) -> std::io::Result<cap_std::fs::File> {
        if let Some(reason) = self.folder_is_ours()? {
            return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, reason));
        }
        // From a run with the same process id that did not finish.
        let _ = self.dir.remove_file(beside);
        self.dir.open_with(beside, OpenOptions::new().read(true).write(true).create_new(true).mode(0o600))
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
    let mut context = digest_of_name(name);
    context.update(code);
    context.finish()
}

fn digest_of_name(name: &str) -> digest::Context {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(name.as_bytes());
    context.update(&[0]);
    context
}

/// Loads compiled code from an open file that [`CompileCache`] has checked or just written. The file is mapped: pages that are not used
/// take no memory, and the images of linear memories are copied on write from the file itself.
fn map(engine: &Engine, file: &File) -> wasmtime::Result<Component> {
    // The same open file under a name, since there is no function that takes the file itself.
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    if !Path::new(&name).exists() {
        return read_back(engine, file);
    }
    map_named(engine, &name)
}

/// As [`map`], by reading: without /proc.
fn read_back(engine: &Engine, mut file: &File) -> wasmtime::Result<Component> {
    let mut code = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(MAX_FILE).read_to_end(&mut code)?;
    deserialize(engine, code.get(..code.len().saturating_sub(DIGEST)).unwrap_or_default())
}

#[allow(
    unsafe_code,
    reason = "the file was checked by `CompileCache::check` or just written; the tests of this module tamper with it"
)]
fn map_named(engine: &Engine, name: &str) -> wasmtime::Result<Component> {
    // SAFETY: as with `deserialize`, and the file must not change while it is mapped: only our own user can write it,
    // and the broker writes no file that has its final name (it writes beside and renames).
    unsafe { Component::deserialize_file(engine, name) }
}

/// Loads compiled code that an engine of this process has just made, or that was checked.
#[allow(unsafe_code, reason = "the code was made by this engine, or is the content of a file that was checked")]
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
mod tests;
