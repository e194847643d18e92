//! What comes in over HTTP: whatever it is, the reply is one that the contract names, nothing of
//! it reaches SQL, and the broker goes on.

use jit_tests::http::reply;
use jit_tests::wire::{exchange, request};
use jit_tests::{Client, Reply, Wire, World};
use serde_json::{Value, json};
use url::Url;

/// Texts that break something where they are put together carelessly.
const HOSTILE: &[&str] = &[
    "'; DROP TABLE items; --",
    "\" CASCADE; DROP ROLE postgres; --",
    "$$; SELECT pg_sleep(100); $$",
    "x\0y",
    "line\r\nx-injected: 1",
    "\u{1b}[2J",
    "😀 \u{202e}desrever",
    "..\\..\\%2e%2e/",
    "%s%n{}${jndi:ldap://x}",
    "",
];

async fn post_text(client: &Client, path: &str, token: &str, body: impl Into<Vec<u8>>) -> Reply {
    let post = client.raw().post(format!("{}{path}", client.broker)).bearer_auth(token);
    reply(post.header("content-type", "application/json").body(body.into())).await.unwrap()
}

/// The database is as it was made, and the world has these accounts.
async fn assert_nothing_reached_sql(world: &World, accounts: usize) {
    assert_eq!(world.database.value("SELECT count(*) FROM items").await.unwrap(), "3");
    assert_eq!(world.accounts().await.len(), accounts);
}

#[tokio::test]
async fn a_body_that_is_not_what_is_expected_is_a_400_that_says_so() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let lease = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(lease.status, 201, "{}", lease.text);
    let nested = "[".repeat(20_000);
    let bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "{",
        "[]",
        "[\"inventory_db\"]",
        "[\"inventory_db\", \"app_read_only\"]",
        "null",
        "7",
        "\"inventory_db\"",
        "{\"target\": \"inventory_db\"} x",
        "{\"target\": \"inventory_db\"}{}",
        "{\"target\": \"inventory_db\", \"target\": \"inventory_db\"}",
        "{'target': 'inventory_db'}",
        "{\"target\": \"inventory_db\",}",
        "{\"target\": \"\\ud800\"}",
        "\u{feff}{\"target\": \"inventory_db\"}",
        "{\"target\": NaN}",
        nested.as_str(),
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .chain([b"{\"target\": \"\xff\xfe\"}".to_vec(), vec![0; 100]])
    .collect();
    let renew = format!("/v1/leases/{}/renew", lease.lease());
    for path in ["/issue", "/v1/issue", "/v1/simulate", &renew] {
        for body in &bodies {
            let refused = post_text(&client, path, &token, body.clone()).await;
            refused.assert_problem(400, "invalid-request");
            assert!(refused.text.len() < 2_000, "{path} repeats what it was sent");
        }
    }
    for wrong in [
        json!({}),
        json!({"target": 7}),
        json!({"target": null}),
        json!({"target": ["inventory_db"]}),
        json!({"target": "inventory_db", "role": 1}),
        json!({"target": "inventory_db", "rolle": "app_read_only"}),
        json!({"target": "inventory_db", "reason": {"a": 1}}),
        json!({"target": "inventory_db", "metadata": []}),
        json!({"target": "inventory_db", "metadata": {"build": 7}}),
        json!({"target": "inventory_db", "metadata": {"a": {"b": "c"}}}),
        json!({"target": "inventory_db", "workload": "payment-admin"}),
    ] {
        for path in ["/issue", "/v1/simulate"] {
            client.post(path, &token, &wrong).await.unwrap().assert_problem(400, "invalid-request");
        }
    }
    let unknown = client.post(&renew, &token, &json!({"target": "inventory_db"})).await.unwrap();
    unknown.assert_problem(400, "invalid-request");
    assert_nothing_reached_sql(&world, 1).await;
}

