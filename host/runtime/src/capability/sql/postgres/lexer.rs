//! How PostgreSQL reads a text (manual, section 4.1), and which statements a template may hold.

use crate::capability::sql::template::{Output, TemplateError, Token, is_word_start};

/// Words that begin a statement which a pooled connection must not run on a plugin's behalf.
const SESSION_WORDS: [&str; 21] = [
    "BEGIN",
    "START",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "SAVEPOINT",
    "RELEASE",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "DECLARE",
    "FETCH",
    "MOVE",
    "CLOSE",
    "LISTEN",
    "UNLISTEN",
    "COPY",
    "RESET",
    "DISCARD",
    "LOAD",
];

/// What a statement answers with, by its first words.
///
/// # Errors
/// When it must not stand in a template.
pub(crate) fn output(words: &[String], returning: bool) -> Result<Output, TemplateError> {
    let first = words.first().map_or("", String::as_str);
    let set_for_good = first == "SET" && words.get(1).is_none_or(|word| word != "LOCAL");
    if set_for_good || SESSION_WORDS.contains(&first) {
        return Err(TemplateError::SessionState);
    }
    Ok(match first {
        _ if returning => Output::OtherRows,
        "SELECT" | "VALUES" | "TABLE" => Output::Rows,
        "WITH" | "SHOW" | "EXPLAIN" => Output::OtherRows,
        _ => Output::Nothing,
    })
}

/// What begins at a place of the text.
pub(crate) fn token(text: &str, at: usize) -> Result<Token, TemplateError> {
    let bytes = text.as_bytes();
    let rest = &text[at..];
    let opaque = |end: Option<usize>| end.map(|end| Token::Opaque { end }).ok_or(TemplateError::Unterminated);
    match bytes[at] {
        b'{' if rest.starts_with("{}") => Ok(Token::Place),
        b';' => Ok(Token::Separator),
        b'-' if rest.starts_with("--") => {
            // Ends with the line or the template; a batch puts a line end after each.
            Ok(Token::Opaque { end: at + rest.find(['\n', '\r']).unwrap_or(rest.len()) })
        }
        b'/' if rest.starts_with("/*") => opaque(comment_end(bytes, at)),
        b'"' => opaque(quote_end(bytes, at, b'"', false)),
        b'\'' => {
            let end = quote_end(bytes, at, b'\'', false).ok_or(TemplateError::Unterminated)?;
            if rest[..end - at].contains('\\') {
                return Err(TemplateError::Backslash);
            }
            Ok(Token::Opaque { end })
        }
        b'e' | b'E' if bytes.get(at + 1) == Some(&b'\'') => opaque(quote_end(bytes, at + 1, b'\'', true)),
        b'$' => match dollar_tag(rest) {
            Some(tag) => {
                let body = at + tag.len();
                opaque(text[body..].find(tag).map(|found| body + found + tag.len()))
            }
            None => Ok(Token::Other { end: at + 1 }),
        },
        b if is_word_start(b) => {
            let length = rest.bytes().take_while(|&b| is_word_start(b) || b.is_ascii_digit() || b == b'$').count();
            Ok(Token::Word { end: at + length })
        }
        _ => Ok(Token::Other { end: at + 1 }),
    }
}

/// After the quote that ends the text which begins at `at`; a doubled quote does not end it.
fn quote_end(bytes: &[u8], at: usize, quote: u8, backslash: bool) -> Option<usize> {
    let mut at = at + 1;
    while let Some(&b) = bytes.get(at) {
        at += match b {
            b'\\' if backslash => 2,
            b if b == quote && bytes.get(at + 1) == Some(&quote) => 2,
            b if b == quote => return Some(at + 1),
            _ => 1,
        };
    }
    None
}

/// After the end of a comment; comments nest.
fn comment_end(bytes: &[u8], at: usize) -> Option<usize> {
    let (mut at, mut depth) = (at + 2, 1_u32);
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The tag (`$$`, `$body$`) that begins a dollar-quoted body.
fn dollar_tag(rest: &str) -> Option<&str> {
    let inner = rest[1..].find('$')?;
    let tag = &rest[1..=inner];
    let plain = tag.bytes().all(|b| is_word_start(b) || b.is_ascii_digit());
    let begins = tag.bytes().next().is_none_or(is_word_start);
    (plain && begins).then(|| &rest[..inner + 2])
}
