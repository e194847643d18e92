//! What a driver says of itself at load, as its capabilities read it: once, and not again in a call.

use std::any::Any;
use std::sync::Arc;

/// What a driver said at load, before a capability has read it.
pub(crate) struct Said<'a> {
    /// Whether the driver imports the capability.
    pub(crate) is_imported: bool,
    /// Of its description.
    pub(crate) properties: &'a [(String, String)],
    /// The statements that it lists; none where it exports no list.
    pub(crate) statements: Option<&'a [String]>,
}

impl Said<'_> {
    /// The value of a property.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Why a capability cannot work with what a driver says.
#[derive(Debug)]
pub(crate) enum Undeclared {
    /// The description is wrong: what is wrong with it.
    Description(String),
    /// The list of statements is.
    Statements(Box<dyn std::error::Error + Send + Sync>),
}

/// What a capability read at load.
pub(crate) type Reading = Arc<dyn Any + Send + Sync>;

/// What the capabilities read at load, found again by its type.
#[derive(Debug, Default)]
pub struct Declared {
    readings: Vec<Reading>,
}

impl Declared {
    /// Of each capability that read something.
    pub(crate) fn new(readings: Vec<Reading>) -> Self {
        Self { readings }
    }

    /// What one capability read; as if nothing had been said where it read nothing.
    pub(crate) fn get<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let found = self.readings.iter().find_map(|reading| Arc::clone(reading).downcast().ok());
        found.unwrap_or_default()
    }
}
