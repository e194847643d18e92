//! Fixture: every verb ends as the target's configuration says, and creation as the role's, where
//! that says something.
//!
//! ```toml
//! [targets.t.config]
//! revoke = "retryable"
//! accounts = ["v-left-over"]
//! [targets.t.roles.slow]
//! create = "slow-sql"
//! ```

use jit_plugin::{
    Account, AccountPage, AccountState, Description, Error, Feature, Issued, Param, Role, RotationStep, Secret, Sql,
    SqlDriver, Target,
};
use serde::Deserialize;

jit_plugin::statements! {
    /// All that the fixture runs.
    pub(crate) const ALL;

    /// milliseconds
    SLEEP = "SELECT pg_sleep({} / 1000.0)";
}

/// How a verb ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Well, with nothing done.
    #[default]
    Ok,
    /// `refused`
    Refused,
    /// `retryable`, after a millisecond.
    Retryable,
    /// `outcome-unknown`
    Unknown,
    /// `conflict`
    Conflict,
    /// `not-found`
    NotFound,
    /// `dependents`
    Dependents,
    /// `other`
    Other,
    /// With a panic.
    Trap,
    /// Never.
    Loop,
    /// With an answer of 50 MB.
    Huge,
    /// Well, with an account that is not the one asked for.
    WrongName,
    /// Well, after a statement that takes `sleep_ms`.
    SlowSql,
}

/// `[targets.T.config]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    validate: End,
    create: End,
    renew: End,
    rotate: End,
    revoke: End,
    inspect: End,
    list: End,
    /// What `list-accounts` gives, when it ends well.
    accounts: Vec<String>,
    /// How long a slow statement takes; 100 when it does not say.
    sleep_ms: Option<u32>,
}

/// `[targets.T.roles.R]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoleConfig {
    create: Option<End>,
}

/// The driver.
#[derive(Debug)]
pub struct Scripted;

impl TargetConfig {
    fn play(&self, sql: &mut dyn Sql, end: End) -> Result<(), Error> {
        let text = || "as configured".to_owned();
        match end {
            End::Ok | End::WrongName => Ok(()),
            End::Refused => Err(Error::Refused(text())),
            End::Retryable => Err(Error::Retryable(jit_plugin::error::Retry { reason: text(), after_ms: Some(1) })),
            End::Unknown => Err(Error::OutcomeUnknown(text())),
            End::Conflict => Err(Error::Conflict(text())),
            End::NotFound => Err(Error::NotFound),
            End::Dependents => Err(Error::Dependents(vec![text()])),
            End::Other => Err(Error::Other(text())),
            End::Trap => panic!("as configured"),
            End::Loop => loop {
                std::hint::spin_loop();
            },
            End::Huge => Err(Error::Refused("x".repeat(50_000_000))),
            End::SlowSql => {
                let ms = i64::from(self.sleep_ms.unwrap_or(100));
                let rows = sql.query(None, &SLEEP.with([Param::Number(ms)]), 1);
                rows.map(drop).map_err(Error::from)
            }
        }
    }
}

impl SqlDriver for Scripted {
    type Target = TargetConfig;
    type Role = RoleConfig;

    const STATEMENTS: &'static [&'static str] = ALL;

    fn describe() -> Description {
        let features = [Feature::Renew, Feature::Rotate, Feature::Inspect, Feature::ListAccounts];
        let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        Description::new(name, version, 63, &features)
    }

    fn validate(sql: &mut dyn Sql, target: &Target<TargetConfig>, _: &[Role<RoleConfig>]) -> Result<(), Error> {
        target.config.play(sql, target.config.validate)
    }

    fn create(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        _: &Account,
        _: Secret<'_>,
    ) -> Result<Issued, Error> {
        let end = role.config.create.unwrap_or(target.config.create);
        target.config.play(sql, end)?;
        Ok(Issued { username: (end == End::WrongName).then(|| "somebody-else".to_owned()), ..Issued::default() })
    }

    fn renew(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        target.config.play(sql, target.config.renew)?;
        Ok(account.expires_at)
    }

    fn rotate(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        _: &Account,
        _: RotationStep,
        _: Option<Secret<'_>>,
    ) -> Result<(), Error> {
        target.config.play(sql, target.config.rotate)
    }

    fn revoke(sql: &mut dyn Sql, target: &Target<TargetConfig>, _: &Account) -> Result<(), Error> {
        target.config.play(sql, target.config.revoke)
    }

    fn inspect(sql: &mut dyn Sql, target: &Target<TargetConfig>, name: &str) -> Result<AccountState, Error> {
        target.config.play(sql, target.config.inspect)?;
        if !target.config.accounts.iter().any(|account| account == name) {
            return Err(Error::NotFound);
        }
        Ok(AccountState { can_login: true, expires_at: None, properties: Vec::new() })
    }

    fn list_accounts(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        prefix: &str,
        _: Option<&str>,
    ) -> Result<AccountPage, Error> {
        target.config.play(sql, target.config.list)?;
        let mut names: Vec<String> = target.config.accounts.clone();
        names.retain(|name| name.starts_with(prefix));
        if target.config.list == End::WrongName {
            names.push("somebody-else".to_owned());
        }
        Ok(AccountPage { names, next: None })
    }
}

jit_plugin::register_sql_driver!(Scripted);

#[cfg(test)]
mod tests {
    use super::*;
    use jit_plugin::testing::{FakeSql, account, role, secret, target};

    #[test]
    fn a_role_overrides_its_target() {
        let mut sql = FakeSql::new(ALL, |_| Ok(vec![]));
        let target = target(TargetConfig { create: End::Refused, ..TargetConfig::default() });
        let mut create = |end| {
            let role = role(RoleConfig { create: end });
            Scripted::create(&mut sql, &target, &role, &account("v-a", 1), secret("pw"))
        };
        assert!(matches!(create(None), Err(Error::Refused(_))));
        assert!(create(Some(End::SlowSql)).is_ok());
        assert_eq!(sql.runs[0].params, ["number:100"]);
    }
}
