//! Debian's compiler in the cache, with a standard library for guests built from its source.
//!
//! Nothing is installed: packages are unpacked below the cache, a wrapper finds their libraries,
//! and the built library is laid into that tree's sysroot, where the compiler looks for it. So a
//! plugin is then compiled by a plain `cargo build`, without any unstable flag.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Compiler, GuestToolchain, RustVersion, ToolchainOptions, Way,
    apt::{Apt, Package, unpack},
};
use crate::{Error, GUEST_TARGET, Progress, cache, process::Run};

/// Where in the cache.
const FOLDER: &str = "guest-toolchain";
/// Written last: what is there, for the next run.
const STAMP: &str = "toolchain.json";
/// How long the whole installation by another process is waited for.
const INSTALL_DEADLINE: Duration = Duration::from_secs(3600);
/// How long building the standard library may take; on a laptop it is a minute.
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);

/// The packages of one Debian source package of rustc. `rustc-web` is what the security suite of
/// a stable release has for building browsers: much newer than the release's own.
struct Family {
    compiler: &'static str,
    source: &'static str,
    /// Library packages of the same source: this one and this one with `-<version>`.
    library: &'static str,
    development: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        compiler: "rustc-web",
        source: "rust-web-src",
        library: "libstd-rust-web",
        development: "libstd-rust-web-dev",
    },
    Family { compiler: "rustc", source: "rust-src", library: "libstd-rust", development: "libstd-rust-dev" },
];

/// What an earlier run prepared, the newest if there are several.
pub(super) fn prepared(cache: &Path, minimum: RustVersion, linker: Option<&PathBuf>) -> Option<GuestToolchain> {
    fs::read_dir(cache.join(FOLDER))
        .ok()?
        .flatten()
        .filter_map(|entry| read_stamp(&entry.path(), linker))
        .filter(|toolchain| toolchain.version >= minimum)
        .max_by_key(|toolchain| toolchain.version)
}

/// `linker` is used where the tree has none of its own.
fn read_stamp(place: &Path, linker: Option<&PathBuf>) -> Option<GuestToolchain> {
    let bytes = fs::read(place.join(STAMP)).ok()?;
    let mut toolchain: GuestToolchain = serde_json::from_slice(&bytes).ok()?;
    // The stamp's paths are relative to its folder.
    toolchain.rustc = toolchain.rustc.map(|rustc| place.join(rustc));
    toolchain.linker = match toolchain.linker {
        Some(own) => Some(place.join(own)),
        None => linker.cloned(),
    };
    let there = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| path.is_file());
    (there(&toolchain.rustc) && there(&toolchain.linker)).then_some(toolchain)
}

/// Downloads, unpacks and builds; the result is in the cache for the next run.
pub(super) fn prepare(
    cache: &Path,
    options: &ToolchainOptions,
    linker: Option<PathBuf>,
    progress: &dyn Progress,
) -> Result<GuestToolchain, Error> {
    // The machine's own lists may be absent or name files that are gone from the archive.
    let first = Offer::find(Apt::of_the_machine(), options.minimum)
        .and_then(|offer| install(cache, &offer, linker.as_ref(), progress));
    match first {
        Err(Error::Start { program, source }) => Err(Error::Start { program, source }),
        Err(error) => {
            progress.step(&format!("the machine's package lists do not do: {}", super::first_line(&error.to_string())));
            let folder = tempfile::tempdir().map_err(Error::io("make", std::env::temp_dir()))?;
            let apt = Apt::with_private_lists(folder.path(), progress)?;
            let offer = Offer::find(apt, options.minimum)?;
            install(cache, &offer, linker.as_ref(), progress)
        }
        Ok(toolchain) => Ok(toolchain),
    }
}

/// The newest compiler that apt knows.
struct Offer {
    apt: Apt,
    family: &'static Family,
    /// As apt writes it.
    package_version: String,
    version: RustVersion,
}

impl Offer {
    fn find(apt: Apt, minimum: RustVersion) -> Result<Self, Error> {
        let mut known = Vec::new();
        for family in &FAMILIES {
            let Some(package_version) = apt.candidate(family.compiler)? else {
                continue;
            };
            if let Some(version) = RustVersion::parse(&package_version) {
                known.push((version, family, package_version));
            }
        }
        let best = known.into_iter().max_by_key(|(version, ..)| *version);
        match best {
            Some((version, family, package_version)) if version >= minimum => {
                Ok(Self { apt, family, package_version, version })
            }
            Some((version, family, _)) => Err(Error::Package {
                package: family.compiler.to_owned(),
                reason: format!("version {version} is offered, and {minimum} is needed"),
            }),
            None => {
                Err(Error::Package { package: "rustc-web, rustc".to_owned(), reason: "apt knows neither".to_owned() })
            }
        }
    }

