//! Serves changed files without a command: the configuration, every plugin, and who vouches for them.
//!
//! The system tells of changes (inotify on the folders, so that files that are renamed into place and
//! links that are turned are seen); where it cannot, and now and then in any case, the files are
//! looked at. What then counts is their contents: [`Reloader::reload_changed`] does nothing when they
//! are what was read last. A change is acted on after a quiet moment, so that a file that is being
//! written is seldom read by halves; where it is all the same, it is refused and the rest is read
//! when it is there.

pub mod contents;
mod places;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jit_pipeline::tasks::driver::{Next, Pace, Pass, Task};

use self::places::Places;
use self::system::Reports;
use crate::reload::{RELOADS, Reloader};

/// So long nothing must change before a change is acted on.
const QUIET: Duration = Duration::from_millis(300);
/// And so long at most is waited for that.
const MOST_UNREST: Duration = Duration::from_secs(3);
/// How often the files are looked at where the system does not tell of changes.
const PACE: Duration = Duration::from_secs(3);
/// And where it does: what it missed (a network file system, a folder that came back) is found late,
/// not never.
const PACE_IN_ANY_CASE: Duration = Duration::from_secs(30);
/// When what was refused is tried again, and then each time after twice as long: it may have been
/// refused for what is in no file, such as accounts that need their driver.
const FIRST_RETRY: Duration = Duration::from_secs(60);
/// But at the latest then.
const LAST_RETRY: Duration = Duration::from_secs(3_600);

/// The task that serves changed files.
pub struct Watching {
    reloader: Arc<Reloader>,
    watch: Watch,
    patience: Duration,
    /// Nothing has changed, but what was refused is to be tried again.
    again: bool,
}

impl Watching {
    /// That follows no file yet.
    #[must_use]
    pub fn new(reloader: Arc<Reloader>) -> Self {
        Self { reloader, watch: Watch::new(), patience: FIRST_RETRY, again: false }
    }
}

#[async_trait]
impl Task for Watching {
    fn name(&self) -> &str {
        "watch"
    }

    fn pace(&self) -> Pace {
        RELOADS
    }

    async fn pass(&mut self) -> Pass {
        let again = std::mem::take(&mut self.again);
        self.patience = if again { LAST_RETRY.min(self.patience * 2) } else { FIRST_RETRY };
        let changed = self.reloader.reload_changed(again).await;
        let files = self.reloader.files().await;
        // Where another place is watched than before, something may have changed there already.
        let next = if self.watch.follow(&files) { Next::In(Duration::ZERO) } else { Next::WhenWoken };
        Pass::done([("files", files.len() as u64), ("changed", u64::from(changed))], next)
    }

    async fn woken(&mut self) {
        loop {
            let files = self.reloader.files().await;
            let quiet = tokio::time::timeout(self.patience, self.watch.changed(&files)).await.is_err();
            if quiet && !self.reloader.is_refused().await {
                continue;
            }
            self.again = quiet;
            return;
        }
    }
}

/// What of a file's metadata tells that it may be another: device, inode, size, times of change.
type Look = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

/// Sees that files may have changed.
struct Watch {
    /// None where the system does not tell of changes.
    reports: Option<Reports>,
    /// How often the files are looked at in any case.
    pace: Duration,
    /// The folders that are watched, each by its inode: another folder may take the path.
    folders: BTreeMap<PathBuf, Option<(u64, u64)>>,
    /// The paths whose changes matter, among all that happens in those folders.
    wanted: BTreeSet<PathBuf>,
    /// Something has changed, and [`Watch::changed`] has not said so yet.
    woken: bool,
    /// The files at the last look.
    looks: Vec<Look>,
}

impl Watch {
    fn new() -> Self {
        let mut watch = Self::without_system();
        match Reports::new() {
            Ok(reports) => (watch.reports, watch.pace) = (Some(reports), PACE_IN_ANY_CASE),
            Err(error) => watch.do_without(&error),
        }
        watch
    }

    /// Looks at the files itself.
    fn without_system() -> Self {
        Self {
            reports: None,
            pace: PACE,
            folders: BTreeMap::new(),
            wanted: BTreeSet::new(),
            woken: false,
            looks: Vec::new(),
        }
    }

    fn do_without(&mut self, error: &std::io::Error) {
        (self.reports, self.pace) = (None, PACE);
        tracing::warn!(
            %error,
            "the system does not report changed files (fs.inotify.max_user_watches or max_user_instances may be too \
             low): they are looked at every {} seconds instead", PACE.as_secs()
        );
    }

    /// Follows these files from now on. Whether that is another set of places than before.
    fn follow(&mut self, files: &BTreeSet<PathBuf>) -> bool {
        let places = Places::of(files);
        self.wanted = places.wanted();
        let folders: BTreeMap<_, _> =
            places.folders().into_iter().map(|folder| (folder.clone(), inode(&folder))).collect();
        if folders == self.folders {
            return false;
        }
        if let Err(error) = self.watch_folders(&folders) {
            self.do_without(&error);
        }
        self.folders = folders;
        self.looks = looks(files);
        true
    }

    fn watch_folders(&mut self, folders: &BTreeMap<PathBuf, Option<(u64, u64)>>) -> std::io::Result<()> {
        let Some(reports) = &mut self.reports else { return Ok(()) };
        // First: the same folder may be watched by its new path.
        for (path, _) in self.folders.iter().filter(|(path, id)| folders.get(*path) != Some(*id)) {
            reports.end(path);
        }
        for (path, _) in folders.iter().filter(|(path, id)| self.folders.get(*path) != Some(*id)) {
            reports.begin(path)?;
        }
        Ok(())
    }

