//! The `sql` capability: listed statements on the target's connection.
//!
//! A driver names a template and typed values; the host quotes and sends. A batch is one message
//! where the server runs all of it as one transaction ([`postgres`]), else a message for each
//! statement ([`mysql`]). A query runs in a read-only transaction, so only `execute` can change the
//! backend, and the host knows whether it did.
//!
//! A client that reads a row has it in memory before it can look at it. So the server itself bounds
//! a query's rows and their length, and `execute` brings no rows at all.
//!
//! | module | what it holds |
//! |---|---|
//! | [`connection`] | lanes, pools, deadlines, abandoned statements |
//! | [`dialect`] | what is asked of a dialect |
//! | [`message`] | from statements to the texts that are sent |
//! | [`postgres`], [`mysql`] | the dialects: connecting, quoting, lexical rules, errors, encodings |
//! | [`statements`] | what a driver lists at load |
//! | [`template`], [`quote`] | templates and values, as far as dialects agree |

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{Linker, Resource};
use zeroize::Zeroizing;

use crate::backend::{Session, Unavailable};
use crate::bindings::secrets::Encoding;
use crate::bindings::sql::{Host, Param, Rows, SqlError, Statement, add_to_linker};
use crate::capability::Capability;
use crate::capability::secrets::{self, GuestSecret};
use crate::declared::{Reading, Said, Undeclared};
use crate::meter::Track;
use crate::view::{HasView, View, ViewOf};
use jit_core::driver::Lane;
use jit_core::secret::AccountSecret;

pub(crate) mod bounds;
pub mod connection;
pub mod dialect;
mod message;
pub mod mysql;
pub mod postgres;
pub mod quote;
pub mod statements;
pub mod template;

use bounds::{Purpose, RowBounds};
use connection::{Open, SqlConnection, SqlLease, describe};
use dialect::{Backend, QueryEnd, SqlKind, definite};
pub(crate) use message::StatementText;
use message::{message_each, one_message, withheld};
use statements::Templates;

/// Attempts after the first when the server reports a lost race.
const RETRIES: u32 = 5;

/// Longest message of a server that is passed on, in bytes.
const MESSAGE: usize = 500;

/// Longest name of a login that is tried, in bytes.
const LOGIN: usize = 256;

/// Registers it.
pub(crate) struct SqlCapability;

impl Capability for SqlCapability {
    const LISTS_STATEMENTS: bool = true;

    fn link<T: HasView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, ViewOf<SqlSession>>(linker, |data| data.view().on())
    }

    fn declare(said: &Said<'_>) -> Result<Option<Reading>, Undeclared> {
        if !said.is_imported {
            return Ok(None);
        }
        let templates = Templates::of(said).map_err(|error| Undeclared::Statements(Box::new(error)))?;
        Ok(Some(Arc::new(templates)))
    }
}

/// What a call needs to run statements.
struct SqlSession {
    connection: Arc<SqlConnection>,
    templates: Arc<Templates>,
    lane: Lane,
    /// A connection to another database, kept until the call ends or asks for a third one.
    elsewhere: Option<Elsewhere>,
}

impl Session for SqlSession {}

/// A connection to another database of the server.
struct Elsewhere {
    database: String,
    session: Open,
    _permit: OwnedSemaphorePermit,
}

/// A batch, ready to be sent.
struct Rendered {
    kind: SqlKind,
    /// In order; each takes effect as a whole or not at all.
    messages: Vec<StatementText>,
    /// What stands for a secret in a text: never to be seen in an error.
    placed: Vec<Zeroizing<String>>,
    /// One of them is a password itself.
    is_plain: bool,
}

