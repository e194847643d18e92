//! The broker's token: kept, renewed, replaced when it is gone and only then.

use jit_plugin::testing::secret;
use jit_plugin::{Error, HttpDriver as _};

use super::*;
use crate::VaultDriver;

fn revoke(http: &mut FakeHttp<'_>) -> Result<(), Error> {
    VaultDriver::revoke(http, &a_target(), &a_lease())
}

fn maintain(http: &mut FakeHttp<'_>) -> Result<u64, Error> {
    VaultDriver::maintain(http, &a_target())
}

#[test]
fn a_token_is_kept_for_the_next_call() {
    let mut http = server(|sent| Ok(good(sent)));
    assert_eq!(revoke(&mut http), Ok(()));
    assert_eq!(http.kept_now(KEY), Some(("hvs-new", 3_600)));
    assert_eq!(revoke(&mut http), Ok(()));
    let logins = http.lines().iter().filter(|line| line.ends_with("login")).count();
    assert_eq!((logins, http.sent.len()), (1, 3));
}

#[test]
fn a_token_that_is_about_to_end_is_not_used() {
    let mut http = server(|sent| Ok(good(sent))).with_kept(KEY, "hvs-old", 9);
    assert_eq!(revoke(&mut http), Ok(()));
    assert_eq!(token_of(&http.sent[1]), "<hvs-new>");
    assert_eq!(http.kept_now(KEY), Some(("hvs-new", 3_600)));
}

#[test]
fn a_token_that_is_gone_is_replaced_once_and_the_call_is_made_again() {
    let mut http = with_token(|sent| match token_of(sent) {
        "<hvs-kept>" => Ok(errors(403, &["permission denied"])),
        _ => Ok(good(sent)),
    });
    assert_eq!(revoke(&mut http), Ok(()));
    let revokes = "POST /v1/sys/leases/revoke";
    assert_eq!(http.lines(), [revokes, "GET /v1/auth/token/lookup-self", "POST /v1/auth/jwt/login", revokes]);
    assert_eq!(http.kept_now(KEY), Some(("hvs-new", 3_600)));
}

#[test]
fn a_good_token_is_not_left_because_of_a_missing_permission() {
    let mut http = with_token(|sent| match sent.line().as_str() {
        "GET /v1/auth/token/lookup-self" => Ok(good(sent)),
        _ => Ok(errors(403, &["permission denied"])),
    });
    assert!(matches!(revoke(&mut http), Err(Error::Refused(_))));
    assert_eq!(http.kept_now(KEY), Some(("hvs-kept", 3_000)));
    assert_eq!(http.sent.len(), 2);
}

#[test]
fn a_gateways_refusal_takes_no_token_away() {
    let mut http = with_token(|_| Ok(Reply::text(403, "<html>forbidden by policy")));
    assert!(matches!(revoke(&mut http), Err(Error::Retryable(_))));
    assert_eq!(http.kept_now(KEY), Some(("hvs-kept", 3_000)));
}

/// S-L1: with another secret it is somebody else to Vault.
#[test]
fn a_token_is_kept_for_one_secret() {
    let of = |secret: &str| {
        let auth = json!({"method": "jwt", "role": "jit-broker", "secret": secret});
        crate::client::key(&target_of(&json!({ "auth": auth })).config)
    };
    assert_ne!(of("jwt"), of("another"));
    assert_eq!(of("jwt"), KEY);
}

#[test]
fn a_new_token_is_not_replaced_for_a_refusal() {
    let mut http = server(|sent| match sent.line().as_str() {
        "POST /v1/auth/jwt/login" => Ok(good(sent)),
        _ => Ok(errors(403, &["permission denied"])),
    });
    assert!(matches!(revoke(&mut http), Err(Error::Refused(_))));
    assert_eq!(http.sent.len(), 2);
}

#[test]
fn of_two_logins_at_once_one_token_holds() {
    let mut http = server(|sent| Ok(good(sent)));
    http.meanwhile_keeps(KEY, "hvs-of-another-call", 3_500);
    assert_eq!(revoke(&mut http), Ok(()));
    assert_eq!(token_of(&http.sent[1]), "<hvs-of-another-call>");
    assert_eq!(http.kept_now(KEY), Some(("hvs-of-another-call", 3_500)));
}

#[test]
fn a_login_that_fails_says_as_whom_and_why() {
    let failed = |reply: Result<Reply, HttpError>| {
        let mut http = server(move |_| reply.clone());
        revoke(&mut http).unwrap_err()
    };
    let Error::Refused(text) = failed(Ok(errors(400, &["error validating token: expired"]))) else { panic!() };
    assert_eq!(text, "auth/jwt/login as role jit-broker: error validating token: expired");
    assert!(matches!(failed(Ok(errors(403, &["permission denied"]))), Error::Refused(_)));
    assert!(matches!(failed(Ok(errors(500, &["no"]))), Error::Retryable(_)));
    assert!(matches!(failed(Err(HttpError::Unknown("cut".into()))), Error::Retryable(_)));
    let without = Reply::json(200, &json!({"auth": {"client_token": null, "mfa_requirement": {}}}));
    assert!(matches!(failed(Ok(without)), Error::Refused(_)));
    let mut without_file = FakeHttp::new(|sent| panic!("{}", sent.line()));
    assert!(matches!(revoke(&mut without_file), Err(Error::Retryable(_))));
}

