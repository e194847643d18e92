//! Which dialect a server speaks, and what the rest of the capability asks of a dialect. Each is a
//! module of its own ([`super::postgres`], [`super::mysql`]); here they are told apart.

use secrecy::SecretString;
use sqlx::Connection as _;
use zeroize::Zeroizing;

use super::connection::{SqlConnectionError, SqlConnectionOptions};
use super::quote::QuoteError;
use super::{RowBounds, StatementText, mysql, postgres};
use crate::backend::Endpoint;
use crate::bindings::secrets::Encoding;
use crate::bindings::sql::{Rows, ServerError};
use crate::capability::secrets::Home;
use jit_core::driver::Lane;

/// Which dialect the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SqlKind {
    /// PostgreSQL 14 or later.
    #[default]
    Postgres,
    /// MySQL 8.0.14 or later, or MariaDB 10.6 or later.
    MySql,
}

impl SqlKind {
    /// The property of a driver's description that says in which dialect its statements are
    /// written. Without it they are PostgreSQL's.
    pub const PROPERTY: &str = "dialect";

    /// By its word in a description.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "postgres" => Some(Self::Postgres),
            "mysql" => Some(Self::MySql),
            _ => None,
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::MySql => "MySQL",
        }
    }

    pub(crate) fn ident(self, out: &mut String, name: &str) -> Result<(), QuoteError> {
        match self {
            Self::Postgres => postgres::quote::ident(out, name),
            Self::MySql => mysql::quote::ident(out, name),
        }
    }

    pub(crate) fn literal(self, out: &mut String, value: &str) -> Result<(), QuoteError> {
        match self {
            Self::Postgres => postgres::quote::literal(out, value),
            Self::MySql => mysql::quote::literal(out, value),
        }
    }

    pub(crate) fn timestamp(self, out: &mut String, seconds: u64) -> Result<(), QuoteError> {
        match self {
            Self::Postgres => postgres::quote::timestamp(out, seconds),
            Self::MySql => mysql::quote::timestamp(out, seconds),
        }
    }

    /// Whose encodings it takes.
    pub(crate) fn home(self) -> Home {
        match self {
            Self::Postgres => Home::Postgres,
            Self::MySql => Home::Mysql,
        }
    }

    /// A secret as it is placed into a statement. `sets_password`: the place is one of which the
    /// server keeps nothing but a hash.
    pub(crate) async fn encode(
        self,
        secret: SecretString,
        encoding: Encoding,
        sets_password: bool,
    ) -> Result<Zeroizing<String>, String> {
        match self {
            Self::Postgres => postgres::encode(secret, encoding).await,
            Self::MySql => mysql::hash::encode(secret, encoding, sets_password).await,
        }
    }

    /// Errors after which the same message can succeed, since the server took all of it back.
    pub(crate) fn is_lost_race(self, error: &ServerError) -> bool {
        match self {
            Self::Postgres => postgres::is_lost_race(error),
            Self::MySql => mysql::error::is_lost_race(error),
        }
    }
}

/// What of the server serves a connection, so that it can be ended from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backend {
    Postgres(postgres::Backend),
    MySql(mysql::Backend),
}

impl Backend {
    /// Whether the server shows statements with the passwords that they set, to other connections
    /// of the same account.
    pub(crate) fn shows_statements(&self) -> bool {
        matches!(self, Self::MySql(backend) if backend.is_mariadb)
    }
}

/// How connections to a server are opened.
pub(crate) enum Dialer {
    Postgres(Box<postgres::Dialer>),
    MySql(Box<mysql::Dialer>),
}

/// An open connection.
pub(crate) enum Wire {
    Postgres(sqlx::PgConnection),
    MySql(sqlx::MySqlConnection),
}

/// How a query ended.
pub(crate) enum QueryEnd {
    /// With all rows read.
    Rows(Rows),
    /// Refused by us before anything ran: the connection is as it was.
    Unfit(String),
    /// Refused by us with rows unread.
    Cut(String),
    /// Refused by the server, and the connection is as it was.
    Refused(ServerError),
    /// Without the server's answer.
    Failed(sqlx::Error),
}

