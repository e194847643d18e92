//! What a search gives to a plugin: bounded, UTF-8, and without passwords.

use crate::bindings::ldap::{Entries, Entry};

use super::name;
use super::wire::{Octets, RawEntry};

/// What stands in place of a value that is a secret.
const WITHHELD: &str = "(withheld: a secret)";

/// A secret shorter than that is withheld only where it is the whole value.
const CONTAINED: usize = 8;

/// Takes entries as they come.
pub(super) struct Collector<'a> {
    secrets: &'a [Octets],
    most: u32,
    room: usize,
    entries: Vec<Entry>,
    /// Entries that came, kept or not.
    came: u32,
    bytes: usize,
    truncated: bool,
}

impl<'a> Collector<'a> {
    /// For at most so many entries, in at most `room` bytes of messages.
    pub(super) fn new(secrets: &'a [Octets], most: u32, room: usize) -> Self {
        Self { secrets, most, room, entries: Vec::new(), came: 0, bytes: 0, truncated: false }
    }

    /// Bytes that are left.
    pub(super) fn room(&self) -> usize {
        self.room.saturating_sub(self.bytes)
    }

    /// Takes an entry that came in a message of that length; gives the bytes that are left, or none
    /// when it is enough.
    pub(super) fn take(&mut self, entry: RawEntry, length: usize) -> Option<usize> {
        self.came = self.came.saturating_add(1);
        if self.came > self.most {
            // One more than wanted was asked for, to know whether there are more; a server that goes on
            // is not listened to.
            self.truncated = true;
            return (self.came == self.most.saturating_add(1)).then(|| self.room());
        }
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > self.room {
            return None;
        }
        if let Ok(name) = String::from_utf8(entry.name) {
            let attributes = entry.attributes.into_iter().filter_map(|(name, values)| {
                let name = String::from_utf8(name).ok().filter(|name| !name::holds_passwords(name))?;
                let values = values.into_iter().filter_map(|value| String::from_utf8(value).ok());
                let values = values.map(|value| self.blotted(value)).collect();
                Some((name, values))
            });
            let attributes = attributes.collect();
            self.entries.push(Entry { name, attributes });
        }
        Some(self.room())
    }

    fn blotted(&self, value: String) -> String {
        let bytes = value.as_bytes();
        let is_secret = |secret: &Octets| {
            bytes == &secret[..]
                || (secret.len() >= CONTAINED && bytes.windows(secret.len()).any(|window| window == &secret[..]))
        };
        if self.secrets.iter().any(is_secret) { WITHHELD.to_owned() } else { value }
    }

    /// Whether no further page is wanted.
    pub(super) fn is_full(&self) -> bool {
        self.truncated
    }

    /// How many more entries are wanted, with the one that shows whether there are more.
    pub(super) fn wanted(&self) -> u32 {
        self.most.saturating_add(1).saturating_sub(self.came).max(1)
    }

    /// The search came to its end.
    pub(super) fn complete(self) -> (Entries, usize) {
        (Entries { entries: self.entries, truncated: self.truncated }, self.bytes)
    }

    /// The server stopped at a limit.
    pub(super) fn cut_off(mut self) -> (Entries, usize) {
        self.truncated = true;
        self.complete()
    }

    /// [`Collector::take`] stopped it.
    ///
    /// # Errors
    /// When that was for the bytes.
    pub(super) fn stopped(self) -> Result<(Entries, usize), String> {
        if self.bytes > self.room {
            return Err(format!("the entries have more than the {} bytes that are left", self.room));
        }
        Ok(self.cut_off())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use zeroize::Zeroizing;

    fn raw(attributes: &[(&str, &[&[u8]])]) -> RawEntry {
        let attributes = attributes.iter().map(|(name, values)| {
            (name.as_bytes().to_vec(), values.iter().map(|value| value.to_vec()).collect())
        });
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
        assert!(collector.take(entry, 100).is_some());
        let (entries, bytes) = collector.complete();
        assert_eq!(bytes, 100);
        assert!(!entries.truncated);
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            entries.entries[0].attributes,
            [
                ("cn".to_owned(), values(&["a"])),
                ("description".to_owned(), values(&[WITHHELD, WITHHELD, "s3cret"])),
            ]
        );
    }

    #[test]
    fn entries_and_their_bytes_are_bounded() {
        let mut collector = Collector::new(&[], 2, 250);
        assert_eq!(collector.take(raw(&[]), 100), Some(150));
        assert_eq!(collector.wanted(), 2);
        assert_eq!(collector.take(raw(&[]), 100), Some(50));
        assert!(!collector.is_full());
        // The one more that shows it, and then a server that does not stop.
        assert_eq!(collector.take(raw(&[]), 100), Some(50));
        assert!(collector.is_full());
        assert_eq!(collector.take(raw(&[]), 100), None);
        let (entries, bytes) = collector.stopped().unwrap();
        assert_eq!((entries.entries.len(), entries.truncated, bytes), (2, true, 200));

        let mut collector = Collector::new(&[], 10, 150);
        assert_eq!(collector.take(raw(&[]), 100), Some(50));
        assert_eq!(collector.take(raw(&[]), 100), None);
        assert!(collector.stopped().is_err());
    }
}
