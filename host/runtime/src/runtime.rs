//! The Wasm host as its users see it: it starts, and it loads plugins.

use std::sync::Arc;

use crate::engine::{Core, RuntimeError, RuntimeOptions};
use crate::limits::Limits;
use crate::load::{self, LoadError, PluginSpec, Terms};
use crate::plugin::Plugin;

/// The Wasm host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    core: Arc<Core>,
}

impl Runtime {
    /// Starts the engine and its ticker thread and opens the compile cache.
    ///
    /// # Errors
    /// [`RuntimeError`] when an option is out of range, the machine does not offer what the engine
    /// needs, or the cache folder is not safe to use.
    pub fn new(options: RuntimeOptions) -> Result<Self, RuntimeError> {
        Ok(Self { core: Arc::new(Core::new(options)?) })
    }

    /// Reads, checks and compiles a plugin. Blocks (a first compilation takes up to seconds): call
    /// it where that is fine, such as in `spawn_blocking`.
    ///
    /// # Errors
    /// [`LoadError`] says what to mend. Nothing that serves is touched.
    pub fn load(&self, spec: &PluginSpec) -> Result<Plugin, LoadError> {
        self.load_on(spec, Terms::default())
    }

    /// As [`Self::load`], on further terms.
    ///
    /// # Errors
    /// [`LoadError`] says what to mend. Nothing that serves is touched.
    pub fn load_on(&self, spec: &PluginSpec, terms: Terms<'_>) -> Result<Plugin, LoadError> {
        load::load(&self.core, spec, terms)
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// How many handles were still held after calls had ended well, since the start. Anything but
    /// zero is a defect of the host.
    #[must_use]
    pub fn handles_left_behind(&self) -> u64 {
        self.core.left_behind()
    }
}
