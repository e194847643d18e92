//! Checking a target before it is used: everything that would make an issue fail later, each with
//! the statement that mends it.

use std::collections::{BTreeMap, BTreeSet};

use jit_plugin::driver::of_role;
use jit_plugin::{ConfigProblem, Error, Param, Role, Sql, SqlError, Target, log};

use crate::account::Place;
use crate::config::{RoleConfig, Rotating, TargetConfig};
use crate::failure::{self, UNKNOWN_TABLE};
use crate::flavour::{Flavour, Server};
use crate::rotate::{NO_OVERLAP, quoted};
use crate::statements;

/// The first with dual passwords and all the statements that are used.
const OLDEST_MYSQL: (u32, u32, u32) = (8, 0, 14);

/// The oldest that is maintained; all the statements are older.
const OLDEST_MARIADB: (u32, u32, u32) = (10, 6, 0);

/// How many names one query asks for.
const NAMES: usize = 200;

/// What the broker's account does not need, and what makes its credential worth more.
const EXCESS: [&str; 14] = [
    "SUPER",
    "FILE",
    "SHUTDOWN",
    "RELOAD",
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "SYSTEM_USER",
    "ROLE_ADMIN",
    "SET_USER_ID",
    "SET_ANY_DEFINER",
    "ALLOW_NONEXISTENT_DEFINER",
    "SET USER",
];

/// Plugins whose passwords the server itself keeps, two of them at a time.
const KEPT_BY_SERVER: [&str; 3] = ["caching_sha2_password", "mysql_native_password", "sha256_password"];

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
        problems = broker.problems(sql)?;
        // Without these the rest cannot be asked.
        if problems.is_empty() {
            let known = Known::ask(sql, &broker, roles)?;
            for role in roles {
                let found = match &role.config.rotating {
                    Some(rotating) => rotating_problems(sql, &broker, &target.config, rotating)?,
                    None => known.role_problems(&broker, &role.config),
                };
                problems.extend(of_role(&role.name, found));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::InvalidConfig(problems)) }
}

/// The account that the broker's connection has.
struct Broker {
    server: Server,
    privileges: BTreeSet<String>,
    may_pass_on: bool,
    /// In the schema `mysql`.
    schema_privileges: BTreeSet<String>,
}

impl Broker {
    fn ask(sql: &mut dyn Sql) -> Result<Self, Error> {
        let server = Server::ask(sql)?;
        // As `information_schema` writes it: quoted, and not escaped.
        let grantee = format!("'{}'@'{}'", server.broker.0, server.broker.1);
        let grantee = Param::Literal(&grantee);
        let rows = sql.query(None, &statements::PRIVILEGES.with([grantee]), 500).map_err(failure::of_read)?.rows;
        let may_pass_on = rows.iter().any(|row| row.get(1).cloned().flatten().as_deref() == Some("YES"));
        let schema = statements::SCHEMA_PRIVILEGES.with([grantee]);
        let schema = sql.query(None, &schema, 100).map_err(failure::of_read)?.rows;
        let first = |rows: Vec<Vec<Option<String>>>| {
            rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()
        };
        Ok(Self { server, privileges: first(rows), may_pass_on, schema_privileges: first(schema) })
    }

    fn has(&self, privilege: &str) -> bool {
        self.privileges.contains(privilege)
    }

    /// As a person writes it in a GRANT.
    fn account(&self) -> String {
        format!("{}@{}", quoted(&self.server.broker.0), quoted(&self.server.broker.1))
    }

    fn warn(&self, target: &str) {
        let fields = [("target", target), ("account", self.server.broker.0.as_str())];
        for privilege in EXCESS.iter().filter(|privilege| self.has(privilege)) {
            let message = format!("the broker's account has {privilege} on everything and does not need it");
            log::warn(&message, &fields);
        }
        if self.may_pass_on {
            log::warn("the broker's account has GRANT OPTION and does not need it", &fields);
        }
        if self.server.is_mariadb() {
            let message = "in MariaDB, CREATE USER may change every account's password: guard the broker's \
                           credential like root's";
            log::warn(message, &fields);
        }
    }

