//! JWTs of OIDC issuers: Kubernetes service accounts, CI providers, clouds, SPIFFE JWT-SVIDs.
//!
//! | module | what it holds |
//! |---|---|
//! | `config` | one `[[identity.jwt]]` entry |
//! | `preview` | header and claims before anything was verified: only to choose what verifies |
//! | `key_set` | an issuer's public keys, and which of them may verify a token |
//! | `key_source` | when keys are fetched, kept and given up |
//! | `fetch` | discovery and key set over HTTP |

mod config;
mod fetch;
mod key_set;
mod key_source;
pub(super) mod preview;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jit_core::name::Principal;
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

pub use self::config::{IdentityError, JwtIssuerConfig, Leeway, SigningAlgorithm};
use self::fetch::KeyEndpoint;
pub use self::key_source::KeyPolicy;
use self::key_source::KeySource;
use self::preview::Preview;
use super::claims::{ClaimProblem, MAX_VALUE, printable};
use super::rejected::{Quoted, Rejected};
use super::verified::{Proof, Verified};
use super::{IdentityOptions, KnownIssuer};

/// Claims that every token must have.
const REQUIRED: [&str; 4] = ["exp", "iss", "aud", "sub"];

/// One configured issuer, ready to verify.
pub(super) struct JwtIssuer {
    config: JwtIssuerConfig,
    /// For each pinned algorithm what jsonwebtoken checks. An algorithm that is not in this list
    /// cannot be used, whatever a token says.
    validations: Vec<(SigningAlgorithm, Validation)>,
    keys: Arc<KeySource>,
}

impl JwtIssuer {
    pub(super) fn new(config: JwtIssuerConfig, options: &IdentityOptions) -> Result<Self, IdentityError> {
        config.check(options.allow_http_loopback)?;
        let validations =
            config.algorithms.iter().map(|&algorithm| (algorithm, validation(&config, algorithm))).collect();
        let endpoint = KeyEndpoint::new(&config, options.allow_http_loopback)?;
        let keys = KeySource::new(config.name.clone(), endpoint, options.keys.with_max_stale(config.max_stale));
        Ok(Self { config, validations, keys })
    }

    /// The entry's name.
    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    /// The `iss` of its tokens.
    pub(super) fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// Which key set is in use: changes with the keys. `None` before the first.
    pub(super) fn generation(&self) -> Option<u64> {
        self.keys.generation()
    }

    /// What is known of it without asking.
    pub(super) fn known(&self) -> KnownIssuer {
        KnownIssuer { name: self.config.name.clone(), attributes: self.config.attributes.keys().cloned().collect() }
    }

    /// Fetches the keys if there are none.
    pub(super) async fn warm(&self) {
        self.keys.warm().await;
    }

    /// Fetches the keys, whatever is known of them. Returns how many can verify a token, or why they
    /// cannot be had.
    pub(super) async fn ask(&self) -> Result<usize, String> {
        self.keys.ask().await
    }

    /// Fetches keys that are old, and says how old they are.
    pub(super) fn refresh(&self) {
        self.keys.keep_young();
    }

    /// Verifies a token whose `iss` is this issuer's, cheapest checks first. Returns also the
    /// generation of the key set that verified it.
    pub(super) async fn verify(&self, token: &Preview<'_>) -> Result<(Verified, u64), Rejected> {
        let now = Timestamp::now();
        if !token.audiences.iter().any(|aud| self.config.audiences.contains(aud)) {
            return Err(Rejected::WrongAudience);
        }
        if token.expires + self.config.leeway.seconds_f64() < seconds(now) {
            return Err(Rejected::Expired);
        }
        let (_, validation) = self
            .validations
            .iter()
            .find(|(algorithm, _)| *algorithm == token.algorithm)
            .ok_or_else(|| Rejected::Algorithm(Quoted::new(token.algorithm.name())))?;

        let set = self.keys.with_key(token.algorithm, token.kid.as_deref()).await?;
        let mut verdict = Err(Rejected::Signature);
        for key in set.candidates(token.algorithm, token.kid.as_deref()) {
            verdict = jsonwebtoken::decode::<Map<String, Value>>(token.token, key, validation).map_err(rejection);
            // Two keys may share a kid: only a bad signature is worth another try.
            if !matches!(verdict, Err(Rejected::Signature)) {
                break;
            }
        }
        let claims = verdict?.claims;
        Ok((self.vouch(&claims, now)?, set.generation()))
    }

