//! MySQL and MariaDB.
//!
//! Each statement is a message and a transaction of its own: what changes accounts commits by
//! itself. A query is one message that begins a read-only transaction, reads and ends it.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow, MySqlSslMode};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Either, Executor as _, Row as _, SqlSafeStr as _,
    Statement as _,
};
use url::Url;

use super::connection::{SETTLE, SqlConnectionOptions, without_brackets};
use super::dialect::QueryEnd;
use super::{RowBounds, StatementText};
use crate::backend::Endpoint;
use crate::bindings::sql::Rows;
use jit_core::driver::Lane;
use jit_core::transport::{self, Security, Spoken};

pub(crate) mod bounds;
pub(crate) mod error;
pub(crate) mod hash;
pub(crate) mod lexer;
pub mod quote;

/// The port when the URL says none.
const PORT: u16 = 3306;

/// How long a look whether an ended connection is gone waits for the next one.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How connections to the server are opened.
pub(crate) struct Dialer {
    options: MySqlConnectOptions,
    statement_timeout: Duration,
}

/// A connection as the server sees it. Its number is not used again before the server restarts; the
/// client's address and port tell it from a later one after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    id: u64,
    user: String,
    host: String,
    pub(super) is_mariadb: bool,
}

impl Dialer {
    /// Reads the settings.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(settings: &SqlConnectionOptions) -> Result<(Self, Endpoint), String> {
        let url = &settings.url;
        if url.scheme() != "mysql" {
            return Err("the URL must begin with mysql://".to_owned());
        }
        if url.password().is_some() {
            return Err("the URL must not hold a password: give it as a secret".to_owned());
        }
        if url.username().is_empty() {
            return Err("the URL must name the user: mysql://user@host".to_owned());
        }
        if url.query_pairs().any(|(key, _)| key == "password") {
            return Err("the URL must not hold a password: give it as a secret".to_owned());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost");
        // `caching_sha2_password` gives the password itself to whoever answers at the other end of the
        // encryption.
        let security =
            transport::security(Spoken::MySql, url, settings.plaintext, false).map_err(|wrong| wrong.to_string())?;
        // sqlx's own text is not passed on: it could quote the URL.
        let read = |url: &Url| MySqlConnectOptions::from_url(url).map_err(|_| "the URL is not a MySQL URL".to_owned());
        let named = read(url)?.get_database().filter(|name| !name.is_empty()).map(str::to_owned);
        // Accounts belong to the server: the broker's own needs no privilege in any database. The one
        // that the URL names is where applications go.
        let mut server = url.clone();
        server.set_path("");
        let host = without_brackets(host);
        let options = read(&server)?
            .host(host)
            // No prepared statements are kept: all is sent as text.
            .statement_cache_capacity(0)
            // `prepare` below sets what it needs, all at once.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .set_names(false)
            .ssl_mode(ssl_mode(security))
            .disable_statement_logging();
        let endpoint =
            Endpoint { scheme: "mysql", host: host.to_owned(), port: url.port().unwrap_or(PORT), database: named };
        Ok((Self { options, statement_timeout: settings.statement_timeout }, endpoint))
    }

