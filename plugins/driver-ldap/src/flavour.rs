//! What the two directories call the same things.

use jit_plugin::ldap::{Change, ChangeKind, Name, Value};
use jit_plugin::{Account, Secret};

use crate::config::{Flavour, TargetConfig, filled};
use crate::distinguished;

/// `userAccountControl` (MS-ADTS, 2.2.16): an ordinary account, and one that is disabled.
pub(crate) const NORMAL: &str = "512";
pub(crate) const DISABLED: &str = "514";

/// Active Directory's longest `sAMAccountName` of a user.
const SAM_LENGTH: usize = 20;

/// What locks an OpenLDAP account for good (draft-behera-ldap-password-policy, 5.3.3).
pub(crate) const LOCKED_FOR_GOOD: &str = "000001010000Z";

/// Object classes of an OpenLDAP account, where the target names none, and what they make necessary.
const CLASSES: [&str; 1] = ["inetOrgPerson"];
const NECESSARY: [&str; 2] = ["cn", "sn"];

/// The account's entry.
pub(crate) fn entry_of(target: &TargetConfig, name: &str) -> Name {
    Name::below(&target.accounts_base, target.name_attribute(), name)
}

/// A new entry's attributes, as texts but for the password and the expiry.
pub(crate) struct NewEntry {
    attributes: Vec<(String, Vec<String>)>,
}

impl NewEntry {
    pub(crate) fn of(target: &TargetConfig, account: &Account) -> Self {
        let mut entry = Self { attributes: Vec::new() };
        let mut classes = match (&target.object_classes, target.flavour) {
            (Some(classes), _) => classes.clone(),
            (None, Flavour::OpenLdap) => CLASSES.map(str::to_owned).to_vec(),
            (None, Flavour::ActiveDirectory) => vec!["user".to_owned()],
        };
        if target.dynamic && !classes.iter().any(|class| class.eq_ignore_ascii_case("dynamicObject")) {
            classes.push("dynamicObject".to_owned());
        }
        entry.set("objectClass", classes);
        entry.set(target.name_attribute(), vec![account.name.clone()]);
        for (name, texts) in &target.attributes {
            entry.set(name, texts.values().iter().map(|text| filled(text, account)).collect());
        }
        match target.flavour {
            Flavour::OpenLdap if target.object_classes.is_none() => {
                for name in NECESSARY {
                    entry.set_if_missing(name, &account.name);
                }
            }
            Flavour::OpenLdap => {}
            Flavour::ActiveDirectory => {
                entry.set("sAMAccountName", vec![login(&account.name).to_owned()]);
                entry.set("userPrincipalName", vec![principal(target, &account.name)]);
                entry.set("userAccountControl", vec![DISABLED.to_owned()]);
            }
        }
        entry
    }

    fn set(&mut self, name: &str, values: Vec<String>) {
        self.attributes.push((name.to_owned(), values));
    }

    fn set_if_missing(&mut self, name: &str, value: &str) {
        if !self.attributes.iter().any(|(set, _)| set.eq_ignore_ascii_case(name)) {
            self.set(name, vec![value.to_owned()]);
        }
    }

    /// For the host.
    pub(crate) fn values(&self) -> Vec<(&str, Vec<Value<'_>>)> {
        fn texts(values: &[String]) -> Vec<Value<'_>> {
            values.iter().map(|text| Value::Text(text)).collect()
        }
        self.attributes.iter().map(|(name, values)| (name.as_str(), texts(values))).collect()
    }
}

/// Active Directory's login of at most 20 characters: the end of the name, which is what makes it
/// unique.
pub(crate) fn login(name: &str) -> &str {
    let start = name.len().saturating_sub(SAM_LENGTH);
    // Names are ASCII; another one is cut between its characters.
    let start = (start..=name.len()).find(|&at| name.is_char_boundary(at)).unwrap_or(name.len());
    let end = &name[start..];
    if start == 0 { end } else { end.trim_start_matches('-') }
}

/// The name that an account logs in by in Active Directory.
pub(crate) fn principal(target: &TargetConfig, name: &str) -> String {
    let domain = target.upn_suffix.clone().or_else(|| distinguished::domain(&target.accounts_base));
    format!("{name}@{}", domain.unwrap_or_default())
}

/// The attribute that holds the password.
pub(crate) fn password_attribute(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::OpenLdap => "userPassword",
        Flavour::ActiveDirectory => "unicodePwd",
    }
}

/// Sets a password.
pub(crate) fn set_password<'a>(target: &TargetConfig, password: Secret<'a>) -> Change<'a> {
    replace(password_attribute(target.flavour), Value::Secret(password, target.encoding()))
}

/// The expiry, where the directory has one: the attribute and its value.
pub(crate) fn expiry(target: &TargetConfig, seconds: u64) -> Option<(&'static str, Value<'static>)> {
    match target.flavour {
        Flavour::OpenLdap => target.pwd_end_time.then_some(("pwdEndTime", Value::GeneralizedTime(seconds))),
        Flavour::ActiveDirectory => Some(("accountExpires", Value::FileTime(seconds))),
    }
}

/// What ends the login, at once. In OpenLDAP without a password nobody logs in, whatever overlays and
/// policies there are; ppolicy's own lock says so to whoever looks.
pub(crate) fn lock(target: &TargetConfig) -> Vec<Change<'static>> {
    match target.flavour {
        Flavour::OpenLdap => {
            let password = password_attribute(Flavour::OpenLdap);
            let mut changes = vec![Change { kind: ChangeKind::Replace, attribute: password, values: Vec::new() }];
            if target.pwd_end_time {
                // Holds whatever the policy is; the lock holds where that has pwdLockout.
                changes.push(replace("pwdEndTime", Value::GeneralizedTime(1)));
                changes.push(replace("pwdAccountLockedTime", Value::Text(LOCKED_FOR_GOOD)));
            }
            changes
        }
        Flavour::ActiveDirectory => vec![replace("userAccountControl", Value::Text(DISABLED))],
    }
}

pub(crate) fn replace<'a>(attribute: &'a str, value: Value<'a>) -> Change<'a> {
    Change { kind: ChangeKind::Replace, attribute, values: vec![value] }
}
