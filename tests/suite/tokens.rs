//! Who is not believed: each wrong token is the same 401 to its bearer, and has its reason in the
//! log.

use jit_tests::http::reply;
use jit_tests::issuer::{message, now};
use jit_tests::wire::exchange;
use jit_tests::{Client, Issuer, Key, Reply, Settings, World};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

const BODY: &[u8] = br#"{"target": "inventory_db"}"#;

/// An `[[identity.jwt]]` entry.
fn entry(name: &str, issuer: &str) -> String {
    format!(
        "[[identity.jwt]]\nname = \"{name}\"\nissuer = \"{issuer}\"\naudiences = [\"jit-broker\"]\nworkload = \"{{sub}}\"\n"
    )
}

/// `POST /issue` with that `Authorization`, or several, or none.
async fn issue(client: &Client, authorization: &[&[u8]]) -> Reply {
    let mut headers = vec![("content-type", &b"application/json"[..])];
    headers.extend(authorization.iter().map(|value| ("authorization", *value)));
    exchange(&client.broker, b"POST /issue", &headers, BODY).await.unwrap()
}

/// The reply as each wrong token gets it.
fn without_id(reply: &Reply) -> Value {
    let mut json = reply.json.clone();
    json.as_object_mut().unwrap().remove("request_id");
    json
}

/// A refusal that tells nothing, with the reason in the log under the same request id.
fn assert_refused(world: &mut World, refused: &Reply, reason: &str) {
    refused.assert_problem(401, "unauthenticated");
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    let id = refused.text_at("/request_id").to_owned();
    let log = world.process().log();
    let line = log.lines().find(|line| line.contains(&id)).unwrap_or_else(|| panic!("no line about {id} in {log}"));
    assert!(line.contains(reason), "not {reason:?}: {line}");
}