#[tokio::test]
async fn a_ttl_is_a_duration_or_whole_seconds_and_is_lowered_to_the_cap() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let wrong = [
        json!("0s"),
        json!("0"),
        json!(0),
        json!("-5m"),
        json!(-1),
        json!(1.5),
        json!("1.5h"),
        json!(-1e300),
        json!("-99999999999999999999d"),
        json!("h"),
        json!(""),
        json!(" 1h"),
        json!("30m1h"),
        json!("1H"),
        json!("0x10"),
        json!("١h"),
        json!("1\0h"),
        json!(true),
        json!(["1h"]),
        json!({"secs": 1}),
    ];
    let lease = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!((lease.status, &lease.json["ttl_seconds"]), (201, &json!(3_600)), "{}", lease.text);
    assert_eq!(lease.json["role"], "app_read_only", "the target's default");
    for ttl in wrong {
        for path in ["/issue", "/v1/simulate"] {
            let body = json!({"target": "inventory_db", "ttl": ttl});
            client.post(path, &token, &body).await.unwrap().assert_problem(400, "invalid-request");
        }
        let path = format!("/v1/leases/{}/renew", lease.lease());
        client.post(&path, &token, &json!({"ttl": ttl})).await.unwrap().assert_problem(400, "invalid-request");
    }
    for (ttl, seconds) in [
        (json!("90s"), 90),
        (json!("30m"), 1_800),
        (json!("1h30m"), 5_400),
        (json!("45"), 45),
        (json!(60), 60),
        (json!(null), 3_600),
        (json!("9h"), 28_800),
        (json!("3650d"), 28_800),
        (json!("99999999999999999999d"), 28_800),
        (json!("9223372036854775808"), 28_800),
        (json!(1_000_000_000), 28_800),
        (json!(i64::MAX), 28_800),
        (json!(u64::MAX), 28_800),
        (json!(1e300), 28_800),
    ] {
        let body = json!({"target": "inventory_db", "ttl": ttl});
        let simulated = client.post("/v1/simulate", &token, &body).await.unwrap();
        assert_eq!(simulated.json["effective"]["ttl_seconds"], seconds, "{ttl}: {}", simulated.text);
    }
    let path = format!("/v1/leases/{}/renew", lease.lease());
    let renewed = client.post(&path, &token, &json!({"ttl": 1u64 << 63})).await.unwrap();
    // The cap counts from the issue, which was a moment ago.
    let seconds = renewed.json["ttl_seconds"].as_u64().unwrap_or_default();
    assert!(renewed.status == 200 && (28_000..=28_800).contains(&seconds), "{}", renewed.text);
    assert_nothing_reached_sql(&world, 1).await;
}

