//! Removing an account, so that each step can be the last and the next call goes on:
//!
//! 1. it cannot log in any more;
//! 2. it leaves its groups, so that a connection that is still bound has nothing by them;
//! 3. Active Directory: nothing is left that it made for itself;
//! 4. the entry is deleted.
//!
//! A step that is refused keeps none of the later ones from being taken, but for the third: an account
//! that has made others stays, locked, until somebody has seen to them. What could not be done is told
//! at the end.

use jit_plugin::ldap::{Change, Condition, Entry, Name, Query, Scope, Value};
use jit_plugin::{Account, Error, Ldap, log};

use crate::config::{Flavour, TargetConfig};
use crate::failure::{NO_SUCH_OBJECT, NOT_ON_NON_LEAF, of_change, of_read};
use crate::flavour::{self, entry_of};
use crate::groups::{self, Member};
use crate::identity::{self, Identity, check_absence};
use crate::look;

/// How many entries an error names.
const NAMED: u32 = 20;

/// What became of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lock {
    Holds,
    Refused(String),
    /// There is no such entry.
    Gone,
}

/// An entry to be removed.
struct Doomed {
    name: Name,
    entry: Entry,
    lock: Lock,
    /// It is not where the broker made it.
    is_moved: bool,
}

pub(crate) fn revoke(
    ldap: &mut dyn Ldap,
    target: &TargetConfig,
    account: &Account,
    identity: Option<&Identity>,
) -> Result<(), Error> {
    let doomed = locked(ldap, target, account, identity)?;
    let mut left = Vec::new();
    if doomed.is_empty() {
        check_absence(ldap, target, account, identity)?;
        // A dynamic entry goes by itself, and its groups may still name it.
        let member = Member::of(target, entry_of(target, &account.name), &account.name);
        left = groups::leave_all(ldap, target, &member)?;
    }
    for doomed in doomed {
        left.extend(remove(ldap, target, account, identity, doomed)?);
    }
    if left.is_empty() { Ok(()) } else { Err(Error::Dependents(left)) }
}

/// Locks every entry that has the account's name or its identity.
fn locked(
    ldap: &mut dyn Ldap,
    target: &TargetConfig,
    account: &Account,
    identity: Option<&Identity>,
) -> Result<Vec<Doomed>, Error> {
    let facts: &[&str] = match target.flavour {
        Flavour::OpenLdap => &[identity::attribute(Flavour::OpenLdap)],
        Flavour::ActiveDirectory => &[identity::attribute(Flavour::ActiveDirectory), "objectSid", "memberOf"],
    };
    let mut doomed = Vec::new();
    let name = entry_of(target, &account.name);
    let lock = lock(ldap, target, &name, &account.name)?;
    let there = match look::read(ldap, &name, facts) {
        Ok(there) => there,
        // Whoever can put a referral in the account's place keeps nobody from looking for the account.
        Err(error) if identity.is_some() && error.code().is_some() => None,
        Err(error) => return Err(of_read(error)),
    };
    let is_ours = match (&there, identity) {
        (Some(entry), Some(identity)) => identity.is(target, entry),
        (there, None) => there.is_some(),
        (None, Some(_)) => false,
    };
    if let Some(identity) = identity.filter(|_| !is_ours)
        && let Some(entry) = identity.find(ldap, target, facts)?
    {
        let fields = [("account", account.name.as_str()), ("entry", entry.name.as_str())];
        log::warn("an account was moved or renamed; it is removed at its new place", &fields);
        let name = Name::of(&entry.name);
        let lock = self::lock(ldap, target, &name, &account.name)?;
        doomed.push(Doomed { name, entry, lock, is_moved: true });
    }
    // Whoever it is: the name is the broker's.
    let entry = there.or_else(|| (lock != Lock::Gone).then(|| Entry { name: String::new(), attributes: Vec::new() }));
    doomed.extend(entry.map(|entry| Doomed { name, entry, lock, is_moved: false }));
    Ok(doomed)
}

/// Ends the login.
fn lock(ldap: &mut dyn Ldap, target: &TargetConfig, entry: &Name, account: &str) -> Result<Lock, Error> {
    let changes = flavour::lock(target);
    let mut lock = try_lock(ldap, entry, &changes)?;
    if matches!(lock, Lock::Refused(_)) && changes.len() > 1 {
        // The server may lack one part of it (a schema without ppolicy, a class that needs a password).
        for change in &changes {
            match try_lock(ldap, entry, std::slice::from_ref(change))? {
                Lock::Refused(_) => {}
                held => lock = held,
            }
        }
    }
    if let Lock::Refused(reason) = &lock {
        log::warn("an account cannot be locked before it is deleted", &[("account", account), ("reason", reason)]);
    }
    Ok(lock)
}

