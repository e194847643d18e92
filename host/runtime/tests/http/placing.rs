//! Where secrets are placed in a request, and how they are kept out of its answer.

use super::*;

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
