//! Distinguished names (RFC 4514) and attribute descriptions (RFC 4512): the texts of LDAP.

use crate::bindings::ldap::Name;

/// Longest name in bytes, and most relative names in one.
const LONGEST: usize = 4_096;
const DEEPEST: usize = 64;

/// Longest attribute description, in bytes.
const LONGEST_ATTRIBUTE: usize = 128;

/// The name as text: its own parts escaped, on its base.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn text(name: &Name) -> Result<String, String> {
    if name.rdns.len() > DEEPEST {
        return Err(format!("a name has more than {DEEPEST} parts"));
    }
    if !name.base.is_empty() {
        check(&name.base).map_err(|reason| format!("the base of a name {reason}"))?;
    }
    let mut text = String::new();
    for (attribute, value) in &name.rdns {
        check_attribute(attribute)?;
        if value.is_empty() {
            return Err(format!("a name's {attribute} is empty"));
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(attribute);
        text.push('=');
        escape(&mut text, value);
    }
    if !text.is_empty() && !name.base.is_empty() {
        text.push(',');
    }
    text.push_str(&name.base);
    if text.len() > LONGEST {
        return Err(format!("a name has more than {LONGEST} bytes"));
    }
    Ok(text)
}

/// A value of a name (RFC 4514, section 2.4).
fn escape(out: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '\0' => out.push_str("\\00"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => {
                out.push('\\');
                out.push(c);
            }
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            c => out.push(c),
        }
    }
}

/// Whether a text is a distinguished name, with spaces around its commas or without.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("has more than {LONGEST} bytes"));
    }
    let mut parts = 0;
    for part in split(text, ',')? {
        parts += 1;
        if parts > DEEPEST {
            return Err(format!("has more than {DEEPEST} parts"));
        }
        for pair in split(part, '+')? {
            let (attribute, value) = pair.split_once('=').ok_or("is not made of attribute=value")?;
            check_attribute(attribute.trim_matches(' '))?;
            check_value(value.trim_start_matches(' '))?;
        }
    }
    Ok(())
}

/// The parts between separators that are not escaped.
fn split(text: &str, separator: char) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == separator => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if escaped {
        return Err("ends in the middle of an escape".to_owned());
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("has an empty value".to_owned());
    }
    if let Some(digits) = value.strip_prefix('#') {
        let hex = digits.trim_end_matches(' ');
        let fits = !hex.is_empty() && hex.len().is_multiple_of(2) && hex.bytes().all(|b| b.is_ascii_hexdigit());
        return if fits { Ok(()) } else { Err("has a '#' that no hexadecimal digits follow".to_owned()) };
    }
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(b' ' | b'"' | b'#' | b'+' | b',' | b';' | b'<' | b'=' | b'>' | b'\\') => {}
                Some(first) if first.is_ascii_hexdigit() && bytes.next().is_some_and(|b| b.is_ascii_hexdigit()) => {}
                _ => return Err("has an invalid escape".to_owned()),
            },
            0 | b'"' | b';' | b'<' | b'>' => return Err("has a character that must be escaped".to_owned()),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a text is an attribute's name or number, with or without options.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_attribute(text: &str) -> Result<(), String> {
    let mut parts = text.split(';');
    let name = parts.next().unwrap_or_default();
    let keychar = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let is_name = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && name.bytes().all(keychar);
    let is_number =
        name.contains('.') && name.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let options = parts.all(|option| !option.is_empty() && option.bytes().all(keychar));
    if text.len() <= LONGEST_ATTRIBUTE && (is_name || is_number) && options {
        return Ok(());
    }
    Err(format!("{:?} is not an attribute's name", crate::text::escape(text, 64)))
}

/// What attributes hold passwords, or what stands for one: by name and by number, in lower case.
/// These are never given to a plugin, and secrets go nowhere else.
const PASSWORDS: [&str; 43] = [
    "userpassword",
    "2.5.4.35",
    "authpassword",
    "1.3.6.1.4.1.4203.1.3.4",
    "pwdhistory",
    "1.3.6.1.4.1.42.2.27.8.1.20",
    "unicodepwd",
    "1.2.840.113556.1.4.90",
    "ntpwdhistory",
    "1.2.840.113556.1.4.94",
    "lmpwdhistory",
    "1.2.840.113556.1.4.160",
    "dbcspwd",
    "1.2.840.113556.1.4.55",
    "supplementalcredentials",
    "1.2.840.113556.1.4.125",
    "unixuserpassword",
    "1.2.840.113556.1.4.1910",
    "msds-managedpassword",
    "1.2.840.113556.1.4.2196",
    "ms-mcs-admpwd",
    "mslaps-password",
    "mslaps-encryptedpassword",
    "mslaps-encryptedpasswordhistory",
    "mslaps-encrypteddsrmpassword",
    "mslaps-encrypteddsrmpasswordhistory",
    "sambantpassword",
    "1.3.6.1.4.1.7165.2.1.25",
    "sambalmpassword",
    "1.3.6.1.4.1.7165.2.1.24",
    "sambapasswordhistory",
    "1.3.6.1.4.1.7165.2.1.54",
    "sambacleartextpassword",
    "ipanthash",
    "2.16.840.1.113730.3.8.12.6",
    "krbprincipalkey",
    "2.16.840.1.113719.1.301.4.39.1",
    "krbmkey",
    "krbpwdhistory",
    "olcrootpw",
    "1.3.6.1.4.1.4203.1.12.2.3.2.0.9",
    "olcsyncrepl",
    "olcdbidassertbind",
];

