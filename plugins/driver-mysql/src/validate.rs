//! Checking a target before it is used: everything that would make an issue fail later, each with
//! the statement that mends it.

use std::collections::BTreeSet;

use jit_plugin::driver::of_role;
use jit_plugin::{ConfigProblem, Error, Param, Role, Sql, SqlError, Target, log};

use crate::account::Place;
use crate::config::{RoleConfig, Rotating, TargetConfig};
use crate::failure::{self, UNKNOWN_TABLE};
use crate::flavour::{Flavour, Server};
use crate::powers::Powers;
use crate::prepared;
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
        prepared::warn(sql, ("target", &target.name));
        problems = broker.problems(sql)?;
        problems.extend(other_server(&target.config, &broker.server));
        // Without these the rest cannot be asked.
        if problems.is_empty() {
            let known = Known::ask(sql, &broker, roles)?;
            for role in roles {
                let found = match &role.config.rotating {
                    Some(rotating) => rotating_problems(sql, &broker, &known, &target.config, rotating)?,
                    None => known.role_problems(&broker, &role.config),
                };
                problems.extend(of_role(&role.name, found));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::InvalidConfig(problems)) }
}

/// The configuration names another server than the one that answers.
fn other_server(target: &TargetConfig, server: &Server) -> Option<ConfigProblem> {
    let said = target.server.filter(|said| *said != server.flavour)?;
    let message = format!("says {}, and the server is {}", said.as_str(), server.shown);
    Some(ConfigProblem::new("server", message))
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
            if !self.server.shows_logins {
                let message = "the server's performance schema is off: a session that runs something with its \
                               definer's rights as its lease ends is not seen; start the server with \
                               performance_schema=ON, see docs/drivers/mysql.md";
                log::warn(message, &fields);
            }
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
        let names = [Param::Literals(std::slice::from_ref(&self.server.broker.0))];
        let table = |table: &'static str| (table, format!("GRANT SELECT ON {table} TO {account}"));
        let is_mariadb = self.server.is_mariadb();
        let (granted, dynamic) = match self.server.flavour {
            Flavour::MySql => (statements::GRANTED, statements::DYNAMIC),
            Flavour::MariaDb => (statements::GRANTED_MARIADB, statements::DYNAMIC_MARIADB),
        };
        let edges = table(if is_mariadb { "mysql.roles_mapping" } else { "mysql.role_edges" });
        let grants = table(if is_mariadb { "mysql.global_priv" } else { "mysql.global_grants" });
        let (schemas, threads, accounts) =
            (table("mysql.db"), table("performance_schema.threads"), table("performance_schema.accounts"));
        if self.server.shows_logins {
            let sessions = statements::SESSIONS.with([me[0], Param::Number(0)]);
            for (read, (table, mend)) in [
                (sql.query(None, &sessions, 1).map(drop), &threads),
                (sql.query(None, &statements::CONNECTIONS.with(me), 1).map(drop), &accounts),
            ] {
                if may_not_read(read)? {
                    problem(format!("the broker's account may not read {table}: {mend}"));
                }
            }
        } else if !is_mariadb {
            problem(
                "the server's performance schema is off: without it nobody can tell who logged in as long as a \
                 session runs something with its definer's rights; start the server with performance_schema=ON"
                    .into(),
            );
        }
        if is_mariadb {
            let plugins = sql.query(None, &statements::CHECKS_PASSWORDS.with([]), 5).map_err(failure::of_read)?;
            for plugin in plugins.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()) {
                problem(format!(
                    "the server's {plugin} checks passwords and takes no hashes, which is all that the broker sends: \
                     SET GLOBAL strict_password_validation = OFF"
                ));
            }
        }
        for (read, (table, mend)) in [
            (sql.query(None, &statements::POWERS.with(names), 1).map(drop), &user),
            (sql.query(None, &granted.with(names), 1).map(drop), &edges),
            (sql.query(None, &dynamic.with(names), 1).map(drop), &grants),
            (sql.query(None, &statements::SCHEMA_POWERS.with(names), 1).map(drop), &schemas),
            (sql.query(None, &statements::HOSTS.with(me), 1).map(drop), &user),
            (
                Place::of(sql, self.server.flavour, &self.server.broker.0).map(drop),
                if self.server.is_mariadb() { &priv_ } else { &user },
            ),
        ] {
            if may_not_read(read)? {
                problem(format!("the broker's account may not read {table}: {mend}"));
            }
        }
        problems.dedup();
        Ok(problems)
    }
}

