//! When an issuer's keys are fetched, kept and given up.
//!
//! Who owns what: readers take the current set from an [`ArcSwapOption`] and never wait for a
//! lock. [`Refresh`] is behind a mutex that is held for a few instructions, never across a fetch.
//! A fetch runs in a task of its own: it does not end because the caller that caused it went
//! away, and everybody who needs it waits for the same one.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use jit_core::causes::with_causes;
use jit_core::certificate::{Remedy, explained};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};

use super::fetch::KeyEndpoint;
use super::key_set::{KeyList, KeySet, Match};
use crate::algorithm::SigningAlgorithm;
use crate::options::KeyPolicy;
use crate::rejected::{Quoted, Rejected};

/// The most unknown `kid`s that are remembered, of at most 256 bytes each.
const MAX_UNKNOWN: usize = 1024;

/// What a fetch brought: the keys, or why not.
type Outcome = Result<Arc<KeySet>, Arc<str>>;
type Landing = watch::Receiver<Option<Outcome>>;

/// Why somebody wants new keys.
#[derive(Clone, Copy)]
enum Wish<'a> {
    /// There are none that may be used.
    NoKeys,
    /// They are older than [`KeyPolicy::max_age`].
    Age,
    /// A token's key is not among them.
    UnknownKid(&'a str),
}

enum Begun {
    /// This wish started a fetch.
    Started(Landing),
    /// One was already on its way: it may have left the issuer before the key was published.
    Joined(Landing),
    /// Not now.
    Held,
}

/// What decides whether a fetch may begin.
struct Refresh {
    in_flight: Option<Landing>,
    failures: u32,
    /// After a failure: no fetch before this.
    not_before: Option<Instant>,
    last_error: Option<Arc<str>>,
    /// The log has the error about old keys already.
    told_stale: bool,
    /// What is left of the burst, and since when the next one is being earned.
    allowance: u32,
    earning_since: Instant,
    unknown: HashMap<String, Instant>,
}

/// One issuer's keys.
pub(super) struct KeySource {
    name: String,
    endpoint: KeyEndpoint,
    policy: KeyPolicy,
    current: ArcSwapOption<KeySet>,
    refresh: Mutex<Refresh>,
    /// A place for each caller who may wait.
    waiting: Semaphore,
}

impl KeySource {
    pub(super) fn new(name: String, endpoint: KeyEndpoint, policy: KeyPolicy) -> Arc<Self> {
        let refresh = Refresh {
            in_flight: None,
            failures: 0,
            not_before: None,
            last_error: None,
            told_stale: false,
            allowance: policy.unknown_kid_burst,
            earning_since: Instant::now(),
            unknown: HashMap::new(),
        };
        let waiting = Semaphore::new(policy.max_waiters);
        Arc::new(Self {
            name,
            endpoint,
            policy,
            current: ArcSwapOption::empty(),
            refresh: Mutex::new(refresh),
            waiting,
        })
    }

    /// The generation of the current keys.
    pub(super) fn generation(&self) -> Option<u64> {
        self.current.load().as_ref().map(|set| set.generation())
    }

    /// Fetches the keys if there are none.
    pub(super) async fn warm(self: &Arc<Self>) {
        if self.usable().is_none()
            && let Begun::Started(landing) | Begun::Joined(landing) = self.begin(Wish::NoKeys)
        {
            self.wait(landing).await.ok();
        }
    }

    /// Fetches the keys without regard to what is known, and keeps what it brought.
    pub(super) async fn ask(self: &Arc<Self>) -> Result<usize, String> {
        let landing = match self.begin(Wish::NoKeys) {
            Begun::Started(landing) | Begun::Joined(landing) => landing,
            Begun::Held => {
                let told = self.refresh().last_error.clone();
                return Err(told.map_or_else(|| "it failed a moment ago".to_owned(), |told| told.to_string()));
            }
        };
        self.wait(landing).await.map(|set| set.len()).map_err(|detail| detail.to_string())
    }

