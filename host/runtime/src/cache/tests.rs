//! Whose files the cache trusts, and what makes room.

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

/// A cache with one component in it.
struct Kept {
    temp: tempfile::TempDir,
    engine: Engine,
    cache: CompileCache,
    /// The component's file.
    file: PathBuf,
    /// The name of that file.
    name: String,
}

fn kept() -> Kept {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("cache");
    let (engine, cache) = cache(&path);
    let cache = cache.unwrap();
    component(&cache, &engine, "00", EMPTY).unwrap();
    let file = only_file(&path);
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    Kept { temp, engine, cache, file, name }
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
    let Kept { engine, cache, file, name, temp: _temp } = kept();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(cache.open_checked(&name).is_some());
    // Read back, not compiled: these bytes are no component.
    component(&cache, &engine, "00", b"nothing").unwrap();
}

#[test]
fn what_cannot_be_mapped_is_read() {
    let Kept { engine, cache, name, temp: _temp, .. } = kept();
    let file = cache.open_checked(&name).unwrap();
    read_back(&engine, &file).unwrap();
    map(&engine, &file).unwrap();
}

#[test]
fn a_file_that_was_touched_is_not_used() {
    let Kept { temp, engine, cache, file, name } = kept();
    let path = temp.path().join("cache");
    let whole = std::fs::read(&file).unwrap();

    for at in [0, whole.len() / 2, whole.len() - 1] {
        let mut touched = whole.clone();
        touched[at] ^= 1;
        std::fs::write(&file, &touched).unwrap();
        assert!(cache.open_checked(&name).is_none(), "byte {at}");
    }
    for length in [0, 10, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        assert!(cache.open_checked(&name).is_none(), "{length} bytes");
    }
    // Another plugin's code under this name.
    std::fs::write(&file, &whole).unwrap();
    std::fs::rename(&file, path.join(name.replacen("00", "11", 1))).unwrap();
    assert!(cache.open_checked(&name.replacen("00", "11", 1)).is_none());

    // It is compiled again, and the file is good again.
    std::fs::remove_file(path.join(name.replacen("00", "11", 1))).unwrap();
    std::fs::write(&file, b"damaged").unwrap();
    component(&cache, &engine, "00", EMPTY).unwrap();
    assert!(cache.open_checked(&name).is_some());
}

#[test]
fn a_file_or_folder_that_others_can_write_is_not_used() {
    let Kept { temp, cache, file, name, .. } = kept();
    let path = temp.path().join("cache");
    mode(&file, 0o620);
    assert!(cache.open_checked(&name).is_none());
    mode(&file, 0o600);
    assert!(cache.open_checked(&name).is_some());
    mode(&path, 0o770);
    assert!(cache.open_checked(&name).is_none(), "the folder was opened up after the start");
    assert!(cache.write(&name, b"x").is_err());
}

#[test]
fn a_link_out_of_the_folder_is_not_followed() {
    let Kept { temp, cache, file, name, .. } = kept();
    let outside = temp.path().join("outside");
    std::fs::rename(&file, &outside).unwrap();
    std::os::unix::fs::symlink(&outside, &file).unwrap();
    assert!(cache.open_checked(&name).is_none());
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
    assert_eq!(seen.0.lock().len(), 2, "the watch hears of a failure too");
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
    // The oldest is used now, so the second oldest is removed.
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
