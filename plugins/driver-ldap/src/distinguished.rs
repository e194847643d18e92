//! Distinguished names as far as a driver has to read them: to compare, never to build one. Building
//! is the host's.

/// The relative names, from the entry upwards, in one spelling: lower case, without spaces around
/// separators. None when the text is no name.
pub(crate) fn parts(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    for part in split(text)? {
        let (attribute, value) = part.split_once('=')?;
        let (attribute, value) = (attribute.trim(), value.trim());
        let mut bytes = attribute.bytes();
        let is_attribute = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
            && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        if !is_attribute || value.is_empty() {
            return None;
        }
        parts.push(format!("{}={}", attribute.to_lowercase(), value.to_lowercase()));
    }
    Some(parts)
}

/// The parts between commas that are not escaped.
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '\0' => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!escaped).then_some(parts)
}

/// Whether a name is below another one, or the same.
pub(crate) fn is_below(name: &str, base: &str) -> bool {
    match (parts(name), parts(base)) {
        (Some(name), Some(base)) => name.ends_with(&base),
        _ => false,
    }
}

/// The domain that a name's `DC=` parts spell.
pub(crate) fn domain(name: &str) -> Option<String> {
    let parts = parts(name)?;
    let labels: Vec<&str> = parts.iter().filter_map(|part| part.strip_prefix("dc=")).collect();
    (!labels.is_empty()).then(|| labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case_and_spaces() {
        assert!(is_below("CN=a, OU=Groups,DC=Example,dc=com", "ou=groups,dc=example,dc=com"));
        assert!(is_below("ou=groups,dc=a", "ou=groups,dc=a"));
        assert!(!is_below("cn=a,ou=groups2,dc=a", "ou=groups,dc=a"));
        // An escaped comma does not begin a part.
        assert!(!is_below("cn=x\\,ou=groups,dc=a", "ou=groups,dc=a"));
    }

    #[test]
    fn what_is_no_name_is_told() {
        for bad in ["", "groups", "cn=", "=a", "cn=a,", "cn=a\\", "cn=a\0b,dc=a", "c n=a"] {
            assert_eq!(parts(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_domain_is_spelt_by_its_parts() {
        assert_eq!(domain("OU=jit,DC=Example,DC=com").as_deref(), Some("example.com"));
        assert_eq!(domain("ou=jit,o=example"), None);
    }
}
