//! What an operator writes for a target and for a role of it.

use std::collections::BTreeMap;

use jit_plugin::http::{Digest, Notation, SaltPlace, SaltedDigest};
use jit_plugin::{ConfigProblem, Encoding};
use serde::Deserialize;

use crate::distinguished;

/// More groups than this are a group that should exist in the directory.
const MAX_GROUPS: usize = 64;
/// More than this is a list for the directory to have.
const MAX_PRIVILEGED: usize = 256;
/// More than this is no template of an entry.
const MAX_ATTRIBUTES: usize = 64;

/// What `{SSHA512}` holds; the host writes the scheme before it.
const SSHA512: SaltedDigest =
    SaltedDigest { digest: Digest::Sha512, salt_place: SaltPlace::After, salt_bytes: 16, notation: Notation::Base64 };

/// Which directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Flavour {
    /// OpenLDAP 2.5 or later, with ppolicy.
    #[serde(rename = "openldap")]
    OpenLdap,
    /// Active Directory, or Samba as a domain controller.
    #[serde(rename = "active-directory")]
    ActiveDirectory,
}

/// How a password is sent to OpenLDAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PasswordForm {
    /// As `{SSHA}`: the server never sees the password itself.
    #[default]
    Ssha,
    /// As `{SSHA512}`, for servers with OpenLDAP's module `pw-sha2`.
    Ssha512,
    /// As it is, over TLS, for servers that hash it themselves (`ppolicy_hash_cleartext`) or check
    /// its quality.
    Plain,
}

/// What of a group names its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum MemberAttribute {
    /// `groupOfNames`, and Active Directory's groups.
    #[default]
    #[serde(rename = "member")]
    Member,
    /// `groupOfUniqueNames`.
    #[serde(rename = "uniqueMember")]
    UniqueMember,
    /// `posixGroup`: names, not distinguished ones.
    #[serde(rename = "memberUid")]
    MemberUid,
}

/// One value of an attribute, or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Texts {
    /// `"a"`
    One(String),
    /// `["a", "b"]`
    Many(Vec<String>),
}

/// `[targets.T.config]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// Which directory it is.
    pub flavour: Flavour,
    /// The organisational unit that accounts are made in, and nothing else.
    pub accounts_base: String,
    /// What of an entry its name is: `uid` (the default of OpenLDAP) or `cn` (Active Directory's).
    pub name_attribute: Option<String>,
    /// Object classes of an account.
    pub object_classes: Option<Vec<String>>,
    /// More attributes of an account. `{name}`, `{workload}` (as a plain name) and `{lease_id}` stand for
    /// its own.
    #[serde(default)]
    pub attributes: BTreeMap<String, Texts>,
    /// How a password is sent. OpenLDAP only.
    #[serde(default)]
    pub password: PasswordForm,
    /// Whether `pwdEndTime` is set: OpenLDAP's ppolicy refuses logins after it.
    #[serde(default = "yes")]
    pub pwd_end_time: bool,
    /// Whether accounts are dynamic entries, which the server removes itself (OpenLDAP's dds).
    #[serde(default)]
    pub dynamic: bool,
    /// Where groups are looked for when an account is removed. Needed where roles have groups, but
    /// not by Active Directory, which lets go of the members that it deletes.
    pub groups_base: Option<String>,
    /// What of a group names its members.
    #[serde(default)]
    pub member_attribute: MemberAttribute,
    /// What follows the `@` in Active Directory's `userPrincipalName`; the domain of
    /// `accounts_base` when it is left out.
    pub upn_suffix: Option<String>,
    /// Groups that no account may be in, neither by its role nor by a group in a group: besides those
    /// that rule every Active Directory.
    #[serde(default)]
    pub privileged_groups: Vec<String>,
    /// Why it is accepted that every account of the domain can make computer accounts
    /// (`ms-DS-MachineAccountQuota`), which outlive the lease. Active Directory only.
    pub accept_machine_accounts: Option<String>,
}

fn yes() -> bool {
    true
}

/// `[targets.T.roles.R]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// Groups that an account becomes a member of, by their distinguished names.
    pub groups: Vec<String>,
}

/// What the driver writes itself, in lower case.
const OWN: [&str; 12] = [
    "objectclass",
    "userpassword",
    "unicodepwd",
    "pwdendtime",
    "pwdstarttime",
    "pwdaccountlockedtime",
    "entryttl",
    "useraccountcontrol",
    "accountexpires",
    "samaccountname",
    "userprincipalname",
    "memberof",
];