    fn problems(&self, sql: &mut dyn Sql) -> Result<Vec<ConfigProblem>, Error> {
        let mut problems = Vec::new();
        let mut problem = |message: String| problems.push(ConfigProblem::new("", message));
        let (oldest, name) = match self.server.flavour {
            Flavour::MySql => (OLDEST_MYSQL, "MySQL 8.0.14"),
            Flavour::MariaDb => (OLDEST_MARIADB, "MariaDB 10.6"),
        };
        if self.server.version < oldest {
            problem(format!("the server is too old ({}): use {name} or later", self.server.shown));
        }
        let account = self.account();
        let mut missing = Vec::new();
        for privilege in ["CREATE USER", "PROCESS"] {
            if !self.has(privilege) {
                missing.push(privilege);
            }
        }
        let kills = if self.server.is_mariadb() { "CONNECTION ADMIN" } else { "CONNECTION_ADMIN" };
        if !self.has(kills) && !self.has("SUPER") {
            missing.push(kills);
        }
        if !missing.is_empty() {
            let missing = missing.join(", ");
            problem(format!(
                "the broker's account lacks {missing}: GRANT {missing} ON *.* TO {account} (to the account itself, \
                 not through a role)"
            ));
        }
        if self.server.is_mariadb() && !self.has("UPDATE") && !self.schema_privileges.contains("UPDATE") {
            problem(format!(
                "the broker's account may not set the role of an account: GRANT UPDATE ON mysql.* TO {account}"
            ));
        }
        let user = (
            "mysql.user",
            if self.server.is_mariadb() {
                format!("GRANT SELECT ON mysql.user TO {account}")
            } else {
                format!("GRANT SELECT ({USER_COLUMNS}) ON mysql.user TO {account}")
            },
        );
        let priv_ = ("mysql.global_priv", format!("GRANT SELECT ON mysql.global_priv TO {account}"));
        let me = [Param::Literal(&self.server.broker.0)];
        let names = std::slice::from_ref(&self.server.broker.0);
        for (read, (table, mend)) in [
            (sql.query(None, &statements::ROLES.with([Param::Literals(names)]), 1).map(drop), &user),
            (sql.query(None, &statements::HOSTS.with(me), 1).map(drop), &user),
            (
                Place::of(sql, self.server.flavour, &self.server.broker.0).map(drop),
                if self.server.is_mariadb() { &priv_ } else { &user },
            ),
        ] {
            match read {
                Ok(()) => {}
                Err(error) if failure::is_denied(&error) => {
                    problem(format!("the broker's account may not read {table}: {mend}"));
                }
                Err(error) => return Err(failure::of_read(error)),
            }
        }
        problems.dedup();
        Ok(problems)
    }
}

/// The columns of MySQL's `mysql.user` that the driver reads: none of them is a password's hash but
/// for a second one, within `User_attributes`.
const USER_COLUMNS: &str = "User, Host, plugin, account_locked, password_expired, User_attributes, Super_priv, \
                            Create_user_priv, Grant_priv, File_priv";

/// What the server says of the roles that the configuration names.
struct Known {
    /// By name: it has powers that an account could use to make accounts of its own.
    powerful: BTreeMap<String, bool>,
    /// None where the server does not say.
    grantable: Option<BTreeSet<String>>,
}

