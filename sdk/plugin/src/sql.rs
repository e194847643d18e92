//! Statements are data: a template and typed parameters, which the host quotes.
//!
//! Templates are constants. [`crate::statements!`] declares them and their list in one place, so
//! that what a driver lists at load is what it can run; the number of parameters is part of a
//! template's type, so that a wrong number does not compile.

use crate::bindings::host::jit::plugin::sql as contract;
use crate::driver::{Handle, Secret};
use crate::error::Error;

pub use crate::bindings::host::jit::plugin::secrets::Encoding;
pub use contract::{Rows, ServerError, SqlError};

/// SQL text with `N` places `{}` for parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template<const N: usize>(&'static str);

impl<const N: usize> Template<N> {
    /// Made by [`crate::statements!`], which counts the places.
    ///
    /// # Panics
    /// At compile time, when the number of places is not `N`.
    #[doc(hidden)]
    pub const fn new(text: &'static str) -> Self {
        assert!(places(text) == N, "the number of places is not N");
        Self(text)
    }

    /// The SQL text.
    pub const fn text(&self) -> &'static str {
        self.0
    }

    /// The statement with its parameters, in the order of the places.
    pub fn with<'a>(&self, params: [Param<'a>; N]) -> Statement<'a> {
        Statement { template: self.0, params: params.into() }
    }
}

/// How many `{}` a text has.
#[doc(hidden)]
pub const fn places(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut count) = (0, 0);
    while at + 1 < bytes.len() {
        if bytes[at] == b'{' && bytes[at + 1] == b'}' {
            count += 1;
            at += 1;
        }
        at += 1;
    }
    count
}

