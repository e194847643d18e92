//! Groups: joining one, and leaving all.

use jit_plugin::ldap::{Change, ChangeKind, Condition, Name, Query, Scope, Value};
use jit_plugin::{Error, Ldap};

use crate::config::{Flavour, MemberAttribute, TargetConfig};
use crate::failure::{
    EXISTS, NO_SUCH_ATTRIBUTE, NO_SUCH_OBJECT, OBJECT_CLASS_VIOLATION, VALUE_EXISTS, of_change, of_read,
};
use crate::flavour::entry_of;

/// Groups that one look finds.
const PAGE: u32 = 200;

/// How often it is looked again, while groups are found.
const ROUNDS: usize = 5;

/// What of a group an account is.
pub(crate) struct Member<'a> {
    attribute: &'static str,
    entry: Name,
    name: &'a str,
    is_distinguished: bool,
}

impl<'a> Member<'a> {
    /// The account of that name, whose entry that is.
    pub(crate) fn of(target: &TargetConfig, entry: Name, name: &'a str) -> Self {
        let attribute = target.member_attribute;
        Self { attribute: attribute.name(), entry, name, is_distinguished: attribute != MemberAttribute::MemberUid }
    }

    fn value(&self) -> Value<'_> {
        if self.is_distinguished { Value::Name(&self.entry) } else { Value::Text(self.name) }
    }

    fn change(&self, kind: ChangeKind) -> Change<'_> {
        Change { kind, attribute: self.attribute, values: vec![self.value()] }
    }
}

/// Makes the account a member.
pub(crate) fn join(ldap: &mut dyn Ldap, target: &TargetConfig, group: &str, name: &str) -> Result<(), Error> {
    let member = Member::of(target, entry_of(target, name), name);
    let joined = ldap.modify(&Name::of(group), &[member.change(ChangeKind::Add)]);
    let Err(error) = joined else { return Ok(()) };
    match error.code() {
        // Active Directory says the latter.
        Some(VALUE_EXISTS | EXISTS) => Ok(()),
        Some(NO_SUCH_OBJECT) => {
            Err(Error::Refused(format!("group {group} does not exist, or the broker's account may not read it")))
        }
        _ => Err(match of_change(error) {
            Error::Refused(text) => Error::Refused(format!("group {group}: {text}")),
            other => other,
        }),
    }
}

/// Takes the account out of these groups; gives those that it cannot leave.
pub(crate) fn leave(ldap: &mut dyn Ldap, groups: &[String], member: &Member<'_>) -> Result<Vec<String>, Error> {
    let mut stuck = Vec::new();
    for group in groups {
        let left = ldap.modify(&Name::of(group), &[member.change(ChangeKind::Delete)]);
        let Err(error) = left else { continue };
        match error.code() {
            Some(NO_SUCH_ATTRIBUTE | NO_SUCH_OBJECT) => {}
            Some(OBJECT_CLASS_VIOLATION) => {
                stuck.push(format!("group {group} would be empty, which its class forbids: add a member that stays"))
            }
            // One group that does not answer as it should keeps the account in none of the others.
            Some(_) => stuck.push(format!("group {group}: {}", reason(of_change(error)))),
            None => return Err(of_change(error)),
        }
    }
    Ok(stuck)
}

fn reason(error: Error) -> String {
    match error {
        Error::Refused(text) | Error::Conflict(text) | Error::Other(text) => text,
        Error::Retryable(retry) => retry.reason,
        other => format!("{other:?}"),
    }
}

/// Takes the account out of every group below the base where removals look; gives what it cannot leave.
/// Active Directory has no such base: there an entry names its groups.
pub(crate) fn leave_all(ldap: &mut dyn Ldap, target: &TargetConfig, member: &Member<'_>) -> Result<Vec<String>, Error> {
    let Some(base) = target.groups_base.as_deref().filter(|_| target.flavour == Flavour::OpenLdap) else {
        return Ok(Vec::new());
    };
    let base = Name::of(base);
    let mut stuck = Vec::new();
    for _ in 0..ROUNDS {
        let found = ldap.search(&Query {
            base: &base,
            scope: Scope::Subtree,
            filter: vec![Condition::Equals(member.attribute, member.value())],
            attributes: &["1.1"],
            max_entries: PAGE,
        });
        let found = match found {
            Ok(found) => found,
            // Without the base there is no group below it.
            Err(error) if error.code() == Some(NO_SUCH_OBJECT) => return Ok(stuck),
            Err(error) => return Err(of_read(error)),
        };
        let names: Vec<String> = found.entries.into_iter().map(|group| group.name).collect();
        stuck = leave(ldap, &names, member)?;
        if !found.truncated {
            break;
        }
    }
    Ok(stuck)
}
