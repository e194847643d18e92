//! Removing an account, so that each step can be the last and the next call goes on:
//!
//! 1. it cannot log in any more;
//! 2. its sessions are ended: they outlive their account otherwise;
//! 3. the account is dropped, with every host part that it has;
//! 4. sessions are looked for once more: a login may have been under way.

use jit_plugin::{Account, Error, Param, Sql, SqlError, log};

use crate::config::TargetConfig;
use crate::failure::{self, IS_DEFINER, NO_SUCH_SESSION};
use crate::statements;

/// How often sessions are looked for before the host is told to come back, 50 ms apart.
const LOOKS: usize = 20;

/// Sessions that one look gives.
const SESSIONS: u32 = 200;

/// Host parts of one name that are looked at.
const HOSTS: u32 = 16;

/// Things that an error names.
const NAMED: u32 = 20;

pub(crate) fn revoke(sql: &mut dyn Sql, target: &TargetConfig, account: &Account) -> Result<(), Error> {
    let name = account.name.as_str();
    let hosts = column(sql.query(None, &statements::HOSTS.with([Param::Literal(name)]), HOSTS))?;
    for host in &hosts {
        let lock = statements::LOCK.with([Param::Literal(name), Param::Literal(host)]);
        sql.execute(None, &[lock]).map_err(failure::of_change)?;
    }
    if target.terminate_sessions {
        end_sessions(sql, name)?;
    }
    if hosts.is_empty() {
        return Ok(());
    }
    for host in &hosts {
        let drop = statements::DROP.with([Param::Literal(name), Param::Literal(host)]);
        match sql.execute(None, &[drop]) {
            Ok(()) => {}
            Err(SqlError::Refused(server)) if server.code == IS_DEFINER => {
                return Err(dependents(sql, name, host, server.message));
            }
            Err(error) => return Err(failure::of_change(error)),
        }
    }
    if target.terminate_sessions {
        end_sessions(sql, name)?;
    }
    Ok(())
}

/// Ends the sessions of an account that cannot log in.
fn end_sessions(sql: &mut dyn Sql, name: &str) -> Result<(), Error> {
    for look in 0..LOOKS {
        if look > 0 {
            sql.query(None, &statements::WAIT.with([]), 1).map_err(failure::of_read)?;
        }
        let sessions = column(sql.query(None, &statements::SESSIONS.with([Param::Literal(name)]), SESSIONS))?;
        if sessions.is_empty() {
            return Ok(());
        }
        for session in sessions {
            let Ok(session) = session.parse() else {
                return Err(Error::Other("the server gave a session that is no number".into()));
            };
            match sql.execute(None, &[statements::KILL.with([Param::Number(session)])]) {
                Ok(()) => {}
                Err(error) if error.code() == Some(NO_SUCH_SESSION) => {}
                Err(error) => return Err(failure::of_change(error)),
            }
        }
    }
    let message = "sessions of a locked account have not ended yet";
    log::warn(message, &[("account", name)]);
    Err(Error::retryable(message))
}

/// What would have no definer any more. The account stays, locked, until somebody has seen to it.
fn dependents(sql: &mut dyn Sql, name: &str, host: &str, message: String) -> Error {
    let definer = format!("{name}@{host}");
    let definer = Param::Literal(&definer);
    let statement = statements::DEFINED.with([definer, definer, definer, definer]);
    // What the broker may not see, only the server's own words tell.
    let mut things = column(sql.query(None, &statement, NAMED)).unwrap_or_default();
    things.push(message);
    Error::Dependents(things)
}

/// The first column of what a query gave.
fn column(answer: Result<jit_plugin::Rows, SqlError>) -> Result<Vec<String>, Error> {
    let rows = answer.map_err(failure::of_read)?.rows;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}
