//! Plugins in Python and JavaScript: an interpreter and the sources, snapshotted into one component.
//!
//! The sources are copied to a folder of the build's own, so that what is built is exactly what is hashed:
//! the finished component is kept in the cache under the digest of all that went into it, and the same
//! sources are not built twice. Packages that are installed on this machine do not get in.

mod javascript;
mod program;
mod python;
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::{
    BuildOptions, BuiltPlugin, Error, Language, PluginIdentity, Progress, build::write_atomically, cache, check,
    embedded, finished::Shelf, host_contract, project::Project,
};
use sources::Sources;

/// How long fetching the tools of a language may take.
const INSTALL_DEADLINE: Duration = Duration::from_secs(900);
/// How long making a component may take; it takes 20 s on an idle machine.
const COMPONENT_DEADLINE: Duration = Duration::from_secs(600);

/// What turns the sources of one language into a component.
trait Tool: Sized {
    /// How the names of its modules end.
    const ENDING: &'static str;

    /// Finds it or fetches it.
    fn prepare(cache: &Path, progress: &dyn Progress) -> Result<Self, Error>;

    /// What of it, beside the sources, decides what comes out.
    fn inputs() -> Vec<&'static str>;

    /// Looks for mistakes that show at once: a build takes half a minute or more.
    fn look_over(project: &Project, sources: &Sources, progress: &dyn Progress) -> Result<(), Error> {
        let _ = (project, sources, progress);
        Ok(())
    }

    /// The module that has the contract's exports.
    fn entry(project: &Project) -> String;

    /// Makes the component: of the sources and the entry in one folder, the contract in another.
    fn componentize(&self, work: &Work, project: &Project, progress: &dyn Progress) -> Result<(), Error>;
}

/// The folders and files of one build, all in a temporary one.
struct Work {
    /// The sources and the entry.
    sources: PathBuf,
    /// The contract.
    wit: PathBuf,
    /// The component.
    out: PathBuf,
    /// Anything else.
    scratch: PathBuf,
}

/// Builds the plugin in a folder.
pub(crate) fn build(
    folder: &Path,
    language: Language,
    options: &BuildOptions,
    progress: &dyn Progress,
) -> Result<BuiltPlugin, Error> {
    let folder = fs::canonicalize(folder).map_err(Error::io("open", folder))?;
    let project = Project::read(&folder, language)?;
    let out_dir = options.out_dir.clone().unwrap_or_else(|| project.folder.join("target/plugins"));
    cache::create_folder(&out_dir)?;
    let component = match language {
        Language::JavaScript => component::<javascript::ComponentizeJs>(&project, progress)?,
        _ => component::<python::ComponentizePy>(&project, progress)?,
    };
    let report = check(&component);
    if !report.problems.is_empty() {
        return Err(Error::Rejected { plugin: project.name, report: Box::new(report) });
    }
    let wasm_path = out_dir.join(format!("{}.wasm", project.name));
    let changed = fs::read(&wasm_path).map_or(true, |before| before != component);
    if changed {
        write_atomically(&wasm_path, &component)?;
    }
    Ok(BuiltPlugin {
        sha256: hex::encode(Sha256::digest(&component)),
        size: component.len() as u64,
        name: project.name,
        wasm_path,
        changed,
    })
}

/// Fetches the tools of both languages, so that a build finds them.
///
/// # Errors
/// When a program is missing or what is fetched does not come.
pub fn prepare(language: Language, progress: &dyn Progress) -> Result<(), Error> {
    let cache = cache::folder()?;
    match language {
        Language::Rust => Ok(()),
        Language::Python => python::ComponentizePy::prepare(&cache, progress).map(drop),
        Language::JavaScript => javascript::ComponentizeJs::prepare(&cache, progress).map(drop),
    }
}

/// The component of these sources: from the cache, or made and put there.
fn component<T: Tool>(project: &Project, progress: &dyn Progress) -> Result<Vec<u8>, Error> {
    let cache = cache::folder()?;
    let sources = Sources::read(project)?;
    let entry = T::entry(project);
    let shelf = Shelf::at(&cache, &project.name, &key::<T>(project, &sources, &entry));
    if let Some(component) = shelf.component() {
        progress.step(&format!("{}: nothing changed since it was built", project.name));
        return Ok(component);
    }
    T::look_over(project, &sources, progress)?;
    let tool = T::prepare(&cache, progress)?;
    let scratch = tempfile::Builder::new()
        .prefix("jit-plugin-build-")
        .tempdir()
        .map_err(Error::io("make a folder in", std::env::temp_dir()))?;
    let work = Work {
        sources: scratch.path().join("sources"),
        wit: scratch.path().join("wit"),
        out: scratch.path().join("component.wasm"),
        scratch: scratch.path().to_owned(),
    };
    sources.write(&work.sources, &entry, T::ENDING)?;
    for (name, text) in embedded::below("wit") {
        write(&work.wit.join(name), text)?;
    }
    tool.componentize(&work, project, progress)?;
    let mut component = fs::read(&work.out).map_err(Error::io("read", &work.out))?;
    identify(&mut component, project);
    shelf.keep(&component)?;
    Ok(component)
}

/// The digest of everything that decides what comes out.
fn key<T: Tool>(project: &Project, sources: &Sources, entry: &str) -> String {
    let mut digest = Sha256::new();
    // Each with its length: no two lists of parts give the same bytes.
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    };
    for part in [env!("CARGO_PKG_VERSION"), host_contract(), &project.name, &project.version, project.world, entry] {
        add(part.as_bytes());
    }
    for part in T::inputs() {
        add(part.as_bytes());
    }
    for (name, text) in embedded::below("wit") {
        add(name.as_bytes());
        add(text.as_bytes());
    }
    for (name, bytes) in sources.files() {
        add(name.as_bytes());
        add(bytes);
    }
    hex::encode(digest.finalize())
}

/// Appends the section that says who the plugin is, which the Rust SDK's macro writes in its plugins.
fn identify(component: &mut Vec<u8>, project: &Project) {
    let identity = PluginIdentity {
        name: project.name.clone(),
        version: project.version.clone(),
        contract: host_contract().to_owned(),
    };
    // Three short texts: this does not fail, and without the section the plugin is as good.
    if let Ok(identity) = serde_json::to_vec(&identity) {
        crate::contract::append_identity(component, &identity);
    }
}

/// Writes a file and makes the folders above it.
fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        cache::create_folder(folder)?;
    }
    fs::write(path, content).map_err(Error::io("write", path))
}
