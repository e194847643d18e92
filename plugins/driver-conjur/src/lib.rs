//! Driver `conjur`: hands out user names and passwords that variables in Conjur have.
//!
//! These accounts stand before and after a lease: Conjur stores them, and revocation cannot take
//! them back. What can be done is to have the password rotated; the driver says so in what it
//! describes and in each answer (`revocation`).
//!
//! In scope: variables, by API key or JWT, pinned versions, rotators that Conjur has. Not in scope:
//! making accounts, policies, ephemeral secrets of an issuer.
//!
//! `docs/drivers/conjur.md` has the policy that the broker's host needs.

mod client;
mod config;
mod failure;
mod secrets;
mod validate;

use jit_plugin::{
    Account, AccountPage, AccountState, Description, Error, Feature, Http, HttpDriver, Issued, Role, Secret, Target,
};

use client::Conjur;
pub use config::{Auth, AuthMethod, RoleConfig, TargetConfig};

/// Names are the variables'; the host's are only its own.
const MAX_NAME_LENGTH: u32 = 255;

/// The driver.
#[derive(Debug)]
pub struct ConjurDriver;

impl HttpDriver for ConjurDriver {
    type Target = TargetConfig;
    type Role = RoleConfig;

    fn describe() -> Description {
        let features = [Feature::Renew, Feature::ExternalAccounts, Feature::StandingAccounts];
        let mut description =
            Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), MAX_NAME_LENGTH, &features);
        let properties = [
            ("servers", "CyberArk Conjur"),
            ("revocation", "none: the accounts stand; with `rotate_on_revoke` the password's rotator is triggered"),
            ("sessions", "stay"),
            ("harmless-posts", "authn/**/authenticate authn-jwt/**/authenticate"),
        ];
        description.properties.extend(properties.map(|(name, value)| (name.to_owned(), value.to_owned())));
        description
    }

    fn validate(http: &mut dyn Http, target: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) -> Result<(), Error> {
        validate::validate(http, target, roles)
    }

    /// Conjur has the password: the host's own is not used.
    fn create(
        http: &mut dyn Http,
        target: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        _: &Account,
        _: Secret<'_>,
    ) -> Result<Issued, Error> {
        secrets::create(&mut Conjur::new(http, &target.config), &role.config)
    }

    /// The account has no expiry that could be moved: as long as the lease is, it is handed out.
    fn renew(
        _: &mut dyn Http,
        _: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        Ok(account.expires_at)
    }

    fn revoke(http: &mut dyn Http, target: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
        secrets::revoke(&mut Conjur::new(http, &target.config), account)
    }

    fn inspect(http: &mut dyn Http, target: &Target<TargetConfig>, name: &str) -> Result<AccountState, Error> {
        secrets::inspect(&mut Conjur::new(http, &target.config), name)
    }

    fn list_accounts(
        _: &mut dyn Http,
        _: &Target<TargetConfig>,
        _: &str,
        _: Option<&str>,
    ) -> Result<AccountPage, Error> {
        Err(Error::Other("this driver makes no accounts and cannot list any".into()))
    }

    /// Conjur says nothing of the appliance that could be told from another's: the host knows its address.
    fn place(_: &mut dyn Http, target: &Target<TargetConfig>) -> Result<Vec<(String, String)>, Error> {
        Ok(vec![("account".to_owned(), target.config.account.clone())])
    }
}

jit_plugin::register_http_driver!(ConjurDriver);

#[cfg(test)]
mod tests;
