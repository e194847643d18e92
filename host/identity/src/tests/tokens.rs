//! Tokens, good and hostile.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::issuer::{Issuer, Key, b64, bearer, config, hs256, identity, options};
use crate::{Identity, MAX_TOKEN, Rejected, Unverified};

async fn refused(identity: &Identity, token: &str) -> Rejected {
    identity.verify(bearer(token)).await.unwrap_err()
}

/// The reason's label for a token of the good claims with one changed.
async fn refused_claim(issuer: &Issuer, claim: &str, value: Value) -> Rejected {
    let mut claims = issuer.claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(claim);
    } else {
        claims[claim] = value;
    }
    refused(&issuer.identity(), &issuer.key.token(&claims)).await
}

#[tokio::test]
async fn a_good_token_names_the_workload_and_its_attributes() {
    let issuer = Issuer::start().await;
    let verified = issuer.identity().verify(bearer(&issuer.token())).await.unwrap();
    assert_eq!(verified.principal.to_string(), "cluster/payment");
    assert_eq!(verified.principal.subject, "system:serviceaccount:shop:payment");
    let attributes: Vec<_> = verified.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expected = [("env", "test"), ("k8s_namespace", "shop"), ("k8s_pod", "payment-7")];
    assert_eq!(attributes, expected);
    assert!(verified.expires_at > Timestamp::now());
}

#[tokio::test]
async fn every_supported_kind_of_key_verifies_its_own_tokens() {
    for algorithm in ["RS256", "PS256", "ES256", "ES384", "EdDSA"] {
        let issuer = Issuer::start_with(Key::new("k1", algorithm)).await;
        let identity = issuer.identity();
        identity.verify(bearer(&issuer.token())).await.unwrap();
        // Somebody else's key under the same kid.
        let forged = Key::new("k1", algorithm).token(&issuer.claims());
        assert_eq!(refused(&identity, &forged).await, Rejected::Signature, "{algorithm}");
    }
}

#[tokio::test]
async fn headers_are_bearer_tokens_of_bounded_size_and_right_shape() {
    let header = |text: &str| Unverified::from_header(text).map(|_| ()).unwrap_err();
    assert_eq!(header(""), Rejected::Missing);
    assert_eq!(header("Bearer"), Rejected::Missing);
    assert_eq!(header("Bearer "), Rejected::Missing);
    assert_eq!(header("Basic YTpi"), Rejected::Missing);
    assert_eq!(header(&format!("Bearer {}", "a".repeat(MAX_TOKEN + 1))), Rejected::too_large("token", MAX_TOKEN));
    let megabyte = format!("Bearer {}.{}.x", "a".repeat(500_000), "b".repeat(500_000));
    assert_eq!(header(&megabyte), Rejected::too_large("token", MAX_TOKEN));
    for shape in ["a", "a.b", "a.b.c.d", ".b.c", "a..c", "a.b.c d", " a.b.c", "a.b.c=", "a.b+.c", "é.b.c"] {
        assert_eq!(header(&format!("Bearer {shape}")).label(), "malformed", "{shape}");
    }
    assert!(Unverified::from_header("bEARER a.b.c").is_ok());
    let printed = format!("{:?}", bearer("aGVhZGVy.Y2xhaW1z.c2ln"));
    assert!(!printed.contains("aGVh") && !printed.contains("c2ln"), "{printed}");
}

