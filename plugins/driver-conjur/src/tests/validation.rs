//! What is told before a target is used.

use super::*;

/// A server that denies what the line contains.
fn denying(denied: &'static str, versions: Reply) -> FakeHttp<'static> {
    with_token(move |sent| match sent.line().as_str() {
        line if !denied.is_empty() && line.contains(denied) => Ok(Reply::text(404, "")),
        SHOW => Ok(versions.clone()),
        _ => Ok(good(sent)),
    })
}

fn problems(http: &mut FakeHttp<'_>, target: &Target<TargetConfig>, role: Role<RoleConfig>) -> Vec<(String, String)> {
    match ConjurDriver::validate(http, target, &[role]) {
        Ok(()) => Vec::new(),
        Err(Error::InvalidConfig(problems)) => problems.into_iter().map(|p| (p.path, p.message)).collect(),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_good_target_is_taken() {
    let mut http = denying("", resource(&[1]));
    assert_eq!(problems(&mut http, &a_target(), a_role()), []);
    let checked = "GET /resources/acme/variable/inventory%2Fdb%2Fpassword?check=true&privilege=execute";
    assert_eq!(http.lines()[0], checked);
    let rotating = role_with(&json!({"rotate_before": true, "rotate_on_revoke": true}));
    assert_eq!(problems(&mut denying("", resource(&[1])), &a_target(), rotating), []);
}

#[test]
fn each_missing_privilege_is_told_with_its_place() {
    let found = problems(&mut denying("username?check", resource(&[1])), &a_target(), a_role());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, "roles.app_read_only.username");
    assert!(found[0].1.contains("inventory/db/username") && found[0].1.contains("!permit"), "{}", found[0].1);
    let rotating = || role_with(&json!({"rotate_on_revoke": true}));
    let found = problems(&mut denying("privilege=update", resource(&[1])), &a_target(), rotating());
    assert!(found.len() == 1 && found[0].1.contains("`update`"), "{found:?}");
    let without = Reply::json(200, &json!({"annotations": [], "secrets": [{"version": 1}]}));
    let found = problems(&mut denying("", without), &a_target(), rotating());
    assert!(found.len() == 1 && found[0].1.contains("rotation/rotator"), "{found:?}");
}

#[test]
fn a_server_that_is_away_is_not_a_mistake_in_the_configuration() {
    let mut http = with_token(|_| Err(HttpError::Unavailable("down".into())));
    let found = ConjurDriver::validate(&mut http, &a_target(), &[a_role()]);
    assert!(matches!(found, Err(Error::Retryable(_))), "{found:?}");
}

#[test]
fn mistakes_in_a_target_are_told_before_anything_is_sent() {
    let auth = |auth: Value| json!({"account": "acme", "auth": auth});
    for (config, path) in [
        (json!({"account": "", "auth": {"method": "api-key", "login": "host/b", "secret": "s"}}), "account"),
        (json!({"account": "a:b", "auth": {"method": "api-key", "login": "host/b", "secret": "s"}}), "account"),
        (auth(json!({"method": "api-key", "secret": "s"})), "auth.login"),
        (auth(json!({"method": "api-key", "login": "host/b", "service": "x", "secret": "s"})), "auth.service"),
        (auth(json!({"method": "jwt", "secret": "s"})), "auth.service"),
        (auth(json!({"method": "jwt", "service": "s", "login": "a\nb", "secret": "s"})), "auth.login"),
        (auth(json!({"method": "jwt", "service": "s", "secret": ""})), "auth.secret"),
    ] {
        let mut http = FakeHttp::new(|sent| panic!("{}", sent.line()));
        let found = problems(&mut http, &target_of(&config), a_role());
        assert_eq!(found.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), [path], "{config}");
    }
}

#[test]
fn mistakes_in_a_role_are_told_before_anything_is_sent() {
    for (more, path) in [
        (json!({"variable": ""}), "variable"),
        (json!({"variable": "a,b"}), "variable"),
        (json!({"username": null}), "username"),
        (json!({"fixed_username": "app"}), "fixed_username"),
        (json!({"username": "inventory/db/password"}), "username"),
        (json!({"properties": {"host": "inventory/db/username"}}), "properties.host"),
        (json!({"properties": {"revocation": "inventory/db/host"}}), "properties"),
        (json!({"version": 0}), "version"),
        (json!({"version": 2, "rotate_before": true}), "version"),
    ] {
        let mut http = FakeHttp::new(|sent| panic!("{}", sent.line()));
        let found = problems(&mut http, &a_target(), role_with(&more));
        let path = format!("roles.app_read_only.{path}");
        assert_eq!(found.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), [path.as_str()], "{more}");
    }
}