    /// What remains after the signature and the registered claims were found good: the times that
    /// jsonwebtoken does not look at, and the mapping.
    fn vouch(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Verified, Rejected> {
        let missing = |claim: &str| Rejected::MissingClaim(claim.to_owned());
        let exp = claims.get("exp").and_then(Value::as_f64).ok_or_else(|| missing("exp"))?;
        let issued = match claims.get("iat") {
            None | Some(Value::Null) => seconds(now),
            Some(iat) => iat.as_f64().ok_or_else(|| missing("iat"))?,
        };
        let leeway = self.config.leeway.seconds_f64();
        if issued > seconds(now) + leeway {
            return Err(Rejected::NotYetValid);
        }
        if let Some(max) = self.config.max_token_lifetime
            && exp - issued > f64::from(max.seconds()) + leeway
        {
            return Err(Rejected::TooLongLived);
        }

        let claim = |mapping: &str| {
            let mapping = mapping.to_owned();
            move |problem| Rejected::Claim { mapping, problem }
        };
        let subject = match claims.get("sub") {
            Some(Value::String(sub)) if sub.is_empty() => Err(ClaimProblem::Empty),
            Some(Value::String(sub)) if sub.len() > MAX_VALUE => Err(ClaimProblem::TooLong),
            Some(Value::String(sub)) if !printable(sub) => Err(ClaimProblem::Unprintable),
            Some(Value::String(sub)) => Ok(sub.clone()),
            _ => return Err(missing("sub")),
        }
        .map_err(claim("sub"))?;
        let workload = self.config.workload.workload(claims).map_err(claim("workload"))?;
        let mut attributes = BTreeMap::new();
        for (name, path) in &self.config.attributes {
            if let Some(text) = path.text(claims).map_err(claim(name))? {
                attributes.insert(name.clone(), text);
            }
        }
        Ok(Verified {
            principal: Principal { issuer: self.config.name.clone(), workload, subject },
            attributes,
            expires_at: timestamp(exp),
            proof: Proof::of_verification(),
        })
    }
}

/// What jsonwebtoken is to check. Its defaults do not check `nbf`, and require only `exp`.
fn validation(config: &JwtIssuerConfig, algorithm: SigningAlgorithm) -> Validation {
    let mut validation = Validation::new(Algorithm::from(algorithm));
    validation.set_required_spec_claims(&REQUIRED);
    validation.set_issuer(&[&config.issuer]);
    validation.set_audience(&config.audiences);
    validation.validate_nbf = true;
    validation.leeway = u64::from(config.leeway.seconds());
    validation
}

fn rejection(error: JwtError) -> Rejected {
    match error.into_kind() {
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => Rejected::MissingClaim(claim),
        ErrorKind::ExpiredSignature => Rejected::Expired,
        ErrorKind::ImmatureSignature => Rejected::NotYetValid,
        ErrorKind::InvalidAudience => Rejected::WrongAudience,
        // The preview chose the entry by `iss`, so this is a token that has it twice or as a list.
        ErrorKind::InvalidIssuer => Rejected::MissingClaim("iss".to_owned()),
        ErrorKind::InvalidSignature
        | ErrorKind::InvalidAlgorithm
        | ErrorKind::InvalidKeyFormat
        | ErrorKind::InvalidEcdsaKey
        | ErrorKind::InvalidEddsaKey
        | ErrorKind::InvalidRsaKey(_) => Rejected::Signature,
        _ => Rejected::Malformed("not what its header says"),
    }
}

#[allow(clippy::cast_precision_loss)] // seconds since 1970 fit f64's 53 bits for longer than any token
fn seconds(time: Timestamp) -> f64 {
    time.as_second() as f64
}

/// `exp` as a time; one beyond the year 9999 is the last time there is.
fn timestamp(exp: f64) -> Timestamp {
    #[allow(clippy::cast_possible_truncation)] // `as` saturates, and so does what follows
    Timestamp::from_second(exp as i64).unwrap_or(Timestamp::MAX)
}
