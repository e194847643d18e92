//! The driver my-ldap-driver: people in a directory (`inetOrgPerson`), members of one group each.
//!
//! A place to begin from. An expiry of the directory's own (BACKSTOP) depends on its overlays: the
//! driver that comes with the broker shows how to use them.

use jit_plugin::ldap::{Change, ChangeKind, Condition, LdapError, Name, Query, Scope, Value};
use jit_plugin::{
    Account, AccountPage, AccountState, Description, Encoding, Error, Feature, Issued, Ldap, LdapDriver, Role, Secret,
    Target,
};
use serde::Deserialize;

/// Result codes (RFC 4511, appendix A).
const NO_SUCH_OBJECT: u32 = 32;
const ENTRY_ALREADY_EXISTS: u32 = 68;
const TYPE_OR_VALUE_EXISTS: u32 = 20;
const NO_SUCH_ATTRIBUTE: u32 = 16;
/// The most names of one answer.
const PAGE: u32 = 500;

/// `[targets.T.config]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// Where accounts are made: `ou=jit,dc=example,dc=org`.
    base: String,
    /// The groups that a member is removed from, and of which roles name one.
    groups: Vec<String>,
}

/// `[targets.T.roles.R]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// The group that accounts become members of; one of the target's.
    group: String,
}

/// The driver.
#[derive(Debug)]
pub struct MyLdapDriver;

fn person(config: &TargetConfig, name: &str) -> Name {
    Name::below(&config.base, "uid", name)
}

fn membership(kind: ChangeKind, who: &Name) -> [Change<'_>; 1] {
    [Change { kind, attribute: "member", values: vec![Value::Name(who)] }]
}

impl LdapDriver for MyLdapDriver {
    type Target = TargetConfig;
    type Role = RoleConfig;

    fn describe() -> Description {
        let features = [Feature::Inspect, Feature::ListAccounts];
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), 64, &features)
    }

    fn validate(_: &mut dyn Ldap, target: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) -> Result<(), Error> {
        match roles.iter().find(|role| !target.config.groups.contains(&role.config.group)) {
            Some(role) => {
                let message = "is none of the target's groups: an account could not be taken out of it again";
                Err(Error::invalid_config(format!("roles.{}.group", role.name), message))
            }
            None => Ok(()),
        }
    }

    fn create(
        ldap: &mut dyn Ldap,
        target: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        let name = person(&target.config, &account.name);
        let text = |text| vec![Value::Text(text)];
        let attributes = [
            ("objectClass", text("inetOrgPerson")),
            ("uid", text(&account.name)),
            ("cn", text(&account.name)),
            ("sn", text(&account.name)),
            ("userPassword", vec![Value::Secret(password, Encoding::SaltedSha1)]),
        ];
        match ldap.add(&name, &attributes) {
            Err(error) if error.code() == Some(ENTRY_ALREADY_EXISTS) => {
                return Err(Error::Conflict(account.name.clone()));
            }
            added => added?,
        }
        // Cut off here, the account is there without a right; the host knows its name and removes it.
        match ldap.modify(&Name::of(&role.config.group), &membership(ChangeKind::Add, &name)) {
            Ok(()) => Ok(Issued::default()),
            Err(error) if error.code() == Some(TYPE_OR_VALUE_EXISTS) => Ok(Issued::default()),
            Err(LdapError::Unknown(reason)) => Err(Error::OutcomeUnknown(reason)),
            // A refusal says that nothing is left, so the first step is taken back.
            Err(error) => match ldap.delete(&name) {
                Ok(()) => Err(error.into()),
                Err(_) => Err(Error::OutcomeUnknown("the account is there and has no group".to_owned())),
            },
        }
    }

    fn renew(
        _: &mut dyn Ldap,
        _: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        // The directory has no expiry of its own that could be moved: the host's holds.
        Ok(account.expires_at)
    }

    fn revoke(ldap: &mut dyn Ldap, target: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
        let name = person(&target.config, &account.name);
        for group in &target.config.groups {
            match ldap.modify(&Name::of(group), &membership(ChangeKind::Delete, &name)) {
                Err(error) if matches!(error.code(), Some(NO_SUCH_ATTRIBUTE | NO_SUCH_OBJECT)) => {}
                left => left?,
            }
        }
        match ldap.delete(&name) {
            Err(error) if error.code() == Some(NO_SUCH_OBJECT) => Ok(()),
            removed => Ok(removed?),
        }
    }

    fn inspect(ldap: &mut dyn Ldap, target: &Target<TargetConfig>, name: &str) -> Result<AccountState, Error> {
        let name = person(&target.config, name);
        let filter = vec![Condition::Present("uid")];
        let query = Query { base: &name, scope: Scope::Base, filter, attributes: &["uid"], max_entries: 1 };
        match ldap.search(&query) {
            Ok(found) if found.entries.is_empty() => Err(Error::NotFound),
            Ok(_) => Ok(AccountState { can_login: true, expires_at: None, properties: Vec::new() }),
            Err(error) if error.code() == Some(NO_SUCH_OBJECT) => Err(Error::NotFound),
            Err(error) => Err(error.of_read()),
        }
    }

    fn list_accounts(
        ldap: &mut dyn Ldap,
        target: &Target<TargetConfig>,
        prefix: &str,
        _: Option<&str>,
    ) -> Result<AccountPage, Error> {
        let base = Name::of(&target.config.base);
        let filter = vec![Condition::StartsWith("uid", prefix)];
        let query = Query { base: &base, scope: Scope::One, filter, attributes: &["uid"], max_entries: PAGE };
        let found = ldap.search(&query).map_err(|error| error.of_read())?;
        if found.truncated {
            return Err(Error::Other(format!("there are more than {PAGE} accounts below {}", target.config.base)));
        }
        let mut names: Vec<String> =
            found.entries.iter().filter_map(|entry| entry.value("uid")).map(str::to_owned).collect();
        names.sort();
        Ok(AccountPage { names, next: None })
    }
}