impl Texts {
    /// The values.
    pub fn values(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

impl MemberAttribute {
    /// Its name in the directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::UniqueMember => "uniqueMember",
            Self::MemberUid => "memberUid",
        }
    }
}

impl TargetConfig {
    /// What of an entry its name is.
    pub fn name_attribute(&self) -> &str {
        match self.flavour {
            Flavour::OpenLdap => self.name_attribute.as_deref().unwrap_or("uid"),
            Flavour::ActiveDirectory => "cn",
        }
    }

    /// How a password is written.
    pub(crate) fn encoding(&self) -> Encoding {
        match (self.flavour, self.password) {
            (Flavour::ActiveDirectory, _) => Encoding::Utf16leQuoted,
            (Flavour::OpenLdap, PasswordForm::Ssha) => Encoding::SaltedSha1,
            (Flavour::OpenLdap, PasswordForm::Ssha512) => Encoding::SaltedDigest(SSHA512),
            (Flavour::OpenLdap, PasswordForm::Plain) => Encoding::Plain,
        }
    }

    /// What the types do not say.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: String| problems.push(ConfigProblem::new(path, message));
        for (path, base) in [("accounts_base", Some(&self.accounts_base)), ("groups_base", self.groups_base.as_ref())] {
            if let Some(message) = base.and_then(|base| wrong_name(base)) {
                problem(path, message);
            }
        }
        for (index, group) in self.privileged_groups.iter().enumerate() {
            if let Some(message) = wrong_name(group) {
                problem(&format!("privileged_groups[{index}]"), message);
            }
        }
        if self.privileged_groups.len() > MAX_PRIVILEGED {
            problem("privileged_groups", format!("has more than {MAX_PRIVILEGED} groups"));
        }
        if let Some(name) = &self.name_attribute {
            let is_cn = name.eq_ignore_ascii_case("cn");
            if self.flavour == Flavour::ActiveDirectory && !is_cn {
                problem("name_attribute", "must be `cn` in Active Directory: leave it out".into());
            } else if !is_attribute(name) || is_own(name) {
                problem("name_attribute", "must name an attribute, such as `uid` or `cn`".into());
            }
        }
        for (index, class) in self.object_classes.iter().flatten().enumerate() {
            if !is_attribute(class) {
                problem(&format!("object_classes[{index}]"), "must be the name of an object class".into());
            }
        }
        if self.object_classes.as_ref().is_some_and(|classes| classes.is_empty() || classes.len() > MAX_ATTRIBUTES) {
            problem("object_classes", "must name 1 to 64 classes: leave it out for the usual ones".into());
        }
        if self.attributes.len() > MAX_ATTRIBUTES {
            problem("attributes", format!("has more than {MAX_ATTRIBUTES} attributes"));
        }
        for (name, texts) in &self.attributes {
            let path = format!("attributes.{name}");
            if !is_attribute(name) {
                problem(&path, "is not an attribute's name".into());
            } else if is_own(name) || name.eq_ignore_ascii_case(self.name_attribute()) {
                problem(&path, "is set by the driver: leave it out".into());
            } else if texts.values().is_empty() || texts.values().iter().any(String::is_empty) {
                problem(&path, "is empty: give it a value, or leave it out".into());
            } else if let Some(unknown) = texts.values().iter().find_map(|text| unknown_place(text)) {
                problem(
                    &path,
                    format!("has the unknown place {{{unknown}}}: write {{name}}, {{workload}} or {{lease_id}}"),
                );
            }
        }
        problems.extend(self.flavour_problems());
        problems
    }

    /// What the other flavour has.
    fn flavour_problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut of_openldap = |path: &str| problems.push(ConfigProblem::new(path, "is for OpenLDAP: leave it out"));
        match self.flavour {
            Flavour::OpenLdap => {
                let of_active_directory = [
                    ("upn_suffix", self.upn_suffix.is_some()),
                    ("accept_machine_accounts", self.accept_machine_accounts.is_some()),
                ];
                for (path, _) in of_active_directory.into_iter().filter(|(_, is_set)| *is_set) {
                    problems.push(ConfigProblem::new(path, "is for Active Directory: leave it out"));
                }
            }
            Flavour::ActiveDirectory => {
                if self.password != PasswordForm::default() {
                    of_openldap("password");
                }
                if !self.pwd_end_time {
                    of_openldap("pwd_end_time");
                }
                if self.dynamic {
                    of_openldap("dynamic");
                }
                if self.member_attribute != MemberAttribute::default() {
                    of_openldap("member_attribute");
                }
                if self.groups_base.is_some() {
                    of_openldap("groups_base");
                }
                if self.accept_machine_accounts.as_ref().is_some_and(|why| why.trim().is_empty()) {
                    let message = "is empty: say why it is accepted, or leave it out";
                    problems.push(ConfigProblem::new("accept_machine_accounts", message));
                }
                match &self.upn_suffix {
                    Some(suffix) if !is_domain(suffix) => {
                        problems.push(ConfigProblem::new("upn_suffix", "must be a domain such as `example.com`"));
                    }
                    None if distinguished::domain(&self.accounts_base).is_none() => {
                        let message =
                            "is missing, and `accounts_base` has no domain (DC=…): add `upn_suffix = \"example.com\"`";
                        problems.push(ConfigProblem::new("upn_suffix", message));
                    }
                    _ => {}
                }
            }
        }
        problems
    }
}

