//! SQL: a quoted value is one token of the server's lexer, and reads back as the same value.

use jit_runtime::capability::sql::dialect::SqlKind;
use jit_runtime::capability::sql::template::Template;
use jit_runtime::capability::sql::{mysql, postgres};
use jit_runtime::fuzzing::{SqlToken, sql_tokens};

use super::Target;

const TOKENS: &[&str] = &[
    "'",
    "''",
    "\"",
    "\"\"",
    "`",
    "``",
    "\\",
    "\\'",
    "--",
    "#",
    "/*",
    "*/",
    "$$",
    "$a$",
    "E'",
    "e'",
    "U&'",
    "N'",
    "{}",
    ";",
    "(",
    ")",
    "RETURNING",
    "SELECT",
    "CREATE ROLE",
    "IDENTIFIED BY",
    "\u{a0}",
    "\u{2019}",
];

/// Values and identifiers in PostgreSQL's spelling.
pub(super) const POSTGRES: Target = Target {
    name: "sql_postgres",
    about: "a quoted literal or identifier is one token for PostgreSQL and reads back as the same text",
    tokens: TOKENS,
    run: |input| {
        let [value, name] = input.parts();
        let mut literal = String::new();
        if postgres::quote::literal(&mut literal, &value).is_ok() {
            is_one_token(SqlKind::Postgres, &literal);
            let (body, backslash) = match literal.strip_prefix(" E") {
                Some(body) => (body, true),
                None => (literal.as_str(), false),
            };
            assert_eq!(read_back(body, '\'', backslash).as_deref(), Some(value.as_str()), "literal {literal:?}");
        } else {
            assert!(value.contains('\0'), "only NUL cannot be quoted: {value:?}");
        }
        let mut ident = String::new();
        if postgres::quote::ident(&mut ident, &name).is_ok() {
            is_one_token(SqlKind::Postgres, &ident);
            assert_eq!(read_back(&ident, '"', false).as_deref(), Some(name.as_str()), "identifier {ident:?}");
            assert!(name.len() <= postgres::quote::MAX_IDENT, "the server would cut {name:?}");
        }
    },
};

/// Values and identifiers in MySQL's spelling.
pub(super) const MYSQL: Target = Target {
    name: "sql_mysql",
    about: "a quoted literal or identifier is one token for MySQL and reads back as the same text",
    tokens: TOKENS,
    run: |input| {
        let [value, name] = input.parts();
        let mut literal = String::new();
        if mysql::quote::literal(&mut literal, &value).is_ok() {
            // The lexer reads templates, which have no backslash: only without one it can judge.
            if !value.contains('\\') {
                is_one_token(SqlKind::MySql, &literal);
            }
            assert_eq!(read_back(&literal, '\'', true).as_deref(), Some(value.as_str()), "literal {literal:?}");
            // Under NO_BACKSLASH_ESCAPES it is another value, but it still ends where it should.
            assert!(read_back(&literal, '\'', false).is_some(), "literal {literal:?} ends early");
        } else {
            assert!(value.contains('\0'), "only NUL cannot be quoted: {value:?}");
        }
        let mut ident = String::new();
        if mysql::quote::ident(&mut ident, &name).is_ok() {
            if !name.contains('\\') {
                is_one_token(SqlKind::MySql, &ident);
            }
            assert_eq!(read_back(&ident, '`', false).as_deref(), Some(name.as_str()), "identifier {ident:?}");
            assert!(name.chars().count() <= mysql::quote::MAX_IDENT, "the server refuses {name:?}");
        }
    },
};

/// Templates of drivers, filled with a value.
pub(super) const TEMPLATE: Target = Target {
    name: "sql_template",
    about: "no value changes what the tokens of a template around it are",
    tokens: TOKENS,
    run: |input| {
        let [text, value] = input.parts();
        for kind in [SqlKind::Postgres, SqlKind::MySql] {
            let Ok(template) = Template::parse(&text, kind) else { continue };
            // The lexer of templates refuses backslashes in MySQL's quotes, so it cannot judge them.
            let value = if kind == SqlKind::MySql { value.replace('\\', "") } else { value.clone() };
            let mut statement = String::new();
            let filled = template.render(&mut statement, |out, _| match kind {
                SqlKind::Postgres => postgres::quote::literal(out, &value),
                SqlKind::MySql => mysql::quote::literal(out, &value),
            });
            if filled.is_err() {
                continue;
            }
            let before = significant(kind, &text).expect("a template that was accepted has tokens");
            let after = significant(kind, &statement)
                .unwrap_or_else(|| panic!("the filled statement is no SQL for {kind:?}: {statement:?}"));
            assert_eq!(before.len(), after.len(), "{kind:?}: {text:?} became {statement:?}");
            let places = before.iter().filter(|token| matches!(token, SqlToken::Place)).count();
            assert_eq!(places, template.parameters());
            for (before, after) in before.iter().zip(&after) {
                match before {
                    SqlToken::Place => assert!(matches!(after, SqlToken::Opaque(_)), "{statement:?}"),
                    other => assert_eq!(other, after, "{kind:?}: {text:?} became {statement:?}"),
                }
            }
        }
    },
};

/// The tokens without spaces.
fn significant(kind: SqlKind, text: &str) -> Option<Vec<SqlToken>> {
    let tokens = sql_tokens(kind, text)?;
    Some(tokens.into_iter().filter(|token| !matches!(token, SqlToken::Other(text) if text.trim().is_empty())).collect())
}

/// The text is one quoted token, also between other tokens.
fn is_one_token(kind: SqlKind, quoted: &str) {
    let statement = format!("SELECT {quoted}, 1");
    let tokens = significant(kind, &statement).unwrap_or_else(|| panic!("not a statement for {kind:?}: {statement:?}"));
    let expected = [
        SqlToken::Word("SELECT".to_owned()),
        SqlToken::Opaque(quoted.trim_start_matches(' ').to_owned()),
        SqlToken::Other(",".to_owned()),
        SqlToken::Other("1".to_owned()),
    ];
    assert_eq!(tokens, expected, "{kind:?} reads {statement:?} otherwise");
}

/// Reads a quoted text back, independently of the code under test. None when it does not end with the text.
fn read_back(text: &str, quote: char, backslash: bool) -> Option<String> {
    let mut value = String::new();
    let mut chars = text.strip_prefix(quote)?.chars().peekable();
    while let Some(c) = chars.next() {
        if c == quote {
            if chars.peek() != Some(&quote) {
                return chars.next().is_none().then_some(value);
            }
            chars.next();
        } else if c == '\\' && backslash {
            // The quoting writes no other escape than a doubled backslash and a doubled quote.
            value.push(chars.next()?);
            continue;
        }
        value.push(c);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Input;

    #[test]
    fn the_reader_tells_a_text_that_ends_early() {
        assert_eq!(read_back("'it''s'", '\'', false).as_deref(), Some("it's"));
        assert_eq!(read_back("'a' OR '1'", '\'', false), None);
        assert_eq!(read_back("'a\\'", '\'', true), None);
        assert_eq!(read_back("'a\\\\'", '\'', true).as_deref(), Some("a\\"));
    }

    #[test]
    #[should_panic(expected = "otherwise")]
    fn an_unescaped_quote_is_noticed() {
        is_one_token(SqlKind::Postgres, "'a', 'b'");
    }

    #[test]
    fn a_part_that_is_missing_is_empty() {
        (POSTGRES.run)(Input::new(b"value"));
    }
}
