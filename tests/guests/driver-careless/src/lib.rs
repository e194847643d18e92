//! Fixture: a driver for PostgreSQL 16 and later that is small and right, and makes one mistake
//! when its target's configuration says so. The conformance kit must let the one pass and find
//! each of the others.
//!
//! ```toml
//! [targets.t.config]
//! mistake = "revoke-does-nothing"
//! ```

use jit_plugin::{
    Account, AccountPage, AccountState, Description, Encoding, Error, Feature, Issued, Param, Role, RotationStep,
    Secret, Sql, SqlDriver, SqlError, Target,
};
use serde::Deserialize;

jit_plugin::statements! {
    /// All that the fixture runs.
    pub(crate) const ALL;

    /// name, verifier, expiry, roles
    CREATE = "CREATE ROLE {} LOGIN PASSWORD {} VALID UNTIL {} IN ROLE {}";
    /// name, verifier, roles
    CREATE_FOREVER = "CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}";
    /// name, expiry
    EXPIRE = "ALTER ROLE {} VALID UNTIL {}";
    /// name, verifier
    PASSWORD = "ALTER ROLE {} PASSWORD {}";
    /// name
    DISABLE = "ALTER ROLE {} NOLOGIN";
    /// name
    JOIN = "GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET FALSE";
    /// name
    END_SESSIONS = "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = {}";
    /// name
    SESSIONS = "SELECT count(*)::text, pg_sleep(0.1)::text FROM pg_stat_activity WHERE usename = {}";
    /// name
    DROP = "DROP ROLE {}";
    /// name
    FIND = "SELECT rolcanlogin::text, floor(extract(epoch FROM rolvaliduntil))::bigint::text \
            FROM pg_roles WHERE rolname = {}";
    /// prefix, after
    LIST = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, {}) AND rolname > {} ORDER BY 1 LIMIT 5";
    /// roles
    KNOWN = "SELECT rolname::text FROM pg_roles WHERE rolname IN ({})";
}

/// What is done wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mistake {
    /// Nothing.
    #[default]
    None,
    /// `revoke` says that it did.
    RevokeDoesNothing,
    /// `revoke` of what is gone is an error.
    SecondRevokeFails,
    /// `revoke` leaves open sessions alone.
    SessionsStay,
    /// `revoke` ends sessions before it takes the right to log in.
    SessionsFirst,
    /// `revoke` gives up where the account holds its own row locked.
    StopsAtALock,
    /// The backend's expiry is not set.
    NoExpiry,
    /// `renew` says that it did.
    RenewDoesNothing,
    /// `create` of a name that exists takes that account over.
    TakesOver,
    /// `list-accounts` stops after its first page.
    OnePage,
    /// `rotate` says that it did.
    RotateDoesNothing,
    /// A lost answer is taken for a refusal.
    LostIsRefused,
    /// `validate` says yes to anything.
    ValidatesAnything,
    /// `inspect` finds whatever it is asked for.
    FindsAnything,
}

/// `[targets.T.config]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// What is done wrong; nothing by default.
    #[serde(default)]
    pub mistake: Mistake,
}

/// `[targets.T.roles.R]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// Roles of the database.
    pub grants: Vec<String>,
}

/// The driver.
#[derive(Debug)]
pub struct Careless;

/// SQLSTATE: there is no such role.
const UNDEFINED: &str = "42704";
/// SQLSTATE: there is one.
const EXISTS: &str = "42710";
/// SQLSTATE: somebody holds a lock that is waited for.
const LOCKED: &str = "55P03";

fn failed(error: SqlError, mistake: Mistake) -> Error {
    match error.code() {
        Some(UNDEFINED) => return Error::NotFound,
        Some(EXISTS) => return Error::Conflict("the role exists".into()),
        _ => {}
    }
    match error {
        SqlError::Unknown(reason) if mistake == Mistake::LostIsRefused => Error::retryable(reason),
        error => error.into(),
    }
}

