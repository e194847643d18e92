//! Driver `vault`: an account is a lease of a secrets engine that makes user names and passwords, in
//! HashiCorp Vault or OpenBao.
//!
//! In scope: dynamic credentials (`{mount}/creds/{role}`) of the database engine, and of others whose
//! answers have the same shape. Not in scope: static roles, whose accounts stand
//! before and after a lease; engines that give keys or certificates.
//!
//! `docs/drivers/vault.md` has the set-up in Vault, `setup.hcl` the broker's policy.

mod client;
mod config;
mod failure;
mod lease;
mod list;
mod maintain;
mod place;
mod time;
mod validate;

use jit_plugin::{
    Account, AccountPage, AccountState, Description, Error, Feature, Http, HttpDriver, Issued, Role, Secret, Target,
};

use client::Vault;
pub use config::{Auth, AuthMethod, RoleConfig, TargetConfig};

/// Vault makes the names; the host's are only its own.
const MAX_NAME_LENGTH: u32 = 255;

/// The driver.
#[derive(Debug)]
pub struct VaultDriver;

impl HttpDriver for VaultDriver {
    type Target = TargetConfig;
    type Role = RoleConfig;

    fn describe() -> Description {
        let features = [
            Feature::Renew,
            Feature::Backstop,
            Feature::Inspect,
            Feature::ListAccounts,
            Feature::ExternalAccounts,
            Feature::Maintain,
        ];
        let mut description =
            Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), MAX_NAME_LENGTH, &features);
        let properties = [
            ("servers", "HashiCorp Vault, OpenBao"),
            // Vault's own revocation statements end none, unless somebody wrote such.
            ("sessions", "stay"),
            ("list-accounts", "with `exclusive = true` only"),
            (
                "harmless-posts",
                "v1/auth/**/login v1/auth/token/renew-self v1/sys/capabilities-self v1/sys/leases/lookup",
            ),
            ("own-errors", "/errors"),
        ];
        description.properties.extend(properties.map(|(name, value)| (name.to_owned(), value.to_owned())));
        description
    }

    fn validate(http: &mut dyn Http, target: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) -> Result<(), Error> {
        validate::validate(http, target, roles)
    }

    /// Vault makes the password: the host's own is not used.
    fn create(
        http: &mut dyn Http,
        target: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        account: &Account,
        _: Secret<'_>,
    ) -> Result<Issued, Error> {
        lease::create(&mut Vault::new(http, &target.config), &target.config, &role.config, account)
    }

    fn renew(
        http: &mut dyn Http,
        target: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        lease::renew(&mut Vault::new(http, &target.config), account)
    }

    fn revoke(http: &mut dyn Http, target: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
        lease::revoke(&mut Vault::new(http, &target.config), account)
    }

    fn inspect(http: &mut dyn Http, target: &Target<TargetConfig>, name: &str) -> Result<AccountState, Error> {
        lease::inspect(&mut Vault::new(http, &target.config), &target.config, name)
    }

    /// By the ids of leases: Vault's names carry no prefix of the broker's.
    fn list_accounts(
        http: &mut dyn Http,
        target: &Target<TargetConfig>,
        _: &str,
        cursor: Option<&str>,
    ) -> Result<AccountPage, Error> {
        list::list(&mut Vault::new(http, &target.config), &target.config, cursor)
    }

    fn place(http: &mut dyn Http, target: &Target<TargetConfig>) -> Result<Vec<(String, String)>, Error> {
        place::place(http, &target.config)
    }

    fn maintain(http: &mut dyn Http, target: &Target<TargetConfig>) -> Result<u64, Error> {
        maintain::maintain(&mut Vault::new(http, &target.config), target)
    }
}

jit_plugin::register_http_driver!(VaultDriver);

#[cfg(test)]
mod tests;
