//! Where the accounts are: which directory, and below which entry of it.
//!
//! Several servers hold one directory. So the directory is named by what replication carries along: the
//! `entryUUID` of the entry that the accounts stand below, in Active Directory the domain with its birth.

use jit_plugin::ldap::{Condition, Entry, Name, Query, Scope};
use jit_plugin::{Error, Ldap};

use crate::config::{Flavour, TargetConfig};
use crate::failure::{NO_SUCH_OBJECT, of_read};

pub(crate) fn place(ldap: &mut dyn Ldap, config: &TargetConfig) -> Result<Vec<(String, String)>, Error> {
    let base = config.accounts_base.to_ascii_lowercase();
    let server = match config.flavour {
        Flavour::OpenLdap => value(ldap, &Name::of(&config.accounts_base), "entryUUID")?,
        Flavour::ActiveDirectory => domain(ldap)?,
    };
    let server = server.map(|identity| ("server".to_owned(), identity));
    Ok(server.into_iter().chain([("accounts_base".to_owned(), base)]).collect())
}

/// The domain, as every controller of it says it: its name, and when it was made. Its SID is no text.
fn domain(ldap: &mut dyn Ldap) -> Result<Option<String>, Error> {
    let Some(context) = value(ldap, &Name::of(""), "defaultNamingContext")? else { return Ok(None) };
    let made = value(ldap, &Name::of(&context), "whenCreated")?;
    Ok(made.map(|made| format!("{} of {made}", context.to_ascii_lowercase())))
}

/// The first value of an attribute of one entry.
fn value(ldap: &mut dyn Ldap, name: &Name, attribute: &str) -> Result<Option<String>, Error> {
    let found = ldap.search(&Query {
        base: name,
        scope: Scope::Base,
        filter: vec![Condition::Present("objectClass")],
        attributes: &[attribute],
        max_entries: 1,
    });
    let entry: Option<Entry> = match found {
        Ok(found) => found.entries.into_iter().next(),
        // Not there, or hidden: then nothing tells one directory from another but the address.
        Err(error) if error.code() == Some(NO_SUCH_OBJECT) => None,
        Err(error) => return Err(of_read(error)),
    };
    Ok(entry.and_then(|entry| entry.value(attribute).map(str::to_owned)).filter(|value| !value.is_empty()))
}
