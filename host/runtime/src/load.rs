//! From a file to a plugin that can be called.
//!
//! The bytes are read once; the digest, the checks and the compilation are all of those bytes. What
//! a component exports decides its kind; what it may import is its grant; the rest is not linked.
//! Every refusal says what to change.

mod shape;
mod trial;

use std::path::PathBuf;
use std::sync::Arc;

use jit_files::signature_path;
use jit_tlog::checkpoint::VerifierKey;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use self::shape::{Shape, contract_interface, reads_requests};
use self::trial::{Tried, try_out};
use crate::bindings::{self, PACKAGE, VERSION};
use crate::call::{Call, drive};
use crate::capability::{Grant, Granted as _};
use crate::context::ContextPlugin;
use crate::driver::DriverPlugin;
use crate::engine::{Core, MEMORIES, TABLES};
use crate::fault::Fault;
use crate::file::{ComponentFile, SignatureFileError};
use crate::limits::Limits;
use crate::loaded::Loaded;
use crate::plugin::Plugin;
use crate::policy::PolicyPlugin;
use crate::snapshot::Taken;
use crate::text::escape;
use jit_contract::PluginKind;

/// Largest component, in bytes. Interpreters that are components (Python) have some 20 MB.
pub const MAX_COMPONENT: u64 = 64 << 20;

/// The interface by which policies and context providers read what they are asked.
const REQUEST: &str = "request";

/// Which plugin to load, and what to hold it to.
#[derive(Debug, Clone)]
pub struct PluginSpec {
    /// Its name in the configuration.
    pub name: String,
    /// The component's file.
    pub path: PathBuf,
    /// The digest that the file must have, in hexadecimal; none accepts any.
    pub sha256: Option<String>,
    /// What it may ask of the host; none gives what it imports, of what its kind may have at most
    /// ([`PluginKind::capabilities`]).
    pub grants: Option<Vec<Grant>>,
}

/// On which terms it is loaded, beside its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms<'a> {
    /// One of these keys must vouch for the component, before any of it is interpreted; without them
    /// nobody has to.
    pub trusted: Option<&'a [VerifierKey]>,
    /// What serves under this name now. It is given back as it is when nothing about it has changed:
    /// neither its bytes nor its path, its grants, or who vouches for it.
    pub serving: Option<&'a Plugin>,
}

/// A plugin that does not load.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin} ({path}): {kind}")]
pub struct LoadError {
    /// Its name in the configuration.
    pub plugin: String,
    /// Its file.
    pub path: PathBuf,
    /// The digest of its bytes, in hexadecimal, if they could be read.
    pub sha256: Option<Box<str>>,
    /// What is wrong, and what to change.
    pub kind: LoadErrorKind,
}