#[tokio::test]
async fn strangers_cost_no_network() {
    let issuer = Issuer::start().await;
    let identity = issuer.identity();
    let key = &issuer.key;
    let es256 = json!({"alg": "ES256", "kid": "k1"});
    let with = |claim: &str, value: Value| {
        let mut claims = issuer.claims();
        claims[claim] = value;
        key.token(&claims)
    };
    let header = |name: &str, value: Value| {
        let mut header = json!({"alg": "ES256", "kid": "k1"});
        header[name] = value;
        key.token_with(&header, &issuer.claims())
    };
    let good = issuer.claims().to_string();
    let now = Timestamp::now().as_second();

    for (token, label) in [
        (with("iss", json!("https://evil.example")), "unknown_issuer"),
        (with("iss", json!(format!("{}/", issuer.url()))), "unknown_issuer"),
        (with("iss", json!([issuer.url()])), "malformed"),
        (with("iss", Value::Null), "missing_claim"),
        (with("aud", json!("somebody-else")), "wrong_audience"),
        (with("aud", json!(["somebody-else", "jit-broker "])), "wrong_audience"),
        (with("aud", json!([])), "wrong_audience"),
        (with("aud", Value::Null), "missing_claim"),
        (with("aud", json!({"jit-broker": 1})), "malformed"),
        (with("exp", Value::Null), "missing_claim"),
        (with("exp", json!("tomorrow")), "malformed"),
        (with("exp", json!(now - 60)), "expired"),
        (with("exp", json!(-1)), "expired"),
        (header("alg", json!("none")), "algorithm"),
        (header("alg", json!("None")), "algorithm"),
        (header("alg", json!("HS256")), "algorithm"),
        (header("alg", json!("ES512")), "algorithm"),
        (header("alg", json!(7)), "malformed"),
        (header("crit", json!(["exp"])), "critical_extension"),
        (header("crit", json!([])), "critical_extension"),
        (header("crit", Value::Null), "critical_extension"),
        (header("typ", json!("dpop+jwt")), "type"),
        (header("typ", json!("logout+jwt")), "type"),
        (header("kid", json!("k".repeat(300))), "malformed"),
        (header("kid", json!({"a": 1})), "malformed"),
        (format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(&good)), "algorithm"),
        (key.sign_parts("not json", &good), "malformed"),
        (key.sign_parts("[]", &good), "malformed"),
        (key.sign_parts(r#"{"alg":"ES256","alg":"none"}"#, &good), "malformed"),
        (key.sign_parts(es256.to_string(), "\"text\""), "malformed"),
        (key.sign_parts(es256.to_string(), [0xff, 0xfe, 0x7b]), "malformed"),
        (key.sign_parts(es256.to_string(), b"{\"iss\":\"\xff\"}"), "malformed"),
        (key.sign_parts(es256.to_string(), "[".repeat(8000)), "malformed"),
        // Not the base64 that any encoder writes: bits left over.
        (format!("{}.{}.x", b64(es256.to_string()), "e31"), "malformed"),
    ] {
        assert_eq!(refused(&identity, &token).await.label(), label, "{token}");
    }
    assert_eq!(issuer.requests(), 0);
}

#[tokio::test]
async fn the_public_key_is_no_shared_secret() {
    for algorithm in ["RS256", "ES256"] {
        let issuer = Issuer::start_with(Key::new("k1", algorithm)).await;
        let identity = issuer.identity();
        identity.verify(bearer(&issuer.token())).await.unwrap();
        let header = json!({"alg": "HS256", "kid": "k1", "typ": "JWT"});
        for secret in [issuer.key.public_pem(), issuer.key.jwk().to_string()] {
            let token = hs256(&header, &issuer.claims(), secret.as_bytes());
            assert_eq!(refused(&identity, &token).await.label(), "algorithm");
        }
        // The same bytes under the name of the real algorithm.
        let header = json!({"alg": algorithm, "kid": "k1", "typ": "JWT"});
        let token = hs256(&header, &issuer.claims(), issuer.key.public_pem().as_bytes());
        assert_eq!(refused(&identity, &token).await, Rejected::Signature);
    }
}

#[tokio::test]
async fn times_are_checked_with_a_small_leeway() {
    let issuer = Issuer::start().await;
    let now = Timestamp::now().as_second();
    for (claim, value, reason) in [
        ("nbf", json!(now + 50), Rejected::NotYetValid),
        ("iat", json!(now + 120), Rejected::NotYetValid),
        ("nbf", json!("soon"), Rejected::MissingClaim("nbf".into())),
        ("iat", json!("soon"), Rejected::MissingClaim("iat".into())),
        ("exp", json!(now - 31), Rejected::Expired),
        ("sub", Value::Null, Rejected::MissingClaim("sub".into())),
        ("sub", json!(5), Rejected::MissingClaim("sub".into())),
    ] {
        let told = refused_claim(&issuer, claim, value.clone()).await;
        assert_eq!(told, reason, "{claim} = {value}");
    }
    let identity = issuer.identity();
    let mut claims = issuer.claims();
    claims["exp"] = json!(now - 5);
    claims["nbf"] = json!(now + 15);
    claims["iat"] = json!(now + 15);
    identity.verify(bearer(&issuer.key.token(&claims))).await.unwrap();
    claims["exp"] = json!(1e18);
    let forever = identity.verify(bearer(&issuer.key.token(&claims))).await.unwrap();
    assert_eq!(forever.expires_at, Timestamp::MAX);
}

#[tokio::test]
async fn a_token_may_not_live_longer_than_configured() {
    let issuer = Issuer::start().await;
    let mut config = issuer.config();
    config.max_token_lifetime = Some("5m".parse().unwrap());
    let identity = identity(vec![config], &options());
    assert_eq!(refused(&identity, &issuer.token()).await, Rejected::TooLongLived);
    let mut claims = issuer.claims();
    claims["exp"] = json!(Timestamp::now().as_second() + 200);
    identity.verify(bearer(&issuer.key.token(&claims))).await.unwrap();
    // Without iat it counts from now.
    claims["exp"] = json!(Timestamp::now().as_second() + 600);
    claims.as_object_mut().unwrap().remove("iat");
    assert_eq!(refused(&identity, &issuer.key.token(&claims)).await, Rejected::TooLongLived);
}

#[tokio::test]
async fn claims_that_cannot_be_mapped_are_refused() {
    let issuer = Issuer::start().await;
    for (claim, value, mapping) in [
        ("kubernetes.io", json!({"serviceaccount": {"name": "a\nb"}}), "workload"),
        ("kubernetes.io", json!({"serviceaccount": {"name": ["payment"]}}), "workload"),
        ("kubernetes.io", json!({}), "workload"),
        ("kubernetes.io.serviceaccount.name", json!("admin"), "workload"),
        ("env", json!({"prod": true}), "env"),
        ("env", json!("x".repeat(1025)), "env"),
        ("sub", json!("a\u{0}b"), "sub"),
        ("sub", json!(""), "sub"),
    ] {
        match refused_claim(&issuer, claim, value.clone()).await {
            Rejected::Claim { mapping: told, .. } => assert_eq!(told, mapping, "{value}"),
            other => panic!("{value}: {other}"),
        }
    }
}

#[tokio::test]
async fn an_algorithm_that_is_not_pinned_is_refused_though_the_key_is_there() {
    let issuer = Issuer::start().await;
    let mut entry = issuer.config();
    entry.algorithms = vec!["RS256".parse().unwrap()];
    let identity = identity(vec![entry], &options());
    assert_eq!(refused(&identity, &issuer.token()).await.label(), "algorithm");
    assert_eq!(issuer.requests(), 0);
}

#[tokio::test]
async fn a_key_is_used_for_its_own_algorithm_only() {
    let issuer = Issuer::start_with(Key::new("k1", "RS256")).await;
    let identity = issuer.identity();
    // An RSA key that says RS256 is no PS256 key, and no EC key.
    for algorithm in ["PS256", "RS512", "ES256"] {
        let token = issuer.key.token_with(&json!({"alg": algorithm, "kid": "k1"}), &issuer.claims());
        assert_eq!(refused(&identity, &token).await.label(), "unknown_key", "{algorithm}");
    }
}

#[tokio::test]
async fn types_of_tokens_that_are_identities_pass() {
    let issuer = Issuer::start().await;
    let identity = issuer.identity();
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "JOSE"] {
        let header = json!({"alg": "ES256", "kid": "k1", "typ": typ});
        identity.verify(bearer(&issuer.key.token_with(&header, &issuer.claims()))).await.unwrap();
    }
    let header = json!({"alg": "ES256", "kid": "k1"});
    identity.verify(bearer(&issuer.key.token_with(&header, &issuer.claims()))).await.unwrap();
}

