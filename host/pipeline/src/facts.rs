//! What policies are told beyond the request itself: the facts of context providers, and what the
//! host counts. Both become input and stand in the audit record, so that a decision can be replayed
//! without asking anybody again (PURE-POLICY).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::ports::Context;
use jit_core::policy::{ContextOutcome, ContextRecord, OnFailure, PolicyRequest};
use moka::future::Cache;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

/// The most bytes of facts that one provider's cache holds.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// What an entry costs beside its texts.
const ENTRY_BYTES: usize = 128;
/// The fact that the host adds for each provider.
const STATUS: &str = "status";

type Facts = Arc<BTreeMap<String, String>>;

/// A context provider of a target.
#[derive(Clone)]
pub struct ContextLink {
    /// Its name in the configuration; what its facts' names begin with.
    pub name: String,
    provider: Arc<dyn Context>,
    on_failure: OnFailure,
    /// Facts of a short while ago; none where each request asks.
    cache: Option<Cache<[u8; 32], Facts>>,
}

impl ContextLink {
    /// A provider whose facts are good for `fresh_for`, zero for never.
    #[must_use]
    pub fn new(name: String, provider: Arc<dyn Context>, on_failure: OnFailure, fresh_for: Duration) -> Self {
        let cache = (!fresh_for.is_zero()).then(|| {
            let weigh = |_: &[u8; 32], facts: &Facts| {
                let texts: usize = facts.iter().map(|(name, value)| name.len() + value.len()).sum();
                u32::try_from(texts + ENTRY_BYTES).unwrap_or(u32::MAX)
            };
            Cache::builder().max_capacity(CACHE_BYTES).weigher(weigh).time_to_live(fresh_for).build()
        });
        Self { name, provider, on_failure, cache }
    }

    /// Gathers, or remembers. Requests that ask the same at once wait for one answer.
    async fn facts(&self, request: &PolicyRequest) -> Result<(Facts, ContextOutcome), Arc<String>> {
        let asking = async { Ok(Arc::new(self.provider.gather(request).await?)) };
        let (Some(cache), Some(key)) = (&self.cache, key(request)) else {
            return asking.await.map(|facts| (facts, ContextOutcome::Asked)).map_err(Arc::new);
        };
        let entry = cache.entry(key).or_try_insert_with(asking).await?;
        let outcome = if entry.is_fresh() { ContextOutcome::Asked } else { ContextOutcome::Cached };
        Ok((entry.into_value(), outcome))
    }
}

/// What facts are remembered by: all of the request but when it came and how long it asks for. None for a request that
/// has no form in JSON: its facts are not remembered, rather than shared with those of another such request.
fn key(request: &PolicyRequest) -> Option<[u8; 32]> {
    let same = PolicyRequest { time: 0, ttl_seconds: 0, ..request.clone() };
    serde_json::to_vec(&same).ok().map(|same| Sha256::digest(same).into())
}

/// What the providers of a target gave.
#[derive(Default)]
pub struct Gathered {
    /// Facts by `<provider>.<name>`.
    pub facts: BTreeMap<String, String>,
    /// Each provider's part, for the record.
    pub records: Vec<ContextRecord>,
    /// The first provider that failed and whose failure denies.
    pub failed: Option<String>,
}

/// Asks these providers, all at once; each has its own deadline.
pub async fn gather<'a>(providers: impl Iterator<Item = &'a ContextLink>, request: &PolicyRequest) -> Gathered {
    let asked = providers.map(|link| async move {
        let started = Instant::now();
        (link, link.facts(request).await, started.elapsed())
    });
    let mut gathered = Gathered::default();
    for (link, answer, took) in futures_util::future::join_all(asked).await {
        let (outcome, error) = match answer {
            Ok((facts, outcome)) => {
                let named = facts.iter().map(|(name, value)| (format!("{}.{name}", link.name), value.clone()));
                gathered.facts.extend(named);
                (outcome, None)
            }
            Err(fault) => {
                tracing::warn!(context = link.name, %fault, "a context provider failed");
                metrics::counter!("jit_plugin_faults_total", "plugin" => link.name.clone()).increment(1);
                (ContextOutcome::Failed, Some(fault.to_string()))
            }
        };
        // Last, so that no provider can say it of itself.
        let status = if error.is_some() { "failed" } else { "ok" };
        gathered.facts.insert(format!("{}.{STATUS}", link.name), status.to_owned());
        let failed_open = error.is_some() && link.on_failure == OnFailure::Allow;
        if error.is_some() && !failed_open {
            gathered.failed.get_or_insert_with(|| link.name.clone());
        }
        let word = if failed_open { "failed_open" } else { outcome.as_str() };
        metrics::counter!("jit_context_total", "context" => link.name.clone(), "outcome" => word).increment(1);
        metrics::histogram!("jit_context_seconds", "context" => link.name.clone()).record(took);
        gathered.records.push(ContextRecord {
            name: link.name.clone(),
            outcome,
            error,
            failed_open,
            plugin_sha256: link.provider.sha256().to_owned(),
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        });
    }
    gathered
}

/// What the caller is told of a provider whose failure denies. Why it failed is in the record and in
/// the log: it may tell of the inside.
#[must_use]
pub fn failed(provider: &str) -> String {
    format!("the context provider {provider} could not gather its facts")
}
