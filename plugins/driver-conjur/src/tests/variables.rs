//! What is handed out, and the token that it is fetched with.

use super::*;

#[test]
fn user_name_and_password_come_in_one_request() {
    let mut http = server(|sent| Ok(good(sent)));
    let issued = create(&mut http, &a_role()).unwrap();
    assert_eq!(http.lines(), [LOGIN, BATCH]);
    assert_eq!(issued.username.as_deref(), Some("app"));
    assert_eq!(password_of(&issued), "<pw-of-conjur>");
    assert_eq!(issued.external_id.as_deref(), Some("keep/inventory/db/password"));
    assert_eq!(issued.expires_at, None);
    assert_eq!(issued.properties, [pair("revocation", "none")]);
    let [login, batch] = &http.sent[..] else { panic!() };
    assert_eq!(login.body, "<api-key>");
    assert_eq!(login.header("accept-encoding"), Some("base64"));
    assert_eq!(login.withhold, [""]);
    assert_eq!(batch.header("authorization"), Some("Token token=\"<token>\""));
    assert_eq!(batch.header("accept-encoding"), None, "values would come in lines of base64");
    assert_eq!(batch.withhold, ["/acme:variable:inventory~1db~1password"]);
    assert!(http.sent.iter().all(|sent| !sent.changes));
}

#[test]
fn what_is_no_secret_is_shown_beside_it() {
    let mut http = with_token(|sent| {
        assert!(sent.line().contains("inventory%2Fdb%2Fhost"), "{}", sent.line());
        let values = json!({
            "acme:variable:inventory/db/password": "pw-1",
            "acme:variable:inventory/db/host": "db.internal",
            "acme:variable:inventory/db/port": "5432",
        });
        Ok(Reply::json(200, &values))
    });
    let properties = json!({"host": "inventory/db/host", "port": "inventory/db/port"});
    let role = role_with(&json!({"username": null, "fixed_username": "app", "properties": properties}));
    let issued = create(&mut http, &role).unwrap();
    assert_eq!(issued.username.as_deref(), Some("app"));
    let expected = [pair("revocation", "none"), pair("host", "db.internal"), pair("port", "5432")];
    assert_eq!(issued.properties, expected);
    assert_eq!(http.sent.len(), 1);
}

#[test]
fn a_pinned_version_is_fetched_by_itself() {
    let mut http = with_token(|sent| match sent.line().as_str() {
        "GET /secrets/acme/variable/inventory%2Fdb%2Fpassword?version=3" => Ok(Reply::text(200, "pw-3")),
        "GET /secrets?variable_ids=acme%3Avariable%3Ainventory%2Fdb%2Fusername" => {
            Ok(Reply::json(200, &json!({"acme:variable:inventory/db/username": "app"})))
        }
        line => panic!("{line}"),
    });
    let issued = create(&mut http, &role_with(&json!({"version": 3}))).unwrap();
    assert_eq!(password_of(&issued), "<pw-3>");
    assert_eq!(http.sent[0].withhold, [""]);

    let mut http = with_token(|_| Ok(Reply::text(200, "pw-3")));
    let role = role_with(&json!({"version": 3, "username": null, "fixed_username": "app"}));
    assert_eq!(create(&mut http, &role).unwrap().username.as_deref(), Some("app"));
    assert_eq!(http.sent.len(), 1);
}

#[test]
fn an_answer_without_a_value_is_not_handed_out() {
    for body in
        [json!({"acme:variable:inventory/db/username": "app"}), json!({"acme:variable:inventory/db/password": "p"})]
    {
        let mut http = with_token(move |_| Ok(Reply::json(200, &body)));
        assert!(matches!(create(&mut http, &a_role()), Err(Error::Refused(_))));
    }
    for body in ["[]", "<html>"] {
        let mut http = with_token(move |_| Ok(Reply::text(200, body)));
        assert!(create(&mut http, &a_role()).is_err());
    }
}

