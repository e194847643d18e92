//! PostgreSQL.
//!
//! A batch is one message of the simple protocol, which the server runs as one transaction. A query
//! runs in a read-only transaction. Names in a statement mean the server's own functions, operators
//! and types, whatever anybody made in the database ([`session`]).

use futures_util::TryStreamExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgRow, PgSeverity, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Either, Executor as _, Row as _, ValueRef as _};
use zeroize::Zeroizing;

use super::connection::{SETTLE, SqlConnectionOptions, without_brackets};
use super::dialect::QueryEnd;
use super::{MESSAGE, RowBounds, StatementText, withheld};
use crate::backend::Endpoint;
use crate::bindings::secrets::Encoding;
use crate::bindings::sql::{Rows, ServerError};
use crate::capability::secrets::{Home, foreign};
use crate::text::escape;
use jit_core::transport::{self, Security, Spoken};

pub(crate) mod bounds;
pub(crate) mod lexer;
pub mod quote;
pub(crate) mod session;

/// Above that many iterations a verifier is computed on a thread for blocking work.
const INLINE_ITERATIONS: u32 = 1_000;

/// SQLSTATE `invalid_password` and `invalid_authorization_specification`.
const ACCESS_DENIED: [&str; 2] = ["28P01", "28000"];

/// How connections to the server are opened.
pub(crate) struct Dialer {
    options: PgConnectOptions,
}

/// A backend process of the server: its id may be used again, its start tells two apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    pid: i32,
    start: String,
}

impl Dialer {
    /// Reads the settings.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(settings: &SqlConnectionOptions) -> Result<(Self, Endpoint), String> {
        let url = &settings.url;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err("the URL must begin with postgres:// or postgresql://".to_owned());
        }
        if url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password") {
            return Err("the URL must not hold a password: give it as a secret".to_owned());
        }
        if url.username().is_empty() {
            return Err("the URL must name the user: postgres://user@host/database".to_owned());
        }
        let database = url.path().trim_start_matches('/');
        if database.is_empty() {
            return Err("the URL must name the database: postgres://user@host/database".to_owned());
        }
        let security =
            transport::security(Spoken::Postgres, url, settings.plaintext, false).map_err(|wrong| wrong.to_string())?;
        // sqlx's own text is not passed on: it could quote the URL.
        let mut options = PgConnectOptions::from_url(url).map_err(|_| "the URL is not a PostgreSQL URL".to_owned())?;
        // A URL puts brackets around an IPv6 address; no resolver takes them.
        let host = without_brackets(options.get_host()).to_owned();
        options = options
            .host(&host)
            .application_name(session::APPLICATION_NAME)
            // Said in any case: without a word sqlx would take the environment's, or go on in clear.
            .ssl_mode(ssl_mode(security))
            // No prepared statements: all goes by the simple protocol.
            .statement_cache_capacity(0)
            .options([("statement_timeout", settings.statement_timeout.as_millis().to_string())])
            .options([("search_path", session::SEARCH_PATH)])
            // Notices would be read, and logged, whatever their length.
            .options([("client_min_messages", "error")])
            .disable_statement_logging();
        if let Some(interval) = settings.client_check_interval {
            options = options.options([("client_connection_check_interval", interval.as_millis().to_string())]);
        }
        let endpoint = Endpoint {
            scheme: "postgres",
            host,
            port: options.get_port(),
            database: Some(options.get_database().unwrap_or(database).to_owned()),
        };
        Ok((Self { options }, endpoint))
    }

    pub(crate) async fn connect(
        &self,
        password: Option<&SecretString>,
        database: Option<&str>,
    ) -> Result<(PgConnection, Backend), sqlx::Error> {
        let mark = session::Mark::new();
        let mut options = self.options.clone().options([(session::MARK, mark.text())]);
        if let Some(password) = password {
            options = options.password(password.expose_secret());
        }
        if let Some(database) = database {
            options = options.database(database);
        }
        let mut connection = options.connect().await.map_err(session::explain)?;
        let row = connection.fetch_one(sqlx::raw_sql(session::WHO_AM_I)).await?;
        let backend = backend_of(&row)?;
        mark.check(&row)?;
        Ok((connection, backend))
    }

    /// Whether that login succeeds now.
    pub(crate) async fn authenticate(&self, user: &str, password: &SecretString) -> Result<bool, sqlx::Error> {
        let options = self.options.clone().username(user).password(password.expose_secret());
        match options.connect().await {
            Ok(connection) => {
                // It has answered; how it takes its end is no news.
                let _ = connection.close().await;
                Ok(true)
            }
            Err(sqlx::Error::Database(error))
                if error.code().is_some_and(|code| ACCESS_DENIED.contains(&code.as_ref())) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// The client's word for how the way is protected.
#[must_use]
pub fn ssl_mode(security: Security) -> PgSslMode {
    match security {
        Security::Plain => PgSslMode::Disable,
        Security::Preferred => PgSslMode::Prefer,
        Security::Required => PgSslMode::Require,
        Security::Authority => PgSslMode::VerifyCa,
        Security::Verified => PgSslMode::VerifyFull,
    }
}

fn backend_of(row: &PgRow) -> Result<Backend, sqlx::Error> {
    let text = |column: usize| -> Result<String, sqlx::Error> {
        session::text(row, column)?
            .ok_or_else(|| sqlx::Error::Protocol("pg_stat_activity does not show our own connection".to_owned()))
    };
    let pid = text(0)?.parse().map_err(|_| sqlx::Error::Protocol("not a process id".to_owned()))?;
    Ok(Backend { pid, start: text(1)? })
}

/// Ends a backend process, and waits until it is gone. `false` when it is still there.
pub(crate) async fn end_backend(connection: &mut PgConnection, backend: &Backend) -> Result<bool, sqlx::Error> {
    let mut start = String::new();
    quote::literal(&mut start, &backend.start).map_err(|_| sqlx::Error::Protocol("not a timestamp".to_owned()))?;
    let statement = session::end_backend(backend.pid, &start, SETTLE);
    let row = connection.fetch_optional(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
    match row {
        None => Ok(true),
        Some(row) => Ok(row.try_get_raw(0)?.as_str().is_ok_and(|text| text == "t")),
    }
}

/// A secret as it is placed into a statement.
pub(crate) async fn encode(secret: SecretString, encoding: Encoding) -> Result<Zeroizing<String>, String> {
    match encoding {
        // The server needs no more than the verifier, and no statement that a driver lists can
        // then show the password to anybody.
        Encoding::Plain => Err("PostgreSQL gets passwords as scram-sha-256 verifiers only".to_owned()),
        Encoding::ScramSha256(iterations) if iterations <= INLINE_ITERATIONS => {
            jit_password::scram::verifier(&secret, iterations).map_err(|e| e.to_string())
        }
        Encoding::ScramSha256(iterations) => {
            let computed =
                tokio::task::spawn_blocking(move || jit_password::scram::verifier(&secret, iterations)).await;
            computed.map_err(|_| "the verifier was not computed".to_owned())?.map_err(|e| e.to_string())
        }
        other => Err(foreign(other, Home::Postgres)),
    }
}

/// Sends a batch for its effect.
pub(crate) async fn execute(connection: &mut PgConnection, message: &StatementText) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(message.shared()))).await.map(drop)
}

