//! The `http` capability against real servers on loopback.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fixtures;
#[path = "fixtures/web.rs"]
mod web;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::Version;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fixtures::{Bench, account, bench_with, role, scope, target};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::trace::OnBehalf;
use jit_runtime::{
    Connection, ContextScope, DriverPlugin, DriverScope, FaultKind, Grant, HttpConnection, HttpConnectionOptions, Lane,
    Limits, LoadErrorKind, PluginSpec,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::sync::Notify;
use url::Url;
use web::{
    Backend, Reply, Seen, Source, certified, connection, options, provider, reply, wire, wire_repeats, wire_sends,
};

/// The password that creation is given.
const PASSWORD: &str = "canary/p\"w<é +%";

/// What a driver said at its end, and whether the host thinks that the backend may be changed.
struct Told {
    may_have_changed: bool,
    seen: Vec<Value>,
    text: String,
}

fn told<T: std::fmt::Debug>(outcome: Outcome<T>) -> Told {
    let (may_have_changed, text) = match outcome {
        Outcome::Unknown(text) => (true, text),
        Outcome::Refused(Refusal::Target(text)) => (false, text),
        other => panic!("{other:?}"),
    };
    Told { may_have_changed, seen: serde_json::from_str(&text).expect(&text), text }
}

/// Room for long answers in the driver's last words.
fn bench() -> Bench {
    bench_with(Limits { reason_bytes: 4 << 20, ..Limits::default() }, 16)
}

fn scope_of(connection: &Arc<HttpConnection>) -> DriverScope {
    DriverScope { connection: Some(Arc::clone(connection) as Connection), ..scope() }
}

async fn create(driver: &DriverPlugin, scope: &DriverScope, config: Value) -> Outcome<jit_core::driver::Issued> {
    let password = SecretString::from(PASSWORD);
    driver.create(scope, &target(&config.to_string()), &role("{}"), &account(), &password).await
}

/// Runs these steps in a creation.
async fn run(driver: &DriverPlugin, connection: &Arc<HttpConnection>, steps: Value) -> Told {
    told(create(driver, &scope_of(connection), json!({ "steps": steps })).await)
}

/// The one step's result.
async fn one(driver: &DriverPlugin, options: HttpConnectionOptions, send: Value) -> Told {
    run(driver, &connection(options), json!([{ "send": send }])).await
}

/// The text of an error of that kind.
fn error<'t>(told: &'t Told, kind: &str) -> &'t str {
    told.seen[0][kind].as_str().unwrap_or_else(|| panic!("{}", told.text))
}

fn password_header() -> Value {
    json!([["x-vault-token", [{ "text": "Bearer-" }, { "secret": "password" }]]])
}

