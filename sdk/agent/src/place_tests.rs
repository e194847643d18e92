#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};

use super::*;

/// A user that is neither root nor the one of these tests.
const STRANGER: u32 = 64_321;

/// Only root gives files to others. Everybody else hears that a test was not run.
pub(crate) fn may_give_away(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let line = format!("NOT run: {what}: only root gives files to other users\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    root
}

fn own(path: &Path) -> Result<String, Foreign> {
    let folder = Folder::of(path).unwrap();
    folder.own(path.file_name().unwrap()).unwrap().map(|mut file| {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    })
}

#[test]
fn a_file_is_read_only_where_nobody_else_can_have_written_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let write = |mode: u32| {
        std::fs::write(&path, "ours").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write(0o600);
    assert_eq!(own(&path), Ok("ours".to_owned()));
    // Such a folder is what an emptyDir is. Others may remove the file, and cannot make one that is ours.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(own(&path), Ok("ours".to_owned()));
    for mode in [0o620, 0o602, 0o666] {
        write(mode);
        assert_eq!(own(&path), Err(Foreign::Writable(mode)));
    }
    write(0o600);
    std::fs::hard_link(&path, folder.path().join("second name")).unwrap();
    assert_eq!(own(&path), Err(Foreign::Names(2)));
    std::fs::remove_file(&path).unwrap();

    symlink("second name", &path).unwrap();
    assert_eq!(own(&path), Err(Foreign::Kind(FileType::Symlink)));
    std::fs::remove_file(&path).unwrap();

    // Opened as a file it would wait for a writer for ever.
    rustix::fs::mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
    assert_eq!(own(&path), Err(Foreign::Kind(FileType::Fifo)));
    std::fs::remove_file(&path).unwrap();

    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(matches!(own(&path), Err(Foreign::Kind(_))));
    drop(socket);
    std::fs::remove_file(&path).unwrap();

    std::fs::create_dir(&path).unwrap();
    assert_eq!(own(&path), Err(Foreign::Kind(FileType::Directory)));
}

#[test]
fn a_strangers_file_is_not_read() {
    if !may_give_away("a stranger's state file") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    std::fs::write(&path, "theirs").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(STRANGER), None).unwrap();
    assert_eq!(own(&path), Err(Foreign::User(STRANGER)));
}

#[test]
fn links_of_ones_own_lead_to_a_folder_and_a_strangers_do_not() {
    let place = tempfile::tempdir().unwrap();
    let real = place.path().join("real");
    std::fs::create_dir(&real).unwrap();
    std::fs::write(real.join("x"), "there").unwrap();
    symlink("real", place.path().join("relative")).unwrap();
    symlink(&real, place.path().join("absolute")).unwrap();
    symlink("../relative/../absolute", real.join("through others")).unwrap();
    symlink("round", place.path().join("round")).unwrap();
    for way in ["real", "relative", "absolute", "real/through others", "real/../relative/."] {
        assert_eq!(own(&place.path().join(way).join("x")), Ok("there".to_owned()), "{way}");
    }
    for (way, kind) in [("none", ErrorKind::NotFound), ("real/x", ErrorKind::NotADirectory)] {
        let error = Folder::of(&place.path().join(way).join("x")).err().unwrap();
        assert_eq!(error.kind(), kind, "{way}");
    }
    assert!(Folder::of(&place.path().join("round/x")).is_err());
    if may_give_away("a stranger's link on the way to the folder") {
        lchown(place.path().join("relative"), Some(STRANGER), None).unwrap();
        let told = Folder::of(&place.path().join("relative/x")).err().unwrap().to_string();
        assert!(told.contains("symbolic link of user 64321"), "{told}");
        assert!(Folder::of(&place.path().join("real/through others/x")).is_err());
    }
}

#[test]
fn an_opened_folder_stays_the_same_whatever_its_name_leads_to() {
    let place = tempfile::tempdir().unwrap();
    let (theirs, secret) = (place.path().join("theirs"), place.path().join("secret"));
    std::fs::create_dir(&theirs).unwrap();
    std::fs::create_dir(&secret).unwrap();
    let folder = Folder::of(&theirs.join("x")).unwrap();
    // The folder is swapped for a link while the agent is at work in it.
    std::fs::rename(&theirs, place.path().join("moved")).unwrap();
    symlink(&secret, &theirs).unwrap();
    folder.create(OsStr::new("draft")).unwrap().write_all(b"x").unwrap();
    folder.rename(OsStr::new("draft"), OsStr::new("x")).unwrap();
    assert_eq!(std::fs::read_dir(&secret).unwrap().count(), 0);
    assert_eq!(std::fs::read(place.path().join("moved/x")).unwrap(), b"x");
    assert_eq!(std::fs::metadata(place.path().join("moved/x")).unwrap().mode() & 0o777, 0o600);
}
