//! Configuration mistakes are told with what to write instead.

use super::issuer::{config, identity, options, try_identity};
use crate::{IdentityError, IdentityOptions, JwtIssuerConfig, MAX_METHODS, SigningAlgorithm};

const GOOD: &str = r#"
name = "cluster"
issuer = "https://kubernetes.default.svc"
audiences = ["jit-broker"]
workload = "{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}"
jwks_url = "https://kubernetes.default.svc/keys"
"#;

fn parse_error(line: &str) -> String {
    let (key, _) = line.split_once(" =").unwrap();
    let others: String = GOOD.lines().filter(|l| !l.starts_with(key)).map(|l| format!("{l}\n")).collect();
    toml::from_str::<JwtIssuerConfig>(&format!("{others}{line}")).unwrap_err().to_string()
}

#[test]
fn what_is_not_given_has_a_safe_value() {
    let entry = config(GOOD);
    assert_eq!(entry.leeway.seconds(), 30);
    assert_eq!(entry.max_token_lifetime, None);
    let names: Vec<_> = entry.algorithms.iter().map(|a| a.name()).collect();
    assert_eq!(names, ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]);
    assert_eq!(entry.algorithms, SigningAlgorithm::all());
}

#[test]
fn parsing_refuses_with_the_line() {
    for (line, told) in [
        ("algorithms = [\"HS256\"]", "needs no secret that only the issuer has"),
        ("algorithms = [\"none\"]", "needs no secret that only the issuer has"),
        ("algorithms = [\"rs256\"]", "known are RS256"),
        ("leeway = \"3m\"", "at most \"2m\""),
        ("leeway = \"0s\"", "greater than zero"),
        ("workload = \"payment\"", "at least one claim"),
        ("attributes = { env = \"\" }", "claim path"),
        ("jwks_url = \"keys\"", "relative URL"),
        ("client_secret = \"hunter2\"", "unknown field"),
    ] {
        let error = parse_error(line);
        assert!(error.contains(told) && error.contains("line"), "{line}: {error}");
    }
}

#[tokio::test]
async fn checking_refuses_with_the_field() {
    identity(vec![config(GOOD)], &IdentityOptions::default());
    let error = |line: &str| {
        let (key, _) = line.split_once(" =").unwrap();
        let others: String = GOOD.lines().filter(|l| !l.starts_with(key)).map(|l| format!("{l}\n")).collect();
        let entry = config(&format!("{others}{line}"));
        try_identity(vec![entry], &IdentityOptions::default()).err().unwrap().to_string()
    };
    for (line, told) in [
        ("name = \"a b\"", "`name`"),
        ("name = \"\"", "`name`"),
        ("issuer = \"\"", "`issuer`"),
        ("audiences = []", "[\"jit-broker\"]"),
        ("audiences = [\"\"]", "`audiences`"),
        ("algorithms = []", "`algorithms`"),
        ("attributes = { \"a b\" = \"env\" }", "`attributes`"),
        ("jwks_url = \"http://kubernetes.default.svc/keys\"", "`jwks_url` must be an https"),
        ("jwks_url = \"http://127.0.0.1/keys\"", "only for `jit-broker dev`"),
        ("jwks_url = \"https://user:pass@example.com/keys\"", "user name or password"),
        ("ca = \"/nowhere/ca.pem\"", "/nowhere/ca.pem"),
        ("ca = \"/dev/null\"", "no PEM certificate"),
    ] {
        let error = error(line);
        assert!(error.contains(told), "{line}: {error}");
    }
}

#[tokio::test]
async fn an_issuer_without_key_set_address_must_be_an_address_itself() {
    let told = |issuer: &str, options: &IdentityOptions| {
        let text = format!("name = \"a\"\nissuer = \"{issuer}\"\naudiences = [\"b\"]\nworkload = \"{{sub}}\"");
        try_identity(vec![config(&text)], options).err().map(|error| error.to_string())
    };
    identity(vec![], &options());
    let production = IdentityOptions::default();
    for bad in ["spiffe://shop", "http://issuer.example", "https://issuer.example?x=1", "issuer"] {
        let error = told(bad, &options()).unwrap();
        assert!(error.contains("`issuer`") && error.contains("jwks_url"), "{error}");
    }
    assert_eq!(told("http://localhost:8080", &options()), None);
    assert_eq!(told("http://[::1]:8080/realm/", &options()), None);
    assert!(told("http://127.0.0.1:8080", &production).unwrap().contains("https"));
    assert!(told("http://127.0.0.1.example.com", &options()).unwrap().contains("https"));
}

#[tokio::test]
async fn names_are_unique_and_entries_are_bounded() {
    identity(vec![], &options());
    let twice = try_identity(vec![config(GOOD), config(GOOD)], &options());
    assert!(matches!(twice, Err(IdentityError::DuplicateName { name }) if name == "cluster"));
    let many = vec![config(GOOD); MAX_METHODS + 1];
    assert!(matches!(try_identity(many, &options()), Err(IdentityError::TooManyMethods)));
}
