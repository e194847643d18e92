//! Checking a target before it is used: everything that would make an issue fail later, each with
//! the statement that mends it.

use std::collections::{BTreeMap, BTreeSet};

use jit_plugin::config::nearest;
use jit_plugin::driver::of_role;
use jit_plugin::{ConfigProblem, Error, Param, Role, Sql, Target, log};

use crate::account::is_true;
use crate::config::{RoleConfig, TargetConfig};
use crate::powers::{self, Powers, quoted};
use crate::{failure, statements};

/// The oldest version that has all the statements use (`pg_terminate_backend` with a timeout).
const OLDEST: u32 = 140_000;

/// Up to here CREATEROLE grants and alters nearly anything.
const CREATEROLE_IS_BOUNDED: u32 = 160_000;

/// How many names one query asks for.
const NAMES: usize = 200;

/// How many roles are looked through for one that was likely meant.
const GROUPS: u32 = 1_000;

pub(crate) fn validate(
    sql: &mut dyn Sql,
    target: &Target<TargetConfig>,
    roles: &[Role<RoleConfig>],
) -> Result<(), Error> {
    let mut problems = target.config.problems();
    for role in roles {
        problems.extend(of_role(&role.name, role.config.problems()));
    }
    if problems.is_empty() {
        let broker = Broker::ask(sql)?;
        broker.warn(&target.name);
        if !broker.excess.is_empty() {
            let needed = broker.least_privilege(&target.config, roles);
            log::warn(&format!("to give it only what it needs, run: {needed}"), &[("target", target.name.as_str())]);
        }
        problems = broker.problems();
        powers::warn_of_planters(sql, &target.name, &broker.name)?;
        let known = Known::ask(sql, &target.config, roles)?;
        if let Some(owner) = &target.config.reassign_owned_to {
            problems.extend(known.owner_problem(&broker, owner));
            problems.extend(powers::keeper_problems(sql, owner, &granted(roles))?);
        }
        for role in roles {
            let found = known.grant_problems(&broker, &role.config);
            problems.extend(of_role(&role.name, found));
            if role.config.set_role || broker.version < CREATEROLE_IS_BOUNDED {
                powers::warn_of_makers(sql, &target.name, &role.name, &role.config.grants)?;
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::InvalidConfig(problems)) }
}

/// What all roles of the target grant, each once.
fn granted(roles: &[Role<RoleConfig>]) -> Vec<String> {
    let granted: BTreeSet<&String> = roles.iter().flat_map(|role| &role.config.grants).collect();
    granted.into_iter().cloned().collect()
}

/// The role that the broker's connection has.
struct Broker {
    version: u32,
    name: String,
    is_super: bool,
    creates_roles: bool,
    /// What it has and does not need.
    excess: Vec<&'static str>,
}

impl Broker {
    fn ask(sql: &mut dyn Sql) -> Result<Self, Error> {
        let answer = sql.query(None, &statements::BROKER.with([]), 1).map_err(failure::of_read)?;
        let strange = || Error::Other("the server does not describe the broker's role".into());
        let row = answer.rows.into_iter().next().ok_or_else(strange)?;
        let [version, name, is_super, creates_roles, creates_db, replicates, bypasses] = &row[..] else {
            return Err(strange());
        };
        let (Some(version), Some(name)) = (version, name) else {
            return Err(strange());
        };
        let holds = |flag: &Option<String>| flag.as_deref().is_some_and(is_true);
        let excess = [
            (holds(is_super), "SUPERUSER"),
            (holds(creates_db), "CREATEDB"),
            (holds(replicates), "REPLICATION"),
            (holds(bypasses), "BYPASSRLS"),
        ];
        Ok(Self {
            version: version.parse().map_err(|_| strange())?,
            name: name.clone(),
            is_super: holds(is_super),
            creates_roles: holds(creates_roles),
            excess: excess.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect(),
        })
    }

    fn warn(&self, target: &str) {
        let fields = [("target", target), ("role", self.name.as_str())];
        for attribute in &self.excess {
            let message = format!("the broker's role has {attribute} and does not need it");
            log::warn(&message, &fields);
        }
        if self.version < CREATEROLE_IS_BOUNDED && !self.is_super {
            let message = "before PostgreSQL 16, CREATEROLE may grant and alter nearly every role: \
                           upgrade, or guard the broker's credential like a superuser's";
            log::warn(message, &fields);
        }
    }

    /// Statements for a person to copy, after which the role has what this target needs and no more.
    fn least_privilege(&self, target: &TargetConfig, roles: &[Role<RoleConfig>]) -> String {
        let name = quoted(&self.name);
        let granted: BTreeSet<&String> = roles.iter().flat_map(|role| &role.config.grants).collect();
        let mut statements =
            vec![format!("ALTER ROLE {name} CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS")];
        statements.extend(granted.iter().map(|grant| format!("GRANT {} TO {name} WITH ADMIN OPTION", quoted(grant))));
        statements.extend(target.reassign_owned_to.iter().map(|owner| format!("GRANT {} TO {name}", quoted(owner))));
        statements.join("; ")
    }

    fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if self.version < OLDEST {
            let message = format!("the server is too old ({}): use PostgreSQL 14 or later", self.version);
            problems.push(ConfigProblem::new("", message));
        }
        if !self.creates_roles && !self.is_super {
            let message =
                format!("the broker's role cannot create accounts: ALTER ROLE {} CREATEROLE", quoted(&self.name));
            problems.push(ConfigProblem::new("", message));
        }
        problems
    }
}