fn try_lock(ldap: &mut dyn Ldap, entry: &Name, changes: &[Change<'_>]) -> Result<Lock, Error> {
    let Err(error) = ldap.modify(entry, changes) else { return Ok(Lock::Holds) };
    match error.code() {
        Some(NO_SUCH_OBJECT) => Ok(Lock::Gone),
        Some(_) => Ok(Lock::Refused(format!("{:?}", of_change(error)))),
        // It is not known what holds: nothing else is sent before that is.
        None => Err(of_change(error)),
    }
}

/// What follows the lock; gives what is left of the account.
fn remove(
    ldap: &mut dyn Ldap,
    target: &TargetConfig,
    account: &Account,
    identity: Option<&Identity>,
    doomed: Doomed,
) -> Result<Vec<String>, Error> {
    let member = Member::of(target, doomed.name.clone(), &account.name);
    let mut stuck = match target.flavour {
        Flavour::OpenLdap => groups::leave_all(ldap, target, &member)?,
        Flavour::ActiveDirectory => groups::leave(ldap, doomed.entry.values("memberOf"), &member)?,
    };
    if doomed.is_moved {
        // Groups keep the name that it had, where nothing renames it in them.
        let before = Member::of(target, entry_of(target, &account.name), &account.name);
        stuck.extend(groups::leave_all(ldap, target, &before)?);
    }
    let made = made_by(ldap, target, doomed.entry.value("objectSid"))?;
    if !made.is_empty() {
        return Ok(doomed.told(made.into_iter().chain(stuck).collect()));
    }
    match ldap.delete(&doomed.name) {
        Ok(()) => {}
        Err(error) if error.code() == Some(NO_SUCH_OBJECT) => {
            check_absence(ldap, target, account, identity)?;
            if let Some(identity) = identity
                && identity.find(ldap, target, &["1.1"])?.is_some()
            {
                return Err(Error::retryable(format!("{} was moved during its removal; retry", account.name)));
            }
        }
        Err(error) if error.code() == Some(NOT_ON_NON_LEAF) => {
            let below = below(ldap, &doomed.name)?;
            return Ok(doomed.told(below.into_iter().chain(stuck).collect()));
        }
        Err(error) if doomed.is_moved && error.code().is_some() => {
            return Ok(doomed.told(vec![format!("it cannot be removed there: {:?}", of_change(error))]));
        }
        Err(error) => return Err(of_change(error)),
    }
    match target.flavour {
        // A directory that keeps references whole has let go of them with the entry.
        Flavour::ActiveDirectory => Ok(Vec::new()),
        Flavour::OpenLdap if stuck.is_empty() => Ok(stuck),
        Flavour::OpenLdap => groups::leave_all(ldap, target, &member),
    }
}

impl Doomed {
    /// What keeps the account, with what an operator has to know before.
    fn told(&self, mut left: Vec<String>) -> Vec<String> {
        if let Lock::Refused(reason) = &self.lock {
            left.insert(0, format!("the account can still log in because it could not be locked: {reason}"));
        }
        if self.is_moved {
            left.insert(0, format!("the account was moved to {}", self.entry.name));
        }
        left
    }
}

/// Accounts that an account of Active Directory has made for itself, which outlive it.
fn made_by(ldap: &mut dyn Ldap, target: &TargetConfig, sid: Option<&str>) -> Result<Vec<String>, Error> {
    let Some(sid) = sid.filter(|_| target.flavour == Flavour::ActiveDirectory) else { return Ok(Vec::new()) };
    let context = look::naming_context(ldap, target)?;
    let condition = Condition::Equals("mS-DS-CreatorSID", Value::Text(sid));
    let made = look::below(ldap, &context, condition, &["1.1"], NAMED)?;
    let told = |entry: Entry| {
        format!("{} was created by the account and outlives it: delete it, or give it another owner", entry.name)
    };
    Ok(made.into_iter().map(told).collect())
}

/// What stands below the account, which keeps it from going.
fn below(ldap: &mut dyn Ldap, name: &Name) -> Result<Vec<String>, Error> {
    let found = ldap.search(&Query {
        base: name,
        scope: Scope::One,
        filter: vec![Condition::Present("objectClass")],
        attributes: &["1.1"],
        max_entries: NAMED,
    });
    let found = found.map_err(of_read)?.entries;
    if found.is_empty() {
        return Ok(vec!["entries below it that the broker's account may not read".to_owned()]);
    }
    Ok(found.into_iter().map(|entry| entry.name).collect())
}
