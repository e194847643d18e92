//! What every identity method does.

use async_trait::async_trait;

use crate::evidence::Evidence;
use crate::rejected::Rejected;
use crate::verified::Claimed;

/// The most methods that one broker is configured with.
pub const MAX_METHODS: usize = 64;

/// Why a method does not vouch for a piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declined {
    /// The evidence is of another kind, or of an issuer that this method does not know. The next method is
    /// asked.
    Foreign,
    /// The evidence is of this method's issuer, but for an audience that it does not accept. The next
    /// method is asked: it may know the same issuer for that audience.
    OtherAudience,
    /// The method has judged the evidence. No other method is asked, or else the laxest one would count.
    Rejected(Rejected),
}

impl From<Rejected> for Declined {
    fn from(reason: Rejected) -> Self {
        match reason {
            Rejected::WrongAudience => Declined::OtherAudience,
            reason => Declined::Rejected(reason),
        }
    }
}

/// One configured way to prove an identity: an issuer of tokens, a trust domain, a cloud account.
///
/// A method decides by itself which evidence is its own, by the evidence's own words (a token's `iss`), and
/// cheaply: without cryptography and without the network, since most of what it sees is for others.
/// What it accepts has to pass the contract suite (`contract.rs`).
#[async_trait]
pub trait Method: Send + Sync {
    /// The configured name, unique among all methods: the issuer of every principal that it verifies.
    fn name(&self) -> &str;

    /// The attributes that its evidence may give, for whoever explains a decision.
    fn attributes(&self) -> Vec<String>;

    /// Verifies evidence. Every wait in it has a deadline. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Declined`]. Without its keys a method rejects; it never falls back to weaker checks.
    async fn verify(&self, evidence: &Evidence) -> Result<Claimed, Declined>;

    /// Which keys are in use. The number changes as soon as a key is added or withdrawn; then every
    /// remembered verdict of this method is worthless. `None` before the first keys.
    fn generation(&self) -> Option<u64>;

    /// Fetches the keys if there are none. A failure is logged, and the fetch is tried again on use.
    async fn warm(&self);

    /// Fetches the keys now, whatever is known of them. Returns how many can verify evidence, or why they
    /// cannot be had.
    async fn ask(&self) -> Result<usize, String>;

    /// Begins to fetch keys that are old, whether they are used or not, and sets the metric of their age.
    /// Does not wait.
    fn refresh(&self);
}
