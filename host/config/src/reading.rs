//! What the reading of one file gathers: mistakes, so that one run tells all of them, where each
//! value stands, and what may not be shown.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Severity;
use super::redact;

/// Where each value stands, by its dotted path (`targets.inventory_db.roles.reader.grants[0]`).
pub(super) type Places = BTreeMap<String, Spot>;

/// Where something stands in the text.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    /// A table's place is its key; a value's is the value.
    pub(super) own: Range<usize>,
    /// Its key, which an item of a list does not have.
    pub(super) key: Option<Range<usize>>,
}

/// A mistake before its line is known.
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// What the reading of one file gathers.
pub(super) struct Reading {
    /// The configuration file's folder: relative paths begin there.
    pub(super) folder: PathBuf,
    pub(super) findings: RefCell<Vec<Finding>>,
    /// What may not be shown.
    pub(super) masks: RefCell<Vec<Range<usize>>>,
    /// The names that connections give their secrets: a plugin's configuration may say them.
    pub(super) secret_names: RefCell<BTreeSet<String>>,
    /// Read in the place of a table that is not there, so that defaults and missing keys have one path.
    pub(super) nothing: DeTable<'static>,
}

impl Reading {
    pub(super) fn new(folder: PathBuf) -> Self {
        let (findings, masks, secret_names) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { folder, findings, masks, secret_names, nothing: DeTable::new() }
    }

    pub(super) fn error(&self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.find(Severity::Error, span, message.into(), help);
    }

    pub(super) fn warn(&self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.find(Severity::Warning, span, message.into(), help);
    }

    fn find(&self, severity: Severity, span: Range<usize>, message: String, help: Option<String>) {
        self.findings.borrow_mut().push(Finding { severity, span, message, help });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.findings.borrow().iter().any(|finding| finding.severity == Severity::Error)
    }

    pub(super) fn mask(&self, span: Range<usize>) {
        self.masks.borrow_mut().push(span);
    }

    /// Masks a value with everything in it. The keys stay: a table's own place is only its header.
    pub(super) fn mask_all(&self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => table.values().for_each(|value| self.mask_all(value)),
            DeValue::Array(items) => items.iter().for_each(|item| self.mask_all(item)),
            _ => self.mask(value.span()),
        }
    }

    /// Notes where everything stands and what may not be shown.
    pub(super) fn survey(&self, table: &DeTable<'_>, path: &str, places: &mut Places) {
        for (key, value) in table {
            let path = join(path, key.get_ref());
            let value_span = value.span();
            let own = if value.get_ref().is_table() { key.span() } else { value_span.clone() };
            places.insert(path.clone(), Spot { own, key: Some(key.span()) });
            let scalar = !value.get_ref().is_table() && !value.get_ref().is_array();
            if scalar && redact::names_a_secret(key.get_ref()) {
                self.mask(value_span);
            }
            self.survey_value(value, &path, places);
        }
    }

    fn survey_value(&self, value: &Spanned<DeValue<'_>>, path: &str, places: &mut Places) {
        match value.get_ref() {
            DeValue::Table(table) => self.survey(table, path, places),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    places.insert(path.clone(), Spot { own: item.span(), key: None });
                    self.survey_value(item, &path, places);
                }
            }
            DeValue::String(text) if redact::looks_secret(text) => self.mask(value.span()),
            _ => {}
        }
    }
}

/// A dotted path. A key that has dots itself is not quoted: the path is for finding and showing.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
