//! What a removal sends, in which order, and what counts as the end of an account.
use super::*;

const MOVED: &str = "uid=elsewhere,ou=people,dc=example,dc=com";
const AD_GROUP: &str = "CN=app_read_only,OU=Groups,DC=example,DC=com";

fn revoke(ldap: &mut FakeLdap<'_>, target: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
    Directory::revoke(ldap, target, account)
}

/// The steps that change something.
fn changes(ldap: &FakeLdap<'_>) -> Vec<String> {
    ldap.steps().into_iter().filter(|step| !step.starts_with("search")).collect()
}

#[test]
fn an_account_is_locked_then_leaves_its_groups_then_goes() {
    let mut ldap = server(|operation| match (operation.verb, operation.name.as_str()) {
        ("search", "ou=groups,dc=example,dc=com") => Ok(vec![entry(GROUP, &[])]),
        _ => shows(operation),
    });
    assert_eq!(revoke(&mut ldap, &openldap(""), &known("")), Ok(()));
    let steps = [
        format!("modify {ENTRY}"),
        format!("search {ENTRY}"),
        "search ou=groups,dc=example,dc=com".to_owned(),
        format!("modify {GROUP}"),
        format!("delete {ENTRY}"),
    ];
    assert_eq!(ldap.steps(), steps);
    assert_eq!(
        shown(&ldap.operations[0].lines),
        ["replace userPassword: ", "replace pwdEndTime: time:1", "replace pwdAccountLockedTime: 000001010000Z"]
    );
    assert!(ldap.operations[2].has(&format!("member = {ENTRY}")));
    assert_eq!(ldap.operations[3].lines, [format!("delete member: {ENTRY}")]);

    let mut ldap = server(|operation| {
        let mut answer = shows(operation)?;
        if operation.name == AD_ENTRY && operation.verb == "search" {
            answer[0].attributes.push(("memberOf".into(), vec![AD_GROUP.into()]));
        }
        Ok(answer)
    });
    assert_eq!(revoke(&mut ldap, &active_directory(), &known(CONTROLLER)), Ok(()));
    let steps = [format!("modify {AD_ENTRY}"), format!("modify {AD_GROUP}"), format!("delete {AD_ENTRY}")];
    assert_eq!(changes(&ldap), steps);
    assert_eq!(ldap.operations[0].lines, ["replace userAccountControl: 514"]);
    assert!(ldap.operations.iter().any(|operation| operation.has(&format!("mS-DS-CreatorSID = {SID}"))));
}

