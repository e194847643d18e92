//! Who is asking: from a bearer token as it came to a principal that the broker vouches for.
//!
//! In scope: the checks of a token, the keys of its issuer, the mapping of its claims. Out of
//! scope: what the principal may do (policy), and how HTTP reports a refusal (every [`Rejected`] is
//! the same 401 to the caller; the reason is for the log and the metrics only).
//!
//! ```text
//! Authorization header ─▶ Unverified ─▶ Identity::verify ─▶ Verified
//! ```
//!
//! Only the verifiers in this crate can make a [`Verified`]: to audit who vouches for a caller,
//! search for `Proof::of_verification`.
//!
//! What a stranger sends is cheap to refuse: a malformed, expired or foreign token costs no
//! cryptography and no network; an unknown key costs at most one fetch for everybody who waits,
//! and at most one each few seconds (see [`KeyPolicy`]).
//!
//! Trusted: the configured issuers, for the names of their own workloads and nothing else. An
//! issuer that lies can name any workload *of that issuer*: the principal carries the issuer's
//! configured name, so it cannot speak for another's.
//!
//! A new identity method is one file (or folder) here, beside [`jwt`], and one more list in
//! [`Identity::new`].

mod claims;
pub mod jwt;
mod rejected;
#[cfg(test)]
mod tests;
mod verified;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::future::Cache;
use sha2::{Digest as _, Sha256};

pub use self::claims::{ClaimPath, ClaimPathError, ClaimProblem, WorkloadTemplate};
use self::jwt::JwtIssuer;
use self::jwt::preview::Preview;
pub use self::jwt::{IdentityError, JwtIssuerConfig, KeyPolicy, Leeway, SigningAlgorithm};
pub use self::rejected::{Quoted, Rejected};
pub use self::verified::{MAX_TOKEN, Unverified, Verified};

/// The most issuers that one broker trusts.
pub const MAX_ISSUERS: usize = 64;

/// What does not belong to one issuer.
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    /// Accept `http` issuers and key sets on loopback addresses. Only `jit-broker dev` sets it.
    pub allow_http_loopback: bool,
    /// How many verified tokens are remembered, in units of one token with less than 1 KiB of
    /// mapped claims; a token with more counts for more. 0 remembers none.
    pub remembered_tokens: u64,
    /// How long a verified token is remembered: after that it is verified again.
    pub reverify_after: Duration,
    /// When keys are fetched, kept and given up.
    pub keys: KeyPolicy,
}

impl Default for IdentityOptions {
    fn default() -> Self {
        Self {
            allow_http_loopback: false,
            remembered_tokens: 10_000,
            reverify_after: Duration::from_secs(60),
            keys: KeyPolicy::default(),
        }
    }
}

/// An issuer as whoever explains a decision has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownIssuer {
    /// The entry's name.
    pub name: String,
    /// The attributes that its tokens may give.
    pub attributes: Vec<String>,
}

/// A token that was verified, and by which keys.
struct Remembered {
    verified: Arc<Verified>,
    issuer: usize,
    /// The generation of the issuer's key set that verified it. Another generation (a key was
    /// added, or dropped because it leaked) makes the entry worthless.
    generation: u64,
}

/// The configured issuers, and the tokens of theirs that were verified in the last minute.
///
/// An asymmetric verification costs 30 to 150 µs, and an application sends the same token for
/// minutes: verified tokens are remembered by their SHA-256 (never as text). A remembered token is
/// forgotten after [`IdentityOptions::reverify_after`], at its own expiry, and as soon as the
/// issuer's key set changes.
pub struct Identity {
    issuers: Vec<JwtIssuer>,
    remembered: Cache<[u8; 32], Arc<Remembered>>,
}

