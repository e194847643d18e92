//! The `sql` capability: listed statements on the target's connection.
//!
//! A driver names a template and typed values; the host quotes and sends. A batch is one message
//! of the simple protocol, which the server runs as one transaction. A query runs in a read-only
//! transaction, so only `execute` can change the backend, and the host knows whether it did.
//!
//! A client that reads a row has it in memory before it can look at it. So the server itself bounds
//! a query's rows and their length, and `execute` brings no rows at all.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use rand::RngExt as _;
use secrecy::SecretString;
use sqlx::postgres::{PgDatabaseError, PgRow, PgSeverity};
use sqlx::{AssertSqlSafe, Either, Executor as _, Row as _, ValueRef as _};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::Resource;
use zeroize::{Zeroize as _, Zeroizing};

use crate::bindings::secrets::Encoding;
use crate::bindings::sql::{Host, Param, Rows, ServerError, SqlError, Statement};
use crate::call::{Call, Track};
use crate::capability::secrets::GuestSecret;
use crate::driver::Lane;
use crate::text::escape;

pub(crate) mod bounds;
pub mod connection;
pub mod quote;
pub mod scram;
pub mod template;

use bounds::{Purpose, ROW_TOO_LONG, RowBounds};
use connection::{Backend, MESSAGE, Session, SqlConnection, SqlLease, Unavailable, describe};
use quote::QuoteError;
use template::Template;

/// Attempts after the first when the server reports a lost race.
const RETRIES: u32 = 5;

/// Above that many iterations a verifier is computed on a thread for blocking work.
const INLINE_ITERATIONS: u32 = 1_000;

/// So many bytes of a secret in a row are a part of it.
const PART: usize = 4;

/// What a call needs to run statements.
pub(crate) struct SqlSession {
    pub(crate) connection: Arc<SqlConnection>,
    pub(crate) templates: Arc<Templates>,
    pub(crate) lane: Lane,
    /// A connection to another database, kept until the call ends or asks for a third one.
    pub(crate) elsewhere: Option<Elsewhere>,
}

/// A connection to another database of the server.
pub(crate) struct Elsewhere {
    database: String,
    session: Session,
    _permit: OwnedSemaphorePermit,
}

/// The statements of a driver, as it listed them at load.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    listed: std::collections::HashMap<String, Template>,
}

impl Templates {
    pub(crate) fn new(templates: Vec<Template>) -> Self {
        Self { listed: templates.into_iter().map(|t| (t.text().to_owned(), t)).collect() }
    }

    /// Their texts, in alphabetical order.
    pub(crate) fn texts(&self) -> Vec<String> {
        let mut texts: Vec<_> = self.listed.keys().cloned().collect();
        texts.sort();
        texts
    }
}

/// A statement's text; wiped when nobody needs it any more, since it may hold a secret.
struct StatementText(Arc<String>);

impl Drop for StatementText {
    fn drop(&mut self) {
        // sqlx has dropped its share by then; when not, wiping is its memory's turn.
        if let Some(text) = Arc::get_mut(&mut self.0) {
            text.zeroize();
        }
    }
}

/// A batch, ready to be sent.
struct Rendered {
    text: StatementText,
    /// What stands for a secret in the text: never to be seen in an error.
    placed: Vec<Zeroizing<String>>,
}

impl Host for Call {
    async fn execute(
        &mut self,
        database: Option<String>,
        batch: Vec<Statement>,
    ) -> wasmtime::Result<Result<(), SqlError>> {
        self.enter_host(size_of(&database, &batch))?;
        if batch.is_empty() || batch.len() > self.limits.batch {
            let most = self.limits.batch;
            return Ok(Err(SqlError::Denied(format!("a batch must have 1 to {most} statements"))));
        }
        let track = Arc::clone(&self.track);
        let rendered = match track.unmetered(self.render(&batch, Purpose::Execute)).await? {
            Ok(rendered) => rendered,
            Err(denied) => return Ok(Err(denied)),
        };
        let Some(session) = &mut self.sql else {
            return Ok(Err(no_connection()));
        };
        let result = track.unmetered(session.execute(&track, database.as_deref(), &rendered)).await;
        self.answered(result)
    }

