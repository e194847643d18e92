#![allow(clippy::unwrap_used, reason = "tests")]

use reqwest::header::HeaderValue;

use super::*;

fn told(broker: &str) -> String {
    match Client::builder(broker).token(TokenSource::env("X")).build() {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_brokers_url_is_checked() {
    for good in [
        "https://broker.example.com:8700",
        "https://broker/",
        "http://127.0.0.1:1",
        "http://[::1]:1",
        "http://localhost:1",
    ] {
        assert_eq!(told(good), "", "{good}");
    }
    for (bad, why) in [
        ("broker:8700", "must begin with https://"),
        ("127.0.0.1:8700", "is none"),
        ("http://broker.example.com", "in clear"),
        ("http://localhost.example.com", "in clear"),
        ("ftp://127.0.0.1", "must begin with https://"),
        ("https://broker/x?y", "must end after the port"),
        ("https://broker/issue", "must end after the port"),
    ] {
        assert!(told(bad).contains(why), "{bad}: {}", told(bad));
    }
    let secret = told("https://me:geheim@broker");
    assert!(secret.contains("must not hold") && !secret.contains("geheim"), "{secret}");
    let plain = Client::builder("http://broker.mesh").token(TokenSource::env("X")).allow_plaintext(true);
    assert!(plain.build().is_ok());
}

#[test]
fn a_ca_file_must_hold_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let build = || Client::builder("https://broker").token(TokenSource::env("X")).ca_file(&file).build();
    assert!(build().err().unwrap().to_string().contains("No such file"));
    std::fs::write(&file, "nothing").unwrap();
    assert!(build().err().unwrap().to_string().contains("no certificate"));
}

#[test]
fn keys_are_visible_ascii_and_differ() {
    let (one, other) = (IdempotencyKey::generate(), IdempotencyKey::generate());
    assert_ne!(one, other);
    assert!(one.as_str().len() <= 128 && one.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
}

#[test]
fn refusals_are_read_whoever_made_them() {
    let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    };
    let broker = br#"{"type":"urn:x","title":"t","status":429,"code":"rate-limited","detail":"slow down","request_id":"req_1","retry_after_seconds":9}"#;
    let read = problem(StatusCode::TOO_MANY_REQUESTS, &headers(&[("retry-after", "3")]), broker);
    assert_eq!((read.status, read.code.as_str(), read.retry_after_seconds), (429, "rate-limited", Some(3)));
    assert_eq!(read.to_string(), "slow down (429 rate-limited, req_1)");
    let page = format!("<html>\u{1b}[31m{}", "x".repeat(10_000));
    let read = problem(StatusCode::BAD_GATEWAY, &headers(&[]), page.as_bytes());
    assert!(read.detail.len() <= MOST_DETAIL && !read.detail.contains('\u{1b}'), "{}", read.detail);
    assert!(Error::Refused(Box::new(read)).is_transient());
    let dated = headers(&[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"), ("date", "Fri, 31 Dec 1999 23:59:29 GMT")]);
    let empty = problem(StatusCode::SERVICE_UNAVAILABLE, &dated, b"");
    assert_eq!((empty.detail.as_str(), empty.retry_after_seconds), ("Service Unavailable", Some(30)));
}

#[test]
fn only_what_a_retry_may_better_is_transient() {
    for (status, transient) in [
        (400, false),
        (401, false),
        (403, false),
        (404, false),
        (409, false),
        (413, false),
        (429, true),
        (502, true),
        (503, true),
        (504, true),
    ] {
        let problem = problem(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"{}");
        assert_eq!(Error::Refused(Box::new(problem)).is_transient(), transient, "{status}");
    }
}