impl Host for View<'_, SqlSession> {
    async fn execute(
        &mut self,
        database: Option<String>,
        batch: Vec<Statement>,
    ) -> wasmtime::Result<Result<(), SqlError>> {
        self.meter.enter_host(size_of(&database, &batch))?;
        if batch.is_empty() || batch.len() > self.meter.limits.batch {
            let most = self.meter.limits.batch;
            return Ok(Err(SqlError::Denied(format!("a batch must have 1 to {most} statements"))));
        }
        let track = Arc::clone(&self.meter.track);
        let rendered = match track.unmetered(self.render(&batch, Purpose::Execute)).await? {
            Ok(rendered) => rendered,
            Err(denied) => return Ok(Err(denied)),
        };
        let Some(session) = self.session.as_deref_mut() else {
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
        self.meter.enter_host(size_of(&database, &batch))?;
        if batch[0].params.iter().any(|param| matches!(param, Param::Secret(_))) {
            // Its rows go to the guest (BLIND-PLUGIN).
            let reason = "a query takes no secret: its rows could show it".to_owned();
            return Ok(Err(SqlError::Denied(reason)));
        }
        let bounds = RowBounds {
            rows: max_rows.min(self.meter.limits.rows),
            columns: self.meter.limits.columns,
            bytes: self.meter.bytes_left(),
        };
        let track = Arc::clone(&self.meter.track);
        let rendered = match track.unmetered(self.render(&batch, Purpose::Query(bounds))).await? {
            Ok(rendered) => rendered,
            Err(denied) => return Ok(Err(denied)),
        };
        let Some(session) = self.session.as_deref_mut() else {
            return Ok(Err(no_connection()));
        };
        let result = track.unmetered(session.query(database.as_deref(), &rendered, bounds)).await;
        if let Ok(rows) = &result {
            self.meter.count_bytes(bytes_of_rows(rows))?;
        }
        self.answered(result)
    }

    async fn authenticate(
        &mut self,
        user: String,
        password: Resource<GuestSecret>,
    ) -> wasmtime::Result<Result<bool, SqlError>> {
        self.meter.enter_host(user.len())?;
        if user.is_empty() || user.len() > LOGIN || user.contains('\0') {
            return Ok(Err(SqlError::Denied(format!("a login has 1 to {LOGIN} bytes, none of them NUL"))));
        }
        let password = match self.table.get(&password)?.password() {
            Ok(password) => password.clone(),
            Err(reason) => return Ok(Err(SqlError::Denied(reason))),
        };
        let Some(session) = self.session.as_deref() else {
            return Ok(Err(no_connection()));
        };
        let (track, connection) = (Arc::clone(&self.meter.track), Arc::clone(&session.connection));
        let result = track.unmetered(connection.try_login(&user, &password)).await.map_err(unavailable);
        self.answered(result)
    }
}

impl View<'_, SqlSession> {
    /// Counts what an error takes to the guest.
    fn answered<T>(&mut self, result: Result<T, SqlError>) -> wasmtime::Result<Result<T, SqlError>> {
        match &result {
            Ok(_) | Err(SqlError::Refused(_)) => self.meter.track.set_answered(true),
            Err(SqlError::Unavailable(_)) => self.meter.track.set_answered(false),
            Err(SqlError::Unknown(_) | SqlError::Denied(_)) => {}
        }
        let bytes = match &result {
            Ok(_) => 0,
            Err(SqlError::Refused(error)) => error.code.len() + error.message.len(),
            Err(SqlError::Unavailable(text) | SqlError::Unknown(text) | SqlError::Denied(text)) => text.len(),
        };
        self.meter.count_bytes(bytes)?;
        Ok(result)
    }

    /// Puts the values into the templates.
    ///
    /// # Errors
    /// Traps when a handle is not one of this call's.
    async fn render(&mut self, batch: &[Statement], purpose: Purpose) -> wasmtime::Result<Result<Rendered, SqlError>> {
        let Some(session) = self.session.as_deref() else {
            return Ok(Err(no_connection()));
        };
        let templates = Arc::clone(&session.templates);
        let kind = session.connection.kind();
        let mut found = Vec::with_capacity(batch.len());
        for (number, statement) in batch.iter().enumerate() {
            match templates.find(number, statement, kind) {
                Ok(template) => found.push(template),
                Err(reason) => return Ok(Err(SqlError::Denied(reason))),
            }
        }
        // Secrets first: a hash takes time, and the text is then written in one go.
        let mut placed = Vec::new();
        let mut is_plain = false;
        for (statement, template) in batch.iter().zip(&found) {
            for (place, param) in statement.params.iter().enumerate() {
                if let Param::Secret((handle, encoding)) = param {
                    is_plain |= matches!(encoding, Encoding::Plain);
                    let sets_password = template.sets_password(place) && names_an_account(statement);
                    let encoded = match self.table.get(handle)?.account_secret().clone() {
                        AccountSecret::Password(password) => match secrets::ready(&password, *encoding, kind.home()) {
                            Some(stored) => Ok(stored),
                            None => kind.encode(password.text().clone(), *encoding, sets_password).await,
                        },
                        AccountSecret::Verifier(verifier) => {
                            secrets::place(&verifier, *encoding, kind.home(), &self.meter.track)
                        }
                    };
                    match encoded {
                        Ok(text) => placed.push(text),
                        Err(reason) => return Ok(Err(SqlError::Denied(reason))),
                    }
                }
            }
        }
        let statements = batch.iter().zip(found);
        let messages = match kind {
            SqlKind::Postgres => one_message(statements, &placed, purpose, session.lane, &self.meter.on_behalf),
            SqlKind::MySql => message_each(statements, &placed, purpose),
        };
        Ok(messages.map(|messages| Rendered { kind, messages, placed, is_plain }).map_err(SqlError::Denied))
    }
}

