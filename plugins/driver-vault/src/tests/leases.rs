//! Making, prolonging, giving up and looking at leases.

use std::cell::Cell;
use std::rc::Rc;

use jit_plugin::testing::secret;
use jit_plugin::{Error, HttpDriver as _, Issued};

use super::*;
use crate::VaultDriver;

fn create(http: &mut FakeHttp<'_>) -> Result<Issued, Error> {
    VaultDriver::create(http, &a_target(), &a_role(), &an_account(), secret("the host's, not used"))
}

/// The name under which a test knows a secret.
fn shown(issued: &Issued) -> String {
    // Placed into a request, a handle shows its name; there is no other way to see it.
    let secret = issued.secret.as_ref().unwrap();
    let mut http = FakeHttp::new(|_| Ok(Reply::text(204, "")));
    let body = jit_plugin::http::Body::Text(vec![jit_plugin::http::Part::Secret(secret.borrow())]);
    let request = jit_plugin::http::Request::new(jit_plugin::http::Method::Post, ["x"]).body(body);
    jit_plugin::Http::send(&mut http, &request).unwrap();
    http.sent[0].body.clone()
}

#[test]
fn an_account_is_a_lease_that_lasts_as_long_as_was_asked() {
    let mut http = server(|sent| Ok(good(sent)));
    let issued = create(&mut http).unwrap();
    assert_eq!(issued.username.as_deref(), Some("v-jwt-app-1"));
    assert_eq!(shown(&issued), "<pw-of-vault>");
    assert_eq!(issued.external_id.as_deref(), Some(LEASE));
    assert_eq!(issued.expires_at, None);
    let lines = ["POST /v1/auth/jwt/login", "GET /v1/database/creds/app_read_only", "POST /v1/sys/leases/renew"];
    assert_eq!(http.lines(), lines);
    assert_eq!(http.sent[0].json(), json!({"role": "jit-broker", "jwt": "<jwt-1>"}));
    assert_eq!(http.sent[2].json(), json!({"lease_id": LEASE, "increment": 3600}));
    let changes: Vec<bool> = http.sent.iter().map(|sent| sent.changes).collect();
    assert_eq!(changes, [false, true, true]);
    for sent in &http.sent {
        assert_eq!(sent.header("x-vault-request"), Some("true"));
    }
    assert_eq!(token_of(&http.sent[0]), "none");
    assert_eq!(token_of(&http.sent[1]), "<hvs-new>");
    assert_eq!(http.sent[1].withhold, ["/data/password"]);
}

#[test]
fn a_lease_of_the_right_length_takes_one_request() {
    let mut http = with_token(|sent| match sent.method {
        "GET" => Ok(made(3_600, true)),
        _ => Ok(good(sent)),
    });
    assert!(create(&mut http).is_ok());
    assert_eq!(http.lines(), ["GET /v1/database/creds/app_read_only"]);
}

#[test]
fn a_cap_of_the_role_is_told() {
    let mut http = with_token(|sent| match sent.line().as_str() {
        "POST /v1/sys/leases/renew" => Ok(lasting(300)),
        _ => Ok(made(60, true)),
    });
    assert_eq!(create(&mut http).unwrap().expires_at, Some(1_800_000_300));
    let mut http = with_token(|_| Ok(made(60, false)));
    assert_eq!(create(&mut http).unwrap().expires_at, Some(1_800_000_060));
    assert_eq!(http.sent.len(), 1);
    // Longer than asked and not to be shortened: the broker ends it, Vault's own end is later.
    let mut http = with_token(|_| Ok(made(7_200, false)));
    assert_eq!(create(&mut http).unwrap().expires_at, None);
}

