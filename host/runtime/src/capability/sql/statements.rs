//! The statements of a driver, as it listed them at load.

use std::collections::HashMap;

use super::dialect::SqlKind;
use super::template::{MAX_TEMPLATES, Template, TemplateError};
use crate::bindings::PACKAGE;
use crate::bindings::sql::Statement;
use crate::declared::Said;
use crate::text::escape;

/// Why a driver's statements cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StatementsError {
    /// A driver that may run SQL lists no statements.
    #[error("imports {PACKAGE}/sql but does not export {PACKAGE}/statements: list every template that it runs")]
    Missing,
    /// More templates than [`MAX_TEMPLATES`].
    #[error("lists more than {MAX_TEMPLATES} statement templates")]
    TooMany,
    /// The description's property `dialect` is none that the host speaks.
    #[error("declares the dialect {0:?}: the property `dialect` must be postgres or mysql")]
    Dialect(String),
    /// A template that cannot be used.
    #[error("the statement template {template:?} {error}")]
    Template {
        /// Its beginning.
        template: String,
        /// What is wrong with it.
        error: TemplateError,
    },
}

/// The statements of a driver.
#[derive(Debug, Default)]
pub(super) struct Templates {
    listed: HashMap<String, Template>,
}

impl Templates {
    /// Reads what a driver lists, in the dialect that its description names.
    pub(super) fn of(said: &Said<'_>) -> Result<Self, StatementsError> {
        let listed = said.statements.ok_or(StatementsError::Missing)?;
        if listed.len() > MAX_TEMPLATES {
            return Err(StatementsError::TooMany);
        }
        let kind = match said.property(SqlKind::PROPERTY) {
            Some(word) => SqlKind::from_word(word).ok_or_else(|| StatementsError::Dialect(escape(word, 64)))?,
            None => SqlKind::default(),
        };
        let parse = |text: &String| {
            let parsed = Template::parse(text, kind);
            parsed.map_err(|error| StatementsError::Template { template: escape(text, 120), error })
        };
        let templates = listed.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { listed: templates.into_iter().map(|template| (template.text().to_owned(), template)).collect() })
    }

    /// The statement's template, which fits its parameters and the dialect.
    pub(super) fn find(&self, number: usize, statement: &Statement, kind: SqlKind) -> Result<&Template, String> {
        let Some(template) = self.listed.get(&statement.template) else {
            let shown = escape(&statement.template, 80);
            return Err(format!("statement {number} is not a listed template: {shown}"));
        };
        let (takes, given) = (template.parameters(), statement.params.len());
        if takes != given {
            return Err(format!("statement {number} takes {takes} parameters, {given} given"));
        }
        if template.kind() != kind {
            let (written, server) = (template.kind().name(), kind.name());
            return Err(format!("the driver's statements are written for {written}, the connection is to {server}"));
        }
        Ok(template)
    }
}
