//! Checking a target before it is used: everything that would make an issue fail later, as far as a
//! directory answers, each with what mends it. OpenLDAP does not tell what the broker may write; its
//! rules are tried by the first issue.

use std::collections::BTreeMap;

use jit_plugin::driver::of_role;
use jit_plugin::ldap::{Condition, Entry, LdapError, Name, Value};
use jit_plugin::{ConfigProblem, Error, Ldap, Role, Target, log};

use crate::config::{Flavour, RoleConfig, TargetConfig};
use crate::distinguished::is_below;
use crate::failure::of_read;
use crate::look::{below, context_of, read};
use crate::powers::wrong_power;

/// What Active Directory says it is (MS-ADTS, 3.1.1.3.4.3.1).
const ACTIVE_DIRECTORY: &str = "1.2.840.113556.1.4.800";
/// The password policy's control (draft-behera-ldap-password-policy).
const PPOLICY: &str = "1.3.6.1.4.1.42.2.27.8.5.1";

/// Classes of groups that must not be empty.
const NEVER_EMPTY: [&str; 2] = ["groupOfNames", "groupOfUniqueNames"];

pub(crate) fn validate(
    ldap: &mut dyn Ldap,
    target: &Target<TargetConfig>,
    roles: &[Role<RoleConfig>],
) -> Result<(), Error> {
    let config = &target.config;
    let mut problems = config.problems();
    for role in roles {
        problems.extend(of_role(&role.name, role.config.problems(config)));
    }
    let server = if problems.is_empty() { Some(Server::ask(ldap)?) } else { None };
    if let Some(server) = &server {
        problems = server.problems(ldap, target)?;
    }
    // The rest would only repeat that it is the wrong server.
    if let Some(server) = server.filter(|_| problems.is_empty()) {
        problems.extend(base_problems(ldap, config)?);
        problems.extend(server.context_problems(ldap, target, roles)?);
        let mut known = BTreeMap::new();
        for role in roles {
            let mut found = Vec::new();
            for (index, group) in role.config.groups.iter().enumerate() {
                let message = match known.get(group) {
                    Some(message) => Option::<String>::clone(message),
                    None => {
                        let message = match wrong_group(ldap, config, group)? {
                            None => wrong_power(ldap, config, group)?,
                            message => message,
                        };
                        known.insert(group.clone(), message.clone());
                        message
                    }
                };
                found.extend(message.map(|message| ConfigProblem::new(format!("groups[{index}]"), message)));
            }
            problems.extend(of_role(&role.name, found));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::InvalidConfig(problems)) }
}

/// What the server says of itself.
struct Server(Entry);

impl Server {
    fn ask(ldap: &mut dyn Ldap) -> Result<Self, Error> {
        let attributes = &[
            "supportedCapabilities",
            "supportedControl",
            "dynamicSubtrees",
            "subschemaSubentry",
            "defaultNamingContext",
            "namingContexts",
        ];
        let root = read(ldap, &Name::of(""), attributes).map_err(of_read)?;
        root.map(Self).ok_or_else(|| {
            Error::Refused(
                "the server does not show its root entry (root DSE): let the broker's account read it".into(),
            )
        })
    }

    fn says(&self, attribute: &str, value: &str) -> bool {
        self.0.values(attribute).iter().any(|said| said == value)
    }

    fn problems(&self, ldap: &mut dyn Ldap, target: &Target<TargetConfig>) -> Result<Vec<ConfigProblem>, Error> {
        let config = &target.config;
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: &str| problems.push(ConfigProblem::new(path, message));
        let is_active_directory = self.says("supportedCapabilities", ACTIVE_DIRECTORY);
        match config.flavour {
            Flavour::ActiveDirectory if !is_active_directory => {
                problem("flavour", "the server is not Active Directory: write `openldap`");
            }
            Flavour::ActiveDirectory => {}
            Flavour::OpenLdap if is_active_directory => {
                problem("flavour", "the server is Active Directory: write `active-directory`");
            }
            Flavour::OpenLdap => {
                if config.pwd_end_time && !(self.says("supportedControl", PPOLICY) && self.knows(ldap, "pwdEndTime")?) {
                    problem(
                        "pwd_end_time",
                        "the server does not know `pwdEndTime`: load the overlay ppolicy (OpenLDAP 2.5 or later), \
                         or write `pwd_end_time = false` and do without an expiry of the server's own",
                    );
                }
                if config.dynamic && !self.is_dynamic(&config.accounts_base) {
                    problem(
                        "dynamic",
                        "the server has no dynamic entries there: load the overlay dds, or leave it out",
                    );
                }
                if !config.pwd_end_time && !config.dynamic {
                    let message = "the server ends no account by itself: one outlives its lease while the broker \
                                   cannot reach the server";
                    log::warn(message, &[("target", &target.name)]);
                }
            }
        }
        Ok(problems)
    }