/// Why a plugin does not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadErrorKind {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// The file is larger than [`MAX_COMPONENT`].
    #[error("has more than {MAX_COMPONENT} bytes")]
    TooLarge,
    /// The configured digest is not one.
    #[error("sha256 must be 64 hexadecimal digits")]
    Pin,
    /// The file is not the one that was pinned.
    #[error(
        "has the digest {actual}, but {expected} is pinned: check where the file comes from, or pin the new digest"
    )]
    Digest {
        /// From the configuration.
        expected: String,
        /// The file's own.
        actual: String,
    },
    /// Nobody has signed it, and somebody has to.
    #[error(
        "is not signed, and must be: there is no {}; sign it with a trusted key \
         (`jit-broker plugin sign {} --key KEYFILE`)", signature_path(component).display(), component.display()
    )]
    Unsigned {
        /// The component.
        component: PathBuf,
    },
    /// Nobody who is trusted vouches for these bytes.
    #[error("must be signed by a trusted key: {} {error}", signature.display())]
    NotVouched {
        /// The signature file.
        signature: PathBuf,
        /// What is wrong with it.
        error: Box<SignatureFileError>,
    },
    /// Not WebAssembly at all.
    #[error("is not a WebAssembly component")]
    NotWasm,
    /// A core module.
    #[error("is a core WebAssembly module, not a component: build it with `jit-broker plugin build`")]
    CoreModule,
    /// Machine code, which would run outside of the sandbox.
    #[error("is compiled machine code, not a component: give the .wasm file that it was made from")]
    Precompiled,
    /// It does not validate or compile.
    #[error("does not compile: {0}")]
    Compile(String),
    /// It exports nothing that makes it a plugin.
    #[error(
        "exports none of {PACKAGE}/policy, {PACKAGE}/context, {PACKAGE}/driver, so it is no plugin (it exports: {exports})"
    )]
    NoKind {
        /// What it exports.
        exports: String,
    },
    /// It is several kinds at once.
    #[error("exports {first} and {second}: a plugin is of one kind")]
    TwoKinds {
        /// One kind.
        first: PluginKind,
        /// Another.
        second: PluginKind,
    },
    /// It was built for another version of the contract.
    #[error(
        "was built for contract {version}, and this broker offers contract {VERSION}: rebuild it with \
         `jit-broker plugin build` and the SDK of this release"
    )]
    ContractVersion {
        /// The version that its interfaces name.
        version: String,
    },
    /// It imports what no plugin of its kind can have.
    #[error("imports {import}, which no {kind} can have: {fix}")]
    Import {
        /// The import.
        import: String,
        /// The plugin's kind.
        kind: PluginKind,
        /// What to change.
        fix: &'static str,
    },
    /// It imports what it was not granted.
    #[error("imports {import}, which is not granted: add \"{grant}\" to its grants or use another plugin")]
    NotGranted {
        /// The import.
        import: String,
        /// The missing grant.
        grant: Grant,
    },
    /// The configuration grants what a kind cannot have.
    #[error("is a {kind} and cannot be granted \"{grant}\"")]
    GrantForKind {
        /// The grant.
        grant: Grant,
        /// The plugin's kind.
        kind: PluginKind,
    },
    /// A function's type is not the contract's, or the function is missing.
    #[error("does not fit the contract: {0}")]
    Signature(String),
    /// It needs more than any call is given.
    #[error("needs more resources than a call may use: {0}")]
    Resources(String),
    /// It could not be instantiated, or failed while it described itself.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A driver lists statements that cannot be used, or none where its capability needs them.
    #[error(transparent)]
    Statements(Box<dyn std::error::Error + Send + Sync>),
}

/// Loads a plugin; see [`crate::Runtime::load_on`].
pub(crate) fn load(core: &Arc<Core>, spec: &PluginSpec, terms: Terms<'_>) -> Result<Plugin, LoadError> {
    let mut sha256 = None;
    load_kind(core, spec, terms, &mut sha256).map_err(|kind| LoadError {
        plugin: spec.name.clone(),
        path: spec.path.clone(),
        sha256,
        kind,
    })
}

/// `read` is told the digest as soon as it is known.
fn load_kind(
    core: &Arc<Core>,
    spec: &PluginSpec,
    terms: Terms<'_>,
    read: &mut Option<Box<str>>,
) -> Result<Plugin, LoadErrorKind> {
    let file = ComponentFile::read(&spec.path)?;
    *read = Some(file.sha256.as_str().into());
    check_pin(spec.sha256.as_deref(), &file.sha256)?;
    // Before the first byte is looked at: what nobody vouches for is not even parsed.
    let signed_by = match terms.trusted {
        Some(trusted) => file.vouchers(&spec.path, trusted)?,
        None => Vec::new(),
    };
    if let Some(same) = terms.serving.filter(|serving| unchanged(core, serving.loaded(), spec, &file, &signed_by)) {
        return Ok(same.clone());
    }
    let ComponentFile { bytes, sha256 } = file;
    check_format(&bytes)?;
    let component = core.cache.component(&core.engine, &spec.path, &sha256, &bytes);
    let component = component.map_err(|error| compile_error(&error))?;
    drop(bytes);

    let shape = Shape::of(&core.engine, &component)?;
    let grants = effective_grants(shape.kind, spec.grants.as_deref(), |grant| shape.imports(grant))?;
    shape.check_imports(&grants)?;
    check_resources(&component, &core.limits)?;
    let linker = linker(&core.engine, &shape, &grants)?;
    let pre = linker.instantiate_pre(&component).map_err(signature)?;
    // Pages of its memory image are shared by all of its instances from here on.
    component.initialize_copy_on_write_image().map_err(|e| LoadErrorKind::Compile(chain(&e)))?;
    let name: Arc<str> = Arc::from(spec.name.as_str());
    let described = {
        // One at a time: the pool has a few slots for this, and loading is no hot path.
        let _one = core.trial.lock();
        drive(try_out(core, &name, &pre, &shape))?
    };
    let missing = || LoadErrorKind::Signature(format!("{} lacks a function", shape.export));
    let kind = shape.kind;
    let loaded = Arc::new(Loaded {
        core: Arc::clone(core),
        name,
        path: spec.path.clone(),
        sha256,
        kind,
        asked: spec.grants.clone(),
        grants,
        signed_by,
        contract_version: shape.version.clone(),
        linker,
        pre,
        export: shape.export.clone(),
        taken: Taken::default(),
    });
    match described {
        Tried::Policy => PolicyPlugin::new(loaded, shape.usage_export.as_deref()).map(Plugin::Policy),
        Tried::Context => ContextPlugin::new(loaded).map(Plugin::Context),
        Tried::Driver(told) => DriverPlugin::new(loaded, told).map(Plugin::Driver),
    }
    .ok_or_else(missing)
}

