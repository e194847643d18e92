//! What is told before a target is used.

use jit_plugin::{Error, HttpDriver as _};

use super::*;
use crate::VaultDriver;

/// A server whose token may do all that `denied` does not name.
fn allowing(denied: &'static [&'static str]) -> FakeHttp<'static> {
    with_token(move |sent| match sent.line().as_str() {
        "POST /v1/sys/capabilities-self" => {
            let held = |path: &str| {
                if denied.contains(&path) { json!(["deny"]) } else { json!(["read", "update", "list", "sudo"]) }
            };
            let paths = sent.json()["paths"].clone();
            let paths = paths.as_array().unwrap().iter().map(|path| path.as_str().unwrap());
            let data: serde_json::Map<String, Value> = paths.map(|path| (path.to_owned(), held(path))).collect();
            Ok(Reply::json(200, &json!({ "data": data })))
        }
        "GET /v1/database/roles/app_read_only" => {
            Ok(Reply::json(200, &json!({"data": {"credential_type": "password", "default_ttl": 3600}})))
        }
        _ => Ok(good(sent)),
    })
}

fn problems(http: &mut FakeHttp<'_>, target: &Target<TargetConfig>) -> Vec<(String, String)> {
    match VaultDriver::validate(http, target, &[a_role()]) {
        Ok(()) => Vec::new(),
        Err(Error::InvalidConfig(problems)) => problems.into_iter().map(|p| (p.path, p.message)).collect(),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_good_target_is_taken() {
    assert_eq!(problems(&mut allowing(&[]), &a_target()), []);
    let root = |sent: &Sent| match sent.line().as_str() {
        "POST /v1/sys/capabilities-self" => {
            let data: serde_json::Map<String, Value> = sent.json()["paths"]
                .as_array()
                .unwrap()
                .iter()
                .map(|path| (path.as_str().unwrap().to_owned(), json!(["root"])))
                .collect();
            Ok(Reply::json(200, &json!({ "data": data })))
        }
        _ => Ok(good(sent)),
    };
    let mut http = with_token(move |sent| {
        if sent.path.contains(&"roles".to_owned()) {
            return Ok(errors(403, &["permission denied"]));
        }
        root(sent)
    });
    assert_eq!(problems(&mut http, &a_target()), []);
}

#[test]
fn each_missing_line_of_the_policy_is_told() {
    let denied = &["database/creds/app_read_only", "sys/leases/revoke", "auth/token/renew-self"];
    let found = problems(&mut allowing(denied), &a_target());
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["roles.app_read_only.role", "", "auth"]);
    assert!(
        found[0].1.contains(r#"path "database/creds/app_read_only" { capabilities = ["read"] }"#),
        "{}",
        found[0].1
    );
    assert!(found[1].1.contains(r#"path "sys/leases/revoke" { capabilities = ["update"] }"#), "{}", found[1].1);
}

#[test]
fn listing_needs_a_line_only_where_leases_are_listed() {
    const LISTED: &str = "sys/leases/lookup/database/creds/app_read_only/";
    assert_eq!(problems(&mut allowing(&[LISTED]), &a_target()), []);
    let auth = json!({"method": "jwt", "role": "jit-broker", "secret": "jwt"});
    for roles in [json!([]), json!(["app_read_only"])] {
        let exclusive = target_of(&json!({"auth": auth, "exclusive": true, "roles": roles}));
        let found = problems(&mut allowing(&[LISTED]), &exclusive);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "exclusive");
        assert!(found[0].1.contains(r#"capabilities = ["list", "sudo"]"#), "{}", found[0].1);
    }
}

#[test]
fn a_role_that_vault_does_not_have_or_that_gives_keys_is_told() {
    let answered = |reply: Reply| {
        let mut http = with_token(move |sent| match sent.line().as_str() {
            "POST /v1/sys/capabilities-self" => Ok(Reply::json(
                200,
                &json!({"data": sent.json()["paths"].as_array().unwrap().iter().map(|path| {
                    (path.as_str().unwrap().to_owned(), json!(["root"]))
                }).collect::<serde_json::Map<_, _>>()}),
            )),
            "GET /v1/database/roles/app_read_only" => Ok(reply.clone()),
            _ => Ok(good(sent)),
        });
        problems(&mut http, &a_target())
    };
    let missing = answered(errors(404, &[]));
    assert_eq!(missing[0].0, "roles.app_read_only.role");
    assert!(missing[0].1.contains("no role `app_read_only`"), "{}", missing[0].1);
    let keys = answered(Reply::json(200, &json!({"data": {"credential_type": "rsa_private_key"}})));
    assert!(keys[0].1.contains("rsa_private_key"), "{}", keys[0].1);
    // Another engine has its roles elsewhere; nothing follows from that.
    assert_eq!(answered(errors(404, &["1 error occurred:\n\t* unsupported path\n\n"])), []);
}

#[test]
fn a_server_that_does_not_tell_permissions_is_taken() {
    let mut http = with_token(|sent| match sent.line().as_str() {
        "POST /v1/sys/capabilities-self" => Ok(errors(403, &["permission denied"])),
        _ => Ok(good(sent)),
    });
    assert_eq!(problems(&mut http, &a_target()), []);
}

#[test]
fn a_server_that_is_away_is_not_a_mistake_in_the_configuration() {
    let mut http = with_token(|_| Err(HttpError::Unavailable("down".into())));
    let found = VaultDriver::validate(&mut http, &a_target(), &[a_role()]);
    assert!(matches!(found, Err(Error::Retryable(_))), "{found:?}");
}

#[test]
fn mistakes_are_told_with_their_place_before_anything_is_sent() {
    let auth = json!({"method": "jwt", "role": "r", "secret": "s"});
    for (config, path) in [
        (json!({"auth": {"method": "jwt", "secret": "s"}}), "auth.role"),
        (json!({"auth": {"method": "jwt", "role": "r", "role_id": "x", "secret": "s"}}), "auth.role_id"),
        (json!({"auth": {"method": "approle", "secret": "s"}}), "auth.role_id"),
        (json!({"auth": {"method": "token", "role": "r", "secret": "s"}}), "auth.role"),
        (json!({"auth": {"method": "token", "mount": "m", "secret": "s"}}), "auth.mount"),
        (json!({"auth": {"method": "jwt", "role": "r", "secret": ""}}), "auth.secret"),
        (json!({"auth": {"method": "jwt", "role": "r", "secret": "s", "mount": "/jwt"}}), "auth.mount"),
        (json!({"auth": auth, "mount": "a/../b"}), "mount"),
        (json!({"auth": auth, "namespace": "a//b"}), "namespace"),
        (json!({"auth": auth, "roles": ["a"]}), "roles"),
        (json!({"auth": auth, "exclusive": true, "roles": ["a/b"]}), "roles[0]"),
        (json!({"auth": auth, "exclusive": true, "roles": vec!["r"; 257]}), "roles"),
    ] {
        let mut http = FakeHttp::new(|sent| panic!("{}", sent.line()));
        let found = problems(&mut http, &target_of(&config));
        assert_eq!(found.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), [path], "{config}");
    }
    let role: Role<RoleConfig> = role(config::parse(r#"{"role": "../sys/raw"}"#).unwrap());
    let mut http = FakeHttp::new(|sent| panic!("{}", sent.line()));
    let found = VaultDriver::validate(&mut http, &a_target(), &[role]);
    assert!(matches!(found, Err(Error::InvalidConfig(_))), "{found:?}");
}