    /// Begins a fetch of keys that have come of age, and tells how old they are.
    pub(super) fn keep_young(self: &Arc<Self>) {
        let Some(age) = self.current.load().as_ref().map(|set| set.age()) else {
            self.begin(Wish::NoKeys);
            return;
        };
        metrics::gauge!("jit_identity_keys_age_seconds", "issuer" => self.name.clone()).set(age.as_secs_f64());
        if age <= self.policy.max_age {
            return;
        }
        self.begin(Wish::Age);
        // Between fetches that fail one by one, the one line that says what it comes to.
        let half = self.policy.max_stale / 2;
        if age > half && !self.refresh().told_stale {
            self.refresh().told_stale = true;
            let given_up = self.policy.max_stale.saturating_sub(age).as_secs();
            tracing::error!(issuer = %self.name, age_seconds = age.as_secs(), seconds_left = given_up, "the issuer has not confirmed its keys for long; when `max_stale` has passed its tokens are refused");
        }
    }

    /// A key set with a key for this algorithm and `kid`: the current one, or after one fetch
    /// (two when the first was already under way).
    pub(super) async fn with_key(
        self: &Arc<Self>,
        algorithm: SigningAlgorithm,
        kid: Option<&str>,
    ) -> Result<Arc<KeySet>, Rejected> {
        let label = kid.unwrap_or("(no kid)");
        let unknown = || Rejected::UnknownKey(Quoted::new(label));
        let mut set = self.usable();
        for _ in 0..2 {
            let wish = match &set {
                None => Wish::NoKeys,
                Some(set) => match set.matches(algorithm, kid) {
                    Match::Ambiguous => return Err(Rejected::AmbiguousKey),
                    Match::Found => {
                        if set.age() > self.policy.max_age {
                            // Not waited for: the keys at hand are good until max_stale.
                            self.begin(Wish::Age);
                        }
                        return Ok(Arc::clone(set));
                    }
                    Match::NotFound => Wish::UnknownKid(label),
                },
            };
            let (landing, mine) = match self.begin(wish) {
                Begun::Started(landing) => (landing, true),
                Begun::Joined(landing) => (landing, false),
                Begun::Held if set.is_none() => return Err(self.unavailable(None)),
                Begun::Held => return Err(unknown()),
            };
            let Ok(_place) = self.waiting.try_acquire() else {
                return Err(Rejected::IssuerBusy { issuer: self.name.clone() });
            };
            let fetched = self.wait(landing).await.map_err(|detail| self.unavailable(Some(detail)))?;
            match fetched.matches(algorithm, kid) {
                Match::Found => return Ok(fetched),
                Match::Ambiguous => return Err(Rejected::AmbiguousKey),
                Match::NotFound => {}
            }
            set = Some(fetched);
            if mine {
                break;
            }
        }
        self.remember_unknown(label);
        Err(unknown())
    }

    /// The current set, while it may be used.
    fn usable(&self) -> Option<Arc<KeySet>> {
        self.current.load_full().filter(|set| set.age() <= self.policy.max_stale)
    }

    fn unavailable(&self, detail: Option<Arc<str>>) -> Rejected {
        let detail =
            detail.or_else(|| self.refresh().last_error.clone()).unwrap_or_else(|| Arc::from("not fetched yet"));
        Rejected::IssuerUnavailable { issuer: self.name.clone(), detail }
    }

    /// Begins a fetch, joins the one under way, or says that it is too early.
    fn begin(self: &Arc<Self>, wish: Wish<'_>) -> Begun {
        let now = Instant::now();
        let mut refresh = self.refresh();
        if let Some(landing) = &refresh.in_flight {
            return Begun::Joined(landing.clone());
        }
        if refresh.not_before.is_some_and(|time| now < time) {
            return Begun::Held;
        }
        if let Wish::UnknownKid(kid) = wish {
            let known_unknown =
                refresh.unknown.get(kid).is_some_and(|&seen| now.duration_since(seen) < self.policy.unknown_kid_memory);
            if known_unknown || !refresh.spend(now, &self.policy) {
                return Begun::Held;
            }
        }
        let (sender, landing) = watch::channel(None);
        refresh.in_flight = Some(landing.clone());
        drop(refresh);

        let flight = Flight { source: Arc::clone(self), sender, landed: false };
        tokio::spawn(flight.fly());
        Begun::Started(landing)
    }

