//! Single looks at the directory that several verbs need.

use jit_plugin::ldap::{Condition, Entry, LdapError, Name, Query, Scope};
use jit_plugin::{Error, Ldap};

use crate::config::{Flavour, TargetConfig};
use crate::distinguished::is_below;
use crate::failure::{NO_SUCH_OBJECT, of_read};

/// One entry, if it is there and may be seen.
pub(crate) fn read(ldap: &mut dyn Ldap, name: &Name, attributes: &[&str]) -> Result<Option<Entry>, LdapError> {
    let found = ldap.search(&Query {
        base: name,
        scope: Scope::Base,
        filter: vec![Condition::Present("objectClass")],
        attributes,
        max_entries: 1,
    });
    match found {
        Ok(found) => Ok(found.entries.into_iter().next()),
        Err(error) if error.code() == Some(NO_SUCH_OBJECT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is below a name and meets the condition; empty where that name cannot be seen.
pub(crate) fn below(
    ldap: &mut dyn Ldap,
    base: &str,
    condition: Condition<'_>,
    attributes: &[&str],
    most: u32,
) -> Result<Vec<Entry>, Error> {
    let found = ldap.search(&Query {
        base: &Name::of(base),
        scope: Scope::Subtree,
        filter: vec![condition],
        attributes,
        max_entries: most,
    });
    match found {
        Ok(found) => Ok(found.entries),
        Err(error) if error.code() == Some(NO_SUCH_OBJECT) => Ok(Vec::new()),
        Err(error) => Err(of_read(error)),
    }
}

/// The naming context that accounts are in, as the server's root entry says; the accounts' own base
/// where it says nothing.
pub(crate) fn naming_context(ldap: &mut dyn Ldap, target: &TargetConfig) -> Result<String, Error> {
    let attributes = &["defaultNamingContext", "namingContexts"];
    let root = read(ldap, &Name::of(""), attributes).map_err(of_read)?;
    Ok(root.as_ref().and_then(|root| context_of(root, target)).unwrap_or_else(|| target.accounts_base.clone()))
}

/// The same, of a root entry that was read.
pub(crate) fn context_of(root: &Entry, target: &TargetConfig) -> Option<String> {
    if target.flavour == Flavour::ActiveDirectory {
        return root.value("defaultNamingContext").map(str::to_owned);
    }
    let holds = |context: &&String| is_below(&target.accounts_base, context);
    root.values("namingContexts").iter().filter(holds).max_by_key(|context| context.len()).cloned()
}
