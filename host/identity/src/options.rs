//! What the configuration's entries share.

use std::time::Duration;

/// What does not belong to one entry.
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    /// Accept `http` issuers and key sets on loopback addresses. Only `jit-broker dev` sets it.
    pub allow_http_loopback: bool,
    /// How many verified proofs are remembered, in units of one with less than 1 KiB of mapped
    /// claims; one with more counts for more. 0 remembers none.
    pub remembered_tokens: u64,
    /// How long a verified proof is remembered: after that it is verified again.
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

/// When keys are fetched, kept and given up.
#[derive(Debug, Clone)]
pub struct KeyPolicy {
    /// Keys older than this are fetched again in the background while they are used: 10 min.
    pub max_age: Duration,
    /// Keys older than this are not used any more, whatever the issuer's health: 24 h. An entry's own
    /// `max_stale` replaces it.
    pub max_stale: Duration,
    /// Callers who may wait for a fetch at once: 128. They need no valid token for it, only one that
    /// names the issuer, so further callers are refused and may retry.
    pub max_waiters: usize,
    /// Fetches for an unknown `kid`: one per interval (5 s) in the long run …
    pub unknown_kid_interval: Duration,
    /// … and a burst of 2, so that a rotation soon after another is noticed at once.
    pub unknown_kid_burst: u32,
    /// How long a `kid` that a fetch did not bring causes no other fetch: 10 s.
    pub unknown_kid_memory: Duration,
    /// One fetch (discovery and key set together): 5 s.
    pub fetch_deadline: Duration,
    /// The pause after a failed fetch: 1 s, doubled at each further failure …
    pub retry_floor: Duration,
    /// … up to this: 10 s.
    pub retry_ceiling: Duration,
}

impl Default for KeyPolicy {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(10 * 60),
            max_stale: Duration::from_secs(24 * 3600),
            max_waiters: 128,
            unknown_kid_interval: Duration::from_secs(5),
            unknown_kid_burst: 2,
            unknown_kid_memory: Duration::from_secs(10),
            fetch_deadline: Duration::from_secs(5),
            retry_floor: Duration::from_secs(1),
            retry_ceiling: Duration::from_secs(10),
        }
    }
}

impl KeyPolicy {
    /// With an entry's own bound of the keys' age. Keys are fetched again well before they are given up.
    pub(crate) fn with_max_stale(&self, own: Option<Duration>) -> Self {
        let Some(max_stale) = own else { return self.clone() };
        Self { max_stale, max_age: self.max_age.min(max_stale / 4), ..self.clone() }
    }
}