#[tokio::test]
async fn a_wrong_token_is_the_same_401_whatever_is_wrong_with_it() {
    let (key, foreign) = (Key::generate("key-1").unwrap(), Key::generate("key-1").unwrap());
    let issuer = Issuer::start(&[&key]).await.unwrap();
    let mut world = World::with(Settings { more: entry("own", &issuer.url), ..Settings::default() }).await;
    let client = world.client();
    let good = issuer.claims("payment-service");
    let with = |field: &str, value: Value| {
        let mut claims = good.clone();
        claims[field] = value;
        claims
    };
    let without = |field: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(field);
        claims
    };
    let header = json!({"alg": "ES256", "typ": "JWT", "kid": "key-1"});
    let headed = |field: &str, value: Value| {
        let mut header = header.clone();
        header[field] = value;
        key.sign(&header, &good).unwrap()
    };
    let token = key.token(&good).unwrap();
    let accepted = issue(&client, &[format!("Bearer {token}").as_bytes()]).await;
    assert_eq!(accepted.status, 201, "{}", accepted.text);

    let symmetric = |secret: &[u8]| {
        let message = message(&json!({"alg": "HS256", "typ": "JWT", "kid": "key-1"}), &good);
        let key = EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    };
    let jwk = key.public.to_string();
    let (head, signature) = token.rsplit_once('.').unwrap();
    let swapped = message(&header, &with("sub", json!("payment-admin")));
    let hour = 3_600;
    let cases: Vec<(String, &str)> = vec![
        (key.token(&with("exp", json!(now() - hour))).unwrap(), "expired"),
        (key.token(&with("nbf", json!(now() + hour))).unwrap(), "not yet valid"),
        (key.token(&with("iat", json!(now() + hour))).unwrap(), "not yet valid"),
        (key.token(&with("iss", json!("https://issuer.example"))).unwrap(), "no issuer"),
        (key.token(&with("iss", json!(format!("{}/", issuer.url)))).unwrap(), "no issuer"),
        (key.token(&with("aud", json!("vault"))).unwrap(), "audience"),
        (key.token(&with("aud", json!([]))).unwrap(), "audience"),
        (key.token(&without("aud")).unwrap(), "`aud`"),
        (key.token(&without("exp")).unwrap(), "`exp`"),
        (key.token(&without("iss")).unwrap(), "`iss`"),
        (key.token(&without("sub")).unwrap(), "`sub`"),
        (key.token(&with("exp", json!("tomorrow"))).unwrap(), "not a JSON object with iss, aud and exp"),
        (key.token(&with("sub", json!(""))).unwrap(), "claim is empty"),
        (key.token(&with("sub", json!("payment\nservice"))).unwrap(), "control"),
        (format!("{}.", message(&json!({"alg": "none"}), &good)), "none"),
        (format!("{}.", message(&json!({"alg": "None", "kid": "key-1"}), &good)), "None"),
        (symmetric(&key.point), "HS256"),
        (symmetric(jwk.as_bytes()), "HS256"),
        (headed("alg", json!("ES384")), "ES384"),
        (headed("kid", json!("key-2")), "key-2"),
        (headed("crit", json!(["exp"])), "crit"),
        (headed("typ", json!("logout+jwt")), "logout+jwt"),
        (foreign.token(&good).unwrap(), "bad signature"),
        (format!("{swapped}.{signature}"), "bad signature"),
        (format!("{head}."), "bad signature"),
        (format!("{head}.{}", "A".repeat(86)), "bad signature"),
        (head.to_owned(), ""),
        ("nonsense".to_owned(), "not a JWT"),
        ("..".to_owned(), "not a JWT"),
        ("e30.e30.e30".to_owned(), "not a JWT"),
        (format!("{token}.x"), "not"),
        ("a".repeat(40_000), "longer than"),
    ];
    let first = issue(&client, &[]).await;
    assert_refused(&mut world, &first, "Authorization");
    // That there is none may be said: whoever sent none knows it.
    let first = issue(&client, &[b"Bearer nonsense"]).await;
    for (token, reason) in &cases {
        let refused = issue(&client, &[format!("Bearer {token}").as_bytes()]).await;
        assert_refused(&mut world, &refused, reason);
        assert_eq!(without_id(&refused), without_id(&first), "{reason}: the reply tells what is wrong");
    }
    let bearer = format!("Bearer {token}");
    let twice = [bearer.as_bytes(), bearer.as_bytes()];
    let basic = format!("Basic {token}");
    let wrong_scheme = [&b"Bearer"[..], b"Bearer ", b"", token.as_bytes(), b"Bearer \xff\xfe", basic.as_bytes()];
    for authorization in wrong_scheme.iter().map(|value| vec![*value]).chain([twice.to_vec()]) {
        let refused = issue(&client, &authorization).await;
        assert_refused(&mut world, &refused, "");
        assert_eq!(without_id(&refused), without_id(&first));
    }
    // A head of a megabyte is refused before it is read.
    let huge = issue(&client, &[format!("Bearer {}", "a".repeat(1_000_000)).as_bytes()]).await;
    assert_eq!(huge.status, 431);
    let everywhere = ["/v1/issue", "/v1/simulate", "/v1/leases/x/renew", "/v1/leases/x/revoke"];
    for path in everywhere {
        let refused = client.post(path, "nonsense", &json!({"target": "inventory_db"})).await.unwrap();
        assert_eq!(without_id(&refused), without_id(&first), "{path}");
    }
    assert_eq!(world.accounts().await.len(), 1, "only the good token got an account");
    let log = world.process().log();
    assert!(!log.contains(signature), "no token is in the log");
}

