//! Removing an account, so that each step can be the last and the next call goes on:
//!
//! 1. it cannot log in any more, and its rights are taken: what it left behind as a definer can do
//!    nothing from here on;
//! 2. its sessions are ended: they outlive their account otherwise;
//! 3. the account is dropped, with every host part that it has;
//! 4. sessions are looked for once more: a login may have been under way. Prepared transactions that no session
//!    holds are told ([`crate::prepared`]).
//!
//! An account can stand in the way of all but the second: a session of it may hold a lock that the
//! others wait for. So sessions are ended whether or not the first step went well, and then it is
//! tried again.

use jit_plugin::{Account, Error, Param, Sql, SqlError, Statement, log};

use crate::config::TargetConfig;
use crate::failure::{self, IS_DEFINER};
use crate::flavour::{Flavour, Server};
use crate::{prepared, sessions, statements};

/// How often the first two steps are gone through in one call.
const ROUNDS: usize = 3;

/// Host parts of one name that are looked at.
const HOSTS: u32 = 16;

/// Roles of one account that are taken.
const ROLES: u32 = 200;

/// Things that an error names.
const NAMED: u32 = 20;

pub(crate) fn revoke(sql: &mut dyn Sql, target: &TargetConfig, account: &Account) -> Result<(), Error> {
    let name = account.name.as_str();
    let server = Server::ask(sql)?;
    let end = |sql: &mut dyn Sql| match target.terminate_sessions {
        true => sessions::end(sql, &server, name, u64::MAX),
        false => Ok(()),
    };
    let mut hosts = shut_out(sql, &server, name);
    for round in 1.. {
        // What does not end in time is found by the last look, and the account goes all the same.
        let ended = end(sql);
        match &hosts {
            Ok(hosts) if hosts.is_empty() => return ended,
            Ok(_) => break,
            Err(Error::Retryable(_) | Error::OutcomeUnknown(_)) if round < ROUNDS => {
                hosts = shut_out(sql, &server, name);
            }
            Err(_) => break,
        }
    }
    for host in &hosts? {
        let drop = statements::DROP.with([Param::Literal(name), Param::Literal(host)]);
        match sql.execute(None, &[drop]) {
            Ok(()) => {}
            Err(SqlError::Refused(server)) if server.code == IS_DEFINER => {
                // A login that was under way as the account was locked may have come through.
                let ended = end(sql);
                let dependents = dependents(sql, name, host, server.message);
                return ended.and(Err(dependents));
            }
            Err(error) => return Err(failure::of_change(error)),
        }
    }
    end(sql)?;
    prepared::warn(sql, ("account", name));
    Ok(())
}

/// Locks the account and takes its rights, at every host part; gives these.
fn shut_out(sql: &mut dyn Sql, server: &Server, name: &str) -> Result<Vec<String>, Error> {
    let hosts = column(sql.query(None, &statements::HOSTS.with([Param::Literal(name)]), HOSTS))?;
    for host in &hosts {
        let lock = statements::LOCK.with([Param::Literal(name), Param::Literal(host)]);
        sql.execute(None, &[lock]).map_err(failure::of_change)?;
    }
    for host in &hosts {
        take_rights(sql, server, name, host)?;
    }
    Ok(hosts)
}

/// Default roles, roles and privileges. The lock alone does not touch what others run with the
/// account's rights: views, routines, triggers and events that it defined.
fn take_rights(sql: &mut dyn Sql, server: &Server, name: &str, host: &str) -> Result<(), Error> {
    let account = [Param::Literal(name), Param::Literal(host)];
    let (list, no_default) = match server.flavour {
        Flavour::MySql => (statements::ROLES_OF, statements::NO_DEFAULT_ROLE),
        Flavour::MariaDb => (statements::ROLES_OF_MARIADB, statements::NO_DEFAULT_ROLE_MARIADB),
    };
    take(sql, name, no_default.with(account))?;
    match sql.query(None, &list.with(account), ROLES) {
        Ok(roles) => {
            for role in &roles.rows {
                let [Some(role), from] = &role[..] else { continue };
                let from = from.as_deref().unwrap_or_default();
                take(
                    sql,
                    name,
                    match server.flavour {
                        Flavour::MySql => statements::REVOKE_ROLE.with([
                            Param::Literal(role),
                            Param::Literal(from),
                            Param::Literal(name),
                            Param::Literal(host),
                        ]),
                        Flavour::MariaDb => statements::REVOKE_ROLE_MARIADB.with([
                            Param::Ident(role),
                            Param::Literal(name),
                            Param::Literal(host),
                        ]),
                    },
                )?;
            }
        }
        Err(SqlError::Refused(no)) if !failure::is_passing(&no) => cannot(name, &no.message),
        Err(error) => return Err(failure::of_read(error)),
    }
    take(sql, name, statements::REVOKE_ALL.with(account))
}

/// What the server refuses holds up nothing: the account is locked, and goes.
fn take(sql: &mut dyn Sql, name: &str, statement: Statement<'_>) -> Result<(), Error> {
    match sql.execute(None, &[statement]) {
        Err(SqlError::Refused(no)) if !failure::is_passing(&no) => {
            cannot(name, &no.message);
            Ok(())
        }
        other => other.map_err(failure::of_change),
    }
}

fn cannot(name: &str, why: &str) {
    log::warn("not all rights of a locked account could be revoked", &[("account", name), ("why", why)]);
}

/// What would have no definer any more. The account stays, locked and without rights, until somebody
/// has seen to it.
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
