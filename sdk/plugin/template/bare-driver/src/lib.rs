//! The driver my-bare-driver: it reaches no backend, and hands out what its role says.
//!
//! A driver without a capability is for fixtures, and for targets whose accounts stand for ever and whose
//! access is controlled by who is told about them. What it gives is a name; the password that the broker made is of no use
//! with it.

use jit_plugin::{
    Account, AccountPage, AccountState, BareDriver, Description, Error, Feature, Issued, Role, Secret, Target,
};
use serde::Deserialize;

/// `[targets.T.config]`: nothing to say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {}

/// `[targets.T.roles.R]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// Where the account may go: told to the caller.
    endpoint: String,
}

/// The driver.
#[derive(Debug)]
pub struct MyBareDriver;

impl BareDriver for MyBareDriver {
    type Target = TargetConfig;
    type Role = RoleConfig;

    fn describe() -> Description {
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), 63, &[Feature::ListAccounts])
    }

    fn validate(_: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) -> Result<(), Error> {
        match roles.iter().find(|role| role.config.endpoint.is_empty()) {
            Some(role) => Err(Error::invalid_config(format!("roles.{}.endpoint", role.name), "is empty: say where")),
            None => Ok(()),
        }
    }

    fn create(_: &Target<TargetConfig>, role: &Role<RoleConfig>, _: &Account, _: Secret<'_>) -> Result<Issued, Error> {
        let properties = vec![("endpoint".to_owned(), role.config.endpoint.clone())];
        Ok(Issued { properties, ..Issued::default() })
    }

    fn renew(_: &Target<TargetConfig>, _: &Role<RoleConfig>, account: &Account) -> Result<u64, Error> {
        Ok(account.expires_at)
    }

    fn revoke(_: &Target<TargetConfig>, _: &Account) -> Result<(), Error> {
        // Nothing was made, so nothing is left.
        Ok(())
    }

    fn inspect(_: &Target<TargetConfig>, _: &str) -> Result<AccountState, Error> {
        Err(Error::NotFound)
    }

    fn list_accounts(_: &Target<TargetConfig>, _: &str, _: Option<&str>) -> Result<AccountPage, Error> {
        Ok(AccountPage { names: Vec::new(), next: None })
    }
}

jit_plugin::register_bare_driver!(MyBareDriver);

#[cfg(test)]
mod tests {
    use jit_plugin::testing::{account, role, secret, target};

    use super::*;

    fn endpoint(endpoint: &str) -> Role<RoleConfig> {
        role(RoleConfig { endpoint: endpoint.to_owned() })
    }

    #[test]
    fn the_caller_is_told_where() {
        let made = MyBareDriver::create(&target(TargetConfig {}), &endpoint("a:1"), &account("v-a", 2), secret("pw"));
        assert_eq!(made.expect("it is made").properties, [("endpoint".to_owned(), "a:1".to_owned())]);
    }

    #[test]
    fn a_role_says_where() {
        assert!(MyBareDriver::validate(&target(TargetConfig {}), &[endpoint("")]).is_err());
        assert_eq!(MyBareDriver::validate(&target(TargetConfig {}), &[endpoint("a:1")]), Ok(()));
    }
}
