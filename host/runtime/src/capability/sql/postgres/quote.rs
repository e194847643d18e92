//! How values become SQL text for PostgreSQL. The rules are those of libpq's `PQescapeIdentifier`
//! and of the server's `quote_literal`; both hold whatever `standard_conforming_strings` says. The
//! connection's encoding is UTF-8 and the texts are valid UTF-8, so no byte of a character can be
//! taken for a quote.

use crate::capability::sql::quote::{QuoteError, push_doubled, utc};

/// Longest identifier, in bytes (NAMEDATALEN - 1). The server would cut a longer one silently, and
/// a cut name is another name.
pub const MAX_IDENT: usize = 63;

/// Appends an identifier.
///
/// # Errors
/// When it is empty, too long or holds NUL.
pub fn ident(out: &mut String, name: &str) -> Result<(), QuoteError> {
    if name.is_empty() || name.len() > MAX_IDENT {
        return Err(QuoteError::IdentLength { most: MAX_IDENT, unit: "bytes" });
    }
    if name.contains('\0') {
        return Err(QuoteError::Nul);
    }
    out.push('"');
    push_doubled(out, name, '"');
    out.push('"');
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
    if value.contains('\\') {
        // With its E the backslash has one meaning on every server. The space keeps the E from
        // growing together with what stands before it.
        out.push_str(" E'");
        for c in value.chars() {
            if matches!(c, '\'' | '\\') {
                out.push(c);
            }
            out.push(c);
        }
    } else {
        out.push('\'');
        push_doubled(out, value, '\'');
    }
    out.push('\'');
    Ok(())
}

/// Appends a UTC timestamp literal.
///
/// # Errors
/// When it lies after the year 9999.
pub fn timestamp(out: &mut String, seconds: u64) -> Result<(), QuoteError> {
    out.push_str(&utc(seconds)?.strftime("'%Y-%m-%d %H:%M:%S+00'").to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::capability::sql::quote::list;
    use proptest::prelude::*;

    const TOO_LONG: QuoteError = QuoteError::IdentLength { most: 63, unit: "bytes" };

    fn quoted(f: impl Fn(&mut String) -> Result<(), QuoteError>) -> Result<String, QuoteError> {
        let mut out = String::new();
        f(&mut out).map(|()| out)
    }

    #[test]
    fn the_known_cases() {
        assert_eq!(quoted(|o| ident(o, "a\"; DROP ROLE x; --")).unwrap(), "\"a\"\"; DROP ROLE x; --\"");
        assert_eq!(quoted(|o| literal(o, "it's")).unwrap(), "'it''s'");
        assert_eq!(quoted(|o| literal(o, "\\'; DROP")).unwrap(), " E'\\\\''; DROP'");
        assert_eq!(quoted(|o| literal(o, "")).unwrap(), "''");
        assert_eq!(quoted(|o| list(o, &["a", "b\""], ident)).unwrap(), "\"a\", \"b\"\"\"");
        assert_eq!(quoted(|o| timestamp(o, 1_800_000_000)).unwrap(), "'2027-01-15 08:00:00+00'");
        assert_eq!(quoted(|o| timestamp(o, 0)).unwrap(), "'1970-01-01 00:00:00+00'");
    }

    #[test]
    fn what_cannot_be_quoted_is_refused() {
        assert_eq!(quoted(|o| ident(o, "")), Err(TOO_LONG));
        assert_eq!(quoted(|o| ident(o, &"x".repeat(64))), Err(TOO_LONG));
        assert_eq!(quoted(|o| ident(o, &"é".repeat(32))), Err(TOO_LONG));
        assert_eq!(quoted(|o| ident(o, "a\0b")), Err(QuoteError::Nul));
        assert_eq!(quoted(|o| literal(o, "\0")), Err(QuoteError::Nul));
        assert_eq!(quoted(|o| list::<&str>(o, &[], literal)), Err(QuoteError::EmptyList));
        assert_eq!(quoted(|o| timestamp(o, u64::MAX)), Err(QuoteError::Timestamp));
        assert_eq!(quoted(|o| timestamp(o, 300_000_000_000)), Err(QuoteError::Timestamp));
    }

    /// Reads a quoted text back the way the server's scanner does, and gives what is left after it.
    fn scan(text: &str, quote: char, backslash: bool) -> Option<(String, &str)> {
        let mut value = String::new();
        let mut chars = text.strip_prefix(quote)?.char_indices();
        let body = &text[quote.len_utf8()..];
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
        fn an_identifier_reads_back_whole(name in "[^\0]{1,15}") {
            let text = quoted(|o| ident(o, &name)).unwrap();
            prop_assert_eq!(scan(&text, '"', false), Some((name, "")));
        }

        #[test]
        fn a_literal_reads_back_whole_with_either_string_setting(value in "[^\0]{0,40}", hostile in "['\\\\;\\-$]{0,20}") {
            let value = value + &hostile;
            let text = quoted(|o| literal(o, &value)).unwrap();
            match text.strip_prefix(" E") {
                Some(rest) => prop_assert_eq!(scan(rest, '\'', true), Some((value, ""))),
                None => {
                    prop_assert_eq!(scan(&text, '\'', false), Some((value.clone(), "")));
                    prop_assert_eq!(scan(&text, '\'', true), Some((value, "")));
                }
            }
        }
    }
}
