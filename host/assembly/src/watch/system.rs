//! The system reports changes in folders: inotify(7).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use futures_util::{FutureExt as _, StreamExt as _};
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};

/// What is reported. Writes to an open file are not: the store may lie beside the configuration and is written all
/// the time, and each report would wake this process. A file that was written is reported when it is closed.
const REPORTED: WatchMask = WatchMask::CREATE
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::ATTRIB)
    .union(WatchMask::MOVE)
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF);
/// Bytes for events that are read at once: a hundred or more of them.
const BUFFER: usize = 4 * 1024;

/// Reports of the system about some folders.
pub(super) struct Reports {
    events: EventStream<Vec<u8>>,
    folders: BTreeMap<PathBuf, WatchDescriptor>,
}

impl Reports {
    /// Of no folder yet.
    ///
    /// # Errors
    /// When the system has no instance left for this user (`fs.inotify.max_user_instances`).
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { events: Inotify::init()?.into_event_stream(vec![0; BUFFER])?, folders: BTreeMap::new() })
    }

    /// Reports of this folder too. One that is not there is left out: the folder above it reports when it comes.
    ///
    /// # Errors
    /// When the system has no watch left for this user (`fs.inotify.max_user_watches`), or the folder may not be read.
    pub(super) fn begin(&mut self, folder: &Path) -> io::Result<()> {
        match self.events.watches().add(folder, REPORTED) {
            Ok(watch) => {
                self.folders.insert(folder.to_owned(), watch);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// No more reports of this folder.
    pub(super) fn end(&mut self, folder: &Path) {
        let Some(watch) = self.folders.remove(folder) else { return };
        // The same folder may have two paths, and then has one watch.
        if !self.folders.values().any(|other| *other == watch) {
            // Where the folder itself is gone, the system has forgotten it already.
            let _forgotten = self.events.watches().remove(watch);
        }
    }

    /// Waits until something happens to one of these paths. Nothing is lost when this is dropped before its end.
    ///
    /// # Errors
    /// When the system does not report any longer.
    pub(super) async fn change_of(&mut self, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
        loop {
            let event = self.events.next().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
            if self.is_about(&event, wanted) {
                return Ok(());
            }
        }
    }

    /// Whether something has happened to one of these paths that was not reported yet.
    ///
    /// # Errors
    /// As [`Reports::change_of`].
    pub(super) fn changed(&mut self, wanted: &BTreeSet<PathBuf>) -> io::Result<bool> {
        let mut changed = false;
        while let Some(event) = self.change_of(wanted).now_or_never() {
            event?;
            changed = true;
        }
        Ok(changed)
    }

    fn is_about(&self, event: &Event<std::ffi::OsString>, wanted: &BTreeSet<PathBuf>) -> bool {
        // The system lost some: anything may have happened.
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return true;
        }
        let mut of = self.folders.iter().filter(|(_, watch)| **watch == event.wd);
        of.any(|(folder, _)| match &event.name {
            Some(name) => wanted.contains(&folder.join(name)),
            None => wanted.contains(folder),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;

    use super::*;

    /// What has been reported once the runtime has asked the system.
    async fn changed(reports: &mut Reports, wanted: &BTreeSet<PathBuf>) -> bool {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        reports.changed(wanted).unwrap()
    }

    #[tokio::test]
    async fn an_open_file_that_is_written_and_other_files_wake_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (config, store) = (folder.path().join("broker.toml"), folder.path().join("broker.db-wal"));
        fs::write(&config, "1").unwrap();
        let mut open = File::create(&store).unwrap();
        let mut reports = Reports::new().unwrap();
        reports.begin(folder.path()).unwrap();
        let every = BTreeSet::from([config.clone(), store.clone(), folder.path().to_owned()]);
        for _ in 0..100 {
            open.write_all(b"page").unwrap();
        }
        fs::read(&config).unwrap();
        assert!(!changed(&mut reports, &every).await, "a write or a read is reported");

        let wanted = BTreeSet::from([config.clone()]);
        drop(open);
        assert!(!changed(&mut reports, &wanted).await, "another file");
        fs::write(&config, "2").unwrap();
        assert!(changed(&mut reports, &wanted).await);
        assert!(!changed(&mut reports, &wanted).await, "once");
        drop(File::options().append(true).open(&store).unwrap());
        assert!(changed(&mut reports, &every).await, "a file that was open for writing is closed");

        reports.end(folder.path());
        fs::write(&config, "3").unwrap();
        assert!(!changed(&mut reports, &every).await);
    }

    #[tokio::test]
    async fn events_that_the_system_lost_may_have_been_about_anything() {
        let folder = tempfile::tempdir().unwrap();
        let mut reports = Reports::new().unwrap();
        reports.begin(folder.path()).unwrap();
        let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        // Of two files in turns: equal events that follow each other would be one.
        for number in 0..=most {
            File::create(folder.path().join(format!("{}", number % 2))).unwrap();
        }
        let elsewhere = BTreeSet::from(["/elsewhere".into()]);
        let reported = tokio::time::timeout(std::time::Duration::from_secs(50), reports.change_of(&elsewhere)).await;
        assert!(matches!(reported, Ok(Ok(()))), "not reported");
    }
}