#[test]
fn without_ppolicy_the_password_itself_is_taken_away() {
    let mut ldap = obliging();
    assert_eq!(revoke(&mut ldap, &openldap(r#", "pwd_end_time": false"#), &known("")), Ok(()));
    assert_eq!(shown(&ldap.operations[0].lines), ["replace userPassword: "]);
}

/// S-M6: what the server does not know of the lock keeps it from none of the rest.
#[test]
fn each_part_of_a_lock_is_tried_by_itself() {
    let mut ldap = server(|operation| match operation.verb {
        "modify" if operation.has("replace pwdAccountLockedTime") => Err(refused(17)),
        "modify" if operation.has("replace pwdEndTime") => Err(refused(17)),
        "delete" => Err(refused(66)),
        _ => shows(operation),
    });
    let Err(Error::Dependents(left)) = revoke(&mut ldap, &openldap(""), &known("")) else { panic!() };
    assert!(!left.iter().any(|line| line.contains("can still log in")), "{left:?}");
    let tried: Vec<usize> = ldap.operations.iter().filter(|o| o.verb == "modify").map(|o| o.lines.len()).collect();
    assert_eq!(tried, [3, 1, 1, 1]);

    let mut ldap = server(|operation| match operation.verb {
        "modify" => Err(refused(50)),
        "delete" => Err(refused(66)),
        _ => shows(operation),
    });
    let Err(Error::Dependents(left)) = revoke(&mut ldap, &openldap(""), &known("")) else { panic!() };
    assert!(left[0].contains("can still log in"), "{left:?}");
}

#[test]
fn what_is_gone_is_removed() {
    let gone = |operation: &Operation| match (operation.verb, operation.name.as_str()) {
        ("modify" | "delete", ENTRY | AD_ENTRY) => Err(refused(32)),
        ("search", ENTRY | AD_ENTRY) => Err(refused(32)),
        _ => shows(operation),
    };
    assert_eq!(revoke(&mut server(gone), &openldap(""), &known("")), Ok(()));
    assert_eq!(revoke(&mut server(gone), &active_directory(), &known(CONTROLLER)), Ok(()));
    // A creation without an answer has left nothing but its name.
    assert_eq!(revoke(&mut server(gone), &openldap(""), &account(NAME, 1)), Ok(()));
    // A member that is not there any more is no reason to stop.
    let mut ldap = server(|operation| match (operation.verb, operation.name.as_str()) {
        ("search", "ou=groups,dc=example,dc=com") => Ok(vec![entry(GROUP, &[])]),
        ("modify", GROUP) => Err(refused(16)),
        _ => shows(operation),
    });
    assert_eq!(revoke(&mut ldap, &openldap(""), &known("")), Ok(()));
}

/// S-M5: "no such object" is proof only below a base that is seen, and on a server that has to know.
#[test]
fn what_cannot_be_seen_is_not_gone() {
    let mut hidden = server(|_| Err(refused(32)));
    let Err(Error::Refused(text)) = revoke(&mut hidden, &openldap(""), &known("")) else { panic!() };
    assert!(text.contains("ou=jit,dc=example,dc=com is not there, or hidden"), "{text}");

    let another = |operation: &Operation| match (operation.verb, operation.name.as_str()) {
        ("modify" | "delete" | "search", AD_ENTRY) => Err(refused(32)),
        _ => shows(operation),
    };
    let account = known("dc2.example.com");
    let Err(Error::Refused(text)) = revoke(&mut server(another), &active_directory(), &account) else { panic!() };
    assert!(text.contains("dc1.example.com does not know") && text.contains("dc2.example.com"), "{text}");
    // By then it is known everywhere, or has ended by itself.
    for now in [account.expires_at, 1_000 + 6 * 3_600] {
        let later = Account { now, ..account.clone() };
        assert_eq!(revoke(&mut server(another), &active_directory(), &later), Ok(()), "{now}");
    }
}

/// S-M5: an account that was moved or renamed is removed where it is.
#[test]
fn an_account_that_was_moved_is_found_by_what_it_is() {
    let moved = |operation: &Operation| match (operation.verb, operation.name.as_str()) {
        ("modify" | "delete" | "search", ENTRY) => Err(refused(32)),
        ("search", "dc=example,dc=com") if operation.has(&format!("entryUUID = {UUID}")) => {
            Ok(vec![entry(MOVED, &[("entryUUID", &[UUID])])])
        }
        _ => shows(operation),
    };
    let mut ldap = server(moved);
    assert_eq!(revoke(&mut ldap, &openldap(""), &known("")), Ok(()));
    assert_eq!(changes(&ldap), [format!("modify {ENTRY}"), format!("modify {MOVED}"), format!("delete {MOVED}")]);
    let member: Vec<bool> = [MOVED, ENTRY]
        .map(|name| ldap.operations.iter().any(|operation| operation.has(&format!("member = {name}"))))
        .into();
    assert_eq!(member, [true, true]);

    // Where the broker has no right, it says where the account is.
    let mut ldap = server(move |operation| match (operation.verb, operation.name.as_str()) {
        ("modify" | "delete", MOVED) => Err(refused(50)),
        _ => moved(operation),
    });
    let Err(Error::Dependents(left)) = revoke(&mut ldap, &openldap(""), &known("")) else { panic!() };
    assert!(left[0].contains(MOVED) && left[1].contains("can still log in"), "{left:?}");
}

#[test]
fn another_entry_of_the_accounts_name_does_not_stand_for_it() {
    let mut ldap = server(|operation| match (operation.verb, operation.name.as_str()) {
        ("search", ENTRY) => Ok(vec![entry(ENTRY, &[("entryUUID", &["another"])])]),
        ("search", "dc=example,dc=com") => Ok(vec![entry(MOVED, &[("entryUUID", &[UUID])])]),
        _ => shows(operation),
    });
    assert_eq!(revoke(&mut ldap, &openldap(""), &known("")), Ok(()));
    let deleted: Vec<String> = changes(&ldap).into_iter().filter(|step| step.starts_with("delete")).collect();
    assert_eq!(deleted, [format!("delete {MOVED}"), format!("delete {ENTRY}")]);
}

/// C1 for a directory: a referral in the account's place is neither followed nor in the way.
#[test]
fn a_referral_in_an_accounts_place_hides_nothing() {
    let mut ldap = server(|operation| match (operation.verb, operation.name.as_str()) {
        ("modify" | "delete" | "search", ENTRY) => Err(refused(10)),
        ("search", "dc=example,dc=com") => Ok(vec![entry(MOVED, &[("entryUUID", &[UUID])])]),
        _ => shows(operation),
    });
    let Err(Error::Refused(text)) = revoke(&mut ldap, &openldap(""), &known("")) else { panic!() };
    assert!(text.contains("LDAP result 10"), "{text}");
    assert!(ldap.steps().contains(&format!("delete {MOVED}")), "the account itself is gone");
}

/// S-H4: an account that has made computer accounts stays, locked and without groups, until somebody has
/// seen to them.
#[test]
fn accounts_that_an_account_made_are_told_before_it_goes() {
    let mut ldap = server(|operation| match (operation.verb, operation.name.as_str()) {
        ("search", "DC=example,DC=com") if operation.has("mS-DS-CreatorSID") => {
            Ok(vec![entry("CN=FOOT,CN=Computers,DC=example,DC=com", &[])])
        }
        _ => shows(operation),
    });
    let revoked = revoke(&mut ldap, &active_directory(), &known(CONTROLLER));
    let Err(Error::Dependents(left)) = revoked else { panic!("{revoked:?}") };
    assert!(left[0].contains("CN=FOOT,CN=Computers") && left[0].contains("outlives it"), "{left:?}");
    assert_eq!(changes(&ldap), [format!("modify {AD_ENTRY}")]);
    assert_eq!(ldap.operations[0].lines, ["replace userAccountControl: 514"]);
}

#[test]
fn an_account_goes_even_when_its_lock_or_its_group_refuses() {
    for code in [65, 50, 51] {
        let mut ldap = server(move |operation| match (operation.verb, operation.name.as_str()) {
            ("search", "ou=groups,dc=example,dc=com") => Ok(vec![entry(GROUP, &[])]),
            ("modify", ENTRY) => Err(refused(17)),
            ("modify", GROUP) => Err(refused(code)),
            _ => shows(operation),
        });
        let Err(Error::Dependents(left)) = revoke(&mut ldap, &openldap(""), &known("")) else { panic!() };
        assert!(left[0].contains(GROUP), "{left:?}");
        assert_eq!(left[0].contains("add a member that stays"), code == 65, "{left:?}");
        assert!(ldap.steps().contains(&format!("delete {ENTRY}")));
    }
}

#[test]
fn what_stands_below_an_account_is_named() {
    let child = format!("cn=device,{ENTRY}");
    let mut ldap = server(move |operation| match operation.verb {
        "delete" => Err(refused(66)),
        "search" if operation.name == ENTRY && operation.has("scope one") => Ok(vec![entry(&child, &[])]),
        _ => shows(operation),
    });
    let revoked = revoke(&mut ldap, &openldap(""), &known(""));
    assert_eq!(revoked, Err(Error::Dependents(vec![format!("cn=device,{ENTRY}")])));
}

#[test]
fn a_lock_without_an_answer_stops_the_removal_until_it_is_known() {
    let mut ldap = server(|_| Err(LdapError::Unknown("lost".into())));
    assert!(matches!(revoke(&mut ldap, &openldap(""), &known("")), Err(Error::OutcomeUnknown(_))));
    assert_eq!(ldap.operations.len(), 1);
}
