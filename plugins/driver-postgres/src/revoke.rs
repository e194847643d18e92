//! Removing an account that may do everything in its power against it (HOSTILE-TENANT). Each step can
//! be the last, and the next call goes on:
//!
//! 1. it cannot log in any more. The account can hold this up, since it may change its own role and
//!    not commit: the wait is short, and it comes again below;
//! 2. its roles are taken from it, so that what still runs has no rights;
//! 3. its sessions are ended, until it has none and cannot log in;
//! 4. its code is dropped, its data handed over ([`crate::handover`]), its privileges go;
//! 5. the role is dropped.
//!
//! An account that owns nothing and has no session takes three round trips.

use jit_plugin::{Account, Error, Param, Sql, SqlError, log};

use crate::config::TargetConfig;
use crate::failure::{self, DEPENDENT_OBJECTS, LOCK_NOT_AVAILABLE, QUERY_CANCELED, UNDEFINED_OBJECT};
use crate::footprint::Footprint;
use crate::{handover, statements};

/// How often new dependents may turn up before the host is told to come back.
const ATTEMPTS: usize = 3;

/// How often sessions are ended and the login disabled before the host is told to come back.
const ROUNDS: usize = 5;

/// How long the server waits for the end of one session, in milliseconds.
const SESSION_WAIT_MS: i64 = 1000;

/// How many roles are taken from the account.
const MAX_ROLES: u32 = 100;

/// How many prepared transactions an error names.
const MAX_PREPARED: u32 = 20;

/// The first version in which a creator does not have the privileges of what it created.
const CREATOR_ONLY_ADMINISTERS: u32 = 160_000;

pub(crate) fn revoke(sql: &mut dyn Sql, target: &TargetConfig, account: &Account) -> Result<(), Error> {
    let name = account.name.as_str();
    let mut login = disable(sql, name, &[])?;
    if login == Login::Missing {
        return Ok(());
    }
    let Some(mut footprint) = Footprint::of(sql, name)? else {
        return Ok(());
    };
    let is_bare = footprint.sessions == 0 && footprint.places.is_empty() && footprint.prepared == 0;
    if login == Login::Open || !is_bare {
        join(sql, name, footprint.version)?;
        take_roles(sql, name);
        match silence(sql, name, &mut login, footprint)? {
            Some(after) => footprint = after,
            None => return Ok(()),
        }
    }
    if footprint.prepared > 0 {
        return Err(prepared(sql, name, login));
    }
    for _ in 0..ATTEMPTS {
        for place in &footprint.places {
            handover::clear(sql, target, name, place)?;
        }
        match sql.execute(None, &[statements::DROP.with([Param::Ident(name)])]) {
            Ok(()) => return Ok(()),
            Err(error) => match error.code() {
                Some(UNDEFINED_OBJECT) => return Ok(()),
                Some(DEPENDENT_OBJECTS) => {}
                _ => return Err(failure::of_removal(error)),
            },
        }
        match Footprint::of(sql, name)? {
            Some(after) => footprint = after,
            None => return Ok(()),
        }
        if footprint.sessions > 0 {
            return Err(failure::not_yet("the account has opened a session again; the next call ends it"));
        }
        join(sql, name, footprint.version)?;
    }
    Err(footprint.dependents(sql, name))
}

/// Whether the account can log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    /// There is no such account.
    Missing,
    Disabled,
    /// Somebody held its row of `pg_authid` locked, most likely itself.
    Open,
}