    pub(crate) async fn connect(
        &self,
        password: Option<&SecretString>,
        database: Option<&str>,
        lane: Lane,
    ) -> Result<(MySqlConnection, Backend), sqlx::Error> {
        let mut options = self.options.clone();
        if let Some(password) = password {
            options = options.password(password.expose_secret());
        }
        if let Some(database) = database {
            options = options.database(database);
        }
        let mut connection = options.connect().await?;
        let row = connection.fetch_one(sqlx::raw_sql(WHO_AM_I)).await?;
        let id = text(&row, 0)?.parse().map_err(|_| sqlx::Error::Protocol("not a connection id".to_owned()))?;
        let is_mariadb = text(&row, 3)?.to_ascii_lowercase().contains("mariadb");
        let backend = Backend { id, user: text(&row, 1)?, host: text(&row, 2)?, is_mariadb };
        connection.execute(sqlx::raw_sql(AssertSqlSafe(session(is_mariadb, self.statement_timeout, lane)))).await?;
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
            Err(error) if error::number(&error).is_some_and(|number| error::ACCESS_DENIED.contains(&number)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// The client's word for how the way is protected.
#[must_use]
pub fn ssl_mode(security: Security) -> MySqlSslMode {
    match security {
        Security::Plain => MySqlSslMode::Disabled,
        Security::Preferred => MySqlSslMode::Preferred,
        Security::Required => MySqlSslMode::Required,
        Security::Authority => MySqlSslMode::VerifyCa,
        Security::Verified => MySqlSslMode::VerifyIdentity,
    }
}

/// Which connection of the server's this is.
const WHO_AM_I: &str = "SELECT CAST(p.id AS CHAR), p.user, p.host, VERSION() \
                        FROM information_schema.processlist p WHERE p.id = CONNECTION_ID()";

/// Modes with which all is quoted and checked the same way on every server. None of them is
/// `ANSI_QUOTES`, `NO_BACKSLASH_ESCAPES` or `PIPES_AS_CONCAT`.
const MODES: &str = "ONLY_FULL_GROUP_BY,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,\
                     ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";

/// How long a statement of a removal waits for a lock, in whole seconds. An account may hold one that
/// is in the way: its driver then ends the sessions first and comes back.
const REMOVAL_LOCK_WAIT: u64 = 2;

/// The same for MariaDB's whole statements: some of its waits for a lock end by no other limit
/// (`ALTER USER` under `FLUSH TABLES WITH READ LOCK`).
const REMOVAL_STATEMENT: u64 = 4;

/// What a connection needs before anything else is sent on it.
fn session(is_mariadb: bool, statement_timeout: Duration, lane: Lane) -> String {
    let most = |seconds: u64| match lane {
        Lane::Live => u64::MAX,
        Lane::Removal => seconds,
    };
    let seconds = statement_timeout.as_secs().max(1);
    let lock_wait = seconds.min(most(REMOVAL_LOCK_WAIT));
    let (modes, limit) = if is_mariadb {
        // Here GRANT could make an account.
        (format!("{MODES},NO_AUTO_CREATE_USER"), format!("max_statement_time={}", seconds.min(most(REMOVAL_STATEMENT))))
    } else {
        (MODES.to_owned(), format!("max_execution_time={}", statement_timeout.as_millis().max(1)))
    };
    format!(
        "SET sql_mode='{modes}', time_zone='+00:00', autocommit=1, sql_select_limit=DEFAULT, \
         lock_wait_timeout={lock_wait}, innodb_lock_wait_timeout={lock_wait}, {limit}, NAMES utf8mb4"
    )
}

/// Ends a connection, and waits until it is gone. `false` when it is still there.
pub(crate) async fn end_backend(connection: &mut MySqlConnection, backend: &Backend) -> Result<bool, sqlx::Error> {
    let Backend { id, user, host, .. } = backend;
    let mut look = format!("SELECT 1 FROM information_schema.processlist WHERE id = {id} AND user = ");
    let quoted = quote::literal(&mut look, user).and_then(|()| {
        look.push_str(" AND host = ");
        quote::literal(&mut look, host)
    });
    quoted.map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
    let mut waited = Duration::ZERO;
    while waited < SETTLE {
        // Its own connections can be seen and ended by an account without any privilege.
        if connection.fetch_optional(sqlx::raw_sql(AssertSqlSafe(look.clone()))).await?.is_none() {
            return Ok(true);
        }
        let kill = format!("KILL CONNECTION {id}");
        match connection.execute(sqlx::raw_sql(AssertSqlSafe(kill))).await {
            Ok(_) => {}
            Err(error) if error::number(&error) == Some(error::NO_SUCH_THREAD) => return Ok(true),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        waited += LOOK_AGAIN;
    }
    Ok(false)
}

/// Sends one statement for its effect.
pub(crate) async fn execute(connection: &mut MySqlConnection, message: &StatementText) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(message.shared()))).await.map(drop)
}

/// Sends one statement for its rows.
pub(crate) async fn query(connection: &mut MySqlConnection, message: &StatementText, bounds: RowBounds) -> QueryEnd {
    // How many columns it has decides how it is bounded. Nothing is run for that.
    let columns = match connection.prepare(AssertSqlSafe(message.shared()).into_sql_str()).await {
        Ok(prepared) => prepared.columns().len(),
        Err(error) => return failed(connection, error, false).await,
    };
    if columns > bounds.columns {
        return QueryEnd::Unfit(format!("a row has more than {} columns", bounds.columns));
    }
    let statement = bounds::within(message.text(), columns, bounds);
    let mut rows = Rows { rows: Vec::new(), truncated: false };
    let mut bytes = 0;
    let mut stream = connection.fetch_many(sqlx::raw_sql(AssertSqlSafe(statement)));
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
                match texts(&row, columns) {
                    Ok(Some(texts)) => {
                        bytes += texts.iter().flatten().map(String::len).sum::<usize>();
                        rows.rows.push(texts);
                    }
                    Ok(None) => {
                        return QueryEnd::Cut(format!("a row has more than the {} bytes that are left", bounds.bytes));
                    }
                    Err(reason) => return QueryEnd::Cut(reason),
                }
                if bytes > bounds.bytes {
                    return QueryEnd::Cut(format!("the rows have more than the {} bytes that are left", bounds.bytes));
                }
            }
            Err(error) => break error,
        }
    };
    drop(stream);
    failed(connection, error, true).await
}