#[test]
fn a_token_is_replaced_before_conjur_ends_it() {
    let mut http = server(|sent| Ok(good(sent)));
    create(&mut http, &a_role()).unwrap();
    assert_eq!(http.kept_now(&key()), Some(("token", 470)));
    http.now += 410;
    create(&mut http, &a_role()).unwrap();
    assert_eq!(http.lines(), [LOGIN, BATCH, BATCH]);
    http.now += 1;
    create(&mut http, &a_role()).unwrap();
    assert_eq!(http.lines()[3..], [LOGIN, BATCH]);
}

#[test]
fn a_token_that_is_not_taken_is_replaced_once() {
    let mut http = server(|sent| match sent.header("authorization") {
        Some("Token token=\"<old>\"") => Ok(Reply::text(401, "")),
        _ => Ok(good(sent)),
    })
    .with_kept(&key(), "old", 400);
    assert!(create(&mut http, &a_role()).is_ok());
    assert_eq!(http.lines(), [BATCH, LOGIN, BATCH]);
    assert_eq!(http.kept_now(&key()), Some(("token", 470)));

    let mut http = server(|sent| match sent.line().as_str() {
        LOGIN => Ok(good(sent)),
        _ => Ok(Reply::text(401, "")),
    });
    assert!(matches!(create(&mut http, &a_role()), Err(Error::Refused(_))));
    assert_eq!(http.lines(), [LOGIN, BATCH]);
}

#[test]
fn of_two_logins_at_once_one_token_holds() {
    let mut http = server(|sent| Ok(good(sent)));
    http.meanwhile_keeps(&key(), "of-another-call", 465);
    create(&mut http, &a_role()).unwrap();
    assert_eq!(http.sent[1].header("authorization"), Some("Token token=\"<of-another-call>\""));
}

#[test]
fn a_jwt_logs_in_with_or_without_a_name() {
    for (login, path) in [
        (json!(null), "POST /authn-jwt/kubernetes/acme/authenticate"),
        (json!("host/data/broker"), "POST /authn-jwt/kubernetes/acme/host%2Fdata%2Fbroker/authenticate"),
    ] {
        let auth = json!({"method": "jwt", "service": "kubernetes", "login": login, "secret": "jwt"});
        let target = target_of(&json!({"account": "acme", "auth": auth}));
        let mut http = FakeHttp::new(move |sent| match sent.line().as_str() {
            line if line == path => Ok(Reply::text(200, "token")),
            _ => Ok(good(sent)),
        })
        .with_credential("jwt", "jwt-1");
        ConjurDriver::create(&mut http, &target, &a_role(), &an_account(), secret("pw")).unwrap();
        assert_eq!(http.sent[0].body, "jwt=<jwt-1>");
        assert_eq!(http.sent[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    }
}

#[test]
fn a_lease_is_as_long_as_the_broker_says() {
    let mut http = server(|sent| panic!("{}", sent.line()));
    let renewed = ConjurDriver::renew(&mut http, &a_target(), &a_role(), &an_account());
    assert_eq!(renewed, Ok(1_800_003_600));
    assert!(ConjurDriver::list_accounts(&mut http, &a_target(), "v-", None).is_err());
    let said = ConjurDriver::describe();
    assert!(said.features.contains(&"standing-accounts".to_owned()), "{said:?}");
    assert!(said.properties.iter().any(|(name, value)| name == "revocation" && value.starts_with("none")));
}

#[test]
fn a_variable_is_looked_at_by_a_leases_external_id() {
    let mut http = with_token(|sent| Ok(good(sent)));
    let state = ConjurDriver::inspect(&mut http, &a_target(), "keep/inventory/db/password").unwrap();
    assert!(state.can_login);
    assert_eq!(state.properties, [pair("version", "1")]);
    let mut empty = with_token(|_| Ok(resource(&[])));
    let state = ConjurDriver::inspect(&mut empty, &a_target(), "rotate/inventory/db/password").unwrap();
    assert!(!state.can_login);
    let mut http = with_token(|sent| panic!("{}", sent.line()));
    assert!(matches!(ConjurDriver::inspect(&mut http, &a_target(), "app"), Err(Error::Other(_))));
}
