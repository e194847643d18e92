//! What an answer, a status and a header say of whether something was done.

use super::*;

/// Answers with the status that the path ends in; as the backend itself where it begins so.
async fn of_every_status() -> Backend {
    Backend::start(|seen| {
        let status = seen.target.rsplit('/').next().unwrap().parse().unwrap_or(503);
        let (media_type, body) = match seen.target.split('/').nth(2).unwrap() {
            "own" => ("application/json; charset=utf-8", r#"{"errors":["sealed"]}"#),
            "other" => ("application/json", r#"{"message":"no healthy upstream"}"#),
            _ => ("text/html", r#"{"errors":[]}"#),
        };
        Reply { status, headers: vec![("content-type", media_type.to_owned())], body: body.into() }
    })
    .await
}

fn sending(method: &str, path: &str, changes: bool) -> Value {
    json!({ "send": { "method": method, "path": path.split('/').collect::<Vec<_>>(), "changes": changes } })
}

#[tokio::test]
async fn an_answers_status_says_whether_something_may_have_changed() {
    let backend = of_every_status().await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    for (path, may_have_changed) in [
        ("a/200", true),
        ("a/204", true),
        ("a/302", true),
        ("a/400", false),
        ("a/403", false),
        ("a/404", false),
        // A gateway's, after it has passed the request on.
        ("a/408", true),
        ("a/409", false),
        ("a/429", false),
        ("own/500", true),
        ("a/502", true),
        // A 503 is a no only where it is certainly the backend's own.
        ("own/503", false),
        ("other/503", true),
        ("a/503", true),
        ("own/504", true),
    ] {
        for method in ["post", "put", "patch", "delete"] {
            let told = run(&driver, &connection, json!([sending(method, path, false)])).await;
            assert_eq!(told.may_have_changed, may_have_changed, "{method} {path}");
        }
        let told = run(&driver, &connection, json!([sending("get", path, true)])).await;
        assert_eq!(told.may_have_changed, may_have_changed, "{path}");
        let told = run(&driver, &connection, json!([sending("get", path, false)])).await;
        assert!(!told.may_have_changed, "{path}");
    }
    // A later no takes nothing back of an earlier yes.
    let steps =
        json!([sending("post", "a/200", false), sending("post", "a/404", false), sending("get", "a/404", false)]);
    assert!(run(&driver, &connection, steps).await.may_have_changed);
}

/// M11: a driver that forgets to mark a request changes nothing of what it may have done.
#[tokio::test]
async fn a_request_has_an_effect_whatever_the_driver_says_of_it() {
    let backend = of_every_status().await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    for (path, may_have_changed) in [
        ("a/200", true),
        ("harmless/200", true),
        ("harmless/x/y/login", true),
        ("login", false),
        ("harmless/x/login", false),
    ] {
        let told = run(&driver, &connection, json!([sending("post", path, false)])).await;
        assert_eq!(told.may_have_changed, may_have_changed, "{path}");
    }
    assert!(run(&driver, &connection, json!([sending("post", "login", true)])).await.may_have_changed);
    // "Nothing was done" is no word for a change that has no answer; for one that was answered it is.
    for end in ["refused", "retryable"] {
        let scope = scope_of(&connection);
        let ending = async |path: &str| {
            let steps = json!([sending("post", "a/200", false), sending("post", path, false)]);
            create(&driver, &scope, json!({ "end": end, "steps": steps })).await
        };
        for open in ["a/500", "a/503", "a/408"] {
            assert!(matches!(ending(open).await, Outcome::Unknown(_)), "{end} {open}");
        }
        for answered in ["a/404", "own/503", "a/200"] {
            assert!(matches!(ending(answered).await, Outcome::Refused(_)), "{end} {answered}");
        }
    }
}

#[tokio::test]
async fn only_the_listed_headers_are_given_and_no_cookie_is_kept() {
    let backend = Backend::start(|_| Reply {
        status: 429,
        headers: vec![
            ("content-type", "text/plain".to_owned()),
            ("retry-after", "7".to_owned()),
            ("www-authenticate", "Basic".to_owned()),
            ("www-authenticate", "Bearer".to_owned()),
            ("location", "/elsewhere".to_owned()),
            ("set-cookie", "canary=1".to_owned()),
            ("x-other", "canary".to_owned()),
        ],
        body: Vec::new(),
    })
    .await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    let told = run(&driver, &connection, json!([{ "send": {} }, { "send": {} }])).await;
    let headers = json!([
        ["content-type", "text/plain"],
        ["retry-after", "7"],
        ["location", "/elsewhere"],
        ["www-authenticate", "Basic"],
        ["www-authenticate", "Bearer"],
    ]);
    assert_eq!(told.seen[0]["headers"], headers);
    assert_eq!(backend.last().header("cookie"), None);
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let other = Backend::start(|_| reply(200, "there")).await;
    let to = other.url.to_string();
    let backend = Backend::start(move |seen| {
        let status = seen.target.rsplit('/').next().unwrap().parse().unwrap();
        Reply { status, headers: vec![("location", to.clone())], body: Vec::new() }
    })
    .await;
    let bench = bench();
    let driver = bench.driver("driver-http");
    for status in [301, 302, 303, 307, 308] {
        let send = json!({ "path": [status.to_string()], "headers": password_header() });
        let told = one(&driver, options(&backend.url), send).await;
        assert_eq!(told.seen[0]["status"], status);
        assert_eq!(told.seen[0]["headers"][0], json!(["location", other.url.to_string()]));
    }
    assert_eq!(other.count(), 0);
}

#[tokio::test]
async fn the_host_refuses_what_is_no_proper_request() {
    let backend = Backend::start(|_| reply(200, "ok")).await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    for (send, word) in [
        (json!({ "path": ["a", ".."] }), "segment"),
        (json!({ "path": [""] }), "segment"),
        (json!({ "headers": [["host", [{ "text": "evil" }]]] }), "host's to set"),
        (json!({ "headers": [["Transfer-Encoding", [{ "text": "chunked" }]]] }), "host's to set"),
        (json!({ "headers": [["x", [{ "text": "a\r\nhost: evil" }]]] }), "control character"),
        (json!({ "headers": [["a b", []]] }), "no name of a header"),
        (json!({ "json": {}, "secrets": [["/none", "password"]] }), "no member"),
        (json!({ "withhold": ["a"] }), "JSON Pointer"),
        (json!({ "path": ["x".repeat(9_000)] }), "bytes"),
    ] {
        let mut send = send;
        send["changes"] = json!(true);
        let told = run(&driver, &connection, json!([{ "send": send }])).await;
        assert!(error(&told, "denied").contains(word), "{}", told.text);
        assert!(!told.may_have_changed && !told.text.contains("canary"));
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn an_answer_that_does_not_come_whole_is_unknown() {
    let pause = Duration::from_millis(5);
    let head = "HTTP/1.1 200 OK\r\n";
    let cases = [
        ("closed before the head", wire_sends("").await),
        ("closed within the head", wire_sends(head).await),
        ("closed within the body", wire_sends(format!("{head}content-length: 100\r\n\r\ncanary")).await),
        ("closed within a chunk", wire_sends(format!("{head}transfer-encoding: chunked\r\n\r\nff\r\nabc")).await),
        ("no HTTP", wire_sends("SSH-2.0-OpenSSH\r\n\r\n").await),
        ("not UTF-8", wire_sends(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xff".to_vec()).await),
        ("slow head", wire_repeats("", b"H".to_vec(), Duration::from_secs(3_600)).await),
        ("slow headers", wire_repeats("HTTP/1.1 200 OK\r\n", b"x: y\r\n".to_vec(), pause).await),
        ("slow body", wire_repeats("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", b"x".to_vec(), pause).await),
    ];
    let bench = bench();
    let driver = bench.driver("driver-http");
    for (case, url) in cases {
        let options = HttpConnectionOptions { request_timeout: Duration::from_millis(400), ..options(&url) };
        let told =
            one(&driver, options, json!({ "method": "post", "changes": true, "headers": password_header() })).await;
        let text = error(&told, "unknown");
        assert!(!text.is_empty() && text.len() < 400 && !text.contains("canary"), "{case}: {text}");
        assert!(told.may_have_changed, "{case}");
    }
}

#[tokio::test]
async fn endless_answers_end_at_their_bound() {
    let none = Duration::ZERO;
    let endless = b"x".repeat(64 << 10);
    let chunk = [b"10000\r\n".to_vec(), endless.clone(), b"\r\n".to_vec()].concat();
    let header = [b"x-".to_vec(), b"y".repeat(60 << 10), b": z\r\n".to_vec()].concat();
    let cases = [
        ("body", wire_repeats("HTTP/1.1 200 OK\r\n\r\n", endless.clone(), none).await),
        ("chunks", wire_repeats("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk, none).await),
        ("headers", wire_repeats("HTTP/1.1 200 OK\r\n", header, none).await),
        ("one header", wire_repeats("HTTP/1.1 200 OK\r\nx: ", endless, none).await),
        ("many headers", wire_repeats("HTTP/1.1 200 OK\r\n", b"x: y\r\n".repeat(50), none).await),
    ];
    let bench = bench();
    let driver = bench.driver("driver-http");
    for (case, url) in cases {
        // The deadlines are a minute: what ends it is the bound.
        let told = one(&driver, options(&url), json!({ "changes": true })).await;
        let text = error(&told, "unknown");
        assert!(!text.contains("60000 ms"), "{case}: {text}");
        assert!(told.may_have_changed, "{case}");
    }
}

#[tokio::test]
async fn a_call_gets_no_more_bytes_than_it_has_left() {
    let backend = Backend::start(|_| reply(200, "x".repeat(60 << 10))).await;
    let limits = Limits { host_bytes: 100 << 10, reason_bytes: 1 << 20, ..Limits::default() };
    let bench = bench_with(limits, 4);
    let driver = bench.driver("driver-http");
    let connection = connection(options(&backend.url));
    let told = run(&driver, &connection, json!([{ "send": {} }, { "send": {} }])).await;
    assert_eq!(told.seen[0]["body"].as_str().unwrap().len(), 60 << 10);
    assert!(told.seen[1]["unknown"].as_str().unwrap().contains("bytes that are left"), "{}", told.text);
    assert_eq!(backend.count(), 2);
    // What is withheld has been read, too.
    let told = run(&driver, &connection, json!([{ "send": { "withhold": [""] } }, { "send": {} }])).await;
    assert_eq!(told.seen[0]["body"], "");
    assert!(told.seen[1]["unknown"].as_str().unwrap().contains("bytes that are left"), "{}", told.text);
}
