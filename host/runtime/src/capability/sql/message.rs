//! Messages to the server: from a driver's statements to texts, and what is said of a message that holds a secret.

use std::sync::Arc;

use zeroize::{Zeroize as _, Zeroizing};

use super::bounds::Purpose;
use super::postgres;
use super::quote::{self, QuoteError};
use super::template::{Output, Template};
use crate::bindings::sql::{Param, Statement};
use jit_core::driver::Lane;
use jit_core::trace::OnBehalf;

/// This number of a secret's bytes in a row are a part of it.
const PART: usize = 4;

/// A message to the server; wiped when nobody needs it any more, since it may hold a secret.
pub(crate) struct StatementText(Arc<String>);

impl StatementText {
    pub(crate) fn new(text: String) -> Self {
        Self(Arc::new(text))
    }

    /// For sqlx, which wants to own it.
    pub(crate) fn shared(&self) -> Arc<String> {
        Arc::clone(&self.0)
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl Drop for StatementText {
    fn drop(&mut self) {
        // sqlx has dropped its share by then; when not, wiping is its memory's turn.
        if let Some(text) = Arc::get_mut(&mut self.0) {
            text.zeroize();
        }
    }
}

/// All statements as one message, which PostgreSQL runs as one transaction.
pub(super) fn one_message<'a>(
    statements: impl Iterator<Item = (&'a Statement, &'a Template)> + Clone,
    placed: &[Zeroizing<String>],
    purpose: Purpose,
    lane: Lane,
    on_behalf: &OnBehalf,
) -> Result<Vec<StatementText>, String> {
    let prelude = postgres::session::prelude(purpose, lane, on_behalf);
    // Reserved at once, so that no reallocation leaves a copy of a secret behind.
    let room = statements.clone().map(|(statement, _)| room_for(statement) + AROUND).sum::<usize>();
    let mut text = Zeroizing::new(String::with_capacity(prelude.len() + room + room_for_secrets(placed)));
    text.push_str(&prelude);
    let mut next_secret = placed.iter();
    for (number, (statement, template)) in statements.enumerate() {
        if number > 0 {
            // On a line of its own: a template may end in a comment.
            text.push_str("\n;\n");
        }
        let around = postgres::bounds::around(purpose, template);
        let (before, after) = around.map_err(|reason| format!("statement {number} {reason}"))?;
        text.push_str(before);
        fill(&mut text, number, statement, template, &mut next_secret)?;
        text.push_str(&after);
    }
    Ok(vec![StatementText::new(std::mem::take(&mut *text))])
}

/// Each statement as a message: what changes accounts commits by itself in MySQL.
pub(super) fn message_each<'a>(
    statements: impl Iterator<Item = (&'a Statement, &'a Template)>,
    placed: &[Zeroizing<String>],
    purpose: Purpose,
) -> Result<Vec<StatementText>, String> {
    let mut next_secret = placed.iter();
    let mut messages = Vec::new();
    for (number, (statement, template)) in statements.enumerate() {
        match (purpose, template.output()) {
            (Purpose::Execute, Output::Nothing) | (Purpose::Query(_), Output::Rows) => {}
            (Purpose::Execute, _) => return Err(format!("statement {number} gives rows: use query")),
            (Purpose::Query(_), _) => return Err(format!("statement {number} is no SELECT: use execute")),
        }
        let room = room_for(statement) + room_for_secrets(placed);
        let mut text = Zeroizing::new(String::with_capacity(room));
        fill(&mut text, number, statement, template, &mut next_secret)?;
        messages.push(StatementText::new(std::mem::take(&mut *text)));
    }
    Ok(messages)
}

/// Writes one statement. One secret was prepared for each that it takes, in this order.
fn fill<'a>(
    out: &mut String,
    number: usize,
    statement: &Statement,
    template: &Template,
    secrets: &mut impl Iterator<Item = &'a Zeroizing<String>>,
) -> Result<(), String> {
    let kind = template.kind();
    let filled = template.render(out, |out, place| match &statement.params[place] {
        Param::Ident(name) => kind.ident(out, name),
        Param::Idents(names) => quote::list(out, names, |out, name| kind.ident(out, name)),
        Param::Literal(value) => kind.literal(out, value),
        Param::Literals(values) => quote::list(out, values, |out, value| kind.literal(out, value)),
        Param::Number(number) => {
            out.push_str(&number.to_string());
            Ok(())
        }
        Param::Timestamp(seconds) => kind.timestamp(out, *seconds),
        Param::Secret(_) => {
            let secret = secrets.next().ok_or(QuoteError::Secret)?;
            kind.literal(out, secret)
        }
    });
    filled.map_err(|error| format!("statement {number}: {error}"))
}

/// What to say instead of a message that holds a secret.
pub(super) fn withheld(message: &str, placed: &[Zeroizing<String>]) -> Option<String> {
    let quoted = placed.iter().any(|secret| quotes(message, secret));
    quoted.then(|| "(message withheld: it quotes a secret)".to_owned())
}

/// Whether a message holds the secret or a part of it.
fn quotes(message: &str, secret: &str) -> bool {
    let message = message.as_bytes();
    let part = secret.len().min(PART);
    part > 0 && secret.as_bytes().windows(part).any(|part| message.windows(part.len()).any(|w| w == part))
}

/// Room for what stands around one statement.
const AROUND: usize = 320;

/// More than enough room for the statement's text without its secrets: every character doubled,
/// quotes and separators.
fn room_for(statement: &Statement) -> usize {
    let params = statement.params.iter().map(|param| match param {
        Param::Ident(text) | Param::Literal(text) => 2 * text.len() + 8,
        Param::Idents(list) | Param::Literals(list) => list.iter().map(|text| 2 * text.len() + 8).sum(),
        Param::Number(_) | Param::Timestamp(_) | Param::Secret(_) => 40,
    });
    statement.template.len() + params.sum::<usize>()
}

fn room_for_secrets(placed: &[Zeroizing<String>]) -> usize {
    placed.iter().map(|secret| 2 * secret.len() + 8).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_message_with_a_part_of_a_secret_is_told() {
        let secret = "x7Kq2mPz";
        for message in ["x7Kq2mPz", "invalid input: \"q2mP\"", "a x7Kq"] {
            assert!(quotes(message, secret), "{message}");
        }
        for message in ["", "x7K", "role \"app\" does not exist"] {
            assert!(!quotes(message, secret), "{message}");
        }
        assert!(quotes("pw", "pw"));
        assert!(!quotes("anything", ""));
    }

    #[test]
    fn a_statement_is_wiped_when_nobody_else_holds_it() {
        let text = Arc::new("CREATE ROLE x PASSWORD 'secret'".to_owned());
        let shared = Arc::clone(&text);
        let statement = StatementText(text);
        drop(statement);
        // Held here, as sqlx would in a call that is cut off: it is left alone.
        assert!(shared.contains("secret"));
        let mut statement = StatementText(shared);
        Arc::get_mut(&mut statement.0).unwrap().zeroize();
        assert!(statement.0.is_empty());
    }
}
