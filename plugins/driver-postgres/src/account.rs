//! Making, changing and finding accounts.

use jit_plugin::{
    Account, AccountPage, AccountState, Encoding, Error, Issued, Param, RotationStep, Secret, Sql, SqlError,
};

use crate::config::{RoleConfig, TargetConfig};
use crate::failure::{self, SYNTAX_ERROR, UNDEFINED_OBJECT};
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
    let name = Param::Ident(&account.name);
    let limit = Param::Number(role.connection_limit.into());
    let password = verifier(target, password);
    let expiry = Param::Timestamp(account.expires_at);
    let grants = Param::Idents(&role.grants);
    if !role.set_role {
        let batch =
            [statements::CREATE.with([name, limit, password, expiry]), statements::GRANT_RIGHTS.with([grants, name])];
        match sql.execute(None, &batch) {
            // Before PostgreSQL 16 a membership gives SET ROLE, too; nothing was run.
            Err(error) if error.code() == Some(SYNTAX_ERROR) => {}
            done => return done.map(|()| Issued::default()).map_err(failure::of_change),
        }
    }
    let statement = statements::CREATE_IN_ROLE.with([name, limit, password, expiry, grants]);
    sql.execute(None, &[statement]).map_err(failure::of_change)?;
    Ok(Issued::default())
}

/// The server gets a verifier, never the password: not even its log can show it.
fn verifier<'a>(target: &TargetConfig, password: Secret<'a>) -> Param<'a> {
    Param::Secret(password, Encoding::ScramSha256(target.scram_iterations))
}

pub(crate) fn renew(sql: &mut dyn Sql, account: &Account) -> Result<u64, Error> {
    let statement = statements::SET_EXPIRY.with([Param::Ident(&account.name), Param::Timestamp(account.expires_at)]);
    sql.execute(None, &[statement]).map_err(of_existing)?;
    Ok(account.expires_at)
}

/// PostgreSQL keeps one password for a role: staging the new one is the change.
pub(crate) fn rotate(
    sql: &mut dyn Sql,
    target: &TargetConfig,
    account: &Account,
    step: RotationStep,
    password: Option<Secret<'_>>,
) -> Result<(), Error> {
    if !matches!(step, RotationStep::Stage | RotationStep::Replace) {
        return Ok(());
    }
    let Some(password) = password else {
        return Err(Error::Other("the call to stage a password has no password".into()));
    };
    let statement = statements::SET_PASSWORD.with([Param::Ident(&account.name), verifier(target, password)]);
    sql.execute(None, &[statement]).map_err(of_existing)
}

/// `ALTER ROLE` names nothing else that could be undefined.
fn of_existing(error: SqlError) -> Error {
    match error.code() {
        Some(UNDEFINED_OBJECT) => Error::NotFound,
        _ => failure::of_change(error),
    }
}

pub(crate) fn inspect(sql: &mut dyn Sql, name: &str) -> Result<AccountState, Error> {
    let statement = statements::INSPECT.with([Param::Literal(name)]);
    let rows = sql.query(None, &statement, 1).map_err(failure::of_read)?.rows;
    let Some(row) = rows.into_iter().next() else {
        return Err(Error::NotFound);
    };
    let [can_login, expires_at, member_of] = &row[..] else {
        return Err(Error::Other("the server returned unexpected columns".into()));
    };
    let mut properties = Vec::new();
    if let Some(groups) = member_of {
        properties.push(("member_of".to_owned(), groups.clone()));
    }
    Ok(AccountState {
        can_login: can_login.as_deref().is_some_and(is_true),
        expires_at: expires_at.as_deref().and_then(|seconds| seconds.parse().ok()),
        properties,
    })
}

/// A boolean as text: `t` in PostgreSQL's own form, `true` once cast to text.
pub(crate) fn is_true(text: &str) -> bool {
    matches!(text, "t" | "true")
}

pub(crate) fn list(sql: &mut dyn Sql, prefix: &str, cursor: Option<&str>) -> Result<AccountPage, Error> {
    let statement = statements::LIST.with([
        Param::Literal(prefix),
        Param::Literal(cursor.unwrap_or_default()),
        Param::Number(PAGE.into()),
    ]);
    let answer = sql.query(None, &statement, PAGE).map_err(failure::of_read)?;
    let names: Vec<String> = answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    // A full page may be the last; one more call then finds nothing.
    let more = answer.truncated || names.len() >= PAGE as usize;
    Ok(AccountPage { next: names.last().filter(|_| more).cloned(), names })
}
