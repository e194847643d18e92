//! BER as LDAP uses it (RFC 4511, section 5.1): tags of one byte, lengths in definite form.

use zeroize::{Zeroize as _, Zeroizing};

/// Universal tags.
pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTETS: u8 = 0x04;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// What an element adds to its content: a tag and a length of the longest form.
pub(crate) const HEADER: usize = 6;

/// Bytes that are not what they have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent something that is not LDAP")]
pub(crate) struct Malformed;

/// Writes elements. What it wrote is wiped when it is dropped, since it may hold a password.
pub(crate) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    /// With room for so many bytes. More is possible.
    pub(crate) fn with_room(room: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(room)))
    }

    /// Appends; grows by hand, so that no growth leaves a copy behind that is not wiped.
    fn push(&mut self, bytes: &[u8]) {
        let wanted = self.0.len() + bytes.len();
        if wanted > self.0.capacity() {
            let mut larger = Vec::with_capacity(wanted.max(2 * self.0.capacity()));
            larger.extend_from_slice(&self.0);
            self.0.zeroize();
            *self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
    }

    /// An element that holds elements. Its length always takes four bytes, as in OpenLDAP's own
    /// library: nothing is moved once it is written.
    pub(crate) fn constructed(&mut self, tag: u8, content: impl FnOnce(&mut Self)) {
        self.push(&[tag, 0x84, 0, 0, 0, 0]);
        let start = self.0.len();
        content(self);
        // A message is bounded far below 4 GB.
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[start - 4..start].copy_from_slice(&length.to_be_bytes());
    }

    pub(crate) fn octets(&mut self, tag: u8, bytes: &[u8]) {
        self.push(&[tag]);
        match u8::try_from(bytes.len()) {
            Ok(short) if short < 0x80 => self.push(&[short]),
            _ => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
                self.push(&[0x84]);
                self.push(&length);
            }
        }
        self.push(bytes);
    }

    /// `INTEGER`, `ENUMERATED` or one with a tag of its own: the fewest bytes (X.690, 8.3.2).
    pub(crate) fn integer(&mut self, tag: u8, value: i64) {
        let bytes = value.to_be_bytes();
        let first = (0..7).find(|&at| {
            let sign = if bytes[at + 1] & 0x80 == 0 { 0x00 } else { 0xff };
            bytes[at] != sign
        });
        self.octets(tag, &bytes[first.unwrap_or(7)..]);
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.octets(BOOLEAN, &[if value { 0xff } else { 0x00 }]);
    }

    pub(crate) fn finish(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

/// Reads elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element's tag and content.
    pub(crate) fn any(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let (&tag, rest) = self.0.split_first().ok_or(Malformed)?;
        let (start, length) = match header(self.0)? {
            Some(header) => header,
            None => return Err(Malformed),
        };
        debug_assert!(start > 1 && !rest.is_empty());
        let end = start.checked_add(length).ok_or(Malformed)?;
        let content = self.0.get(start..end).ok_or(Malformed)?;
        self.0 = &self.0[end..];
        Ok((tag, content))
    }

    /// The content of the next element, which has that tag.
    pub(crate) fn element(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.any()? {
            (found, content) if found == tag => Ok(content),
            _ => Err(Malformed),
        }
    }

    /// The content of the next element, if it has that tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.0.first() == Some(&tag) { self.element(tag).map(Some) } else { Ok(None) }
    }

    pub(crate) fn nested(&mut self, tag: u8) -> Result<Reader<'a>, Malformed> {
        self.element(tag).map(Reader)
    }

    /// A number that is not negative.
    pub(crate) fn number(&mut self, tag: u8) -> Result<u32, Malformed> {
        number(self.element(tag)?)
    }
}

/// The content of an `INTEGER` that is not negative.
pub(crate) fn number(content: &[u8]) -> Result<u32, Malformed> {
    if content.is_empty() || content.len() > 8 || content[0] & 0x80 != 0 {
        return Err(Malformed);
    }
    let value = content.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    u32::try_from(value).map_err(|_| Malformed)
}

/// Where the content of the element at the beginning starts, and its length; none when there are too
/// few bytes to tell.
pub(crate) fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let Some(&first) = bytes.get(1) else { return Ok(None) };
    if first < 0x80 {
        return Ok(Some((2, usize::from(first))));
    }
    let count = usize::from(first & 0x7f);
    // 0x80 is the indefinite form, which LDAP does not use.
    if !(1..=4).contains(&count) {
        return Err(Malformed);
    }
    let Some(length) = bytes.get(2..2 + count) else { return Ok(None) };
    let length = length.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    Ok(Some((2 + count, length)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_take_the_fewest_bytes() {
        for (value, bytes) in [
            (0, &[2, 1, 0][..]),
            (127, &[2, 1, 127]),
            (128, &[2, 2, 0, 128]),
            (256, &[2, 2, 1, 0]),
            (-1, &[2, 1, 0xff]),
            (-129, &[2, 2, 0xff, 0x7f]),
            (i64::from(u32::MAX), &[2, 5, 0, 0xff, 0xff, 0xff, 0xff]),
        ] {
            let mut writer = Writer::with_room(0);
            writer.integer(INTEGER, value);
            assert_eq!(&writer.finish()[..], bytes, "{value}");
        }
    }

    #[test]
    fn forms_that_ldap_does_not_use_are_refused() {
        for bytes in [&[0x30, 0x80, 0, 0][..], &[0x30, 0x85, 0, 0, 0, 0, 1, 0], &[0x04, 0xff, 0]] {
            assert_eq!(Reader::new(bytes).any(), Err(Malformed), "{bytes:?}");
        }
        for short in [&[][..], &[4], &[4, 2, 1], &[4, 0x82, 1]] {
            assert_eq!(Reader::new(short).any(), Err(Malformed), "{short:?}");
        }
        for wrong in [&[2, 0][..], &[2, 1, 0x80], &[2, 5, 1, 0, 0, 0, 0]] {
            assert_eq!(Reader::new(wrong).number(INTEGER), Err(Malformed), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(a in prop::collection::vec(any::<u8>(), 0..400), n in any::<u32>(), flag: bool) {
            let mut writer = Writer::with_room(8);
            writer.constructed(SEQUENCE, |w| {
                w.octets(OCTETS, &a);
                w.integer(INTEGER, i64::from(n));
                w.boolean(flag);
            });
            let bytes = writer.finish();
            let mut all = Reader::new(&bytes);
            let mut inner = all.nested(SEQUENCE).unwrap();
            prop_assert_eq!(inner.element(OCTETS).unwrap(), &a[..]);
            prop_assert_eq!(inner.number(INTEGER).unwrap(), n);
            prop_assert_eq!(inner.element(BOOLEAN).unwrap(), &[if flag { 0xff } else { 0 }][..]);
            prop_assert!(inner.is_empty() && all.is_empty());
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            while let Ok((_, content)) = reader.any() {
                prop_assert!(content.len() < bytes.len());
            }
        }
    }
}