/// Declares a driver's templates and their list, for [`crate::SqlDriver::STATEMENTS`].
///
/// ```
/// use jit_plugin::Param;
///
/// jit_plugin::statements! {
///     /// All that the driver runs.
///     pub const STATEMENTS;
///
///     /// Stops new logins.
///     DISABLE = "ALTER ROLE {} NOLOGIN PASSWORD NULL";
///     /// Removes the role.
///     DROP = "DROP ROLE {}";
/// }
///
/// # fn main() {
/// let statement = DISABLE.with([Param::Ident("v-orders-1")]);
/// assert_eq!(statement.template(), "ALTER ROLE {} NOLOGIN PASSWORD NULL");
/// assert_eq!(STATEMENTS.len(), 2);
/// # }
/// ```
///
/// A wrong number of parameters does not compile:
///
/// ```compile_fail
/// # use jit_plugin::Param;
/// jit_plugin::statements! {
///     /// All that the driver runs.
///     pub const STATEMENTS;
///     /// Removes the role.
///     DROP = "DROP ROLE {}";
/// }
/// # fn main() {
/// DROP.with([Param::Ident("a"), Param::Ident("b")]);
/// # }
/// ```
#[macro_export]
macro_rules! statements {
    (
        $(#[$list_meta:meta])* $vis:vis const $list:ident;
        $($(#[$meta:meta])* $name:ident = $text:expr;)+
    ) => {
        $(
            $(#[$meta])*
            $vis const $name: $crate::Template<{ $crate::sql::places($text) }> =
                $crate::Template::new($text);
        )+
        $(#[$list_meta])*
        $vis const $list: &[&str] = &[$($text),+];
    };
}

/// One parameter of a statement. The host quotes it for the dialect of the connection.
#[derive(Clone, Copy, Debug)]
pub enum Param<'a> {
    /// One identifier.
    Ident(&'a str),
    /// Identifiers, separated by commas; at least one.
    Idents(&'a [String]),
    /// A string literal.
    Literal(&'a str),
    /// String literals, separated by commas; at least one.
    Literals(&'a [String]),
    /// A whole number.
    Number(i64),
    /// Seconds since the Unix epoch, as a UTC timestamp literal.
    Timestamp(u64),
    /// A secret as a string literal, written as the encoding says.
    Secret(Secret<'a>, Encoding),
}

/// A template with its parameters.
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    template: &'static str,
    params: Vec<Param<'a>>,
}

impl<'a> Statement<'a> {
    /// The SQL text.
    pub fn template(&self) -> &'static str {
        self.template
    }

    /// The parameters, in the order of the places.
    pub fn params(&self) -> &[Param<'a>] {
        &self.params
    }

    /// A statement from any text, listed or not: for fixtures that try what the host must refuse.
    /// Drivers use [`crate::statements!`].
    pub fn raw(template: &'static str, params: Vec<Param<'a>>) -> Self {
        Self { template, params }
    }
}

/// A connection of the host's, to which a driver gives statements. In a component it is the
/// host's; in a native test it is [`crate::testing::FakeSql`].
pub trait Sql {
    /// Runs the batch in order, as one transaction where the server has transactional DDL.
    /// `database` is another database of the same server.
    ///
    /// # Errors
    /// See [`SqlError`].
    fn execute(&mut self, database: Option<&str>, batch: &[Statement<'_>]) -> Result<(), SqlError>;

    /// Runs one statement and gives at most `max_rows` rows (the host has a limit of its own).
    ///
    /// # Errors
    /// See [`SqlError`].
    fn query(&mut self, database: Option<&str>, statement: &Statement<'_>, max_rows: u32) -> Result<Rows, SqlError>;

    /// Whether a login with that name and password succeeds now, on a connection of its own.
    ///
    /// # Errors
    /// When the server did not say.
    fn authenticate(&mut self, user: &str, password: Secret<'_>) -> Result<bool, SqlError>;
}

/// The host's connection of the target at hand.
#[derive(Debug, Default)]
pub struct HostSql(());

impl Sql for HostSql {
    fn execute(&mut self, database: Option<&str>, batch: &[Statement<'_>]) -> Result<(), SqlError> {
        let batch = batch.iter().map(lowered).collect::<Result<Vec<_>, _>>()?;
        contract::execute(database, &batch)
    }

    fn query(&mut self, database: Option<&str>, statement: &Statement<'_>, max_rows: u32) -> Result<Rows, SqlError> {
        contract::query(database, &lowered(statement)?, max_rows)
    }

    fn authenticate(&mut self, user: &str, password: Secret<'_>) -> Result<bool, SqlError> {
        match password.0 {
            Handle::Host(handle) => contract::authenticate(user, handle),
            Handle::Test(_) => Err(SqlError::Denied("a test's secret is not the host's".into())),
        }
    }
}

/// In the contract's types.
fn lowered<'a>(statement: &Statement<'a>) -> Result<contract::Statement<'a>, SqlError> {
    let params = statement.params.iter().map(|param| {
        Ok(match *param {
            Param::Ident(name) => contract::Param::Ident(name.to_owned()),
            Param::Idents(names) => contract::Param::Idents(names.to_vec()),
            Param::Literal(text) => contract::Param::Literal(text.to_owned()),
            Param::Literals(texts) => contract::Param::Literals(texts.to_vec()),
            Param::Number(number) => contract::Param::Number(number),
            Param::Timestamp(seconds) => contract::Param::Timestamp(seconds),
            Param::Secret(Secret(Handle::Host(handle)), encoding) => contract::Param::Secret((handle, encoding)),
            Param::Secret(Secret(Handle::Test(_)), _) => {
                return Err(SqlError::Denied("a test's secret is not the host's".into()));
            }
        })
    });
    Ok(contract::Statement { template: statement.template.to_owned(), params: params.collect::<Result<_, _>>()? })
}

impl SqlError {
    /// The SQLSTATE, where the server refused.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(server) => Some(&server.code),
            _ => None,
        }
    }

    /// The failure of a statement that only reads: without an answer, nothing was done.
    pub fn of_read(self) -> Error {
        match self {
            Self::Unknown(reason) => Error::retryable(reason),
            other => other.into(),
        }
    }
}

/// What every SQL driver means by it; a driver that knows a SQLSTATE better looks at it first.
impl From<SqlError> for Error {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Refused(server) => Self::Refused(format!("{} (SQLSTATE {})", server.message, server.code)),
            SqlError::Unavailable(reason) => Self::retryable(reason),
            SqlError::Unknown(reason) => Self::OutcomeUnknown(reason),
            SqlError::Denied(reason) => Self::Other(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted() {
        assert_eq!(places("DROP ROLE {}"), 1);
        assert_eq!(places("{}{} {{}} {"), 3);
        assert_eq!(places(""), 0);
    }

    #[test]
    fn a_read_without_an_answer_has_done_nothing() {
        let unknown = || SqlError::Unknown("connection lost".into());
        assert_eq!(unknown().of_read(), Error::retryable("connection lost"));
        assert_eq!(Error::from(unknown()), Error::OutcomeUnknown("connection lost".into()));
    }

    #[test]
    fn a_tests_secret_cannot_reach_the_host() {
        let secret = Secret(Handle::Test("canary"));
        let statement = Statement::raw("{}", vec![Param::Secret(secret, Encoding::Plain)]);
        assert!(matches!(lowered(&statement), Err(SqlError::Denied(_))));
    }
}
