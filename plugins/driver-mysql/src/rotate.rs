//! Changing a password so that the one which callers hold stays valid until it is discarded.
//!
//! MySQL keeps two passwords of an account, no more: staging a third would lose the oldest, which
//! is the one that callers hold. So a second password that is there already is looked at first: it
//! is there because this very step took effect before its answer was lost, or it is not ours to end.

//!
//! Sessions outlive the password that they were opened with. The account keeps the number of the
//! latest session before each staging, and discarding ends those up to it.

use jit_plugin::{Account, Encoding, Error, Param, RotationStep, Secret, Sql, log};

use crate::account::Place;
use crate::config::TargetConfig;
use crate::flavour::{Flavour, Server};
use crate::{failure, sessions, statements};

/// The first with attributes of accounts.
const HAS_ATTRIBUTES: (u32, u32, u32) = (8, 0, 21);

/// How often an account is locked and its sessions are ended, before it is taken back.
const ROUNDS: usize = 3;

pub(crate) fn rotate(
    sql: &mut dyn Sql,
    target: &TargetConfig,
    account: &Account,
    step: RotationStep,
    password: Option<Secret<'_>>,
) -> Result<(), Error> {
    let server = Server::ask(sql)?;
    match (step, password) {
        (RotationStep::Stage | RotationStep::Replace, None) => {
            Err(Error::Other("the call to stage a password has no password".into()))
        }
        (RotationStep::Stage | RotationStep::Replace, Some(password)) if server.flavour == Flavour::MariaDb => {
            set_on_mariadb(sql, target, account, password)
        }
        (RotationStep::Stage, Some(password)) => stage(sql, &server, target, account, password),
        (RotationStep::Replace, Some(password)) => replace(sql, &server, target, account, password),
        // The new one is valid since it was staged.
        (RotationStep::Commit, _) => Ok(()),
        (RotationStep::Discard, _) if server.flavour == Flavour::MariaDb => Ok(()),
        (RotationStep::Discard, _) => {
            let place = [Param::Literal(&account.name), Param::Literal(&target.host)];
            sql.execute(None, &[statements::DISCARD.with(place)]).map_err(failure::of_existing)?;
            if !target.terminate_sessions || is_of_a_lease(account) || server.version < HAS_ATTRIBUTES {
                return Ok(());
            }
            match number(sql, &statements::MARK.with(place))? {
                Some(latest) => sessions::end(sql, &server, &account.name, latest),
                None => Ok(()),
            }
        }
    }
}

/// One number, if there is one.
fn number(sql: &mut dyn Sql, query: &jit_plugin::Statement<'_>) -> Result<Option<u64>, Error> {
    let rows = sql.query(None, query, 1).map_err(failure::of_read)?.rows;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).and_then(|text| text.parse().ok()))
}

/// Takes an account back from who changed it: nobody is in as its password changes, so that nobody
/// changes it again. Cut off anywhere, it is done again from the beginning.
fn replace(
    sql: &mut dyn Sql,
    server: &Server,
    target: &TargetConfig,
    account: &Account,
    password: Secret<'_>,
) -> Result<(), Error> {
    let name = account.name.as_str();
    let place = [Param::Literal(name), Param::Literal(&target.host)];
    let lock = |sql: &mut dyn Sql| sql.execute(None, &[statements::LOCK.with(place)]).map_err(failure::of_change);
    let mut locked = lock(sql);
    for round in 1.. {
        // A session may hold what the lock waits for.
        sessions::end(sql, server, name, u64::MAX)?;
        match &locked {
            Err(Error::Retryable(_) | Error::OutcomeUnknown(_)) if round < ROUNDS => locked = lock(sql),
            _ => break,
        }
    }
    locked?;
    let secret = Param::Secret(password, Encoding::Plain);
    sql.execute(None, &[statements::REPLACE.with([place[0], place[1], secret])]).map_err(failure::of_existing)?;
    // The new password leaves a second one where it is.
    sql.execute(None, &[statements::DISCARD.with(place)]).map_err(failure::of_existing)?;
    sql.execute(None, &[statements::ALL_DEFAULT.with(place)]).map_err(failure::of_existing)?;
    // A login that was under way as the account was locked.
    sessions::end(sql, server, name, u64::MAX)?;
    sql.execute(None, &[statements::UNLOCK.with(place)]).map_err(failure::of_existing)
}

