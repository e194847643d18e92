//! JWT's row of the contract suite.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::issuer::{Issuer, Key, Mode, b64, method, options};
use crate::contract::{self, Harness, Proof};
use crate::{Evidence, MAX_TOKEN, Method, Rejected, Unverified};

contract::for_method!(Jwt);

/// An OIDC issuer on loopback.
pub(super) struct Jwt {
    issuer: Issuer,
    /// What the issuer signs with now.
    key: Key,
}

impl Jwt {
    fn token(&self, claim: &str, value: Value) -> Evidence {
        let mut claims = self.issuer.claims();
        claims[claim] = value;
        evidence(&self.key.token(&claims))
    }
}

fn evidence(token: &str) -> Evidence {
    Evidence::Bearer(Unverified::from_token(token).unwrap())
}

impl Harness for Jwt {
    async fn start() -> Self {
        let issuer = Issuer::start().await;
        let key = Key::new("k0", "ES256");
        issuer.publish(vec![key.jwk()]);
        Self { issuer, key }
    }

    fn method(&self) -> Arc<dyn Method> {
        method(self.issuer.config(), &options()).unwrap()
    }

    fn method_that_does_not_accept_it(&self) -> Arc<dyn Method> {
        let mut config = self.issuer.config();
        config.audiences = vec!["another-broker".to_owned()];
        method(config, &options()).unwrap()
    }

    fn expected(&self) -> (String, String, BTreeMap<String, String>) {
        let attributes = [("env", "test"), ("k8s_namespace", "shop"), ("k8s_pod", "payment-7")];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
        ("payment".to_owned(), "system:serviceaccount:shop:payment".to_owned(), attributes.into())
    }

    fn proof(&self, proof: Proof) -> Evidence {
        let now = Timestamp::now().as_second();
        match proof {
            Proof::Good => evidence(&self.key.token(&self.issuer.claims())),
            Proof::Expired => self.token("exp", json!(now - 600)),
            Proof::NotYetValid => self.token("nbf", json!(now + 600)),
            Proof::Tampered => {
                let mut claims = self.issuer.claims();
                let genuine = self.key.token(&claims);
                claims["kubernetes.io"]["serviceaccount"]["name"] = json!("admin");
                let (header, signature) = (genuine.split('.').next().unwrap(), genuine.rsplit('.').next().unwrap());
                evidence(&format!("{header}.{}.{signature}", b64(claims.to_string())))
            }
            Proof::Forged => evidence(&Key::new(&self.key.kid, "ES256").token(&self.issuer.claims())),
            Proof::UnknownIssuer => self.token("iss", json!("https://issuer.example")),
        }
    }

    fn for_another_audience(&self) -> Option<Evidence> {
        Some(self.token("aud", json!(["another-broker"])))
    }

    fn oversize(&self) -> Vec<(&'static str, Result<Evidence, Rejected>)> {
        let mut claims = self.issuer.claims();
        claims["padding"] = json!("a".repeat(MAX_TOKEN));
        let token = Unverified::from_token(&self.key.token(&claims)).map(Evidence::Bearer);
        let header = json!({"alg": "ES256", "kid": "k".repeat(300)});
        let kid = evidence(&self.key.token_with(&header, &self.issuer.claims()));
        vec![("too_large", token), ("malformed", Ok(kid))]
    }

    fn unusable_names(&self) -> Vec<Evidence> {
        let account = |name: &str| self.token("kubernetes.io", json!({"serviceaccount": {"name": name}}));
        vec![
            self.token("sub", json!("")),
            self.token("sub", json!("a".repeat(1025))),
            self.token("sub", json!("a\u{202e}b")),
            account(""),
            account(" payment"),
            account("pay\u{200b}load"),
            account(&"a".repeat(254)),
            self.token("env", json!("a\nb")),
            self.token("env", json!("a".repeat(1025))),
        ]
    }

    fn rotate(&mut self) {
        self.key = Key::new("k-next", "ES256");
        self.issuer.publish(vec![self.key.jwk()]);
    }

    fn set_away(&self, away: bool) {
        self.issuer.set_mode(if away { Mode::Error } else { Mode::Well });
    }

    fn requests(&self) -> usize {
        self.issuer.requests()
    }
}
