//! How MySQL and MariaDB read a text, under the `sql_mode` that the host sets (no `ANSI_QUOTES`, no
//! `NO_BACKSLASH_ESCAPES`), and which statements a template may hold.
//!
//! Comments are refused, not skipped: `/*! … */` and `/*M! … */` are code, `/*+ … */` changes
//! settings, and `--` is a comment only with a blank after it.

use crate::capability::sql::template::{Output, TemplateError, Token, is_word_start};

/// Words that begin a statement which answers without rows and leaves nothing behind in the
/// session. A list of what is allowed: many others bring rows (`CALL`, `CHECK TABLE`, `XA RECOVER`).
const CHANGES: [&str; 13] = [
    "ALTER", "CREATE", "DELETE", "DO", "DROP", "FLUSH", "GRANT", "INSERT", "KILL", "RENAME", "REPLACE", "REVOKE",
    "UPDATE",
];

/// What a statement answers with, by its first words.
///
/// # Errors
/// When it must not stand in a template.
pub(crate) fn output(words: &[String], returning: bool) -> Result<Output, TemplateError> {
    let word = |place: usize| words.get(place).map_or("", String::as_str);
    Ok(match word(0) {
        "SELECT" | "WITH" | "VALUES" | "TABLE" => Output::Rows,
        // MariaDB: `INSERT … RETURNING`.
        first if CHANGES.contains(&first) && returning => Output::OtherRows,
        first if CHANGES.contains(&first) => Output::Nothing,
        // An account's own, not the session's.
        "SET" if word(1) == "DEFAULT" => Output::Nothing,
        "SET" | "USE" | "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" | "LOCK" | "UNLOCK"
        | "PREPARE" | "EXECUTE" | "DEALLOCATE" | "HANDLER" | "XA" | "LOAD" | "RESET" => {
            return Err(TemplateError::SessionState);
        }
        _ => return Err(TemplateError::Statement),
    })
}

/// Whether the whole text is a statement that sets an account's password, as the server knows it. One
/// that the server cannot read it does not know for such: its history of statements then shows it.
pub(crate) fn sets_a_password(text: &str) -> bool {
    let words = text.split_ascii_whitespace().map(str::to_ascii_uppercase).collect::<Vec<_>>().join(" ");
    matches!(
        words.as_str(),
        "CREATE USER {}@{} IDENTIFIED BY {}"
            | "ALTER USER {}@{} IDENTIFIED BY {}"
            | "ALTER USER {}@{} IDENTIFIED BY {} RETAIN CURRENT PASSWORD"
    )
}

/// What begins at a place of the text.
pub(crate) fn token(text: &str, at: usize) -> Result<Token, TemplateError> {
    let bytes = text.as_bytes();
    let rest = &text[at..];
    match bytes[at] {
        b'{' if rest.starts_with("{}") => Ok(Token::Place),
        b';' => Ok(Token::Separator),
        b'#' => Err(TemplateError::Ambiguous),
        b'-' if rest.starts_with("--") => Err(TemplateError::Ambiguous),
        b'/' if rest.starts_with("/*") => Err(TemplateError::Ambiguous),
        quote @ (b'\'' | b'"' | b'`') => {
            let end = quote_end(bytes, at, quote).ok_or(TemplateError::Unterminated)?;
            // The backslash is a character like any other within backticks; that is not worth a rule.
            if rest[..end - at].contains('\\') {
                return Err(TemplateError::Ambiguous);
            }
            Ok(Token::Opaque { end })
        }
        b if is_word_start(b) => {
            let length = rest.bytes().take_while(|&b| is_word_start(b) || b.is_ascii_digit() || b == b'$').count();
            Ok(Token::Word { end: at + length })
        }
        _ => Ok(Token::Other { end: at + 1 }),
    }
}

