//! Keys: fetched once, kept, rotated, and what an issuer that fails or lies can do.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::issuer::{Issuer, Key, Mode, b64, bearer, config, identity, options, try_identity};
use crate::{Identity, IdentityError, IdentityOptions, KeyUrl, Rejected};

/// Far above every deadline in here: reached only by something that hangs.
const HANGS: Duration = Duration::from_secs(60);

async fn refused(identity: &Identity, token: &str) -> Rejected {
    timeout(HANGS, identity.verify(bearer(token))).await.unwrap().unwrap_err()
}

/// Polls once, which is as far as a future gets before it waits for the network.
async fn pending_after_one_poll<F: Future + Unpin>(future: &mut F) -> bool {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context).is_pending())).await
}

#[tokio::test]
async fn many_first_callers_share_one_fetch() {
    let issuer = Issuer::start().await;
    let identity = issuer.identity();
    let tokens: Vec<_> = (0..100).map(|_| issuer.token()).collect();
    let verdicts = join_all(tokens.iter().map(|token| identity.verify(bearer(token)))).await;
    assert!(verdicts.iter().all(Result::is_ok));
    assert_eq!((issuer.requests(), issuer.key_fetches()), (2, 1));
}

#[tokio::test]
async fn warming_fetches_before_the_first_caller() {
    let issuer = Issuer::start().await;
    let identity = issuer.identity();
    identity.warm().await;
    identity.warm().await;
    assert_eq!(issuer.key_fetches(), 1);
    issuer.set_mode(Mode::Error);
    identity.verify(bearer(&issuer.token())).await.unwrap();
}

#[tokio::test]
async fn unknown_kids_cause_one_fetch_and_no_storm() {
    let issuer = Issuer::start().await;
    let mut options = options();
    options.keys.unknown_kid_interval = HANGS;
    let identity = identity(vec![issuer.config()], &options);
    identity.verify(bearer(&issuer.token())).await.unwrap();

    let unknown = |kid: String| issuer.key.token_with(&json!({"alg": "ES256", "kid": kid}), &issuer.claims());
    for _ in 0..5 {
        let reason = refused(&identity, &unknown("k2".to_owned())).await;
        assert_eq!(reason.label(), "unknown_key");
    }
    assert_eq!(issuer.key_fetches(), 2, "one for the keys, one for the unknown kid");

    let tokens: Vec<_> = (0..200).map(|i| unknown(format!("random-{i}"))).collect();
    let verdicts = join_all(tokens.iter().map(|token| identity.verify(bearer(token)))).await;
    assert!(verdicts.iter().all(Result::is_err));
    assert_eq!(issuer.key_fetches(), 3, "what is left of the burst, and no more");
    identity.verify(bearer(&issuer.token())).await.unwrap();
}

#[tokio::test]
async fn rotations_are_picked_up_without_a_restart() {
    let issuer = Issuer::start().await;
    let identity = issuer.identity();
    identity.verify(bearer(&issuer.token())).await.unwrap();

    // To another key, and at once to one of another algorithm.
    for new in [Key::new("k2", "ES256"), Key::new("k3", "RS256")] {
        issuer.publish(vec![new.jwk()]);
        identity.verify(bearer(&new.token(&issuer.claims()))).await.unwrap();
    }
    assert_eq!(issuer.key_fetches(), 3);
    let old = issuer.key.token(&issuer.claims());
    assert_eq!(refused(&identity, &old).await.label(), "unknown_key");
}

#[tokio::test]
async fn a_key_published_during_a_fetch_is_found_by_the_next() {
    let issuer = Issuer::start().await;
    let identity = issuer.identity();
    identity.verify(bearer(&issuer.token())).await.unwrap();

    // A fetch is under way with the answer from before the rotation.
    let gate = Arc::new(Semaphore::new(0));
    issuer.set_mode(Mode::Gate(Arc::clone(&gate)));
    let stray = issuer.key.token_with(&json!({"alg": "ES256", "kid": "k9"}), &issuer.claims());
    let mut first = Box::pin(identity.verify(bearer(&stray)));
    assert!(pending_after_one_poll(&mut first).await);
    let on_its_way = async {
        while issuer.key_fetches() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANGS, on_its_way).await.unwrap();

    let new = Key::new("k2", "ES256");
    issuer.publish(vec![new.jwk()]);
    let token = new.token(&issuer.claims());
    let mut second = Box::pin(identity.verify(bearer(&token)));
    assert!(pending_after_one_poll(&mut second).await);
    gate.add_permits(100);
    let (first, second) = timeout(HANGS, join(first, second)).await.unwrap();
    assert_eq!(first.unwrap_err().label(), "unknown_key");
    second.unwrap();
    assert_eq!(issuer.key_fetches(), 3);
}

