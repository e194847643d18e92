//! Fixture: a backend that names its accounts itself, played on PostgreSQL. The server chooses the
//! name, and `creds/<name>` is the backend's handle: whoever has none cannot remove the account.
//!
//! ```toml
//! [targets.t.config]
//! namespace = "x_"
//! [targets.t.roles.lossy]
//! lose_answer = true
//! ```

use jit_plugin::{
    Account, AccountPage, AccountState, Description, Encoding, Error, Feature, Issued, Param, Role, RotationStep,
    Secret, Sql, SqlDriver, Target,
};
use serde::Deserialize;

jit_plugin::statements! {
    /// All that the fixture runs.
    pub const ALL;

    /// A name that nobody knew before.
    NAME = "SELECT replace(gen_random_uuid()::text, '-', '')";
    /// name, password, expiry
    CREATE = "CREATE ROLE {} LOGIN PASSWORD {} VALID UNTIL {}";
    /// milliseconds
    SLEEP = "SELECT pg_sleep({} / 1000.0)";
    /// name, expiry
    RENEW = "ALTER ROLE {} VALID UNTIL {}";
    /// name
    DROP = "DROP ROLE IF EXISTS {}";
    /// prefix
    LIST = "SELECT rolname FROM pg_catalog.pg_roles WHERE starts_with(rolname, {}) ORDER BY rolname";
}

/// How handles begin.
const HANDLE: &str = "creds/";

/// `[targets.T.config]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// How the backend's names begin.
    namespace: String,
    /// The backend cannot say what it has.
    #[serde(default)]
    unlisted: bool,
}

/// `[targets.T.roles.R]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoleConfig {
    /// The account is made, and nobody is told.
    lose_answer: bool,
    /// How long the answer takes after the account is there.
    answer_ms: u32,
}

/// The driver.
#[derive(Debug)]
pub struct External;

/// The account's name, where the broker knows it.
fn name(account: &Account) -> Option<&str> {
    account.external_id.as_deref()?.strip_prefix(HANDLE)
}

impl SqlDriver for External {
    type Target = TargetConfig;
    type Role = RoleConfig;

    const STATEMENTS: &'static [&'static str] = ALL;

    fn describe() -> Description {
        let features = [Feature::Renew, Feature::Backstop, Feature::ListAccounts, Feature::ExternalAccounts];
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), 63, &features)
    }

    fn validate(_: &mut dyn Sql, _: &Target<TargetConfig>, _: &[Role<RoleConfig>]) -> Result<(), Error> {
        Ok(())
    }

    fn create(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        let answer = sql.query(None, &NAME.with([]), 1)?;
        let id = answer.rows.into_iter().flatten().flatten().next().ok_or(Error::NotFound)?;
        let name = format!("{}{id}", target.config.namespace);
        let secret = Param::Secret(password, Encoding::ScramSha256(4096));
        sql.execute(None, &[CREATE.with([Param::Ident(&name), secret, Param::Timestamp(account.expires_at)])])?;
        if role.config.answer_ms > 0 {
            sql.query(None, &SLEEP.with([Param::Number(i64::from(role.config.answer_ms))]), 1)?;
        }
        if role.config.lose_answer {
            return Err(Error::OutcomeUnknown("the answer was lost".to_owned()));
        }
        let external_id = Some(format!("{HANDLE}{name}"));
        let properties = vec![("backend".to_owned(), "external".to_owned())];
        Ok(Issued { username: Some(name), external_id, properties, ..Issued::default() })
    }

    fn renew(
        sql: &mut dyn Sql,
        _: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        let name = name(account).ok_or(Error::NotFound)?;
        sql.execute(None, &[RENEW.with([Param::Ident(name), Param::Timestamp(account.expires_at)])])?;
        Ok(account.expires_at)
    }

    fn rotate(
        _: &mut dyn Sql,
        _: &Target<TargetConfig>,
        _: &Account,
        _: RotationStep,
        _: Option<Secret<'_>>,
    ) -> Result<(), Error> {
        Err(Error::Refused("its backend chooses passwords".to_owned()))
    }

    fn revoke(sql: &mut dyn Sql, _: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
        // As such backends do: an unknown handle, or none, is no mistake.
        match name(account) {
            Some(name) => Ok(sql.execute(None, &[DROP.with([Param::Ident(name)])])?),
            None => Ok(()),
        }
    }

    fn inspect(_: &mut dyn Sql, _: &Target<TargetConfig>, _: &str) -> Result<AccountState, Error> {
        Err(Error::NotFound)
    }

    fn list_accounts(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        _: &str,
        _: Option<&str>,
    ) -> Result<AccountPage, Error> {
        if target.config.unlisted {
            return Err(Error::Refused("permission denied".to_owned()));
        }
        let answer = sql.query(None, &LIST.with([Param::Literal(&target.config.namespace)]), 500)?;
        let names = answer.rows.into_iter().flatten().flatten().map(|name| format!("{HANDLE}{name}")).collect();
        Ok(AccountPage { names, next: None })
    }
}

jit_plugin::register_sql_driver!(External);