/// Whether loading would give what serves already.
fn unchanged(
    core: &Arc<Core>,
    serving: &Loaded,
    spec: &PluginSpec,
    file: &ComponentFile,
    signed_by: &[String],
) -> bool {
    Arc::ptr_eq(core, &serving.core)
        && *serving.name == *spec.name
        && serving.path == spec.path
        && serving.sha256 == file.sha256
        && serving.asked == spec.grants
        && serving.signed_by == signed_by
}

fn check_pin(pin: Option<&str>, actual: &str) -> Result<(), LoadErrorKind> {
    let Some(pin) = pin else { return Ok(()) };
    let expected = pin.trim().trim_start_matches("sha256:").to_ascii_lowercase();
    if expected.len() != 64 || !expected.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(LoadErrorKind::Pin);
    }
    if expected != actual {
        return Err(LoadErrorKind::Digest { expected, actual: actual.to_owned() });
    }
    Ok(())
}

/// Refuses what is no component before any of it is interpreted.
pub(crate) fn check_format(bytes: &[u8]) -> Result<(), LoadErrorKind> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadErrorKind::Precompiled);
    }
    match bytes.get(..8) {
        Some(b"\0asm\x0d\0\x01\0") => Ok(()),
        Some([0, b'a', b's', b'm', _, _, 0, 0]) => Err(LoadErrorKind::CoreModule),
        _ => Err(LoadErrorKind::NotWasm),
    }
}

fn compile_error(error: &wasmtime::Error) -> LoadErrorKind {
    let text = chain(error);
    if text.contains("pooling allocator") {
        // Valid, but no slot for instances is large enough.
        return LoadErrorKind::Resources(text);
    }
    LoadErrorKind::Compile(text)
}

/// An error with its causes, on one line.
fn chain(error: &wasmtime::Error) -> String {
    escape(&format!("{error:#}"), 2_048)
}

/// Without a word in the configuration: what it imports, of what its kind may have.
fn effective_grants(
    kind: PluginKind,
    asked: Option<&[Grant]>,
    imports: impl Fn(Grant) -> bool,
) -> Result<Vec<Grant>, LoadErrorKind> {
    let Some(asked) = asked else {
        return Ok(kind.capabilities().iter().copied().filter(|grant| imports(*grant)).collect());
    };
    if let Some(&grant) = asked.iter().find(|grant| !kind.capabilities().contains(grant)) {
        return Err(LoadErrorKind::GrantForKind { grant, kind });
    }
    let mut grants = asked.to_vec();
    grants.sort_unstable();
    grants.dedup();
    Ok(grants)
}