jit_plugin::register_ldap_driver!(MyLdapDriver);

#[cfg(test)]
mod tests {
    use jit_plugin::testing::{FakeLdap, account, entry, refused, role, secret, target};

    use super::*;

    fn here() -> TargetConfig {
        TargetConfig { base: "ou=jit".to_owned(), groups: vec!["cn=readers".to_owned()] }
    }

    fn group() -> RoleConfig {
        RoleConfig { group: "cn=readers".to_owned() }
    }

    #[test]
    fn an_account_gets_its_right_last() {
        let mut ldap = FakeLdap::new(|_| Ok(vec![]));
        MyLdapDriver::create(&mut ldap, &target(here()), &role(group()), &account("v-a", 2), secret("pw"))
            .expect("it is made");
        assert_eq!(ldap.steps(), ["add uid=v-a,ou=jit", "modify cn=readers"]);
        assert!(ldap.operations[0].has("userPassword: secret:pw:"), "{:?}", ldap.operations[0]);
    }

    #[test]
    fn what_is_refused_leaves_nothing_and_what_cannot_be_taken_back_is_in_doubt() {
        let create = |deleted: u32| {
            let mut ldap = FakeLdap::new(move |operation| match operation.verb {
                "modify" => Err(refused(NO_SUCH_OBJECT)),
                "delete" if deleted != 0 => Err(refused(deleted)),
                _ => Ok(vec![]),
            });
            let made =
                MyLdapDriver::create(&mut ldap, &target(here()), &role(group()), &account("v-a", 2), secret("pw"));
            assert_eq!(ldap.steps().last().map(String::as_str), Some("delete uid=v-a,ou=jit"));
            made.map(|_| ())
        };
        assert!(matches!(create(0), Err(Error::Refused(_))));
        assert!(matches!(create(51), Err(Error::OutcomeUnknown(_))));
    }

    #[test]
    fn revoking_can_be_done_again_at_any_point() {
        let mut gone = FakeLdap::new(|_| Err(refused(NO_SUCH_OBJECT)));
        assert_eq!(MyLdapDriver::revoke(&mut gone, &target(here()), &account("v-a", 2)), Ok(()));
        let mut ldap = FakeLdap::new(|_| Ok(vec![]));
        assert_eq!(MyLdapDriver::revoke(&mut ldap, &target(here()), &account("v-a", 2)), Ok(()));
        assert_eq!(ldap.steps(), ["modify cn=readers", "delete uid=v-a,ou=jit"]);
    }

    #[test]
    fn a_role_names_a_group_of_the_target() {
        let stranger = role(RoleConfig { group: "cn=others".to_owned() });
        let told = MyLdapDriver::validate(&mut FakeLdap::new(|_| Ok(vec![])), &target(here()), &[stranger]);
        assert!(matches!(told, Err(Error::InvalidConfig(_))));
    }

    #[test]
    fn names_are_listed_in_order() {
        let two = [entry("uid=v-b,ou=jit", &[("uid", &["v-b"])]), entry("uid=v-a,ou=jit", &[("uid", &["v-a"])])];
        let mut ldap = FakeLdap::new(move |_| Ok(two.to_vec()));
        let page = MyLdapDriver::list_accounts(&mut ldap, &target(here()), "v-", None).expect("a page");
        assert_eq!(page.names, ["v-a", "v-b"]);
    }
}
