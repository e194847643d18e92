//! Finds a compiler with a standard library for [`GUEST_TARGET`].
//!
//! Three ways, in this order:
//! 1. `rustup`: the active toolchain has the target, or `rustup target add` brings it;
//! 2. `distribution`: `/usr/bin/rustc` has it;
//! 3. `debian`: a compiler that was prepared in the cache from Debian's packages. `cargo xtask` prepares it, on
//!    machines that cannot reach rustup's server; nothing here downloads packages.
//!
//! `JIT_GUEST_TOOLCHAIN` with one of these names forces a way.

pub mod prepared;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{Attempt, Error, GUEST_TARGET, Progress, process::Run};

/// Names the variable that forces a way.
pub const WAY_VARIABLE: &str = "JIT_GUEST_TOOLCHAIN";

/// How long `rustup target add` may go without receiving anything: on a machine that cannot
/// reach its server it hangs or fails at once.
const RUSTUP_PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take in all.
const RUSTUP_DEADLINE: Duration = Duration::from_secs(300);
/// How long a compiler may take to tell about itself.
const ASK_DEADLINE: Duration = Duration::from_secs(60);

/// A way to a compiler for guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The active toolchain, with the target that rustup installs.
    Rustup,
    /// The distribution's compiler in `/usr/bin`.
    Distribution,
    /// Prepared in the cache, from Debian's packages.
    Debian,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup",
            Self::Distribution => "distribution",
            Self::Debian => "debian",
        }
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Rustup, Self::Distribution, Self::Debian]
            .into_iter()
            .find(|way| way.name() == text)
            .ok_or_else(|| format!("`{text}` is none of `rustup`, `distribution`, `debian` ({WAY_VARIABLE})"))
    }
}

/// A compiler's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RustVersion {
    /// 1 in 1.95.0.
    pub major: u32,
    /// 95 in 1.95.0.
    pub minor: u32,
}

impl fmt::Display for RustVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl RustVersion {
    /// The version that this workspace asks for (`rust-version`): guests built with it are sure
    /// to compile.
    #[must_use]
    pub fn of_this_workspace() -> Self {
        Self::parse(env!("CARGO_PKG_RUST_VERSION")).unwrap_or(Self { major: 1, minor: 85 })
    }

    /// Reads `1.95`, `1.95.0`, `1.96.0+dfsg1-1~deb12u2`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

/// A compiler for guests, ready for use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestToolchain {
    /// How it came here.
    pub way: Way,
    /// Its version.
    pub version: RustVersion,
    /// The compiler, where it is not the active toolchain's.
    pub rustc: Option<PathBuf>,
    /// The linker, where the compiler does not bring its own.
    pub linker: Option<PathBuf>,
}

impl fmt::Display for GuestToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rustc {} ", self.version)?;
        match (self.way, &self.rustc) {
            (Way::Rustup, _) => write!(f, "of the active toolchain, with its {GUEST_TARGET}"),
            (Way::Distribution, _) => f.write_str("of the distribution"),
            (Way::Debian, None) => f.write_str("from Debian's packages"),
            (Way::Debian, Some(rustc)) => {
                write!(f, "from Debian's packages, in the cache ({})", rustc.display())
            }
        }
    }
}

impl GuestToolchain {
    /// What the compiler says that it is, to the commit.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn identity(&self) -> Result<String, Error> {
        let rustc = self.rustc.as_deref().unwrap_or(Path::new("rustc"));
        let output = Run::new(format!("`{}`", rustc.display()), ASK_DEADLINE)
            .output(Command::new(rustc).arg("-vV").env_remove("RUSTC_WRAPPER"))?;
        Ok(output.stdout)
    }

    /// Makes a cargo command use this compiler for `--target` [`GUEST_TARGET`].
    pub fn apply(&self, cargo: &mut Command) {
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        if let Some(linker) = &self.linker {
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
    }
}

/// What is asked of the toolchain.
#[derive(Debug, Clone)]
pub struct ToolchainOptions {
    /// The folder whose `rust-toolchain.toml`, if any, chooses the active toolchain.
    pub folder: PathBuf,
    /// Where packages are kept; [`crate::cache::folder`] when none.
    pub cache: Option<PathBuf>,
    /// The oldest compiler that will do.
    pub minimum: RustVersion,
    /// One way only. When none, `JIT_GUEST_TOOLCHAIN` is read.
    pub way: Option<Way>,
}

