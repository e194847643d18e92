//! What a component says about itself: its kind, what it imports and exports, and the contract
//! that it was built for. Reads bytes; runs and compiles nothing.

use std::fmt;

use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, Parser, Payload};

use crate::check::Problem;

/// The largest plugin, in bytes. Guests that carry an interpreter (Python) have some 20 MB.
pub const MAX_PLUGIN_BYTES: usize = 64 << 20;
/// The package that everything a plugin imports and exports belongs to.
const PACKAGE: &str = "jit:plugin/";
/// The contract of this source tree; a unit test holds it against wit/.
const HOST_CONTRACT: &str = "0.2.0";
/// The custom section in which the SDK writes who the plugin is.
const IDENTITY_SECTION: &str = "jit-plugin";
/// The largest identity section, in bytes.
const MAX_IDENTITY_BYTES: usize = 4096;
/// The most names that are read of a component's imports and exports together. The largest world
/// has ten.
const MAX_NAMES: usize = 1000;

/// The version of the contract that a broker of this source tree offers.
#[must_use]
pub const fn host_contract() -> &'static str {
    HOST_CONTRACT
}

/// What a plugin is for: told by what it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Decides who may have what.
    Policy,
    /// Gathers facts for policies.
    Context,
    /// A driver for a backend that speaks SQL.
    SqlDriver,
    /// A driver for a backend behind an HTTP API.
    HttpDriver,
    /// A driver for a directory.
    LdapDriver,
    /// A driver without any capability but the log.
    BareDriver,
}

impl Kind {
    /// The WIT world of this kind.
    #[must_use]
    pub const fn world(self) -> &'static str {
        match self {
            Self::Policy => "policy-plugin",
            Self::Context => "context-plugin",
            Self::SqlDriver => "sql-driver",
            Self::HttpDriver => "http-driver",
            Self::LdapDriver => "ldap-driver",
            Self::BareDriver => "bare-driver",
        }
    }
}

impl Kind {
    /// Its name with its article: "a policy", "an SQL driver".
    #[must_use]
    pub fn with_article(self) -> String {
        let article = match self {
            Self::SqlDriver | Self::HttpDriver | Self::LdapDriver => "an",
            Self::Policy | Self::Context | Self::BareDriver => "a",
        };
        format!("{article} {self}")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policy => "policy",
            Self::Context => "context provider",
            Self::SqlDriver => "SQL driver",
            Self::HttpDriver => "HTTP driver",
            Self::LdapDriver => "LDAP driver",
            Self::BareDriver => "driver without capabilities",
        })
    }
}

/// Who a plugin says that it is: written by the SDK, believed by nobody, shown to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginIdentity {
    /// The package's name.
    pub name: String,
    /// The package's version.
    pub version: String,
    /// The contract that its SDK was made for.
    pub contract: String,
}

/// What a component says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contract {
    /// What it is for; none when it exports nothing that is known.
    pub kind: Option<Kind>,
    /// The interfaces that it imports, with versions.
    pub imports: Vec<String>,
    /// The interfaces that it exports, with versions.
    pub exports: Vec<String>,
    /// The version of the contract, from its interfaces or, failing that, from its identity.
    pub version: Option<String>,
    /// Who it says that it is; none when it was not made with the SDK.
    pub identity: Option<PluginIdentity>,
}

