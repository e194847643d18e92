//! Reading files whose path somebody else chose: only regular ones, and never more than a bound. Files of private keys
//! and of authorities.
//!
//! In scope: opening, reading, and writing a key's file. Out of scope: what the file holds, and every format.

pub mod private;

mod authorities;

pub use authorities::read_authorities;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Opens a regular file, or what a symbolic link leads to (Kubernetes mounts are links). A pipe, a
/// device or a folder is refused at once: reading it could wait for ever.
///
/// # Errors
/// As the system says, or that it is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    // Of the open file, not of the path: nobody can swap it in between.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

/// Reads a regular file of at most `most` bytes; none when it has more.
///
/// # Errors
/// As the system says, or that it is no regular file.
pub fn read_capped(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// Where a component's signatures stand: beside it, with `.sig` added to its name.
#[must_use]
pub fn signature_path(component: &Path) -> PathBuf {
    let mut name = OsString::from(component);
    name.push(".sig");
    name.into()
}
