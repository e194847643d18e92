//! Making and changing accounts.

use jit_plugin::ldap::Value;
use jit_plugin::{Account, Error, Issued, Ldap, RotationStep, Secret};

use crate::config::{Flavour, RoleConfig, TargetConfig};
use crate::failure::{of_account, of_change};
use crate::flavour::{self, NORMAL, NewEntry, entry_of, replace};
use crate::identity::Identity;
use crate::{distinguished, groups, revoke};

/// OpenLDAP: the entry comes with its password and its expiry in one operation, then the groups.
/// Active Directory: the entry comes disabled, with its expiry; then the password, the groups, and the
/// login last. In neither is there a moment at which the account could log in without an expiry.
pub(crate) fn create(
    ldap: &mut dyn Ldap,
    target: &TargetConfig,
    role: &RoleConfig,
    account: &Account,
    password: Secret<'_>,
) -> Result<Issued, Error> {
    let new = NewEntry::of(target, account);
    let mut attributes = new.values();
    if let Some((name, value)) = flavour::expiry(target, account.expires_at) {
        attributes.push((name, vec![value]));
    }
    if target.flavour == Flavour::OpenLdap {
        let value = Value::Secret(password, target.encoding());
        attributes.push((flavour::password_attribute(target.flavour), vec![value]));
    }
    let name = entry_of(target, &account.name);
    ldap.add(&name, &attributes).map_err(of_change)?;
    let identity = match Identity::of_new(ldap, target, &name, account) {
        Ok(identity) => identity,
        Err(error) => return Err(taken_back(ldap, target, account, None, error)),
    };
    match equip(ldap, target, role, account, password) {
        Ok(()) => Ok(Issued { external_id: identity.as_ref().map(Identity::text), ..issued(target, account) }),
        Err(error) => Err(taken_back(ldap, target, account, identity.as_ref(), error)),
    }
}

/// What the entry needs beyond itself.
fn equip(
    ldap: &mut dyn Ldap,
    target: &TargetConfig,
    role: &RoleConfig,
    account: &Account,
    password: Secret<'_>,
) -> Result<(), Error> {
    let name = entry_of(target, &account.name);
    if target.flavour == Flavour::ActiveDirectory {
        ldap.modify(&name, &[flavour::set_password(target, password)]).map_err(of_change)?;
    }
    if target.dynamic {
        ldap.refresh(&name, left(account)).map_err(of_change)?;
    }
    for group in &role.groups {
        groups::join(ldap, target, group, &account.name)?;
    }
    if target.flavour == Flavour::ActiveDirectory {
        ldap.modify(&name, &[replace("userAccountControl", Value::Text(NORMAL))]).map_err(of_change)?;
    }
    Ok(())
}

/// A creation that went wrong after the entry was made. Without the entry, nothing was done; with it,
/// the host has to remove it.
fn taken_back(
    ldap: &mut dyn Ldap,
    target: &TargetConfig,
    account: &Account,
    identity: Option<&Identity>,
    error: Error,
) -> Error {
    if matches!(error, Error::OutcomeUnknown(_)) {
        return error;
    }
    match revoke::revoke(ldap, target, account, identity) {
        Ok(()) => match error {
            // The entry was new; what exists already is something else.
            Error::Conflict(text) | Error::Other(text) => Error::Refused(text),
            other => other,
        },
        Err(left) => {
            let text = |error: &Error| match error {
                Error::Refused(text) | Error::OutcomeUnknown(text) | Error::Other(text) | Error::Conflict(text) => {
                    text.clone()
                }
                Error::Retryable(retry) => retry.reason.clone(),
                Error::Dependents(list) => list.join("; "),
                Error::NotFound | Error::InvalidConfig(_) => "not found".to_owned(),
            };
            Error::OutcomeUnknown(format!("{}; the entry is left: {}", text(&error), text(&left)))
        }
    }
}

/// Names that an account logs in by, beside its own.
fn issued(target: &TargetConfig, account: &Account) -> Issued {
    let name = &account.name;
    // Names are the host's, of letters, digits and hyphens: there is nothing to escape.
    let dn = format!("{}={name},{}", target.name_attribute(), target.accounts_base);
    let mut properties = Vec::new();
    if distinguished::parts(&dn).is_some() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        properties.push(("dn".to_owned(), dn));
    }
    if target.flavour == Flavour::ActiveDirectory {
        properties.push(("user_principal_name".to_owned(), flavour::principal(target, name)));
        properties.push(("sam_account_name".to_owned(), flavour::login(name).to_owned()));
    }
    Issued { properties, ..Issued::default() }
}

/// Seconds until the account's expiry, at least one.
fn left(account: &Account) -> u32 {
    u32::try_from(account.expires_at.saturating_sub(account.now)).unwrap_or(u32::MAX).max(1)
}

pub(crate) fn renew(ldap: &mut dyn Ldap, target: &TargetConfig, account: &Account) -> Result<u64, Error> {
    let name = entry_of(target, &account.name);
    if let Some((attribute, value)) = flavour::expiry(target, account.expires_at) {
        ldap.modify(&name, &[replace(attribute, value)]).map_err(of_account)?;
    }
    if !target.dynamic {
        return Ok(account.expires_at);
    }
    let set = ldap.refresh(&name, left(account)).map_err(of_account)?;
    // A server has a longest time of its own; a shortest one ends nothing before its time.
    Ok(account.expires_at.min(account.now.saturating_add(u64::from(set))))
}

/// A directory keeps one password for an account: staging the new one is the change.
pub(crate) fn rotate(
    ldap: &mut dyn Ldap,
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
    let change = flavour::set_password(target, password);
    ldap.modify(&entry_of(target, &account.name), &[change]).map_err(of_account)
}