impl Contract {
    /// Reads what a component says about itself.
    ///
    /// # Errors
    /// A [`Problem`] when the bytes are not a component: what they are instead, and what to do.
    pub fn read(bytes: &[u8]) -> Result<Self, Problem> {
        refuse_what_is_no_component(bytes)?;
        let unreadable = |error: wasmparser::BinaryReaderError| {
            Problem::new(
                format!("it is not a readable component: {error}"),
                "build it again with `jit-broker plugin build`, and copy the file whole",
            )
        };
        let mut contract = Self { kind: None, imports: Vec::new(), exports: Vec::new(), version: None, identity: None };
        // `parse_all` walks into nested modules and components; only the outermost one's imports
        // and exports are the plugin's, but the identity lies in the core module within.
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(unreadable)? {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        let name = import.map_err(unreadable)?.name.name;
                        contract.add(Side::Import, name)?;
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        let name = export.map_err(unreadable)?.name.name;
                        contract.add(Side::Export, name)?;
                    }
                }
                Payload::CustomSection(section)
                    if section.name() == IDENTITY_SECTION && contract.identity.is_none() =>
                {
                    contract.identity = Some(read_identity(section.data())?);
                }
                _ => {}
            }
        }
        contract.kind = kind_of(&contract.exports, &contract.imports);
        contract.version = contract
            .exports
            .iter()
            .chain(&contract.imports)
            .find_map(|name| own_interface(name).and_then(|(_, version)| version))
            .map(str::to_owned)
            .or_else(|| {
                let identity = contract.identity.as_ref()?;
                Some(identity.contract.clone())
            });
        Ok(contract)
    }

    /// The WIT world that it must fit: that of its kind, or the one for policies that count.
    #[must_use]
    pub fn world(&self) -> Option<&'static str> {
        let counts = self.exports.iter().any(|name| matches!(own_interface(name), Some(("usage", _))));
        match self.kind? {
            Kind::Policy if counts => Some("usage-policy-plugin"),
            kind => Some(kind.world()),
        }
    }

    fn add(&mut self, side: Side, name: &str) -> Result<(), Problem> {
        if self.imports.len() + self.exports.len() >= MAX_NAMES {
            return Err(Problem::new(
                format!("it imports and exports more than {MAX_NAMES} names"),
                "a plugin exports one interface of jit:plugin; see wit/worlds.wit",
            ));
        }
        match side {
            Side::Import => self.imports.push(name.to_owned()),
            Side::Export => self.exports.push(name.to_owned()),
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Side {
    Import,
    Export,
}

/// `jit:plugin/policy@0.2.0` → (`policy`, `0.2.0`); none for what belongs to others.
pub(crate) fn own_interface(name: &str) -> Option<(&str, Option<&str>)> {
    let rest = name.strip_prefix(PACKAGE)?;
    Some(match rest.split_once('@') {
        Some((interface, version)) => (interface, Some(version)),
        None => (rest, None),
    })
}

fn kind_of(exports: &[String], imports: &[String]) -> Option<Kind> {
    let has = |names: &[String], wanted: &str| {
        names.iter().any(|name| own_interface(name).is_some_and(|(interface, _)| interface == wanted))
    };
    let exported = |wanted: &str| has(exports, wanted);
    if exported("driver") {
        return Some(if exported("statements") {
            Kind::SqlDriver
        } else if has(imports, "ldap") {
            Kind::LdapDriver
        } else if has(imports, "http") || has(imports, "session") {
            Kind::HttpDriver
        } else {
            Kind::BareDriver
        });
    }
    // `context` first: it uses a type of `policy`, though it does not export it.
    if exported("context") {
        Some(Kind::Context)
    } else if exported("policy") {
        Some(Kind::Policy)
    } else {
        None
    }
}

fn refuse_what_is_no_component(bytes: &[u8]) -> Result<(), Problem> {
    if bytes.len() > MAX_PLUGIN_BYTES {
        return Err(Problem::new(
            format!("it has {} bytes, and {MAX_PLUGIN_BYTES} are the most", bytes.len()),
            "build it in release mode without debug information: `jit-broker plugin build` does",
        ));
    }
    // Wasmtime's precompiled artefacts are ELF files: machine code that no sandbox holds.
    if bytes.starts_with(b"\x7fELF") {
        return Err(Problem::new(
            "it is precompiled machine code (.cwasm), which a broker never loads",
            "give the broker the component itself (.wasm); it compiles and caches it by itself",
        ));
    }
    match Parser::new(0).parse_all(bytes).next() {
        Some(Ok(Payload::Version { encoding: Encoding::Component, .. })) => Ok(()),
        Some(Ok(Payload::Version { encoding: Encoding::Module, .. })) => Err(Problem::new(
            "it is a core WebAssembly module, not a component",
            "build it with `jit-broker plugin build`, which turns it into a component",
        )),
        _ if bytes.starts_with(b"(module") || bytes.starts_with(b"(component") => {
            Err(Problem::new("it is WebAssembly text, not a component", "build it with `jit-broker plugin build`"))
        }
        _ => Err(Problem::new("it is not WebAssembly", "give the `.wasm` file that `jit-broker plugin build` wrote")),
    }
}

fn read_identity(data: &[u8]) -> Result<PluginIdentity, Problem> {
    let bounded = (data.len() <= MAX_IDENTITY_BYTES).then_some(data);
    bounded.and_then(|data| serde_json::from_slice(data).ok()).ok_or_else(|| {
        Problem::new(
            format!(
                "its custom section `{IDENTITY_SECTION}` is not \
                     {{\"name\", \"version\", \"contract\"}} in JSON"
            ),
            "register the plugin with the SDK's macro, once",
        )
    })
}

/// Appends the section that says who the plugin is, for languages whose compilers write none.
pub(crate) fn append_identity(component: &mut Vec<u8>, identity: &[u8]) {
    append_section(component, IDENTITY_SECTION, identity);
}

/// Appends a custom section: id 0, size, name, data (WebAssembly core specification 5.5.3).
fn append_section(wasm: &mut Vec<u8>, name: &str, data: &[u8]) {
    let leb128 = |mut value: usize| {
        let mut bytes = Vec::new();
        while value > 0x7f {
            bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    let mut body = leb128(name.len());
    body.extend(name.as_bytes());
    body.extend(data);
    wasm.push(0);
    wasm.extend(leb128(body.len()));
    wasm.extend(body);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
    use wit_parser::{ManglingAndAbi, Resolve};

    use super::*;

    /// A core module of a world, whose functions all trap.
    pub(crate) fn dummy(wit: &str, world: &str) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("test.wit", wit).unwrap();
        let world = resolve.select_world(&[package], Some(world)).unwrap();
        module_of(&resolve, world)
    }

    /// The same of a world of this source tree's wit/.
    pub(crate) fn dummy_of_the_contract(world: &str) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit")).unwrap();
        let world = resolve.select_world(&[package], Some(world)).unwrap();
        module_of(&resolve, world)
    }

    fn module_of(resolve: &Resolve, world: wit_parser::WorldId) -> Vec<u8> {
        let mut module =
            wit_component::dummy_module(resolve, world, ManglingAndAbi::Legacy(wit_parser::LiftLowerAbi::Sync));
        embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
        module
    }

    pub(crate) fn with_section(mut module: Vec<u8>, name: &str, data: &[u8]) -> Vec<u8> {
        append_section(&mut module, name, data);
        module
    }

    pub(crate) fn component(module: &[u8]) -> Vec<u8> {
        ComponentEncoder::default().module(module).unwrap().validate(true).encode().unwrap()
    }

    /// A policy as the SDK would make it.
    pub(crate) fn policy_module() -> Vec<u8> {
        with_section(
            dummy_of_the_contract("policy-plugin"),
            IDENTITY_SECTION,
            br#"{"name":"policy-x","version":"1.2.3","contract":"0.2.0"}"#,
        )
    }

    #[test]
    fn the_host_contract_is_that_of_the_wit() {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit")).unwrap();
        let name = &resolve.packages[package].name;
        assert_eq!(name.version.as_ref().unwrap().to_string(), host_contract());
        assert_eq!(format!("{}:{}/", name.namespace, name.name), PACKAGE);
    }

    #[test]
    fn each_kind_is_told_by_its_exports() {
        for kind in [Kind::Policy, Kind::Context, Kind::SqlDriver, Kind::HttpDriver, Kind::LdapDriver, Kind::BareDriver]
        {
            let contract = Contract::read(&component(&dummy_of_the_contract(kind.world()))).unwrap();
            assert_eq!(contract.kind, Some(kind));
            assert_eq!(contract.version.as_deref(), Some(host_contract()));
            assert_eq!(contract.identity, None);
        }
    }

    #[test]
    fn a_policy_that_counts_is_a_policy_of_its_own_world() {
        let read = |world| Contract::read(&component(&dummy_of_the_contract(world))).unwrap();
        let counting = read("usage-policy-plugin");
        assert_eq!((counting.kind, counting.world()), (Some(Kind::Policy), Some("usage-policy-plugin")));
        assert_eq!(read("policy-plugin").world(), Some("policy-plugin"));
        assert_eq!(read("http-driver").world(), Some("http-driver"));
    }

    #[test]
    fn the_identity_is_found_in_the_nested_module() {
        let contract = Contract::read(&component(&policy_module())).unwrap();
        assert_eq!(contract.exports, ["jit:plugin/policy@0.2.0"]);
        assert_eq!(
            contract.identity,
            Some(PluginIdentity { name: "policy-x".into(), version: "1.2.3".into(), contract: "0.2.0".into() })
        );
    }

    #[test]
    fn an_identity_appended_to_a_component_is_found() {
        let mut bytes = component(&dummy_of_the_contract("policy-plugin"));
        append_identity(&mut bytes, br#"{"name":"my-rule","version":"0.1.0","contract":"0.2.0"}"#);
        assert_eq!(Contract::read(&bytes).unwrap().identity.unwrap().name, "my-rule");
        assert!(crate::check(&bytes).problems.is_empty());
    }

    #[test]
    fn a_broken_identity_is_a_problem() {
        let module = with_section(dummy_of_the_contract("policy-plugin"), IDENTITY_SECTION, b"not json");
        assert!(Contract::read(&component(&module)).unwrap_err().what.contains(IDENTITY_SECTION));
        let module =
            with_section(dummy_of_the_contract("policy-plugin"), IDENTITY_SECTION, &vec![b' '; MAX_IDENTITY_BYTES + 1]);
        assert!(Contract::read(&component(&module)).is_err());
    }

    #[test]
    fn what_is_no_component_is_named() {
        let what = |bytes: &[u8]| Contract::read(bytes).unwrap_err();
        let module = what(&policy_module());
        assert!(module.what.contains("core WebAssembly module"));
        assert!(module.fix.contains("jit-broker plugin build"));
        assert!(what(b"\x7fELF\x02\x01").what.contains("precompiled"));
        assert!(what(b"(module)").what.contains("text"));
        assert!(what(b"").what.contains("not WebAssembly"));
        assert!(what(b"PK\x03\x04").what.contains("not WebAssembly"));
        assert!(what(&vec![0; MAX_PLUGIN_BYTES + 1]).what.contains("bytes"));
    }

    #[test]
    fn a_component_cut_anywhere_is_refused_unless_it_is_whole_without_the_rest() {
        let whole = component(&policy_module());
        for end in 0..whole.len() {
            // Behind the last section that matters only names and notes are lost.
            let passes = crate::check(&whole[..end]).problems.is_empty();
            let valid = wasmparser::Validator::new().validate_all(&whole[..end]).is_ok();
            assert!(!passes || valid, "cut at {end}");
        }
    }
}
