//! Listing what the broker had made.

use jit_plugin::{AccountPage, Error, HttpDriver as _};

use super::*;
use crate::VaultDriver;

fn exclusive(roles: &[&str]) -> Target<TargetConfig> {
    let auth = json!({"method": "jwt", "role": "jit-broker", "secret": "jwt"});
    target_of(&json!({"auth": auth, "exclusive": true, "roles": roles}))
}

fn keys(keys: &[String]) -> Reply {
    Reply::json(200, &json!({"data": {"keys": keys}}))
}

fn numbered(count: usize) -> Vec<String> {
    // Not in order: the driver sorts.
    (0..count).rev().map(|number| format!("id{number:05}")).collect()
}

fn list(http: &mut FakeHttp<'_>, target: &Target<TargetConfig>, cursor: Option<&str>) -> Result<AccountPage, Error> {
    VaultDriver::list_accounts(http, target, "v-", cursor)
}

#[test]
fn leases_of_others_are_not_listed_as_the_brokers() {
    let mut http = with_token(|sent| panic!("{}", sent.line()));
    let Err(Error::Refused(text)) = list(&mut http, &a_target(), None) else { panic!() };
    assert!(text.contains("exclusive = true"), "{text}");
}

#[test]
fn ids_are_whole_and_those_of_named_roles_only() {
    let mut http = with_token(|sent| match sent.line().as_str() {
        "GET /v1/sys/leases/lookup/database/creds/a?list=true" => {
            Ok(keys(&["x2".into(), "x1".into(), "deeper/".into()]))
        }
        "GET /v1/sys/leases/lookup/database/creds/b?list=true" => Ok(errors(404, &[])),
        line => panic!("{line}"),
    });
    let page = list(&mut http, &exclusive(&["b", "a"]), None).unwrap();
    assert_eq!(page.names, ["database/creds/a/x1", "database/creds/a/x2"]);
    assert_eq!(page.next, None);
}

#[test]
fn without_names_the_whole_mount_is_listed() {
    let mut http = with_token(|sent| match sent.line().as_str() {
        "GET /v1/sys/leases/lookup/database/creds?list=true" => Ok(keys(&["b/".into(), "a/".into()])),
        "GET /v1/sys/leases/lookup/database/creds/a?list=true" => Ok(keys(&["1".into()])),
        "GET /v1/sys/leases/lookup/database/creds/b?list=true" => Ok(keys(&["2".into()])),
        line => panic!("{line}"),
    });
    let page = list(&mut http, &exclusive(&[]), None).unwrap();
    assert_eq!(page.names, ["database/creds/a/1", "database/creds/b/2"]);
    let mut nothing = with_token(|_| Ok(errors(404, &[])));
    assert_eq!(list(&mut nothing, &exclusive(&[]), None).unwrap().names, Vec::<String>::new());
}

#[test]
fn a_long_list_comes_in_pages_without_a_gap() {
    let mut http = with_token(|sent| match sent.path.last().unwrap().as_str() {
        "a" => Ok(keys(&numbered(700))),
        _ => Ok(keys(&numbered(600))),
    });
    let (mut names, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let page = list(&mut http, &exclusive(&["a", "b"]), cursor.as_deref()).unwrap();
        assert!(page.names.len() <= 500);
        names.extend(page.names);
        pages += 1;
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!((names.len(), pages), (1_300, 3));
    names.dedup();
    assert_eq!(names.len(), 1_300);
    assert!(names.is_sorted());
}

#[test]
fn a_page_asks_for_a_bounded_number_of_roles() {
    let roles: Vec<String> = (0..120).map(|number| format!("r{number:03}")).collect();
    let names: Vec<&str> = roles.iter().map(String::as_str).collect();
    let mut http = with_token(|_| Ok(keys(&["1".into()])));
    let (mut total, mut cursor) = (0, None::<String>);
    for requests in [50, 50, 20] {
        let before = http.sent.len();
        let page = list(&mut http, &exclusive(&names), cursor.as_deref()).unwrap();
        assert_eq!(http.sent.len() - before, requests);
        total += page.names.len();
        cursor = page.next;
    }
    assert_eq!((total, cursor), (120, None));
}

/// S-M4: where nothing was listed, no lease is missing.
#[test]
fn an_answer_of_somebody_else_is_no_empty_list() {
    let page = |reply: Reply| {
        let mut http = with_token(move |sent| match sent.line().as_str() {
            "GET /v1/auth/token/lookup-self" => Ok(good(sent)),
            _ => Ok(reply.clone()),
        });
        list(&mut http, &exclusive(&["a"]), None)
    };
    for somebody in [
        Reply::text(404, "default backend - 404"),
        Reply::json(404, &json!({"message": "no route"})),
        errors(404, &["no handler for route \"sys/leases/lookup/database/creds/a\". route entry not found."]),
        Reply::text(200, "<html>please log in</html>"),
        Reply::json(200, &json!({"data": {}})),
        Reply::json(200, &json!({"data": {"keys": ["1", 2]}})),
        Reply::text(403, "<html>forbidden"),
    ] {
        let listed = page(somebody.clone());
        assert!(matches!(&listed, Err(Error::Retryable(_) | Error::Refused(_))), "{somebody:?}: {listed:?}");
    }
    assert_eq!(page(errors(404, &[])).unwrap().names, Vec::<String>::new());
}

#[test]
fn a_list_that_is_not_allowed_tells_the_line_of_the_policy() {
    let mut http = with_token(|sent| match sent.line().as_str() {
        "GET /v1/auth/token/lookup-self" => Ok(good(sent)),
        _ => Ok(errors(403, &["permission denied"])),
    });
    let Err(Error::Refused(text)) = list(&mut http, &exclusive(&["a"]), None) else { panic!() };
    let line = r#"path "sys/leases/lookup/database/creds/a/" { capabilities = ["list", "sudo"] }"#;
    assert!(text.contains(line), "{text}");
}
