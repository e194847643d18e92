//! Configuration mistakes are reported with what to write instead. What the reader of the file refuses is tested
//! there.

use std::time::Duration;

use super::issuer::{config, identity, options, try_identity};
use crate::{
    AlgorithmError, IdentityError, IdentityOptions, JwtIssuerConfig, KeyUrl, MAX_ATTRIBUTES, MAX_METHODS,
    SigningAlgorithm,
};

fn good() -> JwtIssuerConfig {
    let workload = "{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}";
    config("cluster", "https://kubernetes.default.svc", "jit-broker", workload)
}

/// Why an entry is refused in production.
fn refused(change: impl FnOnce(&mut JwtIssuerConfig)) -> String {
    let mut entry = good();
    change(&mut entry);
    try_identity(vec![entry], &IdentityOptions::default()).err().unwrap().to_string()
}

#[test]
fn what_is_not_given_has_a_safe_value() {
    let entry = good();
    assert_eq!(entry.leeway, Duration::from_secs(30));
    assert_eq!((entry.max_token_lifetime, entry.max_stale), (None, None));
    let names: Vec<_> = entry.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
    assert_eq!(names, ["RS256", "ES256"]);
}

#[test]
fn algorithms_have_the_names_of_their_rfc_and_a_public_key() {
    for name in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"] {
        assert_eq!(name.parse::<SigningAlgorithm>().map(SigningAlgorithm::as_str), Ok(name));
    }
    for (name, error) in [
        ("HS256", AlgorithmError::Symmetric),
        ("none", AlgorithmError::Unsigned),
        ("None", AlgorithmError::Unsigned),
        ("rs256", AlgorithmError::Unknown),
        ("", AlgorithmError::Unknown),
    ] {
        assert_eq!(name.parse::<SigningAlgorithm>(), Err(error), "{name}");
    }
    assert!(AlgorithmError::Unknown.to_string().contains("there are: RS256, RS384"));
}

#[tokio::test]
async fn a_mistake_names_the_field() {
    identity(vec![good()], &IdentityOptions::default());
    let long = || "a".repeat(1025);
    for (told, refused) in [
        ("`name` may only have ASCII letters", refused(|entry| entry.name = "a b".to_owned())),
        ("`name` must have 1 to 63", refused(|entry| entry.name.clear())),
        ("`audiences` must have at least one", refused(|entry| entry.audiences.clear())),
        ("`audiences` must have 1 to 1024 bytes", refused(|entry| entry.audiences.push(String::new()))),
        ("`audiences` must have 1 to 1024 bytes", refused(|entry| entry.audiences.push(long()))),
        ("`audiences` must have at most 16", refused(|entry| entry.audiences = vec!["a".to_owned(); 17])),
        ("`algorithms` must have at least one", refused(|entry| entry.algorithms.clear())),
        (
            "`attributes` has a name that may only have",
            refused(|entry| entry.attributes = [("a b".to_owned(), "env".parse().unwrap())].into()),
        ),
        (
            "`attributes` must have at most 64",
            refused(|entry| {
                let many = (0..=MAX_ATTRIBUTES).map(|n| (format!("a{n}"), "env".parse().unwrap()));
                entry.attributes = many.collect();
            }),
        ),
        ("`leeway` must be at most 120 seconds", refused(|entry| entry.leeway = Duration::from_secs(121))),
        ("`max_stale` must be at most", refused(|entry| entry.max_stale = Some(Duration::MAX))),
        ("/nowhere/ca.pem", refused(|entry| entry.ca = Some("/nowhere/ca.pem".into()))),
        ("not a regular file", refused(|entry| entry.ca = Some("/dev/null".into()))),
        (
            "has no certificate (PEM) in it",
            refused(|entry| entry.ca = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into())),
        ),
    ] {
        assert!(refused.contains(told), "{told}: {refused}");
    }
}

#[tokio::test]
async fn http_on_loopback_is_for_development() {
    identity(vec![], &options());
    let production = IdentityOptions::default();
    let entry = |issuer: &str, jwks_url: Option<&str>| {
        let mut entry = config("cluster", issuer, "jit-broker", "{sub}");
        entry.jwks_url = jwks_url.map(|url| KeyUrl::parse(url).unwrap());
        entry
    };
    let told = |entry: &JwtIssuerConfig, options: &IdentityOptions| {
        try_identity(vec![entry.clone()], options).err().map(|error| error.to_string())
    };
    for (issuer, jwks_url, field) in [
        ("http://localhost:8080", None, "`issuer`"),
        ("http://[::1]:8080/realm/", None, "`issuer`"),
        ("https://issuer.example", Some("http://127.0.0.1/keys"), "`jwks_url`"),
    ] {
        let entry = entry(issuer, jwks_url);
        assert_eq!(told(&entry, &options()), None);
        let refused = told(&entry, &production).unwrap();
        assert!(refused.contains(field) && refused.contains("only for `jit-broker dev`"), "{refused}");
    }
    // The issuer's address is not asked: it only has to be the token's `iss`.
    assert_eq!(told(&entry("http://127.0.0.1:1", Some("https://issuer.example/keys")), &production), None);
}

#[tokio::test]
async fn names_are_unique_and_entries_are_bounded() {
    identity(vec![], &options());
    let twice = try_identity(vec![good(), good()], &options());
    assert!(matches!(twice, Err(IdentityError::DuplicateName { name }) if name == "cluster"));
    let many = vec![good(); MAX_METHODS + 1];
    assert!(matches!(try_identity(many, &options()), Err(IdentityError::TooManyMethods)));
}