fn may_not_read(read: Result<(), SqlError>) -> Result<bool, Error> {
    match read {
        Ok(()) => Ok(false),
        Err(error) if failure::is_denied(&error) => Ok(true),
        Err(error) => Err(failure::of_read(error)),
    }
}

/// The columns of MySQL's `mysql.user` that the driver reads: none of them is a password's hash but
/// for a second one, within `User_attributes`.
const USER_COLUMNS: &str = "User, Host, plugin, account_locked, password_expired, User_attributes, Super_priv, \
                            Create_user_priv, Grant_priv, File_priv, Insert_priv, Update_priv, Delete_priv, \
                            Reload_priv, Lock_tables_priv, Event_priv, Create_routine_priv, Trigger_priv, \
                            Create_view_priv";

/// What the server says of the roles that the configuration names.
struct Known {
    powers: Powers,
    /// None where the server does not say.
    grantable: Option<BTreeSet<String>>,
}

impl Known {
    fn ask(sql: &mut dyn Sql, broker: &Broker, roles: &[Role<RoleConfig>]) -> Result<Self, Error> {
        let granted = roles.iter().flat_map(|role| &role.config.roles);
        let rotating = roles.iter().filter_map(|role| role.config.rotating.as_ref()).map(|rotating| &rotating.account);
        let names: BTreeSet<String> = granted.chain(rotating).cloned().collect();
        let powers = Powers::ask(sql, &broker.server, &names)?;
        let names: Vec<String> = names.into_iter().collect();
        let mut known = Self { powers, grantable: Some(BTreeSet::new()) };
        for names in names.chunks(NAMES) {
            match sql.query(None, &statements::GRANTABLE.with([Param::Literals(names)]), 500) {
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
        let host = if broker.server.is_mariadb() { "" } else { "%" };
        let grantee = (role.to_owned(), host.to_owned());
        if !self.powers.exists(&grantee) {
            let name = quoted(role);
            return Some(format!(
                "the server has no role {name}: write one that it has, or make it: CREATE ROLE {name}"
            ));
        }
        if role == broker.server.broker.0 {
            return Some("is the broker's own account: grant a role that has only what applications need".into());
        }
        if let Some(problem) = self.powers.problem(&grantee) {
            return Some(problem);
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
    known: &Known,
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
        return problem(format!(
            "the server has no account {account}: make it with CREATE USER {account} IDENTIFIED BY RANDOM PASSWORD, or write one that it has"
        ));
    };
    if !place.can_login() {
        return problem(format!("is locked, or its password has expired: ALTER USER {account} ACCOUNT UNLOCK"));
    }
    if !KEPT_BY_SERVER.contains(&place.plugin.as_str()) {
        let plugin = &place.plugin;
        return problem(format!(
            "logs in with {plugin}, which cannot have a second password: use caching_sha2_password"
        ));
    }
    // Whoever holds its password could keep an old one, or make accounts.
    if let Some(message) = known.powers.problem(&(rotating.account.clone(), target.host.clone())) {
        return problem(message);
    }
    let wrong = password_rules(sql)?;
    if !wrong.is_empty() {
        let wrong = wrong.join(", ");
        return problem(format!(
            "the server asks more of passwords than the broker's have (32 characters with upper and lower case, a \
             digit and a hyphen): lower {wrong}"
        ));
    }
    Ok(Vec::new())
}

/// Settings of `validate_password` that not every password of the broker's passes.
fn password_rules(sql: &mut dyn Sql) -> Result<Vec<String>, Error> {
    let rules = sql.query(None, &statements::PASSWORD_RULES.with([]), 50).map_err(failure::of_read)?.rows;
    let wrong = rules.iter().filter_map(|row| match &row[..] {
        [Some(name), Some(value)] => {
            let most = match name.trim_start_matches("validate_password").trim_start_matches(['.', '_']) {
                "length" => 32,
                "mixed_case_count" | "number_count" | "special_char_count" => 1,
                _ => return None,
            };
            (value.parse::<u64>().ok()? > most).then(|| format!("{name} to {most}"))
        }
        _ => None,
    });
    Ok(wrong.collect())
}