    /// What the naming context as a whole makes of the accounts.
    fn context_problems(
        &self,
        ldap: &mut dyn Ldap,
        target: &Target<TargetConfig>,
        roles: &[Role<RoleConfig>],
    ) -> Result<Vec<ConfigProblem>, Error> {
        let context = context_of(&self.0, &target.config).unwrap_or_else(|| target.config.accounts_base.clone());
        let attributes: &[&str] = match target.config.flavour {
            Flavour::OpenLdap => &["entryUUID"],
            Flavour::ActiveDirectory => &["ms-DS-MachineAccountQuota", "lockoutThreshold", "objectSid"],
        };
        let root = read(ldap, &Name::of(&context), attributes).map_err(of_read)?;
        match (target.config.flavour, root) {
            (Flavour::OpenLdap, Some(_)) => Ok(Vec::new()),
            (Flavour::OpenLdap, None) => {
                let message = "the broker's account sees nothing outside of `accounts_base`: an account that somebody \
                               moves out of there would be taken for removed, see docs/drivers/ldap.md";
                log::warn(message, &[("target", &target.name), ("hidden", &context)]);
                Ok(Vec::new())
            }
            (Flavour::ActiveDirectory, None) => {
                let message = format!("{context} cannot be read by the broker's account: let that account read it");
                Ok(vec![ConfigProblem::new("accounts_base", message)])
            }
            (Flavour::ActiveDirectory, Some(domain)) => domain_problems(ldap, target, roles, &context, &domain),
        }
    }

    /// Whether the schema has an attribute.
    fn knows(&self, ldap: &mut dyn Ldap, attribute: &str) -> Result<bool, Error> {
        let Some(place) = self.0.value("subschemaSubentry") else { return Ok(false) };
        let schema = read(ldap, &Name::of(place), &["attributeTypes"]).map_err(of_read)?;
        let quoted = format!("'{attribute}'");
        Ok(schema.is_some_and(|schema| schema.values("attributeTypes").iter().any(|line| line.contains(&quoted))))
    }

    /// RFC 2589, section 8. OpenLDAP does not name its operation among `supportedExtension`.
    fn is_dynamic(&self, base: &str) -> bool {
        self.0.values("dynamicSubtrees").iter().any(|tree| is_below(base, tree))
    }
}

/// What the domain lets every account do, and what others can do to it.
fn domain_problems(
    ldap: &mut dyn Ldap,
    target: &Target<TargetConfig>,
    roles: &[Role<RoleConfig>],
    context: &str,
    domain: &Entry,
) -> Result<Vec<ConfigProblem>, Error> {
    let config = &target.config;
    let mut problems = Vec::new();
    match (domain.value("ms-DS-MachineAccountQuota"), &config.accept_machine_accounts) {
        (Some("0"), _) => {}
        (quota, Some(why)) => {
            let quota = quota.unwrap_or("hidden");
            let message =
                "every account can create computer accounts, which outlive its lease; the configuration accepts this";
            log::warn(message, &[("target", &target.name), ("ms-DS-MachineAccountQuota", quota), ("why", why)]);
        }
        (quota, None) => {
            let said = quota.map_or_else(|| "hidden from the broker's account".to_owned(), str::to_owned);
            let message = format!(
                "ms-DS-MachineAccountQuota of {context} is {said}: every account could make computer accounts of its \
                 own, which outlive its lease. Set it to 0 (docs/drivers/ldap.md says how), or write \
                 `accept_machine_accounts = \"…\"` with the reason"
            );
            problems.push(ConfigProblem::new("accept_machine_accounts", message));
        }
    }
    // New users are in it, whatever their role.
    if let Some(sid) = domain.value("objectSid").map(|domain| format!("{domain}-513")) {
        let condition = Condition::Equals("objectSid", Value::Text(&sid));
        if let Some(users) = below(ldap, context, condition, &["1.1"], 1)?.first()
            && let Some(message) = wrong_power(ldap, config, &users.name)?
        {
            let message = format!("every account is in Domain Users, which is too powerful: {message}");
            problems.push(ConfigProblem::new("accounts_base", message));
        }
    }
    if domain.value("lockoutThreshold").is_some_and(|threshold| threshold != "0") {
        for role in roles {
            if !has_policy(ldap, &role.config)? {
                let message = "the domain locks accounts after wrong passwords: whoever knows an account's name can \
                               lock it out. Put the role's accounts into a group with a password policy that locks \
                               nobody, see docs/drivers/ldap.md";
                log::warn(message, &[("target", &target.name), ("role", &role.name)]);
            }
        }
    }
    Ok(problems)
}

