//! A compiler that lies in the cache because somebody prepared it there: `cargo xtask` does so from Debian's packages.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{GuestToolchain, RustVersion};

/// The folder of prepared compilers, in the cache; each has a folder of its own in it.
pub const FOLDER: &str = "guest-toolchain";
/// The file in a compiler's folder that says what is there, as JSON of a [`GuestToolchain`] whose paths are relative
/// to that folder. It is written last.
pub const STAMP: &str = "toolchain.json";

/// The newest compiler in the cache that will do.
pub(super) fn newest(cache: &Path, minimum: RustVersion, linker: Option<&PathBuf>) -> Option<GuestToolchain> {
    fs::read_dir(cache.join(FOLDER))
        .ok()?
        .flatten()
        .filter_map(|entry| read(&entry.path(), linker))
        .filter(|toolchain| toolchain.version >= minimum)
        .max_by_key(|toolchain| toolchain.version)
}

/// Reads what a folder holds. `linker` is used where the compiler has none of its own. None when the folder has no
/// stamp, or files are missing.
#[must_use]
pub fn read(place: &Path, linker: Option<&PathBuf>) -> Option<GuestToolchain> {
    let bytes = fs::read(place.join(STAMP)).ok()?;
    let mut toolchain: GuestToolchain = serde_json::from_slice(&bytes).ok()?;
    toolchain.rustc = toolchain.rustc.map(|rustc| place.join(rustc));
    toolchain.linker = match toolchain.linker {
        Some(own) => Some(place.join(own)),
        None => linker.cloned(),
    };
    let there = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| path.is_file());
    (there(&toolchain.rustc) && there(&toolchain.linker)).then_some(toolchain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::toolchain::Way;

    #[test]
    fn a_stamp_counts_only_while_its_files_are_there() {
        let cache = tempfile::tempdir().unwrap();
        let minimum = RustVersion { major: 1, minor: 90 };
        assert!(newest(cache.path(), minimum, None).is_none());
        let place = cache.path().join(FOLDER).join("debian-1.96");
        fs::create_dir_all(&place).unwrap();
        let toolchain = GuestToolchain {
            way: Way::Debian,
            version: RustVersion { major: 1, minor: 96 },
            rustc: Some("rustc".into()),
            linker: Some("wasm-ld".into()),
        };
        fs::write(place.join(STAMP), serde_json::to_vec(&toolchain).unwrap()).unwrap();
        assert!(newest(cache.path(), minimum, None).is_none());
        fs::write(place.join("rustc"), "").unwrap();
        fs::write(place.join("wasm-ld"), "").unwrap();
        let found = newest(cache.path(), minimum, None).unwrap();
        assert_eq!(found.rustc, Some(place.join("rustc")));
        // Without a linker of its own, the active toolchain's is used.
        let borrowed = GuestToolchain { linker: None, ..toolchain };
        fs::write(place.join(STAMP), serde_json::to_vec(&borrowed).unwrap()).unwrap();
        assert!(newest(cache.path(), minimum, None).is_none());
        let lld = place.join("wasm-ld");
        let found = newest(cache.path(), minimum, Some(&lld)).unwrap();
        assert_eq!(found.linker, Some(lld));
        let newer = RustVersion { major: 1, minor: 97 };
        assert!(newest(cache.path(), newer, None).is_none());
    }
}
