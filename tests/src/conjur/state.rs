//! What the server knows, and its clock.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::issuer::now;

/// How long a token is taken, in seconds.
const TOKEN_LIFE: u64 = 480;
/// How many versions of a variable stay.
const VERSIONS: usize = 20;

/// What a host may do with a variable. Any of them makes it visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// See that it is there.
    Read,
    /// Fetch its value.
    Execute,
    /// Change its value, or have it changed.
    Update,
}

impl Privilege {
    pub(super) fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "read" => Self::Read,
            "execute" => Self::Execute,
            "update" => Self::Update,
            _ => return None,
        })
    }
}

/// A JWT authenticator (`authn-jwt`): whose tokens it takes, and which host they mean.
#[derive(Clone, Debug)]
pub struct JwtAuthenticator {
    /// The `iss` that tokens must have.
    pub issuer: String,
    /// The `aud` that they must have.
    pub audience: String,
    /// Public keys, as a key set has them ([`crate::Key::public`]).
    pub keys: Vec<Value>,
    /// `token-app-property`: the claim that names the host. None where the path names it.
    pub claim: Option<String>,
    /// `identity-path`: what stands before the claim's value.
    pub path: String,
}

#[derive(Debug)]
pub(super) struct Version {
    pub(super) number: u64,
    pub(super) value: Vec<u8>,
    /// Seconds since 1970; none when it has no end, or was expired by hand.
    pub(super) expires_at: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Variable {
    pub(super) versions: Vec<Version>,
    pub(super) annotations: BTreeMap<String, String>,
    /// Expired by hand and not rotated since.
    is_due: bool,
}

impl Variable {
    pub(super) fn add(&mut self, value: Vec<u8>, expires_at: Option<u64>) -> u64 {
        let number = self.versions.last().map_or(1, |last| last.number + 1);
        self.versions.push(Version { number, value, expires_at });
        let surplus = self.versions.len().saturating_sub(VERSIONS);
        self.versions.drain(..surplus);
        number
    }

    fn rotate(&mut self, now: u64) {
        self.is_due = false;
        self.add(random_text().into_bytes(), Some(now + 86_400));
    }

    fn has_rotator(&self) -> bool {
        self.annotations.contains_key("rotation/rotator") && !self.versions.is_empty()
    }
}

pub(super) struct Token {
    /// The role's id below the account: `host/jit-broker`.
    pub(super) login: String,
    expires_at: u64,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) account: String,
    /// API keys by the host's id.
    hosts: BTreeMap<String, String>,
    pub(super) authenticators: BTreeMap<String, JwtAuthenticator>,
    pub(super) variables: BTreeMap<String, Variable>,
    /// By the host's login and the variable's id.
    privileges: BTreeMap<(String, String), BTreeSet<Privilege>>,
    /// By their base64.
    pub(super) tokens: BTreeMap<String, Token>,
    /// Seconds that the clock is ahead.
    pub(super) offset: u64,
    pub(super) rotates_at_once: bool,
    pub(super) failures: (usize, u16),
    pub(super) requests: Vec<String>,
}

impl State {
    pub(super) fn new(account: &str) -> Self {
        Self { account: account.to_owned(), ..Self::default() }
    }

    pub(super) fn now(&self) -> u64 {
        now() + self.offset
    }

    pub(super) fn host(&mut self, id: &str) -> String {
        let key = random_text();
        self.hosts.insert(format!("host/{id}"), key.clone());
        key
    }

    pub(super) fn permit(&mut self, host: &str, id: &str, privileges: &[Privilege]) {
        let held = self.privileges.entry((format!("host/{host}"), id.to_owned())).or_default();
        held.extend(privileges);
    }

    pub(super) fn deny(&mut self, host: &str, id: &str) {
        self.privileges.remove(&(format!("host/{host}"), id.to_owned()));
    }

    /// Whether the role sees the variable: it has any privilege on it.
    pub(super) fn sees(&self, login: &str, id: &str) -> bool {
        let held = self.privileges.get(&(login.to_owned(), id.to_owned()));
        self.variables.contains_key(id) && held.is_some_and(|held| !held.is_empty())
    }

    pub(super) fn may(&self, login: &str, id: &str, privilege: Privilege) -> bool {
        let held = self.privileges.get(&(login.to_owned(), id.to_owned()));
        self.variables.contains_key(id) && held.is_some_and(|held| held.contains(&privilege))
    }

    /// Whether the API key is the role's.
    pub(super) fn knows(&self, login: &str, api_key: &[u8]) -> bool {
        self.hosts.get(login).is_some_and(|key| key.as_bytes() == api_key)
    }

    /// The role that a JWT logs in, if it is good.
    pub(super) fn login_of(&self, service: &str, jwt: &str, named: Option<&str>) -> Option<String> {
        let authenticator = self.authenticators.get(service)?;
        let header = jsonwebtoken::decode_header(jwt).ok()?;
        let key = authenticator.keys.iter().find(|key| key["kid"].as_str() == header.kid.as_deref())?;
        let key: Jwk = serde_json::from_value(key.clone()).ok()?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&authenticator.issuer]);
        validation.set_audience(&[&authenticator.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let claims = jsonwebtoken::decode::<Value>(jwt, &DecodingKey::from_jwk(&key).ok()?, &validation).ok()?.claims;
        // The path and the claim exclude each other.
        let login = match (&authenticator.claim, named) {
            (Some(claim), None) => format!("host/{}{}", authenticator.path, claims[claim].as_str()?),
            (None, Some(named)) => named.to_owned(),
            _ => return None,
        };
        self.hosts.contains_key(&login).then_some(login)
    }

    /// A new token: the JSON, whose base64 the header wants.
    pub(super) fn log_in(&mut self, login: &str) -> String {
        let now = self.now();
        let payload = json!({"sub": login, "iat": now, "exp": now + TOKEN_LIFE}).to_string();
        let token = json!({
            "protected": STANDARD.encode(r#"{"alg":"conjur.org/slosilo/v2","kid":"strict"}"#),
            "payload": STANDARD.encode(payload),
            "signature": random_text(),
        });
        let token = token.to_string();
        let known = Token { login: login.to_owned(), expires_at: now + TOKEN_LIFE };
        self.tokens.insert(STANDARD.encode(&token), known);
        token
    }

    /// The role of a token, while it is taken.
    pub(super) fn role(&self, token: &str) -> Option<&str> {
        let token = self.tokens.get(token)?;
        (token.expires_at > self.now()).then_some(token.login.as_str())
    }

    /// Marks a variable for its rotator.
    pub(super) fn expire(&mut self, id: &str) {
        let (now, at_once) = (self.now(), self.rotates_at_once);
        if let Some(variable) = self.variables.get_mut(id) {
            variable.versions.iter_mut().for_each(|version| version.expires_at = None);
            variable.is_due = true;
            if at_once && variable.has_rotator() {
                variable.rotate(now);
            }
        }
    }

    pub(super) fn run_rotators(&mut self) -> Vec<String> {
        let now = self.now();
        let due = self.variables.iter_mut().filter(|(_, variable)| variable.is_due && variable.has_rotator());
        due.map(|(id, variable)| {
            variable.rotate(now);
            id.clone()
        })
        .collect()
    }
}

/// 32 random bytes in hexadecimal: an API key, a signature, a new password.
fn random_text() -> String {
    let mut bytes = [0_u8; 32];
    // A system without randomness runs no test.
    rand::fill(&mut bytes).unwrap_or_else(|_| panic!("no randomness"));
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