#[tokio::test]
async fn a_request_arrives_as_its_data_says() {
    let backend = Backend::start(|_| reply(200, "ok")).await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    for (method, wanted) in [("get", "GET"), ("post", "POST"), ("put", "PUT"), ("patch", "PATCH"), ("delete", "DELETE")]
    {
        let send = json!({
            "method": method,
            "path": ["secret", "host/a b", "..%2f"],
            "query": [["list", "a&b=c"], ["x", ""]],
            "headers": [["x-one", [{ "text": "1" }]], ["x-one", [{ "text": "2" }]]],
        });
        let told = run(&driver, &connection, json!([{ "send": send }])).await;
        assert_eq!(told.seen[0]["status"], 200, "{}", told.text);
        let seen = backend.last();
        assert_eq!(seen.method, wanted);
        assert_eq!(seen.target, "/base/secret/host%2Fa%20b/..%252f?list=a%26b%3Dc&x=");
        assert_eq!(seen.headers.iter().filter(|(name, _)| name == "x-one").count(), 2);
        assert!(seen.header("user-agent").unwrap().starts_with("jit-broker/"));
        assert_eq!(seen.header("host"), backend.url.authority().into());
        for absent in ["referer", "cookie", "accept-encoding", "content-type"] {
            assert_eq!(seen.header(absent), None, "{absent}");
        }
    }
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

#[tokio::test]
async fn secrets_are_placed_where_they_are_to_stand() {
    let backend = Backend::start(|_| reply(200, "ok")).await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    let send = json!({ "method": "post", "json": { "a": [null, "x"] }, "secrets": [["/a/0", "password"]], "headers": password_header() });
    let steps = json!([
        { "send": send },
        { "send": { "method": "post", "form": [["jwt", { "secret": "password" }], ["role", { "text": "a b" }]] } },
        { "send": { "method": "post", "text": [{ "text": "<" }, { "secret": "password" }, { "text": ">" }] } },
    ]);
    let told = run(&driver, &connection, steps).await;
    assert!(told.seen.iter().all(|step| step["status"] == 200), "{}", told.text);
    assert!(!told.text.contains("canary"), "{}", told.text);
    let seen = backend.seen.lock().unwrap().clone();
    assert_eq!(seen[0].header("x-vault-token"), Some(format!("Bearer-{PASSWORD}").as_str()));
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    assert_eq!(serde_json::from_str::<Value>(&seen[0].body).unwrap(), json!({ "a": [PASSWORD, "x"] }));
    assert_eq!(seen[1].header("content-type"), Some("application/x-www-form-urlencoded"));
    let form: Vec<_> = url::form_urlencoded::parse(seen[1].body.as_bytes()).into_owned().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(form, [pair("jwt", PASSWORD), pair("role", "a b")]);
    assert_eq!(seen[2].header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(seen[2].body, format!("<{PASSWORD}>"));
}

/// Whether `text` is what RabbitMQ would take as the hash of the password: salt of 4 bytes, and SHA-256 of both.
fn is_salted(text: &str, password: &str) -> bool {
    let Ok(bytes) = STANDARD.decode(text) else { return false };
    let Some((salt, sum)) = bytes.split_at_checked(4) else { return false };
    let salted = [salt, password.as_bytes()].concat();
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &salted).as_ref() == sum
}

#[tokio::test]
async fn basic_and_hashes_arrive_and_the_driver_sees_neither_password_nor_hash() {
    // A backend that quotes everything back that it was sent.
    let backend = Backend::start(|seen| reply(200, format!("{:?} {}", seen.headers, seen.body))).await;
    let source = Source::new("brokers-canary");
    let mut options = options(&backend.url);
    options.secrets = [("admin".to_owned(), source.shared())].into();
    let (bench, connection) = (bench(), connection(options));
    let driver = bench.driver("driver-http");
    let send = json!({
        "method": "put", "path": ["users", "v-a"],
        "headers": [["authorization", [{ "basic": ["admin", "a"] }]], ["x-hex", [{ "hex": "password" }]]],
        "json": { "password_hash": "", "plain": "", "stretched": "" },
        "secrets": [
            ["/password_hash", { "salted": "password" }],
            ["/plain", "password"],
            ["/stretched", { "bcrypt": ["password", 4] }],
        ],
    });
    let steps = json!([{ "credential": { "name": "admin", "as": "a" } }, { "send": send }]);
    let told = run(&driver, &connection, steps).await;
    let seen = backend.last();
    let sent: Value = serde_json::from_str(&seen.body).unwrap();
    let basic = format!("Basic {}", STANDARD.encode("admin:brokers-canary"));
    assert_eq!(seen.header("authorization"), Some(basic.as_str()));
    let hex: String = PASSWORD.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(seen.header("x-hex"), Some(hex.as_str()));
    let [hash, stretched] = ["password_hash", "stretched"].map(|member| sent[member].as_str().unwrap().to_owned());
    assert!(is_salted(&hash, PASSWORD), "{hash}");
    assert!(stretched.starts_with("$2b$04$") && stretched.len() == 60, "{stretched}");
    assert_eq!(sent["plain"], PASSWORD);
    // The answer quoted all of it.
    assert_eq!(told.seen[1]["status"], 200, "{}", told.text);
    for secret in [basic.as_str(), "canary", &hex, &hash, &stretched] {
        assert!(!told.text.contains(secret), "{secret}: {}", told.text);
    }
    assert!(told.text.contains("***"), "{}", told.text);
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

#[tokio::test]
async fn hashes_of_others_are_taken_out_of_a_list() {
    let rows = r#"[{"name":"a","password_hash":"canary-1"},{"name":"b","password_hash":"canary-2"}]"#;
    let backend = Backend::start(move |_| reply(200, rows)).await;
    let bench = bench();
    let send = json!({ "path": ["users"], "withhold": ["/*/password_hash"] });
    let told = one(&bench.driver("driver-http"), options(&backend.url), send).await;
    assert!(!told.text.contains("canary"), "{}", told.text);
    let body: Value = serde_json::from_str(told.seen[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(body, json!([{ "name": "a", "password_hash": null }, { "name": "b", "password_hash": null }]));
    assert_eq!(told.seen[0]["withheld"], json!([false]));
}

#[tokio::test]
async fn what_cannot_be_encoded_is_not_sent() {
    let backend = Backend::start(|_| reply(200, "ok")).await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    for (part, says) in [
        (json!({ "basic": ["a:b", "password"] }), "no colon"),
        (json!({ "bcrypt": ["password", 31] }), "a cost of bcrypt is 4 to 12"),
    ] {
        let send = json!({ "method": "post", "headers": [["authorization", [part]]], "changes": true });
        let told = run(&driver, &connection, json!([{ "send": send }])).await;
        let text = error(&told, "denied");
        assert!(text.contains(says) && !told.may_have_changed, "{}", told.text);
    }
    assert_eq!(backend.count(), 0);
}

/// All ways in which a backend could quote a secret back.
fn quoted(secret: &str) -> String {
    let json = serde_json::to_string(secret).unwrap();
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let base64 = STANDARD.encode(format!("user:{secret}"));
    let url_safe = URL_SAFE_NO_PAD.encode(secret);
    let unicode: String = secret.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
    format!("{secret} {json} {percent} {form} {base64} {url_safe} {unicode}")
}

#[tokio::test]
async fn what_was_placed_is_blotted_out_of_every_answer() {
    for status in [200, 400, 403, 500] {
        let backend = Backend::start(move |_| Reply {
            status,
            headers: vec![
                (
                    "location",
                    format!(
                        "/next?token={}",
                        url::form_urlencoded::byte_serialize(PASSWORD.as_bytes()).collect::<String>()
                    ),
                ),
                ("www-authenticate", format!("Basic {}", STANDARD.encode(PASSWORD))),
            ],
            body: quoted(PASSWORD).into_bytes(),
        })
        .await;
        let bench = bench();
        let driver = bench.driver("driver-http");
        let told = one(&driver, options(&backend.url), json!({ "headers": password_header() })).await;
        assert_eq!(told.seen[0]["status"], status);
        let body = told.seen[0]["body"].as_str().unwrap();
        // Seven spellings, and what stands around them: the quotation marks, and the beginning of
        // what was encoded together with the secret.
        assert_eq!(body.matches("***").count(), 7, "{body}");
        let left: String = body.replace("***", "").chars().filter(|c| !c.is_whitespace()).collect();
        assert!(left.len() < 12, "{left}");
        let headers = told.seen[0]["headers"].to_string();
        assert!(headers.contains("/next?token=***") && headers.contains("Basic ***"), "{headers}");
    }
}

#[tokio::test]
async fn what_is_withheld_is_a_handle_and_null() {
    let backend = Backend::start(|seen| match seen.target.as_str() {
        "/base/login" => reply(200, r#"{"auth":{"client_token":"canary-token","ttl":60},"note":"canary-token!"}"#),
        "/base/raw" => reply(200, "canary-raw"),
        "/base/html" => reply(502, "<html>canary"),
        _ => reply(200, "ok"),
    })
    .await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    let withhold = ["/auth/client_token", "/auth/ttl", "/none"];
    let login = json!({ "method": "post", "path": ["login"], "withhold": withhold, "as": ["token"] });
    let use_both = json!({ "path": ["use"], "headers": [
        ["x-token", [{ "secret": "token" }]], ["authorization", [{ "text": "Token token=\"" }, { "secret": "raw" }, { "text": "\"" }]],
    ] });
    let steps = json!([
        { "send": login },
        { "send": { "path": ["raw"], "withhold": [""], "as": ["raw"] } },
        { "send": { "path": ["html"], "withhold": ["/a"] } },
        { "send": use_both },
    ]);
    let told = run(&driver, &connection, steps).await;
    assert!(!told.text.contains("canary"), "{}", told.text);
    assert_eq!(told.seen[0]["withheld"], json!([true, false, false]));
    assert_eq!(told.seen[0]["body"], r#"{"auth":{"client_token":null,"ttl":null},"note":"***!"}"#);
    assert_eq!((&told.seen[1]["body"], &told.seen[1]["withheld"]), (&json!(""), &json!([true])));
    // The status is the driver's to know; what could not be cut is not shown.
    assert_eq!((&told.seen[2]["status"], &told.seen[2]["withheld"]), (&json!(502), &json!([false])));
    assert!(told.seen[2]["body"].as_str().unwrap().contains("not JSON"), "{}", told.text);
    let seen = backend.last();
    assert_eq!(seen.header("x-token"), Some("canary-token"));
    assert_eq!(seen.header("authorization"), Some("Token token=\"canary-raw\""));

    let config = json!({ "steps": [{ "send": { "path": ["login"], "withhold": ["/auth/client_token"], "as": ["token"] } }], "issue": "token" });
    let issued = create(&driver, &scope_of(&connection), config).await;
    let Outcome::Done(issued) = issued else { panic!("{issued:?}") };
    assert_eq!(issued.secret.unwrap().expose_secret(), "canary-token");
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

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

#[tokio::test]
async fn what_cannot_be_reached_is_unavailable_and_changed_nothing() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let bench = bench();
    let driver = bench.driver("driver-http");
    let send = json!({ "method": "post", "path": ["a"], "query": [["canary", "1"]], "changes": true });
    let told = one(&driver, options(&Url::parse(&format!("http://{free}")).unwrap()), send.clone()).await;
    let text = error(&told, "unavailable");
    assert!(text.starts_with("cannot connect to vault: ") && !text.contains("canary"), "{text}");
    assert!(!told.may_have_changed);

    // A listener whose queue nobody empties takes the connection and never speaks TLS.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("https://{}", silent.local_addr().unwrap())).unwrap();
    let ca = Some(certified(&["127.0.0.1"]).authority.into_bytes());
    let impatient = HttpConnectionOptions { ca, connect_timeout: Duration::from_millis(100), ..options(&url) };
    let told = one(&driver, impatient, send).await;
    assert!(!error(&told, "unavailable").is_empty() && !told.may_have_changed);
}

#[tokio::test]
async fn tls_is_for_the_right_authority_and_the_right_name() {
    let (good, stranger) = (certified(&["127.0.0.1", "localhost"]), certified(&["127.0.0.1"]));
    let other_name = certified(&["vault.example"]);
    let bench = bench();
    let driver = bench.driver("driver-http");
    let trusting =
        |url: &Url, authority: &str| HttpConnectionOptions { ca: Some(authority.as_bytes().to_vec()), ..options(url) };
    for host in ["127.0.0.1", "localhost"] {
        let backend = Backend::start_tls(host, &good).await;
        let send = json!({ "path": ["a"], "headers": password_header() });
        let told = one(&driver, trusting(&backend.url, &good.authority), send).await;
        assert_eq!(told.seen[0]["status"], 200, "{}", told.text);
        assert!(!told.text.contains("canary"), "{}", told.text);
        assert_eq!(backend.last().version, Version::HTTP_2);
        assert_eq!(backend.last().header("x-vault-token"), Some(format!("Bearer-{PASSWORD}").as_str()));
    }
    for (certificate, authority) in [(&good, &stranger.authority), (&other_name, &other_name.authority)] {
        let backend = Backend::start_tls("127.0.0.1", certificate).await;
        let send = json!({ "method": "post", "changes": true, "headers": password_header() });
        let told = one(&driver, trusting(&backend.url, authority), send).await;
        let text = error(&told, "unavailable");
        assert!(text.contains("certificate") && !told.may_have_changed, "{text}");
        assert_eq!(backend.count(), 0);
    }
}

#[test]
fn settings_of_a_connection_are_checked() {
    provider();
    let refused = |url: &str| {
        let error = HttpConnection::new(options(&Url::parse(url).unwrap())).unwrap_err().to_string();
        assert!(error.starts_with("connection vault: ") && !error.contains("canary"), "{url}: {error}");
        error
    };
    for (url, word) in [
        ("ftp://127.0.0.1", "https://"),
        ("http://vault.example", "another machine"),
        ("http://10.0.0.1", "another machine"),
        ("http://localhost.example", "another machine"),
        ("http://127.0.0.1.example", "another machine"),
        ("http://[::ffff:127.0.0.1]", "another machine"),
        ("https://user@vault.example", "secrets"),
        ("https://user:canary@vault.example", "secrets"),
        ("https://vault.example/?canary", "query"),
        ("https://vault.example/#canary", "fragment"),
        ("https://169.254.169.254", "link-local"),
        ("https://[::ffff:169.254.169.254]", "link-local"),
        ("https://[64:ff9b::a9fe:a9fe]", "link-local"),
        ("https://[2002:a9fe:a9fe::]", "link-local"),
        ("https://2852039166", "link-local"),
        ("https://0xa9fea9fe", "link-local"),
        ("https://[fe80::1]", "link-local"),
        ("https://[fd00:ec2::254]", "metadata"),
        ("https://0.0.0.0", "unspecified"),
        ("https://[::]", "unspecified"),
        ("https://224.0.0.1", "multicast"),
        ("https://255.255.255.255", "broadcast"),
        ("https://[::ffff:127.0.0.1]", "disguise"),
    ] {
        let error = refused(url);
        assert!(error.contains(word), "{url}: {error}");
    }
    let url = Url::parse("https://169.254.169.254").unwrap();
    let ca = Some(certified(&["a"]).authority.into_bytes());
    let listed = HttpConnectionOptions { addresses: vec!["169.254.169.254".parse().unwrap()], ca, ..options(&url) };
    assert!(HttpConnection::new(listed.clone()).is_ok());
    for (options, word) in [
        (HttpConnectionOptions { max_connections: 0, ..listed.clone() }, "max_connections"),
        (HttpConnectionOptions { max_connections: 1_001, ..listed.clone() }, "max_connections"),
        (HttpConnectionOptions { request_timeout: Duration::ZERO, ..listed.clone() }, "timeout"),
        (HttpConnectionOptions { ca: Some(b"canary".to_vec()), ..listed.clone() }, "PEM"),
        (HttpConnectionOptions { ca: Some(vec![b'x'; (1 << 20) + 1]), ..listed }, "bytes"),
    ] {
        let error = HttpConnection::new(options).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("canary"), "{error}");
    }
}

/// A server that says when it was asked and answers when it is told to.
async fn held() -> (Url, Arc<Notify>, Arc<Notify>) {
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&asked), Arc::clone(&answer));
    let url = wire(move |mut stream| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            use tokio::io::AsyncWriteExt as _;
            tell.notify_one();
            wait.notified().await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    (url, asked, answer)
}

#[tokio::test]
async fn a_calls_deadline_ends_a_request_and_gives_its_turn_back() {
    let (url, _asked, answer) = held().await;
    let (bench, connection) = (bench(), connection(options(&url)));
    let driver = bench.driver("driver-http");
    let hurried = DriverScope { deadline: Duration::from_millis(200), ..scope_of(&connection) };
    let config = json!({ "steps": [{ "send": { "method": "post", "changes": true } }] });
    // Nobody answers: the call can only end by its own deadline.
    let outcome = create(&driver, &hurried, config.clone()).await;
    assert!(matches!(&outcome, Outcome::Unknown(text) if text.contains("200 ms")), "{outcome:?}");
    let reading = json!({ "steps": [{ "send": {} }] });
    let outcome = create(&driver, &hurried, reading.clone()).await;
    assert!(matches!(&outcome, Outcome::Refused(Refusal::Unavailable { .. })), "{outcome:?}");
    // The one turn of the lane is free again, also after a call whose caller went away.
    tokio::time::timeout(Duration::from_millis(50), create(&driver, &scope_of(&connection), reading.clone()))
        .await
        .unwrap_err();
    let (told, ()) = tokio::join!(run(&driver, &connection, json!([{ "send": {} }])), async {
        for _ in 0..4 {
            answer.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        answer.notify_waiters();
        answer.notify_one();
    });
    assert_eq!(told.seen[0]["body"], "ok", "{}", told.text);
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

#[tokio::test]
async fn a_trap_between_requests_keeps_nothing() {
    let backend = Backend::start(|_| reply(200, r#"{"t":"canary"}"#)).await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    let withholding = json!({ "send": { "withhold": ["/t"], "as": ["t"], "changes": true } });
    for _ in 0..5 {
        let outcome = create(&driver, &scope_of(&connection), json!({ "steps": [withholding, "trap"] })).await;
        assert!(matches!(&outcome, Outcome::Unknown(text) if text.contains("trapped")), "{outcome:?}");
    }
    let told = run(&driver, &connection, json!([withholding])).await;
    assert_eq!(told.seen[0]["withheld"], json!([true]));
}

#[tokio::test]
async fn removals_do_not_wait_behind_issues_and_waiting_has_an_end() {
    let (url, asked, answer) = held().await;
    let options = HttpConnectionOptions { request_timeout: Duration::from_secs(3), ..options(&url) };
    let (bench, connection) = (bench(), connection(options));
    let driver = bench.driver("driver-http");
    let spawn = |driver: &DriverPlugin| {
        let (driver, scope) = (driver.clone(), scope_of(&connection));
        tokio::spawn(async move { told(create(&driver, &scope, json!({ "steps": [{ "send": {} }] })).await) })
    };
    let first = spawn(&driver);
    asked.notified().await;
    // The lane is full. One of these gets the turn when the first one's request ends, and nobody
    // answers it; the other has by then waited as long as it may.
    let second = spawn(&driver);
    let third = spawn(&driver);
    let removal = DriverScope { lane: Lane::Removal, ..scope_of(&connection) };
    let config = target(r#"{"steps":[{"send":{}}]}"#);
    let account = account();
    let (removed, ()) = tokio::join!(driver.revoke(&removal, &config, &account), async {
        asked.notified().await;
        assert!(!first.is_finished());
        // Two wait for this now, the live request and the removal: both get it.
        answer.notify_waiters();
    });
    assert_eq!(told(removed).seen[0]["body"], "ok");
    assert_eq!(first.await.unwrap().seen[0]["body"], "ok");
    let waited_in_vain =
        |told: &Told| told.seen[0]["unavailable"].as_str().is_some_and(|text| text.contains("no free connection"));
    let both = [second.await.unwrap(), third.await.unwrap()];
    assert_eq!(both.iter().filter(|told| waited_in_vain(told)).count(), 1, "{} {}", both[0].text, both[1].text);
}

#[tokio::test]
async fn what_is_not_granted_does_not_load_and_what_is_not_there_is_denied() {
    let bench = bench();
    let load = |grants: &[Grant]| {
        let spec = PluginSpec { grants: Some(grants.to_vec()), ..fixtures::spec("driver-http") };
        bench.runtime.load(&spec)
    };
    let missing = |grants: &[Grant]| match load(grants).unwrap_err().kind {
        LoadErrorKind::NotGranted { grant, .. } => grant,
        other => panic!("{other}"),
    };
    let all = [Grant::Log, Grant::Secrets, Grant::Session, Grant::Http];
    for left_out in [Grant::Secrets, Grant::Session, Grant::Http] {
        let grants: Vec<_> = all.into_iter().filter(|grant| *grant != left_out).collect();
        assert_eq!(missing(&grants), left_out);
    }
    assert!(load(&[]).is_err());
    let driver = load(&all).unwrap().as_driver().unwrap().clone();
    let steps = json!([
        { "send": { "changes": true } },
        { "credential": { "name": "token", "as": "t" } },
        { "kept": { "key": "k", "at_least": 0, "as": "t" } },
        { "keep": { "key": "k", "secret": "password", "valid": 60, "unless": 0, "as": "t" } },
        { "kept": { "key": "k", "at_least": 0, "as": "t" } },
        { "forget": { "key": "k", "secret": "t" } },
    ]);
    let told = told(create(&driver, &scope(), json!({ "steps": steps })).await);
    assert_eq!(error(&told, "denied"), "this call has no HTTP connection");
    assert_eq!(told.seen[1]["no_credential"], "this call has no connection with secrets");
    assert_eq!(told.seen[2..], [json!("not kept"), json!("holds"), json!("not kept"), json!("not there")]);
    assert!(!told.may_have_changed);
}

#[tokio::test]
async fn a_context_provider_asks_its_server() {
    let backend =
        Backend::start(|seen| reply(200, format!("{} {:?}", seen.target, seen.header("authorization")))).await;
    let mut options = options(&backend.url);
    options.secrets.insert("token".to_owned(), Source::new("canary").shared());
    let connection = connection(options);
    let bench = bench();
    let context = bench.load("context-facts").as_context().unwrap().clone();
    let scope = ContextScope {
        connection: Some(Arc::clone(&connection) as Connection),
        deadline: Duration::from_secs(20),
        on_behalf: OnBehalf::default(),
    };
    let config = r#"{"path":["who"],"credential":"token"}"#;
    let facts = context.gather(&scope, config, &fixtures::request()).await.unwrap();
    assert_eq!(facts["status"], "200");
    assert_eq!(facts["body"], r#"/base/who/payment-service Some("Bearer ***")"#);
    assert_eq!(backend.last().header("authorization"), Some("Bearer canary"));

    // Without a connection, and while its configuration is looked at, it has none to ask.
    context.validate(config).await.unwrap();
    let eager = context.validate(r#"{"eager":true}"#).await.unwrap_err().to_string();
    assert!(eager.contains("this call has no HTTP connection"), "{eager}");
    let none = ContextScope { connection: None, ..scope.clone() };
    let fault = context.gather(&none, "{}", &fixtures::request()).await.unwrap_err();
    assert!(matches!(&fault.kind, FaultKind::Failed(text) if text.contains("no HTTP connection")), "{fault}");
    assert_eq!(backend.count(), 1);

    let endless = context.gather(&scope, r#"{"endless":true}"#, &fixtures::request()).await.unwrap_err();
    assert_eq!(endless.to_string(), "plugin context-facts exceeded 50 ms of guest time");
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

#[tokio::test]
async fn a_context_provider_waits_no_longer_than_it_may_and_hinders_nobody() {
    let (url, _asked, _answer) = held().await;
    let connection = connection(HttpConnectionOptions { max_connections: 100, ..options(&url) });
    let bench = bench();
    let context = bench.load("context-facts").as_context().unwrap().clone();
    let scope = ContextScope {
        connection: Some(connection),
        deadline: Duration::from_millis(300),
        on_behalf: OnBehalf::default(),
    };
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (context, scope) = (context.clone(), scope.clone());
        waiting.spawn(async move { context.gather(&scope, "{}", &fixtures::request()).await });
    }
    // More than there are slots for context; policies have their own.
    let policy = bench.policy("policy-allow");
    tokio::task::yield_now().await;
    policy.decide("{}", &fixtures::request()).unwrap();
    while let Some(ended) = waiting.join_next().await {
        let fault = ended.unwrap().unwrap_err();
        assert!(matches!(fault.kind, FaultKind::CallDeadline { limit_ms: 300 } | FaultKind::Overloaded), "{fault}");
    }
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// BLIND-PLUGIN, and the log: at the most talkative level, no line holds what a request placed or
/// an answer brought, over HTTP/1.1 and HTTP/2.
#[test]
fn no_log_line_holds_a_secret() {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let captured = Captured::default();
    let writer = captured.clone();
    // For every thread of this process: clients and servers run on several. Records of `log` too.
    // But for the compiler's, which sees no secret and would write for half a minute.
    let levels = "trace,cranelift=off,cranelift_codegen=off,cranelift_wasm=off,regalloc2=off,wasmtime=off";
    let subscriber = tracing_subscriber::fmt().with_env_filter(levels).with_writer(move || writer.clone()).finish();
    let _ = subscriber.try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = bench();
        let driver = bench.driver("driver-http");
        let certificate = certified(&["127.0.0.1"]);
        let answer = |_: &Seen| reply(200, r#"{"t":"tracecanary-withheld"}"#);
        let plain = Backend::start(answer).await;
        let secure = Backend::start_tls("127.0.0.1", &certificate).await;
        for url in [&plain.url, &secure.url] {
            let mut options = options(url);
            options.ca = Some(certificate.authority.clone().into_bytes());
            options.secrets.insert("token".to_owned(), Source::new("tracecanary-credential").shared());
            let connection = connection(options);
            let both = json!([["authorization", [{ "text": "Bearer " }, { "secret": "c" }]]]);
            let steps = json!([
                { "credential": { "name": "token", "as": "c" } },
                { "send": { "path": ["a"], "headers": both, "withhold": [""], "as": ["w"] } },
                { "keep": { "key": "k", "secret": "w", "valid": 60, "unless": 0, "as": "w" } },
                { "send": { "method": "post", "json": { "p": 0, "w": 0 }, "secrets": [["/p", "c"], ["/w", "w"]] } },
                { "send": { "method": "post", "form": [["p", { "secret": "w" }]] } },
                { "send": { "method": "post", "text": [{ "secret": "c" }], "withhold": ["/t"] } },
            ]);
            let told = run(&driver, &connection, steps).await;
            assert_eq!(told.seen[5]["status"], 200, "{}", told.text);
            assert!(!told.text.contains("tracecanary"), "{}", told.text);
        }
    });
    tracing::trace!("the log was on");
    drop(runtime);
    let text = String::from_utf8_lossy(&captured.0.lock().unwrap()).into_owned();
    for there in ["the log was on", "TRACE", "h2::", "hyper_util::", "rustls::"] {
        assert!(text.contains(there), "{there}");
    }
    let line = text.lines().find(|line| line.contains("tracecanary"));
    assert_eq!(line, None);
}
