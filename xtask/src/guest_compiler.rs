//! A compiler for guests: what [`jit_plugin_build::toolchain`] finds, else Debian's, prepared in the cache.
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

use anyhow::{Context as _, Result, bail};
use jit_plugin_build::{
    Error, GUEST_TARGET, Progress, cache, cargo,
    process::Run,
    registry_remap_flag,
    toolchain::{
        self, GuestToolchain, RustVersion, ToolchainOptions, Way,
        prepared::{self, FOLDER, STAMP},
    },
};

use crate::apt::{Apt, Package, megabytes, unpack};

/// How long the whole installation by another process is waited for.
const INSTALL_DEADLINE: Duration = Duration::from_secs(3600);
/// How long building the standard library may take; on a laptop it is a minute.
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
/// The most packages that the compiler may need.
const MAX_PACKAGES: usize = 60;

/// Finds a compiler for guests, or prepares Debian's. The first time this may download 140 MB and build for a
/// minute; afterwards it takes a fraction of a second.
///
/// # Errors
/// When no way leads to one; the error tells each way that was tried.
pub fn get(options: &ToolchainOptions, progress: &dyn Progress) -> Result<GuestToolchain> {
    let tried = match toolchain::prepare(options, progress) {
        Err(tried @ Error::NoToolchain { .. }) => tried,
        found => return Ok(found?),
    };
    if options.forced_way()?.is_some_and(|way| way != Way::Debian) {
        return Err(tried.into());
    }
    if let Error::NoToolchain { attempts } = &tried {
        for attempt in attempts {
            progress.step(&format!("{}: {}", attempt.way, first_line(&attempt.reason)));
        }
    }
    let linker = toolchain::active_linker(&options.folder);
    prepare(&options.cache_folder()?, options, linker, progress)
        .with_context(|| format!("{tried}\nnor could Debian's compiler be prepared"))
}

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

/// Downloads, unpacks and builds; the result is in the cache for the next run.
fn prepare(
    cache: &Path,
    options: &ToolchainOptions,
    linker: Option<PathBuf>,
    progress: &dyn Progress,
) -> Result<GuestToolchain> {
    // The machine's own lists may be absent or name files that are gone from the archive.
    let first = Offer::find(Apt::of_the_machine(), options.minimum)
        .and_then(|offer| install(cache, &offer, linker.as_ref(), progress));
    match first {
        // Without apt, other lists do not help.
        Err(error) if matches!(error.downcast_ref(), Some(Error::Start { .. })) => Err(error),
        Err(error) => {
            progress.step(&format!("the machine's package lists do not do: {}", first_line(&format!("{error:#}"))));
            progress.step("fetching Debian's package lists");
            let folder = tempfile::tempdir()?;
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
    fn find(apt: Apt, minimum: RustVersion) -> Result<Self> {
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
            Some((version, family, _)) => {
                bail!("{}: version {version} is offered, and {minimum} is needed", family.compiler)
            }
            None => bail!("apt knows neither rustc-web nor rustc"),
        }
    }

    /// The packages to download, and what they come to with what they need. Those of the compiler's own source are
    /// taken even where they are installed: the sysroot must be whole in the cache.
    fn packages(&self, with_linker: bool) -> Result<(Vec<String>, Vec<Package>)> {
        let family = self.family;
        let mut names = vec![
            family.compiler.to_owned(),
            family.source.to_owned(),
            format!("{}-{}", family.library, self.version),
            family.development.to_owned(),
        ];
        let needed = |names: &[String]| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self.apt.needed(&names, MAX_PACKAGES)
        };
        let packages = needed(&names)?;
        if !with_linker {
            return Ok((names, packages));
        }
        // The linker of the LLVM that the compiler was built with understands its objects.
        let llvm = packages.iter().find_map(|package| package.name.strip_prefix("libllvm")).unwrap_or_default();
        names.push(if llvm.is_empty() { "lld".to_owned() } else { format!("lld-{llvm}") });
        let packages = needed(&names)?;
        Ok((names, packages))
    }
}

fn install(cache: &Path, offer: &Offer, linker: Option<&PathBuf>, progress: &dyn Progress) -> Result<GuestToolchain> {
    let name = format!("{FOLDER}/debian-{}", offer.package_version);
    if cache.join(&name).is_dir() && prepared::read(&cache.join(&name), linker).is_none() {
        // It relied on a linker that is gone, or somebody took files away.
        remove(&cache.join(&name))?;
    }
    let place = cache::install(cache, &name, INSTALL_DEADLINE, |work| -> Result<()> {
        let (names, packages) = offer.packages(linker.is_none())?;
        progress.step(&format!(
            "preparing rustc {} from {} Debian packages ({} MB), once",
            offer.version,
            packages.len(),
            megabytes(&packages)
        ));
        let downloads = work.join("downloads");
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let files = offer.apt.download(&names, &downloads)?;
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
        write(&work.join(STAMP), &serde_json::to_vec_pretty(&toolchain)?)
    })?;
    let toolchain = prepared::read(&place, linker).with_context(|| {
        format!("the compiler in {} is not whole; remove the folder and try again", place.display())
    })?;
    // Seen to work here, with the libraries of this machine.
    toolchain::verify(&toolchain, &place)?;
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
fn write_wrapper(root: &Path) -> Result<PathBuf> {
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
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make executable {}", path.display()))?;
    Ok(relative)
}

fn find_linker(root: &Path) -> Result<PathBuf> {
    let llvm = fs::read_dir(root.join("usr/lib")).into_iter().flatten();
    llvm.flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"))
        .map(|entry| entry.path().join("bin/wasm-ld"))
        .find(|linker| linker.exists())
        .and_then(|linker| linker.strip_prefix(root).ok().map(Path::to_owned))
        .context("Debian's lld holds no wasm-ld")
}

/// Builds the standard library for guests and lays it into the tree's sysroot.
fn build_std(root: &Path, progress: &dyn Progress) -> Result<()> {
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
    flags.extend(registry_remap_flag());
    let mut cargo = cargo();
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
    for entry in fs::read_dir(&built).with_context(|| format!("cannot read {}", built.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", built.display()))?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            continue;
        };
        if name.ends_with(".rlib") && !name.starts_with("libseed-") {
            fs::rename(&path, sysroot.join(&name)).with_context(|| format!("cannot move {}", path.display()))?;
        }
    }
    remove(&seed)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

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
