//! Statement templates: SQL text of a plugin's author with `{}` where a value goes.
//!
//! A value is quoted for the place of a value. So a template is read with the server's own lexical
//! rules once, at load, and refused when a `{}` stands anywhere else: within quotes, a dollar-quoted
//! body or a comment, or grown together with other text. Then no value can end the place it is in.
//!
//! The lexical rules are the dialect's: [`super::postgres`], [`super::mysql`].

use super::dialect::SqlKind;
use super::quote::QuoteError;
use super::{mysql, postgres};

/// Longest template, in bytes.
pub const MAX_TEMPLATE: usize = 16 << 10;

/// Most templates of one plugin.
pub const MAX_TEMPLATES: usize = 256;

/// Why a text is not a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Empty or longer than [`MAX_TEMPLATE`].
    #[error("must have 1 to {MAX_TEMPLATE} bytes")]
    Length,
    /// NUL is no character of SQL.
    #[error("must not hold the character NUL")]
    Nul,
    /// A `{}` where no value can go.
    #[error("has {{}} within quotes, a dollar-quoted body or a comment, where a value cannot be quoted")]
    QuotedPlace,
    /// A `{}` that touches other text.
    #[error("has {{}} joined to other text: put a space beside it")]
    GrownTogether,
    /// More than one statement.
    #[error("must be one statement without ';': a batch takes several templates")]
    Separator,
    /// Parentheses that do not match.
    #[error("has parentheses that do not match")]
    Parentheses,
    /// A quote, body or comment without an end.
    #[error("has a quote, dollar-quoted body or comment that does not end")]
    Unterminated,
    /// A backslash in a plain string means different things on different servers.
    #[error("has a backslash in a plain string: write it as E'…'")]
    Backslash,
    /// In MySQL, comments can hold code, and a backslash can end a string or not.
    #[error("has a comment or a backslash in quotes, which servers do not all read alike: leave it out")]
    Ambiguous,
    /// A statement that MySQL does not answer with a plain "done", or not in a known way.
    #[error("does not begin with a word that a statement may begin with: see the driver guide")]
    Statement,
    /// A statement that would outlive the batch or end its transaction.
    #[error("must not begin, end or leave behind transaction or session state: the host does that")]
    SessionState,
}

/// A template, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    kind: SqlKind,
    places: Vec<Place>,
    output: Output,
}

/// Where a value goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Where its `{}` begins.
    at: usize,
    /// It is a password of an account statement, of which the server keeps a hash only.
    sets_password: bool,
}

/// What a statement answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// No rows.
    Nothing,
    /// Rows, and it can stand within parentheses as a subquery.
    Rows,
    /// Rows, and it cannot, or not always (`WITH`, `SHOW`, `… RETURNING`).
    OtherRows,
}

impl Template {
    /// Reads a template as a server of that kind would.
    ///
    /// # Errors
    /// [`TemplateError`] says what its author has to change.
    pub fn parse(text: &str, kind: SqlKind) -> Result<Self, TemplateError> {
        if text.trim().is_empty() || text.len() > MAX_TEMPLATE {
            return Err(TemplateError::Length);
        }
        if text.contains('\0') {
            return Err(TemplateError::Nul);
        }
        let mut reading = Reading { kind, ..Reading::default() };
        let mut at = 0;
        while at < text.len() {
            let token = match kind {
                SqlKind::Postgres => postgres::lexer::token(text, at)?,
                SqlKind::MySql => mysql::lexer::token(text, at)?,
            };
            at = reading.take(text, at, token)?;
        }
        if reading.depth != 0 {
            return Err(TemplateError::Parentheses);
        }
        let output = match kind {
            SqlKind::Postgres => postgres::lexer::output(&reading.first, reading.returning)?,
            SqlKind::MySql => mysql::lexer::output(&reading.first, reading.returning)?,
        };
        if kind == SqlKind::MySql && !mysql::lexer::sets_a_password(text) {
            reading.places.iter_mut().for_each(|place| place.sets_password = false);
        }
        Ok(Self { text: text.to_owned(), kind, places: reading.places, output })
    }

    /// The dialect in which it was read.
    #[must_use]
    pub fn kind(&self) -> SqlKind {
        self.kind
    }

    /// Whether the server keeps nothing of the value at that place but a password's hash.
    #[must_use]
    pub fn sets_password(&self, place: usize) -> bool {
        self.places.get(place).is_some_and(|place| place.sets_password)
    }

