//! The driver's requests as text, in `fixtures/`. No Conjur is at hand where this is tested: whoever
//! has one can compare. The strict server of the end to end suite is held against the same files.
//!
//! `JIT_WRITE_FIXTURES=1` writes them anew.

use super::*;

/// Compares, or writes.
fn compare(name: &str, sent: &Sent) {
    let path = format!("{}/fixtures/{name}.http", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("JIT_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, sent.text()).unwrap();
    }
    assert_eq!(sent.text(), std::fs::read_to_string(&path).unwrap(), "{name}.http");
}

#[test]
fn each_request_is_what_its_fixture_says() {
    let mut http = server(|sent| Ok(good(sent)));
    create(&mut http, &a_role()).unwrap();
    compare("login-api-key", &http.sent[0]);
    compare("fetch-several", &http.sent[1]);

    let auth = json!({"method": "jwt", "service": "kubernetes", "secret": "jwt"});
    let target = target_of(&json!({"account": "acme", "auth": auth}));
    let mut http = FakeHttp::new(|_| Ok(Reply::text(200, "token"))).with_credential("jwt", "jwt");
    assert!(ConjurDriver::create(&mut http, &target, &a_role(), &an_account(), secret("pw")).is_err());
    compare("login-jwt", &http.sent[0]);

    let mut http = with_token(|sent| match sent.query.first() {
        Some((name, _)) if name == "version" => Ok(Reply::text(200, "pw-3")),
        _ => Ok(Reply::json(200, &json!({"acme:variable:inventory/db/username": "app"}))),
    });
    create(&mut http, &role_with(&json!({"version": 3}))).unwrap();
    compare("fetch-version", &http.sent[0]);

    let mut http = with_token(|sent| Ok(good(sent)));
    let rotating = role_with(&json!({"rotate_on_revoke": true}));
    ConjurDriver::validate(&mut http, &a_target(), &[rotating]).unwrap();
    compare("check-execute", &http.sent[0]);
    compare("check-update", &http.sent[2]);
    compare("show-variable", &http.sent[3]);
    let account = Account { external_id: Some("rotate/inventory/db/password".into()), ..an_account() };
    ConjurDriver::revoke(&mut http, &a_target(), &account).unwrap();
    compare("rotate", &http.sent[4]);
}
