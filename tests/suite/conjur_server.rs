//! The strict Conjur server itself: what it takes, what it refuses, and how it says so. Tests of the
//! driver mean something only as long as this holds.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jit_tests::conjur::{JwtAuthenticator, Privilege};
use jit_tests::issuer::now;
use jit_tests::{Conjur, Key};
use reqwest::{Method, Response};
use serde_json::{Value, json};

const PASSWORD: &str = "inventory/db/password";
const ALL: &[Privilege] = &[Privilege::Read, Privilege::Execute, Privilege::Update];

/// A client that is at no mercy of a proxy, and sends only what it is told.
fn client(conjur: &Conjur) -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy();
    let client = match conjur.authority() {
        Some(pem) => client.https_only(true).tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes()).unwrap()]),
        None => client,
    };
    client.build().unwrap()
}

/// A server with one variable that the broker's host may do all with, and that host's API key.
async fn server() -> (Conjur, String) {
    let conjur = Conjur::start("acme").await.unwrap();
    let api_key = conjur.host("jit-broker");
    conjur.set(PASSWORD, "pw-1");
    conjur.permit("jit-broker", PASSWORD, ALL);
    (conjur, api_key)
}

async fn log_in(conjur: &Conjur, api_key: &str) -> Response {
    let request = client(conjur).post(format!("{}/authn/acme/host%2Fjit-broker/authenticate", conjur.url()));
    let request = request.header("accept-encoding", "base64").header("content-type", "text/plain; charset=utf-8");
    request.body(api_key.to_owned()).send().await.unwrap()
}

async fn token(conjur: &Conjur, api_key: &str) -> String {
    let answer = log_in(conjur, api_key).await;
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

/// One request with a token; gives status and body.
async fn ask(conjur: &Conjur, token: &str, method: Method, path: &str) -> (u16, String) {
    let request = client(conjur).request(method, format!("{}{path}", conjur.url()));
    let answer = request.header("authorization", format!("Token token=\"{token}\"")).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn get(conjur: &Conjur, token: &str, path: &str) -> (u16, String) {
    ask(conjur, token, Method::GET, path).await
}

fn batch(ids: &[&str]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("acme:variable:{}", id.replace('/', "%2F"))).collect();
    format!("/secrets?variable_ids={}", ids.join(","))
}

fn words(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_comes_ready_made_for_the_header_and_lives_480_seconds() {
    let (conjur, api_key) = server().await;
    let answer = log_in(&conjur, &api_key).await;
    assert_eq!(answer.headers()["content-encoding"], "base64");
    let token = answer.text().await.unwrap();
    let shape: Value = serde_json::from_slice(&STANDARD.decode(&token).unwrap()).unwrap();
    for member in ["protected", "payload", "signature"] {
        assert!(shape[member].is_string(), "{shape}");
    }
    let path = "/secrets/acme/variable/inventory%2Fdb%2Fpassword";
    assert_eq!(get(&conjur, &token, path).await, (200, "pw-1".to_owned()));
    conjur.pass(470);
    assert_eq!(get(&conjur, &token, path).await.0, 200);
    conjur.pass(20);
    assert_eq!(get(&conjur, &token, path).await.0, 401);
    let next = self::token(&conjur, &api_key).await;
    assert_eq!(get(&conjur, &next, path).await.0, 200);
    conjur.change_signing_key();
    assert_eq!(get(&conjur, &next, path).await.0, 401);
}

#[tokio::test]
async fn without_base64_the_token_comes_as_json() {
    let (conjur, api_key) = server().await;
    let url = format!("{}/authn/acme/host%2Fjit-broker/authenticate", conjur.url());
    let request = client(&conjur).post(url).header("content-type", "text/plain").body(api_key);
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().get("content-encoding")), (200, None));
    assert!(answer.json::<Value>().await.unwrap()["payload"].is_string());
}

#[tokio::test]
async fn a_login_has_to_be_right_in_every_part() {
    let (conjur, api_key) = server().await;
    for (path, kind, body) in [
        ("/authn/acme/host%2Fjit-broker/authenticate", "text/plain", "wrong"),
        ("/authn/other/host%2Fjit-broker/authenticate", "text/plain", api_key.as_str()),
        ("/authn/acme/host%2Fother/authenticate", "text/plain", &api_key),
        ("/authn/acme/jit-broker/authenticate", "text/plain", &api_key),
        ("/authn/acme/host/jit-broker/authenticate", "text/plain", &api_key),
        ("/authn/acme/host%2Fjit-broker/authenticate", "application/x-www-form-urlencoded", &api_key),
    ] {
        let request = client(&conjur).post(format!("{}{path}", conjur.url())).header("content-type", kind);
        let status = request.body(body.to_owned()).send().await.unwrap().status();
        assert_eq!(status, 401, "{path} {kind}");
    }
    // A new key ends the old one.
    let next = conjur.host("jit-broker");
    assert_eq!(log_in(&conjur, &api_key).await.status(), 401);
    assert_eq!(log_in(&conjur, &next).await.status(), 200);
}