/// After an error of a query: ends the transaction, so that the connection is as it was.
async fn failed(connection: &mut MySqlConnection, error: sqlx::Error, in_transaction: bool) -> QueryEnd {
    // A query takes no secret.
    let Some(refused) = super::dialect::definite(&error, &[]) else {
        return QueryEnd::Failed(error);
    };
    if in_transaction && let Err(lost) = connection.execute(sqlx::raw_sql("ROLLBACK")).await {
        return QueryEnd::Failed(lost);
    }
    QueryEnd::Refused(refused)
}

/// The columns of a row as texts; none for one that is too long.
fn texts(row: &MySqlRow, columns: usize) -> Result<Option<Vec<Option<String>>>, String> {
    if column(row, columns)?.is_none_or(|fits| fits != "1") {
        return Ok(None);
    }
    let texts = (0..columns).map(|place| Ok(column(row, place)?.map(str::to_owned)));
    texts.collect::<Result<_, String>>().map(Some)
}

fn column(row: &MySqlRow, place: usize) -> Result<Option<&str>, String> {
    let bytes: Option<&[u8]> = row.try_get_unchecked(place).map_err(|_| "a column cannot be read".to_owned())?;
    bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| "a column is not text".to_owned())).transpose()
}

/// A column of a row of our own.
fn text(row: &MySqlRow, place: usize) -> Result<String, sqlx::Error> {
    let text = column(row, place).map_err(sqlx::Error::Protocol)?;
    text.map(str::to_owned).ok_or_else(|| sqlx::Error::Protocol("the server does not show our connection".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::capability::sql::dialect::SqlKind;

    fn dialer(url: &str) -> Result<Endpoint, String> {
        let mut options = SqlConnectionOptions::new("c", Url::parse(url).unwrap(), None);
        options.kind = SqlKind::MySql;
        Dialer::new(&options).map(|(_, endpoint)| endpoint)
    }

    #[test]
    fn another_machine_is_spoken_to_only_with_a_checked_certificate() {
        for url in [
            "mysql://u@db.example",
            "mysql://u@db.example?ssl-mode=VERIFY_IDENTITY&ssl-ca=/ca.pem",
            "mysql://u@10.0.0.7/inventory?ssl-mode=verify_identity",
            "mysql://u@127.0.0.1",
            "mysql://u@localhost?ssl-mode=DISABLED",
            "mysql://u@[::1]:3307?ssl-mode=REQUIRED",
            "mysql://u@localhost?socket=/run/mysqld.sock",
        ] {
            assert!(dialer(url).is_ok(), "{url}");
        }
        for mode in ["DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA"] {
            let error = dialer(&format!("mysql://u@db.example?ssl-mode={mode}")).unwrap_err();
            assert!(error.contains("VERIFY_IDENTITY"), "{mode}: {error}");
        }
    }

    #[test]
    fn settings_are_checked() {
        for (url, word) in [
            ("postgres://u@localhost", "mysql://"),
            ("mysql://u:canary@localhost", "must not hold a password"),
            ("mysql://u@localhost?password=canary", "must not hold a password"),
            ("mysql://localhost", "name the user"),
            ("mysql://u@localhost?sslmode=DISABLED", "settings may be"),
            ("mysql://u@localhost?timezone=x", "settings may be"),
            ("mysql://u@localhost?ssl-mode=maybe", "`ssl-mode` must be"),
        ] {
            let error = dialer(url).unwrap_err();
            assert!(error.contains(word) && !error.contains("canary"), "{url}: {error}");
        }
        assert_eq!(dialer("mysql://u@[::1]:3307").unwrap().host, "::1");
        let endpoint = dialer("mysql://u@localhost").unwrap();
        assert_eq!((endpoint.port, endpoint.database), (3306, None));
        assert_eq!(dialer("mysql://u@localhost:3307/inventory").unwrap().database.unwrap(), "inventory");
    }

    #[test]
    fn a_session_bounds_each_statement_the_servers_way() {
        let of = |is_mariadb| session(is_mariadb, Duration::from_millis(1_500), Lane::Live);
        assert!(of(false).contains("max_execution_time=1500,") && of(false).contains("lock_wait_timeout=1,"));
        assert!(of(true).contains("max_statement_time=1,") && of(true).contains("NO_AUTO_CREATE_USER"));
        assert!(!of(false).contains("ANSI") && !of(false).contains("BACKSLASH"));
        let removal = |is_mariadb| session(is_mariadb, Duration::from_secs(30), Lane::Removal);
        for is_mariadb in [false, true] {
            assert!(removal(is_mariadb).contains(" lock_wait_timeout=2, innodb_lock_wait_timeout=2,"));
        }
        assert!(
            removal(true).contains("max_statement_time=4,") && removal(false).contains("max_execution_time=30000,")
        );
    }
}