/// The engine checks each core module; this checks what they need together.
fn check_resources(component: &Component, limits: &Limits) -> Result<(), LoadErrorKind> {
    let too_much = |needs: String| Err(LoadErrorKind::Resources(needs));
    let Some(required) = component.resources_required() else {
        return too_much("it imports core modules, whose needs nobody knows".to_owned());
    };
    if required.num_memories > MEMORIES {
        return too_much(format!("{} memories, at most {MEMORIES}", required.num_memories));
    }
    if required.num_tables > TABLES {
        return too_much(format!("{} tables, at most {TABLES}", required.num_tables));
    }
    let (bytes, most) = (required.max_initial_memory_size.unwrap_or(0), limits.memory_bytes);
    if bytes > most as u64 {
        return too_much(format!("{bytes} bytes of memory at the start, at most {most}"));
    }
    Ok(())
}

/// Has what is granted, and the interfaces that are imported for their types.
fn linker(engine: &Engine, shape: &Shape, grants: &[Grant]) -> Result<Linker<Call>, LoadErrorKind> {
    let mut linker = Linker::<Call>::new(engine);
    for grant in grants {
        grant.link(&mut linker).map_err(signature)?;
    }
    if reads_requests(shape.kind) {
        bindings::request::add_to_linker::<_, HasSelf<Call>>(&mut linker, |call| call).map_err(signature)?;
    }
    link_types(&mut linker, shape).map_err(signature)?;
    Ok(linker)
}

fn link_types(linker: &mut Linker<Call>, shape: &Shape) -> wasmtime::Result<()> {
    let is_linked = |name: &str| {
        contract_interface(name)
            .is_some_and(|(interface, _)| interface == REQUEST || Grant::ALL.iter().any(|g| g.as_str() == interface))
    };
    for import in shape.imports.iter().filter(|import| !is_linked(&import.name)) {
        linker.instance(&import.name)?;
    }
    Ok(())
}

fn signature(error: wasmtime::Error) -> LoadErrorKind {
    LoadErrorKind::Signature(chain(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::shape::check_version;
    use super::*;

    #[test]
    fn versions_match_by_track() {
        for good in ["0.2.0", "0.2.7"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["0.1.0", "0.3.0", "1.0.0", "0.2.0-rc.1", "", "0"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pin_is_a_whole_digest() {
        let digest = "a".repeat(64);
        assert!(check_pin(None, &digest).is_ok());
        assert!(check_pin(Some(&digest.to_uppercase()), &digest).is_ok());
        assert!(check_pin(Some(&format!("sha256:{digest}")), &digest).is_ok());
        for bad in ["", "aa", &digest[1..], &"g".repeat(64)] {
            assert!(matches!(check_pin(Some(bad), &digest), Err(LoadErrorKind::Pin)), "{bad}");
        }
        assert!(matches!(check_pin(Some(&"b".repeat(64)), &digest), Err(LoadErrorKind::Digest { .. })));
    }

    #[test]
    fn what_is_no_component_is_told_apart() {
        assert!(check_format(b"\0asm\x0d\0\x01\0").is_ok());
        assert!(matches!(check_format(b"\0asm\x01\0\0\0"), Err(LoadErrorKind::CoreModule)));
        assert!(matches!(check_format(b"(component)"), Err(LoadErrorKind::NotWasm)));
        assert!(matches!(check_format(b""), Err(LoadErrorKind::NotWasm)));
        let machine_code = Engine::default().precompile_component(b"\0asm\x0d\0\x01\0").unwrap();
        assert!(matches!(check_format(&machine_code), Err(LoadErrorKind::Precompiled)));
    }

    #[test]
    fn grants_are_what_the_kind_may_have() {
        let all = |_| true;
        assert_eq!(effective_grants(PluginKind::Policy, None, all).unwrap(), [Grant::Log]);
        let sql = |grant| matches!(grant, Grant::Sql | Grant::Secrets);
        assert_eq!(effective_grants(PluginKind::Driver, None, sql).unwrap(), [Grant::Secrets, Grant::Sql]);
        assert_eq!(effective_grants(PluginKind::Driver, Some(&[]), all).unwrap(), []);
        let twice = effective_grants(PluginKind::Driver, Some(&[Grant::Sql, Grant::Log, Grant::Sql]), all);
        assert_eq!(twice.unwrap(), [Grant::Log, Grant::Sql]);
        let error = effective_grants(PluginKind::Policy, Some(&[Grant::Sql]), all).unwrap_err();
        assert_eq!(error.to_string(), "is a policy and cannot be granted \"sql\"");
    }
}