impl ToolchainOptions {
    /// The defaults for packages in `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), cache: None, minimum: RustVersion::of_this_workspace(), way: None }
    }

    /// Where compilers are kept.
    ///
    /// # Errors
    /// When the cache folder cannot be made.
    pub fn cache_folder(&self) -> Result<PathBuf, Error> {
        match &self.cache {
            Some(cache) => Ok(cache.clone()),
            None => crate::cache::folder(),
        }
    }

    /// The one way that may be taken, if only one may.
    ///
    /// # Errors
    /// When `JIT_GUEST_TOOLCHAIN` names no way.
    pub fn forced_way(&self) -> Result<Option<Way>, Error> {
        match (self.way, std::env::var(WAY_VARIABLE)) {
            (Some(way), _) => Ok(Some(way)),
            (None, Ok(name)) if !name.is_empty() => {
                name.parse().map(Some).map_err(|detail| Error::Answer { what: WAY_VARIABLE.to_owned(), detail })
            }
            _ => Ok(None),
        }
    }
}

/// Finds a compiler for guests, or has rustup install the target.
///
/// # Errors
/// [`Error::NoToolchain`] with every way that was tried and why it did not do.
pub fn prepare(options: &ToolchainOptions, progress: &dyn Progress) -> Result<GuestToolchain, Error> {
    let cache = options.cache_folder()?;
    let forced = options.forced_way()?;
    let wanted = |way| forced.is_none_or(|forced| forced == way);
    let mut attempts = Vec::new();
    let active = Compiler::ask(Path::new("rustc"), &options.folder);
    let linker = active.as_ref().ok().and_then(|active| active.lld.clone());

    if wanted(Way::Rustup)
        && let Ok(compiler) = &active
        && compiler.fits(options.minimum)
    {
        return Ok(compiler.toolchain(Way::Rustup, None, None));
    }
    // Before the other ways: without rustup's server, one of them costs 20 s in vain.
    if wanted(Way::Debian)
        && let Some(toolchain) = prepared::newest(&cache, options.minimum, linker.as_ref())
    {
        return Ok(toolchain);
    }
    if wanted(Way::Rustup) {
        match by_rustup(options, progress) {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => attempts.push(Attempt { way: Way::Rustup.name(), reason }),
        }
    }
    if wanted(Way::Distribution) {
        match by_distribution(options, linker) {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => attempts.push(Attempt { way: Way::Distribution.name(), reason }),
        }
    }
    if wanted(Way::Debian) {
        let reason = format!("nothing is prepared in {}", cache.join(prepared::FOLDER).display());
        attempts.push(Attempt { way: Way::Debian.name(), reason });
    }
    Err(Error::NoToolchain { attempts })
}

/// The linker of the active toolchain, which can link guests.
#[must_use]
pub fn active_linker(folder: &Path) -> Option<PathBuf> {
    Compiler::ask(Path::new("rustc"), folder).ok()?.lld
}

/// Makes sure that a compiler starts on this machine and has a standard library for guests.
///
/// # Errors
/// When it does not start, or has none.
pub fn verify(toolchain: &GuestToolchain, folder: &Path) -> Result<(), Error> {
    let rustc = toolchain.rustc.as_deref().unwrap_or(Path::new("rustc"));
    let compiler = Compiler::ask(rustc, folder)?;
    if compiler.fits(toolchain.version) {
        return Ok(());
    }
    Err(Error::Answer { what: rustc.display().to_string(), detail: compiler.shortcoming(toolchain.version) })
}

