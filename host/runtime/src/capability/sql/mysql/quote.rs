//! How values become SQL text for MySQL and MariaDB. The host sets `sql_mode` and `utf8mb4` on each
//! of its connections, and the texts are valid UTF-8, so no byte of a character can be taken for a
//! quote. A quote is doubled, not escaped: that holds even under `NO_BACKSLASH_ESCAPES`.

use crate::capability::sql::quote::{QuoteError, push_doubled, utc};

/// Longest identifier, in characters.
pub const MAX_IDENT: usize = 64;

/// Appends an identifier.
///
/// # Errors
/// When it is empty, too long or holds NUL.
pub fn ident(out: &mut String, name: &str) -> Result<(), QuoteError> {
    if name.is_empty() || name.chars().count() > MAX_IDENT {
        return Err(QuoteError::IdentLength { most: MAX_IDENT, unit: "characters" });
    }
    if name.contains('\0') {
        return Err(QuoteError::Nul);
    }
    out.push('`');
    push_doubled(out, name, '`');
    out.push('`');
    Ok(())
}

/// Appends a string literal.
///
/// # Errors
/// When the value holds NUL.
pub fn literal(out: &mut String, value: &str) -> Result<(), QuoteError> {
    if value.contains('\0') {
        return Err(QuoteError::Nul);
    }
    out.push('\'');
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
    Ok(())
}

/// Appends a timestamp literal; the host's connections count in UTC.
///
/// # Errors
/// When it lies after the year 9999.
pub fn timestamp(out: &mut String, seconds: u64) -> Result<(), QuoteError> {
    out.push_str(&utc(seconds)?.strftime("'%Y-%m-%d %H:%M:%S'").to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::capability::sql::quote::list;
    use proptest::prelude::*;

    fn quoted(f: impl Fn(&mut String) -> Result<(), QuoteError>) -> Result<String, QuoteError> {
        let mut out = String::new();
        f(&mut out).map(|()| out)
    }

    #[test]
    fn the_known_cases() {
        assert_eq!(quoted(|o| ident(o, "a`; DROP USER x; #")).unwrap(), "`a``; DROP USER x; #`");
        assert_eq!(quoted(|o| literal(o, "it's")).unwrap(), "'it''s'");
        assert_eq!(quoted(|o| literal(o, "\\'; DROP")).unwrap(), "'\\\\''; DROP'");
        assert_eq!(quoted(|o| literal(o, "")).unwrap(), "''");
        assert_eq!(quoted(|o| list(o, &["a", "b`"], ident)).unwrap(), "`a`, `b```");
        assert_eq!(quoted(|o| timestamp(o, 1_800_000_000)).unwrap(), "'2027-01-15 08:00:00'");
    }

    #[test]
    fn what_cannot_be_quoted_is_refused() {
        let too_long = Err(QuoteError::IdentLength { most: 64, unit: "characters" });
        assert_eq!(quoted(|o| ident(o, "")), too_long);
        assert_eq!(quoted(|o| ident(o, &"é".repeat(65))), too_long);
        assert!(quoted(|o| ident(o, &"é".repeat(64))).is_ok());
        assert_eq!(quoted(|o| ident(o, "a\0b")), Err(QuoteError::Nul));
        assert_eq!(quoted(|o| literal(o, "\0")), Err(QuoteError::Nul));
        assert_eq!(quoted(|o| timestamp(o, u64::MAX)), Err(QuoteError::Timestamp));
    }

    /// Reads a quoted text back the way the server's scanner does, and gives what is left after it.
    fn scan(text: &str, quote: char, backslash: bool) -> Option<(String, &str)> {
        let mut value = String::new();
        let body = text.strip_prefix(quote)?;
        let mut chars = body.char_indices();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                let rest = &body[at + c.len_utf8()..];
                if !rest.starts_with(quote) {
                    return Some((value, rest));
                }
                chars.next();
            } else if backslash && c == '\\' {
                value.push(chars.next()?.1);
                continue;
            }
            value.push(c);
        }
        None
    }

    proptest! {
        #[test]
        fn an_identifier_reads_back_whole(name in "[^\0]{1,64}") {
            let text = quoted(|o| ident(o, &name)).unwrap();
            prop_assert_eq!(scan(&text, '`', false), Some((name, "")));
        }

        #[test]
        fn a_literal_reads_back_whole_and_never_ends_early(value in "[^\0]{0,40}", hostile in "['\\\\\"`;#\\-]{0,20}") {
            let value = value + &hostile;
            let text = quoted(|o| literal(o, &value)).unwrap();
            prop_assert_eq!(scan(&text, '\'', true), Some((value, "")));
            // Under NO_BACKSLASH_ESCAPES it would be another value, but still one value.
            prop_assert_eq!(scan(&text, '\'', false).map(|(_, rest)| rest), Some(""));
        }
    }
}