#[test]
fn each_method_logs_in_its_own_way() {
    let approle = target_of(&json!({"auth": {"method": "approle", "role_id": "id-1", "secret": "secret-id"}}));
    let mut http = FakeHttp::new(|sent| match sent.line().as_str() {
        "POST /v1/auth/approle/login" => Ok(login("hvs-new")),
        _ => Ok(good(sent)),
    })
    .with_credential("secret-id", "sid-1");
    assert_eq!(VaultDriver::revoke(&mut http, &approle, &a_lease()), Ok(()));
    assert_eq!(http.sent[0].json(), json!({"role_id": "id-1", "secret_id": "<sid-1>"}));

    let token = target_of(&json!({"auth": {"method": "token", "secret": "token"}}));
    let mut http = FakeHttp::new(|sent| Ok(good(sent))).with_credential("token", "hvs-file");
    assert_eq!(VaultDriver::revoke(&mut http, &token, &a_lease()), Ok(()));
    assert_eq!(token_of(&http.sent[0]), "<hvs-file>");
    assert!(http.keys().is_empty(), "a token of a file is read anew by each call");
}

#[test]
fn the_token_is_renewed_long_before_its_end() {
    let mut http = with_token(|sent| Ok(good(sent)));
    assert_eq!(maintain(&mut http), Ok(1_200));
    assert_eq!(http.lines(), ["GET /v1/auth/token/lookup-self", "POST /v1/auth/token/renew-self"]);
    assert_eq!(http.kept_now(KEY), Some(("hvs-kept", 3_600)));
    // Both answers repeat the token.
    assert_eq!(http.sent[0].withhold, ["/data/id"]);
    assert_eq!(http.sent[1].withhold, ["/auth/client_token"]);
}

#[test]
fn the_first_time_it_logs_in() {
    let mut http = server(|sent| Ok(good(sent)));
    assert_eq!(maintain(&mut http), Ok(1_200));
    assert_eq!(http.lines(), ["POST /v1/auth/jwt/login"]);
    assert_eq!(http.kept_now(KEY), Some(("hvs-new", 3_600)));
}

#[test]
fn a_token_at_its_longest_life_is_replaced_while_it_lives() {
    let mut http = with_token(|sent| match sent.line().as_str() {
        "GET /v1/auth/token/lookup-self" => Ok(token_state(1_500, 3_600, true)),
        "POST /v1/auth/token/renew-self" => Ok(renewed(1_500)),
        _ => Ok(good(sent)),
    });
    assert_eq!(maintain(&mut http), Ok(1_200));
    assert_eq!(http.kept_now(KEY), Some(("hvs-new", 3_600)));
}

#[test]
fn a_token_that_is_never_renewed_is_used_up_to_its_half() {
    for (left, logins, again) in [(590, 0, 196), (290, 1, 1_200)] {
        let mut http = with_token(move |sent| match sent.line().as_str() {
            "GET /v1/auth/token/lookup-self" => Ok(token_state(left, 600, false)),
            _ => Ok(good(sent)),
        });
        assert_eq!(maintain(&mut http), Ok(again));
        let made = http.lines().iter().filter(|line| line.ends_with("login")).count();
        assert_eq!(made, logins, "with {left} seconds left");
    }
}

#[test]
fn a_renewal_that_is_refused_is_no_reason_to_leave_a_good_token() {
    let mut http = with_token(|sent| match sent.line().as_str() {
        "POST /v1/auth/token/renew-self" => Ok(errors(400, &["token not renewable"])),
        _ => Ok(good(sent)),
    });
    assert_eq!(maintain(&mut http), Ok(1_000));
    assert_eq!(http.kept_now(KEY), Some(("hvs-kept", 3_000)));
}

#[test]
fn a_token_that_is_gone_is_replaced_by_maintenance() {
    let mut http = with_token(|sent| match token_of(sent) {
        "<hvs-kept>" => Ok(errors(403, &["permission denied"])),
        _ => Ok(good(sent)),
    });
    assert_eq!(maintain(&mut http), Ok(1_200));
    assert_eq!(http.kept_now(KEY), Some(("hvs-new", 3_600)));
}

#[test]
fn maintenance_without_an_answer_changes_nothing() {
    for path in ["lookup-self", "renew-self"] {
        let mut http = with_token(move |sent| match sent.path.last().unwrap().as_str() {
            last if last == path => Err(HttpError::Unavailable("down".into())),
            _ => Ok(good(sent)),
        });
        assert!(matches!(maintain(&mut http), Err(Error::Retryable(_))));
        assert_eq!(http.kept_now(KEY), Some(("hvs-kept", 3_000)));
    }
}

#[test]
fn another_calls_new_login_outlives_a_renewal_of_the_old_token() {
    let mut http = with_token(|sent| Ok(good(sent)));
    http.meanwhile_keeps(KEY, "hvs-of-another-call", 3_500);
    assert!(maintain(&mut http).is_ok());
    assert_eq!(http.kept_now(KEY), Some(("hvs-of-another-call", 3_500)));
}

#[test]
fn a_token_of_a_file_is_renewed_and_never_replaced() {
    let target = target_of(&json!({"auth": {"method": "token", "secret": "token"}}));
    let file =
        |answer: fn(&Sent) -> Reply| FakeHttp::new(move |sent| Ok(answer(sent))).with_credential("token", "hvs-file");
    assert_eq!(VaultDriver::maintain(&mut file(good), &target), Ok(1_200));
    let mut gone = file(|_| errors(403, &["permission denied"]));
    assert!(matches!(VaultDriver::maintain(&mut gone, &target), Err(Error::Refused(_))));
    let mut endless = file(|_| Reply::json(200, &json!({"data": {"id": "x", "ttl": 0, "creation_ttl": 0}})));
    assert_eq!(VaultDriver::maintain(&mut endless, &target), Ok(86_400));
    let mut wrong = file(|_| errors(403, &["permission denied"]));
    let made = VaultDriver::create(&mut wrong, &target, &a_role(), &an_account(), secret("pw"));
    assert!(matches!(made, Err(Error::Refused(_))));
    assert_eq!(wrong.sent.len(), 1);
}