/// An account that has roles and activates none of them cannot do its work: any holder of it may have
/// set that.
fn restore_default_roles(sql: &mut dyn Sql, target: &TargetConfig, name: &str) -> Result<(), Error> {
    let place = [Param::Literal(name), Param::Literal(&target.host)];
    let counts = statements::ROLES_AND_DEFAULTS.with([place[0], place[1], place[0], place[1]]);
    let rows = match sql.query(None, &counts, 1) {
        Ok(answer) => answer.rows,
        Err(error) if failure::is_denied(&error) => return Ok(()),
        Err(error) => return Err(failure::of_read(error)),
    };
    let has = |column: usize| rows.first().and_then(|row| row.get(column)).is_some_and(|n| n.as_deref() != Some("0"));
    if !has(0) || has(1) {
        return Ok(());
    }
    log::warn("the account had lost its default roles; all its roles are default again", &[("account", name)]);
    sql.execute(None, &[statements::ALL_DEFAULT.with(place)]).map_err(failure::of_existing)
}

fn stage(
    sql: &mut dyn Sql,
    server: &Server,
    target: &TargetConfig,
    account: &Account,
    password: Secret<'_>,
) -> Result<(), Error> {
    let name = account.name.as_str();
    let places = Place::of(sql, Flavour::MySql, name).map_err(failure::of_read)?;
    let Some(place) = places.iter().find(|place| place.host == target.host) else {
        return Err(Error::NotFound);
    };
    if place.overlaps {
        match sql.authenticate(name, password) {
            Ok(true) if is_of_a_lease(account) => return Ok(()),
            Ok(true) => return restore_default_roles(sql, target, name),
            // Of an account of a lease nobody holds the older one.
            Ok(false) if is_of_a_lease(account) => {}
            Ok(false) => {
                return Err(Error::Conflict(format!(
                    "the account has a second password that the broker does not know of, or cannot log in from \
                     here: see who uses the old one, then ALTER USER {}@{} DISCARD OLD PASSWORD",
                    quoted(name),
                    quoted(&target.host)
                )));
            }
            Err(error) => return Err(failure::of_read(error)),
        }
    }
    let host = Param::Literal(&target.host);
    if !is_of_a_lease(account) && server.version >= HAS_ATTRIBUTES {
        let latest = number(sql, &statements::LATEST_SESSION.with([]))?.unwrap_or(0);
        let mark = format!(r#"{{"jit_broker": {{"sessions_before": {latest}}}}}"#);
        let set = statements::SET_MARK.with([Param::Literal(name), host, Param::Literal(&mark)]);
        sql.execute(None, &[set]).map_err(failure::of_existing)?;
    }
    let stage = statements::STAGE.with([Param::Literal(name), host, Param::Secret(password, Encoding::Plain)]);
    sql.execute(None, &[stage]).map_err(failure::of_existing)?;
    if is_of_a_lease(account) { Ok(()) } else { restore_default_roles(sql, target, name) }
}

/// MariaDB keeps one password: fine for an account of a lease, whose password nobody holds when it
/// is reset. A standing one's callers would be cut off.
fn set_on_mariadb(
    sql: &mut dyn Sql,
    target: &TargetConfig,
    account: &Account,
    password: Secret<'_>,
) -> Result<(), Error> {
    if !is_of_a_lease(account) {
        return Err(Error::Refused(NO_OVERLAP.into()));
    }
    let set = statements::SET_PASSWORD_MARIADB.with([
        Param::Literal(&account.name),
        Param::Literal(&target.host),
        Param::Secret(password, Encoding::MysqlNative),
    ]);
    sql.execute(None, &[set]).map_err(failure::of_existing)
}

/// Why MariaDB rotates no standing account.
pub(crate) const NO_OVERLAP: &str = "MariaDB keeps one password of an account: a change would cut off everybody who \
                                     holds the old one. Use `roles = […]`, an account for each lease, or MySQL";

/// What [`crate::account::create`] gave it.
fn is_of_a_lease(account: &Account) -> bool {
    account.external_id.is_some()
}

/// For a statement that a person copies; none of the driver's own is made of text.
pub(crate) fn quoted(name: &str) -> String {
    format!("'{}'", name.replace('\\', "\\\\").replace('\'', "''"))
}
