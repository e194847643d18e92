//! What drivers have to do between calls: a login at a backend that must not run out while leases
//! depend on it.
//!
//! Each target whose driver has the feature is called at start, when a reload brings it, and then
//! after the time that the driver itself gives. So is each driver that a target was moved away from,
//! for as long as a lease that it made is not over: a backend may end all that was made under a
//! login when that login ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jit_core::driver::Feature;
use jit_core::lease::DriverRef;
use jit_core::name::TargetName;
use jit_core::outcome::Outcome;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::board::Board;
use super::driver::{Next, Pace, Pass, Task};
use crate::target::{Remover, Serving};
use crate::work::Wake;
use arc_swap::ArcSwap;
use jit_ledger::{Store, StoreError};

/// The task's name.
const NAME: &str = "upkeep";
/// How often it is looked which drivers leases still need.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// How often upkeep that another broker does is claimed again.
const ANOTHERS: Duration = Duration::from_secs(10);
/// The first wait after a failure; doubled by each further one.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// The longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_secs(120);

/// Whose upkeep: a target by a driver. The digest and the configuration are part of it, so that
/// a new build or another login is called at once.
type Key = (TargetName, String, Option<String>, String, String);

/// When a driver is called next.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Turn {
    due: Instant,
    failures: u32,
    at_work: bool,
}

impl Turn {
    fn at(due: Instant) -> Self {
        Self { due, failures: 0, at_work: false }
    }

    /// How long to wait after so many failures in a row.
    fn backoff(failures: u32) -> Duration {
        FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST_RETRY)
    }

    fn after(&mut self, result: &Result<Duration, String>, now: Instant) {
        self.at_work = false;
        match result {
            Ok(again) => *self = Self::at(now + *again),
            Err(_) => {
                self.failures = self.failures.saturating_add(1);
                self.due = now + Self::backoff(self.failures);
            }
        }
    }
}

/// What it takes to call drivers between requests.
pub struct UpkeepFlow {
    /// Which drivers leases still need.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    /// Another configuration wakes the task.
    pub(crate) wake: Arc<Wake>,
    /// The calls are work beside the task.
    pub(crate) board: Arc<Board>,
}

/// The task. The calls of the drivers are work beside it.
pub struct Upkeep {
    flow: UpkeepFlow,
    turns: BTreeMap<Key, Turn>,
    calls: JoinSet<(Key, Result<Duration, String>)>,
    look_at: Instant,
}

impl Upkeep {
    /// That has called nobody yet.
    #[must_use]
    pub fn new(flow: UpkeepFlow) -> Self {
        Self { flow, turns: BTreeMap::new(), calls: JoinSet::new(), look_at: Instant::now() }
    }

    /// Takes up what leases need now.
    async fn look(&mut self, now: Instant) -> Result<(), StoreError> {
        let wanted = wanted(&self.flow).await?;
        self.look_at = now + LOOK_EVERY;
        self.turns.retain(|key, _| wanted.contains(key));
        for key in wanted {
            self.turns.entry(key).or_insert_with(|| Turn::at(now));
        }
        Ok(())
    }

    /// Begins the calls that are due.
    fn call(&mut self, now: Instant) {
        for (key, turn) in self.turns.iter_mut().filter(|(_, turn)| !turn.at_work && turn.due <= now) {
            // One that is gone by a reload meanwhile is dropped with the next look.
            let Some(remover) = caller(&self.flow.serving.load(), key) else {
                turn.due = now + LOOK_EVERY;
                continue;
            };
            turn.at_work = true;
            let (key, board, store) = (key.clone(), Arc::clone(&self.flow.board), Arc::clone(&self.flow.store));
            self.calls.spawn(async move {
                let what = format!("target {}, driver {}", key.0, key.1);
                let work = format!("upkeep/{}/{}", key.0, key.1);
                match store.claim(&work).await {
                    Ok(true) => {}
                    // It stays with the broker that began it. That one may end.
                    Ok(false) => return (key, Ok(ANOTHERS)),
                    Err(error) => return (key, Err(error.to_string())),
                }
                let called = remover.driver.maintain(&remover.scope, &remover.view);
                let result = match board.beside(NAME, &what, called).await {
                    Some(Outcome::Done(again)) => Ok(again),
                    Some(Outcome::Refused(refusal)) => Err(refusal.reason()),
                    Some(Outcome::Unknown(reason)) => Err(reason),
                    None => Err("the code panicked".to_owned()),
                };
                (key, result)
            });
        }
    }