fn by_rustup(options: &ToolchainOptions, progress: &dyn Progress) -> Result<GuestToolchain, String> {
    progress.step(&format!("asking rustup for {GUEST_TARGET}"));
    let downloads = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".rustup")))
        .map(|home| home.join("downloads"));
    let received = || downloads.as_deref().map_or(0, bytes_in);
    Run::new("`rustup target add`", RUSTUP_DEADLINE)
        .give_up_when_stalled(RUSTUP_PATIENCE, &received)
        .on_line(&|line| progress.detail(line))
        .output(Command::new("rustup").args(["target", "add", GUEST_TARGET]).current_dir(&options.folder))
        .map_err(|error| match error {
            Error::Start { .. } => "rustup is not installed".to_owned(),
            error => chain(&error),
        })?;
    let compiler = Compiler::ask(Path::new("rustc"), &options.folder).map_err(|error| chain(&error))?;
    if compiler.fits(options.minimum) {
        return Ok(compiler.toolchain(Way::Rustup, None, None));
    }
    Err(compiler.shortcoming(options.minimum))
}

fn by_distribution(options: &ToolchainOptions, linker: Option<PathBuf>) -> Result<GuestToolchain, String> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    if !rustc.is_file() {
        return Err("there is no /usr/bin/rustc".to_owned());
    }
    let compiler = Compiler::ask(&rustc, &options.folder).map_err(|error| chain(&error))?;
    if !compiler.fits(options.minimum) {
        return Err(compiler.shortcoming(options.minimum));
    }
    let linker = linker.or_else(|| compiler.lld.clone());
    Ok(compiler.toolchain(Way::Distribution, Some(rustc), linker))
}

/// What a compiler tells about itself.
struct Compiler {
    version: RustVersion,
    has_target: bool,
    lld: Option<PathBuf>,
}

impl Compiler {
    fn ask(rustc: &Path, folder: &Path) -> Result<Self, Error> {
        let ask = |arguments: &[&str]| {
            Run::new(format!("`{}`", rustc.display()), ASK_DEADLINE)
                .output(Command::new(rustc).args(arguments).current_dir(folder).env_remove("RUSTC_WRAPPER"))
        };
        let verbose = ask(&["-vV"])?.stdout;
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let (version, host) = field("release:")
            .and_then(RustVersion::parse)
            .zip(field("host:"))
            .ok_or_else(|| Error::Answer { what: rustc.display().to_string(), detail: verbose.clone() })?;
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.stdout.trim());
        let libraries = sysroot.join("lib/rustlib").join(GUEST_TARGET).join("lib");
        let lld = sysroot.join("lib/rustlib").join(host).join("bin/rust-lld");
        Ok(Self { version, has_target: has_std(&libraries), lld: lld.is_file().then_some(lld) })
    }

    fn fits(&self, minimum: RustVersion) -> bool {
        self.has_target && self.version >= minimum
    }

    fn shortcoming(&self, minimum: RustVersion) -> String {
        if self.version < minimum {
            format!("its rustc is {}, and {minimum} is needed", self.version)
        } else {
            format!("its rustc has no standard library for {GUEST_TARGET}")
        }
    }

    const fn toolchain(&self, way: Way, rustc: Option<PathBuf>, linker: Option<PathBuf>) -> GuestToolchain {
        GuestToolchain { way, version: self.version, rustc, linker }
    }
}

fn has_std(libraries: &Path) -> bool {
    std::fs::read_dir(libraries).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    })
}

fn bytes_in(folder: &Path) -> u64 {
    std::fs::read_dir(folder).map_or(0, |entries| {
        entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    })
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let debian = RustVersion::parse("1.96.0+dfsg1-1~deb12u2").unwrap();
        assert_eq!(debian, RustVersion { major: 1, minor: 96 });
        assert!(debian > RustVersion::parse("1.85").unwrap());
        assert!(RustVersion::parse("nightly").is_none());
        assert_eq!(debian.to_string(), "1.96");
    }

    #[test]
    fn ways_have_names() {
        assert_eq!("debian".parse::<Way>(), Ok(Way::Debian));
        assert!("apt".parse::<Way>().unwrap_err().contains(WAY_VARIABLE));
    }

    #[test]
    fn the_active_compiler_tells_about_itself() {
        let compiler = Compiler::ask(Path::new("rustc"), Path::new(".")).unwrap();
        assert!(compiler.version >= RustVersion::of_this_workspace());
        assert!(compiler.fits(compiler.version) == compiler.has_target);
    }
}
