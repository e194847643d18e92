//! What a search gives to a plugin: bounded, UTF-8, and without passwords.

use crate::bindings::ldap::{Entries, Entry};

use super::request::{Octets, RawEntry};
use super::{binary, name};

/// What stands in place of a value that is a secret.
const WITHHELD: &str = "(withheld: a secret)";

/// A secret shorter than that is withheld only where it is the whole value.
const CONTAINED: usize = 8;

/// Takes entries as they come.
pub(super) struct Collector<'a> {
    secrets: &'a [Octets],
    most: usize,
    room: usize,
    entries: Vec<Entry>,
    /// Entries that came, kept or not.
    came: usize,
    bytes: usize,
    truncated: bool,
}

impl<'a> Collector<'a> {
    /// For at most so many entries, in at most so many bytes.
    pub(super) fn new(secrets: &'a [Octets], most: usize, room: usize) -> Self {
        Self { secrets, most, room, entries: Vec::new(), came: 0, bytes: 0, truncated: false }
    }

    /// Bytes that are left.
    pub(super) fn room(&self) -> usize {
        self.room.saturating_sub(self.bytes)
    }

    /// How many more entries are wanted, with one more that shows whether there are more.
    pub(super) fn wanted(&self) -> usize {
        (self.most + 1).saturating_sub(self.came)
    }

    /// Takes a page.
    pub(super) fn take(&mut self, entries: Vec<RawEntry>, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        for entry in entries {
            self.came += 1;
            if self.came > self.most {
                self.truncated = true;
                return;
            }
            let Ok(name) = String::from_utf8(entry.name) else { continue };
            let attributes = entry.attributes.into_iter().filter_map(|(name, values)| {
                let name = String::from_utf8(name).ok().filter(|name| !name::holds_passwords(name))?;
                let values = values.into_iter().filter_map(|value| binary::shown(&name, value));
                let values = values.map(|value| self.blotted(value)).collect();
                Some((name, values))
            });
            let attributes = attributes.collect();
            self.entries.push(Entry { name, attributes });
        }
    }

    fn blotted(&self, value: String) -> String {
        let bytes = value.as_bytes();
        let is_secret = |secret: &Octets| {
            bytes == &secret[..]
                || (secret.len() >= CONTAINED && bytes.windows(secret.len()).any(|window| window == &secret[..]))
        };
        if self.secrets.iter().any(is_secret) { WITHHELD.to_owned() } else { value }
    }

    /// Everything that was found, and how many bytes it came in; `cut_off` when the server stopped at a
    /// limit.
    pub(super) fn finish(self, cut_off: bool) -> (Entries, usize) {
        (Entries { entries: self.entries, truncated: self.truncated || cut_off }, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use zeroize::Zeroizing;

    fn raw(attributes: &[(&str, &[&[u8]])]) -> RawEntry {
        let attributes = attributes
            .iter()
            .map(|(name, values)| (name.as_bytes().to_vec(), values.iter().map(|value| value.to_vec()).collect()));
        RawEntry { name: b"cn=a".to_vec(), attributes: attributes.collect() }
    }

    #[test]
    fn passwords_and_what_is_no_text_are_left_out() {
        let secrets = [Zeroizing::new(b"s3cret-password".to_vec())];
        let mut collector = Collector::new(&secrets, 2, 1_000);
        let entry = raw(&[
            ("cn", &[b"a", b"\xff\xfe"]),
            ("USERPASSWORD;x-y", &[b"{SSHA}x"]),
            ("description", &[b"s3cret-password", b"is s3cret-password!", b"s3cret"]),
        ]);
        collector.take(vec![entry, RawEntry { name: b"\xff".to_vec(), attributes: vec![] }], 100);
        let (entries, bytes) = collector.finish(false);
        assert_eq!((bytes, entries.entries.len()), (100, 1));
        assert!(!entries.truncated);
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            entries.entries[0].attributes,
            [("cn".to_owned(), values(&["a"])), ("description".to_owned(), values(&[WITHHELD, WITHHELD, "s3cret"])),]
        );
    }

    #[test]
    fn one_entry_too_many_shows_that_there_are_more() {
        let mut collector = Collector::new(&[], 2, 250);
        collector.take(vec![raw(&[])], 100);
        assert_eq!((collector.wanted(), collector.room()), (2, 150));
        collector.take(vec![raw(&[]), raw(&[])], 100);
        assert_eq!(collector.wanted(), 0);
        let (entries, bytes) = collector.finish(false);
        assert_eq!((entries.entries.len(), entries.truncated, bytes), (2, true, 200));
        assert!(Collector::new(&[], 2, 250).finish(true).0.truncated);
    }
}