impl Known {
    fn ask(sql: &mut dyn Sql, broker: &Broker, roles: &[Role<RoleConfig>]) -> Result<Self, Error> {
        let names: BTreeSet<&String> = roles.iter().flat_map(|role| &role.config.roles).collect();
        let names: Vec<String> = names.into_iter().cloned().collect();
        let role_host = if broker.server.is_mariadb() { "" } else { "%" };
        let mut known = Self { powerful: BTreeMap::new(), grantable: Some(BTreeSet::new()) };
        for names in names.chunks(NAMES) {
            let names = [Param::Literals(names)];
            let answer = sql.query(None, &statements::ROLES.with(names), 1_000).map_err(failure::of_read)?;
            for row in answer.rows {
                let [Some(name), host, powers @ ..] = &row[..] else {
                    return Err(Error::Other("the server gave other columns".into()));
                };
                if host.as_deref().unwrap_or_default() == role_host {
                    let is_powerful = powers.iter().any(|power| power.as_deref() == Some("Y"));
                    known.powerful.insert(name.clone(), is_powerful);
                }
            }
            match sql.query(None, &statements::GRANTABLE.with(names), 500) {
                Ok(answer) => {
                    let names = answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten());
                    known.grantable.iter_mut().for_each(|grantable| grantable.extend(names.clone()));
                }
                // Before MySQL 8.0.19.
                Err(SqlError::Refused(server)) if UNKNOWN_TABLE.contains(&server.code.as_str()) => {
                    known.grantable = None;
                    log::warn("the server is too old to say which roles the broker may grant", &[]);
                }
                Err(error) => return Err(failure::of_read(error)),
            }
        }
        Ok(known)
    }

    fn role_problems(&self, broker: &Broker, config: &RoleConfig) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if broker.server.is_mariadb() && config.roles.len() > 1 {
            let message = "MariaDB activates one role at a login: make one role on the server that has them all";
            problems.push(ConfigProblem::new("roles", message));
        }
        for (index, role) in config.roles.iter().enumerate() {
            if let Some(message) = self.wrong_role(broker, role) {
                problems.push(ConfigProblem::new(format!("roles[{index}]"), message));
            }
        }
        problems
    }

    fn wrong_role(&self, broker: &Broker, role: &str) -> Option<String> {
        let Some(is_powerful) = self.powerful.get(role) else {
            return Some(format!("no such role on the server: CREATE ROLE {}", quoted(role)));
        };
        if *is_powerful || role == broker.server.broker.0 {
            return Some(
                "has SUPER, CREATE USER, GRANT OPTION or FILE on everything: grant a role that has only what \
                 applications need"
                    .into(),
            );
        }
        let may_grant = broker.has("ROLE_ADMIN")
            || broker.has("SUPER")
            || self.grantable.as_ref().is_none_or(|grantable| grantable.contains(role));
        (!may_grant).then(|| {
            format!(
                "the broker's account may not grant it: GRANT {} TO {} WITH ADMIN OPTION",
                quoted(role),
                broker.account()
            )
        })
    }
}

/// A standing account must be there, and of a kind that can have two passwords.
fn rotating_problems(
    sql: &mut dyn Sql,
    broker: &Broker,
    target: &TargetConfig,
    rotating: &Rotating,
) -> Result<Vec<ConfigProblem>, Error> {
    let problem = |message: String| Ok(vec![ConfigProblem::new("rotating.account", message)]);
    if broker.server.is_mariadb() {
        return Ok(vec![ConfigProblem::new("rotating", NO_OVERLAP)]);
    }
    if rotating.account == broker.server.broker.0 {
        return problem("is the broker's own account: its connection would lose its password".into());
    }
    let account = format!("{}@{}", quoted(&rotating.account), quoted(&target.host));
    let places = Place::of(sql, broker.server.flavour, &rotating.account).map_err(failure::of_read)?;
    let Some(place) = places.iter().find(|place| place.host == target.host) else {
        return problem(format!("no such account on the server: CREATE USER {account} IDENTIFIED BY RANDOM PASSWORD"));
    };
    if !place.can_login() {
        return problem(format!("is locked, or its password has expired: ALTER USER {account} ACCOUNT UNLOCK"));
    }
    if !KEPT_BY_SERVER.contains(&place.plugin.as_str()) {
        let plugin = &place.plugin;
        return problem(format!("logs in by {plugin}, which has no second password: use caching_sha2_password"));
    }
    Ok(Vec::new())
}
