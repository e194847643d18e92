//! The configured methods, and the verdicts of theirs of the last minute.

use std::sync::Arc;

use jiff::Timestamp;
use moka::future::Cache;

use crate::error::IdentityError;
use crate::evidence::Evidence;
use crate::method::{Declined, MAX_METHODS, Method};
use crate::options::IdentityOptions;
use crate::rejected::Rejected;
use crate::verified::Verified;

/// An issuer as whoever explains a decision has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownIssuer {
    /// The entry's name.
    pub name: String,
    /// The attributes that its evidence may give.
    pub attributes: Vec<String>,
}

/// Evidence that was verified, by which method and by which keys.
struct Remembered {
    verified: Arc<Verified>,
    method: usize,
    /// The generation of the method's keys that verified it. Another generation (a key was added, or
    /// dropped because it leaked) makes the entry worthless.
    generation: u64,
}

/// The configured identity methods, and the evidence that they verified in the last minute.
///
/// An asymmetric verification costs 30 to 150 µs, and an application sends the same token for
/// minutes: verified evidence is remembered by its SHA-256 (never as text). It is forgotten after
/// [`IdentityOptions::reverify_after`], at its own expiry, and as soon as the method's keys change. What is
/// remembered belongs to one `Identity`: another configuration begins without any.
pub struct Identity {
    methods: Vec<Arc<dyn Method>>,
    remembered: Cache<[u8; 32], Arc<Remembered>>,
}

impl Identity {
    /// With these methods, which are asked in this order.
    ///
    /// # Errors
    /// [`IdentityError::TooManyMethods`] beyond [`MAX_METHODS`], [`IdentityError::DuplicateName`] when two
    /// have one name.
    pub fn new(methods: Vec<Arc<dyn Method>>, options: &IdentityOptions) -> Result<Self, IdentityError> {
        if methods.len() > MAX_METHODS {
            return Err(IdentityError::TooManyMethods);
        }
        for (index, method) in methods.iter().enumerate() {
            if methods[..index].iter().any(|other| other.name() == method.name()) {
                return Err(IdentityError::DuplicateName { name: method.name().to_owned() });
            }
        }
        let remembered = Cache::builder()
            .max_capacity(options.remembered_tokens)
            .time_to_live(options.reverify_after)
            .weigher(|_, entry: &Arc<Remembered>| {
                1 + u32::try_from(entry.verified.mapped_bytes() / 1024).unwrap_or(u32::MAX - 1)
            })
            .build();
        Ok(Self { methods, remembered })
    }

    /// Fetches every method's keys now, side by side, so that the first caller does not wait for
    /// them. Failures are logged and tried again on use.
    pub async fn warm(&self) {
        futures_util::future::join_all(self.methods.iter().map(|method| method.warm())).await;
    }

    /// What is known of each method without asking its issuer, in the order of the configuration.
    #[must_use]
    pub fn issuers(&self) -> Vec<KnownIssuer> {
        let known =
            |method: &Arc<dyn Method>| KnownIssuer { name: method.name().to_owned(), attributes: method.attributes() };
        self.methods.iter().map(known).collect()
    }

    /// Verifies what came with one request: exactly one piece of evidence. May wait for the issuer's keys, at
    /// most twice [`KeyPolicy::fetch_deadline`](crate::KeyPolicy); dropping the future loses nothing.
    ///
    /// The methods are asked in the order of the configuration. The first one that neither calls the
    /// evidence foreign nor meant for another audience decides: it names the principal, or its reason is
    /// returned. What it refuses is not tried with the next one, or else the laxest entry would count.
    ///
    /// # Errors
    /// [`Rejected`], for the log and the metrics. The caller learns nothing but 401.
    pub async fn verify(&self, evidence: Vec<Evidence>) -> Result<Arc<Verified>, Rejected> {
        let evidence = match evidence.as_slice() {
            [] => return Err(Rejected::Missing),
            [evidence] => evidence,
            // Whichever were taken, the other one's owner would act under a name that is not theirs.
            _ => return Err(Rejected::Several),
        };
        let digest = evidence.digest();
        if let Some(digest) = &digest
            && let Some(hit) = self.remembered.get(digest).await
            && self.still_holds(&hit)
        {
            return Ok(Arc::clone(&hit.verified));
        }

        let mut reason = None;
        for (index, method) in self.methods.iter().enumerate() {
            match method.verify(evidence).await {
                Ok(claimed) => {
                    let generation = claimed.generation;
                    let verified = Arc::new(claimed.check(method.name(), Timestamp::now())?);
                    if let (Some(digest), Some(generation)) = (digest, generation) {
                        let entry = Remembered { verified: Arc::clone(&verified), method: index, generation };
                        self.remembered.insert(digest, Arc::new(entry)).await;
                    }
                    return Ok(verified);
                }
                Err(Declined::Foreign) => {}
                // An entry for another audience says nothing about evidence that is not for it.
                Err(Declined::OtherAudience) => reason = Some(Rejected::WrongAudience),
                Err(Declined::Rejected(reason)) => return Err(reason),
            }
        }
        Err(reason.unwrap_or_else(|| evidence.unclaimed()))
    }

    /// Asks every issuer for its keys now, side by side, whatever is known of them: for a check of the
    /// configuration. Returns each entry's name with how many of its published keys can verify evidence, or
    /// with why they cannot be had. Takes at most [`KeyPolicy::fetch_deadline`](crate::KeyPolicy).
    pub async fn ask_issuers(&self) -> Vec<(String, Result<usize, String>)> {
        let asked = self.methods.iter().map(async |method| (method.name().to_owned(), method.ask().await));
        futures_util::future::join_all(asked).await
    }

    /// Begins to fetch keys that are older than [`KeyPolicy::max_age`](crate::KeyPolicy), whether they are
    /// used or not, so that a key that its issuer withdrew is not good until its next use. Sets the metric of
    /// each set's age.
    pub fn refresh(&self) {
        self.methods.iter().for_each(|method| method.refresh());
    }

    fn still_holds(&self, entry: &Remembered) -> bool {
        Timestamp::now() < entry.verified.expires_at
            && self.methods[entry.method].generation() == Some(entry.generation)
    }
}
