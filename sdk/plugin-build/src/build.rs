//! From guest crates to components: one cargo call, then each core module is encoded in-process.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wit_component::ComponentEncoder;

use crate::{
    Error, GUEST_TARGET, Language, Progress, check,
    check::core_import_advice,
    finished::Shelf,
    interpreted,
    process::Run,
    project::language,
    toolchain::{self, GuestToolchain, ToolchainOptions},
    workspace::{Workspace, cargo, registry_remap_flag},
};

/// How long compiling may take. A policy engine such as Cedar takes 5 minutes.
const COMPILE_DEADLINE: Duration = Duration::from_secs(3600);
/// The profile's name; it is defined on the command line, so that a plugin's own manifest needs
/// nothing.
const PROFILE: &str = "guest";

/// What the profile is set to, unless the workspace's own manifest has a `[profile.guest]`.
const SETTINGS: [&str; 7] = [
    r#"inherits="release""#,
    r#"opt-level=3"#,
    "lto=true",
    "codegen-units=1",
    r#"panic="abort""#,
    "debug=false",
    // Function names stay: a trap's backtrace is the plugin author's best friend.
    r#"strip="debuginfo""#,
];

/// How plugins are built.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Where components are written; `target/plugins` of the workspace or the project when none.
    pub out_dir: Option<PathBuf>,
    /// The compiler; found or prepared when none.
    pub toolchain: Option<GuestToolchain>,
    /// Where finished components are kept between clones ([`crate::cache::folder`]). One that was made
    /// of the same sources by the same compiler is taken from there, and nothing is compiled. None
    /// compiles, which is what somebody who works on a plugin wants.
    pub finished: Option<PathBuf>,
}

/// A component that a broker can load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltPlugin {
    /// The package's name.
    pub name: String,
    /// The component.
    pub wasm_path: PathBuf,
    /// Its digest in lower-case hexadecimal: what a configuration pins.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it differs from what was there before.
    pub changed: bool,
}

/// Builds the one plugin whose manifest lies in `manifest_dir`: a crate, or a policy in another language
/// ([`crate::language`] tells which).
///
/// # Errors
/// See [`Error`]; [`Error::Rejected`] when a broker would not load the result.
pub fn build_plugin(
    manifest_dir: &Path,
    options: &BuildOptions,
    progress: &dyn Progress,
) -> Result<BuiltPlugin, Error> {
    match language(manifest_dir)? {
        Language::Rust => {}
        other => return interpreted::build(manifest_dir, other, options, progress),
    }
    let manifest = manifest_dir.join("Cargo.toml");
    let manifest = fs::canonicalize(&manifest).map_err(Error::io("read", &manifest))?;
    let workspace = Workspace::read(manifest_dir)?;
    let package = workspace.package_at(&manifest).ok_or_else(|| Error::Package {
        package: manifest_dir.display().to_string(),
        reason: "its Cargo.toml holds no package".to_owned(),
    })?;
    let name = package.name.as_str();
    workspace.guest(name)?;
    let options = &BuildOptions { toolchain: Some(toolchain_of(&workspace, options, progress)?), ..options.clone() };
    let shelf = match (&options.finished, &options.toolchain) {
        (Some(cache), Some(toolchain)) => Some(Shelf::of(cache, &workspace, name, toolchain, &SETTINGS)?),
        _ => None,
    };
    if let Some(component) = shelf.as_ref().and_then(Shelf::component) {
        progress.step(&format!("{name} was built of these sources before"));
        return place(name, &component, &out_dir(&workspace, options)?);
    }
    let mut built = build_all(&workspace, &[name], options, progress)?;
    let built = built.pop().ok_or_else(|| Error::Package {
        package: package.name.clone(),
        reason: "cargo built nothing for it".to_owned(),
    })?;
    if let Some(shelf) = shelf {
        shelf.keep(&fs::read(&built.wasm_path).map_err(Error::io("read", &built.wasm_path))?)?;
    }
    Ok(built)
}

/// Writes a finished component where plugins are written.
fn place(name: &str, component: &[u8], out_dir: &Path) -> Result<BuiltPlugin, Error> {
    let wasm_path = out_dir.join(format!("{name}.wasm"));
    let changed = fs::read(&wasm_path).ok().is_none_or(|before| before != component);
    if changed {
        write_atomically(&wasm_path, component)?;
    }
    let (sha256, size) = (digest(component), component.len() as u64);
    Ok(BuiltPlugin { name: name.to_owned(), wasm_path, sha256, size, changed })
}

