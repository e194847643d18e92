//! What every kind of loaded plugin has: its component, linked with what it is granted.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, Instance, InstancePre, Linker};

use crate::backend::Connection;
use crate::bindings::types;
use crate::call::Call;
use crate::capability::Grant;
use crate::declared::Declared;
use crate::engine::Core;
use crate::fault::{Fault, FaultKind};
use crate::snapshot::Taken;
use jit_contract::PluginKind;
use jit_core::driver::Lane;

/// What every kind of loaded plugin has.
pub(crate) struct Loaded {
    pub(crate) core: Arc<Core>,
    pub(crate) name: Arc<str>,
    pub(crate) path: PathBuf,
    pub(crate) sha256: String,
    pub(crate) kind: PluginKind,
    /// What the configuration granted, in its words.
    pub(crate) asked: Option<Vec<Grant>>,
    /// What that comes to.
    pub(crate) grants: Vec<Grant>,
    pub(crate) signed_by: Vec<String>,
    pub(crate) contract_version: String,
    /// What it is granted, and nothing else.
    pub(crate) linker: Linker<Call>,
    /// Linked with that.
    pub(crate) pre: InstancePre<Call>,
    /// The full name of the interface that makes it its kind.
    pub(crate) export: String,
    /// The snapshots of it that somebody uses.
    pub(crate) taken: Taken,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// A function of the interface, for calls.
    pub(crate) fn function(&self, name: &str) -> Option<ComponentExportIndex> {
        self.function_of(&self.export, name)
    }

    /// A function of another interface that it exports.
    pub(crate) fn function_of(&self, interface: &str, name: &str) -> Option<ComponentExportIndex> {
        exported(self.pre.component(), interface, name)
    }

    /// The function that is called on a prepared instance.
    pub(crate) fn asked_by(&self) -> Option<&'static str> {
        match self.kind {
            PluginKind::Policy => Some("decide"),
            PluginKind::Context => Some("gather"),
            PluginKind::Driver => None,
        }
    }

    /// A fault of this plugin.
    pub(crate) fn fault(&self, kind: FaultKind) -> Fault {
        Fault { plugin: Arc::clone(&self.name), kind }
    }

    /// The state of a new call.
    pub(crate) fn call(&self) -> Call {
        Call::new(Arc::clone(&self.name), self.core.limits)
    }

    /// Gives the call a session on the connection, where it is granted what works there.
    pub(crate) fn connect(&self, call: &mut Call, connection: &Connection, lane: Lane, declared: &Declared) {
        if self.grants.iter().any(|grant| grant.as_str() == connection.capability()) {
            call.session = Some(Arc::clone(connection).session(lane, declared));
        }
    }
}

/// A function of an interface that a component exports.
pub(crate) fn exported(component: &Component, interface: &str, name: &str) -> Option<ComponentExportIndex> {
    let interface = component.get_export_index(None, interface)?;
    component.get_export_index(Some(&interface), name)
}

/// What a plugin says of a configuration.
pub(crate) type Accepted = (Result<(), Vec<types::ConfigProblem>>,);

/// A fresh instance that was given the configuration by that function.
pub(crate) async fn configured(
    pre: &InstancePre<Call>,
    store: &mut Store<Call>,
    function: &ComponentExportIndex,
    config: &str,
) -> wasmtime::Result<(Instance, Accepted)> {
    let instance = pre.instantiate_async(&mut *store).await?;
    let function = instance.get_typed_func::<(&str,), Accepted>(&mut *store, function)?;
    let accepted = function.call_async(store, (config,)).await?;
    Ok((instance, accepted))
}
