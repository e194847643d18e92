//! What holds in each session, whatever anybody made in the database or did to the session.
//!
//! Whoever may create functions in a schema of the broker's `search_path` could have them called in
//! place of the server's own (CVE-2018-1058): an exact match of the argument types is preferred. So
//! the path is the server's own schema alone, given at the start of a session and once more before
//! each message, and what is ours is written with its schema in any case (HOSTILE-TENANT).

use std::time::Duration;

use rand::RngExt as _;
use sqlx::postgres::PgRow;
use sqlx::{Row as _, ValueRef as _};

use crate::capability::sql::bounds::Purpose;
use jit_core::driver::Lane;
use jit_core::trace::OnBehalf;

/// The server's own schema. Temporary tables come last; unnamed, they would come first.
pub(crate) const SEARCH_PATH: &str = "pg_catalog, pg_temp";

/// The setting by which a session is known again. The server keeps it and gives it no meaning.
pub(crate) const MARK: &str = "jit_broker.session";

/// The name of the broker's sessions in `pg_stat_activity` and in the server's log (`%a`). While a message runs, the
/// id of the request or the lease that it runs for stands behind it.
pub(crate) const APPLICATION_NAME: &str = "jit-broker";

/// How long a statement of the removal lane waits for one lock, in milliseconds. Whoever holds it may
/// be the account that is to go: the driver has to be able to do something about it within its call.
const REMOVAL_LOCK_TIMEOUT_MS: u32 = 2_000;

/// Which backend process serves this connection, and whether it has our settings.
pub(crate) const WHO_AM_I: &str = "SELECT a.pid, a.backend_start, \
     pg_catalog.current_setting('jit_broker.session', true), pg_catalog.current_setting('search_path') \
     FROM pg_catalog.pg_stat_activity a WHERE a.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()";

/// Takes back whatever was changed in the session, but for what it was started with. One message is
/// one implicit transaction: the path is local to it.
const AS_IT_BEGAN: &str = "RESET SESSION AUTHORIZATION;\nRESET ROLE;\nRESET ALL;\n\
     SET LOCAL search_path = pg_catalog, pg_temp;\n";

/// A query's transaction is read-only from its start.
const READ_ONLY: &str = "SET TRANSACTION READ ONLY;\n";

/// What stands before the first statement of a message.
pub(crate) fn prelude(purpose: Purpose, lane: Lane, on_behalf: &OnBehalf) -> String {
    let mut prelude = AS_IT_BEGAN.to_owned();
    if let Some(id) = on_behalf.id() {
        prelude.push_str(&format!("SET LOCAL application_name = '{APPLICATION_NAME} {id}';\n"));
    }
    if matches!(lane, Lane::Removal) {
        prelude.push_str(&format!("SET LOCAL lock_timeout = {REMOVAL_LOCK_TIMEOUT_MS};\n"));
    }
    if matches!(purpose, Purpose::Query(_)) {
        prelude.push_str(READ_ONLY);
    }
    prelude
}

/// Ends a backend process and waits for it. `start` is a quoted literal.
pub(crate) fn end_backend(pid: i32, start: &str, wait: Duration) -> String {
    let wait = wait.as_millis();
    format!(
        "{AS_IT_BEGAN}{READ_ONLY}SELECT pg_catalog.pg_terminate_backend(a.pid, {wait}::pg_catalog.int8) \
         FROM pg_catalog.pg_stat_activity a WHERE a.pid OPERATOR(pg_catalog.=) {pid}::pg_catalog.int4 \
         AND a.backend_start OPERATOR(pg_catalog.=) {start}::pg_catalog.timestamptz"
    )
}

/// Tells a session of ours from one that a pooler shares among clients: it gives each session a mark
/// that nothing but the server itself can give back.
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new() -> Self {
        Self(format!("{:032x}", rand::rng().random::<u128>()))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Of a row of [`WHO_AM_I`].
    pub(crate) fn check(&self, row: &PgRow) -> Result<(), sqlx::Error> {
        let is_ours = text(row, 2)?.as_deref() == Some(self.text());
        if is_ours && text(row, 3)?.as_deref() == Some(SEARCH_PATH) {
            return Ok(());
        }
        Err(no_session_of_ours("the session does not have the settings that it was opened with"))
    }
}

/// A pooler refuses start-up settings that it cannot keep.
pub(crate) fn explain(error: sqlx::Error) -> sqlx::Error {
    match &error {
        sqlx::Error::Database(refused) if refused.message().contains("startup parameter") => {
            no_session_of_ours(refused.message())
        }
        _ => error,
    }
}

fn no_session_of_ours(found: &str) -> sqlx::Error {
    sqlx::Error::Protocol(format!(
        "{found}: a connection pooler seems to stand in between. Name PostgreSQL itself in the connection's url \
         (applications may use the pooler)"
    ))
}

/// A column as text.
pub(crate) fn text(row: &PgRow, column: usize) -> Result<Option<String>, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(None);
    }
    value.as_str().map(|text| Some(text.to_owned())).map_err(sqlx::Error::Decode)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jit_core::id::RequestId;

    use super::*;
    use crate::capability::sql::bounds::RowBounds;

    #[test]
    fn each_message_begins_with_the_servers_own_names() {
        let query = Purpose::Query(RowBounds { rows: 1, columns: 1, bytes: 1 });
        for (purpose, lane, read_only, waits) in [
            (Purpose::Execute, Lane::Live, false, false),
            (Purpose::Execute, Lane::Removal, false, true),
            (query, Lane::Live, true, false),
            (query, Lane::Removal, true, true),
        ] {
            let prelude = prelude(purpose, lane, &OnBehalf::default());
            assert!(!prelude.contains("application_name"));
            assert!(prelude.starts_with(AS_IT_BEGAN));
            assert_eq!(prelude.contains("READ ONLY"), read_only);
            assert_eq!(prelude.contains("lock_timeout"), waits);
        }
        let request = RequestId::generate(Timestamp::now());
        let named = prelude(Purpose::Execute, Lane::Live, &OnBehalf::of_request(&request));
        assert!(named.ends_with(&format!("SET LOCAL application_name = 'jit-broker {request}';\n")), "{named}");
        assert!(AS_IT_BEGAN.contains(SEARCH_PATH));
        assert!(end_backend(7, "'x'", Duration::from_secs(1)).contains("READ ONLY"));
    }
}
