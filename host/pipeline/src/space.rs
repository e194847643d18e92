//! Room on the disk: removals can be recorded long after nothing else can.
//!
//! The file systems of the store and of the exports are looked at every few seconds. Below the first mark
//! denials are counted and no longer recorded in full ([`crate::denials`]); below the second nothing new is
//! handed out, no lease and no renewal, while removals go on and are recorded. A file that only takes up room
//! (`Space::reserve`) is given up when even that room is nearly gone: its bytes are for the removals' records.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use jit_core::space::Marks;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

const MIB: u64 = 1024 * 1024;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Enough.
    Ample,
    /// Below the first mark.
    Low,
    /// Below the second mark.
    Stop,
}

impl Room {
    const ALL: [Self; 3] = [Self::Ample, Self::Low, Self::Stop];
}

/// A file system's bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    /// That this process may still use.
    pub free: u64,
    /// In all.
    pub total: u64,
}

/// What the place is called in metrics where the store is.
const STORE: &str = "store";
/// The same of an export.
const EXPORT: &str = "export";

type Measure = fn(&Path) -> io::Result<Bytes>;

/// What is watched.
pub struct Space {
    /// What for, and in which folder.
    places: Vec<(&'static str, PathBuf)>,
    marks: Marks,
    /// The file that takes up room beside the store; none where the store is no file of this machine.
    reserve: Option<PathBuf>,
    room: AtomicU8,
    measure: Measure,
    /// One look at a time.
    looking: Mutex<()>,
}

impl Space {
    /// Watches the file systems of those exports and of the store's file, where it is one of this machine. Without any
    /// there is always room: what a store elsewhere lacks it says itself, when it is written.
    #[must_use]
    pub fn new<'p>(store: Option<&Path>, exports: impl IntoIterator<Item = &'p PathBuf>, marks: Marks) -> Self {
        let mut places: Vec<_> = store.map(|file| (STORE, folder(file))).into_iter().collect();
        places.extend(exports.into_iter().map(|path| (EXPORT, folder(path))));
        let reserve = store.map(|file| {
            let mut reserve = file.as_os_str().to_owned();
            reserve.push(".reserve");
            reserve.into()
        });
        Self { places, marks, reserve, room: AtomicU8::new(0), measure, looking: Mutex::new(()) }
    }

    /// How much there was at the last look.
    #[must_use]
    pub fn room(&self) -> Room {
        Room::ALL[usize::from(self.room.load(Ordering::Relaxed)).min(2)]
    }

    /// Looks how much there is, makes the reserve where there is room for it, and gives it up where there is
    /// none left. Asks the file system; a broken one may hold that up.
    pub fn look(&self) -> Room {
        let _one = self.looking.lock();
        let mut worst = Room::Ample;
        for (what, folder) in &self.places {
            let bytes = match (self.measure)(folder) {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::debug!(%error, folder = %folder.display(), "the free space cannot be told");
                    continue;
                }
            };
            let share = |mark: Option<u64>, most: u64, part: u64| mark.unwrap_or_else(|| most.min(bytes.total / part));
            let low = share(self.marks.low, 1024 * MIB, 10);
            let stop = share(self.marks.stop, 256 * MIB, 20);
            let free = match &self.reserve {
                Some(reserve) if *what == STORE => {
                    let size = share(self.marks.reserve, 16 * MIB, 50);
                    bytes.free.saturating_add(keep_reserve(reserve, bytes.free, stop, size))
                }
                _ => bytes.free,
            };
            metrics::gauge!("jit_disk_free_bytes", "place" => *what).set(free as f64);
            let room = match free {
                _ if free < stop => Room::Stop,
                _ if free < low => Room::Low,
                _ => Room::Ample,
            };
            worst = worst.max(room);
        }
        self.tell(worst);
        worst
    }

    fn tell(&self, room: Room) {
        let before = self.room.swap(room as u8, Ordering::Relaxed);
        metrics::gauge!("jit_disk_room").set(f64::from(room as u8));
        if before == room as u8 {
            return;
        }
        match room {
            Room::Ample => tracing::info!("the disk has room again"),
            Room::Low => tracing::warn!("the disk has little room: denials are counted and no longer recorded in full"),
            Room::Stop => tracing::error!(
                "the disk is nearly full: no lease is issued or renewed until there is room; removals go on"
            ),
        }
    }
}

