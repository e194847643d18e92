//! JWTs of OIDC issuers: Kubernetes service accounts, CI providers, clouds, SPIFFE JWT-SVIDs.
//!
//! | module | what it holds |
//! |---|---|
//! | `config` | one `[[identity.jwt]]` entry |
//! | `key_set` | an issuer's public keys, and which of them may verify a token |
//! | `key_source` | when keys are fetched, kept and given up |
//! | `url` | the addresses that keys may come from |
//! | `fetch` | discovery and key set over HTTP |

mod config;
mod fetch;
mod key_set;
mod key_source;
mod url;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

pub use self::config::JwtIssuerConfig;
use self::fetch::KeyEndpoint;
use self::key_source::KeySource;
pub use self::url::{IssuerUrl, KeyUrl, KeyUrlError};
use crate::algorithm::SigningAlgorithm;
use crate::error::IdentityError;
use crate::evidence::{Evidence, Unverified};
use crate::method::{Declined, Method};
use crate::options::IdentityOptions;
use crate::rejected::{Quoted, Rejected};
use crate::verified::Claimed;

/// Claims that every token must have.
const REQUIRED: [&str; 4] = ["exp", "iss", "aud", "sub"];

/// One configured issuer, ready to verify.
pub struct JwtIssuer {
    config: JwtIssuerConfig,
    /// For each pinned algorithm what jsonwebtoken checks. An algorithm that is not in this list
    /// cannot be used, whatever a token says.
    validations: Vec<(SigningAlgorithm, Validation)>,
    keys: Arc<KeySource>,
}

impl JwtIssuer {
    /// Checks the entry, reads its CA file and prepares its HTTP client. Does not use the network: an
    /// issuer that is away does not stop the broker from starting.
    ///
    /// # Errors
    /// [`IdentityError`], which names the entry and what to write instead.
    pub fn new(config: JwtIssuerConfig, options: &IdentityOptions) -> Result<Self, IdentityError> {
        config.check(options.allow_http_loopback)?;
        let validations =
            config.algorithms.iter().map(|&algorithm| (algorithm, validation(&config, algorithm))).collect();
        let endpoint = KeyEndpoint::new(&config, options.allow_http_loopback)?;
        let keys = KeySource::new(config.name.clone(), endpoint, options.keys.with_max_stale(config.max_stale));
        Ok(Self { config, validations, keys })
    }

    /// Verifies a token, cheapest checks first.
    async fn judge(&self, token: &Unverified) -> Result<Claimed, Declined> {
        let now = Timestamp::now();
        // A text that is no JWT at all may be another method's token.
        let Ok(preview) = token.preview() else { return Err(Declined::Foreign) };
        if preview.issuer != self.config.issuer.as_str() {
            return Err(Declined::Foreign);
        }
        if !preview.audiences.iter().any(|audience| self.config.audiences.contains(audience)) {
            return Err(Declined::OtherAudience);
        }
        if preview.expires + self.config.leeway.as_secs_f64() < seconds(now) {
            return Err(Rejected::Expired.into());
        }
        let (_, validation) = self
            .validations
            .iter()
            .find(|(algorithm, _)| *algorithm == preview.algorithm)
            .ok_or_else(|| Rejected::Algorithm(Quoted::new(preview.algorithm.as_str())))?;

        let set = self.keys.with_key(preview.algorithm, preview.kid.as_deref()).await?;
        let mut verdict = Err(Rejected::Signature);
        for key in set.candidates(preview.algorithm, preview.kid.as_deref()) {
            verdict = jsonwebtoken::decode::<Map<String, Value>>(token.expose(), key, validation).map_err(rejection);
            // Two keys may share a kid: only a bad signature is worth another try.
            if !matches!(verdict, Err(Rejected::Signature)) {
                break;
            }
        }
        let claims = verdict?.claims;
        Ok(self.claim(&claims, now, set.generation())?)
    }

    /// What remains after the signature and the registered claims were found good: the times that
    /// jsonwebtoken does not look at, and the mapping.
    fn claim(&self, claims: &Map<String, Value>, now: Timestamp, generation: u64) -> Result<Claimed, Rejected> {
        let missing = |claim: &str| Rejected::MissingClaim(claim.to_owned());
        let exp = claims.get("exp").and_then(Value::as_f64).ok_or_else(|| missing("exp"))?;
        let issued = match claims.get("iat") {
            None | Some(Value::Null) => seconds(now),
            Some(iat) => iat.as_f64().ok_or_else(|| missing("iat"))?,
        };
        let leeway = self.config.leeway.as_secs_f64();
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
        let subject = claims.get("sub").and_then(Value::as_str).ok_or_else(|| missing("sub"))?.to_owned();
        let workload = self.config.workload.workload(claims).map_err(claim("workload"))?;
        let mut attributes = BTreeMap::new();
        for (name, path) in &self.config.attributes {
            if let Some(text) = path.text(claims).map_err(claim(name))? {
                attributes.insert(name.clone(), text);
            }
        }
        Ok(Claimed { workload, subject, attributes, expires_at: timestamp(exp), generation: Some(generation) })
    }
}

#[async_trait]
impl Method for JwtIssuer {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn attributes(&self) -> Vec<String> {
        self.config.attributes.keys().cloned().collect()
    }

    async fn verify(&self, evidence: &Evidence) -> Result<Claimed, Declined> {
        match evidence {
            Evidence::Bearer(token) => self.judge(token).await,
            _ => Err(Declined::Foreign),
        }
    }

    fn generation(&self) -> Option<u64> {
        self.keys.generation()
    }

    async fn warm(&self) {
        self.keys.warm().await;
    }

    async fn ask(&self) -> Result<usize, String> {
        self.keys.ask().await
    }

    fn refresh(&self) {
        self.keys.keep_young();
    }
}

/// What jsonwebtoken is to check. Its defaults do not check `nbf`, and require only `exp`.
fn validation(config: &JwtIssuerConfig, algorithm: SigningAlgorithm) -> Validation {
    let mut validation = Validation::new(Algorithm::from(algorithm));
    validation.set_required_spec_claims(&REQUIRED);
    validation.set_issuer(&[config.issuer.as_str()]);
    validation.set_audience(&config.audiences);
    validation.validate_nbf = true;
    validation.leeway = config.leeway.as_secs();
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
        _ => Rejected::not_a_jwt("not what its header says"),
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