/// Whether a fine-grained password policy holds for one of a role's groups.
fn has_policy(ldap: &mut dyn Ldap, role: &RoleConfig) -> Result<bool, Error> {
    for group in &role.groups {
        let entry = read(ldap, &Name::of(group), &["msDS-PSOApplied"]).map_err(of_read)?;
        if entry.is_some_and(|entry| entry.value("msDS-PSOApplied").is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn base_problems(ldap: &mut dyn Ldap, config: &TargetConfig) -> Result<Vec<ConfigProblem>, Error> {
    let mut problems = Vec::new();
    let missing = "does not exist, or the broker's account may not read it: make it, and let that account read it";
    let attributes: &[&str] = match config.flavour {
        Flavour::OpenLdap => &["objectClass"],
        Flavour::ActiveDirectory => &["objectClass", "allowedChildClassesEffective"],
    };
    match read(ldap, &Name::of(&config.accounts_base), attributes).map_err(of_read)? {
        None => problems.push(ConfigProblem::new("accounts_base", missing)),
        Some(base) => {
            let class = config.object_classes.as_ref().and_then(|classes| classes.last().map(String::as_str));
            let class = class.unwrap_or("user");
            let allowed = base.values("allowedChildClassesEffective");
            if config.flavour == Flavour::ActiveDirectory
                && !allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(class))
            {
                let message = format!(
                    "the broker's account may not make `{class}` objects there: delegate it, see docs/drivers/ldap.md"
                );
                problems.push(ConfigProblem::new("accounts_base", message));
            }
        }
    }
    if let Some(base) = &config.groups_base
        && read(ldap, &Name::of(base), &["objectClass"]).map_err(of_read)?.is_none()
    {
        problems.push(ConfigProblem::new("groups_base", missing));
    }
    Ok(problems)
}

/// What is wrong with a group.
fn wrong_group(ldap: &mut dyn Ldap, config: &TargetConfig, group: &str) -> Result<Option<String>, Error> {
    let name = Name::of(group);
    let attributes: &[&str] = match config.flavour {
        Flavour::OpenLdap => &["objectClass"],
        Flavour::ActiveDirectory => &["objectClass", "allowedAttributesEffective"],
    };
    let Some(entry) = read(ldap, &name, attributes).map_err(of_read)? else {
        return Ok(Some(
            "does not exist, or the broker's account may not read it: make it, and let that account read it".into(),
        ));
    };
    if config.flavour == Flavour::ActiveDirectory {
        let may = entry.values("allowedAttributesEffective").iter().any(|name| name.eq_ignore_ascii_case("member"));
        return Ok((!may).then(|| {
            "the broker's account may not change its members: delegate `member`, see docs/drivers/ldap.md".into()
        }));
    }
    let classes = entry.values("objectClass");
    let never_empty = |class: &&str| classes.iter().any(|has| has.eq_ignore_ascii_case(class));
    let Some(class) = NEVER_EMPTY.iter().find(|class| never_empty(class)) else {
        return Ok(None);
    };
    // A group with too many members to read them is not empty soon.
    let attribute = config.member_attribute.name();
    let members = match read(ldap, &name, &[attribute]) {
        Ok(Some(entry)) => entry.values(attribute).to_vec(),
        Ok(None) => Vec::new(),
        Err(LdapError::Denied(_)) => return Ok(None),
        Err(error) => return Err(of_read(error)),
    };
    let stays = members.iter().any(|member| !is_below(member, &config.accounts_base));
    Ok((!stays).then(|| {
        format!(
            "has no member but accounts, and a {class} must not be empty, so that the last account could not leave: \
             add one that stays, such as `member: cn=nobody,…`"
        )
    }))
}