/// After the quote that ends the text which begins at `at`; a doubled quote does not end it.
fn quote_end(bytes: &[u8], at: usize, quote: u8) -> Option<usize> {
    let mut at = at + 1;
    while let Some(&b) = bytes.get(at) {
        at += match b {
            b if b == quote && bytes.get(at + 1) == Some(&quote) => 2,
            b if b == quote => return Some(at + 1),
            _ => 1,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::capability::sql::dialect::SqlKind;
    use crate::capability::sql::template::Template;

    fn parse(text: &str) -> Result<Template, TemplateError> {
        Template::parse(text, SqlKind::MySql)
    }

    #[test]
    fn accounts_are_written_with_an_at() {
        let template = parse("CREATE USER {}@{} IDENTIFIED WITH p AS {} DEFAULT ROLE {}").unwrap();
        assert_eq!((template.parameters(), template.output()), (4, Output::Nothing));
        // PostgreSQL has an operator of that name.
        let postgres = Template::parse("SELECT {}@{}", SqlKind::Postgres);
        assert_eq!(postgres, Err(TemplateError::GrownTogether));
    }

    #[test]
    fn a_place_within_quotes_is_refused() {
        for text in ["SELECT '{}'", "SELECT \"{}\"", "SELECT `{}`", "SELECT 'it''s {}'", "SELECT '''{}'"] {
            assert_eq!(parse(text), Err(TemplateError::QuotedPlace), "{text}");
        }
        for text in ["SELECT n{}", "SELECT {}{}", "SELECT x'{}'{}", "SELECT -{}"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_that_servers_read_differently_is_taken() {
        for text in [
            "SELECT 1 # {}",
            "SELECT 1 -- {}",
            "SELECT 1--1",
            "SELECT /* {} */ 1",
            "SELECT /*!80000 1 */",
            "SELECT /*M! 1 */",
            "SELECT /*+ SET_VAR(sql_mode='') */ 1",
            "SELECT '\\'",
            "SELECT \"\\\\\" , {}",
        ] {
            assert_eq!(parse(text), Err(TemplateError::Ambiguous), "{text}");
        }
        assert!(parse("SELECT '#', '--', '/*', \"'\", '\"', `'`").is_ok());
    }

    #[test]
    fn only_statements_of_known_answers_without_state_are_taken() {
        for text in [
            "SET @a = {}",
            "SET PASSWORD FOR {}@{} = {}",
            "use x",
            "BEGIN",
            "COMMIT",
            "LOCK TABLES t READ",
            "XA RECOVER",
        ] {
            assert_eq!(parse(text), Err(TemplateError::SessionState), "{text}");
        }
        for text in ["CALL p()", "CHECK TABLE t", "SHOW GRANTS", "{}", "OPTIMIZE TABLE t"] {
            assert_eq!(parse(text), Err(TemplateError::Statement), "{text}");
        }
        for text in ["SELECT 1; SELECT 2", "SELECT 1;"] {
            assert_eq!(parse(text), Err(TemplateError::Separator), "{text}");
        }
        for text in ["SELECT 1)", "SELECT (1"] {
            assert_eq!(parse(text), Err(TemplateError::Parentheses), "{text}");
        }
        for text in ["SELECT 'a", "SELECT `a", "SELECT \"a"] {
            assert_eq!(parse(text), Err(TemplateError::Unterminated), "{text}");
        }
        assert_eq!(parse("SET DEFAULT ROLE {} FOR {}@{}").unwrap().output(), Output::Nothing);
        assert_eq!(parse("insert into t values ({}) returning id").unwrap().output(), Output::OtherRows);
        assert_eq!(parse("WITH a AS (SELECT 1) SELECT * FROM a").unwrap().output(), Output::Rows);
    }

    #[test]
    fn a_password_goes_only_where_the_server_hashes_it() {
        let first = |text: &str| parse(text).unwrap().sets_password(2);
        assert!(first("ALTER USER {}@{} IDENTIFIED BY {} RETAIN CURRENT PASSWORD"));
        assert!(first("create user {}@{} identified\n by {}"));
        for text in [
            "ALTER USER {}@{} IDENTIFIED WITH p AS {}",
            "INSERT INTO t VALUES ({}, {}, {})",
            "INSERT INTO t SELECT {}, {} AS IDENTIFIED BY, {}",
            "ALTER USER {}@{} IDENTIFIED BY ({})",
            "ALTER USER {}@{} ATTRIBUTE {}",
            "ALTER USER {}@{} IDENTIFIED BY {} NO SUCH CLAUSE",
            "ALTER USER {} @ {} IDENTIFIED BY {}",
            "UPDATE t SET identified = {}, BY = {} IDENTIFIED BY {}",
        ] {
            assert!(!first(text), "{text}");
        }
    }
}
