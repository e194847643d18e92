//! Driver `ldap`: an account is an entry below an organisational unit of its own, a member of the
//! groups that the target's role names. Its expiry is the directory's: `pwdEndTime` in OpenLDAP,
//! `accountExpires` in Active Directory, equal to the lease's (BACKSTOP).
//!
//! In scope: OpenLDAP 2.5 and later with ppolicy, and Active Directory (Samba too). Not in scope:
//! accounts that stand before their lease, rights other than by groups.
//!
//! `docs/drivers/ldap.md` has the least-privilege set-up of the broker's own account.

mod account;
mod config;
mod distinguished;
mod failure;
mod find;
mod flavour;
mod groups;
mod identity;
mod look;
mod place;
mod powers;
mod revoke;
mod validate;

use jit_plugin::{
    Account, AccountPage, AccountState, Description, Error, Feature, Issued, Ldap, LdapDriver, Role, RotationStep,
    Secret, Target,
};

pub use config::{Flavour, MemberAttribute, PasswordForm, RoleConfig, TargetConfig, Texts};

/// The longest name: Active Directory's bound of a `cn` is 64 (`ub-common-name`). Its login of 20
/// characters is made of the name's end, see `docs/drivers/ldap.md`.
const MAX_NAME_LENGTH: u32 = 63;

/// The driver.
#[derive(Debug)]
pub struct Directory;

impl LdapDriver for Directory {
    type Target = TargetConfig;
    type Role = RoleConfig;

    fn describe() -> Description {
        let mut description = Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            MAX_NAME_LENGTH,
            &[Feature::Renew, Feature::Rotate, Feature::Backstop, Feature::Inspect, Feature::ListAccounts],
        );
        let servers = "OpenLDAP 2.5 and later, Active Directory, Samba 4".to_owned();
        description.properties.push(("servers".to_owned(), servers));
        // The host reads it: what a caller may send in place of a password. Active Directory needs the password itself.
        let verifiers = "ssha when:flavour=openldap unless:password=plain unless:password=ssha512; \
                         ssha512 when:flavour=openldap when:password=ssha512";
        description.properties.push(("verifiers".to_owned(), verifiers.to_owned()));
        description
    }

    fn validate(ldap: &mut dyn Ldap, target: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) -> Result<(), Error> {
        validate::validate(ldap, target, roles)
    }

    fn create(
        ldap: &mut dyn Ldap,
        target: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        account::create(ldap, &target.config, &role.config, account, password)
    }

    fn renew(
        ldap: &mut dyn Ldap,
        target: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        account::renew(ldap, &target.config, account)
    }

    fn rotate(
        ldap: &mut dyn Ldap,
        target: &Target<TargetConfig>,
        account: &Account,
        step: RotationStep,
        password: Option<Secret<'_>>,
    ) -> Result<(), Error> {
        account::rotate(ldap, &target.config, account, step, password)
    }

    fn revoke(ldap: &mut dyn Ldap, target: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
        let identity = account.external_id.as_deref().and_then(identity::Identity::parse);
        revoke::revoke(ldap, &target.config, account, identity.as_ref())
    }

    fn inspect(ldap: &mut dyn Ldap, target: &Target<TargetConfig>, name: &str) -> Result<AccountState, Error> {
        find::inspect(ldap, &target.config, name)
    }

    fn list_accounts(
        ldap: &mut dyn Ldap,
        target: &Target<TargetConfig>,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<AccountPage, Error> {
        find::list(ldap, &target.config, prefix, cursor)
    }

    fn place(ldap: &mut dyn Ldap, target: &Target<TargetConfig>) -> Result<Vec<(String, String)>, Error> {
        place::place(ldap, &target.config)
    }
}

jit_plugin::register_ldap_driver!(Directory);

#[cfg(test)]
mod tests;
