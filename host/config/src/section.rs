//! Reads one table of the file: every key that is asked for is a key that is allowed, and what is
//! left over is a mistake.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::reading::{Reading, join};
use jit_core::spelling;

use super::redact;

/// A key or name from the file as a message shows it: short and without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(60).filter(|c| !redact::is_direction(*c)) {
        match c {
            '\'' | '"' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

/// One table, being read.
pub(super) struct Section<'a> {
    pub(super) reading: &'a Reading,
    /// As it would stand in the file: `targets.inventory_db`, `identity.jwt[0]`, empty for the file.
    pub(super) path: String,
    /// The header or key; the file's beginning when the table is not there.
    pub(super) span: Range<usize>,
    table: &'a DeTable<'a>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// Reads the whole file's table.
    pub(super) fn root<T>(reading: &'a Reading, table: &'a DeTable<'a>, read: impl FnOnce(&Section<'a>) -> T) -> T {
        Self::open(reading, table).read(read)
    }

    /// The whole file's table where every key is the author's own.
    pub(super) fn open(reading: &'a Reading, table: &'a DeTable<'a>) -> Self {
        Self { reading, path: String::new(), span: 0..0, table, known: RefCell::default() }
    }

    /// The table's own keys and values.
    pub(super) fn own_entries(&self) -> impl Iterator<Item = (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        self.table.iter()
    }

    /// Reads, then reports the keys that nobody asked for.
    fn read<T>(self, read: impl FnOnce(&Self) -> T) -> T {
        let value = read(&self);
        #[cfg(test)]
        super::tests::reference::note(&self.path, &self.known.borrow());
        self.refuse_unknown_keys();
        value
    }

    pub(super) fn below<T>(
        &self,
        path: String,
        span: Range<usize>,
        table: &'a DeTable<'a>,
        read: impl FnOnce(&Section<'a>) -> T,
    ) -> T {
        Section { reading: self.reading, path, span, table, known: RefCell::default() }.read(read)
    }

    /// The table's name for a message.
    pub(super) fn title(&self) -> String {
        if self.path.is_empty() { "the file's top level".to_owned() } else { format!("[{}]", shown(&self.path)) }
    }

    /// A key's place and value. The key is allowed from now on.
    pub(super) fn entry(&self, key: &'static str) -> Option<(&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        self.known.borrow_mut().push(key);
        self.table.get_key_value(key)
    }

    /// Whether the key is there; if not, that is a mistake, and `example` says what to write.
    pub(super) fn demand(&self, key: &'static str, example: &str) -> bool {
        let there = self.entry(key).is_some();
        if !there {
            let place = if self.span.is_empty() { format!(" (add `[{}]`)", self.path) } else { String::new() };
            self.reading.error(
                self.span.clone(),
                format!("`{key}` is missing in {}{place}", self.title()),
                Some(format!("write, for example: {example}")),
            );
        }
        there
    }

    /// Where a key's value stands, or else the section.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// Reports a mistake in a key's value.
    pub(super) fn error(&self, key: &str, message: impl Into<String>, help: Option<String>) {
        self.reading.error(self.span_of(key), message, help);
    }

    /// Reads a table; one that is not there is read as an empty one. None when it is no table.
    pub(super) fn section<T>(&self, key: &'static str, read: impl FnOnce(&Section<'a>) -> T) -> Option<T> {
        let path = join(&self.path, key);
        match self.entry(key) {
            None => Some(self.below(path, 0..0, &self.reading.nothing, read)),
            Some((name, value)) => {
                let table = self.as_table(key, value, &path)?;
                Some(self.below(path, name.span(), table, read))
            }
        }
    }

    /// As [`Self::section`], only when it is there.
    pub(super) fn optional_section<T>(&self, key: &'static str, read: impl FnOnce(&Section<'a>) -> T) -> Option<T> {
        self.entry(key)?;
        self.section(key, read)
    }

    /// Reads an array of tables (`[[identity.jwt]]`).
    pub(super) fn sections<T>(&self, key: &'static str, mut read: impl FnMut(&Section<'a>) -> T) -> Vec<T> {
        let Some((_, value)) = self.entry(key) else {
            return Vec::new();
        };
        let path = join(&self.path, key);
        let Some(items) = value.get_ref().as_array() else {
            let message = format!("`{path}` must be a list of tables: write [[{path}]] with two brackets");
            self.reading.error(value.span(), message, None);
            return Vec::new();
        };
        let mut all = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some(table) = self.as_table(key, item, &path) {
                all.push(self.below(path, item.span(), table, &mut read));
            }
        }
        all
    }

    /// Reads the keys that stand beside named tables; see [`Self::named_beside`], which refuses the rest.
    /// A table that is not there is read as an empty one. None when it is no table.
    pub(super) fn beside<T>(&self, key: &'static str, read: impl FnOnce(&Section<'a>) -> T) -> Option<T> {
        let path = join(&self.path, key);
        let (span, table) = match self.entry(key) {
            None => (0..0, &self.reading.nothing),
            // What is no table is told by the reader of the named ones.
            Some((name, value)) => (name.span(), value.get_ref().as_table()?),
        };
        let section = Section { reading: self.reading, path, span, table, known: RefCell::default() };
        let value = read(&section);
        #[cfg(test)]
        super::tests::reference::note(&section.path, &section.known.borrow());
        Some(value)
    }

    /// Reads tables that have names of the author's choice (`[targets.NAME]`). The name has been checked.
    pub(super) fn named<T>(
        &self,
        key: &'static str,
        read: impl FnMut(&str, &Section<'a>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        self.named_beside(key, &[], read)
    }

    /// As [`Self::named`], beside keys of the table itself.
    pub(super) fn named_beside<T>(
        &self,
        key: &'static str,
        reserved: &[&str],
        mut read: impl FnMut(&str, &Section<'a>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let mut all = BTreeMap::new();
        let Some((_, value)) = self.entry(key) else {
            return all;
        };
        let path = join(&self.path, key);
        let Some(tables) = self.as_table(key, value, &path) else {
            return all;
        };
        for (name, value) in tables {
            if reserved.contains(&name.get_ref().as_ref()) {
                continue;
            }
            if !value.get_ref().is_table()
                && let Some(near) = spelling::nearest(name.get_ref(), reserved.iter().copied())
            {
                self.reading.mask_all(value);
                let message =
                    format!("unknown key `{}` in [{}]: did you mean `{near}`?", shown(name.get_ref()), shown(&path));
                self.reading.error(name.span(), message, None);
                continue;
            }
            let path = join(&path, name.get_ref());
            if let Err(error) = jit_core::name::TargetName::new(name.get_ref().as_ref()) {
                self.reading.error(name.span(), format!("the name `{}` {error}", shown(name.get_ref())), None);
                continue;
            }
            let Some(table) = self.as_table(name.get_ref(), value, &path) else {
                continue;
            };
            if let Some(one) = self.below(path, name.span(), table, |section| read(name.get_ref(), section)) {
                all.insert(name.get_ref().to_string(), one);
            }
        }
        all
    }

    /// The names of the tables below a key, right or wrong inside, and where they stand.
    pub(super) fn names(&self, key: &str) -> Vec<(&'a str, Range<usize>)> {
        let table = self.table.get(key).and_then(|value| value.get_ref().as_table());
        table.into_iter().flatten().map(|(name, _)| (name.get_ref().as_ref(), name.span())).collect()
    }

    /// The table's own keys, whatever they are called: for maps of the author's. All are allowed.
    pub(super) fn all_entries(&self, key: &'static str) -> Vec<(&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        let Some((_, value)) = self.entry(key) else {
            return Vec::new();
        };
        self.as_table(key, value, &join(&self.path, key)).into_iter().flatten().collect()
    }

    fn as_table(&self, key: &str, value: &'a Spanned<DeValue<'a>>, path: &str) -> Option<&'a DeTable<'a>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let array_of_tables = value.get_ref().as_array().is_some_and(|a| a.iter().any(|v| v.get_ref().is_table()));
            let help = if array_of_tables {
                format!("write [{}] with one bracket", shown(path))
            } else {
                format!("write [{}] on a line of its own, and its keys below", shown(path))
            };
            let found = super::field::kind(value.get_ref());
            self.reading.error(value.span(), format!("`{}` must be a table, not {found}", shown(key)), Some(help));
        }
        table
    }

    fn refuse_unknown_keys(&self) {
        let known = self.known.borrow();
        for (key, value) in self.table {
            let word: &str = key.get_ref();
            if known.contains(&word) {
                continue;
            }
            let near = spelling::nearest(word, known.iter().copied());
            // A key that we do not know may be anything, also `pwd`: its value is shown only when
            // it is a slip of a key that holds no secret.
            if near.is_none_or(redact::names_a_secret) {
                self.reading.mask_all(value);
            }
            let mut message = format!("unknown key `{}` in {}", shown(word), self.title());
            if let Some(near) = near {
                message.push_str(&format!(": did you mean `{near}`?"));
            }
            let mut allowed = known.clone();
            allowed.sort_unstable();
            allowed.dedup();
            self.reading.error(key.span(), message, Some(format!("allowed here: {}", allowed.join(", "))));
        }
    }
}