impl Identity {
    /// Checks the configuration, reads the CA files and prepares the HTTP clients. Does not use
    /// the network: an issuer that is away does not stop the broker from starting.
    ///
    /// # Errors
    /// [`IdentityError`], which names the issuer's entry and what to write instead.
    pub fn new(issuers: Vec<JwtIssuerConfig>, options: &IdentityOptions) -> Result<Self, IdentityError> {
        if issuers.len() > MAX_ISSUERS {
            return Err(IdentityError::TooManyIssuers);
        }
        let mut ready: Vec<JwtIssuer> = Vec::with_capacity(issuers.len());
        for config in issuers {
            if ready.iter().any(|other| other.name() == config.name) {
                return Err(IdentityError::DuplicateName { name: config.name });
            }
            ready.push(JwtIssuer::new(config, options)?);
        }
        let remembered = Cache::builder()
            .max_capacity(options.remembered_tokens)
            .time_to_live(options.reverify_after)
            .weigher(|_, entry: &Arc<Remembered>| {
                1 + u32::try_from(entry.verified.mapped_bytes() / 1024).unwrap_or(u32::MAX - 1)
            })
            .build();
        Ok(Self { issuers: ready, remembered })
    }

    /// Fetches every issuer's keys now, side by side, so that the first caller does not wait for
    /// them. Failures are logged and tried again on use.
    pub async fn warm(&self) {
        futures_util::future::join_all(self.issuers.iter().map(JwtIssuer::warm)).await;
    }

    /// What is known of each issuer without asking it, in the order of the configuration.
    #[must_use]
    pub fn issuers(&self) -> Vec<KnownIssuer> {
        self.issuers.iter().map(JwtIssuer::known).collect()
    }

    /// Verifies a token. May wait for the issuer's keys, at most twice
    /// [`KeyPolicy::fetch_deadline`]; dropping the future loses nothing.
    ///
    /// Where several entries have the same issuer, the first one in the order of the configuration that
    /// accepts the token's audience decides: it names the principal, or its reason is returned. What it
    /// refuses is not tried with the next one, or else the laxest entry would count.
    ///
    /// # Errors
    /// [`Rejected`], for the log and the metrics. The caller is told nothing but 401.
    pub async fn verify(&self, token: Unverified) -> Result<Arc<Verified>, Rejected> {
        let digest: [u8; 32] = Sha256::digest(token.expose().as_bytes()).into();
        if let Some(hit) = self.remembered.get(&digest).await
            && self.still_holds(&hit)
        {
            return Ok(Arc::clone(&hit.verified));
        }

        let preview = Preview::read(token.expose())?;
        let mut known = false;
        for (index, issuer) in self.issuers.iter().enumerate() {
            if issuer.issuer() != preview.issuer {
                continue;
            }
            known = true;
            match issuer.verify(&preview).await {
                Ok((verified, generation)) => {
                    let verified = Arc::new(verified);
                    let entry = Remembered { verified: Arc::clone(&verified), issuer: index, generation };
                    self.remembered.insert(digest, Arc::new(entry)).await;
                    return Ok(verified);
                }
                // An entry for another audience says nothing about a token that is not for it.
                Err(Rejected::WrongAudience) => {}
                Err(reason) => return Err(reason),
            }
        }
        Err(if known { Rejected::WrongAudience } else { Rejected::UnknownIssuer(Quoted::new(&preview.issuer)) })
    }

    /// Asks every issuer for its keys now, side by side, whatever is known of them: for a check of the
    /// configuration. Returns each entry's name with how many of its published keys can verify a token, or
    /// with why they cannot be had. Takes at most [`KeyPolicy::fetch_deadline`].
    pub async fn ask_issuers(&self) -> Vec<(String, Result<usize, String>)> {
        let asked = self.issuers.iter().map(async |issuer| (issuer.name().to_owned(), issuer.ask().await));
        futures_util::future::join_all(asked).await
    }

    /// Fetches keys that are older than [`KeyPolicy::max_age`] whether they are used or not, so that a key
    /// that its issuer withdrew is not good until its next use. Sets the metric of each set's age.
    pub fn refresh(&self) {
        self.issuers.iter().for_each(JwtIssuer::refresh);
    }

    fn still_holds(&self, entry: &Remembered) -> bool {
        Timestamp::now() < entry.verified.expires_at
            && self.issuers[entry.issuer].generation() == Some(entry.generation)
    }
}
