//! The driver on a scripted directory: what it sends, and what it makes of the answers. The suite of
//! the runtime runs the same verbs on real servers.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use super::*;
use jit_plugin::config;
use jit_plugin::ldap::{Entry, LdapError};
use jit_plugin::testing::{FakeLdap, Operation, account, entry, refused, role, secret, target};

const NAME: &str = "v-payment-4qk2";
const ENTRY: &str = "uid=v-payment-4qk2,ou=jit,dc=example,dc=com";
const GROUP: &str = "cn=app_read_only,ou=groups,dc=example,dc=com";
const AD_ENTRY: &str = "cn=v-payment-4qk2,OU=jit,DC=example,DC=com";

type Answer = Result<Vec<Entry>, LdapError>;

fn openldap(more: &str) -> Target<TargetConfig> {
    let json = format!(
        r#"{{"flavour": "openldap", "accounts_base": "ou=jit,dc=example,dc=com", "groups_base": "ou=groups,dc=example,dc=com"{more}}}"#
    );
    target(config::parse(&json).unwrap())
}

fn active_directory() -> Target<TargetConfig> {
    target(config::parse(r#"{"flavour": "active-directory", "accounts_base": "OU=jit,DC=example,DC=com"}"#).unwrap())
}

fn a_role() -> Role<RoleConfig> {
    role(config::parse(&format!(r#"{{"groups": ["{GROUP}"]}}"#)).unwrap())
}

fn server(answer: impl FnMut(&Operation) -> Answer + 'static) -> FakeLdap<'static> {
    FakeLdap::new(answer)
}

const UUID: &str = "0b0e4b2c-7a6a-103f-8a3b-6d1f0f0e6c11";
const SID: &str = "S-1-5-21-1-2-3-1105";
const CONTROLLER: &str = "dc1.example.com";

/// A directory that does what it is asked and shows what it made.
fn obliging() -> FakeLdap<'static> {
    server(shows)
}

fn shows(operation: &Operation) -> Answer {
    Ok(match (operation.verb, operation.name.as_str()) {
        ("search", "") => vec![entry(
            "",
            &[
                ("dnsHostName", &[CONTROLLER]),
                ("defaultNamingContext", &["DC=example,DC=com"]),
                ("namingContexts", &["dc=example,dc=com"]),
            ],
        )],
        ("search", name @ (ENTRY | AD_ENTRY)) => {
            vec![entry(name, &[("entryUUID", &[UUID]), ("objectGUID", &[UUID]), ("objectSid", &[SID])])]
        }
        // Below these there is nothing but what a test puts there.
        ("search", "ou=jit,dc=example,dc=com" | "OU=jit,DC=example,DC=com") if operation.has("scope base") => {
            vec![entry(&operation.name, &[])]
        }
        _ => vec![],
    })
}

/// The account of a lease as the host gives it back.
fn known(made_by: &str) -> Account {
    Account { external_id: Some(format!("{UUID};1000;{made_by}")), now: 1_060, ..account(NAME, 4_600) }
}

fn shown(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

fn create(ldap: &mut FakeLdap<'_>, target: &Target<TargetConfig>) -> Result<Issued, Error> {
    Directory::create(ldap, target, &a_role(), &account(NAME, 1_800_000_000), secret("pw"))
}

#[test]
fn an_openldap_account_comes_with_its_password_and_expiry_at_once() {
    let mut ldap = obliging();
    let issued =
        create(&mut ldap, &openldap(r#", "attributes": {"description": "{lease_id} of {workload}"}"#)).unwrap();
    assert_eq!(issued.properties, [("dn".to_owned(), ENTRY.to_owned())]);
    assert_eq!(ldap.steps(), [format!("add {ENTRY}"), format!("search {ENTRY}"), format!("modify {GROUP}")]);
    assert!(issued.external_id.unwrap().starts_with(&format!("{UUID};")), "it is known by more than its name");
    assert_eq!(
        ldap.operations[0].lines,
        [
            "objectClass: inetOrgPerson",
            "uid: v-payment-4qk2",
            "description: lease_01 of payment-service",
            "cn: v-payment-4qk2",
            "sn: v-payment-4qk2",
            "pwdEndTime: time:1800000000",
            "userPassword: secret:pw:salted-sha1",
        ]
    );
    assert_eq!(ldap.operations[2].lines, [format!("add member: {ENTRY}")]);
}

#[test]
fn an_active_directory_account_can_log_in_only_when_all_is_set() {
    let mut ldap = obliging();
    let issued = create(&mut ldap, &active_directory()).unwrap();
    let property = |name: &str| issued.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(property("user_principal_name"), Some("v-payment-4qk2@example.com"));
    assert_eq!(property("sam_account_name"), Some(NAME));
    let entry = format!("modify {AD_ENTRY}");
    let (looked, root) = (format!("search {AD_ENTRY}"), "search ".to_owned());
    let steps = [format!("add {AD_ENTRY}"), looked, root, entry.clone(), format!("modify {GROUP}"), entry];
    assert_eq!(ldap.steps(), steps);
    assert!(issued.external_id.unwrap().ends_with(&format!(";{CONTROLLER}")));
    let lines: Vec<&[String]> = ldap.operations.iter().map(|operation| &operation.lines[..]).collect();
    assert!(ldap.operations[0].has("userAccountControl: 514"));
    assert!(ldap.operations[0].has("accountExpires: filetime:1800000000"));
    assert_eq!(lines[3], ["replace unicodePwd: secret:pw:utf16le-quoted"]);
    assert_eq!(lines[5], ["replace userAccountControl: 512"]);
}

#[test]
fn a_login_of_twenty_characters_is_the_end_of_the_name() {
    assert_eq!(flavour::login("v-short"), "v-short");
    let name = "v-payment-service-abcdefghijkmnpqr";
    assert_eq!(flavour::login(name), "ice-abcdefghijkmnpqr");
    assert_eq!(flavour::login("v-payments-eu-abcdefghijkmnpqr"), "-eu-abcdefghijkmnpqr".trim_start_matches('-'));
}

#[test]
fn a_dynamic_entry_gets_its_time_to_live() {
    let mut ldap = obliging();
    create(&mut ldap, &openldap(r#", "dynamic": true"#)).unwrap();
    assert!(ldap.operations[0].has("objectClass: inetOrgPerson | dynamicObject"));
    assert_eq!(ldap.operations[2].lines, ["ttl 3600"]);
}

#[test]
fn a_group_that_refuses_leaves_no_account() {
    let mut ldap = server(|operation| match operation.verb {
        "modify" if operation.name == GROUP => Err(refused(50)),
        _ => shows(operation),
    });
    let Err(Error::Refused(text)) = create(&mut ldap, &openldap("")) else { panic!() };
    assert!(text.contains(GROUP) && text.contains("docs/drivers"), "{text}");
    assert_eq!(ldap.steps().last().unwrap(), &format!("delete {ENTRY}"));

    // What cannot be taken back is the host's to remove.
    let mut ldap = server(|operation| match operation.verb {
        "modify" if operation.name == GROUP => Err(refused(32)),
        "delete" => Err(refused(51)),
        _ => shows(operation),
    });
    let Err(Error::OutcomeUnknown(text)) = create(&mut ldap, &openldap("")) else { panic!() };
    assert!(text.contains("does not exist") && text.contains("left"), "{text}");
}

#[test]
fn an_account_that_was_there_before_is_left_alone() {
    let mut ldap = server(|_| Err(refused(68)));
    assert!(matches!(create(&mut ldap, &openldap("")), Err(Error::Conflict(_))));
    assert_eq!(ldap.operations.len(), 1);
}

#[test]
fn creation_without_an_answer_is_in_doubt_and_without_a_connection_is_not() {
    let failed = |error: LdapError| create(&mut server(move |_| Err(error.clone())), &openldap("")).unwrap_err();
    assert!(matches!(failed(LdapError::Unknown("lost".into())), Error::OutcomeUnknown(_)));
    assert!(matches!(failed(LdapError::Unavailable("down".into())), Error::Retryable(_)));
    let mut ldap = server(|operation| match operation.verb {
        "modify" => Err(LdapError::Unknown("lost".into())),
        _ => shows(operation),
    });
    assert!(matches!(create(&mut ldap, &openldap("")), Err(Error::OutcomeUnknown(_))));
    assert_eq!(ldap.steps().last().unwrap(), &format!("modify {GROUP}"));
}

#[test]
fn a_member_already_is_a_member() {
    for code in [20, 68] {
        let mut ldap =
            server(move |operation| if operation.name == GROUP { Err(refused(code)) } else { shows(operation) });
        assert!(create(&mut ldap, &openldap("")).is_ok(), "{code}");
    }
}

#[test]
fn renewal_moves_the_expiry() {
    let account = account(NAME, 1_800_000_000);
    let mut ldap = server(|_| Ok(vec![]));
    assert_eq!(Directory::renew(&mut ldap, &openldap(""), &a_role(), &account), Ok(1_800_000_000));
    assert_eq!(Directory::renew(&mut ldap, &active_directory(), &a_role(), &account), Ok(1_800_000_000));
    assert_eq!(ldap.operations[0].lines, ["replace pwdEndTime: time:1800000000"]);
    assert_eq!(ldap.operations[1].lines, ["replace accountExpires: filetime:1800000000"]);
    let gone = Directory::renew(&mut server(|_| Err(refused(32))), &openldap(""), &a_role(), &account);
    assert_eq!(gone, Err(Error::NotFound));
}

#[test]
fn rotation_is_its_first_step() {
    let (target, account) = (openldap(r#", "password": "plain""#), account(NAME, 1));
    let mut ldap = server(|_| Ok(vec![]));
    for step in [RotationStep::Stage, RotationStep::Commit, RotationStep::Discard] {
        assert_eq!(Directory::rotate(&mut ldap, &target, &account, step, Some(secret("pw"))), Ok(()));
    }
    assert_eq!(ldap.operations.len(), 1);
    assert_eq!(ldap.operations[0].lines, ["replace userPassword: secret:pw:plain"]);
    assert!(Directory::rotate(&mut ldap, &target, &account, RotationStep::Stage, None).is_err());
}

#[test]
fn an_accounts_state_is_read() {
    let inspect = |target: &Target<TargetConfig>, attributes: &'static [(&str, &[&str])]| {
        Directory::inspect(&mut server(move |_| Ok(vec![entry(ENTRY, attributes)])), target, NAME).unwrap()
    };
    let state = inspect(&openldap(""), &[("pwdEndTime", &["20270115080000Z"]), ("memberOf", &[GROUP])]);
    assert!(state.can_login);
    assert_eq!(state.expires_at, Some(1_800_000_000));
    assert_eq!(state.properties, [("member_of".to_owned(), GROUP.to_owned())]);
    assert!(!inspect(&openldap(""), &[("pwdEndTime", &["19700101000001Z"])]).can_login);
    assert!(!inspect(&openldap(""), &[("pwdAccountLockedTime", &["000001010000Z"])]).can_login);
    let state =
        inspect(&active_directory(), &[("userAccountControl", &["512"]), ("accountExpires", &["134444736000000000"])]);
    assert!(state.can_login && state.expires_at == Some(1_800_000_000));
    assert!(!inspect(&active_directory(), &[("userAccountControl", &["514"])]).can_login);
    for answer in [Ok(vec![]), Err(refused(32))] {
        let mut ldap = server(move |_| answer.clone());
        assert_eq!(Directory::inspect(&mut ldap, &openldap(""), NAME), Err(Error::NotFound));
    }
}

/// A directory with these names, that gives at most `limit` entries at once.
fn crowd(names: Vec<String>, limit: usize) -> FakeLdap<'static> {
    server(move |operation| {
        if operation.has("scope base") {
            let itself = names.iter().any(|name| operation.name.starts_with(&format!("uid={name},")));
            return if itself { Ok(vec![entry(&operation.name, &[])]) } else { Err(refused(32)) };
        }
        let start = operation.lines[0].strip_prefix("uid = ").unwrap().trim_end_matches('*').to_owned();
        let found = names.iter().filter(|name| name.starts_with(&start));
        let found: Vec<Entry> = found.map(|name| entry(name, &[("uid", &[name])])).collect();
        // More than was asked for is what "truncated" is made of.
        let more = if found.len() > limit { vec![entry("x", &[]); 501] } else { Vec::new() };
        Ok(if more.is_empty() { found } else { more })
    })
}

#[test]
fn more_names_than_a_server_gives_are_listed_all_the_same() {
    let mut names: Vec<String> = (0..300).map(|n| format!("v-{:x}-{n}", n * 7)).collect();
    names.extend(["v-1".to_owned(), "v-zz".to_owned(), "v--".to_owned()]);
    for limit in [1_000, 20, 3] {
        let mut ldap = crowd(names.clone(), limit);
        let (mut seen, mut cursor, mut calls) = (Vec::new(), None, 0);
        loop {
            let page = Directory::list_accounts(&mut ldap, &openldap(""), "v-", cursor.as_deref()).unwrap();
            assert!(page.names.is_sorted() && page.names.len() <= 500);
            seen.extend(page.names);
            calls += 1;
            assert!(calls < 1_000);
            match page.next {
                Some(next) => assert_ne!(cursor.replace(next.clone()), Some(next)),
                None => break,
            }
        }
        let mut expected = names.clone();
        expected.sort();
        assert_eq!(seen, expected, "limit {limit}");
    }
    let mut ldap = crowd(names, 1_000);
    assert!(Directory::list_accounts(&mut ldap, &openldap(""), "v-", Some("w-")).is_err());
}

#[test]
fn names_that_only_differ_in_case_are_not_ours() {
    let mut ldap =
        server(|_| Ok(vec![entry("x", &[("uid", &["V-LOUD", "v-quiet"])]), entry("y", &[("uid", &["V-B"])])]));
    let page = Directory::list_accounts(&mut ldap, &openldap(""), "v-", None).unwrap();
    assert_eq!((page.names, page.next), (vec!["v-quiet".to_owned()], None));
}

mod configuration;
mod removal;