fn verifier(password: Secret<'_>) -> Param<'_> {
    Param::Secret(password, Encoding::ScramSha256(4096))
}

fn end_sessions(sql: &mut dyn Sql, name: &str) -> Result<(), SqlError> {
    sql.execute(None, &[JOIN.with([Param::Ident(name)])])?;
    sql.execute(None, &[END_SESSIONS.with([Param::Literal(name)])])
}

impl SqlDriver for Careless {
    type Target = TargetConfig;
    type Role = RoleConfig;

    const STATEMENTS: &'static [&'static str] = ALL;

    fn describe() -> Description {
        let features = [Feature::Renew, Feature::Rotate, Feature::Backstop, Feature::Inspect, Feature::ListAccounts];
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), 63, &features)
    }

    fn validate(sql: &mut dyn Sql, target: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) -> Result<(), Error> {
        if target.config.mistake == Mistake::ValidatesAnything {
            return Ok(());
        }
        for role in roles {
            let known = sql.query(None, &KNOWN.with([Param::Literals(&role.config.grants)]), 100)?.rows;
            if known.len() != role.config.grants.len() {
                return Err(Error::Refused(format!("role {} grants what is not there", role.name)));
            }
        }
        Ok(())
    }

    fn create(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        let (name, grants) = (Param::Ident(&account.name), Param::Idents(&role.config.grants));
        let statement = match target.config.mistake {
            Mistake::NoExpiry => CREATE_FOREVER.with([name, verifier(password), grants]),
            _ => CREATE.with([name, verifier(password), Param::Timestamp(account.expires_at), grants]),
        };
        let created = sql.execute(None, &[statement]).map_err(|error| failed(error, target.config.mistake));
        match created {
            Err(Error::Conflict(_)) if target.config.mistake == Mistake::TakesOver => {
                let taken = PASSWORD.with([Param::Ident(&account.name), verifier(password)]);
                sql.execute(None, &[taken])?;
                Ok(Issued::default())
            }
            Err(Error::NotFound) => Err(Error::Refused("a role that is granted is not there".into())),
            other => other.map(|()| Issued::default()),
        }
    }

    fn renew(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        if target.config.mistake != Mistake::RenewDoesNothing {
            let statement = EXPIRE.with([Param::Ident(&account.name), Param::Timestamp(account.expires_at)]);
            sql.execute(None, &[statement]).map_err(|error| failed(error, target.config.mistake))?;
        }
        Ok(account.expires_at)
    }

    fn rotate(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        account: &Account,
        step: RotationStep,
        password: Option<Secret<'_>>,
    ) -> Result<(), Error> {
        let Some(password) = password.filter(|_| step == RotationStep::Stage) else { return Ok(()) };
        if target.config.mistake == Mistake::RotateDoesNothing {
            return Ok(());
        }
        let statement = PASSWORD.with([Param::Ident(&account.name), verifier(password)]);
        sql.execute(None, &[statement]).map_err(|error| failed(error, target.config.mistake))
    }

    fn revoke(sql: &mut dyn Sql, target: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
        let mistake = target.config.mistake;
        if mistake == Mistake::RevokeDoesNothing {
            return Ok(());
        }
        let name = account.name.as_str();
        if mistake == Mistake::SessionsFirst {
            end_sessions(sql, name)?;
            // Until somebody came back, for a while: that the mistake is found is no matter of luck.
            for _ in 0..80 {
                let rows = sql.query(None, &SESSIONS.with([Param::Literal(name)]), 1)?.rows;
                if rows.iter().flatten().flatten().any(|count| !count.is_empty() && count != "0") {
                    break;
                }
            }
        }
        let disable = |sql: &mut dyn Sql| match sql.execute(None, &[DISABLE.with([Param::Ident(name)])]) {
            // The account may hold its own row: who holds it is ended, and then there is another try.
            Err(error) if error.code() == Some(LOCKED) && mistake != Mistake::StopsAtALock => {
                end_sessions(sql, name)?;
                sql.execute(None, &[DISABLE.with([Param::Ident(name)])])
            }
            other => other,
        };
        match disable(sql).map_err(|error| failed(error, mistake)) {
            Err(Error::NotFound) if mistake == Mistake::SecondRevokeFails => {
                return Err(Error::Refused("there is no such account".into()));
            }
            Err(Error::NotFound) => return Ok(()),
            other => other?,
        }
        if mistake != Mistake::SessionsStay && mistake != Mistake::SessionsFirst {
            end_sessions(sql, name)?;
            // A login that was under way shows a moment later.
            sql.execute(None, &[END_SESSIONS.with([Param::Literal(name)])])?;
        }
        match sql.execute(None, &[DROP.with([Param::Ident(name)])]).map_err(|error| failed(error, mistake)) {
            Err(Error::NotFound) => Ok(()),
            other => other,
        }
    }

    fn inspect(sql: &mut dyn Sql, target: &Target<TargetConfig>, name: &str) -> Result<AccountState, Error> {
        if target.config.mistake == Mistake::FindsAnything {
            return Ok(AccountState { can_login: true, expires_at: None, properties: Vec::new() });
        }
        let rows = sql.query(None, &FIND.with([Param::Literal(name)]), 1).map_err(SqlError::of_read)?.rows;
        let Some([can_login, expires_at]) = rows.first().map(Vec::as_slice) else { return Err(Error::NotFound) };
        Ok(AccountState {
            can_login: can_login.as_deref() == Some("true"),
            expires_at: expires_at.as_deref().and_then(|seconds| seconds.parse().ok()),
            properties: Vec::new(),
        })
    }

    fn list_accounts(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<AccountPage, Error> {
        let statement = LIST.with([Param::Literal(prefix), Param::Literal(cursor.unwrap_or_default())]);
        let rows = sql.query(None, &statement, 5).map_err(SqlError::of_read)?.rows;
        let names: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        let more = names.len() == 5 && target.config.mistake != Mistake::OnePage;
        Ok(AccountPage { next: names.last().filter(|_| more).cloned(), names })
    }
}

jit_plugin::register_sql_driver!(Careless);

#[cfg(test)]
mod tests {
    use super::*;
    use jit_plugin::testing::{FakeSql, account, secret, target};

    #[test]
    fn without_a_mistake_it_removes_what_it_made() {
        let mut sql = FakeSql::new(ALL, |_| Ok(vec![]));
        let target = target(TargetConfig::default());
        let role = jit_plugin::testing::role(RoleConfig { grants: vec!["app".into()] });
        let account = account("jk-x", 1_800_000_000);
        assert!(Careless::create(&mut sql, &target, &role, &account, secret("pw")).is_ok());
        assert!(Careless::revoke(&mut sql, &target, &account).is_ok());
        assert_eq!(sql.templates().last(), Some(&DROP.text()));
    }

    #[test]
    fn with_one_it_does_not() {
        let mut sql = FakeSql::new(ALL, |_| Ok(vec![]));
        let target = target(TargetConfig { mistake: Mistake::RevokeDoesNothing });
        assert!(Careless::revoke(&mut sql, &target, &account("jk-x", 1)).is_ok());
        assert!(sql.runs.is_empty());
    }
}
