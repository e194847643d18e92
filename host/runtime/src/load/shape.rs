//! What a component is and what it asks for, from its type alone.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::{LoadErrorKind, REQUEST};
use crate::bindings::{PACKAGE, VERSION};
use crate::capability::Grant;
use crate::text::escape;
use jit_contract::PluginKind;

/// What a component is, from its type alone.
pub(super) struct Shape {
    pub(super) kind: PluginKind,
    /// The full name of the interface that makes it that.
    pub(super) export: String,
    pub(super) version: String,
    pub(super) exports_statements: bool,
    /// The full name of the interface by which a policy says what is to be counted, if it has it.
    pub(super) usage_export: Option<String>,
    pub(super) imports: Vec<Import>,
}

pub(super) struct Import {
    pub(super) name: String,
    pub(super) has_functions: bool,
}

impl Shape {
    pub(super) fn of(engine: &Engine, component: &Component) -> Result<Self, LoadErrorKind> {
        let component_type = component.component_type();
        let mut found: Option<(PluginKind, String, String)> = None;
        let mut exports_statements = false;
        let mut usage_export = None;
        let mut names = Vec::new();
        for (name, item) in component_type.exports(engine) {
            names.push(escape(name, 128));
            let Some((interface, version)) = contract_interface(name) else {
                continue;
            };
            check_version(version)?;
            if let ComponentItem::ComponentInstance(instance) = &item.ty {
                for (function, item) in instance.exports(engine) {
                    if matches!(&item.ty, ComponentItem::ComponentFunc(function) if function.async_()) {
                        let function = escape(function, 64);
                        return Err(LoadErrorKind::Signature(format!(
                            "{name} exports {function} as async: build it without async"
                        )));
                    }
                }
            }
            exports_statements |= interface == "statements";
            if interface == "usage" {
                usage_export = Some(name.to_owned());
            }
            let Some(kind) = PluginKind::ALL.into_iter().find(|kind| kind.as_str() == interface) else {
                continue;
            };
            if let Some((first, ..)) = found {
                return Err(LoadErrorKind::TwoKinds { first, second: kind });
            }
            found = Some((kind, name.to_owned(), version.to_owned()));
        }
        let Some((kind, export, version)) = found else {
            return Err(LoadErrorKind::NoKind {
                exports: if names.is_empty() { "nothing".to_owned() } else { names.join(", ") },
            });
        };
        let imports = component_type
            .imports(engine)
            .map(|(name, item)| Import { name: name.to_owned(), has_functions: !is_types_only(engine, &item.ty) })
            .collect();
        Ok(Self { kind, export, version, exports_statements, usage_export, imports })
    }

    pub(super) fn check_imports(&self, grants: &[Grant]) -> Result<(), LoadErrorKind> {
        for import in &self.imports {
            let refuse = |fix| LoadErrorKind::Import { import: escape(&import.name, 128), kind: self.kind, fix };
            let Some((interface, version)) = contract_interface(&import.name) else {
                let fix = if import.name.starts_with("wasi:") {
                    "build for wasm32-unknown-unknown (a plugin has no files, network, clock or environment)"
                } else {
                    "it is not part of the contract"
                };
                return Err(refuse(fix));
            };
            check_version(version)?;
            match Grant::ALL.into_iter().find(|grant| grant.as_str() == interface) {
                Some(grant) if !self.kind.capabilities().contains(&grant) => {
                    return Err(refuse("another kind of plugin has this capability"));
                }
                Some(grant) if !grants.contains(&grant) => {
                    return Err(LoadErrorKind::NotGranted { import: import.name.clone(), grant });
                }
                Some(_) => {}
                // No capability, but the call's own input.
                None if interface == REQUEST && reads_requests(self.kind) => {}
                // Other interfaces are imported for their types only.
                None if import.has_functions => {
                    return Err(refuse("the host has no such functions"));
                }
                None => {}
            }
        }
        Ok(())
    }

    pub(super) fn imports(&self, grant: Grant) -> bool {
        self.imports
            .iter()
            .any(|import| contract_interface(&import.name).is_some_and(|(interface, _)| interface == grant.as_str()))
    }
}

/// Interface and version of a name of the contract's package.
pub(super) fn contract_interface(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix(PACKAGE)?.strip_prefix('/')?;
    Some(rest.split_once('@').unwrap_or((rest, "")))
}

/// Versions match by their semver track: 0.2.3 and 0.2.0 do, 0.1.0 does not.
pub(super) fn check_version(version: &str) -> Result<(), LoadErrorKind> {
    let track = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    let plain = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain && track(version) == track(VERSION) {
        return Ok(());
    }
    let version = if version.is_empty() { "of no version".to_owned() } else { escape(version, 64) };
    Err(LoadErrorKind::ContractVersion { version })
}

/// Whether plugins of this kind are asked about requests.
pub(super) fn reads_requests(kind: PluginKind) -> bool {
    matches!(kind, PluginKind::Policy | PluginKind::Context)
}

/// Whether an imported instance asks for nothing that does something.
fn is_types_only(engine: &Engine, item: &ComponentItem) -> bool {
    match item {
        ComponentItem::ComponentInstance(instance) => {
            instance.exports(engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
        }
        ComponentItem::Type(_) => true,
        _ => false,
    }
}
