//! Statement templates: SQL text of a plugin's author with `{}` where a value goes.
//!
//! A value is quoted for the place of a value. So a template is read with the server's own lexical
//! rules once, at load, and refused when a `{}` stands anywhere else: within quotes, a dollar-quoted
//! body or a comment, or grown together with other text. Then no value can end the place it is in.

use super::quote::QuoteError;

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
    #[error("has {{}} grown together with other text: put a space beside it")]
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
    /// A statement that would outlive the batch or end its transaction.
    #[error("must not begin, end or leave behind transaction or session state: the host does that")]
    SessionState,
}

/// A template, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    /// Where each `{}` begins.
    places: Vec<usize>,
    output: Output,
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

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`] says what its author has to change.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.trim().is_empty() || text.len() > MAX_TEMPLATE {
            return Err(TemplateError::Length);
        }
        if text.contains('\0') {
            return Err(TemplateError::Nul);
        }
        let mut places = Vec::new();
        let mut words = Vec::new();
        let mut depth = 0_usize;
        let mut returning = false;
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let rest = &text[at..];
            let next = match Token::at(text, at)? {
                Token::Place => {
                    check_neighbours(bytes, at)?;
                    places.push(at);
                    at + 2
                }
                Token::Separator => return Err(TemplateError::Separator),
                Token::Opaque { end } => {
                    if rest[..end - at].contains("{}") {
                        return Err(TemplateError::QuotedPlace);
                    }
                    end
                }
                Token::Word { end } => {
                    let word = text[at..end].to_ascii_uppercase();
                    returning |= word == "RETURNING";
                    if words.len() < 2 {
                        words.push(word);
                    }
                    end
                }
                Token::Other { end } => {
                    // The host puts a query within parentheses: it must not close them.
                    match bytes[at] {
                        b'(' => depth += 1,
                        b')' => depth = depth.checked_sub(1).ok_or(TemplateError::Parentheses)?,
                        _ => {}
                    }
                    end
                }
            };
            at = next;
        }
        if depth != 0 {
            return Err(TemplateError::Parentheses);
        }
        let first = words.first().map_or("", String::as_str);
        let set_for_good = first == "SET" && words.get(1).is_none_or(|word| word != "LOCAL");
        if set_for_good || SESSION_WORDS.contains(&first) {
            return Err(TemplateError::SessionState);
        }
        let output = match first {
            _ if returning => Output::OtherRows,
            "SELECT" | "VALUES" | "TABLE" => Output::Rows,
            "WITH" | "SHOW" | "EXPLAIN" => Output::OtherRows,
            _ => Output::Nothing,
        };
        Ok(Self { text: text.to_owned(), places, output })
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
        for (number, &place) in self.places.iter().enumerate() {
            out.push_str(&self.text[from..place]);
            fill(out, number)?;
            from = place + 2;
        }
        out.push_str(&self.text[from..]);
        Ok(())
    }
}

/// What may stand right beside a place: blanks and the punctuation of SQL that ends a token.
fn check_neighbours(bytes: &[u8], at: usize) -> Result<(), TemplateError> {
    let blank = |b: u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let before = at.checked_sub(1).map(|i| bytes[i]);
    let after = bytes.get(at + 2).copied();
    let before_ok = before.is_none_or(|b| blank(b) || matches!(b, b'(' | b',' | b'=' | b'<' | b'>' | b'.' | b'['));
    let after_ok = after.is_none_or(|b| blank(b) || matches!(b, b')' | b',' | b'.' | b':' | b']'));
    if before_ok && after_ok { Ok(()) } else { Err(TemplateError::GrownTogether) }
}

/// What begins at a place of a text, by the lexical rules of PostgreSQL (manual, section 4.1).
enum Token {
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

impl Token {
    fn at(text: &str, at: usize) -> Result<Self, TemplateError> {
        let bytes = text.as_bytes();
        let rest = &text[at..];
        let opaque = |end: Option<usize>| end.map(|end| Self::Opaque { end }).ok_or(TemplateError::Unterminated);
        match bytes[at] {
            b'{' if rest.starts_with("{}") => Ok(Self::Place),
            b';' => Ok(Self::Separator),
            b'-' if rest.starts_with("--") => {
                // Ends with the line or the template; a batch puts a line end after each.
                Ok(Self::Opaque { end: at + rest.find(['\n', '\r']).unwrap_or(rest.len()) })
            }
            b'/' if rest.starts_with("/*") => opaque(comment_end(bytes, at)),
            b'"' => opaque(quote_end(bytes, at, b'"', false)),
            b'\'' => {
                let end = quote_end(bytes, at, b'\'', false).ok_or(TemplateError::Unterminated)?;
                if rest[..end - at].contains('\\') {
                    return Err(TemplateError::Backslash);
                }
                Ok(Self::Opaque { end })
            }
            b'e' | b'E' if bytes.get(at + 1) == Some(&b'\'') => opaque(quote_end(bytes, at + 1, b'\'', true)),
            b'$' => match dollar_tag(rest) {
                Some(tag) => {
                    let body = at + tag.len();
                    opaque(text[body..].find(tag).map(|found| body + found + tag.len()))
                }
                None => Ok(Self::Other { end: at + 1 }),
            },
            b if is_word_start(b) => {
                let length = rest.bytes().take_while(|&b| is_word_start(b) || b.is_ascii_digit() || b == b'$').count();
                Ok(Self::Word { end: at + length })
            }
            _ => Ok(Self::Other { end: at + 1 }),
        }
    }
}

/// Bytes of an unquoted identifier or keyword; all bytes of non-ASCII characters count.
fn is_word_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn render(template: &str, values: &[&str]) -> String {
        let template = Template::parse(template).unwrap();
        assert_eq!(template.parameters(), values.len());
        let mut out = String::new();
        template.render(&mut out, |out, number| super::super::quote::literal(out, values[number])).unwrap();
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
            assert_eq!(Template::parse(text), Err(TemplateError::QuotedPlace), "{text}");
        }
    }

    #[test]
    fn a_place_beside_other_text_is_refused() {
        for text in
            ["SELECT E{}", "SELECT U&{}", "SELECT {}{}", "SELECT 1-{}", "SELECT {}x", "SELECT '{'{}", "SELECT ${}$"]
        {
            assert_eq!(Template::parse(text), Err(TemplateError::GrownTogether), "{text}");
        }
    }

    #[test]
    fn one_statement_without_state() {
        for text in ["SELECT 1;", "SELECT 1; DROP ROLE x", "SELECT 1 -- a\n; SELECT 2"] {
            assert_eq!(Template::parse(text), Err(TemplateError::Separator), "{text}");
        }
        for text in
            ["BEGIN", " /* x */ commit", "SET role x", "set session authorization x", "COPY t FROM STDIN", "RESET ALL"]
        {
            assert_eq!(Template::parse(text), Err(TemplateError::SessionState), "{text}");
        }
        for text in ["SELECT '", "SELECT \"a", "SELECT /* /* */", "DO $a$ x", "SELECT E'\\'"] {
            assert_eq!(Template::parse(text), Err(TemplateError::Unterminated), "{text}");
        }
        for text in ["SELECT 1) SELECT (2", "SELECT (1", "SELECT 1)"] {
            assert_eq!(Template::parse(text), Err(TemplateError::Parentheses), "{text}");
        }
        assert_eq!(Template::parse("SELECT (')')").map(|t| t.parameters()), Ok(0));
        assert_eq!(Template::parse("SELECT 'a\\'"), Err(TemplateError::Backslash));
        assert_eq!(Template::parse(" \n"), Err(TemplateError::Length));
        assert_eq!(Template::parse(&"x".repeat(MAX_TEMPLATE + 1)), Err(TemplateError::Length));
        assert_eq!(Template::parse("SELECT \0"), Err(TemplateError::Nul));
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
            assert_eq!(Template::parse(text).unwrap().output(), output, "{text}");
        }
    }

    #[test]
    fn a_dollar_within_a_word_begins_nothing() {
        assert_eq!(Template::parse("SELECT a$b$ , {} , c$b$").unwrap().parameters(), 1);
        assert_eq!(Template::parse("SELECT $1 , {} , $1").unwrap().parameters(), 1);
    }
}