    async fn query(
        &mut self,
        database: Option<String>,
        statement: Statement,
        max_rows: u32,
    ) -> wasmtime::Result<Result<Rows, SqlError>> {
        let batch = [statement];
        self.enter_host(size_of(&database, &batch))?;
        if batch[0].params.iter().any(|param| matches!(param, Param::Secret(_))) {
            // Its rows go to the guest (BLIND-PLUGIN).
            let reason = "a query takes no secret: its rows could show it".to_owned();
            return Ok(Err(SqlError::Denied(reason)));
        }
        let bounds =
            RowBounds { rows: max_rows.min(self.limits.rows), columns: self.limits.columns, bytes: self.bytes_left() };
        let track = Arc::clone(&self.track);
        let rendered = match track.unmetered(self.render(&batch, Purpose::Query(bounds))).await? {
            Ok(rendered) => rendered,
            Err(denied) => return Ok(Err(denied)),
        };
        let Some(session) = &mut self.sql else {
            return Ok(Err(no_connection()));
        };
        let result = track.unmetered(session.query(database.as_deref(), &rendered, bounds)).await;
        if let Ok(rows) = &result {
            self.count_bytes(bytes_of_rows(rows))?;
        }
        self.answered(result)
    }

    async fn authenticate(
        &mut self,
        user: String,
        _password: Resource<GuestSecret>,
    ) -> wasmtime::Result<Result<bool, SqlError>> {
        self.enter_host(user.len())?;
        Ok(Err(SqlError::Denied("this server's logins cannot be tried".to_owned())))
    }
}

impl Call {
    /// Counts what an error takes to the guest.
    fn answered<T>(&mut self, result: Result<T, SqlError>) -> wasmtime::Result<Result<T, SqlError>> {
        let bytes = match &result {
            Ok(_) => 0,
            Err(SqlError::Refused(error)) => error.code.len() + error.message.len(),
            Err(SqlError::Unavailable(text) | SqlError::Unknown(text) | SqlError::Denied(text)) => text.len(),
        };
        self.count_bytes(bytes)?;
        Ok(result)
    }

    /// Puts the values into the templates.
    ///
    /// # Errors
    /// Traps when a handle is not one of this call's.
    async fn render(&mut self, batch: &[Statement], purpose: Purpose) -> wasmtime::Result<Result<Rendered, SqlError>> {
        let Some(session) = &self.sql else {
            return Ok(Err(no_connection()));
        };
        let templates = Arc::clone(&session.templates);
        let mut placed = Vec::new();
        // Secrets first: a verifier takes time, and the text is then written in one go.
        for param in batch.iter().flat_map(|statement| &statement.params) {
            if let Param::Secret((handle, encoding)) = param {
                let secret = self.table.get(handle)?.0.clone();
                match encode(secret, *encoding).await {
                    Ok(text) => placed.push(text),
                    Err(reason) => return Ok(Err(SqlError::Denied(reason))),
                }
            }
        }
        // Reserved at once, so that no reallocation leaves a copy of a secret behind.
        let room = purpose.prelude().len() + room_for(batch, &placed);
        let mut text = Zeroizing::new(String::with_capacity(room));
        text.push_str(purpose.prelude());
        let mut next_secret = placed.iter();
        for (number, statement) in batch.iter().enumerate() {
            if number > 0 {
                // On a line of its own: a template may end in a comment.
                text.push_str("\n;\n");
            }
            let Some(template) = templates.listed.get(&statement.template) else {
                let shown = escape(&statement.template, 80);
                return Ok(Err(SqlError::Denied(format!("statement {number} is not a listed template: {shown}"))));
            };
            let (takes, given) = (template.parameters(), statement.params.len());
            if takes != given {
                return Ok(Err(SqlError::Denied(format!(
                    "statement {number} takes {takes} parameters, {given} given"
                ))));
            }
            let (before, after) = match purpose.around(template) {
                Ok(around) => around,
                Err(reason) => return Ok(Err(SqlError::Denied(format!("statement {number} {reason}")))),
            };
            text.push_str(before);
            let filled =
                template.render(&mut text, |out, place| write(out, &statement.params[place], &mut next_secret));
            text.push_str(&after);
            if let Err(error) = filled {
                return Ok(Err(SqlError::Denied(format!("statement {number}: {error}"))));
            }
        }
        let text = StatementText(Arc::new(std::mem::take(&mut *text)));
        Ok(Ok(Rendered { text, placed }))
    }
}