#[tokio::test]
async fn keys_that_a_token_brings_itself_are_ignored() {
    let issuer = Issuer::start().await;
    let stranger = Issuer::start_with(Key::new("k1", "ES256")).await;
    let header = json!({
        "alg": "ES256", "kid": "k1", "jwk": stranger.key.jwk(),
        "jku": format!("{}/keys", stranger.url()), "x5u": stranger.url(),
    });
    let token = stranger.key.token_with(&header, &issuer.claims());
    // jsonwebtoken does not read a header whose jwk it cannot; either way it is not accepted.
    let reason = refused(&issuer.identity(), &token).await;
    assert!(matches!(reason, Rejected::Signature | Rejected::Malformed { .. }), "{reason}");
    assert_eq!(stranger.requests(), 0);
}

#[tokio::test]
async fn entries_of_one_issuer_are_told_apart_by_audience() {
    let issuer = Issuer::start().await;
    let entry = |name: &str, audience: &str, workload: &str| config(name, &issuer.url(), audience, workload);
    let identity = identity(
        vec![entry("first", "one", "{sub}"), entry("strict", "strict", "{nothing}"), entry("second", "two", "{env}")],
        &options(),
    );
    let token = |audience: Value| {
        let mut claims = issuer.claims();
        claims["aud"] = audience;
        issuer.key.token(&claims)
    };
    let name = |verified: Arc<crate::Verified>| verified.principal.to_string();
    let one = identity.verify(bearer(&token(json!("one")))).await.unwrap();
    assert_eq!(name(one), "first/system:serviceaccount:shop:payment");
    let two = identity.verify(bearer(&token(json!(["zero", "two"])))).await.unwrap();
    assert_eq!(name(two), "second/test");
    // Of the entries that know the audience the first one decides, also when it refuses: a token that it
    // will not have is not tried with a laxer one.
    let both = refused(&identity, &token(json!(["strict", "two"]))).await;
    assert_eq!(both.label(), "claim");
    assert_eq!(refused(&identity, &token(json!("three"))).await, Rejected::WrongAudience);
    let mut claims = issuer.claims();
    claims["aud"] = json!("two");
    claims.as_object_mut().unwrap().remove("env");
    let reason = refused(&identity, &issuer.key.token(&claims)).await;
    assert_eq!(reason.label(), "claim", "the entry that knows the audience says why");
}

#[tokio::test]
async fn reasons_are_safe_to_log() {
    let issuer = Issuer::start().await;
    let long = format!("https://evil.example/\r\n{}", "x".repeat(500));
    let reason = refused_claim(&issuer, "iss", json!(long)).await.to_string();
    assert!(!reason.contains(['\r', '\n']) && reason.len() < 200, "{reason}");
}