    /// Everything to download. Packages of the compiler's own source are taken even where they
    /// are installed: the sysroot must be whole in the cache.
    fn packages(&self, with_linker: bool) -> Result<Vec<Package>, Error> {
        let family = self.family;
        let mut names = vec![
            family.compiler.to_owned(),
            family.source.to_owned(),
            format!("{}-{}", family.library, self.version),
            family.development.to_owned(),
        ];
        let packages = self.apt.needed(&names)?;
        if !with_linker {
            return Ok(packages);
        }
        // The linker of the LLVM that the compiler was built with understands its objects.
        let llvm = packages.iter().find_map(|package| package.name.strip_prefix("libllvm")).unwrap_or_default();
        names.push(if llvm.is_empty() { "lld".to_owned() } else { format!("lld-{llvm}") });
        self.apt.needed(&names)
    }
}

fn install(
    cache: &Path,
    offer: &Offer,
    linker: Option<&PathBuf>,
    progress: &dyn Progress,
) -> Result<GuestToolchain, Error> {
    let name = format!("{FOLDER}/debian-{}", offer.package_version);
    if cache.join(&name).is_dir() && read_stamp(&cache.join(&name), linker).is_none() {
        // It relied on a linker that is gone, or somebody took files away.
        fs::remove_dir_all(cache.join(&name)).map_err(Error::io("remove", cache.join(&name)))?;
    }
    let place = cache::install(cache, &name, INSTALL_DEADLINE, |work| {
        let packages = offer.packages(linker.is_none())?;
        progress.step(&format!(
            "preparing rustc {} from {} Debian packages ({} MB), once",
            offer.version,
            packages.len(),
            packages.iter().map(|package| package.size).sum::<u64>() / 1_000_000
        ));
        let downloads = work.join("downloads");
        let files = offer.apt.download(&packages, &downloads, progress)?;
        progress.step("unpacking");
        for file in files {
            unpack(&file, work)?;
        }
        remove(&downloads)?;
        let own_linker = match linker {
            Some(_) => None,
            None => Some(find_linker(work)?),
        };
        progress.step("building the standard library for guests, once");
        build_std(work, progress)?;
        // Sources, manuals: 400 MB that nothing needs any more.
        remove(&work.join("usr/src"))?;
        remove(&work.join("usr/share"))?;
        let rustc = write_wrapper(work)?;
        let toolchain =
            GuestToolchain { way: Way::Debian, version: offer.version, rustc: Some(rustc), linker: own_linker };
        let stamp = serde_json::to_vec_pretty(&toolchain)
            .map_err(|error| Error::Answer { what: "the stamp".to_owned(), detail: error.to_string() })?;
        write(&work.join(STAMP), &stamp)
    })?;
    let toolchain = read_stamp(&place, linker).ok_or_else(|| Error::Answer {
        what: place.display().to_string(),
        detail: "the toolchain in it is not whole; remove the folder and try again".to_owned(),
    })?;
    // Seen to work here, with the libraries of this machine.
    if let Some(rustc) = &toolchain.rustc {
        let compiler = Compiler::ask(rustc, &place)?;
        if !compiler.fits(toolchain.version) {
            return Err(Error::Answer {
                what: rustc.display().to_string(),
                detail: compiler.shortcoming(toolchain.version),
            });
        }
    }
    Ok(toolchain)
}

/// Folders of shared libraries in the unpacked tree, for the loader.
fn library_path(root: &Path) -> String {
    let mut folders = vec![root.join("usr/lib"), root.join("lib")];
    for parent in ["usr/lib", "lib"] {
        let multiarch = fs::read_dir(root.join(parent)).into_iter().flatten();
        folders.extend(multiarch.flatten().map(|entry| entry.path()).filter(|path| {
            path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().contains("-linux-gnu"))
        }));
    }
    let paths: Vec<_> =
        folders.iter().filter(|folder| folder.is_dir()).map(|folder| folder.display().to_string()).collect();
    paths.join(":")
}

/// A script that runs the unpacked compiler wherever the folder lies.
fn write_wrapper(root: &Path) -> Result<PathBuf, Error> {
    let relative = PathBuf::from("rustc");
    let path = root.join(&relative);
    let folders = library_path(root).replace(&root.display().to_string(), "$here");
    let script = format!(
        "#!/bin/sh\n\
         # Runs Debian's rustc from this folder, with the libraries that were unpacked beside it.\n\
         here=${{0%/*}}\n\
         LD_LIBRARY_PATH=\"{folders}\" exec \"$here/usr/bin/rustc\" \"$@\"\n"
    );
    write(&path, script.as_bytes())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(Error::io("make executable", &path))?;
    Ok(relative)
}

fn find_linker(root: &Path) -> Result<PathBuf, Error> {
    let llvm = fs::read_dir(root.join("usr/lib")).into_iter().flatten();
    llvm.flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"))
        .map(|entry| entry.path().join("bin/wasm-ld"))
        .find(|linker| linker.exists())
        .and_then(|linker| linker.strip_prefix(root).ok().map(Path::to_owned))
        .ok_or_else(|| Error::Package { package: "lld".to_owned(), reason: "it holds no wasm-ld".to_owned() })
}

