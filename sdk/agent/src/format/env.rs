//! `NAME=value` lines: for `.` in a shell, `EnvironmentFile=` of systemd, and dotenv libraries.

use secrecy::zeroize::Zeroizing;

use super::unfit;
use crate::error::AgentError;

/// Values of these characters only stand as they are; others in single quotes.
fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b':' | b'@' | b'%' | b'+' | b',')
        })
}

pub(super) fn file(variables: &[(String, Zeroizing<String>)]) -> Result<Zeroizing<String>, AgentError> {
    let mut text = Zeroizing::new(String::with_capacity(4_096));
    for (name, value) in variables {
        if value.contains('\0') {
            return Err(unfit("env", format!("{name} has a zero byte, which no environment can hold")));
        }
        text.push_str(name);
        text.push('=');
        if is_plain(value) {
            text.push_str(value);
        } else {
            text.push_str(&quoted(value));
        }
        text.push('\n');
    }
    Ok(text)
}

/// In single quotes, where nothing is special but the quote itself.
pub(super) fn quoted(value: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("'{}'", value.replace('\'', r"'\''")))
}