#[tokio::test]
async fn the_quotes_of_the_header_are_needed() {
    let (conjur, api_key) = server().await;
    let token = token(&conjur, &api_key).await;
    for value in [format!("Token token={token}"), format!("Bearer {token}"), "Token token=\"x\"".to_owned()] {
        let request = client(&conjur).get(format!("{}{}", conjur.url(), batch(&[PASSWORD])));
        assert_eq!(request.header("authorization", value).send().await.unwrap().status(), 401);
    }
    let request = client(&conjur).get(format!("{}{}", conjur.url(), batch(&[PASSWORD])));
    assert_eq!(request.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_jwt_logs_in_the_host_that_it_means() {
    let (conjur, _) = server().await;
    let (key, stranger) = (Key::generate("one").unwrap(), Key::generate("one").unwrap());
    let authenticator = |claim: Option<&str>| JwtAuthenticator {
        issuer: "https://issuer.test".into(),
        audience: "conjur".into(),
        keys: vec![key.public.clone()],
        claim: claim.map(str::to_owned),
        path: String::new(),
    };
    conjur.authenticator("by-claim", authenticator(Some("sub")));
    conjur.authenticator("by-path", authenticator(None));
    let claims = json!({"iss": "https://issuer.test", "aud": "conjur", "sub": "jit-broker", "exp": now() + 600});
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        key.token(&claims).unwrap()
    };
    let log_in = async |path: &str, jwt: String| {
        let request = client(&conjur).post(format!("{}{path}", conjur.url()));
        let body = format!("jwt={jwt}");
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        request.send().await.unwrap().status().as_u16()
    };
    let (by_claim, by_path) =
        ("/authn-jwt/by-claim/acme/authenticate", "/authn-jwt/by-path/acme/host%2Fjit-broker/authenticate");
    assert_eq!(log_in(by_claim, key.token(&claims).unwrap()).await, 200);
    assert_eq!(log_in(by_path, key.token(&claims).unwrap()).await, 200);
    for (path, jwt) in [
        (by_claim, stranger.token(&claims).unwrap()),
        (by_claim, with("iss", json!("https://other.test"))),
        (by_claim, with("aud", json!("vault"))),
        (by_claim, with("exp", json!(now() - 600))),
        (by_claim, with("sub", json!("nobody"))),
        (by_claim, "a.b.c".to_owned()),
        ("/authn-jwt/nothing/acme/authenticate", key.token(&claims).unwrap()),
        ("/authn-jwt/by-path/acme/authenticate", key.token(&claims).unwrap()),
        ("/authn-jwt/by-claim/acme/host%2Fjit-broker/authenticate", key.token(&claims).unwrap()),
    ] {
        assert_eq!(log_in(path, jwt).await, 401, "{path}");
    }
    let without = client(&conjur).post(format!("{}{by_claim}", conjur.url())).send().await.unwrap();
    assert_eq!(without.status(), 400);
}

#[tokio::test]
async fn a_variable_is_found_seen_and_fetched_by_privilege() {
    let (conjur, api_key) = server().await;
    let token = token(&conjur, &api_key).await;
    conjur.set("hidden", "x");
    conjur.set("visible", "x");
    conjur.permit("jit-broker", "visible", &[Privilege::Read]);
    conjur.variable("empty");
    conjur.permit("jit-broker", "empty", ALL);
    for (id, status) in [("hidden", 404), ("nothing", 404), ("empty", 404), ("visible", 403)] {
        let (got, body) = get(&conjur, &token, &format!("/secrets/acme/variable/{id}")).await;
        assert_eq!(got, status, "{id}");
        if status == 404 {
            assert_eq!(words(&body), format!("CONJ00076E Variable acme:variable:{id} is empty or not found."));
        }
    }
    // An id is one segment.
    assert_eq!(get(&conjur, &token, "/secrets/acme/variable/inventory/db/password").await.0, 404);
    assert_eq!(get(&conjur, &token, "/secrets/other/variable/inventory%2Fdb%2Fpassword").await.0, 404);
    conjur.deny("jit-broker", PASSWORD);
    assert_eq!(get(&conjur, &token, "/secrets/acme/variable/inventory%2Fdb%2Fpassword").await.0, 404);
}

#[tokio::test]
async fn several_variables_come_all_or_not_at_all() {
    let (conjur, api_key) = server().await;
    let token = token(&conjur, &api_key).await;
    conjur.set("user", "app");
    conjur.permit("jit-broker", "user", &[Privilege::Execute]);
    let (status, body) = get(&conjur, &token, &batch(&[PASSWORD, "user"])).await;
    assert_eq!(status, 200);
    let values: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(values, json!({"acme:variable:inventory/db/password": "pw-1", "acme:variable:user": "app"}));

    conjur.set("hidden", "x");
    conjur.variable("empty");
    conjur.permit("jit-broker", "empty", ALL);
    for (path, status) in [
        ("/secrets".to_owned(), 422),
        ("/secrets?variable_ids=".to_owned(), 422),
        ("/secrets?variable_ids=,,".to_owned(), 422),
        ("/secrets?variable_ids=acme:variable:user,,acme:variable:empty".to_owned(), 422),
        (batch(&["user", "user"]), 400),
        (batch(&["user", "nothing"]), 404),
        (batch(&["user", "empty"]), 404),
        ("/secrets?variable_ids=user".to_owned(), 404),
        // Not 404 as for a single one.
        (batch(&["user", "hidden"]), 403),
    ] {
        assert_eq!(get(&conjur, &token, &path).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn what_is_no_text_comes_in_lines_of_base64_only() {
    let (conjur, api_key) = server().await;
    let token = token(&conjur, &api_key).await;
    let value: Vec<u8> = (100..=255).collect();
    conjur.set(PASSWORD, value.clone());
    assert_eq!(get(&conjur, &token, &batch(&[PASSWORD])).await.0, 406);
    for (encoding, encoded) in [("base64", true), ("Base64", true), ("gzip, base64", false)] {
        let request = client(&conjur).get(format!("{}{}", conjur.url(), batch(&[PASSWORD])));
        let request = request.header("authorization", format!("Token token=\"{token}\""));
        let answer = request.header("accept-encoding", encoding).send().await.unwrap();
        assert_eq!(answer.status() == 200, encoded, "{encoding}");
        if encoded {
            assert_eq!(answer.headers()["content-encoding"], "base64");
            let values: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            let text = values["acme:variable:inventory/db/password"].as_str().unwrap();
            assert!(text.ends_with('\n') && text.lines().all(|line| line.len() <= 60), "{text}");
            assert_eq!(STANDARD.decode(text.replace('\n', "")).unwrap(), value);
        }
    }
}

#[tokio::test]
async fn versions_are_kept_and_counted() {
    let (conjur, api_key) = server().await;
    let token = token(&conjur, &api_key).await;
    let path = "/secrets/acme/variable/inventory%2Fdb%2Fpassword";
    for number in 2..=21 {
        assert_eq!(conjur.set(PASSWORD, format!("pw-{number}")), number);
    }
    assert_eq!(get(&conjur, &token, path).await, (200, "pw-21".to_owned()));
    assert_eq!(get(&conjur, &token, &format!("{path}?version=2")).await, (200, "pw-2".to_owned()));
    for missing in ["1", "22", "x"] {
        assert_eq!(get(&conjur, &token, &format!("{path}?version={missing}")).await.0, 404);
    }
    let request = client(&conjur).post(format!("{}{path}", conjur.url())).body("pw-22");
    let request = request.header("authorization", format!("Token token=\"{token}\""));
    assert_eq!(request.send().await.unwrap().status(), 201);
    assert_eq!((conjur.version(PASSWORD), conjur.value(PASSWORD)), (Some(22), Some(b"pw-22".to_vec())));
    assert_eq!(ask(&conjur, &token, Method::POST, path).await.0, 422);
}

#[tokio::test]
async fn a_rotator_runs_in_its_own_round() {
    let (conjur, api_key) = server().await;
    let token = token(&conjur, &api_key).await;
    let (path, shown) = (
        "/secrets/acme/variable/inventory%2Fdb%2Fpassword?expirations",
        "/resources/acme/variable/inventory%2Fdb%2Fpassword",
    );
    // Without a rotator nothing will come of it, and Conjur says yes all the same.
    assert_eq!(ask(&conjur, &token, Method::POST, path).await.0, 201);
    assert!(conjur.run_rotators().is_empty());
    conjur.annotate(PASSWORD, "rotation/rotator", "postgresql/password");
    assert_eq!(ask(&conjur, &token, Method::POST, path).await.0, 201);
    assert_eq!(conjur.version(PASSWORD), Some(1));
    assert_eq!(conjur.run_rotators(), [PASSWORD]);
    assert_eq!(conjur.version(PASSWORD), Some(2));
    assert!(conjur.run_rotators().is_empty());
    let (_, body) = get(&conjur, &token, shown).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["secrets"][0], json!({"version": 1, "expires_at": null}));
    assert!(body["secrets"][1]["expires_at"].is_u64(), "{body}");
    assert_eq!(body["annotations"][0]["name"], "rotation/rotator");
    conjur.rotate_at_once(true);
    assert_eq!(ask(&conjur, &token, Method::POST, path).await.0, 201);
    assert_eq!(conjur.version(PASSWORD), Some(3));
    conjur.deny("jit-broker", PASSWORD);
    assert_eq!(ask(&conjur, &token, Method::POST, path).await.0, 404);
    conjur.permit("jit-broker", PASSWORD, &[Privilege::Execute]);
    assert_eq!(ask(&conjur, &token, Method::POST, path).await.0, 403);
}

#[tokio::test]
async fn privileges_can_be_asked_for() {
    let (conjur, api_key) = server().await;
    let token = token(&conjur, &api_key).await;
    conjur.deny("jit-broker", PASSWORD);
    conjur.permit("jit-broker", PASSWORD, &[Privilege::Execute]);
    let path = "/resources/acme/variable/inventory%2Fdb%2Fpassword?check=true";
    for (more, status) in [("&privilege=execute", 204), ("&privilege=update", 404), ("", 422)] {
        assert_eq!(get(&conjur, &token, &format!("{path}{more}")).await.0, status, "{more}");
    }
    assert_eq!(get(&conjur, &token, "/resources/acme/variable/nothing?check=true&privilege=execute").await.0, 404);
}

#[tokio::test]
async fn a_failure_can_be_played_and_is_over() {
    let (conjur, api_key) = server().await;
    conjur.fail_next(1, 503);
    assert_eq!(log_in(&conjur, &api_key).await.status(), 503);
    assert_eq!(log_in(&conjur, &api_key).await.status(), 200);
}

#[tokio::test]
async fn it_speaks_tls_with_an_authority_of_its_own() {
    let conjur = Conjur::start_tls("acme").await.unwrap();
    let api_key = conjur.host("jit-broker");
    assert!(conjur.url().starts_with("https://127.0.0.1:"));
    assert_eq!(log_in(&conjur, &api_key).await.status(), 200);
    let stranger = Conjur::start_tls("acme").await.unwrap();
    let request = client(&stranger).post(format!("{}/authn/acme/host%2Fjit-broker/authenticate", conjur.url()));
    assert!(request.body(api_key).send().await.is_err());
}

#[tokio::test]
async fn what_is_noted_is_the_request_without_its_secrets() {
    let (conjur, api_key) = server().await;
    let token = token(&conjur, &api_key).await;
    let odd = "/secrets/acme/variable/a%2fb%20c?version=1";
    get(&conjur, &token, odd).await;
    let wrong = client(&conjur).get(format!("{}/secrets", conjur.url())).header("authorization", "Bearer hush");
    wrong.send().await.unwrap();
    let noted = conjur.requests();
    assert_eq!(noted[1], "GET /secrets/acme/variable/a%2Fb%20c?version=1\nauthorization: Token token=\"<token>\"\n");
    assert_eq!(noted[2], "GET /secrets\nauthorization: <something else>\n");
    for secret in [api_key.as_str(), &token, "hush"] {
        assert!(noted.iter().all(|text| !text.contains(secret)));
    }
    conjur.forget_requests();
    assert!(conjur.requests().is_empty());
}

/// The requests that the driver's own tests hold it to: each is taken here, byte for byte.
#[tokio::test]
async fn it_takes_each_request_of_the_drivers_fixtures() {
    let (conjur, api_key) = server().await;
    conjur.set(PASSWORD, "pw-2");
    conjur.set(PASSWORD, "pw-3");
    conjur.set("inventory/db/username", "app");
    conjur.permit("jit-broker", "inventory/db/username", &[Privilege::Execute]);
    let key = Key::generate("one").unwrap();
    conjur.authenticator(
        "kubernetes",
        JwtAuthenticator {
            issuer: "https://issuer.test".into(),
            audience: "conjur".into(),
            keys: vec![key.public.clone()],
            claim: Some("sub".into()),
            path: String::new(),
        },
    );
    let claims = json!({"iss": "https://issuer.test", "aud": "conjur", "sub": "jit-broker", "exp": now() + 600});
    let secrets = [
        ("<api-key>", api_key.clone()),
        ("<token>", token(&conjur, &api_key).await),
        ("<jwt>", key.token(&claims).unwrap()),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/driver-conjur/fixtures");
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let fixture = std::fs::read_to_string(&name).unwrap();
        let with_secrets = secrets.iter().fold(fixture.clone(), |text, (mark, secret)| text.replace(mark, secret));
        let (head, body) = with_secrets.split_once("\n\n").unwrap_or((&with_secrets, ""));
        let mut lines = head.lines();
        let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
        let mut request = client(&conjur).request(method.parse().unwrap(), format!("{}{path}", conjur.url()));
        for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.body(body.trim_end().to_owned());
        }
        conjur.forget_requests();
        let status = request.send().await.unwrap().status();
        assert!(status.is_success(), "{}: {status}", name.display());
        assert_eq!(conjur.requests(), [fixture], "{}", name.display());
    }
}
