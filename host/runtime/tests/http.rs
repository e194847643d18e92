//! The `http` capability against real servers on loopback.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "http/answers.rs"]
mod answers;
mod fixtures;
#[path = "http/placing.rs"]
mod placing;
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
