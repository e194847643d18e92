//! An option file of MySQL's and MariaDB's programs, section `[client]`.

use secrecy::zeroize::Zeroizing;

use super::{Fields, unfit};
use crate::error::AgentError;

/// What the programs read of a line: their buffer has 4,096 bytes, and the rest would be another line.
const MOST_LINE: usize = 4_000;

pub(super) fn file(fields: &Fields) -> Result<Zeroizing<String>, AgentError> {
    let mut text = Zeroizing::new(String::from("[client]\n"));
    // Not the database: most of the programs do not know it as an option of this section.
    for (option, name) in [("user", "username"), ("password", "password"), ("host", "host"), ("port", "port")] {
        let value = fields.get(name);
        if value.is_empty() {
            continue;
        }
        if value.contains('\0') {
            return Err(unfit("my.cnf", format!("{name} has a zero byte")));
        }
        let value = quoted(value);
        if option.len() + value.len() > MOST_LINE {
            return Err(unfit(
                "my.cnf",
                format!("{name} makes a line of more than {MOST_LINE} bytes, which is not read as one"),
            ));
        }
        text.push_str(option);
        text.push('=');
        text.push_str(&value);
        text.push('\n');
    }
    Ok(text)
}

/// In double quotes, so that `#` and blanks at the ends are part of it.
pub(super) fn quoted(value: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(value.len() + 2));
    text.push('"');
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            _ => text.push(character),
        }
    }
    text.push('"');
    text
}
