//! What the fuzz targets call that nobody else may: the lexers, the names of directories, redaction.
//!
//! Not part of the crate's interface.

use secrecy::SecretString;

use crate::bindings::ldap::Name;
use crate::capability::http::blot;
use crate::capability::ldap::name;
use crate::capability::sql::dialect::SqlKind;
use crate::capability::sql::template::Token;
use crate::capability::sql::{mysql, postgres};

/// A token of an SQL text, with its own text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlToken {
    /// `{}`.
    Place,
    /// `;`.
    Separator,
    /// Quoted text or a comment.
    Opaque(String),
    /// A word.
    Word(String),
    /// A character.
    Other(String),
}

/// The tokens of a text, or `None` when the dialect's lexer refuses it.
#[must_use]
pub fn sql_tokens(kind: SqlKind, text: &str) -> Option<Vec<SqlToken>> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let token = match kind {
            SqlKind::Postgres => postgres::lexer::token(text, at).ok()?,
            SqlKind::MySql => mysql::lexer::token(text, at).ok()?,
        };
        let owned = |end: usize| String::from_utf8_lossy(&text.as_bytes()[at..end]).into_owned();
        let (token, end) = match token {
            Token::Place => (SqlToken::Place, at + 2),
            Token::Separator => (SqlToken::Separator, at + 1),
            Token::Opaque { end } => (SqlToken::Opaque(owned(end)), end),
            Token::Word { end } => (SqlToken::Word(owned(end)), end),
            Token::Other { end } => (SqlToken::Other(owned(end)), end),
        };
        tokens.push(token);
        at = end;
    }
    Some(tokens)
}

/// A distinguished name of attributes and values on a base.
///
/// # Errors
/// What is wrong with it.
pub fn ldap_name(rdns: &[(String, String)], base: &str) -> Result<String, String> {
    name::text(&Name { rdns: rdns.to_vec(), base: base.to_owned() })
}

/// Whether a text is a distinguished name.
///
/// # Errors
/// What is wrong with it.
pub fn ldap_check_name(text: &str) -> Result<(), String> {
    name::check(text)
}

/// Whether a text is an attribute's name.
///
/// # Errors
/// What is wrong with it.
pub fn ldap_check_attribute(text: &str) -> Result<(), String> {
    name::check_attribute(text)
}

/// Whether an attribute holds passwords.
#[must_use]
pub fn ldap_holds_passwords(attribute: &str) -> bool {
    name::holds_passwords(attribute)
}

/// A backend's text without the secrets.
#[must_use]
pub fn redact(text: &str, secrets: &[SecretString]) -> String {
    blot::blot(text, secrets)
}
