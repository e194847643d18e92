//! Changing a password so that the one which callers hold stays valid until it is discarded.
//!
//! MySQL keeps two passwords of an account, no more: staging a third would lose the oldest, which
//! is the one that callers hold. So a second password that is there already is looked at first: it
//! is there because this very step took effect before its answer was lost, or it is not ours to end.

use jit_plugin::{Account, Encoding, Error, Param, RotationStep, Secret, Sql};

use crate::account::Place;
use crate::config::TargetConfig;
use crate::flavour::{Flavour, Server};
use crate::{failure, statements};

pub(crate) fn rotate(
    sql: &mut dyn Sql,
    target: &TargetConfig,
    account: &Account,
    step: RotationStep,
    password: Option<Secret<'_>>,
) -> Result<(), Error> {
    let server = Server::ask(sql)?;
    match (step, password) {
        (RotationStep::Stage, None) => Err(Error::Other("staging a password takes a password".into())),
        (RotationStep::Stage, Some(password)) => match server.flavour {
            Flavour::MySql => stage(sql, target, account, password),
            Flavour::MariaDb => replace(sql, target, account, password),
        },
        // The new one is valid since it was staged.
        (RotationStep::Commit, _) => Ok(()),
        (RotationStep::Discard, _) if server.flavour == Flavour::MariaDb => Ok(()),
        (RotationStep::Discard, _) => {
            let discard = statements::DISCARD.with([Param::Literal(&account.name), Param::Literal(&target.host)]);
            sql.execute(None, &[discard]).map_err(failure::of_existing)
        }
    }
}

fn stage(sql: &mut dyn Sql, target: &TargetConfig, account: &Account, password: Secret<'_>) -> Result<(), Error> {
    let name = account.name.as_str();
    let places = Place::of(sql, Flavour::MySql, name).map_err(failure::of_read)?;
    let Some(place) = places.iter().find(|place| place.host == target.host) else {
        return Err(Error::NotFound);
    };
    if place.overlaps {
        match sql.authenticate(name, password) {
            Ok(true) => return Ok(()),
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
    let stage = statements::STAGE.with([
        Param::Literal(name),
        Param::Literal(&target.host),
        Param::Secret(password, Encoding::Plain),
    ]);
    sql.execute(None, &[stage]).map_err(failure::of_existing)
}

/// MariaDB keeps one password: fine for an account of a lease, whose password nobody holds when it
/// is reset. A standing one's callers would be cut off.
fn replace(sql: &mut dyn Sql, target: &TargetConfig, account: &Account, password: Secret<'_>) -> Result<(), Error> {
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
