//! A folder that is opened once, so that whoever may write to it cannot lead the agent elsewhere.
//!
//! The folder of a credential is often the application's own, and the agent may have more rights than the
//! application. Everything in it is therefore reached from the opened folder by a bare name, and no symbolic link
//! of that name is ever followed. On the way to the folder a symbolic link is followed only where root or the
//! agent's own user made it: an application cannot make one of those.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, renameat, statat, unlinkat};
use rustix::io::Errno;

/// The most symbolic links on the way to a folder, as the system counts them.
const MOST_LINKS: u32 = 40;
/// A folder, only to go through: neither read nor written as a file.
const THROUGH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An opened folder.
pub(crate) struct Folder(OwnedFd);

/// Why a file is not read: somebody else may have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// It is no regular file.
    Kind(FileType),
    /// It belongs to this user.
    User(u32),
    /// With these permissions others may write to it.
    Writable(u32),
    /// It has several names: it was written for another place.
    Names(u64),
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(FileType::Symlink) => f.write_str("it is a symbolic link"),
            Self::Kind(FileType::Fifo) => f.write_str("it is a pipe"),
            Self::Kind(FileType::Directory) => f.write_str("it is a folder"),
            Self::Kind(_) => f.write_str("it is no regular file"),
            Self::User(user) => write!(f, "it belongs to user {user}, not to the agent's"),
            Self::Writable(mode) => write!(f, "others may write to it (its mode is {mode:04o})"),
            Self::Names(names) => write!(f, "it is one file with {names} names"),
        }
    }
}

impl Folder {
    /// The folder of a file.
    ///
    /// # Errors
    /// When there is none, or when somebody else's symbolic link is on the way to it.
    pub(crate) fn of(file: &Path) -> io::Result<Self> {
        let mut left = steps(parent(file));
        let mut at = openat(CWD, ".", THROUGH, Mode::empty())?;
        let mut links = 0;
        while let Some(step) = left.pop() {
            at = match openat(&at, &step, THROUGH, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    left.extend(steps(&link(&at, &step)?));
                    at
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(Self(at))
    }

    /// A new file, readable to its owner alone.
    pub(crate) fn create(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::from_raw_mode(0o600))?.into())
    }

    /// Puts a file in the place of another; a symbolic link there is replaced, not followed.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Makes names durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        File::from(openat(&self.0, ".", flags, Mode::empty())?).sync_all()
    }

    /// Whether there is a regular file of this name.
    pub(crate) fn has_file(&self, name: &OsStr) -> bool {
        statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }

    /// A file for reading that nobody but the agent's user can have written.
    ///
    /// # Errors
    /// When it cannot be opened; the inner error where it may be somebody else's work. Never waits, whatever is there.
    pub(crate) fn own(&self, name: &OsStr) -> io::Result<Result<File, Foreign>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file: File = match openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => file.into(),
            Err(Errno::LOOP) => return Ok(Err(Foreign::Kind(FileType::Symlink))),
            // What a socket or a device without a driver answers.
            Err(Errno::NXIO | Errno::NODEV) => return Ok(Err(Foreign::Kind(FileType::Unknown))),
            // Ours could be read: permissions are checked for others' files.
            Err(Errno::ACCESS) => {
                let stat = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
                return foreign(&stat).map_or_else(|| Err(Errno::ACCESS.into()), |why| Ok(Err(why)));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(match foreign(&fstat(&file)?) {
            Some(why) => Err(why),
            None => Ok(file),
        })
    }
}

fn foreign(stat: &Stat) -> Option<Foreign> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mode = stat.st_mode & 0o7777;
    #[allow(clippy::useless_conversion, reason = "the type differs between platforms")]
    let names = u64::from(stat.st_nlink);
    if kind != FileType::RegularFile {
        Some(Foreign::Kind(kind))
    } else if stat.st_uid != rustix::process::geteuid().as_raw() {
        Some(Foreign::User(stat.st_uid))
    } else if mode & 0o022 != 0 {
        Some(Foreign::Writable(mode))
    } else if names != 1 {
        Some(Foreign::Names(names))
    } else {
        None
    }
}

/// Where a symbolic link leads, if its maker is trusted.
fn link(folder: impl AsFd, name: &OsStr) -> io::Result<PathBuf> {
    // Opened first: what is asked about it and what is read is then the same link.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = openat(folder, name, flags, Mode::empty())?;
    let stat = fstat(&link)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Err(Errno::NOTDIR.into());
    }
    let maker = stat.st_uid;
    if maker != 0 && maker != rustix::process::geteuid().as_raw() {
        let why =
            format!("{} on the way there is a symbolic link of user {maker}, which is not followed", name.display());
        return Err(io::Error::new(ErrorKind::PermissionDenied, why));
    }
    let to = readlinkat(&link, "", Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(to.into_bytes())))
}

/// The steps of a path, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    let step = |component: Component<'_>| match component {
        Component::RootDir => OsString::from("/"),
        other => other.as_os_str().to_owned(),
    };
    let mut steps: Vec<OsString> = path.components().map(step).collect();
    steps.reverse();
    steps
}

/// The folder that a path names for a file.
pub(crate) fn parent(of: &Path) -> &Path {
    match of.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
pub(crate) mod tests;