#[tokio::test]
async fn verified_tokens_are_remembered_until_the_keys_change() {
    let issuer = Issuer::start().await;
    let identity = issuer.identity();
    let token = issuer.token();
    let first = identity.verify(bearer(&token)).await.unwrap();
    let again = identity.verify(bearer(&token)).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again), "remembered");

    // A key more: the old token still holds, and was verified again.
    let second_key = Key::new("k2", "ES256");
    issuer.publish(vec![issuer.key.jwk(), second_key.jwk()]);
    identity.verify(bearer(&second_key.token(&issuer.claims()))).await.unwrap();
    let again = identity.verify(bearer(&token)).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &again), "verified again");

    // The old key withdrawn: whatever was remembered of it is worth nothing.
    let third_key = Key::new("k3", "ES256");
    issuer.publish(vec![third_key.jwk()]);
    identity.verify(bearer(&third_key.token(&issuer.claims()))).await.unwrap();
    assert_eq!(refused(&identity, &token).await.label(), "unknown_key");
}

#[tokio::test]
async fn remembering_ends_with_the_token_and_can_be_switched_off() {
    let issuer = Issuer::start().await;
    let mut claims = issuer.claims();
    // Expired, and accepted for the leeway only.
    claims["exp"] = json!(jiff::Timestamp::now().as_second() - 3);
    let token = issuer.key.token(&claims);
    let defaults = issuer.identity();
    let first = defaults.verify(bearer(&token)).await.unwrap();
    let again = defaults.verify(bearer(&token)).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &again));

    let off = IdentityOptions { remembered_tokens: 0, ..options() };
    let off = identity(vec![issuer.config()], &off);
    let token = issuer.token();
    let first = off.verify(bearer(&token)).await.unwrap();
    let again = off.verify(bearer(&token)).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &again));
}

#[tokio::test]
async fn an_issuer_that_is_away_refuses_nobody_it_vouched_for() {
    let issuer = Issuer::start().await;
    let identity = issuer.identity();
    identity.verify(bearer(&issuer.token())).await.unwrap();
    issuer.set_mode(Mode::Error);
    identity.verify(bearer(&issuer.token())).await.unwrap();
    let unknown = issuer.key.token_with(&json!({"alg": "ES256", "kid": "k2"}), &issuer.claims());
    assert_eq!(refused(&identity, &unknown).await.label(), "issuer_unavailable");
    identity.verify(bearer(&issuer.token())).await.unwrap();
}

#[tokio::test]
async fn keys_are_not_served_stale_for_ever() {
    let issuer = Issuer::start().await;
    let mut options = options();
    options.keys.max_stale = Duration::ZERO;
    let identity = identity(vec![issuer.config()], &options);
    identity.verify(bearer(&issuer.token())).await.unwrap();
    issuer.set_mode(Mode::Error);
    assert_eq!(refused(&identity, &issuer.token()).await.label(), "issuer_unavailable");
}

#[tokio::test]
async fn old_keys_are_fetched_again_in_the_background() {
    let issuer = Issuer::start().await;
    let mut options = options();
    options.keys.max_age = Duration::ZERO;
    let identity = identity(vec![issuer.config()], &options);
    identity.verify(bearer(&issuer.token())).await.unwrap();
    // The issuer hangs: the caller does not wait for the fetch that its use causes.
    issuer.set_mode(Mode::Hang);
    identity.verify(bearer(&issuer.token())).await.unwrap();
    let asked_again = async {
        while issuer.requests() < 3 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANGS, asked_again).await.unwrap();
    identity.verify(bearer(&issuer.token())).await.unwrap();
}

