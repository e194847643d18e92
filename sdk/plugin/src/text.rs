//! Strings of callers in reasons: whatever they hold, they stay what they are.

/// The longest string in bytes that is shown whole.
const MAX: usize = 100;

/// In backquotes, with control characters, quotes and what is invisible escaped, and cut: a string of
/// the caller's can neither forge a line of a log nor fill one.
///
/// ```
/// assert_eq!(jit_plugin::text::shown("inventory_db"), "`inventory_db`");
/// assert_eq!(jit_plugin::text::shown("a\nb"), "`a\\nb`");
/// ```
pub fn shown(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(MAX)];
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", cut.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn what_a_caller_wrote_is_tame() {
        assert_eq!(shown("a\u{1b}[2J\u{202e}"), "`a\\u{1b}[2J\\u{202e}`");
        assert_eq!(shown(&"é".repeat(60)), format!("`{}…`", "é".repeat(50)));
    }
}