    fn called(&mut self, key: &Key, result: &Result<Duration, String>) {
        tell(key, result);
        if let Some(turn) = self.turns.get_mut(key) {
            turn.after(result, Instant::now());
        }
    }
}

#[async_trait]
impl Task for Upkeep {
    fn name(&self) -> &str {
        NAME
    }

    fn pace(&self) -> Pace {
        Pace { last_backoff: Duration::from_secs(5), ..Pace::default() }
    }

    async fn pass(&mut self) -> Pass {
        let now = Instant::now();
        let looked = if self.look_at <= now { self.look(now).await } else { Ok(()) };
        self.call(now);
        if let Err(error) = looked {
            tracing::warn!(%error, "which drivers leases need could not be read; it is tried again");
            return Pass::failed(error.to_string());
        }
        let waiting = self.turns.values().filter(|turn| !turn.at_work);
        let next = waiting.map(|turn| turn.due).fold(self.look_at, Instant::min);
        let next = Next::In(next.saturating_duration_since(Instant::now()));
        let failing = self.turns.iter().filter(|(_, turn)| turn.failures > 0);
        let failing: Vec<String> = failing.map(|((target, ..), _)| target.to_string()).collect();
        if failing.is_empty() {
            return Pass::done([("drivers", self.turns.len() as u64)], next);
        }
        Pass::failed_until(format!("the driver's upkeep failed for {}", failing.join(", ")), next)
    }

    /// Returns when a call has ended, or another configuration is served.
    async fn woken(&mut self) {
        let ended = tokio::select! {
            () = self.flow.wake.maintain.notified() => {
                self.look_at = Instant::now();
                return;
            }
            Some(ended) = self.calls.join_next() => ended,
        };
        if let Ok((key, result)) = ended {
            self.called(&key, &result);
        }
    }
}

fn tell((target, driver, ..): &Key, result: &Result<Duration, String>) {
    match result {
        Ok(again) => {
            tracing::debug!(%target, driver, seconds = again.as_secs(), "the driver's upkeep is done until then");
        }
        Err(reason) => {
            metrics::counter!("jit_maintain_failures_total", "target" => target.to_string()).increment(1);
            tracing::warn!(%target, driver, reason, "the driver's upkeep failed; it is tried again");
        }
    }
}

/// Everything that needs upkeep now.
async fn wanted(flow: &UpkeepFlow) -> Result<BTreeSet<Key>, StoreError> {
    let serving = flow.serving.load_full();
    if !serving.drivers.any_needs_upkeep() {
        return Ok(BTreeSet::new());
    }
    let present = serving.targets.values().map(|target| (target.name.clone(), target.driver_ref()));
    let makers = flow.store.makers().await?.into_iter().map(|maker| (maker.target, maker.driver));
    let all = present.chain(makers);
    Ok(all.filter_map(|(target, made_by)| key(&serving, target, made_by)).collect())
}

fn key(serving: &Serving, target: TargetName, made_by: DriverRef) -> Option<Key> {
    let remover = serving.remover(&target, &made_by).ok()?;
    if !remover.driver.description().has(Feature::Maintain) {
        return None;
    }
    let sha256 = remover.driver.sha256().to_owned();
    Some((target, made_by.plugin, made_by.connection, sha256, remover.view.config))
}

/// What to call, as it is configured now.
fn caller(serving: &Serving, (target, plugin, connection, sha256, config): &Key) -> Option<Remover> {
    let made_by = DriverRef {
        plugin: plugin.clone(),
        connection: connection.clone(),
        sha256: sha256.clone(),
        name: None,
        config: Some(config.clone()),
        place: None,
    };
    serving.remover(target, &made_by).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_at_a_growing_and_bounded_pace() {
        let now = Instant::now();
        let mut turn = Turn::at(now);
        let mut waits = Vec::new();
        for _ in 0..100 {
            turn.after(&Err("away".into()), now);
            waits.push(turn.due - now);
        }
        assert!(waits.is_sorted() && waits[0] == FIRST_RETRY && waits[99] == LAST_RETRY);
        turn.after(&Ok(Duration::from_secs(600)), now);
        assert_eq!(turn, Turn::at(now + Duration::from_secs(600)));
    }
}