/// Whether all but the secret are literals, as in `'user'@'host'`: then the server can read it.
fn names_an_account(statement: &Statement) -> bool {
    statement.params.iter().all(|param| matches!(param, Param::Literal(_) | Param::Secret(_)))
}

impl SqlSession {
    /// Runs a batch; again, from the message that was taken back, when the server lost a race.
    async fn execute(&mut self, track: &Track, database: Option<&str>, batch: &Rendered) -> Result<(), SqlError> {
        let mut attempt = 0;
        let mut done = 0;
        loop {
            let result = self.execute_from(&mut done, track, database, batch).await;
            match result {
                Err(SqlError::Refused(error)) if attempt < RETRIES && batch.kind.is_lost_race(&error) => attempt += 1,
                // Nothing more was sent, but what was sent before took effect.
                Err(SqlError::Unavailable(reason)) if done > 0 => return Err(SqlError::Unknown(reason)),
                other => return other,
            }
            let jitter = rand::rng().random_range(5..=80);
            tokio::time::sleep(Duration::from_millis(jitter)).await;
        }
    }

    /// Runs the messages after the first `done`, and counts on.
    async fn execute_from(
        &mut self,
        done: &mut usize,
        track: &Track,
        database: Option<&str>,
        batch: &Rendered,
    ) -> Result<(), SqlError> {
        let connection = Arc::clone(&self.connection);
        let mut use_ = self.reserve(&connection, database).await.map_err(unavailable)?;
        if batch.is_plain && use_.session().backend.shows_statements() {
            use_.answered();
            let reason = "MariaDB shows passwords in its list of processes: set a hash";
            return Err(SqlError::Denied(reason.to_owned()));
        }
        while let Some(message) = batch.messages.get(*done) {
            // From here on the message may take effect, until the server says that it did not.
            let before = track.set_effect_possible(true);
            match use_.session().wire.execute(message).await {
                Ok(()) => *done += 1,
                Err(error) => match definite(&error, &batch.placed) {
                    Some(refused) => {
                        track.set_effect_possible(before);
                        use_.answered();
                        return Err(SqlError::Refused(refused));
                    }
                    None => return Err(SqlError::Unknown(describe_lost(&error, &batch.placed))),
                },
            }
        }
        use_.answered();
        Ok(())
    }

    /// Runs a query.
    async fn query(&mut self, database: Option<&str>, batch: &Rendered, bounds: RowBounds) -> Result<Rows, SqlError> {
        let Some(message) = batch.messages.first() else {
            return Err(SqlError::Denied("a query is one statement".to_owned()));
        };
        let connection = Arc::clone(&self.connection);
        let mut use_ = self.reserve(&connection, database).await.map_err(unavailable)?;
        match use_.session().wire.query(message, bounds).await {
            QueryEnd::Rows(rows) => {
                use_.answered();
                Ok(rows)
            }
            QueryEnd::Refused(refused) => {
                use_.answered();
                Err(SqlError::Refused(refused))
            }
            QueryEnd::Unfit(reason) => {
                use_.answered();
                Err(SqlError::Denied(reason))
            }
            // The connection is closed with rows unread; a query changes nothing that could linger.
            QueryEnd::Cut(reason) => Err(SqlError::Denied(reason)),
            QueryEnd::Failed(error) => Err(SqlError::Unknown(describe_lost(&error, &batch.placed))),
        }
    }

    /// A connection to the database, for one statement.
    async fn reserve<'a>(
        &'a mut self,
        connection: &'a Arc<SqlConnection>,
        database: Option<&str>,
    ) -> Result<InUse<'a>, Unavailable> {
        let home = connection.endpoint().database.as_deref().unwrap_or_default();
        let other = database.filter(|name| *name != home);
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
    fn session(&mut self) -> &mut Open {
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
    fn session(&mut self) -> &mut Open {
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

fn describe_lost(error: &sqlx::Error, placed: &[Zeroizing<String>]) -> String {
    let said = describe(error);
    let said = withheld(&said, placed).unwrap_or(said);
    format!("the connection was lost after sending: {said}")
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
