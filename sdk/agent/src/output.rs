//! Files of which nobody ever sees half: written beside, synced, renamed.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Gid, Uid};
use serde::{Deserialize, Serialize};

use crate::error::AgentError;
use crate::place::{Folder, parent};

/// `statfs` types of file systems that live in memory.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// Permission bits of a file, as `0600`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Mode(pub(crate) u32);

impl Default for Mode {
    fn default() -> Self {
        Self(0o600)
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(bits) if bits & !0o777 != 0 => Err(format!("{text}: only the nine permission bits can be set")),
            Ok(bits) if bits & 0o400 == 0 => Err(format!("{text}: its owner could not read it")),
            Ok(bits) if bits & 0o007 != 0 => Err(format!("{text}: everybody on the machine could use the credential")),
            Ok(bits) => Ok(Self(bits)),
            Err(_) => Err(format!("{text}: write it in octal, such as 0640")),
        }
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        format!("{:04o}", mode.0)
    }
}

/// Who owns a file: `UID`, `UID:GID` or `:GID`, as numbers: names differ between containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Owner {
    user: Option<u32>,
    group: Option<u32>,
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        // The highest number means "as it is" to the system.
        let number = |part: &str| match part.parse::<u32>() {
            _ if part.is_empty() => Ok(None),
            Ok(id) if id != u32::MAX => Ok(Some(id)),
            _ => Err(format!("{text}: write UID, UID:GID or :GID, as numbers")),
        };
        match (number(user)?, number(group)?) {
            (None, None) => Err("an owner is UID, UID:GID or :GID, as numbers".to_owned()),
            (user, group) => Ok(Self { user, group }),
        }
    }
}

impl TryFrom<String> for Owner {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        let part = |id: Option<u32>| id.map(|id| id.to_string()).unwrap_or_default();
        match owner.group {
            None => part(owner.user),
            group => format!("{}:{}", part(owner.user), part(group)),
        }
    }
}

/// A file beside the one that is to be, and not yet in its place. Dropped, it goes.
pub(crate) struct Draft {
    to: PathBuf,
    folder: Folder,
    name: OsString,
    beside: OsString,
    file: Option<File>,
}

impl Draft {
    /// Opens it, so that a place that cannot be written to is known before there is anything to write.
    pub(crate) fn open(to: &Path, mode: Mode, owner: Option<Owner>) -> Result<Self, AgentError> {
        let failed =
            |error: &dyn std::fmt::Display| AgentError::Output { path: to.to_owned(), reason: error.to_string() };
        let name = to.file_name().ok_or_else(|| failed(&"it has no name"))?.to_owned();
        let folder = Folder::of(to).map_err(|error| failed(&about_folder(to, error)))?;
        let beside = OsString::from(format!(".{}.{:016x}.new", name.display(), rand::random::<u64>()));
        let file = folder.create(&beside).map_err(|error| failed(&about_folder(to, error)))?;
        let mut draft = Self { to: to.to_owned(), folder, name, beside, file: None };
        // By its handle: the name may be somebody else's file by now.
        if let Some(Owner { user, group }) = owner {
            rustix::fs::fchown(&file, user.map(Uid::from_raw), group.map(Gid::from_raw))
                .map_err(|error| failed(&format!("its owner cannot be set: {error}")))?;
        }
        // Exactly, whatever the umask is; and never before the owner is right.
        file.set_permissions(std::fs::Permissions::from_mode(mode.0)).map_err(|error| failed(&error))?;
        draft.file = Some(file);
        Ok(draft)
    }

    /// Puts it in its place with this content; durable when this returns.
    pub(crate) fn commit(mut self, content: &[u8]) -> Result<(), AgentError> {
        let failed = |path: &Path, error: std::io::Error| AgentError::Output {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.write_all(content).map_err(|error| failed(&self.to, error))?;
        file.sync_all().map_err(|error| failed(&self.to, error))?;
        drop(file);
        self.folder.rename(&self.beside, &self.name).map_err(|error| failed(&self.to, error))?;
        // So that the new name survives a crash as well.
        if let Err(error) = self.folder.sync() {
            tracing::debug!(%error, "the folder cannot be synced");
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a commit there is nothing under this name.
        let _ = self.folder.remove(&self.beside);
    }
}

fn about_folder(to: &Path, error: std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("the folder {} is not there", parent(to).display()),
        _ => error.to_string(),
    }
}

/// Whether a file there is in memory; none when that cannot be told.
pub(crate) fn is_in_memory(path: &Path) -> Option<bool> {
    let kind = rustix::fs::statfs(parent(path)).ok()?.f_type;
    #[allow(clippy::unnecessary_cast, reason = "the type differs between platforms")]
    let kind = kind as i64;
    Some(matches!(kind, TMPFS | RAMFS))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.env");
        for (mode, content) in [("0600", "first"), ("0640", "second"), ("400", "third")] {
            Draft::open(&path, mode.parse().unwrap(), None).unwrap().commit(content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            let bits = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(bits, u32::from_str_radix(mode, 8).unwrap());
        }
        assert_eq!(names(folder.path()), ["db.env"]);
    }

    #[test]
    fn a_draft_that_is_dropped_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.env");
        std::fs::write(&path, "old").unwrap();
        drop(Draft::open(&path, Mode::default(), None).unwrap());
        assert_eq!(
            (names(folder.path()), std::fs::read_to_string(&path).unwrap()),
            (vec!["db.env".to_owned()], "old".to_owned())
        );
    }