fn out_dir(workspace: &Workspace, options: &BuildOptions) -> Result<PathBuf, Error> {
    let out_dir = options.out_dir.clone().unwrap_or_else(|| workspace.root.join("target/plugins"));
    crate::cache::create_folder(&out_dir)?;
    Ok(out_dir)
}

fn toolchain_of(
    workspace: &Workspace,
    options: &BuildOptions,
    progress: &dyn Progress,
) -> Result<GuestToolchain, Error> {
    match &options.toolchain {
        Some(toolchain) => Ok(toolchain.clone()),
        None => toolchain::prepare(&ToolchainOptions::new(&workspace.root), progress),
    }
}

/// Builds several plugins of one workspace with one call of cargo, in the order of `names`.
///
/// # Errors
/// See [`Error`]; [`Error::Rejected`] when a broker would not load one of them.
pub fn build_plugins(
    workspace_dir: &Path,
    names: &[&str],
    options: &BuildOptions,
    progress: &dyn Progress,
) -> Result<Vec<BuiltPlugin>, Error> {
    build_all(&Workspace::read(workspace_dir)?, names, options, progress)
}

/// Turns a core module into a component. The module carries its world in a custom section that
/// wit-bindgen put there.
///
/// # Errors
/// [`Error::Encode`] with what to change in the plugin.
pub fn encode_component(name: &str, module: &[u8]) -> Result<Vec<u8>, Error> {
    if let Some(reason) = core_import_advice(module) {
        return Err(Error::Encode { plugin: name.to_owned(), reason });
    }
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| Error::Encode { plugin: name.to_owned(), reason: format!("{error:#}") })
}

fn build_all(
    workspace: &Workspace,
    names: &[&str],
    options: &BuildOptions,
    progress: &dyn Progress,
) -> Result<Vec<BuiltPlugin>, Error> {
    for name in names {
        workspace.guest(name)?;
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let toolchain = toolchain_of(workspace, options, progress)?;
    progress.step(&format!("compiling {} with {toolchain}", names.join(", ")));
    let modules = compile(workspace, names, &toolchain, progress)?;
    let out_dir = out_dir(workspace, options)?;
    names
        .iter()
        .map(|name| {
            let module = modules.get(*name).ok_or_else(|| Error::Package {
                package: (*name).to_owned(),
                reason: "cargo built no module for it".to_owned(),
            })?;
            encode_file(name, module, &out_dir)
        })
        .collect()
}

/// Compiles the packages; gives each one's core module.
fn compile(
    workspace: &Workspace,
    names: &[&str],
    toolchain: &GuestToolchain,
    progress: &dyn Progress,
) -> Result<HashMap<String, PathBuf>, Error> {
    let mut cargo = cargo();
    cargo
        .arg("build")
        .args(["--lib", "--profile", PROFILE, "--target", GUEST_TARGET])
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        // Not `target` itself: another compiler would make cargo rebuild the host's crates.
        .arg(workspace.root.join("target/guest"))
        .current_dir(&workspace.root);
    for name in names {
        cargo.args(["--package", name]);
    }
    if !has_own_profile(&workspace.root.join("Cargo.toml"))? {
        for setting in SETTINGS {
            cargo.args(["--config", &format!("profile.{PROFILE}.{setting}")]);
        }
    }
    let flags = remap_flags(workspace, names)?.iter().map(|flag| format!("{flag:?}")).collect::<Vec<_>>().join(",");
    cargo.args(["--config", &format!("target.{GUEST_TARGET}.rustflags=[{flags}]")]);
    toolchain.apply(&mut cargo);
    let output = Run::new("compiling the plugins", COMPILE_DEADLINE)
        .on_line(&|line| progress.detail(line))
        .output(&mut cargo)?;
    Ok(modules(&output.stdout, workspace))
}

/// Whether a workspace says itself how its guests are compiled: one with a large library may want a
/// faster build than the fastest code.
fn has_own_profile(manifest: &Path) -> Result<bool, Error> {
    let text = fs::read_to_string(manifest).map_err(Error::io("read", manifest))?;
    let table = format!("[profile.{PROFILE}]");
    Ok(text.lines().any(|line| line.trim() == table))
}

/// Paths of the machine would stand in panic messages: they tell about the builder and make the
/// digest differ from one checkout to the next. What a guest depends on by path may lie elsewhere.
fn remap_flags(workspace: &Workspace, names: &[&str]) -> Result<Vec<String>, Error> {
    let mut flags: Vec<String> = registry_remap_flag().into_iter().collect();
    let mut elsewhere = BTreeSet::new();
    for name in names {
        let folders = workspace.sources_of(name)?.into_iter().map(|source| source.folder);
        elsewhere.extend(folders.filter(|folder| !folder.starts_with(&workspace.root)));
    }
    for folder in elsewhere {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        flags.push(format!("--remap-path-prefix={}=/{name}", folder.display()));
    }
    // The last that fits counts.
    flags.push(format!("--remap-path-prefix={}=", workspace.root.display()));
    Ok(flags)
}

/// Reads cargo's messages: package name → core module.
fn modules(messages: &str, workspace: &Workspace) -> HashMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter_map(|message| {
            let package = workspace.packages.iter().find(|package| package.id == message.package_id)?;
            let module = message
                .filenames
                .into_iter()
                .find(|file| file.extension().is_some_and(|extension| extension == "wasm"))?;
            Some((package.name.clone(), module))
        })
        .collect()
}

