//! Texts that came out of a sandbox or from a backend, made safe for logs, terminals and replies.

use std::fmt::Write as _;

/// Whether a character could change how the text around it is shown or where a line ends: control
/// characters (newline, escape, C1), bidirectional overrides, invisible and line-separating ones.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text, cut to at most `max_bytes` of its own bytes (then ending in `…`) and with deceptive
/// characters written as `\u{…}` or `\n`, `\t`, `\r`.
#[must_use]
pub fn escape(text: &str, max_bytes: usize) -> String {
    let (kept, cut) = cut(text, max_bytes);
    let mut out = String::with_capacity(kept.len() + 3);
    for c in kept.chars() {
        if is_deceptive(c) {
            match c {
                '\n' | '\r' | '\t' => out.extend(c.escape_default()),
                other => {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{{{:x}}}", u32::from(other));
                }
            }
        } else {
            out.push(c);
        }
    }
    if cut {
        out.push('…');
    }
    out
}

/// The longest beginning of at most `max` bytes that ends between characters, and whether
/// something was left out.
fn cut(text: &str, max: usize) -> (&str, bool) {
    if text.len() <= max {
        return (text, false);
    }
    (&text[..text.floor_char_boundary(max)], true)
}

/// Whether the text can be shown as it is: nothing in it would be escaped.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.chars().any(is_deceptive)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forged_lines_colours_and_direction_are_shown_not_obeyed() {
        let forged = "ok\n{\"level\":\"ERROR\"}\u{1b}[31m\u{202e}gnol\u{2028}\u{0}\u{9b}";
        assert_eq!(escape(forged, 1_000), "ok\\n{\"level\":\"ERROR\"}\\u{1b}[31m\\u{202e}gnol\\u{2028}\\u{0}\\u{9b}");
        assert_eq!(escape("größe 🙂", 1_000), "größe 🙂");
    }

    proptest! {
        #[test]
        fn whatever_comes_in_nothing_deceptive_comes_out(text in any::<String>(), max in 0_usize..64) {
            let out = escape(&text, max);
            prop_assert!(is_plain(&out), "{out:?}");
            // Nine escaped bytes at most (`\u{e0001}`) for each byte kept, and the mark of the cut.
            prop_assert!(out.len() <= max.min(text.len()) * 9 + 3);
        }
    }
}
