//! LDAP: a name that the host writes reads back as what was meant.

use jit_runtime::fuzzing::{ldap_check_attribute, ldap_check_name, ldap_holds_passwords, ldap_name};

use super::Target;

const TOKENS: &[&str] = &[
    ",",
    "=",
    "+",
    "\\",
    "\\,",
    "\\2c",
    "\\20",
    "\\zz",
    "#",
    "#04024869",
    "\"",
    "<",
    ">",
    ";",
    " ",
    "  ",
    "dc=example",
    "cn=",
    "uid=",
    "2.5.4.35",
    "oid.2.05.4.35",
    ";binary",
    "userPassword",
    ";range=0-*",
];

/// Names that are made of parts.
pub(super) const NAME: Target = Target {
    name: "ldap_name",
    about: "a value in a distinguished name reads back as the same value and adds no part to the name",
    tokens: TOKENS,
    run: |input| {
        let [attribute, value, base] = input.parts();
        let Ok(text) = ldap_name(&[(attribute.clone(), value.clone())], &base) else { return };
        assert_eq!(ldap_check_name(&text), Ok(()), "the host wrote {text:?}");
        let names = read(&text).unwrap_or_else(|| panic!("{text:?} is not a name"));
        let of_base = if base.is_empty() { 0 } else { read(&base).map_or(usize::MAX, |names| names.len()) };
        assert_eq!(names.len(), 1 + of_base, "{value:?} changed how many parts {text:?} has");
        assert_eq!(names[0], [(attribute, value)], "{text:?}");
    },
};

/// Names and attributes from a configuration or a plugin.
pub(super) const TEXT: Target = Target {
    name: "ldap_text",
    about: "the check of names agrees with an independent reader, and a password attribute is one in any spelling",
    tokens: TOKENS,
    run: |input| {
        let [name, attribute] = input.parts();
        if ldap_check_name(&name).is_ok() {
            assert!(read(&name).is_some(), "accepted, but not a name: {name:?}");
        }
        let _ = ldap_check_attribute(&attribute);
        if ldap_holds_passwords(&attribute) && attribute.is_ascii() {
            assert!(ldap_holds_passwords(&attribute.to_ascii_uppercase()), "{attribute:?}");
            assert!(ldap_holds_passwords(&format!("{attribute};x-hidden")), "{attribute:?}");
        }
    },
};

/// Reads a name (RFC 4514) into parts of attribute and value, independently of the code under test.
fn read(text: &str) -> Option<Vec<Vec<(String, String)>>> {
    let mut names = vec![vec![(String::new(), Vec::new())]];
    let mut in_value = false;
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let (attribute, value) = names.last_mut()?.last_mut()?;
        match byte {
            b'\\' if in_value => {
                let first = bytes.next()?;
                if first.is_ascii_hexdigit() {
                    let digits = [first, bytes.next()?];
                    value.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                } else {
                    value.push(first);
                }
            }
            b',' if in_value => {
                names.push(vec![(String::new(), Vec::new())]);
                in_value = false;
            }
            b'+' if in_value => {
                names.last_mut()?.push((String::new(), Vec::new()));
                in_value = false;
            }
            b'=' if !in_value => in_value = true,
            _ if in_value => value.push(byte),
            _ => attribute.push(char::from(byte)),
        }
    }
    if !in_value {
        return None;
    }
    let text_of = |(attribute, value): (String, Vec<u8>)| (attribute, String::from_utf8_lossy(&value).into_owned());
    Some(names.into_iter().map(|parts| parts.into_iter().map(text_of).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_follows_the_standard() {
        let pair = |a: &str, v: &str| (a.to_owned(), v.to_owned());
        assert_eq!(
            read("cn=a\\,b+uid=c\\2c,o=x"),
            Some(vec![vec![pair("cn", "a,b"), pair("uid", "c,")], vec![pair("o", "x")]])
        );
        assert_eq!(read("cn"), None);
        assert_eq!(read("cn=a\\"), None);
    }
}