#[tokio::test]
async fn a_rotation_of_keys_is_picked_up_without_a_restart() {
    let world = World::new().await;
    let client = world.client();
    let old = client.token("payment-service").await.unwrap();
    let simulate = async |token: &str| {
        client.post("/v1/simulate", token, &json!({"target": "inventory_db"})).await.unwrap().status
    };
    let rotate = async |query: &str| {
        let rotated = reply(client.raw().post(format!("{}/rotate{query}", client.issuer))).await.unwrap();
        assert_eq!(rotated.status, 200, "{}", rotated.text);
    };
    assert_eq!(simulate(&old).await, 200);
    rotate("").await;
    let new = client.token("payment-service").await.unwrap();
    assert_eq!(simulate(&new).await, 200, "a token of the new key, at once");
    assert_eq!(simulate(&old).await, 200, "the old key is still published");
    rotate("?drop=1").await;
    let newest = client.token("payment-service").await.unwrap();
    assert_eq!(simulate(&newest).await, 200);
    // The key set that brought the newest key has no other: also tokens verified a moment ago fall.
    assert_eq!(simulate(&old).await, 401);
    assert_eq!(simulate(&new).await, 401);
}

#[tokio::test]
async fn an_issuer_that_is_away_refuses_its_own_tokens_and_no_others() {
    let key = Key::generate("key-1").unwrap();
    let good = Issuer::start(&[&key]).await.unwrap();
    // A port that was free a moment ago and has no listener any more.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = format!("http://{closed}");
    let more = format!("{}{}", entry("away", &away), entry("good", &good.url));
    let mut world = World::with(Settings { more, ..Settings::default() }).await;
    let client = world.client();
    let mut claims = good.claims("payment-service");
    let accepted = issue(&client, &[format!("Bearer {}", key.token(&claims).unwrap()).as_bytes()]).await;
    assert_eq!(accepted.status, 201, "{}", accepted.text);
    claims["iss"] = json!(away);
    let refused = issue(&client, &[format!("Bearer {}", key.token(&claims).unwrap()).as_bytes()]).await;
    assert_refused(&mut world, &refused, "keys of issuer `away` are not available");
    let embedded = client.token("payment-service").await.unwrap();
    assert_eq!(client.issue(&embedded, &json!({"target": "inventory_db"})).await.unwrap().status, 201);
}

/// No valid signature is needed to wait for an issuer that hangs: who does takes no room from anybody.
#[tokio::test]
async fn who_waits_for_a_slow_issuer_takes_no_room_from_others() {
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", hanging.local_addr().unwrap());
    let settings =
        Settings { more: entry("slow", &url), server: "max_in_flight = 1".to_owned(), ..Settings::default() };
    let world = World::with(settings).await;
    let client = world.client();
    let claims = json!({"iss": url, "sub": "x", "aud": ["jit-broker"], "exp": now() + 600});
    let mut strangers = tokio::task::JoinSet::new();
    for number in 0..8 {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": format!("k{number}")});
        let forged = format!("Bearer {}.c2lnbmF0dXJl", message(&header, &claims));
        let client = client.clone();
        strangers.spawn(async move { issue(&client, &[forged.as_bytes()]).await });
    }
    let (mut asked, _) = hanging.accept().await.unwrap();
    let token = client.token("payment-service").await.unwrap();
    for _ in 0..3 {
        let issued = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
        assert_eq!(issued.status, 201, "{}", issued.text);
    }
    // An answer that is none ends the wait of all of them.
    tokio::io::AsyncWriteExt::write_all(&mut asked, b"no HTTP\r\n\r\n").await.unwrap();
    drop((asked, hanging));
    while let Some(refused) = strangers.join_next().await {
        refused.unwrap().assert_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn two_issuers_workloads_of_one_name_are_two_callers() {
    let key = Key::generate("key-1").unwrap();
    let issuer = Issuer::start(&[&key]).await.unwrap();
    let world = World::with(Settings { more: entry("other", &issuer.url), ..Settings::default() }).await;
    let client = world.client();
    let ours = client.token("payment-service").await.unwrap();
    let theirs = key.token(&issuer.claims("payment-service")).unwrap();
    let lease = client.issue(&ours, &json!({"target": "inventory_db"})).await.unwrap();
    let path = format!("/v1/leases/{}", lease.lease());
    assert_eq!(client.get(&path, &ours).await.unwrap().status, 200);
    client.get(&path, &theirs).await.unwrap().assert_problem(404, "unknown-lease");
}
