//! Java's `.properties`, as `java.util.Properties.load(InputStream)` reads them: ISO 8859-1 with `\uXXXX`.

use secrecy::zeroize::Zeroizing;

use super::Fields;

pub(super) fn file(prefix: &str, fields: &Fields) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(4_096));
    for (name, value) in fields.all().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&escaped(&format!("{prefix}{name}"), true));
        text.push('=');
        text.push_str(&escaped(value, false));
        text.push('\n');
    }
    text
}

/// What would end a key, begin a comment, or go on in the next line is escaped; so is all that is not
/// printable ASCII.
pub(super) fn escaped(value: &str, is_key: bool) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(value.len() * 2));
    for (index, character) in value.chars().enumerate() {
        match character {
            '\\' | '=' | ':' | '#' | '!' => text.extend(['\\', character]),
            ' ' if is_key || index == 0 => text.push_str("\\ "),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\u{c}' => text.push_str("\\f"),
            ' '..='~' => text.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04X}"));
                }
            }
        }
    }
    text
}