/// Disables the login, in one transaction after `before`.
fn disable(sql: &mut dyn Sql, name: &str, before: &[jit_plugin::Statement<'_>]) -> Result<Login, Error> {
    let mut batch = before.to_vec();
    batch.push(statements::DISABLE.with([Param::Ident(name)]));
    match sql.execute(None, &batch) {
        Ok(()) => Ok(Login::Disabled),
        Err(error) => match error.code() {
            Some(UNDEFINED_OBJECT) => Ok(Login::Missing),
            Some(LOCK_NOT_AVAILABLE | QUERY_CANCELED) => Ok(Login::Open),
            // A lost race: somebody changes the row again and again.
            Some("XX000") => Ok(Login::Open),
            _ => Err(failure::of_removal(error)),
        },
    }
}

/// Gives the broker's role the privileges of the account. The membership goes with the account.
fn join(sql: &mut dyn Sql, name: &str, version: u32) -> Result<(), Error> {
    let creator_only_administers = version >= CREATOR_ONLY_ADMINISTERS;
    let join = if creator_only_administers { statements::JOIN_INHERITING } else { statements::JOIN };
    let joined = sql.execute(None, &[join.with([Param::Ident(name)])]);
    match joined {
        Err(error) if error.code() == Some(LOCK_NOT_AVAILABLE) && !creator_only_administers => {
            // It grants itself in a transaction that it leaves open (PostgreSQL 14): the sessions have to
            // end first, for which there is another way before PostgreSQL 16.
            let signal = statements::SIGNAL_SESSIONS.with([Param::Literal(name)]);
            let batch = [statements::MAY_SIGNAL.with([]), signal, statements::MAY_NOT_SIGNAL.with([])];
            sql.execute(None, &batch).map_err(failure::of_removal)?;
            sql.execute(None, &[join.with([Param::Ident(name)])]).map_err(failure::of_removal)
        }
        joined => joined.map_err(failure::of_removal),
    }
}

/// Takes the account's roles from it: what still runs for it has no rights from then on. Whatever
/// cannot be taken goes with the account itself.
fn take_roles(sql: &mut dyn Sql, name: &str) {
    let statement = statements::MEMBERSHIPS.with([Param::Literal(name)]);
    let taken = sql.query(None, &statement, MAX_ROLES).and_then(|answer| {
        let roles: Vec<String> = answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        if roles.is_empty() {
            return Ok(());
        }
        sql.execute(None, &[statements::TAKE_ROLES.with([Param::Idents(&roles), Param::Ident(name)])])
    });
    if let Err(error) = taken {
        let reason = failure::of_removal(error).to_string();
        log::warn(
            "the account's roles could not be revoked; it keeps them until it is dropped",
            &[("account", name), ("reason", &reason)],
        );
    }
}

/// Ends sessions and disables the login, until there is no session and no new one can begin. Gives
/// what hangs on the role then; none when it is not there.
fn silence(
    sql: &mut dyn Sql,
    name: &str,
    login: &mut Login,
    mut footprint: Footprint,
) -> Result<Option<Footprint>, Error> {
    for _ in 0..ROUNDS {
        let signal = statements::SIGNAL_SESSIONS.with([Param::Literal(name)]);
        if *login == Login::Open {
            // In one message: we stand in line for its row while those who hold it are ended, before
            // anybody who logs in meanwhile.
            *login = disable(sql, name, &[signal])?;
            if *login == Login::Missing {
                return Ok(None);
            }
        } else if footprint.sessions > 0 {
            sql.query(None, &signal, 1).map_err(failure::of_removal)?;
        }
        if footprint.sessions > 0 || *login == Login::Open {
            let wait = statements::AWAIT_SESSIONS.with([Param::Literal(name), Param::Number(SESSION_WAIT_MS)]);
            sql.query(None, &wait, 4).map_err(failure::of_removal)?;
        }
        // Only a new look tells: a session that ended between the list and the wait is told like
        // one that does not end.
        match Footprint::of(sql, name)? {
            Some(after) => footprint = after,
            None => return Ok(None),
        }
        // A prepared transaction may hold the row as well, and nothing here ends it.
        if footprint.sessions == 0 && (*login == Login::Disabled || footprint.prepared > 0) {
            return Ok(Some(footprint));
        }
    }
    let message = match *login {
        Login::Open => "the account's login cannot be disabled yet: somebody holds its role locked",
        _ => "sessions of a disabled account have not ended yet",
    };
    log::warn(message, &[("account", name)]);
    Err(failure::not_yet(message))
}

/// The account's prepared transactions, with what ends them.
fn prepared(sql: &mut dyn Sql, name: &str, login: Login) -> Error {
    let statement = statements::PREPARED.with([Param::Literal(name)]);
    let rows = sql.query(None, &statement, MAX_PREPARED).map(|answer| answer.rows).unwrap_or_default();
    let mut left: Vec<String> = rows
        .into_iter()
        .filter_map(|row| match row.into_iter().collect::<Option<Vec<_>>>()?.as_slice() {
            [database, gid] => {
                let quoted = gid.replace('\'', "''");
                Some(format!("{database}: prepared transaction; as superuser there: ROLLBACK PREPARED '{quoted}'"))
            }
            _ => None,
        })
        .collect();
    left.push("prepared transactions keep their locks until they are ended".to_owned());
    if login == Login::Open {
        left.push("one of them holds the account's role locked: it can log in until its VALID UNTIL".to_owned());
    }
    Error::Dependents(left)
}

/// An error of the connection, with the database in it.
pub(crate) fn in_database(shown: &str, error: SqlError) -> Error {
    match error {
        SqlError::Unavailable(reason) => Error::retryable(format!("database {shown}: {reason}")),
        error => failure::of_removal(error),
    }
}
