//! Names that refer to something declared elsewhere in the file.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use super::reading::join;
use super::section::{Section, shown};
use jit_core::spelling;

/// The names under `[plugins]`, `[connections]` or `[policies]`, and which of them are used.
pub(super) struct Declared<'a> {
    /// `plugins`, …
    key: &'static str,
    /// `plugin`, …
    what: &'static str,
    names: Vec<(&'a str, Range<usize>)>,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Declared<'a> {
    pub(super) fn new(root: &Section<'a>, key: &'static str, what: &'static str) -> Self {
        Self { key, what, names: root.names(key), used: RefCell::default() }
    }

    /// Without keys of the table that are no names.
    pub(super) fn without(mut self, reserved: &[&str]) -> Self {
        self.names.retain(|(name, _)| !reserved.contains(name));
        self
    }

    fn find(&self, section: &Section<'_>, span: Range<usize>, name: &str) -> bool {
        self.used.borrow_mut().insert(name.to_owned());
        let found = self.names.iter().any(|(declared, _)| *declared == name);
        if !found {
            let mut message = format!("there is no {} `{}`", self.what, shown(name));
            let near = spelling::nearest(name, self.names.iter().map(|(name, _)| *name));
            if let Some(near) = near {
                message.push_str(&format!(": did you mean `{}`?", shown(near)));
            }
            let names: Vec<_> = self.names.iter().take(20).map(|(name, _)| shown(name)).collect();
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let table = join(self.key, &shown(name));
            section.reading.error(span, message, Some(format!("there are: {there}; or add [{table}]")));
        }
        found
    }

    /// Warns of what nothing refers to, in a file without mistakes.
    pub(super) fn warn_unused(&self, root: &Section<'_>) {
        if root.reading.has_errors() {
            return;
        }
        for (name, span) in &self.names {
            if !self.used.borrow().contains(*name) {
                let message = format!("the {} `{}` is not used", self.what, shown(name));
                root.reading.warn(span.clone(), message, None);
            }
        }
    }
}

impl Section<'_> {
    /// The name of something that is declared elsewhere in the file, noted as used.
    pub(super) fn reference(&self, key: &'static str, declared: &Declared<'_>) -> Option<String> {
        let name = self.text(key, &format!("the name of a {}", declared.what))?;
        declared.find(self, self.span_of(key), &name).then_some(name)
    }

    /// As [`Self::reference`], for a list; each name once.
    pub(super) fn references(&self, key: &'static str, declared: &Declared<'_>) -> Option<Vec<String>> {
        let names = self.texts(key, &format!("a list of the names of {}", declared.key))?;
        let items = self.entry(key).and_then(|(_, value)| value.get_ref().as_array())?;
        let mut right = true;
        for (index, (name, item)) in names.iter().zip(items.iter()).enumerate() {
            right &= declared.find(self, item.span(), name);
            if names[..index].contains(name) {
                self.reading.error(item.span(), format!("`{}` is listed twice", shown(name)), None);
            }
        }
        right.then_some(names)
    }
}