    /// How many parameters it takes.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.places.len()
    }

    /// What it answers with.
    #[must_use]
    pub fn output(&self) -> Output {
        self.output
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Appends the statement, each place filled by `fill` (given the place's number).
    ///
    /// # Errors
    /// What `fill` fails with.
    pub fn render<E: From<QuoteError>>(
        &self,
        out: &mut String,
        mut fill: impl FnMut(&mut String, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut from = 0;
        for (number, place) in self.places.iter().enumerate() {
            out.push_str(&self.text[from..place.at]);
            fill(out, number)?;
            from = place.at + 2;
        }
        out.push_str(&self.text[from..]);
        Ok(())
    }
}

/// What begins at a place of a text.
pub(crate) enum Token {
    Place,
    Separator,
    /// Quoted text or a comment.
    Opaque {
        end: usize,
    },
    Word {
        end: usize,
    },
    Other {
        end: usize,
    },
}

/// What was read of a template so far.
#[derive(Default)]
struct Reading {
    kind: SqlKind,
    places: Vec<Place>,
    /// The first two words.
    first: Vec<String>,
    /// The two words before this place of the text, if nothing else stands between.
    last: [String; 2],
    depth: usize,
    returning: bool,
}

impl Reading {
    /// Takes the token that begins there; gives where the next one does.
    fn take(&mut self, text: &str, at: usize, token: Token) -> Result<usize, TemplateError> {
        let bytes = text.as_bytes();
        let end = match token {
            Token::Place => {
                self.check_neighbours(bytes, at)?;
                self.places.push(Place { at, sets_password: self.sets_password() });
                at + 2
            }
            Token::Separator => return Err(TemplateError::Separator),
            Token::Opaque { end } => {
                if text[at..end].contains("{}") {
                    return Err(TemplateError::QuotedPlace);
                }
                end
            }
            Token::Word { end } => {
                let word = text[at..end].to_ascii_uppercase();
                self.returning |= word == "RETURNING";
                if self.first.len() < 2 {
                    self.first.push(word.clone());
                }
                self.last.swap(0, 1);
                self.last[1] = word;
                return Ok(end);
            }
            Token::Other { end } => {
                // The host puts a query within parentheses: it must not close them.
                match bytes[at] {
                    b'(' => self.depth += 1,
                    b')' => self.depth = self.depth.checked_sub(1).ok_or(TemplateError::Parentheses)?,
                    _ => {}
                }
                if bytes[at].is_ascii_whitespace() {
                    return Ok(end);
                }
                end
            }
        };
        self.last = Default::default();
        Ok(end)
    }

    /// `CREATE USER … IDENTIFIED BY {}` and `ALTER USER … IDENTIFIED BY {}`.
    fn sets_password(&self) -> bool {
        let words = |words: &[String], expected: [&str; 2]| words.iter().map(String::as_str).eq(expected);
        words(&self.last, ["IDENTIFIED", "BY"])
            && (words(&self.first, ["CREATE", "USER"]) || words(&self.first, ["ALTER", "USER"]))
    }

    /// What may stand right beside a place: blanks and the punctuation of SQL that ends a token.
    fn check_neighbours(&self, bytes: &[u8], at: usize) -> Result<(), TemplateError> {
        let blank = |b: u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
        // `'user'@'host'`
        let account = |b: u8| b == b'@' && self.kind == SqlKind::MySql;
        let before = at.checked_sub(1).map(|i| bytes[i]);
        let after = bytes.get(at + 2).copied();
        let before_ok = before
            .is_none_or(|b| blank(b) || account(b) || matches!(b, b'(' | b',' | b'=' | b'<' | b'>' | b'.' | b'['));
        let after_ok = after.is_none_or(|b| blank(b) || account(b) || matches!(b, b')' | b',' | b'.' | b':' | b']'));
        if before_ok && after_ok { Ok(()) } else { Err(TemplateError::GrownTogether) }
    }
}

/// Bytes of an unquoted identifier or keyword; all bytes of non-ASCII characters count.
pub(crate) fn is_word_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn parse(text: &str) -> Result<Template, TemplateError> {
        Template::parse(text, SqlKind::Postgres)
    }

    fn render(template: &str, values: &[&str]) -> String {
        let template = parse(template).unwrap();
        assert_eq!(template.parameters(), values.len());
        let mut out = String::new();
        template.render(&mut out, |out, number| postgres::quote::literal(out, values[number])).unwrap();
        out
    }

    #[test]
    fn values_go_where_the_places_are() {
        assert_eq!(
            render("SELECT {}, f({}) WHERE a={} AND b > {}", &["1", "2", "3", "4"]),
            "SELECT '1', f('2') WHERE a='3' AND b > '4'"
        );
        assert_eq!(render("SELECT {}::text", &["it's {}"]), "SELECT 'it''s {}'::text");
        assert_eq!(render("DO $$ BEGIN PERFORM 1; END $$", &[]), "DO $$ BEGIN PERFORM 1; END $$");
        assert_eq!(render("SELECT 1 -- done", &[]), "SELECT 1 -- done");
        assert_eq!(render("SET LOCAL role {}", &["x"]), "SET LOCAL role 'x'");
    }

    #[test]
    fn a_place_within_quotes_is_refused() {
        for text in [
            "SELECT '{}'",
            "SELECT '''{}'",
            "SELECT E'\\'{}'",
            "SELECT \"{}\"",
            "DO $$ BEGIN EXECUTE {}; END $$",
            "DO $a$ $$ {} $$ $a$",
            "SELECT 1 -- {}",
            "SELECT /* /* */ {} */ 1",
        ] {
            assert_eq!(parse(text), Err(TemplateError::QuotedPlace), "{text}");
        }
    }

    #[test]
    fn a_place_beside_other_text_is_refused() {
        for text in
            ["SELECT E{}", "SELECT U&{}", "SELECT {}{}", "SELECT 1-{}", "SELECT {}x", "SELECT '{'{}", "SELECT ${}$"]
        {
            assert_eq!(parse(text), Err(TemplateError::GrownTogether), "{text}");
        }
    }

    #[test]
    fn one_statement_without_state() {
        for text in ["SELECT 1;", "SELECT 1; DROP ROLE x", "SELECT 1 -- a\n; SELECT 2"] {
            assert_eq!(parse(text), Err(TemplateError::Separator), "{text}");
        }
        for text in
            ["BEGIN", " /* x */ commit", "SET role x", "set session authorization x", "COPY t FROM STDIN", "RESET ALL"]
        {
            assert_eq!(parse(text), Err(TemplateError::SessionState), "{text}");
        }
        for text in ["SELECT '", "SELECT \"a", "SELECT /* /* */", "DO $a$ x", "SELECT E'\\'"] {
            assert_eq!(parse(text), Err(TemplateError::Unterminated), "{text}");
        }
        for text in ["SELECT 1) SELECT (2", "SELECT (1", "SELECT 1)"] {
            assert_eq!(parse(text), Err(TemplateError::Parentheses), "{text}");
        }
        assert_eq!(parse("SELECT (')')").map(|t| t.parameters()), Ok(0));
        assert_eq!(parse("SELECT 'a\\'"), Err(TemplateError::Backslash));
        assert_eq!(parse(" \n"), Err(TemplateError::Length));
        assert_eq!(parse(&"x".repeat(MAX_TEMPLATE + 1)), Err(TemplateError::Length));
        assert_eq!(parse("SELECT \0"), Err(TemplateError::Nul));
    }

    #[test]
    fn what_a_statement_answers_with_is_known() {
        for (text, output) in [
            ("CREATE ROLE {}", Output::Nothing),
            ("DO $$ SELECT 1 $$", Output::Nothing),
            (" /* x */ select {}", Output::Rows),
            ("VALUES (1)", Output::Rows),
            ("TABLE t", Output::Rows),
            ("WITH a AS (SELECT 1) SELECT 1", Output::OtherRows),
            ("SHOW all", Output::OtherRows),
            ("INSERT INTO t VALUES ({}) RETURNING id", Output::OtherRows),
            ("INSERT INTO t VALUES ('RETURNING')", Output::Nothing),
        ] {
            assert_eq!(parse(text).unwrap().output(), output, "{text}");
        }
    }

    #[test]
    fn a_dollar_within_a_word_begins_nothing() {
        assert_eq!(parse("SELECT a$b$ , {} , c$b$").unwrap().parameters(), 1);
        assert_eq!(parse("SELECT $1 , {} , $1").unwrap().parameters(), 1);
    }
}
