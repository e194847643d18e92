//! A loaded plugin, whatever its kind.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, InstancePre};

use crate::call::{Call, Pace};
use crate::capability::Grant;
use crate::context::ContextPlugin;
use crate::driver::DriverPlugin;
use crate::engine::Core;
use crate::fault::{Fault, FaultKind};
use crate::policy::PolicyPlugin;

/// What a plugin is, by what it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PluginKind {
    /// Decides who may have what.
    Policy,
    /// Gathers facts for policies.
    Context,
    /// Makes and removes accounts.
    Driver,
}

impl PluginKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Policy, Self::Context, Self::Driver];

    /// Its word, which is also the name of the interface that makes a component one.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Context => "context",
            Self::Driver => "driver",
        }
    }

    /// What a plugin of this kind may be granted at most. When the configuration says nothing, it is
    /// granted what of that it imports.
    #[must_use]
    pub fn grants(self) -> &'static [Grant] {
        match self {
            Self::Policy => &[Grant::Log],
            Self::Context => &[Grant::Log, Grant::Secrets, Grant::Session, Grant::Http],
            Self::Driver => &Grant::ALL,
        }
    }
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A plugin that can be called. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Plugin {
    /// A policy.
    Policy(PolicyPlugin),
    /// A context provider.
    Context(ContextPlugin),
    /// A driver.
    Driver(DriverPlugin),
}

impl Plugin {
    pub(crate) fn loaded(&self) -> &Loaded {
        match self {
            Self::Policy(plugin) => &plugin.loaded,
            Self::Context(plugin) => &plugin.loaded,
            Self::Driver(plugin) => &plugin.loaded,
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.loaded().name
    }

    /// The SHA-256 of its component, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.loaded().sha256
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> PluginKind {
        self.loaded().kind
    }

    /// What it may ask of the host.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.loaded().grants
    }

    /// The names and ids of the trusted keys that vouch for it; none where nobody had to.
    #[must_use]
    pub fn signed_by(&self) -> &[String] {
        &self.loaded().signed_by
    }

    /// Whether both are the same loaded plugin, not only alike.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.loaded(), other.loaded())
    }

    /// The version of the contract that it was built for.
    #[must_use]
    pub fn contract_version(&self) -> &str {
        &self.loaded().contract_version
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.loaded().path
    }

    /// As a policy.
    #[must_use]
    pub fn as_policy(&self) -> Option<&PolicyPlugin> {
        if let Self::Policy(plugin) = self { Some(plugin) } else { None }
    }

    /// As a context provider.
    #[must_use]
    pub fn as_context(&self) -> Option<&ContextPlugin> {
        if let Self::Context(plugin) = self { Some(plugin) } else { None }
    }

    /// As a driver.
    #[must_use]
    pub fn as_driver(&self) -> Option<&DriverPlugin> {
        if let Self::Driver(plugin) = self { Some(plugin) } else { None }
    }
}

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
    /// Linked with what it is granted and nothing else.
    pub(crate) pre: InstancePre<Call>,
    /// The instance that it exports as its kind.
    pub(crate) interface: ComponentExportIndex,
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
        self.pre.component().get_export_index(Some(&self.interface), name)
    }

    /// A function of another interface that it exports.
    pub(crate) fn function_of(&self, interface: &str, name: &str) -> Option<ComponentExportIndex> {
        let component = self.pre.component();
        let interface = component.get_export_index(None, interface)?;
        component.get_export_index(Some(&interface), name)
    }

    /// A fault of this plugin.
    pub(crate) fn fault(&self, kind: FaultKind) -> Fault {
        Fault { plugin: Arc::clone(&self.name), kind }
    }

    /// The state of a new call.
    pub(crate) fn call(&self) -> Call {
        Call::new(Arc::clone(&self.name), self.core.limits)
    }

    /// Calls a function on a fresh instance, on this thread.
    pub(crate) fn call_blocking<P, R>(&self, function: &ComponentExportIndex, params: P) -> Result<R, Fault>
    where
        P: wasmtime::component::ComponentNamedList + wasmtime::component::Lower,
        R: wasmtime::component::ComponentNamedList + wasmtime::component::Lift,
    {
        let _slot = self.core.policy_slot().map_err(|kind| self.fault(kind))?;
        let mut store = self.call().into_store(&self.core.engine, Pace::Blocking);
        let called = run_blocking(&mut store, &self.pre, function, params);
        called.map_err(|error| self.fault(store.data_mut().fault(&error)))
    }
}

/// Instantiates and calls.
pub(crate) fn run_blocking<P, R>(
    store: &mut Store<Call>,
    pre: &InstancePre<Call>,
    function: &ComponentExportIndex,
    params: P,
) -> wasmtime::Result<R>
where
    P: wasmtime::component::ComponentNamedList + wasmtime::component::Lower,
    R: wasmtime::component::ComponentNamedList + wasmtime::component::Lift,
{
    let instance = pre.instantiate(&mut *store)?;
    let function = instance.get_typed_func::<P, R>(&mut *store, function)?;
    function.call(store, params)
}