#[tokio::test]
async fn an_unreachable_issuer_is_a_clean_refusal_and_recovers() {
    let issuer = Issuer::start().await;
    let (address, entry, token) = (issuer.address, issuer.config(), issuer.token());
    let mut options = options();
    options.keys.fetch_deadline = Duration::from_millis(300);
    let identity = identity(vec![entry], &options);

    issuer.set_mode(Mode::Hang);
    let reason = refused(&identity, &token).await;
    assert!(reason.to_string().contains("no answer within 0.3 s"), "{reason}");

    let key = Key::new("k1", "ES256");
    drop(issuer);
    let reason = refused(&identity, &token).await;
    assert_eq!(reason.label(), "issuer_unavailable", "{reason}");

    let issuer = loop {
        // The dropped listener's task ends on its own time.
        if let Ok(listener) = std::net::TcpListener::bind(address) {
            drop(listener);
            break Issuer::start_again(address, key).await;
        }
        sleep(Duration::from_millis(5)).await;
    };
    identity.verify(bearer(&issuer.token())).await.unwrap();
}

#[tokio::test]
async fn failures_pause_the_fetches() {
    let issuer = Issuer::start().await;
    issuer.set_mode(Mode::Error);
    let mut options = options();
    options.keys.retry_floor = HANGS;
    options.keys.retry_ceiling = HANGS;
    let identity = identity(vec![issuer.config()], &options);
    for _ in 0..20 {
        assert_eq!(refused(&identity, &issuer.token()).await.label(), "issuer_unavailable");
    }
    assert_eq!(issuer.requests(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_end_the_fetch() {
    let issuer = Issuer::start().await;
    let identity = issuer.identity();
    let token = issuer.token();
    let mut caller = Box::pin(identity.verify(bearer(&token)));
    assert!(pending_after_one_poll(&mut caller).await);
    drop(caller);
    let fetched = async {
        while issuer.key_fetches() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANGS, fetched).await.unwrap();
    identity.verify(bearer(&token)).await.unwrap();
    assert_eq!(issuer.key_fetches(), 1);
}

#[tokio::test]
async fn documents_that_are_not_what_they_should_be_are_refused() {
    let url = |issuer: &Issuer, path: &str| format!("{}{path}", issuer.url());
    let issuer = Issuer::start().await;
    let good = issuer.config();
    for (mode, told) in [
        (Mode::Redirect, "302 Found; redirects are not followed: write the key set's own address as `jwks_url`"),
        (Mode::Truncated, "discovery document is not JSON"),
        (Mode::Error, "500"),
        (Mode::Endless(10 * 1024 * 1024), "more than 1048576 bytes"),
        (Mode::Discovery(json!([])), "discovery document is not JSON"),
        (
            Mode::Discovery(json!({"issuer": "https://other.example", "jwks_uri": url(&issuer, "/keys")})),
            "another issuer",
        ),
        (Mode::Discovery(json!({"issuer": url(&issuer, "/"), "jwks_uri": url(&issuer, "/keys")})), "another issuer"),
        (
            Mode::Discovery(json!({"issuer": issuer.url(), "jwks_uri": "http://keys.example/keys"})),
            "http is for 127.0.0.1",
        ),
        (Mode::Discovery(json!({"issuer": issuer.url(), "jwks_uri": "file:///etc/passwd"})), "the host is missing"),
        (Mode::Discovery(json!({"issuer": issuer.url(), "jwks_uri": "https://u:p@keys.example/"})), "user or password"),
    ] {
        issuer.set_mode(mode);
        let identity = identity(vec![good.clone()], &options());
        let reason = refused(&identity, &issuer.token()).await.to_string();
        assert!(reason.contains(told), "{told}: {reason}");
    }
}

#[tokio::test]
async fn a_key_set_that_turned_bad_does_not_replace_the_good_one() {
    let issuer = Issuer::start().await;
    let identity = issuer.identity();
    identity.verify(bearer(&issuer.token())).await.unwrap();
    let many: Vec<Value> = (0..5000).map(|i| json!({"kty": "EC", "crv": "P-256", "kid": i.to_string()})).collect();
    issuer.publish(many);
    let unknown = issuer.key.token_with(&json!({"alg": "ES256", "kid": "k2"}), &issuer.claims());
    let reason = refused(&identity, &unknown).await.to_string();
    assert!(reason.contains("more than 4096 keys"), "{reason}");
    identity.verify(bearer(&issuer.token())).await.unwrap();
}

#[tokio::test]
async fn an_issuer_may_withdraw_all_keys() {
    let issuer = Issuer::start().await;
    let identity = issuer.identity();
    identity.verify(bearer(&issuer.token())).await.unwrap();
    issuer.publish(vec![]);
    let unknown = issuer.key.token_with(&json!({"alg": "ES256", "kid": "k2"}), &issuer.claims());
    assert_eq!(refused(&identity, &unknown).await.label(), "unknown_key");
    assert_eq!(refused(&identity, &issuer.token()).await.label(), "unknown_key");
}

#[tokio::test]
async fn weak_and_foreign_keys_in_a_set_are_left_out() {
    let issuer = Issuer::start().await;
    let weak = json!({"kty": "RSA", "kid": "weak", "n": b64([0xff; 128]), "e": "AQAB"});
    let symmetric = json!({"kty": "oct", "kid": "oct", "k": "c2VjcmV0"});
    issuer.publish(vec![weak, symmetric, json!("?"), issuer.key.jwk()]);
    let identity = issuer.identity();
    identity.verify(bearer(&issuer.token())).await.unwrap();
    let token = issuer.key.token_with(&json!({"alg": "RS256", "kid": "weak"}), &issuer.claims());
    assert_eq!(refused(&identity, &token).await.label(), "unknown_key");
}

#[tokio::test]
async fn keys_of_one_kid_are_each_tried() {
    let issuer = Issuer::start().await;
    let (twin, stranger) = (Key::new("k1", "ES256"), Key::new("k1", "ES256"));
    issuer.publish(vec![issuer.key.jwk(), twin.jwk()]);
    let identity = issuer.identity();
    identity.verify(bearer(&issuer.token())).await.unwrap();
    identity.verify(bearer(&twin.token(&issuer.claims()))).await.unwrap();
    let forged = stranger.token(&issuer.claims());
    assert_eq!(refused(&identity, &forged).await, Rejected::Signature);
}

#[tokio::test]
async fn a_token_without_kid_needs_the_one_key_that_fits() {
    let issuer = Issuer::start().await;
    let rsa = Key::new("r1", "RS256");
    issuer.publish(vec![issuer.key.jwk(), rsa.jwk()]);
    let identity = issuer.identity();
    let no_kid = || issuer.key.token_with(&json!({"alg": "ES256"}), &issuer.claims());
    identity.verify(bearer(&no_kid())).await.unwrap();

    let second = Key::new("k2", "ES256");
    issuer.publish(vec![issuer.key.jwk(), second.jwk()]);
    identity.verify(bearer(&second.token(&issuer.claims()))).await.unwrap();
    assert_eq!(refused(&identity, &no_kid()).await, Rejected::AmbiguousKey);
}

#[tokio::test]
async fn a_key_set_address_makes_discovery_needless() {
    let issuer = Issuer::start().await;
    issuer.set_mode(Mode::Discovery(json!("none here")));
    let mut entry = config("spiffe", "https://shop.example", "jit-broker", "{sub}");
    entry.jwks_url = Some(KeyUrl::parse(&format!("{}/keys", issuer.url())).unwrap());
    let identity = identity(vec![entry], &options());
    let mut claims = issuer.claims();
    claims["iss"] = json!("https://shop.example");
    claims["sub"] = json!("spiffe://shop.example/payment");
    let verified = identity.verify(bearer(&issuer.key.token(&claims))).await.unwrap();
    assert_eq!(verified.principal.workload, "spiffe://shop.example/payment");
    assert_eq!((issuer.requests(), issuer.key_fetches()), (1, 1));
}

#[tokio::test]
async fn the_bearer_token_file_is_read_at_each_fetch() {
    let issuer = Issuer::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first-token\n").unwrap();
    let mut entry = issuer.config();
    entry.bearer_token_file = Some(file.path().to_owned());
    let identity = identity(vec![entry], &options());
    identity.verify(bearer(&issuer.token())).await.unwrap();
    assert_eq!(issuer.authorization().as_deref(), Some("Bearer first-token"));

    std::fs::write(file.path(), "second-token\n").unwrap();
    let new = Key::new("k2", "ES256");
    issuer.publish(vec![new.jwk()]);
    identity.verify(bearer(&new.token(&issuer.claims()))).await.unwrap();
    assert_eq!(issuer.authorization().as_deref(), Some("Bearer second-token"));

    drop(file);
    let gone = issuer.key.token_with(&json!({"alg": "ES256", "kid": "k9"}), &issuer.claims());
    let reason = refused(&identity, &gone).await.to_string();
    assert!(reason.contains("bearer token file"), "{reason}");
}

/// A key set as issuers publish it that need the broker to be lenient: another number's spelling, padding,
/// a byte order mark, more keys for encryption than for signatures.
#[tokio::test]
async fn a_large_and_odd_key_set_verifies_all_the_same() {
    use base64::engine::general_purpose::STANDARD;
    let issuer = Issuer::start_with(Key::new("k1", "RS256")).await;
    let mut odd = issuer.key.jwk();
    let number = |jwk: &Value, field: &str| URL_SAFE_NO_PAD.decode(jwk[field].as_str().unwrap()).unwrap();
    for field in ["n", "e"] {
        // With the octet that says of a signed number that it is positive.
        odd[field] = json!(STANDARD.encode([vec![0], number(&odd, field)].concat()));
    }
    let mut keys: Vec<Value> = (0..64)
        .map(|i| json!({"kty": "RSA", "use": "enc", "kid": format!("enc-{i}"), "n": odd["n"], "e": "AQAB"}))
        .collect();
    keys.push(odd);
    let document = [&b"\xef\xbb\xbf"[..], json!({"keys": keys}).to_string().as_bytes()].concat();
    issuer.set_mode(Mode::Keys(document));
    issuer.identity().verify(bearer(&issuer.token())).await.unwrap();
}

/// The operator's token is for the host that the operator wrote, not for one that a discovery document names.
#[tokio::test]
async fn the_bearer_token_goes_to_the_issuers_origin_only() {
    let (issuer, keys) = (Issuer::start().await, Issuer::start().await);
    keys.publish(vec![issuer.key.jwk()]);
    let elsewhere = format!("{}/keys", keys.url());
    issuer.set_mode(Mode::Discovery(json!({"issuer": issuer.url(), "jwks_uri": elsewhere})));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "of-the-api-server").unwrap();
    let mut entry = issuer.config();
    entry.bearer_token_file = Some(file.path().to_owned());
    let identity = identity(vec![entry.clone()], &options());
    identity.verify(bearer(&issuer.token())).await.unwrap();
    assert_eq!(issuer.authorization().as_deref(), Some("Bearer of-the-api-server"));
    assert_eq!((keys.key_fetches(), keys.authorization()), (1, None));
    // A server that wants it there: the operator is told what to write.
    keys.set_mode(Mode::Unauthorized);
    let unknown = issuer.key.token_with(&json!({"alg": "ES256", "kid": "k2"}), &issuer.claims());
    let reason = refused(&identity, &unknown).await.to_string();
    assert!(reason.contains("401") && reason.contains("`jwks_url` with the issuer's host"), "{reason}");
    // What the operator wrote is what the operator meant.
    entry.jwks_url = Some(KeyUrl::parse(&elsewhere).unwrap());
    let named = super::issuer::identity(vec![entry], &options());
    assert_eq!(refused(&named, &issuer.token()).await.label(), "issuer_unavailable");
    assert_eq!(keys.authorization().as_deref(), Some("Bearer of-the-api-server"));
}

#[tokio::test]
async fn withdrawn_keys_go_without_a_token_of_theirs() {
    let issuer = Issuer::start().await;
    let mut options = options();
    options.keys.max_age = Duration::ZERO;
    options.keys.max_waiters = 2;
    let identity = identity(vec![issuer.config()], &options);
    let fetched = async |count: usize| {
        while issuer.key_fetches() < count {
            identity.refresh();
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANGS, fetched(1)).await.unwrap();
    identity.verify(bearer(&issuer.token())).await.unwrap();
    let token = issuer.token();
    issuer.publish(vec![]);
    // The second of these began after the keys were withdrawn.
    timeout(HANGS, fetched(issuer.key_fetches() + 2)).await.unwrap();
    let gone = async {
        while identity.verify(bearer(&token)).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANGS, gone).await.unwrap();
}

/// No valid signature is needed to wait for an issuer that hangs.
#[tokio::test]
async fn only_so_many_wait_for_one_issuer() {
    let issuer = Issuer::start().await;
    issuer.set_mode(Mode::Hang);
    let mut options = options();
    options.keys.max_waiters = 2;
    options.keys.fetch_deadline = HANGS;
    let identity = identity(vec![issuer.config()], &options);
    let forged = |kid: &str| issuer.key.token_with(&json!({"alg": "ES256", "kid": kid}), &issuer.claims());
    let tokens = [forged("a"), forged("b"), forged("c")];
    let mut first = Box::pin(identity.verify(bearer(&tokens[0])));
    let mut second = Box::pin(identity.verify(bearer(&tokens[1])));
    assert!(pending_after_one_poll(&mut first).await && pending_after_one_poll(&mut second).await);
    assert_eq!(refused(&identity, &tokens[2]).await.label(), "issuer_busy");
    // Who goes away makes room.
    drop(first);
    let mut third = Box::pin(identity.verify(bearer(&tokens[2])));
    assert!(pending_after_one_poll(&mut third).await);
}

#[tokio::test]
async fn an_entry_says_itself_how_old_keys_may_be() {
    let issuer = Issuer::start().await;
    let mut entry = issuer.config();
    entry.max_stale = Some(Duration::from_secs(1));
    let identity = identity(vec![entry], &options());
    assert_eq!(identity.ask_issuers().await, [("cluster".to_owned(), Ok(1))]);
    let token = issuer.token();
    identity.verify(bearer(&token)).await.unwrap();
    issuer.set_mode(Mode::Error);
    let given_up = async {
        while identity.verify(bearer(&issuer.token())).await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(HANGS, given_up).await.unwrap();
    let (_, asked) = identity.ask_issuers().await.remove(0);
    assert!(asked.unwrap_err().contains("500"));
}

#[tokio::test]
async fn an_https_issuer_needs_a_certificate_of_the_configured_authority() {
    let (server_pem, server_key) = (include_bytes!("tls/server.pem"), include_bytes!("tls/server.key"));
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (folder.path().join("ca.pem"), folder.path().join("other.pem"));
    std::fs::write(&authority, include_bytes!("tls/ca.pem")).unwrap();
    std::fs::write(&other, server_pem).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let tls = RustlsConfig::from_pem(server_pem.to_vec(), server_key.to_vec());
    let tls = tls.await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());

    let key = Key::new("k1", "ES256");
    let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
    let keys = json!({"keys": [key.jwk()]}).to_string();
    let router = axum::Router::new()
        .route("/.well-known/openid-configuration", axum::routing::get(|| async { discovery }))
        .route("/keys", axum::routing::get(|| async { keys }));
    let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
    let task = tokio::spawn(server.serve(router.into_make_service()));

    let mut entry = config("tls", &url, "jit-broker", "{sub}");
    entry.ca = Some(authority);
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({"iss": url, "sub": "payment", "aud": "jit-broker", "exp": now + 60});
    let token = key.token(&claims);
    let production = IdentityOptions::default();
    identity(vec![entry.clone()], &production).verify(bearer(&token)).await.unwrap();

    // Another certificate, even the server's own, did not sign the server's.
    entry.ca = Some(other);
    let reason = refused(&identity(vec![entry.clone()], &production), &token).await;
    assert_eq!(reason.label(), "issuer_unavailable", "{reason}");
    // Nor did any of the system's.
    entry.ca = None;
    match try_identity(vec![entry], &production) {
        Ok(system) => {
            let reason = refused(&system, &token).await;
            assert_eq!(reason.label(), "issuer_unavailable", "{reason}");
        }
        // A machine without certificates: the broker says so at start.
        Err(error) => assert!(matches!(error, IdentityError::Client { .. }), "{error}"),
    }
    task.abort();
}