/// Writes one parameter.
fn write<'a>(
    out: &mut String,
    param: &Param,
    secrets: &mut impl Iterator<Item = &'a Zeroizing<String>>,
) -> Result<(), QuoteError> {
    match param {
        Param::Ident(name) => quote::ident(out, name),
        Param::Idents(names) => quote::list(out, names, quote::ident),
        Param::Literal(value) => quote::literal(out, value),
        Param::Literals(values) => quote::list(out, values, quote::literal),
        Param::Number(number) => {
            out.push_str(&number.to_string());
            Ok(())
        }
        Param::Timestamp(seconds) => quote::timestamp(out, *seconds),
        // One was prepared for each, in this order.
        Param::Secret(_) => secrets.next().map_or(Err(QuoteError::Nul), |secret| quote::literal(out, secret)),
    }
}

/// A secret as it is placed into a statement.
async fn encode(secret: SecretString, encoding: Encoding) -> Result<Zeroizing<String>, String> {
    match encoding {
        // The server needs no more than the verifier, and no statement that a driver lists can
        // then show the password to anybody.
        Encoding::Plain => Err("PostgreSQL gets passwords as scram-sha-256 verifiers only".to_owned()),
        Encoding::ScramSha256(iterations) if iterations <= INLINE_ITERATIONS => {
            scram::verifier(&secret, iterations).map_err(|e| e.to_string())
        }
        Encoding::ScramSha256(iterations) => {
            let computed = tokio::task::spawn_blocking(move || scram::verifier(&secret, iterations)).await;
            computed.map_err(|_| "the verifier was not computed".to_owned())?.map_err(|e| e.to_string())
        }
        Encoding::Utf16leQuoted | Encoding::SaltedSha1 => Err("an encoding of LDAP, not of SQL".to_owned()),
        Encoding::CachingSha2 | Encoding::MysqlNative => Err("an encoding of MySQL, not of PostgreSQL".to_owned()),
    }
}

impl SqlSession {
    /// Runs a batch, again when the server lost a race.
    async fn execute(&mut self, track: &Track, database: Option<&str>, batch: &Rendered) -> Result<(), SqlError> {
        let mut attempt = 0;
        loop {
            let result = self.execute_once(track, database, batch).await;
            match result {
                Err(SqlError::Refused(error)) if attempt < RETRIES && is_lost_race(&error) => attempt += 1,
                other => return other,
            }
            let jitter = rand::rng().random_range(5..=80);
            tokio::time::sleep(Duration::from_millis(jitter)).await;
        }
    }

    async fn execute_once(&mut self, track: &Track, database: Option<&str>, batch: &Rendered) -> Result<(), SqlError> {
        let connection = Arc::clone(&self.connection);
        let mut use_ = self.reserve(&connection, database).await.map_err(unavailable)?;
        // From here on the batch may take effect, until the server says that it did not.
        let before = track.set_effect_possible(true);
        let sent = use_.session().connection.execute(sqlx::raw_sql(AssertSqlSafe(Arc::clone(&batch.text.0)))).await;
        match sent {
            Ok(_) => {
                use_.answered();
                Ok(())
            }
            Err(error) => match definite(&error, &batch.placed) {
                Some(refused) => {
                    track.set_effect_possible(before);
                    use_.answered();
                    Err(SqlError::Refused(refused))
                }
                None => Err(SqlError::Unknown(describe_lost(&error))),
            },
        }
    }