/// What the server says of the roles that the configuration names.
struct Known {
    roles: BTreeMap<String, KnownRole>,
    powers: Powers,
    /// Roles without a login, where the configuration names one that is not there.
    groups: Vec<String>,
}

struct KnownRole {
    broker_administers: bool,
    broker_has_privileges: bool,
}

impl Known {
    fn ask(sql: &mut dyn Sql, target: &TargetConfig, roles: &[Role<RoleConfig>]) -> Result<Self, Error> {
        let granted = granted(roles);
        let powers = Powers::ask(sql, &granted, target.reassign_owned_to.as_deref())?;
        let names: Vec<String> = granted.into_iter().chain(target.reassign_owned_to.clone()).collect();
        let mut known: BTreeMap<String, KnownRole> = BTreeMap::new();
        for names in names.chunks(NAMES) {
            let statement = statements::GRANTABLE.with([Param::Literals(names)]);
            let answer = sql.query(None, &statement, NAMES as u32).map_err(failure::of_read)?;
            for row in answer.rows {
                let [Some(name), administers, has_privileges] = &row[..] else {
                    return Err(Error::Other("the server returned unexpected columns".into()));
                };
                let holds = |flag: &Option<String>| flag.as_deref().is_some_and(is_true);
                let role =
                    KnownRole { broker_administers: holds(administers), broker_has_privileges: holds(has_privileges) };
                known.insert(name.clone(), role);
            }
        }
        let groups = match names.iter().all(|name| known.contains_key(name)) {
            true => Vec::new(),
            false => {
                let answer = sql.query(None, &statements::GROUPS.with([]), GROUPS).map_err(failure::of_read)?;
                answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()
            }
        };
        Ok(Self { roles: known, powers, groups })
    }

    fn grant_problems(&self, broker: &Broker, config: &RoleConfig) -> Vec<ConfigProblem> {
        let problem = |(index, grant): (usize, &String)| {
            let message = self.wrong_grant(broker, grant)?;
            Some(ConfigProblem::new(format!("grants[{index}]"), message))
        };
        config.grants.iter().enumerate().filter_map(problem).collect()
    }

    /// What to say of a role that is not there. The name may be a slip: what makes the role comes second.
    fn missing(&self, role: &str) -> String {
        let name = quoted(role);
        match nearest(role, self.groups.iter().map(String::as_str)) {
            Some(near) => format!(
                "the server has no role {name}: did you mean {}? Otherwise make it: CREATE ROLE {name} NOLOGIN",
                quoted(near)
            ),
            None => {
                format!("the server has no role {name}: write one that it has, or make it: CREATE ROLE {name} NOLOGIN")
            }
        }
    }

    fn wrong_grant(&self, broker: &Broker, grant: &str) -> Option<String> {
        let Some(role) = self.roles.get(grant) else {
            return Some(self.missing(grant));
        };
        if let Some(power) = self.powers.of(grant) {
            return Some(power);
        }
        let may_grant = role.broker_administers
            || broker.is_super
            || (broker.creates_roles && broker.version < CREATEROLE_IS_BOUNDED);
        (!may_grant).then(|| {
            format!(
                "the broker's role may not grant it: GRANT {} TO {} WITH ADMIN OPTION",
                quoted(grant),
                quoted(&broker.name)
            )
        })
    }

    fn owner_problem(&self, broker: &Broker, owner: &str) -> Option<ConfigProblem> {
        let message = match self.roles.get(owner) {
            None => self.missing(owner),
            Some(role) if !role.broker_has_privileges => format!(
                "the broker's role may not give it objects: GRANT {} TO {}",
                quoted(owner),
                quoted(&broker.name)
            ),
            Some(_) => return None,
        };
        Some(ConfigProblem::new("reassign_owned_to", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_role_needs_is_told_in_statements_to_copy() {
        let broker = Broker {
            version: 170_000,
            name: "jit_broker".into(),
            is_super: true,
            creates_roles: true,
            excess: vec!["SUPERUSER"],
        };
        let target: TargetConfig =
            jit_plugin::config::parse(r#"{"reassign_owned_to": "owner"}"#).unwrap_or_else(|_| panic!());
        let role = |grants: &[&str]| Role {
            name: "r".into(),
            config: RoleConfig {
                grants: grants.iter().map(|&grant| grant.into()).collect(),
                set_role: false,
                connection_limit: 1,
            },
        };
        assert_eq!(
            broker.least_privilege(&target, &[role(&["a\"b", "c"]), role(&["c"])]),
            "ALTER ROLE \"jit_broker\" CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS; \
             GRANT \"a\"\"b\" TO \"jit_broker\" WITH ADMIN OPTION; GRANT \"c\" TO \"jit_broker\" WITH ADMIN OPTION; \
             GRANT \"owner\" TO \"jit_broker\""
        );
    }
}