#[test]
fn namespace_mount_and_forwarding_are_the_targets() {
    let target = target_of(&json!({
        "auth": {"method": "kubernetes", "mount": "kubernetes/prod", "role": "r", "secret": "jwt"},
        "mount": "teams/a/database", "namespace": "org/a", "forward_to_active_node": true,
    }));
    let mut http = server(|sent| match sent.line().as_str() {
        "POST /v1/auth/kubernetes/prod/login" => Ok(login("hvs-new")),
        "GET /v1/teams/a/database/creds/app_read_only" => Ok(made(3_600, true)),
        line => panic!("{line}"),
    });
    VaultDriver::create(&mut http, &target, &a_role(), &an_account(), secret("pw")).unwrap();
    for sent in &http.sent {
        assert_eq!(sent.header("x-vault-namespace"), Some("org/a"));
        assert_eq!(sent.header("x-vault-forward"), Some("active-node"));
    }
    assert_eq!(http.keys(), [crate::client::key(&target.config)]);
    assert_ne!(http.keys(), [KEY]);
}

#[test]
fn what_cannot_be_shortened_is_taken_back() {
    for (answer, retryable) in [(errors(400, &["lease is not renewable"]), false), (errors(503, &["sealed"]), true)] {
        let mut http = with_token(move |sent| match sent.line().as_str() {
            "POST /v1/sys/leases/renew" => Ok(answer.clone()),
            _ => Ok(good(sent)),
        });
        let error = create(&mut http).unwrap_err();
        assert_eq!(matches!(error, Error::Retryable(_)), retryable, "{error:?}");
        assert_eq!(matches!(error, Error::Refused(_)), !retryable, "{error:?}");
        assert_eq!(http.lines().last().unwrap(), "POST /v1/sys/leases/revoke");
        assert_eq!(http.sent.last().unwrap().json(), json!({"lease_id": LEASE, "sync": true}));
    }
}

#[test]
fn an_answer_that_is_lost_after_something_was_made_is_made_good() {
    let mut http = with_token(|sent| match sent.line().as_str() {
        "POST /v1/sys/leases/renew" => Err(HttpError::Unknown("cut".into())),
        _ => Ok(good(sent)),
    });
    // It is known what was made, and it is gone: no doubt is left.
    assert!(matches!(create(&mut http), Err(Error::Retryable(_))));
    let mut http = with_token(|sent| match sent.method {
        "GET" => Ok(good(sent)),
        _ => Err(HttpError::Unknown("cut".into())),
    });
    let Err(Error::OutcomeUnknown(text)) = create(&mut http) else { panic!() };
    assert!(text.contains(LEASE), "{text}");
}

#[test]
fn a_role_that_gives_no_password_is_refused_and_leaves_nothing() {
    let mut http = with_token(|sent| match sent.method {
        "GET" => {
            let data = json!({"username": "v-1", "rsa_private_key": "key-1"});
            Ok(Reply::json(200, &json!({"lease_id": LEASE, "lease_duration": 3600, "data": data})))
        }
        _ => Ok(good(sent)),
    });
    assert!(matches!(create(&mut http), Err(Error::Refused(_))));
    assert_eq!(http.lines().last().unwrap(), "POST /v1/sys/leases/revoke");
    // Without a lease nothing is known, and the host is told so.
    for body in [Reply::json(200, &json!({"data": {"username": "u", "password": "p"}})), Reply::text(200, "<html>")] {
        let mut http = with_token(move |_| Ok(body.clone()));
        assert!(matches!(create(&mut http), Err(Error::OutcomeUnknown(_))));
    }
}

#[test]
fn an_end_that_is_over_is_not_asked_for() {
    // Vault takes an increment of 0 for the role's own time.
    let mut http = with_token(|sent| panic!("{}", sent.line()));
    let over = Account { now: EXPIRES_AT, ..a_lease() };
    let made = VaultDriver::create(&mut http, &a_target(), &a_role(), &over, secret("pw"));
    assert!(matches!(made, Err(Error::Refused(_))));
    let renewed = VaultDriver::renew(&mut http, &a_target(), &a_role(), &over);
    assert!(matches!(renewed, Err(Error::Refused(_))));
}

