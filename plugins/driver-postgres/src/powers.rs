//! Which powers roles give, at any depth: what an account could do beyond its role, and what those
//! could do who come to run as the role that keeps what accounts leave.

use std::collections::BTreeMap;

use jit_plugin::{ConfigProblem, Error, Param, Sql, log};

use crate::{failure, statements};

/// More of them are not needed to refuse a configuration.
const MOST: u32 = 200;

/// How many objects without room for the keeper, or schemas to warn of, are named.
const NAMED: u32 = 20;

/// What each granted role gives that no application may have, in words.
pub(crate) struct Powers(BTreeMap<String, Vec<String>>);

impl Powers {
    /// Asks for everything that can be reached from the granted roles.
    pub(crate) fn ask(sql: &mut dyn Sql, granted: &[String], keeper: Option<&str>) -> Result<Self, Error> {
        let mut powers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if granted.is_empty() {
            return Ok(Self(powers));
        }
        let keeper = Param::Literal(keeper.unwrap_or_default());
        let statement = statements::POWERS.with([Param::Literals(granted), keeper, keeper]);
        let answer = sql.query(None, &statement, MOST).map_err(failure::of_read)?;
        for row in answer.rows {
            let [Some(grant), Some(way), Some(reason)] = &row[..] else {
                return Err(Error::Other("the server returned unexpected columns".into()));
            };
            powers.entry(grant.clone()).or_default().push(format!("{way} {reason}"));
        }
        Ok(Self(powers))
    }

    /// Why a role is not to be granted.
    pub(crate) fn of(&self, grant: &str) -> Option<String> {
        let found = self.0.get(grant)?.join("; ");
        // SET ROLE gives an account what such a role has: it could make accounts of its own, say.
        Some(format!("gives more than an application may have: {found}. Grant a role that leads to none of these"))
    }
}

/// What is wrong with the role that keeps what accounts leave: it may have no power that things of an
/// account could use, and needs room where accounts may make things.
pub(crate) fn keeper_problems(
    sql: &mut dyn Sql,
    keeper: &str,
    granted: &[String],
) -> Result<Vec<ConfigProblem>, Error> {
    let statement = statements::KEEPER.with([Param::Literal(keeper)]);
    let answer = sql.query(None, &statement, 1).map_err(failure::of_read)?;
    let Some([attributes, member_of]) = answer.rows.first().map(Vec::as_slice) else {
        // That there is no such role is told elsewhere.
        return Ok(Vec::new());
    };
    let name = quoted(keeper);
    let mut problems = Vec::new();
    let mut problem = |message: String| problems.push(ConfigProblem::new("reassign_owned_to", message));
    if let Some(has) = attributes.as_deref().filter(|has| !has.is_empty()) {
        problem(format!(
            "has {has}: what removed accounts leave must not come to a role with power. Name one of its own: \
             CREATE ROLE … NOLOGIN"
        ));
    }
    if let Some(groups) = member_of.as_deref().filter(|groups| !groups.is_empty()) {
        problem(format!(
            "is a member of {groups}: what removed accounts leave must not come to a role with the rights of others. \
             REVOKE {groups} FROM {name}, or name a role of its own"
        ));
    }
    if granted.is_empty() {
        return Ok(problems);
    }
    let (keeper, granted) = (Param::Literal(keeper), Param::Literals(granted));
    let statement = statements::NO_ROOM.with([keeper, granted, keeper, granted]);
    let answer = sql.query(None, &statement, NAMED).map_err(failure::of_read)?;
    for object in answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()) {
        let message = format!("cannot keep what accounts may make there: GRANT CREATE ON {object} TO {name}");
        problems.push(ConfigProblem::new("reassign_owned_to", message));
    }
    Ok(problems)
}

/// Tells who could have people's programs run functions of theirs. The broker's own sessions look
/// names up in the server's schema only.
/// A role whose own setting leaves such schemas out of its search path is safe from them in other programs too, unless
/// a setting for one database says something else.
pub(crate) fn warn_of_planters(sql: &mut dyn Sql, target: &str, broker: &str) -> Result<(), Error> {
    let answer = sql.query(None, &statements::PLANTERS.with([]), NAMED).map_err(failure::of_read)?;
    for row in answer.rows {
        let [Some(schema), Some(who)] = &row[..] else {
            continue;
        };
        let message = format!(
            "these may create functions in a schema that is on everybody's default search_path: other programs with the \
             broker's role could call them. The broker itself does not. Run: ALTER ROLE {} SET search_path = pg_catalog",
            quoted(broker)
        );
        log::warn(&message, &[("target", target), ("schema", schema), ("who", who)]);
    }
    Ok(())
}

/// Tells where accounts may make things that are not their own, by SET ROLE: these stay.
pub(crate) fn warn_of_makers(sql: &mut dyn Sql, target: &str, role: &str, granted: &[String]) -> Result<(), Error> {
    let granted = Param::Literals(granted);
    let answer = sql.query(None, &statements::MAKERS.with([granted]), NAMED).map_err(failure::of_read)?;
    let schemas: Vec<String> = answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    if !schemas.is_empty() {
        let message = "accounts may make things in the name of their role (SET ROLE), which stay when the account goes, \
                       functions with the role's rights included: use PostgreSQL 16 or later without set_role, or grant \
                       CREATE there to no role that accounts get";
        log::warn(message, &[("target", target), ("role", role), ("schemas", &schemas.join(", "))]);
    }
    Ok(())
}

/// For a statement that a person copies; none of the driver's own is made of text.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