/// What the last encoding was made of; when nothing changed it need not be done again.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Encoded {
    module_sha256: String,
    component_sha256: String,
    encoder: String,
}

fn encode_file(name: &str, module_path: &Path, out_dir: &Path) -> Result<BuiltPlugin, Error> {
    let module = fs::read(module_path).map_err(Error::io("read", module_path))?;
    let wasm_path = out_dir.join(format!("{name}.wasm"));
    let stamp_path = module_path.with_extension("encoded.json");
    let encoder = format!("{} {}", env!("CARGO_PKG_VERSION"), crate::host_contract());
    let module_sha256 = digest(&module);
    let before = fs::read(&wasm_path).ok();

    if let Some(component) = &before
        && let Ok(stamp) = fs::read(&stamp_path)
        && let Ok(stamp) = serde_json::from_slice::<Encoded>(&stamp)
        && stamp.module_sha256 == module_sha256
        && stamp.encoder == encoder
        && stamp.component_sha256 == digest(component)
    {
        return Ok(BuiltPlugin {
            name: name.to_owned(),
            wasm_path,
            sha256: stamp.component_sha256,
            size: component.len() as u64,
            changed: false,
        });
    }

    let component = encode_component(name, &module)?;
    let report = check(&component);
    if !report.problems.is_empty() {
        return Err(Error::Rejected { plugin: name.to_owned(), report: Box::new(report) });
    }
    let sha256 = digest(&component);
    write_atomically(&wasm_path, &component)?;
    let stamp = Encoded { module_sha256, component_sha256: sha256.clone(), encoder };
    if let Ok(stamp) = serde_json::to_vec(&stamp) {
        write_atomically(&stamp_path, &stamp)?;
    }
    Ok(BuiltPlugin {
        name: name.to_owned(),
        wasm_path,
        size: component.len() as u64,
        changed: before.is_none_or(|before| before != component),
        sha256,
    })
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A broker may be watching the folder: it sees the old file or the new one, never a half.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".unfinished-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(Error::io("write in", folder))?;
    fs::write(file.path(), bytes).map_err(Error::io("write", file.path()))?;
    file.persist(path).map(|_| ()).map_err(|error| Error::io("write", path)(error.error))
}

#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    package_id: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{contract::tests::policy_module, workspace::tests::workspace};

    #[test]
    fn modules_are_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","package_id":"registry+x#serde@1","filenames":["/t/serde.rlib"]}
{"reason":"compiler-artifact","package_id":"path+file:///w/x#policy-x@0.1.0","filenames":["/t/libpolicy_x.rlib","/t/policy_x.wasm"]}
{"reason":"build-finished","success":true}
not json"#;
        let found = modules(messages, &workspace("cdylib"));
        assert_eq!(found.len(), 1);
        assert_eq!(found["policy-x"], Path::new("/t/policy_x.wasm"));
    }

    #[test]
    fn encoding_is_skipped_only_while_nothing_changed() {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path().join("m.wasm");
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(&module, policy_module()).unwrap();
        let first = encode_file("p", &module, &out).unwrap();
        assert!(first.changed);
        assert_eq!(first.sha256, digest(&fs::read(&first.wasm_path).unwrap()));
        let second = encode_file("p", &module, &out).unwrap();
        assert!(!second.changed);
        assert_eq!(second.sha256, first.sha256);
        // Somebody else's file of that name is replaced.
        fs::write(&first.wasm_path, b"other").unwrap();
        let third = encode_file("p", &module, &out).unwrap();
        assert!(third.changed);
        assert_eq!(third.sha256, first.sha256);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    }

    #[test]
    fn an_encoding_error_names_the_plugin() {
        // A component has no business in here, and neither has a module cut in half.
        for bytes in [&policy_module()[..100], b"\0asm\x0d\0\x01\0"] {
            let error = encode_component("policy-x", bytes).unwrap_err();
            assert!(error.to_string().contains("policy-x"), "{error}");
        }
    }
}
