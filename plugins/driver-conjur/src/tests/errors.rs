//! Each class of failure, by what the host has to do about it.

use super::*;

fn failed(reply: Result<Reply, HttpError>) -> Error {
    let mut http = with_token(move |sent| match sent.line().as_str() {
        LOGIN => Ok(good(sent)),
        _ => reply.clone(),
    });
    create(&mut http, &a_role()).unwrap_err()
}

fn login_failed(reply: Result<Reply, HttpError>) -> Error {
    let mut http = server(move |_| reply.clone());
    create(&mut http, &a_role()).unwrap_err()
}

#[test]
fn a_missing_privilege_and_a_missing_value_are_told_apart() {
    let Error::Refused(text) = failed(Ok(Reply::text(403, ""))) else { panic!() };
    assert!(text.contains("lacks the privilege `execute`") && text.contains("inventory/db/password"), "{text}");
    let words = "CONJ00076E Variable acme:variable:inventory/db/password is empty or not found.";
    let Error::Refused(text) = failed(Ok(error(404, words))) else { panic!() };
    assert!(text.contains("CONJ00076E") && text.contains("may not be seen"), "{text}");
}

#[test]
fn a_request_that_conjur_does_not_take_is_refused() {
    for status in [400, 406, 422] {
        assert!(matches!(failed(Ok(error(status, "variable_ids"))), Error::Refused(_)), "{status}");
    }
    let Error::Refused(text) = failed(Ok(error(422, &"x".repeat(5_000)))) else { panic!() };
    assert!(text.len() < 700, "{}", text.len());
    assert!(matches!(failed(Ok(Reply::text(418, ""))), Error::Other(_)));
}

#[test]
fn reading_is_never_in_doubt() {
    for status in [500, 502, 503, 504] {
        assert!(matches!(failed(Ok(Reply::text(status, "<html>"))), Error::Retryable(_)), "{status}");
    }
    assert!(matches!(failed(Err(HttpError::Unknown("cut".into()))), Error::Retryable(_)));
    assert!(matches!(failed(Err(HttpError::Unavailable("down".into()))), Error::Retryable(_)));
    assert!(matches!(failed(Err(HttpError::Denied("limit".into()))), Error::Other(_)));
    let Error::Retryable(retry) = failed(Ok(Reply::text(429, "").with_header("retry-after", "3"))) else { panic!() };
    assert_eq!(retry.after_ms, Some(3_000));
}

#[test]
fn a_login_that_fails_says_as_whom() {
    for status in [401, 403, 404] {
        let Error::Refused(text) = login_failed(Ok(Reply::text(status, ""))) else { panic!() };
        assert_eq!(text, format!("logging in to account acme as host/jit-broker: refused (status {status})"));
    }
    for status in [500, 503] {
        assert!(matches!(login_failed(Ok(Reply::text(status, ""))), Error::Retryable(_)));
    }
    assert!(matches!(login_failed(Err(HttpError::Unknown("cut".into()))), Error::Retryable(_)));
    let mut without_file = FakeHttp::new(|sent| panic!("{}", sent.line()));
    assert!(matches!(create(&mut without_file, &a_role()), Err(Error::Retryable(_))));
}

#[test]
fn an_error_page_is_no_token() {
    // The whole answer is withheld, whatever its status: only a success has a token in it.
    let mut http = server(|sent| match sent.line().as_str() {
        LOGIN => Ok(Reply::text(401, "<html>who are you</html>")),
        line => panic!("{line}"),
    });
    assert!(create(&mut http, &a_role()).is_err());
    assert!(http.keys().is_empty());
}