    async fn wait(&self, mut landing: Landing) -> Outcome {
        // Bounded by the fetch's own deadline: the sender answers or is dropped.
        match landing.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(Arc::from("no outcome"))),
            Err(_) => Err(Arc::from("the broker is shutting down")),
        }
    }

    fn remember_unknown(&self, kid: &str) {
        let now = Instant::now();
        let mut refresh = self.refresh();
        if refresh.unknown.len() >= MAX_UNKNOWN {
            let memory = self.policy.unknown_kid_memory;
            refresh.unknown.retain(|_, &mut seen| now.duration_since(seen) < memory);
        }
        // When it is full of recent ones the allowance alone protects the issuer.
        if refresh.unknown.len() < MAX_UNKNOWN {
            refresh.unknown.insert(kid.to_owned(), now);
        }
    }

    fn refresh(&self) -> MutexGuard<'_, Refresh> {
        self.refresh.lock()
    }
}

impl Refresh {
    /// Takes one from the allowance, which grows by one each interval up to the burst.
    fn spend(&mut self, now: Instant, policy: &KeyPolicy) -> bool {
        let interval = policy.unknown_kid_interval.as_nanos().max(1);
        let earned = now.duration_since(self.earning_since).as_nanos() / interval;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.allowance = self.allowance.saturating_add(earned).min(policy.unknown_kid_burst);
            self.earning_since = now;
        }
        if self.allowance == 0 {
            return false;
        }
        self.allowance -= 1;
        true
    }
}

/// A fetch under way. Whatever becomes of its task, dropping it lets the next one begin.
struct Flight {
    source: Arc<KeySource>,
    sender: watch::Sender<Option<Outcome>>,
    landed: bool,
}

impl Flight {
    async fn fly(mut self) {
        let source = Arc::clone(&self.source);
        let fetched = source.endpoint.fetch(source.policy.fetch_deadline).await;
        let outcome = match fetched {
            Ok(keys) => Ok(self.accept(keys)),
            Err(error) => Err(self.fail(&error)),
        };
        // No longer in flight before anybody wakes: who wakes may have to begin another.
        source.refresh().in_flight = None;
        self.landed = true;
        self.sender.send_replace(Some(outcome));
    }

    fn accept(&self, keys: KeyList) -> Arc<KeySet> {
        let source = &self.source;
        let now = Instant::now();
        let count = keys.len();
        let before = source.current.load_full();
        let set = Arc::new(match &before {
            Some(before) => before.followed_by(keys, now),
            None => KeySet::first(keys, now),
        });
        // Only one flight at a time gets here, so nothing newer is overwritten.
        source.current.store(Some(Arc::clone(&set)));
        let changed = before.is_none_or(|before| before.generation() != set.generation());
        let mut refresh = source.refresh();
        refresh.failures = 0;
        refresh.not_before = None;
        refresh.last_error = None;
        refresh.told_stale = false;
        drop(refresh);
        if changed {
            tracing::info!(issuer = %source.name, keys = count, "issuer's keys changed");
        }
        count_fetch(&source.name, "ok");
        set
    }

    fn fail(&self, error: &dyn Error) -> Arc<str> {
        let source = &self.source;
        let detail: Arc<str> = explained(&with_causes(error), Remedy::ISSUER).into();
        let mut refresh = source.refresh();
        let doublings = refresh.failures.min(16);
        let pause = source.policy.retry_floor.saturating_mul(1 << doublings);
        refresh.failures += 1;
        let failures = refresh.failures;
        refresh.not_before = Some(Instant::now() + pause.min(source.policy.retry_ceiling));
        refresh.last_error = Some(Arc::clone(&detail));
        drop(refresh);
        // Each doubling: a provider that is away for a day does not fill the log.
        if failures.is_power_of_two() {
            tracing::warn!(issuer = %source.name, error = %detail, failures, "cannot fetch the issuer's keys");
        }
        count_fetch(&source.name, "failed");
        detail
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // After landing, what is in flight is another one.
        if !self.landed {
            self.source.refresh().in_flight = None;
        }
    }
}

fn count_fetch(issuer: &str, outcome: &'static str) {
    metrics::counter!("jit_identity_key_fetches_total", "issuer" => issuer.to_owned(), "outcome" => outcome)
        .increment(1);
}
