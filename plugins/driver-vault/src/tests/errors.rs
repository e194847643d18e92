//! Each class of failure, by what the host has to do about it.

use jit_plugin::testing::secret;
use jit_plugin::{Error, HttpDriver as _};

use super::*;
use crate::VaultDriver;

fn create(reply: Result<Reply, HttpError>) -> Error {
    // The token is good: the answer is about the request.
    let mut http = with_token(move |sent| match sent.line().as_str() {
        "GET /v1/auth/token/lookup-self" => Ok(good(sent)),
        _ => reply.clone(),
    });
    VaultDriver::create(&mut http, &a_target(), &a_role(), &an_account(), secret("pw")).unwrap_err()
}

/// The same for a verb that changes nothing.
fn inspect(reply: Result<Reply, HttpError>) -> Error {
    let mut http = with_token(move |sent| match sent.line().as_str() {
        "GET /v1/auth/token/lookup-self" => Ok(good(sent)),
        _ => reply.clone(),
    });
    VaultDriver::inspect(&mut http, &a_target(), LEASE).unwrap_err()
}

#[test]
fn what_was_not_sent_is_retryable_and_what_was_not_answered_is_in_doubt() {
    assert!(matches!(create(Err(HttpError::Unavailable("down".into()))), Error::Retryable(_)));
    assert!(matches!(create(Err(HttpError::Unknown("cut".into()))), Error::OutcomeUnknown(_)));
    assert!(matches!(create(Err(HttpError::Denied("limit".into()))), Error::Other(_)));
    assert!(matches!(inspect(Err(HttpError::Unknown("cut".into()))), Error::Retryable(_)));
}

#[test]
fn a_refusal_tells_vaults_words() {
    let Error::Refused(text) = create(Ok(errors(400, &["unknown role: app_read_only"]))) else { panic!() };
    assert_eq!(text, "database/creds/app_read_only: unknown role: app_read_only");
}

#[test]
fn a_missing_permission_tells_the_line_of_the_policy() {
    for status in [403, 404] {
        let Error::Refused(text) = create(Ok(errors(status, &["1 error occurred:\n\t* permission denied\n\n"]))) else {
            panic!()
        };
        assert!(text.contains(r#"path "database/creds/app_read_only" { capabilities = ["read"] }"#), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
    let Error::Refused(text) = inspect(Ok(errors(403, &["permission denied"]))) else { panic!() };
    assert!(text.contains(r#"path "sys/leases/lookup" { capabilities = ["update"] }"#), "{text}");
}

#[test]
fn a_server_that_does_not_serve_now_is_retryable() {
    for (status, word) in [(503, "Vault is sealed"), (412, "required index state not present"), (473, ""), (472, "")] {
        assert!(matches!(create(Ok(errors(status, &[word]))), Error::Retryable(_)), "{status}");
    }
    let Error::Retryable(retry) = create(Ok(errors(429, &["rate"]).with_header("retry-after", "7"))) else { panic!() };
    assert_eq!(retry.after_ms, Some(7_000));
    let redirect = Reply::text(307, "").with_header("location", "https://other:8200/v1/x");
    let Error::Retryable(retry) = create(Ok(redirect)) else { panic!() };
    assert!(retry.reason.contains("https://other:8200"), "{}", retry.reason);
}

#[test]
fn a_server_error_leaves_doubt_only_where_something_may_have_changed() {
    for status in [500, 502, 504, 599] {
        assert!(matches!(create(Ok(errors(status, &["no"]))), Error::OutcomeUnknown(_)), "{status}");
        assert!(matches!(inspect(Ok(errors(status, &["no"]))), Error::Retryable(_)), "{status}");
    }
    // A proxy's 503 does not say what Vault did.
    let proxys = Reply::text(503, "<html>upstream reset</html>");
    assert!(matches!(create(Ok(proxys.clone())), Error::OutcomeUnknown(_)));
    assert!(matches!(inspect(Ok(proxys)), Error::Retryable(_)));
    // What nobody expects is the host's to judge.
    assert!(matches!(create(Ok(Reply::text(418, ""))), Error::Other(_)));
}

#[test]
fn vaults_words_are_short() {
    let long = "x".repeat(5_000);
    let Error::Refused(text) = create(Ok(errors(400, &[&long]))) else { panic!() };
    assert!(text.len() < 600, "{}", text.len());
    let Error::Refused(text) = create(Ok(Reply::text(400, "<html>"))) else { panic!() };
    assert!(text.ends_with("no reason given (status 400)"), "{text}");
}
