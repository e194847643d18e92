//! Where in the file system something has to happen for a file to become another.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// The most links that are followed from one path, as the system does.
const MAX_LINKS: usize = 40;

/// The entries of folders on which files depend: themselves, every symbolic link on the way, and
/// where a part of the way is missing, that.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places(BTreeSet<PathBuf>);

impl Places {
    pub(super) fn of(files: &BTreeSet<PathBuf>) -> Self {
        let mut places = Self::default();
        for file in files {
            // Without a current folder there is nothing to be found.
            if let Ok(file) = std::path::absolute(file) {
                places.trace(&file);
            }
        }
        places
    }

    fn trace(&mut self, file: &Path) {
        let mut ahead: VecDeque<OsString> = parts(file).collect();
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = ahead.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let here = at.join(&part);
            match std::fs::read_link(&here) {
                Ok(target) if links < MAX_LINKS => {
                    links += 1;
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                        ahead.push_front(part);
                    }
                    self.0.insert(here);
                }
                _ => {
                    let missing = std::fs::symlink_metadata(&here).is_err();
                    if ahead.is_empty() || missing {
                        self.0.insert(here.clone());
                    }
                    if missing {
                        return;
                    }
                    at = here;
                }
            }
        }
    }

    /// The folders in which that happens.
    pub(super) fn folders(&self) -> BTreeSet<PathBuf> {
        self.0.iter().filter_map(|place| place.parent()).map(Path::to_owned).collect()
    }

    /// The places, and their folders: these can be renamed or removed themselves.
    pub(super) fn wanted(&self) -> BTreeSet<PathBuf> {
        let mut wanted = self.folders();
        wanted.extend(self.0.iter().cloned());
        wanted
    }
}

/// The names in a path; `..` for a step up.
fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_what_is_missing_are_places_too() {
        let folder = tempfile::tempdir().unwrap();
        // The folder's own path may have links in it.
        let root = folder.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path);
        std::fs::create_dir_all(at("releases/2")).unwrap();
        std::fs::create_dir(at("volume")).unwrap();
        std::fs::write(at("releases/2/broker.toml"), "").unwrap();
        symlink("2", at("releases/current")).unwrap();
        symlink(at("releases/current"), at("etc")).unwrap();
        symlink("../etc/broker.toml", at("volume/broker.toml")).unwrap();
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();

        let places = |path: &str| Places::of(&[at(path)].into());
        let expected = |paths: &[&str]| Places(paths.iter().map(|path| at(path)).collect());
        assert_eq!(places("releases/2/broker.toml"), expected(&["releases/2/broker.toml"]));
        assert_eq!(
            places("volume/broker.toml"),
            expected(&["volume/broker.toml", "etc", "releases/current", "releases/2/broker.toml"])
        );
        assert_eq!(places("missing/folder/rule.wasm"), expected(&["missing"]));
        assert_eq!(places("volume/missing.wasm").folders(), [at("volume")].into());
        // Links in a circle end.
        assert!(places("a").0.contains(&at("b")));
    }
}
