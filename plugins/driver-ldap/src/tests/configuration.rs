//! What is wrong with a configuration, and with a server for it.
use super::*;

fn problems(ldap: &mut FakeLdap<'_>, target: &Target<TargetConfig>, role: Role<RoleConfig>) -> Vec<(String, String)> {
    match Directory::validate(ldap, target, &[role]) {
        Ok(()) => Vec::new(),
        Err(Error::InvalidConfig(problems)) => problems.into_iter().map(|p| (p.path, p.message)).collect(),
        Err(other) => panic!("{other:?}"),
    }
}

fn paths(target: &Target<TargetConfig>, role: Role<RoleConfig>) -> Vec<String> {
    let mut ldap = server(|_| panic!("asked although the configuration is wrong"));
    problems(&mut ldap, target, role).into_iter().map(|(path, _)| path).collect()
}

fn role_of(groups: &str) -> Role<RoleConfig> {
    role(config::parse(&format!(r#"{{"groups": {groups}}}"#)).unwrap())
}

#[test]
fn mistakes_are_told_without_asking_the_server() {
    let wrong = openldap(
        r#", "name_attribute": "userPassword", "upn_suffix": "a.b", "object_classes": [],
           "attributes": {"pwdEndTime": "x", "c n": "x", "mail": "{who}@x", "l": "", "uid": "x"}"#,
    );
    let found = paths(&wrong, a_role());
    for path in
        ["name_attribute", "upn_suffix", "object_classes", "attributes.pwdEndTime", "attributes.c n", "attributes.mail"]
    {
        assert!(found.contains(&path.to_owned()), "{path}: {found:?}");
    }
    let base = |base: &str| {
        let json = format!(r#"{{"flavour": "openldap", "accounts_base": "{base}"}}"#);
        target(config::parse(&json).unwrap())
    };
    assert_eq!(paths(&base("jit"), a_role())[0], "accounts_base");
    assert_eq!(paths(&base("ou=jit,dc=a"), a_role()), ["roles.app_read_only.groups[0]"]);
    for groups in [r#"[]"#, r#"["app"]"#, r#"["cn=a,ou=jit,dc=example,dc=com"]"#, r#"["cn=a,dc=elsewhere"]"#] {
        assert_eq!(paths(&openldap(""), role_of(groups)).len(), 1, "{groups}");
    }
    let ad = r#"{"flavour": "active-directory", "accounts_base": "ou=jit,o=x", "name_attribute": "uid", "dynamic": true,
                 "password": "plain", "pwd_end_time": false, "groups_base": "o=x", "member_attribute": "memberUid"}"#;
    let found = paths(&target(config::parse(ad).unwrap()), a_role());
    assert_eq!(
        found,
        ["name_attribute", "password", "pwd_end_time", "dynamic", "member_attribute", "groups_base", "upn_suffix"]
    );
}

#[test]
fn places_of_a_template_are_filled_once() {
    let mut account = account(NAME, 1);
    account.workload = "{name},=*)(\0".into();
    assert_eq!(crate::config::filled("a {workload} {lease_id}", &account), "a name lease_01");
}

/// S-L7: the issuer's text becomes no path and nobody's address.
#[test]
fn a_workloads_name_is_placed_as_a_plain_name() {
    let mut account = account(NAME, 1);
    for (workload, placed) in [
        ("payment-service", "payment-service"),
        ("../..", "workload"),
        ("root@example.com", "root-example.com"),
        ("spiffe://corp/ns/pay/sa/Api", "spiffe-corp-ns-pay-sa-Api"),
        ("a..b--c/", "a.b-c"),
        ("größe", "gr-e"),
    ] {
        account.workload = workload.into();
        assert_eq!(crate::config::filled("/home/{workload}", &account), format!("/home/{placed}"), "{workload}");
    }
    account.workload = "x".repeat(500);
    assert_eq!(crate::config::filled("{workload}", &account).len(), 64);
}

/// OpenLDAP with everything, but for what a test changes.
fn good(operation: &Operation) -> Answer {
    Ok(vec![match operation.name.as_str() {
        "" => entry(
            "",
            &[
                ("supportedControl", &["1.3.6.1.4.1.42.2.27.8.5.1"]),
                ("dynamicSubtrees", &["dc=example,dc=com"]),
                ("subschemaSubentry", &["cn=Subschema"]),
            ],
        ),
        "cn=Subschema" => entry("cn=Subschema", &[("attributeTypes", &["( 1.3 NAME 'pwdEndTime' )"])]),
        GROUP => entry(GROUP, &[("objectClass", &["groupOfNames"]), ("member", &["cn=nobody,dc=example,dc=com"])]),
        name => entry(name, &[("objectClass", &["organizationalUnit"])]),
    }])
}

/// What validation says when the server answers that to a search for that entry.
fn with(name: &'static str, answer: Answer, target: &Target<TargetConfig>) -> Vec<(String, String)> {
    let mut ldap = server(move |operation| if operation.name == name { answer.clone() } else { good(operation) });
    problems(&mut ldap, target, a_role())
}

#[test]
fn a_server_that_has_everything_is_taken() {
    assert_eq!(with("none", Ok(vec![]), &openldap(r#", "dynamic": true"#)), []);
}

#[test]
fn what_the_server_lacks_is_told_with_what_mends_it() {
    let only = |found: Vec<(String, String)>, path: &str, word: &str| {
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0 == path && found[0].1.contains(word), "{found:?}");
    };
    let target = openldap("");
    only(with("cn=Subschema", Ok(vec![]), &target), "pwd_end_time", "ppolicy");
    only(with("ou=jit,dc=example,dc=com", Err(refused(32)), &target), "accounts_base", "make it");
    only(with("ou=groups,dc=example,dc=com", Ok(vec![]), &target), "groups_base", "make it");
    let group = "roles.app_read_only.groups[0]";
    only(with(GROUP, Err(refused(32)), &target), group, "make it");
    let accounts_only = entry(GROUP, &[("objectClass", &["groupOfNames"]), ("member", &[ENTRY])]);
    only(with(GROUP, Ok(vec![accounts_only]), &target), group, "add one that stays");
    let bare = |capability: &'static str| entry("", &[("supportedCapabilities", &[capability][..])]);
    only(with("", Ok(vec![bare("1.2.840.113556.1.4.800")]), &target), "flavour", "active-directory");
    only(with("", Ok(vec![bare("x")]), &active_directory()), "flavour", "openldap");
    let dynamic = openldap(r#", "dynamic": true, "pwd_end_time": false"#);
    only(with("", Ok(vec![bare("x")]), &dynamic), "dynamic", "dds");
}

/// A domain that is set up as the driver's page says, but for what a test changes.
fn domain(operation: &Operation) -> Answer {
    Ok(match operation.name.as_str() {
        "" => vec![entry(
            "",
            &[("supportedCapabilities", &["1.2.840.113556.1.4.800"]), ("defaultNamingContext", &["DC=example,DC=com"])],
        )],
        "DC=example,DC=com" if operation.has("objectSid = S-1-5-21-1-2-3-513") => vec![entry(DOMAIN_USERS, &[])],
        name @ "DC=example,DC=com" => vec![entry(
            name,
            &[("ms-DS-MachineAccountQuota", &["0"]), ("lockoutThreshold", &["0"]), ("objectSid", &["S-1-5-21-1-2-3"])],
        )],
        DOMAIN_USERS => vec![entry(DOMAIN_USERS, &[("objectSid", &["S-1-5-21-1-2-3-513"])])],
        name => vec![entry(
            name,
            &[("allowedChildClassesEffective", &["user"]), ("allowedAttributesEffective", &["member"])],
        )],
    })
}

const DOMAIN_USERS: &str = "CN=Domain Users,CN=Users,DC=example,DC=com";

/// What validation says of a domain in which that entry is another one.
fn in_domain(name: &'static str, attributes: &'static [(&str, &[&str])], more: &str) -> Vec<(String, String)> {
    let mut ldap = server(move |operation| {
        let is_it = operation.name == name && operation.has("scope base");
        if is_it { Ok(vec![entry(name, attributes)]) } else { domain(operation) }
    });
    let json = format!(r#"{{"flavour": "active-directory", "accounts_base": "OU=jit,DC=example,DC=com"{more}}}"#);
    problems(&mut ldap, &target(config::parse(&json).unwrap()), a_role())
}

#[test]
fn what_active_directory_does_not_delegate_is_told() {
    assert_eq!(in_domain("none", &[], ""), []);
    let found = in_domain(GROUP, &[("objectClass", &["group"])], "");
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("delegate `member`"), "{found:?}");
}

/// S-H4: every account of a domain could make computer accounts, which outlive its lease.
#[test]
fn a_domain_in_which_accounts_make_accounts_is_refused() {
    const SID: (&str, &[&str]) = ("objectSid", &["S-1-5-21-1-2-3"]);
    const TEN: &[(&str, &[&str])] = &[("ms-DS-MachineAccountQuota", &["10"]), SID];
    for quota in [TEN, &[SID]] {
        let found = in_domain("DC=example,DC=com", quota, "");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0 == "accept_machine_accounts" && found[0].1.contains("Set it to 0"), "{found:?}");
        let accepted = r#", "accept_machine_accounts": "a lab without anything else in it""#;
        assert_eq!(in_domain("DC=example,DC=com", quota, accepted), []);
    }
    assert_eq!(in_domain("none", &[], r#", "accept_machine_accounts": " ""#)[0].0, "accept_machine_accounts");
}

/// Case 06: everything that is reachable from a granted group counts, and the message names the path.
#[test]
fn a_group_that_leads_to_a_powerful_one_is_refused() {
    const OPS: &str = "CN=ops,DC=example,DC=com";
    const ADMINS: &str = "CN=Domain Admins,CN=Users,DC=example,DC=com";
    let nested = |from: &'static str, more: &str| {
        let mut ldap = server(move |operation| {
            let mut answer = domain(operation)?;
            if operation.has("scope base") {
                let parent = match operation.name.as_str() {
                    name if name == from => OPS,
                    OPS => ADMINS,
                    // In a circle.
                    ADMINS => OPS,
                    _ => return Ok(answer),
                };
                answer[0].attributes.push(("memberOf".into(), vec![parent.into()]));
                if operation.name == ADMINS {
                    answer[0].attributes.push(("objectSid".into(), vec!["S-1-5-21-1-2-3-512".into()]));
                }
            }
            Ok(answer)
        });
        let json = format!(r#"{{"flavour": "active-directory", "accounts_base": "OU=jit,DC=example,DC=com"{more}}}"#);
        problems(&mut ldap, &target(config::parse(&json).unwrap()), a_role())
    };
    let found = nested(GROUP, "");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.starts_with("app_read_only → ops → Domain Admins: it is Domain Admins"), "{found:?}");
    let found = nested(GROUP, r#", "privileged_groups": ["cn=Ops, dc=example,dc=com"]"#);
    assert!(found[0].1.starts_with("app_read_only → ops: the configuration lists it"), "{found:?}");
    let found = nested(DOMAIN_USERS, "");
    assert!(found[0].0 == "accounts_base" && found[0].1.contains("Domain Users → ops → Domain Admins"), "{found:?}");
}

#[test]
fn groups_of_openldap_lead_to_what_the_configuration_lists() {
    const OPS: &str = "cn=ops,ou=groups,dc=example,dc=com";
    const ROOTS: &str = "cn=roots,ou=groups,dc=example,dc=com";
    let mut ldap = server(|operation| match operation.name.as_str() {
        "ou=groups,dc=example,dc=com" if operation.has(&format!("member = {GROUP}")) => Ok(vec![entry(OPS, &[])]),
        "ou=groups,dc=example,dc=com" if operation.has(&format!("member = {OPS}")) => Ok(vec![entry(ROOTS, &[])]),
        "ou=groups,dc=example,dc=com" if operation.has("member") => Ok(vec![]),
        _ => good(operation),
    });
    let listed = openldap(&format!(r#", "privileged_groups": ["{ROOTS}"]"#));
    let found = problems(&mut ldap, &listed, a_role());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.starts_with("app_read_only → ops → roots: the configuration"), "{found:?}");
}

#[test]
fn a_server_that_is_away_is_no_mistake_of_the_configuration() {
    let mut ldap = server(|_| Err(LdapError::Unavailable("down".into())));
    let answer = Directory::validate(&mut ldap, &openldap(""), &[a_role()]);
    assert!(matches!(answer, Err(Error::Retryable(_))));
}