#[tokio::test]
async fn hostile_texts_are_refused_by_field_and_never_reach_sql() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let long = "x".repeat(30_000);
    for text in HOSTILE.iter().copied().chain([long.as_str()]) {
        for path in ["/issue", "/v1/simulate"] {
            for (field, body) in [
                ("target", json!({"target": text})),
                ("role", json!({"target": "inventory_db", "role": text})),
                ("metadata", json!({"target": "inventory_db", "metadata": {text: "x"}})),
            ] {
                let refused = client.post(path, &token, &body).await.unwrap();
                refused.assert_problem(400, "invalid-request");
                assert_eq!(refused.json["field"], field, "{}", refused.text);
            }
            if !text.chars().any(char::is_control) && text.len() < 1_000 {
                continue; // A text for people: see the next test.
            }
            for (field, body) in [
                ("reason", json!({"target": "inventory_db", "reason": text})),
                ("ticket", json!({"target": "inventory_db", "ticket": text})),
                ("metadata", json!({"target": "inventory_db", "metadata": {"key": text}})),
            ] {
                let refused = client.post(path, &token, &body).await.unwrap();
                refused.assert_problem(400, "invalid-request");
                assert_eq!(refused.json["field"], field, "{}", refused.text);
            }
        }
        for query in ["target", "state", "cursor", "limit", "unknown"] {
            let url = Url::parse_with_params(&format!("{}/v1/leases", client.broker), [(query, text)]).unwrap();
            let get = client.raw().get(url).bearer_auth(&token);
            reply(get).await.unwrap().assert_problem(400, "invalid-request");
        }
    }
    let many: Value = (0..17).map(|n| (format!("key{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    let refused = client.issue(&token, &json!({"target": "inventory_db", "metadata": many})).await.unwrap();
    refused.assert_problem(400, "invalid-request");
    let authorization = format!("Bearer {token}");
    let body = br#"{"target": "inventory_db"}"#;
    let with_keys = async |keys: &[&[u8]]| {
        let mut headers = vec![("authorization", authorization.as_bytes()), ("content-type", b"application/json")];
        headers.extend(keys.iter().map(|key| ("idempotency-key", *key)));
        exchange(&client.broker, b"POST /issue", &headers, body).await.unwrap()
    };
    let long_key = vec![b'k'; 129];
    for keys in [
        &[&b""[..]][..],
        &[b"a b"],
        &[b"a\tb"],
        &["schlüssel".as_bytes()],
        &["😀".as_bytes()],
        &[b"\xff\xfe"],
        &[&long_key],
        &[b"one", b"two"],
        &[b"same", b"same"],
    ] {
        let refused = with_keys(keys).await;
        refused.assert_problem(400, "invalid-request");
        assert_eq!(refused.json["field"], "Idempotency-Key");
    }
    let visible = with_keys(&[b"'; DROP TABLE leases; --".as_slice().split(|b| *b == b' ').next().unwrap()]).await;
    assert_eq!(visible.status, 201, "{}", visible.text);
    assert_nothing_reached_sql(&world, 1).await;
    assert_eq!(world.leases().len(), 1);
}

#[tokio::test]
async fn texts_for_people_keep_their_quotes_and_letters_to_the_byte() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let odd = "O'Brien's \"nightly\" job; DROP TABLE items; -- 😀 \\ $1 %s {} <b>&amp; ß";
    let longest = "é".repeat(512);
    for reason in [odd, longest.as_str()] {
        let body = json!({"target": "inventory_db", "reason": reason, "ticket": "OPS-'42\"", "metadata": {"a.b": odd}});
        let issued = client.issue(&token, &body).await.unwrap();
        assert_eq!(issued.status, 201, "{}", issued.text);
        let records = world.events("issue.granted");
        let record = records.iter().find(|record| record["lease_id"] == issued.lease()).unwrap();
        assert_eq!(record["reason"], reason);
        assert_eq!(record["ticket"], "OPS-'42\"");
        assert_eq!(record["input"]["metadata"]["a.b"], odd);
        let lease = client.get(&format!("/v1/leases/{}", issued.lease()), &token).await.unwrap();
        assert_eq!(lease.json["reason"], reason);
        assert_eq!(lease.json["metadata"]["a.b"], odd);
    }
    assert_nothing_reached_sql(&world, 2).await;
    world.assert_log_is_intact();
}

#[tokio::test]
async fn a_body_that_is_too_large_or_no_json_is_not_read() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let authorization = format!("Bearer {token}");
    let json_headers = [("authorization", authorization.as_bytes()), ("content-type", &b"application/json"[..])];
    let huge = json!({"target": "inventory_db", "reason": "x".repeat(10_000_000)}).to_string();
    for path in ["/issue", "/v1/simulate", "/v1/leases/lease_x/renew"] {
        // Told of the length alone, and asked whether to send it: the broker does not wait for the rest.
        let head = request(format!("POST {path}").as_bytes(), &json_headers, &[]);
        let head = String::from_utf8(head)
            .unwrap()
            .replace("content-length: 0", "expect: 100-continue\r\ncontent-length: 10000000");
        let mut wire = Wire::connect(&client.broker).await.unwrap();
        wire.send(head.as_bytes()).await.unwrap();
        wire.reply().await.unwrap().assert_problem(413, "payload-too-large");
        // Half sent, sent whole, and sent without a length.
        let mut wire = Wire::connect(&client.broker).await.unwrap();
        wire.send(head.replace("expect: 100-continue\r\n", "").as_bytes()).await.unwrap();
        wire.send(&vec![b' '; 1_000_000]).await.unwrap();
        wire.reply().await.unwrap().assert_problem(413, "payload-too-large");
        post_text(&client, path, &token, huge.clone()).await.assert_problem(413, "payload-too-large");
        let head = request(format!("POST {path}").as_bytes(), &json_headers, &[]);
        let head = String::from_utf8(head).unwrap().replace("content-length: 0", "transfer-encoding: chunked");
        let mut wire = Wire::connect(&client.broker).await.unwrap();
        wire.send(head.as_bytes()).await.unwrap();
        wire.send(format!("{:x}\r\n{}\r\n", 70_000, "x".repeat(70_000)).as_bytes()).await.unwrap();
        wire.reply().await.unwrap().assert_problem(413, "payload-too-large");

        let body = json!({"target": "inventory_db"}).to_string();
        for kind in [
            &b"text/plain"[..],
            b"application/x-www-form-urlencoded",
            b"application/jsonx",
            b"application/problem+json",
            b"\xff",
            b"",
        ] {
            let headers = [("authorization", authorization.as_bytes()), ("content-type", kind)];
            let line = format!("POST {path}");
            let refused = exchange(&client.broker, line.as_bytes(), &headers, body.as_bytes()).await.unwrap();
            refused.assert_problem(415, "unsupported-media-type");
        }
        let line = format!("POST {path}");
        let untyped = exchange(&client.broker, line.as_bytes(), &json_headers[..1], body.as_bytes()).await.unwrap();
        untyped.assert_problem(415, "unsupported-media-type");
    }
    let headers = [json_headers[0], ("content-type", b"Application/JSON; charset=utf-8")];
    let fine = exchange(&client.broker, b"POST /issue", &headers, br#"{"target": "inventory_db"}"#).await.unwrap();
    assert_eq!(fine.status, 201, "{}", fine.text);
    assert_nothing_reached_sql(&world, 1).await;
}

#[tokio::test]
async fn other_paths_methods_and_bytes_are_told_as_problems_too() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_bytes())];
    let send = async |line: &[u8]| exchange(&client.broker, line, &headers, b"").await.unwrap();
    for (line, allow) in [
        ("GET /issue", "POST"),
        ("PUT /issue", "POST"),
        ("FOO /v1/issue", "POST"),
        ("DELETE /v1/leases", "GET,HEAD"),
        ("POST /v1/leases/x", "GET,HEAD"),
        ("GET /v1/leases/x/renew", "POST"),
        ("GET /v1/leases/x/revoke", "POST"),
        ("POST /livez", "GET,HEAD"),
        ("POST /openapi.json", "GET,HEAD"),
    ] {
        let refused = send(line.as_bytes()).await;
        refused.assert_problem(405, "method-not-allowed");
        assert_eq!(refused.headers["allow"], allow, "{line}");
    }
    for path in
        ["/", "/issue/", "/Issue", "/v2/issue", "/v1/leases/x/y/z", "/admin/leases", "/../etc/passwd", "/%2e%2e", "/😀"]
    {
        send(format!("POST {path}").as_bytes()).await.assert_problem(404, "not-found");
    }
    for id in ["x", "lease_", "lease_01jd3x7k2m9v5q8w4r6t0y1z3b", "%00", "%27%20OR%201=1", "%F0%9F%98%80", "..%2f.."] {
        for line in [format!("GET /v1/leases/{id}"), format!("POST /v1/leases/{id}/revoke")] {
            send(line.as_bytes()).await.assert_problem(404, "unknown-lease");
        }
    }
    for line in [
        &b"GET /v1/leases/%FF"[..],
        b"POST /v1/leases/%C3%28/revoke",
        b"GET /v1/leases?limit=abc",
        b"GET /v1/leases?limit=0",
        b"GET /v1/leases?limit=501",
        b"GET /v1/leases?limit=-1",
        b"GET /v1/leases?limit=1&limit=2",
        b"GET /v1/leases?state=gone",
        b"GET /v1/leases?target=%27",
        b"GET /v1/leases?cursor=%00",
        b"GET /v1/leases?%FF=1",
        b"GET /v1/leases?target=%FF",
    ] {
        send(line).await.assert_problem(400, "invalid-request");
    }
    // What is no HTTP is refused before anybody can say a request id.
    let long = format!("GET /{}", "x".repeat(70_000));
    for line in [&b"GET /\xff"[..], b"GET  /livez", b"\0\0\0", long.as_bytes()] {
        let refused = send(line).await;
        assert!((400..500).contains(&refused.status), "{}", refused.status);
    }
    let answers = send(b"GET /livez").await;
    assert_eq!((answers.status, answers.text.as_str()), (200, "ok\n"));
    assert_nothing_reached_sql(&world, 0).await;
}
