//! What a role can do beyond the data that it is for: itself, or by way of a role that was granted
//! to it. A role that is granted can be activated, whether or not it is a default one.

use std::collections::{BTreeMap, BTreeSet};

use jit_plugin::{Error, Param, Sql, log};

use crate::failure;
use crate::flavour::{Flavour, Server};
use crate::statements;

/// How many names one query asks for.
const NAMES: usize = 200;

/// Roles that are looked at, granted ones included.
const MOST: usize = 2_000;

/// On everything: with these an account could make accounts that the broker does not know, make
/// itself one that the broker cannot end, or stop the broker from ending others.
const REFUSED: [&str; 16] = [
    "SUPER",
    "CREATE USER",
    "GRANT OPTION",
    "FILE",
    "INSERT",
    "UPDATE",
    "DELETE",
    "SYSTEM_USER",
    "ROLE_ADMIN",
    "SET_USER_ID",
    "SET_ANY_DEFINER",
    "SET USER",
    "CONNECTION_ADMIN",
    "CONNECTION ADMIN",
    "SYSTEM_VARIABLES_ADMIN",
    "APPLICATION_PASSWORD_ADMIN",
];

/// In the schema `mysql`, where accounts and privileges are.
const REFUSED_IN_MYSQL: [&str; 4] = ["GRANT OPTION", "INSERT", "UPDATE", "DELETE"];

/// On everything, or in the schema `mysql`: these hold locks that issues and removals wait for.
const BLOCKING: [&str; 4] = ["RELOAD", "FLUSH_TABLES", "BACKUP_ADMIN", "LOCK TABLES"];

/// Anywhere: what an account makes with these stays behind and runs with its rights.
const DEFINING: [&str; 4] = ["EVENT", "CREATE ROUTINE", "TRIGGER", "CREATE VIEW"];

/// An account or role: name and host. MariaDB's roles have no host.
pub(crate) type Grantee = (String, String);

/// Everything that can be reached from some roles.
pub(crate) struct Powers {
    /// Of each that exists, by where (empty for everything, else a schema).
    held: BTreeMap<Grantee, BTreeSet<(String, String)>>,
    granted: BTreeMap<Grantee, Vec<Grantee>>,
}

impl Powers {
    /// What these have, and what is granted to them, however far.
    pub(crate) fn ask(sql: &mut dyn Sql, server: &Server, of: &BTreeSet<String>) -> Result<Self, Error> {
        let mut powers = Self { held: BTreeMap::new(), granted: BTreeMap::new() };
        let (edges, more) = match server.flavour {
            Flavour::MySql => (statements::GRANTED, statements::DYNAMIC),
            Flavour::MariaDb => (statements::GRANTED_MARIADB, statements::DYNAMIC_MARIADB),
        };
        let mut asked: BTreeSet<String> = BTreeSet::new();
        let mut next = of.clone();
        while !next.is_empty() {
            if asked.len() + next.len() > MOST {
                return Err(Error::Refused(format!(
                    "more than {MOST} roles can be reached from the configured ones: grant fewer"
                )));
            }
            asked.extend(next.iter().cloned());
            let mut found = BTreeSet::new();
            for names in next.into_iter().collect::<Vec<_>>().chunks(NAMES) {
                let names = [Param::Literals(names)];
                for [name, host, list, _] in columns(sql, statements::POWERS.with(names))? {
                    powers.hold((name, host), "", &list);
                }
                for [name, host, list, _] in columns(sql, more.with(names))? {
                    powers.hold((name, host), "", &list);
                }
                for [name, host, list, schema] in columns(sql, statements::SCHEMA_POWERS.with(names))? {
                    powers.hold((name, host), &schema, &list);
                }
                for [name, host, role, role_host] in columns(sql, edges.with(names))? {
                    found.insert(role.clone());
                    powers.granted.entry((name, host)).or_default().push((role, role_host));
                }
            }
            next = found.difference(&asked).cloned().collect();
        }
        Ok(powers)
    }

    fn hold(&mut self, who: Grantee, place: &str, list: &str) {
        let held = self.held.entry(who).or_default();
        held.extend(
            list.split(", ").filter(|power| !power.is_empty()).map(|power| (place.to_owned(), power.to_owned())),
        );
    }

    pub(crate) fn exists(&self, who: &Grantee) -> bool {
        self.held.contains_key(who)
    }

    /// Each power that can be reached: where it holds, its name and the path to it.
    fn reached(&self, from: &Grantee) -> Vec<(&str, &str, String)> {
        let mut paths: BTreeMap<&Grantee, String> = BTreeMap::from([(from, from.0.clone())]);
        let mut queue = std::collections::VecDeque::from([from]);
        let mut reached = Vec::new();
        while let Some(who) = queue.pop_front() {
            let path = paths.get(who).cloned().unwrap_or_default();
            let held = self.held.get(who).into_iter().flatten();
            reached.extend(held.map(|(place, power)| (place.as_str(), power.as_str(), path.clone())));
            for role in self.granted.get(who).into_iter().flatten() {
                if !paths.contains_key(role) {
                    paths.insert(role, format!("{path} → {}", role.0));
                    queue.push_back(role);
                }
            }
        }
        reached
    }

    /// Why an account must not have this role, if it must not; what is allowed but dangerous is
    /// logged.
    pub(crate) fn problem(&self, from: &Grantee) -> Option<String> {
        let reached = self.reached(from);
        let is_refused = |place: &str, power: &str| match place {
            "" => REFUSED.contains(&power),
            "mysql" => REFUSED_IN_MYSQL.contains(&power),
            _ => false,
        };
        if let Some((place, power, path)) = reached.iter().find(|(place, power, _)| is_refused(place, power)) {
            let on = if place.is_empty() { "everything" } else { "the schema mysql" };
            return Some(format!("has {power} on {on} ({path}): grant a role that has only what applications need"));
        }
        let warn = |message: &str, which: &dyn Fn(&str, &str) -> bool| {
            let found = reached.iter().filter(|(place, power, _)| which(place, power));
            let found: BTreeSet<String> = found.map(|(_, power, path)| format!("{power} ({path})")).collect();
            if !found.is_empty() {
                let found = found.into_iter().collect::<Vec<_>>().join(", ");
                log::warn(message, &[("role", &from.0), ("privileges", &found)]);
            }
        };
        warn(
            "an account with this role can hold locks that issues and removals wait for, until its own lease ends",
            &|place, power| BLOCKING.contains(&power) && matches!(place, "" | "mysql"),
        );
        warn(
            "an account with this role can leave things behind that keep it from being dropped: their rights end \
             with its lease, and somebody has to give them another definer",
            &|_, power| DEFINING.contains(&power),
        );
        None
    }
}

/// Rows of four columns, the missing ones empty.
fn columns(sql: &mut dyn Sql, statement: jit_plugin::Statement<'_>) -> Result<Vec<[String; 4]>, Error> {
    let answer = sql.query(None, &statement, 1_000).map_err(failure::of_read)?;
    if answer.truncated {
        return Err(Error::Refused("the roles have more privileges than can be checked: grant fewer".into()));
    }
    let rows = answer.rows.into_iter().map(|row| {
        let mut row = row.into_iter().map(Option::unwrap_or_default);
        std::array::from_fn(|_| row.next().unwrap_or_default())
    });
    Ok(rows.collect())
}
