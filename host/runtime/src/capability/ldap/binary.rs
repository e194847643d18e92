//! Attributes of Active Directory whose values are bytes and have a text of their own: identifiers of
//! objects (MS-DTYP, 2.3.4.3) and of accounts (MS-DTYP, 2.4.2.1). A plugin sees and gives the text.

use std::fmt::Write as _;

/// How an attribute's bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `f81d4fae-7dec-11d0-a765-00a0c91e6bf6`
    Guid,
    /// `S-1-5-21-1-2-3-500`
    Sid,
}

/// Most numbers that follow the authority of a security identifier.
const SUB_AUTHORITIES: usize = 15;

fn form(attribute: &str) -> Option<Form> {
    let is = |name: &str| attribute.eq_ignore_ascii_case(name);
    if is("objectGUID") {
        return Some(Form::Guid);
    }
    (is("objectSid") || is("mS-DS-CreatorSID")).then_some(Form::Sid)
}

/// The text of a value; none where it is no text and has no form of its own.
pub(super) fn shown(attribute: &str, value: Vec<u8>) -> Option<String> {
    match form(attribute) {
        Some(Form::Guid) => guid_text(&value),
        Some(Form::Sid) => sid_text(&value),
        None => String::from_utf8(value).ok(),
    }
}

/// A text as the value of such an attribute in a filter, every byte escaped (RFC 4515). None for an
/// attribute whose values are text.
///
/// # Errors
/// When the text is not the attribute's form.
pub(super) fn asserted(attribute: &str, text: &str) -> Option<Result<String, String>> {
    let bytes = match form(attribute)? {
        Form::Guid => guid_bytes(text),
        Form::Sid => sid_bytes(text),
    };
    let escaped = |bytes: Vec<u8>| {
        bytes.iter().fold(String::with_capacity(3 * bytes.len()), |mut escaped, byte| {
            // Writing to memory does not fail.
            let _ = write!(escaped, "\\{byte:02x}");
            escaped
        })
    };
    Some(bytes.map(escaped).ok_or_else(|| format!("no value that {attribute} can have")))
}

/// The first three parts are little-endian numbers, the last two are bytes.
fn guid_text(bytes: &[u8]) -> Option<String> {
    let [a, b, c, d, e, f, g, h, last @ ..] = bytes else { return None };
    let [i, j, tail @ ..] = last else { return None };
    if tail.len() != 6 {
        return None;
    }
    let parts = [&[*d, *c, *b, *a][..], &[*f, *e], &[*h, *g], &[*i, *j], tail];
    Some(parts.map(hex::encode).join("-"))
}

fn guid_bytes(text: &str) -> Option<Vec<u8>> {
    let parts = text.split('-').map(|part| hex::decode(part).ok()).collect::<Option<Vec<_>>>()?;
    if !parts.iter().map(Vec::len).eq([4, 2, 2, 2, 6]) {
        return None;
    }
    let little_endian = parts.iter().take(3).flat_map(|part| part.iter().rev());
    Some(little_endian.chain(parts.iter().skip(3).flatten()).copied().collect())
}

/// A revision, how many numbers follow, the authority (48 bits), and the numbers, little-endian.
fn sid_text(bytes: &[u8]) -> Option<String> {
    let (&[revision, count, a, b, c, d, e, f], numbers) = bytes.split_first_chunk()?;
    let count = usize::from(count);
    if revision != 1 || count > SUB_AUTHORITIES || numbers.len() != 4 * count {
        return None;
    }
    let authority = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let mut text = format!("S-1-{authority}");
    for number in numbers.as_chunks::<4>().0 {
        let _ = write!(text, "-{}", u32::from_le_bytes(*number));
    }
    Some(text)
}

fn sid_bytes(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.strip_prefix("S-1-")?.split('-');
    let authority: u64 = parts.next()?.parse().ok()?;
    let numbers = parts.map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>()?;
    if authority >> 48 != 0 || numbers.len() > SUB_AUTHORITIES {
        return None;
    }
    let mut bytes = vec![1, u8::try_from(numbers.len()).ok()?];
    bytes.extend_from_slice(authority.to_be_bytes().get(2..)?);
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    /// MS-DTYP, 2.4.2.1 and 2.3.4.
    #[test]
    fn identifiers_are_written_as_their_directory_writes_them() {
        let sid = "S-1-5-21-3623811015-3361044348-30300820-1013";
        let bytes = hex::decode("010500000000000515000000c7f7fed77c7755c8945ace01f5030000").unwrap();
        assert_eq!(sid_bytes(sid).unwrap(), bytes);
        assert_eq!(shown("objectSID", bytes).as_deref(), Some(sid));
        let guid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        let bytes = hex::decode("ae4f1df8ec7dd011a76500a0c91e6bf6").unwrap();
        assert_eq!(
            asserted("objectguid", guid).unwrap().unwrap(),
            format!("\\{}", "ae 4f 1d f8 ec 7d d0 11 a7 65 00 a0 c9 1e 6b f6".replace(' ', "\\"))
        );
        assert_eq!(shown("objectGUID", bytes).as_deref(), Some(guid));
    }

    #[test]
    fn what_is_no_identifier_is_told() {
        for bad in ["", "S-1-", "S-1-5-x", "S-1-5-4294967296", "S-2-5-1", "s-1-5", "*", "S-1-281474976710656"] {
            assert!(asserted("objectSid", bad).unwrap().is_err(), "{bad}");
        }
        let many = format!("S-1-5{}", "-1".repeat(16));
        assert!(asserted("mS-DS-CreatorSID", &many).unwrap().is_err());
        for bad in ["", "*", "f81d4fae", "f81d4fae-7dec-11d0-a765-00a0c91e6b", "f81d4fae7dec11d0a76500a0c91e6bf6"] {
            assert!(asserted("objectGUID", bad).unwrap().is_err(), "{bad}");
        }
        assert!(asserted("cn", "*").is_none());
        assert_eq!(shown("cn", vec![0xff]), None);
        assert_eq!(shown("objectSid", b"S-1-5-32-544".to_vec()), None);
    }

    proptest! {
        #[test]
        fn bytes_that_are_shown_are_the_same_again(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            for attribute in ["objectGUID", "objectSid"] {
                if let Some(text) = shown(attribute, bytes.clone()) {
                    let escaped = asserted(attribute, &text).unwrap().unwrap();
                    prop_assert_eq!(hex::decode(escaped.replace('\\', "")).unwrap(), bytes.clone());
                }
            }
        }
    }
}
