//! Where downloads are kept between clones: one folder per user.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::Error;

/// Root's cache when `XDG_CACHE_HOME` is not set: servers run as another user, who cannot enter
/// root's home.
const ROOT_CACHE: &str = "/var/cache/jit-broker";

/// The cache folder, made if it is missing: `$XDG_CACHE_HOME/jit-broker`, else
/// `/var/cache/jit-broker` for root and `~/.cache/jit-broker` for others.
///
/// # Errors
/// [`Error::Io`] when it cannot be made.
pub fn folder() -> Result<PathBuf, Error> {
    let chosen = choose(
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
        is_root(),
        std::env::home_dir().map(|home| home.join(".cache")),
    );
    create_folder(&chosen)?;
    Ok(chosen)
}

/// Whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    // The owner of /proc/self is the effective user; std has no getuid.
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn choose(xdg: Option<PathBuf>, root: bool, home_cache: Option<PathBuf>) -> PathBuf {
    // XDG base directory specification: a relative path is to be ignored.
    if let Some(xdg) = xdg.filter(|path| path.is_absolute()) {
        return xdg.join("jit-broker");
    }
    if root {
        return ROOT_CACHE.into();
    }
    home_cache.unwrap_or_else(|| std::env::temp_dir().join("cache")).join("jit-broker")
}

/// Makes a folder and its parents, writable by the owner alone.
///
/// # Errors
/// [`Error::Io`] when it cannot be made.
pub fn create_folder(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(Error::io("make", path))
}

/// Installs something into `<cache>/<name>` unless it is there: `fill` works in a folder beside
/// it that is renamed when `fill` succeeded, so that an interruption leaves nothing half done.
/// One process at a time; others wait for it, at most `deadline`.
///
/// # Errors
/// What `fill` returns; [`Error::Io`]; [`Error::Deadline`] while waiting for another process.
pub fn install<E: From<Error>>(
    cache: &Path,
    name: &str,
    deadline: Duration,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<PathBuf, E> {
    let place = cache.join(name);
    if place.is_dir() {
        return Ok(place);
    }
    let parent = place.parent().unwrap_or(cache).to_owned();
    create_folder(&parent)?;
    let lock = lock(&cache.join("lock"), name, deadline)?;
    if place.is_dir() {
        return Ok(place);
    }
    remove_leftovers(&parent);
    let work = tempfile::Builder::new()
        .prefix(WORK_PREFIX)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(&parent)
        .map_err(Error::io("make a folder in", &parent))?;
    fill(work.path())?;
    fs::rename(work.path(), &place).map_err(Error::io("rename to", &place))?;
    // Renamed: there is nothing left for the guard to remove.
    let _ = work.keep();
    drop(lock);
    Ok(place)
}

/// Removes all files of a folder but the newest: what was made for sources that have changed since.
pub fn keep_newest(folder: &Path, keep: usize) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut files: Vec<_> =
        entries.flatten().filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    files.sort();
    for (_, path) in files.iter().rev().skip(keep) {
        // What cannot be removed only takes room.
        let _ = fs::remove_file(path);
    }
}

const WORK_PREFIX: &str = ".unfinished-";

/// Removes what an interrupted run left. Called with the lock held, so nobody works in it.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(WORK_PREFIX) {
            // What cannot be removed only takes room.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn lock(path: &Path, what: &str, deadline: Duration) -> Result<File, Error> {
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(Error::io("open", path))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if start.elapsed() < deadline => {
                thread::sleep(Duration::from_millis(100));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Deadline {
                    what: format!("waiting for another process that installs {what}"),
                    seconds: start.elapsed().as_secs(),
                    tail: String::new(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", path)(source)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_follows_xdg_then_the_user() {
        let home = Some(PathBuf::from("/home/ada/.cache"));
        assert_eq!(choose(Some("/x".into()), true, home.clone()), Path::new("/x/jit-broker"));
        assert_eq!(choose(Some("relative".into()), false, home.clone()), Path::new("/home/ada/.cache/jit-broker"));
        assert_eq!(choose(None, true, home.clone()), Path::new(ROOT_CACHE));
        assert_eq!(choose(None, false, home), Path::new("/home/ada/.cache/jit-broker"));
    }

    #[test]
    fn the_newest_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let start = std::time::SystemTime::UNIX_EPOCH;
        for age in 0..5 {
            let file = File::create(folder.path().join(age.to_string())).unwrap();
            file.set_modified(start + Duration::from_secs(1000 - age)).unwrap();
        }
        keep_newest(folder.path(), 2);
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["0", "1"]);
    }

    #[test]
    fn an_interrupted_installation_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let wait = Duration::from_secs(5);
        let failed = install(cache.path(), "tools/one", wait, |work| {
            fs::write(work.join("half"), "x").unwrap();
            Err(Error::Answer { what: "test".into(), detail: "stop".into() })
        });
        assert!(failed.is_err());
        assert!(!cache.path().join("tools/one").exists());

        // A run that was killed could not even clean up; the next one does.
        let killed = cache.path().join("tools").join(format!("{WORK_PREFIX}abc"));
        fs::create_dir_all(&killed).unwrap();
        let place = install::<Error>(cache.path(), "tools/one", wait, |work| {
            fs::write(work.join("whole"), "x").unwrap();
            Ok(())
        })
        .unwrap();
        assert!(place.join("whole").exists());
        assert!(!killed.exists());
        install::<Error>(cache.path(), "tools/one", wait, |_| panic!("it is there")).unwrap();
    }
}
