//! Making and finding accounts.

use jit_plugin::{Account, AccountPage, AccountState, Encoding, Error, Issued, Param, Secret, Sql, SqlError};

use crate::config::{MAX_USER_CONNECTIONS, RoleConfig, TargetConfig};
use crate::failure::{self, CANNOT_USER};
use crate::flavour::{Flavour, Server};
use crate::statements;

/// How many names a page of [`list`] has.
const PAGE: u32 = 500;

pub(crate) fn create(
    sql: &mut dyn Sql,
    target: &TargetConfig,
    role: &RoleConfig,
    account: &Account,
    password: Secret<'_>,
) -> Result<Issued, Error> {
    if role.rotating.is_some() {
        return Err(Error::Refused("the role has a standing account, which is rotated and never created".into()));
    }
    let (name, host) = (Param::Literal(&account.name), Param::Literal(&target.host));
    let most = Param::Number(role.max_user_connections.unwrap_or(MAX_USER_CONNECTIONS).into());
    match Server::ask(sql)?.flavour {
        Flavour::MySql => {
            let create = if role.require_tls.unwrap_or(false) { statements::CREATE_TLS } else { statements::CREATE };
            let hash = Param::Secret(password, Encoding::CachingSha2);
            let statement = create.with([name, host, hash, Param::Idents(&role.roles), most]);
            sql.execute(None, &[statement]).map_err(of_new)?;
        }
        Flavour::MariaDb => {
            let create = match role.require_tls.unwrap_or(true) {
                true => statements::CREATE_TLS_MARIADB,
                false => statements::CREATE_MARIADB,
            };
            let hash = Param::Secret(password, Encoding::MysqlNative);
            sql.execute(None, &[create.with([name, host, hash, most])]).map_err(of_new)?;
            // From here on there is an account.
            let mut grants = Vec::new();
            for role in &role.roles {
                let role = Param::Ident(role);
                grants.push(statements::GRANT_MARIADB.with([role, name, host]));
                grants.push(statements::DEFAULT_ROLE_MARIADB.with([role, name, host]));
            }
            if let Err(error) = sql.execute(None, &grants) {
                return Err(undo(sql, account, target, error));
            }
        }
    }
    // Tells an account that the broker made from a standing one, and where it was made.
    Ok(Issued { external_id: Some(target.host.clone()), ..Issued::default() })
}

/// Takes a half-made account away. Only then it was refused; else the host has to remove it.
fn undo(sql: &mut dyn Sql, account: &Account, target: &TargetConfig, error: SqlError) -> Error {
    let drop = statements::DROP.with([Param::Literal(&account.name), Param::Literal(&target.host)]);
    let undone = !matches!(error, SqlError::Unknown(_)) && sql.execute(None, &[drop]).is_ok();
    match failure::of_change(error) {
        why if undone => why,
        Error::Refused(text) | Error::OutcomeUnknown(text) | Error::Other(text) => {
            Error::OutcomeUnknown(format!("the account was created without its role: {text}"))
        }
        Error::Retryable(retry) => {
            Error::OutcomeUnknown(format!("the account was created without its role: {}", retry.reason))
        }
        other => other,
    }
}

/// The failure of a creation.
fn of_new(error: SqlError) -> Error {
    match error {
        SqlError::Refused(server) if server.code == CANNOT_USER => {
            Error::Conflict(format!("{} (error {})", server.message, server.code))
        }
        error => failure::of_change(error),
    }
}

/// Neither server lets an account expire by itself: its lease's end is the host's to keep.
pub(crate) fn renew(sql: &mut dyn Sql, account: &Account) -> Result<u64, Error> {
    let places = Place::all(sql, &account.name)?;
    if places.is_empty() {
        return Err(Error::NotFound);
    }
    if !places.iter().any(Place::can_login) {
        return Err(Error::Refused("the account is locked, or its password has expired".into()));
    }
    Ok(account.expires_at)
}

/// An account's name with one host part.
pub(crate) struct Place {
    pub(crate) host: String,
    is_locked: bool,
    is_expired: bool,
    /// It has two passwords.
    pub(crate) overlaps: bool,
    pub(crate) plugin: String,
}

impl Place {
    pub(crate) fn can_login(&self) -> bool {
        !self.is_locked && !self.is_expired
    }

    /// Of every host part: the target's may have been another when the account was made.
    pub(crate) fn all(sql: &mut dyn Sql, name: &str) -> Result<Vec<Self>, Error> {
        let flavour = Server::ask(sql)?.flavour;
        Self::of(sql, flavour, name).map_err(failure::of_read)
    }

    pub(crate) fn of(sql: &mut dyn Sql, flavour: Flavour, name: &str) -> Result<Vec<Self>, SqlError> {
        let inspect = match flavour {
            Flavour::MySql => statements::INSPECT,
            Flavour::MariaDb => statements::INSPECT_MARIADB,
        };
        let rows = sql.query(None, &inspect.with([Param::Literal(name)]), 16)?.rows;
        let is = |column: &Option<String>, value: &str| column.as_deref() == Some(value);
        Ok(rows
            .iter()
            .filter_map(|row| match &row[..] {
                [Some(host), locked, expired, overlaps, plugin] => Some(Self {
                    host: host.clone(),
                    is_locked: is(locked, "Y"),
                    is_expired: is(expired, "Y"),
                    overlaps: is(overlaps, "1"),
                    plugin: plugin.clone().unwrap_or_default(),
                }),
                _ => None,
            })
            .collect())
    }
}

pub(crate) fn inspect(sql: &mut dyn Sql, name: &str) -> Result<AccountState, Error> {
    let places = Place::all(sql, name)?;
    if places.is_empty() {
        return Err(Error::NotFound);
    }
    let mut properties = Vec::new();
    let hosts: Vec<&str> = places.iter().map(|place| place.host.as_str()).collect();
    properties.push(("hosts".to_owned(), hosts.join(",")));
    if places.iter().any(|place| place.overlaps) {
        properties.push(("old_password".to_owned(), "valid".to_owned()));
    }
    Ok(AccountState { can_login: places.iter().any(Place::can_login), expires_at: None, properties })
}

pub(crate) fn list(sql: &mut dyn Sql, prefix: &str, cursor: Option<&str>) -> Result<AccountPage, Error> {
    let prefix = Param::Literal(prefix);
    let statement =
        statements::LIST.with([prefix, prefix, Param::Literal(cursor.unwrap_or_default()), Param::Number(PAGE.into())]);
    let answer = sql.query(None, &statement, PAGE).map_err(failure::of_read)?;
    let mut names: Vec<String> = answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    names.sort();
    // A full page may be the last; one more call then finds nothing.
    let more = answer.truncated || names.len() >= PAGE as usize;
    Ok(AccountPage { next: names.last().filter(|_| more).cloned(), names })
}