/// Whether the attribute holds passwords, whatever its options and its spelling.
pub(crate) fn holds_passwords(attribute: &str) -> bool {
    let name = attribute.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // A number may be written with zeros in front by some servers' leave: 2.05.4.35.
    let name = if name.bytes().next().is_some_and(|b| b.is_ascii_digit()) {
        let parts = name.split('.').map(|part| match part.trim_start_matches('0') {
            "" => "0",
            part => part,
        });
        parts.collect::<Vec<_>>().join(".")
    } else {
        name
    };
    // Some servers take "oid." before a number (RFC 2252's predecessor did).
    PASSWORDS.contains(&name.strip_prefix("oid.").unwrap_or(&name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn name(rdns: &[(&str, &str)], base: &str) -> Name {
        let rdns = rdns.iter().map(|(attribute, value)| ((*attribute).to_owned(), (*value).to_owned())).collect();
        Name { rdns, base: base.to_owned() }
    }

    /// Undoes [`escape`], as RFC 4514 reads a string.
    fn unescape(text: &str) -> String {
        let (mut out, bytes, mut at) = (Vec::new(), text.as_bytes(), 0);
        while at < bytes.len() {
            if bytes[at] != b'\\' {
                out.push(bytes[at]);
                at += 1;
            } else if bytes[at + 1].is_ascii_hexdigit() {
                out.push(u8::from_str_radix(&text[at + 1..at + 3], 16).unwrap());
                at += 3;
            } else {
                out.push(bytes[at + 1]);
                at += 2;
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_examples_of_the_standard() {
        for (value, expected) in [
            ("James \"Jim\" Smith, III", "CN=James \\\"Jim\\\" Smith\\, III,dc=net"),
            (" x ", "CN=\\ x\\ ,dc=net"),
            (" ", "CN=\\ ,dc=net"),
            ("#a#", "CN=\\#a#,dc=net"),
            ("a+b=c;<d>\\", "CN=a\\+b\\=c\\;\\<d\\>\\\\,dc=net"),
            ("nul\0", "CN=nul\\00,dc=net"),
            ("Lučić", "CN=Lučić,dc=net"),
        ] {
            assert_eq!(text(&name(&[("CN", value)], "dc=net")).unwrap(), expected);
        }
        assert_eq!(text(&name(&[], "")).unwrap(), "");
        assert_eq!(text(&name(&[("uid", "a"), ("ou", "b")], "")).unwrap(), "uid=a,ou=b");
    }

    #[test]
    fn bases_are_names() {
        for good in [
            "dc=example,dc=com",
            "OU=People, DC=example, DC=com",
            "cn=a\\,b+uid=c\\2c,o=x",
            "1.3.6.1.4.1.1466.0=#04024869,dc=a",
            "cn=größe,o=a b",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = format!("cn={}", "a".repeat(LONGEST));
        let deep = vec!["cn=a"; DEEPEST + 1].join(",");
        for bad in [
            "", "example", "cn=", "=a", "cn=a,", ",cn=a", "cn=a\\", "cn=a\\zz", "cn=a\0", "cn=a;b", "cn=\"a\"", "cn=#",
            "cn=#0", "c n=a", "cn=a+", &long, &deep,
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn attributes_are_names_or_numbers() {
        for good in ["cn", "userCertificate;binary", "2.5.4.3", "x-y;lang-de;x-1", "1.1"] {
            assert_eq!(check_attribute(good), Ok(()), "{good}");
        }
        for bad in ["", "*", "+", "@person", "cn;", "c_n", "1a", "2..5", "2.5.", "member;range=0-*", "cn=", "é", "5"] {
            assert!(check_attribute(bad).is_err(), "{bad}");
        }
        assert!(check_attribute(&"a".repeat(LONGEST_ATTRIBUTE + 1)).is_err());
    }

    #[test]
    fn a_password_is_one_under_every_spelling() {
        for held in [
            "userPassword",
            "USERPASSWORD",
            "userPassword;x-hidden",
            "2.5.4.35",
            "2.05.4.35;binary",
            "oid.2.5.4.35",
            "unicodePwd",
            "sambaNTPassword",
            "olcRootPW",
        ] {
            assert!(holds_passwords(held), "{held}");
        }
        for open in ["cn", "pwdEndTime", "2.5.4.3", "2.5.4.350", "userPassword2"] {
            assert!(!holds_passwords(open), "{open}");
        }
    }

    proptest! {
        #[test]
        fn a_value_of_a_name_is_read_as_it_was_meant(value in "\\PC{1,40}|[ ,=+\"\\\\<>;#\0a]{1,12}") {
            let text = text(&name(&[("cn", &value)], "dc=a,dc=b")).unwrap();
            prop_assert_eq!(check(&text), Ok(()));
            let own = text.strip_suffix(",dc=a,dc=b").unwrap().strip_prefix("cn=").unwrap();
            prop_assert_eq!(split(&text, ',').unwrap().len(), 3);
            prop_assert_eq!(split(own, '+').unwrap().len(), 1);
            prop_assert_eq!(unescape(own), value);
        }

        #[test]
        fn no_text_breaks_the_check(text in any::<String>()) {
            let _ = check(&text);
            let _ = check_attribute(&text);
        }
    }
}