impl Dialer {
    /// Reads the settings; gives where callers connect to, too.
    pub(crate) fn new(options: &SqlConnectionOptions) -> Result<(Self, Endpoint), SqlConnectionError> {
        let made = match options.kind {
            SqlKind::Postgres => {
                postgres::Dialer::new(options).map(|(dialer, endpoint)| (Self::Postgres(Box::new(dialer)), endpoint))
            }
            SqlKind::MySql => {
                mysql::Dialer::new(options).map(|(dialer, endpoint)| (Self::MySql(Box::new(dialer)), endpoint))
            }
        };
        made.map_err(|reason| SqlConnectionError { name: options.name.clone(), reason })
    }

    pub(crate) fn kind(&self) -> SqlKind {
        match self {
            Self::Postgres(_) => SqlKind::Postgres,
            Self::MySql(_) => SqlKind::MySql,
        }
    }

    /// Opens a connection with everything set that quoting and deadlines rely on. A removal does not
    /// wait long for a lock: what holds it may be the very session that it is to end.
    pub(crate) async fn connect(
        &self,
        password: Option<&SecretString>,
        database: Option<&str>,
        lane: Lane,
    ) -> Result<(Wire, Backend), sqlx::Error> {
        match self {
            Self::Postgres(dialer) => {
                let (connection, backend) = dialer.connect(password, database).await?;
                Ok((Wire::Postgres(connection), Backend::Postgres(backend)))
            }
            Self::MySql(dialer) => {
                let (connection, backend) = dialer.connect(password, database, lane).await?;
                Ok((Wire::MySql(connection), Backend::MySql(backend)))
            }
        }
    }

    /// Whether that login succeeds now. An error is anything but the server's own "not with that
    /// name and password".
    pub(crate) async fn authenticate(&self, user: &str, password: &SecretString) -> Result<bool, sqlx::Error> {
        match self {
            Self::Postgres(dialer) => dialer.authenticate(user, password).await,
            Self::MySql(dialer) => dialer.authenticate(user, password).await,
        }
    }
}

impl Wire {
    pub(crate) async fn ping(&mut self) -> Result<(), sqlx::Error> {
        match self {
            Self::Postgres(connection) => connection.ping().await,
            Self::MySql(connection) => connection.ping().await,
        }
    }

    /// Ends what serves another connection, and waits until it is gone. `false` when it is still
    /// there.
    pub(crate) async fn end(&mut self, backend: &Backend) -> Result<bool, sqlx::Error> {
        match (self, backend) {
            (Self::Postgres(connection), Backend::Postgres(backend)) => {
                postgres::end_backend(connection, backend).await
            }
            (Self::MySql(connection), Backend::MySql(backend)) => mysql::end_backend(connection, backend).await,
            // A connection has one dialect for life.
            (Self::Postgres(_), Backend::MySql(_)) | (Self::MySql(_), Backend::Postgres(_)) => Ok(false),
        }
    }

    /// Sends one message for its effect.
    pub(crate) async fn execute(&mut self, message: &StatementText) -> Result<(), sqlx::Error> {
        match self {
            Self::Postgres(connection) => postgres::execute(connection, message).await,
            Self::MySql(connection) => mysql::execute(connection, message).await,
        }
    }

    /// Sends one message for its rows.
    pub(crate) async fn query(&mut self, message: &StatementText, bounds: RowBounds) -> QueryEnd {
        match self {
            Self::Postgres(connection) => postgres::query(connection, message, bounds).await,
            Self::MySql(connection) => mysql::query(connection, message, bounds).await,
        }
    }
}

/// The server's own no to one message, after which nothing of it took effect. `None` when the
/// error leaves that open.
pub(crate) fn definite(error: &sqlx::Error, placed: &[Zeroizing<String>]) -> Option<ServerError> {
    let sqlx::Error::Database(error) = error else {
        return None;
    };
    if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        return postgres::definite(error, placed);
    }
    let error = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?;
    mysql::error::definite(error, placed)
}
