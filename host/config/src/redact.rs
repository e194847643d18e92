//! What of a configuration file may be shown.
//!
//! A mistake is told with its line, and a line may hold a password that should never have been
//! there. So the text that messages quote is a copy in which everything that looks like a secret
//! is starred out, byte for byte, so that spans still fit.

use std::ops::Range;

/// Whether a key's value is likely a secret: only such keys that name one, not `max_token_lifetime`.
pub(super) fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passwd", "passphrase", "secret", "token", "_key", "-key", "apikey", "credential", "credentials"]
        .iter()
        .any(|end| key.ends_with(end))
        || ["pass", "pwd", "pw"].contains(&key.as_str())
}

/// Whether a value is a secret by its look: a URL with a password, or a private key.
pub(super) fn looks_secret(value: &str) -> bool {
    value.contains("PRIVATE KEY") || user_info(value).is_some_and(|range| value[range].contains(':'))
}

/// Where in a text the part between `://` and the last `@` is.
fn user_info(text: &str) -> Option<Range<usize>> {
    let start = text.find("://")? + 3;
    let end = start + text[start..].rfind('@')?;
    Some(start..end)
}

/// The text for messages: the given ranges, passwords in URLs and the values of secret-looking keys
/// starred out, control characters (which could write on a terminal) replaced. As many bytes as before.
pub(super) fn showable(text: &str, masks: &[Range<usize>]) -> String {
    let mut masks = masks.to_vec();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        mask_line(text, start, line, &mut masks);
        start += line.len();
    }
    masks.sort_by_key(|range| range.start);
    let mut masks = masks.into_iter().peekable();
    let mut masked_until = 0;
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        while let Some(range) = masks.next_if(|range| range.start <= at) {
            masked_until = masked_until.max(range.end);
        }
        let stars = |star: char| std::iter::repeat_n(star, c.len_utf8());
        match c {
            '\n' | '\t' => out.push(c),
            // Windows line ends: a space keeps the offsets.
            '\r' => out.push(' '),
            _ if at < masked_until => out.extend(stars('*')),
            _ if c.is_control() || is_direction(c) => out.extend(stars('?')),
            _ => out.push(c),
        }
    }
    out
}

/// Characters that change the order in which a terminal shows the rest.
pub(super) fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// Works on text that may not even be TOML: an unclosed quote is how a password gets into an error.
fn mask_line(text: &str, start: usize, line: &str, masks: &mut Vec<Range<usize>>) {
    if let Some(info) = user_info(line)
        && let Some(colon) = line[info.clone()].find(':')
    {
        masks.push(start + info.start + colon + 1..start + info.end);
    }
    for (at, _) in line.match_indices('=') {
        let before = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let key_at = before
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .map_or(0, |i| i + before[i..].chars().next().map_or(1, char::len_utf8));
        if !names_a_secret(&before[key_at..]) {
            continue;
        }
        let value = line[at + 1..].trim_start();
        if value.starts_with('{') {
            continue;
        }
        let from = start + line.len() - value.len();
        let mut to = start + line.len();
        for fence in ["\"\"\"", "'''"] {
            if value.starts_with(fence) {
                to = text[from + 3..].find(fence).map_or(text.len(), |end| from + 3 + end);
            }
        }
        masks.push(from..to);
        return;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_out_what_looks_like_a_secret_and_keeps_the_length() {
        for text in [
            "password = \"hunter2\"",
            "x = { password = \"hunter2",
            "\"password\" = 'hunter2'",
            "db-password=hunter2",
            "# old password = hunter2",
            "password = \"\"\"\nhunter2\nhunter2\"\"\"\n",
            "password = '''\nhunter2",
            "url = \"postgres://u:hunter2@h/db\"",
            "url = \"postgres://u:hunter2/h@unter2@h/db\"",
            "é = 1\nsigning_key = \"hunter2é\"\r\n",
        ] {
            let shown = showable(text, &[]);
            assert!(!shown.contains("unter2"), "{shown}");
            assert_eq!(shown.len(), text.len());
        }
    }

    #[test]
    fn leaves_the_rest_readable() {
        let text = "max_token_lifetime = \"1h\"\nurl = \"postgres://jit@h/db\"\npassword = { file = \"x\" }\n";
        assert_eq!(showable(text, &[]), text);
    }

    #[test]
    fn a_terminal_is_not_written_on() {
        assert_eq!(showable("a\u{1b}[2Jb\u{202e}c\r\n", &[]), "a?[2Jb???c \n");
    }
}