impl RoleConfig {
    /// What the types do not say.
    pub(crate) fn problems(&self, target: &TargetConfig) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if self.groups.is_empty() {
            let message = "is empty: name the groups that an account gets, \
                           such as `[\"cn=app_read_only,ou=groups,dc=example,dc=com\"]`";
            problems.push(ConfigProblem::new("groups", message));
        }
        if self.groups.len() > MAX_GROUPS {
            problems.push(ConfigProblem::new("groups", format!("has more than {MAX_GROUPS} groups: make one of them")));
        }
        for (index, group) in self.groups.iter().enumerate() {
            let message = if let Some(message) = wrong_name(group) {
                message
            } else if distinguished::is_below(group, &target.accounts_base) {
                "is the base where accounts are created and removed: use a group elsewhere".into()
            } else if target.flavour == Flavour::ActiveDirectory {
                continue;
            } else {
                match &target.groups_base {
                    Some(base) if distinguished::is_below(group, base) => continue,
                    Some(base) => format!("is not below `groups_base` ({base}), where a removal looks for it"),
                    None => "needs `groups_base` in the target's config: where a removal looks for groups, \
                             such as `\"ou=groups,dc=example,dc=com\"`"
                        .into(),
                }
            };
            problems.push(ConfigProblem::new(format!("groups[{index}]"), message));
        }
        problems
    }
}

fn wrong_name(text: &str) -> Option<String> {
    let is_name = text.len() <= 1024 && distinguished::parts(text).is_some();
    (!is_name).then(|| "must be a distinguished name such as `ou=jit,dc=example,dc=com`".to_owned())
}

fn is_attribute(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 64
        && bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_own(name: &str) -> bool {
    OWN.contains(&name.to_ascii_lowercase().as_str())
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    text.len() <= 253 && text.split('.').all(label)
}

/// The places that a template may have.
const PLACES: [&str; 3] = ["name", "workload", "lease_id"];

/// What stands between braces and is no place.
fn unknown_place(template: &str) -> Option<&str> {
    template.split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or(rest)).find(|place| !PLACES.contains(place))
}

/// Most bytes of a workload's name in an attribute.
const PLAIN_NAME: usize = 64;

/// A workload's name as letters, digits and single hyphens or dots between them: the text is the
/// issuer's, and in an attribute it must be neither a path (`../..`) nor another one's address
/// (`root@example.com`).
fn plain_name(workload: &str) -> String {
    let mut name = String::with_capacity(PLAIN_NAME);
    for c in workload.chars() {
        let separates = name.is_empty() || name.ends_with(['-', '.']);
        match c {
            c if c.is_ascii_alphanumeric() => name.push(c),
            '.' | '-' if !separates => name.push(c),
            _ if !separates => name.push('-'),
            _ => {}
        }
        if name.len() == PLAIN_NAME {
            break;
        }
    }
    let name = name.trim_end_matches(['-', '.']);
    if name.is_empty() { "workload".to_owned() } else { name.to_owned() }
}

/// The template with an account's own in its places, which are replaced once: what they bring is data.
pub(crate) fn filled(template: &str, account: &jit_plugin::Account) -> String {
    let workload = plain_name(&account.workload);
    let mut text = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let (place, after) = after.split_once('}').unwrap_or((after, ""));
        text.push_str(match place {
            "name" => &account.name,
            "workload" => &workload,
            _ => &account.lease_id,
        });
        rest = after;
    }
    text.push_str(rest);
    text
}
