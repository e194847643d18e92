//! A plugin's own table as a file of its own: what stands under `[policies.NAME.config]`, for commands
//! that try a plugin without a broker's configuration. It becomes the same JSON, byte for byte.

use std::path::Path;
use std::sync::Arc;

use super::problem::SourceText;
use super::reading::Places;
use super::section::Section;
use super::{ConfigErrors, Problem, document, explain, read_text};

/// A plugin's configuration, read from a file of its own.
#[derive(Debug, Clone)]
pub struct PluginTable {
    json: String,
    /// What is likely not meant, though it can be used.
    pub warnings: Vec<Problem>,
    places: Places,
    source: Arc<SourceText>,
}

impl PluginTable {
    /// Reads a file. Waits for the disk.
    ///
    /// # Errors
    /// [`ConfigErrors`] with every mistake that was found.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let (text, file) = read_text(path)?;
        Self::parse(&text, &file)
    }

    /// Reads a text; `file` is its name for messages.
    ///
    /// # Errors
    /// [`ConfigErrors`] with every mistake that was found.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let document = document(text, file, |reading, table| Section::open(reading, table).json_of_all())?;
        let (json, warnings) = (document.read.to_string(), document.problems);
        Ok(Self { json, warnings, places: document.places, source: document.source })
    }

    /// The JSON that the plugin is passed.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// A problem at a dotted path of this file, or at the nearest part of it that is there: for what
    /// the plugin's `validate` says.
    #[must_use]
    pub fn explain(&self, path: &str, message: impl Into<String>) -> Problem {
        explain(&self.places, &self.source, path, message.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const TABLE: &str = "time_zone = \"Europe/Berlin\"\nratio = 0.25\nlarge = 0xff\n\
        [[rules]]\nworkload = \"payment-*\"\nattributes = { env = \"prod\", \"a.b\" = \"c\" }\n[nested.deep]\nz = 1\na = [true, 1979-05-27]\n";

    #[test]
    fn it_is_the_same_json_as_in_the_brokers_configuration() {
        let within =
            TABLE.replace("[[rules]]", "[[policies.p.config.rules]]").replace("[nested", "[policies.p.config.nested");
        let broker = format!(
            "[server]\nadmin_socket = \"a\"\n[store]\nurl = \"sqlite:b.db\"\n[audit]\nsigning_key = {{ file = \"k\" }}\n\
             [plugins.q]\npath = \"q.wasm\"\n[policies.p]\nplugin = \"q\"\n[policies.p.config]\n{within}"
        );
        let config = Config::parse(&broker, "broker.toml").unwrap_or_else(|error| panic!("{}", error.render(false)));
        let table = PluginTable::parse(TABLE, "new.toml").unwrap();
        assert_eq!(table.json(), config.policies["p"].config.to_string());
        assert_eq!(PluginTable::parse("", "new.toml").unwrap().json(), "{}", "as a table that is not there");
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let error = PluginTable::parse("a = 1\nb = prod\n", "new.toml").unwrap_err();
        assert!(error.render(false).contains("new.toml:2"), "{}", error.render(false));
        let table = PluginTable::parse("x = 1\n[[rules]]\nworkload = \"w\"\n", "new.toml").unwrap();
        let plain = table.explain("rules[0].workload", "is no name").plain();
        assert!(plain.starts_with("new.toml:3:12"), "{plain}");
    }
}
