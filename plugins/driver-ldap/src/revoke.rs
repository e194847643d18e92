//! Removing an account, so that each step can be the last and the next call goes on:
//!
//! 1. it cannot log in any more;
//! 2. it leaves its groups;
//! 3. the entry is deleted.
//!
//! Only the last is what counts: where one before it is refused, the entry still goes. A group that
//! cannot be left is told afterwards; nobody can log in by what stands in it.

use jit_plugin::ldap::{Condition, Query, Scope};
use jit_plugin::{Error, Ldap, log};

use crate::config::TargetConfig;
use crate::failure::{NO_SUCH_OBJECT, NOT_ON_NON_LEAF, UNDEFINED_ATTRIBUTE, of_change, of_read};
use crate::flavour::{self, entry_of};
use crate::groups;

/// How many entries below an account an error names.
const NAMED: u32 = 20;

pub(crate) fn revoke(ldap: &mut dyn Ldap, target: &TargetConfig, name: &str) -> Result<(), Error> {
    let entry = entry_of(target, name);
    let lock = flavour::lock(target);
    if !lock.is_empty()
        && let Err(error) = ldap.modify(&entry, &lock)
    {
        match error.code() {
            // Gone. Its groups may still name it: a dynamic entry goes by itself.
            Some(NO_SUCH_OBJECT) => {}
            Some(UNDEFINED_ATTRIBUTE) => {
                log::warn("the server knows no lock: is ppolicy loaded?", &[("account", name)])
            }
            Some(_) => {
                let reason = format!("{:?}", of_change(error));
                log::warn(
                    "an account cannot be locked before it is deleted",
                    &[("account", name), ("reason", &reason)],
                );
            }
            // It is not known what holds: nothing else is sent before that is.
            None => return Err(of_change(error)),
        }
    }
    let mut stuck = groups::leave_all(ldap, target, name)?;
    match ldap.delete(&entry) {
        Ok(()) => {}
        Err(error) if error.code() == Some(NO_SUCH_OBJECT) => {}
        Err(error) if error.code() == Some(NOT_ON_NON_LEAF) => return Err(below(ldap, target, name)),
        Err(error) => return Err(of_change(error)),
    }
    if !stuck.is_empty() {
        // A server that keeps references whole has let go of them with the entry.
        stuck = groups::leave_all(ldap, target, name)?;
    }
    if stuck.is_empty() { Ok(()) } else { Err(Error::Dependents(stuck)) }
}

/// What stands below the account, which keeps it from going.
fn below(ldap: &mut dyn Ldap, target: &TargetConfig, name: &str) -> Error {
    let found = ldap.search(&Query {
        base: &entry_of(target, name),
        scope: Scope::One,
        filter: vec![Condition::Present("objectClass")],
        attributes: &["1.1"],
        max_entries: NAMED,
    });
    match found {
        Ok(found) if found.entries.is_empty() => {
            Error::Dependents(vec!["entries below it, which are hidden".to_owned()])
        }
        Ok(found) => Error::Dependents(found.entries.into_iter().map(|entry| entry.name).collect()),
        Err(error) => of_read(error),
    }
}
