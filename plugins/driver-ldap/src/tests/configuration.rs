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
    assert_eq!(crate::config::filled("a {workload} {lease_id}", &account), "a {name},=*)(\0 lease_01");
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

#[test]
fn what_active_directory_does_not_delegate_is_told() {
    let mut ldap = server(|operation| {
        Ok(vec![match operation.name.as_str() {
            "" => entry("", &[("supportedCapabilities", &["1.2.840.113556.1.4.800"])]),
            name => entry(name, &[("allowedChildClassesEffective", &["user"])]),
        }])
    });
    let found = problems(&mut ldap, &active_directory(), a_role());
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("delegate `member`"), "{found:?}");
}

#[test]
fn a_server_that_is_away_is_no_mistake_of_the_configuration() {
    let mut ldap = server(|_| Err(LdapError::Unavailable("down".into())));
    let answer = Directory::validate(&mut ldap, &openldap(""), &[a_role()]);
    assert!(matches!(answer, Err(Error::Retryable(_))));
}