/// Sends a query for its rows.
pub(crate) async fn query(connection: &mut PgConnection, message: &StatementText, bounds: RowBounds) -> QueryEnd {
    let statement = sqlx::raw_sql(AssertSqlSafe(message.shared()));
    let mut rows = Rows { rows: Vec::new(), truncated: false };
    let mut bytes = 0;
    let mut stream = connection.fetch_many(statement);
    let error = loop {
        match stream.try_next().await {
            Ok(None) => return QueryEnd::Rows(rows),
            Ok(Some(Either::Left(_))) => {}
            Ok(Some(Either::Right(row))) => {
                if rows.rows.len() >= bounds.rows as usize {
                    // The one more that was asked for to know this.
                    rows.truncated = true;
                    continue;
                }
                match texts(&row, bounds.columns) {
                    Ok(texts) => {
                        bytes += texts.iter().flatten().map(String::len).sum::<usize>();
                        rows.rows.push(texts);
                    }
                    // The connection is closed with rows unread; a query changes nothing that
                    // could linger.
                    Err(reason) => return QueryEnd::Cut(reason),
                }
                if bytes > bounds.bytes {
                    return QueryEnd::Cut(format!("the rows have more than the {} bytes that are left", bounds.bytes));
                }
            }
            Err(error) => break error,
        }
    };
    // A query takes no secret.
    match super::dialect::definite(&error, &[]) {
        Some(refused) if refused.message.contains(bounds::ROW_TOO_LONG) => {
            QueryEnd::Unfit(format!("a row has more than the {} bytes that are left", bounds.bytes))
        }
        Some(refused) => QueryEnd::Refused(refused),
        None => QueryEnd::Failed(error),
    }
}

/// The columns of a row as texts.
fn texts(row: &PgRow, most: usize) -> Result<Vec<Option<String>>, String> {
    if row.len() > most {
        return Err(format!("a row has more than {most} columns"));
    }
    (0..row.len())
        .map(|column| {
            let value = row.try_get_raw(column).map_err(|_| "a column cannot be read".to_owned())?;
            if value.is_null() {
                return Ok(None);
            }
            value.as_str().map(|text| Some(text.to_owned())).map_err(|_| "a column is not text".to_owned())
        })
        .collect()
}

/// The server's own no, after which nothing of the batch took effect. `None` when the error leaves
/// that open: a server that ended ours (FATAL, PANIC) perhaps after a commit.
pub(crate) fn definite(error: &PgDatabaseError, placed: &[Zeroizing<String>]) -> Option<ServerError> {
    if matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic) {
        return None;
    }
    // The message alone: detail, hint and context can quote the statement.
    let message = withheld(error.message(), placed).unwrap_or_else(|| escape(error.message(), MESSAGE));
    Some(ServerError { code: escape(error.code(), 5), message })
}

/// Errors after which the same batch can succeed, since the server took all of it back.
pub(crate) fn is_lost_race(error: &ServerError) -> bool {
    match error.code.as_str() {
        // Serialization failure, deadlock.
        "40001" | "40P01" => true,
        "XX000" => {
            error.message.contains("tuple concurrently updated") || error.message.contains("tuple concurrently deleted")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_take_everything_back_are_tried_again() {
        let error = |code: &str, message: &str| ServerError { code: code.to_owned(), message: message.to_owned() };
        assert!(is_lost_race(&error("XX000", "tuple concurrently updated")));
        assert!(is_lost_race(&error("40001", "")));
        assert!(is_lost_race(&error("40P01", "deadlock detected")));
        assert!(!is_lost_race(&error("XX000", "cache lookup failed")));
        assert!(!is_lost_race(&error("42710", "role exists")));
    }
}
