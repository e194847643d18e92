//! A line of libpq's password file: `host:port:database:user:password`.

use secrecy::zeroize::Zeroizing;

use super::{Fields, unfit};
use crate::error::AgentError;

pub(super) fn line(fields: &Fields) -> Result<Zeroizing<String>, AgentError> {
    let mut text = Zeroizing::new(String::with_capacity(1_024));
    for name in ["host", "port", "database", "username", "password"] {
        let value = fields.get(name);
        if value.contains(['\n', '\r', '\0']) {
            return Err(unfit("pgpass", format!("{name} has a line break, which a password file cannot hold")));
        }
        if name != "host" {
            text.push(':');
        }
        match value {
            // Any.
            "" if matches!(name, "host" | "port" | "database") => text.push('*'),
            // Alone it would mean any.
            "*" => text.push_str("\\*"),
            _ => {
                for character in value.chars() {
                    if matches!(character, '\\' | ':') {
                        text.push('\\');
                    }
                    text.push(character);
                }
            }
        }
    }
    text.push('\n');
    Ok(text)
}