/// Makes or gives up the reserve; returns how many bytes were given up.
fn keep_reserve(reserve: &Path, free: u64, stop: u64, size: u64) -> u64 {
    let held = std::fs::metadata(reserve).map_or(0, |found| found.len());
    metrics::gauge!("jit_disk_reserve_bytes").set(held as f64);
    if held > 0 && free < size {
        match std::fs::remove_file(reserve) {
            Ok(()) => {
                tracing::error!(path = %reserve.display(), bytes = held, "the disk is full: the reserve was given up, so that removals can be recorded");
                metrics::gauge!("jit_disk_reserve_bytes").set(0.0);
                return held;
            }
            Err(error) => tracing::error!(%error, path = %reserve.display(), "the reserve cannot be given up"),
        }
    } else if held < size
        && size > 0
        && free > stop.saturating_add(2 * size)
        && let Err(error) = fill(reserve, size)
    {
        tracing::warn!(%error, path = %reserve.display(), "no reserve can be kept on the disk");
        let _none = std::fs::remove_file(reserve);
    }
    0
}

fn folder(of: &Path) -> PathBuf {
    match of.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn measure(folder: &Path) -> io::Result<Bytes> {
    let found = statvfs(folder)?;
    Ok(Bytes {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

/// A file of that size whose blocks are its own.
fn fill(path: &Path, size: u64) -> io::Result<()> {
    let mut file: File = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, size) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let block = [0_u8; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(&block[..part])?;
        left -= part as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    static FREE: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn the_marks_hold_and_the_reserve_is_given_up_last() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("broker.db");
        let marks = Marks { low: Some(1_000_000), stop: Some(100_000), reserve: Some(10_000) };
        let measure: Measure = |_| Ok(Bytes { free: FREE.load(Ordering::SeqCst), total: 10_000_000 });
        let space = Space { measure, ..Space::new(Some(&store), &[], marks) };
        let reserve = folder.path().join("broker.db.reserve");
        let held = || std::fs::metadata(&reserve).map_or(0, |found| found.len());
        for (free, room, kept) in [
            (50_000, Room::Stop, 0),
            (2_000_000, Room::Ample, 10_000),
            (999_999, Room::Low, 10_000),
            (99_999, Room::Stop, 10_000),
            (9_999, Room::Stop, 0),
            (15_000, Room::Stop, 0),
            (500_000, Room::Low, 10_000),
        ] {
            FREE.store(free, Ordering::SeqCst);
            assert_eq!((space.look(), held()), (room, kept), "{free} bytes free");
            assert_eq!(space.room(), room);
        }
    }

    #[test]
    fn a_real_file_system_is_measured_and_a_missing_one_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = measure(folder.path()).unwrap();
        assert!(bytes.total >= bytes.free && bytes.total > 0);
        let nowhere = Space::new(Some(Path::new("/nowhere/at/all/broker.db")), &[], Marks::default());
        assert_eq!(nowhere.look(), Room::Ample);
        let all = Marks { stop: Some(u64::MAX), ..Marks::default() };
        assert_eq!(Space::new(Some(&folder.path().join("broker.db")), &[], all).look(), Room::Stop);
    }

    /// A store that is no file of this machine fills no disk here, and keeps no reserve; an export still does.
    #[test]
    fn without_a_file_of_the_store_only_the_exports_are_watched() {
        let folder = tempfile::tempdir().unwrap();
        let all = Marks { stop: Some(u64::MAX), ..Marks::default() };
        assert_eq!(Space::new(None, &[], all).look(), Room::Ample);
        let export = folder.path().join("audit.jsonl");
        assert_eq!(Space::new(None, std::slice::from_ref(&export), all).look(), Room::Stop);
        let marks = Marks { low: Some(0), stop: Some(0), reserve: Some(10_000) };
        assert_eq!(Space::new(None, &[export], marks).look(), Room::Ample);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no reserve is made");
    }
}