    #[test]
    fn a_reader_with_the_old_file_open_keeps_it() {
        use std::io::Read as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        Draft::open(&path, Mode::default(), None).unwrap().commit(b"old").unwrap();
        let mut reader = File::open(&path).unwrap();
        Draft::open(&path, Mode::default(), None).unwrap().commit(b"newer").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "old");
    }

    #[test]
    fn what_is_swapped_while_a_draft_is_written_is_replaced_and_never_followed() {
        let place = tempfile::tempdir().unwrap();
        let secret = place.path().join("secret");
        std::fs::write(&secret, "untouched").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o400)).unwrap();
        let before = std::fs::metadata(&secret).unwrap();
        let folder = place.path().join("theirs");
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("x");
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        let draft = Draft::open(&path, "0640".parse().unwrap(), None).unwrap();
        draft.commit(b"new").unwrap();
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file(), "the link was replaced");
        // What an application does that waits for the draft, and puts a link in its place.
        let draft = Draft::open(&path, "0640".parse().unwrap(), None).unwrap();
        let beside = folder.join(&draft.beside);
        std::fs::remove_file(&beside).unwrap();
        std::os::unix::fs::symlink(&secret, &beside).unwrap();
        draft.commit(b"newer").unwrap();
        // Or the whole folder.
        let draft = Draft::open(&path, "0640".parse().unwrap(), None).unwrap();
        let (moved, other) = (place.path().join("moved"), place.path().join("other"));
        std::fs::create_dir(&other).unwrap();
        std::fs::rename(&folder, &moved).unwrap();
        std::os::unix::fs::symlink(&other, &folder).unwrap();
        draft.commit(b"newest").unwrap();
        assert_eq!((names(&other), std::fs::read(moved.join("x")).unwrap()), (Vec::new(), b"newest".to_vec()));
        let after = std::fs::metadata(&secret).unwrap();
        assert_eq!((after.mode(), after.uid(), after.len()), (before.mode(), before.uid(), before.len()));
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "untouched");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = Draft::open(Path::new("/no/such/folder/x"), Mode::default(), None).err().unwrap().to_string();
        assert_eq!(error, "cannot write /no/such/folder/x: the folder /no/such/folder is not there");
    }

    #[test]
    fn an_owner_of_ones_own_can_be_set_and_is_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let own = std::fs::metadata(folder.path()).unwrap();
        let owner = format!("{}:{}", own.uid(), own.gid());
        Draft::open(&path, Mode::default(), Some(owner.parse().unwrap())).unwrap().commit(b"x").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().gid(), own.gid());
        for bad in ["", ":", "root", "1:b", "-1", "4294967295"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
        for good in ["1000", "1000:1000", ":7"] {
            assert_eq!(String::from(good.parse::<Owner>().unwrap()), good);
        }
    }

    #[test]
    fn modes_that_show_the_secret_to_everybody_are_refused() {
        for (bad, why) in
            [("0644", "everybody"), ("0200", "could not read"), ("4600", "nine"), ("rw", "octal"), ("9", "octal")]
        {
            assert!(bad.parse::<Mode>().unwrap_err().contains(why), "{bad}");
        }
        assert_eq!(String::from(Mode::default()), "0600");
    }

    #[test]
    fn what_is_in_memory_is_known() {
        assert_eq!(is_in_memory(Path::new("/proc/x")), Some(false));
        assert_eq!(is_in_memory(Path::new("/no/such/folder/x")), None);
        if is_in_memory(Path::new("/dev/shm/x")).is_some() {
            assert_eq!(is_in_memory(Path::new("/dev/shm/x")), Some(true));
        }
    }
}