    /// Waits until one of the files may have changed, and then for a quiet moment. What had changed
    /// when this was dropped before its end is told by the next call.
    async fn changed(&mut self, files: &BTreeSet<PathBuf>) {
        while !self.woken {
            let reported = async {
                match &mut self.reports {
                    Some(reports) => reports.change_of(&self.wanted).await,
                    None => std::future::pending().await,
                }
            };
            self.woken = tokio::select! {
                reported = reported => {
                    if let Err(error) = reported {
                        self.do_without(&error);
                    }
                    true
                }
                () = tokio::time::sleep(self.pace) => looks(files) != self.looks,
            };
        }
        let begun = Instant::now();
        loop {
            let before = looks(files);
            tokio::time::sleep(QUIET).await;
            // An error is a reason to look as well; the next wait finds it again.
            let reported = self.reports.as_mut().is_some_and(|reports| reports.changed(&self.wanted).unwrap_or(true));
            let now = looks(files);
            if (!reported && now == before) || begun.elapsed() >= MOST_UNREST {
                self.looks = now;
                self.woken = false;
                return;
            }
        }
    }
}

fn looks(files: &BTreeSet<PathBuf>) -> Vec<Look> {
    let look = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        let (modified, changed) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
        Some((found.dev(), found.ino(), found.len(), modified, changed))
    };
    files.iter().map(look).collect()
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change that is not seen fails the test; none waits for this otherwise.
    const PATIENCE: Duration = Duration::from_secs(50);

    struct Ground {
        folder: tempfile::TempDir,
        watch: Watch,
        files: BTreeSet<PathBuf>,
    }

    impl Ground {
        fn new(mut watch: Watch, files: &[&str], prepare: impl FnOnce(&Path)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            prepare(folder.path());
            let files = files.iter().map(|name| folder.path().join(name)).collect();
            assert!(watch.follow(&files), "places are new");
            assert!(!watch.follow(&files), "and then they are not");
            Self { folder, watch, files }
        }

        /// Does something and waits for it to be seen.
        async fn sees(&mut self, what: &str, act: impl FnOnce(&Path)) {
            act(self.folder.path());
            let seen = tokio::time::timeout(PATIENCE, self.watch.changed(&self.files)).await;
            assert!(seen.is_ok(), "not seen: {what}");
            self.watch.follow(&self.files);
        }
    }

    fn write(path: PathBuf, text: &str) {
        std::fs::write(path, text).unwrap();
    }

    fn link(target: &str, path: PathBuf) {
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    async fn sees_what_people_do(watch: Watch) {
        let mut ground = Ground::new(watch, &["broker.toml", "late/rule.wasm"], |folder| {
            write(folder.join("broker.toml"), "1");
        });
        ground.sees("a file is written", |folder| write(folder.join("broker.toml"), "22")).await;
        ground
            .sees("a file is renamed into place", |folder| {
                write(folder.join("new"), "333");
                std::fs::rename(folder.join("new"), folder.join("broker.toml")).unwrap();
            })
            .await;
        ground.sees("a file is removed", |folder| std::fs::remove_file(folder.join("broker.toml")).unwrap()).await;
        ground
            .sees("a folder that was missing comes with its file", |folder| {
                std::fs::create_dir(folder.join("coming")).unwrap();
                write(folder.join("coming/rule.wasm"), "1");
                std::fs::rename(folder.join("coming"), folder.join("late")).unwrap();
            })
            .await;
        ground.sees("the file in it changes", |folder| write(folder.join("late/rule.wasm"), "22")).await;
        ground
            .sees("another folder takes its place", |folder| {
                std::fs::create_dir(folder.join("other")).unwrap();
                write(folder.join("other/rule.wasm"), "333");
                std::fs::rename(folder.join("late"), folder.join("before")).unwrap();
                std::fs::rename(folder.join("other"), folder.join("late")).unwrap();
            })
            .await;
        ground.sees("the file in that one changes", |folder| write(folder.join("late/rule.wasm"), "4444")).await;
    }

    /// What the system does not tell is not found by a look.
    fn by_the_system() -> Watch {
        let watch = Watch { pace: PATIENCE * 2, ..Watch::new() };
        assert!(watch.reports.is_some());
        watch
    }

    #[tokio::test]
    async fn the_system_tells_what_people_do() {
        sees_what_people_do(by_the_system()).await;
    }

    #[tokio::test]
    async fn without_the_system_the_files_are_looked_at() {
        sees_what_people_do(Watch { pace: Duration::from_millis(20), ..Watch::without_system() }).await;
    }

    #[tokio::test]
    async fn a_mounted_volume_turns_its_link() {
        let prepare = |folder: &Path| {
            std::fs::create_dir(folder.join("..1")).unwrap();
            write(folder.join("..1/rule.wasm"), "1");
            link("..1", folder.join("..data"));
            link("..data/rule.wasm", folder.join("rule.wasm"));
        };
        let mut ground = Ground::new(by_the_system(), &["rule.wasm"], prepare);
        for (next, text) in [("..2", "22"), ("..3", "333")] {
            ground
                .sees("the link is turned", |folder| {
                    std::fs::create_dir(folder.join(next)).unwrap();
                    write(folder.join(next).join("rule.wasm"), text);
                    link(next, folder.join("..data_tmp"));
                    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
                })
                .await;
        }
    }
}
