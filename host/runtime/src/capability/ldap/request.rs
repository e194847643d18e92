//! What is asked of a directory, in the types of `ldap3`, and what it answers.

use std::collections::HashSet;

use ldap3::asn1::{ASNTag as _, Integer, OctetString, Sequence, StructureTag, Tag, TagClass};
use ldap3::exop::Exop;
use ldap3::{Ldap, LdapError, LdapResult, Mod};
use zeroize::Zeroizing;

/// Result codes (RFC 4511, appendix A.2).
pub(crate) const SUCCESS: u32 = 0;
pub(crate) const SIZE_LIMIT_EXCEEDED: u32 = 4;
/// The server answers nobody now.
pub(crate) const UNAVAILABLE: u32 = 52;
pub(crate) const INAPPROPRIATE_AUTHENTICATION: u32 = 48;
pub(crate) const INVALID_CREDENTIALS: u32 = 49;

/// Refresh (RFC 2589).
const REFRESH: &str = "1.3.6.1.4.1.1466.101.119.1";

/// A value as it is sent.
pub(crate) type Octets = Zeroizing<Vec<u8>>;

/// An attribute with its values.
pub(crate) struct Values {
    pub(crate) name: String,
    pub(crate) values: Vec<Octets>,
}

/// What a change does with an attribute's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Add,
    Delete,
    Replace,
}

/// A search, which is asked for a page at a time.
#[derive(Clone)]
pub(crate) struct Search {
    pub(crate) base: String,
    pub(crate) scope: ldap3::Scope,
    /// RFC 4515.
    pub(crate) filter: String,
    pub(crate) attributes: Vec<String>,
    /// Entries that the server gives at most.
    pub(crate) size_limit: u32,
    /// Seconds that the server may take.
    pub(crate) time_limit: u32,
}

/// Everything but a search.
pub(crate) enum Request {
    Bind { name: String, password: Octets },
    Add { name: String, attributes: Vec<Values> },
    Modify { name: String, changes: Vec<(Kind, Values)> },
    Delete { name: String },
    Refresh { name: String, seconds: u32 },
}

impl Request {
    /// Whether the directory may be another one after it.
    pub(crate) fn is_change(&self) -> bool {
        !matches!(self, Self::Bind { .. })
    }

    /// Sends it and waits for the answer.
    pub(crate) async fn perform(self, mut ldap: Ldap) -> Result<Answer, LdapError> {
        match self {
            Self::Bind { name, password } => {
                // The host's passwords are text.
                let password = std::str::from_utf8(&password).map_err(|_| LdapError::DecodingUTF8)?;
                ldap.simple_bind(&name, password).await.map(Answer::of)
            }
            Self::Add { name, attributes } => {
                let attributes = attributes.into_iter().map(Values::sent).collect();
                ldap.add(&name, attributes).await.map(Answer::of)
            }
            Self::Modify { name, changes } => {
                let changes = changes.into_iter().map(|(kind, values)| {
                    let (name, values) = values.sent();
                    match kind {
                        Kind::Add => Mod::Add(name, values),
                        Kind::Delete => Mod::Delete(name, values),
                        Kind::Replace => Mod::Replace(name, values),
                    }
                });
                ldap.modify(&name, changes.collect()).await.map(Answer::of)
            }
            Self::Delete { name } => ldap.delete(&name).await.map(Answer::of),
            Self::Refresh { name, seconds } => {
                let answered = ldap.extended(refresh(&name, seconds)).await?;
                Ok(Answer { refreshed: answered.0.val.as_deref().and_then(refreshed), ..Answer::of(answered.1) })
            }
        }
    }
}

impl Values {
    /// As `ldap3` takes them: copies that it does not wipe.
    fn sent(self) -> (Vec<u8>, HashSet<Vec<u8>>) {
        (self.name.into_bytes(), self.values.iter().map(|value| value.to_vec()).collect())
    }
}

/// A result: the last answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u32,
    pub(crate) message: String,
    /// What a refresh set, in seconds.
    pub(crate) refreshed: Option<u32>,
}

impl Answer {
    pub(crate) fn of(result: LdapResult) -> Self {
        Self { code: result.rc, message: result.text, refreshed: None }
    }
}

