//! Ending sessions.
//!
//! A session belongs to who logged in. The list of processes shows another name while the session is
//! in a routine, trigger or view that runs with its definer's rights, so sessions are found in the
//! performance schema, which keeps the name of the login. MariaDB has it only where it is switched on.

use std::collections::BTreeSet;

use jit_plugin::{Error, Param, Sql, SqlError, Statement, log};

use crate::failure::{self, NO_SUCH_SESSION};
use crate::flavour::Server;
use crate::statements;

/// How often sessions are looked for before the host is told to come back, 50 ms apart.
const LOOKS: usize = 20;

/// Sessions that one query gives.
const PAGE: u32 = 500;

/// Pages of one look. More sessions are found by the next look, when these are gone.
const PAGES: usize = 20;

/// Sessions that one message ends.
const BATCH: usize = 32;

/// A session, and whether it runs no further statement: the server has it rolling back.
type Session = (u64, bool);

/// Ends the sessions of a login whose number is at most `until`: those of an account that cannot log
/// in, or those that were opened before a moment.
///
/// A session that was killed may roll back for hours. It runs no further statement and is not waited
/// for.
pub(crate) fn end(sql: &mut dyn Sql, server: &Server, name: &str, until: u64) -> Result<(), Error> {
    let mut killed = BTreeSet::new();
    let mut unseen = false;
    for look in 0..LOOKS {
        if look > 0 {
            sql.query(None, &statements::WAIT.with([]), 1).map_err(failure::of_read)?;
        }
        let sessions = list(sql, server, name)?;
        let all = sessions.len();
        let living = |(number, ends): &Session| *number <= until && !(*ends && killed.contains(number));
        let living: Vec<u64> = sessions.iter().filter(|session| living(session)).map(|(number, _)| *number).collect();
        if living.is_empty() {
            unseen = until == u64::MAX && server.shows_logins && connections(sql, name)? > all;
            if !unseen {
                return Ok(());
            }
        }
        kill(sql, &living)?;
        killed.extend(living);
    }
    let message = if unseen {
        "the server counts more connections of the account than it lists; retrying"
    } else {
        "sessions of the account have not ended yet"
    };
    log::warn(message, &[("account", name)]);
    Err(Error::retryable(message))
}

/// All sessions of a login, in the order of their numbers.
fn list(sql: &mut dyn Sql, server: &Server, name: &str) -> Result<Vec<Session>, Error> {
    let mut sessions: Vec<Session> = Vec::new();
    let mut statement = if server.shows_logins { statements::SESSIONS } else { statements::SESSIONS_MARIADB };
    let mut page = 0;
    while page < PAGES {
        let after = sessions.last().map_or(0, |(number, _)| *number);
        let after = Param::Number(i64::try_from(after).unwrap_or(i64::MAX));
        let rows = match sql.query(None, &statement.with([Param::Literal(name), after]), PAGE) {
            Ok(answer) => answer.rows,
            // Set up before the driver asked for this. Most sessions show in the other list as well.
            Err(error) if failure::is_denied(&error) && statement.text() == statements::SESSIONS.text() => {
                log::warn("the broker's account may not read performance_schema.threads", &[("account", name)]);
                statement = statements::SESSIONS_MARIADB;
                continue;
            }
            Err(error) => return Err(failure::of_read(error)),
        };
        let found = rows.len();
        for row in rows {
            let [Some(number), ends] = &row[..] else { return Err(strange()) };
            sessions.push((number.parse().map_err(|_| strange())?, ends.as_deref() == Some("Y")));
        }
        if found < PAGE as usize {
            break;
        }
        page += 1;
    }
    Ok(sessions)
}

fn strange() -> Error {
    Error::Other("the server returned a session id that is not a number".into())
}

/// How many connections of a login the server counts.
fn connections(sql: &mut dyn Sql, name: &str) -> Result<usize, Error> {
    let answer = match sql.query(None, &statements::CONNECTIONS.with([Param::Literal(name)]), 1) {
        Ok(answer) => answer,
        Err(error) if failure::is_denied(&error) => return Ok(0),
        Err(error) => return Err(failure::of_read(error)),
    };
    let count = answer.rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
}

/// Ends sessions, some with each message. One that cannot be ended holds up no other.
fn kill(sql: &mut dyn Sql, sessions: &[u64]) -> Result<(), Error> {
    let mut failed = None;
    for batch in sessions.chunks(BATCH) {
        let kill = |number: &u64| statements::KILL.with([Param::Number(i64::try_from(*number).unwrap_or(i64::MAX))]);
        let statements: Vec<Statement<'_>> = batch.iter().map(kill).collect();
        match sql.execute(None, &statements) {
            Ok(()) => continue,
            Err(SqlError::Refused(_)) => {}
            Err(error) => return Err(failure::of_change(error)),
        }
        // One of them is gone, or may not be ended: that ended the batch.
        for statement in &statements {
            match sql.execute(None, std::slice::from_ref(statement)) {
                Ok(()) => {}
                Err(error) if error.code() == Some(NO_SUCH_SESSION) => {}
                Err(SqlError::Refused(server)) => failed = Some(SqlError::Refused(server)),
                Err(error) => return Err(failure::of_change(error)),
            }
        }
    }
    failed.map_or(Ok(()), |error| Err(failure::of_change(error)))
}