#[test]
fn a_renewal_gives_what_vault_set() {
    let gives = Rc::new(Cell::new(3_600));
    let lasts = Rc::clone(&gives);
    let mut http = with_token(move |_| Ok(lasting(lasts.get())));
    let renew = |http: &mut FakeHttp<'_>, account: &Account| VaultDriver::renew(http, &a_target(), &a_role(), account);
    assert_eq!(renew(&mut http, &a_lease()), Ok(EXPIRES_AT));
    gives.set(120);
    assert_eq!(renew(&mut http, &a_lease()), Ok(1_800_000_120));
    gives.set(9_999);
    assert_eq!(renew(&mut http, &a_lease()), Ok(EXPIRES_AT));
    assert!(matches!(renew(&mut http, &an_account()), Err(Error::Other(_))));
    assert_eq!(http.sent.len(), 3);

    let mut gone = with_token(|_| Ok(errors(400, &["lease not found"])));
    assert_eq!(renew(&mut gone, &a_lease()), Err(Error::NotFound));
    let mut lost = with_token(|_| Err(HttpError::Unknown("cut".into())));
    assert!(matches!(renew(&mut lost, &a_lease()), Err(Error::OutcomeUnknown(_))));
}

#[test]
fn revocation_waits_for_the_deed_and_takes_a_missing_lease_for_success() {
    for answer in [Reply::text(204, ""), errors(400, &["lease not found"]), errors(400, &["invalid lease"])] {
        let mut http = with_token(move |_| Ok(answer.clone()));
        assert_eq!(VaultDriver::revoke(&mut http, &a_target(), &a_lease()), Ok(()));
        assert_eq!(http.sent[0].json(), json!({"lease_id": LEASE, "sync": true}));
        assert!(http.sent[0].changes);
    }
    let mut http = with_token(|sent| panic!("{}", sent.line()));
    assert_eq!(VaultDriver::revoke(&mut http, &a_target(), &an_account()), Ok(()));
    let failed = "failed to revoke entry: resp: (*logical.Response)(nil) err: ERROR: role \"v-1\" cannot be dropped";
    let mut http = with_token(move |_| Ok(errors(400, &[failed])));
    let Err(Error::Refused(text)) = VaultDriver::revoke(&mut http, &a_target(), &a_lease()) else { panic!() };
    assert!(text.contains("cannot be dropped"), "{text}");
}

/// S-M4: a success has a shape.
#[test]
fn a_page_of_a_gateway_is_no_revocation() {
    for page in [
        Reply::text(200, "<html>maintenance</html>"),
        Reply::text(204, "x"),
        Reply::text(202, ""),
        Reply::json(200, &json!({"status": "ok"})),
    ] {
        let mut http = with_token(move |_| Ok(page.clone()));
        let revoked = VaultDriver::revoke(&mut http, &a_target(), &a_lease());
        assert!(matches!(revoked, Err(Error::OutcomeUnknown(_))), "{revoked:?}");
    }
    let warned = Reply::json(200, &json!({"request_id": "1", "warnings": ["slow"]}));
    let mut http = with_token(move |_| Ok(warned.clone()));
    assert_eq!(VaultDriver::revoke(&mut http, &a_target(), &a_lease()), Ok(()));
    let mut http = with_token(|_| Ok(Reply::text(200, "<html>")));
    assert!(matches!(VaultDriver::inspect(&mut http, &a_target(), LEASE), Err(Error::Retryable(_))));
}

#[test]
fn a_lease_is_looked_at_by_its_id() {
    let mut http = with_token(|sent| Ok(good(sent)));
    let state = VaultDriver::inspect(&mut http, &a_target(), LEASE).unwrap();
    assert!(state.can_login);
    assert_eq!(state.expires_at, Some(1_800_000_000));
    assert_eq!(http.sent[0].json(), json!({ "lease_id": LEASE }));
    let mut gone = with_token(|_| Ok(errors(400, &["invalid lease"])));
    assert_eq!(VaultDriver::inspect(&mut gone, &a_target(), LEASE), Err(Error::NotFound));
    // An account's name says nothing to Vault, and "not found" would say too much.
    let mut http = with_token(|sent| panic!("{}", sent.line()));
    assert!(matches!(VaultDriver::inspect(&mut http, &a_target(), "v-jwt-app-1"), Err(Error::Other(_))));
}