/// RFC 2589, section 4.1.
fn refresh(name: &str, seconds: u32) -> Exop {
    let name = OctetString { id: 0, class: TagClass::Context, inner: name.as_bytes().to_vec() };
    let seconds = Integer { id: 1, class: TagClass::Context, inner: i64::from(seconds) };
    let inner = vec![Tag::OctetString(name), Tag::Integer(seconds)];
    let tag = Tag::Sequence(Sequence { inner, ..Sequence::default() }).into_structure();
    let mut value = bytes::BytesMut::new();
    // Writing to memory does not fail.
    let written = ldap3::asn1::write::encode_into(&mut value, tag);
    Exop { name: Some(REFRESH.to_owned()), val: written.ok().map(|()| value.to_vec()) }
}

/// RFC 2589, section 4.1: a sequence of one number, tagged 1.
fn refreshed(value: &[u8]) -> Option<u32> {
    let (_, tag) = ldap3::asn1::parse_tag(value).ok()?;
    let number = tag.expect_constructed()?.into_iter().find(|part| part.class == TagClass::Context && part.id == 1)?;
    let bytes = number.expect_primitive()?;
    let fits = (1..=5).contains(&bytes.len()) && bytes[0] & 0x80 == 0;
    let seconds = bytes.iter().fold(0_u64, |seconds, byte| seconds << 8 | u64::from(*byte));
    u32::try_from(seconds).ok().filter(|_| fits)
}

/// An entry as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) attributes: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
}

impl RawEntry {
    /// Reads RFC 4511's SearchResultEntry. `ldap3`'s own reader stops the program where a name is not
    /// UTF-8.
    pub(crate) fn read(tag: StructureTag) -> Option<Self> {
        let mut parts = tag.expect_constructed()?.into_iter();
        let name = parts.next()?.expect_primitive()?;
        let attributes = parts.next()?.expect_constructed()?.into_iter().map(|attribute| {
            let mut parts = attribute.expect_constructed()?.into_iter();
            let name = parts.next()?.expect_primitive()?;
            let values = parts.next()?.expect_constructed()?.into_iter().map(StructureTag::expect_primitive);
            Some((name, values.collect::<Option<Vec<_>>>()?))
        });
        Some(Self { name, attributes: attributes.collect::<Option<_>>()? })
    }

    /// About how many bytes it came in.
    pub(crate) fn size(&self) -> usize {
        let attributes = self
            .attributes
            .iter()
            .map(|(name, values)| 8 + name.len() + values.iter().map(|value| 4 + value.len()).sum::<usize>());
        16 + self.name.len() + attributes.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use ldap3::asn1::PL;

    #[test]
    fn a_refresh_is_what_the_standard_says() {
        let exop = refresh("cn=a", 300);
        assert_eq!(exop.name.as_deref(), Some(REFRESH));
        assert_eq!(exop.val.unwrap(), b"\x30\x0a\x80\x04cn=a\x81\x02\x01\x2c");
    }

    #[test]
    fn what_a_refresh_set_is_read() {
        assert_eq!(refreshed(b"\x30\x05\x81\x03\x01\x51\x80"), Some(86_400));
        for bad in [&b""[..], b"\x30\x00", b"\x30\x03\x81\x01\xff", b"\x30\x02\x81\x00", b"\x04\x01a"] {
            assert_eq!(refreshed(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_entry_that_is_none_is_told() {
        let leaf = |bytes: &[u8]| StructureTag { class: TagClass::Universal, id: 4, payload: PL::P(bytes.to_vec()) };
        let node = |parts| StructureTag { class: TagClass::Universal, id: 16, payload: PL::C(parts) };
        let good = node(vec![leaf(b"cn=\xff"), node(vec![node(vec![leaf(b"cn"), node(vec![leaf(b"\xff")])])])]);
        let entry = RawEntry::read(good).unwrap();
        assert_eq!(entry.name, b"cn=\xff");
        assert_eq!(entry.attributes, [(b"cn".to_vec(), vec![b"\xff".to_vec()])]);
        for bad in [leaf(b""), node(vec![]), node(vec![leaf(b"a")]), node(vec![leaf(b"a"), node(vec![leaf(b"b")])])] {
            assert_eq!(RawEntry::read(bad), None);
        }
    }
}