    /// Runs a query.
    async fn query(&mut self, database: Option<&str>, batch: &Rendered, bounds: RowBounds) -> Result<Rows, SqlError> {
        let connection = Arc::clone(&self.connection);
        let mut use_ = self.reserve(&connection, database).await.map_err(unavailable)?;
        let statement = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&batch.text.0)));
        let mut rows = Rows { rows: Vec::new(), truncated: false };
        let mut bytes = 0;
        let mut stream = use_.session().connection.fetch_many(statement);
        let end = loop {
            match stream.try_next().await {
                Ok(None) => break End::Complete,
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
                        Err(reason) => break End::Denied(reason),
                    }
                    if bytes > bounds.bytes {
                        break End::Denied(format!("the rows have more than the {} bytes that are left", bounds.bytes));
                    }
                }
                Err(error) => break End::Failed(error),
            }
        };
        drop(stream);
        match end {
            End::Complete => {
                use_.answered();
                Ok(rows)
            }
            // The connection is closed with rows unread; a query changes nothing that could linger.
            End::Denied(reason) => Err(SqlError::Denied(reason)),
            End::Failed(error) => match definite(&error, &batch.placed) {
                Some(refused) => {
                    use_.answered();
                    if refused.message.contains(ROW_TOO_LONG) {
                        let reason = format!("a row has more than the {} bytes that are left", bounds.bytes);
                        return Err(SqlError::Denied(reason));
                    }
                    Err(SqlError::Refused(refused))
                }
                None => Err(SqlError::Unknown(describe_lost(&error))),
            },
        }
    }

    /// A connection to the database, for one statement.
    async fn reserve<'a>(
        &'a mut self,
        connection: &'a Arc<SqlConnection>,
        database: Option<&str>,
    ) -> Result<InUse<'a>, Unavailable> {
        let other = database.filter(|name| *name != connection.endpoint().database);
        let Some(database) = other else {
            let lease = connection.acquire(self.lane).await?;
            return Ok(InUse::new(connection, Place::Home(lease)));
        };
        let kept = self.elsewhere.take().filter(|kept| kept.database == database);
        let elsewhere = match kept {
            Some(kept) => kept,
            None => {
                let (session, permit) = connection.elsewhere(database).await?;
                Elsewhere { database: database.to_owned(), session, _permit: permit }
            }
        };
        Ok(InUse::new(connection, Place::Elsewhere { slot: &mut self.elsewhere, elsewhere }))
    }
}

/// A connection with a statement on its way. Dropped before [`InUse::answered`], the connection is
/// closed and its backend process is noted as abandoned.
struct InUse<'a> {
    connection: &'a Arc<SqlConnection>,
    backend: Backend,
    place: Option<Place<'a>>,
}

enum Place<'a> {
    Home(SqlLease<'a>),
    Elsewhere { slot: &'a mut Option<Elsewhere>, elsewhere: Elsewhere },
}

impl<'a> InUse<'a> {
    fn new(connection: &'a Arc<SqlConnection>, mut place: Place<'a>) -> Self {
        let backend = place.session().backend.clone();
        Self { connection, backend, place: Some(place) }
    }

    #[expect(clippy::expect_used, reason = "only answered takes the place, and it consumes self")]
    fn session(&mut self) -> &mut Session {
        self.place.as_mut().expect("in use until answered").session()
    }

    /// The server has answered: the connection can be used again.
    fn answered(mut self) {
        match self.place.take() {
            Some(Place::Home(lease)) => lease.give_back(),
            Some(Place::Elsewhere { slot, elsewhere }) => *slot = Some(elsewhere),
            None => {}
        }
    }
}

impl Place<'_> {
    fn session(&mut self) -> &mut Session {
        match self {
            Self::Home(lease) => lease.session(),
            Self::Elsewhere { elsewhere, .. } => &mut elsewhere.session,
        }
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.connection.abandon(self.backend.clone());
        }
    }
}

