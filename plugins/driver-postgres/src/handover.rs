//! What becomes of what an account made: data is handed over, code is not.
//!
//! Tables, sequences, types, schemas and large objects go to the role that the target names. What
//! runs with the rights of its owner (functions, views, rules on tables) would run with that role's
//! rights from then on, for whoever the account let call it; it is dropped, with whatever uses it on
//! the account's own tables: triggers, policies, defaults, checks, indexes. `drop_code.sql` says it
//! kind by kind. What somebody else's things depend on stays, is named, and keeps the account from
//! going; it has no rights and no login then.

use jit_plugin::{Error, Param, Sql};

use crate::config::TargetConfig;
use crate::failure::{self, INSUFFICIENT_PRIVILEGE, OUT_OF_MEMORY};
use crate::footprint::{Place, dependents};
use crate::{revoke, statements};

/// `drop_code.sql`: something of somebody else's depends on the account's code.
const OBSTACLE: &str = "JIT01";
/// `drop_code.sql`: more than fits into one transaction.
const TOO_MUCH: &str = "JIT02";

/// Parts that one call does at most. Each is some hundred things.
const PARTS: usize = 100;

/// Clears one database of what hangs on the account.
pub(crate) fn clear(sql: &mut dyn Sql, target: &TargetConfig, name: &str, place: &Place) -> Result<(), Error> {
    let database = place.database.as_deref();
    let drop_owned = statements::DROP_OWNED.with([Param::Ident(name)]);
    if place.owned == 0 {
        return sql.execute(database, &[drop_owned]).map_err(|error| revoke::in_database(&place.shown, error));
    }
    let Some(keeper) = &target.reassign_owned_to else {
        // Without a role to hand it to, DROP OWNED would delete the data.
        return Err(dependents(sql, name, std::slice::from_ref(place)));
    };
    let account = |step| statements::ACCOUNT.with([Param::Literal(name), Param::Literal(keeper), Param::Literal(step)]);
    let all = [
        account("all"),
        statements::DROP_CODE.with([]),
        statements::REASSIGN.with([Param::Ident(name), Param::Ident(keeper)]),
        drop_owned,
    ];
    let part = [account("part"), statements::DROP_CODE.with([])];
    for _ in 0..PARTS {
        let error = match sql.execute(database, &all) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let said = |error: &jit_plugin::SqlError| match error {
            jit_plugin::SqlError::Refused(server) => server.message.clone(),
            other => format!("{other:?}"),
        };
        match error.code() {
            Some(TOO_MUCH | OUT_OF_MEMORY) => {
                sql.execute(database, &part).map_err(|error| refused(name, keeper, place, error, said))?;
            }
            _ => return Err(refused(name, keeper, place, error, said)),
        }
    }
    Err(failure::not_yet("the account owns more than one call can hand over; the next call continues"))
}

fn refused(
    name: &str,
    keeper: &str,
    place: &Place,
    error: jit_plugin::SqlError,
    said: impl Fn(&jit_plugin::SqlError) -> String,
) -> Error {
    match error.code() {
        Some(OBSTACLE) => Error::Dependents(vec![
            format!("{}: {}", place.shown, said(&error)),
            format!("these use or are code of {name}, which is not handed over: drop them, or make them without it"),
        ]),
        Some(INSUFFICIENT_PRIVILEGE) => {
            let keeper = format!("\"{}\"", keeper.replace('"', "\"\""));
            let missing = said(&error);
            // "permission denied for schema x" is said of the new owner.
            let of_keeper = ["schema", "database"].into_iter().find_map(|kind| {
                let object = missing.strip_prefix(&format!("permission denied for {kind} "))?;
                Some(format!("GRANT CREATE ON {} {object} TO {keeper}", kind.to_uppercase()))
            });
            let remedy = of_keeper.unwrap_or_else(|| format!("GRANT {keeper} to the broker's role"));
            Error::Refused(format!("database {}: {missing}: {remedy}, see docs/drivers/postgres.md", place.shown))
        }
        _ => revoke::in_database(&place.shown, error),
    }
}