/// Builds the standard library for guests and lays it into the tree's sysroot.
fn build_std(root: &Path, progress: &dyn Progress) -> Result<(), Error> {
    let seed = root.join("seed");
    cache::create_folder(&seed.join("src"))?;
    write(&seed.join("src/lib.rs"), b"#![no_std]\n")?;
    write(
        &seed.join("Cargo.toml"),
        b"[package]\nname = \"seed\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[workspace]\n\n\
          [profile.release]\npanic = \"abort\"\ndebug = false\n",
    )?;
    // Bitcode in the library lets plugins be optimised across it; the path of this folder would
    // otherwise stand in every panic message and so in every plugin's digest.
    let mut flags = vec![
        "-Cembed-bitcode=yes".to_owned(),
        format!("--remap-path-prefix={}/usr/lib/rustlib/src/rust=/rustc", root.display()),
        format!("--remap-path-prefix={}/usr/src=/rustc", root.display()),
    ];
    flags.extend(crate::workspace::registry_remap_flag());
    let mut cargo = crate::workspace::cargo();
    Run::new("building the standard library for guests", BUILD_DEADLINE)
        .on_line(&|line| progress.detail(line))
        .output(
            cargo
                .args(["build", "--release", "--target", GUEST_TARGET])
                .arg("-Zbuild-std=std,panic_abort")
                .arg("--target-dir")
                .arg(seed.join("target"))
                .current_dir(&seed)
                .env("RUSTC", root.join("usr/bin/rustc"))
                .env("LD_LIBRARY_PATH", library_path(root))
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")),
        )?;
    let built = seed.join("target").join(GUEST_TARGET).join("release/deps");
    let sysroot = root.join("usr/lib/rustlib").join(GUEST_TARGET).join("lib");
    cache::create_folder(&sysroot)?;
    for entry in fs::read_dir(&built).map_err(Error::io("read", &built))? {
        let path = entry.map_err(Error::io("read", &built))?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            continue;
        };
        if name.ends_with(".rlib") && !name.starts_with("libseed-") {
            fs::rename(&path, sysroot.join(&name)).map_err(Error::io("move", &path))?;
        }
    }
    remove(&seed)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(Error::io("write", path))
}

fn remove(folder: &Path) -> Result<(), Error> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::io("remove", folder))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_stamp_counts_only_while_its_files_are_there() {
        let cache = tempfile::tempdir().unwrap();
        let minimum = RustVersion { major: 1, minor: 90 };
        assert!(prepared(cache.path(), minimum, None).is_none());
        let place = cache.path().join(FOLDER).join("debian-1.96");
        fs::create_dir_all(&place).unwrap();
        let toolchain = GuestToolchain {
            way: Way::Debian,
            version: RustVersion { major: 1, minor: 96 },
            rustc: Some("rustc".into()),
            linker: Some("wasm-ld".into()),
        };
        fs::write(place.join(STAMP), serde_json::to_vec(&toolchain).unwrap()).unwrap();
        assert!(prepared(cache.path(), minimum, None).is_none());
        fs::write(place.join("rustc"), "").unwrap();
        fs::write(place.join("wasm-ld"), "").unwrap();
        let found = prepared(cache.path(), minimum, None).unwrap();
        assert_eq!(found.rustc, Some(place.join("rustc")));
        // Without a linker of its own, the active toolchain's is used.
        let borrowed = GuestToolchain { linker: None, ..toolchain };
        fs::write(place.join(STAMP), serde_json::to_vec(&borrowed).unwrap()).unwrap();
        assert!(prepared(cache.path(), minimum, None).is_none());
        let lld = place.join("wasm-ld");
        let found = prepared(cache.path(), minimum, Some(&lld)).unwrap();
        assert_eq!(found.linker, Some(lld));
        let newer = RustVersion { major: 1, minor: 97 };
        assert!(prepared(cache.path(), newer, None).is_none());
    }

    #[test]
    fn the_wrapper_finds_its_folder_and_the_libraries() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::create_dir_all(root.path().join("usr/lib/x86_64-linux-gnu")).unwrap();
        let rustc = root.path().join("usr/bin/rustc");
        fs::write(&rustc, "#!/bin/sh\necho \"$LD_LIBRARY_PATH $1\"\n").unwrap();
        fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).unwrap();
        let wrapper = root.path().join(write_wrapper(root.path()).unwrap());
        let said =
            Run::new("the wrapper", Duration::from_secs(20)).output(Command::new(wrapper).arg("-vV")).unwrap().stdout;
        let multiarch = root.path().join("usr/lib/x86_64-linux-gnu");
        assert!(said.contains(&multiarch.display().to_string()), "{said}");
        assert!(said.trim_end().ends_with(" -vV"), "{said}");
    }
}