/// How the reading of rows ended.
enum End {
    Complete,
    Denied(String),
    Failed(sqlx::Error),
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
/// that open: a lost connection, or a server that ended ours (FATAL, PANIC) perhaps after a commit.
fn definite(error: &sqlx::Error, placed: &[Zeroizing<String>]) -> Option<ServerError> {
    let sqlx::Error::Database(error) = error else {
        return None;
    };
    let error = error.try_downcast_ref::<PgDatabaseError>()?;
    if matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic) {
        return None;
    }
    // The message alone: detail, hint and context can quote the statement.
    let message = if placed.iter().any(|secret| quotes(error.message(), secret)) {
        "(message withheld: it quotes a secret)".to_owned()
    } else {
        escape(error.message(), MESSAGE)
    };
    Some(ServerError { code: escape(error.code(), 5), message })
}

/// Whether a message holds the secret or a part of it.
fn quotes(message: &str, secret: &str) -> bool {
    let message = message.as_bytes();
    let part = secret.len().min(PART);
    part > 0 && secret.as_bytes().windows(part).any(|part| message.windows(part.len()).any(|w| w == part))
}

fn describe_lost(error: &sqlx::Error) -> String {
    format!("the connection was lost after sending: {}", describe(error))
}

/// Errors after which the same batch can succeed, since the server took all of it back.
fn is_lost_race(error: &ServerError) -> bool {
    match error.code.as_str() {
        // Serialization failure, deadlock.
        "40001" | "40P01" => true,
        "XX000" => {
            error.message.contains("tuple concurrently updated") || error.message.contains("tuple concurrently deleted")
        }
        _ => false,
    }
}

fn unavailable(error: Unavailable) -> SqlError {
    SqlError::Unavailable(error.0)
}

fn no_connection() -> SqlError {
    SqlError::Denied("this target has no SQL connection".to_owned())
}

/// Bytes that a call brings from the guest.
fn size_of(database: &Option<String>, batch: &[Statement]) -> usize {
    let params = |param: &Param| match param {
        Param::Ident(text) | Param::Literal(text) => text.len(),
        Param::Idents(list) | Param::Literals(list) => list.iter().map(|text| text.len() + 8).sum(),
        Param::Number(_) | Param::Timestamp(_) | Param::Secret(_) => 8,
    };
    let statements = batch.iter().map(|s| s.template.len() + s.params.iter().map(|p| params(p) + 8).sum::<usize>());
    database.as_ref().map_or(0, String::len) + statements.sum::<usize>()
}

fn bytes_of_rows(rows: &Rows) -> usize {
    rows.rows.iter().map(|row| row.iter().map(|text| 8 + text.as_ref().map_or(0, String::len)).sum::<usize>()).sum()
}

/// Room for what stands around one statement.
const AROUND: usize = 320;

/// More than enough room for the rendered text: every character doubled, quotes and separators.
fn room_for(batch: &[Statement], placed: &[Zeroizing<String>]) -> usize {
    let params: usize = batch
        .iter()
        .flat_map(|s| &s.params)
        .map(|p| match p {
            Param::Ident(text) | Param::Literal(text) => 2 * text.len() + 8,
            Param::Idents(list) | Param::Literals(list) => list.iter().map(|text| 2 * text.len() + 8).sum(),
            Param::Number(_) | Param::Timestamp(_) | Param::Secret(_) => 40,
        })
        .sum();
    let templates: usize = batch.iter().map(|s| s.template.len() + AROUND).sum();
    let secrets: usize = placed.iter().map(|secret| 2 * secret.len() + 8).sum();
    params + templates + secrets
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
    fn only_errors_that_take_everything_back_are_tried_again() {
        let error = |code: &str, message: &str| ServerError { code: code.to_owned(), message: message.to_owned() };
        assert!(is_lost_race(&error("XX000", "tuple concurrently updated")));
        assert!(is_lost_race(&error("40001", "")));
        assert!(is_lost_race(&error("40P01", "deadlock detected")));
        assert!(!is_lost_race(&error("XX000", "cache lookup failed")));
        assert!(!is_lost_race(&error("42710", "role exists")));
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
