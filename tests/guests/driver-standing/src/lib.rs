//! Fixture: hands out one account that stands, wants upkeep, and has something to say when it is
//! checked.

use std::time::Duration;

use jit_plugin::{
    Account, AccountPage, AccountState, BareDriver, Description, Error, Feature, Issued, Role, RotationStep, Secret,
    Target, log,
};
use serde::Deserialize;

/// How often it wants to be called.
const AGAIN: Duration = Duration::from_secs(1);

/// `[targets.T.config]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    /// Its upkeep fails.
    broken: bool,
}

/// `[targets.T.roles.R]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// The account.
    username: String,
}

/// The driver.
#[derive(Debug)]
pub struct Standing;

impl BareDriver for Standing {
    type Target = TargetConfig;
    type Role = RoleConfig;

    fn describe() -> Description {
        let features = [Feature::ExternalAccounts, Feature::StandingAccounts, Feature::Maintain];
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), 63, &features)
    }

    fn validate(target: &Target<TargetConfig>, _: &[Role<RoleConfig>]) -> Result<(), Error> {
        log::warn("the broker's login may do more than it needs", &[("target", &target.name)]);
        Ok(())
    }

    fn create(_: &Target<TargetConfig>, role: &Role<RoleConfig>, _: &Account, _: Secret<'_>) -> Result<Issued, Error> {
        Ok(Issued { username: Some(role.config.username.clone()), ..Issued::default() })
    }

    fn renew(_: &Target<TargetConfig>, _: &Role<RoleConfig>, account: &Account) -> Result<u64, Error> {
        Ok(account.expires_at)
    }

    fn rotate(_: &Target<TargetConfig>, _: &Account, _: RotationStep, _: Option<Secret<'_>>) -> Result<(), Error> {
        Err(Error::Refused("it stands".to_owned()))
    }

    fn revoke(_: &Target<TargetConfig>, _: &Account) -> Result<(), Error> {
        Ok(())
    }

    fn inspect(_: &Target<TargetConfig>, _: &str) -> Result<AccountState, Error> {
        Err(Error::NotFound)
    }

    fn list_accounts(_: &Target<TargetConfig>, _: &str, _: Option<&str>) -> Result<AccountPage, Error> {
        Ok(AccountPage { names: Vec::new(), next: None })
    }

    fn maintain(target: &Target<TargetConfig>) -> Result<u64, Error> {
        if target.config.broken {
            return Err(Error::Refused("the login is refused".to_owned()));
        }
        log::info("upkeep", &[("target", &target.name)]);
        Ok(AGAIN.as_secs())
    }
}

jit_plugin::register_bare_driver!(Standing);
