//! Which entry an account is, whatever its name is: the identifier that the directory itself gave it
//! (`entryUUID`, `objectGUID`). It is noted at creation as the account's external id.
//!
//! A name that is not found proves little: the entry may have been moved or renamed, another domain
//! controller may not have it yet, or the broker may not see it. An account counts as gone when its
//! identifier is found nowhere, on a server that must know it, below a base that the broker can see.

use jit_plugin::ldap::{Condition, Entry, Name};
use jit_plugin::{Account, Error, Ldap, log};

use crate::config::{Flavour, TargetConfig};
use crate::failure::of_read;
use crate::look::{below, naming_context, read};

/// After so many seconds every domain controller has what another one made. Replication between
/// sites takes three hours by default.
const REPLICATED: u64 = 6 * 3_600;

/// What is known of an account's entry beside its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The directory's own identifier.
    pub(crate) id: String,
    /// Seconds since the Unix epoch when it was made.
    made_at: u64,
    /// The domain controller that made it. OpenLDAP does not say which server it is.
    made_by: Option<String>,
}

/// The attribute that has the identifier.
pub(crate) fn attribute(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::OpenLdap => "entryUUID",
        Flavour::ActiveDirectory => "objectGUID",
    }
}

impl Identity {
    /// Reads what the directory calls a new entry.
    pub(crate) fn of_new(
        ldap: &mut dyn Ldap,
        target: &TargetConfig,
        name: &Name,
        account: &Account,
    ) -> Result<Option<Self>, Error> {
        let attribute = attribute(target.flavour);
        let Some(entry) = read(ldap, name, &[attribute]).map_err(of_read)? else {
            let message = "the broker's account cannot see the entry that it made, so it could not tell whether \
                           the account is removed: let it read what is below `accounts_base`";
            return Err(Error::Refused(message.into()));
        };
        let Some(id) = entry.value(attribute).filter(|id| is_plain(id)) else {
            let message = "the directory does not show the identifier of a new entry: the account is known by its \
                           name alone, and is lost when somebody renames it";
            log::warn(message, &[("account", &account.name), ("attribute", attribute)]);
            return Ok(None);
        };
        let made_by = controller(ldap, target)?.filter(|name| is_plain(name));
        Ok(Some(Self { id: id.to_owned(), made_at: account.now, made_by }))
    }

    /// As the host keeps it.
    pub(crate) fn text(&self) -> String {
        format!("{};{};{}", self.id, self.made_at, self.made_by.as_deref().unwrap_or_default())
    }

    /// What [`Self::text`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ';');
        let (id, made_at, made_by) = (parts.next()?, parts.next()?, parts.next()?);
        let made_by = (!made_by.is_empty()).then(|| made_by.to_owned());
        Some(Self { id: id.to_owned(), made_at: made_at.parse().ok()?, made_by })
    }

    /// Whether an entry is the account's.
    pub(crate) fn is(&self, target: &TargetConfig, entry: &Entry) -> bool {
        entry.value(attribute(target.flavour)).is_some_and(|id| id.eq_ignore_ascii_case(&self.id))
    }

    /// The entry, wherever it is now: in the naming context, as far as the broker sees it, and below
    /// the accounts' base, which it sees in any case.
    pub(crate) fn find(
        &self,
        ldap: &mut dyn Ldap,
        target: &TargetConfig,
        attributes: &[&str],
    ) -> Result<Option<Entry>, Error> {
        let context = naming_context(ldap, target)?;
        for base in [context.as_str(), target.accounts_base.as_str()] {
            let condition = Condition::Equals(attribute(target.flavour), jit_plugin::ldap::Value::Text(&self.id));
            if let Some(entry) = below(ldap, base, condition, attributes, 1)?.into_iter().next() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// Nothing is found of the account: whether that says that it is gone.
pub(crate) fn check_absence(
    ldap: &mut dyn Ldap,
    target: &TargetConfig,
    account: &Account,
    identity: Option<&Identity>,
) -> Result<(), Error> {
    if read(ldap, &Name::of(&target.accounts_base), &["objectClass"]).map_err(of_read)?.is_none() {
        let message = format!(
            "{} is not there, or hidden from the broker's account: it is not known whether {} is removed",
            target.accounts_base, account.name
        );
        return Err(Error::Refused(message));
    }
    let Some(Identity { made_at, made_by: Some(maker), .. }) = identity else { return Ok(()) };
    // The directory's own expiry ends the login on every server.
    let known_by_all = made_at.saturating_add(REPLICATED).min(account.expires_at);
    if account.now >= known_by_all {
        return Ok(());
    }
    let here = controller(ldap, target)?.unwrap_or_default();
    if here.eq_ignore_ascii_case(maker) {
        return Ok(());
    }
    // Refused, not retryable: this server is not away, it is another one.
    Err(Error::Refused(format!(
        "{here} does not know the account, which {maker} has made: it may not have been replicated yet; \
         let the connection lead to one domain controller"
    )))
}

/// The domain controller that answers.
fn controller(ldap: &mut dyn Ldap, target: &TargetConfig) -> Result<Option<String>, Error> {
    if target.flavour != Flavour::ActiveDirectory {
        return Ok(None);
    }
    let root = read(ldap, &Name::of(""), &["dnsHostName"]).map_err(of_read)?;
    Ok(root.and_then(|root| root.value("dnsHostName").map(str::to_owned)))
}

/// Fits into the account's external id.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';')
}
