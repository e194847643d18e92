//! The plugins that serve now.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::plugin::Plugin;

/// The plugins that serve, by their names in the configuration.
///
/// The whole set is replaced at once: a reader sees the old set or the new one, never a mixture,
/// and a call that is under way finishes on the plugin it began with.
#[derive(Debug, Default)]
pub struct Catalog {
    plugins: ArcSwap<BTreeMap<String, Plugin>>,
}

impl Catalog {
    /// An empty catalog.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The plugin of that name. Cheap: it shares the compiled code.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Plugin> {
        self.plugins.load().get(name).cloned()
    }

    /// The set that serves now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<BTreeMap<String, Plugin>> {
        self.plugins.load_full()
    }

    /// Puts another set in place, in one step. Gives the set that served until now.
    pub fn replace_all(&self, plugins: BTreeMap<String, Plugin>) -> Arc<BTreeMap<String, Plugin>> {
        self.plugins.swap(Arc::new(plugins))
    }
}
