//! What a granted group leads to. A member of a group is a member of every group that has this one as a
//! member, so everything that is reachable counts, not the name in the configuration alone.

use std::collections::{BTreeSet, VecDeque};

use jit_plugin::ldap::{Condition, Name, Value};
use jit_plugin::{Error, Ldap};

use crate::config::{Flavour, MemberAttribute, TargetConfig};
use crate::distinguished;
use crate::failure::of_read;
use crate::look::{below, read};

/// Most groups that are looked at from one granted group.
const MOST: usize = 500;

/// Most groups that one group is in.
const PARENTS: u32 = 200;

/// Groups of every domain whose members rule it, or can come to rule it, by the end of their security
/// identifier (Microsoft, "Security identifiers" and "Appendix C: Protected accounts and groups").
const OF_A_DOMAIN: [(&str, &str); 11] = [
    ("-498", "Enterprise Read-only Domain Controllers"),
    ("-512", "Domain Admins"),
    ("-516", "Domain Controllers"),
    ("-517", "Cert Publishers"),
    ("-518", "Schema Admins"),
    ("-519", "Enterprise Admins"),
    ("-520", "Group Policy Creator Owners"),
    ("-521", "Read-only Domain Controllers"),
    ("-526", "Key Admins"),
    ("-527", "Enterprise Key Admins"),
    ("-553", "RAS and IAS Servers"),
];

/// The same of the built-in ones.
const BUILT_IN: [(&str, &str); 9] = [
    ("S-1-5-32-544", "Administrators"),
    ("S-1-5-32-548", "Account Operators"),
    ("S-1-5-32-549", "Server Operators"),
    ("S-1-5-32-550", "Print Operators"),
    ("S-1-5-32-551", "Backup Operators"),
    ("S-1-5-32-552", "Replicator"),
    ("S-1-5-32-557", "Incoming Forest Trust Builders"),
    ("S-1-5-32-578", "Hyper-V Administrators"),
    ("S-1-5-32-582", "Storage Replica Administrators"),
];

/// A group's place in the search: who it was reached from.
struct Reached {
    name: String,
    from: Option<usize>,
}

/// What makes a granted group one that no account may have; none when it leads to nothing of that kind.
pub(crate) fn wrong_power(ldap: &mut dyn Ldap, target: &TargetConfig, group: &str) -> Result<Option<String>, Error> {
    let mut reached = vec![Reached { name: group.to_owned(), from: None }];
    let mut seen = BTreeSet::from([key(group)]);
    let mut waiting = VecDeque::from([0]);
    while let Some(at) = waiting.pop_front() {
        let name = reached.get(at).map(|reached| reached.name.clone()).unwrap_or_default();
        let looked = look_at(ldap, target, &name)?;
        if let Some(power) = listed(target, &name).or(looked.power) {
            return Ok(Some(format!(
                "{}: {power}. Whoever is in it can make access that outlives the lease; grant a group that leads \
                 to no such group",
                path(&reached, at)
            )));
        }
        for parent in looked.parents {
            if seen.insert(key(&parent)) {
                waiting.push_back(reached.len());
                reached.push(Reached { name: parent, from: Some(at) });
            }
        }
        if reached.len() > MOST {
            return Ok(Some(format!("is in more than {MOST} groups, too many to check: use another group")));
        }
    }
    Ok(None)
}

/// One spelling of a name.
fn key(name: &str) -> String {
    distinguished::parts(name).map_or_else(|| name.to_lowercase(), |parts| parts.join(","))
}

/// `app_ops → dba`
fn path(reached: &[Reached], at: usize) -> String {
    let mut names = Vec::new();
    let mut step = Some(at);
    while let Some(reached) = step.and_then(|at| reached.get(at)) {
        names.push(short(&reached.name));
        step = reached.from;
    }
    names.reverse();
    names.join(" → ")
}

/// The value of a name's first part, as it is spelt.
fn short(name: &str) -> &str {
    let value = name.split_once('=').map_or(name, |(_, value)| value);
    // A comma that is escaped is part of it.
    let end = value.char_indices().find(|&(at, c)| c == ',' && !value[..at].ends_with('\\'));
    value[..end.map_or(value.len(), |(at, _)| at)].trim()
}

/// Whether the operator says so.
fn listed(target: &TargetConfig, name: &str) -> Option<String> {
    let is_it = |listed: &&String| key(listed) == key(name);
    target.privileged_groups.iter().find(is_it).map(|_| "the configuration lists it in `privileged_groups`".to_owned())
}

struct Looked {
    parents: Vec<String>,
    power: Option<String>,
}

fn look_at(ldap: &mut dyn Ldap, target: &TargetConfig, name: &str) -> Result<Looked, Error> {
    match target.flavour {
        Flavour::ActiveDirectory => {
            let Some(entry) = read(ldap, &Name::of(name), &["objectSid", "memberOf"]).map_err(of_read)? else {
                let power = "the broker's account may not read it, so its power cannot be checked".to_owned();
                return Ok(Looked { parents: Vec::new(), power: Some(power) });
            };
            let power = entry.value("objectSid").and_then(power_of);
            let power = power.map(|name| format!("it is {name}, which rules the domain or can come to"));
            Ok(Looked { parents: entry.values("memberOf").to_vec(), power })
        }
        Flavour::OpenLdap => {
            // Names of users say nothing of groups.
            let attribute = match target.member_attribute {
                MemberAttribute::MemberUid => return Ok(Looked { parents: Vec::new(), power: None }),
                attribute => attribute.name(),
            };
            let base = target.groups_base.as_deref().unwrap_or_default();
            let group = Name::of(name);
            let condition = Condition::Equals(attribute, Value::Name(&group));
            let parents = below(ldap, base, condition, &["1.1"], PARENTS)?;
            Ok(Looked { parents: parents.into_iter().map(|entry| entry.name).collect(), power: None })
        }
    }
}

/// The name of a group that rules, by its security identifier.
fn power_of(sid: &str) -> Option<&'static str> {
    let built_in = BUILT_IN.iter().find(|(whole, _)| *whole == sid);
    let of_a_domain = || OF_A_DOMAIN.iter().find(|(end, _)| sid.starts_with("S-1-5-21-") && sid.ends_with(end));
    built_in.or_else(of_a_domain).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_rule_are_known_by_their_identifiers() {
        assert_eq!(power_of("S-1-5-21-1-2-3-512"), Some("Domain Admins"));
        assert_eq!(power_of("S-1-5-32-548"), Some("Account Operators"));
        for harmless in ["S-1-5-21-1-2-3-513", "S-1-5-21-1-2-3-1512", "S-1-5-32-545", "S-1-5-512", ""] {
            assert_eq!(power_of(harmless), None, "{harmless}");
        }
    }

    #[test]
    fn a_group_is_called_by_its_own_name() {
        assert_eq!(short("CN=Domain Admins,CN=Users,DC=corp"), "Domain Admins");
        assert_eq!(short("cn=a\\,b , ou=x"), "a\\,b");
    }
}
